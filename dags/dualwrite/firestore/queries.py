"""What to read, as Firestore's query messages: scans, their cursors, field paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.cloud.firestore_v1.types import query as query_types

from dualwrite.model.declaration import ALL_FIELDS, FieldPath, names_of, other_spellings
from dualwrite.model.windows import Window

_Query = query_types.StructuredQuery.pb()
_Cursor = query_types.Cursor.pb()

_SIMPLE_FIELD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


@dataclass(frozen=True, slots=True)
class Scan:
    """What to read: all documents of a collection id, anywhere or (`top_level`) at the root only.

    With a check field, those whose field lies in the window, ordered by it; without, all, ordered by name, from the path
    `start` (included) to the path `end` (excluded).
    """

    collection_id: str
    fields: tuple[FieldPath, ...]
    top_level: bool = False
    check_field: str | None = None
    window: Window | None = None
    start: str | None = None
    end: str | None = None


def scan_query(scan: Scan, root: str) -> Any:
    """The scan as one ordered query, with only the fields that it names (none: names and times alone). `root`: the full
    name of the database's documents."""
    structured = _Query()
    structured.from_.add(collection_id=scan.collection_id, all_descendants=not scan.top_level)
    _select(structured, [*scan.fields, *([scan.check_field] if scan.check_field else [])])
    if scan.check_field is not None:
        assert scan.window is not None
        composite = structured.where.composite_filter
        composite.op = composite.Operator.Value("AND")
        for operator, moment in (("GREATER_THAN_OR_EQUAL", scan.window.start), ("LESS_THAN", scan.window.end)):
            condition = composite.filters.add().field_filter
            condition.field.field_path = quoted(scan.check_field)
            condition.op = condition.Operator.Value(operator)
            condition.value.timestamp_value.FromDatetime(moment)
        structured.order_by.add(direction="ASCENDING").field.field_path = quoted(scan.check_field)
    structured.order_by.add(direction="ASCENDING").field.field_path = "__name__"
    # Paths of any documents, whatever their collection and whether they exist: names are compared segment by segment.
    for path, cursor in ((scan.start, structured.start_at), (scan.end, structured.end_at)):
        if path is not None:
            cursor.before = True
            cursor.values.add().reference_value = f"{root}/{path}"
    return structured


_BEFORE_TIMES, _AFTER_TIMES = _Cursor(before=True), _Cursor(before=False)
_BEFORE_TIMES.values.add().timestamp_value.FromDatetime(datetime.min.replace(tzinfo=UTC))
_AFTER_TIMES.values.add().timestamp_value.FromDatetime(datetime.max.replace(tzinfo=UTC))
_AFTER_NULL = _Cursor(before=False)
_AFTER_NULL.values.add().null_value = 0


def other_types_queries(collection_id: str, check_field: str, top_level: bool) -> tuple[Any, Any]:
    """The documents whose check field holds something else than a timestamp or null, in two queries.

    Firestore sorts values by type: null, booleans and numbers, timestamps, and all else. A window's filter matches
    timestamps alone, and a cursor takes any type; so no further index is needed.
    """
    found = []
    for start, end in ((_AFTER_NULL, _BEFORE_TIMES), (_AFTER_TIMES, None)):
        structured = _Query()
        structured.from_.add(collection_id=collection_id, all_descendants=not top_level)
        _select(structured, [check_field])
        structured.order_by.add(direction="ASCENDING").field.field_path = quoted(check_field)
        structured.start_at.CopyFrom(start)
        if end is not None:
            structured.end_at.CopyFrom(end)
        found.append(structured)
    return found[0], found[1]


def children_query(collection_id: str, equals: Mapping[FieldPath, str], fields: Sequence[FieldPath]) -> Any:
    """The documents directly below one document whose fields have these values."""
    structured = _Query()
    structured.from_.add(collection_id=collection_id)
    _select(structured, fields)
    for name, value in equals.items():
        composite = structured.where.composite_filter
        composite.op = composite.Operator.Value("AND")
        condition = composite.filters.add().field_filter
        condition.field.field_path = quoted(name)
        condition.op = condition.Operator.Value("EQUAL")
        condition.value.string_value = value
    return structured


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
    """What a read asks for: these fields, and those that a dotted path could be mistaken for, so that a document that has
    one of them doesn't look as if it had nothing. None: names and times alone. An empty list: whole documents."""
    if ALL_FIELDS in paths:
        return []
    found = [quoted(path) for path in paths]
    found += [_joined(names) for path in paths for names in other_spellings(path)]
    return list(dict.fromkeys(found)) or ["__name__"]


def quoted(path: FieldPath) -> str:
    """A field path as Firestore reads it: names that are no plain identifier stand in backticks."""
    return _joined(names_of(path))


def _joined(names: Iterable[str]) -> str:
    return ".".join(
        name if _SIMPLE_FIELD.fullmatch(name) else "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
        for name in names
    )
