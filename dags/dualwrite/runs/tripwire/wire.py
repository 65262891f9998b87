"""The tripwire's part in a run: measured before a complete comparison, looked at between two, kept with what was found."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dualwrite.engine.compare import Examiner
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Collection
from dualwrite.model.errors import DualWriteError, IdentityError
from dualwrite.model.run_report import TripwireResult
from dualwrite.model.windows import Window, with_overlap
from dualwrite.postgres import Connection, condition
from dualwrite.postgres import Error as PostgresError
from dualwrite.postgres.target import Target
from dualwrite.runs.reconcile_plan import Run
from dualwrite.runs.tripwire import baselines
from dualwrite.runs.tripwire.baseline import Baseline, time_column
from dualwrite.runs.tripwire.tripwire import Tripped, Tripwire

log = logging.getLogger(__name__)

YOUNG = timedelta(hours=2)
"""What was created so lately before a complete comparison is left out of its baseline: rows may lag their documents."""


def measure(source: Source, target: Target, collection: Collection, before: datetime) -> Baseline | None:
    """The baseline of a collection that is about to be compared whole; None where it can't be divided by time, or can't be
    counted now: the comparison doesn't need it."""
    at = time_column(collection)
    if at is None:
        return None
    try:
        return Tripwire(source, target, collection, at).measure(before - YOUNG)
    except Exception as error:  # noqa: BLE001 - an extra, which costs nothing else
        log.warning("%s: the tripwire's baseline could not be measured: %s", collection.name, _told(error))
        return None


@dataclass(slots=True)
class Wire:
    """One collection's tripwire in one run. `window` is None where the collection is compared whole. Whatever fails of it is
    told, and costs nothing else."""

    run: Run
    collection: Collection
    window: Window | None
    kept: Baseline | None
    """What an earlier run measured; None where there is nothing to compare counts with."""
    baseline: Baseline | None = None
    tripped: Tripped | None = field(default=None, init=False)
    failed: str | None = field(default=None, init=False)
    waits_until: datetime | None = field(default=None, init=False)
    """When the next counts are due, where these would have taken too much of the databases' time."""
    _seconds: float = field(default=0.0, init=False)

    def measure(self) -> None:
        """Measures a new baseline where the collection is about to be compared whole."""
        if self.window is None and time_column(self.collection) is not None:
            self.baseline = measure(self.run.source, self.run.target, self.collection, self.run.plan.now)
            if self.baseline is None:
                self.failed = "its baseline could not be measured; see the log"

    def look(self, examiner: Examiner) -> None:
        """Compares the counts with the baseline, and examines what they lead to, within the examiner's first look."""
        at = time_column(self.collection)
        if self.window is None or at is None or self.kept is None or self.kept.field != at.field:
            return
        params, now = self.run.params, self.run.plan.now
        if not self.kept.is_due(now):
            self.waits_until = self.kept.due_at
            log.info(
                "%s: its counts take %.0f s, so the next are due at %s",
                self.collection.name,
                self.kept.counted_seconds,
                self.waits_until,
            )
            return
        end = with_overlap(self.window, timedelta(minutes=params.overlap_minutes)).start
        tripwire = Tripwire(self.run.source, self.run.target, self.collection, at)
        began = time.monotonic()
        try:
            self.tripped = tripwire.look(examiner, self.kept, end=end, grace=params.grace_seconds, now=now)
            self.baseline = self.tripped.baseline
        except IdentityError:
            raise
        except Exception as error:  # noqa: BLE001 - an extra, which costs nothing else
            self.failed, self._seconds = _told(error), time.monotonic() - began
            log.warning("%s: the tripwire failed: %s", self.collection.name, self.failed)

    def keep(self, connection: Connection) -> None:
        """Keeps the baseline, in the transaction that keeps what was found."""
        name = self.collection.name
        if self.window is None and (self.baseline is not None or self.failed is not None):
            baselines.swept(connection, name, self.baseline, self.run.run_id)
        elif self.baseline is not None:
            baselines.save(connection, name, self.baseline, self.run.run_id)
        elif self.failed is not None:
            baselines.counted(connection, name, self.run.plan.now, self._seconds)

    def as_json(self) -> TripwireResult | None:
        if self.failed is None and self.waits_until is None:
            return self.tripped.as_json() if self.tripped else None
        waits = self.waits_until.isoformat() if self.waits_until else None
        return {"deviation": 0, "buckets": 0, "calls_sweep": False, "failed": self.failed, "waits_until": waits}


def _told(error: Exception) -> str:
    """What to tell of an error. Others than ours may quote a row in their words: of those only the condition, or the kind."""
    if isinstance(error, PostgresError):
        return condition(error)
    return str(error) if isinstance(error, DualWriteError) else type(error).__name__


def of(run: Run, name: str, window: Window | None) -> Wire:
    """A collection's wire, with what an earlier run measured where that is compared."""
    collection = run.catalog[name]
    compared = window is not None and time_column(collection) is not None
    return Wire(run, collection, window, baselines.load(run.target, name) if compared else None)
