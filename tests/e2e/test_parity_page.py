"""The Parity page in a real browser, beside an API that answers what a real one can't be made to answer in seconds."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dualwrite.model.alert import alert
from dualwrite.model.mapping import Refusal
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import VERSION
from dualwrite.model.verdicts import Cause, Finding, Reason, Verdict, Why
from tests.e2e.browser import elsewhere, needs_chromium, serious
from tests.e2e.conftest import picture
from tests.e2e.parity_stub import DAG, DETAILS, NOW, RUN, Stub, about, report_of
from tests.shape import REPORTS, report_faults, undeclared
from tests.unit.test_backfill_told import report_of as gap_report_of

pytestmark = needs_chromium


def _collection(name: str, *findings: Finding, matching: int = 5) -> CollectionReport:
    report = CollectionReport(name, "compare")
    report.add_matching(matching)
    for finding in findings:
        report.add(finding)
    return report


MISSING = Finding(Verdict.MISSING, "AbC123", "boards/b/posts/AbC123", cause=Cause(Why.NEVER_ATTEMPTED))
STALE = Finding(Verdict.STALE, "Def456", "boards/b/posts/Def456", columns=("title", "content"))


def _open(page: Page, stub: Stub, report: dict[str, Any] | None = None, query: str = "", **changes: Any) -> None:
    stub.answers |= about(DAG, report, **changes)
    page.goto(stub.url + query)
    page.locator("main[aria-busy=false]").wait_for()


def test_what_differs_is_said_first_with_the_button_to_repair_it(page, stub):
    """The button repairs just that."""
    _open(page, stub, report_of(_collection("posts", MISSING), _collection("comments")))
    expect(page.locator(".hero h2")).to_contain_text("1 difference is open")
    page.get_by_role("button", name="Repair… missing posts").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Repair")).to_have_value("missing")
    expect(dialog.get_by_label("posts")).to_be_checked()
    expect(dialog.get_by_label("comments")).not_to_be_checked()
    assert stub.posted == [], "a form that opens sends nothing"
    expect(dialog.locator(".effect")).to_contain_text("The DAG is paused: the run waits")
    dialog.get_by_label("unpause it").check()
    expect(dialog.locator(".effect")).not_to_contain_text("The DAG is paused")
    dialog.get_by_role("button", name="Insert 1 row").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    assert stub.posted == [
        (f"dags/{DAG}", {"is_paused": False}),
        (f"dags/{DAG}/dagRuns", {"logical_date": None, "conf": {"repair": "missing", "collections": ["posts"]}}),
    ]


def test_what_a_button_will_do_is_said_by_its_values(page, stub):
    """A fixed text said "Writes nothing" over a form that was set to delete."""
    extra = Finding(Verdict.EXTRA, "Xyz789", "boards/b/posts/Xyz789")
    _open(page, stub, report_of(_collection("posts", MISSING, extra), _collection("comments")))
    page.get_by_role("button", name="Repair… all that is open").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Repair 2 differences")
    expect(dialog.locator(".effect")).to_contain_text("DELETES rows whose documents are gone")
    submit = dialog.locator("button[type=submit]")
    expect(submit).to_have_text("Delete 1 row and insert 1")
    expect(submit).to_have_class("danger")
    expect(dialog.locator(".plan")).to_contain_text("posts, delete: Xyz789")
    submit.click()
    assert stub.posted == [], "the browser wants the confirmation first"
    dialog.get_by_label("to confirm").fill("yes")
    submit.click()
    assert stub.posted == []
    dialog.get_by_label("Repair").select_option("missing")
    expect(submit).to_have_text("Insert 1 row")
    expect(submit).to_have_class("primary")
    expect(dialog.locator(".effect")).not_to_contain_text("DELETES")
    expect(dialog.get_by_label("to confirm")).to_be_hidden()
    dialog.get_by_label("Repair").select_option("off")
    expect(submit).to_have_text("Look now")
    expect(dialog.locator(".effect")).to_contain_text("Writes nothing to your tables")
    dialog.get_by_label("Repair").select_option("all")
    dialog.get_by_label("to confirm").fill("delete")
    submit.click()
    expect(page.locator(".note")).to_be_visible()
    assert stub.posted == [(f"dags/{DAG}/dagRuns", {"logical_date": None, "conf": {"repair": "all"}})]


def test_looking_and_sweeping_can_not_repair(page, stub):
    """Their forms have no field that writes, and say so to Airflow: a Variable or a default can't make it write."""
    _open(page, stub, report_of(_collection("posts", MISSING), _collection("comments")))
    for name in ("Look now…", "Sweep… comments"):
        page.get_by_role("button", name=name).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator(".effect")).to_contain_text("Writes nothing to your tables")
        for summary in dialog.locator("summary").all():
            summary.click()
        assert dialog.locator("#field-repair, #field-excuse, #field-max_repairs").count() == 0
        dialog.locator("button[type=submit]").click()
        expect(dialog).to_be_hidden()
    assert [conf["conf"]["repair"] for _, conf in stub.posted] == ["off", "off"]


def test_a_viewer_has_one_line_in_place_of_buttons(page, stub):
    stub.may = {"trigger": False, "unpause": False}
    _open(page, stub, report_of(_collection("posts", MISSING)), query='?conf={"repair":"all"}')
    expect(page.locator("header")).to_contain_text("ask for the right to trigger reconcile_dual_writes")
    buttons = [b.inner_text() for b in page.get_by_role("button").all()]
    told = [b for b in buttons if "sample" not in b and not b.startswith("History")]
    assert told == ["Refresh", "Show its history"], "they change nothing"
    expect(page.get_by_role("dialog")).to_have_count(0)


RUNNING = {"dag_id": DAG, "dag_run_id": "now", "state": "running", "run_type": "scheduled", "run_after": NOW.isoformat(),
           "start_date": NOW.isoformat()}  # fmt: skip


