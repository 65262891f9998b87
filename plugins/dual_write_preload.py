"""Imports our tasks' libraries in the scheduler, the DAG processor and the triggerer, before the first two fork.

LocalExecutor forks a process for each task, and the DAG processor one for each parse. A fork inherits its parent's imports, which
otherwise take it a second of CPU. Only libraries are imported, not the bundle's own modules: these belong to a version of the
bundle, which a task's process reads itself. Other executors' workers aren't forked from the scheduler, and gain nothing.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

log = logging.getLogger(__name__)

LIBRARIES = (
    "airflow.providers.google.common.hooks.base_google",
    "airflow.providers.postgres.hooks.postgres",
    "airflow.providers.standard.decorators.sensor",
    "airflow.providers.standard.decorators.short_circuit",
    "airflow.providers.standard.operators.hitl",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.sensors.external_task",
    "google.cloud.firestore_v1.services.firestore",
    "psycopg",
    "sentry_sdk",
)
"""None of them starts a thread or opens a file or connection on import, so a fork inherits them intact."""


class _Preloading:
    @hookimpl
    def on_starting(self, component: Any) -> None:
        """Called as a scheduler, DAG processor or triggerer starts, and in each task's own process."""
        if type(component).__name__ != "Job":  # by name, because importing the class would import Airflow's database
            return
        for name in LIBRARIES:
            try:
                importlib.import_module(name)
            except ImportError as error:  # tasks only take a second longer
                log.warning("Tasks will each import %s themselves: %s", name, error)


class DualWritePreload(AirflowPlugin):
    """Registers the listener with Airflow."""

    name = "dual_write_preload"
    listeners = [_Preloading()]  # noqa: RUF012 - Airflow's own declaration
