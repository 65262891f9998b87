"""Do check fields hold values that windows can find? A window over values of another type or format silently finds nothing.

Firestore sorts values by type, so two counts show whether any document has another type there, or a value outside all times
of the format, and a few documents show which. Strings in another style than the format's lie among the right ones: a sample
of the oldest, of the last month and of the last day shows them. model/check_fields.py alone decides which values a window
can find.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dualwrite import settings
from dualwrite.engine.fault import Fault
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
"""The ages at which the parts of a sample begin; None: at the oldest document."""
FEW = 20
SHARE = 0.1
"""If windows overlook more documents of a collection than FEW and than this share, they are blind. Fewer are seen by sweeps."""


def look(source: Source, collections: Iterable[Collection]) -> list[Fault]:
    """The faults of these collections' check fields: values that windows overlook. One stops the run if its windows can't be
    trusted. Bills two counts a field; with a format, three more and up to 60
    documents; and a few documents of a field with other values. A field that can't be queried (its index is missing) is
    skipped with a warning: the scan that needs it fails.
    """
    faults = []
    seen: set[tuple[str, Check]] = set()
    for collection in collections:
        for check in collection.checks:
            if (collection.collection_id, check) in seen:
                continue
            seen.add((collection.collection_id, check))
            try:
                fault = _look(source, collection, check)
            except (SourceError, BudgetError) as error:
                log.warning(
                    "%s: it is unknown whether its check field %s holds times as declared: %s",
                    collection.name,
                    check,
                    error,
                )
                continue
            if fault is not None:
                faults.append(fault)
    return faults


def _look(source: Source, collection: Collection, check: Check) -> Fault | None:
    others, documents = source.other_types(collection.collection_id, check, collection.top_level, _LOOKED_AT)
    types = {type_name(_value(d.fields, check.field)) for d in documents if collection.match(d.path) is not None}
    number = others if types else 0  # strays alone don't count
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
        style = are = f"values that {name} reads and writes alike"
        remedy = f"Have the app write it as {name} writes it (milliseconds and Z for iso_time), correct the format, "
    blind = times == 0 or (number > FEW and number > SHARE * (number + times))
    text = (
        f"Check field {check.field} of {collection.name} holds {' or '.join(sorted(types))} in {number:,} documents and {style} in "
        f"{times:,}. Windows find only {are}, so they silently {'miss most writes' if blind else 'miss these documents'}, "
        "and only sweeps see them. "
    )
    remedy += (
        f"or take the field out of check_fields in {settings.catalog_file()}: without one, the collection is read whole each "
        "time."
    )
    return Fault(text + remedy, stops=blind)


def _scan(collection: Collection, check: Check, since: datetime) -> Scan:
    whole = next(iter(scans(collection, None)))
    window = Window(since, END_OF_TIME)
    return replace(whole, fields=(), check_field=check.field, check_format=check.format, window=window)


def _sample(source: Source, collection: Collection, check: Check) -> tuple[int, int, list[Value]]:
    """How many documents hold a possible time of the format, how many of them were looked at, and the values of these in
    another style."""
    held: dict[str, Value] = {}
    times = 0
    for since in _SAMPLED:
        start = LONG_AGO if since is None else datetime.now(UTC) - since
        times, documents = source.first(_scan(collection, check, start), _LOOKED_AT)
        held |= {d.path: _value(d.fields, check.field) for d in documents if collection.match(d.path) is not None}
    return times, len(held), [value for value in held.values() if not check.is_as_said(value)]


def _apart(number: int, times: int, sampled: int, odd: int) -> tuple[int, int]:
    """How many documents windows overlook and how many they find, estimated from the sample."""
    astray = -(-times * odd // sampled) if sampled else 0
    return number + astray, times - astray


def _value(fields: object, path: str) -> Value:
    for name in path.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields  # type: ignore[return-value]
