"""Reconciliation: what each side can see, why a write was missed, what is mended, and what is left alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import count

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine import op_log as operations
from dualwrite.model.errors import DualWriteError, PreflightError
from dualwrite.runs import reconcile, reconcile_plan, reconcile_report, repair
from tests.support import RECONCILE_DEFAULTS, apply, one, reconciled, table_bytes

LONG_AGO = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)
_millis = count(1_780_000_000_000)


def now() -> datetime:
    return datetime.now(UTC)


def post(**changes) -> dict:
    base = {
        "title": "t",
        "content": "c",
        "authorId": "u1",
        "authorName": "n",
        "createdAt": LONG_AGO,
        "updatedAt": LONG_AGO,
    }
    return {**base, **changes}


def comment(**changes) -> dict:
    return {"content": "c", "userId": "u1", "userName": "n", "createdAt": LONG_AGO, **changes}


@pytest.fixture
def world(firestore, emulator, target_dsn):
    """Two users, a board, two posts with a comment each, in both databases; everything examined until now."""
    firestore.document("boards/b1").set({"title": "b", "createdAt": LONG_AGO, "waitingUsersIds": ["u1"]})
    for user in ("u1", "u2", "u3"):
        fields = {"nickname": user, "createdAt": LONG_AGO, "updatedAt": LONG_AGO, "boardPermissions": {"b1": "read"}}
        firestore.document(f"users/{user}").set(fields)
    for p in ("p1", "p2"):
        firestore.document(f"boards/b1/posts/{p}").set(post())
        firestore.document(f"boards/b1/posts/{p}/comments/c{p}").set(comment())
    apply(firestore.project, emulator, target_dsn, scope="all")
    execute(
        target_dsn,
        "UPDATE user_board_permissions SET created_at = '2026-02-01'; UPDATE board_waiting_users SET created_at = '2026-02-01'",
    )
    execute(
        target_dsn,
        "INSERT INTO dualwrite.watermarks (collection, examined_until, swept_at, run_id) "
        "SELECT unnest(%s::text[]), now() - interval '1 minute', now(), 'before'",
        list(CATALOG.names),
    )
    return firestore


def execute(dsn: str, statement: str, *parameters) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement, parameters or None)


def attempted(dsn: str, operation: str) -> None:
    """A lock of the app's."""
    execute(dsn, "SELECT try_acquire_write_lock(%s)", f"{operation}:{next(_millis)}")


@pytest.fixture
def run(world, emulator, target_dsn):
    def run(**changes):
        return reconciled(world.project, emulator, target_dsn, **changes)

    return run


# --- what each side can see: the table of docs/verification.md, cell by cell -------------------------------------------


def _create(world, dsn):
    world.document("boards/b1/posts/new").set(post(createdAt=now(), updatedAt=now()))


def _edit_that_moves_a_check_field(world, dsn):
    world.document("boards/b1/posts/p1").update({"title": "edited", "updatedAt": now()})


def _edit_that_moves_none(world, dsn):
    world.document("boards/b1/posts/p1/comments/cp1").update({"content": "edited"})


def _delete_of_a_recent_document(world, dsn):
    execute(dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('gone', 'p1', 'u1', 'c')")


def _delete_of_an_old_document(world, dsn):
    world.document("boards/b1/posts/p1/comments/cp1").delete()


def _create_without_check_field(world, dsn):
    fields = {k: v for k, v in comment().items() if k != "createdAt"}
    world.document("boards/b1/posts/p1/comments/late").set(fields)


def _create_late_from_an_offline_phone(world, dsn):
    world.document("users/u1/blockedUsers/u2").set({"blockedAt": now() - timedelta(hours=5)})


CHANGES = {
    # what was missed: collection, verdict, operation, does the window see it, does the operation lead to it
    _create: ("posts", "missing", "post:create:new", True, True),
    _edit_that_moves_a_check_field: ("posts", "stale", "post:update:p1", True, True),
    _edit_that_moves_none: ("comments", "stale", "comment:update:cp1", False, True),
    _delete_of_a_recent_document: ("comments", "extra", "comment:delete:gone", True, True),
    _delete_of_an_old_document: ("comments", "extra", "comment:delete:cp1", False, True),
    # no row and no document in the window: nothing says where the document is
    _create_without_check_field: ("comments", "missing", "comment:create:late", False, False),
    # the operation's id says all of the path
    _create_late_from_an_offline_phone: ("blocks", "missing", "block:create:u1_u2", False, True),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__.strip("_"))
def test_the_windows_see_what_the_table_says(change, world, target_dsn, run):
    name, verdict, _, seen, _ = CHANGES[change]
    change(world, target_dsn)
    found = run()
    assert found.counts(name) == ({verdict: 1} if seen else {})
    assert bool(found.alerts) == seen


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__.strip("_"))
def test_write_ops_show_what_was_attempted(change, world, target_dsn, run):
    name, verdict, operation, _, located = CHANGES[change]
    change(world, target_dsn)
    attempted(target_dsn, operation)
    found = run()
    assert found.counts(name) == ({verdict: 1} if located else {})
    [line] = [c for c in found.report["collections"] if c["collection"] == name]
    assert line["unlocatable"] == (0 if located else 1)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__.strip("_"))
