"""Progress of a long read, in the log."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0


class ProgressLog:
    """Logs the progress of a long read, at most once in PROGRESS_SECONDS."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = self._told = time.monotonic()
        self._done = 0

    def tell(self, number: int, total: int) -> None:
        self._done += number
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        rate = self._done / (now - self._begun)
        share = min(1.0, self._done / total) if total else 1.0
        left = max(0, total - self._done) / rate if rate else 0
        log.info(
            "%s: %s of %s documents, %.0f %%, %.0f/s, about %.0f s left",
            self._name,
            f"{self._done:,}",
            f"{total:,}",
            100 * share,
            rate,
            left,
        )

    def end(self) -> None:
        seconds = time.monotonic() - self._begun
        log.info("%s: %s documents read in %.1f s", self._name, f"{self._done:,}", seconds)
