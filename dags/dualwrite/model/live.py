"""Pure: the present types of the target's columns, which decide what a column keeps.

`Column.type` is the type of the *document's* value. Whatever the column's own type (an enum, uuid, numeric(10,2), date, text[]),
Postgres gets a staged value in its text form, or in a binary form that both types share, and casts, rounds or refuses it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

DocumentType = Literal["text", "integer", "numeric", "boolean", "timestamp", "json", "array"]


@dataclass(frozen=True, slots=True)
class LiveType:
    """The type of a column.

    `name`: as Postgres writes it, with modifiers: `numeric(10,2)`. `base`: the type below a domain, without modifiers; a cast to
    it truncates nothing. `kind`: the base's bare name (`int4`, `citext`), or `enum`, or `array`. `labels`: an enum's.
    `generated`: Postgres generates the value, so it can't be written. `collated`: texts with different bytes may be equal (a
    nondeterministic collation).
    """

    name: str
    base: str
    kind: str
    labels: tuple[str, ...] = ()
    generated: bool = False
    collated: bool = False


TEXTS = frozenset({"text", "varchar", "bpchar", "citext", "name", "enum"})
"""Kinds whose binary form is their text."""

INTEGERS = {"int2": 2, "int4": 4, "int8": 8}
"""Kinds of whole numbers, with their bytes."""

INSTANTS = frozenset({"timestamptz", "timestamp"})
"""Kinds of moments, compared to the millisecond."""

_TIMES = INSTANTS | {"date", "time"}
_NUMBERS = frozenset({*INTEGERS, "numeric", "float4", "float8"})
_EQUAL = TEXTS | _TIMES | _NUMBERS | {"bool", "uuid", "bytea", "jsonb"}
"""Kinds whose values are compared as they are; all others are compared by their text, which every type has."""


@dataclass(frozen=True, slots=True)
class TypeRules:
    """The rules for one type of document values.

    `usual`: the column's type until the target's was read. `takes`: whether a column of this kind can hold such values. `absent`:
    the Python types of a value for an absent field; none: there can't be one. How a value becomes a cell is in cell_types.py.
    """

    usual: LiveType
    takes: Callable[[str], bool]
    absent: tuple[type, ...] = ()


def _usual(name: str, takes: Callable[[str], bool], *absent: type) -> TypeRules:
    return TypeRules(LiveType(name, name, "array" if name.endswith("[]") else name), takes, absent)


TYPES: Mapping[DocumentType, TypeRules] = {
    # A document's string is no number, boolean or timestamp, unless the catalog converts it.
    "text": _usual("text", lambda kind: kind not in _NUMBERS | INSTANTS | {"bool"}, str),
    "integer": _usual("int4", lambda kind: kind in _NUMBERS | TEXTS - {"enum"}, int),
    "numeric": _usual("numeric", lambda kind: kind in ("numeric", "float4", "float8"), int, float),
    "boolean": _usual("bool", lambda kind: kind == "bool", bool),
    "timestamp": _usual("timestamptz", lambda kind: kind in _TIMES),
    "json": _usual("jsonb", lambda kind: kind in ("json", "jsonb"), dict, list),
    "array": _usual("text[]", lambda kind: kind == "array", list),
}


def copied_as(column: DocumentType, live: LiveType) -> str | None:
    """The type in whose binary form a document's value may be copied into the column; None if only its text form fits."""
    if column == "text" and live.kind in TEXTS:
        return "text"
    if column == "integer" and live.kind in INTEGERS:
        return live.kind
    return live.kind if live.kind == TYPES[column].usual.kind and column != "array" else None


def fits(column: DocumentType, live: LiveType, *, is_id: bool) -> bool:
    """Whether a document's value of this type can be a value of the column; an id (`is_id`) may be written like a number."""
    return (is_id and column == "text") or TYPES[column].takes(live.kind)


def equal_as(live: LiveType) -> str | None:
    """The type to which the column's values are cast for a comparison; None for none."""
    if live.kind == "json":
        return "pg_catalog.jsonb"
    if live.kind == "citext" or live.collated:
        return 'pg_catalog.text COLLATE pg_catalog."C"'
    return None if live.kind in _EQUAL and not _is_of_enum(live) else "pg_catalog.text"


def _is_of_enum(live: LiveType) -> bool:
    """Whether the column's type is a domain of an enum: Postgres has no operator for those, not even `=`."""
    return live.kind == "enum" and live.name != live.base


def _whole_number(text: str, size: int) -> bool:
    return re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text) is not None and -(2 ** (8 * size - 1)) <= int(text) < 2 ** (
        8 * size - 1
    )


def _uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _time(text: str) -> bool:
    """Whether a text is a time as it is a part of a key (`cell_types.key_part`)."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z" == text
    except ValueError:
        return False


_KEYS: dict[str, Callable[[str, LiveType], bool]] = {
    "text": lambda text, live: True,
    "varchar": lambda text, live: True,
    "name": lambda text, live: len(text.encode()) < 64,
    "bpchar": lambda text, live: not text.endswith(" "),
    "citext": lambda text, live: text == text.lower(),
    "enum": lambda text, live: text in live.labels,
    "uuid": lambda text, live: _uuid(text),
    "date": lambda text, live: _date(text),
    "bool": lambda text, live: text in ("true", "false"),
    "timestamptz": lambda text, live: _time(text),
    "timestamp": lambda text, live: _time(text),
    **{kind: (lambda text, live: _whole_number(text, INTEGERS[live.kind])) for kind in INTEGERS},
}
"""By kind: whether a text is exactly how Postgres writes a key's value. A key leads from the row back to its document, so
another spelling (`05` for 5, a uuid in capitals) isn't the same key."""


_COARSE = re.compile(r"timestamp\([012]\)")
"""The names of types that round a millisecond, so that a document's time would be no key of its row."""


def can_be_key(live: LiveType) -> bool:
    """Whether a column of this type can be part of a key, or reference one."""
    return live.kind in _KEYS and not _is_of_enum(live) and not _COARSE.match(live.name)


def is_key(live: LiveType, text: str) -> bool:
    """Whether the column, as a key or a reference, can hold exactly this text."""
    return live.kind in _KEYS and _KEYS[live.kind](text, live)
