"""What differs is looked at twice, and stays open until it is gone."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from dualwrite.runs import repair
from tests.integration.reconcile.world import create, execute, now
from tests.support import one


def test_what_arrives_between_the_two_looks_was_in_flight(world, target_dsn, run):
    create(world, target_dsn)

    def arrives():
        execute(
            target_dsn,
            "INSERT INTO posts (id, board_id, author_id, author_name, title, content, created_at, updated_at) "
            "SELECT 'new', 'b1', 'u1', 'n', 't', 'c', %s, %s",
            *[world.document("boards/b1/posts/new").get().get(f) for f in ("createdAt", "updatedAt")],
        )

    found = run(between=arrives)
    assert found.alerts == []
    assert found.counts("posts") == {}
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_what_changes_between_two_looks_is_in_flight_and_open(world, target_dsn, run):
    create(world, target_dsn)
    found = run(between=lambda: world.document("boards/b1/posts/new").update({"title": "again"}))
    assert found.counts("posts") == {"in_flight": 1}
    assert found.alerts == []
    assert run().counts("posts") == {"missing": 1}, "unchanged since then: drift"


def test_drift_whose_document_was_edited_since_is_no_green_run(world, target_dsn, run):
    """The look of an earlier run says since when it is open, and not whether it is the same."""
    create(world, target_dsn)
    execute(target_dsn, "UPDATE posts SET title = 'by hand', updated_at = now() WHERE id = 'p1'")
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('gone', 'p1', 'u1', 'c')")
    assert len(run().alerts) == 3
    for post_id in ("new", "p1"):
        world.document(f"boards/b1/posts/{post_id}").update({"title": "edited", "updatedAt": now()})
    execute(target_dsn, "UPDATE comments SET content = 'edited' WHERE id = 'gone'")
    assert len(run().alerts) == 3, "edited between the runs"

    def edited():
        world.document("boards/b1/posts/new").update({"title": "again"})
        world.document("boards/b1/posts/p1").update({"title": "again"})
        execute(target_dsn, "UPDATE comments SET content = 'again' WHERE id = 'gone'")

    assert len(run(between=edited).alerts) == 3, "edited between the looks"
    assert run(repair="all", max_share=100).alerts == []
    assert run(scope="sweep").alerts == []


def test_what_was_in_flight_is_looked_at_twice_by_the_next_run(world, target_dsn, run):
    """Its window has passed and its document was edited since: what an earlier run stored is no first look of this one."""
    create(world, target_dsn)
    document = world.document("boards/b1/posts/new")
    assert run(between=lambda: document.update({"title": "again"})).alerts == []
    document.update({"title": "since"})
    later = {"now": now() + timedelta(days=2), "sweep_every_hours": 24 * 300}
    assert run(**later).counts("posts") == {"missing": 1}


def test_a_row_that_a_trigger_changes_again_is_red_in_its_run(world, target_dsn, run):
    """The write moves a compared column: each look after a repair differs from the one before, and each was green."""
    execute(
        target_dsn,
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$; "
        "CREATE TRIGGER touch BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    world.document("boards/b1/posts/p1").update({"title": "edited", "updatedAt": now()})
    for _ in range(3):
        found = run(repair="all", max_share=100)
        assert len(found.alerts) == 1
        assert found.alerts[0].startswith("posts: 1 stale")


def test_an_edit_in_flight_after_a_repair_is_no_alarm(world, target_dsn, run, monkeypatch):
    """Its document was edited after the write was confirmed, and its row follows: a second look tells."""
    create(world, target_dsn)
    document = world.document("boards/b1/posts/new")
    original = repair.write

    def write(run, name):
        part = original(run, name)
        document.update({"title": "edited"})
        row.start()
        return part

    row = threading.Timer(1, lambda: execute(target_dsn, "UPDATE posts SET title = 'edited' WHERE id = 'new'"))
    monkeypatch.setattr(repair, "write", write)
    found = run(repair="missing", grace_seconds=2)
    assert found.alerts == []
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_counters_moving_between_the_looks_hide_nothing(world, target_dsn, run):
    create(world, target_dsn)
    found = run(between=lambda: world.document("boards/b1/posts/new").update({"countOfLikes": 7, "updatedAt": now()}))
    assert found.counts("posts") == {"missing": 1}


def test_a_busy_document_that_never_arrives_is_drift_in_time(world, target_dsn, run):
    create(world, target_dsn)
    edit = iter(range(10))

    def edited():
        world.document("boards/b1/posts/new").update({"title": f"edit {next(edit)}"})

    assert run(between=edited).counts("posts") == {"in_flight": 1}
    execute(target_dsn, "UPDATE dualwrite.open_differences SET first_seen = first_seen - interval '2 hours'")
    assert run(between=edited).counts("posts") == {"missing": 1}


def test_a_run_without_differences_does_not_wait(world, run):
    began = time.monotonic()
    found = run(grace_seconds=3600)
    assert time.monotonic() - began < 30
    assert found.alerts == []


def test_a_difference_stays_open_until_it_is_gone(world, target_dsn, run):
    """Also if its window has passed."""
    create(world, target_dsn)
    run()
    later = now() + timedelta(days=2)
    found = run(now=later, sweep_every_hours=24 * 300)
    assert found.counts("posts") == {"missing": 1}
    world.document("boards/b1/posts/new").delete()
    found = run(now=later, sweep_every_hours=24 * 300)
    assert found.counts("posts") == {"absent": 1}
    assert found.alerts == []


def test_a_run_that_died_after_its_first_look_forgets_nothing(world, emulator, target_dsn, run):
    create(world, target_dsn)

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(between=dies)
    later = now() + timedelta(days=2)  # the window of the first run has passed
    assert run(now=later, sweep_every_hours=24 * 300).counts("posts") == {"missing": 1}


# --- nothing is closed without a look at both sides, by key -------------------------------------------------------------


def test_a_rejected_and_deleted_documents_row_is_looked_for(world, target_dsn, run):
    world.document("boards/b1/posts/p1").update({"title": 7, "updatedAt": now()})
    assert run().counts("posts") == {"rejected": 1}
    world.document("boards/b1/posts/p1").delete()
    found = run()
    assert found.counts("posts") == {"extra": 1}, "another difference: this run looked at it twice, too"
    [comments, posts] = found.alerts
    assert posts.startswith("posts: 1 extra")
    assert comments.startswith("comments: 1 extra")


@pytest.mark.parametrize("scope", ["recent", "sweep"])
@pytest.mark.parametrize("refused", [7, {"b1": 7}], ids=["whole_map", "one_entry"])
def test_a_rejected_maps_rows_are_looked_for_once_it_is_empty(refused, scope, world, target_dsn, run):
    document = world.document("users/u1")
    document.update({"boardPermissions": refused, "updatedAt": now()})
    assert set(run(repair="missing_and_stale").counts("user_board_permissions")) == {"rejected"}
    document.update({"boardPermissions": {}})  # and moves no check field
    run(scope=scope)
    [alert] = run(scope=scope).alerts
    assert alert.startswith("user_board_permissions: 1 extra")
    assert one(target_dsn, "SELECT count(*) FROM user_board_permissions WHERE user_id = 'u1'") == 1


def test_a_sweep_is_red_at_a_rejected_and_deleted_documents_row(world, target_dsn, run):
    world.document("boards/b1/posts/p1/comments/cp1").update({"content": 7})
    run(scope="sweep")
    world.document("boards/b1/posts/p1/comments/cp1").delete()
    [alert] = run(scope="sweep").alerts
    assert alert.startswith("comments: 1 extra")


def test_a_dependent_of_an_extra_row_is_open_since_first_seen(world, target_dsn, run):
    """Its own document matches, in every sweep; that closes nothing."""
    world.document("boards/b1/posts/p1").delete()
    run(scope="sweep")
    since = one(target_dsn, "SELECT first_seen FROM dualwrite.open_differences WHERE key = 'cp1'")
    assert len(run(scope="sweep").alerts) == 2
    assert one(target_dsn, "SELECT first_seen FROM dualwrite.open_differences WHERE key = 'cp1'") == since
