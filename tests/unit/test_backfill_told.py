"""What a backfill asks a person, and says when it fails."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dualwrite.catalog import CATALOG, EXPORT_TIME
from dualwrite.model import gap_params
from dualwrite.model.alert import line
from dualwrite.model.render import as_markdown
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import GapReport
from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.runs.report import gap
from tests.shape import faults


def report_of(mode: str, *collections: CollectionReport, **changes: Any) -> GapReport:
    """A backfill's report of these, which are of phase gap or verify."""
    names = [c.collection for c in collections if c.phase == "gap"]
    given = {"since": EXPORT_TIME, "collections": names, "mode": mode}
    params = gap_params.parse(given, CATALOG, datetime.now(UTC)).model_copy(update={"added": ()})
    found, checked = (
        {c.collection: c.as_json() for c in collections if c.phase == phase} for phase in ("gap", "verify")
    )
    made = gap.build_report("r", params, found, checked, dry=mode == "dry_run", **changes)
    assert faults(made, GapReport) == []
    return made


def _collection(name: str, phase: str, *verdicts: Verdict, excused: bool = False, **numbers: Any) -> CollectionReport:
    made = CollectionReport(name, phase, **numbers)
    for verdict in verdicts:
        made.add(Finding(verdict, f"{name}-{verdict}", f"{name}/{verdict}", excused=excused))
    return made


def test_an_approval_shows_what_would_be_written_alone():
    """The buttons stood 2,000 pixels down, below samples of what isn't decided, and a column of zeros."""
    asked = as_markdown(
        gap.asked(
            report_of(
                "dry_run",
                _collection("posts", "gap", Verdict.MISSING, Verdict.ORPHAN, Verdict.REJECTED),
                _collection("blocks", "gap", Verdict.MATCHING),
                _collection("likes", "gap", Verdict.MISSING, excused=True),
                _collection("posts", "verify", source_count=3, target_count=1),
                _collection("blocks", "verify", source_count=1, target_count=1),
            )
        )
    )
    assert "posts-missing" in asked
    assert "posts-orphan" not in asked
    assert "likes-missing" not in asked, "a person accepted it"
    assert "posts-rejected" not in asked
    assert "| blocks" not in asked, "nothing would be written there"
    [header] = [line for line in asked.splitlines() if line.startswith("| collection")]
    [posts] = [line for line in asked.splitlines() if line.startswith("| posts")]
    cells = dict(zip(*([cell.strip() for cell in row.split("|")] for row in (header, posts)), strict=True))
    assert (cells["missing"], cells["documents"], cells["rows"]) == ("1", "3", "1"), "one table tells all"
    many = _collection("posts", "gap")
    for number in range(9):
        many.add(Finding(Verdict.MISSING, f"k{number}"))
    assert "posts, missing (9, 5 shown)" in as_markdown(gap.asked(report_of("dry_run", many)))


def test_a_failed_backfill_says_what_to_do():
    """ "1 rejected, 2 extra, 1 of them excused" told neither, and left open of which one."""
    checked = _collection("comments", "verify", Verdict.REJECTED, Verdict.EXTRA, verification="not_verified")
    checked.add(Finding(Verdict.EXTRA, "x", excused=True))
    [alert] = report_of("apply", _collection("comments", "gap", Verdict.MATCHING), checked)["alerts"]
    assert line(alert) == (
        "comments is not verified: 1 rejected, 2 extra (1 of these 3 excused); correct the documents that can't become rows, "
        "or excuse them with a reason; rows of other collections that need these count as matching until they go; trigger "
        "reconcile_dual_writes with scope = sweep and repair = all to delete rows without a document"
    )


FAILED = {
    "missing": ([_collection("boards", "verify", Verdict.MISSING, verification="not_verified")], {}),
    "stale": ([_collection("boards", "verify", Verdict.STALE, verification="not_verified")], {}),
    "extra": ([_collection("boards", "verify", Verdict.EXTRA, verification="not_verified")], {}),
    "all three": (
        [_collection("boards", "verify", Verdict.STALE, Verdict.MISSING, Verdict.EXTRA, verification="not_verified")],
        {},
    ),
    "in flight": ([_collection("boards", "verify", Verdict.IN_FLIGHT, verification="not_verified")], {}),
    "too large": ([_collection("boards", "verify", verification="not_proven")], {}),
    "its verification failed": ([], {}),
    "its verification was lost": ([_collection("boards", "verify", not_examined="w")], {}),
    "nobody answered": ([], {"approval": "unanswered"}),
}


@pytest.mark.parametrize(("checked", "changes"), FAILED.values(), ids=FAILED)
def test_each_alert_of_a_backfill_says_what_to_press(checked, changes):
    """Only documents that can't become rows need a person before any run."""
    [alert] = report_of("apply", _collection("boards", "gap", Verdict.MATCHING), *checked, **changes)["alerts"]
    press = alert["press"]
    assert press is not None
    assert line(alert).endswith(f"; {press['says']}")
    if press["dag"] == "backfill_gap":
        gap_params.parse({"since": EXPORT_TIME, **press["conf"]}, CATALOG, datetime.now(UTC))
    else:
        assert press["conf"] == {"scope": "sweep", "repair": "all"}, "a backfill deletes nothing"


def test_a_rejected_review_is_no_failure_a_lost_verification_is():
    assert report_of("review", _collection("boards", "gap"), approval="rejected")["alerts"] == []
    lost = report_of("dry_run", _collection("boards", "gap"), errors={"verify_counts": "no answer", "finish": "killed"})
    assert [a["text"] for a in lost["alerts"]] == ["verify_counts failed: no answer", "finish failed: killed"]


def test_a_collection_without_a_report_says_what_ended_its_task():
    """Not only that there is a log: what stands there is known, and may name a connection or a lost worker."""
    params = gap_params.parse(
        {"since": EXPORT_TIME, "collections": ["users"], "mode": "apply"}, CATALOG, datetime.now(UTC)
    )
    told = gap.build_report("r", params, {}, {}, dry=False, errors={"collections.users": "Can't connect."})["alerts"]
    assert [a["text"] for a in told] == ["users was not examined: Can't connect. Correct that"]