def test_a_running_run_shows_its_steps_and_locks_the_buttons(page, stub):
    """The old verdict stood there in full colour, with a button that queued a second run."""
    stub.answers |= about(DAG, report_of(_collection("posts", MISSING)))
    [old] = stub.answers[f"dags/{DAG}/dagRuns"][1]["dag_runs"]
    stub.answers[f"dags/{DAG}/dagRuns"] = (200, {"dag_runs": [RUNNING, old]})
    states = {"preflight": "success", "compare": "success", "grace": "up_for_reschedule", "look_again": None}
    tasks = [{"task_id": name, "state": state, "map_index": -1} for name, state in states.items()]
    slices = [{"task_id": "sweep_slices", "state": "success" if i else None, "map_index": i} for i in range(3)]
    stub.answers[f"dags/{DAG}/dagRuns/now/taskInstances"] = (200, {"task_instances": [*tasks, *slices]})
    until = f"dags/{DAG}/dagRuns/now/taskInstances/grace/xcomEntries/until"
    stub.answers[until] = (200, {"value": "2026-11-29T06:33:00+00:00"})
    page.goto(stub.url)
    steps = page.locator(".steps li")
    expect(steps).to_have_text(
        ["✓preflight: done", "●sweep, 2 of 3 slices: in progress", "✓compare: done", "●second look at 06:33 UTC: in progress",
         "○second look: ahead", "○repair: ahead", "○report: ahead"]
    )  # fmt: skip
    expect(page.locator(".hero")).to_contain_text("As it was before the run in progress")
    expect(page.locator(".hero.past")).to_have_count(1)
    for button in ("Look now…", "Repair… missing posts", "Sweep… posts"):
        expect(page.get_by_role("button", name=button).first).to_be_disabled()
    expect(page.get_by_role("button", name="Refresh")).to_be_enabled()
    assert serious(page) == []


def test_the_outcome_stands_where_the_run_was_asked_for(page, stub):
    """ "was triggered" stayed for ever."""
    _open(page, stub, report_of(_collection("posts", MISSING)))
    page.get_by_role("button", name="Repair… missing posts").click()
    page.get_by_role("dialog").get_by_role("button", name="Insert 1 row").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    mended = _collection("posts")
    mended.inserted = 1
    [old] = stub.answers[f"dags/{DAG}/dagRuns"][1]["dag_runs"]
    new = {**old, "dag_run_id": "new", "state": "success"}
    stub.answers[f"dags/{DAG}/dagRuns"] = (200, {"dag_runs": [new, old]})
    path = f"dags/{DAG}/dagRuns/new/taskInstances/report/xcomEntries/return_value"
    stub.answers[path] = (200, {"value": report_of(mended, verdict="No difference is open.")})
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".note")).to_contain_text("1 row inserted in posts. No difference is open.")


def test_a_run_that_could_not_begin_says_why(page, stub):
    """A wrong password was "ended without a report", with no way to the sentence that says it."""
    why = "Nothing was examined, because preflight did not pass: Can't connect to Postgres"
    stub.answers |= about(DAG, report_of(_collection("posts")), runs=2)
    found = stub.answers[f"dags/{DAG}/dagRuns"][1]["dag_runs"]
    found.reverse()
    path = f"dags/{DAG}/dagRuns/manual__2/taskInstances/report/xcomEntries/return_value"
    stub.answers[path] = (200, {"value": {"stopped": why, "verdict": why, "alerts": [why], "at": NOW.isoformat()}})
    stub.answers[f"dags/{DAG}/dagRuns/manual__2"] = (200, found[0])
    page.goto(stub.url)
    expect(page.locator(".hero .problem")).to_contain_text(f"A later run failed: {why}")
    expect(page.get_by_role("link", name="its log")).to_have_attribute("href", re.compile("manual__2/tasks/preflight$"))
    page.goto(f"{stub.url}?dag_id={DAG}&run_id=manual__2")
    expect(page.get_by_role("heading", name="Why it failed")).to_be_visible()
    stub.answers[path] = (404, {})
    page.goto(stub.url)
    expect(page.locator(".hero .problem")).to_contain_text("A later run ended without a report")


def test_a_run_without_a_report_links_to_what_failed(page, stub):
    stub.answers |= about(DAG, report_of(_collection("posts")))
    stub.answers[f"dags/{DAG}/dagRuns/{RUN}/taskInstances/report/xcomEntries/return_value"] = (404, {})
    tasks = [{"task_id": "compare", "state": "failed", "map_index": -1}]
    stub.answers[f"dags/{DAG}/dagRuns/{RUN}/taskInstances"] = (200, {"task_instances": tasks})
    page.goto(f"{stub.url}?dag_id={DAG}&run_id={RUN}")
    expect(page.get_by_role("link", name="compare")).to_have_attribute("href", re.compile(f"{RUN}/tasks/compare$"))


def test_a_refresh_that_fails_keeps_what_was_known(page, stub):
    """One refused call after hours replaced the page by a line."""
    _open(page, stub, report_of(_collection("posts", MISSING)))
    stub.answers[f"dags/{DAG}"] = (401, {"detail": "no"})
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("alert")).to_contain_text("Log in again")
    expect(page.get_by_role("alert")).to_contain_text("This is the state of 20")
    expect(page.locator(".hero.bad h2")).to_contain_text("1 difference is open")
    stub.answers[f"dags/{DAG}"] = (200, {"dag_id": DAG, "is_paused": False})
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_times_follow_the_zone_chosen_in_airflow(page, stub):
    _open(
        page,
        stub,
        report_of(
            _collection("posts", MISSING),
            ages={
                "posts": {
                    "examined_until": "2026-11-29T23:30:00+00:00",
                    "swept_at": None,
                    "examined_hours": 1,
                    "swept_hours": None,
                }
            },
        ),
    )
    expect(page.locator(".hero")).to_contain_text("compared up to 2026-11-29 23:30 UTC")
    page.evaluate("() => localStorage.setItem('timezone', '\"Asia/Seoul\"')")
    page.reload()
    expect(page.locator(".hero")).to_contain_text("compared up to 2026-11-30 08:30 GMT+9")
    page.evaluate("() => localStorage.setItem('timezone', 'nowhere')")
    page.reload()
    expect(page.locator(".hero")).to_contain_text("compared up to 2026-11-29 23:30 UTC")


