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
means: `docs/runbook.md` and `docs/migrations.md` in the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import TriggerRule, dag, task

from dualwrite import settings
from dualwrite.edge import forms
from dualwrite.edge.errors import FAILS_AT_ONCE
from dualwrite.edge.lazy import LazyModule
from dualwrite.edge.pools import TARGET_POOL

if TYPE_CHECKING:
    from dualwrite.edge import migrations as tasks
else:
    tasks = LazyModule("dualwrite.edge.migrations")


@dag(
    dag_id=settings.named("apply_migrations"),
    description="Applies the bundle's and the app's migrations to Supabase while the app is live, and verifies the tables.",
    schedule=None,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    tags=["dual-write", "supabase"],
    doc_md=settings.said(__doc__),
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
    def plan(**context) -> list:
        """Each file: applied, pending, or refused with the reason."""
        return tasks.plan(context)

    @task
    def apply(**context) -> list:
        """The pending files, executed (dry run: and rolled back)."""
        return tasks.apply(context)

    @task
    def verify(steps: list, **context) -> list[str]:
        """The live tables against the files' promises."""
        return tasks.verify(context, steps)

    @task(trigger_rule=TriggerRule.ALL_DONE, **FAILS_AT_ONCE, multiple_outputs=False)
    def report(**context) -> Mapping:
        """The run in one table. Fails if a file was refused or failed, or if the tables differ."""
        return tasks.report(context)

    planned, applied = plan(), apply()
    checked = verify(applied)
    planned >> applied >> checked >> report()


forms.set_form(apply_migrations(), forms.migration_form())
