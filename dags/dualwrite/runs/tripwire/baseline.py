"""Pure: how many more documents than rows a collection had when it was last compared whole, by bucket of the time of creation.

A bucket is a half-open interval between two edges. Edges lie on whole milliseconds: rows written by the app are truncated
to these, documents aren't, and so both fall into the same bucket.
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
"""Rows in a bucket. Finding a deviation bills about one read for this many documents, and examining its bucket bills these."""

MOST_BUCKETS = 2_000
"""Buckets of one collection; with more than 2 million rows they are larger."""


CHEAP_SECONDS = 5
COUNTING_SHARE = 100
"""Counts that take longer than CHEAP_SECONDS are made less often: at most one second of this many is spent on them. A table of
two million rows is counted in less than a second, so in every run; if a hundred million take half a minute, every hour."""


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """The check field with a document's time of creation, and the column that holds the same time."""

    check: Check
    column: str

    @property
    def field(self) -> str:
        """The field and its format, as a baseline keeps them: with another format, other documents are counted."""
        return str(self.check)


def time_column(collection: Collection) -> TimeColumn | None:
    """The time by which a collection can be divided: the first compared timestamp column that comes from a check field,
    because that has an index. None if there is none, or if one document has many rows."""
    if not collection.has_one_row:
        return None
    for column in collection.columns:
        check = collection.has_instant_of(column)
        if check is not None and column.role in ("compared", "key"):
            return TimeColumn(check, column.name)
    return None


class BaselineJson(TypedDict):
    """A measured baseline, on its way to the task that keeps it."""

    field: str
    edges: list[str]
    differences: list[int]
    untimed: int
    stray: int | None
    counted_at: str | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """Documents minus rows of each bucket, counted just before the bucket was examined on both sides.

    Just before, because the examination finds earlier losses, and later ones change the difference. `edges` are the ends of
    the buckets; the first bucket has no beginning. `untimed` documents state no time, so no bucket holds them; their rows lie
    in the bucket of the time that stands in for theirs.
    """

    field: str
    edges: tuple[datetime, ...]
    differences: tuple[int, ...]
    untimed: int
    sweep_called_at: datetime | None = None
    """When a deviation outside of all buckets last requested a sweep."""
    sweep_due: bool = False
    """Whether the next run is to sweep. (Kept apart from the watermark, so that the age of the last sweep stays right.)"""
    stray: int | None = None
    """Documents of the collection id below another top-level collection; None if they were never counted."""
    counted_at: datetime | None = None
    """When the two sides were last counted: the read_time of the documents' count."""
    counted_seconds: float = 0.0
    """How long the last count took, in seconds."""
    kept_at: datetime | None = None
    """When it was kept, by the target's clock; None if it wasn't yet."""

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
        """Whether it is time to count again, so that slow counts take at most one second of COUNTING_SHARE."""
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
        """The window of the buckets from `first` to `after`, the latter excluded."""
        return Window(LONG_AGO if first == 0 else self.edges[first - 1], self.edges[after - 1])

    def with_difference(self, n: int, difference: int) -> Baseline:
        return replace(self, differences=(*self.differences[:n], difference, *self.differences[n + 1 :]))

    def extended(self, end: datetime) -> Baseline:
        """With one more bucket, up to `end`, with an expected difference of 0; unchanged if `end` is not later."""
        return replace(self, edges=(*self.edges, end), differences=(*self.differences, 0)) if end > self.end else self

    def joined(self, rows: Sequence[int]) -> Baseline:
        """With the last two buckets as one if they hold at most BUCKET rows together, because each run adds a bucket. `rows`:
        of all buckets."""
        if len(self.edges) < 2 or rows[-1] + rows[-2] > BUCKET:
            return self
        together = sum(self.differences[-2:])
        return replace(
            self, edges=(*self.edges[:-2], self.end), differences=(*self.differences[:-2], together)
        )  # fmt: skip


def deviating(baseline: Baseline, rows: Sequence[int], count: Callable[[Window], int]) -> list[tuple[int, int]]:
    """The buckets whose difference isn't the baseline's, each as (bucket, documents), by bisection.

    `rows`: of each bucket; `count` counts documents. A half without a deviation is not divided further, so opposite
    deviations inside it are overlooked.
    """
    differences = [0, *accumulate(baseline.differences)]
    rows_before = [0, *accumulate(rows)]

    def expected(first: int, after: int) -> int:
        return differences[after] - differences[first] + rows_before[after] - rows_before[first]

    buckets: list[tuple[int, int]] = []
    todo = [(0, len(baseline.edges), count(baseline.window(0, len(baseline.edges))))]
    while todo:
        first, after, documents = todo.pop()
        if documents == expected(first, after):
            continue
        if after - first == 1:
            buckets.append((first, documents))
            continue
        middle = (first + after) // 2
        left = count(baseline.window(first, middle))
        todo += [(middle, after, documents - left), (first, middle, left)]
    return buckets


def same_kind(first: int, second: int) -> bool:
    """Whether two looks saw a deviation in the same direction."""
    return first * second > 0
