"""One first look at one collection: what it looks at, what it keeps, and what it leaves to the second one."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from dualwrite.model.errors import SourceError
from dualwrite.model.run_report import FirstLook
from dualwrite.postgres.remembered import differences
from dualwrite.runs import first_look
from tests.integration.reconcile.world import attempted, busy, create, delete_of_an_old_document, execute, now
from tests.shape import faults
from tests.support import one, reconcile_run
from tests.worlds import comment, post, put

OPEN = "SELECT coalesce(jsonb_object_agg(key, verdict), '{}') FROM dualwrite.open_differences WHERE collection = %s"
MARKS = "SELECT ARRAY[examined_until, swept_at] FROM dualwrite.watermarks WHERE collection = %s"


@pytest.fixture
def opened(world, emulator, target_dsn):
    @contextmanager
    def opened(*names: str, **changes: Any):
        with reconcile_run(world.project, emulator, target_dsn, collections=list(names), **changes) as run:
            yield run

    return opened


def overdue(dsn: str, name: str) -> None:
    """Its sweep is due."""
    execute(dsn, "UPDATE dualwrite.watermarks SET swept_at = now() - interval '25 hours' WHERE collection = %s", name)


def test_a_look_at_a_window_keeps_what_differs(world, target_dsn, opened):
    """It moves the watermark."""
    create(world, target_dsn)
    execute(target_dsn, "UPDATE posts SET title = 'by hand', updated_at = now() WHERE id = 'p1'")
    before = one(target_dsn, MARKS, "posts")
    with opened("posts", grace_seconds=60) as run:
        found = first_look.compare(run, "posts")
        window = run.plan.windows["posts"]
    assert faults(found, FirstLook) == []
    assert (found["scope"], found["pending"], found["to_wait_for"]) == ("recent", 2, 2)
    assert (found["tripwire"], found["sweep_failed"]) == (None, None)
    assert found["looked_at"] > window.end.isoformat()
    assert one(target_dsn, OPEN, "posts") == {"new": "in_flight", "p1": "in_flight"}
    assert one(target_dsn, MARKS, "posts") == [window.end, before[1]], "nothing was swept"
    with opened("posts", grace_seconds=0) as run:
        assert first_look.compare(run, "posts")["to_wait_for"] == 0


def test_a_sweep_looks_at_everything_and_is_remembered(world, target_dsn, opened):
    delete_of_an_old_document(world, target_dsn)
    before = one(target_dsn, MARKS, "comments")
    with opened("comments", scope="sweep") as run:
        found = first_look.compare(run, "comments")
        at = run.plan.now
    assert faults(found, FirstLook) == []
    assert (found["scope"], found["pending"], found["documents_read"]) == ("sweep", 1, 1)
    assert one(target_dsn, MARKS, "comments") == [at, at] != before
    assert one(target_dsn, OPEN, "comments") == {"cp1": "in_flight"}
    assert one(target_dsn, "SELECT array_agg(collection) FROM dualwrite.count_baselines") == ["comments"]
    delete = "boards/b1/posts/p2/comments/cp2"
    world.document(delete).delete()
    with opened("comments") as run:
        found = first_look.compare(run, "comments")
    assert (found["scope"], found["tripwire"]["deviation"], found["tripwire"]["buckets"]) == ("recent", -1, 1)
    assert one(target_dsn, OPEN, "comments") == {"cp1": "in_flight", "cp2": "in_flight"}


def test_what_matches_again_is_closed(world, target_dsn, opened):
    busy(world, 2)
    with opened("posts") as run:
        assert first_look.compare(run, "posts")["pending"] == 2
    world.document("boards/b1/posts/busy0").delete()
    with opened("posts") as run:
        assert first_look.compare(run, "posts")["pending"] == 1
    assert one(target_dsn, OPEN, "posts") == {"busy1": "in_flight"}


# --- a sweep by slices, and one that fails --------------------------------------------------------------------------------


def test_the_end_of_a_sliced_sweep_takes_the_place_of_one_here(world, target_dsn, opened):
    """Only where the collection is swept: a window is looked at here."""
    with opened("posts") as run:
        looked = first_look.compare(run, "posts", lambda: pytest.fail("it has a window"))
    assert looked["scope"] == "recent"
    with opened("posts", scope="sweep") as run:
        assert first_look.compare(run, "posts", lambda: looked) is looked


def test_where_a_due_sweep_fails_the_window_is_looked_at(world, target_dsn, opened, caplog):
    """And the sweep stays due. One that a person asked for just fails."""

    def fails():
        raise SourceError("Firestore could not be read.")

    create(world, target_dsn)
    overdue(target_dsn, "posts")
    swept = one(target_dsn, MARKS, "posts")[1]
    with opened("posts") as run:
        found = first_look.compare(run, "posts", fails)
        instead = run.plan.instead["posts"]
    assert faults(found, FirstLook) == []
    assert (found["scope"], found["pending"]) == ("recent", 1)
    assert found["sweep_failed"] == "Firestore could not be read."
    assert one(target_dsn, MARKS, "posts") == [instead.end, swept]
    told = f"posts: its sweep failed, looking at the window from {instead.start.isoformat()} on instead"
    assert told in caplog.messages
    with opened("posts", scope="sweep") as run, pytest.raises(SourceError, match="could not be read"):
        first_look.compare(run, "posts", fails)


# --- the other sides ------------------------------------------------------------------------------------------------------


def test_each_key_is_looked_at_once_from_whatever_sides_it_shows(world, target_dsn, opened):
    """The window's documents first, then its rows, then its operations."""
    create(world, target_dsn)
    world.document("boards/b1/posts/p2").update({"title": "moves no check field"})
    execute(target_dsn, "UPDATE posts SET updated_at = now()")
    for operation in ("post:create:new", "post:update:p1", "post:update:p2", "post:create:nowhere"):
        attempted(target_dsn, operation)
    with opened("posts") as run:
        found = first_look.compare(run, "posts")
    assert found["pending"] == 3
    assert found["unlocatable"] == 1
    assert found["operations_left"] == 0
    assert one(target_dsn, OPEN, "posts") == {"new": "in_flight", "p1": "in_flight", "p2": "in_flight"}


