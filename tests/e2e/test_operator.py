"""The product as an operator uses it: Airflow's own scheduler, API and pages in a real browser, on real databases.

The tests follow one another, as a first day does.
"""

from __future__ import annotations

import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from google.cloud import firestore
from playwright.sync_api import Page, expect

from dev import airflow_api, stack
from tests.e2e.browser import chromium, elsewhere, log_in, needs_chromium, parity, serious
from tests.e2e.conftest import Operated, picture
from tests.support import one
from tests.worlds import user

RECONCILE, BACKFILL = "reconcile_dual_writes", "backfill_gap"
pytestmark = pytest.mark.timeout(2400)
TRAVERSALS = ("/parity/..%2Fdual_write_parity.py", "/parity/%2e%2e%2f%2e%2e%2fairflow.cfg", "/parity/%2Fetc%2Fpasswd", "/parity//etc/passwd",
              "/parity/..%5Cdual_write_parity.py", "/parity/page.js%00.html", "/parity/....//....//etc/passwd")  # fmt: skip
SLOW = 900_000
"""Milliseconds that a run may take on a busy machine."""


@pytest.fixture(scope="module")
def window(airflow) -> Iterator[Page]:
    """A browser in which admin has logged in."""
    with chromium() as browser:
        found = browser.new_page(viewport={"width": 1280, "height": 900})
        found.set_default_timeout(60_000)
        log_in(found, airflow.url, "admin", airflow.passwords["admin"])
        yield found


@pytest.fixture
def page(window) -> Iterator[Page]:
    """That window, for one test: what is left open asks Airflow every second."""
    yield window
    window.goto("about:blank")


def test_no_route_of_the_page_is_open_without_login_and_right(airflow):
    """The right is that to read the DAG."""
    assert urllib.request.urlopen(airflow.url + "/api/v2/version").status == 200, "the API itself answers"
    nobody = airflow_api.Airflow(airflow.url, "")
    stranger = airflow_api.login(airflow.url, "stranger", airflow.passwords["stranger"])
    viewer = airflow_api.login(airflow.url, "viewer", airflow.passwords["viewer"])
    for path in ("/parity/", "/parity/page.js", "/parity/parity.css", "/parity/openapi.json", "/parity/docs"):
        assert nobody.status("GET", path) == 401, path
        assert stranger.status("GET", path) == 403, path
    assert viewer.status("GET", "/parity/") == 200
    # A redirect (to a path without the last slash) would lead to whatever host the request names.
    for path in ("/parity/none.js", "/parity/openapi.json", "/parity/page.js/", *TRAVERSALS):
        assert viewer.status("GET", path) == 404, path
    for method, path, body in (
        ("POST", f"/api/v2/dags/{RECONCILE}/dagRuns", {"logical_date": None}),
        ("PATCH", f"/api/v2/dags/{RECONCILE}", {"is_paused": False}),
    ):
        assert viewer.status(method, path, body) == 403, "a viewer writes nothing, with the page or without it"
    request = urllib.request.Request(airflow.url + "/parity/", headers={"Authorization": f"Bearer {viewer.token}"})
    with urllib.request.urlopen(request) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_what_forks_tasks_and_parses_has_imported_libraries(airflow):
    """Each task and each parse would import them anew. The API server, which forks neither, doesn't carry them."""

    def has(name: str, library: str) -> bool:
        return library in Path(f"/proc/{airflow.components[name].pid}/maps").read_text()

    for library in ("cygrpc", "psycopg_binary"):  # their code is compiled, so the kernel knows who has it
        assert [name for name in stack.COMPONENTS if has(name, library)] == ["scheduler", "dag-processor", "triggerer"]


def test_an_apply_by_the_scheduler_fills_the_gap_and_is_verified(airflow):
    run = airflow.api.trigger(BACKFILL, mode="apply", collections=["blocks"], grace_seconds=0.5)
    assert airflow.api.wait(BACKFILL, run, SLOW / 1000) == "success", airflow.api.states(BACKFILL, run)
    report = airflow.api.report(BACKFILL, run)
    checked = {c["collection"]: c["verification"] for c in report["collections"] if c["phase"] == "verify"}
    assert checked == {"users": "verified", "blocks": "verified"}
    assert one(airflow.stack.target, "SELECT count(*) FROM dualwrite.watermarks") == 2
    states = airflow.api.states(BACKFILL, run)
    assert states["collections.posts"] == "skipped"
    tasks = airflow.api.call("GET", f"/api/v2/dags/{BACKFILL}/dagRuns/{run}/taskInstances?limit=100")["task_instances"]
    assert [t["hostname"] for t in tasks if t["task_id"] == "collections.posts"] == [""], "it started no process"
    assert states["collections.blocks"] == "success"


