"""The product as an operator uses it: Airflow's own scheduler, API and form, on real databases."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.cloud import firestore

from dev import processes, stack
from tests.support import one

PASSWORD = secrets.token_urlsafe(12)
ENDED = ("success", "failed")


@dataclass(frozen=True)
class Airflow:
    """A running Airflow, spoken to through its REST API."""

    stack: stack.Stack
    url: str
    token: str

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def trigger(self, dag_id: str, **conf: Any) -> str:
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
        run = self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, seconds: float = 180) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
            if state in ENDED:
                return str(state)
            time.sleep(0.5)
        raise AssertionError(f"{dag_id} {run_id} did not end in {seconds} s: {self.states(dag_id, run_id)}")

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        found = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")
        return {t["task_id"]: str(t["state"]) for t in found["task_instances"]}

    def report(self, dag_id: str, run_id: str) -> dict[str, Any]:
        found = self.call(
            "GET",
            f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/report/xcomEntries/return_value?deserialize=true",
        )
        value = found["value"]
        return dict(json.loads(value) if isinstance(value, str) else value)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as parts:
        running = parts.enter_context(stack.databases(tmp_path_factory.mktemp("stack"), port=port))
        running.environment["AIRFLOW_VAR_RECONCILE_GRACE_SECONDS"] = "2"
        running.environment["AIRFLOW_VAR_RECONCILE_COLLECTIONS"] = '["users", "blocks"]'
        parts.enter_context(stack.airflow_components(running, port, PASSWORD))
        login = json.dumps({"username": "admin", "password": PASSWORD}).encode()
        request = urllib.request.Request(url + "/auth/token", data=login, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = Airflow(running, url, json.load(answer)["access_token"])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and found.call("GET", "/api/v2/dags")["total_entries"] < 3:
            time.sleep(0.5)
        assert found.wait("apply_migrations", found.trigger("apply_migrations", mode="apply")) == "success"
        yield found


def test_an_apply_through_the_scheduler_fills_the_gap_and_is_verified(airflow):
    run = airflow.trigger("backfill_gap", mode="apply", collections=["blocks"], grace_seconds=0.5)
    assert airflow.wait("backfill_gap", run) == "success", airflow.states("backfill_gap", run)
    report = airflow.report("backfill_gap", run)
    checked = {c["collection"]: c["verification"] for c in report["collections"] if c["phase"] == "verify"}
    assert checked == {"users": "verified", "blocks": "verified"}
    assert one(airflow.stack.target, "SELECT count(*) FROM dualwrite.watermarks") == 2
    states = airflow.states("backfill_gap", run)
    assert states["collections.posts"] == "skipped"
    assert states["collections.blocks"] == "success"


def _answered(airflow: Airflow, run: str, answer: str) -> str:
    """Waits for the review's question, answers it, and returns what it showed. The run has ended then."""
    path = f"/api/v2/dags/backfill_gap/dagRuns/{run}"
    deadline = time.monotonic() + 240
    body = ""
    while airflow.call("GET", path)["state"] not in ENDED:
        # An answer that comes too soon ends in a state mismatch of Airflow's; then the retried task asks once more.
        asked = airflow.call("GET", f"{path}/hitlDetails?response_received=false")["hitl_details"]
        if asked and airflow.states("backfill_gap", run)["approve"] == "awaiting_input":
            body = asked[0]["body"]
            time.sleep(8)
            given = {"chosen_options": [answer], "params_input": {}}
            airflow.call("PATCH", f"{path}/taskInstances/approve/-1/hitlDetails", given)
        assert time.monotonic() < deadline, airflow.states("backfill_gap", run)
        time.sleep(1)
    return body


def test_a_review_shows_the_counts_waits_for_a_person_and_then_writes(airflow):
    before = one(airflow.stack.target, "SELECT count(*) FROM likes")
    run = airflow.trigger("backfill_gap", mode="review", collections=["likes"], grace_seconds=0.5)
    assert "| likes |" in _answered(airflow, run, "Approve")
    found = {c["collection"]: c for c in airflow.report("backfill_gap", run)["collections"] if c["phase"] == "gap"}
    assert found["likes"]["inserted"] > 0
    assert one(airflow.stack.target, "SELECT count(*) FROM likes") == before + found["likes"]["inserted"]


