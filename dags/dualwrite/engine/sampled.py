"""Do the catalog's conditions, functions and ids fit the documents? A few documents show it before a whole collection is
rejected, or before a function with random results makes every row a difference."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dualwrite import settings
from dualwrite.engine.fault import Fault
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.conditions import looked_at
from dualwrite.model.declaration import Collection, Computed, ComputedEntries, Origin
from dualwrite.model.documents import Document
from dualwrite.model.errors import BudgetError, SourceError
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.origins import within

log = logging.getLogger(__name__)

_LOOKED_AT = 20


def look(source: Source, collections: Iterable[Collection]) -> list[Fault]:
    """Faults of conditions, functions and keys that two documents may have: how many of a few documents they don't fit, and why.
    Bills one count and up to 20 documents for each collection with one of them."""
    faults: list[Fault] = []
    for collection in collections:
        if collection.where is None and not _has_functions(collection) and not _may_share_keys(collection):
            continue
        try:
            _, documents = source.first(next(iter(scans(collection, None))), _LOOKED_AT)
        except (SourceError, BudgetError) as error:
            log.warning("%s: it is unknown whether its conditions, functions and keys fit: %s", collection.name, error)
            continue
        faults += _judged(collection, documents)
    return faults


def _has_functions(collection: Collection) -> bool:
    """Whether a person's function computes a column, a condition or the entries."""
    judged = () if collection.where is None else looked_at(collection.where)
    origins = [column.origin for column in collection.columns] + [what for what in judged if isinstance(what, Origin)]
    computed = any(isinstance(part, Computed) for origin in origins for part in within(origin))
    return computed or isinstance(collection.entries, ComputedEntries)


def _may_share_keys(collection: Collection) -> bool:
    """Whether rows of two documents may have one key, for all that the catalog says. (A natural key's documents aren't looked at:
    several may share one, and are duplicates.)"""
    if collection.has_one_row:
        return collection.keyed_by_path and not collection.keyed_by_whole_path
    column = collection.document_column
    return not collection.is_one_document and (column is None or column.role != "key")


@dataclass(slots=True)
class _Faults:
    """Documents of one kind of fault, and why."""

    paths: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, document: Document, reasons: set[str]) -> None:
        if reasons:
            self.paths.append(document.path)
            self.reasons.update(reasons)

    def listed(self) -> str:
        return "; ".join(reason for reason, _ in self.reasons.most_common(3))


def _judged(collection: Collection, documents: Iterable[Document]) -> list[Fault]:
    unjudged, failed, impure, looked = _Faults(), _Faults(), _Faults(), 0
    of_key: dict[Key, str] = {}
    shared: dict[str, str] = {}
    """By path of a document with the key of an earlier one, that one's path."""
    for document in documents:
        units = map_document(collection, document)
        looked += units is not None
        reasons = {unit.reason for unit in units or () if isinstance(unit, Rejection)}
        unjudged.add(document, {why for why in reasons if why.startswith("cant_be_judged")})
        failed.add(document, {why for why in reasons if why.startswith("not_computed")})
        if _may_share_keys(collection):
            for key in [unit.key for unit in units or () if isinstance(unit, Row)]:
                if (other := of_key.setdefault(key, document.path)) != document.path:
                    shared[document.path] = other
        if _has_functions(collection) and map_document(collection, document) != units:
            impure.add(document, {"another row"})
    name, file = collection.name, settings.catalog_file()
    faults: list[Fault] = []
    if unjudged.paths:
        faults.append(Fault(
            f"where= of {name} can't judge {len(unjudged.paths)} of {looked} documents that were looked at, and they are rejected "
            f"({unjudged.listed()}). Correct where= in {file} (a conversion reads other types: Is(Field(...) >> boolean, True)), or the "
            "documents."
        ))  # fmt: skip
    if failed.paths:
        faults.append(Fault(
            f"A function of {name} can't take {len(failed.paths)} of {looked} documents that were looked at, {failed.paths[0]} for "
            f"example, and they are rejected ({failed.listed()}). Correct it in {file}."
        ))  # fmt: skip
    if shared:
        [(path, other), *_] = shared.items()
        both = f"{other} and {path} for example, and one row can't be both"
        text = f"Of {looked} documents of {name} that were looked at, {len(shared)} have "
        if collection.has_one_row:
            text += f"the key of another one, {both}: the key doesn't tell their paths apart. Add the parents' ids to the key in {file} "
            text += "and in the table, or give the documents other ids."
        else:
            text += f"an entry with the key of another document's, {both}: the key doesn't hold the document's id. Add it to the key in {file} "
            text += "and in the table, or identify entries by a value that no other document has."
        faults.append(Fault(text))
    if impure.paths:
        faults.append(Fault(
            f"A function of {name} makes two rows of one document ({impure.paths[0]} for example; {len(impure.paths)} of {looked} that "
            f"were looked at). It must depend on nothing but its arguments: correct it in {file}.", stops=True,
        ))  # fmt: skip
    return faults


def of_other_ids(source: Source, collections: Iterable[Collection]) -> list[Fault]:
    """Faults of declared id patterns: for each collection of whose documents a few don't have such ids. Bills one count and up
    to 20 names for each collection with a pattern."""
    faults: list[Fault] = []
    for collection in collections:
        if collection.is_plain:
            continue
        scan = Scan(collection.collection_id, (), collection.top_level)
        if len(collection.templates) == 1:
            scan = replace(scan, start=collection.templates[0].first)
        try:
            _, documents = source.first(scan, _LOOKED_AT)
        except (SourceError, BudgetError) as error:
            log.warning(
                "%s: it is unknown whether its documents have ids as the catalog says: %s", collection.name, error
            )
            continue
        own = [document.path for document in documents if collection.has(document.path)]
        unsplit = [path for path in own if collection.match(path) is None]
        paths, place = " or ".join(collection.paths), f"paths= in {settings.catalog_file()}"
        if documents and not own:
            faults.append(Fault(
                f"None of {len(documents)} documents of collection id {collection.collection_id} that were looked at is one of {collection.name} "
                f"({paths}). If these aren't another collection's, correct {place}: its rows would be called extra."
            ))  # fmt: skip
        if unsplit:
            faults.append(Fault(
                f"Of {len(own)} documents of {collection.name} that were looked at, {len(unsplit)} have an id that can't be split in one way as "
                f"{paths} says, and are rejected. Give a part its length ({{user:28}}) or another form in {place}, or the documents other ids."
            ))  # fmt: skip
    return faults
