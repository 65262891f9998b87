"""The tripwire: counts of documents against counts of rows, between two sweeps.

count() costs a thousandth of reading, so every run can check whether a collection still has as many more documents than
rows as when it was last compared whole (its baseline). If that has changed at two looks, bisection finds the buckets of
time that hold the change, and their documents and rows are examined. So it finds the delete of an old document, and the
creation of one that no window saw, without reading the collection.

What runs beside it, and why it raises no false alarm:

1. *A client writes its document first, and its row seconds later.* Documents and rows younger than the start of this run's
   window aren't compared by count: the window examines them. If an old document is deleted just now, the two looks, a
   grace period apart, see different counts.
2. *The counts of the two sides are of different moments.* Documents are counted at one read_time, the rows of all buckets
   in one statement; a change between the two goes away at the second look. While a baseline is measured, the rows are
   counted before and after the documents, and buckets in which they moved are measured again.
3. *A loss while a baseline is measured.* A bucket is measured before it is examined: the examination finds earlier losses,
   and later ones change the difference. No loss falls between the two.
4. *An honest change.* A post is deleted, its comments' rows cascade, their documents stay for ever: the buckets are
   examined, nothing is called drift, and their new difference is the baseline. So are our own repairs.
5. *Killed at any line.* The baseline is kept in the transaction that keeps the differences; without it, the next run sees
   the same deviation.

6. *Archived.* A document that moves to another path of the same collection id is still counted, and its row must go.
   Documents below another top-level collection are counted apart: if there are more new ones than buckets lost rows, a sweep
   is requested. Only a sweep sees a move below the same top-level collection.

7. *A document without a time arrives while counts are made.* It lies in no bucket, and its row is young. The baseline
   keeps the read_time of its counts: a younger document arrived since, and a look at its row counts it, one for one.

It can't see a loss that an opposite change in the same half of a bisection cancels out, nor any edit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from dualwrite.engine.compare import Examiner
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.check_fields import END_OF_TIME
from dualwrite.model.declaration import Collection, FieldPath
from dualwrite.model.run_report import TripwireResult
from dualwrite.model.verdicts import Verdict
from dualwrite.model.windows import LONG_AGO, Window, whole_millisecond
from dualwrite.postgres.target import Target
from dualwrite.runs.tripwire import counts
from dualwrite.runs.tripwire.baseline import (
    BUCKET,
    MOST_BUCKETS,
    Baseline,
    TimeColumn,
    deviating,
    same_kind,
)

log = logging.getLogger(__name__)

MOST_EXAMINED = 20
"""Buckets that one run examines; if more deviate, it requests a sweep instead."""

SWEEP_CALLED_EVERY = timedelta(hours=6)
"""The shortest time between two sweeps that deviations request early, because a sweep reads every document."""

_COUNTS_AT_ONCE = 8
MOST_YOUNG = 1_000
_MEASUREMENTS = 3


@dataclass(slots=True)
class Tripped:
    """The tripwire's result for one collection. `baseline`: for the next run to compare with."""

    baseline: Baseline
    deviation: int = 0
    """Documents too many, or (negative) too few, against the baseline, at both looks."""
    buckets: int = 0
    """Buckets examined because of it."""
    calls_sweep: bool = False

    def as_json(self) -> TripwireResult:
        return {
            "deviation": self.deviation,
            "buckets": self.buckets,
            "calls_sweep": self.calls_sweep,
            "failed": None,
            "waits_until": None,
        }


@dataclass(frozen=True, slots=True)
class _Counts:
    """The counts of one look: documents at one read_time, rows in one snapshot."""

    read_time: datetime
    documents: int
    """In all buckets of the baseline, without the new one."""
    new: int
    recent: int
    untimed: int
    stray: int
    """Below another top-level collection."""
    new_buckets: int
    """1 if there is a new bucket, else 0."""
    rows: list[int]
    """Rows of each bucket, the new one included, then younger ones; if only sums were asked for, the first number is of all
    buckets but the last two."""

    @property
    def rows_before(self) -> int:
        """In all buckets of the baseline."""
        return sum(self.rows[: len(self.rows) - 1 - self.new_buckets])

    @property
    def rows_new(self) -> int:
        return sum(self.rows[len(self.rows) - 1 - self.new_buckets : -1])


