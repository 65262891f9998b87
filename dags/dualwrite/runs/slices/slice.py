"""Pure: how a large collection is cut into slices, which several tasks examine side by side.

A slice is half-open, as a window is: a document on a boundary belongs to the slice that begins there. So together they
cover everything exactly once, whatever is written meanwhile. Slices of a window are cut by time. Those of a whole
collection are cut by document name; the first and the last are open-ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal, Self, TypeVar

from dualwrite.model.documents import order_of_ids
from dualwrite.model.verdicts import printable
from dualwrite.model.windows import Window

By = Literal["time", "name"]
B = TypeVar("B")
Interval = tuple[B | None, B | None]
"""From the first bound (included) to the second (excluded); None: open."""

MOST_SLICES = 1_000
"""Slices of one run. Airflow maps a task over at most 1,024 items (its max_map_length), so very large collections have
larger slices."""

_PARTS = 16
_MOST_PARTS = 64
_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a collection. Bounds are instants (UTC) or document names (paths); None: open."""

    collection: str
    number: int
    """From 1 on."""
    of: int
    by: By
    start: datetime | str | None
    end: datetime | str | None
    documents: int
    """Documents that it held when it was cut."""
    cut_at: datetime
    """The source's clock at that moment."""

    @property
    def window(self) -> Window:
        assert isinstance(self.start, datetime)
        assert isinstance(self.end, datetime), "slices of a window are cut by time"
        return Window(self.start, self.end)

    @property
    def name_start(self) -> str | None:
        assert not isinstance(self.start, datetime)
        return self.start

    @property
    def name_end(self) -> str | None:
        assert not isinstance(self.end, datetime)
        return self.end

    @property
    def name(self) -> str:
        """Its name in Airflow's grid. Its bounds may be long paths; they are in the task's log."""
        return f"{self.collection} {self.number} of {self.of}, {self.documents:,} document{'s' if self.documents != 1 else ''}"

    def __str__(self) -> str:
        return f"{self.collection} {self.number} of {self.of}: {_shown(self.start)} to {_shown(self.end)}"

    def as_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "number": self.number,
            "of": self.of,
            "by": self.by,
            "start": _json(self.start),
            "end": _json(self.end),
            "documents": self.documents,
            "cut_at": self.cut_at.isoformat(),
            "name": self.name,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        bounds = [given[side] for side in ("start", "end")]
        start, end = [datetime.fromisoformat(b) if b and given["by"] == "time" else b for b in bounds]
        numbers = (given["number"], given["of"])
        cut_at = datetime.fromisoformat(given["cut_at"])
        return cls(given["collection"], *numbers, given["by"], start, end, given["documents"], cut_at)


def _json(bound: datetime | str | None) -> str | None:
    return bound.isoformat() if isinstance(bound, datetime) else bound


def _shown(bound: datetime | str | None) -> str:
    if bound is None:
        return "…"
    text = bound.strftime("%Y-%m-%dT%H:%M:%S") if isinstance(bound, datetime) else printable(bound)
    return text if len(text) <= 60 else text[:29] + "…" + text[-30:]


def slices_of(
    collection: str, by: By, cut_up: Sequence[tuple[Interval[Any], int]], cut_at: datetime
) -> tuple[Slice, ...]:
    """The result of `cut` as the slices of a collection."""
    return tuple(
        Slice(collection, n, len(cut_up), by, start, end, documents, cut_at)
        for n, ((start, end), documents) in enumerate(cut_up, start=1)
    )


def size(slice_documents: int, documents: int) -> int:
    """The slice size that keeps a run within MOST_SLICES. Two neighbours together exceed one slice's limit, or they would
    have been joined."""
    return max(slice_documents, -(-2 * documents // (MOST_SLICES // 2)))


def name_order(path: str) -> tuple[tuple[int, int, bytes], ...]:
    """Firestore's order of document names: segment by segment, numeric ids (`__id7__`) before others."""
    return tuple(map(order_of_ids, path.split("/")))


def cut(
    whole: Interval[B],
    documents: int,
    most: int,
    split: Callable[[Interval[B], int], Sequence[B]],
    count: Callable[[Sequence[Interval[B]]], Sequence[int]],
) -> list[tuple[Interval[B], int]]:
    """Cuts an interval of `documents` until each part holds at most `most`, as far as it can be cut; then joins
    neighbours that hold at most `most` together. The parts are ascending, touch, and cover the interval.

    `split` gives up to the asked number of bounds inside an interval, ascending; none if it can't be cut (all documents at
    one instant, no name known). `count` counts the documents of some intervals, all at one moment. If parts don't add up to
    their interval, their bounds aren't in the source's order, and the interval stays uncut.
    """
    parts = [(whole, documents)]
    uncut: set[Interval[B]] = set()
    for _ in range(_ROUNDS):
        if all(n <= most or part in uncut for part, n in parts):
            break
        parts = [finer for part, n in parts for finer in _finer(part, n, most, split, count, uncut)]
    return _joined(parts, most)


def _finer(
    part: Interval[B],
    documents: int,
    most: int,
    split: Callable[[Interval[B], int], Sequence[B]],
    count: Callable[[Sequence[Interval[B]]], Sequence[int]],
    uncut: set[Interval[B]],
) -> list[tuple[Interval[B], int]]:
    if documents <= most or part in uncut:
        return [(part, documents)]
    bounds = split(part, min(_MOST_PARTS, max(_PARTS, 4 * documents // most)) - 1)
    intervals = list(pairwise([part[0], *bounds, part[1]]))
    numbers = count(intervals) if bounds else []
    if not bounds or sum(numbers) != documents:
        uncut.add(part)
        return [(part, documents)]
    return list(zip(intervals, numbers, strict=True))


def _joined(parts: Sequence[tuple[Interval[B], int]], most: int) -> list[tuple[Interval[B], int]]:
    joined: list[tuple[Interval[B], int]] = []
    for (start, end), number in parts:
        if joined and joined[-1][1] + number <= most:
            (first, _), before = joined[-1]
            joined[-1] = ((first, end), before + number)
        else:
            joined.append(((start, end), number))
    return joined
