"""A cap on a run's billed reads. It is checked before each call, so a run stops before it passes the cap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dualwrite import settings
from dualwrite.model import cost
from dualwrite.model.errors import BudgetError

_LENT = 1_000
"""Reads that a call of unknown cost may take at first: a count of a million documents."""


class Budget:
    """Billed reads: the `limit` (None: no cap), and those `spent` so far. Threads and Sources may share it."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit: Final = limit
        self._spent = 0
        self._lent = 0
        self._changed = threading.Condition()
        self._counts_earlier = threading.Lock()
        self._has_earlier = False

    @property
    def spent(self) -> int:
        """Reads so far, and those reserved by the scans under way."""
        return self._spent

    @property
    def left(self) -> int | None:
        """The reads that may still be spent; None: any number."""
        return None if self.limit is None else self.limit - self._spent

    def count_earlier(self, ask: Callable[[], int]) -> None:
        """Counts the reads that were billed before this object was made; only the first call asks how many they are. Without a
        cap they don't matter, and nobody is asked."""
        if self.limit is None:
            return
        with self._counts_earlier:
            if not self._has_earlier:
                self.spend(ask())
                self._has_earlier = True

    @contextmanager
    def asking(self, least: int, purpose: str, *, all_that_is_left: bool = False) -> Iterator[int | None]:
        """Around a call that bills at least `least` reads: yields how many it may bill, None for any number. With a cap, these
        are reserved during the call: calls run side by side while there is enough for each, else they wait for one another.

        Raises BudgetError, before the call, if fewer are left. `purpose`: the call's, for the message.
        """
        if self.limit is None:
            yield None
            return
        with self._changed:
            while self._lent and (all_that_is_left or self._spent + self._lent + max(least, _LENT) > self.limit):
                self._changed.wait()
            left = self.limit - self._spent - self._lent
            if left < least:
                raise self.refusal(least, purpose)
            lent = left if all_that_is_left else min(left, max(least, _LENT))
            self._lent += lent
        try:
            yield lent
        finally:
            with self._changed:
                self._lent -= lent
                self._changed.notify_all()

    def reserve(self, reads: int, purpose: str) -> None:
        """Takes the reads of a scan whose size is known. Raises BudgetError if fewer are left. `purpose`: the scan's, for the message."""
        with self._changed:
            if self.limit is not None and self._spent + self._lent + reads > self.limit and self._lent:
                self._changed.wait_for(lambda: not self._lent)
            if self.limit is not None and self._spent + reads > self.limit:
                raise self.refusal(reads, purpose)
            self._spent += reads

    def spend(self, reads: int) -> None:
        """Counts billed reads; a negative number returns reads that a scan had reserved and did not use."""
        with self._changed:
            self._spent += reads

    def refusal(self, reads: int, purpose: str, *, or_more: bool = False) -> BudgetError:
        """The error for a call that would cost these reads."""
        return BudgetError(
            f"A run bills at most max_billed_reads = {self.limit:,} reads: {self._spent:,} are spent "
            f"({cost.dollars(self._spent)}), and {purpose} would cost {reads:,}{' or more' if or_more else ''} "
            f"({cost.dollars(reads)}), so it was not read. Finished collections are kept; the others keep their watermark and "
            "are read by the next run. Trigger a run with a larger max_billed_reads; scheduled runs take it from Variable "
            f"{settings.named('reconcile_max_billed_reads')}."
        )