@needs_chromium
def test_a_failed_run_is_repaired_from_the_page_in_three_clicks(airflow, page, capsys):
    """It is a scheduled one, and all is green afterwards. Runs after the backfill of blocks."""
    client = firestore.Client(project=stack.PROJECT)
    one_, other = [d.id for d in client.collection("users").limit(2).stream()]
    client.document(f"users/{other}/blockedUsers/{one_}").set({"blockedAt": datetime.now(UTC)})
    airflow.api.unpause(RECONCILE)
    run = _next_run(airflow, "scheduled")
    assert airflow.api.wait(RECONCILE, run, SLOW / 1000) == "failed"
    states = airflow.api.states(RECONCILE, run)
    assert {t for t, s in states.items() if s == "failed"} == {"report"}
    [alert] = airflow.api.report(RECONCILE, run)["alerts"]
    assert alert["text"].startswith("blocks: 1 missing since")
    assert alert["press"]["conf"] == {"repair": "missing", "collections": ["blocks"]}
    _the_log_ends_with_the_alert(airflow, page, run)

    began = time.monotonic()
    page.goto(f"{airflow.url}/dags/{RECONCILE}/runs/{run}")
    page.get_by_role("link", name="Parity", exact=True).click()  # 1: from the failed run to the page
    frame = page.frame_locator("iframe[title=Parity]")
    expect(frame.locator(".hero.bad h2")).to_contain_text("1 difference is open", timeout=60_000)
    picture(page, "parity-drift")
    [inside] = [f for f in page.frames if f.url.startswith(f"{airflow.url}/parity/")]
    assert serious(inside) == []
    frame.get_by_role("button", name="Repair… missing blocks").click()  # 2
    form = frame.get_by_role("dialog")
    expect(form.get_by_label("Repair", exact=True)).to_have_value("missing")
    expect(form.get_by_label("blocks")).to_be_checked()
    expect(form.get_by_label("posts")).not_to_be_checked()
    picture(page, "parity-repair")
    # Not counted: the scheduled run had no grace to speak of here; in production the difference is old enough by now.
    form.get_by_text("Fine tuning").click()
    form.get_by_label("Grace").fill("1")
    form.get_by_role("button", name="Insert 1 row").click()  # 3
    expect(frame.locator(".note")).to_contain_text("Asked for", timeout=60_000)
    # At a quarter past, a scheduled run goes first. (A run of ten seconds may be between two tasks whenever the page asks.)
    expect(frame.locator(".steps .step")).not_to_have_count(0, timeout=60_000)
    expect(frame.get_by_role("button", name="Look now…")).to_be_disabled()
    picture(page, "parity-running")
    expect(frame.locator(".note")).to_contain_text("1 row inserted in blocks.", timeout=SLOW)
    # Eleven collections were never compared here: the page doesn't claim more than it knows.
    expect(frame.locator(".hero h2")).to_contain_text("Nothing differs in what was compared so far", timeout=SLOW)
    expect(frame.locator(".hero")).to_contain_text("never compared completely: boards")
    took = time.monotonic() - began
    picture(page, "parity-green")
    rows = "SELECT count(*) FROM blocks WHERE blocker_id = %s AND blocked_id = %s"
    assert one(airflow.stack.target, rows, other, one_) == 1
    green = _next_run(airflow, "manual")
    assert airflow.api.report(RECONCILE, green)["open"] == []
    events = airflow.api.call("GET", f"/api/v2/assets/events?source_dag_id={RECONCILE}")["asset_events"]
    told = {(e["name"], e["source_run_id"]) for e in events}
    assert told == {("dual-write-green", green)}, "the failed run says nothing, and two collections are no parity"
    with capsys.disabled():
        sys.stdout.write(f"\nfrom a failed run to a repaired one: 3 clicks, {took:.0f} s\n")


