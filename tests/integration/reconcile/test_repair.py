"""What is repaired, in which order, and what is left alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dualwrite.model.errors import BrakeError, PreflightError
from dualwrite.postgres.target import Target
from dualwrite.runs import repair
from tests.integration.reconcile.world import (
    CHANGES,
    attempted,
    busy,
    create,
    delete_of_a_recent_document,
    delete_of_an_old_document,
    edit_that_moves_none,
    execute,
    now,
)
from tests.refusals import coded
from tests.support import one, reconcile_run, table_bytes
from tests.worlds import LONG_AGO, comment, post


def test_only_comparisons_count_counters_that_lag(world, emulator, target_dsn, run):
    """A repair doesn't."""
    edit_that_moves_none(world, target_dsn)
    run(scope="sweep")
    with reconcile_run(world.project, emulator, target_dsn, repair="all", max_share=100) as again:
        written = repair.write(again, "comments")
    assert (written["updated"], written["derived_lag"]) == (1, 0)


def test_repair_writes_no_more_than_it_may(world, target_dsn, run):
    def found() -> dict[str, int]:
        return {r["collection"] + " " + r["verdict"]: r["number"] for r in run(max_share=100).report["open"]}

    create(world, target_dsn)
    edit_that_moves_none(world, target_dsn)
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('gone', 'p1', 'u1', 'c')")
    run(scope="sweep")
    assert found() == {"posts missing": 1, "comments stale": 1, "comments extra": 1}
    run(repair="missing")
    assert found() == {"comments stale": 1, "comments extra": 1}
    run(repair="missing_and_stale")
    assert found() == {"comments extra": 1}
    run(repair="all")
    assert found() == {}


def test_a_missed_delete_takes_what_hangs_on_it_children_first(world, target_dsn, run_all):
    """The app deletes the post's document alone: its comments stay in Firestore for ever, and Postgres would cascade."""
    world.document("boards/b1/posts/p1/comments/cp1/replies/r1").set(comment())
    world.document("boards/b1/posts/p1/likes/l1").set({"userId": "u2", "createdAt": LONG_AGO})
    world.document("boards/b1/posts/p1/comments/cp1/reactions/x1").set(
        {"content": "👍", "reactionUser": {"userId": "u2"}, "createdAt": LONG_AGO}
    )
    assert run_all(scope="sweep", repair="missing").alerts == []
    world.document("boards/b1/posts/p1").delete()
    found = run_all(scope="sweep")
    for name in ("posts", "comments", "replies", "likes", "reactions"):
        assert found.counts(name).get("extra") == 1, name
    assert found.sample("comments", "extra")["reason"] == "parent_gone"
    mended = run_all(repair="all")
    assert mended.alerts == []
    assert one(target_dsn, "SELECT array_agg(id) FROM posts") == ["p2"]
    assert one(target_dsn, "SELECT array_agg(id) FROM comments") == ["cp2"]
    for table in ("replies", "likes", "reactions"):
        assert one(target_dsn, f"SELECT count(*) FROM {table}") == 0
    deleted = one(
        target_dsn, "SELECT array_agg(collection ORDER BY id) FROM dualwrite.repair_journal WHERE action = 'delete'"
    )
    assert deleted.index("replies") < deleted.index("comments") < deleted.index("posts")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


@pytest.mark.parametrize("change", [{"content": "edited"}, {"content": {"a": "map"}}], ids=["stale", "rejected"])
def test_what_hangs_on_an_extra_row_goes_with_it(change, world, target_dsn, run):
    """Whatever else is open about it."""
    world.document("boards/b1/posts/p1/comments/cp1").update(change)
    assert sum(run(scope="sweep").counts("comments").values()) == 1
    world.document("boards/b1/posts/p1").delete()
    attempted(target_dsn, "post:delete:p1")
    found = run(repair="all")
    assert found.counts("comments").get("extra") == 1
    assert found.alerts == []
    assert one(target_dsn, "SELECT array_agg(id) FROM posts") == ["p2"]
    assert one(target_dsn, "SELECT array_agg(id) FROM comments") == ["cp2"]


