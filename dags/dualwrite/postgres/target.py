"""Reads and writes the target's rows. Everything here runs in short transactions that hold no lock while Firestore
is read; see docs/protocol.md for the order of steps and the interleavings considered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

from dualwrite import postgres
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.mapping import Cell, Json, Row, Staged, staged
from dualwrite.postgres import Connection, errors
from dualwrite.postgres.statements import Statements

Key = tuple[Cell, ...]

_LOCK_TIMEOUT = "2s"
"""The app's own statements end after 3 s: we give way before we cost a client its write."""

_STATEMENT_TIMEOUT = "120s"
_KEYS_AT_ONCE = 10_000

_ROWS_FAULT = (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded, errors.StatementTooComplex)
"""What Postgres says when a row is bad, as against a server, a lock or a connection."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A staged row that does not match: what the target had at its key when the page was compared."""

    row: Row
    found: bool
    xmin: str | None
    columns: tuple[str, ...]
    lacks: tuple[str, ...]
    """Columns that reference a row which isn't there."""
    holders: tuple[Key | None, ...]
    """For each further unique key: the key of another row that holds it."""
    digest: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A page compared: what differs, what could not even be staged (with Postgres's condition), whose counters lag."""

    differences: list[Difference]
    refused: list[tuple[Row, str]]
    derived_lag: int


@dataclass(frozen=True, slots=True)
class Write:
    """What a write did: journal ids by label, rows that Postgres refused with its condition, and how many of the
    journaled ones were inserts."""

    journal: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[Row, str]] = field(default_factory=list)
    inserted: int = 0


def key_json(key: Key) -> str:
    """A key as the JSON array of texts that statements take and the journal keeps."""
    return json.dumps([str(part) for part in key], ensure_ascii=False)


