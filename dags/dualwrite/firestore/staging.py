"""The short way from a document to its staged row: Firestore's message straight to the tuple that COPY takes.

A matching document, that is nearly every one, needs no `Document`, no `Row` and no label. So each collection is compiled
once into closures, one a column, for the ordinary types. Whatever is unusual (a wrong type, U+0000, a missing value,
an id that can't be one, a stray, entries) is left to `map_document`, which stays the one definition of what a
document becomes: for all that is accepted here, the cells, stand-ins and key are those of its Row
(tests/unit/test_staging.py compares the two on arbitrary documents).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from dualwrite.firestore.values import EPOCH, NAME_SEGMENTS, value_of
from dualwrite.model.declaration import (
    Collection,
    Column,
    CreateTime,
    DocumentId,
    Field,
    ParentId,
    Segment,
    Template,
    other_spellings,
)
from dualwrite.model.documents import is_valid_id
from dualwrite.model.mapping import Cell, Staged, cell_or_none, is_odd, stands_for_key

_Cell = Callable[[list[str], Any, Any, list[int]], Cell]
"""From a document (its name's segments, its fields, its message) to a column's cell. A stand-in adds its columns' bits
to the list."""
_Lookup = Callable[[Any], Any]
"""From a document's fields to the protobuf Value at a path; None where it is absent or null."""

_SURELY_AN_ID = 1500 // 4
"""Characters that are surely no more bytes than an id may have."""


class _Unusual(Exception):
    """Inside this module: a value that is left to `map_document`."""


class Stager:
    """Compiles a collection. Make one for a collection and keep it; it holds no state and threads may share it.

    `key(staged)` is the key of a staged row, as `Row.key`.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._by_shape: dict[tuple[str, ...], list[_Cell]] = {}
        # Columns that say the same (created_at and updated_at of a comment) are made once and put in each place.
        same: dict[Column, list[int]] = {}
        for index, column in enumerate(collection.columns):
            same.setdefault(replace(column, name="", role="key" if column.role == "key" else "compared"), []).append(
                index
            )
        if collection.entries is None:
            for template in collection.templates:
                cells = [_compile(column, template, sum(1 << i for i in places)) for column, places in same.items()]
                self._by_shape.setdefault(template.segments[0::2], cells)
        where = {index: n for n, places in enumerate(same.values()) for index in places}
        self._place = _picker([where[index] for index in range(len(collection.columns))])
        self.key = _picker([2 + collection.columns.index(column) for column in collection.key])

    def stage(self, number: int, message: Any) -> Staged | None:
        """The staged row of a document, or None where `map_document` must look at it."""
        segments = message.name.split("/")
        cells = self._by_shape.get(tuple(segments[NAME_SEGMENTS::2]))
        if cells is None or is_odd(message.name):
            return None
        fields = message.fields
        marks: list[int] = []
        try:
            made = [cell(segments, fields, message, marks) for cell in cells]
        except _Unusual:
            return None
        return (number, sum(marks) if marks else 0, *self._place(made))


def _picker(indexes: list[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(indexes) == 1:
        [index] = indexes
        return lambda values: (values[index],)
    if indexes == list(range(len(indexes))):
        return tuple
    return itemgetter(*indexes)


# --- a column ---------------------------------------------------------------------------------------------------


def _compile(column: Column, template: Template, bits: int) -> _Cell:
    """`bits` are those of the columns that this one stands for."""
    origin = column.origin
    if isinstance(origin, Field):
        return _field_cell(column, origin, bits)
    if isinstance(origin, CreateTime):
        return _create_time_cell(column)
    index: int | None
    if isinstance(origin, DocumentId):
        index = len(template.segments) - 1
    elif isinstance(origin, Segment):
        index = 1 + 2 * template.variables.index(origin.variable)
    elif isinstance(origin, ParentId):
        index = len(template.segments) - 3 if template.parent_collection_id == origin.collection_id else None
    else:  # an entry's key or value: not compiled
        return _refuse
    if index is None:
        return _absent_cell(column)
    return _segment_cell(column, NAME_SEGMENTS + index)


def _refuse(segments: list[str], fields: Any, message: Any, marks: list[int]) -> Cell:
    raise _Unusual


def _absent_cell(column: Column) -> _Cell:
    """What stands in a column for which there is no value."""
    cell = None if column.absent is None else cell_or_none(column)(column.absent)
    if cell is None and (column.absent is not None or column.required or column.role == "key"):
        return _refuse
    return lambda segments, fields, message, marks: cell


def _segment_cell(column: Column, index: int) -> _Cell:
    if stands_for_key(column) or (column.type != "text" and not column.references):
        return _exact_segment_cell(column, index)
    convert = _TEXTS[column.references is not None]
    return lambda segments, fields, message, marks: convert(segments[index])


def _exact_segment_cell(column: Column, index: int) -> _Cell:
    exact = cell_or_none(column)

    def cell(segments: list[str], fields: Any, message: Any, marks: list[int]) -> Cell:
        found = exact(segments[index])
        if found is None:
            raise _Unusual
        return found

    return cell


def _create_time_cell(column: Column) -> _Cell:
    if column.type != "timestamp" or column.references:
        return _refuse
    return lambda segments, fields, message, marks: _milliseconds(message.create_time)


def _field_cell(column: Column, origin: Field, bits: int) -> _Cell:
    if isinstance(origin.otherwise, Field):
        absent = _stand_in(_field_cell(column, origin.otherwise, 0), bits)
    elif isinstance(origin.otherwise, CreateTime):
        absent = _stand_in(_create_time_cell(column), bits)
    else:
        absent = _absent_cell(column)
    convert = _converter(column)
    if "." in origin.path:
        lookup = _lookup(origin.path.split("."))
        others = [_lookup(names) for names in other_spellings(origin.path)]

        def nested(segments: list[str], fields: Any, message: Any, marks: list[int]) -> Cell:
            value = lookup(fields)
            if value is not None:
                return convert(value)
            for other in others:
                if other(fields) is not None:
                    raise _Unusual
            return absent(segments, fields, message, marks)

        return nested
    name = origin.path

    def top(segments: list[str], fields: Any, message: Any, marks: list[int]) -> Cell:
        value = fields.get(name)
        if value is not None:
            cell = convert(value)
            if cell is not None:
                return cell
        return absent(segments, fields, message, marks)

    return top


def _stand_in(cell: _Cell, bits: int) -> _Cell:
    def stand_in(segments: list[str], fields: Any, message: Any, marks: list[int]) -> Cell:
        marks.append(bits)
        return cell(segments, fields, message, marks)

    return stand_in


def _lookup(names: Sequence[str]) -> _Lookup:
    name, *rest = names
    if not rest:

        def here(fields: Any) -> Any:
            value = fields.get(name)
            return None if value is None or value.WhichOneof("value_type") in _NULL else value

        return here
    below = _lookup(rest)

    def inside(fields: Any) -> Any:
        value = fields.get(name)
        if value is None or value.WhichOneof("value_type") != "map_value":
            return None
        inner = value.map_value.fields
        if "__type__" in inner:  # a vector looks like a map
            raise _Unusual
        return below(inner)

    return inside


_NULL = (None, "null_value")


# --- a value ----------------------------------------------------------------------------------------------------


def _text(text: str) -> str:
    if "\x00" in text:
        raise _Unusual
    return text


def _id(text: str) -> str:
    # Letters and digits alone hold no slash, no dot, no underscore and no U+0000: the ordinary id, told at once.
    if (text.isalnum() and len(text) <= _SURELY_AN_ID) or ("\x00" not in text and is_valid_id(text)):
        return text
    raise _Unusual


_TEXTS: dict[bool, Callable[[str], str]] = {False: _text, True: _id}
"""By whether the column references another collection."""


def _milliseconds(stamp: Any) -> datetime:
    return EPOCH + timedelta(0, stamp.seconds, stamp.nanos // 1_000_000 * 1000)


def _converter(column: Column) -> Callable[[Any], Cell]:
    """From a protobuf Value to the column's cell; None for null."""
    if not stands_for_key(column) and (column.references or column.type == "text"):
        convert = _TEXTS[column.references is not None]

        def text(value: Any) -> Cell:
            found = value.string_value
            if found or value.HasField("string_value"):
                return convert(found)
            return _null_or_unusual(value)

        return text
    if column.type == "timestamp":

        def timestamp(value: Any) -> Cell:
            if value.HasField("timestamp_value"):
                return _milliseconds(value.timestamp_value)
            return _null_or_unusual(value)

        return timestamp
    exact = cell_or_none(column)

    def other(value: Any) -> Cell:
        plain = value_of(value)
        if plain is None:
            return None
        cell = exact(plain)
        if cell is None:
            raise _Unusual
        return cell

    return other


def _null_or_unusual(value: Any) -> Cell:
    if value.WhichOneof("value_type") not in _NULL:
        raise _Unusual
    return None
