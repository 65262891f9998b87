"""The edge to Airflow: where a run's parameters come from, and what a missing connection says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dev import airflow_home

SCRIPT = """
import json, sys
from types import SimpleNamespace
from airflow.sdk.api.datamodels._generated import DagRunType
from dualwrite.edge import airflow as edge
from dualwrite.edge.forms import reconcile_form
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


SOURCE_SCRIPT = """
import json
from dualwrite.edge import airflow as edge
try:
    with edge.clearly(), edge.source() as source:
        print("RESULT", json.dumps({"database": source._database}))
except Exception as error:
    print("RESULT", json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


@pytest.fixture
def edge(home):
    """Runs a script beside the bundle in a process of its own, and gives what it printed: (its RESULT, everything)."""

    def run(script: str, *args: str, **variables: str) -> tuple[dict, str]:
        environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
        environment |= {**variables, "PYTHONPATH": str(airflow_home.ROOT / "dags")}
        done = subprocess.run(
            [sys.executable, "-c", script, *args],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stderr[-2000:]
        return dict(json.loads(lines[-1].removeprefix("RESULT "))), done.stdout + done.stderr

    return run


@pytest.fixture
def params(edge):
    def found(run_type: str, conf: dict, **variables: str) -> dict:
        return edge(SCRIPT, run_type, json.dumps(conf), **variables)[0]

    return found


@pytest.fixture
def firestore_of(edge):
    """What `source()` makes of a connection with this extra, where no emulator is named (as in production)."""

    def made(extra: dict, **variables: str) -> tuple[dict, str]:
        connection = json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
        nowhere = {"FIRESTORE_EMULATOR_HOST": "", "NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": ""}
        return edge(SOURCE_SCRIPT, AIRFLOW_CONN_FIRESTORE_DEFAULT=connection, **nowhere | variables)

    return made


@pytest.fixture(scope="module")
def service_account() -> dict:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account",
        "project_id": "prod-1",
        "private_key_id": "a",
        "private_key": pem,
        "client_email": "dualwrite@prod-1.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:1/token",
    }


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


def test_a_service_accounts_key_names_the_project_and_the_extra_the_database(firestore_of, service_account):
    made, _ = firestore_of({"keyfile_dict": json.dumps(service_account), "database": "other"})
    assert made == {"database": "projects/prod-1/databases/other"}
    made, _ = firestore_of({"keyfile_dict": json.dumps(service_account), "project": "staging-2"})
    assert made == {"database": "projects/staging-2/databases/(default)"}


@pytest.mark.parametrize(
    "extra", [{}, {"key_path": "/nowhere/key.json"}, {"keyfile_dict": "half"}, {"keyfile_dict": "{"}]
)
def test_a_key_that_cannot_be_used_says_so_and_quotes_nothing_of_it(firestore_of, service_account, extra):
    if extra.get("keyfile_dict") == "half":
        extra = {"keyfile_dict": json.dumps({k: v for k, v in service_account.items() if k != "client_email"})}
    made, everything = firestore_of({"project": "p", **extra})
    assert "The key of connection firestore_default must be usable" in made["error"]
    assert "Set Keyfile Path" in made["error"]
    assert made["error"].startswith("AirflowFailException")  # another try would read the same key
    assert service_account["private_key"].splitlines()[1] not in everything


def test_a_key_without_a_project_is_refused(firestore_of, service_account, tmp_path):
    key = tmp_path / "key.json"
    key.write_text(json.dumps({k: v for k, v in service_account.items() if k != "project_id"}))
    made, _ = firestore_of({"key_path": str(key)})
    assert "A project must be named" in made["error"]
