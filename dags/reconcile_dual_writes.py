"""# reconcile_dual_writes

Every 15 minutes: did what was written lately arrive in Supabase? It fails when it didn't, says why, and can repair it.
Once a day it looks at every document and every row.

**When to run it:** unpause it when dual-write is on and [backfill_gap](/dags/backfill_gap) is verified. Trigger it by
hand to repair, to excuse, or to sweep; [Parity](/plugin/parity) opens the form with the right values.

It looks at documents written since the last run, at rows written since, at the operations in write_ops, and at every
difference that is still open. What differs is looked at a second time after *grace*; only what stayed the same is drift.

**A failed task `report` is the alert.** Its log ends with what drifted, how much, why, since when, and what to press; the
table and the samples stand above.

| it says | what it means | what to press |
|---|---|---|
| missing | a document without row | repair `missing` |
| stale | a row that differs from its document | repair `missing_and_stale` |
| extra | a row whose document is gone | repair `all`: it deletes, and keeps each row in the journal |
| rejected | a document that can't become a row | correct the document, or excuse it with a reason |
| dual-write seems off | documents are written and write_ops stands still | turn it on again, then repair |
| was not examined | a part could not be read | read the task that failed; the next run starts where this one could not |
| A repair writes / changes at most | a brake: too many rows | find out why there are so many; then trigger with a larger brake |

| param | what it does |
|---|---|
| `repair` | `off` (default), `missing`, `missing_and_stale`, `all`. The form is the approval: nobody is asked again |
| `scope` | `recent`: what was written since the last run. `sweep`: every document and every row |
| `collections` | which; the others keep their watermark |
| `max_repairs`, `max_share` | the brakes: a repair of more rows, or of more than this % of a table, is refused as a whole |
| `excuse`, `excuse_reason`, `unexcuse` | differences to accept, as `collection:key` or `collection:*`, or to count again |
| all others | fine tuning; see the form |

    {"repair": "missing", "collections": ["posts"]}

**Variables:** scheduled runs take `reconcile_<param>` where there is one: `reconcile_repair` = `missing` lets them repair.
`dual_write_enabled` = `false` says that dual-write is off on purpose: then what is missing is expected.

Causes: *never_attempted* (no operation: flag off, old client, crash before the lock), *attempted_failed* (an operation,
and no such row), *unknown*. Every row is kept as it was in `dualwrite.repair_journal` for 30 days. More in
docs/runbook.md, docs/verification.md and docs/ui.md.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from airflow.sdk import TaskGroup, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dualwrite import alerts
from dualwrite.catalog import CATALOG
from dualwrite.edge.airflow import FAILS_AT_ONCE, clearly, dag_link, fail, reconcile_preflight, reconcile_run, target
from dualwrite.edge.forms import reconcile_form
from dualwrite.edge.lazy import LazyModule
from dualwrite.model.render import as_text

reconcile = LazyModule("dualwrite.runs.reconcile")
reconcile_report = LazyModule("dualwrite.runs.reconcile_report")
repair = LazyModule("dualwrite.runs.repair")
log = logging.getLogger("dualwrite")


def _plan(context) -> reconcile.Plan:
    plan = context["ti"].xcom_pull(task_ids="preflight")
    if plan is None:
        raise AirflowSkipException("Preflight did not pass, so nothing is examined. See the task preflight.")
    return reconcile.Plan.from_json(plan)


def _pull(context, prefix: str) -> dict:
    """What the tasks of a group returned, by collection; None where there is nothing."""
    return {name: context["ti"].xcom_pull(task_ids=f"{prefix}.{name}") for name in CATALOG.names}


@dag(
    schedule=timedelta(minutes=15),
    start_date=datetime(2026, 1, 15, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["dual-write", "firestore", "supabase"],
    doc_md=__doc__,
    params=reconcile_form(),
    default_args={
        "owner": "dual-write",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=6),
    },
)
def reconcile_dual_writes():
    @task
    def preflight(**context) -> dict:
        """Source and target answer and are as the catalog says; fixes each collection's window."""
        return reconcile_preflight(context).as_json()

    @task
    def compare(name: str, **context) -> dict:
        """The first look at one collection. What differs is kept open."""
        plan = _plan(context)
        if name not in plan.params.selected:
            raise AirflowSkipException(f"{name} is not selected.")
        with reconcile_run(context, plan) as run:
            return reconcile.compare(run, name)

    @task.sensor(mode="reschedule", poke_interval=15, timeout=2 * 3600, trigger_rule=TriggerRule.ALL_DONE)
    def grace(**context) -> bool:
        """Waits until what is new is old enough for a second look. Between pokes it holds no worker and no connection."""
        return reconcile.may_look_again(_plan(context), _pull(context, "compare").values())

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def look_again(**context) -> dict:
        """Everything that is open, by key, with fresh reads: only what stayed is drift."""
        with reconcile_run(context, _plan(context)) as run:
            return reconcile.look_again(run)

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def gate(**context) -> bool:
        """Whether dual-write is alive, and whether the repair may begin. Skips the repair where there is none."""
        with reconcile_run(context, _plan(context)) as run:
            found = repair.gate(run)
        context["ti"].xcom_push(key="gate", value=found)
        if found["problem"]:
            alerts.mute()  # told by the report
            raise AirflowFailException(found["problem"])
        return bool(found["planned"])

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def mend(name: str, step: str, **context) -> dict:
        """Deletes (children first), then inserts and updates (parents first), in one collection."""
        planned = context["ti"].xcom_pull(task_ids="gate", key="gate")["planned"]
        if step not in repair.steps(planned.get(name)):
            raise AirflowSkipException(f"Nothing to {step} in {name}.")
        with reconcile_run(context, _plan(context)) as run:
            return repair.delete(run, name) if step == "delete" else repair.write(run, name)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def re_examine(**context) -> dict:
        """Looks once more at what was repaired: what is mended is open no more."""
        found = context["ti"].xcom_pull(task_ids="gate", key="gate")
        if found is None or found["problem"]:
            raise AirflowSkipException("Nothing was repaired.")
        with reconcile_run(context, _plan(context)) as run:
            return reconcile.re_examine(run, found["planned"])

    @task(trigger_rule=TriggerRule.ALL_DONE, retries=0, **FAILS_AT_ONCE)
    def report(**context) -> dict:
        """The whole run in one table. Fails while any drift is open that nobody has excused."""
        pull = context["ti"].xcom_pull
        if pull(task_ids="preflight") is None:  # a skipped report would make the run a success
            raise AirflowFailException("Nothing was examined, because preflight did not pass. See the task preflight.")
        parts = reconcile_report.Parts(
            _pull(context, "compare"),
            pull(task_ids="look_again"),
            pull(task_ids="gate", key="gate"),
            [part for step in ("delete", "write") for part in _pull(context, step).values() if part],
            pull(task_ids="re_examine"),
        )
        plan, link = _plan(context), dag_link(context["dag"].dag_id)
        with clearly(), target() as postgres, postgres.transaction() as connection:
            whole = reconcile_report.build_report(connection, CATALOG, context["run_id"], plan, parts, link=link)
        log.info("\n%s", as_text(reconcile_report.described(whole)))
        context["ti"].xcom_push(key="return_value", value=whole)  # before failing: the report is wanted most then
        if found := reconcile_report.alerts(whole, CATALOG, link):
            alerts.begin(dag_id=context["dag"].dag_id, run_id=context["run_id"])
            alerts.tell(found)
            fail([alert.text for alert in found])
        return whole

    begun, waited, looked, decided, again = preflight(), grace(), look_again(), gate(), re_examine()
    with TaskGroup("compare"):
        for name in CATALOG.names:
            begun >> compare.override(task_id=name)(name) >> waited
    waited >> looked >> decided >> again >> report()
    with TaskGroup("delete"):
        deletes = {name: mend.override(task_id=name)(name, "delete") for name in CATALOG.names}
    with TaskGroup("write"):
        writes = {name: mend.override(task_id=name)(name, "write") for name in CATALOG.names}
    for collection in CATALOG:
        decided >> deletes[collection.name] >> writes[collection.name] >> again
        decided >> writes[collection.name]
        for parent in collection.parents:
            deletes[collection.name] >> deletes[parent]
            writes[parent] >> writes[collection.name]


reconcile_dual_writes()
