"""Firestore's query messages: scans, their cursors, field paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.cloud.firestore_v1.types import query as query_types

from dualwrite.model.check_fields import END_OF_TIME, Asked, Check
from dualwrite.model.conversions import Conversion
from dualwrite.model.declaration import ALL_FIELDS, FieldPath, names_of, other_spellings
from dualwrite.model.question import NAME
from dualwrite.model.windows import LONG_AGO, Window

_Query = query_types.StructuredQuery.pb()
_Cursor = query_types.Cursor.pb()

_SIMPLE_FIELD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


@dataclass(frozen=True, slots=True)
class Scan:
    """A read of all documents of a collection id, anywhere or (`top_level`) at the root only.

    With a check field, only those whose field lies in the window (in its format), ordered by it. Without one, all, ordered by
    name, from the path `start` (included) to the path `end` (excluded).
    """

    collection_id: str
    fields: tuple[FieldPath, ...]
    top_level: bool = False
    check_field: str | None = None
    check_format: Conversion | None = None
    window: Window | None = None
    start: str | None = None
    end: str | None = None


def scan_query(scan: Scan, root: str) -> Any:
    """The scan as one ordered query that selects its fields (empty: only names and times). `root`: the full name of the
    database's documents."""
    structured = _Query()
    structured.from_.add(collection_id=scan.collection_id, all_descendants=not scan.top_level)
    _select(structured, [*scan.fields, *([scan.check_field] if scan.check_field else [])])
    if scan.check_field is not None:
        assert scan.window is not None
        composite = structured.where.composite_filter
        composite.op = composite.Operator.Value("AND")
        for operator, value in _range(Check(scan.check_field, scan.check_format), scan.window):
            condition = composite.filters.add().field_filter
            condition.field.field_path = quoted(scan.check_field)
            condition.op = condition.Operator.Value(operator)
            _set(condition.value, value)
        structured.order_by.add(direction="ASCENDING").field.field_path = quoted(scan.check_field)
    structured.order_by.add(direction="ASCENDING").field.field_path = "__name__"
    # The bounds may be any paths, of any collection, existing or not: names are compared segment by segment.
    for path, cursor in ((scan.start, structured.start_at), (scan.end, structured.end_at)):
        if path is not None:
            cursor.before = True
            cursor.values.add().reference_value = f"{root}/{path}"
    return structured


def _range(check: Check, window: Window) -> list[tuple[str, Asked | datetime]]:
    bounds = check.bounds(window)
    if bounds is None:
        return [("GREATER_THAN_OR_EQUAL", window.start), ("LESS_THAN", window.end)]
    return [
        ("GREATER_THAN_OR_EQUAL" if bounds.is_lowest_in else "GREATER_THAN", bounds.lowest),
        ("LESS_THAN_OR_EQUAL" if bounds.is_highest_in else "LESS_THAN", bounds.highest),
    ]


def _set(value: Any, to: Asked | datetime) -> None:
    match to:
        case datetime():
            value.timestamp_value.FromDatetime(to)
        case str():
            value.string_value = to
        case int():
            value.integer_value = to
        case float():
            value.double_value = to


_BEFORE_TIMES, _AFTER_TIMES = _Cursor(before=True), _Cursor(before=False)
_BEFORE_TIMES.values.add().timestamp_value.FromDatetime(datetime.min.replace(tzinfo=UTC))
_AFTER_TIMES.values.add().timestamp_value.FromDatetime(datetime.max.replace(tzinfo=UTC))
_AFTER_NULL = _Cursor(before=False)
_AFTER_NULL.values.add().null_value = 0


def other_types_queries(collection_id: str, check: Check, top_level: bool) -> tuple[Any, Any]:
    """The documents whose check field holds a value that no window matches and that isn't null, in two queries: values that
    Firestore sorts before all timestamps (or all times of its format), and after them.

    Firestore sorts values by type: null, booleans, numbers, timestamps, strings, and others. A filter matches only one type, but
    a cursor takes any, so no further index is needed.
    """
    before, after = _BEFORE_TIMES, _AFTER_TIMES
    if (bounds := check.bounds(Window(LONG_AGO, END_OF_TIME))) is not None:
        before, after = _Cursor(before=bounds.is_lowest_in), _Cursor(before=not bounds.is_highest_in)
        _set(before.values.add(), bounds.lowest)
        _set(after.values.add(), bounds.highest)
    queries = []
    for start, end in ((_AFTER_NULL, before), (after, None)):
        structured = _Query()
        structured.from_.add(collection_id=collection_id, all_descendants=not top_level)
        _select(structured, [check.field])
        structured.order_by.add(direction="ASCENDING").field.field_path = quoted(check.field)
        structured.start_at.CopyFrom(start)
        if end is not None:
            structured.end_at.CopyFrom(end)
        queries.append(structured)
    return queries[0], queries[1]


def children_query(
    parent: str, collection_id: str, equals: Mapping[FieldPath, str], fields: Sequence[FieldPath]
) -> Any:
    """The documents directly below one document whose fields, or id (at `NAME`), have these values. `parent`: the document's full
    name, or that of the database's documents."""
    structured = _Query()
    structured.from_.add(collection_id=collection_id)
    _select(structured, fields)
    for name, value in equals.items():
        composite = structured.where.composite_filter
        composite.op = composite.Operator.Value("AND")
        condition = composite.filters.add().field_filter
        condition.field.field_path = quoted(name)
        condition.op = condition.Operator.Value("EQUAL")
        if name == NAME:
            condition.value.reference_value = f"{parent}/{collection_id}/{value}"
        else:
            condition.value.string_value = value
    return structured


def leave_fields_out(structured: Any) -> None:
    """Makes a query select only the documents' names and times."""
    structured.ClearField("select")
    _select(structured, ())


def up_to(structured: Any, scan: Scan, last: Any) -> Any:
    """The query, ending with a document."""
    ending = _Query()
    ending.CopyFrom(structured)
    ending.end_at.CopyFrom(cursor_after(scan, last))
    return ending


def cursor_after(scan: Scan, last: Any) -> Any:
    """A cursor just after a document (as its protobuf message)."""
    cursor = _Cursor(before=False)
    if scan.check_field is not None:
        value = last.fields[scan.check_field.partition(".")[0]]
        for name in scan.check_field.split(".")[1:]:
            value = value.map_value.fields[name]
        cursor.values.add().CopyFrom(value)
    cursor.values.add().reference_value = last.name
    return cursor


def _select(structured: Any, names: Sequence[FieldPath]) -> None:
    for path in masked(names):
        structured.select.fields.add(field_path=path)


def masked(paths: Sequence[FieldPath]) -> list[str]:
    """The fields to select: these, and fields whose own names equal a dotted path, because a document with only such a field
    must not look empty. Without paths, a list that selects only names and times. With ALL_FIELDS, an empty list: whole
    documents."""
    if ALL_FIELDS in paths:
        return []
    selected = [quoted(path) for path in paths]
    selected += [_joined(names) for path in paths for names in other_spellings(path)]
    return list(dict.fromkeys(selected)) or ["__name__"]


def quoted(path: FieldPath) -> str:
    """A field path as Firestore reads it: a name that isn't a plain identifier is in backticks."""
    return _joined(names_of(path))


def _joined(names: Iterable[str]) -> str:
    return ".".join(
        name if _SIMPLE_FIELD.fullmatch(name) else "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
        for name in names
    )
