"""The dual-write itself, for servers in Python: in the app's own order (document, lock, row), and without delaying or failing the app.

    dual_write.configure(lambda: postgres.connect(os.environ["SUPABASE_URL"], connect_timeout=3))
    dual_write.mirror("boards/b1/posts/p1", before=None, after={...})      # in a function triggered by Firestore
    dual_write.dual_write(entity_type="post", operation_type="create", entity_id="p1", supabase_write=insert_the_row)

Nothing here raises into the caller or keeps it longer than the timeout. A failure is reported to Sentry by kind, with the
tags dual_write.entity_type, .operation_type and .entity_id, and is found by reconcile_dual_writes, which knows from the
lock in write_ops that it was attempted.

Considered: a caller that got TIMED_OUT goes on, so a write that has not begun by then is dropped, never done late
over a newer row; nor does it keep a later write waiting. A process may be frozen between two statements (Cloud Functions
are, once they have answered): the server then ends the transaction, so that no row stays locked. A lock is committed
before its write, as in the app: a write that fails leaves the lock, which distinguishes attempted_failed from
never_attempted. A process may be forked at any moment (gunicorn, uWSGI, Celery): the child makes threads and connections
of its own. Events that arrive twice or out of order (Cloud Functions promise neither) can leave an older value in the
row: that is stale, and reconciliation sees it. Whose row may be deleted: model/change.py, and docs/dual-write.md.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from dualwrite import alerts, postgres
from dualwrite.catalog import CATALOG
from dualwrite.model.change import Change, Delete, Kept, Name, Operation, Upsert, changes_of, owner_of
from dualwrite.model.change import Changed as Changed  # callers import it from here
from dualwrite.model.declaration import Catalog
from dualwrite.model.documents import Document, Unasked, Value
from dualwrite.model.mapping import Row
from dualwrite.model.question import Question, question_of
from dualwrite.postgres import Connection, live_types
from dualwrite.postgres.mirrored import Mirrored, Statement

log = logging.getLogger(__name__)

FLAG = "DUAL_WRITE_ENABLED"
TIMEOUT = 3.0
"""Seconds that a caller is kept at most."""

_IDLE = 1.0
"""Seconds that our transaction may be idle between two statements before the server ends it and frees its locks."""

_LOCK_TRIES = 10

_NOT_ITS_ROW = "left: the row gives another path than the document's, or another birth"
_NOT_WRITTEN = "left: the row gives another path than the document's, or a trigger skipped the write"
_NO_PARENT = "left: a document that it references has no row, so the value that it holds isn't known"
_LATE = "late: a document that it references has no row yet"
_HIDDEN = "left: no row can be seen, and row-level security may hide it"
_SHARED = "left: other documents may have its key, and Firestore could not be asked (configure siblings=)"
_REFUSED_SIBLING = "left: a document that may have its key can't become a row"

Siblings = Callable[[Question], Iterable[Document] | Unasked]
"""Asks Firestore for all documents of a collection whose fields have these values, and answers with all of them or raises: a
row is deleted for an empty answer."""


class Outcome(StrEnum):
    """How a dual-write ended. The caller may ignore it."""

    WRITTEN = "written"
    """Committed, all of it: the rows follow the change."""
    PARTLY = "partly"
    """A part is committed. The rest was refused (it can't become a row, and keeps the one that it has) or left (the row
    doesn't show that it is the document's), or a reference waits for its row; that is reported."""
    REFUSED = "refused"
    """Nothing was written: all of it was refused or left, and reported."""
    NOTHING = "nothing"
    """The change means nothing to the target."""
    OFF = "off"
    """The flag is off: nothing was sent."""
    FAILED = "failed"
    """Not committed; if the connection broke during COMMIT, that is unknown."""
    TIMED_OUT = "timed_out"
    """The caller didn't wait for the end: a write that had begun may be committed or not; one that hadn't is dropped."""


@dataclass(frozen=True, slots=True)
class Write:
    """One operation: its name in write_ops, and the statements that it makes on a connection (in a transaction)."""

    entity_type: str
    operation_type: str
    entity_id: str
    supabase_write: Callable[[Connection], object]

    @property
    def name(self) -> Name:
        return Name(self.entity_type, self.operation_type, self.entity_id)


def is_enabled() -> bool:
    """The flag, from the environment. Absent means on: a flag that was forgotten in a build once switched dual-write
    off for three weeks, unnoticed."""
    return os.environ.get(FLAG, "true").strip().lower() != "false"


class LocksTaken(Exception):
    """Others hold the lock of an operation of this name, at each of the moments that were tried."""


@dataclass(frozen=True, slots=True)
class _Live:
    """The catalog with the types of the tables' columns, and when these were read (time.monotonic)."""

    catalog: Catalog
    asked_at: float


