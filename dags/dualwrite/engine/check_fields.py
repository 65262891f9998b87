"""Do check fields hold what windows ask for? A window over strings or numbers examines nothing, and says nothing.

Firestore itself tells: it sorts values by type, so two counts show whether any document has another type there, and a few
documents show which. What a window can ask for is decided here and in firestore/queries.py alone: timestamps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Source
from dualwrite.model.baseline import END_OF_TIME
from dualwrite.model.declaration import Collection
from dualwrite.model.documents import Value, type_name
from dualwrite.model.errors import BudgetError, SourceError
from dualwrite.model.windows import LONG_AGO, Window

log = logging.getLogger(__name__)

_LOOKED_AT = 20
"""Documents of another type that are looked at, of each kind: whether they are the collection's, and what they hold."""
FEW = 20
SHARE = 0.1
"""Documents of another type, up to this number or share of a collection, are odd ones, which only sweeps see; more than both
make its windows blind."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a check field holds besides timestamps. `blind`: windows over it can't be trusted."""

    text: str
    blind: bool


def look(source: Source, collections: Iterable[Collection]) -> list[Told]:
    """What is wrong with the check fields of these collections. Billed: two counts a field, and a few documents of a field
    that holds something else. A field that can't be asked about (its index is missing) is left to the scan that needs it.
    """
    told = []
    seen: set[tuple[str, str]] = set()
    for collection in collections:
        for field in collection.check_fields:
            if (collection.collection_id, field) in seen:
                continue
            seen.add((collection.collection_id, field))
            try:
                found = _look(source, collection, field)
            except (SourceError, BudgetError) as error:
                log.warning(
                    "%s: whether its check field %s holds timestamps is unknown: %s", collection.name, field, error
                )
                continue
            if found is not None:
                told.append(found)
    return told


def _look(source: Source, collection: Collection, field: str) -> Told | None:
    number, documents = source.other_types(collection.collection_id, field, collection.top_level, _LOOKED_AT)
    own = [d for d in documents if collection.match(d.path) is not None]
    if not own:  # of strays, or of none
        return None
    whole = replace(next(iter(scans(collection, None))), check_field=field, window=Window(LONG_AGO, END_OF_TIME))
    times, _ = source.count(whole)
    types = sorted({type_name(_value(d.fields, field)) for d in own})
    blind = times == 0 or (number > FEW and number > SHARE * (number + times))
    text = (
        f"Check field {field} of {collection.name} holds {' or '.join(types)} in {number:,} documents and a timestamp in "
        f"{times:,}. Windows see timestamps alone, so they {'would miss most writes' if blind else 'miss these documents'} "
        "without a word, and only sweeps would find them. "
    )
    remedy = "Have the app store timestamps there"
    remedy += (
        ", or take the field out of check_fields in catalog.py: without one, the collection is read whole each time."
    )
    return Told(text + remedy, blind)


def _value(fields: object, path: str) -> Value:
    for name in path.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields  # type: ignore[return-value]
