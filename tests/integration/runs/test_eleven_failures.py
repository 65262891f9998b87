"""The eleven things that went wrong in the migration which this bundle was made after. Each is impossible here, or
caught within one run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dualwrite import alerts, postgres
from dualwrite.catalog import CATALOG
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.model.errors import ParameterError
from tests.refusals import coded
from tests.support import apply, dry_run, gap_run, nonzero, one, params, reconciled, verify_all

T = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


def post(**changes) -> dict:
    return {
        "title": "t",
        "content": "c",
        "authorId": "u1",
        "authorName": "n",
        "createdAt": T,
        "updatedAt": T,
        **changes,
    }


@pytest.fixture
def base(firestore, target_dsn):
    """Two users, a board and a post in both databases."""
    firestore.document("boards/b1").set({"title": "b", "createdAt": T})
    firestore.document("boards/b1/posts/p1").set(post())
    for user in ("u1", "u2"):
        firestore.document(f"users/{user}").set({"createdAt": T, "updatedAt": T})
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO users (id, created_at, updated_at) VALUES ('u1', %s, %s), ('u2', %s, %s)", (T, T, T, T)
        )
        connection.execute("INSERT INTO boards (id, title, created_at, updated_at) VALUES ('b1', 'b', %s, %s)", (T, T))
        connection.execute(
            "INSERT INTO posts (id, board_id, author_id, author_name, title, content, created_at, updated_at) "
            "VALUES ('p1', 'b1', 'u1', 'n', 't', 'c', %s, %s)",
            (T, T),
        )
    return firestore


def test_1_a_missing_feature_flag_is_noticed_within_one_run(base, emulator, target_dsn):
    for i in range(5):
        base.document(f"boards/b1/posts/new{i}").set(post(createdAt=now(), updatedAt=now()))
    found = reconciled(base.project, emulator, target_dsn)
    assert found.alerts[0].startswith("dual-write seems off: 5 documents were written")


def test_2_an_error_that_nobody_looked_at_is_told_and_found(base, emulator, target_dsn, monkeypatch):
    """The helper tells Sentry what the client library only returned; and the op log shows that it was attempted."""
    told = []
    monkeypatch.setattr(alerts, "write_failed", lambda text, **tags: told.append(text))
    document = post(authorId="nobody", createdAt=now(), updatedAt=now())
    base.document("boards/b1/posts/new").set(document)
    writer = DualWriter(lambda: postgres.connect(target_dsn))
    assert writer.mirror("boards/b1/posts/new", None, document) is Outcome.FAILED
    writer.close()
    assert told == ["failed: ForeignKeyViolation 23503 (constraint posts_author_id_fkey)"]
    base.document("users/nobody").set({"createdAt": T, "updatedAt": T})
    found = reconciled(base.project, emulator, target_dsn, collections=["posts"])
    assert "posts: 1 missing" in found.alerts[0]
    assert "(1 attempted_failed)" in found.alerts[0]


def test_3_an_export_time_without_its_offset_is_refused():
    with pytest.raises(ParameterError, match="since .*'2026-01-15T21:52:00'", check=coded("instant-without-offset")):
        params(since="2026-01-15T21:52:00")


def test_4_no_column_is_left_out(base, emulator, target_dsn):
    """Replies lost post_id, users lost recovery_status, timezone and the known buddy."""
    fields = {
        "createdAt": T, "updatedAt": now(), "recoveryStatus": "partial", "profile": {"timezone": "Asia/Seoul"},
        "knownBuddy": {"uid": "u2"},
    }  # fmt: skip
    base.document("users/u1").set(fields)
    base.document("boards/b1/posts/p1/comments/c1").set({"content": "c", "userId": "u1", "createdAt": now()})
    base.document("boards/b1/posts/p1/comments/c1/replies/r1").set({"content": "c", "userId": "u1", "createdAt": now()})
    assert reconciled(base.project, emulator, target_dsn, repair="missing_and_stale").alerts == []
    assert one(target_dsn, "SELECT post_id FROM replies WHERE id = 'r1'") == "p1"
    row = one(target_dsn, "SELECT recovery_status, timezone, known_buddy_uid FROM users WHERE id = 'u1'")
    assert row == ("partial", "Asia/Seoul", "u2")


def test_5_one_bad_row_costs_its_neighbours_nothing(base, emulator, target_dsn):
    for i in range(300):
        base.document(f"boards/b1/posts/x{i:03}").set(post(visibility="friends" if i == 150 else "public"))
    found = apply(base.project, emulator, target_dsn, collections=["posts"])["posts"]
    assert nonzero(found["counts"]) == {"rejected": 1, "missing": 299, "matching": 1}
    assert one(target_dsn, "SELECT count(*) FROM posts") == 300


def test_6_blocks_are_known_by_their_people_not_by_an_id(base, emulator, target_dsn):
    """Their id is never stored."""
    base.document("users/u1/blockedUsers/u2").set({"blockedAt": T})
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO blocks (blocker_id, blocked_id, created_at) VALUES ('u1', 'u2', %s)", (T,))
    found = reconciled(base.project, emulator, target_dsn, collections=["blocks"])
    assert found.counts("blocks") == {}
    assert found.alerts == []


def test_7_an_absent_created_at_is_the_same_in_every_run(base, emulator, target_dsn):
    base.document("boards/b1/posts/p1/comments/c1").set({"content": "c", "userId": "u1"})
    apply(base.project, emulator, target_dsn, collections=["comments"], scope="all")
    created = one(target_dsn, "SELECT created_at FROM comments")
    document = base.document("boards/b1/posts/p1/comments/c1").get()
    assert abs(created - document.create_time) < timedelta(milliseconds=1)
    again = dry_run(base.project, emulator, target_dsn, collections=["comments"], scope="all")["comments"]
    assert nonzero(again["counts"]) == {"matching": 1}


def test_8_the_gap_costs_one_query_a_collection_not_one_a_parent(base, emulator, target_dsn, monkeypatch):
    for i in range(60):
        base.document(f"boards/b1/posts/x{i}").set(post())
        base.document(f"boards/b1/posts/x{i}/comments/c{i}").set({"content": "c", "userId": "u1", "createdAt": T})
    apply(base.project, emulator, target_dsn, collections=["posts"])
    with gap_run(base.project, emulator, target_dsn, mode="dry_run", collections=["comments"]) as run:
        queries = []
        original = run.source.pages
        monkeypatch.setattr(run.source, "pages", lambda *args: queries.append(args) or original(*args))
        from dualwrite.runs import backfill

        found = backfill.examine(run, "comments", dry=True)
    assert found["counts"]["missing"] == 60
    assert len(queries) == 1
    # Each document once, the count, and once each document that the new rows require: a post's row may outlive it.
    assert found["billed_reads"] <= 62 + 60 + 1


def test_9_what_lives_inside_other_documents_is_not_forgotten(base, emulator, target_dsn):
    base.document("users/u1").update({"boardPermissions": {"b1": "write"}, "updatedAt": now()})
    base.document("boards/b1").update({"waitingUsersIds": ["u2"]})
    found = reconciled(base.project, emulator, target_dsn)
    assert found.counts("user_board_permissions") == {"missing": 1}
    assert found.counts("board_waiting_users") == {"missing": 1}
    with gap_run(
        base.project, emulator, target_dsn, collections=["user_board_permissions", "board_waiting_users"]
    ) as run:
        assert verify_all(run)["user_board_permissions"]["verification"] == "not_verified"
    assert reconciled(base.project, emulator, target_dsn, repair="missing_and_stale").alerts == []
    assert one(target_dsn, "SELECT permission FROM user_board_permissions") == "write"


def test_10_edits_and_deletes_are_looked_for_not_only_creations(base, emulator, target_dsn):
    reconciled(base.project, emulator, target_dsn)
    base.document("boards/b1/posts/p1").update({"content": "edited, and no field says so"})
    base.document("users/u2").delete()
    found = reconciled(base.project, emulator, target_dsn, scope="sweep")
    assert found.counts("posts") == {"stale": 1}
    assert found.counts("users") == {"extra": 1}
    assert reconciled(base.project, emulator, target_dsn, repair="all").alerts == []
    assert one(target_dsn, "SELECT content FROM posts") == "edited, and no field says so"
    assert one(target_dsn, "SELECT array_agg(id) FROM users") == ["u1"]


def test_11_documents_whose_parent_was_deleted_raise_no_alarm(base, emulator, target_dsn):
    for i in range(62):
        base.document(f"boards/b1/posts/deleted/comments/c{i}").set(
            {"content": "c", "userId": "u1", "createdAt": now()}
        )
    one(target_dsn, "SELECT try_acquire_write_lock('comment:create:c1:1780000000000')")
    found = reconciled(base.project, emulator, target_dsn)
    assert found.counts("comments") == {"orphan": 62}
    assert found.alerts == []


def test_the_catalog_declares_all_columns_not_left_to_defaults(target_dsn):
    """What failure 4 would be again: a column that exists and that nobody maps."""
    left = {
        "comments": {"count_of_replies"}, "blocks": {"id"}, "reviews": {"id"}, "notifications": {"id"},
        "user_board_permissions": {"id"}, "board_waiting_users": {"id"}, "drafts": {"content_json"},
    }  # fmt: skip
    with psycopg.connect(target_dsn) as connection:
        for collection in CATALOG:
            rows = connection.execute(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (collection.table,),
            )
            live = {name for (name,) in rows}
            assert live - {c.name for c in collection.columns} == left.get(collection.name, set()), collection.name