@pytest.mark.parametrize("is_known", [True, False], ids=["the edit is known", "only the end is known"])
def test_a_row_does_not_go_with_whom_its_document_named_before(is_known, world, target_dsn, run_all):
    """Both edits were lost: the row still names a person who is gone, and its document another one."""
    world.document("users/u9").set(world.document("users/u1").get().to_dict())
    world.document("boards/b1/posts/p1/comments/cp1").update({"userId": "u9"})
    assert run_all(scope="sweep", repair="missing_and_stale").alerts == []
    assert one(target_dsn, "SELECT user_id FROM comments WHERE id = 'cp1'") == "u9"
    world.document("boards/b1/posts/p1/comments/cp1").update({"userId": "u1"})
    world.document("users/u9").delete()
    attempted(target_dsn, "user:delete:u9")
    if is_known:
        found = run_all(scope="sweep")
        assert (found.counts("users"), found.counts("comments")) == ({"extra": 1}, {"stale": 1})
    for _ in range(3):  # the update lets the delete through
        run_all(repair="all")
    assert one(target_dsn, "SELECT user_id FROM comments WHERE id = 'cp1'") == "u1"
    assert one(target_dsn, "SELECT count(*) FROM users WHERE id = 'u9'") == 0
    assert one(target_dsn, "SELECT array_agg(collection || ' ' || action ORDER BY id) FROM dualwrite.repair_journal "
                           "WHERE action = 'delete'") == ["user_board_permissions delete", "users delete"]  # fmt: skip


def test_a_document_that_became_unfit_keeps_its_row(world, target_dsn, run_all):
    """It is counted once."""
    notification = world.document("users/u1/notifications/n1")
    notification.set({"type": "like_on_post", "postId": "p1", "fromUserId": "u2", "timestamp": now(), "read": False})
    assert run_all(repair="missing").alerts == []
    notification.update({"read": "yes"})
    world.document("boards/b1/posts/p1").update({"title": {"a": "map"}})
    world.document("users/u1").update({"boardPermissions": {"b1": 7}})
    found = run_all(scope="sweep", repair="all")
    assert found.counts("posts").get("rejected") == 1
    assert found.counts("user_board_permissions").get("rejected") == 1
    assert found.counts("notifications") == {"rejected": 2}, "the document, and the row that may be its own"
    for table, number in (("posts", 2), ("user_board_permissions", 3), ("notifications", 1)):
        assert one(target_dsn, f"SELECT count(*) FROM {table}") == number


def test_a_row_that_a_client_still_references_is_not_deleted(world, target_dsn, run, monkeypatch):
    """Postgres would cascade the deletion to the comment of a table that the catalog doesn't know."""
    execute(target_dsn, "CREATE TABLE bookmarks (post_id text REFERENCES posts ON DELETE CASCADE)")
    execute(target_dsn, "INSERT INTO bookmarks VALUES ('p1')")
    world.document("boards/b1/posts/p1/comments/cp1").delete()
    world.document("boards/b1/posts/p1").delete()
    found = run(scope="sweep", repair="all")
    assert one(target_dsn, "SELECT count(*) FROM bookmarks") == 1
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p1'") == 1
    assert "posts: 1 extra" in found.alerts[0]


def test_a_comment_below_a_deleted_post_is_not_inserted(world, target_dsn, run):
    """The post's row is still there."""
    world.document("boards/b1/posts/p1").delete()
    world.document("boards/b1/posts/p1/comments/new").set(comment(createdAt=now()))
    found = run(repair="missing")
    assert found.counts("comments") == {"orphan": 1}
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'new'") == 0


def test_a_post_re_created_while_its_old_row_is_to_go_keeps_all(world, target_dsn, run, monkeypatch):
    world.document("boards/b1/posts/p1").delete()
    run(scope="sweep")
    world.document("boards/b1/posts/p1").set(post(title="re-created", createdAt=now(), updatedAt=now()))
    found = run(repair="all")
    assert one(target_dsn, "SELECT array_agg(id ORDER BY id) FROM comments") == ["cp1", "cp2"]
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") in ("t", "re-created")
    assert not any("extra" in a for a in found.alerts)