def test_a_sweep_sees_everything_and_a_repair_mends_it(change, world, target_dsn, run):
    name, verdict, *_ = CHANGES[change]
    change(world, target_dsn)
    found = run(scope="sweep")
    assert found.counts(name) == {verdict: 1}
    assert len(found.alerts) == 1
    mended = run(repair="all")
    assert mended.alerts == []
    again = run(scope="sweep")
    assert again.alerts == []
    assert again.counts(name) == {}


# --- looking twice -------------------------------------------------------------------------------------------------------


def test_what_arrives_between_the_two_looks_was_in_flight(world, target_dsn, run):
    _create(world, target_dsn)

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


def test_what_changes_between_the_two_looks_is_in_flight_and_stays_open(world, target_dsn, run):
    _create(world, target_dsn)
    found = run(between=lambda: world.document("boards/b1/posts/new").update({"title": "again"}))
    assert found.counts("posts") == {"in_flight": 1}
    assert found.alerts == []
    assert run().counts("posts") == {"missing": 1}, "unchanged since then: drift"


def test_counters_moving_between_the_looks_hide_nothing(world, target_dsn, run):
    _create(world, target_dsn)
    found = run(between=lambda: world.document("boards/b1/posts/new").update({"countOfLikes": 7, "updatedAt": now()}))
    assert found.counts("posts") == {"missing": 1}


def test_a_busy_document_whose_writes_never_arrive_is_not_in_flight_for_ever(world, target_dsn, run):
    _create(world, target_dsn)
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


def test_a_difference_stays_open_until_it_is_gone_though_its_window_has_passed(world, target_dsn, run):
    _create(world, target_dsn)
    run()
    later = now() + timedelta(days=2)
    found = run(now=later, sweep_every_hours=24 * 300)
    assert found.counts("posts") == {"missing": 1}
    world.document("boards/b1/posts/new").delete()
    found = run(now=later, sweep_every_hours=24 * 300)
    assert found.counts("posts") == {"absent": 1}
    assert found.alerts == []


def test_a_run_that_died_after_its_first_look_forgets_nothing(world, emulator, target_dsn, run):
    _create(world, target_dsn)

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(between=dies)
    later = now() + timedelta(days=2)  # the window of the first run has passed
    assert run(now=later, sweep_every_hours=24 * 300).counts("posts") == {"missing": 1}


# --- windows ---------------------------------------------------------------------------------------------------------------


def test_after_an_outage_of_weeks_the_window_begins_where_the_last_run_ended(world, target_dsn, run):
    lost = now() - timedelta(days=20)
    world.document("boards/b1/posts/lost").set(post(createdAt=lost, updatedAt=lost))
    execute(target_dsn, "UPDATE dualwrite.watermarks SET examined_until = now() - interval '21 days'")
    assert run(sweep_every_hours=24 * 300).counts("posts") == {"missing": 1}
    assert one(target_dsn, "SELECT min(now() - examined_until) < interval '1 minute' FROM dualwrite.watermarks")


