"""Calls to one Firestore database, billed as Firestore bills them, within a cap and a pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from dualwrite.firestore.budget import Budget
from dualwrite.firestore.failures import CallError, Retries
from dualwrite.firestore.values import moment
from dualwrite.firestore.wire import CountRequest, Wire
from dualwrite.model.errors import SourceError
from dualwrite.model.pace import Pace

T = TypeVar("T")


class Calls:
    """The calls of one Source. Threads may share it. `budget`: checked before each call; `pace`: reads a second."""

    def __init__(self, wire: Wire, budget: Budget, pace: Pace) -> None:
        self.wire = wire
        self.root = wire.root
        self.budget = budget
        self._pace = pace
        self._lock = threading.Lock()
        self._billed = 0

    @property
    def billed_reads(self) -> int:
        """See Source.billed_reads."""
        return self._billed

    def bill(self, reads: int, *, reserved: bool = False) -> None:
        """Counts reads that Firestore bills. `reserved`: the budget has them already. Waits as the pace says."""
        with self._lock:
            self._billed += reads
        if not reserved:
            self.budget.spend(reads)
        if (wait := self._pace.delay(reads, time.monotonic())) > 0:
            time.sleep(wait)  # in a reader's thread, so the stream waits in Firestore meanwhile

    def count(self, structured: Any, collection_id: str, read_time: datetime | None) -> tuple[int, datetime]:
        """See Source.count. `structured`: the query whose documents are counted."""
        request = CountRequest(parent=self.root)
        request.structured_aggregation_query.structured_query.CopyFrom(structured)
        request.structured_aggregation_query.structured_query.ClearField("select")
        count = request.structured_aggregation_query.aggregations.add(alias="n").count
        count.SetInParent()
        if read_time is not None:
            request.read_time.FromDatetime(read_time)

        def ask() -> tuple[int, datetime]:
            for answer in self.wire.run_count(request):
                if answer.HasField("result"):
                    return answer.result.aggregate_fields["n"].integer_value, moment(answer.read_time)
            raise SourceError(f"Firestore returned no count for {collection_id}. Run again.")

        purpose = f"count() of {collection_id}"
        for all_that_is_left in (False, True):
            # The cost of a count isn't known beforehand, so it is limited.
            with self.budget.asking(1, purpose, all_that_is_left=all_that_is_left) as most:
                if most is not None:
                    count.up_to.value = most * 1000
                number, instant = self.retry(ask, purpose)
                self.bill(max(1, -(-number // 1000)))
                if most is None or number < most * 1000:
                    return number, instant
                left = self.budget.left
            if left is not None and left < 1:
                break
        raise self.budget.refusal(1, f"more of {purpose}", or_more=True)

    def retry(self, ask: Callable[[], T], purpose: str) -> T:
        """The result of a call, which is tried again while that may help. Raises SourceError."""
        retries = Retries(purpose)
        while True:
            try:
                return ask()
            except CallError as error:
                retries.give_up_or_wait(error)
