"""Modules that a DAG file's tasks import on use, not when the file is parsed."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LazyModule:
    """Stands in for a module, and imports it when an attribute is used.

    Airflow parses the DAG files every few seconds, and the engine imports Google's client and psycopg: a second or two that only
    tasks need.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