def test_a_collection_that_can_not_be_read_keeps_its_watermark_and_is_not_examined(
    world, emulator, target_dsn, run, monkeypatch
):
    before = one(target_dsn, "SELECT examined_until FROM dualwrite.watermarks WHERE collection = 'posts'")
    original = reconcile.compare

    def breaks(run, name):
        if name == "posts":
            monkeypatch.setattr(run.source, "pages", lambda *_: (_ for _ in ()).throw(PreflightError("broken")))
            with pytest.raises(PreflightError):
                original(run, name)
            monkeypatch.undo()
            return {**original(run, "boards"), "collection": name, "outcome": "not_examined", "not_examined": "broken"}
        return original(run, name)

    monkeypatch.setattr(reconcile, "compare", breaks)
    found = run()
    assert found.alerts == ["posts was not examined: broken"]
    assert (
        one(
            target_dsn,
            "SELECT outcome FROM dualwrite.runs WHERE collection = 'posts' AND phase = 'compare' ORDER BY id DESC",
        )
        == "not_examined"
    )
    assert one(target_dsn, "SELECT examined_until FROM dualwrite.watermarks WHERE collection = 'posts'") == before


def test_a_sweep_is_due_once_a_day(world, target_dsn, run):
    def scopes() -> dict[str, str]:
        found = {c["collection"]: c["scope"] for c in run().report["collections"]}
        whole = {found.pop(name) for name in ("boards", "board_waiting_users")}  # no check field: read whole every time
        assert whole == {"sweep"}
        return found

    assert set(scopes().values()) == {"recent"}
    execute(
        target_dsn, "UPDATE dualwrite.watermarks SET swept_at = now() - interval '25 hours' WHERE collection = 'likes'"
    )
    again = scopes()
    assert again.pop("likes") == "sweep"
    assert set(again.values()) == {"recent"}
    assert set(scopes().values()) == {"recent"}


# --- why ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "operation", "cause"),
    [
        (_create, None, "never_attempted"),
        (_create, "post:create:new", "attempted_failed"),
        (_edit_that_moves_a_check_field, None, "never_attempted"),
        (_edit_that_moves_a_check_field, "post:update:p1", "attempted_failed"),
        (_delete_of_a_recent_document, None, "never_attempted"),
        (_delete_of_a_recent_document, "comment:create:gone", "never_attempted"),
        (_delete_of_a_recent_document, "comment:delete:gone", "attempted_failed"),
    ],
)
def test_the_op_log_says_why(change, operation, cause, world, target_dsn, run):
    change(world, target_dsn)
    if operation:
        attempted(target_dsn, operation)
    found = run()
    [alert] = found.alerts
    assert f"(1 {cause})" in alert
    op_id, at = one(target_dsn, "SELECT op_id, op_time FROM dualwrite.open_differences")
    if cause == "attempted_failed":
        assert op_id.startswith(operation)
        assert abs(at - now()) < timedelta(minutes=1)


def test_an_operation_long_before_an_edit_says_nothing_of_it(world, target_dsn, run):
    attempted(target_dsn, "post:update:p1")
    execute(target_dsn, "UPDATE write_ops SET created_at = now() - interval '3 days'")
    _edit_that_moves_a_check_field(world, target_dsn)
    assert "(1 unknown)" in run().alerts[0]


def test_without_write_ops_causes_are_unknown_and_the_run_goes_on(world, target_dsn, run):
    _create(world, target_dsn)
    execute(target_dsn, "DROP TABLE write_ops")
    found = run()
    assert "(1 unknown)" in found.alerts[0]
    assert found.report["operations"]["total"] is None