@needs_chromium
def test_a_hundred_rows_take_three_clicks_and_an_excuse_seconds(airflow, page, capsys):
    """Old documents, as a loss that a sweep finds: a hundred and one new ones would say that dual-write is off."""
    client = firestore.Client(project=stack.PROJECT)
    old = datetime(2026, 2, 1, tzinfo=UTC)
    ids = [f"lost{n:03}" for n in range(101)]
    for name in ids:
        client.document(f"users/{name}").set(user(name, createdAt=old, updatedAt=old))
    run = airflow.api.trigger(RECONCILE, scope="sweep", collections=["users"], grace_seconds=0.5)
    assert airflow.api.wait(RECONCILE, run, SLOW / 1000) == "failed"
    frame = parity(page, airflow.url)
    expect(frame.locator(".hero.bad h2")).to_contain_text("101 differences are open", timeout=SLOW)

    frame.locator("#list summary").click()
    frame.get_by_label("search").fill("lost1")
    with page.expect_download() as saved:  # Airflow's frame around the page is sandboxed
        frame.get_by_role("button", name="Download CSV").click()
    lines = saved.value.path().read_text().splitlines()
    assert (saved.value.suggested_filename, len(lines)) == ("open-differences.csv", 2)
    frame.locator("#list summary").click()

    began = time.monotonic()
    frame.locator("#open summary").first.click()
    frame.get_by_role("button", name=f"Excuse… users {ids[0]}").first.click()
    form = frame.get_by_role("dialog")
    form.get_by_label("Reason").fill("test accounts")
    form.get_by_role("button", name="Excuse 1 difference").click()
    expect(frame.locator(".note")).to_contain_text("100 differences are open", timeout=SLOW)
    excused = time.monotonic() - began

    began = time.monotonic()
    page.goto(f"{airflow.url}/dags/{RECONCILE}/runs/{quote(run)}")
    page.get_by_role("link", name="Parity", exact=True).click()  # 1
    frame.get_by_role("button", name="Repair… missing users").click()  # 2
    form.get_by_role("button", name="Insert 100 rows").click()  # 3
    expect(frame.locator(".note")).to_contain_text("100 rows inserted in users.", timeout=SLOW)
    repaired = time.monotonic() - began
    assert one(airflow.stack.target, "SELECT count(*) FROM users WHERE id LIKE 'lost%%'") == 100
    with capsys.disabled():
        sys.stdout.write(
            f"\nan excuse in effect: {excused:.0f} s; a hundred rows repaired: 3 clicks, {repaired:.0f} s\n"
        )


@needs_chromium
def test_the_history_of_a_key_tells_what_the_journal_has(airflow, page):
    """Runs after the repair of a hundred."""
    frame = parity(page, airflow.url)
    frame.get_by_label("Collection and key").fill("users:lost007")
    frame.get_by_role("button", name="Show its history").click()
    dialog = frame.get_by_role("dialog")
    expect(dialog.locator("tbody")).to_contain_text("found: missing", timeout=60_000)
    expect(dialog.locator("tbody")).not_to_contain_text("row inserted")
    dialog.get_by_role("button", name="Ask the journal…").click()
    frame.get_by_role("dialog").get_by_role("button", name="Look at these").click()
    expect(frame.locator(".note")).to_contain_text("Asked for", timeout=60_000)
    expect(frame.locator(".note")).not_to_contain_text("Asked for", timeout=SLOW)
    frame.get_by_label("Collection and key").fill("users:lost007")
    frame.get_by_role("button", name="Show its history").click()
    expect(dialog.locator("tbody")).to_contain_text("row inserted", timeout=60_000)
    picture(page, "parity-history")


@needs_chromium
def test_the_switch_is_a_variable_that_only_its_editors_change(airflow, page):
    """Airflow's own right, and its audit log."""
    viewer = airflow_api.login(airflow.url, "viewer", airflow.passwords["viewer"])
    assert viewer.call("GET", "/parity/may")["switch"] is False
    assert viewer.status("POST", "/api/v2/variables", {"key": "dual_write_enabled", "value": "false"}) == 403
    frame = parity(page, airflow.url)
    for word, value in (("off", "false"), ("on", "true")):
        frame.get_by_role("button", name=f"Switch {word}…").click()
        frame.get_by_role("dialog").get_by_role("button", name=f"Switch {word}").click()
        expect(frame.locator("#switch h2")).to_have_text(f"Dual-write {word}", timeout=60_000)
        assert airflow.api.call("GET", "/api/v2/variables/dual_write_enabled")["value"] == value
    frame.locator("#interventions summary").click()
    for word in ("off", "on"):
        expect(frame.locator("#interventions")).to_contain_text(f"admin switched dual-write {word}")
    page.goto(airflow.url)


