"""Pure: the query for the documents that may have a natural key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualwrite.model.declaration import Collection, Field, FieldPath, Segment
from dualwrite.model.mapping import Key


@dataclass(frozen=True, slots=True)
class Question:
    """A query for the documents that may have a natural key: those in the collection `collection_id` of the document `parent`
    ("" at the root) whose fields have these values. If a part of the key may be absent, some results have another key.
    `fields`: to select."""

    parent: str
    collection_id: str
    equals: Mapping[FieldPath, str]
    fields: tuple[FieldPath, ...]


def question_of(collection: Collection, key: Key) -> Question:
    """The query for all documents of a natural key."""
    variables: dict[str, str] = {}
    equals: dict[FieldPath, str] = {}
    for column, value in zip(collection.key, key, strict=True):
        if isinstance(column.origin, Segment):
            variables[column.origin.variable] = str(value)
        elif isinstance(column.origin, Field) and value != column.absent:
            equals[column.origin.path] = str(value)
    parent = collection.templates[0].above(variables)
    return Question(parent, collection.collection_id, equals, collection.fields)
