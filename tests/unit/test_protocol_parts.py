"""The small decisions of the writing protocol, each by itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine import compare_and_set
from dualwrite.engine.compare_and_set import UNITS_AT_ONCE, _batches, _mapped_of, _takes_proof, _unlocated
from dualwrite.engine.judge import ATTEMPTS, Judge
from dualwrite.engine.units import Unit
from dualwrite.model.errors import TargetError
from dualwrite.model.mapping import Refusal, Rejection, Row
from dualwrite.model.verdicts import Finding, Reason, Verdict

T = datetime(2026, 1, 1, tzinfo=UTC)


def _unit(label: str, entry: str | None = None, path: str | None = "things/k") -> Unit:
    return Unit(label, (label,), path, entry)


def _row(entry: str | None) -> Row:
    return Row(f"k/{entry}", ("k", entry), ("k", entry), frozenset(), "things/k", entry, T, T)


def test_a_round_takes_so_many_keys_and_the_rest_wait_in_their_order():
    units = [_unit(str(i)) for i in range(2 * UNITS_AT_ONCE + 1)]
    batches = list(_batches(units))
    assert [len(batch) for batch in batches] == [UNITS_AT_ONCE, UNITS_AT_ONCE, 1]
    assert [unit for batch in batches for unit in batch.values()] == units
    assert list(_batches([])) == []


def test_two_documents_of_one_label_get_a_turn_each():
    first, second, other = _unit("a", path="things/1"), _unit("a", path="things/2"), _unit("b")
    assert list(_batches([first, second, other])) == [{"a": first, "b": other}, {"a": second}]


def test_a_unit_is_its_own_entry_of_its_document_or_the_refusal_of_all_of_them():
    entries = [_row("u1"), _row("u2"), Rejection("k/u3", "things/k", "u3", Refusal("why"))]
    assert _mapped_of(_unit("k/u2", "u2"), entries) is entries[1]
    assert _mapped_of(_unit("k/u3", "u3"), entries) is entries[2]
    assert _mapped_of(_unit("k/u4", "u4"), entries) is None
    entire = Rejection("k", "things/k", None, Refusal("why"), entire=True)
    assert _mapped_of(_unit("k/u4", "u4"), [entire]) is entire
    assert _mapped_of(_unit("k/u4", "u4"), [Rejection("k[0]", "things/k", None, Refusal("why"))]) is None
    assert _mapped_of(_unit("k/u4", "u4"), []) is None


def test_only_an_extra_row_whose_document_could_be_elsewhere_takes_a_proof():
    assert _takes_proof(Finding(Verdict.EXTRA, "k", "things/k"))
    assert not _takes_proof(Finding(Verdict.EXTRA, "k"))
    assert not _takes_proof(Finding(Verdict.MISSING, "k", "things/k"))


def test_a_row_whose_document_nobody_can_look_for_is_extra_and_says_that_its_path_is_unknown():
    unit = _unit("k", path=None)
    assert _unlocated(unit, {}) == Finding(Verdict.ABSENT, "k", key=("k",))
    found = _unlocated(unit, {("k",): ("17", "row 17")})
    assert found == Finding(Verdict.EXTRA, "k", key=("k",), reason=Reason.PATH_UNKNOWN, fingerprint="row 17")


# --- waiting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


JUDGE = SimpleNamespace(collection=CATALOG["posts"])


def test_what_no_retry_helps_is_raised_at_once(slept):
    with pytest.raises(psycopg.errors.CheckViolation):
        Judge.wait_or_raise(JUDGE, psycopg.errors.CheckViolation(), 0)
    assert slept == []


def test_a_deadlock_is_waited_out_ever_longer_and_never_beyond_five_seconds(slept):
    error = psycopg.errors.DeadlockDetected()
    for attempt in range(ATTEMPTS - 1):
        Judge.wait_or_raise(JUDGE, error, attempt)
        longest = min(5.0, 0.1 * 2**attempt)
        assert longest / 2 <= slept[-1] <= longest, attempt
    with pytest.raises(TargetError, match=r"Writing posts failed 10 times with DeadlockDetected"):
        Judge.wait_or_raise(JUDGE, error, ATTEMPTS - 1)
    assert len(slept) == ATTEMPTS - 1 == 9


def test_a_key_that_keeps_changing_is_looked_at_five_times_with_growing_pauses_and_told_as_in_flight(slept):
    """Nobody settles it, and the run goes on without it."""
    asked: list[dict] = []

    def round_(todo, done, policy, deletes):
        asked.append(todo)
        return todo

    protocol = SimpleNamespace(_round=round_)
    unit = Unit("k", ("k",), "things/k", "e")
    found = compare_and_set.Protocol._run_batch(protocol, {"k": unit}, None, None)
    finding = Finding(Verdict.IN_FLIGHT, "k", "things/k", "e", ("k",), reason=Reason.KEPT_CHANGING)
    assert found == [finding]
    assert len(asked) == 5
    for n, seconds in enumerate(slept, 1):
        assert 0.5 * 0.05 * 2**n <= seconds <= 0.05 * 2**n
    assert len(slept) == 4, "the first look waits for nobody"


def test_a_batch_ends_when_nothing_is_left_to_look_at(slept):
    def round_(todo, done, policy, deletes):
        done["k"] = Finding(Verdict.MATCHING, "k")
        return {}

    assert compare_and_set.Protocol._run_batch(SimpleNamespace(_round=round_), {"k": _unit("k")}, None, None) == [
        Finding(Verdict.MATCHING, "k")
    ]
    assert slept == []
