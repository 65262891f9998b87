"""Runs that hang. They can't report it themselves: a task that waits for ever doesn't fail, and with one active run at a time no
later run begins. So Airflow ends them (dagrun_timeout), and the next run reports them in an alert.

If the environment asks for it, a callback reports it as soon as Airflow ends the run. Off by default: after a DAG
with a callback has failed once, Airflow 3.3 parses the file of a Git bundle without a pause, at the cost of up to a core
(https://github.com/apache/airflow/issues/73432), and this DAG fails by design.

Not a DeadlineAlert: it reports, but doesn't end the run, and with one `airflow dags test` fails (seen in Airflow 3.3.2).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from dualwrite import alerts
from dualwrite.model.alert import alert

log = logging.getLogger("dualwrite")


def hung(context: Mapping[str, Any], recorded: str | None) -> tuple[str, ...]:
    """Runs before this one that ended without a report although none of their tasks failed: a run's timeout skips its unfinished
    tasks. Checked are `recorded`, the last run that left something in the target, and the last scheduled run, which may have
    left nothing.

    A run that a person stopped has a failed task, or is known to that person.
    """
    instance = context["ti"]
    try:
        scheduled = instance.get_previous_dagrun()
        before = {recorded, getattr(scheduled, "run_id", None)} - {None, str(context["run_id"])}
        states = instance.get_task_states(instance.dag_id, run_ids=sorted(map(str, before))) if before else {}
    except Exception as error:  # noqa: BLE001 - the run goes on without this check
        log.warning("It is unknown whether the run before this one hung: Airflow answered %s.", type(error).__name__)
        return ()
    return tuple(run for run, tasks in sorted(states.items()) if _was_cut_off(tasks))


def _was_cut_off(tasks: Mapping[str, Any]) -> bool:
    """Whether the states of a run's tasks show that it was cut off."""
    states = {name: str(getattr(state, "value", state)) for name, state in tasks.items()}
    return states.get("report") == "skipped" and "failed" not in states.values()


def tell_of_timeout(context: Mapping[str, Any]) -> None:
    """The DAG's callback for a failed run, in the dag processor. It reports only a timeout, which ends the run's tasks as
    skipped, the report among them."""
    if context.get("reason") != "timed_out":
        return
    run = context.get("dag_run")
    dag_id, run_id = str(getattr(run, "dag_id", None)), str(getattr(run, "run_id", None))
    text = (
        f"{dag_id}: run {run_id} hit its dagrun_timeout and was stopped without a report; until then it blocked every other "
        "run. The parts that it had examined are kept, and the next run resumes from there. Find the task that hung and what it waited for."
    )
    log.error("%s", text)
    alerts.begin(dag_id=dag_id, run_id=run_id)
    alerts.tell([alert(text, kind="timed_out")])


CALLBACK = tell_of_timeout if os.environ.get("DUALWRITE_TELL_OF_TIMEOUT") == "1" else None
"""Read when the DAG files are parsed, so set it for the dag-processor."""
