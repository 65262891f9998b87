"""The small decisions of the writing protocol, each by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.compare_and_set import WritingProtocol, _takes_proof
from dualwrite.engine.job import Job
from dualwrite.engine.judge import ATTEMPTS, Judged, wait_or_raise
from dualwrite.engine.parents import Parents
from dualwrite.engine.reading import _mapped_of
from dualwrite.engine.rounds import UNITS_AT_ONCE, StepResult, batches, untold
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
    made = list(batches(units))
    assert [len(batch) for batch in made] == [UNITS_AT_ONCE, UNITS_AT_ONCE, 1]
    assert [unit for batch in made for unit in batch.values()] == units
    assert list(batches([])) == []


def test_two_documents_of_one_label_get_a_turn_each():
    first, second, other = _unit("a", path="things/1"), _unit("a", path="things/2"), _unit("b")
    assert list(batches([first, second, other])) == [{"a": first, "b": other}, {"a": second}]


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
    assert untold(unit, {}, Reason.PATH_UNKNOWN) == Finding(Verdict.ABSENT, "k", key=("k",))
    found = untold(unit, {("k",): ("17", "row 17")}, Reason.PATH_UNKNOWN)
    assert found == Finding(Verdict.EXTRA, "k", key=("k",), reason=Reason.PATH_UNKNOWN, fingerprint="row 17")


def test_what_a_later_step_says_of_a_key_counts():
    """Of a key that it doesn't name, the earlier word stays."""
    a, b = _unit("a"), _unit("b")
    matching, stale, missing = (Finding(v, "k") for v in (Verdict.MATCHING, Verdict.STALE, Verdict.MISSING))
    earlier = StepResult({"a": stale, "b": missing}, {"a": a}, waiting={"a": a})
    later = StepResult({"a": matching}, {"b": b}, waiting={"b": b})
    assert earlier | later == StepResult({"a": matching, "b": missing}, {"a": a, "b": b}, waiting={"a": a, "b": b})
    assert earlier.findings == {"a": stale, "b": missing}, "the earlier one is as it was"


# --- waiting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


@pytest.fixture
def job() -> Iterator[Job]:
    """For posts; it reaches neither database."""

    def nowhere() -> Connection:
        raise AssertionError("nothing here asks a database")

    with (
        Source("nowhere", emulator_host="127.0.0.1:1") as source,
        Target(nowhere, CATALOG) as target,
    ):
        yield Job(source, target, CATALOG, CATALOG["posts"], "run", CollectionReport("posts", "gap"))


@pytest.fixture
def posts(job) -> Iterator[WritingProtocol]:
    with closing(WritingProtocol(job, Policy(), Parents(job))) as protocol:
        yield protocol


def test_what_no_retry_helps_is_raised_at_once(slept):
    with pytest.raises(psycopg.errors.CheckViolation):
        wait_or_raise("posts", psycopg.errors.CheckViolation(), 0)
    assert slept == []


def test_a_page_that_no_retry_helps_ends_with_postgres_error(slept, posts, job, monkeypatch):
    @contextmanager
    def refused():
        raise psycopg.errors.UndefinedTable
        yield

    monkeypatch.setattr(job.target, "transaction", refused)
    with pytest.raises(psycopg.errors.UndefinedTable):
        posts.judge(posts.staged(), Policy())
    assert slept == []


def _nothing_differs(posts, job, monkeypatch, *, faults: list[Exception], unknown: bool) -> None:
    """Postgres answers that nothing of a page differs, after these faults; or something is always still to be learned."""

    @contextmanager
    def transaction():
        if faults:
            raise faults.pop()
        yield None

    same = Comparison([], [], 0)
    monkeypatch.setattr(job.target, "transaction", transaction)
    monkeypatch.setattr(job.target, "compare_staged", lambda *_: same)
    monkeypatch.setattr(posts.whereabouts, "unknown", lambda *_: Unknown([], frozenset(), []) if unknown else None)


def test_a_page_that_met_a_deadlock_is_judged_at_the_next_try(slept, posts, job, monkeypatch):
    _nothing_differs(posts, job, monkeypatch, faults=[psycopg.errors.DeadlockDetected()], unknown=False)
    assert posts.judge(posts.staged(), Policy()) == Judged({}, {})
    assert len(slept) == 1


def test_a_page_whose_rows_keep_changing_is_given_up_and_says_so(slept, posts, job, monkeypatch):
    _nothing_differs(posts, job, monkeypatch, faults=[], unknown=True)
    with pytest.raises(TargetError, match="Rows of posts kept changing through 10 looks"):
        posts.judge(posts.staged(), Policy())


def test_a_pages_inserts_are_read_again_beside_the_next_page(posts, job, monkeypatch):
    """Each document is read once."""
    asked: list[list[str]] = []
    monkeypatch.setattr(job.source, "get", lambda paths: asked.append(paths) or {})
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
