"""Worlds whose oracles share no code with the product: documents as plain Python values, and the rows that tables must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from google.cloud import firestore
from google.cloud.firestore_v1.vector import Vector

from dualwrite.model import documents as model
from tests.kept import looking

Documents = dict[str, dict[str, Any]]
"""By path."""
Key = tuple[str, ...]
Rows = dict[str, dict[Key, tuple[Any, ...]]]
"""By collection and key: the compared values of its rows. Keys are texts, and never hold generated ids."""


@dataclass(frozen=True)
class Ref:
    """A reference to a document."""

    path: str

    @property
    def id(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Geo:
    lat: float
    lng: float


@dataclass(frozen=True)
class Vec:
    numbers: tuple[float, ...]


@dataclass
class Wanted:
    """What an oracle says. `rows`: what the tables must hold. `counts`: by collection, how many units are rejected or duplicates.
    `kept`: keys of rows that may be a rejected unit's, so that they stay as they are if they are there. `orphans`: keys that have no
    row, because what they require is gone; a row that is there nevertheless is extra."""

    rows: Rows = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    kept: dict[str, set[Key]] = field(default_factory=dict)
    orphans: dict[str, set[Key]] = field(default_factory=dict)
    beside: dict[str, set[Key]] = field(default_factory=dict)
    untold: frozenset[str] = frozenset()
    """Collections whose rows don't tell their documents' paths: an extra one is told, and nobody deletes it."""

    def row(self, collection: str, key: Key, values: tuple[Any, ...]) -> None:
        assert key not in self.rows.setdefault(collection, {}), (collection, key)
        self.rows[collection][key] = values

    def _count(self, collection: str, verdict: str) -> None:
        self.counts.setdefault(collection, Counter())[verdict] += 1

    def reject(self, collection: str, key: Key | None = None) -> None:
        self._count(collection, "rejected")
        if key is not None:
            self.kept.setdefault(collection, set()).add(key)

    def may_be(self, collection: str, *keys: Key) -> None:
        """Rows that a document whose key can't be told may have: each that is there is told beside it."""
        self.kept.setdefault(collection, set()).update(keys)
        self.beside.setdefault(collection, set()).update(keys)

    def orphan(self, collection: str, key: Key) -> None:
        self.orphans.setdefault(collection, set()).add(key)

    def duplicate(self, collection: str) -> None:
        self._count(collection, "duplicate")

    def after_repair(self, found: Rows) -> Rows:
        """What the tables hold once all that can be repaired is."""

        def stays(name: str, key: Key) -> bool:
            return key in self.kept.get(name, ()) or (name in self.untold and key not in self.orphans.get(name, ()))

        return {
            name: {k: v for k, v in rows.items() if stays(name, k)} | self.rows.get(name, {})
            for name, rows in found.items()
        }

    def differences(self, found: Rows) -> dict[str, dict[str, set[Key]]]:
        """What a look at these rows must find, by collection and verdict: the keys."""
        told = {}
        for name, rows in found.items():
            wanted = self.rows.get(name, {})
            stale = {key for key in wanted.keys() & rows.keys() if wanted[key] != rows[key]}
            told[name] = {
                "missing": wanted.keys() - rows.keys(),
                "extra": rows.keys() - wanted.keys() - self.kept.get(name, set()),
                "stale": stale,
                "orphan": self.orphans.get(name, set()) - rows.keys(),
                "rejected": self.beside.get(name, set()) & rows.keys(),
            }
        return told

    def report(self, found: Rows, *, documents_alone: bool = False) -> dict[str, dict[str, int]]:
        """The same, counted as a report counts it, without what matches. `documents_alone`: nobody looked for rows."""
        told = {n: Counter({v: len(keys) for v, keys in parts.items()}) for n, parts in self.differences(found).items()}
        for counts in told.values() if documents_alone else ():
            counts["extra"] = counts["rejected"] = 0
        return {name: dict(+(counts + self.counts.get(name, Counter()))) for name, counts in told.items()}

    def hanging(self, found: Rows) -> dict[str, int]:
        """How many of the extra rows equal their documents, and only lack what these require."""
        return {name: len(self.orphans.get(name, set()) & rows.keys()) for name, rows in found.items()}


@dataclass(frozen=True)
class World:
    """`edits`: what becomes of the documents later. `lost`: what happens to the rows alone. `queries`: by collection, the columns of
    its key as text, then its compared columns."""

    name: str
    folder: Path
    documents: Callable[[], Documents]
    edits: Callable[[Documents], Documents]
    queries: Mapping[str, tuple[int, str]]
    wanted: Callable[[Documents], Wanted]
    sound: Callable[[Documents], Documents]
    """The documents, without what only Postgres can refuse."""
    drafted: tuple[str, ...]
    """What stands in a draft of its catalog."""
    outside: str
    """A query for the rows of its tables that never were in Firestore."""

    def sql(self, name: str) -> str:
        return (self.folder / f"{name}.sql").read_text()

    def rows(self, dsn: str) -> Rows:
        """What the tables hold."""
        with psycopg.connect(dsn) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return {
                name: {tuple(row[:keys]): tuple(row[keys:]) for row in connection.execute(query)}
                for name, (keys, query) in self.queries.items()
            }


def for_firestore(client: firestore.Client, value: Any) -> Any:
    """A plain value as Firestore's own client takes it."""
    match value:
        case Ref(path):
            return client.document(path)
        case Geo(lat, lng):
            return firestore.GeoPoint(lat, lng)
        case Vec(numbers):
            return Vector(numbers)
        case dict():
            return {name: for_firestore(client, inner) for name, inner in value.items()}
        case list():
            return [for_firestore(client, inner) for inner in value]
        case _:
            return value


def for_mirror(value: Any) -> Any:
    """A plain value as the dual-write helper takes it."""
    match value:
        case Ref(path):
            return model.Reference(f"projects/p/databases/(default)/documents/{path}")
        case Geo(lat, lng):
            return model.GeoPoint(lat, lng)
        case Vec(numbers):
            return model.Vector(numbers)
        case dict():
            return {name: for_mirror(inner) for name, inner in value.items()}
        case list():
            return [for_mirror(inner) for inner in value]
        case _:
            return value


def put(client: firestore.Client, before: Documents, after: Documents) -> None:
    """Makes Firestore hold `after`, where it held `before`: one document after another, as clients write them."""
    for path in before.keys() - after.keys():
        client.document(path).delete()
    for path, fields in after.items():
        if before.get(path) != fields:
            client.document(path).set(for_firestore(client, fields))


def everything_in(dsn: str) -> dict[str, Any]:
    """A digest of each table of any schema, with places and versions of its rows, and where the sequences are."""
    with looking(dsn) as connection:
        names = connection.execute("""
            SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind = 'S' FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'S') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1""").fetchall()
        digest = "SELECT md5(string_agg(t.ctid::text || t.xmin::text || t::text, '|' ORDER BY t.ctid)) FROM {} t"
        state = "SELECT (last_value, is_called)::text FROM {}"
        return {
            name: connection.execute((state if is_sequence else digest).format(name)).fetchone()
            for name, is_sequence in names
        }