def test_reasons_are_counted_of_what_is_open_and_by_collection(page, stub):
    """Seventy documents with one reason are a number, not twenty equal lines."""
    refusal = "DataException 22001 (column view_count)"
    refused = [Finding(Verdict.REJECTED, f"k{i}", f"posts/k{i}", reason=Refusal(refusal)) for i in range(70)]
    lacking = [Finding(Verdict.MISSING, f"m{i}", f"posts/m{i}", reason=Reason.PARENT_MISSING) for i in range(3)]
    posts = _collection("posts", *refused, *lacking)
    opened = [
        {**line, "reason": "parent_missing" if line["verdict"] == "missing" else None}
        for line in report_of(posts)["open"]
    ]
    _open(page, stub, report_of(posts, open=opened))
    for told in (f"70 with the reason {refusal}", "3 with the reason parent missing"):
        expect(page.locator("#open")).to_contain_text(told)
    page.locator("#collections").get_by_role("button", name="samples of posts").click()
    for told in (f"rejected 70 with the reason {refusal}", "missing 3 with the reason parent missing"):
        expect(page.locator("#collections")).to_contain_text(told)


def test_a_missing_row_whose_key_is_held_gets_the_right_repair(page, stub):
    """An extra row holds the key, so only repair = all can help."""
    report = report_of(_collection("posts", MISSING))
    held = [{**line, "reason": "unique_key_held_by_extra_row"} for line in report["open"]]
    _open(page, stub, report_of(_collection("posts", MISSING), open=held))
    expect(page.locator(".finding").first).to_contain_text("that takes repair = all")
    page.get_by_role("button", name="Repair… missing posts").click()
    expect(page.get_by_role("dialog").get_by_label("Repair")).to_have_value("all")


def test_nothing_that_differs_is_green(page, stub):
    """The checklist says what is lacking."""
    _open(page, stub, report_of(_collection("posts")))
    expect(page.locator(".hero.good h2")).to_contain_text("The two databases agree")
    expect(page.locator(".answer")).to_have_text("No: 1 condition is not met.")
    expect(page.locator(".checks li.bad")).to_contain_text("14 clean days in a row")
    expect(page.locator(".checks li.bad")).to_contain_text("3 so far")


def test_an_old_report_is_not_sold_as_the_present(page, stub):
    _open(page, stub, report_of(_collection("posts"), at=(NOW - timedelta(days=2)).isoformat()))
    expect(page.locator(".hero.unknown h2")).to_contain_text("agreed when they were last compared")
    expect(page.locator(".answer")).to_contain_text("older than a day")


def test_a_collection_that_was_never_compared_is_named(page, stub):
    """Nothing is claimed of it."""
    _open(page, stub, report_of(_collection("posts"), declared=["posts", "permissions"]))
    expect(page.locator(".hero.unknown h2")).to_contain_text("Nothing differs in what was compared so far")
    expect(page.locator(".hero")).to_contain_text("never compared completely: permissions")


def test_a_part_that_was_not_examined_is_never_shown_as_fine(page, stub):
    lost = CollectionReport("posts", "compare", not_examined="its task failed")
    why = "posts was not examined: its task failed"
    _open(page, stub, report_of(lost, _collection("comments"), alerts=[alert(why, kind="a_test")]))
    expect(page.locator(".hero")).to_contain_text(why)
    expect(page.locator(".hero.unknown h2")).to_contain_text("Not proved: 1 of 2 collections")
    expect(page.locator("#collections")).to_contain_text("not examined")


def test_a_run_that_failed_for_another_reason_than_drift_says_so(page, stub):
    why = "write_ops is missing, so nobody can tell whether dual-write is alive"
    _open(page, stub, report_of(_collection("posts"), alerts=[alert(why, kind="a_test")]))
    expect(page.locator(".hero.unknown h2")).to_contain_text("Nothing differs, but the last run failed")
    expect(page.locator(".hero")).to_contain_text(why)


def test_an_excuse_needs_a_reason_and_names_one_key(page, stub):
    _open(page, stub, report_of(_collection("posts", STALE)))
    page.locator(".finding summary").click()
    page.get_by_role("button", name="Excuse… posts Def456").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Excuse 1 difference").click()
    assert stub.posted == [], "the browser wants the reason first"
    dialog.get_by_label("Reason").fill("known")
    dialog.get_by_role("button", name="Excuse 1 difference").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    excuse = {"excuse": ["posts:Def456"], "excuse_reason": "known"}
    assert stub.posted[-1][1]["conf"] == {"repair": "off", "scope": "none", **excuse}, "nothing is compared for it"


def test_an_excuse_is_of_its_line_alone(page, stub):
    """On "1 missing" the button sent posts:*, which excused what was stale, too."""
    many = [Finding(Verdict.MISSING, f"k{i}") for i in range(7)]
    _open(page, stub, report_of(_collection("posts", *many, STALE)))
    page.get_by_role("button", name="Excuse… missing posts").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Excuse 7 differences in posts")
    lines = dialog.get_by_label("Excuse", exact=True)
    expect(lines).to_have_value("\n".join(f"posts:k{i}" for i in range(7)))
    assert lines.evaluate("e => e.scrollHeight <= e.clientHeight + 1"), "a line is folded away"
    expect(dialog.locator("button[type=submit]")).to_have_text("Excuse 7 differences")


def test_an_excuse_of_many_is_of_their_verdict_alone(page, stub):
    """The report holds twenty samples of a verdict, and posts:* excused the other verdicts too."""
    many = [Finding(Verdict.MISSING, f"k{i}") for i in range(25)]
    _open(page, stub, report_of(_collection("posts", *many, STALE)))
    page.get_by_role("button", name="Excuse… missing posts").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Excuse", exact=True)).to_have_value("posts:missing")
    expect(dialog.locator("button[type=submit]")).to_have_text("Excuse all that is missing in posts")


def test_a_link_opens_the_form_with_its_values_and_sends_nothing(page, stub):
    _open(page, stub, report_of(_collection("posts")), query='?conf={"repair":"all","grace_seconds":7}')
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Repair")).to_have_value("all")
    expect(dialog.get_by_label("Grace")).to_have_value("7")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert stub.posted == []


