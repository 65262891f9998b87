"""The Parity page's switch, links, charts and the history of one key, in a real browser beside an API that answers what is wanted."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dualwrite.model.links import PLACEHOLDERS
from dualwrite.model.verdicts import Finding, Verdict
from tests.e2e.browser import needs_chromium, serious
from tests.e2e.conftest import picture
from tests.e2e.parity_stub import DAG, NOW, Stub, about, report_of
from tests.e2e.test_parity_page import MISSING, NAMES, STALE, _collection, _open

pytestmark = needs_chromium
SWITCH = "dual_write_enabled"


def _may_switch(stub: Stub, value: str | None, *log: dict[str, Any]) -> None:
    stub.may = {"trigger": True, "unpause": True, "switch": True}
    if value is not None:
        stub.answers[f"variables/{SWITCH}"] = (200, {"key": SWITCH, "value": value})
    stub.answers["eventLogs"] = (200, {"event_logs": list(log)})


def _changed(hours: float, owner: str, description: str | None) -> dict[str, Any]:
    extra = json.dumps({"key": SWITCH, "value": "***", "description": description})
    at = (NOW - timedelta(hours=hours)).isoformat()
    return {"event": "patch_variable", "when": at, "owner": owner, "extra": extra}


def test_the_switch_says_what_it_means_and_is_confirmed(page: Page, stub: Stub):
    _may_switch(stub, "true")
    _open(page, stub, report_of(_collection("posts")))
    card = page.locator("#switch")
    expect(card.get_by_role("heading")).to_have_text("Dual-write on")
    expect(card).to_contain_text("rows that are missing, stale or extra fail a run")
    card.get_by_role("button", name="Switch off…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("fail no run, and aren't repaired")
    page.keyboard.press("Enter")
    assert stub.posted == [], "one key too many does nothing"
    assert serious(page) == []
    picture(page, "switch")
    stub.answers[f"variables/{SWITCH}"] = (200, {"key": SWITCH, "value": "false"})
    dialog.get_by_role("button", name="Switch off").click()
    expect(page.locator(".note")).to_contain_text("Dual-write is switched off. The next run goes by it")
    [(path, body)] = stub.posted
    assert (path, body["key"], body["value"]) == (f"variables/{SWITCH}", SWITCH, "false")
    assert body["description"] == "Switched off from the Parity page.", "Airflow's audit log hides the value alone"
    expect(card).to_contain_text("read on: the next one reads this")


def test_a_switch_that_is_not_there_yet_is_made(page: Page, stub: Stub):
    """No Variable means on."""
    _may_switch(stub, None)
    stub.answers[f"POST variables/{SWITCH}"] = (404, {"detail": "none"})
    _open(page, stub, report_of(_collection("posts")))
    page.locator("#switch").get_by_role("button", name="Switch off…").click()
    page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert [path for path, _ in stub.posted] == [f"variables/{SWITCH}", "variables"]


def test_who_may_not_edit_variables_sees_a_switch_without_button(page: Page, stub: Stub):
    _open(page, stub, report_of(_collection("posts"), dual_write_enabled=False))
    card = page.locator("#switch")
    expect(card.get_by_role("heading")).to_have_text("Dual-write off")
    expect(card).to_contain_text("As the last run read it")
    expect(card).to_contain_text("ask for the right to edit Variables")
    expect(card.get_by_role("button")).to_have_count(0)


def test_who_switched_is_in_the_interventions_and_the_sign_off(page: Page, stub: Stub):
    _may_switch(stub, "true", _changed(1, "ada", "Switched on from the Parity page."), _changed(2, "eve", None))
    _open(page, stub, report_of(_collection("posts")))
    expect(page.locator("#switch")).to_contain_text("Changed 1 h ago by ada")
    card = page.locator("#interventions")
    card.locator("summary").click()
    expect(card).to_contain_text("ada switched dual-write on")
    expect(card).to_contain_text("eve set Variable dual_write_enabled elsewhere than on this page")
    page.goto(f"{stub.url}?signoff=1")
    expect(page.locator("main")).to_contain_text("switched dual-write on")


def test_a_variable_that_the_workers_do_not_read_is_told(page: Page, stub: Stub):
    """The environment and secrets backends come before Airflow's database."""
    _may_switch(stub, "false", _changed(2, "ada", None))
    _open(page, stub, report_of(_collection("posts")))
    expect(page.locator("#switch .problem")).to_contain_text(
        "The last run read on, although the Variable was changed before it"
    )


TABLE = {"schema": "public", "table": "posts", "oid": 16423, "key_column": "id"}
FIREBASE = "https://console.firebase.google.com/project/{project}/firestore/databases/-default-/data/{firebase_path}"
STUDIO = (
    "https://supabase.com/dashboard/project/abc/editor/{table_oid}?schema={schema}&filter={key_column}%3Aeq%3A{key}"
)


