"""Runs that hang. Nothing in them can tell: a task that waits for ever fails nothing, and with one active run at a time no
later run begins. Airflow's own components call these.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dualwrite import alerts
from dualwrite.model.report import Alert

log = logging.getLogger("dualwrite")

OVERDUE = timedelta(minutes=90)
"""After being queued a run must have ended by then: its tasks have an hour each, and take minutes."""


def tell_of_overdue_run(**given: Any) -> None:
    """What the DAG's deadline calls, on a worker. The run may have been queued all that time, behind one that hangs."""
    context: Mapping[str, Any] = given.get("context") or {}
    run = context.get("dag_run") or {}
    dag_id, run_id = _names(run)
    _tell(
        dag_id,
        run_id,
        f"{dag_id}: run {run_id} has not ended {OVERDUE.total_seconds() / 60:g} minutes after it was queued, and no other run "
        "begins before it has. See which of its tasks waits, and for what; mark the run as failed to let the next one begin.",
        "overdue",
    )


def tell_of_timeout(context: Mapping[str, Any]) -> None:
    """What the DAG calls when a run has failed, in the dag processor. Says something only where no task could: the run's
    own timeout ends its tasks as skipped, the report among them."""
    if context.get("reason") != "timed_out":
        return
    run = context.get("dag_run")
    dag_id, run_id = _names(run)
    _tell(
        dag_id,
        run_id,
        f"{dag_id}: run {run_id} reached its dagrun_timeout and was ended, without a report. What it had examined is kept; "
        "the next run goes on from there. See which of its tasks took so long.",
        "timed_out",
    )


def _names(run: Any) -> tuple[str, str]:
    """The ids of the DAG and of the run, which is an object in a callback of the DAG and the API's JSON in a deadline's."""
    if isinstance(run, Mapping):
        return str(run.get("dag_id")), str(run.get("dag_run_id"))
    return str(getattr(run, "dag_id", None)), str(getattr(run, "run_id", None))


def _tell(dag_id: str, run_id: str, text: str, verdict: str) -> None:
    log.error("%s", text)
    alerts.begin(dag_id=dag_id, run_id=run_id)
    alerts.tell([Alert(text, verdict=verdict)])
