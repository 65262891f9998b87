"""A Git repository on this machine with what production's DAG bundle takes along."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from dev import airflow_home


class Remote:
    """A repository that Airflow's Git bundle follows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("dags", "sql"):
            shutil.copytree(airflow_home.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self._git("init", "-q", "-b", "main")
        self.commit("first")

    def _git(self, *arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """The new commit's hash."""
        self._git("add", "-A")
        self._git("commit", "-q", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        return self._git("rev-parse", "HEAD")

    @property
    def bundle(self) -> dict[str, Any]:
        """An entry of Airflow's dag_bundle_config_list."""
        return {
            "name": "dual-write",
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {"repo_url": str(self.folder), "tracking_ref": "main", "subdir": "dags", "refresh_interval": 5},
        }
