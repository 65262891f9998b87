"""The edge to Airflow: where a run's parameters come from, and what a missing connection says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dev import airflow_home

SCRIPT = """
import json, sys
from types import SimpleNamespace
from airflow.sdk.api.datamodels._generated import DagRunType
from dualwrite import airflow as edge
from dualwrite.forms import reconcile_form
defaults = {name: param.value for name, param in reconcile_form().items()}
def context(run_type, conf):
    return {"dag_run": SimpleNamespace(run_type=DagRunType(run_type), conf=conf), "params": defaults}
run_type, conf = sys.argv[1], json.loads(sys.argv[2])
try:
    params = edge.reconcile_params(context(run_type, conf))
    print("RESULT", json.dumps({"repair": params.repair, "max_repairs": params.max_repairs, "selected": params.selected,
                                "enabled": edge.dual_write_enabled()}))
except Exception as error:
    print("RESULT", json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


@pytest.fixture
def params(home):
    def found(run_type: str, conf: dict, **variables: str) -> dict:
        environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, run_type, json.dumps(conf)],
            env={**os.environ, **environment, **variables, "PYTHONPATH": str(airflow_home.ROOT / "dags")},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stderr[-2000:]
        return dict(json.loads(lines[-1].removeprefix("RESULT ")))

    return found


def test_scheduled_runs_take_variables_and_manual_runs_their_form(params):
    variables = {
        "AIRFLOW_VAR_RECONCILE_REPAIR": "missing",
        "AIRFLOW_VAR_RECONCILE_MAX_REPAIRS": "50",
        "AIRFLOW_VAR_RECONCILE_COLLECTIONS": '["users", "posts"]',
    }
    scheduled = params("scheduled", {}, **variables)
    assert (scheduled["repair"], scheduled["max_repairs"], scheduled["selected"]) == ("missing", 50, ["users", "posts"])
    manual = params("manual", {"max_repairs": 7}, **variables)
    assert (manual["repair"], manual["max_repairs"]) == ("off", 7)
    assert scheduled["enabled"] is True


def test_a_variable_that_is_not_what_it_should_be_is_refused(params):
    assert (
        "repair is one of off, missing" in params("scheduled", {}, AIRFLOW_VAR_RECONCILE_REPAIR="everything")["error"]
    )
    assert (
        "dual_write_enabled is true or false" in params("manual", {}, AIRFLOW_VAR_DUAL_WRITE_ENABLED="maybe")["error"]
    )


def test_a_missing_connection_says_what_to_add(firestore, target_dsn, run_dag):
    run = run_dag(
        "backfill_gap", {}, project=firestore.project, dsn=target_dsn, AIRFLOW_CONN_SUPABASE_DEFAULT="postgres://"
    )
    assert run.state == "failed"
    assert "Postgres must answer" in run.log
    assert run.tasks["preflight"] == "failed"
