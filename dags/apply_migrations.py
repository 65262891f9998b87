"""# apply_migrations

Applies the bundle's migrations and the app's to Supabase, in one order, each with its line in `dualwrite.migrations` in one
transaction. The bundle's are in `sql/migrations`; the app's are in the folder that `DUALWRITE_MIGRATIONS` names.

**When:** first of all, before [backfill_gap](/dags/backfill_gap) and
[reconcile_dual_writes](/dags/reconcile_dual_writes), which need the schema `dualwrite` that it creates; and again whenever a
file is added. The default is a dry run: everything is executed and rolled back. Mode `apply` applies, then verifies.

- It is safe while the app is live: a statement that can't get its lock gives up, lets the app go first, and tries again.
- A second run changes nothing. If a run is killed, the next one resumes.
- Versions in the Supabase CLI's history count as applied. That history is read, never written.

[Parity](/plugin/parity) shows whether every migration is verified. Params explain themselves in the form. What each message
means: `docs/operating.md` and `docs/migrations.md` in the repository.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow.sdk import TriggerRule, dag, task

from dualwrite.edge import forms
from dualwrite.edge.airflow import FAILS_AT_ONCE, clearly, fail, migration_params, migrations_connection, told_in_full
from dualwrite.edge.lazy import LazyModule
from dualwrite.edge.pools import TARGET_POOL
from dualwrite.model.render import as_text

migrations = LazyModule("dualwrite.migrations")
log = logging.getLogger("dualwrite")


@dag(
    description="Applies the bundle's and the app's migrations to Supabase while the app is live, and verifies the tables.",
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
        "show_return_value_in_logs": False,  # each would be thousands of characters of JSON
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
        with told_in_full(context), clearly(), migrations_connection() as connection:
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
