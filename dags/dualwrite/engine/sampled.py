"""Can the catalog's conditions be judged? A few documents tell before all of a collection is rejected."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from dualwrite import settings
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Source
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
