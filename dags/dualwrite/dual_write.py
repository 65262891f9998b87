"""The dual-write itself, for servers in Python: the app's own order (document, lock, row), and never in its way.

    dual_write.configure(lambda: postgres.connect(os.environ["SUPABASE_URL"], connect_timeout=3))
    dual_write.mirror("boards/b1/posts/p1", before=None, after={...})      # in a function triggered by Firestore
    dual_write.dual_write(entity_type="post", operation_type="create", entity_id="p1", supabase_write=insert_the_row)

Nothing here raises into the caller or keeps it longer than the timeout. What fails is told to Sentry by kind, with the
tags dual_write.entity_type, .operation_type and .entity_id, and is found by reconcile_dual_writes, which knows from the
lock in write_ops that it was attempted.

Considered: a caller that was told TIMED_OUT goes on, so a write that has not begun by then is dropped, never done late
over a newer row; nor does it keep a later write waiting. A process may be frozen between two statements (Cloud Functions
are, once they have answered): the server then ends the transaction, so that no row stays locked. A lock is committed
before its write, as in the app: a write that fails leaves the lock, which is what tells attempted_failed from
never_attempted. Events that arrive twice or out of order (Cloud Functions promise
neither) can leave an older value in the row: that is stale, and reconciliation sees it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from dualwrite import alerts, postgres
from dualwrite.catalog import CATALOG
from dualwrite.model.declaration import Catalog, Collection, Operations
from dualwrite.model.documents import Document, Value
from dualwrite.model.mapping import Json, Row, map_document
from dualwrite.postgres import Connection
from dualwrite.postgres.statements import Statements

log = logging.getLogger(__name__)

FLAG = "DUAL_WRITE_ENABLED"
TIMEOUT = 3.0
"""Seconds that a caller is kept at most."""

_IDLE = 1.0
"""Seconds that our transaction may lie idle between two statements before the server ends it, and with it its locks."""


class Outcome(StrEnum):
    """How a dual-write ended. The caller may ignore it."""

    WRITTEN = "written"
    OFF = "off"
    REPEATED = "repeated"
    """Another process holds the lock of this very operation: it writes, or has written."""
    FAILED = "failed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class Write:
    """One operation: what it is called in write_ops, and the statements it makes on a connection (in a transaction)."""

    entity_type: str
    operation_type: str
    entity_id: str
    supabase_write: Callable[[Connection], object]

    def op_id(self, milliseconds: int) -> str:
        return f"{self.entity_type}:{self.operation_type}:{self.entity_id}:{milliseconds}"


def is_enabled() -> bool:
    """The flag, from the environment. Absent means on: a flag that was forgotten in a build switched dual-write off for
    three weeks once, and nobody noticed."""
    return os.environ.get(FLAG, "true").strip().lower() != "false"


@dataclass
class DualWriter:
    """Writes beside the app. Connections are made when first needed, one a thread, and again after an error."""

    connect: Callable[[], Connection]
    enabled: Callable[[], bool] = is_enabled
    timeout: float = TIMEOUT
    catalog: Catalog = CATALOG
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=4, thread_name_prefix="dual-write"), repr=False
    )
    _connections: dict[int, Connection] = field(default_factory=dict, repr=False)
    """By thread; each thread touches only its own."""

    def close(self) -> None:
        """Ends threads and connections. For a process that lives on."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def dual_write(
        self,
        *,
        entity_type: str,
        operation_type: str,
        entity_id: str,
        supabase_write: Callable[[Connection], object],
    ) -> Outcome:
        """One operation. `supabase_write` gets a connection inside a transaction, and may raise. It doesn't pause: the
        server ends the transaction after a second without a statement."""
        return self.dual_write_batch([Write(entity_type, operation_type, entity_id, supabase_write)])

    def dual_write_batch(self, writes: Sequence[Write]) -> Outcome:
        """Several operations, each with its lock, all rows in one transaction: all of them or none."""
        if not writes:
            return Outcome.WRITTEN
        future: Future[Outcome] | None = None
        try:
            if not self.enabled():
                return Outcome.OFF
            deadline = time.monotonic() + self.timeout
            milliseconds = time.time_ns() // 1_000_000
            future = self._threads.submit(self._attempt, writes, milliseconds, deadline)
            return future.result(timeout=self.timeout)
        except FutureTimeout:
            if future is not None:
                future.cancel()  # still queued: its turn goes to a write that somebody waits for
            return self._told(writes, Outcome.TIMED_OUT, f"no answer within {self.timeout:g} s")
        except postgres.Error as error:
            return self._told(writes, Outcome.FAILED, postgres.condition(error))
        except Exception as error:  # noqa: BLE001
            return self._told(writes, Outcome.FAILED, type(error).__name__)

    def _attempt(self, writes: Sequence[Write], milliseconds: int, deadline: float) -> Outcome:
        """In a thread of ours: locks, then one transaction. Gives up where the caller has gone on already."""
        _left(deadline)  # connecting for nobody would take the time of the next write
        try:
            connection = self._connection()
            ours = [w for w in writes if self._lock(connection, w.op_id(milliseconds), deadline)]
            if not ours:
                return Outcome.REPEATED
            with _transaction(connection, deadline):
                for write in ours:
                    write.supabase_write(connection)
                    _left(deadline)
        except BaseException:
            self._drop_connection()
            raise
        return Outcome.WRITTEN

    def _lock(self, connection: Connection, op_id: str, deadline: float) -> bool:
        with _transaction(connection, deadline):
            row = connection.execute("SELECT try_acquire_write_lock(%s)", (op_id,)).fetchone()
        return bool(row and row[0])

    def _connection(self) -> Connection:
        connection = self._connections.get(threading.get_ident())
        if connection is None or connection.closed or postgres.was_hung_up(connection):
            self._drop_connection()
            connection = self._connections[threading.get_ident()] = self.connect()
        return connection

    def _drop_connection(self) -> None:
        connection = self._connections.pop(threading.get_ident(), None)
        if connection is not None:
            connection.close()

    def _told(self, writes: Sequence[Write], outcome: Outcome, why: str) -> Outcome:
        for write in writes:
            named = {
                "entity_type": _printable(write.entity_type),
                "operation_type": _printable(write.operation_type),
                "entity_id": _printable(write.entity_id),
            }
            log.warning("dual-write %(entity_type)s:%(operation_type)s:%(entity_id)s failed", named)
            alerts.write_failed(f"{outcome}: {why}", **named)
        return outcome

    # --- documents to rows ----------------------------------------------------------------------------------------

    def mirror(
        self,
        path: str,
        before: Mapping[str, Value] | None,
        after: Mapping[str, Value] | None,
        *,
        create_time: datetime | None = None,
    ) -> Outcome:
        """Writes what a change of the document at `path` means for its rows, by the catalog.

        `before` and `after` are its fields, None where it wasn't there. `create_time` is the server's, which stands in
        for an absent createdAt. Collections whose operations the catalog doesn't name are left alone.
        """
        try:
            writes = self._writes(path, before, after, create_time or datetime.now(UTC))
        except Exception as error:  # noqa: BLE001
            alerts.write_failed(
                type(error).__name__, entity_type="unknown", operation_type="mirror", entity_id=_printable(path)
            )
            return Outcome.FAILED
        return self.dual_write_batch(writes)

    def _writes(
        self, path: str, before: Mapping[str, Value] | None, after: Mapping[str, Value] | None, created: datetime
    ) -> list[Write]:
        """The operations of a change: rows to delete children first, then rows to write parents first."""
        changes: dict[tuple[str, str, str], list[Callable[[Connection], object]]] = {}
        for collection in reversed(self.catalog.order):
            for row, kind in self._changes(collection, path, before, after, created, gone=True):
                changes.setdefault(_named(collection, row, kind), []).append(_deleting(self.catalog, collection, row))
        for collection in self.catalog.order:
            for row, kind in self._changes(collection, path, before, after, created, gone=False):
                changes.setdefault(_named(collection, row, kind), []).append(_writing(self.catalog, collection, row))
        return [Write(*name, _all_of(statements)) for name, statements in changes.items()]

    def _changes(
        self,
        collection: Collection,
        path: str,
        before: Mapping[str, Value] | None,
        after: Mapping[str, Value] | None,
        created: datetime,
        *,
        gone: bool,
    ) -> list[tuple[Row, str]]:
        """Rows that a change takes away (`gone`) or makes, each with what the app calls the operation."""
        if not collection.operations or collection.match(path) is None:
            return []
        old = self._rows(collection, path, before, created, tell=False)
        new = self._rows(collection, path, after, created, tell=not gone)
        whole = "create" if before is None else "delete" if after is None else "update"
        per_key = set(collection.operations[0].columns) == {c.name for c in collection.key}
        if gone:
            return [(row, "delete" if per_key else whole) for key, row in old.items() if key not in new]
        return [
            (row, ("update" if key in old else "create") if per_key else whole)
            for key, row in new.items()
            if key not in old or _stated(collection, row) != _stated(collection, old[key])
        ]

    def _rows(
        self, collection: Collection, path: str, fields: Mapping[str, Value] | None, created: datetime, *, tell: bool
    ) -> dict[tuple[Any, ...], Row]:
        """By key. What can't become a row is left out, and told to Sentry where `tell`: once a change."""
        if fields is None:
            return {}
        rows: dict[tuple[Any, ...], Row] = {}
        for unit in map_document(collection, Document(path, fields, created, created)) or []:
            if isinstance(unit, Row):
                rows[unit.key] = unit
            elif tell:
                entity = collection.operations[0].entity
                alerts.write_failed(
                    unit.reason, entity_type=entity, operation_type="mirror", entity_id=_printable(unit.label)
                )
        return rows


