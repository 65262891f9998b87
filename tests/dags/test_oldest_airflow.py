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
from tests.dags.test_policy import FILES, LOOK, PRELOAD, banned


@pytest.mark.timeout(900)  # downloads and installs an Airflow of its own, where uv's cache has none
def test_every_dag_imports_with_the_requirements_lower_bounds(tmp_path: Path):
    uv, python = str(airflow_home.BIN / "uv"), str(tmp_path / "venv/bin/python")
    lowest = tmp_path / "lowest.txt"
    compile_ = ["pip", "compile", "-q", "--resolution", "lowest-direct", "--python", sys.executable]
    for command in (
        [*compile_, str(airflow_home.ROOT / "requirements.txt"), "-o", str(lowest)],
        ["venv", "-q", "--python", sys.executable, str(tmp_path / "venv")],
        ["pip", "install", "-q", "--python", python, "-r", str(lowest)],
    ):
        links = {"UV_LINK_MODE": "symlink"}  # the cache may lie on another disk, and a copy is half a gigabyte
        subprocess.run([uv, *command], check=True, capture_output=True, timeout=600, env={**os.environ, **links})
    versions = dict(line.split("==") for line in lowest.read_text().splitlines() if line[:1].isalpha() and "==" in line)
    assert versions["apache-airflow-core"].startswith("3.2.0")
    assert versions["apache-airflow-task-sdk"].startswith("1.2.0")
    environment = airflow_home.environment(tmp_path, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    environment["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = "300"

    def result_of(program: str, *arguments: str) -> dict:
        done = subprocess.run(
            [python, "-c", program, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stderr[-3000:]
        return json.loads(lines[-1].removeprefix("RESULT "))

    found = result_of(LOOK, banned())
    assert found["errors"] == {}
    assert set(found["dags"]) == {file.stem for file in FILES}
    preloaded = result_of(PRELOAD, str(airflow_home.ROOT / "plugins/dual_write_preload.py"))
    assert set(preloaded["wanted"]) <= set(preloaded["after"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("airflow", "day"), [("3.2.0", "2026-04-08"), ("3.3.2", "2026-09-18")])
def test_the_requirements_resolve_with_the_newest_of_everything(tmp_path, airflow, day):
    """The newest on the day of Airflow's release. Airflow's constraints for a release hold about that. Those files
    themselves aren't on a package registry."""
    given = tmp_path / "airflow.txt"
    given.write_text(f"apache-airflow=={airflow}\n")
    done = subprocess.run(
        [str(airflow_home.BIN / "uv"), "pip", "compile", "-q", "--python", sys.executable, "--exclude-newer", f"{day}T23:00:00Z",
         str(airflow_home.ROOT / "requirements.txt"), str(given)],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"apache-airflow=={airflow}\n" in done.stdout
