"""Runs that hang. Nothing in them can tell: a task that waits for ever fails nothing, and with one active run at a time no
later run begins. So Airflow ends them (dagrun_timeout), and calls this.

Not a DeadlineAlert: it tells as well, but ends nothing, and with one `airflow dags test` fails (seen in Airflow 3.3.2).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dualwrite import alerts
from dualwrite.model.report import Alert

log = logging.getLogger("dualwrite")


def tell_of_timeout(context: Mapping[str, Any]) -> None:
    """What the DAG calls when a run has failed, in the dag processor. Says something only where no task could: the run's
    own timeout ends its tasks as skipped, the report among them."""
    if context.get("reason") != "timed_out":
        return
    run = context.get("dag_run")
    dag_id, run_id = str(getattr(run, "dag_id", None)), str(getattr(run, "run_id", None))
    text = (
        f"{dag_id}: run {run_id} reached its dagrun_timeout and was ended without a report; no other run could start before "
        "that. What it had examined is kept, and the next run resumes from there. See which task waited, and for what."
    )
    log.error("%s", text)
    alerts.begin(dag_id=dag_id, run_id=run_id)
    alerts.tell([Alert(text, verdict="timed_out")])
