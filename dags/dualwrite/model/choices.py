"""What an operator can choose from in the Trigger forms. Apart from the code that does it, so that a form needs none of
that code: Airflow parses the DAG files every few seconds."""

from datetime import timedelta

GAP_MODES = ("dry_run", "review", "apply")
APPROVE, REJECT = "Approve", "Reject"
GAP_SCOPES = ("window", "all")
REPAIRS = ("off", "missing", "missing_and_stale", "all")
RECONCILE_SCOPES = ("recent", "sweep")
MIGRATION_MODES = ("dry_run", "apply")
WEB_CLIENT = ("leave", "closed", "anon")

STAGES = ("preflight", "compare", "grace", "look_again", "repair", "report")
"""The tasks of a reconciliation, in their order. `grace` waits, and `repair` runs only where there is something to repair."""

MAX_PLAN_AGE = timedelta(hours=2)
"""How old a reconciliation's plan may be when something is written by it, and how long a run may last. Airflow clears tasks of any age and runs them
again."""
