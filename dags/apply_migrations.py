"""# apply_migrations

Applies the files of `sql/migrations` to Supabase, in order, each with its line in `dualwrite.migrations` in one
transaction.

**When to run it:** first, before [backfill_gap](/dags/backfill_gap) and
[reconcile_dual_writes](/dags/reconcile_dual_writes), which need the schema `dualwrite` that it creates; and again whenever
a file is added. It is safe while the app is live: a migration that can't get a lock within `lock_timeout` gives up and
retries. Two runs wait for each other, a second run changes nothing, and if a run is killed, the next one resumes.
[Parity](/plugin/parity) shows whether every migration is verified.

| param | what it does |
|---|---|
| `mode` | `dry_run` (default): executes every pending file in one transaction and rolls it back; it takes the same locks as an apply, for two seconds at most. `apply`: applies one file after another, then verifies |
| `web_client` | opens the tables of `sql/optional/web_client_anon.sql` to the browser's anon key (`anon`), or closes them (`closed`). Read that file first |
| `target_version` | apply up to this version; empty: all |
| `lock_timeout` | how many seconds a statement waits for a lock before it lets the app go first |
| `wait_for_lock` | how many seconds to keep retrying before the run fails and says who held the lock |
| `statement_timeout` | how many seconds one statement of an apply may take, for example to build an index |

    {"mode": "apply"}

| it fails with | what it means | what to do |
|---|---|---|
| refused | a file changed or vanished after it was applied, is older than the last applied, or its tables exist already | nothing ran; the message names the file and the remedy |
| Held by pid ... | a transaction of the app held a lock throughout `wait_for_lock` | end that transaction, or trigger again with a longer `wait_for_lock` |
| only partly applied | a file failed; those before it stay applied | read the task `apply`: condition, file and line (never Postgres's message, which quotes rows) |
| not as the migrations promise | the tables differ from what the files create | correct the table that the message names, with a new migration |

A dry run reports as **not tried**, which is not *failed*, what it can't execute: a file outside a transaction and what depends
on it, a new enum value that a later file uses, and what is left after two seconds.

Versions in the Supabase CLI's history count as applied. That history is read, never written.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow.sdk import TriggerRule, dag, task

from dualwrite.edge import forms
from dualwrite.edge.airflow import FAILS_AT_ONCE, clearly, fail, migration_params, migrations_connection
from dualwrite.edge.lazy import LazyModule
from dualwrite.edge.pools import TARGET_POOL
from dualwrite.model.render import as_text

migrations = LazyModule("dualwrite.migrations")
log = logging.getLogger("dualwrite")


@dag(
    schedule=None,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    tags=["dual-write", "supabase"],
    doc_md=__doc__,
    default_args={
        "owner": "dual-write",
        "pool": TARGET_POOL,
        "retries": 1,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(hours=2),
    },
)
def apply_migrations():
    @task
    def plan(**context) -> list[dict]:
        """Each file: applied, pending, or refused with the reason."""
        with clearly(), migrations_connection() as connection:
            steps = migrations.make_plan(connection, migration_params(context))
        for step in steps:
            log.info("%s: %s%s", step.label, step.state, f", {step.reason}" if step.reason else "")
        return [step.as_json() for step in steps]

    @task
    def apply(**context) -> list[dict]:
        """The pending files, executed (dry run: and rolled back)."""
        with clearly():
            migrator = migrations.Migrator(migrations_connection, migration_params(context), context["run_id"])
            steps = migrator.run()
            migrator.set_web_client()
        return [step.as_json() for step in steps]

    @task
    def verify(steps: list[dict], **context) -> list[str]:
        """The live tables against what the files promise."""
        with clearly(), migrations_connection() as connection:
            if migration_params(context).mode == "dry_run":
                return []
            return migrations.verify(connection, [migrations.Step(**step) for step in steps])

    @task(trigger_rule=TriggerRule.ALL_DONE, retries=0, **FAILS_AT_ONCE, multiple_outputs=False)
    def report(**context) -> dict:
        """The run in one table. Fails where a file was refused or failed, or where the tables differ."""
        pull = context["ti"].xcom_pull
        planned, applied, differences = pull(task_ids="plan"), pull(task_ids="apply"), pull(task_ids="verify")
        with clearly(), migrations_connection() as connection:
            whole = migrations.build_report(
                connection, migration_params(context), context["run_id"], applied or planned or [], differences
            )
        log.info("\n%s", as_text(migrations.described(whole)))
        context["ti"].xcom_push(key="return_value", value=whole)  # before failing: it is wanted most then
        if applied is None or differences is None:
            fail(["The migrations were only partly applied: see the task that failed, plan or apply."])
        if differences:
            fail(["The target is not as the migrations promise: " + "; ".join(differences)])
        return whole

    planned, applied = plan(), apply()
    checked = verify(applied)
    planned >> applied >> checked >> report()


forms.give(apply_migrations(), forms.migration_form())