def test_a_link_on_airflows_own_window_opens_the_form(page, stub):
    """`/plugin/parity?conf=` is what an alert links to; the page is a frame in that window."""
    stub.answers |= about(DAG, report_of(_collection("posts")))
    page.goto(stub.url.replace("/parity/", "/plugin/parity") + '?conf={"repair":"missing","collections":["posts"]}')
    form = page.frame_locator("iframe").get_by_role("dialog")
    expect(form.get_by_label("Repair")).to_have_value("missing")
    expect(form.get_by_label("comments")).not_to_be_checked()


def test_a_link_raises_no_brake_and_unpauses_nothing(page, stub):
    """A prefilled link and one Enter started repair=all with the brakes off."""
    query = '?conf={"repair":"all","max_repairs":1000000,"max_share":100,"max_billed_reads":null}'
    _open(page, stub, report_of(_collection("posts", STALE)), query=query)
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".problem").first).to_contain_text(
        "max_repairs and max_share and max_billed_reads: no link sets a limit"
    )
    expect(dialog.get_by_label("unpause it")).not_to_be_checked()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    assert stub.posted == []
    dialog.get_by_text("What is sent").click()
    expect(dialog.locator(".conf")).to_have_text(re.compile(r'^\{\s*"repair": "all"\s*\}$'))


def test_no_link_sets_any_limit_that_the_form_declares(page, stub):
    """Five were known by name, and a new one wasn't: liveness_minimum stops a repair while dual-write seems off."""
    _open(page, stub, report_of(_collection("posts", STALE)))
    limits = [
        n
        for n in ReconcileParams.model_fields
        if n.startswith("max_") or n in ("liveness_minimum", "write_ops_required")
    ]
    assert len(limits) >= 12
    others = sorted({*ReconcileParams.model_fields} - {*limits})
    found = page.evaluate(
        "(names) => import('./facts.js').then((facts) => facts.fromLink(Object.fromEntries(names.map((n) => [n, 1]))))",
        [*limits, *others],
    )
    assert found["left"] == limits
    assert sorted(found["preset"]) == others


def test_a_bad_value_that_is_folded_away_is_shown_and_not_sent(page, stub):
    _open(page, stub, report_of(_collection("posts", MISSING)), query='?conf={"repair":"missing"}')
    form = page.get_by_role("dialog")
    form.get_by_text("More (").click()
    form.get_by_label("Grace").fill("99999")
    form.get_by_text("More (").click()
    expect(form.get_by_label("Grace")).to_be_hidden()
    form.locator("button[type=submit]").click()
    expect(form.get_by_label("Grace")).to_be_visible()
    assert stub.posted == []


def test_a_refusal_of_airflow_is_shown_with_its_reason(page, stub):
    stub.answers[f"POST dags/{DAG}/dagRuns"] = (409, {"detail": "There is such a run already"})
    _open(page, stub, report_of(_collection("posts", MISSING)))
    page.get_by_role("button", name="Look now…").click()
    page.get_by_role("dialog").get_by_role("button", name="Look now").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("There is such a run already")


def test_a_refused_value_is_shown_at_its_field_in_words(page, stub):
    """A JSON schema's complaint stood under the buttons, below the fold."""
    detail = "Invalid input for param grace_seconds: 7 is less than ... Failed validating 'minimum' in schema"
    stub.answers[f"POST dags/{DAG}/dagRuns"] = (400, {"detail": detail})
    _open(page, stub, report_of(_collection("posts", MISSING)))
    page.get_by_role("button", name="Look now…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Look now").click()
    expect(dialog.get_by_label("Grace")).to_be_focused()
    expect(dialog.get_by_role("alert")).to_have_text("grace_seconds is not as it must be. How long.")


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
        _collection("posts", *found),
        excuses=[excused | {"since": NOW.isoformat()}],
        alerts=[alert("<h1>brake</h1>", kind="<h1>kind</h1>")],
    )
    _open(page, stub, report)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.title() == "Parity"
    assert page.locator("main img, main script, main u, main i, .hero h1").count() == 0
    expect(page.locator("code").first).to_contain_text("<img src=x")
    width = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, "a long id makes the page scroll sideways"


def test_no_name_that_is_read_reaches_a_prototype(page, stub):
    """A link, a report and Airflow's answers are JSON, whose names may be those of every object."""
    evil = {"__proto__": {"owned": 1}, "constructor": {"prototype": {"owned": 1}}}
    report = report_of(_collection("__proto__", MISSING), _collection("constructor", STALE), runs=2)
    for line, name in zip(report["open"], ("__proto__", "toString"), strict=True):
        line |= {"cause": name, "reason": name}
    report |= evil | {"operations": report["operations"] | evil, "ages": report["ages"] | {"valueOf": None}}
    report["collections"][0]["counts"] |= evil
    stub.answers[f"dags/{DAG}/details"] = (200, DETAILS | evil)
    _open(
        page,
        stub,
        report,
        query='?conf={"__proto__":{"owned":1},"constructor":{"prototype":{"owned":1}},"repair":"missing"}',
    )
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("What is sent").click()
    expect(dialog.locator(".conf")).to_have_text(re.compile(r'^\{\s*"repair": "missing"\s*\}$'))
    assert page.evaluate("() => ({}).owned") is None
    assert page.evaluate("() => Object.keys(Object.prototype).concat(Object.keys(Function.prototype))") == []


def test_no_other_site_can_frame_the_page(browser, stub):
    """A click on a frame that can't be seen would be the operator's."""
    stub.answers |= about(DAG, report_of(_collection("posts", MISSING)))
    with elsewhere(f'<iframe src="{stub.url}"></iframe>') as url, closing(browser.new_page()) as window:
        window.goto(url, wait_until="networkidle")
        [frame] = window.main_frame.child_frames
        assert frame.url.startswith("chrome-error:"), "it isn't shown"
        window.goto(stub.url.replace("/parity/", "/plugin/parity"), wait_until="networkidle")
        [frame] = window.main_frame.child_frames
        assert frame.url == stub.url, "Airflow's own window may"


