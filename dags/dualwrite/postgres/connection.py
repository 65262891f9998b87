"""Opens connections to Postgres; every wait on one has a time limit.

Connecting ends after `connect_timeout`, a network that swallows packets after `tcp_user_timeout`, and a server (or a pooler
that keeps its TCP connection open) that answers nothing after `answer_within`. The last is measured here, because nothing else
can: to the kernel such a connection looks healthy.

Only the four modules `connection`, `transactions`, `conditions` and `adapters` import psycopg; the others import its names from
them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import select
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb
from psycopg.waiting import Ready, Wait

from dualwrite.postgres.adapters import adapt
from dualwrite.postgres.conditions import AnswerTimeout, ConnectError, may_pass

log = logging.getLogger(__name__)

T = TypeVar("T")

__all__ = ["Connection", "Jsonb", "class_row", "connect", "dict_row", "is_local", "sql"]

_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_TCP_USER_TIMEOUT = 30_000
"""Milliseconds that sent data may stay unacknowledged (Linux)."""

ANSWER_SECONDS = 150.0
"""Longer than any statement_timeout of ours, so that a server that is only slow ends its statement itself."""

_EITHER = select.POLLIN | select.POLLOUT
_POLLED = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: _EITHER}
_READY = {0: Ready.RW, select.POLLIN: Ready.R, select.POLLOUT: Ready.W, _EITHER: Ready.RW}
"""psycopg's name for each result of poll(). An error or hang-up is neither; libpq notices it on the next read."""

_ENCODING = "UTF8"


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """psycopg's connection, whose every statement must be answered within `answer_within` seconds."""

    answer_within: float = ANSWER_SECONDS
    ends_as_a_client: str = ""
    """Settings that the transaction makes before its COMMIT, when the app's deferred constraints and triggers run."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """psycopg calls this for each statement, each BEGIN and COMMIT, and each buffer of a COPY.

        `gen` yields what it waits for (to read, to write) and is sent what is ready. Psycopg's own waits take a timeout only
        since 3.3.6, and Airflow's constraints pin older versions. Costs some microseconds a statement, not a row.
        """
        limit = self.answer_within if timeout is None else timeout
        deadline = time.monotonic() + limit
        poll = select.poll()  # not a selector, whose Python code would double the time of each wait
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
        except BaseException:
            # Otherwise it would end when Python collects it, amid other work: its cleanup would fail on a closed connection, and
            # Python would write that traceback into the log.
            with contextlib.suppress(Exception):
                gen.close()
            raise


def connect(
    conninfo: str = "",
    *,
    application_name: str = "dualwrite",
    answer_within: float | None = None,
    **parameters: Any,
) -> Connection:
    """Opens a connection (autocommit: transactions are explicit). `conninfo` is a libpq string or URI; `answer_within`
    is how many seconds each statement may take to be answered.

    Raises ConnectError. Warns if the connection leaves this machine unencrypted; `sslmode=require`, or
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
                "host, port or database hold an @, probably because a URI's password isn't %-encoded. None of them is quoted, because "
                "they may hold a part of it. Encode its special characters (/ is %2F, @ is %40)",
                passing=False,
            ) from None
        words = _without(" ".join(str(error).split()), merged.get("password"))
        raise ConnectError(f"{place}: {words}", passing=may_pass(error)) from None
    spoken = connection.pgconn.parameter_status(b"client_encoding")
    if spoken != _ENCODING.encode():  # a pooler that keeps server connections with another one
        connection.close()
        raise ConnectError(
            f"{place}: the connection speaks {(spoken or b'an unknown encoding').decode()}, though {_ENCODING} was asked for, so "
            "texts would be garbled. ALTER ROLE or ALTER DATABASE ... RESET client_encoding",
            passing=False,
        )
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # of psycopg's own blocks
    adapt(connection)
    if answer_within is not None:
        connection.answer_within = answer_within
    if not connection.pgconn.ssl_in_use and not is_local(connection.info.hostaddr):
        log.warning(
            "The connection to Postgres at %s is not encrypted. Set sslmode=verify-full and sslrootcert to refuse that",
            connection.info.host,
        )
    return connection


def _parameter_names(uri: str) -> list[str]:
    """Names in the query of a URI. Empty if it holds an @: then a password was not encoded, and an apparent name may be a part of
    it."""
    head, _, query = uri.partition("?")
    return [] if "://" not in head or "@" in query else [part.partition("=")[0] for part in query.split("&") if part]


def _unknown(names: Iterable[str]) -> list[str]:
    """The names that libpq doesn't know, without those that are no identifiers."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return sorted(name for name in set(names) - known if name.isidentifier())


def _foreign(unknown: Iterable[str]) -> ConnectError:
    return ConnectError(
        f"libpq doesn't know the parameter {' or '.join(unknown)} of the connection string or its extra: it is another "
        "client's (Prisma's, JDBC's). Remove it; a pooler needs no parameter here",
        passing=False,
    )


def _without(words: str, secret: object) -> str:
    """libpq's message, without the password if it holds one."""
    return words.replace(str(secret), "***") if secret else words


def is_local(host: str | None) -> bool:
    """Whether a host, by name or address, is this machine: loopback or a Unix socket."""
    if not host or host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
