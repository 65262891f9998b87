"""Do the catalog's conditions, functions and ids fit the documents? A few documents tell before all of a collection is rejected, or
before a function that gives another value each time makes each of its rows a difference."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dualwrite import settings
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.conditions import looked_at
from dualwrite.model.declaration import Collection, Computed, ComputedEntries, Origin
from dualwrite.model.documents import Document
from dualwrite.model.errors import BudgetError, SourceError
from dualwrite.model.mapping import Key, Rejection, Row, map_document
from dualwrite.model.origins import within

log = logging.getLogger(__name__)

_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Told:
    """What a few documents say of the catalog, a sentence. `impure`: a function's rows would never be right, so nothing is examined."""

    text: str
    impure: bool = False


def look(source: Source, collections: Iterable[Collection]) -> list[Told]:
    """Of each collection with a condition, a function or entries whose key doesn't tell their document, how many of a few documents
    that can't take, and why.
    Billed: one count and up to 20 documents a collection with one."""
    told: list[Told] = []
    for collection in collections:
        if collection.where is None and not _has_functions(collection) and not _may_share_keys(collection):
            continue
        try:
            _, documents = source.first(next(iter(scans(collection, None))), _LOOKED_AT)
        except (SourceError, BudgetError) as error:
            log.warning("%s: whether its conditions and functions fit is unknown: %s", collection.name, error)
            continue
        told += _judged(collection, documents)
    return told


def _has_functions(collection: Collection) -> bool:
    """Whether a person's function makes something of its documents."""
    judged = () if collection.where is None else looked_at(collection.where)
    origins = [column.origin for column in collection.columns] + [what for what in judged if isinstance(what, Origin)]
    computed = any(isinstance(part, Computed) for origin in origins for part in within(origin))
    return computed or isinstance(collection.entries, ComputedEntries)


def _may_share_keys(collection: Collection) -> bool:
    """Whether entries of two documents may have one key, for all that the catalog says."""
    column = collection.document_column
    return (
        collection.entries is not None and not collection.is_one_document and (column is None or column.role != "key")
    )


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


def _judged(collection: Collection, documents: Iterable[Document]) -> list[Told]:
    unjudged, failed, impure, shared, looked = _Faults(), _Faults(), _Faults(), _Faults(), 0
    of_key: dict[Key, str] = {}
    for document in documents:
        units = map_document(collection, document)
        looked += units is not None
        reasons = {unit.reason for unit in units or () if isinstance(unit, Rejection)}
        unjudged.add(document, {why for why in reasons if why.startswith("cant_be_judged")})
        failed.add(document, {why for why in reasons if why.startswith("not_computed")})
        if _may_share_keys(collection):
            keys = [unit.key for unit in units or () if isinstance(unit, Row)]
            shared.add(document, {"one key" for key in keys if of_key.setdefault(key, document.path) != document.path})
        if _has_functions(collection) and map_document(collection, document) != units:
            impure.add(document, {"another row"})
    name, file = collection.name, settings.catalog_file()
    told: list[Told] = []
    if unjudged.paths:
        told.append(Told(
            f"where= of {name} can't judge {len(unjudged.paths)} of {looked} documents that were looked at, and they are rejected "
            f"({unjudged.listed()}). Correct where= in {file} (a conversion reads other types: Is(Field(...) >> boolean, True)), or the "
            "documents."
        ))  # fmt: skip
    if failed.paths:
        told.append(Told(
            f"A function of {name} can't take {len(failed.paths)} of {looked} documents that were looked at, {failed.paths[0]} for "
            f"example, and they are rejected ({failed.listed()}). Correct it in {file}."
        ))  # fmt: skip
    if shared.paths:
        told.append(Told(
            f"Of {looked} documents of {name} that were looked at, {len(shared.paths)} have an entry with the key of another document's, "
            f"{shared.paths[0]} for example, and one row can't be both: the key doesn't hold the document's id. Add it to the key in {file} "
            "and in the table, or let entries be told apart by what no other document has."
        ))  # fmt: skip
    if impure.paths:
        told.append(Told(
            f"A function of {name} makes two rows of one document ({impure.paths[0]} for example; {len(impure.paths)} of {looked} that "
            f"were looked at). It must depend on nothing but its arguments: correct it in {file}.", impure=True,
        ))  # fmt: skip
    return told


def of_other_ids(source: Source, collections: Iterable[Collection]) -> list[str]:
    """Of each collection whose ids have texts or parts, whether a few documents have such ids; a sentence each where not.
    Billed: one count and up to 20 names a collection of that kind."""
    told = []
    for collection in collections:
        if collection.is_plain:
            continue
        scan = Scan(collection.collection_id, (), collection.top_level)
        if len(collection.templates) == 1:
            scan = replace(scan, start=collection.templates[0].first)
        try:
            _, documents = source.first(scan, _LOOKED_AT)
        except (SourceError, BudgetError) as error:
            log.warning("%s: whether its documents have ids as the catalog says is unknown: %s", collection.name, error)
            continue
        own = [document.path for document in documents if collection.has(document.path)]
        unsplit = [path for path in own if collection.match(path) is None]
        paths, place = " or ".join(collection.paths), f"paths= in {settings.catalog_file()}"
        if documents and not own:
            told.append(
                f"None of {len(documents)} documents of collection id {collection.collection_id} that were looked at is one of {collection.name} "
                f"({paths}). If these aren't another collection's, correct {place}: its rows would be called extra."
            )
        if unsplit:
            told.append(
                f"Of {len(own)} documents of {collection.name} that were looked at, {len(unsplit)} have an id that can't be split in one way as "
                f"{paths} says, and are rejected. Give a part its length ({{user:28}}) or another form in {place}, or the documents other ids."
            )
    return told
