"""The small decisions of the writing protocol, each by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.compare_and_set import UNITS_AT_ONCE, WritingProtocol, _batches, _takes_proof, _untold
from dualwrite.engine.deletes import Deletes
from dualwrite.engine.job import Job
from dualwrite.engine.judge import ATTEMPTS, Judged, wait_or_raise
from dualwrite.engine.parents import Parents
from dualwrite.engine.reading import _mapped_of
from dualwrite.engine.units import Policy, Unit
from dualwrite.engine.whereabouts import Unknown
from dualwrite.firestore.source import Source
from dualwrite.model.errors import TargetError
from dualwrite.model.mapping import Refusal, Rejection, Row
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres import Connection
from dualwrite.postgres.target import Comparison, Target

T = datetime(2026, 1, 1, tzinfo=UTC)


def _unit(label: str, entry: str | None = None, path: str | None = "things/k") -> Unit:
    return Unit(label, (label,), path, entry)


def _row(entry: str | None) -> Row:
    return Row(f"k/{entry}", ("k", entry), ("k", entry), frozenset(), "things/k", entry, T, T)


def test_a_round_takes_so_many_keys_and_the_rest_wait_in_order():
    units = [_unit(str(i)) for i in range(2 * UNITS_AT_ONCE + 1)]
    batches = list(_batches(units))
    assert [len(batch) for batch in batches] == [UNITS_AT_ONCE, UNITS_AT_ONCE, 1]
    assert [unit for batch in batches for unit in batch.values()] == units
    assert list(_batches([])) == []


def test_two_documents_of_one_label_get_a_turn_each():
    first, second, other = _unit("a", path="things/1"), _unit("a", path="things/2"), _unit("b")
    assert list(_batches([first, second, other])) == [{"a": first, "b": other}, {"a": second}]


def test_a_unit_is_its_own_entry_or_the_refusal_of_all_entries():
    entries = [_row("u1"), _row("u2"), Rejection("k/u3", "things/k", "u3", Refusal("why"))]
    assert _mapped_of(_unit("k/u2", "u2"), entries) is entries[1]
    assert _mapped_of(_unit("k/u3", "u3"), entries) is entries[2]
    assert _mapped_of(_unit("k/u4", "u4"), entries) is None
    entire = Rejection("k", "things/k", None, Refusal("why"), entire=True)
    assert _mapped_of(_unit("k/u4", "u4"), [entire]) is entire
    assert _mapped_of(_unit("k/u4", "u4"), [Rejection("k[0]", "things/k", None, Refusal("why"))]) is None
    assert _mapped_of(_unit("k/u4", "u4"), []) is None


def test_only_an_extra_row_takes_a_proof():
    """It does only if its document could be elsewhere."""
    assert _takes_proof(Finding(Verdict.EXTRA, "k", "things/k"), CATALOG["posts"])
    assert not _takes_proof(Finding(Verdict.EXTRA, "k"), CATALOG["posts"])
    assert not _takes_proof(Finding(Verdict.MISSING, "k", "things/k"), CATALOG["posts"])


def test_a_row_whose_document_nobody_can_look_for_is_extra():
    """It says that its path is unknown."""
    unit = _unit("k", path=None)
    assert _untold(unit, {}, Reason.PATH_UNKNOWN) == Finding(Verdict.ABSENT, "k", key=("k",))
    found = _untold(unit, {("k",): ("17", "row 17")}, Reason.PATH_UNKNOWN)
    assert found == Finding(Verdict.EXTRA, "k", key=("k",), reason=Reason.PATH_UNKNOWN, fingerprint="row 17")


# --- waiting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


@pytest.fixture
def posts() -> Iterator[WritingProtocol]:
    """The protocol for posts that reaches neither database."""

    def nowhere() -> Connection:
        raise AssertionError("nothing here asks a database")

    with (
        Source("nowhere", emulator_host="127.0.0.1:1") as source,
        Target(nowhere, CATALOG) as target,
        closing(_protocol(source, target)) as protocol,
    ):
        yield protocol


def _protocol(source: Source, target: Target) -> WritingProtocol:
    job = Job(source, target, CATALOG, CATALOG["posts"], "run", CollectionReport("posts", "gap"))
    return WritingProtocol(job, Policy(), Parents(job))


def test_what_no_retry_helps_is_raised_at_once(slept):
    with pytest.raises(psycopg.errors.CheckViolation):
        wait_or_raise("posts", psycopg.errors.CheckViolation(), 0)
    assert slept == []


def test_a_page_that_no_retry_helps_ends_with_postgres_error(slept, posts, monkeypatch):
    @contextmanager
    def refused():
        raise psycopg.errors.UndefinedTable
        yield

    monkeypatch.setattr(posts._job.target, "transaction", refused)
    with pytest.raises(psycopg.errors.UndefinedTable):
        posts.judge(posts.page(), Policy())
    assert slept == []


def _nothing_differs(posts, monkeypatch, *, faults: list[Exception], unknown: bool) -> None:
    """Postgres answers that nothing of a page differs, after these faults; or something is always still to be learned."""

    @contextmanager
    def transaction():
        if faults:
            raise faults.pop()
        yield None

    same = Comparison([], [], 0)
    monkeypatch.setattr(posts._job.target, "transaction", transaction)
    monkeypatch.setattr(posts._job.target, "compare_staged", lambda *_: same)
    monkeypatch.setattr(posts.whereabouts, "unknown", lambda *_: Unknown([], frozenset(), []) if unknown else None)


def test_a_page_that_met_a_deadlock_is_judged_at_the_next_try(slept, posts, monkeypatch):
    _nothing_differs(posts, monkeypatch, faults=[psycopg.errors.DeadlockDetected()], unknown=False)
    assert posts.judge(posts.page(), Policy()) == Judged({}, {})
    assert len(slept) == 1


def test_a_page_whose_rows_keep_changing_is_given_up_and_says_so(slept, posts, monkeypatch):
    _nothing_differs(posts, monkeypatch, faults=[], unknown=True)
    with pytest.raises(TargetError, match="Rows of posts kept changing through 10 looks"):
        posts.judge(posts.page(), Policy())


def test_a_pages_inserts_are_read_again_beside_the_next_page(posts, monkeypatch):
    """Each document is read once."""
    asked: list[list[str]] = []
    monkeypatch.setattr(posts._job.source, "get", lambda paths: asked.append(paths) or {})
    posts.confirm_later([_row("u1"), _row("u2")], [1, 2])
    posts.confirm_later([], [])
    posts.close()
    assert asked == [["things/k"]]


def test_a_deadlock_is_waited_out_ever_longer_up_to_five_seconds(slept):
    error = psycopg.errors.DeadlockDetected()
    for attempt in range(ATTEMPTS - 1):
        wait_or_raise("posts", error, attempt)
        longest = min(5.0, 0.1 * 2**attempt)
        assert longest / 2 <= slept[-1] <= longest, attempt
    with pytest.raises(TargetError, match=r"Writing posts failed 10 times with DeadlockDetected"):
        wait_or_raise("posts", error, ATTEMPTS - 1)
    assert len(slept) == ATTEMPTS - 1 == 9


def test_a_key_that_keeps_changing_is_looked_at_five_times(slept, posts, monkeypatch):
    """The pauses grow, and it is told as in flight. Nobody settles it, and the run goes on without it."""
    asked: list[dict] = []

    def round_(units, done, policy, deletes):
        asked.append(units)
        return units, {}

    monkeypatch.setattr(posts, "_round", round_)  # no two databases change at just the right moments
    unit = Unit("k", ("k",), "things/k", "e")
    found = posts._run_batch(
        {"k": unit}, Policy(), Deletes(posts._job, posts.whereabouts, [unit], Policy(), frozenset())
    )
    finding = Finding(Verdict.IN_FLIGHT, "k", "things/k", "e", ("k",), reason=Reason.KEPT_CHANGING)
    assert found == [finding]
    assert len(asked) == 5
    for n, seconds in enumerate(slept, 1):
        assert 0.5 * 0.05 * 2**n <= seconds <= 0.05 * 2**n
    assert len(slept) == 4, "the first look waits for nobody"


def test_a_batch_ends_when_nothing_is_left_to_look_at(slept, posts, monkeypatch):
    def round_(units, done, policy, deletes):
        done["k"] = Finding(Verdict.MATCHING, "k")
        return {}, {}

    monkeypatch.setattr(posts, "_round", round_)
    unit = _unit("k")
    deletes = Deletes(posts._job, posts.whereabouts, [unit], Policy(), frozenset())
    assert posts._run_batch({"k": unit}, Policy(), deletes) == [Finding(Verdict.MATCHING, "k")]
    assert slept == []
