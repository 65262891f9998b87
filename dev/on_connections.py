"""Runs a command of dualwrite/edge on the connections of the environment, or else on those of a running `make up`."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from typing import Any

from dev import up


def run(name: str, *arguments: Any, example: str = "") -> int:
    """Runs `main(*arguments)` of dualwrite.edge.<name> and returns its exit code; 2 if there are no connections."""
    if not any(variable.startswith("AIRFLOW_CONN_") for variable in os.environ):
        running = up.connections()
        if not running:
            print(
                f"{name}: no connections. Set AIRFLOW_CONN_FIRESTORE_DEFAULT and AIRFLOW_CONN_SUPABASE_DEFAULT, or start "
                f"`make up`. Where Airflow runs: PYTHONPATH=dags python -m dualwrite.edge.{name}{example}."
            )
            return 2
        os.environ |= running
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("AIRFLOW_HOME", home)
        return int(import_module(f"dualwrite.edge.{name}").main(*arguments))
