"""Connections to Postgres. The only module that imports psycopg; the others take what they need of it from here.

Everything is fit for a pooler in transaction mode: no prepared statements, no session state; whatever must be set is
set with SET LOCAL inside a transaction.

A statement of ours relies on no setting that a role, a database or the environment may set otherwise: each transaction
begins by stating them (STATED), in its first message. Names without a schema are looked for in pg_catalog alone, so that
nobody's function or operator of a better fit comes first; tables are named with their schema. Only the app's own code (a
default, a CHECK, a trigger of its tables) runs with what its database gives every client: see `as_a_client`.

No wait is without an end: connecting ends after `connect_timeout`, a network that swallows packets after
`tcp_user_timeout`, and a server (or a pooler that keeps its TCP connection open) that answers nothing after
`answer_within`. The last is measured here, because nothing else can: to the kernel such a connection looks healthy.
"""

from __future__ import annotations

import ipaddress
import logging
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.abc import PQGen
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.types.json import Jsonb
from psycopg.waiting import Ready, Wait

log = logging.getLogger(__name__)

Error = psycopg.Error
T = TypeVar("T")

__all__ = [
    "AnswerTimeout",
    "ConnectError",
    "Connection",
    "Error",
    "Jsonb",
    "answers",
    "as_a_client",
    "at_once",
    "condition",
    "connect",
    "errors",
    "fetch",
    "in_transaction",
    "is_disconnect",
    "is_local",
    "is_transient",
    "register_binary_text",
    "register_text",
    "remedy",
    "sql",
    "transaction",
    "was_hung_up",
]

_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_TCP_USER_TIMEOUT = 30_000
"""Milliseconds that sent data may stay unacknowledged (Linux)."""

_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
ANSWER_SECONDS = 150.0
"""Longer than any statement_timeout of ours, so that a server that is only slow ends its statement itself."""

_EITHER = select.POLLIN | select.POLLOUT
_POLLED = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: _EITHER}
_READY = {0: Ready.RW, select.POLLIN: Ready.R, select.POLLOUT: Ready.W, _EITHER: Ready.RW}
"""What poll() says, to psycopg. An error or hang-up is neither; libpq notices it on the next read."""

_DISCONNECTS = ("08", "57P", "25P03", "25P04", "53300")
"""SQLSTATEs: connection exceptions; shut down, crashed, starting up or idle too long; the transaction idle, or as a
whole, for too long; too many connections."""


STATED: Mapping[str, str] = {
    "search_path": "pg_catalog, pg_temp",  # said last: searched first, a temporary table would shadow another
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "row_security": "on",
    "xmloption": "content",
    "default_tablespace": "",
    "temp_tablespaces": "",
    "default_table_access_method": "heap",
}
"""What our statements rely on, all of it open to any role. Left as it is: `default_transaction_read_only`, with which Supabase
protects a disk that is nearly full, and what only a superuser may set (lc_messages: no words of Postgres's decide anything
here)."""

_ISOLATION = "ISOLATION LEVEL READ COMMITTED"
"""docs/protocol.md relies on it: a condition is checked again on the row's newest version."""

_OF_CLIENTS = ("TimeZone", "DateStyle", "IntervalStyle")
"""What a default or a trigger of the app's may depend on."""

CLIENTS_PATH = ("public", "extensions", "pg_temp")
"""Where the app's code finds names without a schema. Supabase keeps extensions in `extensions`; elsewhere that is no schema,
and does no harm. Named last, pg_temp isn't searched first."""

_ENCODING = "UTF8"


class AnswerTimeout(psycopg.Error):
    """Nothing answered in time. The connection is closed; whether a COMMIT took effect is unknown.

    Not an OperationalError, because a loop that repeats those would wait as long again, each time.
    """