TYPES_HOLD = 60.0
"""Seconds after which a value that can't become a cell makes us ask for the columns again."""
_OF_TYPES = ("22", "42")
"""Classes of SQLSTATE for a value or a statement that doesn't fit a column's type."""
_DEADLOCK = "40P01"


@dataclass(slots=True)
class _OfProcess:
    """Threads and connections of one process, which would break if another used or closed them."""

    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=4, thread_name_prefix="dual-write")
    )
    connections: dict[int, Connection] = field(default_factory=dict)
    """By thread; each thread touches only its own."""
    live: _Live | None = None


_Doing = Callable[[Connection, float], Sequence[Kept]]
"""Writes, in a transaction of its own, before a deadline (of time.monotonic); returns the operations that were left; the others are
committed."""


@dataclass
class DualWriter:
    """Writes beside the app. Connections are made when first needed, one a thread, and again after an error.

    `siblings` asks Firestore who else has a natural key that several documents may share; without it, the rows of deleted
    documents with such keys are left to the reconciliation.
    """

    connect: Callable[[], Connection]
    enabled: Callable[[], bool] = is_enabled
    timeout: float = TIMEOUT
    catalog: Catalog = CATALOG
    siblings: Siblings | None = None
    _processes: dict[int, _OfProcess] = field(default_factory=dict, repr=False)
    """By process id. A forked child inherits its parent's and keeps it here: if it were collected, it might be closed."""

    @property
    def _own(self) -> _OfProcess:
        """This process's. Without a lock: one that was held at a fork would stay held in the child for ever."""
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, _OfProcess())

    def close(self) -> None:
        """Ends this process's threads and connections. For a process that lives on."""
        own = self._own
        own.threads.shutdown(wait=True, cancel_futures=True)
        for connection in own.connections.values():
            connection.close()
        own.connections.clear()

    # --- operations -----------------------------------------------------------------------------------------------

    def dual_write(
        self,
        *,
        entity_type: str,
        operation_type: str,
        entity_id: str,
        supabase_write: Callable[[Connection], object],
    ) -> Outcome:
        """One operation. `supabase_write` gets a connection inside a transaction, and may raise. It doesn't pause: the
        server ends the transaction after a second without a statement. It neither commits nor rolls back, and puts a
        statement that may fail without harm into a savepoint (`with connection.transaction()`)."""
        return self.dual_write_batch([Write(entity_type, operation_type, entity_id, supabase_write)])

    def dual_write_batch(self, writes: Sequence[Write]) -> Outcome:
        """Several operations, each with its lock, all rows in one transaction: all of them or none."""

        def do(connection: Connection, deadline: float) -> Sequence[Kept]:
            with _transaction(connection, deadline):
                for write in writes:
                    write.supabase_write(connection)
                    _left(deadline)
            return ()

        names = [write.name for write in writes]
        return self._guarded(names, lambda: self._done(names, do, len(writes), ()))

    def mirror(
        self,
        path: str,
        before: Mapping[str, Value] | None,
        after: Mapping[str, Value] | None,
        *,
        create_time: datetime | None = None,
    ) -> Outcome:
        """Writes the rows that follow from a change of the document at `path`, by the catalog.

        `before` and `after` are its fields, None if it didn't exist. `create_time` is the server's, which stands in for an
        absent createdAt. Collections without operations in the catalog are left alone. A document that can't become a row
        keeps the row that it has; a row that doesn't show that it is the document's is left; both are reported.
        """

        return self.mirror_batch([Changed(path, before, after, create_time)])

    def mirror_batch(self, changes: Sequence[Changed]) -> Outcome:
        """As `mirror`, for the changes of several documents, all in one transaction: all of them or none. Rows may need each
        other, in any order. A collection's rows are deleted before those of the ones that it needs; if it needs itself, in the given
        order. Changes of one document are given in the order in which they came, and written as one."""

        def plan_and_do() -> Outcome:
            now = datetime.now(UTC)
            return self._planned(lambda catalog: changes_of(catalog, changes, now))

        return self._guarded([Name("unknown", "mirror", changed.path) for changed in changes], plan_and_do)

    def _planned(self, plan: Callable[[Catalog], Change]) -> Outcome:
        """Plans with the tables' live types, and writes. If Postgres, or the plan, refuses a value, they may have changed."""
        deadline = time.monotonic() + self.timeout
        change, known = plan(self._known), self._own.live
        stale = known is None or (change.kept and time.monotonic() - known.asked_at > TYPES_HOLD)
        if stale and (change.operations or change.kept):
            try:
                known = self._ask_within(deadline)
                change = plan(known.catalog)
            except FutureTimeout:
                return _failed(change.names, Outcome.TIMED_OUT, f"no answer within {self.timeout:g} s")
            except Exception as error:  # noqa: BLE001
                if change.operations:
                    why = postgres.condition(error) if isinstance(error, postgres.Error) else type(error).__name__
                    return _failed(change.names, Outcome.FAILED, why)

        def do(connection: Connection, deadline: float) -> Sequence[Kept]:
            try:
                return self._write_in_turn(change.operations, connection, deadline)
            except postgres.Error as error:
                if not (error.sqlstate or "").startswith(_OF_TYPES):
                    raise
                now = self._ask(connection, deadline)
                if known is not None and now.catalog is known.catalog:
                    raise
            return self._write_in_turn(plan(now.catalog).operations, connection, deadline)

        return self._done(change.names, do, len(change.operations), change.kept)

    def _ask_within(self, deadline: float) -> _Live:
        """As `_ask`, in a thread of ours, within the caller's patience."""
        asked = self._own.threads.submit(lambda: self._ask(self._connection(), deadline))
        try:
            return asked.result(timeout=_left(deadline))
        finally:
            asked.cancel()

    def _ask(self, connection: Connection, deadline: float) -> _Live:
        """The tables' columns: asked once a process, and again after a refusal."""
        try:
            with _transaction(connection, deadline):
                types = live_types.read(connection.execute, [c.table for c in self.catalog])
        except BaseException:
            self._drop_connection()
            raise
        self._own.live = _Live(self.catalog.with_live(types), time.monotonic())
        return self._own.live

    def _guarded(self, names: Sequence[Name], do: Callable[[], Outcome]) -> Outcome:
        """Never raises, and does nothing while the flag is off."""
        try:
            return do() if self.enabled() else Outcome.OFF
        except Exception as error:  # noqa: BLE001
            return _failed(names, Outcome.FAILED, type(error).__name__)

    def _done(self, names: Sequence[Name], do: _Doing, number: int, kept: Sequence[Kept]) -> Outcome:
        """Takes the locks and does `number` writes, in a thread of ours, within the caller's patience. Rows refused beforehand
        (`kept`) are reported with those that were left."""
        future: Future[Sequence[Kept]] | None = None
        left: Sequence[Kept] = ()
        try:
            if names:
                deadline = time.monotonic() + self.timeout
                future = self._own.threads.submit(self._attempt, names, do, deadline)
                left = future.result(timeout=self.timeout)
        except FutureTimeout:
            if future is not None:
                future.cancel()  # still queued: its turn goes to a write whose caller still waits
            return _failed(names, Outcome.TIMED_OUT, f"no answer within {self.timeout:g} s")
        except postgres.Error as error:
            return _failed(names, Outcome.FAILED, postgres.condition(error))
        except Exception as error:  # noqa: BLE001
            return _failed(names, Outcome.FAILED, type(error).__name__)
        finally:
            _report((kept_.why, Name(kept_.entity_type, "mirror", kept_.label)) for kept_ in [*kept, *left])
        if sum(not kept_.written for kept_ in left) == number:
            return Outcome.REFUSED if kept or left else Outcome.NOTHING
        return Outcome.PARTLY if kept or left else Outcome.WRITTEN

    def _attempt(self, names: Sequence[Name], do: _Doing, deadline: float) -> Sequence[Kept]:
        """In a thread of ours: locks, then one transaction. Gives up if the caller has gone on already."""
        _left(deadline)  # a connection that no caller waits for would delay the next write
        try:
            connection = self._connection()
            _lock(connection, names, deadline)
            return do(connection, deadline)
        except BaseException:
            self._drop_connection()
            raise

    def _connection(self) -> Connection:
        connections = self._own.connections
        connection = connections.get(threading.get_ident())
        if connection is None or connection.closed or postgres.was_hung_up(connection):
            self._drop_connection()
            connection = connections[threading.get_ident()] = self.connect()
        return connection

    def _drop_connection(self) -> None:
        connection = self._own.connections.pop(threading.get_ident(), None)
        if connection is not None:
            connection.close()

    # --- the rows of a change -------------------------------------------------------------------------------------

    def _write_in_turn(self, planned: Sequence[Operation], connection: Connection, deadline: float) -> Sequence[Kept]:
        """As `_write`, and again while the caller waits if Postgres ended it because two writers waited for each other: all of it was
        rolled back, and the other one goes first."""
        while True:
            try:
                return self._write(planned, connection, deadline)
            except postgres.Error as error:
                if error.sqlstate != _DEADLOCK:
                    raise

    def _write(self, planned: Sequence[Operation], connection: Connection, deadline: float) -> Sequence[Kept]:
        """All operations in one message and one transaction."""
        operations, left = self._settled(planned, connection, deadline)
        if not operations:
            return left
        with _transaction(connection, deadline):
            late = [(o, fill) for o in operations if isinstance(o, Upsert) and (fill := self._sql(o).fill(o.row))]
            statements = [*(self._statement(operation) for operation in operations), *(fill for _, fill in late)]
            answers = postgres.at_once(connection, statements)
            _left(deadline)
        written, filled = answers[: len(operations)], answers[len(operations) :]
        without = {id(o) for (o, _), (_, [(whole,)]) in zip(late, filled, strict=True) if not whole}
        for operation, (_, rows) in zip(operations, written, strict=True):
            if isinstance(operation, Delete):
                [(deleted, there, hidden)] = rows
                why = None if deleted else _NOT_ITS_ROW if there else _HIDDEN if hidden else None
            else:
                [(number, complete)] = rows
                skipped = number == 0 and self._sql(operation).updates(operation.row)
                why = _NO_PARENT if not complete else _NOT_WRITTEN if skipped else None
            if why is not None:
                left.append(_kept(operation, why))
            elif id(operation) in without:
                left.append(replace(_kept(operation, _LATE), written=True))
        return left

    def _settled(
        self, operations: Sequence[Operation], connection: Connection, deadline: float
    ) -> tuple[list[Operation], list[Kept]]:
        """The operations, each delete of a key that several documents may share settled by the other documents: the row's version is
        read, then the source is asked, and the row is written if it still has that version (docs/protocol.md)."""
        shared = {n: o for n, o in enumerate(operations) if isinstance(o, Delete) and o.shared}
        versions: dict[int, tuple[str | None, bool]] = {}
        if shared:
            with _transaction(connection, deadline):
                answers = postgres.at_once(connection, [self._sql(o).version(o.key) for o in shared.values()])
            versions = {n: rows[0] for n, (_, rows) in zip(shared, answers, strict=True)}
        settled: list[Operation] = []
        left: list[Kept] = []
        for n, operation in enumerate(operations):
            if n not in versions:
                settled.append(operation)
                continue
            decided = self._whose(operation, *versions[n])
            if isinstance(decided, str):
                left.append(_kept(operation, decided))
            elif decided is not None:
                settled.append(decided)
            _left(deadline)
        return settled, left

    def _whose(self, operation: Operation, version: str | None, hidden: bool) -> Operation | str | None:
        """The operation for the row of a key that a document no longer has, or why the row is left, or None if there is no row."""
        assert isinstance(operation, Delete)
        if version is None:
            return _HIDDEN if hidden else None
        if self.siblings is None:
            return _SHARED
        question = question_of(operation.collection, operation.key)
        answer = self.siblings(question)
        if isinstance(answer, Unasked):
            return _SHARED
        owner = owner_of(operation.collection, operation.key, list(answer))
        if owner is None:
            return replace(operation, version=version)
        if isinstance(owner, Row):
            return Upsert(operation.name, operation.collection, owner, created=False, version=version)
        return _REFUSED_SIBLING

    def _statement(self, operation: Operation) -> Statement:
        statements = self._sql(operation)
        if isinstance(operation, Upsert):
            path = None if operation.created else operation.row.path
            return statements.upsert(operation.row, path=path, version=operation.version)
        births = [(Mirrored.of(self._known, b.collection), b.key, b.column, b.at) for b in operation.births]
        return statements.delete(operation.key, path=operation.path, births=births, version=operation.version)

    def _sql(self, operation: Operation) -> Mirrored:
        return Mirrored.of(self._known, operation.collection)

    @property
    def _known(self) -> Catalog:
        """The catalog, with the types of the tables' columns once they were read."""
        return self._own.live.catalog if self._own.live is not None else self.catalog


