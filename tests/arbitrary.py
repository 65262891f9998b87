"""Arbitrary documents for property tests, as plain values and as the protobuf messages that Firestore would send."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from google.cloud.firestore_v1.types import document as document_types
from hypothesis import strategies as st

from dualwrite.model.declaration import ALL_FIELDS, names_of
from dualwrite.model.documents import Document, GeoPoint, Reference, Value, Vector

Message = document_types.Document.pb()

CREATED = datetime(2026, 1, 1, tzinfo=UTC)

characters = st.characters(exclude_categories=("Cs",))
"""All of UTF-8: what `st.text` takes by itself too, after three seconds in which it tries each."""

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(characters, max_size=20),
    st.binary(max_size=4),
    st.datetimes(timezones=st.just(UTC)),
    st.builds(GeoPoint, st.just(1.0), st.just(2.0)),
    st.builds(Reference, st.just("projects/p/databases/d/documents/users/u")),
    st.just(Vector((1.0,))),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(characters, max_size=5), inner, max_size=3)
    ),
)
ids = st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), min_size=1, max_size=20)
five_ids = st.lists(ids, min_size=5, max_size=5)


def document_at(collection, names, fields, created: datetime = CREATED, template: int = 0) -> Document:
    chosen = collection.templates[template % len(collection.templates)]
    path = chosen.path(dict(zip(chosen.variables, names, strict=False)))
    return Document(path, fields, created, created)


@cache  # made anew for each example, strategies take longer than what they draw
def fields_of(collection):
    """The collection's fields, each absent or with any value at all."""
    paths = [names_of(path) for path in collection.fields if path != ALL_FIELDS]
    top = sorted({names[0] for names in paths})
    nested = {names[0]: names[1] for names in paths if len(names) > 1}
    return st.fixed_dictionaries(
        {},
        optional={
            n: st.one_of(values, st.fixed_dictionaries({nested[n]: values})) if n in nested else values for n in top
        },
    )


def message_of(document: Document, database: str = "projects/p/databases/(default)") -> Any:
    """The document as Firestore would send it."""
    message = Message(name=f"{database}/documents/{document.path}")
    message.create_time.FromDatetime(document.create_time)
    message.update_time.FromDatetime(document.update_time)
    for name, value in document.fields.items():
        _encode(message.fields[name], value)
    return message


def _encode(into: Any, value: Value) -> None:
    match value:
        case None:
            into.null_value = 0
        case bool():
            into.boolean_value = value
        case int():
            into.integer_value = value
        case float():
            into.double_value = value
        case str():
            into.string_value = value
        case bytes():
            into.bytes_value = value
        case datetime():
            into.timestamp_value.FromDatetime(value)
        case GeoPoint():
            into.geo_point_value.latitude, into.geo_point_value.longitude = value.latitude, value.longitude
        case Reference():
            into.reference_value = value.name
        case Vector():
            into.map_value.fields["__type__"].string_value = "__vector__"
            into.map_value.fields["value"].array_value.SetInParent()
            for component in value.components:
                into.map_value.fields["value"].array_value.values.add().double_value = component
        case list():
            into.array_value.SetInParent()
            for inner in value:
                _encode(into.array_value.values.add(), inner)
        case dict():
            into.map_value.SetInParent()
            for name, inner in value.items():
                _encode(into.map_value.fields[name], inner)
