"""Firestore's protobuf messages as plain Python: values, times, whole documents.

The messages are duck-typed, so no library is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dualwrite.model.documents import Document, GeoPoint, Reference, Value, Vector

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

NAME_SEGMENTS = 5
"""A document's name begins with `projects/{project}/databases/{database}/documents/`; its path follows."""


def moment(stamp: Any) -> datetime:
    """A protobuf Timestamp as a datetime (UTC), truncated to microseconds, Firestore's own precision."""
    return EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def value_of(value: Any) -> Value:
    """A protobuf Value as plain Python."""
    return _CONVERT[value.WhichOneof("value_type")](value)


def path_of(message: Any) -> str:
    """A document's path below the database root."""
    path: str = message.name.split("/", NAME_SEGMENTS)[NAME_SEGMENTS]
    return path


def document_of(message: Any) -> Document:
    """A protobuf Document as a Document."""
    return Document(
        path_of(message),
        {name: value_of(value) for name, value in message.fields.items()},
        moment(message.create_time),
        moment(message.update_time),
    )


def _map(value: Any) -> Value:
    fields = value.map_value.fields
    if fields.get("__type__", None) is not None and fields["__type__"].string_value == "__vector__":
        return Vector(tuple(_number(v) for v in fields["value"].array_value.values))
    return {name: value_of(inner) for name, inner in fields.items()}


def _number(value: Any) -> float:
    return float(value.integer_value if value.WhichOneof("value_type") == "integer_value" else value.double_value)


_CONVERT: dict[str | None, Callable[[Any], Value]] = {
    "string_value": lambda v: v.string_value,
    "integer_value": lambda v: v.integer_value,
    "timestamp_value": lambda v: moment(v.timestamp_value),
    "boolean_value": lambda v: v.boolean_value,
    "double_value": lambda v: v.double_value,
    "null_value": lambda v: None,
    "map_value": _map,
    "array_value": lambda v: [value_of(inner) for inner in v.array_value.values],
    "bytes_value": lambda v: v.bytes_value,
    "reference_value": lambda v: Reference(v.reference_value),
    "geo_point_value": lambda v: GeoPoint(v.geo_point_value.latitude, v.geo_point_value.longitude),
    None: lambda v: None,
}
