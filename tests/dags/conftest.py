"""A home for Airflow, and a way to run a DAG in it on real databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev import airflow_home, stack


@dataclass(frozen=True)
class DagRun:
    """How a run ended: the run's state, each task's, the report, and everything that was logged."""

    state: str
    run_id: str
    tasks: dict[str, str]
    report: dict[str, Any] | None
    log: str


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow")
    environment = airflow_home.environment(folder, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    stack.airflow(environment, "db", "migrate")
    return folder


@pytest.fixture
def run_dag(home: Path, emulator: str) -> Callable[..., DagRun]:
    def run(dag_id: str, conf: dict[str, Any], *, project: str, dsn: str, marked: str = "", **variables: str) -> DagRun:
        environment = airflow_home.environment(home, emulator=emulator, project=project, target=dsn)
        done = subprocess.run(
            [sys.executable, "-m", "tests.dags.run_dag", dag_id, json.dumps(conf), *([marked] if marked else [])],
            env={**os.environ, **environment, "PYTHONPATH": str(airflow_home.ROOT), **variables},
            cwd=airflow_home.ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        log = done.stdout + done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, f"{dag_id} did not end by itself:\n{log[-5000:]}"
        return DagRun(**json.loads(lines[-1].removeprefix("RESULT ")), log=log)

    return run
