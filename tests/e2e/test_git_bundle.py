"""The DAGs out of a Git remote: a run keeps the version that it began with, engine and SQL files included."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import airflow_api, airflow_home, processes, stack
from dev.airflow_api import Airflow

FIRST = "rows were written. "
SECOND = "rows were written by the second version. "


PATIENCE = 600
"""Seconds that a run may take on a busy machine."""


class Remote:
    """A repository on this machine, with what a Git bundle takes along."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("dags", "sql"):
            shutil.copytree(airflow_home.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self._git("init", "-q", "-b", "main")
        self.first = self.commit("first")

    def _git(self, *arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self._git("add", "-A")
        self._git("commit", "-q", "-m", message)
        return self._git("rev-parse", "HEAD")


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


@pytest.fixture
def airflow(tmp_path: Path, remote: Remote) -> Iterator[Airflow]:
    port, password = processes.free_port(), secrets.token_urlsafe(12)
    bundle = {
        "name": "dual-write",
        "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
        "kwargs": {
            "repo_url": str(remote.folder),
            "tracking_ref": "main",
            "subdir": "dags",
            "refresh_interval": 5,
        },
    }
    with contextlib.ExitStack() as parts:
        folder = tmp_path / "stack"
        folder.mkdir()
        running = parts.enter_context(stack.databases(folder, port=port))
        running.environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps([bundle])
        running.environment["AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL"] = "2"
        running.environment["AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"] = "30"
        running.environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"] = str(folder / "bundles")
        parts.enter_context(stack.airflow_components(running, port, {"admin": password}))
        yield airflow_api.login(f"http://127.0.0.1:{port}", "admin", password)


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


def _wait_for_a_parse(airflow: Airflow, dag_id: str) -> None:
    """Waits until a DAG's file has just been parsed: the next time is half a minute away. A parse that is under way while a
    new commit arrives is kept under the new one, and takes the version along that runs began with (Airflow 3.3)."""
    parsed = [airflow.call("GET", f"/api/v2/dags/{dag_id}/details")["last_parsed_time"] for _ in range(2)]
    deadline = time.monotonic() + 300
    while parsed[0] == parsed[1] and time.monotonic() < deadline:
        time.sleep(0.5)
        parsed[1] = airflow.call("GET", f"/api/v2/dags/{dag_id}/details")["last_parsed_time"]
    assert parsed[0] != parsed[1], "its file is parsed every half minute"


def _bundle_versions(airflow: Airflow, dag_id: str, run: str) -> set[str]:
    found = airflow.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run}")
    return {version["bundle_version"] for version in found["dag_versions"]}


def _log(airflow: Airflow, dag_id: str, run: str) -> str:
    return json.dumps(airflow.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run}/taskInstances/report/logs/1"))


@pytest.mark.timeout(2400)
def test_a_run_that_waits_for_a_person_ends_in_the_version_it_began_with(airflow, remote):
    _version(airflow, "apply_migrations", remote.first)
    run = airflow.trigger("apply_migrations", mode="apply")
    assert airflow.wait("apply_migrations", run, PATIENCE) == "success", "sql/ came along"
    waiting = airflow.trigger("backfill_gap", mode="review", collections=["users"], grace_seconds=0.5)
    deadline = time.monotonic() + PATIENCE
    while airflow.states("backfill_gap", waiting).get("approve") != "awaiting_input":
        assert time.monotonic() < deadline, airflow.states("backfill_gap", waiting)
        time.sleep(1)

    engine = remote.folder / "dags/dualwrite/runs/backfill.py"
    engine.write_text(engine.read_text().replace(FIRST, SECOND))
    dag = remote.folder / "dags/backfill_gap.py"
    dag.write_text(dag.read_text().replace('"supabase"]', '"supabase", "second"]'))
    _wait_for_a_parse(airflow, "backfill_gap")
    second = remote.commit("second")
    assert second != remote.first
    _version(airflow, "backfill_gap", second)

    airflow.answer("backfill_gap", waiting, "Approve")
    assert airflow.wait("backfill_gap", waiting, PATIENCE) in ("success", "failed")
    assert _bundle_versions(airflow, "backfill_gap", waiting) == {remote.first}
    log = _log(airflow, "backfill_gap", waiting)
    assert FIRST in log
    assert SECOND not in log, "the engine is the first version's too"

    after = airflow.trigger("backfill_gap", mode="apply", collections=["users"], grace_seconds=0.5)
    assert airflow.wait("backfill_gap", after, PATIENCE) in ("success", "failed")
    assert _bundle_versions(airflow, "backfill_gap", after) == {second}
    assert SECOND in _log(airflow, "backfill_gap", after)
