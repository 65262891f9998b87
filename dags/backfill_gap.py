"""# backfill_gap

Finds what was written to Firestore after the export and is missing or stale in Supabase, reports it, writes it, and
verifies the result.

**When to run it:** once dual-write is on, after [apply_migrations](/dags/apply_migrations) and before
[reconcile_dual_writes](/dags/reconcile_dual_writes) is unpaused. First run it as it is, a dry run; then with `apply` or
`review`. A second apply writes 0 rows. [Parity](/plugin/parity) shows the last run.

| param | what it does |
|---|---|
| `mode` | `dry_run` (default): examines and reports, writes nothing; its counts are what an apply would do. `review`: the same, then waits for an approval, then writes. `apply`: inserts what is missing, updates what is stale, verifies every collection key by key |
| `update_stale` | whether stale rows are updated, or only missing ones inserted |
| `collections` | which collections; the parents that they need are added |
| `scope` | `window`: documents written since the export. `all`: every document |
| `since`, `margin_hours`, `until` | the window, from `margin_hours` before `since` to `until`; both with an offset from UTC |
| `max_billed_reads` | a cap on billed reads; what would exceed it is not examined |
| `excuse`, `excuse_reason` | differences that you accept, as `collection:key` or `collection:*` |
| `page_size`, `explain_up_to`, `slice_documents`, `grace_seconds`, `max_reads_per_second`, `max_rows_per_second` | fine tuning; see the form |

    {"mode": "review", "collections": ["posts", "comments"], "since": "2026-01-15T21:52:00+09:00"}

**A review** waits at the task `approve`, under *Required Actions*: the counts by collection and verdict, samples, billed
reads and dollars. *Reject*, with a reason if you like, ends the run successfully without writing; the report says who
rejected and why.

| it fails with | what it means | what to do |
|---|---|---|
| was not examined | a collection could not be read completely | see its task's log, then trigger again: what was written stays |
| is not verified: ... rejected | documents that can't become rows; the report says why | correct them, or excuse them with a reason |
| is not verified: ... extra | rows without a document | reconcile_dual_writes with repair `all` deletes them |
| more documents than explain_up_to | only the counts were compared, as you asked | trigger without `explain_up_to` |
| Nobody approved or rejected | the question was not asked or not answered | see the tasks `examine_for_review` and `approve` |

You may stop it and run it again at any moment, and the app may keep writing to both databases meanwhile. It never deletes
a row, except one that it has just inserted itself and whose document vanished at that moment.

Verdicts: *rejected* (can't become a row, with the reason), *orphan* (a document it needs is gone), *duplicate*
(another document holds its unique key), *missing*, *extra* (a row without a document), *stale*, *in_flight*
(changing right now), *matching*, *absent* (neither document nor row).
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import TaskGroup, TriggerRule, dag, task

from dualwrite.catalog import CATALOG
from dualwrite.edge import forms
from dualwrite.edge.airflow import FAILS_AT_ONCE
from dualwrite.edge.lazy import LazyModule
from dualwrite.edge.pools import SOURCE_POOL, TARGET_POOL
from dualwrite.model.choices import APPROVE, REJECT

tasks = LazyModule("dualwrite.edge.gap")
SLICE = "{{ task.op_kwargs['part']['name'] }}"  # what the grid calls an instance: collection and interval


@dag(
    schedule=None,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=2),
    tags=["dual-write", "firestore", "supabase"],
    doc_md=__doc__,
    default_args={
        "owner": "dual-write",
        "pool": SOURCE_POOL,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=6),
    },
)
def backfill_gap():
    @task
    def preflight(**context) -> list:
        """Source and target answer and are as the catalog says; fixes the window."""
        return tasks.preflight(context)

    @task
    def choose(**context) -> None:
        """What isn't to run is skipped from here, without a process of its own."""
        tasks.choose(context)

    @task(task_id="review_slices", map_index_template=SLICE, multiple_outputs=False)
    def review_slice(part: dict, **context) -> dict:
        """One slice of a large collection, for the approval."""
        return tasks.review_slice(context, part)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def examine_for_review(**context) -> str:
        """A dry run of the whole selection, for the approval."""
        return tasks.examine_for_review(context)

    # Not ApprovalOperator: where it skips what follows, its answer is lost, and a rejection is taken for no answer.
    approve = HITLOperator(
        task_id="approve",
        execution_timeout=None,  # a person may take a day; the run's own timeout ends the wait
        options=[APPROVE, REJECT],
        subject="Write this gap to Supabase?",
        params=forms.approval_form(),
        body="{{ ti.xcom_pull(task_ids='examine_for_review') }}",
    )

    @task(trigger_rule=TriggerRule.ALL_DONE, multiple_outputs=False)
    def examine(name: str, **context) -> dict:
        """One collection: examined, and in the modes that write, written."""
        return tasks.examine(context, name)

    @task(trigger_rule=TriggerRule.ALL_DONE, task_id="examine_slices", map_index_template=SLICE, multiple_outputs=False)
    def examine_slice(part: dict, **context) -> dict:
        """One slice of a large collection, as the tasks above do a small one."""
        return tasks.examine_slice(context, part)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def verify_counts(**context) -> list:
        """count() against SELECT count(*); after an apply, the difference explained key by key."""
        return tasks.verify_counts(context)

    @task(task_id="verify_slices", map_index_template=SLICE, multiple_outputs=False)
    def verify_slice(part: dict, **context) -> dict:
        """The documents of one slice of a large collection, key by key."""
        return tasks.verify_slice(context, part)

    @task(task_id="finish", trigger_rule=TriggerRule.NONE_SKIPPED, multiple_outputs=False)
    def verify_rest(**context) -> dict:
        """The rows that no slice saw; then each large collection as a whole."""
        return tasks.verify_rest(context)

    @task(trigger_rule=TriggerRule.ALL_DONE, retries=0, pool=TARGET_POOL, **FAILS_AT_ONCE, multiple_outputs=False)
    def report(**context) -> dict:
        """The whole run in one table. Fails where a collection was not examined or is not verified."""
        return tasks.report(context)

    chosen, checked = choose(), verify_counts()
    planned, reviewed = preflight(), examine_for_review()
    planned >> chosen >> reviewed >> approve
    with TaskGroup("collections"):
        examined = {name: examine.override(task_id=name)(name) for name in CATALOG.names}
    chosen >> list(examined.values())
    for collection in CATALOG:
        for parent in collection.parents or ():
            examined[parent] >> examined[collection.name]
        if not collection.parents:
            approve >> examined[collection.name]
    # Without large collections these are mapped over nothing, and start no process. In no group: one that held tasks on
    # both sides of `approve` would stand before and after it, and Airflow draws neither grid nor graph of such a DAG.
    chosen >> review_slice.expand(part=planned) >> reviewed
    parts = examine_slice.expand(part=planned)
    verified = verify_rest()
    verify_slice.expand(part=checked) >> verified
    [approve, *examined.values()] >> parts >> checked
    [checked, verified] >> report()


forms.give(backfill_gap(), forms.gap_form())
