"""# reconcile_dual_writes

Every 15 minutes: did recent writes arrive in Supabase? It fails if they didn't, says why, and can repair them. Once a day it
compares every document and every row.

**When:** unpause it when dual-write is on and [backfill_gap](/dags/backfill_gap) is verified. To look, repair, excuse or
sweep, open [Parity](/plugin/parity): its buttons open the form with the right values.

**A failed task `report` is the alert.** Its log ends with what drifted, how much, why, since when, and what to press.

- Scheduled runs write nothing unless Variable `reconcile_repair` says so; every param of the form has such a Variable,
  `reconcile_<param>`, except those only for a person: `keys`, `undo` and the excuses.
- Variable `dual_write_enabled` = `false` says that dual-write is off on purpose: then differences are expected.
- The asset `dual-write-parity` is updated by a run that finds both equal, nothing excused; `dual-write-green` by each green run that compared.

Params explain themselves in the form. What each message means: `docs/runbook.md` in the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.sdk import TriggerRule, chain, dag, task

from dualwrite import settings
from dualwrite.edge import forms
from dualwrite.edge.assets import GREEN_IF_COMPARED, PARITY_IF_EQUAL
from dualwrite.edge.errors import FAILS_AT_ONCE
from dualwrite.edge.lazy import LazyModule
from dualwrite.edge.overdue import CALLBACK
from dualwrite.edge.pools import SOURCE_POOL, TARGET_POOL
from dualwrite.model.choices import MAX_PLAN_AGE, STAGES

if TYPE_CHECKING:
    from dualwrite.edge import reconciliation as tasks
else:
    tasks = LazyModule("dualwrite.edge.reconciliation")


@dag(
    dag_id=settings.named("reconcile_dual_writes"),
    description="Every 15 minutes: did recent writes arrive in Supabase? Fails if not, and repairs when asked.",
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 15, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    max_consecutive_failed_dag_runs=0,  # it fails by design, and an instance's default would pause it
    dagrun_timeout=MAX_PLAN_AGE,  # a run that hangs keeps the next one from beginning
    on_failure_callback=CALLBACK,  # None, unless the environment asks for it
    is_paused_upon_creation=True,
    tags=["dual-write", "firestore", "supabase"],
    doc_md=settings.said(__doc__),
    default_args={
        "owner": "dual-write",
        "pool": SOURCE_POOL,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
        "show_return_value_in_logs": False,  # each would be 30,000 characters of JSON
    },
)
def reconcile_dual_writes():
    @task
    def preflight(**context) -> list:
        """Source and target answer and are as the catalog says; fixes each collection's window."""
        return tasks.preflight(context)

    # Without a large collection to sweep it is mapped over nothing, and starts no process.
    @task(map_index_template="{{ task.op_kwargs['part']['name'] }}", multiple_outputs=False)
    def sweep_slices(part: dict, **context) -> Mapping:
        """One slice of a large collection's sweep. Keeps differences open."""
        return tasks.sweep_slice(context, part)

    @task(trigger_rule=TriggerRule.ALL_DONE, multiple_outputs=False)
    def compare(**context) -> Mapping:
        """The first look at all collections, several side by side. Keeps differences open."""
        return tasks.compare(context)

    @task.sensor(mode="reschedule", poke_interval=60, timeout=4200, trigger_rule=TriggerRule.ALL_DONE)
    def grace(**context) -> bool:
        """Waits until new differences are old enough for a second look. Meanwhile it holds no worker and no connection."""
        return tasks.grace(context)

    @task.short_circuit(ignore_downstream_trigger_rules=False, trigger_rule=TriggerRule.ALL_DONE)
    def look_again(**context) -> bool:
        """Looks at all open differences by key, with fresh reads: those that stayed are drift. Then the gate: whether dual-write is
        alive, and whether a repair may begin. If there is nothing to repair, the repair is skipped."""
        return tasks.look_again(context)

    @task(multiple_outputs=False)
    def repair(**context) -> Mapping:
        """Deletes (children first), then inserts and updates (parents first), then looks at the written rows."""
        return tasks.repair(context)

    @task(
        trigger_rule=TriggerRule.ALL_DONE,
        outlets=[GREEN_IF_COMPARED, PARITY_IF_EQUAL],
        pool=TARGET_POOL,
        **FAILS_AT_ONCE,
        multiple_outputs=False,
    )
    def report(**context) -> Mapping:
        """The whole run in one table. Fails while any drift is open that isn't excused."""
        return tasks.report(context)

    planned = preflight()
    made = {t.operator.task_id: t for t in (planned, compare(), grace(), look_again(), repair(), report())}
    chain(*(made[name] for name in STAGES))
    sweep_slices.expand(part=planned) >> made["compare"]


forms.set_form(reconcile_dual_writes(), forms.reconcile_form())
