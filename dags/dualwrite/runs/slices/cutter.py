"""Cuts a large collection into slices that hold about equally many documents, by count() alone.

A window is cut into equal stretches of time, and dense stretches are cut again. A whole collection is cut at document names
taken from a sample of its rows, or of its parents' rows if it has few rows or they don't contain the document id (a natural
key). (Firestore's PartitionQuery does the same for whole collection groups only; the emulator answers it with UNIMPLEMENTED,
so it couldn't be tested here.)

A boundary is a name, not a document: it still works if its document is gone. All counts of one cut have one read_time, so
its parts must add up to the whole: they cover each document exactly once, or the cut isn't used. Bills about two to four
reads for 1,000 documents.
"""

from __future__ import annotations

import logging
import math
import string
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.check_fields import begun
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.documents import is_valid_id
from dualwrite.model.windows import Window
from dualwrite.postgres.sample import sample_keys
from dualwrite.postgres.target import Target
from dualwrite.runs.slices.slice import Interval, Slice, cut, name_order, size, slices_of

log = logging.getLogger(__name__)

_COUNTS_AT_ONCE = 8
_NAMES_A_SLICE = 20
MOST_NAMES = 20_000
_FIRST_ID = "!"
"""Sorts before ids in use, so all documents below one parent stay together."""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts the collections of one run. `slice_documents`: the documents that a slice may hold."""

    source: Source
    target: Target
    catalog: Catalog
    slice_documents: int

    def cut(self, windows: Mapping[str, Window | None], *, at_most: float = math.inf) -> list[Slice]:
        """The slices of those collections that hold more than slice_documents in their window (None: all documents), and
        not more than `at_most`, in the given order; smaller and larger ones are left whole."""
        counted = {name: self._counted(self.catalog[name], window) for name, window in windows.items()}
        large = {name: n for name, (n, _) in counted.items() if self.slice_documents < n <= at_most}
        most = size(self.slice_documents, sum(large.values()))
        all_slices: list[Slice] = []
        for name, number in large.items():
            slices = self._slices(self.catalog[name], windows[name], number, counted[name][1], most)
            if len(slices) > 1:
                all_slices += slices
        return all_slices

    def _counted(self, collection: Collection, window: Window | None) -> tuple[int, datetime]:
        """How many documents are to be read, counting one twice if two of its check fields lie in the window; and the
        read_time of the count."""
        total, moment = 0, None
        for scan in scans(collection, window):
            number, moment = self.source.count(scan, moment)
            total += number
        assert moment is not None
        return total, moment

    def _slices(
        self, collection: Collection, window: Window | None, number: int, moment: datetime, most: int
    ) -> tuple[Slice, ...]:
        def count(scans_: Sequence[Sequence[Scan]]) -> list[int]:
            def one(part: Sequence[Scan]) -> int:
                return sum(self.source.count(scan, moment)[0] for scan in part)

            with ThreadPoolExecutor(_COUNTS_AT_ONCE) as threads:
                return list(threads.map(one, scans_))

        parts: list[tuple[Interval[Any], int]]
        if window is not None and collection.check_fields:
            whole_window = list(scans(collection, window))
            number = count([whole_window])[0]  # the count that chose the moment may be one off
            window = begun(collection.checks, window)
            parts = cut(
                (window.start, window.end),
                number,
                most,
                _split_time,
                lambda intervals: count(
                    [[replace(scan, window=Window(*map(_sure, i))) for scan in whole_window] for i in intervals]
                ),
            )
            cut_up = slices_of(collection.name, "time", parts, moment)
        else:
            [whole] = scans(collection, None)
            number = count([[whole]])[0]
            names = self.names_of(collection, number, most)

            def split(interval: Interval[str], number: int) -> list[str]:
                return _spread([n for n in names if _inside(n, interval)], number)

            parts = cut(
                (None, None),
                number,
                most,
                split,
                lambda intervals: count([[replace(whole, start=s, end=e)] for s, e in intervals]),
            )
            cut_up = slices_of(collection.name, "name", parts, moment)
        for part in cut_up:
            if part.documents > most:
                log.warning("%s: it holds %s documents and can't be cut finer", part, f"{part.documents:,}")
        log.info("%s: %s documents in %d slices", collection.name, f"{number:,}", len(cut_up))
        return cut_up

    def names_of(self, collection: Collection, documents: int, most: int) -> list[str]:
        """Names at which the collection may be cut, in Firestore's order."""
        wanted = min(MOST_NAMES, _NAMES_A_SLICE * -(-documents // most))
        names = set(self.paths_of(collection, wanted, self.target.count(collection)))
        if 2 * len(names) < min(wanted, documents):  # few rows, or rows that don't contain their documents' ids
            for parent in self._above(collection):
                above = self.paths_of(parent, wanted, self.target.count(parent))
                names |= {f"{path}/{collection.collection_id}/{_FIRST_ID}" for path in above}
            if collection.top_level:
                names |= {f"{collection.collection_id}/{c}" for c in string.digits + string.ascii_letters}
        return sorted(names, key=name_order)

    def paths_of(self, collection: Collection, wanted: int, rows: int) -> Iterable[str]:
        keys = sample_keys(self.target, collection, wanted, rows)
        for start in range(0, len(keys), 5000):
            for paths in self.target.paths(collection, keys[start : start + 5000]).values():
                yield from (p for p in paths[:1] if all(map(is_valid_id, p.split("/"))))

    def _above(self, collection: Collection) -> list[Collection]:
        """The collections whose documents lie directly above this one's."""
        above = {t.segments[0:-2:2] for t in collection.templates}
        return [c for c in self.catalog if c.has_one_row and any(t.segments[0::2] in above for t in c.templates)]


def _sure(bound: datetime | None) -> datetime:
    assert bound is not None, "a window has two ends"
    return bound


def _split_time(interval: Interval[datetime], number: int) -> list[datetime]:
    """Up to `number` instants inside an interval, evenly spread, in whole microseconds, as Firestore's are."""
    start, end = map(_sure, interval)
    width = (end - start) // _MICROSECOND
    steps = {width * i // (number + 1) for i in range(1, number + 1)} - {0, width}
    return [(start + step * _MICROSECOND).astimezone(UTC) for step in sorted(steps)]


def _spread(names: Sequence[str], number: int) -> list[str]:
    """Up to `number` of the names, evenly spread."""
    if len(names) <= number:
        return list(names)
    return [names[len(names) * i // (number + 1)] for i in range(1, number + 1)]


def _inside(name: str, interval: Interval[str]) -> bool:
    """Whether a name lies strictly inside the interval: on a bound it would cut off nothing."""
    start, end = interval
    order = name_order(name)
    return (start is None or name_order(start) < order) and (end is None or order < name_order(end))
