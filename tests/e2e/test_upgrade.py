"""The DAGs out of a Git remote: a run keeps the version that it began with, engine and SQL files included.

The last of the end-to-end tests: from here on the running Airflow has its DAGs from there, and not from a folder.
"""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from dev import stack
from dev.airflow_api import Airflow
from tests.e2e.remote import Remote

FIRST = "rows were written. "
SECOND = "rows were written by the second version. "
PATIENCE = 600
"""Seconds that a run may take on a busy machine."""


@pytest.fixture
def remote(airflow, tmp_path) -> Remote:
    remote = Remote(tmp_path / "remote")
    environment = airflow.stack.environment
    environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps([remote.bundle])
    environment["AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL"] = "2"
    # Half a minute by default, within which a DAG that changed again waits for its next parse.
    environment["AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL"] = "0"
    environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"] = str(tmp_path / "bundles")
    for name in ("dag-processor", "scheduler"):  # one parses the files, the other's workers run them
        stack.restart(airflow.stack, airflow.components, name)
    return remote


def _version(airflow: Airflow, dag_id: str, wanted: str, seconds: float = 600) -> None:
    """Waits until Airflow serves a DAG from this commit."""
    deadline = time.monotonic() + seconds
    found = None
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found = airflow.call("GET", f"/api/v2/dags/{dag_id}/details")["latest_dag_version"]
            if found and found["bundle_version"] == wanted:
                return
        time.sleep(1)
    raise AssertionError(f"{dag_id} is not at {wanted}: {found}")


def _bundle_versions(airflow: Airflow, dag_id: str, run: str) -> set[str]:
    found = airflow.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run}")
    return {version["bundle_version"] for version in found["dag_versions"]}


def _log(airflow: Airflow, dag_id: str, run: str) -> str:
    return json.dumps(airflow.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run}/taskInstances/report/logs/1"))


@pytest.mark.timeout(2400)
def test_a_run_that_waits_for_a_person_keeps_its_version(airflow, remote):
    """It ends in the one that it began with."""
    api = airflow.api
    first = remote.head
    _version(api, "apply_migrations", first)
    migrated = api.trigger("apply_migrations", mode="apply")
    assert api.wait("apply_migrations", migrated, PATIENCE) == "success", "sql/ came along"
    assert _bundle_versions(api, "apply_migrations", migrated) == {first}
    _version(api, "backfill_gap", first)
    waiting = api.trigger("backfill_gap", mode="review", collections=["users"], grace_seconds=0.5)
    deadline = time.monotonic() + PATIENCE
    while api.states("backfill_gap", waiting).get("decision") != "awaiting_input":
        assert time.monotonic() < deadline, api.states("backfill_gap", waiting)
        time.sleep(1)

    engine = remote.folder / "dags/dualwrite/runs/report/gap.py"
    engine.write_text(engine.read_text().replace(FIRST, SECOND))
    dag = remote.folder / "dags/backfill_gap.py"
    dag.write_text(dag.read_text().replace('"supabase"]', '"supabase", "second"]'))
    # No file is being parsed just now, or for ten minutes: a parse that is under way while a new commit arrives is kept under
    # the new one, and takes the version along that runs began with (Airflow 3.3). What a commit changes is parsed at once.
    second = remote.commit("second")
    assert second != first
    _version(api, "backfill_gap", second)

    api.answer("backfill_gap", waiting, "Approve")
    assert api.wait("backfill_gap", waiting, PATIENCE) in ("success", "failed")
    assert _bundle_versions(api, "backfill_gap", waiting) == {first}
    log = _log(api, "backfill_gap", waiting)
    assert FIRST in log
    assert SECOND not in log, "the engine is the first version's too"

    after = api.trigger("backfill_gap", mode="apply", collections=["users"], grace_seconds=0.5)
    assert api.wait("backfill_gap", after, PATIENCE) in ("success", "failed")
    assert _bundle_versions(api, "backfill_gap", after) == {second}
    assert SECOND in _log(api, "backfill_gap", after)