def _left(deadline: float) -> float:
    """The seconds left of the caller's patience. Raises TimeoutError where it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _transaction(connection: Connection, deadline: float) -> AbstractContextManager[Connection]:
    """One that outlives the caller's patience neither here nor on the server."""
    left = _left(deadline)
    return postgres.transaction(
        connection,
        statement_timeout=_milliseconds(left),
        idle_timeout=_milliseconds(min(left, _IDLE)),
        answer_within=left + 0.5,  # a server that is only slow says so itself
    )


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"


def _printable(text: str) -> str:
    """An id as one line without control characters: it may hold newlines, and a terminal's escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _stated(collection: Collection, row: Row) -> list[object]:
    """What a client would write of a row: not its counters, which lag by design."""
    return [cell for cell, column in zip(row.cells, collection.columns, strict=True) if column.role != "derived"]


def _named(collection: Collection, row: Row, kind: str) -> tuple[str, str, str]:
    operations: Operations = collection.operations[0]
    values = dict(zip((c.name for c in collection.columns), row.cells, strict=True))
    entity_id = "_".join(str(values[name]) for name in operations.columns) or row.path.rsplit("/", 1)[-1]
    return operations.entity, kind, entity_id


def _writing(catalog: Catalog, collection: Collection, row: Row) -> Callable[[Connection], object]:
    values = [cell.text if isinstance(cell, Json) else cell for cell in row.cells]
    return lambda connection: connection.execute(Statements.of(catalog, collection).upsert(row.stand_ins), values)


def _deleting(catalog: Catalog, collection: Collection, row: Row) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(Statements.of(catalog, collection).delete_one, list(row.key))


def _all_of(statements: Sequence[Callable[[Connection], object]]) -> Callable[[Connection], object]:
    return lambda connection: [statement(connection) for statement in statements]


# --- one writer a process -----------------------------------------------------------------------------------------------

_writer: DualWriter | None = None


def configure(
    connect: Callable[[], Connection], *, enabled: Callable[[], bool] = is_enabled, timeout: float = TIMEOUT
) -> None:
    """Says once, at the process's start, how to reach the target."""
    global _writer
    _writer = DualWriter(connect, enabled, timeout)


def _configured() -> DualWriter:
    if _writer is None:
        raise RuntimeError("Call dual_write.configure(connect) once before the first dual-write.")
    return _writer


def dual_write(
    *, entity_type: str, operation_type: str, entity_id: str, supabase_write: Callable[[Connection], object]
) -> Outcome:
    """See DualWriter.dual_write."""
    return _configured().dual_write(
        entity_type=entity_type, operation_type=operation_type, entity_id=entity_id, supabase_write=supabase_write
    )


def dual_write_batch(writes: Sequence[Write]) -> Outcome:
    """See DualWriter.dual_write_batch."""
    return _configured().dual_write_batch(writes)


def mirror(
    path: str,
    before: Mapping[str, Value] | None,
    after: Mapping[str, Value] | None,
    *,
    create_time: datetime | None = None,
) -> Outcome:
    """See DualWriter.mirror."""
    return _configured().mirror(path, before, after, create_time=create_time)
