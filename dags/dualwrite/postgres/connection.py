"""Connections to Postgres. The only module that imports psycopg; the others take what they need of it from here.

Everything is fit for a pooler in transaction mode: no prepared statements, no session state; whatever must be set is
set with SET LOCAL inside a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[tuple[Any, ...]]
Error = psycopg.Error
T = TypeVar("T")

__all__ = [
    "Connection",
    "Error",
    "Jsonb",
    "condition",
    "connect",
    "errors",
    "is_rows_fault",
    "is_transient",
    "register_binary_text",
    "sql",
    "transaction",
]

_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def connect(conninfo: str = "", *, application_name: str = "dualwrite", **parameters: Any) -> Connection:
    """Opens a connection (autocommit: transactions are explicit). `conninfo` is a libpq string or URI.

    Raises psycopg.OperationalError, whose message names host and database and never the password.
    """
    defaults: Mapping[str, Any] = {"connect_timeout": 10, "application_name": application_name, **_KEEPALIVES}
    given = psycopg.conninfo.conninfo_to_dict(conninfo, **parameters)
    merged = {**defaults, **{k: v for k, v in given.items() if v is not None}}
    return psycopg.connect(**merged, autocommit=True, prepare_threshold=None)


@contextmanager
def transaction(
    connection: Connection,
    *,
    statement_timeout: str | None = None,
    lock_timeout: str | None = None,
    read_only: bool = False,
) -> Iterator[Connection]:
    """One transaction with settings of its own (Postgres's notation: "2s"). Rolled back where the block raises."""
    with connection.transaction():
        settings = {"statement_timeout": statement_timeout, "lock_timeout": lock_timeout}
        for name, value in settings.items():
            if value is not None:
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        if read_only:
            connection.execute("SET TRANSACTION READ ONLY")
        yield connection


def condition(error: psycopg.Error) -> str:
    """What went wrong, in Postgres's terms: the condition's name and SQLSTATE, and the constraint and column that it
    names ("UniqueViolation 23505 (constraint likes_pkey)").

    Never the message itself: Postgres quotes values in it ("Failing row contains ...").
    """
    name = f"{type(error).__name__} {error.sqlstate}" if error.sqlstate else type(error).__name__
    details = [
        f"{what} {value}"
        for what, value in (("constraint", error.diag.constraint_name), ("column", error.diag.column_name))
        if value
    ]
    return f"{name} ({', '.join(details)})" if details else name


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed when it is tried again: a lock, a deadlock, a lost connection, a server that
    restarts or is short of something. A limit that a row exceeds (class 54) is none, though psycopg's class says so."""
    state = error.sqlstate
    if state is None:  # the connection broke, or was never made
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in ("08", "40", "53", "57") or state == "55P03"


def is_rows_fault(error: psycopg.Error) -> bool:
    """Whether Postgres blames a row: its values, a constraint, a limit, or what a CHECK's or a trigger's own code raised.

    Cases: data exceptions (21, 22), constraints (23, 44), PL/pgSQL's RAISE (P0), other languages' routines (38, 39),
    limits that a row exceeds (54).
    """
    return error.sqlstate is not None and error.sqlstate[:2] in ("21", "22", "23", "38", "39", "44", "54", "P0")


def register_binary_text(cls: type[T], type_name: str, dump: Callable[[T], bytes]) -> None:
    """Teaches COPY to send a class of ours as the binary form of a built-in type."""
    info = psycopg.adapters.types[type_name]

    class _BinaryDumper(Dumper):
        format = Format.BINARY
        oid = info.oid

        def dump(self, obj: T) -> bytes:
            return dump(obj)

    psycopg.adapters.register_dumper(cls, _BinaryDumper)