def test_write_ops_behind_row_level_security_is_no_sign_that_dual_write_is_off(world, target_dsn):
    """A role that sees half of the operations must not conclude from the other half."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("GRANT SELECT ON write_ops TO authenticated")
        connection.execute("ALTER TABLE write_ops DISABLE ROW LEVEL SECURITY; SET LOCAL ROLE authenticated")
        assert operations.is_readable(connection)
        connection.execute("RESET ROLE; ALTER TABLE write_ops ENABLE ROW LEVEL SECURITY; SET LOCAL ROLE authenticated")
        assert not operations.is_readable(connection)
        assert operations.activity(connection, [], LONG_AGO, now()).total is None


def test_operations_of_any_form_are_counted_and_break_nothing(world, target_dsn, run):
    for op_id in ("no colons", "::", "planet:create:x:1", "comment:create::1", "block:create:u1:1", "block:create:a_b_c:1",
                  "comment:create:with:colons:1", "notification:create:n1:2", "review:create:u1:1", "user:update:u1:x"):  # fmt: skip
        execute(target_dsn, "INSERT INTO write_ops VALUES (%s)", op_id)
    execute(target_dsn, "INSERT INTO write_ops VALUES ('post:create:p1:9999999999999', now() + interval '3 days')")
    execute(target_dsn, "ALTER TABLE write_ops ALTER created_at DROP NOT NULL")
    execute(target_dsn, "INSERT INTO write_ops VALUES ('comment:update:cp1:1', NULL)")
    _edit_that_moves_none(world, target_dsn)
    found = run()
    assert found.counts("comments") == {"stale": 1}, "an operation without a time could be of any"
    log = found.report["operations"]
    assert (log["malformed"], log["unknown_entities"], log["in_the_future"]) == (4, 1, 1)


def test_a_hundred_thousand_operations_take_seconds(world, target_dsn, run):
    execute(
        target_dsn,
        "INSERT INTO write_ops SELECT 'comment:create:x' || i || ':' || 1780000000000 + i FROM generate_series(1, 100000) i",
    )
    began = time.monotonic()
    found = run()
    assert time.monotonic() - began < 20
    [comments] = [c for c in found.report["collections"] if c["collection"] == "comments"]
    assert comments["unlocatable"] == 100_000
    assert found.alerts == []


# --- is dual-write alive? ------------------------------------------------------------------------------------------------------


def _busy(world, number: int) -> None:
    for i in range(number):
        world.document(f"boards/b1/posts/busy{i}").set(post(createdAt=now(), updatedAt=now()))


def test_documents_without_one_operation_mean_that_dual_write_is_off(world, run):
    _busy(world, 5)
    found = run(repair="missing")
    assert found.alerts[0].startswith("dual-write seems off: 5 documents were written since")
    assert found.gate["planned"]
    assert found.counts("posts") == {"missing": 5}, "nothing was repaired"


def test_a_gate_that_never_ran_fails_the_report(world, run, monkeypatch):
    """Nothing is open, and yet nobody knows whether dual-write is alive."""
    monkeypatch.setattr(repair, "gate", lambda run: None)
    assert run().alerts == [reconcile_report.NO_GATE]


def test_a_repair_that_failed_half_way_is_told_though_nothing_is_open_any_more(world, run, monkeypatch):
    """Its task wrote the row and died before it could say so; the look afterwards finds nothing wrong."""
    world.document("boards/b1/posts/lost").set(post(createdAt=now(), updatedAt=now()))
    write = repair.write
    monkeypatch.setattr(repair, "write", lambda run, name: write(run, name) and None)
    alert = "posts was not repaired whole: the task write.posts failed or did not run; see its log"
    assert run(repair="missing").alerts == [alert]
    monkeypatch.undo()
    assert run(repair="missing").alerts == []


def test_fewer_documents_or_one_operation_prove_nothing(world, target_dsn, run):
    _busy(world, 4)
    assert not any("seems off" in a for a in run().alerts)
    _busy(world, 9)
    attempted(target_dsn, "post:create:busy1")
    assert not any("seems off" in a for a in run().alerts)


def test_with_the_switch_off_what_is_missing_is_expected_and_drift_when_it_is_on_again(world, target_dsn, run):
    _busy(world, 6)
    off = run(enabled=False, repair="all")
    assert off.alerts == []
    assert off.counts("posts") == {"missing": 6}
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences WHERE cause = 'dual_write_off'") == 6
    assert one(target_dsn, "SELECT count(*) FROM posts") == 2, "the target is left alone while the switch is off"
    attempted(target_dsn, "post:update:p1")
    on = run()
    assert len(on.alerts) == 1
    assert "posts: 6 missing" in on.alerts[0]


# --- repair --------------------------------------------------------------------------------------------------------------------


def test_repair_writes_no_more_than_it_may(world, target_dsn, run):
    def found() -> dict[str, int]:
        return {r["collection"] + " " + r["verdict"]: r["number"] for r in run(max_share=100).report["open"]}

    _create(world, target_dsn)
    _edit_that_moves_none(world, target_dsn)
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('gone', 'p1', 'u1', 'c')")
    run(scope="sweep")
    assert found() == {"posts missing": 1, "comments stale": 1, "comments extra": 1}
    run(repair="missing")
    assert found() == {"comments stale": 1, "comments extra": 1}
    run(repair="missing_and_stale")
    assert found() == {"comments extra": 1}
    run(repair="all")
    assert found() == {}


def test_a_missed_delete_of_a_post_takes_what_hangs_on_it_children_first(world, target_dsn, run):
    """The app deletes the post's document alone: its comments stay in Firestore for ever, and Postgres would cascade."""
    world.document("boards/b1/posts/p1/comments/cp1/replies/r1").set(comment())
    world.document("boards/b1/posts/p1/likes/l1").set({"userId": "u2", "createdAt": LONG_AGO})
    world.document("boards/b1/posts/p1/comments/cp1/reactions/x1").set(
        {"content": "👍", "reactionUser": {"userId": "u2"}, "createdAt": LONG_AGO}
    )
    assert run(scope="sweep", repair="missing").alerts == []
    world.document("boards/b1/posts/p1").delete()
    found = run(scope="sweep")
    for name in ("posts", "comments", "replies", "likes", "reactions"):
        assert found.counts(name).get("extra") == 1, name
    assert found.sample("comments", "extra")["reason"] == "parent_gone"
    mended = run(repair="all")
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
def test_what_hangs_on_an_extra_row_goes_with_it_whatever_else_is_open_about_it(change, world, target_dsn, run):
    world.document("boards/b1/posts/p1/comments/cp1").update(change)
    assert sum(run(scope="sweep").counts("comments").values()) == 1
    world.document("boards/b1/posts/p1").delete()
    attempted(target_dsn, "post:delete:p1")
    found = run(repair="all")
    assert found.counts("comments").get("extra") == 1
    assert found.alerts == []
    assert one(target_dsn, "SELECT array_agg(id) FROM posts") == ["p2"]
    assert one(target_dsn, "SELECT array_agg(id) FROM comments") == ["cp2"]


