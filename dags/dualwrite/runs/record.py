"""What both kinds of runs have in common: how a collection is examined, and how that is recorded."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from dualwrite import postgres
from dualwrite.engine.compare import Examiner
from dualwrite.engine.sliced import SliceExaminer
from dualwrite.engine.units import Policy
from dualwrite.firestore.budget import Budget
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog
from dualwrite.model.gap_params import GapParams
from dualwrite.model.pace import Pace
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Excuse
from dualwrite.model.windows import Window
from dualwrite.postgres import Connection
from dualwrite.postgres.pressure import Pressure
from dualwrite.postgres.remembered import run_log
from dualwrite.postgres.target import Target

log = logging.getLogger(__name__)

_budgets: WeakValueDictionary[tuple[object, ...], Budget] = WeakValueDictionary()
"""The threads of a run that share this process share its budget; each has a Source of its own."""
_lock = threading.Lock()


def paced(params: GapParams | ReconcileParams) -> Callable[[Source, Target], None]:
    """Sets the limits of reads and rows a second, which all that one task process opens shares."""
    reads, rows = Pace(params.max_reads_per_second), Pace(params.max_rows_per_second)

    def set_pace(firestore: Source, postgres_target: Target) -> None:
        firestore.pace, postgres_target.pressure = reads, Pressure(rows)

    return set_pace


@dataclass(frozen=True, slots=True)
class BaseRun:
    """What the tasks of one run share, whatever the run is for."""

    dag_id: ClassVar[str]
    source: Source
    target: Target
    declared: Catalog
    run_id: str

    @property
    def catalog(self) -> Catalog:
        """The declared catalog, whose columns know what they are in the target."""
        return self.target.catalog if self.target.declared is self.declared else self.declared

    @property
    def max_billed_reads(self) -> int | None:
        """A cap on what the whole run reads."""
        return None

    @property
    def billed_before(self) -> int:
        """Reads that no line of the run log tells."""
        return 0

    @property
    def unattended(self) -> bool:
        """A schedule began the run, not a person."""
        return False

    def examiner(
        self,
        found: CollectionReport,
        policy: Policy,
        excused: Mapping[str, Excuse] | None = None,
        watched: frozenset[str] = frozenset(),
    ) -> Examiner:
        """Examines the collection of a report, which it fills."""
        return Examiner(
            self.source,
            self.target,
            self.catalog,
            self.catalog[found.collection],
            policy=policy,
            report=found,
            run_id=self.run_id,
            excused=excused,
            watched=watched,
        )

    def slice_examiner(
        self, found: CollectionReport, excused: Mapping[str, Excuse], watched: frozenset[str] = frozenset()
    ) -> SliceExaminer:
        """Compares a slice of the collection of a report, or what its slices left. Writes nothing."""
        return SliceExaminer(
            self.source,
            self.target,
            self.catalog,
            self.catalog[found.collection],
            policy=Policy(),
            report=found,
            run_id=self.run_id,
            excused=excused,
            watched=watched,
        )


def recorded(
    run: BaseRun,
    found: CollectionReport,
    work: Callable[[], None],
    finish: Callable[[Connection], None] = lambda _: None,
    *,
    scope: str,
    mode: str,
    window: Window | None,
    line: Callable[[], bool] = lambda: True,
    part: int = 0,
) -> dict[str, Any]:
    """Runs `work`, which fills `found`, and returns it as JSON: with its time and its billed reads, its identity checked.

    `finish` keeps what was found, in one transaction with the line in `dualwrite.runs`; `line` says whether there is one.
    A failure is recorded as not examined, and raised again.

    The run's cap on billed reads counts what its other tasks have recorded by now, and not what tasks beside this one read
    meanwhile. `part`: the slice that this is of.
    """
    source = run.source
    capped(run)
    started_at, began, billed = datetime.now(UTC), time.monotonic(), source.billed_reads

    def tally() -> None:
        found.seconds = time.monotonic() - began
        found.billed_reads = source.billed_reads - billed

    def record(connection: Connection) -> None:
        run_log.record(
            connection,
            found,
            dag_id=run.dag_id,
            run_id=run.run_id,
            scope=scope,
            mode=mode,
            window=window,
            started_at=started_at,
            unattended=run.unattended,
            part=part,
        )

    try:
        work()
        found.check_identity()
        tally()
        with run.target.transaction() as connection:
            finish(connection)
            if line():
                record(connection)
    except Exception as error:
        found.not_examined = type(error).__name__
        tally()
        try:
            if line():
                with run.target.transaction() as connection:
                    record(connection)
        except postgres.Error as second:  # what took the look's disk or connection takes its line too: tell the first
            log.warning("%s: its failure could not be recorded: %s", found.collection, postgres.condition(second))
        raise
    return found.as_json()


def capped(run: BaseRun) -> None:
    """Puts what this task reads under the run's cap, where there is one."""
    if run.max_billed_reads is not None and run.source.budget.limit is None:
        run.source.budget = _budget(run, run.max_billed_reads)


def _budget(run: BaseRun, limit: int) -> Budget:
    with _lock:
        key = (run.source.project, run.dag_id, run.run_id, limit)
        budget = _budgets.get(key)
        if budget is None:
            with run.target.transaction() as connection:
                spent = run_log.billed(connection, run.dag_id, run.run_id)
            budget = _budgets[key] = Budget(limit, run.billed_before + spent)
        budget.spend(run.source.billed_reads)  # what this Source read before
        return budget
