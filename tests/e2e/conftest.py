"""One running Airflow for all end-to-end tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from dev import airflow_api, airflow_home, processes, stack
from tests.e2e.browser import chromium
from tests.e2e.parity_stub import DAG, DETAILS, Stub, about, serve

SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder to leave pictures in: SCREENSHOTS=docs/pictures make test."""

POLICY = """
from datetime import timedelta


def task_policy(task):
    task.retry_delay = timedelta(seconds=1)
"""
"""Airflow's own way to change tasks: a retry comes at once. (A killed task is tried again half a minute later, or ten seconds.)"""


@dataclass(frozen=True)
class Operated:
    """A running stack: its databases and Airflow's components, its API as admin, and everybody's passwords."""

    stack: stack.Stack
    components: dict[str, subprocess.Popen[bytes]]
    api: airflow_api.Airflow
    passwords: dict[str, str]

    @property
    def url(self) -> str:
        return self.api.url


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """Started once: a minute, and the migrations applied. The Variables reconcile_* hold for scheduled runs.

    It ends with this folder: what comes after would share the machine with it, and would find its emulator.
    """
    port = processes.free_port()
    passwords = {user: secrets.token_urlsafe(12) for user in airflow_home.USERS}
    with contextlib.ExitStack() as parts:
        running = parts.enter_context(stack.databases(tmp_path_factory.mktemp("stack"), port=port))
        running.environment["AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"] = "600"  # each parse is a process
        running.environment["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"] = "0.5"  # a run is a chain of short tasks
        running.environment["AIRFLOW_VAR_RECONCILE_GRACE_SECONDS"] = "2"
        running.environment["AIRFLOW_VAR_RECONCILE_COLLECTIONS"] = '["users", "blocks"]'
        for age in ("EXAMINED", "SWEPT"):  # the others are left out on purpose
            running.environment[f"AIRFLOW_VAR_RECONCILE_MAX_{age}_AGE_HOURS"] = "0"
        for name in (
            "FIRESTORE_DEFAULT",
            "SUPABASE_DEFAULT",
        ):  # kept by Airflow, as in production: a test can change them
            del running.environment[f"AIRFLOW_CONN_{name}"]
        policy = Path(running.environment["AIRFLOW_HOME"], "config/airflow_local_settings.py")
        policy.parent.mkdir(exist_ok=True)
        policy.write_text(POLICY)
        components = parts.enter_context(stack.airflow_components(running, port, passwords))
        api = airflow_api.login(f"http://127.0.0.1:{port}", "admin", passwords["admin"])
        for body in airflow_home.connections(running.target, stack.PROJECT):
            api.call("POST", "/api/v2/connections", body)
        api.wait_for_dags(3)
        run = api.trigger("apply_migrations", mode="apply")
        assert api.wait("apply_migrations", run, seconds=600) == "success"
        yield Operated(running, components, api, passwords)


def picture(page: Page, name: str) -> None:
    """Leaves a picture of the window where somebody wants one."""
    if SCREENSHOTS:
        folder = Path(SCREENSHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png")


# --- the Parity page beside a made-up API -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve() as found:
        for other in ("backfill_gap", "apply_migrations"):
            found.answers |= about(other, None)
        found.answers[f"dags/{DAG}/details"] = (200, DETAILS)
        yield found


@pytest.fixture
def page(browser, stub) -> Iterator[Page]:  # it closes first: a page whose server is gone complains
    found = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints: list[str] = []
    found.on(
        "console", lambda m: complaints.append(m.text) if m.type == "error" and "status of" not in m.text else None
    )
    found.on("pageerror", lambda e: complaints.append(str(e)))
    yield found
    found.close()
    assert complaints == [], "the browser complains: a script failed, or the content security policy was broken"