def test_a_document_that_became_unfit_keeps_its_row_and_is_counted_once(world, target_dsn, run):
    notification = world.document("users/u1/notifications/n1")
    notification.set({"type": "like_on_post", "postId": "p1", "fromUserId": "u2", "timestamp": now(), "read": False})
    assert run(repair="missing").alerts == []
    notification.update({"read": "yes"})
    world.document("boards/b1/posts/p1").update({"title": {"a": "map"}})
    world.document("users/u1").update({"boardPermissions": {"b1": 7}})
    found = run(scope="sweep", repair="all")
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


def test_a_comment_below_a_deleted_post_is_not_inserted_though_the_posts_row_is_still_there(world, target_dsn, run):
    world.document("boards/b1/posts/p1").delete()
    world.document("boards/b1/posts/p1/comments/new").set(comment(createdAt=now()))
    found = run(repair="missing")
    assert found.counts("comments") == {"orphan": 1}
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'new'") == 0


def test_a_post_re_created_while_its_old_row_is_to_be_deleted_keeps_everything(world, target_dsn, run, monkeypatch):
    world.document("boards/b1/posts/p1").delete()
    run(scope="sweep")
    world.document("boards/b1/posts/p1").set(post(title="re-created", createdAt=now(), updatedAt=now()))
    found = run(repair="all")
    assert one(target_dsn, "SELECT array_agg(id ORDER BY id) FROM comments") == ["cp1", "cp2"]
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") in ("t", "re-created")
    assert not any("extra" in a for a in found.alerts)


def test_single_entries_of_derived_collections_are_added_and_removed(world, target_dsn, run):
    world.document("boards/b1").update({"waitingUsersIds": ["u2", "u3"]})
    world.document("users/u1").update({"boardPermissions": {"b2": "write"}, "updatedAt": now()})
    world.document("boards/b2").set({"title": "b2", "createdAt": now()})
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT array_agg(user_id ORDER BY user_id) FROM board_waiting_users") == ["u2", "u3"]
    assert one(target_dsn, "SELECT array_agg(board_id) FROM user_board_permissions WHERE user_id = 'u1'") == ["b2"]


