"""Each alert says what to press, with values that its DAG takes; whatever shows it renders that and decides nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.model.alert import alert, line, press
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.repairs import ACTIONS, REPAIRS, may, most, needed, rules
from dualwrite.model.report import LIMIT, SAMPLES, CollectionReport, size
from dualwrite.model.run_report import VERSION, OpenGroup
from dualwrite.model.verdicts import DRIFT, Finding, Reason, Verdict
from dualwrite.runs.report import alerts, build
from dualwrite.runs.report.alerts import OBSTACLES
from tests.e2e.parity_stub import report_of

SINCE = "2026-11-24T10:00:00+00:00"
REASONS = [None, *Reason]
HOPELESS = {
    Reason.PARENT_EXCUSED, Reason.PARENT_REJECTED, Reason.PATH_UNKNOWN, Reason.CANT_BE_ASKED, Reason.REFERENCES_UNSEEN,
}  # fmt: skip


def group(verdict: str, reason: str | None = None, collection: str = "posts", number: int = 1) -> OpenGroup:
    return {
        "collection": collection, "verdict": verdict, "reason": reason, "cause": "unknown", "excused": False,
        "number": number, "since": SINCE, "fails": True,
    }  # fmt: skip


def _drift(*groups: OpenGroup, enabled: bool = True) -> list[Any]:
    facts: Any = {
        "open": list(groups), "references": {}, "dual_write_enabled": enabled, "declared": list(CATALOG.names),
    }  # fmt: skip
    return alerts.drift(facts)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("verdict", sorted(DRIFT))
def test_a_difference_says_what_to_press(verdict, reason):
    """Unless no run can end it: then it says what a person has to do, and has no button."""
    [told] = _drift(group(verdict, reason))
    wanted = told["press"]
    if verdict is Verdict.REJECTED or reason in HOPELESS:
        assert wanted is None
    else:
        ReconcileParams.checked({"collections": list(CATALOG.names), **wanted["conf"]}, CATALOG)
        assert may(wanted["conf"]["repair"], ACTIONS[verdict]), "it would not end this difference"
        assert ("collections" in wanted["conf"]) == (wanted["conf"]["repair"] != "all")
        assert line(told).endswith(f"; trigger reconcile_dual_writes with repair = {wanted['conf']['repair']}")


@pytest.mark.parametrize("reason", sorted(OBSTACLES))
def test_an_obstacle_is_told_before_what_to_press(reason):
    [told] = _drift(group("extra", reason, number=2), group("extra", number=3))
    assert told["text"].startswith(f"posts: 5 extra since 2026-11-24 10:00 UTC (5 unknown); 2 of them ({reason}): ")
    assert told["press"]["conf"] == {"repair": "all"}, "the three others can be repaired"


def test_all_that_is_open_is_repaired_by_the_strongest():
    """A deleted row may have dependents anywhere, so a repair with deletes names no collections."""
    lines = [group("missing"), group("stale", collection="users"), group("rejected", collection="likes")]
    assert alerts.together(_drift(*lines))["conf"] == {"repair": "missing_and_stale", "collections": ["posts", "users"]}
    assert alerts.together(_drift(*lines, group("extra")))["conf"] == {"repair": "all"}
    for several in itertools.permutations(("missing", "stale", "extra")):  # in one collection, in any order
        assert alerts.together(_drift(*map(group, several)))["conf"] == {"repair": "all"}, several
    assert alerts.together(_drift(group("rejected"))) is None
    held = group("missing", "unique_key_held_by_extra_row")
    assert alerts.together(_drift(held))["conf"] == {"repair": "all"}, "the row that holds the key goes first"


def test_a_collection_that_is_declared_no_more_can_be_excused():
    [told] = _drift(group("missing", collection="renamed"))
    assert told["press"]["conf"] == {"excuse": ["renamed:*"], "excuse_reason": ""}
    assert line(told).endswith("; trigger reconcile_dual_writes with excuse = renamed:*")


def test_a_link_opens_the_form_of_its_alert():
    told = alert(
        "posts: 1 missing", kind="missing", press=press("reconcile_dual_writes", {"repair": "missing"}, "Repair…")
    )
    before, _, conf = line(told, "https://a/plugin/parity").partition("?conf=")
    assert before == "posts: 1 missing; trigger reconcile_dual_writes with repair = missing at https://a/plugin/parity"
    assert json.loads(unquote(conf)) == {"repair": "missing"}
    assert line(told) == "posts: 1 missing; trigger reconcile_dual_writes with repair = missing"
    other = alert("t", kind="missing", press=press("backfill_gap", {"mode": "apply"}, "Open backfill_gap"))
    assert line(other, "https://a") == "t; trigger backfill_gap with mode = apply", (
        "the page's form is of the other DAG"
    )
    assert line(alert("t", kind="rejected"), "https://a") == "t at https://a", "the page has the keys to excuse"
    assert line(alert("t", kind="timed_out"), "https://a") == "t"


def test_each_repair_does_what_the_weaker_one_does():
    for weaker, stronger in itertools.pairwise(REPAIRS):
        assert {a for a in ACTIONS.values() if may(weaker, a)} < {a for a in ACTIONS.values() if may(stronger, a)}
    for verdict in ACTIONS:
        assert may(needed(verdict), ACTIONS[verdict])
        assert not may(REPAIRS[REPAIRS.index(needed(verdict)) - 1], ACTIONS[verdict])
    assert most([]) == "off"
    assert most(["missing_and_stale", "missing"]) == "missing_and_stale"


def test_the_page_is_told_the_rules_that_runs_follow():
    told = rules()
    assert told["drift"] == ["missing", "stale", "extra", "rejected"]
    assert set(told["drift"]) == set(DRIFT)
    assert told["repairs"]["off"] == {}
    assert told["repairs"]["all"] == {"missing": "insert", "stale": "update", "extra": "delete"}
    assert set(told["repairs"]) == set(ReconcileParams.form()["repair"]["enum"])


def test_a_report_keeps_its_bound_and_all_its_alerts():
    """Two hundred past runs and fifty alerts with what to press left no room for anything."""
    found = []
    for name in CATALOG.names:
        made = CollectionReport(name, "compare")
        for verdict in DRIFT:
            for n in range(SAMPLES):
                made.add(Finding(verdict, "é" * 750 + str(n), "p" * 6000, columns=("a",) * 10))
        found.append(made)
    made_up: Any = report_of(*found, runs=200)
    number = len(made_up["alerts"])
    whole = build.fit(made_up)
    assert size(whole) <= LIMIT
    assert len(whole["alerts"]) == number == len(CATALOG.names) * len(DRIFT)
    assert whole["samples_shown"] < SAMPLES
    assert len(whole["history"]) > 10, "the charts lose their oldest runs, not all"


def test_the_page_knows_the_version_of_the_reports():
    """It takes a report of another version for an older one, which it shows in its own words."""
    script = (Path(__file__).parents[2] / "plugins" / "parity_web" / "facts.js").read_text()
    assert f"const VERSION = {VERSION};" in script
