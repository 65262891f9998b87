"""Runs one DAG as `airflow dags test` does, in a process of its own, and says how each task ended.

As a command: python -m dev.run_dag DAG_ID CONF_AS_JSON [TASKS_TO_MARK_AS_SUCCESS]
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dev.airflow_home import ROOT
from dev.warm_airflow import Python, fresh

_MARK = "RESULT "


@dataclass(frozen=True)
class DagRun:
    """How a run ended: the run's state, each task's, the report, the other tasks' results, and the whole log."""

    state: str
    run_id: str
    tasks: dict[str, str]
    report: dict[str, Any] | None
    returned: dict[str, Any]
    log: str

    @property
    def said(self) -> str:
        """The log in one line: for sentences that it shows wrapped."""
        return " ".join(self.log.split())


def run_dag(
    environment: Mapping[str, str], dag_id: str, conf: dict[str, Any], marked: str = "", python: Python = fresh
) -> DagRun:
    """Runs a DAG to its end. `marked` is a pattern of tasks that are not run but marked as successful (an approval would wait for
    ever). Raises AssertionError if the process ended before the run."""
    arguments = ["-m", "dev.run_dag", dag_id, json.dumps(conf), *([marked] if marked else [])]
    done = python(arguments, {**environment, "PYTHONPATH": str(ROOT)})
    log = done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not lines:
        raise AssertionError(f"{dag_id} did not end by itself:\n{log[-5000:]}")
    return DagRun(**json.loads(lines[-1].removeprefix(_MARK)), log=log)


def main(dag_id: str, conf: str, marked: str | None = None) -> None:
    from airflow.dag_processing.dagbag import BundleDagBag

    folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
    prefix = os.environ.get("DUALWRITE_PREFIX", "")
    file = dag_id.removeprefix(f"{prefix}_") if prefix else dag_id
    bag = BundleDagBag(f"{folder}/{file}.py", bundle_path=folder, bundle_name="dags-folder")
    dag = bag.dags[dag_id]
    for task in dag.tasks:
        task.retry_delay = timedelta(0)  # each attempt is made, without the half minute before it
    run = dag.test(run_conf=json.loads(conf), mark_success_pattern=marked)
    instances = run.get_task_instances()
    result = {
        "state": str(run.state),
        "run_id": run.run_id,
        "tasks": {ti.task_id: str(ti.state) for ti in instances},
        "report": next((ti.xcom_pull(task_ids="report") for ti in instances if ti.task_id == "report"), None),
        "returned": {ti.task_id: ti.xcom_pull(task_ids=ti.task_id) for ti in instances if ti.map_index < 0},
    }
    print("\n" + _MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