def test_the_holder_of_a_unique_key_that_is_extra_goes_before_the_document_that_needs_it(world, target_dsn, run):
    execute(target_dsn, "INSERT INTO likes (id, post_id, user_id) VALUES ('old', 'p1', 'u2')")
    world.document("boards/b1/posts/p1/likes/new").set({"userId": "u2", "createdAt": now()})
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT array_agg(id) FROM likes") == ["new"]


def test_before_images_put_a_row_back(world, target_dsn, run):
    """The statement of docs/runbook.md."""
    before = one(target_dsn, "SELECT to_jsonb(c) FROM comments c WHERE id = 'cp1'")
    _delete_of_an_old_document(world, target_dsn)
    run(scope="sweep", repair="all")
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'cp1'") == 0
    execute(
        target_dsn,
        "INSERT INTO comments SELECT r.* FROM dualwrite.repair_journal j, jsonb_populate_record(NULL::comments, j.row_before) r "
        "WHERE j.collection = 'comments' AND j.key = 'cp1' AND j.action = 'delete' ORDER BY j.id DESC LIMIT 1",
    )
    assert one(target_dsn, "SELECT to_jsonb(c) FROM comments c WHERE id = 'cp1'") == before


def test_brakes_refuse_the_whole_repair_with_the_numbers_and_the_way_out(world, target_dsn, run):
    _busy(world, 3)
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


def test_an_empty_side_stops_the_run_before_anything_is_called_missing(world, target_dsn, run):
    for user in ("u1", "u2", "u3"):
        world.document(f"users/{user}").delete()
    before = table_bytes(target_dsn)
    with pytest.raises(PreflightError, match="never empty on a live system: Firestore has none"):
        run(repair="all", scope="sweep")
    assert table_bytes(target_dsn) == before


def test_a_run_without_repair_writes_no_byte_of_the_apps_tables(world, target_dsn, run):
    for change in CHANGES:
        change(world, target_dsn)
    before = table_bytes(target_dsn)
    run(scope="sweep")
    assert table_bytes(target_dsn) == before


# --- exceptions ------------------------------------------------------------------------------------------------------------------


def test_an_excused_difference_fails_nothing_until_the_excuse_is_taken_back(world, target_dsn, run):
    _create(world, target_dsn)
    run()
    accepted = run(excuse=["posts:new"], excuse_reason="a test account")
    assert accepted.alerts == []
    assert run(scope="sweep", repair="all").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'new'") == 0, "what is accepted is not repaired"
    assert len(run(unexcuse=["posts:new"]).alerts) == 1


def test_an_excuse_of_all_that_is_open_covers_nothing_that_comes_later(world, target_dsn, run):
    _create(world, target_dsn)
    run()
    assert run(excuse=["posts:*"], excuse_reason="before the move").alerts == []
    world.document("boards/b1/posts/later").set(post(createdAt=now(), updatedAt=now()))
    assert "posts: 1 missing" in run().alerts[0]


def test_differences_of_a_collection_gone_from_the_catalog_are_told_and_can_be_excused(world, target_dsn, run):
    execute(
        target_dsn,
        "INSERT INTO dualwrite.open_differences (collection, key, verdict, first_seen, last_seen, run_id) "
        "VALUES ('polls', 'x', 'missing', now(), now(), 'old')",
    )
    [alert] = run().alerts
    assert "the catalog has no collection polls any more: put it back, or trigger with excuse = polls:*" in alert
    assert run(excuse=["polls:*"], excuse_reason="polls were dropped").alerts == []


def test_an_excuse_ends_with_the_difference_that_it_was_for(world, target_dsn, run):
    document = world.document("boards/b1/posts/new")
    document.set(post(createdAt=now(), updatedAt=now(), title=7))
    run()
    assert run(excuse=["posts:new"], excuse_reason="a number for a title").alerts == []
    document.update({"title": "corrected", "updatedAt": now()})
    assert run(repair="missing").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'new'") == 0, "still excused: not repaired"
    run(unexcuse=["posts:new"])
    assert run(repair="missing").alerts == []
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'new'") == "corrected"
    run(excuse=["posts:new"], excuse_reason="in advance")
    run()
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0, (
        "it matches: there is nothing to excuse"
    )


