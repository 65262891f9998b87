"""The oldest Airflow that requirements.txt promises, with the oldest of each package: every DAG file imports there.

The newest is what all other tests run on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev import airflow_home
from tests.dags.test_policy import FILES, LOOK


@pytest.mark.timeout(900)  # downloads and installs an Airflow of its own, where uv's cache has none
def test_every_dag_imports_with_the_lower_bounds_of_the_requirements(tmp_path: Path):
    uv, python = str(airflow_home.BIN / "uv"), str(tmp_path / "venv/bin/python")
    lowest = tmp_path / "lowest.txt"
    compile_ = ["pip", "compile", "-q", "--resolution", "lowest-direct", "--python", sys.executable]
    for command in (
        [*compile_, str(airflow_home.ROOT / "requirements.txt"), "-o", str(lowest)],
        ["venv", "-q", "--python", sys.executable, str(tmp_path / "venv")],
        ["pip", "install", "-q", "--python", python, "-r", str(lowest)],
    ):
        subprocess.run([uv, *command], check=True, capture_output=True, timeout=600)
    versions = dict(line.split("==") for line in lowest.read_text().splitlines() if line[:1].isalpha() and "==" in line)
    assert versions["apache-airflow-core"].startswith("3.2.0")
    assert versions["apache-airflow-task-sdk"].startswith("1.2.0")
    environment = airflow_home.environment(tmp_path, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    environment["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = "300"
    done = subprocess.run(
        [python, "-c", LOOK], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    found = json.loads(lines[-1].removeprefix("RESULT "))
    assert found["errors"] == {}
    assert set(found["dags"]) == {file.stem for file in FILES}