def test_single_entries_of_derived_collections_come_and_go(world, target_dsn, run):
    world.document("boards/b1").update({"waitingUsersIds": ["u2", "u3"]})
    world.document("users/u1").update({"boardPermissions": {"b2": "write"}, "updatedAt": now()})
    world.document("boards/b2").set({"title": "b2", "createdAt": now()})
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT array_agg(user_id ORDER BY user_id) FROM board_waiting_users") == ["u2", "u3"]
    assert one(target_dsn, "SELECT array_agg(board_id) FROM user_board_permissions WHERE user_id = 'u1'") == ["b2"]


def test_an_extra_row_with_a_needed_unique_key_is_deleted_first(world, target_dsn, run_all):
    execute(target_dsn, "INSERT INTO likes (id, post_id, user_id) VALUES ('old', 'p1', 'u2')")
    world.document("boards/b1/posts/p1/likes/new").set({"userId": "u2", "createdAt": now()})
    assert run_all(repair="all").alerts == []
    assert one(target_dsn, "SELECT array_agg(id) FROM likes") == ["new"]


def test_before_images_put_a_row_back(world, target_dsn, run):
    """The statement of docs/runbook.md."""
    before = one(target_dsn, "SELECT to_jsonb(c) FROM comments c WHERE id = 'cp1'")
    delete_of_an_old_document(world, target_dsn)
    run(scope="sweep", repair="all")
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'cp1'") == 0
    execute(
        target_dsn,
        "INSERT INTO comments SELECT r.* FROM dualwrite.repair_journal j, jsonb_populate_record(NULL::comments, j.row_before) r "
        "WHERE j.collection = 'comments' AND j.key = 'cp1' AND j.action = 'delete' ORDER BY j.id DESC LIMIT 1",
    )
    assert one(target_dsn, "SELECT to_jsonb(c) FROM comments c WHERE id = 'cp1'") == before


def test_brakes_refuse_the_whole_repair(world, target_dsn, run):
    """They tell the numbers and the way out."""
    busy(world, 3)
    attempted(target_dsn, "post:create:busy1")
    found = run(repair="missing", max_repairs=2)
    assert "max_repairs = 2 rows: 3 would be written (posts 3)" in found.alerts[0]
    assert one(target_dsn, "SELECT count(*) FROM posts") == 2
    assert not any("writes at most" in a for a in run(repair="missing", max_repairs=3).alerts)
    assert one(target_dsn, "SELECT count(*) FROM posts") == 5


def test_many_deletes_of_one_table_are_refused_by_its_share(world, target_dsn, run):
    execute(
        target_dsn,
        "INSERT INTO comments (id, post_id, user_id, content) SELECT 'x' || i, 'p1', 'u1', 'c' FROM generate_series(1, 21) i",
    )
    found = run(repair="all")
    assert (
        "max_share = 5 % of a table: 0 updates and 21 deletes are 91.3 % of the 23 rows of comments" in found.alerts[0]
    )
    assert one(target_dsn, "SELECT count(*) FROM comments") == 23
    assert run(repair="all", max_share=100).alerts == []
    assert one(target_dsn, "SELECT count(*) FROM comments") == 2


def test_an_empty_side_stops_the_run(world, target_dsn, run):
    """Before anything is called missing."""
    for user in ("u1", "u2", "u3"):
        world.document(f"users/{user}").delete()
    before = table_bytes(target_dsn)
    with pytest.raises(PreflightError, match="users .* Firestore", check=coded("sentinel-empty")):
        run(repair="all", scope="sweep")
    assert table_bytes(target_dsn) == before


def test_a_run_without_repair_writes_no_byte_of_the_apps_tables(world, target_dsn, run):
    for change in CHANGES:
        change(world, target_dsn)
    before = table_bytes(target_dsn)
    run(scope="sweep")
    assert table_bytes(target_dsn) == before


