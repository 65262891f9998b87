"""Constants that DAG files share with the code behind them. They have a module of their own, because Airflow parses DAG files
every few seconds, and these shouldn't import that code."""

from datetime import timedelta

APPROVE, REJECT = "Approve", "Reject"

STAGES = ("preflight", "compare", "grace", "look_again", "repair", "report")
"""The tasks of a reconciliation, in their order. `grace` waits, and `repair` runs only if there is something to repair or undo."""

MAX_PLAN_AGE = timedelta(hours=2)
"""The oldest plan that a repair may act on, and the longest that a run may take. Airflow clears tasks of any age and runs
them again."""