class ConnectError(psycopg.Error):
    """No connection could be made. Names host, port, database and user, and what libpq said; never the password.

    `passing` says whether another try may succeed.
    """

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """psycopg's connection, whose every statement must be answered within `answer_within` seconds."""

    answer_within: float = ANSWER_SECONDS
    ends_as_a_client: str = ""
    """What the transaction says before its COMMIT, when constraints and triggers that the app deferred run."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """What psycopg calls for each statement, each BEGIN and COMMIT, and each buffer of a COPY.

        `gen` says what it waits for (to read, to write) and is told what there is. Psycopg's own waits take a timeout
        since 3.3.6, and Airflow's constraints hold older ones. This costs some microseconds a statement, not a row.
        """
        limit = self.answer_within if timeout is None else timeout
        deadline = time.monotonic() + limit
        poll = select.poll()  # itself, not a selector: that takes as long again in Python, each time
        try:
            wanted = next(gen)
            while True:
                poll.register(self.fileno(), _POLLED[wanted])
                if ready := poll.poll(interval * 1000):
                    wanted = gen.send(_READY[ready[0][1] & _EITHER])
                elif self.closed:
                    raise psycopg.OperationalError("the connection was closed while its answer was waited for")
                if time.monotonic() >= deadline:
                    self.close()  # its answer may still come, and would be taken for the next statement's
                    raise AnswerTimeout(f"no answer within {limit:g} s")
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]


def connect(
    conninfo: str = "",
    *,
    application_name: str = "dualwrite",
    answer_within: float | None = None,
    **parameters: Any,
) -> Connection:
    """Opens a connection (autocommit: transactions are explicit). `conninfo` is a libpq string or URI; `answer_within`
    is how many seconds each statement may take to be answered.

    Raises ConnectError. Warns where the connection is not encrypted and leaves this machine; `sslmode=require`, or
    better `verify-full` with `sslrootcert`, refuses such a connection instead.
    """
    defaults: Mapping[str, Any] = {
        "connect_timeout": 10,
        "application_name": application_name,
        "tcp_user_timeout": _TCP_USER_TIMEOUT,
        **_KEEPALIVES,
    }
    if unknown := _unknown(parameters):
        raise _foreign(unknown)
    parameters["client_encoding"] = _ENCODING  # stronger than PGCLIENTENCODING, a role's setting and a database's
    try:
        given = psycopg.conninfo.conninfo_to_dict(conninfo, **parameters)
    except psycopg.ProgrammingError:  # libpq quotes the part that it can't read, which may be the password
        if unknown := _unknown(_parameter_names(conninfo)):
            raise _foreign(unknown) from None
        raise ConnectError(
            "the connection string is neither a libpq string nor a URI (special characters in a URI are %-encoded)",
            passing=False,
        ) from None
    merged = {**defaults, **{k: v for k, v in given.items() if v is not None}}
    place = (
        f"{merged.get('host') or 'the local socket'}:{merged.get('port') or 5432}, database {merged.get('dbname')}, "
        f"user {merged.get('user')}"
    )
    try:
        connection = Connection.connect(**merged, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        if any("@" in str(merged.get(part) or "")[1:] for part in ("host", "port", "dbname")):
            raise ConnectError(
                "host, port or database hold an @, as where a URI's password isn't %-encoded. Nothing of them is quoted, because "
                "they may hold a part of it. Encode its special characters (/ is %2F, @ is %40)",
                passing=False,
            ) from None
        words = _without(" ".join(str(error).split()), merged.get("password"))
        raise ConnectError(f"{place}: {words}", passing=_may_pass(error)) from None
    spoken = connection.pgconn.parameter_status(b"client_encoding")
    if spoken != _ENCODING.encode():  # a pooler that keeps server connections with another one
        connection.close()
        raise ConnectError(
            f"{place}: the connection speaks {(spoken or b'an unknown encoding').decode()}, though {_ENCODING} was asked for, so "
            "texts would be garbled. ALTER ROLE or ALTER DATABASE ... RESET client_encoding",
            passing=False,
        )
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # of psycopg's own blocks
    connection.adapters.register_loader("timestamptz", _TimeLoader)
    connection.adapters.register_loader("timestamptz", _BinaryTimeLoader)
    connection.adapters.register_loader("date", _DateLoader)
    if answer_within is not None:
        connection.answer_within = answer_within
    if not connection.pgconn.ssl_in_use and not is_local(connection.info.hostaddr):
        log.warning(
            "The connection to Postgres at %s is not encrypted. Set sslmode=verify-full and sslrootcert to refuse that",
            connection.info.host,
        )
    return connection


def _parameter_names(uri: str) -> list[str]:
    """Of the query of a URI. None where an @ stands in it: then a password was not encoded, and what looks like a name may be
    a part of it."""
    head, _, query = uri.partition("?")
    return [] if "://" not in head or "@" in query else [part.partition("=")[0] for part in query.split("&") if part]


def _unknown(names: Iterable[str]) -> list[str]:
    """Those of the parameters that libpq doesn't know."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return sorted(name for name in set(names) - known if name.isidentifier())


