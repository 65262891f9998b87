"""The source's values as plain Python, free of any client library.

A document's fields arrive here as: str, bool, int (64-bit), float, datetime (aware, UTC, microseconds), None, bytes,
dict, list, and the three marker types below, which have no counterpart in a Postgres column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class GeoPoint:
    """A Firestore geopoint, in degrees."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A Firestore reference to another document, as its full resource name."""

    name: str


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
    """One document as it was read: its path below the database root and the fields that were asked for.

    `create_time` and `update_time` are the server's (UTC, microseconds). `size` is its encoded size in bytes.
    """

    path: str
    fields: Mapping[str, Value]
    create_time: datetime
    update_time: datetime
    size: int = 0


def type_name(value: Value) -> str:
    """What to call a value's type in a message; never the value itself, which is private."""
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


def is_valid_id(text: str) -> bool:
    """Whether Firestore allows this as a document's id; it refuses to be asked for any other."""
    reserved = text in (".", "..") or (text.startswith("__") and text.endswith("__") and len(text) >= 4)
    return bool(text) and "/" not in text and not reserved and len(text.encode()) <= 1500