# --- bad input ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 0}, "minutes is a number from 1"),
        ({"overlap_minutes": -1}, "overlap_minutes is a number"),
        ({"grace_seconds": "120"}, "grace_seconds is a number"),
        ({"scope": "all"}, "scope is one of recent, sweep"),
        ({"repair": True}, "repair is one of off, missing"),
        ({"collections": ["polls"]}, "'polls' is not"),
        ({"collections": []}, "Collections are a list of names"),
        ({"max_share": 101}, "max_share is a number from 0 to 100"),
        ({"excuse": ["posts"], "excuse_reason": "x"}, "named as collection:key in excuse: 'posts' is not"),
        ({"excuse": ["posts:x"]}, "excuse_reason is empty"),
        ({"unexcuse": "posts:x"}, "unexcuse is a list"),
        ({"dry_run": True}, "Only the form's parameters are taken: dry_run"),
    ],
)
def test_a_bad_parameter_is_refused_with_rule_place_and_remedy(changes, message):
    with pytest.raises(DualWriteError, match=message.replace("(", r"\(").replace("*", r"\*")):
        reconcile_plan.parse({**RECONCILE_DEFAULTS, **changes}, CATALOG)


def test_an_excuse_of_a_collection_that_nobody_knows_is_refused(run):
    with pytest.raises(DualWriteError, match="'post' in post:x is none"):
        run(excuse=["post:x"], excuse_reason="a slip")


def test_a_document_that_the_window_and_an_operation_show_is_examined_once(world, target_dsn, run):
    world.document("users/u1").update({"boardPermissions": {"b1": "write"}, "updatedAt": now()})
    attempted(target_dsn, "user:update:u1")
    found = run()
    [line] = [c for c in found.report["collections"] if c["collection"] == "user_board_permissions"]
    assert line["examined"] == 1
    assert found.counts("user_board_permissions") == {"stale": 1}


def test_a_first_look_alone_is_no_drift(world, target_dsn, run):
    """A run dies between its looks; a run of other collections must not call its first looks drift."""
    _create(world, target_dsn)

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(between=dies)
    assert run(collections=["likes"]).alerts == []


def test_clocks_apart_by_minutes_lose_nothing(world, target_dsn, run):
    """The worker's clock lags by ten minutes: what was written 'in the future' is seen by the next run."""
    _create(world, target_dsn)
    behind = run(now=now() - timedelta(minutes=10))
    assert behind.alerts == []
    assert run().counts("posts") == {"missing": 1}


def test_a_row_edited_by_hand_is_found_by_its_own_time_or_by_the_sweep(world, target_dsn, run):
    execute(target_dsn, "UPDATE posts SET title = 'by hand', updated_at = now() WHERE id = 'p1'")
    assert run(repair="missing_and_stale").alerts == []
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "t"
    execute(target_dsn, "UPDATE comments SET content = 'by hand' WHERE id = 'cp1'")
    assert run().counts("comments") == {}
    assert run(scope="sweep").counts("comments") == {"stale": 1}


def test_an_id_with_control_characters_is_kept_open_and_can_be_excused(world, target_dsn, run):
    world.document("boards/b1/posts/a\x00b").set(post(createdAt=now(), updatedAt=now()))
    found = run()
    assert found.counts("posts") == {"rejected": 1}
    assert run().counts("posts") == {"rejected": 1}
    assert run(excuse=["posts:a\\u0000b"], excuse_reason="unfit").alerts == []
    world.document("boards/b1/posts/a\x00b").delete()
    assert run(unexcuse=["posts:*"]).counts("posts") == {"absent": 1}


def test_an_id_that_spells_the_escape_is_not_taken_for_another_document(world, target_dsn, run):
    """Six characters, no U+0000: read as that, the path would name no document, and the row would go as extra."""
    document = world.document("boards/b1/posts/a\\u0000b")
    document.set(post(createdAt=now(), updatedAt=now()))
    assert run(repair="missing").alerts == []
    document.update({"title": "newer", "updatedAt": now()})
    assert run().counts("posts") == {"stale": 1}
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT title FROM posts WHERE id = %s", "a\\u0000b") == "newer"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0
