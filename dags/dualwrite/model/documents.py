"""The source's values as plain Python, free of any client library.

A document's fields arrive here as: str, bool, int (64-bit), float, datetime (aware, UTC, microseconds), None, bytes,
dict, list, and the three marker types below, which have no counterpart in a Postgres column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


@dataclass(frozen=True, slots=True)
class GeoPoint:
    """A Firestore geopoint, in degrees."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A Firestore reference to another document, as its full resource name."""

    name: str


def path_of(reference: Reference) -> str:
    """The path of the document that a reference leads to."""
    return reference.name.split("/documents/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Vector:
    """A Firestore vector."""

    components: tuple[float, ...]


Value = (
    None
    | bool
    | int
    | float
    | str
    | bytes
    | datetime
    | GeoPoint
    | Reference
    | Vector
    | dict[str, "Value"]
    | list["Value"]
)


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it was read: its path below the database root, and the fields that the query selected.

    `create_time` and `update_time` are the server's (UTC, microseconds).
    """

    path: str
    fields: Mapping[str, Value]
    create_time: datetime
    update_time: datetime


class Unasked(Enum):
    """The third answer about a document: it is there (a Document), it is gone (None), or Firestore can't be asked for it.

    UNASKED never counts as gone: nothing is deleted or closed because of it.
    """

    UNASKED = "can't be asked"


UNASKED = Unasked.UNASKED
Answer = Document | None | Unasked


def type_name(value: Value) -> str:
    """The name of a value's type, for a message that must not quote the value."""
    if value is None:
        return "null"
    names: dict[type, str] = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        bytes: "bytes",
        datetime: "a timestamp",
        GeoPoint: "a geopoint",
        Reference: "a reference",
        Vector: "a vector",
        dict: "a map",
        list: "an array",
    }
    return names.get(type(value), "of an unknown type")


_NUMERIC_ID = re.compile(r"__id(-?[1-9][0-9]*)__", re.ASCII)


def numeric_id(text: str) -> int | None:
    """The number in an id such as `__id7__`, which imports from Datastore make of a numeric key; None for other ids."""
    match = _NUMERIC_ID.fullmatch(text)
    number = int(match[1]) if match and len(text) <= 26 else None
    return number if number is not None and -(2**63) <= number < 2**63 else None


def is_valid_id(text: str) -> bool:
    """Whether Firestore allows this as a document's id. Of the reserved `__...__`, only numeric ids are allowed.
    [measured: the emulator refuses reads of any other, and accepts `____`]"""
    if text.startswith("__") and text.endswith("__") and len(text) > 4 and numeric_id(text) is None:
        return False
    return bool(text) and "/" not in text and text not in (".", "..") and len(text.encode()) <= 1500


def can_be_asked(path: str) -> bool:
    """Whether Firestore can be asked for a document at this path."""
    segments = path.split("/")
    return (
        len(segments) % 2 == 0
        and all(map(is_valid_id, segments))
        and all(numeric_id(name) is None for name in segments[0::2])
    )


def order_of_ids(segment: str) -> tuple[int, int, bytes]:
    """Firestore's order within one segment of a name: numeric ids first, as numbers; then all others by UTF-8 bytes."""
    number = numeric_id(segment)
    return (0, number, b"") if number is not None else (1, 0, segment.encode())
