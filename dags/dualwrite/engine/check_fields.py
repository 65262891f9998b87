"""Do check fields hold what windows ask for? A window over values of another type or format examines nothing, and says nothing.

Firestore itself tells most of it: it sorts values by type, so two counts show whether any document has another type there, or
lies outside all times of the format, and a few documents show which. Strings in another style than the format's lie among the
right ones: a sample tells, from the oldest, the last month and the last day. What a window can ask for is decided in
model/check_fields.py alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from dualwrite import settings
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.check_fields import END_OF_TIME, Check
from dualwrite.model.declaration import Collection
from dualwrite.model.documents import Value, type_name
from dualwrite.model.errors import BudgetError, SourceError
from dualwrite.model.windows import LONG_AGO, Window

log = logging.getLogger(__name__)

_LOOKED_AT = 20
"""Documents that are looked at, of each kind and of each part of a sample."""
_SAMPLED = (timedelta(days=1), timedelta(days=30), None)
"""Since when a sample is taken of the times of a format; None: from the oldest."""
FEW = 20
SHARE = 0.1
"""Documents that no window sees, up to this number or share of a collection, are odd ones, which only sweeps see; more than both
make its windows blind."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a check field holds besides what windows ask for. `blind`: windows over it can't be trusted."""

    text: str
    blind: bool


def look(source: Source, collections: Iterable[Collection]) -> list[Told]:
    """What is wrong with the check fields of these collections. Billed: two counts a field, of one with a format three more and
    up to 60 documents, and a few documents of a field that holds something else. A field that can't be asked about (its index is
    missing) is left to the scan that needs it.
    """
    told = []
    seen: set[tuple[str, Check]] = set()
    for collection in collections:
        for check in collection.checks:
            if (collection.collection_id, check) in seen:
                continue
            seen.add((collection.collection_id, check))
            try:
                found = _look(source, collection, check)
            except (SourceError, BudgetError) as error:
                log.warning(
                    "%s: whether its check field %s holds times as declared is unknown: %s",
                    collection.name,
                    check,
                    error,
                )
                continue
            if found is not None:
                told.append(found)
    return told


def _look(source: Source, collection: Collection, check: Check) -> Told | None:
    others, documents = source.other_types(collection.collection_id, check, collection.top_level, _LOOKED_AT)
    types = {type_name(_value(d.fields, check.field)) for d in documents if collection.match(d.path) is not None}
    number = others if types else 0  # others of strays alone are none
    if check.format is None:
        if not number:
            return None
        times, _ = source.count(_scan(collection, check, LONG_AGO))
        style, are = "a timestamp", "timestamps"
        remedy = f"Have the app store timestamps there, or declare their format in {settings.catalog_file()} (Check), "
    else:
        times, sampled, odd = _sample(source, collection, check)
        if not number and not odd:
            return None
        types |= {type_name(value) + " in another style" for value in odd}
        number, times = _apart(number, times, sampled, len(odd))
        name = check.format.name
        style = are = f"what {name} reads and writes alike"
        remedy = (
            f"Have the app write it as {name} goes back to it (milliseconds and Z for iso_time), correct the format, "
        )
    blind = times == 0 or (number > FEW and number > SHARE * (number + times))
    text = (
        f"Check field {check.field} of {collection.name} holds {' or '.join(sorted(types))} in {number:,} documents and {style} in "
        f"{times:,}. Windows see {are} alone, so they {'would miss most writes' if blind else 'miss these documents'} "
        "without a word, and only sweeps would find them. "
    )
    remedy += (
        f"or take the field out of check_fields in {settings.catalog_file()}: without one, the collection is read whole each "
        "time."
    )
    return Told(text + remedy, blind)


def _scan(collection: Collection, check: Check, since: datetime) -> Scan:
    whole = next(iter(scans(collection, None)))
    window = Window(since, END_OF_TIME)
    return replace(whole, fields=(), check_field=check.field, check_format=check.format, window=window)


def _sample(source: Source, collection: Collection, check: Check) -> tuple[int, int, list[Value]]:
    """How many documents hold what could be a time of the format, how many of them were looked at, and the values of these that
    are written in another style."""
    held: dict[str, Value] = {}
    times = 0
    for since in _SAMPLED:
        start = LONG_AGO if since is None else datetime.now(UTC) - since
        times, documents = source.first(_scan(collection, check, start), _LOOKED_AT)
        held |= {d.path: _value(d.fields, check.field) for d in documents if collection.match(d.path) is not None}
    return times, len(held), [value for value in held.values() if not check.is_as_said(value)]


def _apart(number: int, times: int, sampled: int, odd: int) -> tuple[int, int]:
    """How many documents no window sees, and how many windows see, as far as the sample tells."""
    astray = -(-times * odd // sampled) if sampled else 0
    return number + astray, times - astray


def _value(fields: object, path: str) -> Value:
    for name in path.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields  # type: ignore[return-value]
