"""What a first look keeps of a difference, and when it believes what an earlier run asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.model.verdicts import DRIFT, SETTLED_BY_WRITING, Excuse, Finding, Reason, Verdict
from dualwrite.model.windows import Window
from dualwrite.postgres.remembered.differences import OpenDifference
from dualwrite.runs.first_look import _to_keep, _trusts_memory

T = datetime(2026, 2, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HERE = "boards/b1/posts/p1"
VERDICTS = [Verdict.MISSING, Verdict.STALE, Verdict.EXTRA, Verdict.REJECTED]


def finding(verdict: Verdict, **changes: Any) -> Finding:
    return Finding(verdict, "p1", **{"path": HERE, "key": ("p1",), "fingerprint": "f", **changes})


def before(found: Finding, excuse: Excuse | None = None) -> OpenDifference:
    return OpenDifference(found, T, T, excuse)


def in_flight(found: Finding) -> Finding:
    return replace(found, verdict=Verdict.IN_FLIGHT, reason=Reason.FIRST_LOOK)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_new_difference_is_kept_in_flight_whatever_it_is(verdict):
    """This run may die before its second look, and another one look at the table."""
    found = finding(verdict, reason=Reason.PARENT_MISSING)
    assert _to_keep(found, None) == in_flight(found)
    undecided = before(finding(Verdict.IN_FLIGHT, fingerprint="older"))
    assert _to_keep(found, undecided) == in_flight(found)
    assert _to_keep(found, before(finding(Verdict.REJECTED))) == in_flight(found), "that one was no drift to be written"


@pytest.mark.parametrize("verdict", sorted(SETTLED_BY_WRITING))
def test_drift_stays_as_it_is_open_and_moves_with_its_document(verdict):
    """The second look finds it gone, or finds it again; it looks where the document is now."""
    found = finding(Verdict.STALE, fingerprint="newer")
    assert _to_keep(found, before(finding(verdict))) is None
    elsewhere = finding(Verdict.STALE, path="boards/b2/posts/p1", fingerprint="newer")
    assert _to_keep(elsewhere, before(finding(verdict))) == replace(elsewhere, verdict=verdict)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_an_excuse_holds_until_there_is_other_drift(verdict):
    excused = before(finding(verdict), Excuse(verdict))
    assert _to_keep(finding(verdict, fingerprint="newer"), excused) is None
    assert _to_keep(finding(Verdict.IN_FLIGHT), excused) is None
    assert _to_keep(finding(Verdict.ORPHAN), excused) is None
    for other in DRIFT - {verdict}:
        assert _to_keep(finding(other), excused) == in_flight(finding(other))


@pytest.mark.parametrize(
    ("name", "scope", "window", "trusts"),
    [
        ("posts", "recent", Window(T, T + HOUR), True),
        ("posts", "recent", None, False),
        ("posts", "sweep", None, False),
        ("boards", "recent", None, True),
        ("boards", "sweep", None, False),
    ],
    ids=["a window", "a sweep that is due", "a sweep asked for", "read whole in every run", "and swept"],
)
def test_only_a_sweep_asks_again_for_what_was_gone_lately(name, scope, window, trusts):
    run: Any = SimpleNamespace(catalog=CATALOG, params=SimpleNamespace(scope=scope))
    assert _trusts_memory(run, name, window) is trusts
