"""One connection to the target, reopened when it is lost, and the short transactions that everything runs in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Self, TypeVar

import tenacity

from dualwrite import postgres
from dualwrite.model.pace import Pace
from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.pressure import Pressure

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOCK_TIMEOUT = "2s"
"""The app's own statements end after 3 s: we give way before we cost a client its write."""

_STATEMENT_TIMEOUT = "120s"
RECONNECT_SECONDS = 30.0
"""How long a call tries to reopen a lost connection."""


class Session:
    """One connection. Not for several threads at once. `pace`: how many rows a second it may ask for; Sessions may share one."""

    def __init__(self, connect: Callable[[], Connection], pace: Pace | None = None) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self.pressure = Pressure(pace)
        self.busy_seconds = 0.0
        """Seconds spent in transactions so far, waits for locks included."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the next use makes a new one. So nothing is held through a long wait."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> Connection:
        """The connection, made anew if there is none. Raises postgres.ConnectError."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open. Makes no connection: the statement that needs one repeats a failed attempt."""
        return self._connection is not None and postgres.in_transaction(self._connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction with this module's timeouts. Rolled back if the block raises.

        If the connection was lost since its last use, BEGIN fails; nothing has happened yet, so it is begun on a new one.
        Once begun it is never repeated here: if a COMMIT's answer was lost, it is unknown whether it took effect. (A write of
        ours is finished through its journal row, see docs/protocol.md.)
        """
        with ExitStack() as stack:
            connection = self._reconnecting(lambda: stack.enter_context(self._begin()))
            began = time.monotonic()
            try:
                yield connection
            finally:
                self.busy_seconds += time.monotonic() - began

    def _begin(self) -> AbstractContextManager[Connection]:
        return postgres.transaction(
            self.connection,
            statement_timeout=_STATEMENT_TIMEOUT,
            lock_timeout=_LOCK_TIMEOUT,
            idle_timeout=_STATEMENT_TIMEOUT,
            check_at_once=True,
        )

    def fetch(self, statement: sql.SQL | sql.Composed, parameters: Mapping[str, object]) -> list[Any]:
        """All rows of one statement that only reads, in a transaction of its own. It takes one round trip; if
        the connection is lost, it is repeated on a new one."""
        return self._reconnecting(
            lambda: postgres.fetch(
                self.connection,
                statement,
                parameters,
                statement_timeout=_STATEMENT_TIMEOUT,
                lock_timeout=_LOCK_TIMEOUT,
            )
        )

    def _reconnecting(self, attempt: Callable[[], T]) -> T:
        """Repeats `attempt`, with back-off, while connections are lost; raises the last error after half a minute. (The first attempt
        is made without tenacity, which costs as much as a small read; a run has hundreds.)"""
        try:
            return attempt()
        except postgres.Error as error:
            if not postgres.is_disconnect(error):
                raise
            self._lost(error)

        def lost(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, postgres.Error)
            self._lost(error)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, postgres.Error) and postgres.is_disconnect(e)),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=5, jitter=0.3),
            stop=tenacity.stop_after_delay(RECONNECT_SECONDS),
            before_sleep=lost,
            reraise=True,
        )
        return retrying(attempt)

    def _lost(self, error: postgres.Error) -> None:
        log.warning("Connecting to Postgres again after %s", postgres.condition(error))
        self.close()