def _kept(operation: Operation, why: str) -> Kept:
    label = operation.row.label if isinstance(operation, Upsert) else operation.label
    return Kept(operation.name.entity_type, label, why)


def _lock(connection: Connection, names: Sequence[Name], deadline: float) -> None:
    """Takes the lock of each operation, all in one transaction. An op id holds the millisecond; if another write of the
    same entity has it, this one takes the next free one."""
    used: Counter[Name] = Counter()
    now = time.time_ns() // 1_000_000
    todo = list(names)
    for _ in range(_LOCK_TRIES):
        ids: dict[str, Name] = {}
        for name in todo:
            ids[name.op_id(now + used[name])] = name
            used[name] += 1
        with _transaction(connection, deadline):
            refused = connection.execute(
                # In order: of two batches with the same entities neither waits for the other in a circle.
                "SELECT u.op_id FROM unnest(%s::text[]) AS u (op_id) WHERE NOT public.try_acquire_write_lock(u.op_id)",
                (sorted(ids),),
            ).fetchall()
        todo = [ids[op_id] for (op_id,) in refused]
        if not todo:
            return
    raise LocksTaken


def _failed(names: Sequence[Name], outcome: Outcome, why: str) -> Outcome:
    for line in _report((f"{outcome}: {why}", name) for name in names):
        log.warning("dual-write %s failed", line)
    return outcome


