"""Runs one DAG in this process, as `airflow dags test` does, and prints how each task ended as a line of JSON.

Usage: python -m tests.dags.run_dag DAG_ID CONF_AS_JSON [TASKS_TO_MARK_AS_SUCCESS]
"""

from __future__ import annotations

import json
import os
import re
import sys

from airflow.dag_processing.dagbag import BundleDagBag


def main(dag_id: str, conf: str, marked: str | None = None) -> None:
    folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
    bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
    run = bag.dags[dag_id].test(run_conf=json.loads(conf), mark_success_pattern=re.compile(marked) if marked else None)
    instances = run.get_task_instances()
    result = {
        "state": str(run.state),
        "run_id": run.run_id,
        "tasks": {ti.task_id: str(ti.state) for ti in instances},
        "report": next((ti.xcom_pull(task_ids="report") for ti in instances if ti.task_id == "report"), None),
    }
    print("\nRESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
