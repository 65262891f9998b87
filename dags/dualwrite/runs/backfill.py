"""The gap backfill: inserts and updates the rows of documents that were written after the export.

Chooses window and policy for the engine (`engine/compare.py`), and verifies after an apply.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from dualwrite import settings
from dualwrite.engine import preflight as checks
from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import Look, SweepLook
from dualwrite.engine.scans import scans
from dualwrite.engine.units import Policy
from dualwrite.model.gap_params import GapParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import Answer, Approval, CollectionResult, GapPlan
from dualwrite.model.verdicts import Excuse, Verdict
from dualwrite.model.windows import Window
from dualwrite.postgres.remembered import differences, excuses, interventions, journal, run_log, watermarks
from dualwrite.postgres.target import Target
from dualwrite.runs.record import BaseRun, phase
from dualwrite.runs.tripwire import baselines
from dualwrite.runs.tripwire import wire as tripwire

log = logging.getLogger(__name__)

DAG_ID = settings.named("backfill_gap")


@dataclass(frozen=True, slots=True)
class Run(BaseRun):
    """The objects that the tasks of one run share."""

    dag_id = DAG_ID
    params: GapParams
    unlogged_reads: int = 0
    """Reads that earlier tasks of this run billed and the run log has no line for."""

    @property
    def billed_before(self) -> int:
        return self.unlogged_reads

    def scope_of(self, collection: str, window: Window | None) -> str:
        return self.params.scope

    def logs(self, report: CollectionReport) -> bool:
        """A dry run is logged only if its role may write to `dualwrite.runs`."""
        if self.params.mode != "dry_run":
            return True
        with self.target.transaction() as connection:
            return run_log.can_record(connection)


def preflight(run: Run, *, by: str) -> GapPlan:
    """Checks both sides, keeps the run's excuses, and returns the plan that the other tasks need. `by` is who excuses.

    Raises PreflightError with all faults at once.
    """
    params = run.params
    checked = checks.check(
        run.source,
        run.target,
        run.declared,
        dict.fromkeys(params.names, params.scan_window),
        writes=params.mode != "dry_run",
        remembers=params.mode != "dry_run" or bool(params.excuses),
    )
    log.info(
        "Connected as %s to Postgres %s; billed reads estimated: %s in the window",
        checked.role,
        checked.server,
        f"{sum(checked.estimated_reads.values()):,}",
    )
    _keep_excuses(run, by)
    if params.mode != "dry_run":
        with run.target.transaction() as connection:
            interventions.keep(connection, run.dag_id, run.run_id, "backfill", by)
    with run.target.transaction() as connection:
        covered = checks.coverage(connection, [run.declared[name] for name in params.names])
    if params.mode != "dry_run":
        with run.target.transaction() as connection:
            journal.prune(connection)
    return {
        "params": params.model_dump(mode="json"),
        "preflight": checked.as_json(),
        "coverage": {name: columns.as_json() for name, columns in covered.items()},
        "billed_reads": run.source.billed_reads,
    }


def _keep_excuses(run: Run, by: str) -> None:
    if run.params.excuses:
        with run.target.transaction() as connection:
            reason = str(run.params.excuse_reason)
            excused = excuses.excuse(connection, run.params.excuses, by=by, reason=reason, run_id=run.run_id)
            interventions.keep(connection, run.dag_id, run.run_id, "excuse", by, reason=reason, numbers=excused)


def keep_answer(target: Target, run_id: str, approval: Approval | None, answer: Answer | None) -> None:
    """Keeps who approved or rejected a run and why, and how many rows the run wrote."""
    with target.transaction() as connection:
        if approval in ("approved", "rejected"):
            kind: interventions.Kind = "approval" if approval == "approved" else "rejection"
            person, reason = (answer["by"] or "somebody", answer["reason"]) if answer else ("somebody", None)
            interventions.keep(connection, DAG_ID, run_id, kind, person, reason=reason)
        interventions.settle(connection, DAG_ID, run_id)


def policy_of(params: GapParams, *, dry: bool) -> Policy:
    """The writes that a run's parameters allow."""
    return Policy(would_update=params.update_stale) if dry else Policy(insert=True, update=params.update_stale)


def examine(run: Run, name: str, *, dry: bool, record: bool = True) -> CollectionResult:
    """Examines one collection over the gap and, unless `dry`, writes its missing and stale rows. Returns its report."""
    report = CollectionReport(name, "gap")
    params = run.params

    mode, window = "dry_run" if dry else "apply", params.scan_window
    with (
        phase(run, report, mode=mode, window=window, logged=record),
        examiner_of(run, report, policy_of(params, dry=dry)) as examiner,
    ):
        examiner.scan(window, params.page_size)
    return report.as_json()


def verify(run: Run, name: str, *, counts_only: bool, record: bool = True) -> CollectionResult:
    """Compares count() with SELECT count(*) and, unless `counts_only`, explains the difference key by key.

    `verification` in the report: "verified" if every key was compared and none is drift or still in flight, else
    "not_verified"; "not_proven" if there are more than explain_up_to documents or rows, so only the counts were compared;
    None with `counts_only`. A verified collection's watermark moves to the moment when this began.
    """
    params = run.params
    collection = run.catalog[name]
    report = CollectionReport(name, "verify")
    began = datetime.now(UTC)
    with phase(run, report, mode="counts" if counts_only else "explain", window=None, logged=record) as line:
        most = count_both(run, report)
        if not counts_only and most > params.most_explained:
            report.verification = "not_proven"
        elif not counts_only:
            baseline = tripwire.measure(run.source, run.target, collection, began)
            look = SweepLook(report, excused_in(run, name))
            with Examiner(run.job(report), Policy(), look) as examiner:
                examiner.scan(None, params.page_size)
                examiner.examine_rows()
                examiner.look_again(look.ended(), params.grace_seconds)
            report.verification = verification_of(report)
            with line.kept() as connection:
                # A person can then excuse them all at once, and reconciliation knows them. Keys excused before anything
                # differed there are kept too, or the next run would call them equal.
                differences.remember(connection, name, [*look.rejected, *look.accepted], run.run_id)
                if report.verification == "verified":
                    watermarks.advance(connection, name, began, run.run_id, swept_at=began)
                    baselines.swept(connection, name, baseline, run.run_id)
    return report.as_json()


def count_both(run: Run, report: CollectionReport) -> int:
    """Counts a collection's rows and documents for its report; returns the larger number."""
    collection = run.catalog[report.collection]
    report.target_count = run.target.count(collection)
    [scan] = scans(collection, None)
    documents, _ = run.source.count(scan)
    report.reads_to_verify = documents
    if collection.has_one_row:  # else it is their parents that were counted
        report.source_count = documents
    return max(documents, report.target_count)


def verification_of(report: CollectionReport) -> str:
    """The verification that a comparison of all keys, or of a slice's, proves: a key in flight may be a loss, so it is
    "not_verified"."""
    return "not_verified" if report.drift or report.counts[Verdict.IN_FLIGHT] else "verified"


def examiner_of(run: Run, report: CollectionReport, policy: Policy) -> Examiner:
    """The examiner of a collection, which knows its excuses."""
    return Examiner(run.job(report), policy, Look(report, excused_in(run, report.collection)))


def excused_in(run: Run, name: str) -> dict[str, Excuse]:
    """A collection's excuses, by label."""
    with run.target.transaction() as connection:
        return excuses.excuses_of(connection, name)
