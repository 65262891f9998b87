"""The tasks of backfill_gap: their input from Airflow, and their results. runs/backfill.py does the work."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from dualwrite import settings
from dualwrite.catalog import CATALOG
from dualwrite.edge.connections import source, target
from dualwrite.edge.contexts import answer, page_link, requested_params, triggered_by
from dualwrite.edge.errors import (
    errors_of_run,
    errors_without_content,
    fail,
    failures,
    nothing_examined,
    report_or_why_not,
)
from dualwrite.model import gap_params
from dualwrite.model.alert import line
from dualwrite.model.choices import APPROVE
from dualwrite.model.gap_params import GapParams
from dualwrite.model.render import as_markdown, as_text, wrapped
from dualwrite.model.run_report import Approval, CollectionResult, CoverageResult, GapPlan, GapReport, SliceResult
from dualwrite.runs import backfill
from dualwrite.runs.record import Limits
from dualwrite.runs.report import gap as report_of
from dualwrite.runs.slices import backfill as sliced
from dualwrite.runs.slices import reports as slices
from dualwrite.runs.slices.slice import Slice

log = logging.getLogger("dualwrite")


def params_of(context: Mapping[str, Any]) -> GapParams:
    """The parameters as preflight fixed them; skips the task if preflight failed."""
    plan = context["ti"].xcom_pull(task_ids="preflight", key="plan")
    if plan is None:
        raise AirflowSkipException("Preflight did not pass, so nothing is examined. See the task preflight.")
    return GapParams.model_validate(plan["params"])


@contextmanager
def gap_run(context: Mapping[str, Any], params: GapParams, unlogged_reads: int = 0) -> Iterator[backfill.Run]:
    """A run with both sides connected; errors in its body are handled as errors_of_run does."""
    limits = Limits.of(params)
    with errors_of_run(context), source(limits) as firestore, target(limits) as postgres_target:
        yield backfill.Run(firestore, postgres_target, CATALOG, str(context["run_id"]), params, unlogged_reads)


def run_of(context: Mapping[str, Any], reads_beside: int = 0) -> AbstractContextManager[backfill.Run]:
    """The run of a task after preflight; skips the task if preflight failed. `reads_beside`: reads to count against the cap
    that no finished task has recorded."""
    return gap_run(context, params_of(context), _unlogged_reads(context) + reads_beside)


def _unlogged_reads(context: Mapping[str, Any]) -> int:
    """Reads of this run's tasks without a line in the run log: those of preflight, of the dry run for an approval, and of
    cutting for the verification."""
    pull = context["ti"].xcom_pull
    plan = pull(task_ids="preflight", key="plan") or {"billed_reads": 0}
    others = (pull(task_ids=task_id, key="billed_reads") for task_id in ("examine_for_review", "verify_counts"))
    return int(plan["billed_reads"]) + sum(reads or 0 for reads in others)


def approval_of(context: Mapping[str, Any], params: GapParams) -> Approval | None:
    """A person's answer; None if the mode needs none."""
    if params.mode != "review":
        return None
    decision = answer(context, "decision")
    if decision is None:
        return "unanswered"
    return "approved" if APPROVE in decision["chosen"] else "rejected"


def _covered(context: Mapping[str, Any]) -> dict[str, CoverageResult]:
    """Which columns are compared, from preflight's plan; an earlier version's plan doesn't have it."""
    plan: GapPlan | None = context["ti"].xcom_pull(task_ids="preflight", key="plan")
    return plan.get("coverage", {}) if plan else {}


