"""May reads be switched? Each line of the checklist, and each thing that makes it a no."""

from __future__ import annotations

import copy
from datetime import date, timedelta
from typing import Any

import pytest

from dualwrite.model.report import CollectionReport
from dualwrite.runs.ready import checklist, clean_streak

NAMES = ("posts", "permissions")
GOOD: dict[str, Any] = {
    "at": "2026-11-24T12:00:00+00:00",
    "ages": {
        n: {"swept_at": "2026-11-24T03:00:00+00:00", "examined_until": "2026-11-24T12:00:00+00:00"} for n in NAMES
    },
    "collections": [CollectionReport(n, "compare").as_json() for n in NAMES],
    "open": [],
    "clean_days": 14,
    "migrations": {"applied": 2, "pending": [], "differences": 0, "unknown": None},
    "dual_write_enabled": True,
    "problem": None,
    "operations": {"total": 7, "minutes": 30, "arrived": 6},
    "operations_declared": True,
}


def _open(collection: str, verdict: str, *, excused: bool = False) -> list[dict[str, Any]]:
    return [{"collection": collection, "verdict": verdict, "cause": "unknown", "excused": excused, "number": 1}]


def _lacking(**changes: Any) -> list[str]:
    found = checklist(copy.deepcopy(GOOD) | changes, NAMES, ["permissions"])
    lacking = [c["name"] for c in found["checks"] if not c["ok"]]
    assert found["answer"] == (not lacking)
    assert all(c["says"] and c["title"] for c in found["checks"]), "each line has its evidence in words"
    return lacking


def test_yes_where_every_line_holds():
    assert _lacking() == []


@pytest.mark.parametrize(
    ("what", "changes", "lacking"),
    [
        ("a collection was never swept", {"ages": {"posts": GOOD["ages"]["posts"]}}, ["swept", "derived"]),
        ("a sweep is two days old", {"at": "2026-11-26T12:00:00+00:00"}, ["swept"]),
        (
            "the last run missed a part",
            {"collections": [CollectionReport("posts", "compare", not_examined="Timeout").as_json()]},
            ["swept"],
        ),
        ("a row is missing", {"open": _open("posts", "missing")}, ["drift"]),
        ("a rejection is open", {"open": _open("posts", "rejected")}, ["rejected"]),
        ("permissions differ", {"open": _open("permissions", "stale")}, ["drift", "derived"]),
        ("permissions differ, excused", {"open": _open("permissions", "stale", excused=True)}, ["derived"]),
        ("thirteen clean days", {"clean_days": 13}, ["clean"]),
        ("a migration is pending", {"migrations": GOOD["migrations"] | {"pending": ["1_a"]}}, ["migrations"]),
        ("a table differs", {"migrations": GOOD["migrations"] | {"differences": 1}}, ["migrations"]),
        ("migrations can't be told", {"migrations": GOOD["migrations"] | {"unknown": "no folder"}}, ["migrations"]),
        ("the switch is off", {"dual_write_enabled": False}, ["alive"]),
        ("dual-write seems off", {"problem": "dual-write seems off"}, ["alive"]),
        ("write_ops can't be read", {"operations": {"total": None, "minutes": 30, "arrived": 6}}, ["alive"]),
        ("the gate never ran", {"operations": None}, ["alive"]),
        ("nobody writes", {"operations": {"total": 0, "minutes": 30, "arrived": 0}}, ["alive"]),
        ("operations and no row", {"operations": {"total": 8, "minutes": 30, "arrived": 0}}, ["alive"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_where_one_thing_is_lacking(what, changes, lacking):
    assert _lacking(**changes) == lacking


def test_what_a_person_excused_is_no_drift():
    assert _lacking(open=_open("posts", "rejected", excused=True) + _open("posts", "missing", excused=True)) == []


def test_clean_days_count_back_from_today_until_one_with_drift():
    today = date(2026, 11, 24)
    days = [(today - timedelta(days=i), i != 3) for i in range(10)]
    assert clean_streak(days, today) == 3


def test_a_day_on_which_nobody_looked_ends_the_row():
    today = date(2026, 11, 24)
    assert clean_streak([(today, True), (today - timedelta(days=2), True)], today) == 1
    assert clean_streak([(today - timedelta(days=1), True)], today) == 0
    assert clean_streak([], today) == 0
