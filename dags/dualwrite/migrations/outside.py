"""A file outside a transaction: one statement that Postgres refuses inside one (CREATE INDEX CONCURRENTLY).

Nothing is rolled back here, so each step has a time limit and can be repeated. Interleavings considered:

1. Killed between any two steps: the ledger's line without applied_at says that the file is begun; the next run executes
   the statement once more. An invalid index of that name is a half-built one of ours: it is dropped and built again.
2. Killed while the server builds on: the next run's DROP INDEX waits for that build's lock, and gives way as any other.
3. A server's or a role's own statement_timeout would end the build, and then its DROP, again and again: the session has
   limits of its own. They are set for the session, so through a transaction pooler they would reach other clients and
   not us: refused there.
4. A long transaction of the app: an index built concurrently waits for it, and nothing waits behind the build; so it may
   wait for wait_for_lock. The other statements give way after lock_timeout.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dualwrite import postgres, settings
from dualwrite.migrations.execution import SEARCH_PATH, committing, execute, milliseconds, wait_for_answers
from dualwrite.migrations.files import MigrationFile
from dualwrite.migrations.ledger import begin_file, create_ledger, finish_file, is_applied
from dualwrite.migrations.locks import Watcher, lock_out_other_runs
from dualwrite.migrations.rules import IndexBuild, index_build
from dualwrite.model.errors import MigrationError
from dualwrite.model.migration_params import MigrationParams
from dualwrite.postgres import Connection

_CONSEQUENCE = (
    "It ran outside a transaction, so an invalid index may be left. Correct the file if it needs that, and run "
    f"{settings.named('apply_migrations')} again: it drops a half-built index and starts over."
)


def apply_outside(
    connect: Callable[[], Connection],
    file: MigrationFile,
    params: MigrationParams,
    run_id: str,
    watcher: Watcher,
    checkpoint: Callable[[str], None],
) -> None:
    """Applies one file. Raises StatementFailed, MigrationError, or an error that another try may cure.

    The advisory lock lives in a transaction of another connection meanwhile; idle, it holds no snapshot that the index
    build would wait for.
    """
    with connect() as guard, connect() as connection, guard.transaction():
        _stay_open(guard)
        lock_out_other_runs(guard)
        if is_applied(connection, file):
            return
        require_session(connect)
        with committing(file.path.name), connection.transaction():
            create_ledger(connection)
            before = begin_file(connection, file, run_id)
        checkpoint(f"begun {file.version}")
        [statement] = file.statements
        watcher.watch(connection)
        concurrently = "concurrently" in statement.words
        with limits(
            connection, params.wait_for_lock if concurrently else params.lock_timeout, params.statement_timeout
        ):
            build = index_build(statement)
            same = before is None or before.sha256 == file.sha256
            if build is None or not _is_built(connection, file, build, begun=before is not None, same=same):
                execute(connection, file.path.name, statement, _CONSEQUENCE)
            if build is not None and not _is_valid(connection, build):
                raise MigrationError(
                    f"{file.path.name}: index {build.name} is there and invalid, left by another interrupted CREATE INDEX "
                    f"CONCURRENTLY. DROP INDEX CONCURRENTLY {_shown(connection, build)}; then run {settings.named('apply_migrations')} again.",
                    code="index-invalid",
                )
        checkpoint(f"executed {file.version}")
        finish_file(connection, file, run_id)


def require_session(connect: Callable[[], Connection]) -> None:
    """Raises MigrationError if a connection isn't one session but a transaction pooler's.

    A mark is set for the session, and then another client begins a transaction. If the pooler hands out the server connection that
    was used last, that client gets the marked one. If it hands them round, the client gets another, and the first client, which
    reads again while that transaction is open, soon gets one without the mark. A busy pool could hide both by chance: then one
    statement runs without the limits.
    """
    mark = uuid.uuid4().hex
    with connect() as connection, connect() as other:
        connection.execute("SELECT pg_catalog.set_config('dualwrite.session', %s, false)", (mark,))
        with other.transaction():
            shared = [_setting(other, "dualwrite.session") == mark]
            shared += [_setting(connection, "dualwrite.session") != mark for _ in range(3)]
        connection.execute("RESET dualwrite.session")
    if any(shared):
        raise MigrationError(
            "A file outside a transaction needs a session of its own, for its time limits, and the connection goes "
            "through a pooler in transaction mode. Use the direct connection, or the pooler in session mode (port 5432), "
            f"to run {settings.named('apply_migrations')}.",
            code="pooler-in-transaction-mode",
        )


def _setting(connection: Connection, name: str) -> str | None:
    row = connection.execute(f"SELECT pg_catalog.current_setting('{name}', true)").fetchone()
    return row[0] if row else None


def _stay_open(guard: Connection) -> None:
    """Keeps the guard's transaction open: a server that ends idle or long ones would let another run in."""
    guard.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    if guard.info.server_version >= 170000:
        guard.execute("SET LOCAL transaction_timeout = 0")


