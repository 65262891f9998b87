"""Pure: a document becomes its rows, or a rejection that says why it can't.

Total by construction: whatever a document holds, each of its units ends as a `Row` or a `Rejection`. What only the
target can judge (CHECK constraints, index row sizes) is left to it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import NewType

from dualwrite.model.declaration import (
    Collection,
    Column,
    CreateTime,
    DocumentId,
    EntryKey,
    EntryValue,
    Field,
    MapEntries,
    Origin,
    ParentId,
    Segment,
    Type,
    other_spellings,
)
from dualwrite.model.documents import Document, Value, can_be_asked, is_valid_id, type_name
from dualwrite.model.live import INTEGERS, is_key


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value as text, ready for a jsonb column."""

    text: str


Cell = None | str | int | bool | datetime | Decimal | Json
Key = tuple[Cell, ...]
"""A row's key, in the order of the collection's key columns."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one unit of a document should be in the target.

    `cells` stand in the order of the collection's columns. `stand_ins` are the indexes of those that no field of the
    document states (an absent createdAt): they are inserted and never compared. `label` names the unit to people,
    in reports and in excuses; `entry` is the map key or array element it came from.
    """

    label: str
    key: Key
    cells: tuple[Cell, ...]
    stand_ins: frozenset[int]
    path: str
    entry: str | None
    create_time: datetime
    update_time: datetime
    fingerprinted: tuple[int, ...] = ()
    """Indexes of the cells that `fingerprint` covers."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the document says something else of a fingerprinted column, or was created anew. One-way: it
        holds no content."""
        stated = [self.create_time, *(self.cells[i] for i in self.fingerprinted if i not in self.stand_ins)]
        return hashlib.sha256(repr(stated).encode()).hexdigest()[:16]


def without(row: Row, indexes: Iterable[int]) -> Row:
    """The row with nulls in these cells: what they refer to is gone."""
    gone = set(indexes)
    return replace(row, cells=tuple(None if i in gone else cell for i, cell in enumerate(row.cells)))


Staged = tuple[Cell, ...]
"""A row as the target's stage takes it: its number in the page, its stand-ins as a bit mask, its cells."""


def staged(number: int, row: Row) -> Staged:
    return (number, sum(1 << index for index in row.stand_ins), *row.cells)


Refusal = NewType("Refusal", str)
"""Why a document can't become a row: a sentence of column names and types, never a value."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A unit that can't become a row.

    `entry` is the map key or array element it concerns. Where that is no id, the label tells its place instead, and
    `entry` is None. `entire`: the document's whole list of entries is unknown, and not one of them.
    """

    label: str
    path: str
    entry: str | None
    reason: Refusal
    entire: bool = False


class _Refused(Exception):
    """Inside this module: a value does not fit its column."""


def map_document(collection: Collection, document: Document) -> list[Row | Rejection] | None:
    """The units of a document: one, or for a collection with entries one for each of them (also none).

    None says the document is a stray: the same collection id on another path.
    """
    variables = collection.match(document.path)
    if variables is None:
        return None
    if is_odd(document.path) and not can_be_asked(document.path):
        reason = Refusal("cant_be_asked: its path holds an id that Firestore can't be asked for")
        label = (
            label_of(collection, variables, None) if collection.entries is None else joined_label(variables.values())
        )
        return [Rejection(label, document.path, None, reason, entire=True)]
    if collection.entries is None:
        return [_map_unit(collection, document, variables, None, None)]
    name = collection.entries.field
    found = _lookup(document.fields, name.split("."))
    parent_label = joined_label(variables.values())
    if found is None:
        if not _is_spelled_otherwise(document.fields, name):
            return []
        return [Rejection(parent_label, document.path, None, Refusal(_OTHERWISE.format(name)), entire=True)]

    def refused(reason: str, place: str | None = None) -> Rejection:
        label = parent_label if place is None else f"{parent_label}/{place}"
        return Rejection(label, document.path, None, Refusal(reason), entire=place is None)

    wrong = f"wrong_type: {name} is {type_name(found)}"
    if isinstance(collection.entries, MapEntries):
        if not isinstance(found, dict):
            return [refused(f"{wrong}, a map is expected")]
        entries: list[tuple[Value, Value, str]]
        entries = [(key, value, f"{name}[{i}]") for i, (key, value) in enumerate(sorted(found.items()))]
    else:
        if not isinstance(found, list):
            return [refused(f"{wrong}, an array is expected")]
        entries = [(element, None, f"{name}[{i}]") for i, element in enumerate(found)]
    units: list[Row | Rejection] = []
    seen: set[str] = set()
    for entry, value, place in entries:
        if not isinstance(entry, str):
            units.append(refused(f"wrong_type: {name} holds {type_name(entry)}, a string is expected", place))
        elif not is_valid_id(entry) and collection.entries_are_ids:
            units.append(refused(f"not_an_id: {name} holds what no document could have as its id", place))
        elif entry not in seen:  # the same person waiting twice is one row
            seen.add(entry)
            units.append(_map_unit(collection, document, variables, entry, value))
    return units


