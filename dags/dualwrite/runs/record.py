"""The common part of a backfill's and a reconciliation's run: connections, budget, and the record of each phase."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from dualwrite import postgres
from dualwrite.engine.job import Job
from dualwrite.firestore.budget import Budget
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog
from dualwrite.model.gap_params import GapParams
from dualwrite.model.pace import Pace
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.windows import Window
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import run_log
from dualwrite.postgres.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The cap on a run's billed reads, and the limits of reads and rows a second. All connections that a task opens share
    them, in each of its threads."""

    budget: Budget
    reads: Pace
    rows: Pace

    @classmethod
    def of(cls, params: GapParams | ReconcileParams) -> Limits:
        return cls(Budget(params.max_billed_reads), Pace(params.max_reads_per_second), Pace(params.max_rows_per_second))


@dataclass(frozen=True, slots=True)
class BaseRun:
    """The objects that the tasks of one run share, of either DAG."""

    dag_id: ClassVar[str]
    source: Source
    target: Target
    declared: Catalog
    run_id: str

    @property
    def catalog(self) -> Catalog:
        """The declared catalog with the columns' types in the target, if the target has them; else as declared."""
        return self.target.catalog if self.target.declared is self.declared else self.declared

    @property
    def billed_before(self) -> int:
        """Reads of this run that the run log has no line for."""
        return 0

    @property
    def unattended(self) -> bool:
        """A schedule began the run, not a person."""
        return False

    def scope_of(self, collection: str, window: Window | None) -> str:
        """How much of a collection was looked at, as a word for the run log."""
        raise NotImplementedError

    def logs(self, report: CollectionReport) -> bool:
        """Whether a phase with this report leaves a line in the run log."""
        return True

    def job(self, report: CollectionReport) -> Job:
        """The job that examines the report's collection."""
        return Job(self.source, self.target, self.catalog, self.catalog[report.collection], self.run_id, report)


class Phase:
    """One phase of one collection, or of a slice of it, while it lasts: see `phase`."""

    def __init__(
        self, run: BaseRun, report: CollectionReport, *, mode: str, window: Window | None, part: int, logged: bool
    ) -> None:
        self._run = run
        self._report = report
        self._logged = logged
        scope = run.scope_of(report.collection, window)
        self._work = run_log.Work(run.dag_id, run.run_id, scope, mode, window, datetime.now(UTC), run.unattended, part)
        self._began, self._billed = time.monotonic(), run.source.billed_reads
        self.ended = False
        """Whether the line is committed."""

    @contextmanager
    def kept(self) -> Iterator[Connection]:
        """The transaction that ends the phase: the caller keeps its results in it, and the line in `dualwrite.runs` is
        written with them. Raises IdentityError if the report's counts don't add up."""
        self._report.check_identity()
        self._tally()
        logs = self._logs()
        with self._run.target.transaction() as connection:
            yield connection
            if logs:
                run_log.record(connection, self._report, self._work)
        self.ended = True

    def failed(self, error: Exception) -> None:
        """Records that the collection was not examined, and why."""
        self._report.not_examined = type(error).__name__
        self._tally()
        try:
            if self._logs():
                with self._run.target.transaction() as connection:
                    run_log.record(connection, self._report, self._work)
        except postgres.Error as second:  # a full disk or a lost connection fails here again: raise the first error
            name = self._report.collection
            log.warning("%s: its failure could not be recorded: %s", name, postgres.condition(second))

    def _logs(self) -> bool:
        return self._logged and self._run.logs(self._report)

    def _tally(self) -> None:
        self._report.seconds = time.monotonic() - self._began
        self._report.billed_reads = self._run.source.billed_reads - self._billed


@contextmanager
def phase(
    run: BaseRun, report: CollectionReport, *, mode: str, window: Window | None, part: int = 0, logged: bool = True
) -> Iterator[Phase]:
    """Measures time (seconds) and billed reads of its body, which fills `report`. Checks that the report adds up, and
    writes its line to `dualwrite.runs`, unless `logged` is false or the run leaves none (`BaseRun.logs`).

    A body with results to keep ends with `with line.kept() as connection:`, which commits them with the line. A failure is
    recorded as not examined, and raised.

    The run's cap on billed reads counts the reads that other tasks have recorded by now, not those that tasks beside this
    one bill meanwhile. `part`: the number of the slice; 0 for a whole collection.
    """
    count_earlier_reads(run)
    line = Phase(run, report, mode=mode, window=window, part=part, logged=logged)
    try:
        yield line
        if not line.ended:
            with line.kept():
                pass
    except Exception as error:
        line.failed(error)
        raise


def count_earlier_reads(run: BaseRun) -> None:
    """Counts the reads that this run's earlier tasks have billed against its cap, if it has one."""

    def ask() -> int:
        with run.target.transaction() as connection:
            return run.billed_before + run_log.billed(connection, run.dag_id, run.run_id)

    run.source.budget.count_earlier(ask)
