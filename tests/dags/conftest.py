"""A home for Airflow, and a way to run a DAG in it on real databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev import airflow_home, stack
from dev.run_dag import DagRun
from dev.run_dag import run_dag as run_in_airflow
from dev.warm_airflow import WarmAirflow
from tests.shape import report_faults


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow")
    environment = airflow_home.environment(folder, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    stack.airflow(environment, "db", "migrate")
    return folder


@pytest.fixture(scope="session")
def warm_airflow(home: Path) -> Iterator[WarmAirflow]:
    """Runs a program in a process that has Airflow imported (see dev/warm_airflow.py)."""
    environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    with WarmAirflow({k: v for k, v in environment.items() if not k.startswith("AIRFLOW_CONN_")}) as airflow:
        yield airflow


@pytest.fixture
def run_dag(warm_airflow: WarmAirflow, home: Path, emulator: str) -> Callable[..., DagRun]:
    def run(dag_id: str, conf: dict[str, Any], *, project: str, dsn: str, marked: str = "", **variables: str) -> DagRun:
        environment = airflow_home.environment(home, emulator=emulator, project=project, target=dsn)
        ended = run_in_airflow({**environment, **variables}, dag_id, conf, marked, warm_airflow)
        assert ended.report is None or report_faults(ended.report) == []
        return ended

    return run
