"""Executes statements of a file one by one, and makes sure that they run in the one transaction that was begun for them, with
the time limits that were set for them.

A failure is reported as condition, file and line only, because Postgres's message quotes rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dualwrite import postgres
from dualwrite.migrations.ledger import schema_exists
from dualwrite.migrations.locks import GIVES_WAY
from dualwrite.migrations.parser import Statement
from dualwrite.migrations.rules import created_schema
from dualwrite.model.errors import MigrationError
from dualwrite.postgres import Connection
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.transactions import CLIENTS_PATH, stating

SEARCH_PATH = ", ".join(CLIENTS_PATH)
"""The schemas in which names without one are looked up, for every role: a role's own path may begin with a schema of its name."""

ROLLED_BACK = "Everything of this file was rolled back; correct it and run again."
_CANCELLED = "57014"
_SLACK = 30.0
"""Seconds by which our own wait for an answer outlasts statement_timeout."""


class StatementFailed(MigrationError):
    """A statement of a file ended in an error of Postgres's. `fault` is file, line and condition alone."""

    def __init__(self, fault: str, consequence: str, sqlstate: str | None) -> None:
        super().__init__(f"{fault}. {consequence}")
        self.fault = fault
        self.sqlstate = sqlstate


class OutOfTime(Exception):
    """A dry run has held its locks for long enough."""


def execute(connection: Connection, file: str, statement: Statement, consequence: str) -> None:
    """Executes one statement. Raises StatementFailed with condition, file, line and remedy; errors that another
    try may cure go through as they are."""
    try:
        # Binary results make psycopg use the extended protocol, in which Postgres refuses a second command in one text. So no
        # command escapes the rules, which look at the beginning of a statement.
        connection.execute(statement.text, binary=True)
    except GIVES_WAY:
        raise
    except postgres.Error as error:
        if _is_about_the_connection(error):
            raise
        line = statement.line_at(int(error.diag.statement_position or 1) - 1)
        raise StatementFailed(f"{file}, line {line}: {without_message(error)}", consequence, error.sqlstate) from None


def without_message(error: postgres.Error) -> str:
    """An error as its condition's name and SQLSTATE, without any text that a file's RAISE may have put there."""
    name = f"{type(error).__name__} {error.sqlstate}" if error.sqlstate else type(error).__name__
    if error.sqlstate == _CANCELLED:
        return f"{name} (it ran into statement_timeout, or was cancelled)"
    remedy = postgres.remedy(error)
    return f"{name} ({remedy.rstrip('.')})" if remedy else name


def _is_about_the_connection(error: postgres.Error) -> bool:
    """Whether the error is worth a retry, and not the file's fault."""
    return postgres.is_disconnect(error) or isinstance(error, postgres.AnswerTimeout | postgres.ConnectError)


def wait_for_answers(connection: Connection, statement_timeout: float) -> None:
    """Lets a statement take as long as statement_timeout allows."""
    connection.answer_within = max(connection.answer_within, statement_timeout + _SLACK)


@contextmanager
def committing(file: str) -> Iterator[None]:
    """Around a file's transaction: raises MigrationError for an error of Postgres's between its statements, or at its COMMIT."""
    try:
        yield
    except GIVES_WAY:
        raise
    except postgres.Error as error:
        if _is_about_the_connection(error):
            raise
        raise MigrationError(
            f"{file}: {without_message(error)}, outside its own statements: in the ledger {SCHEMA}.migrations, or in a deferred "
            f"constraint or trigger when it was committed. {ROLLED_BACK}",
            code="migration-commit-failed",
        ) from None


class FileTransaction:
    """The transaction in which files are executed, already begun. Interleavings considered:

    1. A statement ends the transaction (and the next ones commit one by one), or ends it and begins another: after each
       statement Postgres is asked whether it is still the same one.
    2. A file switches lock_timeout off: it is set again after each statement.
    3. A dry run: all files share one transaction, so a file's settings are taken back before the next file, and the locks of all
       files together are held for at most `seconds`.
    """

    def __init__(
        self, connection: Connection, *, lock_timeout: float, statement_timeout: float, seconds: float | None = None
    ) -> None:
        self._connection = connection
        self._lock_timeout = lock_timeout
        self._statement_timeout = statement_timeout
        self._until = None if seconds is None else time.monotonic() + seconds
        self._used = False
        wait_for_answers(connection, statement_timeout)
        self._id = self._ask()

    def execute_file(self, file: str, statements: Sequence[Statement]) -> None:
        """Raises StatementFailed, or OutOfTime in a dry run. Leaves the transaction open."""
        if self._used:
            self._connection.execute("RESET ALL")
        self._used = True
        self._connection.execute(stating(SEARCH_PATH))
        self._ask()
        for statement in statements:
            if self._is_out_of_time():
                raise OutOfTime
            schema = created_schema(statement)
            if schema is not None and schema_exists(self._connection, schema):
                continue  # Postgres would ask for CREATE on the database, even so
            try:
                execute(self._connection, file, statement, ROLLED_BACK)
            except StatementFailed as failed:
                if failed.sqlstate == _CANCELLED and self._is_out_of_time():
                    raise OutOfTime from None
                raise
            if self._ask() != self._id:
                raise MigrationError(
                    f"{file}, line {statement.line} ended the transaction that the file is applied in: the file is not "
                    "recorded as applied, and the statements before that line may have been committed. Remove the "
                    "statement, check what they changed, and run again.",
                    code="migration-ended-transaction",
                )
        self._connection.execute("RESET ROLE")  # the file may have set another; the ledger is written by our own

    def _is_out_of_time(self) -> bool:
        return self._until is not None and time.monotonic() > self._until

    def _ask(self) -> str | None:
        """The transaction's id, None if it has ended. Sets the limits again, in the same round trip."""
        if self._connection.info.transaction_status.name != "INTRANS":
            return None
        timeout = self._statement_timeout
        if self._until is not None:
            timeout = max(0.05, min(timeout, self._until - time.monotonic()))
        row = self._connection.execute(
            """
            SELECT pg_catalog.pg_current_xact_id()::text,
                   pg_catalog.set_config('lock_timeout', %s, true),
                   pg_catalog.set_config('statement_timeout', %s, true)
            """,
            (milliseconds(self._lock_timeout), milliseconds(timeout)),
        ).fetchone()
        return row[0] if row else None


def milliseconds(seconds: float) -> str:
    """A duration in Postgres's notation, at least 1 ms."""
    return f"{max(1, round(seconds * 1000))}ms"
