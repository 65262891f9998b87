"""What DAG files and the code behind them agree on. Apart from that code, so that a DAG file needs none of it: Airflow
parses the DAG files every few seconds."""

from datetime import timedelta

APPROVE, REJECT = "Approve", "Reject"

STAGES = ("preflight", "compare", "grace", "look_again", "repair", "report")
"""The tasks of a reconciliation, in their order. `grace` waits, and `repair` runs only where there is something to repair."""

MAX_PLAN_AGE = timedelta(hours=2)
"""The oldest plan that a repair may act on, and the longest that a run may take. Airflow clears tasks of any age and runs
them again."""