@pytest.mark.parametrize(("most", "left"), [(0, 4), (1, 3), (3, 1), (4, 0), (9, 0)])
def test_of_keys_that_only_operations_name_so_many_are_looked_at(world, target_dsn, opened, most, left):
    """Any client may write an operation; what the window shows by itself isn't bounded."""
    create(world, target_dsn)
    execute(target_dsn, "INSERT INTO posts (id, board_id, author_id, author_name, title, content, updated_at) "
                        "SELECT 'x' || n, 'b1', 'u1', 'n', 't', 'c', '2026-02-01' FROM generate_series(1, 4) n")  # fmt: skip
    execute(target_dsn, "UPDATE posts SET created_at = '2026-02-01' WHERE id LIKE 'x%%'")
    for n in range(1, 5):
        attempted(target_dsn, f"post:delete:x{n}")
    with opened("posts", max_operation_looks=most) as run:
        found = first_look.compare(run, "posts")
    assert found["operations_left"] == left
    assert found["pending"] == 1 + 4 - left


def test_of_documents_only_operations_name_so_many_are_looked_at(world, target_dsn, opened):
    """Of a document's entries, each: the operation names the document."""
    for n in (1, 2, 3):
        world.document(f"users/u{n}").update({"boardPermissions": {"b1": "write"}})
        attempted(target_dsn, f"user:update:u{n}")
    with opened("user_board_permissions", max_operation_looks=2) as run:
        found = first_look.compare(run, "user_board_permissions")
    assert (found["operations_left"], found["pending"]) == (1, 2)
    with opened("user_board_permissions") as run:
        found = first_look.compare(run, "user_board_permissions")
    assert (found["operations_left"], found["pending"]) == (0, 3)