# --- at the moment of writing -------------------------------------------------------------------------------------------


def test_an_old_runs_writing_task_is_refused_by_todays_brakes(world, emulator, target_dsn, run):
    """Airflow clears single tasks: they run again, with what the gate of back then allowed."""
    delete_of_a_recent_document(world, target_dsn)
    run(scope="sweep")
    with reconcile_run(world.project, emulator, target_dsn, repair="all") as old:
        assert repair.gate(old)["problem"] is None
        execute(
            target_dsn,
            "INSERT INTO comments (id, post_id, user_id, content) "
            "SELECT 'y' || i, 'p1', 'u1', 'c' FROM generate_series(1, 150) i",
        )
        run(scope="sweep")
        with pytest.raises(BrakeError, match="5 %", check=coded("repair-above-max-share")):
            repair.delete(old, "comments")
    assert one(target_dsn, "SELECT count(*) FROM comments") == 153


def test_a_writing_task_refuses_a_plan_of_yesterday(world, emulator, target_dsn, run):
    delete_of_a_recent_document(world, target_dsn)
    run(scope="sweep")
    yesterday = now() - timedelta(days=1)
    with reconcile_run(world.project, emulator, target_dsn, repair="all", now=yesterday) as old:
        for task in (repair.delete, repair.write):
            with pytest.raises(BrakeError, check=coded("comparison-too-old")):
                task(old, "comments")
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'gone'") == 1


def test_a_task_writes_nothing_once_dual_write_was_switched_off(world, emulator, target_dsn, run):
    create(world, target_dsn)
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="missing", switch=lambda: False) as begun_before:
        assert repair.gate(begun_before)["planned"]
        with pytest.raises(BrakeError, check=coded("dual-write-switched-off")):
            repair.write(begun_before, "posts")
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'new'") == 0


def test_the_brakes_hold_for_a_whole_run(world, emulator, target_dsn, run):
    """However often its tasks run again."""
    busy(world, 3)
    attempted(target_dsn, "post:create:busy1")
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="missing", max_repairs=4) as again:
        repair.write(again, "posts")
        repair.re_examine(again, {"posts": {}})
        for i in range(2):
            world.document(f"boards/b1/posts/more{i}").set(post(createdAt=now(), updatedAt=now()))
        run()
        with pytest.raises(BrakeError, match="4 rows: 5", check=coded("repair-above-max-repairs")):
            repair.write(again, "posts")
    assert one(target_dsn, "SELECT count(*) FROM posts") == 5


# --- many -----------------------------------------------------------------------------------------------------------------


def test_comments_can_be_repaired_though_their_post_is_missing(world, target_dsn, run):
    """The parent post is written with them; what was open about it must not fail the run."""
    create(world, target_dsn)
    world.document("boards/b1/posts/new/comments/cn").set(comment(createdAt=now()))
    assert len(run().alerts) == 2
    assert run(collections=["comments"], repair="missing").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'new'") == 1
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_a_run_says_which_parents_collections_it_left_out(world, target_dsn, run):
    """A comment's row whose post is gone, while the post's row isn't: it matches until posts are selected too."""
    create(world, target_dsn)
    world.document("boards/b1/posts/new/comments/cn").set(comment(createdAt=now()))
    assert run(repair="missing").alerts == []
    world.document("boards/b1/posts/new").delete()
    alone = run(collections=["comments"], scope="sweep")
    assert (alone.counts("comments"), alone.alerts) == ({}, [])
    assert alone.report["parents_not_compared"] == ["boards", "users", "posts"]
    assert (
        "Not selected, though selected collections reference them: boards, users, posts. A row counts" in alone.text()
    )
    both = run(collections=["boards", "users", "posts", "comments"], scope="sweep")
    assert (both.counts("posts"), both.counts("comments")) == ({"extra": 1}, {"extra": 1})
    assert both.report["parents_not_compared"] == []
    assert "Not selected" not in both.text()


