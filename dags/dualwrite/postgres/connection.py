"""Connections to Postgres. The only module that imports psycopg; the others take what they need of it from here.

Everything is fit for a pooler in transaction mode: no prepared statements, no session state; whatever must be set is
set with SET LOCAL inside a transaction.

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
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.abc import PQGen
from psycopg.adapt import Dumper
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
"""What poll() says, to psycopg. An error or a hang-up alone is none of the two: libpq finds it out on the next read."""

_DISCONNECTS = ("08", "57P", "25P03", "25P04", "53300")
"""SQLSTATEs: connection exceptions; shut down, crashed, starting up or idle too long; the transaction idle, or as a
whole, for too long; too many connections."""


_PASSING = ("refused", "reset", "closed the connection", "timeout", "timed out", "starting up", "shutting down",
            "recovery", "too many", "slots", "max clients", "unreachable", "resolve")  # fmt: skip
"""Words of a failed connect (it has no SQLSTATE) that another try may cure. A password that was refused isn't among
them: Supabase bans an address that tries a wrong one again."""


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
    try:
        connection = Connection.connect(**merged, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        words = " ".join(str(error).split())
        place = f"{merged.get('host') or 'the local socket'}:{merged.get('port') or 5432}"
        raise ConnectError(
            f"{place}, database {merged.get('dbname')}, user {merged.get('user')}: {words}",
            passing=any(word in words.lower() for word in _PASSING),
        ) from None
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
) -> Iterator[Connection]:
    """One transaction with settings of its own. Rolled back where the block raises. Where it returns, it is committed, or
    that raises: of a transaction in which a statement failed, Postgres takes a COMMIT for a ROLLBACK, and says so in the
    command's tag alone.

    The server's settings are in Postgres's notation ("2s"). `idle_timeout` ends a transaction that we leave lying, with
    its locks. `answer_within` (seconds) is how long we wait for each answer, COMMIT's included. `check_at_once`: constraints
    that are deferred to the COMMIT are checked after each statement, so that they refuse a row and not the transaction.

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
        try:
            connection.execute(f"BEGIN; {settings}")
            yield connection
            _check_open(connection)
        except BaseException:
            _roll_back(connection)
            raise
        if (tag := connection.execute("COMMIT").statusmessage) != "COMMIT":
            raise errors.InFailedSqlTransaction(f"COMMIT was answered by {tag}: nothing was committed")


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
        cursor.execute(f"{settings}; ".encode() + statement.as_bytes(connection), parameters)
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
