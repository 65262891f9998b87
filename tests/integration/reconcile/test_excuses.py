"""What a person accepts, and when that ends."""

from __future__ import annotations

import itertools
from datetime import timedelta

import psycopg
import pytest

from dualwrite.model.errors import DualWriteError
from dualwrite.model.verdicts import Excuse, Finding, Reason, Verdict
from dualwrite.postgres.remembered import differences, excuses
from dualwrite.runs.report import gap as gap_report
from tests import in_slices
from tests.integration.reconcile.world import (
    busy,
    create,
    delete_of_a_recent_document,
    delete_of_an_old_document,
    edit_that_moves_none,
    execute,
    now,
)
from tests.refusals import coded
from tests.support import apply, examine_all, gap_run, one, reconciled, table_bytes, verify_all
from tests.worlds import comment, post


def test_an_excused_difference_fails_nothing_until_unexcused(world, target_dsn, run):
    create(world, target_dsn)
    run()
    accepted = run(excuse=["posts:new"], excuse_reason="a test account")
    assert accepted.alerts == []
    assert run(scope="sweep", repair="all").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'new'") == 0, "what is accepted is not repaired"
    assert len(run(unexcuse=["posts:new"]).alerts) == 1


def test_a_report_tells_what_is_excused_by_whom_why_since_when(world, target_dsn, run):
    create(world, target_dsn)
    run()
    run(excuse=["posts:new"], excuse_reason="a test account")
    execute(target_dsn, "UPDATE dualwrite.open_differences SET excused_at = '2026-03-01T10:00:00+00'")
    report = run(scope="sweep").report
    assert report["excuses"] == [
        {
            "collection": "posts", "key": "new", "verdict": "missing", "by": "a test", "reason": "a test account",
            "since": "2026-03-01T10:00:00+00:00",
        }
    ]  # fmt: skip
    [posts] = [c for c in report["collections"] if c["collection"] == "posts"]
    last = report["history"][0]
    assert (last.get("missing"), last["excused"]) == (None, 1)
    assert (posts["counts"]["missing"], posts["excused"]) == (1, 1)


def test_an_excuse_of_all_that_is_open_covers_nothing_later(world, target_dsn, run):
    create(world, target_dsn)
    run()
    assert run(excuse=["posts:*"], excuse_reason="before the move").alerts == []
    world.document("boards/b1/posts/later").set(post(createdAt=now(), updatedAt=now()))
    assert "posts: 1 missing" in run().alerts[0]


def test_differences_of_a_collection_no_longer_declared_are_told(world, target_dsn, run):
    """They can be excused."""
    execute(
        target_dsn,
        "INSERT INTO dualwrite.open_differences (collection, key, verdict, first_seen, last_seen, run_id) "
        "VALUES ('polls', 'x', 'missing', now(), now(), 'old')",
    )
    [alert] = run().alerts
    assert "the catalog no longer has collection polls: restore it, or excuse its open differences; trigger" in alert
    assert "with excuse = polls:*" in alert
    assert run(excuse=["polls:*"], excuse_reason="polls were dropped").alerts == []


def test_an_excuse_ends_with_the_difference_that_it_was_for(world, target_dsn, run):
    document = world.document("boards/b1/posts/new")
    document.set(post(createdAt=now(), updatedAt=now(), title=7))
    run()
    assert run(excuse=["posts:new"], excuse_reason="a number for a title").alerts == []
    document.update({"title": "corrected", "updatedAt": now()})
    [alert] = run().alerts
    assert alert.startswith("posts: 1 missing"), "what was excused was the rejection, not the lost row"
    assert run(repair="missing").alerts == []
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'new'") == "corrected"
    run(excuse=["posts:new"], excuse_reason="in advance")
    run()
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0, (
        "it matches: there is nothing to excuse"
    )


def test_a_corrected_document_is_not_verified_by_its_old_excuse(world, emulator, target_dsn, run):
    """Its row is missing."""
    document = world.document("boards/b1/posts/new")
    document.set(post(title=7))
    run(scope="sweep")
    run(excuse=["posts:new"], excuse_reason="a number for a title")
    document.update({"title": "corrected"})
    with gap_run(world.project, emulator, target_dsn, collections=["posts"]) as backfill_run:
        checked = verify_all(backfill_run, ["posts"])["posts"]
    assert checked["verification"] == "not_verified"
    assert (checked["counts"]["missing"], checked["excused"]) == (1, 0)