def _next_run(airflow: Operated, kind: str) -> str:
    """The newest run of reconcile_dual_writes of a kind."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = airflow.api.call("GET", f"/api/v2/dags/{RECONCILE}/dagRuns?order_by=-run_after")["dag_runs"]
        if runs := [r["dag_run_id"] for r in found if r["run_type"] == kind]:
            return str(runs[0])
        time.sleep(0.5)
    raise AssertionError(f"no {kind} run was begun")


def _the_log_ends_with_the_alert(airflow: Operated, page: Page, run: str) -> None:
    page.goto(f"{airflow.url}/dags/{RECONCILE}/runs/{run}/tasks/report")
    page.get_by_text("This run fails:").wait_for(timeout=60_000)
    log = page.locator("main, #root").first.inner_text()
    picture(page, "log")
    assert log.index("1 difference is open") < log.index("------") < log.index("This run fails:")
    assert "Traceback" not in log
    assert "task_runner.py" not in log, "Airflow's own frames stand around the alert"


@needs_chromium
def test_a_viewer_sees_the_page_and_one_line_in_place_of_buttons(airflow, page):
    """Runs after the repair."""
    context = page.context.browser.new_context()
    viewer = context.new_page()
    log_in(viewer, airflow.url, "viewer", airflow.passwords["viewer"])
    frame = parity(viewer, airflow.url)
    expect(frame.locator(".hero h2")).to_contain_text("Nothing differs")
    expect(frame.locator("header")).to_contain_text("ask for the right to trigger reconcile_dual_writes")
    expect(frame.get_by_role("button", name="Look now…")).to_have_count(0)
    stranger = context.browser.new_context().new_page()
    log_in(stranger, airflow.url, "stranger", airflow.passwords["stranger"])
    stranger.goto(f"{airflow.url}/plugin/parity")
    expect(
        stranger.get_by_role("heading", name="404")
    ).to_be_visible()  # Airflow doesn't even show that there is a page
    context.close()


ATTACK = """async ([url, dag]) => {
  const runs = `${url}/api/v2/dags/${dag}/dagRuns`, body = JSON.stringify({ logical_date: null, conf: { repair: "all" } });
  const said = [];
  const json = { "Content-Type": "application/json" }, credentials = "include";
  const tries = [
    [runs, { method: "POST", headers: json, body, credentials }],
    [runs, { method: "POST", headers: { "Content-Type": "text/plain" }, body, credentials, mode: "no-cors" }],
    [`${url}/api/v2/dags/${dag}`, { method: "PATCH", headers: json, body: '{"is_paused": false}', credentials }],
    [`${url}/parity/may`, { credentials }],
    [`${runs}?limit=1`, { credentials }],
  ];
  for (const [to, given] of tries) said.push(await fetch(to, given).then(async (a) => `${a.type} ${await a.text()}`).catch(() => "refused"));
  document.body.innerHTML = `<iframe name="f"></iframe><form method="post" enctype="text/plain" target="f"><input></form>`;
  const form = document.forms[0], [name, value] = body.split(/(?<=:null,)/);
  form.action = runs;
  form.elements[0].name = `${name}"x":"`;
  form.elements[0].value = `",${value}`;
  form.submit();
  await new Promise((done) => setTimeout(done, 2000));
  return said;
}"""
"""Another site's page, which knows all addresses: by script with and without CORS, and by a form whose text is JSON."""


@needs_chromium
def test_another_site_can_do_and_read_nothing_as_the_operator(airflow, page):
    """The operator's browser is logged in, and opens it beside Airflow."""
    asked = f"/api/v2/dags/{RECONCILE}"

    def state() -> tuple[set[str], bool]:
        """Runs that somebody triggered (the schedule begins others meanwhile), and whether the DAG is paused."""
        runs = airflow.api.call("GET", f"{asked}/dagRuns")["dag_runs"]
        triggered = {run["dag_run_id"] for run in runs if run["run_type"] == "manual"}
        return triggered, airflow.api.call("GET", asked)["is_paused"]

    before = state()
    page.goto(airflow.url)
    own = page.evaluate("(path) => fetch(path).then((answer) => answer.status)", asked)
    assert own == 200, "the session is there"
    with elsewhere("<title>elsewhere</title>") as url:
        page.goto(url)
        said = page.evaluate(ATTACK, [airflow.url, RECONCILE])
        page.goto("about:blank")
    assert said == ["refused", "opaque ", "refused", "refused", "refused"]
    assert state() == before


@needs_chromium
def test_each_run_of_the_three_dags_has_a_tab_with_its_report(airflow, page):
    """Runs after the repair; so each DAG has a run that ended."""
    for dag, heading in ((RECONCILE, "Examined"), (BACKFILL, "Verified"), ("apply_migrations", "Migrations")):
        runs = airflow.api.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=run_after&state=success&limit=1")[
            "dag_runs"
        ]
        run = runs[0]["dag_run_id"]
        page.goto(f"{airflow.url}/dags/{dag}/runs/{run}")
        page.get_by_role("link", name="Report", exact=True).click()
        frame = page.frame_locator("iframe[title=Report]")
        expect(frame.get_by_role("heading", name=heading, exact=True)).to_be_visible()