# --- what is open ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 5000])
def test_what_no_run_has_settled_is_looked_at_too(world, target_dsn, opened, monkeypatch, at_once):
    """Its window has passed: without a look in this run there would be no two looks of it to decide by. What was seen
    longest ago comes first."""
    at = now() - timedelta(hours=5)
    old = {f"old{n}": post(createdAt=at, updatedAt=at) for n in range(4)}
    old["old2"]["authorId"] = 7  # it can't become a row, and so it has no key
    put(world, {f"boards/b1/posts/{name}": fields for name, fields in old.items()})
    with opened("posts", scope="sweep") as run:
        first_look.compare(run, "posts")
    assert set(one(target_dsn, OPEN, "posts")) == set(old)
    monkeypatch.setattr(differences, "AT_ONCE", at_once)
    execute(target_dsn, "UPDATE dualwrite.open_differences SET run_id = 'earlier', last_seen = now() - "
                        "make_interval(hours => 1 + right(key, 1)::int)")  # fmt: skip
    seen = (
        "SELECT array_agg(key ORDER BY key) FROM dualwrite.open_differences WHERE last_seen > now() - interval '1 hour'"
    )
    with opened("posts", max_open_looks=3) as run:
        found = first_look.compare(run, "posts")
    assert (found["scope"], found["documents_read"]) == ("recent", 0)
    assert one(target_dsn, seen) == ["old1", "old2", "old3"]
    with opened("posts") as run:
        first_look.compare(run, "posts")
    assert one(target_dsn, seen) == ["old0", "old1", "old2", "old3"]


def test_what_is_open_and_shown_by_the_window_is_looked_at_once(world, target_dsn, opened):
    busy(world, 2)
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('gone', 'p1', 'u1', 'c')")
    for _ in range(2):
        with opened("posts", "comments") as run:
            assert first_look.compare(run, "posts")["pending"] == 2
            assert first_look.compare(run, "comments")["pending"] == 1


def test_a_sweep_closes_an_excuse_whose_difference_is_gone(world, target_dsn, opened, run):
    """Also of a row that was extra because its post is gone; and one that is there still is kept."""
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) "
                        "SELECT 'gone' || n, 'p1', 'u1', 'c' FROM generate_series(1, 2) n")  # fmt: skip
    world.document("boards/b1/posts/p2").delete()
    assert len(run(scope="sweep").alerts) > 0
    excused = {"excuse": ["posts:*", "comments:*"], "excuse_reason": "looked at", "scope": "sweep"}
    assert run(**excused).alerts == []
    open_before = one(target_dsn, OPEN, "comments")
    assert set(open_before) == {"gone1", "gone2", "cp2"}
    execute(target_dsn, "DELETE FROM comments WHERE id = 'gone1'")
    with opened("comments", scope="sweep") as again:
        found = first_look.compare(again, "comments")
    assert one(target_dsn, OPEN, "comments") == {name: open_before[name] for name in ("gone2", "cp2")}
    assert found["pending"] == 0
    world.document("boards/b1/posts/p2").set(post())
    with opened("comments", scope="sweep") as again:
        first_look.compare(again, "comments")
    assert set(one(target_dsn, OPEN, "comments")) == {"gone2"}


def test_a_required_document_that_is_gone_is_remembered(world, target_dsn, opened):
    """The next looks at windows don't ask for it again; a sweep does."""
    world.document("boards/b1/posts/never/comments/orphan").set(comment(createdAt=now()))
    reads = []
    for changes in ({}, {}, {"scope": "sweep"}):
        with opened("comments", **changes) as run:
            before = run.source.billed_reads
            first_look.compare(run, "comments")
            reads.append(run.source.billed_reads - before)
        assert one(target_dsn, "SELECT count(*) FROM dualwrite.gone_documents") == 1
    assert reads[1] == reads[0] - 1