def test_a_comment_excused_as_stale_and_then_lost_is_drift(world, target_dsn, run):
    edit_that_moves_none(world, target_dsn)
    run(scope="sweep")
    assert run(scope="sweep", excuse=["comments:cp1"], excuse_reason="an old edit").alerts == []
    execute(target_dsn, "DELETE FROM comments WHERE id = 'cp1'")
    [alert] = run(scope="sweep").alerts
    assert alert.startswith("comments: 1 missing")


def test_an_excuse_of_an_extra_block_covers_no_missing_one(world, target_dsn, run_all):
    """It was deleted, made again and never written."""
    execute(target_dsn, "INSERT INTO blocks (blocker_id, blocked_id) VALUES ('u1', 'u2')")
    run_all()
    assert run_all(excuse=["blocks:u1/u2"], excuse_reason="made by hand").alerts == []
    execute(target_dsn, "DELETE FROM blocks")
    world.document("users/u1/blockedUsers/u2").set({"blockedAt": now()})
    [alert] = run_all().alerts
    assert alert.startswith("blocks: 1 missing")


def test_an_excuse_ends_when_its_difference_is_gone(world, target_dsn, run):
    """It is gone from both sides."""
    delete_of_a_recent_document(world, target_dsn)
    run()
    run(excuse=["comments:gone"], excuse_reason="made by hand")
    execute(target_dsn, "DELETE FROM comments WHERE id = 'gone'")
    run(scope="sweep")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0
    delete_of_a_recent_document(world, target_dsn)
    assert len(run().alerts) == 1


def test_a_dependents_excuse_ends_when_what_it_requires_is_back(world, target_dsn, run):
    """Until then it holds through sweeps."""
    world.document("boards/b1/posts/p1").delete()
    run(scope="sweep")
    accepted = {"excuse": ["posts:p1", "comments:cp1"], "excuse_reason": "the post comes back"}
    assert run(scope="sweep", **accepted).alerts == []
    assert run(scope="sweep").alerts == []
    world.document("boards/b1/posts/p1").set(post())
    run(scope="sweep")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_a_cleared_run_excuses_nothing_that_was_found_since(world, target_dsn, run):
    delete_of_a_recent_document(world, target_dsn)
    run()
    asked = {"excuse": ["comments:*"], "excuse_reason": "made by hand", "asked_at": now()}
    assert run(**asked).alerts == []
    busy(world, 4)
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('later', 'p1', 'u1', 'c')")
    assert len(run().alerts) == 2
    again = run(**asked).alerts
    assert [a[:20] for a in again] == ["comments: 1 extra si", "posts: 4 missing sin"]
    with pytest.raises(DualWriteError, check=coded("excuse-out-of-date")):
        run(**{**asked, "asked_at": now() - timedelta(days=2)})


def test_an_excuse_in_advance_is_for_the_first_drift_found(world, target_dsn, run):
    assert run(excuse=["posts:new"], excuse_reason="a test account").alerts == []
    create(world, target_dsn)
    assert run().alerts == []
    assert run(scope="sweep").alerts == []
    world.document("boards/b1/posts/new").update({"title": 7, "updatedAt": now()})
    [alert] = run().alerts
    assert alert.startswith("posts: 1 rejected")


def test_an_excuse_in_advance_that_is_taken_back_hides_nothing(world, target_dsn, run):
    """Its line must not be taken for a difference that is open already, and closed without a look at its row."""
    run(excuse=["comments:cp1"], excuse_reason="in advance")
    delete_of_an_old_document(world, target_dsn)
    [alert] = run(scope="sweep", unexcuse=["comments:cp1"]).alerts
    assert alert.startswith("comments: 1 extra")


# --- what is accepted is never repaired, by no writer -----------------------------------------------------------------


REASONS = (None, *(r for r in Reason if r not in (Reason.UNDONE, Reason.EXCUSED_IN_ADVANCE)))


