"""What an operator can choose from in the Trigger forms. Apart from the code that does it, so that a form needs none of
that code: Airflow parses the DAG files every few seconds."""

GAP_MODES = ("dry_run", "review", "apply")
GAP_SCOPES = ("window", "all")
REPAIRS = ("off", "missing", "missing_and_stale", "all")
RECONCILE_SCOPES = ("recent", "sweep")
MIGRATION_MODES = ("dry_run", "apply")
WEB_CLIENT = ("leave", "closed", "anon")