def test_dependents_of_extra_rows_are_asked_for_once_a_table(world, emulator, target_dsn, run, run_all, monkeypatch):
    """One statement asks for all of a table, however many."""
    execute(
        target_dsn,
        "INSERT INTO posts (id, board_id, author_id, author_name, title) "
        "SELECT 'x' || i, 'b1', 'u1', 'n', 't' FROM generate_series(1, 200) i",
    )
    execute(
        target_dsn,
        "INSERT INTO comments (id, post_id, user_id, content) SELECT 'c' || i, 'x' || i, 'u1', 'c' FROM generate_series(1, 200) i",
    )
    asked: list[str] = []
    one_by_one = Target.dependents

    def counted(self, collection, column, values):
        if collection.entries is None:  # whose rows are asked for by their documents' ids in the same way
            asked.append(collection.name)
        return one_by_one(self, collection, column, values)

    monkeypatch.setattr(Target, "dependents", counted)
    found = run_all(scope="sweep")
    assert found.counts("posts") == {"extra": 200}
    assert found.counts("comments") == {"extra": 200}
    assert sorted(asked) == ["comments", "likes", "reactions", "replies"]
    asked.clear()
    run()
    assert asked == ["comments"], "of the collections that nobody selected, no row is looked at"


def test_a_run_looks_at_so_many_open_differences(world, target_dsn, run):
    """It tells of the rest."""
    execute(
        target_dsn,
        "INSERT INTO dualwrite.open_differences (collection, key, path, row_key, verdict, first_seen, last_seen, run_id) "
        "SELECT 'comments', 'o' || i, 'boards/b1/posts/p1/comments/o' || i, jsonb_build_array('o' || i), 'missing', "
        "now() - interval '1 day', now() - make_interval(mins => i), 'old' FROM generate_series(1, 10) i",
    )
    found = run(max_open_looks=4)
    assert found.counts("comments") == {"absent": 4}
    assert "comments: 6 missing since" in found.alerts[0], "what nobody looked at is not closed"
    [comments] = [c for c in found.report["collections"] if c["collection"] == "comments"]
    assert comments["not_looked_at"] == 6
    assert "Open and not looked at again by this run (max_open_looks): comments 6." in found.text()
    left = one(target_dsn, "SELECT array_agg(key ORDER BY key) FROM dualwrite.open_differences")
    assert left == [f"o{i}" for i in range(1, 7)], "those seen longest ago come first"
    assert run(max_open_looks=4).counts("comments") == {"absent": 4}


def test_what_was_seen_once_comes_before_old_drift(world, target_dsn, run):
    """It is told where it must wait."""
    execute(
        target_dsn,
        "INSERT INTO dualwrite.open_differences (collection, key, path, row_key, verdict, first_seen, last_seen, run_id) "
        "SELECT 'comments', 'o' || i, 'boards/b1/posts/p1/comments/o' || i, jsonb_build_array('o' || i), 'missing', "
        "now() - interval '1 day', now() - make_interval(mins => i), 'old' FROM generate_series(1, 10) i",
    )
    busy(world, 3)
    attempted(target_dsn, "post:create:busy1")
    found = run(max_open_looks=2)
    assert found.counts("posts") == {"missing": 2}
    assert found.alerts[0].startswith("posts: 1 difference still needs its second look")


# --- what to press --------------------------------------------------------------------------------------------------------


def test_the_advice_for_a_held_unique_key_is_the_right_repair(world, target_dsn, run_all):
    """An extra row holds the key, so only repair = all helps."""
    execute(target_dsn, "INSERT INTO likes (id, post_id, user_id) VALUES ('old', 'p1', 'u2')")
    world.document("boards/b1/posts/p1/likes/new").set({"userId": "u2", "createdAt": now()})
    missing = next(a for a in run_all().alerts if "1 missing" in a)
    assert "(unique_key_held_by_extra_row): a row whose document is gone holds the unique key" in missing
    assert missing.endswith("; trigger reconcile_dual_writes with repair = all")
    assert "repair = missing" not in missing
    assert run_all(repair="all").alerts == []