def _linked(page: Page, stub: Stub, templates: dict[str, str], *found: Finding) -> list[str | None]:
    links = {"templates": templates, "project": "my-app", "database": "(default)", "tables": {"posts": TABLE}}
    _open(page, stub, report_of(_collection("posts", *found), links=links))
    page.locator("#open summary").first.click()
    return [a.get_attribute("href") for a in page.locator("#open a[target=_blank]").all()]


def test_each_difference_leads_to_its_document_and_its_row(page: Page, stub: Stub):
    found = _linked(page, stub, {"document": FIREBASE, "row": STUDIO}, MISSING)
    assert found == [
        "https://console.firebase.google.com/project/my-app/firestore/databases/-default-/data/~2Fboards~2Fb~2Fposts~2FAbC123",
        "https://supabase.com/dashboard/project/abc/editor/16423?schema=public&filter=id%3Aeq%3AAbC123",
    ]
    link = page.locator("#open a[target=_blank]").first
    assert link.get_attribute("rel") == "noreferrer", "Airflow's address is not told"
    assert serious(page) == []


def test_a_value_in_a_link_stays_a_value(page: Page, stub: Stub):
    """An id may hold what would be another address, path or parameter."""
    evil = "a&b=1#x/../../?y=%2e%2e@evil.example'\"<"
    hostile = Finding(Verdict.MISSING, evil, "posts/" + evil.replace("/", "-"))
    [address] = _linked(page, stub, {"row": "https://example.org/{table}?key={key}&end=1"}, hostile)
    assert address is not None
    read = page.evaluate(
        "(a) => { const u = new URL(a); return [u.origin, u.pathname, [...u.searchParams]]; }", address
    )
    assert read == ["https://example.org", "/posts", [["key", evil], ["end", "1"]]]


@pytest.mark.parametrize("template", ["javascript:alert(1)//{key}", "http://a.example/{key}", "https://{id}.example/", "https://a.example/{none}",
                                      "https://a.example/{constructor}", "not an address {key}"])  # fmt: skip
def test_a_template_that_no_run_would_let_through_is_no_link(page: Page, stub: Stub, template: str):
    """The report says what a template is, and the page doesn't take its word."""
    assert _linked(page, stub, {"row": template}, MISSING) == []


def test_what_a_report_shortened_is_no_link(page: Page, stub: Stub):
    """Such a key names another document."""
    short = Finding(Verdict.MISSING, "k" * 300, "posts/" + "k" * 300)
    assert (
        _linked(page, stub, {"row": STUDIO, "document": FIREBASE, "sentry": "https://e.example/?q={id}"}, short) == []
    )


def test_every_placeholder_that_a_template_may_name_has_a_value(page: Page, stub: Stub):
    template = "https://a.example/?" + "&".join(f"{name}={{{name}}}" for name in PLACEHOLDERS)
    [address] = _linked(page, stub, {"sentry": template}, MISSING)
    assert address is not None
    assert "{" not in address


def test_differing_columns_are_counted_beside_what_is_stale(page: Page, stub: Stub):
    _open(page, stub, report_of(_collection("posts", STALE), open_columns={"posts": {"title": 1200, "content": 3}}))
    expect(page.locator("#open")).to_contain_text("Differs in title 1,200, content 3.")
    expect(page.locator("#collections")).to_contain_text("title 1,200, content 3")


def test_each_run_of_the_charts_is_told_by_keyboard_and_pointer(page: Page, stub: Stub):
    """Only a hovering pointer learned a bar's number."""
    _open(page, stub, report_of(_collection("posts"), runs=200))
    expect(page.get_by_role("heading", name="The last 200 runs, over 2 days")).to_be_visible()
    range_ = page.get_by_label("Run, the oldest first")
    values = page.locator("figure.chart figcaption strong")
    expect(values.first).to_have_text("0")
    range_.focus()
    page.keyboard.press("ArrowLeft")
    expect(values.first).to_have_text("1")
    assert "Differences found, the excused ones pale: 1." in (range_.get_attribute("aria-valuetext") or "")
    expect(page.get_by_role("link", name="Open this run")).to_have_attribute(
        "href", f"{page.evaluate('() => location.origin')}/dags/{DAG}/runs/manual__2"
    )
    page.get_by_role("button", name="Refresh").click()
    expect(values.first).to_have_text("1")
    page.locator("figure.chart svg").first.click()  # in its middle
    expect(range_).to_have_value("100")
    assert serious(page) == []


