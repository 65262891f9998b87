"""Looks at the target's rows by key, by a column's value or by time, each look in a transaction of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from dualwrite.model.cell_types import Cell
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.keys import Key, entry_of_key, key_of_path
from dualwrite.model.live import LiveType, can_be_key, is_key
from dualwrite.model.pace import Pace
from dualwrite.model.windows import Window
from dualwrite.postgres import live_types
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.lookups import Lookups
from dualwrite.postgres.session import Session

KEYS_AT_ONCE = 10_000


def key_json(key: Key) -> str:
    """A key as the JSON array of texts that statements take and the journal keeps."""
    return json.dumps([str(part) for part in key], ensure_ascii=False)


class Rows(Session):
    """The rows of the catalog's tables."""

    def __init__(self, connect: Callable[[], Connection], catalog: Catalog, pace: Pace | None = None) -> None:
        super().__init__(connect, pace)
        self.declared = catalog
        self._live: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalog with its columns' types in the target, which are asked once, in one round trip."""
        if self._live is None:
            self._live = self.declared.with_live(self._types())
        return self._live

    def _types(self) -> frozenset[tuple[str, str, LiveType]]:
        tables = [c.table for c in self.declared]
        if self.is_in_transaction:  # `fetch` needs one of its own
            return live_types.read(self.connection.execute, tables)
        return live_types.read(self.fetch, tables)

    def lookups(self, collection: Collection) -> Lookups:
        return Lookups.of(self.catalog, collection)

    def versions(self, collection: Collection, keys: Sequence[Key]) -> dict[Key, tuple[str, str]]:
        """xmin and digest of the rows at these keys. A key without a row gives no entry; absence is a version too."""
        if not keys:
            return {}
        statement, parameters = self.lookups(collection).versions, numbered(keys)
        rows = self.fetch(statement, parameters)
        return {keys[n]: (xmin, digest) for n, xmin, digest in rows}

    def paths(self, collection: Collection, keys: Sequence[Key]) -> dict[Key, tuple[str, ...]]:
        """The paths at which the documents of rows at these keys may be, the likeliest first (see Lookups.paths). Keys
        without a row give no entry."""
        if not keys:
            return {}
        statement, parameters = self.lookups(collection).paths, numbered(keys)
        rows = self.fetch(statement, parameters)
        return {keys[n]: tuple(path for path in paths if _could_be_at(collection, keys[n], path)) for n, paths in rows}

    def whole(self, collection: Collection, key: Key | None) -> dict[str, Any] | None:
        """The row at a key with all its columns: content, only for the person who asked. None: it isn't there."""
        if key is None:
            return None
        rows = self.fetch(self.lookups(collection).whole, numbered([key]))
        return dict(rows[0][0]) if rows else None

    def count(self, collection: Collection) -> int:
        """How many rows the collection has now."""
        [[number]] = self.fetch(self.lookups(collection).count, {})
        return int(number)

    def keys(self, collection: Collection) -> Iterator[list[Key]]:
        """All keys of the table, in pages by key order, each page in a transaction of its own (so no snapshot is held,
        and a pooler may serve each from another connection)."""
        lookups = self.lookups(collection)
        statement, after = lookups.keys_after(first=True), list[Cell]()
        while True:
            parameters = {"after": after, "limit": KEYS_AT_ONCE}
            page = self.fetch(statement, parameters)
            number = len(collection.key)
            if page:
                yield [tuple(line[:number]) for line in page]
            if len(page) < KEYS_AT_ONCE:
                return
            statement, after = lookups.keys_after(first=False), list(page[-1][-number:])

    def keys_where(self, collection: Collection, column: str, values: Iterable[str]) -> list[Key]:
        """The keys of all rows whose `column` has one of these values."""
        statement, parameters = self.lookups(collection).keys_where(column), self._values(collection, column, values)
        return [tuple(key) for key in self.fetch(statement, parameters)]

    def dependents(self, collection: Collection, column: str, values: Iterable[str]) -> list[tuple[str, Key]]:
        """The rows whose `column` has one of these values: the value and the row's key."""
        statement, parameters = self.lookups(collection).dependents(column), self._values(collection, column, values)
        return [(value, tuple(key)) for value, *key in self.fetch(statement, parameters)]

    def dependents_of(
        self, collection: Collection, columns: Sequence[str], keys: Sequence[Key]
    ) -> list[tuple[Key, Key]]:
        """The rows that refer with these columns to rows of another table: the key of that row, and their own."""
        rows = self.fetch(self.lookups(collection).dependents_of(columns), numbered(keys))
        return [(keys[n], tuple(key)) for n, *key in rows]

    def _values(self, collection: Collection, column: str, values: Iterable[str]) -> dict[str, list[str]]:
        """The parameter `values`, without those that the column's type can't hold: no row has them, and Postgres would refuse them."""
        live = self.catalog[collection.name].column(column).named
        return {"values": [v for v in values if not can_be_key(live) or is_key(live, v)]}

    def written_between(self, collection: Collection, start: object, end: object) -> list[Key]:
        """The keys of rows one of whose written columns lies in [start, end)."""
        if not collection.written_columns:
            return []
        statement, parameters = self.lookups(collection).written_between, {"start": start, "end": end}
        return [tuple(key) for key in self.fetch(statement, parameters)]

    def arrived(
        self, collection: Collection, columns: Sequence[str], created: Sequence[str], window: Window, *, since: datetime
    ) -> tuple[int, int]:
        """How many rows have one of the times `columns` in the window, and one of `created`, without those that this bundle
        has written after `since`."""
        parameters = {"collection": collection.name, "start": window.start, "end": window.end, "since": since}
        [(touched, new)] = self.fetch(self.lookups(collection).arrived(columns, created), parameters)
        return touched, new


def _could_be_at(collection: Collection, key: Key, path: str) -> bool:
    """Whether a row's document could be at the path that its columns give. They give another document's path if an id written by hand
    has a slash in it, if parts join to an id that is split differently (id_patterns.py), or if columns beside the key disagree with
    the path from which the key was made."""
    if not collection.has(path):
        return False
    if not collection.keyed_by_path or (collection.is_plain and collection.key_leads_back):
        return True
    there = key_of_path(collection, path, entry_of_key(collection, key))
    return there is None or tuple(map(str, there)) == tuple(map(str, key))


def numbered(keys: Sequence[Key]) -> dict[str, list[int] | list[str]]:
    """The parameters of `candidate_keys`."""
    return {"n": list(range(len(keys))), "keys": [key_json(key) for key in keys]}