def is_odd(name: str) -> bool:
    """Whether a document's name or path may hold an id that Firestore can't be asked for, as far as a scan delivers any:
    a quick look for `__...__`."""
    return "/__" in name


LONGEST_LABEL = 400
"""Bytes of a label. It is a primary key of what the bundle remembers, and an index row of Postgres ends at 2,700."""


def joined_label(parts: Iterable[object]) -> str:
    """How a unit is called: ids joined by slashes, which no id holds, so it is unambiguous within its collection.

    A part that is no id may be content, and stands there as a digest; a long label ends in one. U+0000, which Postgres
    can't keep, is written as \\u0000.
    """
    texts = [text if not text or is_valid_id(text) else "~" + _digest(text) for text in map(str, parts)]
    label = "/".join(texts).replace("\x00", "\\u0000")
    if len(label.encode()) <= LONGEST_LABEL:
        return label
    return label.encode()[: LONGEST_LABEL - 20].decode(errors="ignore") + "…" + _digest(label)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digested(text: str) -> str:
    return "~" + _digest(text) if text else text


def label_of_key(collection: Collection, key: Iterable[object]) -> str:
    """How the unit of a key is called. What is no id (the text of a field, an element of a list) is content, and stands
    there as a digest, whatever it looks like."""
    if all(collection.key_is_ids):
        return joined_label(key)
    return joined_label(
        part if is_id else _digested(str(part)) for is_id, part in zip(collection.key_is_ids, key, strict=True)
    )


def label_of(collection: Collection, variables: Mapping[str, str], entry: str | None) -> str:
    """The label of a document's unit: its key where the path gives that, else the path's variables."""
    if not collection.keyed_by_path:
        told = entry if entry is None or collection.entries_are_ids else _digested(entry)
        return joined_label([*variables.values(), *([] if told is None else [told])])
    parts = []
    for column in collection.key:
        origin = column.origin
        if isinstance(origin, Segment):
            parts.append(variables[origin.variable])
        elif isinstance(origin, EntryKey):
            parts.append(entry or "")
        else:
            parts.append(list(variables.values())[-1])
    return label_of_key(collection, parts)


def key_of_path(collection: Collection, path: str, entry: str | None = None) -> Key | None:
    """The key that a document at this path has, or this entry of it, for a collection keyed by its path. None: a stray."""
    variables = collection.match(path)
    if variables is None:
        return None
    last = path.rsplit("/", 1)[-1]
    return tuple(
        variables[c.origin.variable]
        if isinstance(c.origin, Segment)
        else entry
        if isinstance(c.origin, EntryKey)
        else last
        for c in collection.key
    )


@dataclass(frozen=True, slots=True)
class Question:
    """Which documents may have a natural key: those in the collection `collection_id` of the document `parent` ("" at the
    root) whose fields have these values. Some that are found may have another key, where a part of it may be absent.
    `fields` are those that the collection's rows are made of."""

    parent: str
    collection_id: str
    equals: Mapping[str, str]
    fields: tuple[str, ...]