# --- one key ------------------------------------------------------------------------------------------------------------


def _runs(stub: Stub) -> None:
    """Four runs: found missing, found again, excused by ada, repaired by eve (who named the key); the newest is the fourth."""
    times = [NOW - timedelta(hours=h) for h in (5, 4, 3, 1)]
    row = [
        "posts",
        "AbC123",
        "missing",
        None,
        "never_attempted",
        [],
        "boards/b/posts/AbC123",
        None,
        times[0].isoformat(),
        None,
        None,
        None,
    ]
    excused = [*row[:-3], "ada", "known", times[2].isoformat()]
    names = [*NAMES, "excuse_reason", "excused_at"]
    confs = [
        {},
        {},
        {"excuse": ["posts:AbC123"], "excuse_reason": "known"},
        {"keys": ["posts:AbC123"], "repair": "missing"},
    ]
    lists = [[row], [row], [excused], []]
    stub.answers |= about(DAG, report_of(_collection("posts")))
    [made] = stub.answers[f"dags/{DAG}/dagRuns"][1]["dag_runs"]
    runs = []
    for n, (at, conf, rows) in enumerate(zip(times, confs, lists, strict=True)):
        runs.insert(
            0,
            {
                **made,
                "dag_run_id": f"r{n}",
                "run_after": at.isoformat(),
                "end_date": at.isoformat(),
                "conf": conf,
                "triggering_user_name": ["", "", "ada", "eve"][n],
            },
        )
        report = report_of(
            _collection("posts"), at=at.isoformat(), listed={"pages": 1, "rows": len(rows), "of": len(rows)}
        )
        base = f"dags/{DAG}/dagRuns/r{n}/taskInstances/report/xcomEntries"
        stub.answers[f"{base}/return_value"] = (200, {"value": report})
        stub.answers[f"{base}/open_0"] = (200, {"value": {"names": names, "rows": rows}})
    written = {"at": times[3].isoformat(), "action": "insert", "run_id": "r3", "confirmed": True, "undo": False}
    told = [{"collection": "posts", "key": "AbC123", "open": None, "written": [written]}]
    stub.answers[f"dags/{DAG}/dagRuns/r3/taskInstances/report/xcomEntries/histories"] = (200, {"value": told})
    stub.answers[f"dags/{DAG}/dagRuns"] = (200, {"dag_runs": runs})


def test_a_keys_history_is_told_from_lists_people_and_journal(page: Page, stub: Stub):
    _runs(stub)
    page.goto(stub.url)
    page.locator("main[aria-busy=false]").wait_for()
    page.get_by_label("Collection and key").fill("posts:AbC123")
    page.get_by_role("button", name="Show its history").click()
    dialog = page.get_by_role("dialog")
    what = dialog.locator("tbody tr td:nth-child(2)")
    expect(what).to_have_text([
        "no longer open", "eve asked to repair it (missing)", "row inserted", "excused by ada: “known”", "ada excused it: “known”",
        "found: missing, never attempted",
    ])  # fmt: skip
    expect(dialog.get_by_role("table").get_by_role("link", name="manual by eve")).to_have_count(3)
    expect(dialog).to_contain_text("From the lists of 4 runs")
    expect(dialog.locator("pre")).to_have_text("make difference name=posts:AbC123")
    picture(page, "history-of-a-key")
    assert serious(page) == []
    dialog.get_by_role("button", name="Ask the journal…").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_role("heading")).to_have_text("Ask the journal about posts:AbC123")
    expect(form.locator(".effect")).to_contain_text("compares nothing else. Writes nothing to your tables")
    form.locator("button[type=submit]").click()
    expect(page.locator(".note")).to_contain_text("Asked for")
    assert stub.posted[-1][1]["conf"] == {"repair": "off", "keys": ["posts:AbC123"]}


def test_a_key_that_names_nothing_is_told_at_its_field(page: Page, stub: Stub):
    _open(page, stub, report_of(_collection("posts")))
    for text, says in (
        ("AbC123", "Write it as collection:key."),
        ("posts:", "Write it as collection:key."),
        ("nobody:1", "There is no collection nobody."),
    ):
        page.get_by_label("Collection and key").fill(text)
        page.get_by_role("button", name="Show its history").click()
        expect(page.locator("#key .problem")).to_have_text(says)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_command_with_a_hostile_key_is_one_word_of_the_shell(page: Page, stub: Stub):
    _open(page, stub, report_of(_collection("posts")))
    page.get_by_label("Collection and key").fill("posts:$(reboot)'; x")
    page.get_by_role("button", name="Show its history").click()
    expect(page.get_by_role("dialog").locator("pre")).to_have_text("make difference name='posts:$(reboot)'\\''; x'")