def test_sql_keeps_an_excuse_as_python_does(world, target_dsn):
    """For each reason that was accepted and each that is found next: one rule, said in two languages."""
    pairs = {f"{n}": pair for n, pair in enumerate(itertools.product(REASONS, REASONS))}
    with psycopg.connect(target_dsn) as connection:
        for turn in (0, 1):
            found = [Finding(Verdict.EXTRA, label, reason=pair[turn], fingerprint="f") for label, pair in pairs.items()]
            differences.remember(connection, "posts", found, f"run {turn}")
            if turn == 0:
                excuses.excuse(connection, [("posts", "*")], by="a test", reason="why", run_id="run 0")
        kept = excuses.excuses_of(connection, "posts").keys()
    for label, (accepted, found_now) in pairs.items():
        covers = Excuse("extra", accepted).covers(Finding(Verdict.EXTRA, label, reason=found_now))
        assert (label in kept) == covers, (accepted, found_now)


def _backfill(project, emulator, dsn):
    apply(project, emulator, dsn, scope="all")


def _backfill_in_slices(project, emulator, dsn):
    with gap_run(project, emulator, dsn, scope="all", slice_documents=1) as run:
        _, parts = in_slices.gap(run, dry=False)
    assert {part.collection for part in parts} >= {"posts", "comments"}


def _repair(project, emulator, dsn):
    reconciled(project, emulator, dsn, scope="sweep", repair="all", max_share=100)


def _repair_of_what_is_below(project, emulator, dsn):
    reconciled(project, emulator, dsn, scope="sweep", repair="all", max_share=100, collections=["comments"])


def _finish_a_journal(project, emulator, dsn):
    """Of a run that wrote these keys and was killed before it could confirm them. It had inserted the row that is extra."""
    execute(
        dsn,
        "INSERT INTO dualwrite.repair_journal (run_id, collection, key, path, action, table_name, row_key) "
        "SELECT 'killed', collection, key, path, CASE verdict WHEN 'stale' THEN 'update' ELSE 'insert' END, collection, row_key "
        "FROM dualwrite.open_differences WHERE key <> 'gone'",
    )
    apply(
        project,
        emulator,
        dsn,
        until="2025-12-10T00:00:00+00:00",
        since="2025-12-01T00:00:00+00:00",
    )


@pytest.mark.parametrize(
    "writer", [_backfill, _backfill_in_slices, _repair, _repair_of_what_is_below, _finish_a_journal]
)
def test_no_writer_touches_what_a_person_accepted(writer, world, emulator, target_dsn, run):
    create(world, target_dsn)
    edit_that_moves_none(world, target_dsn)
    execute(
        target_dsn,
        "INSERT INTO comments (id, post_id, user_id, content) VALUES ('gone', 'p1', 'u1', 'c'); "
        "INSERT INTO dualwrite.repair_journal (run_id, collection, key, path, action, table_name, row_key) VALUES "
        "('killed', 'comments', 'gone', 'boards/b1/posts/p1/comments/gone', 'insert', 'comments', '[\"gone\"]')",
    )
    run(scope="sweep")
    keys = ["posts:new", "comments:cp1", "comments:gone"]
    assert run(excuse=keys, excuse_reason="looked at").alerts == []
    if writer is _repair_of_what_is_below:
        world.document("boards/b1/posts/new/comments/below").set(comment(createdAt=now()))
    before = table_bytes(target_dsn)
    writer(world.project, emulator, target_dsn)
    assert table_bytes(target_dsn) == before
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences WHERE excused_by IS NOT NULL") == 3


def test_what_needs_an_excused_row_is_told_with_what_helps(world, target_dsn, run):
    create(world, target_dsn)
    run()
    run(excuse=["posts:new"], excuse_reason="a test account")
    world.document("boards/b1/posts/new/comments/below").set(comment(createdAt=now()))
    [alert] = run(repair="missing").alerts
    assert "comments: 1 missing" in alert
    assert "(parent_excused): the row that it needs is missing and excused" in alert
    assert run(unexcuse=["posts:new"], repair="missing").alerts == []


def test_a_dry_run_would_not_write_what_is_accepted(world, emulator, target_dsn, run):
    create(world, target_dsn)
    busy(world, 2)
    edit_that_moves_none(world, target_dsn)
    run(scope="sweep")
    run(excuse=["posts:new", "comments:cp1"], excuse_reason="looked at")
    with gap_run(world.project, emulator, target_dsn, mode="dry_run", scope="all") as dry:
        found = examine_all(dry, dry=True)
        whole = gap_report.build_report("run", dry.params, found, {}, dry=True)
    assert whole["verdict"].startswith(
        "An apply would write 2 rows: 3 missing, 1 stale, 2 of them excused and left alone."
    )
