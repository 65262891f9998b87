"""Modules for DAG files that are imported by the tasks that use them, not when the file is parsed."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LazyModule:
    """Stands for a module until something of it is used; then imports it.

    Airflow parses the DAG files every few seconds, and the engine brings Google's client and psycopg: a second or two
    of imports that only a task needs.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
