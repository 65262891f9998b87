"""A check field that holds something else than timestamps makes windows blind: it is told before anything is examined."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import check_fields
from dualwrite.firestore.source import Source
from dualwrite.model.errors import PreflightError
from dualwrite.runs import backfill, doctor
from tests.support import gap_run, reconciled
from tests.worlds import comment, examined_until_now, put, user

T = datetime(2026, 2, 1, tzinfo=UTC)
OTHERS = {
    "a string": "2026-02-01T00:00:00Z",
    "an integer": 1769904000000,
    "a number": 1769904000.5,
    "a boolean": True,
    "a map": {"seconds": 1},
    "an array": [1],
    "bytes": b"x",
}


@pytest.fixture
def people(firestore, target_dsn):
    """A person on each side."""
    put(firestore, {"users/u1": user("u1")})
    with psycopg.connect(target_dsn) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u1')")
    return firestore


def _preflight(client, emulator, dsn, **changes):
    with gap_run(client.project, emulator, dsn, **changes) as run:
        return backfill.preflight(run, by="test")


def _comments(values) -> dict:
    return {f"boards/b/posts/p/comments/c{n}": comment(createdAt=value) for n, value in enumerate(values)}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_check_field_of_another_type_is_refused_by_its_name(people, emulator, target_dsn, kind):
    """0 documents were examined, and the run was green."""
    put(people, _comments([OTHERS[kind]] * 3))
    with pytest.raises(PreflightError) as refused:
        _preflight(people, emulator, target_dsn)
    assert f"Check field createdAt of comments holds {kind} in 3 documents and a timestamp in 0" in str(refused.value)
    assert "take the field out of check_fields" in str(refused.value)
    assert "2026-02-01" not in str(refused.value)


def test_a_few_odd_check_fields_are_told_and_cost_no_run(people, emulator, target_dsn, caplog):
    put(people, _comments([*[T] * 30, "2026", None, 5]))
    _preflight(people, emulator, target_dsn)
    assert (
        "Check field createdAt of comments holds a string or an integer in 2 documents and a timestamp in 30"
        in caplog.text
    )


def test_many_odd_check_fields_are_refused_beside_good_ones(people, emulator, target_dsn):
    """Half of the clients write strings: their writes are in no window."""
    put(people, _comments([*[T] * 30, *["2026"] * 21]))
    with pytest.raises(PreflightError, match="holds a string in 21 documents and a timestamp in 30"):
        _preflight(people, emulator, target_dsn)


def test_documents_on_other_paths_have_check_fields_of_their_own(people, emulator, target_dsn):
    put(people, {f"archive/2025/comments/c{n}": comment(createdAt="2025") for n in range(30)})
    put(people, _comments([T]))
    _preflight(people, emulator, target_dsn)


def test_a_reconciliation_asks_with_its_sweep_and_refuses_too(people, emulator, target_dsn):
    put(people, {f"users/x{n}": user(f"x{n}", updatedAt=n, createdAt=n) for n in range(30)})
    with pytest.raises(PreflightError, match="Check field updatedAt of users holds an integer in 30 documents"):
        reconciled(people.project, emulator, target_dsn, collections=["users"])
    examined_until_now(target_dsn)
    reconciled(people.project, emulator, target_dsn, collections=["users"], write_ops_required=False)


def test_asking_is_two_counts_a_field_where_all_is_well(people, emulator):
    with Source(people.project, emulator_host=emulator) as source:
        assert check_fields.look(source, CATALOG) == []
        fields = {(c.collection_id, f) for c in CATALOG for f in c.check_fields}
        assert source.billed_reads == 2 * len(fields)


def test_the_doctor_says_it_too(people, emulator, target_dsn):
    put(people, _comments([*[T] * 30, *["2026"] * 21]))
    put(people, {f"users/u1/drafts/d{n}": {"savedAt": "2026" if n else T} for n in range(3)})
    lines = {
        line.what: line
        for line in doctor.examine(
            lambda: Source(people.project, emulator_host=emulator), lambda: postgres.connect(target_dsn), CATALOG
        )
    }
    assert "holds a string in 21 documents" in str(lines["Firestore check fields of comments"].fault)
    odd = lines["Firestore check fields of drafts"]
    assert odd.fault is None
    assert "savedAt of drafts holds a string in 2 documents" in odd.note
    assert lines["Firestore check fields of posts"].note == ""
