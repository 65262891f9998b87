"""# backfill_gap

Finds what was written to Firestore after the export and is absent or stale in Supabase, shows it, writes it, and
verifies the counts. Run **apply_migrations** first.

| mode | what happens |
|---|---|
| `dry_run` (default) | everything is examined and reported, nothing is written |
| `review` | the same, then the run waits for an approval that shows the counts, then writes; *Reject* ends it |
| `apply` | missing rows are inserted, stale ones updated, and every collection is verified key by key |

1. Trigger it as it is. The task **report** ends with a table: per collection how many keys are missing, stale,
   rejected, orphaned, with samples. The counts are what an apply would then do.
2. Trigger it with `mode = apply` (or `review`). **verify_counts** then compares all documents with all rows.
3. Trigger it again: it writes 0 rows.

It may be ended and run again at any moment: what was written stays, what an ended run left half-confirmed is finished
by the next one. The app may keep writing to both databases meanwhile. Nothing is ever deleted, but for a row that this
DAG inserted itself and whose document vanished at that moment.

**The run fails** when a collection could not be examined whole, and after an apply when one is not verified; the
message of the task **report** says which and what is left. Differences that a person accepts go into *Excuse*.

Verdicts: *rejected* (can't become a row, with the reason), *orphan* (a document it needs is gone), *duplicate*
(another document holds its unique key), *missing*, *extra* (a row without document), *stale*, *in_flight* (changing
right now), *matching*, *absent*.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import TaskGroup, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dualwrite.catalog import CATALOG
from dualwrite.edge.airflow import FAILS_AT_ONCE, clearly, fail, gap_params, gap_run, triggered_by
from dualwrite.edge.forms import approval_form, gap_form
from dualwrite.model.render import as_markdown, as_text
from dualwrite.runs import backfill
from dualwrite.runs.backfill import GapParams

log = logging.getLogger("dualwrite")
APPROVE, REJECT = "Approve", "Reject"


def _plan(context) -> GapParams:
    """The parameters as preflight fixed them; skips the task where preflight failed."""
    plan = context["ti"].xcom_pull(task_ids="preflight")
    if plan is None:
        raise AirflowSkipException("Preflight did not pass, so nothing is examined. See the task preflight.")
    return GapParams.from_json(plan["params"])


def _approval(context, params: GapParams) -> backfill.Approval | None:
    """What a person answered; None where nobody was to be asked."""
    if params.mode != "review":
        return None
    answer = context["ti"].xcom_pull(task_ids="approve")
    if answer is None:
        return "unanswered"
    return "approved" if APPROVE in answer["chosen_options"] else "rejected"


def _answer(context) -> dict | None:
    """Who answered, and the reason that they gave."""
    answer = context["ti"].xcom_pull(task_ids="approve")
    if answer is None:
        return None
    by = (answer.get("responded_by_user") or {}).get("name")
    return {"by": by, "reason": (answer.get("params_input") or {}).get("reason") or None}


@dag(
    schedule=None,
    max_active_runs=1,
    tags=["dual-write", "firestore", "supabase"],
    doc_md=__doc__,
    params=gap_form(),
    default_args={
        "owner": "dual-write",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=6),
    },
)
def backfill_gap():
    @task
    def preflight(**context) -> dict:
        """Source and target answer and are as the catalog says; fixes the window."""
        with clearly():
            params = gap_params(context)
        with gap_run(context, params) as run:
            return backfill.preflight(run, by=triggered_by(context))

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def wants_review(**context) -> bool:
        return _plan(context).mode == "review"

    @task
    def examine_for_review(**context) -> str:
        """A dry run of the whole selection, for the approval."""
        with gap_run(context, _plan(context)) as run:
            found = {name: backfill.examine(run, name, dry=True, record=False) for name in run.params.names}
        return as_markdown(backfill.asked(backfill.build_report(run.run_id, run.params, found, {}, dry=True)))

    # Not ApprovalOperator: where it skips what follows, its answer is lost, and a rejection is taken for no answer.
    approve = HITLOperator(
        task_id="approve",
        execution_timeout=None,  # a person may take a night
        options=[APPROVE, REJECT],
        subject="Write this gap to Supabase?",
        params=approval_form(),
        body="{{ ti.xcom_pull(task_ids='examine_for_review') }}",
    )

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def examine(name: str, **context) -> dict:
        """One collection: examined, and in the modes that write, written."""
        params = _plan(context)
        if name not in params.names:
            raise AirflowSkipException(f"{name} is not selected.")
        if _approval(context, params) in ("rejected", "unanswered"):
            raise AirflowSkipException("Nobody approved, so nothing is written.")
        with gap_run(context, params) as run:
            return backfill.examine(run, name, dry=params.mode == "dry_run")

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def verify_counts(**context) -> dict:
        """count() against SELECT count(*); after an apply, the difference explained key by key."""
        params = _plan(context)
        if _approval(context, params) in ("rejected", "unanswered"):
            raise AirflowSkipException("Nobody approved, so there is nothing to verify.")
        with gap_run(context, params) as run:
            return {name: backfill.verify(run, name, counts_only=params.mode == "dry_run") for name in params.names}

    @task(trigger_rule=TriggerRule.ALL_DONE, retries=0, retry_policy=FAILS_AT_ONCE)
    def report(**context) -> dict:
        """The whole run in one table. Fails where a collection was not examined or is not verified."""
        pull = context["ti"].xcom_pull
        plan = pull(task_ids="preflight")
        if plan is None:  # a skipped report would make the run a success
            raise AirflowFailException("Nothing was examined, because preflight did not pass. See the task preflight.")
        params = _plan(context)
        found = {name: pull(task_ids=f"collections.{name}") for name in params.names}
        verified = pull(task_ids="verify_counts") or {}
        whole = backfill.build_report(
            context["run_id"],
            params,
            found,
            verified,
            dry=params.mode == "dry_run",
            approval=_approval(context, params),
            answer=_answer(context),
            preflight_reads=plan["billed_reads"],
        )
        log.info("\n%s", as_text(backfill.described(whole)))
        context["ti"].xcom_push(key="return_value", value=whole)  # before failing: the report is wanted most then
        if faults := backfill.failures(whole):
            fail(faults)
        return whole

    plan, checked, written = preflight(), verify_counts(), report()
    plan >> wants_review() >> examine_for_review() >> approve
    with TaskGroup("collections"):
        tasks = {name: examine.override(task_id=name)(name) for name in CATALOG.names}
    for collection in CATALOG:
        for parent in collection.parents or ():
            tasks[parent] >> tasks[collection.name]
        if not collection.parents:
            approve >> tasks[collection.name]
        tasks[collection.name] >> checked
    checked >> written


backfill_gap()