def question_of(collection: Collection, key: Key) -> Question:
    """The question for all documents of a natural key."""
    variables: dict[str, str] = {}
    equals: dict[str, str] = {}
    for column, value in zip(collection.key, key, strict=True):
        if isinstance(column.origin, Segment):
            variables[column.origin.variable] = str(value)
        elif isinstance(column.origin, Field) and value != column.absent:
            equals[column.origin.path] = str(value)
    segments = collection.templates[0].segments
    parent = "/".join(variables[s[1:-1]] if s.startswith("{") else s for s in segments[:-2])
    return Question(parent, collection.collection_id, equals, collection.fields)


def _map_unit(
    collection: Collection, document: Document, variables: dict[str, str], entry: str | None, value: Value
) -> Row | Rejection:
    label = label_of(collection, variables, entry)
    segments = document.path.split("/")
    cells: list[Cell] = []
    stand_ins: set[int] = set()
    try:
        for index, (column, convert) in enumerate(_converters(collection)):
            origin = column.origin
            found: Value
            if isinstance(origin, Field):
                found, stand_in = _field(document, origin)
                if stand_in:
                    stand_ins.add(index)
            elif isinstance(origin, DocumentId):
                found = segments[-1]
            elif isinstance(origin, Segment):
                found = variables[origin.variable]
            elif isinstance(origin, ParentId):
                found = segments[-3] if len(segments) > 3 and segments[-4] == origin.collection_id else None
            elif isinstance(origin, EntryKey):
                found = entry
            elif isinstance(origin, EntryValue):
                found = value
            else:
                found = document.create_time
            if found is None:
                found = column.absent
            if found is None:
                if column.required or column.role == "key":
                    raise _Refused(f"missing_value: {column.name} is NOT NULL and {_origin_name(origin)} is absent")
                cells.append(None)
            else:
                try:
                    cells.append(convert(found))
                except _Refused as refused:
                    raise _Refused(
                        f"{refused.args[0]}".replace("{}", f"{column.name} ({_origin_name(origin)})", 1)
                    ) from None
    except _Refused as refused:
        return Rejection(label, document.path, entry, Refusal(str(refused.args[0])))
    key = tuple(cells[i] for i in _key_indexes(collection))
    return Row(
        label,
        key,
        tuple(cells),
        frozenset(stand_ins),
        document.path,
        entry,
        document.create_time,
        document.update_time,
        _fingerprinted(collection),
    )


def _field(document: Document, origin: Field) -> tuple[Value, bool]:
    """The field's value, and whether it is a stand-in for an absent one."""
    found = _lookup(document.fields, origin.path.split("."))
    if found is None and _is_spelled_otherwise(document.fields, origin.path):
        raise _Refused(_OTHERWISE.format(origin.path))
    if found is not None or origin.otherwise is None:
        return found, False
    if isinstance(origin.otherwise, CreateTime):
        return document.create_time, True
    return _field(document, origin.otherwise)[0], True


def _lookup(fields: Mapping[str, Value], names: Sequence[str]) -> Value:
    """The value at the end of these names. A step through something that is no map finds nothing."""
    found = fields.get(names[0])
    if len(names) == 1:
        return found
    return _lookup(found, names[1:]) if isinstance(found, dict) else None


_OTHERWISE = "dotted_name: nothing is at {}, and the document has a field whose own name holds that dot, which catalog.py can't name"


def _is_spelled_otherwise(fields: Mapping[str, Value], path: str) -> bool:
    return "." in path and any(_lookup(fields, names) is not None for names in other_spellings(path))


def _origin_name(origin: Origin) -> str:
    match origin:
        case Field(path=path):
            return f"field {path}"
        case Segment(variable=variable):
            return f"path segment {variable}"
        case DocumentId():
            return "document id"
        case ParentId(collection_id=name):
            return f"id of the document in {name}"
        case EntryKey():
            return "entry"
        case EntryValue():
            return "entry's value"
        case CreateTime():
            return "create_time"


# --- values -----------------------------------------------------------------------------------------------------

Converter = Callable[[Value], Cell]


@cache
def _key_indexes(collection: Collection) -> tuple[int, ...]:
    return tuple(i for i, column in enumerate(collection.columns) if column.role == "key")


@cache
def _fingerprinted(collection: Collection) -> tuple[int, ...]:
    return tuple(collection.columns.index(column) for column in collection.fingerprinted)


