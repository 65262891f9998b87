"""Transactions and reads, fit for a pooler in transaction mode: no prepared statements, no session state; settings are
made with SET LOCAL inside a transaction.

A statement of ours relies on no setting that a role, a database or the environment may set otherwise: each transaction
begins by stating them (STATED), in its first message. Names without a schema are looked for in pg_catalog alone, so that
no other function or operator that fits better comes first; tables are named with their schema. Only the app's own code (a
default, a CHECK, a trigger of its tables) runs with the settings that its database gives every client: see `as_a_client`.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from dualwrite.postgres.conditions import condition
from dualwrite.postgres.connection import Connection

log = logging.getLogger(__name__)

_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
STATED: Mapping[str, str] = {
    "quote_all_identifiers": "off",  # first: it changes how the server spells a search_path
    "search_path": "pg_catalog, pg_temp",  # unnamed, pg_temp would be searched first, and its tables shadow others
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "row_security": "on",
    "xmloption": "content",
    "default_tablespace": "",
    "temp_tablespaces": "",
    "default_table_access_method": "heap",
}
"""The settings that our statements rely on; any role may set them. Not among them: `default_transaction_read_only`, with which
Supabase protects a disk that is nearly full, and settings that only a superuser may change (lc_messages: nothing here depends on
Postgres's messages)."""

_LISTS = ("temp_tablespaces",)
"""The settings in STATED that are lists of names and may be empty."""

_ISOLATION = "ISOLATION LEVEL READ COMMITTED"
"""docs/protocol.md relies on it: a condition is checked again on the row's newest version."""

_OF_CLIENTS = ("TimeZone", "DateStyle", "IntervalStyle")
"""Settings that a default or a trigger of the app's may depend on."""

CLIENTS_PATH = ("public", "extensions", "pg_temp")
"""The schemas in which the app's code finds names without one. Supabase keeps extensions in `extensions`; elsewhere that schema is
absent, which is harmless. Named last, pg_temp isn't searched first."""


@contextmanager
def transaction(  # noqa: PLR0913 - options, each by its name
    connection: Connection,
    *,
    statement_timeout: str | None = None,
    lock_timeout: str | None = None,
    idle_timeout: str | None = None,
    answer_within: float | None = None,
    read_only: bool = False,
    check_at_once: bool = False,
    clients_path: bool = False,
) -> Iterator[Connection]:
    """One transaction with settings of its own. Rolled back if the block raises. If it returns, it is committed, or
    this raises: if a statement failed, Postgres answers a COMMIT with a ROLLBACK, and says so only in the command's tag.

    The server's settings are in Postgres's notation ("2s"). `idle_timeout` ends a transaction that we leave idle, and so frees its
    locks. `answer_within` (seconds) is how long we wait for each answer, COMMIT's included. `check_at_once`: constraints
    that are deferred to the COMMIT are checked after each statement, so that they refuse a row and not the transaction.
    `clients_path`: names are looked up by the connection's own search_path, for the app's statements.

    BEGIN and the settings go in one message: a run has a hundred transactions, and the target may be an ocean away.
    (psycopg's own block sends BEGIN alone.) Inside another transaction it is a savepoint of that.
    """
    settings = _settings(statement_timeout, lock_timeout, idle_timeout, read_only)
    if check_at_once:
        settings += "; SET CONSTRAINTS ALL IMMEDIATE"
    with ExitStack() as stack:
        if answer_within is not None:
            stack.callback(setattr, connection, "answer_within", connection.answer_within)
            connection.answer_within = answer_within
        if connection.info.transaction_status in _OPEN:
            stack.enter_context(connection.transaction())
            connection.execute(settings)
            yield connection
            return
        connection.ends_as_a_client = ""
        try:
            connection.execute(f"BEGIN {_ISOLATION}; {stating(None) if clients_path else stating()}; {settings}")
            yield connection
            _check_open(connection)
        except BaseException:
            _roll_back(connection)
            raise
        ended = connection.execute(f"{connection.ends_as_a_client}COMMIT")
        while ended.nextset():
            pass
        if ended.statusmessage != "COMMIT":
            raise errors.InFailedSqlTransaction(f"COMMIT was answered by {ended.statusmessage}: nothing was committed")


def _check_open(connection: Connection) -> None:
    """Raises if a transaction can't be committed: the block caught a failed statement's error, or ended it itself."""
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise errors.InFailedSqlTransaction(
            "a statement failed and its error was caught, so the transaction can't be committed; "
            "try such a statement in a savepoint: with connection.transaction()"
        )
    if status == TransactionStatus.IDLE:
        raise errors.NoActiveSqlTransaction(
            "the transaction was ended inside its block; leave COMMIT and ROLLBACK to it"
        )


@contextmanager
def as_a_client(connection: Connection, schema: str = "public") -> Iterator[None]:
    """A savepoint for a statement that writes a table of `schema`: its defaults, CHECKs and triggers run in it with the
    time zone and the like that their database gives every client, and find names without a schema in the schemas of PostgREST's
    requests. Rolled back if the block raises. It takes no more round trips than any savepoint.

    A statement in it names pg_catalog before each function, and before each operator whose operands don't fit exactly.
    """
    path = ", ".join(sql.Identifier(name).as_string(None) for name in dict.fromkeys([schema, *CLIENTS_PATH]))
    clients = f"SET LOCAL search_path = {path}; " + "".join(f"SET LOCAL {name} TO DEFAULT; " for name in _OF_CLIENTS)
    connection.execute(f"SAVEPOINT dualwrite_client; {clients}")
    try:
        yield
    except BaseException:
        if not connection.closed and connection.info.transaction_status in _OPEN:
            connection.execute("ROLLBACK TO SAVEPOINT dualwrite_client; RELEASE SAVEPOINT dualwrite_client")
        raise
    connection.execute(f"RELEASE SAVEPOINT dualwrite_client; {stating()}")
    connection.ends_as_a_client = clients


def fetch(
    connection: Connection,
    statement: sql.SQL | sql.Composed,
    parameters: Mapping[str, object],
    *,
    statement_timeout: str | None = None,
    lock_timeout: str | None = None,
) -> list[Any]:
    """All rows of one statement that only reads, in a transaction of its own with these settings (in Postgres's notation).

    One round trip instead of the three that BEGIN, statement and COMMIT take: Postgres runs a message of several statements
    as one transaction. Such a message has no room for parameters, so psycopg writes them into the statement as literals.
    Not inside another transaction, whose settings it would change.
    """
    assert connection.info.transaction_status not in _OPEN
    settings = _settings(statement_timeout, lock_timeout, None, True)
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(f"{_SINGLE}; {settings}; ".encode() + statement.as_bytes(connection), parameters)
        while cursor.nextset():
            pass
        return cursor.fetchall()


def answers(
    connection: psycopg.Connection[Any], statements: Iterable[str], parameters: Mapping[str, object]
) -> list[list[Any]]:
    """The rows of several statements, a list for each, in one message and so in one round trip. The parameters are all
    statements', and are written into them as `fetch` does."""
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute("; ".join(statements), parameters)
        results = [cursor.fetchall()]
        while cursor.nextset():
            results.append(cursor.fetchall())
        return results


def at_once(
    connection: Connection, statements: Iterable[tuple[sql.Composed, Sequence[object]]]
) -> list[tuple[int, list[Any]]]:
    """Several statements, each with its parameters, in one message and so in one round trip. Returns for each the number of
    rows that it touched, and those that it returned. Inside a transaction of the caller's."""
    with psycopg.ClientCursor(connection) as cursor:
        texts = [cursor.mogrify(statement, parameters) for statement, parameters in statements]
        if not texts:
            return []
        cursor.execute("; ".join(texts).encode(connection.info.encoding))
        results = []
        while True:
            results.append((cursor.rowcount, cursor.fetchall() if cursor.description else []))
            if not cursor.nextset():
                return results


@lru_cache
def stating(search_path: str | None = STATED["search_path"]) -> str:
    """Statements that set STATED until the transaction ends. `search_path`: another one; None leaves the session's.

    SET takes the server half the time of set_config, whose calls are looked up and planned each time; but it turns an empty list of
    names into a list of one empty name.
    """
    settings = {**STATED, "search_path": search_path}
    return "; ".join(_set(name, value) for name, value in settings.items() if value is not None)


def _set(name: str, value: str) -> str:
    if name == "search_path":  # in quotes, a list would be one schema with a comma in its name
        return f"SET LOCAL {name} = {value}"
    if name in _LISTS and not value:
        return f"SELECT pg_catalog.set_config('{name}', '', true)"
    return f"SET LOCAL {name} = '{value}'"


_SINGLE = f"SET TRANSACTION {_ISOLATION}; {stating()}"
"""The beginning of a message that is a transaction by itself."""


@lru_cache
def _settings(statement: str | None, lock: str | None, idle: str | None, read_only: bool) -> str:
    """Statements that make these settings until the transaction ends; an empty text if all are None."""
    settings = {
        "statement_timeout": statement,
        "lock_timeout": lock,
        "idle_in_transaction_session_timeout": idle,
        "transaction_read_only": "on" if read_only else None,
    }
    return "; ".join(
        f"SET LOCAL {name} = {sql.Literal(value).as_string(None)}"
        for name, value in settings.items()
        if value is not None
    )


def _roll_back(connection: Connection) -> None:
    """Ends a transaction, whatever state it is in. If that fails, the connection is closed, so that nothing else runs in it."""
    if connection.closed:
        return
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error as error:
        log.warning("Closing a connection that could not roll back: %s", condition(error))
        connection.close()


def in_transaction(connection: Connection) -> bool:
    """Whether a transaction is open, as far as it was begun here."""
    return connection.info.transaction_status in _OPEN


def was_hung_up(connection: Connection) -> bool:
    """Whether the server hung up an idle connection: only then is there something to read. Without a round trip."""
    poll = select.poll()  # select() refuses a descriptor from 1,024 on, which a busy server has
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