def _report(failures: Iterable[tuple[str, Name]]) -> list[str]:
    """Reports failures to Sentry, alike ones in one event. Returns a line for each event."""
    alike: dict[str, list[Name]] = {}
    for text, name in failures:
        alike.setdefault(text, []).append(name)
    lines = []
    for text, names in alike.items():
        parts = [_printable(p) for p in (names[0].entity_type, names[0].operation_type, names[0].entity_id)]
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        lines.append(":".join(parts) + more)
        try:
            alerts.write_failed(
                text, entity_type=parts[0], operation_type=parts[1], entity_id=parts[2], operations=len(names)
            )
        except Exception as error:  # noqa: BLE001 - nothing is raised into the caller, and a commit stays
            log.warning("Sentry could not be told: %s", type(error).__name__)
    return lines


def _left(deadline: float) -> float:
    """The seconds left of the caller's patience. Raises TimeoutError if it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _transaction(connection: Connection, deadline: float) -> AbstractContextManager[Connection]:
    """A connection whose statements end with the caller's patience, here and on the server."""
    left = _left(deadline)
    return postgres.transaction(
        connection,
        statement_timeout=_milliseconds(left),
        idle_timeout=_milliseconds(min(left, _IDLE)),
        answer_within=left + 0.5,  # a server that is only slow ends its statement itself
        clients_path=True,  # the caller's statements, and the triggers of the app's tables
    )


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"


def _printable(text: str) -> str:
    """An id as one line without control characters: it may hold newlines, and a terminal's escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- one writer a process -----------------------------------------------------------------------------------------------

_writer: DualWriter | None = None


def configure(
    connect: Callable[[], Connection],
    *,
    enabled: Callable[[], bool] = is_enabled,
    timeout: float = TIMEOUT,
    siblings: Siblings | None = None,
) -> None:
    """Call once, at the process's start: how to reach the target, and how to ask the source who shares a natural key."""
    global _writer  # noqa: PLW0603 - one for a process, as its name says
    _writer = DualWriter(connect, enabled, timeout, siblings=siblings)


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


def mirror_batch(changes: Sequence[Changed]) -> Outcome:
    """See DualWriter.mirror_batch."""
    return _configured().mirror_batch(changes)


def mirror(
    path: str,
    before: Mapping[str, Value] | None,
    after: Mapping[str, Value] | None,
    *,
    create_time: datetime | None = None,
) -> Outcome:
    """See DualWriter.mirror."""
    return _configured().mirror(path, before, after, create_time=create_time)
