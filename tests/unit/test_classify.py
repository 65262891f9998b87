"""Each circumstance of a difference gives one verdict and one reason."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.classify import (
    Circumstances,
    classify,
    duplicate,
    finding_of,
    is_insertable,
    is_updatable,
    parent_state,
    says_elsewhere,
    still_to_write,
)
from dualwrite.engine.units import Policy
from dualwrite.model.mapping import Refusal, Row
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres.target import Difference

T = datetime(2026, 2, 1, tzinfo=UTC)
ROW = Row("k", ("k",), ("k", "text"), frozenset(), "things/k", "e", T, T.replace(month=3), (1,))


def difference(*, exists: bool, columns: tuple[str, ...] = (), digest: str | None = "d") -> Difference:
    return Difference(0, ROW, exists, "7" if exists else None, columns, (), (), digest)


FOUND, ABSENT = True, False
CASES = [
    # is there a row, parents, holders, does the row belong elsewhere -> verdict, reason
    (FOUND, (), (), False, Verdict.STALE, None),
    (FOUND, ("present",), (), False, Verdict.STALE, None),
    (FOUND, ("insertable",), (), False, Verdict.STALE, Reason.PARENT_MISSING),
    (FOUND, ("unfit",), (), False, Verdict.STALE, Reason.PARENT_REJECTED),
    (FOUND, ("gone",), (), False, Verdict.EXTRA, Reason.PARENT_GONE),
    (FOUND, ("gone",), ("document",), True, Verdict.DUPLICATE, Reason.KEY_HELD_BY_ANOTHER_DOCUMENT),
    (FOUND, (), (), True, Verdict.DUPLICATE, Reason.KEY_HELD_BY_ANOTHER_DOCUMENT),
    (FOUND, (), ("document",), False, Verdict.STALE, Reason.UNIQUE_KEY_TAKEN),
    (FOUND, (), ("extra",), False, Verdict.STALE, Reason.UNIQUE_KEY_HELD_BY_EXTRA_ROW),
    (FOUND, (), ("stale",), False, Verdict.STALE, Reason.UNIQUE_KEY_HELD_BY_STALE_ROW),
    (FOUND, ("unfit", "insertable"), (), False, Verdict.STALE, Reason.PARENT_REJECTED),
    (FOUND, ("insertable",), ("document",), False, Verdict.STALE, Reason.PARENT_MISSING),
    (FOUND, (), ("stale", "extra", "document"), False, Verdict.STALE, Reason.UNIQUE_KEY_TAKEN),
    (FOUND, (), ("stale", "extra"), False, Verdict.STALE, Reason.UNIQUE_KEY_HELD_BY_EXTRA_ROW),
    (ABSENT, (), (), False, Verdict.MISSING, None),
    (ABSENT, ("present",), (), False, Verdict.MISSING, None),
    (ABSENT, ("insertable",), (), False, Verdict.MISSING, Reason.PARENT_MISSING),
    (ABSENT, ("insertable", "excused"), (), False, Verdict.MISSING, Reason.PARENT_EXCUSED),
    (ABSENT, ("unfit",), (), False, Verdict.REJECTED, Reason.PARENT_REJECTED),
    (ABSENT, ("gone",), (), False, Verdict.ORPHAN, Reason.PARENT_GONE),
    (ABSENT, ("unfit", "gone"), ("document",), False, Verdict.ORPHAN, Reason.PARENT_GONE),
    (ABSENT, ("unfit",), ("document",), False, Verdict.REJECTED, Reason.PARENT_REJECTED),
    (ABSENT, ("insertable",), ("document",), False, Verdict.DUPLICATE, Reason.UNIQUE_KEY_TAKEN),
    (ABSENT, (), ("extra",), False, Verdict.MISSING, Reason.UNIQUE_KEY_HELD_BY_EXTRA_ROW),
    (ABSENT, (), ("stale",), False, Verdict.MISSING, Reason.UNIQUE_KEY_HELD_BY_STALE_ROW),
    (ABSENT, ("insertable",), ("stale",), False, Verdict.MISSING, Reason.PARENT_MISSING),
]


@pytest.mark.parametrize(("found", "parents", "holders", "elsewhere", "verdict", "reason"), CASES)
def test_what_stage_parents_and_owners_say_is_one_verdict(found, parents, holders, elsewhere, verdict, reason):
    said = classify(difference(exists=found), Circumstances(parents, holders, elsewhere))
    assert (said.verdict, said.reason) == (verdict, reason)


def test_a_row_belongs_to_its_document_unless_told_otherwise():
    assert classify(difference(exists=True), Circumstances()).verdict is Verdict.STALE


def test_a_finding_tells_key_columns_and_both_sides_fingerprints():
    found = finding_of(Verdict.STALE, ROW, difference(exists=True, columns=("title",)), reason=Refusal("why"))
    assert found == Finding(
        Verdict.STALE, "k", "things/k", "e", ROW.key, columns=("title",), reason=Refusal("why"), fingerprint=f"{ROW.fingerprint}:d",
        document_time=T.replace(month=3),
    )  # fmt: skip
    without_row = finding_of(Verdict.MISSING, ROW, difference(exists=False, digest=None))
    assert without_row.fingerprint == f"{ROW.fingerprint}:"
    compared_with_nothing = duplicate(ROW)
    assert (compared_with_nothing.verdict, compared_with_nothing.columns, compared_with_nothing.fingerprint) == (
        Verdict.DUPLICATE,
        (),
        None,
    )
    assert compared_with_nothing.reason == Reason.KEY_HELD_BY_ANOTHER_DOCUMENT


@pytest.mark.parametrize(
    ("name", "columns", "elsewhere"),
    [
        ("posts", ("title",), False),
        ("posts", ("title", "board_id"), True),
        ("reactions", ("comment_id",), True),
        ("reactions", ("reaction_type",), False),
        ("posts", (), False),
    ],
)
def test_a_column_of_the_path_tells_that_a_document_is_elsewhere(name, columns, elsewhere):
    """A row says so if such a column differs, whatever else does."""
    assert says_elsewhere(CATALOG[name], difference(exists=True, columns=columns)) is elsewhere


WRITABLE = (None, Reason.PARENT_MISSING)
REASONS = (None, *Reason)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("verdict", Verdict)
def test_only_what_is_unhindered_and_allowed_is_written(verdict, reason):
    """Nothing stands in its way, and the policy allows it."""
    finding = Finding(verdict, "k", reason=reason)
    for insert in (False, True):
        for update in (False, True):
            allowed = (verdict is Verdict.MISSING and insert) or (verdict is Verdict.STALE and update)
            policy = Policy(insert=insert, update=update, delete=True)
            assert still_to_write(finding, policy) is (allowed and reason in WRITABLE)
    assert is_insertable(finding) is (verdict is Verdict.MISSING and reason in WRITABLE)
    assert is_updatable(finding) is (verdict is Verdict.STALE and reason is None)


@pytest.mark.parametrize("verdict", Verdict)
def test_what_a_person_accepted_is_written_by_no_policy(verdict):
    finding = Finding(verdict, "k", excused=True)
    assert not still_to_write(finding, Policy(insert=True, update=True, delete=True))
    assert not is_insertable(finding)
    assert not is_updatable(finding)


PARENTS = {
    Verdict.STALE: "present", Verdict.MISSING: "insertable", Verdict.ORPHAN: "gone", Verdict.EXTRA: "gone",
    Verdict.REJECTED: "unfit", Verdict.DUPLICATE: "unfit",
}  # fmt: skip


@pytest.mark.parametrize("verdict", PARENTS)
def test_what_a_parent_is_follows_from_the_finding_on_its_row(verdict):
    finding = Finding(verdict, "k")
    assert parent_state(finding, False) == PARENTS[verdict]
    assert parent_state(finding, True) == "present"
    assert parent_state(None, False) == "present"


def test_an_accepted_parent_without_a_row_is_not_to_be_inserted():
    """A person accepted that it has no row."""
    assert parent_state(Finding(Verdict.MISSING, "k", excused=True), False) == "excused"
    assert parent_state(Finding(Verdict.MISSING, "k", reason=Reason.PARENT_EXCUSED), False) == "excused"


@pytest.mark.parametrize("found", [FOUND, ABSENT])
@pytest.mark.parametrize("holders", [(), ("extra",), ("stale",)])
def test_what_depends_on_a_row_nobody_can_ask_for_is_not_written(found, holders):
    told = classify(difference(exists=found), Circumstances(holders=holders, unasked=True))
    assert (told.verdict, told.reason) == (Verdict.STALE if found else Verdict.MISSING, Reason.CANT_BE_ASKED)
    assert not is_insertable(told)
    assert not is_updatable(told)
    assert not still_to_write(told, Policy(insert=True, update=True, delete=True))
