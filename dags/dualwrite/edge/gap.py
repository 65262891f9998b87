"""The tasks of backfill_gap: what each takes from Airflow, and what it gives back. What they do is in runs/backfill.py."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from dualwrite.catalog import CATALOG
from dualwrite.edge.airflow import answer, clearly_run, fail, gap_params, gap_run, triggered_by
from dualwrite.model.choices import APPROVE
from dualwrite.model.gap_params import GapParams
from dualwrite.model.render import as_markdown, as_text
from dualwrite.runs import backfill
from dualwrite.runs.backfill import Approval

log = logging.getLogger("dualwrite")


def plan_of(context: Mapping[str, Any]) -> GapParams:
    """The parameters as preflight fixed them; skips the task where preflight failed."""
    plan = context["ti"].xcom_pull(task_ids="preflight")
    if plan is None:
        raise AirflowSkipException("Preflight did not pass, so nothing is examined. See the task preflight.")
    return GapParams.model_validate(plan["params"])


def approval_of(context: Mapping[str, Any], params: GapParams) -> Approval | None:
    """What a person answered; None where nobody was to be asked."""
    if params.mode != "review":
        return None
    found = answer(context, "approve")
    if found is None:
        return "unanswered"
    return "approved" if APPROVE in found["chosen"] else "rejected"


def preflight(context: Mapping[str, Any]) -> dict[str, Any]:
    with clearly_run(context):
        params = gap_params(context)
    with gap_run(context, params) as run:
        return backfill.preflight(run, by=triggered_by(context))


def choose(context: Mapping[str, Any]) -> None:
    """Skips what is not to run, task by task. A branch would leave a collection alone that comes after a selected one."""
    params = plan_of(context)
    skipped = [f"collections.{name}" for name in CATALOG.names if name not in params.names]
    if params.mode != "review":
        skipped.append("examine_for_review")
    if skipped:
        raise DownstreamTasksSkipped(tasks=skipped)


def examine_for_review(context: Mapping[str, Any]) -> str:
    """The approval's text, in Markdown."""
    plan = context["ti"].xcom_pull(task_ids="preflight")
    with gap_run(context, plan_of(context)) as run:
        found = {name: backfill.examine(run, name, dry=True, record=False) for name in run.params.names}
        counted = {name: backfill.verify(run, name, counts_only=True, record=False) for name in run.params.names}
    before = plan["billed_reads"]
    whole = backfill.build_report(run.run_id, run.params, found, counted, dry=True, preflight_reads=before)
    return as_markdown(backfill.asked(whole))


def examine(context: Mapping[str, Any], name: str) -> dict[str, Any]:
    params = plan_of(context)
    if name not in params.names:  # only where somebody clears it, or `choose` failed
        raise AirflowSkipException(f"{name} is not selected.")
    if approval_of(context, params) in ("rejected", "unanswered"):
        raise AirflowSkipException("Nobody approved, so nothing is written.")
    with gap_run(context, params) as run:
        return backfill.examine(run, name, dry=params.mode == "dry_run")


def verify_counts(context: Mapping[str, Any]) -> dict[str, Any]:
    params = plan_of(context)
    if approval_of(context, params) in ("rejected", "unanswered"):
        raise AirflowSkipException("Nobody approved, so there is nothing to verify.")
    with gap_run(context, params) as run:
        return {name: backfill.verify(run, name, counts_only=params.mode == "dry_run") for name in params.names}


def report(context: Mapping[str, Any]) -> dict[str, Any]:
    """The report, in the log and as XCom. Fails with all faults in one line."""
    pull = context["ti"].xcom_pull
    plan = pull(task_ids="preflight")
    if plan is None:  # a skipped report would make the run a success
        why = pull(task_ids="preflight", key="error") or "it did not run, or was killed; see its log."
        raise AirflowFailException(f"Nothing was examined, because preflight did not pass: {why}")
    params = plan_of(context)
    whole = backfill.build_report(
        str(context["run_id"]),
        params,
        {name: pull(task_ids=f"collections.{name}") for name in params.names},
        pull(task_ids="verify_counts") or {},
        dry=params.mode == "dry_run",
        approval=approval_of(context, params),
        answer=answer(context, "approve"),
        preflight_reads=plan["billed_reads"],
    )
    log.info("\n%s", as_text(backfill.described(whole)))
    context["ti"].xcom_push(key="return_value", value=whole)  # before failing: the report is wanted most then
    if faults := backfill.failures(whole):
        fail(faults)
    return whole