@cache
def _converters(collection: Collection) -> tuple[tuple[Column, Converter], ...]:
    return tuple((column, _converter(column)) for column in collection.columns)


def _converter(column: Column) -> Converter:
    """From a value of the document's (any but null) to the column's cell. Raises _Refused."""
    if column.type == "integer":
        return _integer_of(INTEGERS.get(column.live.kind))
    convert: Converter = _id if column.references else _CONVERTERS[column.type]
    if not stands_for_key(column):
        return convert

    def key(value: Value) -> Cell:
        text = convert(value)
        if not is_key(column.live, str(text)):
            raise _Refused(f"not_a_key: {{}} is not written as a value of type {column.live.name} is")
        return text

    return key


def stands_for_key(column: Column) -> bool:
    """Whether its texts must be just those that the target's type writes: a row's key leads back to its document."""
    return (column.role == "key" or column.references is not None) and column.live.kind not in ("text", "varchar")


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise _Refused(f"wrong_type: {{}} is {type_name(value)}, a string is expected")
    if "\x00" in value:
        raise _Refused("nul_character: {} holds U+0000, which Postgres text can't")
    return value


def _id(value: Value) -> str:
    """The id of another document: what Firestore allows as one, or the other document can't even be asked for."""
    text = _text(value)
    if not is_valid_id(text):
        raise _Refused("not_an_id: {} is no id that a document could have")
    return text


def _integer_of(size: int | None) -> Converter:
    """Whole numbers of so many bytes; None: of any size."""

    def integer(value: Value) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JavaScript has one kind of number: 5 and 5.0 are the same statement
        if isinstance(value, bool) or not isinstance(value, int):
            raise _Refused(f"wrong_type: {{}} is {type_name(value)}, an integer is expected")
        if size is not None and not -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1):
            raise _Refused(f"out_of_range: {{}} is beyond a {size}-byte integer")
        return value

    return integer


def _numeric(value: Value) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(f"wrong_type: {{}} is {type_name(value)}, a number is expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Refused("not_finite: {} is NaN or infinite")
    return Decimal(repr(value))  # the shortest text that gives the double back, as JavaScript would send it


def _boolean(value: Value) -> bool:
    if not isinstance(value, bool):
        raise _Refused(f"wrong_type: {{}} is {type_name(value)}, a boolean is expected")
    return value


def truncate_to_milliseconds(moment: datetime) -> datetime:
    """As a JavaScript Date holds it: microseconds cut off, never rounded."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _timestamp(value: Value) -> datetime:
    if not isinstance(value, datetime):
        raise _Refused(f"wrong_type: {{}} is {type_name(value)}, a timestamp is expected")
    return truncate_to_milliseconds(value)


def _json(value: Value) -> Json:
    _check_json(value)
    # Sorted: the order of a map's keys differs from read to read, and a fingerprint must not.
    return Json(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True))


def _check_json(value: Value) -> None:
    """Refuses what JSON or jsonb can't hold. Says the type, not where in the value: keys in there are private too."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if "\x00" in name:
                raise _Refused("nul_character: {} holds U+0000, which jsonb can't")
            _check_json(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner)
    elif isinstance(value, str):
        if "\x00" in value:
            raise _Refused("nul_character: {} holds U+0000, which jsonb can't")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Refused("not_finite: {} holds NaN or infinity, which JSON can't")
    elif value is not None and not isinstance(value, bool | int):
        raise _Refused(f"not_json: {{}} holds {type_name(value)}, which JSON has no form for")


_CONVERTERS: dict[Type, Converter] = {
    "text": _text,
    "numeric": _numeric,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "json": _json,
}


def cell_or_none(column: Column) -> Callable[[Value], Cell]:
    """What `map_document` makes of a value of this column (any but null), or None where it refuses the value."""
    convert = _converter(column)

    def cell(value: Value) -> Cell:
        try:
            return convert(value)
        except _Refused:
            return None

    return cell


def stated_cell(column: Column, fields: Mapping[str, Value]) -> Cell:
    """What a document states for a column that comes from a field: None where it states nothing, or what can't be kept."""
    assert isinstance(column.origin, Field)
    found = _lookup(fields, column.origin.path.split("."))
    return None if found is None else cell_or_none(column)(found)