def _foreign(unknown: Iterable[str]) -> ConnectError:
    return ConnectError(
        f"libpq doesn't know the parameter {' or '.join(unknown)} of the connection string or its extra: it is another "
        "client's (Prisma's, JDBC's). Remove it; a pooler needs no parameter here",
        passing=False,
    )


_PASSES = ("closed the connection", "reset", "timeout", "timed out", "starting up", "shutting down", "recovery", "too many",
           "slots", "max clients")  # fmt: skip
_LASTS = (
    "does not exist",
    "not permitted",
    "no pg_hba.conf entry",
    "permission denied",
    "not support ssl",
    "certificate",
)


def _may_pass(error: psycopg.Error) -> bool:
    """Whether another try to connect may succeed. A failed connect has no SQLSTATE, and the server speaks its
    administrator's language, so this rests on what libpq tells without words: whether a password was asked for.

    Where none was, it may: nothing answers, or the server starts up, stops or is full. Where one was, it may be wrong, and
    Supabase bans an address that tries a wrong one again: it may not. Words, where they are English, only improve on that: a
    server that was full after the login passes, and one that knows no such role or database does not.
    """
    words = str(error).lower()
    tried = error.pgconn
    if tried is not None and (tried.needs_password or tried.used_password):
        return any(word in words for word in _PASSES)
    return not any(word in words for word in _LASTS)


def _without(words: str, secret: object) -> str:
    """libpq's words without a password that stands in them."""
    return words.replace(str(secret), "***") if secret else words


# --- times --------------------------------------------------------------------------------------------------------------
# Read the same whatever the session's DateStyle and TimeZone are said to be: libpq reports them a message late.

_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Postgres's: a time travels as microseconds since then."""


class _TimeLoader(Loader):
    """`2026-01-15 21:52:00.123456+00`, as it is written under STATED.

    Before year 1 and after year 9999 (infinity too) it is the first or last instant that Python, and a document, can have: a
    client may write such a time, and it must cost nobody the rest. Order is kept.
    """

    def load(self, data: Buffer) -> datetime:
        text = bytes(data).decode()
        if text.endswith("BC") or text == "-infinity":
            return _EARLIEST
        if text == "infinity" or text.index("-") > 4:
            return _LATEST
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except OverflowError:  # near the ends, told in another zone
            return _EARLIEST if text.startswith("0001") else _LATEST


class _BinaryTimeLoader(Loader):
    """As _TimeLoader, from the binary form."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        microseconds = int.from_bytes(bytes(data), "big", signed=True)
        try:
            return _EPOCH + timedelta(microseconds=microseconds)
        except OverflowError:
            return _EARLIEST if microseconds < 0 else _LATEST


class _DateLoader(Loader):
    """`2026-01-15`; beyond Python's years as _TimeLoader."""

    def load(self, data: Buffer) -> date:
        text = bytes(data).decode()
        if text.endswith("BC") or text == "-infinity":
            return date.min
        return date.max if text == "infinity" or text.index("-") > 4 else date.fromisoformat(text)


def is_local(host: str | None) -> bool:
    """Whether a host, by name or address, is this machine: loopback or a Unix socket."""
    if not host or host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@contextmanager
def transaction(
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
    """One transaction with settings of its own. Rolled back where the block raises. Where it returns, it is committed, or
    that raises: of a transaction in which a statement failed, Postgres takes a COMMIT for a ROLLBACK, and says so in the
    command's tag alone.

    The server's settings are in Postgres's notation ("2s"). `idle_timeout` ends a transaction that we leave lying, with
    its locks. `answer_within` (seconds) is how long we wait for each answer, COMMIT's included. `check_at_once`: constraints
    that are deferred to the COMMIT are checked after each statement, so that they refuse a row and not the transaction.
    `clients_path`: names are looked for where the connection's own search_path says, for statements that aren't ours.

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
    """Raises where a transaction can't be committed: the block caught a failed statement's error, or ended it itself."""
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise errors.InFailedSqlTransaction(
            "a statement failed and its error was caught, so nothing of the transaction can be committed; "
            "try such a statement in a savepoint: with connection.transaction()"
        )
    if status == TransactionStatus.IDLE:
        raise errors.NoActiveSqlTransaction(
            "the transaction was ended inside its block; leave COMMIT and ROLLBACK to it"
        )


@contextmanager
def as_a_client(connection: Connection, schema: str = "public") -> Iterator[None]:
    """A savepoint for a statement that writes a table of `schema`: its defaults, CHECKs and triggers run in it with the
    time zone and the like that their database gives every client, and find names without a schema where PostgREST's
    requests find them. Rolled back where the block raises. It takes no round trip more than any savepoint.

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
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall())
        return found


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
        found = []
        while True:
            found.append((cursor.rowcount, cursor.fetchall() if cursor.description else []))
            if not cursor.nextset():
                return found


