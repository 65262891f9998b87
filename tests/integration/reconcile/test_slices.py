"""Sweeps of large collections by slices: the same findings as of whole ones, and the watermark moves only after all."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.runs import reconciliation
from dualwrite.runs.slices import sweep
from dualwrite.runs.slices.sweep import Sweeps
from tests.support import examine_all, gap_run, one, reconciled, reconciliation_of, verify_all
from tests.worlds import put, small_world

SWEEP = {"scope": "sweep", "liveness_minimum": 10**6}


@pytest.fixture
def drifted(firestore, emulator, target_dsn):
    """A small world, backfilled and verified; then rows were lost, changed, and left behind."""
    small_world(firestore, target_dsn)
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        verify_all(run)
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "INSERT INTO comments (id, post_id, user_id, content) SELECT 'extra-' || n, post_id, user_id, 'c' "
            "FROM (SELECT * FROM comments ORDER BY id LIMIT 1) c, generate_series(1, 3) n"
        )
        connection.execute(
            "UPDATE comments SET content = 'x' WHERE id IN (SELECT id FROM comments ORDER BY id LIMIT 5)"
        )
        connection.execute("DELETE FROM likes WHERE id IN (SELECT id FROM likes ORDER BY id LIMIT 2)")
        connection.execute("DELETE FROM user_board_permissions WHERE id = (SELECT min(id) FROM user_board_permissions)")
    return firestore


def _counts(reconciliation_) -> dict[str, dict[str, int]]:
    return {name: reconciliation_.counts(name) for name in CATALOG.names}


def test_a_sliced_sweep_finds_and_repairs_what_a_whole_one_does(drifted, emulator, target_dsn):
    whole = reconciled(drifted.project, emulator, target_dsn, **SWEEP)
    sliced = reconciled(drifted.project, emulator, target_dsn, slice_documents=5, **SWEEP)
    assert _counts(sliced) == _counts(whole)
    assert sliced.counts("comments")["extra"] == 3
    examined = {c["collection"]: c["examined"] for c in whole.report["collections"]}
    assert {c["collection"]: c["examined"] for c in sliced.report["collections"]} == examined
    assert len(sliced.alerts) == len(whole.alerts) > 0
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.runs WHERE slice > 0 AND phase = 'compare'") > 30
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.looks") == 0
    changes = {"repair": "all", "max_repairs": 1000, "max_share": 100}
    reconciled(drifted.project, emulator, target_dsn, slice_documents=5, **SWEEP, **changes)
    green = reconciled(drifted.project, emulator, target_dsn, slice_documents=5, **SWEEP)
    assert not any(green.counts(name).keys() & {"missing", "stale", "extra"} for name in CATALOG.names)


def test_a_sliced_sweep_sees_what_a_person_excused(drifted, emulator, target_dsn):
    """It closes what is well again."""
    changes = {"excuse": [f"{name}:*" for name in CATALOG.names], "excuse_reason": "looked at"}
    reconciled(drifted.project, emulator, target_dsn, **SWEEP)
    reconciled(drifted.project, emulator, target_dsn, **SWEEP, **changes)
    with psycopg.connect(target_dsn) as connection:
        connection.execute("DELETE FROM comments WHERE id = 'extra-1'")
    whole = reconciled(drifted.project, emulator, target_dsn, **SWEEP)
    before = one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences")
    with psycopg.connect(target_dsn) as connection:
        connection.execute("DELETE FROM comments WHERE id = 'extra-2'")
    sliced = reconciled(drifted.project, emulator, target_dsn, slice_documents=5, **SWEEP)
    assert whole.alerts == sliced.alerts == []
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == before - 1
    assert {**sliced.counts("comments"), "extra": 2, "absent": 0} == {**whole.counts("comments"), "absent": 0}


def _slices(plan, opened, broken: int | None = None) -> Sweeps:
    """What the tasks of the slices make; of one of comments' nothing, where `broken` names it."""
    with opened() as run:
        sweeps = sweep.prepare(run)
        for part in sweeps.parts:
            lost = part.collection == "comments" and part.number == broken
            sweeps.made.append(None if lost else sweep.look_at_slice(run, part))
    return sweeps


def test_a_slice_that_failed_leaves_the_watermark(drifted, emulator, target_dsn):
    """The rest of the run is done."""
    query = "SELECT swept_at FROM dualwrite.watermarks WHERE collection = %s"
    before = {name: one(target_dsn, query, name) for name in ("comments", "likes")}
    changes = {**SWEEP, "slice_documents": 5}
    with reconciliation_of(drifted.project, emulator, target_dsn, **changes) as (plan, opened):
        sweeps = _slices(plan, opened, broken=2)
        stage = reconciliation.compare(plan, opened, sweeps=sweeps)
    named = next(str(p) for p in sweeps.parts if p.collection == "comments" and p.number == 2)
    assert set(stage.errors) == {"comments"}
    assert named in str(stage.errors["comments"]), "the interval is told"
    assert one(target_dsn, query, "comments") == before["comments"]
    assert one(target_dsn, query, "likes") != before["likes"]
    stale = "SELECT count(*) FROM dualwrite.open_differences WHERE collection = 'comments' AND reason = 'first_look'"
    assert one(target_dsn, stale) >= 1, "what the other slices found stays open"
    with reconciliation_of(drifted.project, emulator, target_dsn, **changes) as (plan, opened):
        stage = reconciliation.compare(plan, opened, sweeps=_slices(plan, opened))
    assert stage.errors == {}
    assert one(target_dsn, query, "comments") != before["comments"]


def test_the_last_step_of_a_sweep_can_be_done_again(drifted, emulator, target_dsn):
    """Its task died after the watermark had moved: a retry finds and keeps the same."""
    with reconciliation_of(drifted.project, emulator, target_dsn, slice_documents=5, **SWEEP) as (plan, opened):
        sweeps = _slices(plan, opened)
        first, second = (reconciliation.compare(plan, opened, sweeps=sweeps) for _ in range(2))
    assert second.errors == first.errors == {}
    assert {n: r["counts"] for n, r in second.reports.items()} == {n: r["counts"] for n, r in first.reports.items()}
    extra = (
        "SELECT count(*) FROM dualwrite.open_differences WHERE collection = 'comments' AND starts_with(key, 'extra-')"
    )
    assert one(target_dsn, extra) == 3


def test_if_a_due_sweep_lost_a_slice_recent_writes_are_looked_at(drifted, emulator, target_dsn):
    reconciled(drifted.project, emulator, target_dsn, **SWEEP)
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "INSERT INTO dualwrite.watermarks (collection, examined_until, swept_at, run_id) "
            "SELECT unnest(%s::text[]), now() - interval '1 hour', now() - interval '3 days', 'before' "
            "ON CONFLICT (collection) DO UPDATE SET swept_at = excluded.swept_at",
            (list(CATALOG.names),),
        )
    now = datetime.now(UTC)
    post = next(d for d in drifted.collection_group("posts").stream() if d.reference.path.startswith("boards/"))
    user = next(drifted.collection("users").limit(1).stream()).id
    late = {"content": "c", "userId": user, "userName": "n", "createdAt": now}
    put(drifted, {f"{post.reference.path}/comments/late": late})
    with reconciliation_of(drifted.project, emulator, target_dsn, slice_documents=5) as (plan, opened):
        stage = reconciliation.compare(plan, opened, sweeps=_slices(plan, opened, broken=1))
    assert "1 of its" in stage.reports["comments"]["sweep_failed"]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences WHERE key = 'late'") == 1
