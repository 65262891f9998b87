"""Pure: the key of a row, and the label by which reports and tables name it.

Both can be told from a document's path, if no field of the document is part of the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from dualwrite.model import entries
from dualwrite.model.cell_types import Cell, exact_converter, is_unicode, stands_for_key
from dualwrite.model.declaration import Collection, Column, Constant, Converted, DocumentPath, Segment
from dualwrite.model.documents import is_valid_id
from dualwrite.model.live import is_key

Key = tuple[Cell, ...]
"""A row's key, in the order of the collection's key columns."""

LABEL_BYTES = 400
"""Bytes of a label. Labels are in primary keys of the schema dualwrite, and Postgres limits an index row to about 2,700 bytes."""


def joined_label(parts: Iterable[object]) -> str:
    """A unit's label: ids joined by slashes, which no id contains, so it is unambiguous within its collection.

    A part that is no valid id may be content, and is replaced by a digest; a long label ends in a digest. U+0000, which
    Postgres can't store, is written as \\u0000.
    """
    texts = [text if not text or is_valid_id(text) else "~" + _digest(text) for text in map(str, parts)]
    label = "/".join(texts).replace("\x00", "\\u0000")
    if len(label.encode()) <= LABEL_BYTES:
        return label
    return label.encode()[: LABEL_BYTES - 20].decode(errors="ignore") + "…" + _digest(label)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digested(text: str) -> str:
    return "~" + _digest(text) if text else text


def label_of_key(collection: Collection, key: Iterable[object]) -> str:
    """The label of a key's unit. A part from a field or an entry is content, and is always replaced by a digest."""
    if all(collection.key_is_ids):
        return joined_label(key)
    return joined_label(
        part if is_id else _digested(str(part)) for is_id, part in zip(collection.key_is_ids, key, strict=True)
    )


def _split(collection: Collection, entry: str | None) -> list[str]:
    """The values of the columns that identify an entry; empty without an entry."""
    return [] if entry is None else entries.split(entry, len(collection.entry_columns))


def label_of(collection: Collection, variables: Mapping[str, str], entry: str | None) -> str:
    """The label of a document's unit: its key if the path gives that, else the path's ids."""
    template = next((t for t in collection.templates if set(t.variables) == set(variables)), collection.templates[0])
    if not collection.key_leads_back:
        key = key_of_path(collection, template.path(variables), entry)
        if key is not None:
            return label_of_key(collection, ["" if part is None else part for part in key])
    entry_parts = dict(zip((c.name for c in collection.entry_columns), _split(collection, entry), strict=False))
    if not collection.keyed_by_path or not collection.key_leads_back:
        ids = variables.values() if template.is_plain else template.path(variables).split("/")[1::2]
        are_ids = collection.entries_are_ids
        shown = [part if is_id else _digested(part) for is_id, part in zip(are_ids, entry_parts.values(), strict=False)]
        return joined_label([*ids, *shown])
    parts = []
    for column in collection.key:
        origin = column.origin
        if isinstance(origin, Segment):
            parts.append(variables[origin.variable])
        elif column in collection.entry_columns:
            parts.append(entry_parts.get(column.name, ""))
        elif isinstance(origin, Constant):
            parts.append(str(origin.value))
        else:
            last = list(variables.values())[-1] if template.is_plain else template.path(variables).rsplit("/", 1)[-1]
            parts.append(last)
    return label_of_key(collection, parts)


def entry_of_key(collection: Collection, key: Sequence[object]) -> str | None:
    """The entry, as in `Row`, of a row with this key; None if the collection has no entries."""
    parts = [str(part) for column, part in zip(collection.key, key, strict=True) if column in collection.entry_columns]
    return entries.joined(parts) if parts else None


def key_of_path(collection: Collection, path: str, entry: str | None = None) -> Key | None:
    """The key of a document at this path, or of this entry of it, for a collection keyed by its path. None: a stray, or a path
    that can't be converted to a key."""
    variables = collection.match(path)
    if variables is None:
        return None
    last = path.rsplit("/", 1)[-1]
    entry_parts = dict(zip((c.name for c in collection.entry_columns), _split(collection, entry), strict=False))

    def part(column: Column) -> Cell:
        if column in collection.entry_columns:
            return entry_parts.get(column.name)
        origin = column.source
        if isinstance(origin, Constant):
            return origin.value
        named = variables[origin.variable] if isinstance(origin, Segment) else last
        if isinstance(origin, DocumentPath):
            named = path
        if isinstance(column.origin, Converted):
            return exact_converter(column)(column.origin.conversion.convert(named))
        return named

    if collection.key_leads_back:
        return tuple(part(column) for column in collection.key)
    try:
        key = tuple(part(column) for column in collection.key)
    except Exception:  # noqa: BLE001 - a person's own conversion may raise anything; mapping rejects that document
        return None
    return None if None in key else key


def can_have(collection: Collection, key: Key) -> bool:
    """Whether the types of the key's columns allow this key. Postgres refuses even a query for another."""
    return all(
        part is None or ("\x00" not in str(part) and is_unicode(str(part)) and _fits(column, str(part)))
        for column, part in zip(collection.key, key, strict=True)
    )


def _fits(column: Column, part: str) -> bool:
    return not stands_for_key(column) or is_key(column.named, part)