class Target:
    """The target's tables, over one connection. Not for several threads at once."""

    def __init__(self, connect: Callable[[], Connection], catalog: Catalog) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._catalog = catalog
        self._statements: dict[str, Statements] = {}
        self._checks: dict[str, list[tuple[str, str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the next use makes a new one. So nothing is held through a long wait."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def statements(self, collection: Collection) -> Statements:
        if collection.name not in self._statements:
            self._statements[collection.name] = Statements(self._catalog, collection)
        return self._statements[collection.name]

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction with this module's timeouts. Rolled back where the block raises."""
        with postgres.transaction(
            self.connection, statement_timeout=_STATEMENT_TIMEOUT, lock_timeout=_LOCK_TIMEOUT
        ) as connection:
            yield connection

    # --- inside a transaction of the caller's ---------------------------------------------------------------------

    def compare(self, connection: Connection, collection: Collection, rows: Sequence[Row]) -> Comparison:
        """Stages the rows and compares them with the target. The stage lives until the transaction ends."""
        return self.compare_staged(
            connection, collection, [staged(n, row) for n, row in enumerate(rows)], rows.__getitem__
        )

    def compare_staged(
        self, connection: Connection, collection: Collection, page: Sequence[Staged], row: Callable[[int], Row]
    ) -> Comparison:
        """As `compare`, with rows that were never made: each of `page` is numbered by its place in it, and `row(n)` is
        asked only for those that differ or are refused."""
        statements = self.statements(collection)
        connection.execute(statements.create_stage)
        refused: list[tuple[Row, str]] = []
        self._bisect(
            connection,
            list(range(len(page))),
            lambda ns: self._copy(connection, collection, page, ns),
            lambda n, why: refused.append((row(n), why)),
        )
        differences = [
            Difference(
                row(n),
                found,
                xmin,
                tuple(columns),
                tuple(lacks),
                tuple(None if h is None else tuple(h) for h in holders),
                digest,
            )
            for n, found, xmin, columns, lacks, holders, digest in connection.execute(statements.compare)
        ]
        lag = 0
        if statements.derived_lag is not None:
            found = connection.execute(statements.derived_lag).fetchone()
            lag = int(found[0]) if found else 0
        return Comparison(differences, refused, lag)

    def _copy(self, connection: Connection, collection: Collection, page: Sequence[Staged], ns: list[int]) -> None:
        statements = self.statements(collection)
        with connection.cursor() as cursor, cursor.copy(statements.copy_stage) as copy:
            copy.set_types(statements.copy_types)
            for n in ns:
                copy.write_row(page[n])

    def insert(
        self, connection: Connection, collection: Collection, rows: Sequence[Row], ns: list[int], run_id: str
    ) -> Write:
        """Inserts staged rows (by their number) that are still absent. What a client inserted meanwhile is left alone
        and stands in neither part of the answer."""
        journal: dict[str, int] = {}

        def write(part: list[int]) -> None:
            parameters = {
                "n": part,
                "label": [rows[n].label for n in part],
                "path": [rows[n].path for n in part],
                "run": run_id,
                "collection": collection.name,
                "table": collection.table,
            }
            journal.update(
                (label, i) for i, label in connection.execute(self.statements(collection).insert, parameters)
            )

        return Write(journal, self._write_good(connection, collection, rows, ns, write))

    def try_insert(
        self, connection: Connection, collection: Collection, rows: Sequence[Row], ns: list[int]
    ) -> list[tuple[Row, str]]:
        """What an insert would refuse, found on an empty temporary copy of the target. Writes nothing else."""
        statements = self.statements(collection)
        connection.execute(statements.create_trial)
        return self._write_good(
            connection, collection, rows, ns, lambda part: connection.execute(statements.insert_trial, {"n": part})
        )

    def update(
        self, connection: Connection, collection: Collection, differences: Sequence[tuple[int, Difference]], run_id: str
    ) -> Write:
        """Updates the rows of these differences (with their number in the stage) that are still as they were read."""
        journal: dict[str, int] = {}
        by_number = dict(differences)

        def write(part: list[int]) -> None:
            parameters = {
                "n": part,
                "label": [by_number[n].row.label for n in part],
                "path": [by_number[n].row.path for n in part],
                "xmin": [by_number[n].xmin for n in part],
                "run": run_id,
                "collection": collection.name,
                "table": collection.table,
            }
            journal.update(
                (label, i) for i, label in connection.execute(self.statements(collection).update, parameters)
            )

        refused: list[tuple[Row, str]] = []
        self._bisect(
            connection, [n for n, _ in differences], write, lambda n, why: refused.append((by_number[n].row, why))
        )
        return Write(journal, refused)

    def _write_good(
        self,
        connection: Connection,
        collection: Collection,
        rows: Sequence[Row],
        ns: list[int],
        write: Callable[[list[int]], object],
    ) -> list[tuple[Row, str]]:
        """Writes all rows but the bad ones, and returns those with Postgres's condition.

        Rows that fail a CHECK are set apart by evaluating the constraint on the stage: thousands of them would make
        the bisection long. Whatever that can't see, the bisection finds.
        """
        refused: list[tuple[Row, str]] = []
        failing: dict[int, str] = {}
        for name, statement in self._check_statements(connection, collection):
            for (n,) in connection.execute(statement, (ns,)):
                failing.setdefault(n, f"CheckViolation 23514 (constraint {name})")
        refused += [(rows[n], why) for n, why in failing.items()]
        good = [n for n in ns if n not in failing]
        self._bisect(connection, good, write, lambda n, why: refused.append((rows[n], why)))
        return refused

    def _check_statements(self, connection: Connection, collection: Collection) -> list[tuple[str, str]]:
        """For each CHECK of the table that looks only at declared columns, a query for the staged rows that fail it."""
        if collection.name not in self._checks:
            rows = connection.execute(
                "SELECT k.conname, pg_get_expr(k.conbin, k.conrelid), "
                "ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey)) "
                "FROM pg_constraint k WHERE k.conrelid = %s::regclass AND k.contype = 'c'",
                (self._regclass(collection),),
            ).fetchall()
            declared = {c.name for c in collection.columns}
            self._checks[collection.name] = [
                (
                    name,
                    f"SELECT _n FROM pg_temp.dualwrite_stage WHERE _n = ANY(%s) AND ({expression.replace('%', '%%')}) IS FALSE",
                )
                for name, expression, columns in rows
                if set(columns) <= declared
            ]
        return self._checks[collection.name]

    def _regclass(self, collection: Collection) -> str:
        return ".".join('"' + part.replace('"', '""') + '"' for part in collection.table.split("."))

    def _bisect(
        self,
        connection: Connection,
        ns: list[int],
        write: Callable[[list[int]], object],
        refuse: Callable[[int, str], object],
    ) -> None:
        """Runs `write` on all numbers, halving wherever Postgres blames a row, until only the bad ones are left out."""
        todo = [ns] if ns else []
        while todo:
            part = todo.pop()
            try:
                with connection.transaction():
                    write(part)
            except _ROWS_FAULT as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    todo += [part[middle:], part[:middle]]
                else:
                    refuse(part[0], postgres.condition(error))

    # --- transactions of their own --------------------------------------------------------------------------------

    def versions(self, collection: Collection, keys: Sequence[Key]) -> dict[Key, tuple[str, str]]:
        """xmin and digest of the rows at these keys. An absent row gives no entry, which is a reading too."""
        found: dict[Key, tuple[str, str]] = {}
        with self.transaction() as connection:
            for n, xmin, digest in connection.execute(
                self.statements(collection).versions, {"n": list(range(len(keys))), "keys": [key_json(k) for k in keys]}
            ):
                found[keys[n]] = (xmin, digest)
        return found

    def paths(self, collection: Collection, keys: Sequence[Key]) -> dict[Key, str | None]:
        """The paths of the documents that rows at these keys belong to. Keys without a row give no entry."""
        found: dict[Key, str | None] = {}
        with self.transaction() as connection:
            for n, path in connection.execute(
                self.statements(collection).paths, {"n": list(range(len(keys))), "keys": [key_json(k) for k in keys]}
            ):
                found[keys[n]] = path
        return found

    def delete(
        self, collection: Collection, candidates: Sequence[tuple[Key, str, str | None, str]], run_id: str
    ) -> dict[str, int]:
        """Deletes rows (key, label, path, xmin as read) that are unchanged and that no row references.

        Two statements: the first locks the rows, so that no client can add a reference to them any more; the second
        sees every reference added before that. With one statement, a comment committed between its snapshot and the
        delete would be cascaded away. Returns journal ids by label; a label that isn't there was not deleted.
        """
        statements = self.statements(collection)
        ns = list(range(len(candidates)))
        keys = [key_json(key) for key, _, _, _ in candidates]
        with self.transaction() as connection:
            referencing = self._referencing(connection, collection)
            locked = [
                n
                for (n,) in connection.execute(
                    statements.lock, {"n": ns, "keys": keys, "xmin": [xmin for _, _, _, xmin in candidates]}
                )
            ]
            if not locked:
                return {}
            deleted = connection.execute(
                statements.delete(referencing),
                {
                    "n": locked,
                    "keys": [keys[n] for n in locked],
                    "label": [candidates[n][1] for n in locked],
                    "path": [candidates[n][2] for n in locked],
                    "run": run_id,
                    "collection": collection.name,
                    "table": collection.table,
                },
            )
            return {label: journal_id for journal_id, label in deleted}

    def _referencing(self, connection: Connection, collection: Collection) -> list[tuple[str, str, str, str]]:
        """The live foreign keys to this table, those of tables that the catalog doesn't know included."""
        return connection.execute(
            "SELECT n.nspname::text, r.relname::text, a.attname::text, b.attname::text FROM pg_constraint k "
            "JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace "
            "JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1] "
            "JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1] "
            "WHERE k.contype = 'f' AND k.confrelid = %s::regclass",
            (self._regclass(collection),),
        ).fetchall()

    def count(self, collection: Collection) -> int:
        """How many rows the table has now."""
        with self.transaction() as connection:
            found = connection.execute(
                postgres.sql.SQL("SELECT count(*) FROM {}").format(self.statements(collection).table)
            ).fetchone()
            return int(found[0]) if found else 0

    def keys(self, collection: Collection) -> Iterator[list[Key]]:
        """All keys of the table, in pages by key order, each page in a transaction of its own (so no snapshot is held,
        and a pooler may serve each from another connection)."""
        statements = self.statements(collection)
        after: Key | None = None
        while True:
            with self.transaction() as connection:
                page: list[Key] = connection.execute(
                    statements.keys_after(first=after is None), {"after": list(after or ()), "limit": _KEYS_AT_ONCE}
                ).fetchall()
            if page:
                yield [tuple(key) for key in page]
            if len(page) < _KEYS_AT_ONCE:
                return
            after = tuple(page[-1])

    def keys_where(self, collection: Collection, column: str, values: Iterable[str]) -> list[Key]:
        """The keys of all rows whose `column` has one of these values."""
        with self.transaction() as connection:
            statement = self.statements(collection).keys_where(column)
            return [tuple(key) for key in connection.execute(statement, {"values": list(values)})]

    def untouched(self, connection: Connection, collection: Collection, journal_ids: Sequence[int]) -> frozenset[str]:
        """Labels of journaled inserts whose row is still the very version that we inserted: it carries the xmin of
        its unconfirmed journal row, which the same statement wrote."""
        return frozenset(
            label for (label,) in connection.execute(self.statements(collection).untouched, {"ids": list(journal_ids)})
        )

    def written_between(self, collection: Collection, start: object, end: object) -> list[Key]:
        """The keys of rows one of whose written columns lies in [start, end)."""
        if not collection.written_columns:
            return []
        with self.transaction() as connection:
            found = connection.execute(
                self.statements(collection).written_between, {"start": start, "end": end}
            ).fetchall()
        return [tuple(key) for key in found]


@lru_cache(maxsize=1)
def register_json_dumper() -> None:
    """Lets COPY send a `Json` as jsonb in binary form: one version byte, then the text."""
    postgres.register_binary_text(Json, "jsonb", lambda value: b"\x01" + value.text.encode())


register_json_dumper()
