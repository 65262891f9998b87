"""Pure: the entries of a document that become rows, each with the text that identifies it among the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from dualwrite.model import entries
from dualwrite.model.cell_types import Cell, exact_converter, is_unicode
from dualwrite.model.cells import DOTTED_NAME, compile_entry, origin_name
from dualwrite.model.computed import List, compile_list
from dualwrite.model.declaration import (
    Collection,
    Column,
    ComputedEntries,
    EntryKey,
    FieldPath,
    MapEntries,
    names_of,
    other_spellings,
)
from dualwrite.model.documents import Document, Value, is_valid_id, type_name
from dualwrite.model.entries import Entries, name_of
from dualwrite.model.errors import Refused
from dualwrite.model.templates import Template


@dataclass(frozen=True, slots=True)
class Input:
    """A document's create_time, and the entry that becomes a row: a map's key and value, or an array's element (as both) and
    its place."""

    create_time: datetime
    key: Value = None
    value: Value = None
    index: int = 0


class PlainReader:
    """The Reader of a `Document`, whose values are plain already."""

    def nested(self, names: tuple[str, ...]) -> Callable[[Any], Any]:
        *above, last = names

        def find(fields: Mapping[str, Value]) -> Value:
            for name in above:
                inner = fields.get(name)
                if not isinstance(inner, dict):
                    return None
                fields = inner
            return fields.get(last)

        return find

    def plain(self, raw: Value) -> Value:
        return raw

    def everything(self, fields: Mapping[str, Value]) -> dict[str, Value]:
        return dict(fields)

    def created(self, of: Input) -> datetime:
        return of.create_time

    def converter(self, column: Column) -> Callable[[Any], Cell]:
        return exact_converter(column)


def value_at(fields: Mapping[str, Value], path: FieldPath) -> Value:
    """The value at a path of a document's fields; None if there is none, or if a step leads through something that is no map."""
    return PlainReader().nested(names_of(path))(fields)  # type: ignore[no-any-return]


def template_of(collection: Collection, path: str) -> tuple[Template, list[str]]:
    """The template of a path that has variables, and its segments, extended."""
    segments = path.split("/")
    template = collection.template_of(segments)
    extended = None if template is None else template.extended(segments)
    assert template is not None, "the caller excludes strays"
    assert extended is not None, "the caller excludes paths without variables"
    return template, extended


def entries_in(collection: Collection, declared: Entries, document: Document) -> list[Input]:
    """A document's entries. Raises Refused if they can't be read."""
    created = document.create_time
    if isinstance(declared, ComputedEntries):
        template, segments = template_of(collection, document.path)
        made = _computed_list(collection, declared, template)
        return [
            Input(created, entry, entry, i) for i, entry in enumerate(made(segments, document.fields, Input(created)))
        ]
    listed, name = value_at(document.fields, declared.field), name_of(declared)
    if listed is None:
        if any(value_at(document.fields, names) is not None for names in other_spellings(declared.field)):
            raise Refused(DOTTED_NAME.format(name))
        return []
    if isinstance(declared, MapEntries):
        if not isinstance(listed, dict):
            raise Refused(f"wrong_type: {name} is {type_name(listed)}, a map is expected")
        return [Input(created, key, value, i) for i, (key, value) in enumerate(sorted(listed.items()))]
    if not isinstance(listed, list):
        raise Refused(f"wrong_type: {name} is {type_name(listed)}, an array is expected")
    return [Input(created, element, element, i) for i, element in enumerate(listed)]


@cache
def _computed_list(collection: Collection, declared: ComputedEntries, template: Template) -> List:
    return compile_list(collection, declared, template, PlainReader())


@dataclass(frozen=True, slots=True)
class NoEntry:
    """Why an entry can't be identified. `unreadable`: its key is there, in a form that isn't declared."""

    why: str
    unreadable: bool = False


def is_itself(collection: Collection) -> bool:
    """Whether entries are the key themselves, or parts of it are converted from them: equal ones are one row."""
    return all(isinstance(column.source, EntryKey) for column in collection.entry_columns)


@cache
def _entry_finders(collection: Collection) -> tuple[tuple[Column, bool, Callable[[Input], Value]], ...]:
    """The columns that identify entries, each with whether it holds documents' ids, and the function to its value."""
    columns = zip(collection.entry_columns, collection.entries_are_ids, strict=True)
    return tuple((c, is_id, compile_entry(c, collection.templates[0], PlainReader())) for c, is_id in columns)


def entry_of(collection: Collection, of: Input, name: str) -> str | NoEntry:
    """The text that identifies an entry among the others of the field `name`."""
    parts: list[str] = []
    for column, is_id, find in _entry_finders(collection):
        part = _part_of(column, is_id, find, of, name)
        if isinstance(part, NoEntry):
            return part
        parts.append(part)
    return entries.joined(parts)


def _part_of(column: Column, is_id: bool, find: Callable[[Input], Value], of: Input, name: str) -> str | NoEntry:
    called = f"{column.name} ({origin_name(column.origin)})"
    try:
        text = find(of)
    except Refused as refused:
        return NoEntry(refused.args[0].replace("{}", called, 1), unreadable=True)
    is_itself = isinstance(column.origin, EntryKey)
    if text is None and not is_itself:
        return NoEntry(f"missing_value: {column.name} is a key and {origin_name(column.origin)} is absent")
    if not isinstance(text, str):
        holds = f"{name} holds" if is_itself else f"{called} is"
        return NoEntry(f"wrong_type: {holds} {type_name(text)}, a string is expected", unreadable=not is_itself)
    if not is_unicode(text):
        return NoEntry(f"surrogate: {called} holds half a character, which Postgres text can't", unreadable=True)
    if not is_valid_id(text) and is_id:
        return NoEntry(f"not_an_id: {name} holds what no document could have as its id")
    return text