def preflight(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Checks both sides and fixes the plan, which it leaves as XCom `plan`. Returns the gap's slices, because Airflow can map a task
    only over a returned list."""
    with errors_of_run(context):
        params = gap_params.parse(requested_params(context), CATALOG, datetime.now(UTC))
    with gap_run(context, params) as run:
        plan = backfill.preflight(run, by=triggered_by(context))
        parts = sliced.cut_gap(run, plan["preflight"]["estimated_reads"])
        plan["billed_reads"] = run.source.billed_reads
        context["ti"].xcom_push(key="plan", value=plan)
    return [part.as_json() for part in parts]


def slices_of(context: Mapping[str, Any], task_id: str) -> list[Slice]:
    """The slices that a task returned."""
    return [Slice.from_json(part) for part in context["ti"].xcom_pull(task_ids=task_id) or ()]


def _slice(part: Mapping[str, Any]) -> Slice:
    """The slice of this task; logs its bounds."""
    own = Slice.from_json(part)
    log.info("%s", own)
    return own


def _added_up(parts: Sequence[Slice], made: Sequence[CollectionResult | None]) -> dict[str, CollectionResult]:
    """The reports of the gap's large collections, each added up from its slices."""
    names = dict.fromkeys(part.collection for part in parts)
    return {name: slices.added_up("gap", *slices.of(name, parts, made)) for name in names}


def made_of(context: Mapping[str, Any], task_id: str, number: int) -> list[Any]:
    """The result of each instance of a mapped task; None for those that failed or never ran."""
    return list(context["ti"].xcom_pull(task_ids=task_id, map_indexes=range(number))) if number else []


def choose(context: Mapping[str, Any]) -> None:
    """Skips tasks that shouldn't run, one by one. A branch wouldn't skip a collection that comes after a selected one."""
    params = params_of(context)
    large = {part.collection for part in slices_of(context, "preflight")}
    skipped = [f"collections.{name}" for name in CATALOG.names if name not in params.names or name in large]
    if params.mode != "review":
        skipped += ["review_slices", "examine_for_review"]
    if skipped:
        raise DownstreamTasksSkipped(tasks=skipped)


def examine_for_review(context: Mapping[str, Any]) -> str:
    """The approval's text, in Markdown."""
    if params_of(context).mode != "review":  # only if `choose` failed
        raise AirflowSkipException("This mode needs no approval.")
    parts = slices_of(context, "preflight")
    made = made_of(context, "review_slices", len(parts))
    examined = _added_up(parts, made)
    before = _unlogged_reads(context)
    with run_of(context, sum(m["billed_reads"] for m in made if m is not None)) as run:
        small = [name for name in run.params.names if name not in examined]
        examined |= {name: backfill.examine(run, name, dry=True, record=False) for name in small}
        counted = {name: backfill.verify(run, name, counts_only=True, record=False) for name in run.params.names}
    whole = report_of.build_report(
        run.run_id, run.params, examined, counted, dry=True, preflight_reads=before, covered=_covered(context)
    )
    context["ti"].xcom_push(key="billed_reads", value=whole["billed_reads"] - before)
    context["ti"].xcom_push(
        key="found", value={c["collection"]: c for c in whole["collections"] if c["phase"] == "gap"}
    )
    return as_markdown(report_of.asked(whole))


def review_slice(context: Mapping[str, Any], part: Mapping[str, Any]) -> CollectionResult:
    """One slice of a large collection, for the approval. The run log has no lines of its neighbours, so under a cap each counts
    as if all its documents had been read."""
    own = _slice(part)
    beside = sum(p.documents for p in slices_of(context, "preflight") if p != own)
    with run_of(context, beside) as run:
        return sliced.examine(run, own, dry=True, record=False)


def examine(context: Mapping[str, Any], name: str) -> CollectionResult:
    """One collection; skipped if it isn't selected, or if a review wasn't approved."""
    params = params_of(context)
    if name not in params.names:  # only if someone clears it, or `choose` failed
        raise AirflowSkipException(f"{name} is not selected.")
    if approval_of(context, params) in ("rejected", "unanswered"):
        raise AirflowSkipException("Nobody approved, so nothing is written.")
    with run_of(context) as run:
        return backfill.examine(run, name, dry=params.mode == "dry_run")


def examine_slice(context: Mapping[str, Any], part: Mapping[str, Any]) -> CollectionResult:
    """One slice of a large collection; skipped if a review wasn't approved."""
    params = params_of(context)
    if approval_of(context, params) in ("rejected", "unanswered"):
        raise AirflowSkipException("Nobody approved, so nothing is written.")
    with run_of(context) as run:
        return sliced.examine(run, _slice(part), dry=params.mode == "dry_run")


def verify_counts(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Verifies small collections, leaves their reports as XCom `reports`, and returns the slices of large ones."""
    params, push = params_of(context), context["ti"].xcom_push
    if approval_of(context, params) in ("rejected", "unanswered"):
        raise AirflowSkipException("Nobody approved, so there is nothing to verify.")
    dry = params.mode == "dry_run"
    with run_of(context) as run:
        parts: list[Slice] = []
        if not dry:
            sliced.finish_journals(run)
            parts, needed = sliced.cut_verification(run)
            push(key="needed", value=needed)
            push(key="billed_reads", value=run.source.billed_reads)
        large = {part.collection for part in parts}
        names = [name for name in params.names if name not in large]
        push(key="reports", value={name: backfill.verify(run, name, counts_only=dry) for name in names})
    return [part.as_json() for part in parts]


def verify_slice(context: Mapping[str, Any], part: Mapping[str, Any]) -> SliceResult:
    """The verification of one slice of a large collection."""
    with run_of(context) as run:
        return sliced.verify(run, _slice(part))


def verify_rest(context: Mapping[str, Any]) -> dict[str, CollectionResult]:
    """The last step of each large collection's verification."""
    parts = slices_of(context, "verify_counts")
    made: list[SliceResult | None] = made_of(context, "verify_slices", len(parts))
    needed: dict[str, sliced.Needed] = context["ti"].xcom_pull(task_ids="verify_counts", key="needed") or {}
    with run_of(context) as run:
        return {name: sliced.finish_verification(run, *slices.of(name, parts, made), needed[name]) for name in needed}


def _keep_decision_and_forget_looks(context: Mapping[str, Any], params: GapParams) -> None:
    """Keeps who decided, and deletes the slices' seen keys, if the target can be reached; the report doesn't depend on it. Not
    earlier, because a task `finish` that is killed after its last write is tried again, and needs these keys."""
    try:
        with errors_without_content(), target() as postgres_target:
            backfill.keep_answer(
                postgres_target, str(context["run_id"]), approval_of(context, params), answer(context, "decision")
            )
            sliced.forget_looks(postgres_target)
    except Exception as error:  # noqa: BLE001 - it is logged, and the report has the decision
        log.warning("Who decided could not be kept in %s.interventions: %s", settings.schema(), type(error).__name__)


def report(context: Mapping[str, Any]) -> GapReport:
    """The report, in the log and as XCom. Fails with all faults in one line."""
    pull = context["ti"].xcom_pull
    plan = pull(task_ids="preflight", key="plan")
    if plan is None:  # a skipped report would make the run a success
        nothing_examined(context)
    with report_or_why_not(context):
        params, parts = params_of(context), slices_of(context, "preflight")
        made = made_of(context, "examine_slices", len(parts))
        examined: dict[str, CollectionResult | None] = {
            name: pull(task_ids=f"collections.{name}") for name in params.names
        }
        examined |= _added_up(parts, made)
        if approval_of(context, params) == "rejected":  # the findings that the person saw and rejected
            examined = pull(task_ids="examine_for_review", key="found") or examined
        checked: dict[str, CollectionResult | None] = {
            **(pull(task_ids="verify_counts", key="reports") or {}),
            **(pull(task_ids="finish") or {}),
        }
        whole = report_of.build_report(
            str(context["run_id"]),
            params,
            examined,
            checked,
            dry=params.mode == "dry_run",
            approval=approval_of(context, params),
            answer=answer(context, "decision"),
            preflight_reads=_unlogged_reads(context),
            covered=_covered(context),
            errors=failures(context, [*(f"collections.{name}" for name in params.names), *report_of.VERIFIES]),
        )
    log.info("\n%s", as_text(report_of.described(whole)))
    if params.mode != "dry_run":
        _keep_decision_and_forget_looks(context, params)
    context["ti"].xcom_push(key="return_value", value=whole)  # before failing: the report is wanted most then
    if whole["alerts"]:
        fail([line(alert, page_link()) for alert in whole["alerts"]])
    log.info("%s", wrapped(whole["verdict"]))  # again: Airflow shows a log from its end
    return whole
