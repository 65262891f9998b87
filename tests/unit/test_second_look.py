"""Drift is what two looks saw, unchanged, a grace period apart."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dualwrite.engine.second_look import PATIENCE, seen_twice
from dualwrite.model.mapping import Refusal
from dualwrite.model.verdicts import SETTLED_BY_WRITING, Finding, Reason, Verdict

GRACE = timedelta(minutes=2)
MOMENT = timedelta(microseconds=1)


def looked(
    verdict: Verdict, *, before: Verdict | None, waited: timedelta, age: timedelta | None = None, changed: bool = False
) -> Finding:
    first = Finding(before, "k", fingerprint="one") if before is not None else None
    finding = Finding(verdict, "k", reason=Refusal("why"), fingerprint="another" if changed else "one")
    return seen_twice(finding, first, waited=waited, age=waited if age is None else age, grace=GRACE)


@pytest.mark.parametrize("verdict", sorted(SETTLED_BY_WRITING))
@pytest.mark.parametrize(
    ("before", "waited", "age", "changed", "reason"),
    [
        (Verdict.IN_FLIGHT, GRACE, GRACE, False, None),
        (Verdict.IN_FLIGHT, GRACE - MOMENT, 2 * PATIENCE, False, Reason.YOUNGER_THAN_GRACE),
        (Verdict.IN_FLIGHT, GRACE, GRACE, True, Reason.CHANGED_BETWEEN_LOOKS),
        (Verdict.IN_FLIGHT, GRACE, PATIENCE, True, Reason.CHANGED_BETWEEN_LOOKS),
        (Verdict.IN_FLIGHT, GRACE, PATIENCE + MOMENT, True, None),
        (Verdict.REJECTED, GRACE, 2 * PATIENCE, False, Reason.FIRST_LOOK),
        (None, timedelta(), timedelta(), False, Reason.FIRST_LOOK),
    ],
)
def test_what_a_second_look_says_of_each_difference(verdict, before, waited, age, changed, reason):
    found = looked(verdict, before=before, waited=waited, age=age, changed=changed)
    assert (found.verdict, found.reason) == ((Verdict.IN_FLIGHT, reason) if reason else (verdict, "why"))


@pytest.mark.parametrize("before", sorted(SETTLED_BY_WRITING))
@pytest.mark.parametrize("waited", [timedelta(), GRACE, 2 * PATIENCE])
@pytest.mark.parametrize("changed", [False, True])
def test_drift_stays_drift_until_a_look_finds_it_gone(before, waited, changed):
    """A document that changes every hour, or a key that changes through a whole look, would be green run after run."""
    for verdict in SETTLED_BY_WRITING:
        assert looked(verdict, before=before, waited=waited, changed=changed).verdict is verdict
    assert looked(Verdict.IN_FLIGHT, before=before, waited=waited, changed=changed).verdict is before
    for gone in set(Verdict) - SETTLED_BY_WRITING - {Verdict.IN_FLIGHT}:
        assert looked(gone, before=before, waited=waited, changed=changed).verdict is gone


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - SETTLED_BY_WRITING))
def test_what_no_write_settles_needs_no_second_look(verdict):
    assert looked(verdict, before=None, waited=timedelta(), changed=True).verdict is verdict


def test_a_dependent_of_an_extra_row_has_waited_with_it():
    dependent = Finding(Verdict.EXTRA, "k", requires="posts/p")
    assert seen_twice(dependent, None, waited=timedelta(), age=timedelta(), grace=GRACE) is dependent