def test_nothing_runs_or_leaves_but_the_pages_own_files(browser, stub):
    """Whatever an error of ours may write into the page as markup, the content security policy leaves it dead."""
    stub.answers |= about(DAG, report_of(_collection("posts", MISSING)))
    with elsewhere("window.owned = 'a script of elsewhere'") as url, closing(browser.new_page()) as window:
        window.goto(stub.url)
        window.locator("main[aria-busy=false]").wait_for()
        refused = window.evaluate(
            """async (url) => {
              const refused = [];
              document.addEventListener("securitypolicyviolation", (e) => refused.push(e.effectiveDirective));
              const add = (tag, given) => document.body.append(Object.assign(document.createElement(tag), given));
              add("script", { textContent: "window.owned = 'inline'" });
              add("script", { src: url });
              add("script", { src: "data:text/javascript,window.owned='data'" });
              add("div", { innerHTML: `<img src=x onerror="window.owned = 'a handler'"><iframe srcdoc="<script>parent.owned=1</script>"></iframe>` });
              add("base", { href: url });
              add("style", { textContent: "body { background: red }" });
              add("object", { data: url });
              await fetch(url, { mode: "no-cors" }).catch(() => {});
              new Image().src = url;
              const form = Object.assign(document.createElement("form"), { action: url, method: "post" });
              document.body.append(form);
              form.submit();
              await new Promise((done) => setTimeout(done, 500));
              return refused;
            }""",
            url,
        )
        assert window.evaluate("() => window.owned") is None
        assert window.url == stub.url, "no form leads away"
    assert {
        "script-src-elem",
        "script-src-attr",
        "style-src-elem",
        "connect-src",
        "img-src",
        "base-uri",
        "form-action",
    } <= set(refused)


def test_two_hundred_runs_and_a_hundred_collections_show_at_once(page, stub):
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


def test_each_bundle_of_one_airflow_has_its_page(page, stub):
    """The plugin is loaded once: the page offers both, and each asks and triggers its own DAGs alone."""
    for other in ("backfill_gap", "apply_migrations"):
        stub.answers |= about(f"shop_{other}", None)
    theirs = json.dumps(report_of(_collection("orders", MISSING))).replace(DAG, f"shop_{DAG}")
    stub.answers |= about(f"shop_{DAG}", json.loads(theirs))
    stub.answers[f"dags/shop_{DAG}/details"] = (200, DETAILS)
    named = [DAG, f"shop_{DAG}", "another_reconcile_dual_writes_of_theirs"]
    stub.answers["dags"] = (200, {"dags": [{"dag_id": name} for name in named]})
    _open(page, stub, report_of(_collection("posts", MISSING)))
    bundles = page.get_by_role("navigation", name="Bundles")
    expect(bundles).to_have_text("Bundles in this Airflow: without a prefix shop")
    expect(page.get_by_role("button", name="Repair… missing posts")).to_be_visible()
    bundles.get_by_role("link", name="shop").click()
    page.locator("main[aria-busy=false]").wait_for()
    expect(page.get_by_role("button", name="Repair… missing orders")).to_be_visible()
    expect(page.get_by_role("link", name="The sign-off")).to_have_attribute(
        "href", re.compile("signoff=1&prefix=shop$")
    )
    page.get_by_role("button", name="Repair… missing orders").click()
    page.get_by_role("dialog").locator("button[type=submit]").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    assert [path for path, _ in stub.posted] == [f"dags/shop_{DAG}/dagRuns"]
    del stub.answers["dags"]
    page.goto(f"{stub.url}?dag_id=shop_{DAG}&run_id={RUN}")
    expect(page.locator("h1")).not_to_contain_text("not about")
    page.goto(stub.url.replace("/parity/", "/plugin/parity") + "?prefix=shop")
    expect(page.frame_locator("iframe").get_by_role("button", name="Repair… missing orders")).to_be_visible()
    # Who may see the second bundle alone is led to its page: the navigation has one entry for all.
    stub.answers["dags"] = (200, {"dags": [{"dag_id": f"shop_{DAG}"}]})
    stub.answers[f"dags/{DAG}"] = (403, {"detail": "Forbidden"})
    page.goto(stub.url)
    page.wait_for_url("**/?prefix=shop")
    expect(page.get_by_role("button", name="Repair… missing orders")).to_be_visible()


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
    report = report_of(_collection("posts", MISSING), verdict="1 difference is open: 1 missing.")
    _open(page, stub, report, query=f"?dag_id={DAG}&run_id={RUN}")
    expect(page.get_by_role("heading", name="1 difference is open")).to_be_visible()
    expect(page.locator("main")).to_contain_text("posts: 1 missing")
    page.get_by_role("button", name="Repair… missing posts").click()
    expect(page.get_by_role("dialog").locator("caption")).to_have_text("As this run found it")
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
    page.get_by_role("button", name="Insert 1 row").wait_for()
    page.keyboard.press("Enter")  # the focus is on the heading: one key too many does nothing
    assert stub.posted == []
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.type") == "submit":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".note")).to_be_visible()
    assert json.dumps(stub.posted).count('"repair": "missing"') == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_serious_in_either_theme(browser, stub, theme, width):
    """Neither on a desk nor on a phone."""
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
    page.get_by_role("button", name="Repair… all that is open").click()
    page.get_by_role("dialog").locator("button[type=submit]").wait_for()
    for summary in page.get_by_role("dialog").locator("summary").all():
        summary.click()
    assert serious(page) == []
    page.close()


# --- exactly these ------------------------------------------------------------------------------------------------------

POST = Finding(Verdict.EXTRA, "p9", "boards/b/posts/p9")
BELOW = Finding(Verdict.EXTRA, "c9", "boards/b/posts/p9/comments/c9", requires="boards/b/posts/p9")


