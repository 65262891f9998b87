"""# reconcile_dual_writes

Every 15 minutes: did recent writes arrive in Supabase? It fails if they didn't, says why, and can repair them. Once a day it
compares every document and every row.

**When to run it:** unpause it when dual-write is on and [backfill_gap](/dags/backfill_gap) is verified. Trigger it by
hand to repair, to excuse, or to sweep; [Parity](/plugin/parity) opens the form with the right values.

It compares documents and rows written since the last run, what the operations in write_ops name, and every difference
that is still open. What differs is looked at again after *grace*; only what stayed the same is drift.

**A failed task `report` is the alert.** Its log ends with what drifted, how much, why, since when, and what to press; the
table and samples are above that.

| it says | what it means | what to press |
|---|---|---|
| missing | a document without a row | repair `missing` |
| stale | a row that differs from its document | repair `missing_and_stale` |
| extra | a row whose document is gone | repair `all`: it deletes these rows, and keeps each in the journal |
| rejected | a document that can't become a row | correct the document, or excuse it with a reason |
| dual-write seems off | documents are written, and no row arrives by itself | turn it on again, then repair |
| was not examined | a part could not be read | fix the cause, which the sentence names; the next run starts where this one would have |
| A repair writes / changes at most | a brake: too many rows | find out why there are so many; then raise `max_repairs` or `max_share` |

| param | what it does |
|---|---|
| `repair` | `off` (default), `missing`, `missing_and_stale`, `all`. Triggering is the approval: nobody is asked again |
| `scope` | `recent`: what was written since the last run. `sweep`: every document and every row |
| `collections` | which collections; the others keep their watermark |
| `max_repairs`, `max_share` | the brakes: a repair of more rows, or of more than this % of a table, is refused as a whole |
| `max_billed_reads` | a cap on billed reads; what would exceed it is not examined, and keeps its watermark |
| `excuse`, `excuse_reason`, `unexcuse` | differences to accept, with a reason, or no longer to accept, as `collection:key` or `collection:*` |
| all others | fine tuning and alarms; see the form |

    {"repair": "missing", "collections": ["posts"]}

**Variables:** scheduled runs use Variable `reconcile_<param>` where there is one, except for excuses: `reconcile_repair` =
`missing` lets them repair. `dual_write_enabled` = `false` says that dual-write is off on purpose: then differences are expected.

**The asset `dual-write-parity`** is updated by a run that finds source and target equal: nothing is open, not even excused, in
flight or expected, and every collection was compared, and swept within a day. Schedule on it whatever must only see equal
databases: `schedule=[Asset("dual-write-parity")]`. Each green run updates `dual-write-green`, whatever is excused or in flight.

Causes, by the clients' own log: *never_attempted* (no operation: flag off, old client, crash before the lock),
*attempted_failed* (an operation, and no such row), *unknown*. `dualwrite.repair_journal` keeps every previous row for 30 days. More in
docs/runbook.md, docs/verification.md and docs/ui.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import TriggerRule, chain, dag, task

from dualwrite.edge import forms
from dualwrite.edge.airflow import FAILS_AT_ONCE, GREEN, PARITY_IF_EQUAL
from dualwrite.edge.lazy import LazyModule
from dualwrite.edge.overdue import tell_of_timeout
from dualwrite.edge.pools import SOURCE_POOL, TARGET_POOL
from dualwrite.model.choices import MAX_PLAN_AGE, STAGES

tasks = LazyModule("dualwrite.edge.reconciliation")


@dag(
    schedule=timedelta(minutes=15),
    start_date=datetime(2026, 1, 15, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    max_consecutive_failed_dag_runs=0,  # it fails by design, and an instance's default would pause it
    dagrun_timeout=MAX_PLAN_AGE,  # a run that hangs keeps the next one from beginning
    on_failure_callback=tell_of_timeout,
    is_paused_upon_creation=True,
    tags=["dual-write", "firestore", "supabase"],
    doc_md=__doc__,
    default_args={
        "owner": "dual-write",
        "pool": SOURCE_POOL,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
    },
)
def reconcile_dual_writes():
    @task
    def preflight(**context) -> list:
        """Source and target answer and are as the catalog says; fixes each collection's window."""
        return tasks.preflight(context)

    # Without a large collection to sweep it is mapped over nothing, and starts no process.
    @task(map_index_template="{{ task.op_kwargs['part']['name'] }}", multiple_outputs=False)
    def sweep_slices(part: dict, **context) -> dict:
        """One slice of a large collection's sweep. What differs is kept open."""
        return tasks.sweep_slice(context, part)

    @task(trigger_rule=TriggerRule.ALL_DONE, multiple_outputs=False)
    def compare(**context) -> dict:
        """The first look at all collections, several side by side. What differs is kept open."""
        return tasks.compare(context)

    @task.sensor(mode="reschedule", poke_interval=60, timeout=4200, trigger_rule=TriggerRule.ALL_DONE)
    def grace(**context) -> bool:
        """Waits until what is new is old enough for a second look. Meanwhile it holds no worker and no connection."""
        return tasks.grace(context)

    @task.short_circuit(ignore_downstream_trigger_rules=False, trigger_rule=TriggerRule.ALL_DONE)
    def look_again(**context) -> bool:
        """Everything that is open, by key, with fresh reads: only what stayed is drift. Then the gate: whether dual-write is
        alive, and whether a repair may begin. Where there is nothing to repair, the repair is skipped."""
        return tasks.look_again(context)

    @task(multiple_outputs=False)
    def repair(**context) -> dict:
        """Deletes (children first), then inserts and updates (parents first), then looks at what was repaired."""
        return tasks.repair(context)

    @task(
        trigger_rule=TriggerRule.ALL_DONE,
        outlets=[GREEN, PARITY_IF_EQUAL],
        pool=TARGET_POOL,
        **FAILS_AT_ONCE,
        multiple_outputs=False,
    )
    def report(**context) -> dict:
        """The whole run in one table. Fails while any drift is open that nobody has excused."""
        return tasks.report(context)

    planned = preflight()
    made = {t.operator.task_id: t for t in (planned, compare(), grace(), look_again(), repair(), report())}
    chain(*(made[name] for name in STAGES))
    sweep_slices.expand(part=planned) >> made["compare"]


forms.give(reconcile_dual_writes(), forms.reconcile_form())
