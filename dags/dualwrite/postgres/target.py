"""Reads and writes the target's rows. Everything here runs in short transactions that hold no lock while Firestore
is read; see docs/protocol.md for the order of steps and the interleavings considered.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Self, TypeVar

import tenacity

from dualwrite import postgres
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.mapping import Cell, Json, Key, Row, Staged, staged
from dualwrite.model.windows import Window
from dualwrite.postgres import Connection
from dualwrite.postgres.statements import Statements
from dualwrite.postgres.text import stored

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOCK_TIMEOUT = "2s"
"""The app's own statements end after 3 s: we give way before we cost a client its write."""

_STATEMENT_TIMEOUT = "120s"
_RECONNECT_SECONDS = 30.0
"""How long a lost connection is made again and again before a call gives up."""

_KEYS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A staged row that does not match: its number in the page, and what the target had at its key when the page was
    compared."""

    n: int
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
    refused: list[tuple[int, str]]
    derived_lag: int


@dataclass(frozen=True, slots=True)
class Write:
    """What a write did, by numbers in the page: journal ids of rows written, and of rows that Postgres refused its
    condition."""

    journal: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


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
        """A transaction with this module's timeouts. Rolled back where the block raises.

        Where the connection was lost since its last use, BEGIN says so: nothing has happened yet, so it is begun on a
        new one. Once begun it is never repeated here: of a COMMIT whose answer was lost nobody knows whether it
        happened. (A write of ours is finished through its journal row, see docs/protocol.md.)
        """
        with ExitStack() as stack:
            connection = self._reconnecting(lambda: stack.enter_context(self._begin()))
            yield connection

    def _begin(self) -> AbstractContextManager[Connection]:
        return postgres.transaction(
            self.connection,
            statement_timeout=_STATEMENT_TIMEOUT,
            lock_timeout=_LOCK_TIMEOUT,
            idle_timeout=_STATEMENT_TIMEOUT,
        )

    def _read(self, ask: Callable[[Connection], T]) -> T:
        """A transaction that only reads: repeated whole, on a new connection, where the connection is lost."""

        def attempt() -> T:
            with self._begin() as connection:
                return ask(connection)

        return self._reconnecting(attempt)

    def _reconnecting(self, attempt: Callable[[], T]) -> T:
        """Repeats `attempt`, with back-off, while connections are lost; raises the last error after half a minute."""

        def reconnect(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, postgres.Error)
            log.warning("Connecting to Postgres again after %s", postgres.condition(error))
            self.close()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, postgres.Error) and postgres.is_disconnect(e)),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=5, jitter=0.3),
            stop=tenacity.stop_after_delay(_RECONNECT_SECONDS),
            before_sleep=reconnect,
            reraise=True,
        )
        return retrying(attempt)

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
        refused: list[tuple[int, str]] = []
        self._bisect(
            connection,
            list(range(len(page))),
            lambda ns: self._copy(connection, collection, page, ns),
            lambda n, why: refused.append((n, why)),
        )
        differences = [
            Difference(
                n,
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
        statement = self.statements(collection).insert
        return self._write_good(
            connection,
            collection,
            ns,
            lambda part: self._journaled(connection, collection, statement, rows, part, run_id),
        )

    def try_write(self, connection: Connection, collection: Collection, ns: list[int]) -> dict[int, str]:
        """Which of the staged rows the table would refuse, with the condition, found on an empty temporary copy of it.
        Writes nothing else."""
        if not ns:
            return {}
        statements = self.statements(collection)
        connection.execute(statements.create_trial)

        def write(part: list[int]) -> dict[int, int]:
            connection.execute(statements.insert_trial, {"n": part})
            return {}

        return self._write_good(connection, collection, ns, write).refused

    def update(
        self, connection: Connection, collection: Collection, differences: Sequence[Difference], run_id: str
    ) -> Write:
        """Updates the rows of these differences that are still as they were read."""
        statement = self.statements(collection).update
        by_number = {d.n: d for d in differences}
        rows = {n: d.row for n, d in by_number.items()}

        def write(part: list[int]) -> dict[int, int]:
            versions = [by_number[n].xmin for n in part]
            return self._journaled(connection, collection, statement, rows, part, run_id, xmin=versions)

        found = Write()
        self._bisect(
            connection,
            list(by_number),
            lambda part: found.journal.update(write(part)),
            lambda n, why: found.refused.update({n: why}),
        )
        return found

    def _journaled(
        self,
        connection: Connection,
        collection: Collection,
        statement: postgres.sql.Composed,
        rows: Sequence[Row] | dict[int, Row],
        ns: list[int],
        run_id: str,
        **more: Any,
    ) -> dict[int, int]:
        """Runs a writing statement on staged rows; returns the journal's ids of those written, by number."""
        parameters = {
            "n": ns,
            "label": [rows[n].label for n in ns],
            "path": [stored(rows[n].path) for n in ns],
            "run": run_id,
            "collection": collection.name,
            "table": collection.table,
            **more,
        }
        # Two documents of one label can't be written in one statement: their key is one.
        numbers = {rows[n].label: n for n in ns}
        return {numbers[label]: i for i, label in connection.execute(statement, parameters)}

    def _write_good(
        self,
        connection: Connection,
        collection: Collection,
        ns: list[int],
        write: Callable[[list[int]], dict[int, int]],
    ) -> Write:
        """Writes all rows but the bad ones, and returns those with Postgres's condition.

        Rows that fail a CHECK are set apart by evaluating the constraint on the stage: thousands of them would make
        the bisection long. Whatever that can't see (a CHECK whose own code raises), the bisection finds.
        """
        found = Write()
        for name, statement in self._check_statements(connection, collection):
            try:
                with connection.transaction():
                    failing = connection.execute(statement, (ns,)).fetchall()
            except postgres.Error as error:
                if not postgres.is_rows_fault(error):
                    raise
                continue
            for (n,) in failing:
                found.refused.setdefault(n, f"CheckViolation 23514 (constraint {name})")
        self._bisect(
            connection,
            [n for n in ns if n not in found.refused],
            lambda part: found.journal.update(write(part)),
            lambda n, why: found.refused.update({n: why}),
        )
        return found

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
            except postgres.Error as error:
                if not postgres.is_rows_fault(error):
                    raise
                if len(part) > 1:
                    middle = len(part) // 2
                    todo += [part[middle:], part[:middle]]
                else:
                    refuse(part[0], postgres.condition(error))

    # --- transactions of their own --------------------------------------------------------------------------------

    def versions(self, collection: Collection, keys: Sequence[Key]) -> dict[Key, tuple[str, str]]:
        """xmin and digest of the rows at these keys. An absent row gives no entry, which is a reading too."""
        statement, parameters = self.statements(collection).versions, _numbered(keys)
        rows = self._read(partial(_fetched, statement, parameters))
        return {keys[n]: (xmin, digest) for n, xmin, digest in rows}

    def paths(self, collection: Collection, keys: Sequence[Key]) -> dict[Key, tuple[str, ...]]:
        """The paths at which the documents of rows at these keys may be, the likeliest first (see Statements.paths). Keys
        without a row give no entry."""
        statement, parameters = self.statements(collection).paths, _numbered(keys)
        rows = self._read(partial(_fetched, statement, parameters))
        # An id with a slash in it, written by hand, would name another document's path.
        return {keys[n]: tuple(path for path in paths if collection.match(path) is not None) for n, paths in rows}

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
                    "path": [stored(candidates[n][2]) for n in locked],
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
        statement = postgres.sql.SQL("SELECT count(*) FROM {}").format(self.statements(collection).table)
        [[number]] = self._read(partial(_fetched, statement, {}))
        return int(number)

    def keys(self, collection: Collection) -> Iterator[list[Key]]:
        """All keys of the table, in pages by key order, each page in a transaction of its own (so no snapshot is held,
        and a pooler may serve each from another connection)."""
        statements = self.statements(collection)
        statement, after = statements.keys_after(first=True), list[Cell]()
        while True:
            parameters = {"after": after, "limit": _KEYS_AT_ONCE}
            page = self._read(partial(_fetched, statement, parameters))
            if page:
                yield [tuple(key) for key in page]
            if len(page) < _KEYS_AT_ONCE:
                return
            statement, after = statements.keys_after(first=False), list(page[-1])

    def counts_by_time(self, collection: Collection, column: str, edges: Sequence[datetime]) -> list[int]:
        """How many rows lie between these edges (ascending), all in one snapshot: before the first, from each on."""
        statement, parameters = self.statements(collection).counts_by_time(column), {"edges": list(edges)}
        found = dict(self._read(partial(_fetched, statement, parameters)))
        return [found.get(n, 0) for n in range(len(edges) + 1)]

    def time_edges(self, collection: Collection, column: str, before: datetime, every: int) -> list[datetime]:
        """Times, in whole milliseconds and ascending, that cut the rows before a moment into slices of `every`."""
        statement, parameters = self.statements(collection).time_edges(column), {"before": before, "every": every}
        return [at for (at,) in self._read(partial(_fetched, statement, parameters))]

    def keys_between(self, collection: Collection, column: str, window: Window) -> list[Key]:
        """The keys of the rows whose time lies in a window."""
        statement = self.statements(collection).keys_between(column)
        parameters = {"start": window.start, "end": window.end}
        return [tuple(key) for key in self._read(partial(_fetched, statement, parameters))]

    def keys_where(self, collection: Collection, column: str, values: Iterable[str]) -> list[Key]:
        """The keys of all rows whose `column` has one of these values."""
        statement, parameters = self.statements(collection).keys_where(column), {"values": list(values)}
        return [tuple(key) for key in self._read(partial(_fetched, statement, parameters))]

    def dependents(self, collection: Collection, column: str, values: Iterable[str]) -> list[tuple[str, Key]]:
        """The rows whose `column` has one of these values: the value and the row's key."""
        with self.transaction() as connection:
            statement = self.statements(collection).dependents(column)
            return [(value, tuple(key)) for value, *key in connection.execute(statement, {"values": list(values)})]

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
        statement, parameters = self.statements(collection).written_between, {"start": start, "end": end}
        return [tuple(key) for key in self._read(partial(_fetched, statement, parameters))]


def _numbered(keys: Sequence[Key]) -> dict[str, list[int] | list[str]]:
    return {"n": list(range(len(keys))), "keys": [key_json(key) for key in keys]}


def _fetched(statement: postgres.sql.Composed, parameters: Mapping[str, object], connection: Connection) -> list[Any]:
    return connection.execute(statement, parameters).fetchall()


@lru_cache(maxsize=1)
def register_json_dumper() -> None:
    """Lets COPY send a `Json` as jsonb in binary form: one version byte, then the text."""
    postgres.register_binary_text(Json, "jsonb", lambda value: b"\x01" + value.text.encode())


register_json_dumper()