def test_only_this_one_repairs_one_key_and_says_so(page, stub):
    """A repair of one row was a repair of its collection, at the least."""
    many = [Finding(Verdict.MISSING, f"k{i}", f"boards/b/posts/k{i}") for i in range(3)]
    _open(page, stub, report_of(_collection("posts", *many, STALE), _collection("comments")))
    page.locator("#open summary").first.click()
    page.get_by_role("button", name="Only this one… missing posts k1").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Only these")).to_have_value("posts:k1")
    expect(dialog.locator(".effect")).to_contain_text(
        "Looks at 1 difference and compares nothing else. Then inserts missing rows, of these only"
    )
    expect(dialog.locator(".plan")).to_contain_text("posts, insert: k1")
    picture(page, "only-this-one")
    dialog.get_by_role("button", name="Insert 1 row").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    assert stub.posted[-1][1]["conf"] == {"repair": "missing", "keys": ["posts:k1"]}


def test_what_a_row_needs_first_is_named_before_it(page, stub):
    """A post is deleted after its comments; the form names them, so that nobody is surprised."""
    _open(page, stub, report_of(_collection("posts", POST), _collection("comments", BELOW)))
    page.locator("#open summary").first.click()
    page.get_by_role("button", name="Only this one… extra posts p9").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Only these")).to_have_value("comments:c9\nposts:p9")
    expect(dialog.locator(".problem").first).to_contain_text("It needs 1 other row first")
    expect(dialog.locator("button[type=submit]")).to_have_text("Delete 2 rows")
    dialog.get_by_label("Only these").fill("posts:p9")
    expect(dialog.locator("button[type=submit]")).to_have_text("Delete 1 row")


def test_checked_samples_are_repaired_or_excused_together(page, stub):
    many = [Finding(Verdict.MISSING, f"k{i}", f"boards/b/posts/k{i}") for i in range(4)]
    _open(page, stub, report_of(_collection("posts", *many), _collection("comments")))
    page.locator("#open summary").first.click()
    for key in ("k0", "k2"):
        page.locator("#open").get_by_label(f"Choose posts {key}").check()
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#open").get_by_label("Choose posts k2")).to_be_checked()
    picture(page, "chosen")
    page.locator("#open").get_by_role("button", name="Excuse 2 chosen…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Excuse 2 differences")
    expect(dialog.locator(".effect")).to_contain_text("Compares nothing. Excuses 2 differences, at once")
    dialog.get_by_label("Reason").fill("test accounts")
    dialog.get_by_role("button", name="Excuse 2 differences").click()
    expect(dialog).to_be_hidden()
    assert stub.posted[-1][1]["conf"]["excuse"] == ["posts:k0", "posts:k2"]
    assert serious(page) == []


def test_an_excuse_shows_at_once_beside_what_was_compared(page, stub):
    """Its run compares nothing: what the last comparison found stays, without what is excused now."""
    many = [Finding(Verdict.MISSING, f"k{i}", f"boards/b/posts/k{i}") for i in range(3)]
    stub.answers |= about(DAG, report_of(_collection("posts", *many), _collection("comments")))
    [old] = stub.answers[f"dags/{DAG}/dagRuns"][1]["dag_runs"]
    new = {**old, "dag_run_id": "excusing", "conf": {"excuse": ["posts:k0"], "scope": "none"}}
    stub.answers[f"dags/{DAG}/dagRuns"] = (200, {"dag_runs": [new, old]})
    later = report_of(_collection("posts", *many[1:]))
    later |= {"compares": False, "collections": [], "verdict": "2 differences are open: 2 missing. 1 excused."}
    path = f"dags/{DAG}/dagRuns/excusing/taskInstances/report/xcomEntries/return_value"
    stub.answers[path] = (200, {"value": later})
    page.goto(stub.url)
    expect(page.locator(".hero h2")).to_contain_text("2 differences are open")
    expect(page.locator("#open .chip").first).to_have_text("2 missing")
    expect(page.locator("#open summary")).to_contain_text("2 samples")
    expect(page.locator("#collections")).to_contain_text("comments")
    expect(page.locator(".hero")).not_to_contain_text("A later run")


INTERVENTION = {
    "dag_id": DAG, "run_id": "r1", "kind": "repair", "by": "ada", "at": NOW.isoformat(), "reason": None,
    "numbers": {"posts": {"insert": 2, "delete": 1}}, "journaled": 3, "undone": 0,
}  # fmt: skip


def test_interventions_tell_who_did_what(page, stub):
    """One can be undone, with a preview."""
    excuse = {
        **INTERVENTION,
        "run_id": "r2",
        "kind": "excuse",
        "by": "eve",
        "reason": "<b>known</b>",
        "numbers": {"posts": 4},
        "journaled": 0,
    }
    undone = {**INTERVENTION, "run_id": "r3", "undone": 3}
    found = [excuse, INTERVENTION, undone]
    _open(page, stub, report_of(_collection("posts"), _collection("comments"), interventions=found))
    card = page.locator("#interventions")
    card.locator("summary").click()
    expect(card).to_contain_text("eve excused: 4 in posts")
    expect(card).to_contain_text("<b>known</b>")
    expect(card).to_contain_text("ada repaired: 2 inserted, 1 deleted in posts")
    expect(card.get_by_role("button")).to_have_count(1)
    card.get_by_role("button", name="Undo… r1").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Undo a run")).to_have_value("r1")
    expect(dialog.locator(".effect")).to_contain_text(
        "Takes back the writes of the run named above in all 2 collections, and compares nothing"
    )
    expect(dialog.locator(".plan tbody tr")).to_have_text(["postsdelete2", "postsinsert1"])
    expect(dialog.locator("button[type=submit]")).to_have_text("Undo: delete 2 rows and insert 1")
    picture(page, "undo")
    dialog.get_by_label("to confirm").fill("delete")
    dialog.locator("button[type=submit]").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    assert stub.posted[-1][1]["conf"] == {"undo": "r1"}
    picture(page, "interventions")
    assert serious(page) == []


# --- all open differences -----------------------------------------------------------------------------------------------

NAMES = ["collection", "key", "verdict", "reason", "cause", "columns", "path", "requires", "since", "excused_by"]