@contextmanager
def limits(connection: Connection, lock_timeout: float, statement_timeout: float) -> Iterator[None]:
    """Settings of the session, taken back afterwards: a pooler in session mode hands it on."""
    settings = {
        "lock_timeout": milliseconds(lock_timeout),
        "statement_timeout": milliseconds(statement_timeout),
        "search_path": SEARCH_PATH,
    }
    wait_for_answers(connection, statement_timeout)
    try:
        for name, value in settings.items():
            connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        if _setting(connection, "search_path") != SEARCH_PATH:
            raise MigrationError(
                "The session's settings were lost, which happens behind a pooler in transaction mode. Use the direct connection, or the "
                "pooler in session mode (port 5432).",
                code="session-settings-lost",
            )
        yield
    finally:
        if not connection.closed:
            for name in settings:
                connection.execute(f"RESET {name}")


# --- the index that is to be built --------------------------------------------------------------------------------


def _find(connection: Connection, build: IndexBuild) -> tuple[str, str, bool] | None:
    """Schema, name and validity of the index, which lies in its table's schema; None if it isn't there."""
    row = connection.execute(
        """
        SELECT n.nspname::text, i.relname::text, x.indisvalid
        FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_namespace n ON n.oid = i.relnamespace
        JOIN pg_class t ON t.relnamespace = n.oid AND t.relname = %(table)s
        WHERE i.relname = %(index)s AND (n.nspname = %(schema)s OR %(schema)s = '' AND pg_table_is_visible(t.oid))
        """,
        {
            "index": build.name,
            "table": build.table[-1] if build.table else "",
            "schema": build.table[-2] if len(build.table) > 1 else "",
        },
    ).fetchone()
    return (row[0], row[1], row[2]) if row else None


def _is_valid(connection: Connection, build: IndexBuild) -> bool:
    index = _find(connection, build)
    return index is not None and index[2]


def _shown(connection: Connection, build: IndexBuild) -> str:
    index = _find(connection, build)
    name = postgres.sql.Identifier(*(index[:2] if index else (build.name,)))
    return name.as_string(connection)


def _is_built(connection: Connection, file: MigrationFile, build: IndexBuild, *, begun: bool, same: bool) -> bool:
    """Whether an interrupted run of ours built the index already. A half-built one of ours is dropped; an index that we
    never began is left to its owner."""
    built = _find(connection, build)
    if built is None or not begun:
        return False
    schema, name, valid = built
    index = postgres.sql.Identifier(schema, name)
    if not valid:
        connection.execute(postgres.sql.SQL("DROP INDEX CONCURRENTLY {}").format(index))
        return False
    if not same:
        raise MigrationError(
            f"{file.path.name} has changed since an interrupted run built index {name} from it. "
            f"DROP INDEX CONCURRENTLY {index.as_string(connection)}; then run {settings.named('apply_migrations')} again.",
            code="index-file-changed",
        )
    return True
