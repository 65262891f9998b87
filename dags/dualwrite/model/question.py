"""Pure: the query for the documents that may have a natural key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualwrite.model.declaration import Collection, DocumentId, Field, FieldPath, Segment
from dualwrite.model.keys import Key

NAME = "__name__"
"""In a query, the document's id; no field has this name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query for the documents that may have a natural key: those in the collection `collection_id` of the document `parent`
    ("" at the root) whose fields have these values. If the key gives the document's id, `equals` is that alone, at `NAME`. Some
    results may have another key: if the id is given, or a part of the key may be absent. `fields`: to select."""

    parent: str
    collection_id: str
    equals: Mapping[FieldPath, str]
    fields: tuple[FieldPath, ...]


def question_of(collection: Collection, key: Key) -> Question:
    """The query for all documents of a natural key."""
    template = collection.templates[0]
    variables: dict[str, str] = {}
    document_id: str | None = None
    equals: dict[FieldPath, str] = {}
    for column, value in zip(collection.key, key, strict=True):
        if isinstance(column.origin, Segment):
            variables[column.origin.variable] = str(value)
        elif isinstance(column.origin, DocumentId):
            document_id = str(value)
        elif isinstance(column.origin, Field) and value != column.absent:
            equals[column.origin.path] = str(value)
    if document_id is None:
        document_id = template.id_at(-1, variables)
    if document_id is not None:  # one document at most: the fields, which all its siblings may have, add nothing
        equals = {NAME: document_id}
    return Question(template.above(variables), collection.collection_id, equals, collection.fields)
