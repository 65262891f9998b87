"""Errors of Postgres without their messages, and whether another try may succeed."""

from __future__ import annotations

import psycopg
from psycopg import errors

Error = psycopg.Error

__all__ = [
    "NO_PARTITION",
    "READ_ONLY",
    "AnswerTimeout",
    "ConnectError",
    "Error",
    "condition",
    "errors",
    "is_disconnect",
    "is_transient",
    "may_pass",
    "remedy",
]

_DISCONNECTS = ("08", "57P", "25P03", "25P04", "53300")
"""SQLSTATEs: connection exceptions; a server that is shut down, crashed or starting up, or a session idle for too long; a
transaction idle or open for too long; too many connections."""


class AnswerTimeout(psycopg.Error):
    """Nothing answered in time. The connection is closed; whether a COMMIT took effect is unknown.

    Not an OperationalError, because a loop that repeats those would wait as long again, each time.
    """


class ConnectError(psycopg.Error):
    """No connection could be made. Names host, port, database and user, and quotes libpq; never the password.

    `passing` says whether another try may succeed.
    """

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


def is_disconnect(error: psycopg.Error) -> bool:
    """Whether the connection is lost or was never made; not if Postgres refused a statement. Another try, on a new connection, may
    succeed."""
    if isinstance(error, ConnectError):
        return error.passing
    if error.sqlstate is None:  # libpq's own words: the connection broke
        return isinstance(error, psycopg.OperationalError | AnswerTimeout)
    return error.sqlstate.startswith(_DISCONNECTS)


NO_PARTITION = "no partition"


def condition(error: psycopg.Error) -> str:
    """An error in Postgres's terms: the condition's name and SQLSTATE, and the constraint and column that it
    names ("UniqueViolation 23505 (constraint likes_pkey)"), or that no partition takes the row.

    Never the message itself: Postgres quotes values in it ("Failing row contains ..."). One exception: the message of a missing grant
    comes from Postgres's own code (no trigger's) and holds only the relation's name, which is nowhere else.
    """
    name = f"{type(error).__name__} {error.sqlstate}" if error.sqlstate else type(error).__name__
    details = [
        f"{kind} {name_of_it}"
        for kind, name_of_it in (("constraint", error.diag.constraint_name), ("column", error.diag.column_name))
        if name_of_it
    ]
    if error.sqlstate == "23514" and error.diag.source_function == "ExecFindPartition":
        details.append(NO_PARTITION)
    if error.sqlstate == "42501" and (error.diag.source_function or "").startswith("aclcheck_error"):
        details.append(str(error.diag.message_primary))
    return f"{name} ({', '.join(details)})" if details else name


READ_ONLY = "25006"


def remedy(error: psycopg.Error) -> str:
    """The remedy for a condition that has one cause; empty if it may have several."""
    if isinstance(error, errors.DiskFull):
        return (
            "The server's disk is full. Give it room, then run again: that run writes the rows that were not committed."
        )
    if error.sqlstate == READ_ONLY:
        return (
            "The server takes no writes: it is a replica, or default_transaction_read_only is on, as on Supabase if the disk is "
            "nearly full. Point the connection at the primary, or give the disk room."
        )
    return ""


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed when it is tried again: a lock, a deadlock, a lost connection, a server that
    restarts or is short of something. Not if a row exceeds a limit (class 54), although psycopg raises an OperationalError then."""
    state = error.sqlstate
    if state is None:  # the connection broke, or was never made
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in ("08", "40", "53", "57") or state == "55P03"


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


def may_pass(error: psycopg.Error) -> bool:
    """Whether another try to connect may succeed. A failed connect has no SQLSTATE, and the server speaks its
    administrator's language, so this rests on a fact that libpq knows apart from the message: whether a password was asked for.

    If none was, another try may succeed: nothing answers, or the server starts up, stops or is full. If one was, it may be
    wrong, and Supabase bans an address that tries a wrong one again: no. An English message refines that: a server that was
    full after the login is worth a retry, a role or database that doesn't exist is not.
    """
    words = str(error).lower()
    tried = error.pgconn
    if tried is not None and (tried.needs_password or tried.used_password):
        return any(word in words for word in _PASSES)
    return not any(word in words for word in _LASTS)