def _listed(stub: Stub, number: int = 450, **listed: int) -> dict[str, Any]:
    """A report with a list of so many differences in two pages."""
    old, new = ((NOW - timedelta(hours=h)).isoformat() for h in (50, 2))
    rows: list[list[Any]] = [
        ["posts", f"k{i}", "missing", None, "never_attempted", [], f"boards/b/posts/k{i}", None, old, None]
        for i in range(number - 3)
    ]
    rows.append(
        [
            "comments",
            "=cmd()",
            "stale",
            None,
            None,
            ["title", "content"],
            'boards/b/posts/p/comments/"q"',
            None,
            new,
            None,
        ]
    )
    rows.append(["posts", "gone", "extra", None, "attempted_failed", [], "boards/b/posts/gone", None, new, None])
    rows.append(["posts", "known", "missing", None, None, [], "boards/b/posts/known", None, new, "eve"])
    for i, part in enumerate((rows[:200], rows[200:])):
        path = f"dags/{DAG}/dagRuns/{RUN}/taskInstances/report/xcomEntries/open_{i}"
        stub.answers[path] = (200, {"value": {"names": NAMES, "rows": part}})
    told = {"pages": 2, "rows": number, "of": number, **listed}
    many = [Finding(Verdict.MISSING, f"k{i}", f"boards/b/posts/k{i}") for i in range(number)]
    return report_of(_collection("posts", *many), _collection("comments", STALE), listed=told)


def test_all_open_can_be_searched_filtered_chosen_and_downloaded(page, stub):
    """The page showed twenty of a verdict."""
    _open(page, stub, _listed(stub))
    card = page.locator("#list")
    expect(card.get_by_role("heading")).to_have_text("One by one: 450 open differences")
    card.locator("summary").click()
    rows = card.locator("tbody tr")
    expect(rows).to_have_count(200)
    expect(card.get_by_role("status")).to_have_text("450 differences, the first 200 shown.")
    for name, value, left in (("verdict", "stale", 1), ("verdict", "", 200), ("collection", "comments", 1), ("collection", "", 200),
                              ("cause", "attempted_failed", 1), ("cause", "", 200), ("excused", "excused", 1), ("excused", "", 200)):  # fmt: skip
        card.locator(f"#list-{name}").select_option(value)
        expect(rows).to_have_count(left)
    card.locator("#list-older").select_option("a day")
    expect(card.get_by_role("status")).to_contain_text("447 differences")
    card.locator("#list-older").select_option("")
    card.get_by_label("search").fill("K44")
    expect(rows).to_have_count(8)
    card.get_by_role("button", name="Choose all 8").click()
    page.get_by_role("button", name="Refresh").click()
    expect(card.get_by_label("search")).to_have_value("K44")
    expect(card.get_by_label("Choose posts k440")).to_be_checked()
    picture(page, "list")
    with page.expect_download() as saved:
        card.get_by_role("button", name="Download CSV").click()
    lines = saved.value.path().read_text().splitlines()
    assert (len(lines), lines[0].split(",")[0], lines[1].split(",")[1]) == (9, "collection", '"k44"')
    card.get_by_role("button", name="Repair 8 chosen…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("button[type=submit]")).to_have_text("Insert 8 rows")
    dialog.locator("button[type=submit]").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    assert len(stub.posted[-1][1]["conf"]["keys"]) == 8
    assert serious(page) == []


def test_a_list_that_was_cut_says_so_and_asks_for_more(page, stub):
    _open(page, stub, _listed(stub, of=70_000))
    card = page.locator("#list")
    card.locator("summary").click()
    expect(card.locator(".problem")).to_contain_text("The list holds 450 of 70,000, the oldest open ones first.")
    card.get_by_role("button", name="List more…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".effect")).to_contain_text("Compares nothing. Writes nothing to your tables.")
    dialog.get_by_role("button", name="List what is open").click()
    expect(dialog).to_be_hidden()
    assert stub.posted[-1][1]["conf"] == {"repair": "off", "scope": "none"}


def test_a_cell_of_the_csv_that_looks_like_a_formula_is_text(page, stub):
    _open(page, stub, _listed(stub))
    card = page.locator("#list")
    card.locator("summary").click()
    card.locator("#list-verdict").select_option("stale")
    with page.expect_download() as saved:
        card.get_by_role("button", name="Download CSV").click()
    assert '"\'=cmd()"' in saved.value.path().read_text()
    assert '"title content"' in saved.value.path().read_text()


# --- the sign-off, the days, what it costs, and the pause ---------------------------------------------------------------


def _days() -> list[dict[str, Any]]:
    """Today first: all clean, but for one with drift and one without a run."""
    days: list[dict[str, Any]] = [
        {
            "day": (NOW - timedelta(days=i)).date().isoformat(),
            "runs": 96,
            "clean": True,
            "not_clean": None,
            "billed": 100_000,
        }
        for i in range(14)
    ]
    days[5] |= {"clean": False, "not_clean": ["manual__drifted"]}
    days[6] |= {"runs": 0, "clean": None, "billed": 0}
    return days


def test_fourteen_days_are_boxes_and_the_cost_is_in_dollars(page, stub):
    """Two hundred runs are two days: the two weeks that count could not be seen."""
    _open(page, stub, report_of(_collection("posts"), _collection("comments"), days=_days(), runs=200), runs=200)
    boxes = page.locator("#ready .day")
    expect(boxes).to_have_count(14)
    expect(page.locator("#ready .day.clean")).to_have_count(12)
    expect(boxes.nth(13 - 5)).to_contain_text("drift, or not all was examined, 96 runs")
    expect(boxes.nth(13 - 6)).to_contain_text("no run")
    expect(page.locator(".costs")).to_contain_text(
        "100,000 a day, $0.06 a day, $1.80 in 30 days, by the last 6 whole days"
    )
    page.locator("#ready").scroll_into_view_if_needed()
    picture(page, "days")
    assert serious(page) == []


def test_the_sign_off_is_a_page_to_print_and_a_file(page, stub):
    report = _listed(stub) | {"days": _days(), "interventions": [INTERVENTION]}
    report["open"].append(
        {
            "collection": "posts",
            "verdict": "missing",
            "cause": "unknown",
            "excused": True,
            "number": 1,
            "since": NOW.isoformat(),
        }
    )
    stub.may |= {"name": "ada"}
    _open(page, stub, report)
    address = page.get_by_role("link", name="The sign-off").get_attribute("href")
    assert address is not None
    page.goto(address)
    page.locator("main[aria-busy=false]").wait_for()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready to switch reads?")
    main = page.locator("main")
    for said in ("Asked by ada at", "manual__1", "No open drift", "✕ drift, or not all was examined", "manual__drifted",
                 "1 difference excused", "posts known", "eve", "ada", "2 inserted, 1 deleted in posts"):  # fmt: skip
        expect(main).to_contain_text(said)
    for text in (main.locator(".whole").first, page.get_by_role("rowheader", name="2026-").first):
        assert (text.bounding_box() or {"height": 99})["height"] < 50, "a date or an answer is in one line"
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Print").is_visible()
    picture(page, "sign-off")
    page.emulate_media(media="screen")
    assert serious(page) == []
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download JSON").click()
    told = json.loads(saved.value.path().read_text())
    assert (told["answer"], told["asked_by"], told["report"]["run_id"], len(told["days"])) == (False, "ada", RUN, 14)
    assert [(e["key"], e["by"]) for e in told["excuses"]] == [("known", "eve")]
    assert {"swept", "drift", "clean", "rejected", "migrations", "alive", "derived"} == {
        c["name"] for c in told["checks"]
    }


def test_pause_and_unpause_from_the_page_with_the_right_to(page, stub):
    _open(page, stub, report_of(_collection("posts"), _collection("comments")))
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".note")).to_contain_text("Paused: nothing is compared until it is unpaused")
    assert stub.posted == [(f"dags/{DAG}", {"is_paused": True})]
    _open(page, stub, report_of(_collection("posts"), _collection("comments")), is_paused=True)
    page.get_by_role("button", name="Unpause").click()
    expect(page.locator(".note")).to_contain_text("Unpaused")
    assert stub.posted[-1] == (f"dags/{DAG}", {"is_paused": False})
    stub.may = {"trigger": True, "unpause": False}
    page.reload()
    page.locator("main[aria-busy=false]").wait_for()
    expect(page.get_by_role("button", name="ause")).to_have_count(0)


