"""What a repair counts as its own, and which tasks it needs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dualwrite.engine.units import Policy
from dualwrite.model.verdicts import VERDICTS, Excuse, Finding, Verdict
from dualwrite.postgres.remembered.differences import OpenDifference
from dualwrite.runs.repair import Planned, is_ours, steps

T = datetime(2026, 1, 1, tzinfo=UTC)


def _open(verdict: str, *, excused: bool = False) -> OpenDifference:
    finding = Finding(Verdict(verdict), "k", "things/k", key=("k",))
    return OpenDifference(finding, T, T, Excuse() if excused else None)


@pytest.mark.parametrize("verdict", [str(v) for v in VERDICTS])
def test_a_repair_takes_what_its_policy_writes_unless_accepted(verdict):
    written_by = {"missing": "insert", "stale": "update", "extra": "delete"}.get(verdict)
    for kind in ("insert", "update", "delete"):
        policy = Policy(**{kind: True})
        assert is_ours(_open(verdict), policy) is (kind == written_by)
        assert is_ours(_open(verdict, excused=True), policy) is False
    assert is_ours(_open(verdict), Policy()) is False


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        ({"insert": 1, "unfinished": 1}, ("write",)),
        ({}, ()),
        ({"insert": 1}, ("write",)),
        ({"update": 1}, ("write",)),
        ({"unfinished": 1}, ("write",)),
        ({"delete": 1}, ("delete",)),
        ({"delete": 1, "insert": 1, "update": 1}, ("delete", "write")),
        ({"inserted": 5, "updated": 5, "deleted": 5}, ()),
    ],
)
def test_a_collection_needs_the_tasks_of_what_is_left_to_write(planned, expected):
    part = Planned(**planned)
    assert steps({name: getattr(part, name) for name in Planned.__slots__}) == expected


def test_a_collection_that_the_gate_does_not_name_needs_no_task():
    assert steps(None) == ()


def test_the_brakes_see_what_was_written_already_too():
    part = Planned(insert=1, update=10, delete=100, unfinished=7, inserted=1_000, updated=10_000, deleted=100_000)
    assert (part.changed, part.total) == (110_110, 111_111)
    assert (Planned().changed, Planned().total) == (0, 0)
    assert [str(v) for v in (Verdict.MISSING, Verdict.STALE, Verdict.EXTRA)] == ["missing", "stale", "extra"]
