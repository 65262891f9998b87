"""The asset dual-write-parity says that source and target are equal, or it isn't updated."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import VERDICTS
from dualwrite.runs.parity import parity

NAMES = ("posts", "users")
EQUAL: dict[str, Any] = {
    "at": "2026-11-24T12:00:00+00:00",
    "dual_write_enabled": True,
    "open": [],
    "ages": {"posts": {"swept_at": "2026-11-24T03:00:00+00:00"}, "users": {"swept_at": "2026-11-23T11:00:00+00:00"}},
    "collections": [{**CollectionReport(n, "compare").as_json(), "sweep_failed": None} for n in NAMES],
}


def _why_not(**changes: Any) -> list[str]:
    fails = changes.pop("fails", False)
    found = parity(copy.deepcopy(EQUAL) | changes, NAMES, fails=fails)
    assert found["equal"] == (not found["why_not"])
    return found["why_not"]


def _line(verdict: str, *, excused: bool, reason: str | None = None) -> dict[str, Any]:
    return {"collection": "posts", "verdict": verdict, "reason": reason, "excused": excused, "number": 2}


def test_equal_with_the_oldest_of_the_sweeps_that_say_so():
    assert parity(EQUAL, NAMES, fails=False) == {
        "equal": True,
        "why_not": [],
        "oldest_sweep": "2026-11-23T11:00:00+00:00",
    }
    in_advance = _line("in_flight", excused=True, reason="excused_in_advance")
    assert _why_not(open=[in_advance]) == [], "nothing differs there yet"


@pytest.mark.parametrize("excused", [False, True])
@pytest.mark.parametrize("verdict", VERDICTS)
def test_whatever_is_open_is_known_to_differ(verdict, excused):
    told = f"open: 2 {verdict.replace('_', ' ')}" + (" (2 of them excused)" if excused else "")
    assert _why_not(open=[_line(verdict, excused=excused)]) == [told]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dual_write_enabled": False}, "Variable dual_write_enabled is false"),
        ({"fails": True}, "this run fails"),
        ({"collections": EQUAL["collections"][:1]}, "not compared by this run: users"),
        (
            {"collections": [EQUAL["collections"][0], {**EQUAL["collections"][1], "not_examined": "Timeout"}]},
            "not compared by this run: users",
        ),
        (
            {"collections": [EQUAL["collections"][0], {**EQUAL["collections"][1], "sweep_failed": "Timeout"}]},
            "not compared by this run: users",
        ),
        ({"ages": {"posts": EQUAL["ages"]["posts"]}}, "not swept within a day: users"),
        ({"at": "2026-11-24T13:00:01+00:00"}, "not swept within a day: users"),
    ],
)
def test_what_was_not_compared_is_not_known_to_be_equal(changes, why):
    assert _why_not(**changes) == [why]
