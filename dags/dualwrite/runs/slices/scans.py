"""The queries of one slice of a collection, and which of the documents that they read belong to another slice."""

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
    """The collection's scans, limited to the slice."""
    if part.by == "name":
        return [replace(scan, start=part.name_start, end=part.name_end) for scan in scans(collection, None)]
    # The check fields show whether the document belongs to another slice.
    checked = [c.field for c in collection.checks]
    return [
        replace(scan, window=part.window, fields=tuple(dict.fromkeys([*scan.fields, *checked])))
        for scan in scans(collection, part.window)
    ]


def left_to_others(part: Slice, collection: Collection, window: Window | None) -> Callable[[int, Any], bool] | None:
    """A function that says whether a document, read by the n-th of the slice's scans, belongs to another slice of the
    window. None: no document lies in two slices."""
    if part.by == "name" or window is None:
        return None
    cut = begun(collection.checks, window)
    return lambda n, message: is_anothers(message, collection.checks[:n], cut, part.cut_at)


def is_anothers(message: Any, earlier: Iterable[Check], window: Window, cut_at: datetime) -> bool:
    """Whether another slice of the window has this document, by one of the `earlier` check fields. False if it was written
    after the slices were cut: the field may have had another value when that slice was read."""
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
