"""Postgres: connections at the package's front door; the target's tables and the bundle's own in its modules."""

from dualwrite.postgres.adapters import register_binary_text, register_text
from dualwrite.postgres.conditions import (
    AnswerTimeout,
    ConnectError,
    Error,
    condition,
    errors,
    is_disconnect,
    is_transient,
    remedy,
)
from dualwrite.postgres.connection import Connection, Jsonb, connect, is_local, sql
from dualwrite.postgres.transactions import (
    answers,
    as_a_client,
    at_once,
    fetch,
    in_transaction,
    transaction,
    was_hung_up,
)

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
