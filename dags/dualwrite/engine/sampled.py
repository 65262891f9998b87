"""Can the catalog's conditions be judged, and ids be split? A few documents tell before all of a collection is rejected."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from dualwrite import settings
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.declaration import Collection
from dualwrite.model.errors import BudgetError, SourceError
from dualwrite.model.mapping import Rejection, map_document

log = logging.getLogger(__name__)

_LOOKED_AT = 20


def unjudged(source: Source, collections: Iterable[Collection]) -> list[str]:
    """Of each collection with a condition, how many of a few documents have units that it can't judge, and why; a sentence each.
    Billed: one count and up to 20 documents a collection with a condition."""
    told = []
    for collection in collections:
        if collection.where is None:
            continue
        try:
            _, documents = source.first(next(iter(scans(collection, None))), _LOOKED_AT)
        except (SourceError, BudgetError) as error:
            log.warning("%s: whether its condition can be judged is unknown: %s", collection.name, error)
            continue
        looked, reasons, number = 0, Counter[str](), 0
        for document in documents:
            units = map_document(collection, document)
            looked += units is not None
            why = {u.reason for u in units or () if isinstance(u, Rejection) and u.reason.startswith("cant_be_judged")}
            reasons.update(why)
            number += bool(why)
        if number:
            listed = "; ".join(reason for reason, _ in reasons.most_common(3))
            told.append(
                f"where= of {collection.name} can't judge {number} of {looked} documents that were looked at, and they are rejected "
                f"({listed}). Correct where= in {settings.catalog_file()} (a conversion reads other types: Is(Field(...) >> boolean, True)), or the "
                "documents."
            )
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
