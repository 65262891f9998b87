"""# backfill_gap

Finds documents written to Firestore after the export whose rows are missing or stale in Supabase, reports them, writes the
rows, and verifies the result.

**When:** after [apply_migrations](/dags/apply_migrations), and once more when dual-write is on, before
[reconcile_dual_writes](/dags/reconcile_dual_writes) is unpaused. First as it is, a dry run, whose counts are what an apply
would do; then with mode `apply`, or `review`, which asks a person before it writes. A second apply writes 0 rows.

- A review waits at the task `decision`, under *Required Actions*. *Reject* ends the run successfully, and nothing is written.
- You may stop it and run it again at any moment, and the app may keep writing to both databases meanwhile.
- It never deletes a row, except one that it has just inserted itself and whose document vanished at that moment.
- Airflow's form also offers "Backfill", a run for each past date. It isn't meant for this DAG, which has no schedule.

[Parity](/plugin/parity) shows the last run. Params explain themselves in the form. What each message means:
`docs/runbook.md` in the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import TaskGroup, TriggerRule, dag, task

from dualwrite import settings
from dualwrite.catalog import CATALOG
from dualwrite.edge import forms
from dualwrite.edge.errors import FAILS_AT_ONCE
from dualwrite.edge.lazy import LazyModule
from dualwrite.edge.pools import SOURCE_POOL, TARGET_POOL
from dualwrite.model.choices import APPROVE, REJECT

if TYPE_CHECKING:
    from dualwrite.edge import gap as tasks
else:
    tasks = LazyModule("dualwrite.edge.gap")
SLICE = "{{ task.op_kwargs['part']['name'] }}"  # an instance's name in the grid: collection, number and size


@dag(
    dag_id=settings.named("backfill_gap"),
    description="Writes rows for documents that came after the export and are missing or stale in Supabase; verifies them.",
    schedule=None,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=2),
    tags=["dual-write", "firestore", "supabase"],
    doc_md=settings.said(__doc__),
    default_args={
        "owner": "dual-write",
        "pool": SOURCE_POOL,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=6),
        "show_return_value_in_logs": False,  # each would be 30,000 characters of JSON
    },
)
def backfill_gap():  # noqa: C901 - one task after another
    @task
    def preflight(**context) -> list:
        """Source and target answer and are as the catalog says; fixes the window."""
        return tasks.preflight(context)

    @task
    def choose(**context) -> None:
        """Skips all tasks that shouldn't run, without starting a process for each."""
        tasks.choose(context)

    @task(task_id="review_slices", map_index_template=SLICE, multiple_outputs=False)
    def review_slice(part: dict, **context) -> Mapping:
        """One slice of a large collection, for the approval."""
        return tasks.review_slice(context, part)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def examine_for_review(**context) -> str:
        """A dry run of the whole selection, for the approval."""
        return tasks.examine_for_review(context)

    # Not ApprovalOperator: if it skips the tasks after it, its answer is lost, and a rejection looks like no answer.
    # Airflow names the task in its answer to either button, so the task isn't named after one of the answers.
    decision = HITLOperator(
        task_id="decision",
        execution_timeout=None,  # a person may take a day; the run's own timeout ends the wait
        options=[APPROVE, REJECT],
        subject="Write this gap to Supabase?",
        params=forms.approval_form(),
        body="{{ ti.xcom_pull(task_ids='examine_for_review') }}",
    )

    @task(trigger_rule=TriggerRule.ALL_DONE, multiple_outputs=False)
    def examine(name: str, **context) -> Mapping:
        """One collection: examined, and in the modes that write, written."""
        return tasks.examine(context, name)

    @task(trigger_rule=TriggerRule.ALL_DONE, task_id="examine_slices", map_index_template=SLICE, multiple_outputs=False)
    def examine_slice(part: dict, **context) -> Mapping:
        """One slice of a large collection, as the tasks above do a small one."""
        return tasks.examine_slice(context, part)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def verify_counts(**context) -> list:
        """count() against SELECT count(*); after an apply, the difference explained key by key."""
        return tasks.verify_counts(context)

    @task(task_id="verify_slices", map_index_template=SLICE, multiple_outputs=False)
    def verify_slice(part: dict, **context) -> Mapping:
        """The documents of one slice of a large collection, key by key."""
        return tasks.verify_slice(context, part)

    @task(task_id="finish", trigger_rule=TriggerRule.NONE_SKIPPED, multiple_outputs=False)
    def verify_rest(**context) -> Mapping:
        """The rows that no slice saw; then each large collection as a whole."""
        return tasks.verify_rest(context)

    @task(trigger_rule=TriggerRule.ALL_DONE, pool=TARGET_POOL, **FAILS_AT_ONCE, multiple_outputs=False)
    def report(**context) -> Mapping:
        """The whole run in one table. Fails if a collection was not examined or is not verified."""
        return tasks.report(context)

    chosen, checked = choose(), verify_counts()
    planned, reviewed = preflight(), examine_for_review()
    planned >> chosen >> reviewed >> decision
    with TaskGroup("collections"):
        examined = {name: examine.override(task_id=name)(name) for name in CATALOG.names}
    chosen >> list(examined.values())
    for collection in CATALOG:
        for parent in collection.parents_first:
            examined[parent] >> examined[collection.name]
        if not collection.parents_first:
            decision >> examined[collection.name]
    # Without large collections these are mapped over nothing, and start no process. They are in no group: a group with tasks
    # on both sides of `decision` would be before and after it, and Airflow draws neither grid nor graph of such a DAG.
    chosen >> review_slice.expand(part=planned) >> reviewed
    parts = examine_slice.expand(part=planned)
    verified = verify_rest()
    verify_slice.expand(part=checked) >> verified
    [decision, *examined.values()] >> parts >> checked
    [checked, verified] >> report()


forms.set_form(backfill_gap(), forms.gap_form())
