"""Pure: how long to wait to keep an average rate."""

from __future__ import annotations

import threading

BURST_SECONDS = 1.0
"""Capacity unused for longer than this is lost, not saved up."""


class Pace:
    """A token bucket. `per_second`: the rate; None: no limit. Threads may share it."""

    def __init__(self, per_second: float | None = None) -> None:
        self._per_second = per_second
        self._paid_until: float | None = None
        self._lock = threading.Lock()

    def delay(self, number: int, now: float) -> float:
        """Takes `number` and returns the seconds to wait afterwards. `now`: seconds of a monotonic clock."""
        if self._per_second is None or number <= 0:
            return 0.0
        with self._lock:
            begin = now - BURST_SECONDS if self._paid_until is None else max(self._paid_until, now - BURST_SECONDS)
            self._paid_until = begin + number / self._per_second
            return max(0.0, self._paid_until - now)
