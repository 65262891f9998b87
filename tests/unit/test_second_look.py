"""Drift is what two looks saw, unchanged, a grace period apart."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dualwrite.engine.second_look import PATIENCE, seen_twice
from dualwrite.model.mapping import Refusal
from dualwrite.model.verdicts import SETTLED_BY_WRITING, Finding, Reason, Verdict

GRACE = timedelta(minutes=2)
MOMENT = timedelta(microseconds=1)


def looked(verdict: Verdict, *, before: Verdict | None, age: timedelta, changed: bool = False) -> Finding:
    first = Finding(before, "k", fingerprint="one") if before is not None else None
    finding = Finding(verdict, "k", reason=Refusal("why"), fingerprint="another" if changed else "one")
    return seen_twice(finding, first, age=age, grace=GRACE)


@pytest.mark.parametrize("verdict", sorted(SETTLED_BY_WRITING))
@pytest.mark.parametrize(
    ("before", "age", "changed", "reason"),
    [
        (Verdict.STALE, GRACE, False, None),
        (Verdict.STALE, GRACE - MOMENT, False, Reason.YOUNGER_THAN_GRACE),
        (Verdict.STALE, GRACE, True, Reason.CHANGED_BETWEEN_LOOKS),
        (Verdict.STALE, PATIENCE, True, Reason.CHANGED_BETWEEN_LOOKS),
        (Verdict.STALE, PATIENCE + MOMENT, True, None),
        (Verdict.IN_FLIGHT, GRACE, False, None),
        (Verdict.REJECTED, 2 * PATIENCE, False, Reason.FIRST_LOOK),
        (None, timedelta(), False, Reason.FIRST_LOOK),
    ],
)
def test_what_a_second_look_says_of_each_difference(verdict, before, age, changed, reason):
    found = looked(verdict, before=before, age=age, changed=changed)
    assert (found.verdict, found.reason) == ((Verdict.IN_FLIGHT, reason) if reason else (verdict, "why"))


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - SETTLED_BY_WRITING))
def test_what_no_write_settles_needs_no_second_look(verdict):
    assert looked(verdict, before=None, age=timedelta(), changed=True).verdict is verdict


def test_a_dependent_of_an_extra_row_has_waited_with_it():
    dependent = Finding(Verdict.EXTRA, "k", requires="posts/p")
    assert seen_twice(dependent, None, age=timedelta(), grace=GRACE) is dependent
