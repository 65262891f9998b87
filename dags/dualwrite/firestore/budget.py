"""A cap on what a run may read. It is asked before each call, so that a run stops before it passes the cap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dualwrite.model import cost
from dualwrite.model.errors import BudgetError


class Budget:
    """Billed reads: `limit` (None: no cap), and what was spent so far. Threads may share it."""

    def __init__(self, limit: int | None = None, spent: int = 0) -> None:
        self.limit = limit
        self._spent = spent
        self._lock = threading.RLock()

    @property
    def spent(self) -> int:
        """What was read, and what the scans under way will read."""
        return self._spent

    @contextmanager
    def asking(self, least: int, what: str) -> Iterator[int | None]:
        """Around a call that bills at least so many reads: yields how many it may bill, None for any number.

        Raises BudgetError, before the call, where there aren't so many left. With a cap, calls wait for one another here:
        two that were both told what is left would pass it together.
        """
        if self.limit is None:
            yield None
            return
        with self._lock:
            if self._spent + least > self.limit:
                raise self.refusal(least, what)
            yield self.limit - self._spent

    def reserve(self, reads: int, what: str) -> None:
        """Takes the reads of a scan whose size is known. Raises BudgetError where there aren't so many left."""
        with self._lock:
            if self.limit is not None and self._spent + reads > self.limit:
                raise self.refusal(reads, what)
            self._spent += reads

    def spend(self, reads: int) -> None:
        """Counts what was billed; less than nothing gives back what a scan had reserved and did not read."""
        with self._lock:
            self._spent += reads

    def refusal(self, reads: int, what: str, *, or_more: bool = False) -> BudgetError:
        return BudgetError(
            f"A run bills at most max_billed_reads = {self.limit:,} reads: {self._spent:,} were spent "
            f"({cost.dollars(self._spent)}), and {what} would cost {reads:,}{' or more' if or_more else ''} "
            f"({cost.dollars(reads)}). They were not read. What was examined is kept; what was not keeps its watermark, and "
            "the next run begins there. Trigger a run with a larger max_billed_reads."
        )