def test_a_review_that_a_person_rejects_writes_nothing_and_is_a_success(airflow):
    before = one(airflow.stack.target, "SELECT count(*) FROM drafts")
    run = airflow.trigger("backfill_gap", mode="review", collections=["drafts"])
    _answered(airflow, run, "Reject")
    assert airflow.wait("backfill_gap", run) == "success", airflow.states("backfill_gap", run)
    assert airflow.report("backfill_gap", run)["approval"] == "rejected"
    assert one(airflow.stack.target, "SELECT count(*) FROM drafts") == before


def test_the_scheduled_reconciliation_fails_with_a_link_to_the_fix_and_a_repair_ends_it(airflow):
    """Runs after the backfill of blocks. The Variables reconcile_* hold for the scheduled run alone."""
    client = firestore.Client(project=stack.PROJECT)
    one_, other = [d.id for d in client.collection("users").limit(2).stream()]
    client.document(f"users/{other}/blockedUsers/{one_}").set({"blockedAt": datetime.now(UTC)})
    airflow.call("PATCH", "/api/v2/dags/reconcile_dual_writes", {"is_paused": False})
    deadline = time.monotonic() + 60
    runs: list[dict[str, Any]] = []
    while not runs and time.monotonic() < deadline:
        runs = airflow.call("GET", "/api/v2/dags/reconcile_dual_writes/dagRuns")["dag_runs"]
        time.sleep(0.5)
    assert runs[0]["run_type"] == "scheduled"
    run = runs[0]["dag_run_id"]
    assert airflow.wait("reconcile_dual_writes", run) == "failed"
    states = airflow.states("reconcile_dual_writes", run)
    assert {t for t, s in states.items() if s == "failed"} == {"report"}
    told = airflow.report("reconcile_dual_writes", run)["alerts"]
    [alert] = [a for a in told if a.startswith("blocks: 1 missing since")]
    assert f"with repair = missing at {airflow.url}/dags/reconcile_dual_writes" in alert
    # What the backfill's verification could not make rows of is open too, until a person accepts it.
    excuse = {"excuse": [f"{a.split(':')[0]}:*" for a in told if " rejected since " in a], "excuse_reason": "known"}
    conf = {"repair": "missing", "collections": ["users", "blocks"], "grace_seconds": 1, **excuse}
    mend = airflow.trigger("reconcile_dual_writes", **conf)
    assert airflow.wait("reconcile_dual_writes", mend) == "success", airflow.states("reconcile_dual_writes", mend)
    assert (
        one(airflow.stack.target, "SELECT count(*) FROM blocks WHERE blocker_id = %s AND blocked_id = %s", other, one_)
        == 1
    )
    assert all(line["excused"] for line in airflow.report("reconcile_dual_writes", mend)["open"])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium: apt-get install chromium")
def test_the_form_explains_itself_and_its_defaults_write_nothing(airflow, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    rows = one(airflow.stack.target, "SELECT count(*) FROM posts")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 1800})
        page.goto(airflow.url)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url(re.compile(re.escape(airflow.url) + "/?$"))
        page.goto(f"{airflow.url}/dags/backfill_gap")
        page.get_by_role("button", name="Trigger").first.click()
        form = page.get_by_role("dialog")
        form.get_by_text("Since (the export's time)").wait_for()
        text = form.inner_text()
        for expected in (
            "Mode",
            "dry run: examine and report, write nothing",
            "Collections",
            "A time without one is refused",
        ):
            assert expected in text, expected
        form.get_by_role("button", name="Trigger").click()
        page.wait_for_url(re.compile("/runs/"))
        browser.close()
    runs = airflow.call("GET", "/api/v2/dags/backfill_gap/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    assert airflow.wait("backfill_gap", runs[0]["dag_run_id"]) == "success"
    assert airflow.report("backfill_gap", runs[0]["dag_run_id"])["mode"] == "dry_run"
    assert one(airflow.stack.target, "SELECT count(*) FROM posts") == rows
