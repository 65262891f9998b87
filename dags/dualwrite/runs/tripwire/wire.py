"""The tripwire in a run: measures before a complete comparison, looks between two, and keeps its baseline."""

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
"""A baseline leaves out the documents of this time before it, because rows may lag behind their documents."""


def measure(source: Source, target: Target, collection: Collection, before: datetime) -> Baseline | None:
    """The baseline of a collection that is about to be compared whole; None if it can't be divided by time, or can't be
    counted now: the comparison goes on without it."""
    at = time_column(collection)
    if at is None:
        return None
    try:
        return Tripwire(source, target, collection, at).measure(before - YOUNG)
    except Exception as error:  # noqa: BLE001 - the comparison goes on without it
        log.warning("%s: the tripwire's baseline could not be measured: %s", collection.name, _error_text(error))
        return None


@dataclass(slots=True)
class Wire:
    """One collection's tripwire in one run. `window` is None if the collection is compared whole. Its failure is reported,
    and the look goes on."""

    run: Run
    collection: Collection
    window: Window | None
    kept: Baseline | None
    """The baseline of an earlier run; None if there is none to compare with."""
    baseline: Baseline | None = None
    tripped: Tripped | None = field(default=None, init=False)
    failed: str | None = field(default=None, init=False)
    waits_until: datetime | None = field(default=None, init=False)
    """When the next counts are due; None if they were due now."""
    _seconds: float = field(default=0.0, init=False)

    def measure(self) -> None:
        """Measures a new baseline if the collection is about to be compared whole."""
        if self.window is None and time_column(self.collection) is not None:
            self.baseline = measure(self.run.source, self.run.target, self.collection, self.run.plan.now)
            if self.baseline is None:
                self.failed = "its baseline could not be measured; see the log"

    def look(self, examiner: Examiner) -> None:
        """Compares the counts with the baseline, and examines the buckets that deviate, within the examiner's first look."""
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
        except Exception as error:  # noqa: BLE001 - the look goes on without it
            self.failed, self._seconds = _error_text(error), time.monotonic() - began
            log.warning("%s: the tripwire failed: %s", self.collection.name, self.failed)

    def keep(self, connection: Connection) -> None:
        """Keeps the baseline, in the transaction that keeps the differences."""
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


def _error_text(error: Exception) -> str:
    """An error without content. Errors that aren't ours may quote a row, so only their condition or class is given."""
    if isinstance(error, PostgresError):
        return condition(error)
    return str(error) if isinstance(error, DualWriteError) else type(error).__name__


def of(run: Run, name: str, window: Window | None) -> Wire:
    """A collection's wire, with the baseline of an earlier run if it compares with one."""
    collection = run.catalog[name]
    compared = window is not None and time_column(collection) is not None
    return Wire(run, collection, window, baselines.load(run.target, name) if compared else None)
