"""Postgres: connections here at the package's front door, the target's tables and what the bundle remembers below it."""

from dualwrite.postgres.connection import (
    AnswerTimeout,
    ConnectError,
    Connection,
    Error,
    Jsonb,
    condition,
    connect,
    errors,
    is_disconnect,
    is_local,
    is_rows_fault,
    is_transient,
    register_binary_text,
    sql,
    transaction,
    was_hung_up,
)

__all__ = [
    "AnswerTimeout",
    "ConnectError",
    "Connection",
    "Error",
    "Jsonb",
    "condition",
    "connect",
    "errors",
    "is_disconnect",
    "is_local",
    "is_rows_fault",
    "is_transient",
    "register_binary_text",
    "sql",
    "transaction",
    "was_hung_up",
]
