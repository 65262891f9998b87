"""Pure: how many documents a collection has more than its table has rows, bucket by bucket of the time of creation, when it
was last compared whole.

A bucket is a stretch of time between two edges, half-open. Edges lie on whole milliseconds, because rows written by the
app are cut off there and documents aren't: so both sides are cut alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Self, TypedDict

from dualwrite.model.check_fields import Check
from dualwrite.model.declaration import Collection
from dualwrite.model.windows import LONG_AGO, Window

BUCKET = 1_000
"""Rows in a bucket. Finding a deviation costs about one read for so many documents, and then these."""

MOST_BUCKETS = 2_000
"""Buckets of one collection: above 2 million rows they get larger."""


CHEAP_SECONDS = 5
COUNTING_SHARE = 100
"""Counts that take longer than CHEAP_SECONDS are made less often: one second of so many goes into them. A table of two million
rows is counted in less than a second, and so in every run; where a hundred million take half a minute, it is every hour."""


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """Where a document states its time of creation, and the column that holds it."""

    check: Check
    column: str

    @property
    def field(self) -> str:
        """By which a baseline is known: with another format, other documents are counted."""
        return str(self.check)


def time_column(collection: Collection) -> TimeColumn | None:
    """By what a collection can be divided: the first compared timestamp column that comes from a check field, which has an
    index. None where there is none, or where one document has many rows."""
    if collection.entries is not None:
        return None
    for column in collection.columns:
        check = collection.has_instant_of(column)
        if check is not None and column.role == "compared":
            return TimeColumn(check, column.name)
    return None


class BaselineJson(TypedDict):
    """A baseline as it was measured, on its way to the task that keeps it."""

    field: str
    edges: list[str]
    differences: list[int]
    untimed: int
    stray: int | None
    counted_at: str | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """Documents minus rows of each bucket, counted just before the bucket was examined on both sides.

    Why just before: what was lost by then the examination found, and what is lost later moves the difference. `edges` are
    where the buckets end; the first one begins at the beginning of time. `untimed` documents state no time, so no bucket
    holds them; their rows lie in the bucket of the stand-in.
    """

    field: str
    edges: tuple[datetime, ...]
    differences: tuple[int, ...]
    untimed: int
    sweep_called_at: datetime | None = None
    """When a deviation that lies in no bucket last called a sweep."""
    sweep_due: bool = False
    """Whether the next run is to sweep. (Not told by the watermark: the age of the last sweep stays what it is.)"""
    stray: int | None = None
    """Documents below another top-level collection than the collection's own; None where they were never counted."""
    counted_at: datetime | None = None
    """When the two sides were last counted, and how long that took."""
    counted_seconds: float = 0.0
    kept_at: datetime | None = None
    """When it was kept, by the target's clock; None where it wasn't yet."""

    def as_json(self) -> BaselineJson:
        edges = [edge.isoformat() for edge in self.edges]
        return {
            "field": self.field,
            "edges": edges,
            "differences": list(self.differences),
            "untimed": self.untimed,
            "stray": self.stray,
            "counted_at": self.counted_at.isoformat() if self.counted_at else None,
        }

    @classmethod
    def from_json(cls, given: BaselineJson) -> Self:
        """A baseline as it was measured, before it was kept."""
        edges = tuple(map(datetime.fromisoformat, given["edges"]))
        counted_at = datetime.fromisoformat(given["counted_at"]) if given["counted_at"] else None
        numbers = (tuple(given["differences"]), given["untimed"])
        return cls(given["field"], edges, *numbers, stray=given["stray"], counted_at=counted_at)

    def is_due(self, now: datetime) -> bool:
        """Whether it is time to count again: what takes more than CHEAP_SECONDS takes one second of COUNTING_SHARE at most."""
        return self.due_at is None or now >= self.due_at

    @property
    def due_at(self) -> datetime | None:
        if self.counted_at is None or self.counted_seconds <= CHEAP_SECONDS:
            return None
        return self.counted_at + timedelta(seconds=COUNTING_SHARE * self.counted_seconds)

    @property
    def end(self) -> datetime:
        return self.edges[-1]

    def window(self, first: int, after: int) -> Window:
        """The time of the buckets `first` to `after`, the latter excluded."""
        return Window(LONG_AGO if first == 0 else self.edges[first - 1], self.edges[after - 1])

    def with_difference(self, n: int, difference: int) -> Baseline:
        return replace(self, differences=(*self.differences[:n], difference, *self.differences[n + 1 :]))

    def extended(self, end: datetime) -> Baseline:
        """With one more bucket, up to `end`, in which as many documents as rows are expected."""
        return replace(self, edges=(*self.edges, end), differences=(*self.differences, 0)) if end > self.end else self

    def joined(self, rows: Sequence[int]) -> Baseline:
        """With the last two buckets as one while they are small together: each run adds one. `rows` are those of all."""
        if len(self.edges) < 2 or rows[-1] + rows[-2] > BUCKET:
            return self
        together = sum(self.differences[-2:])
        return replace(
            self, edges=(*self.edges[:-2], self.end), differences=(*self.differences[:-2], together)
        )  # fmt: skip


def deviating(baseline: Baseline, rows: Sequence[int], count: Callable[[Window], int]) -> list[tuple[int, int]]:
    """The buckets whose difference isn't the baseline's, each with its number of documents, found by bisection.

    `rows` are those of each bucket, `count` counts documents. A half whose deviation is 0 is left alone: what cancels out
    inside it is not found.
    """
    differences = [0, *accumulate(baseline.differences)]
    rows_before = [0, *accumulate(rows)]

    def expected(first: int, after: int) -> int:
        return differences[after] - differences[first] + rows_before[after] - rows_before[first]

    found: list[tuple[int, int]] = []
    todo = [(0, len(baseline.edges), count(baseline.window(0, len(baseline.edges))))]
    while todo:
        first, after, documents = todo.pop()
        if documents == expected(first, after):
            continue
        if after - first == 1:
            found.append((first, documents))
            continue
        middle = (first + after) // 2
        left = count(baseline.window(first, middle))
        todo += [(middle, after, documents - left), (first, middle, left)]
    return found


def same_kind(first: int, second: int) -> bool:
    """Whether two looks saw a deviation in the same direction."""
    return first * second > 0
