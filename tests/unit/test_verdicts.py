"""Verdicts, what two looks have in common, and what an excuse covers."""

from __future__ import annotations

import pytest

from dualwrite.model.mapping import Refusal
from dualwrite.model.verdicts import (
    DRIFT,
    OBSTACLES,
    SETTLED_BY_WRITING,
    VERDICTS,
    Cause,
    Excuse,
    Finding,
    Reason,
    Verdict,
    Why,
    is_same,
)


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("row", "row", True),
        (None, None, True),
        ("document:row", "document:row", True),
        ("row", "document:row", True),
        ("document:row", "row", False),
        ("row", "document:other", False),
        ("row", "documentrow", False),
        ("row", "document:row2", False),
        (None, "row", False),
        ("row", None, False),
        ("", "document:", True),
    ],
)
def test_two_equal_fingerprints_are_of_one_difference(before, now, same):
    """So are two if the row was seen without its document before."""
    assert is_same(before, now) is same


def test_the_words_of_verdicts_and_reasons_are_what_is_stored():
    assert VERDICTS == (
        "rejected", "orphan", "duplicate", "missing", "extra", "stale", "in_flight", "matching", "absent",
    )  # fmt: skip
    assert set(Reason) == {
        "parent_gone", "parent_missing", "parent_rejected", "key_held_by_another_document", "unique_key_taken",
        "unique_key_held_by_extra_row", "unique_key_held_by_stale_row", "path_unknown", "still_referenced",
        "absence_not_proved", "references_unseen", "new_row_lacking", "delete_refused", "changed_by_table", "first_look", "younger_than_grace",
        "changed_between_looks", "kept_changing", "excused_in_advance", "cant_be_asked", "parent_excused", "undone", "left_out",
    }  # fmt: skip
    assert all(reason.value == reason.name.lower() for reason in Reason)
    assert {"rejected", "missing", "extra", "stale"} == DRIFT
    assert {"missing", "extra", "stale"} == SETTLED_BY_WRITING


@pytest.mark.parametrize("accepted", [None, Reason.LEFT_OUT, *sorted(OBSTACLES)])
@pytest.mark.parametrize("found", [None, Reason.LEFT_OUT, *sorted(OBSTACLES)])
def test_why_an_extra_row_stays_does_not_end_its_excuse(accepted, found):
    """Not every look asks for it."""
    assert Excuse(Verdict.EXTRA, accepted).covers(Finding(Verdict.EXTRA, "k", reason=found))
    assert not Excuse(Verdict.EXTRA, accepted).covers(Finding(Verdict.EXTRA, "k", reason=Reason.PARENT_GONE))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_an_excuse_holds_for_its_verdict_and_reason(verdict):
    """One in advance holds for any drift."""
    finding = Finding(verdict, "k", reason=Refusal("why"))
    drift = verdict in DRIFT
    assert Excuse().covers(finding) is drift
    assert Excuse(verdict, "why").covers(finding) is drift
    assert Excuse(verdict, "another").covers(finding) is False
    assert Excuse(verdict, None).covers(finding) is False
    other = Verdict.STALE if verdict is not Verdict.STALE else Verdict.MISSING
    assert Excuse(other, "why").covers(finding) is False


def test_a_sample_tells_what_is_known_and_nothing_else():
    assert Finding(Verdict.MISSING, "k").as_sample(10) == {"key": "k"}
    whole = Finding(
        Verdict.STALE,
        "k",
        "things/k",
        columns=("a", "b"),
        reason=Refusal("why"),
        cause=Cause(Why.UNKNOWN),
        excused=True,
        fingerprint="f",
    )
    assert whole.as_sample(10) == {
        "key": "k", "path": "things/k", "columns": ["a", "b"], "reason": "why", "cause": "unknown", "excused": True,
    }  # fmt: skip


def test_labels_and_paths_are_cut_at_their_lengths():
    """Control characters are escaped."""

    def sample(label: str, path: str) -> tuple[str, str]:
        found = Finding(Verdict.MISSING, label, path).as_sample(5)
        return found["key"], found["path"]

    assert sample("12345", "1234567890") == ("12345", "1234567890")
    assert sample("123456", "12345678901") == ("1234…", "123456789…")
    assert sample("\x00", "a\nb") == ("\\u00…", "a\\u000ab")


def test_what_is_not_said_is_not_so():
    assert Finding(Verdict.MISSING, "k").excused is False
    assert Cause(Why.UNKNOWN) == Cause(Why.UNKNOWN, None, None)
