"""The Parity page in a real browser, beside an API that answers what a real one can't be made to answer in seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from dualwrite.model.mapping import Refusal
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Cause, Finding, Verdict, Why
from tests.e2e.browser import chromium, needs_chromium, serious
from tests.e2e.parity_stub import NOW, RUN, Stub, about, report_of, serve

pytestmark = needs_chromium
DAG = "reconcile_dual_writes"
DETAILS = {
    "dag_id": DAG,
    "is_paused": True,
    "params": {
        "repair": {
            "value": "off", "description": "Pressing Trigger is the approval.",
            "schema": {"enum": ["off", "missing", "all"], "title": "Repair", "values_display": {"off": "off: look"}},
        },
        "collections": {
            "value": ["posts", "comments"], "description": "Which.",
            "schema": {"type": "array", "items": {"type": "string", "enum": ["posts", "comments"]}, "title": "Collections"},
        },
        "excuse": {"value": [], "description": "One a line.", "schema": {"type": ["null", "array"], "title": "Excuse"}},
        "excuse_reason": {"value": None, "description": "Why.", "schema": {"type": ["null", "string"], "title": "Reason"}},
        "max_billed_reads": {
            "value": None, "description": "Empty: no limit.",
            "schema": {"type": ["null", "integer"], "minimum": 1, "title": "Billed reads at most"},
        },
        "grace_seconds": {
            "value": 120, "description": "How long.",
            "schema": {"type": "number", "minimum": 0, "maximum": 3600, "title": "Grace"},
        },
    },
}  # fmt: skip


def _collection(name: str, *findings: Finding, matching: int = 5) -> CollectionReport:
    report = CollectionReport(name, "compare")
    report.add_matching(matching)
    for finding in findings:
        report.add(finding)
    return report


MISSING = Finding(Verdict.MISSING, "AbC123", "boards/b/posts/AbC123", cause=Cause(Why.NEVER_ATTEMPTED))
STALE = Finding(Verdict.STALE, "Def456", "boards/b/posts/Def456", columns=("title", "content"))


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


def _open(page: Page, stub: Stub, report: dict[str, Any] | None = None, query: str = "", **changes: Any) -> None:
    stub.answers |= about(DAG, report, **changes)
    page.goto(stub.url + query)
    page.locator("main[aria-busy=false]").wait_for()


def test_what_differs_is_said_first_with_a_button_that_repairs_just_that(page, stub):
    _open(page, stub, report_of(_collection("posts", MISSING), _collection("comments")))
    expect(page.locator(".hero h2")).to_contain_text("1 difference is open")
    page.get_by_role("button", name="Repair… missing posts").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Repair")).to_have_value("missing")
    expect(dialog.get_by_label("posts")).to_be_checked()
    expect(dialog.get_by_label("comments")).not_to_be_checked()
    assert stub.posted == [], "a form that opens sends nothing"
    dialog.get_by_role("button", name="Trigger").click()
    expect(page.locator(".note")).to_contain_text("was triggered")
    assert stub.posted == [
        (f"dags/{DAG}", {"is_paused": False}),
        (f"dags/{DAG}/dagRuns", {"logical_date": None, "conf": {"repair": "missing", "collections": ["posts"]}}),
    ]


def test_a_missing_row_whose_key_an_extra_row_holds_gets_the_repair_that_can_help(page, stub):
    report = report_of(_collection("posts", MISSING))
    report["open"][0]["reason"] = "unique_key_held_by_extra_row"
    report["alerts"] = ["posts: 1 missing since 2026-11-24T10:00 (1 never_attempted); trigger with repair = all"]
    _open(page, stub, report)
    expect(page.locator(".finding").first).to_contain_text("repair = all")
    page.get_by_role("button", name="Repair… missing posts").click()
    expect(page.get_by_role("dialog").get_by_label("Repair")).to_have_value("all")


def test_nothing_that_differs_is_green_and_the_checklist_says_what_is_lacking(page, stub):
    _open(page, stub, report_of(_collection("posts")))
    expect(page.locator(".hero.good h2")).to_contain_text("The two databases agree")
    expect(page.locator(".answer")).to_have_text("No: 1 condition is not met.")
    expect(page.locator(".checks li.bad")).to_contain_text("14 clean days in a row")
    expect(page.locator(".checks li.bad")).to_contain_text("3 so far")


def test_an_old_report_is_not_sold_as_the_present(page, stub):
    _open(page, stub, report_of(_collection("posts"), at=(NOW - timedelta(days=2)).isoformat()))
    expect(page.locator(".hero.unknown h2")).to_contain_text("agreed when they were last compared")
    expect(page.locator(".answer")).to_contain_text("older than a day")


def test_a_collection_that_was_never_compared_is_named_and_nothing_is_claimed_of_it(page, stub):
    _open(page, stub, report_of(_collection("posts"), declared=["posts", "permissions"]))
    expect(page.locator(".hero.unknown h2")).to_contain_text("Nothing differs in what was compared so far")
    expect(page.locator(".hero")).to_contain_text("never compared completely: permissions")


def test_a_part_that_was_not_examined_is_never_shown_as_fine(page, stub):
    lost = CollectionReport("posts", "compare", not_examined="its task failed")
    why = "posts was not examined: its task failed"
    _open(page, stub, report_of(lost, _collection("comments"), alerts=[why]))
    expect(page.locator(".hero")).to_contain_text(why)
    expect(page.locator(".hero.unknown h2")).to_contain_text("Not proved: 1 of 2 collections")
    expect(page.locator("#collections")).to_contain_text("not examined")


def test_a_run_that_failed_for_another_reason_than_drift_says_so(page, stub):
    why = "write_ops is missing, so nobody can tell whether dual-write is alive"
    _open(page, stub, report_of(_collection("posts"), alerts=[why]))
    expect(page.locator(".hero.unknown h2")).to_contain_text("Nothing differs, but the last run failed")
    expect(page.locator(".hero")).to_contain_text(why)


def test_an_excuse_needs_a_reason_and_names_one_key(page, stub):
    _open(page, stub, report_of(_collection("posts", STALE)))
    page.locator(".finding summary").click()
    page.get_by_role("button", name="Excuse… posts Def456").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Trigger").click()
    assert stub.posted == [], "the browser wants the reason first"
    dialog.get_by_label("Reason").fill("known")
    dialog.get_by_role("button", name="Trigger").click()
    expect(page.locator(".note")).to_contain_text("was triggered")
    assert stub.posted[-1][1]["conf"] == {"excuse": ["posts:Def456"], "excuse_reason": "known"}


def test_a_link_opens_the_form_with_its_values_and_sends_nothing_by_itself(page, stub):
    _open(page, stub, report_of(_collection("posts")), query='?conf={"repair":"all","grace_seconds":7}')
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Repair")).to_have_value("all")
    expect(dialog.get_by_label("Grace")).to_have_value("7")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert stub.posted == []


def test_a_bad_value_that_is_folded_away_is_unfolded_and_not_sent(page, stub):
    _open(page, stub, report_of(_collection("posts", MISSING)), query='?conf={"repair":"missing"}')
    form = page.get_by_role("dialog")
    form.get_by_text("more parameters").click()
    form.get_by_label("Grace").fill("99999")
    form.get_by_text("more parameters").click()
    expect(form.get_by_label("Grace")).to_be_hidden()
    form.get_by_role("button", name="Trigger").click()
    expect(form.get_by_label("Grace")).to_be_visible()
    assert stub.posted == []


def test_a_refusal_of_airflow_is_shown_with_its_reason(page, stub):
    stub.answers[f"POST dags/{DAG}/dagRuns"] = (400, {"detail": "Invalid input for param repair"})
    _open(page, stub, report_of(_collection("posts", MISSING)))
    page.get_by_role("button", name="Look now…").click()
    page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("Invalid input for param repair")


def test_hostile_ids_are_shown_as_text_and_break_nothing(page, stub):
    ids = ["<img src=x onerror=\"document.title='owned'\">", "‮gnp.exe", "é" * 750, "'\"><script>1</script>", "שלום/abc"]
    hostile = Cause("<i>c</i>")  # what no code of ours says
    found = [Finding(Verdict.MISSING, i, f"posts/{i}", reason=Refusal("r<b>"), cause=hostile) for i in ids]
    excused = {
        "collection": "<b>posts</b>",
        "key": ids[0],
        "verdict": "missing",
        "by": "<u>me</u>",
        "reason": "</q><script>",
    }
    report = report_of(
        _collection("posts", *found), excuses=[excused | {"since": NOW.isoformat()}], alerts=["<h1>brake</h1>"]
    )
    _open(page, stub, report)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.title() == "Parity"
    assert page.locator("main img, main script, main u, main i, .hero h1").count() == 0
    expect(page.locator("code").first).to_contain_text("<img src=x")
    width = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, "a long id makes the page scroll sideways"


def test_two_hundred_runs_and_a_hundred_collections_are_shown_at_once(page, stub):
    many = [_collection(f"collection_{i}", *([MISSING] if i % 5 == 0 else [])) for i in range(100)]
    stub.answers |= about(DAG, report_of(*many, runs=200), runs=200)
    began = time.monotonic()
    page.goto(stub.url)
    page.locator("main[aria-busy=false]").wait_for()
    took = time.monotonic() - began
    assert page.locator("#collections tbody > tr:not(.samples)").count() == 100
    assert page.locator("figure.chart").first.locator("g").count() == 200
    assert took < 10, f"{took:.1f} s"
    page.get_by_label("Only the 20 with open").check()
    assert page.locator("#collections tbody > tr:not(.samples):visible").count() == 20


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "Log in again"), (403, "You may not see"), (404, "has no DAG"), (500, "could not be loaded")],
)
def test_an_api_that_fails_is_told_with_what_to_do(page, stub, status, says):
    stub.answers[f"dags/{DAG}"] = (status, {"detail": "no"})
    stub.answers[f"dags/{DAG}/dagRuns"] = (status, {"detail": "no"})
    page.goto(stub.url)
    expect(page.get_by_role("alert")).to_contain_text(says)


def test_before_the_first_run_the_page_says_what_to_do_first(page, stub):
    _open(page, stub, None)
    expect(page.locator("main")).to_contain_text("Nothing has been compared yet")
    expect(page.get_by_role("link", name="apply_migrations")).to_be_visible()


def test_it_says_that_it_loads(page, stub):
    stub.delay = 1
    stub.answers |= about(DAG, report_of(_collection("posts")))
    page.goto(stub.url)
    expect(page.locator("main[aria-busy=true]")).to_have_text("Loading…")
    expect(page.locator(".hero")).to_be_visible()


def test_one_run_is_shown_on_its_own_page(page, stub):
    report = report_of(
        _collection("posts", MISSING), alerts=["posts: 1 missing"], verdict="1 difference is open: 1 missing."
    )
    _open(page, stub, report, query=f"?dag_id={DAG}&run_id={RUN}")
    expect(page.get_by_role("heading", name="1 difference is open")).to_be_visible()
    expect(page.locator("main")).to_contain_text("posts: 1 missing")
    page.goto(f"{stub.url}?dag_id=another&run_id=1")
    expect(page.locator("main")).to_contain_text("belongs to a DAG that this page is not about")


def test_it_is_usable_by_keyboard_alone(page, stub):
    _open(page, stub, report_of(_collection("posts", MISSING)))
    page.locator("h1").click()
    for _ in range(30):
        page.keyboard.press("Tab")
        if "Repair…" in page.evaluate("() => document.activeElement.textContent"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_role("button", name="Trigger").wait_for()
    page.keyboard.press("Enter")  # the focus waits on Trigger
    expect(page.locator(".note")).to_be_visible()
    assert json.dumps(stub.posted).count('"repair": "missing"') == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_serious_in_either_theme_on_a_desk_or_a_phone(browser, stub, theme, width):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    excuse = {
        "collection": "posts",
        "key": "a",
        "verdict": "rejected",
        "by": "admin",
        "reason": "known",
        "since": NOW.isoformat(),
    }
    report = report_of(_collection("posts", MISSING, STALE), _collection("comments"), excuses=[excuse])
    _open(page, stub, report)
    for summary in page.locator("summary").all():
        summary.click()
    assert serious(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    page.get_by_role("button", name="Look now…").click()
    page.get_by_role("button", name="Trigger").wait_for()
    assert serious(page) == []
    page.close()
