"""The short way from a document to its staged row: from Firestore's message directly to COPY's tuple.

Nearly every document matches, and then needs no `Document`, no `Row` and no label. Columns are compiled as everywhere
(model/cells.py), but read from the message itself. Rejected documents, those that don't meet the condition, strays and documents
with entries are left to `map_document`, which gives the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from dualwrite.firestore.values import EPOCH, NAME_SEGMENTS, moment, value_of
from dualwrite.model.cell_types import Cell, exact_converter, key_part, stands_for_key
from dualwrite.model.cells import SURELY_AN_ID, Make, compile_column, compile_condition
from dualwrite.model.conditions import Holds
from dualwrite.model.declaration import Collection, Column, Template
from dualwrite.model.documents import Value
from dualwrite.model.errors import Refused
from dualwrite.model.mapping import Staged, is_odd


class Stager:
    """Stages the documents of one collection. Make one and keep it: it compiles the columns once, and threads may share it.

    `key(staged)` is the key of a staged row, as `Row.key`.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._by_shape: dict[tuple[str, ...], tuple[Holds | None, list[Make], Template | None]] = {}
        """By the collection ids of a path: condition, cells, and the template if its ids have texts or parts. If several templates
        have the same collection ids and one has texts or parts, `map_document` maps their documents."""
        shapes = Counter(template.segments[0::2] for template in collection.templates)
        # Columns with the same origin (created_at and updated_at of a comment) are converted once.
        same: dict[Column, list[int]] = {}
        for index, column in enumerate(collection.columns):
            role = column.role if column.role in ("key", "derived") else "compared"
            same.setdefault(replace(column, name="", role=role), []).append(index)
        if collection.has_one_row:
            for template in collection.templates:
                form = None if template.is_plain else template
                if shapes[template.segments[0::2]] > 1 and not collection.is_plain:
                    continue
                cells = [
                    compile_column(
                        column, template, _Messages(), offset=NAME_SEGMENTS, bits=sum(1 << i for i in places)
                    )
                    for column, places in same.items()
                ]
                holds = None
                if collection.where is not None:
                    holds = compile_condition(collection.where, template, _Messages(), offset=NAME_SEGMENTS)
                self._by_shape.setdefault(template.segments[0::2], (holds, cells, form))
        places_of = {index: n for n, places in enumerate(same.values()) for index in places}
        self._place = _picker([places_of[index] for index in range(len(collection.columns))])
        pick = _picker([2 + collection.columns.index(column) for column in collection.key])
        if any(column.type == "timestamp" for column in collection.key):
            self.key: Callable[[Sequence[Any]], tuple[Any, ...]] = lambda values: tuple(
                key_part(column, cell) for column, cell in zip(collection.key, pick(values), strict=True)
            )
        else:
            self.key = pick

    def stage(self, number: int, message: Any) -> Staged | None:
        """The staged row of a document, or None if `map_document` must map it."""
        segments = message.name.split("/")
        known = self._by_shape.get(tuple(segments[NAME_SEGMENTS::2]))
        if known is None or is_odd(message.name):
            return None
        holds, cells, form = known
        if form is not None:
            extended = form.extended(segments[NAME_SEGMENTS:])
            if extended is None:
                return None
            segments = [*segments[:NAME_SEGMENTS], *extended]
        fields = message.fields
        marks: list[int] = []
        try:
            if holds is not None and not holds(segments, fields, message):
                return None
            made = [cell(segments, fields, message, marks) for cell in cells]
        except Refused:
            return None
        return (number, sum(marks) if marks else 0, *self._place(made))


def _picker(indexes: list[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(indexes) == 1:
        [index] = indexes
        return lambda values: (values[index],)
    if indexes == list(range(len(indexes))):
        return tuple
    return itemgetter(*indexes)


# --- Firestore's message ------------------------------------------------------------------------------------------


class _Messages:
    """Reads a document's protobuf message, with short ways to an ordinary text and time."""

    def nested(self, names: tuple[str, ...]) -> Callable[[Any], Any]:
        *above, last = names

        def find(fields: Any) -> Any:
            for name in above:
                value = fields.get(name)
                if value is None or value.WhichOneof("value_type") != "map_value":
                    return None
                fields = value.map_value.fields
                if "__type__" in fields and not isinstance(value_of(value), dict):
                    return None  # a vector looks like a map
            value = fields.get(last)
            return None if value is None or value.WhichOneof("value_type") in _NULL else value

        return find

    def plain(self, raw: Any) -> Value:
        return value_of(raw)

    def everything(self, fields: Any) -> dict[str, Value]:
        return {name: value_of(value) for name, value in fields.items()}

    def created(self, of: Any) -> datetime:
        return moment(of.create_time)

    def converter(self, column: Column) -> Callable[[Any], Cell]:
        exact = exact_converter(column)

        def other(value: Any) -> Cell:
            plain = value_of(value)
            return None if plain is None else exact(plain)

        if column.type == "timestamp" and not column.references:

            def timestamp(value: Any) -> Cell:
                if value.HasField("timestamp_value"):
                    stamp = value.timestamp_value
                    return EPOCH + timedelta(0, stamp.seconds, stamp.nanos // 1_000_000 * 1000)
                return other(value)

            return timestamp
        if column.type != "text" or stands_for_key(column):
            return other

        def text(value: Any) -> Cell:
            string: str = value.string_value
            return string if string and "\x00" not in string else other(value)

        def reference(value: Any) -> Cell:
            string: str = value.string_value
            return string if string.isalnum() and len(string) <= SURELY_AN_ID else other(value)

        return reference if column.references else text


_NULL = (None, "null_value")