@needs_chromium
def test_airflow_draws_each_dags_grid_and_graph(airflow, page):
    """Its own pages ask other routes than its API: a DAG can run well and have neither. Runs after the backfill."""
    for dag, task in ((RECONCILE, "look_again"), (BACKFILL, "examine_slices"), ("apply_migrations", "verify")):
        grid = {node["id"] for node in airflow.api.call("GET", f"/ui/grid/structure/{dag}")}
        graph = airflow.api.call("GET", f"/ui/structure/structure_data?dag_id={dag}")["nodes"]
        assert task in grid
        assert grid == {node["id"] for node in graph if node["type"] in ("task", "group")}
        page.goto(f"{airflow.url}/dags/{dag}")
        page.get_by_role("link", name=task).first.wait_for()
        picture(page, f"grid-{dag}")


def _answered(airflow: Operated, page: Page, collection: str, answer: str, reason: str) -> dict:
    """Triggers a review, finds it waiting on the Parity page, answers it, and returns the run's report."""
    run = airflow.api.trigger(BACKFILL, mode="review", collections=[collection], grace_seconds=0.5)
    deadline = time.monotonic() + SLOW / 1000
    while airflow.api.states(BACKFILL, run).get("decision") != "awaiting_input":
        assert time.monotonic() < deadline, airflow.api.states(BACKFILL, run)
        time.sleep(1)
    time.sleep(8)  # an answer that comes too soon ends in a state mismatch of Airflow's
    frame = parity(page, airflow.url)
    frame.locator(f"a[href*='{quote(run)}']").first.click()
    page.get_by_role("cell", name=collection, exact=True).first.wait_for()
    page.locator("#element_reason").fill(reason)  # Airflow's label names no field
    picture(page, f"approval-{answer.lower()}")
    with page.expect_response(lambda found: found.request.method == "PATCH"):
        page.get_by_role("button", name=answer, exact=True).click()
    page.goto("about:blank")
    assert airflow.api.wait(BACKFILL, run, SLOW / 1000) in ("success", "failed")
    return airflow.api.report(BACKFILL, run)


@needs_chromium
def test_a_review_that_a_person_rejects_writes_nothing(airflow, page):
    """It is told as a rejection."""
    before = one(airflow.stack.target, "SELECT count(*) FROM drafts")
    report = _answered(airflow, page, "drafts", "Reject", "not before Monday")
    assert report["verdict"] == "Rejected by admin: not before Monday. Nothing was written."
    [drafts] = [c for c in report["collections"] if c["collection"] == "drafts"]
    assert drafts["counts"]["missing"] > 0, "what was rejected stays on record"
    assert one(airflow.stack.target, "SELECT count(*) FROM drafts") == before


@needs_chromium
def test_a_review_shows_what_it_would_write_and_what_it_costs(airflow, page):
    """It writes once approved."""
    before = one(airflow.stack.target, "SELECT count(*) FROM likes")
    report = _answered(airflow, page, "likes", "Approve", "")
    found = {c["collection"]: c for c in report["collections"] if c["phase"] == "gap"}
    assert found["likes"]["inserted"] > 0
    assert one(airflow.stack.target, "SELECT count(*) FROM likes") == before + found["likes"]["inserted"]


@needs_chromium
def test_the_form_explains_itself_and_its_defaults_write_nothing(airflow, page):
    rows = one(airflow.stack.target, "SELECT count(*) FROM posts")
    page.goto(f"{airflow.url}/dags/{BACKFILL}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.get_by_text("dry run: examine and report, write nothing").wait_for()
    text = form.inner_text()
    fields = ["Mode", "Update stale rows", "Collections", "Scope", "Since", "Differences to accept", "Fine tuning"]
    assert [text.index(f) for f in fields] == sorted(text.index(f) for f in fields), "what, where, then what is folded"
    assert "Page size" not in text, "fine tuning is folded"
    picture(page, "form")
    form.get_by_role("button", name="Trigger").click()
    page.wait_for_url(re.compile("/runs/"))
    page.goto("about:blank")
    runs = airflow.api.call("GET", f"/api/v2/dags/{BACKFILL}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    assert airflow.api.wait(BACKFILL, runs[0]["dag_run_id"], SLOW / 1000) == "success"
    assert airflow.api.report(BACKFILL, runs[0]["dag_run_id"])["mode"] == "dry_run"
    assert one(airflow.stack.target, "SELECT count(*) FROM posts") == rows
