"""Pure: what a column of the target is as it is now. Its own type has the last word on what it keeps.

`Column.type` says what the *document* holds. Whatever the column is (an enum, uuid, numeric(10,2), date, text[]), a staged value
is given to Postgres in its text form, or in a binary form that both types share, and Postgres casts, rounds or refuses it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

DocumentType = Literal["text", "integer", "numeric", "boolean", "timestamp", "json", "array"]


@dataclass(frozen=True, slots=True)
class LiveType:
    """The type of a column.

    `name`: as Postgres writes it, modifiers included: `numeric(10,2)`. `base`: what stands below a domain, without modifiers:
    what a text is cast to that must not be cut. `kind`: the base's bare name (`int4`, `citext`), or `enum`, or `array`.
    `labels`: an enum's. `generated`: Postgres makes the value, nobody may write it. `collated`: its equality is not that of its
    bytes (a nondeterministic collation).
    """

    name: str
    base: str
    kind: str
    labels: tuple[str, ...] = ()
    generated: bool = False
    collated: bool = False


DEFAULT: dict[DocumentType, LiveType] = {
    "text": LiveType("text", "text", "text"),
    "integer": LiveType("int4", "int4", "int4"),
    "numeric": LiveType("numeric", "numeric", "numeric"),
    "boolean": LiveType("bool", "bool", "bool"),
    "timestamp": LiveType("timestamptz", "timestamptz", "timestamptz"),
    "json": LiveType("jsonb", "jsonb", "jsonb"),
    "array": LiveType("text[]", "text[]", "array"),
}
"""What a column is taken for until the target was asked."""

TEXTS = frozenset({"text", "varchar", "bpchar", "citext", "name", "enum"})
"""Kinds whose binary form is their text."""

INTEGERS = {"int2": 2, "int4": 4, "int8": 8}
"""Kinds of whole numbers, with their bytes."""

_TIMES = frozenset({"timestamptz", "timestamp", "date", "time"})
_NUMBERS = frozenset({*INTEGERS, "numeric", "float4", "float8"})
_EQUAL = TEXTS | _TIMES | _NUMBERS | {"bool", "uuid", "bytea", "jsonb"}
"""Kinds whose values are compared as such; all others by their text, which every type has."""


def copied_as(column: DocumentType, live: LiveType) -> str | None:
    """The type in whose binary form a document's value may be copied into the column; None if only its text form fits."""
    if column == "text" and live.kind in TEXTS:
        return "text"
    if column == "integer" and live.kind in INTEGERS:
        return live.kind
    return live.kind if live.kind == DEFAULT[column].kind and column != "array" else None


def fits(column: DocumentType, live: LiveType, *, is_id: bool) -> bool:
    """Whether the text form of such a value can be one of the column's. A string of a document's is no number, truth or moment
    unless the catalog says how it is read; an id (`is_id`) may be written like one."""
    if column == "text":
        return is_id or live.kind not in _NUMBERS | {"bool", "timestamptz", "timestamp"}
    allowed: dict[DocumentType, frozenset[str]] = {
        "integer": _NUMBERS | TEXTS - {"enum"},
        "numeric": frozenset({"numeric", "float4", "float8"}),
        "boolean": frozenset({"bool"}),
        "timestamp": _TIMES,
        "json": frozenset({"json", "jsonb"}),
        "array": frozenset({"array"}),
    }
    return live.kind in allowed[column]


def equal_as(live: LiveType) -> str | None:
    """The type as which values of the column are compared; None if as they are."""
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
    **{kind: (lambda text, live: _whole_number(text, INTEGERS[live.kind])) for kind in INTEGERS},
}
"""By kind: whether a text is exactly how Postgres writes the value of a key that it stands for. A key leads from the row back
to its document, so another spelling (`05` for 5, a uuid in capitals) can't be taken for the same."""


def can_be_key(live: LiveType) -> bool:
    return live.kind in _KEYS and not _is_of_enum(live)


def is_key(live: LiveType, text: str) -> bool:
    """Whether the column, as a key or a reference, can hold just this text."""
    return live.kind in _KEYS and _KEYS[live.kind](text, live)
