"""What is to be read of a collection for one slice, and which of the documents that it reads are another slice's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Scan
from dualwrite.firestore.values import moment, value_of
from dualwrite.model.check_fields import Check, begun
from dualwrite.model.declaration import Collection
from dualwrite.model.windows import Window
from dualwrite.runs.slices.slice import Slice


def scans_of(part: Slice, collection: Collection) -> list[Scan]:
    """What to read of a slice: as of the whole collection, only what lies in it."""
    if part.by == "name":
        return [replace(scan, start=part.name_start, end=part.name_end) for scan in scans(collection, None)]
    # Its check fields tell whether another slice has the document.
    checked = [c.field for c in collection.checks]
    return [
        replace(scan, window=part.window, fields=tuple(dict.fromkeys([*scan.fields, *checked])))
        for scan in scans(collection, part.window)
    ]


def left_to_others(part: Slice, collection: Collection, window: Window | None) -> Callable[[int, Any], bool] | None:
    """Whether a document that the n-th of the slice's scans reads is examined by another slice of the window. None: no
    document lies in two slices."""
    if part.by == "name" or window is None:
        return None
    cut = begun(collection.checks, window)
    return lambda n, message: is_anothers(message, collection.checks[:n], cut, part.cut_at)


def is_anothers(message: Any, earlier: Iterable[Check], window: Window, cut_at: datetime) -> bool:
    """Whether another slice of the window has this document, by a check field that is read before this one. Only if it was not
    written since the slices were cut: until then that field had the same value."""
    if moment(message.update_time) > cut_at:
        return False
    return any(_lies_in(message, check, window) for check in earlier)


def _lies_in(message: Any, check: Check, window: Window) -> bool:
    """Whether a window's query by this check field matches the document."""
    value = _at(message, check.field.split("."))
    if value is None:
        return False
    kind = value.WhichOneof("value_type")
    bounds = check.bounds(window)
    if bounds is None:
        return kind == "timestamp_value" and moment(value.timestamp_value) in window
    return kind in ("string_value", "integer_value", "double_value") and value_of(value) in bounds


def _at(message: Any, names: Sequence[str]) -> Any:
    """The value at a path of field names; None if there is none."""
    fields = message.fields
    for name in names[:-1]:
        if name not in fields:
            return None
        fields = fields[name].map_value.fields
    return fields.get(names[-1])