@lru_cache
def stating(search_path: str | None = STATED["search_path"]) -> str:
    """One statement that states them until the transaction ends. `search_path`: another one; None leaves the session's."""
    settings = {**STATED, "search_path": search_path}
    return "SELECT " + ", ".join(
        f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in settings.items() if value is not None
    )


_SINGLE = f"SET TRANSACTION {_ISOLATION}; {stating()}"
"""Before the statement of a message that is a transaction by itself."""


@lru_cache
def _settings(statement: str | None, lock: str | None, idle: str | None, read_only: bool) -> str:
    """Statements that set them until the transaction ends; none is an empty statement."""
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
    """Ends a transaction, whatever state it is in. A connection that can't is closed, so that nothing else runs in it."""
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


def is_disconnect(error: psycopg.Error) -> bool:
    """Whether the connection is lost or was never made, as against a statement that Postgres refused. Another try, on
    a new connection, may succeed."""
    if isinstance(error, ConnectError):
        return error.passing
    if error.sqlstate is None:  # libpq's own words: the connection broke
        return isinstance(error, psycopg.OperationalError | AnswerTimeout)
    return error.sqlstate.startswith(_DISCONNECTS)


def was_hung_up(connection: Connection) -> bool:
    """Whether an idle connection has something to read, which only a server that hung up sends. Asks nobody."""
    poll = select.poll()  # select() refuses a descriptor from 1,024 on, which a busy server has
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def condition(error: psycopg.Error) -> str:
    """What went wrong, in Postgres's terms: the condition's name and SQLSTATE, and the constraint and column that it
    names ("UniqueViolation 23505 (constraint likes_pkey)").

    Never the message itself: Postgres quotes values in it ("Failing row contains ..."). But for one: a missing grant is told
    by Postgres's own code (and no trigger's) with nothing but the name of what is closed, which stands nowhere else.
    """
    name = f"{type(error).__name__} {error.sqlstate}" if error.sqlstate else type(error).__name__
    details = [
        f"{what} {value}"
        for what, value in (("constraint", error.diag.constraint_name), ("column", error.diag.column_name))
        if value
    ]
    if error.sqlstate == "42501" and (error.diag.source_function or "").startswith("aclcheck_error"):
        details.append(str(error.diag.message_primary))
    return f"{name} ({', '.join(details)})" if details else name


READ_ONLY = "25006"


def remedy(error: psycopg.Error) -> str:
    """What to do about a condition that has one cause; empty where it may have several."""
    if isinstance(error, errors.DiskFull):
        return "The server's disk is full. Give it room, then run again: what was not committed is written then."
    if error.sqlstate == READ_ONLY:
        return (
            "The server takes no writes: it is a replica, or default_transaction_read_only is on, as on Supabase where the disk is "
            "nearly full. Point the connection at the primary, or give the disk room."
        )
    return ""


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed when it is tried again: a lock, a deadlock, a lost connection, a server that
    restarts or is short of something. A limit that a row exceeds (class 54) is none, though psycopg's class says so."""
    state = error.sqlstate
    if state is None:  # the connection broke, or was never made
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in ("08", "40", "53", "57") or state == "55P03"


def register_text(cls: type[T], dump: Callable[[T], bytes]) -> None:
    """Teaches COPY, and parameters of no type of their own, a class of ours."""

    class _TextDumper(Dumper):
        def dump(self, obj: T) -> bytes:
            return dump(obj)

    psycopg.adapters.register_dumper(cls, _TextDumper)


def register_binary_text(cls: type[T], type_name: str, dump: Callable[[T], bytes]) -> None:
    """Teaches COPY to send a class of ours as the binary form of a built-in type."""
    info = psycopg.adapters.types[type_name]

    class _BinaryDumper(Dumper):
        format = Format.BINARY
        oid = info.oid

        def dump(self, obj: T) -> bytes:
            return dump(obj)

    psycopg.adapters.register_dumper(cls, _BinaryDumper)
