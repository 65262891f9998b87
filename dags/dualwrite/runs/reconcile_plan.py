"""The plan of a reconciliation, which all its tasks share: parameters, windows, who asked. Preflight makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from dualwrite import settings
from dualwrite.engine import preflight as checks
from dualwrite.engine.units import ROW_LABEL, Policy, unit_of
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.errors import ParameterError, PreflightError
from dualwrite.model.parameters import pairs, refuse_unknown_collections
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.windows import Window, recent_window
from dualwrite.postgres import Connection, target_clock, undone
from dualwrite.postgres.remembered import (
    differences,
    excuses,
    interventions,
    journal,
    run_log,
    schema,
    watermarks,
)
from dualwrite.postgres.remembered.watermarks import Watermark
from dualwrite.postgres.target import Target
from dualwrite.runs.record import BaseRun
from dualwrite.runs.tripwire import baselines

DAG_ID = settings.named("reconcile_dual_writes")
RUNS_DAYS = 400
"""Days for which lines of runs and interventions are kept."""

MAX_ASKED_AGE = timedelta(days=1)
"""A run that was asked for earlier than this may no longer excuse."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The facts that all tasks of a run share. `windows`: by collection; None if it is swept."""

    params: ReconcileParams
    now: datetime
    dual_write_enabled: bool
    windows: dict[str, Window | None]
    instead: dict[str, Window] = field(default_factory=dict)
    """For collections whose sweep is due: the window to look at if the sweep fails."""
    unattended: bool = False
    """A schedule began the run, not a person."""
    billed_reads: int = 0
    """Billed by preflight."""
    before: str | None = None
    """The last run before this one that left something in the target."""
    by: str = ""
    """Who asked for the run."""
    hung: tuple[str, ...] = ()
    """Runs before this one that were cut off without a report; this one reports them."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Templates of links, by their target; see model/links.py."""
    project: str = ""
    database: str = ""
    """The source's, for the links, as is `project`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The collections that this run looks at; if it compares nothing, only those of named keys."""
        if self.params.compares:
            return self.params.collections
        return tuple(name for name in self.params.collections if name in self.params.named)

    @property
    def repairs(self) -> bool:
        """Whether this run may repair: not while dual-write is switched off, which means that the target must wait."""
        return self.params.repair != "off" and self.dual_write_enabled

    @property
    def writes(self) -> bool:
        """Whether this run may write: it repairs, or undoes another run."""
        return self.repairs or self.params.undo is not None

    def as_json(self) -> dict[str, Any]:
        return {
            "params": self.params.model_dump(mode="json"),
            "now": self.now.isoformat(),
            "dual_write_enabled": self.dual_write_enabled,
            "windows": {n: w and w.as_json() for n, w in self.windows.items()},
            "instead": {n: w.as_json() for n, w in self.instead.items()},
            "unattended": self.unattended,
            "billed_reads": self.billed_reads,
            "before": self.before,
            "by": self.by,
            "hung": list(self.hung),
            "links": dict(self.links),
            "project": self.project,
            "database": self.database,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        return cls(
            ReconcileParams.model_validate(given["params"]),
            datetime.fromisoformat(given["now"]),
            given["dual_write_enabled"],
            {n: w and Window.from_json(w) for n, w in given["windows"].items()},
            {n: Window.from_json(w) for n, w in given["instead"].items()},
            given["unattended"],
            given["billed_reads"],
            given.get("before"),
            given.get("by", ""),
            tuple(given.get("hung", ())),
            given.get("links", {}),
            given.get("project", ""),
            given.get("database", ""),
        )


@dataclass(frozen=True, slots=True)
class Run(BaseRun):
    """The objects that the tasks of one reconciliation share: connections, catalog, plan."""

    dag_id = DAG_ID
    plan: Plan
    switch: Callable[[], bool] | None = None
    """Reads Variable dual_write_enabled now; `plan` has its value at the start. None: it can't have changed."""

    @property
    def params(self) -> ReconcileParams:
        return self.plan.params

    @property
    def billed_before(self) -> int:
        return self.plan.billed_reads

    @property
    def unattended(self) -> bool:
        return self.plan.unattended

    def scope_of(self, collection: str, window: Window | None) -> str:
        return "sweep" if window is None and collection in self.plan.windows else "recent"

    def logs(self, report: CollectionReport) -> bool:
        """A second look or a repair that examined nothing leaves no line; a first look and an undo always do."""
        return bool(report.examined or report.not_examined or report.phase == "compare" or self.params.undo)

    def max_proof_reads(self) -> int:
        """How many document names may be read now to prove that rows are extra. Clients can cause such proofs, so all
        scheduled runs of a day share a budget too."""
        most = self.params.max_proof_reads
        if not self.unattended:
            return most
        left = self.params.max_proof_reads_a_day - run_log.proof_reads(self.target, DAG_ID)
        return max(0, min(most, left))

    @property
    def policy(self) -> Policy:
        """The writes that `repair` allows."""
        repair = self.params.repair
        return Policy(
            insert=repair != "off",
            update=repair in ("missing_and_stale", "all"),
            delete=repair == "all",
            parents=not self.params.keys,
            max_proof_reads=self.params.max_proof_reads,
        )


# --- preflight ----------------------------------------------------------------------------------------------------------


def preflight(  # noqa: PLR0913 - who asks and when, each by its name
    source: Source,
    target: Target,
    catalog: Catalog,
    params: ReconcileParams,
    run_id: str,
    *,
    by: str,
    dual_write_enabled: bool,
    unattended: bool = False,
    asked_at: datetime | None = None,
    now: datetime | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Plan:
    """Checks both sides, keeps excuses, and fixes the windows, each from its collection's watermark on. If no collection is
    looked at and nothing is undone, it only keeps the excuses.

    `by`: who asks; `asked_at`: when they did (None: just now); `clock`: the worker's; `now`: where the windows end (None:
    now). Raises PreflightError, or ParameterError for excuses and keys that can't be meant.
    """
    now = now or clock()
    with target.transaction() as connection:
        schema.require(connection)
        _check_clocks(clock(), {"target's": target_clock.now(connection)})
        journal.prune(connection)
        run_log.prune(connection, RUNS_DAYS)
        interventions.prune(connection, RUNS_DAYS)
        for collection in catalog:
            if not all(collection.key_is_ids):
                _relabel(connection, collection)
        before = run_log.last_run(connection, DAG_ID, but=run_id)
        # Excuses may name a collection that is no longer declared, and has differences open from when it was.
        known = {*catalog.names, *(line["collection"] for line in differences.open_counts(connection))}
        refuse_unknown_collections([*params.excuses, *params.unexcuses], known)
        excuses.refuse_ambiguous(connection, pairs(params.keys))
        if (params.excuses or params.unexcuses) and asked_at is not None and clock() - asked_at > MAX_ASKED_AGE:
            raise ParameterError(
                f"This run was asked for at {asked_at.isoformat(timespec='minutes')} and excuses differences: the open ones "
                "may have changed since. Trigger a new run instead of clearing this one.",
                code="excuse-out-of-date",
            )
        reason = str(params.excuse_reason)
        excused = excuses.excuse(connection, params.excuses, by=by, reason=reason, run_id=run_id, asked_at=asked_at)
        taken_back = excuses.unexcuse(connection, params.unexcuses)
        if params.excuses:
            interventions.keep(connection, DAG_ID, run_id, "excuse", by, reason=reason, numbers=excused)
        if params.unexcuses:
            interventions.keep(connection, DAG_ID, run_id, "unexcuse", by, numbers=taken_back)
        moment = target_clock.now(connection)
        called = baselines.called_sweeps(connection)
        known_marks = watermarks.watermarks(connection)
        compared = params.collections if params.compares else ()
        marks = {name: _believed(known_marks.get(name), moment) for name in compared}
    if params.undo is not None:
        undone.refuse_unknown(target, params.undo)
    windows, instead = {}, {}
    for name, mark in marks.items():
        recent = None if mark is None else recent_window(mark.examined_until, params.minutes, now)
        sweep = name in called or _sweeps(params, catalog[name], mark, now)
        windows[name] = None if sweep else recent
        if sweep and recent is not None and params.scope != "sweep" and catalog[name].check_fields:
            instead[name] = recent
    plan = Plan(params, now, dual_write_enabled, windows, instead, unattended, before=before, by=by)
    if not plan.names and params.undo is None:  # excuses alone: they are kept, and nothing is looked at
        return replace(plan, billed_reads=source.billed_reads)
    # A repair also writes the parents that a missing row needs.
    examined = dict.fromkeys(catalog.with_parents(params.collections))
    checked = checks.check(
        source, target, catalog, examined, writes=plan.writes, estimate=False, schema_is_checked=True,
        # Once a day, with the sweep, and before the first window: a collection that can't be swept stays due.
        times_of=[name for name, window in windows.items() if window is None],
    )  # fmt: skip
    _check_clocks(clock(), {"source's": checked.source_time})
    return replace(plan, billed_reads=source.billed_reads)


def _relabel(connection: Connection, collection: Collection) -> None:
    """Labels from an earlier version, which hold content, become digests before anything reports them."""
    prefix = "" if collection.keyed_by_path else ROW_LABEL
    differences.relabel(connection, collection.name, prefix, lambda key: unit_of(collection, key, None).label)


def _check_clocks(worker: datetime, others: Mapping[str, datetime]) -> None:
    """Raises PreflightError if the worker's clock is wrong: windows, watermarks and sweeps compare it with the others."""
    for whose, moment in others.items():
        if abs(worker - moment) > target_clock.MAX_CLOCK_SKEW:
            minutes = (worker - moment).total_seconds() / 60
            raise PreflightError(
                f"The worker's clock and the {whose} are {abs(minutes):,.0f} minutes apart (worker "
                f"{worker.isoformat(timespec='seconds')}, {whose} {moment.isoformat(timespec='seconds')}): windows would "
                "miss writes. Synchronise the clock that is wrong (NTP), then run again.",
                code="clocks-apart",
            )


def _believed(mark: Watermark | None, moment: datetime) -> Watermark | None:
    """A watermark, unless it can't be true. One in the future was set by a wrong clock, so it proves nothing: None, and the collection
    is swept."""
    if mark is None or mark.examined_until > moment + target_clock.MAX_CLOCK_SKEW:
        return None
    if mark.swept_at is not None and mark.swept_at > moment + target_clock.MAX_CLOCK_SKEW:
        return replace(mark, swept_at=None)
    return mark


def _sweeps(params: ReconcileParams, collection: Collection, mark: Watermark | None, now: datetime) -> bool:
    """Whether the collection is to be swept: on request, when due, if it never was, or because it has no check field and is
    read whole anyway."""
    swept = mark.swept_at if mark else None
    due = swept is None or now - swept >= timedelta(hours=params.sweep_every_hours)
    return due or params.scope == "sweep" or not collection.check_fields
