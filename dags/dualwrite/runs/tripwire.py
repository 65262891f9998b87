"""The tripwire's part in a run: measured before a complete comparison, looked at between two, kept with what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dualwrite.engine.compare import Examiner
from dualwrite.engine.tripwire import Tripped, Tripwire
from dualwrite.firestore.source import Source
from dualwrite.model.baseline import Baseline, time_column
from dualwrite.model.declaration import Collection
from dualwrite.model.windows import Window, with_overlap
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import baselines
from dualwrite.postgres.target import Target
from dualwrite.runs.reconcile_plan import Run

YOUNG = timedelta(hours=2)
"""What was created so lately before a complete comparison is left out of its baseline: rows may lag their documents."""


def measure(source: Source, target: Target, collection: Collection, before: datetime) -> Baseline | None:
    """The baseline of a collection that is about to be compared whole; None where it can't be sliced by time."""
    at = time_column(collection)
    return Tripwire(source, target, collection, at).measure(before - YOUNG) if at else None


@dataclass(slots=True)
class Wire:
    """One collection's tripwire in one run. `window` is None where the collection is compared whole."""

    run: Run
    collection: Collection
    window: Window | None
    kept: Baseline | None
    """What an earlier run measured; None where there is nothing to compare counts with."""
    baseline: Baseline | None = None
    tripped: Tripped | None = field(default=None, init=False)

    def measure(self) -> None:
        """Measures a new baseline where the collection is about to be compared whole."""
        if self.window is None:
            self.baseline = measure(self.run.source, self.run.target, self.collection, self.run.plan.now)

    def look(self, examiner: Examiner) -> None:
        """Compares the counts with the baseline, and examines what they lead to, within the examiner's first look."""
        at = time_column(self.collection)
        if self.window is None or at is None or self.kept is None or self.kept.field != at.field:
            return
        params, now = self.run.params, self.run.plan.now
        end = with_overlap(self.window, timedelta(minutes=params.overlap_minutes)).start
        tripwire = Tripwire(self.run.source, self.run.target, self.collection, at)
        self.tripped = tripwire.look(examiner, self.kept, end=end, grace=params.grace_seconds, now=now)
        self.baseline = self.tripped.baseline

    def keep(self, connection: Connection) -> None:
        """Keeps the baseline, in the transaction that keeps what was found."""
        if self.baseline is not None:
            baselines.save(connection, self.collection.name, self.baseline, self.run.run_id)

    def as_json(self) -> dict[str, Any] | None:
        return self.tripped.as_json() if self.tripped else None


def of(run: Run, name: str, window: Window | None) -> Wire:
    """A collection's wire, with what an earlier run measured where that is compared."""
    collection = run.catalog[name]
    compared = window is not None and time_column(collection) is not None
    return Wire(run, collection, window, baselines.load(run.target, name) if compared else None)
