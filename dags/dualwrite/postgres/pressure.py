"""Slows a run down if the target is slow, or busy with the app's own work.

A page's transactions are timed, waits for locks included. If one takes long, pages get smaller and the run pauses for as long
as the page took; the reader waits meanwhile, because only a few pages are read ahead. When pages are quick again they grow back.
The log says when this begins and when it ends.
"""

from __future__ import annotations

import logging
import time

from dualwrite.model.pace import Pace

log = logging.getLogger(__name__)

SLOW_SECONDS = 1.0
"""Seconds in Postgres after which a page is slow. A page of 5,000 takes less than a tenth of that; a client's own statement
ends after 3."""

_LEAST_ROWS = 100
_LONGEST_REST = 10.0


class Pressure:
    """Limits the load of one connection on the target. `pace`: the limit of rows a second, which a process shares."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._most: int | None = None

    @property
    def most_rows(self) -> int | None:
        """The most rows that a page may have now; None while the target is fast."""
        return self._most

    def after(self, name: str, rows: int, seconds: float) -> None:
        """Call after each page of a collection, outside of any transaction: waits if the target is slow."""
        rest = self._pace.delay(rows, time.monotonic())
        if seconds >= SLOW_SECONDS:
            if self._most is None:
                log.warning(
                    "%s: Postgres is slow (%.1f s for %d rows): pages get smaller, and the reader waits",
                    name, seconds, rows,
                )  # fmt: skip
            self._most = max(_LEAST_ROWS, min(rows, self._most or rows) // 2)
            rest = max(rest, min(seconds, _LONGEST_REST))
        elif self._most is not None and seconds < SLOW_SECONDS / 4 and rows >= self._most:
            self._most *= 2
            if self._most > 50_000:
                self._most = None
                log.info("%s: Postgres is quick again: pages are as large as before", name)
        if rest > 0:
            time.sleep(rest)