class Deviation(NamedTuple):
    """How many documents too many, or (negative) too few, there are against the baseline."""

    old: int
    """In the baseline's buckets."""
    new: int
    """In the one since then."""
    untimed: int
    """In no bucket, because they state no time."""
    stray: int
    """Below another top-level collection."""

    def lasting(self, later: Deviation) -> Deviation:
        """The parts of the later look's deviation that go in the same direction as this one's."""
        return Deviation(*(b if same_kind(a, b) else 0 for a, b in zip(self, later, strict=True)))


class Tripwire:
    """Compares the counts of one collection's two sides."""

    def __init__(self, source: Source, target: Target, collection: Collection, at: TimeColumn) -> None:
        self._source = source
        self._target = target
        self._collection = collection
        self._at = at
        self._all = Scan(collection.collection_id, (), collection.top_level)

    # --- before a complete comparison ---------------------------------------------------------------------------------

    def measure(self, end: datetime) -> Baseline:
        """The difference of each bucket up to `end`. Call it before the collection is examined whole, and keep it with that
        examination's differences. Bills about two reads for 1,000 documents."""
        end = whole_millisecond(end)
        rows = self._target.count(self._collection)
        every = max(BUCKET, rows // MOST_BUCKETS)
        cuts = counts.even_edges(self._target, self._collection, self._at.column, end, every)
        edges = (*(cut for cut in cuts if LONG_AGO < cut < end), end)
        baseline = Baseline(self._at.field, edges, (0,) * len(edges), 0)
        differences = [0] * len(edges)
        untimed = stray = 0
        todo: Sequence[int] = range(len(edges))
        for _ in range(_MEASUREMENTS):
            before = self.count_rows(edges)
            total, read_time = self._source.count(self._all)
            untimed = total - self._count(Window(LONG_AGO, END_OF_TIME), read_time)
            stray = self._stray(total, read_time)
            for n, documents in self._count_buckets(baseline, todo, read_time):
                differences[n] = documents - before[n]
            after = self.count_rows(edges)
            todo = [n for n in todo if before[n] != after[n]]
            if not todo:
                break
        return replace(baseline, differences=tuple(differences), untimed=untimed, stray=stray, counted_at=read_time)

    def _count_buckets(self, baseline: Baseline, buckets: Iterable[int], read_time: datetime) -> list[tuple[int, int]]:
        """Each bucket with its number of documents. The many small counts run side by side."""

        def count(n: int) -> tuple[int, int]:
            return n, self._count(baseline.window(n, n + 1), read_time)

        with ThreadPoolExecutor(_COUNTS_AT_ONCE) as threads:
            return list(threads.map(count, buckets))

    # --- in each run that doesn't compare it whole ------------------------------------------------------------------------

    def look(self, examiner: Examiner, baseline: Baseline, *, end: datetime, grace: float, now: datetime) -> Tripped:
        """Compares the counts with the baseline, and examines the buckets that changed, up to `end`: the window has
        examined younger documents before. The examiner's look is the window's first one. `grace`: seconds between two
        looks."""
        extended = baseline.extended(whole_millisecond(end))
        began = time.monotonic()
        first = self._look(baseline, extended, whole=False)
        extended = replace(extended, counted_at=first.read_time, counted_seconds=time.monotonic() - began)
        if baseline.stray is None:
            extended = replace(extended, stray=first.stray)
        if not any(self._deviations(baseline, first)):
            return Tripped(extended.joined(first.rows[:-1]))
        log.info("%s: counts deviate from the last comparison's; looking again in %.0f s", self._name, grace)
        self._target.close()
        time.sleep(grace)
        second = self._look(baseline, extended, whole=True)
        extended = replace(extended, counted_at=second.read_time)
        lasting = self._deviations(baseline, first).lasting(self._deviations(baseline, second))
        tripped = Tripped(extended, sum(lasting))
        if any(lasting):
            self._find(examiner, baseline, tripped, second, lasting, now)
        if tripped.buckets == 0 and not tripped.calls_sweep:
            tripped.baseline = tripped.baseline.joined(second.rows[:-1])
        return tripped

    def _deviations(self, baseline: Baseline, look: _Counts) -> Deviation:
        """The deviations of the baseline's buckets, of the new one, of the documents in no bucket, and of those elsewhere.

        A new untimed document's row counts as recent for now, without a recent document. Only if there are too many recent
        rows to look at each (`_young`), their surplus counts as new untimed documents; it may be from an earlier run, and
        would hide a lost one. A recent document elsewhere, which has no row, is no deviation.
        """
        old = look.documents - look.rows_before - sum(baseline.differences)
        new = look.new - look.rows_new
        untimed = look.untimed - baseline.untimed
        if untimed > 0 and look.rows[-1] > MOST_YOUNG:
            untimed = max(0, untimed - max(0, look.rows[-1] - look.recent))
        stray = 0 if baseline.stray is None else look.stray - baseline.stray
        if stray > 0:
            stray = max(0, stray - max(0, look.recent - look.rows[-1]))
        return Deviation(old, new, untimed, stray)

    def _find(
        self,
        examiner: Examiner,
        baseline: Baseline,
        tripped: Tripped,
        look: _Counts,
        seen: Deviation,
        now: datetime,
    ) -> None:
        """Examines the buckets that deviate, and keeps their new difference; requests a sweep for deviations outside."""
        buckets = len(baseline.edges)
        moved: list[tuple[int, int]] = []
        if seen.old:
            moved = deviating(baseline, look.rows[:buckets], lambda window: self._count(window, look.read_time))
        if seen.new:
            moved.append((buckets, look.new))
        if len(moved) > MOST_EXAMINED:
            log.warning("%s: counts deviate in %d buckets of time, so a sweep is requested", self._name, len(moved))
            self._call_sweep(tripped, now)
            return
        tripped.buckets = len(moved)
        change, stand_ins = self._examine(examiner, tripped, look, moved)
        untimed, stray = seen.untimed, seen.stray
        # The row of an untimed document lies in a bucket, the document in none.
        if untimed > 0:
            settled = min(untimed, max(0, -change), stand_ins)
        else:
            settled = -min(-untimed, max(0, change))
        if untimed - settled > 0:
            settled += self._young(examiner, tripped.baseline.end, baseline, untimed - settled)
        # A properly archived document took its row with it, so its bucket has one document too many.
        explained = min(stray, max(0, change + min(0, settled))) if stray > 0 else -min(-stray, max(0, -change))
        tripped.baseline = replace(
            tripped.baseline,
            untimed=tripped.baseline.untimed + settled,
            stray=None if tripped.baseline.stray is None else tripped.baseline.stray + explained,
        )
        left = {f"without {self._at.field}": untimed - settled, "below another top-level collection": stray - explained}
        for place, number in left.items():
            if number:
                log.warning("%s: %+d documents %s, so a sweep is requested", self._name, number, place)
        if any(left.values()):
            self._call_sweep(tripped, now)

    def _examine(
        self, examiner: Examiner, tripped: Tripped, look: _Counts, moved: Sequence[tuple[int, int]]
    ) -> tuple[int, int]:
        """Examines buckets, given as (bucket, documents), and puts their new differences into the baseline. Returns the sum
        of the changes, and how many of their rows match although their document is in no bucket."""
        change = stand_ins = 0
        for n, documents in moved:
            window = tripped.baseline.window(n, n + 1)
            difference = documents - look.rows[n]
            log.info(
                "%s: counts deviate by %+d between %s and %s, examining %d documents",
                self._name,
                difference - tripped.baseline.differences[n],
                window.start.isoformat(),
                window.end.isoformat(),
                documents,
            )
            change += difference - tripped.baseline.differences[n]
            keys = counts.keys_within(self._target, self._collection, self._at.column, window)
            found_rows = examiner.read_further(self._scan(window, self._collection.fields), keys)
            stand_ins += sum(f.verdict is Verdict.MATCHING for f in found_rows)
            tripped.baseline = tripped.baseline.with_difference(n, difference)
        return change, stand_ins

    def _young(self, examiner: Examiner, end: datetime, baseline: Baseline, most: int) -> int:
        """How many untimed documents, up to `most`, arrived since the baseline was counted: documents that match rows younger
        than `end` that no document of the window accounts for."""
        keys = counts.keys_within(self._target, self._collection, self._at.column, Window(end, END_OF_TIME))
        # The baseline was counted before it was kept: documents that arrived in between aren't part of it.
        since = baseline.counted_at or baseline.kept_at
        if len(keys) > MOST_YOUNG or since is None:
            return 0
        units = examiner.look.fresh(examiner.units_of(keys))
        findings = examiner.examine_units(units)
        return min(
            most,
            sum(
                f.verdict is Verdict.MATCHING and f.document_time is not None and f.document_time > since
                for f in findings
            ),
        )

    def _call_sweep(self, tripped: Tripped, now: datetime) -> None:
        called = tripped.baseline.sweep_called_at
        if called is not None and now - called < SWEEP_CALLED_EVERY:
            log.warning("%s: a sweep was already requested at %s; this one waits", self._name, called.isoformat())
            return
        tripped.calls_sweep = True
        tripped.baseline = replace(tripped.baseline, sweep_called_at=now, sweep_due=True)

    # --- counts -------------------------------------------------------------------------------------------------------------

    def _look(self, baseline: Baseline, extended: Baseline, *, whole: bool) -> _Counts:
        """The counts now. `whole`: the rows of each bucket; else only sums, which take a fraction of the time."""
        total, read_time = self._source.count(self._all)
        documents = self._count(Window(LONG_AGO, baseline.end), read_time)
        is_longer = extended.end > baseline.end
        new = self._count(Window(baseline.end, extended.end), read_time) if is_longer else 0
        recent = self._count(Window(extended.end, END_OF_TIME), read_time)
        stray = self._stray(total, read_time)
        rows = self.count_rows(extended.edges if whole else extended.edges[-3:])
        return _Counts(read_time, documents, new, recent, total - documents - new - recent, stray, int(is_longer), rows)

    def _stray(self, total: int, read_time: datetime) -> int:
        """How many of the `total` documents of this collection id lie below another top-level collection."""
        if self._collection.top_level:
            return 0
        roots = dict.fromkeys(t.root for t in self._collection.templates)
        # "boards!" sorts just after "boards" and all documents below it.
        within = [replace(self._all, start=f"{root}/!", end=f"{root}!/!") for root in roots]
        return total - sum(self._source.count(scan, read_time)[0] for scan in within)

    def _count(self, window: Window, read_time: datetime) -> int:
        return self._source.count(self._scan(window), read_time)[0]

    def _scan(self, window: Window, fields: tuple[FieldPath, ...] = ()) -> Scan:
        return replace(
            self._all,
            fields=fields,
            check_field=self._at.check.field,
            check_format=self._at.check.format,
            window=window,
        )

    def count_rows(self, edges: Sequence[datetime]) -> list[int]:
        return counts.rows_between(self._target, self._collection, self._at.column, edges)

    @property
    def _name(self) -> str:
        return self._collection.name
