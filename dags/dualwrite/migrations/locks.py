"""Giving way: to another run of ours, and to a session that holds a lock that a migration needs.

A statement that waits for a lock makes all later ones wait too. So it gives up after lock_timeout, everything
is rolled back, and the work is tried again with back-off until wait_for_lock is over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Self, TypeVar

import tenacity

from dualwrite import postgres, settings
from dualwrite.model.errors import MigrationError
from dualwrite.postgres import Connection, errors

log = logging.getLogger(__name__)
T = TypeVar("T")

GIVES_WAY = (errors.LockNotAvailable, errors.DeadlockDetected)
"""Errors after which another try may succeed."""

_KEY = 7_305_148_912_604_431  # any constant: this bundle's migrations


class _AnotherRun(Exception):
    """Another run of ours holds the advisory lock."""


def lock_out_other_runs(connection: Connection) -> None:
    """Takes the lock that one run holds at a time, until the transaction ends. `tried_again` waits if another has it.

    A transaction-level lock, polled, so that a transaction pooler will do.
    """
    # Without a parameter, on purpose: with one, the portal of the extended protocol would keep its snapshot, and an
    # index built concurrently would wait for this idle transaction for ever.
    row = connection.execute(f"SELECT pg_catalog.pg_try_advisory_xact_lock({_KEY})").fetchone()
    if row is None or not row[0]:
        raise _AnotherRun


def tried_again(connect: Callable[[], Connection], file: str, seconds: float, work: Callable[[Watcher], T]) -> T:
    """Does the work, again and again while it can't get its locks, for at most so many seconds. The work must be in transactions of
    its own, and call `Watcher.watch` with its connection. `file`: the file's name, or "dry run", for messages.

    Raises MigrationError, which names the session that held the lock.
    """
    with Watcher(connect) as watcher:

        def give_up(state: tenacity.RetryCallState) -> None:
            raise MigrationError(
                f"{file} didn't get its locks within {seconds:g} s. {watcher.holder or _why(state)} End that session, or run "
                "again with a longer wait_for_lock.",
                code="locks-not-got",
            ) from None

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((_AnotherRun, *GIVES_WAY)),
            # Half of a pause is left to chance, so that two runs fall out of step.
            wait=tenacity.wait_exponential(0.125, max=2.5, exp_base=1.5)
            + tenacity.wait_random_exponential(0.125, max=2.5, exp_base=1.5),
            stop=tenacity.stop_before_delay(seconds),
            before_sleep=lambda state: log.info("%s: %s Retrying", file, _why(state)),
            retry_error_callback=give_up,
        )
        return retrying(work, watcher)


def _why(state: tenacity.RetryCallState) -> str:
    """The last attempt's error."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, postgres.Error):
        return f"Postgres answered {postgres.condition(error)}."
    return f"Another run of {settings.named('apply_migrations')} is in progress."


_HOLDERS = postgres.sql.SQL(
    """
    SELECT pid, usename::text, application_name, state, xact_start
    FROM pg_stat_activity
    WHERE pid = ANY(pg_blocking_pids(%(pid)s::int4))
    ORDER BY xact_start
    """
)


class Watcher:
    """Watches, from a connection of its own, which session blocks a backend of ours; never reads a query's text."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._pid = 0
        self.holder: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def watch(self, connection: Connection) -> None:
        """Watches the backend that this connection's transaction runs on."""
        row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
        self._pid = row[0] if row else 0

    def _look(self) -> None:
        try:
            with self._connect() as connection:
                while not self._stop.wait(0.1):
                    if self._pid:
                        for holder in postgres.fetch(connection, _HOLDERS, {"pid": self._pid}):
                            self.holder = _describe(*holder)
        except postgres.Error as error:
            log.info("Can't see who holds locks: %s", postgres.condition(error))


def _describe(pid: int, role: str | None, application: str | None, state: str | None, since: datetime | None) -> str:
    """The session that holds a lock, in a sentence. Without pg_read_all_stats a role sees neither state nor time of another role's
    session."""
    begun = f", in a transaction since {since:%Y-%m-%d %H:%M:%S %Z}" if since else ""
    return (
        f"Held by pid {pid}, role {role or 'unknown'}, application {application or 'without a name'}, "
        f"{state or 'in a state that only a member of pg_read_all_stats sees'}{begun}."
    )