def test_a_report_of_an_earlier_version_has_no_buttons(page, stub):
    """Its alerts are sentences, and it doesn't say what can be pressed: nothing is concluded from it."""
    old = report_of(_collection("posts", MISSING), verdict="1 difference is open: 1 missing.")
    for name in ("rules", "press", "listed", "interventions", "days", "price"):
        del old[name]
    old |= {"version": 1, "alerts": ["posts: 1 missing since 2026-11-24; trigger it at http://a/b?conf=%7B%7D"]}
    _open(page, stub, old)
    expect(page.locator(".hero.unknown h2")).to_contain_text("1 difference is open: 1 missing.")
    expect(page.locator(".hero")).to_contain_text("posts: 1 missing since")
    expect(page.locator(".hero")).to_contain_text("an earlier version of the bundle")
    buttons = [b.inner_text() for b in page.get_by_role("button").all()]
    assert not [b for b in buttons if "Repair" in b or "Excuse" in b]
    page.goto(f"{stub.url}?dag_id={DAG}&run_id={RUN}")
    expect(page.locator("main")).to_contain_text("posts: 1 missing since")
    expect(page.locator("main")).to_contain_text("Examined")
    assert not [b for b in page.get_by_role("button").all() if "Repair" in b.inner_text()]


RECORD = """
window.__reads = [];
const recorded = (value, path) => value === null || typeof value !== "object" ? value : new Proxy(value, {
  get(target, name) {
    const own = Object.hasOwn(target, name);
    if (typeof name !== "string" || name === "then" || (!own && name in target)) return Reflect.get(target, name);
    window.__reads.push([...path, name]);
    return recorded(target[name], [...path, name]);
  },
});
const json = Response.prototype.json;
Response.prototype.json = async function () {
  const body = await json.call(this);
  return this.url.includes("return_value") ? { ...body, value: recorded(body.value, [body.value.dag_id]) } : body;
};
"""


def test_the_page_reads_declared_keys_alone(page, stub):
    """A key that a report doesn't have is undefined in JavaScript, and nobody hears of it."""
    page.add_init_script(RECORD)
    excuse = {
        "collection": "posts",
        "key": "a",
        "verdict": "stale",
        "by": "me",
        "reason": "r",
        "since": NOW.isoformat(),
    }
    report = report_of(_collection("posts", MISSING, STALE), _collection("comments"), excuses=[excuse])
    gap, verified = _collection("boards", matching=1), _collection("boards", STALE)
    gap.phase, verified.phase, verified.verification = "gap", "verify", "not_verified"
    migrations = {
        "version": VERSION, "dag_id": "apply_migrations", "run_id": RUN, "mode": "apply", "web_client": None,
        "steps": [{"version": "1", "name": "a", "state": "applied", "reason": None}], "web_client_tables": [],
        "differences": ["t.c is text"], "verdict": "The tables differ.", "alerts": [alert("They differ", kind="tables_differ")],
    }  # fmt: skip
    reports = {DAG: report, "backfill_gap": gap_report_of("apply", gap, verified), "apply_migrations": migrations}
    for dag_id, made in reports.items():
        assert report_faults(made) == []
        stub.answers |= about(dag_id, made)
    reads: set[tuple[str, ...]] = set()
    for query in ("", *(f"?dag_id={dag_id}&run_id={RUN}" for dag_id in reports)):
        page.goto(stub.url + query)
        page.locator("main[aria-busy=false]").wait_for()
        for summary in page.locator("summary").all():
            summary.click()
        reads |= {tuple(path) for path in page.evaluate("() => window.__reads")}
    assert {path[0] for path in reads} == set(reports), "each DAG's report was read"
    assert len(reads) > 100
    unknown = {undeclared(list(path[1:]), REPORTS[path[0]]) for path in reads}
    assert unknown - {None, "stopped"} == set(), "only a report that was stopped has that key"
