"""Documents that no row can hold, and ids that look like trouble: each ends clearly, and none costs its neighbours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from google.cloud.firestore_v1 import GeoPoint
from google.cloud.firestore_v1.vector import Vector

from dualwrite.model.run_report import CollectionResult
from tests.support import apply, dry_run, gap_run, nonzero, one, verify_all

T = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)
POST = {"title": "t", "content": "c", "authorId": "u1", "authorName": "n", "createdAt": T}
COMMENT = {"content": "c", "userId": "u1", "userName": "n", "createdAt": T}


@pytest.fixture
def base(firestore, target_dsn):
    """One board, two people, one post with one comment, on both sides."""
    firestore.document("boards/b1").set({"title": "b", "createdAt": T})
    for user in ("u1", "u2"):
        firestore.document(f"users/{user}").set({"updatedAt": T, "createdAt": T})
    firestore.document("boards/b1/posts/p1").set(POST)
    firestore.document("boards/b1/posts/p1/comments/c1").set(COMMENT)
    return firestore


def _apply_both(base, emulator, dsn, **changes: Any) -> dict[str, CollectionResult]:
    """A dry run and an apply, which must count the same; returns the apply's reports."""
    said = dry_run(base.project, emulator, dsn, **changes)
    did = apply(base.project, emulator, dsn, **changes)
    assert {n: r["counts"] for n, r in did.items()} == {n: r["counts"] for n, r in said.items()}
    return did


REJECTED_POSTS = {
    "U+0000 in text": ({"title": "secret\x00secret"}, "nul_character: title (field title)"),
    "U+0000 in JSON": ({"contentJson": {"a": ["secret\x00"]}}, "nul_character: content_json (field contentJson)"),
    "U+0000 in a JSON key": ({"contentJson": {"a\x00": 1}}, "nul_character: content_json (field contentJson)"),
    "NaN in JSON": ({"contentJson": {"a": float("nan")}}, "not_finite: content_json (field contentJson)"),
    "an integer beyond int4": ({"weekDaysFromFirstDay": 2**31}, "out_of_range: week_days_from_first_day"),
    "a fraction for an integer": ({"weekDaysFromFirstDay": 1.5}, "wrong_type: week_days_from_first_day"),
    "a string for a timestamp": ({"updatedAt": "2026-02-01"}, "wrong_type: updated_at (field updatedAt) is a string"),
    "a timestamp for a string": ({"title": T}, "wrong_type: title (field title) is a timestamp"),
    "a map for a scalar": ({"title": {"ko": "secret"}}, "wrong_type: title (field title) is a map"),
    "an array for a scalar": ({"title": ["secret"]}, "wrong_type: title (field title) is an array"),
    "a number for a string": ({"title": 5}, "wrong_type: title (field title) is an integer"),
    "a geopoint in JSON": (
        {"contentJson": {"at": GeoPoint(1, 2)}},
        "not_json: content_json (field contentJson) holds a geopoint",
    ),
    "bytes in JSON": ({"contentJson": {"at": b"secret"}}, "not_json: content_json (field contentJson) holds bytes"),
    "a vector in JSON": (
        {"contentJson": {"at": Vector([1.0, 2.0])}},
        "not_json: content_json (field contentJson) holds a vector",
    ),
    "a timestamp in JSON": ({"contentJson": {"at": T}}, "not_json: content_json (field contentJson) holds a timestamp"),
    "no author": ({"authorId": None}, "missing_value: author_id is NOT NULL and field authorId is absent"),
    "an author that is no id": ({"authorId": "a/b"}, "not_an_id: author_id (field authorId)"),
    "a value outside a CHECK": ({"visibility": "friends"}, "CheckViolation 23514 (constraint posts_visibility_check)"),
}


@pytest.mark.parametrize("score", [float("inf"), float("nan"), "many"], ids=str)
def test_a_counter_that_no_column_can_hold_rejects_nothing(score, base, emulator, target_dsn):
    base.document("boards/b1/posts/odd").set({**POST, "engagementScore": score})
    found = _apply_both(base, emulator, target_dsn, collections=["posts"])["posts"]
    assert nonzero(found["counts"]) == {"missing": 2}


@pytest.mark.parametrize("case", REJECTED_POSTS)
def test_a_document_no_row_can_hold_is_rejected_with_the_reason(case, base, emulator, target_dsn, caplog):
    fields, reason = REJECTED_POSTS[case]
    base.document("boards/b1/posts/bad").set({**POST, **fields})
    caplog.set_level("DEBUG", logger="dualwrite")
    found = _apply_both(base, emulator, target_dsn, collections=["posts"])["posts"]
    assert nonzero(found["counts"]) == {"rejected": 1, "missing": 1}
    [sample] = found["samples"]["rejected"]
    assert sample["key"] == "bad"
    assert sample["reason"].startswith(reason)
    assert "secret" not in str(found), "a report holds no content"
    assert "secret" not in caplog.text, "a log holds no content"
    assert one(target_dsn, "SELECT count(*) FROM posts") == 1, "the good neighbour is written"


def test_a_reference_in_json_is_rejected(base, emulator, target_dsn):
    base.document("boards/b1/posts/bad").set({**POST, "contentJson": {"to": base.document("users/u1")}})
    found = _apply_both(base, emulator, target_dsn, collections=["posts"])["posts"]
    assert found["samples"]["rejected"][0]["reason"].startswith(
        "not_json: content_json (field contentJson) holds a reference"
    )


def test_a_reaction_without_user_id_is_rejected(base, emulator, target_dsn):
    base.document("boards/b1/posts/p1/comments/c1/reactions/r").set(
        {"content": "👍", "reactionUser": {}, "createdAt": T}
    )
    found = _apply_both(base, emulator, target_dsn, collections=["reactions"])["reactions"]
    assert found["samples"]["rejected"][0]["reason"] == (
        "missing_value: user_id is NOT NULL and field reactionUser.userId is absent"
    )


def test_a_notification_of_a_refused_type_is_rejected(base, emulator, target_dsn):
    base.document("users/u1/notifications/n").set(
        {"type": "other", "postId": "p1", "boardId": "b1", "fromUserId": "u2", "timestamp": T}
    )
    found = _apply_both(base, emulator, target_dsn, collections=["notifications"])["notifications"]
    assert found["samples"]["rejected"][0]["reason"] == "CheckViolation 23514 (constraint notifications_type_check)"


@pytest.mark.parametrize("page_size", [1, 4, 5000])
def test_good_rows_among_pages_of_bad_ones_are_written(base, emulator, target_dsn, page_size):
    """A page of bad rows alone ends too."""
    for i in range(12):
        wrong = {"visibility": "friends"} if i % 2 else {"title": 5}
        base.document(f"boards/b1/posts/bad{i:02}").set({**POST, **wrong, "createdAt": T + timedelta(seconds=i)})
    base.document("boards/b1/posts/zgood").set({**POST, "createdAt": T + timedelta(hours=1)})
    found = _apply_both(base, emulator, target_dsn, collections=["posts"], page_size=page_size)["posts"]
    assert nonzero(found["counts"]) == {"rejected": 12, "missing": 2}
    assert one(target_dsn, "SELECT array_agg(id ORDER BY id) FROM posts") == ["p1", "zgood"]


def test_what_only_postgres_can_see_is_bisected_to_the_bad_row(base, emulator, target_dsn):
    """A CHECK over a column that the catalog doesn't declare can't be evaluated on the stage."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE comments ADD CHECK (count_of_replies = 0 AND content <> 'bad')")
    for i in range(40):
        base.document(f"boards/b1/posts/p1/comments/x{i:02}").set(
            {**COMMENT, "content": "bad" if i in (3, 17) else "good"}
        )
    found = _apply_both(base, emulator, target_dsn, collections=["comments"])["comments"]
    assert nonzero(found["counts"]) == {"rejected": 2, "missing": 39}
    assert {s["key"] for s in found["samples"]["rejected"]} == {"x03", "x17"}
    assert {s["reason"] for s in found["samples"]["rejected"]} == {"CheckViolation 23514 (constraint comments_check)"}


AWKWARD_IDS = [
    "it's",
    'say "hi"',
    "a\nb",
    "a\tb",
    "tab\x01",
    "%s",
    "{x}",
    "백",
    "é" * 750,
    " ",
    "..a",
    "'; DROP TABLE posts; --",
]


def test_awkward_ids_are_just_ids(base, emulator, target_dsn):
    """Quotes, newlines, control characters, and 1500 bytes."""
    for name in AWKWARD_IDS:
        base.document(f"boards/b1/posts/{name}").set(POST)
        base.document(f"boards/b1/posts/{name}/comments/of {name[:200]}").set(COMMENT)
    found = _apply_both(base, emulator, target_dsn, collections=["posts", "comments"])
    assert nonzero(found["posts"]["counts"]) == {"missing": 1 + len(AWKWARD_IDS)}
    assert nonzero(found["comments"]["counts"]) == {"missing": 1 + len(AWKWARD_IDS)}
    again = apply(base.project, emulator, target_dsn, collections=["posts", "comments"])
    assert again["posts"]["counts"]["matching"] == 1 + len(AWKWARD_IDS)
    with gap_run(base.project, emulator, target_dsn, collections=["posts", "comments"]) as run:
        assert verify_all(run)["comments"]["verification"] == "verified"
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE comments SET content = 'other'")
    mended = apply(base.project, emulator, target_dsn, collections=["posts", "comments"], scope="all")
    assert mended["comments"]["updated"] == 1 + len(AWKWARD_IDS)


def test_an_absent_created_at_is_always_the_servers_create_time(base, emulator, target_dsn):
    base.document("users/u3").set({"updatedAt": T})
    apply(base.project, emulator, target_dsn, collections=["users"])
    created = base.document("users/u3").get().create_time
    stored = one(target_dsn, "SELECT created_at FROM users WHERE id = 'u3'")
    assert stored == created.replace(microsecond=created.microsecond // 1000 * 1000)
    again = apply(base.project, emulator, target_dsn, collections=["users"])
    assert again["users"]["counts"]["matching"] == 3


def test_a_stand_in_is_never_compared(base, emulator, target_dsn):
    """The app writes created_at = NOW() for a document without createdAt: no difference, because the document says
    nothing."""
    base.document("users/u3").set({"updatedAt": T})
    apply(base.project, emulator, target_dsn, collections=["users"])
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE users SET created_at = now() WHERE id = 'u3'")
    assert dry_run(base.project, emulator, target_dsn, collections=["users"])["users"]["counts"]["stale"] == 0


def test_timestamps_compare_at_milliseconds_cut_off(base, emulator, target_dsn):
    apply(base.project, emulator, target_dsn, collections=["posts"])
    assert one(target_dsn, "SELECT created_at FROM posts") == T.replace(microsecond=123000)
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE posts SET created_at = created_at + interval '999 microseconds'")
        assert dry_run(base.project, emulator, target_dsn, collections=["posts"])["posts"]["counts"]["stale"] == 0
        connection.commit()
    assert dry_run(base.project, emulator, target_dsn, collections=["posts"])["posts"]["counts"]["stale"] == 0
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE posts SET created_at = created_at + interval '1 microsecond'")
    assert dry_run(base.project, emulator, target_dsn, collections=["posts"])["posts"]["counts"]["stale"] == 1


@pytest.mark.parametrize("page_size", [1, 5000])
def test_of_two_documents_on_one_unique_key_one_is_written(base, emulator, target_dsn, page_size):
    for i, name in enumerate(("zz", "aa")):  # zz is the older, by both clocks
        base.document(f"boards/b1/posts/p1/likes/{name}").set({"userId": "u1", "createdAt": T + timedelta(seconds=i)})
    found = _apply_both(base, emulator, target_dsn, collections=["likes"], page_size=page_size)["likes"]
    assert nonzero(found["counts"]) == {"missing": 1, "duplicate": 1}
    assert one(target_dsn, "SELECT id FROM likes") == "zz"


def test_a_unique_key_of_a_rejected_document_goes_to_the_next(base, emulator, target_dsn):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE likes ADD CHECK (user_name <> 'bad')")
    base.document("boards/b1/posts/p1/likes/l1").set({"userId": "u1", "userName": "bad", "createdAt": T})
    base.document("boards/b1/posts/p1/likes/l2").set({"userId": "u1", "userName": "good", "createdAt": T})
    found = _apply_both(base, emulator, target_dsn, collections=["likes"])["likes"]
    assert nonzero(found["counts"]) == {"rejected": 1, "missing": 1}
    assert one(target_dsn, "SELECT id FROM likes") == "l2"


def test_an_extra_row_that_blocks_a_unique_key_is_named(base, emulator, target_dsn):
    base.document("boards/b1/posts/p1/likes/l1").set({"userId": "u1", "createdAt": T})
    apply(base.project, emulator, target_dsn, collections=["likes"])
    base.document("boards/b1/posts/p1/likes/l1").delete()
    base.document("boards/b1/posts/p1/likes/l2").set({"userId": "u1", "createdAt": T})
    found = _apply_both(base, emulator, target_dsn, collections=["likes"])["likes"]
    assert found["samples"]["missing"][0]["reason"] == "unique_key_held_by_extra_row"
    with gap_run(base.project, emulator, target_dsn, collections=["likes"]) as run:
        checked = verify_all(run, ["likes"])["likes"]
    assert checked["verification"] == "not_verified"
    assert nonzero(checked["counts"]) == {"missing": 1, "extra": 1}


def test_two_documents_of_one_id_are_one_row_and_a_duplicate(base, emulator, target_dsn):
    """They lie on different paths."""
    base.document("boards/b2").set({"title": "b", "createdAt": T})
    apply(base.project, emulator, target_dsn, collections=["posts"])
    base.document("boards/b2/posts/p1").set({**POST, "title": "other"})
    found = _apply_both(base, emulator, target_dsn, collections=["posts"])["posts"]
    assert nonzero(found["counts"]) == {"matching": 1, "duplicate": 1}
    assert one(target_dsn, "SELECT board_id FROM posts") == "b1"
    base.document("boards/b1/posts/p1").delete()  # moved, not copied
    found = _apply_both(base, emulator, target_dsn, collections=["posts"])["posts"]
    assert nonzero(found["counts"]) == {"stale": 1}
    assert one(target_dsn, "SELECT board_id FROM posts") == "b2"


def test_orphans_at_each_depth(base, emulator, target_dsn):
    gone = "boards/b1/posts/gone"
    base.document(f"{gone}/comments/c").set(COMMENT)
    base.document(f"{gone}/comments/c/replies/r").set(COMMENT)
    base.document(f"{gone}/comments/c/replies/r/reactions/x").set(
        {"content": "👍", "reactionUser": {"userId": "u1"}, "createdAt": T}
    )
    base.document(f"{gone}/comments/c/reactions/y").set(
        {"content": "👍", "reactionUser": {"userId": "u1"}, "createdAt": T}
    )
    base.document(f"{gone}/likes/l").set({"userId": "u1", "createdAt": T})
    base.document("users/gone/blockedUsers/u1").set({"blockedAt": T})
    base.document("users/u1/blockedUsers/gone").set({"blockedAt": T})
    base.document("boards/gone/posts/p").set(POST)
    base.document("boards/gone/posts/p/comments/c").set(COMMENT)
    base.document("boards/b1/posts/p1/comments/by-gone").set({**COMMENT, "userId": "gone"})
    found = _apply_both(base, emulator, target_dsn)
    orphans = {n: r["counts"]["orphan"] for n, r in found.items() if r["counts"]["orphan"]}
    assert orphans == {"posts": 1, "comments": 3, "replies": 1, "reactions": 2, "likes": 1, "blocks": 2}
    with gap_run(base.project, emulator, target_dsn) as run:
        assert {r["verification"] for r in verify_all(run).values()} == {"verified"}


def test_a_child_of_a_rejected_document_is_rejected_too(base, emulator, target_dsn):
    base.document("boards/b1/posts/bad").set({**POST, "visibility": "friends"})
    base.document("boards/b1/posts/bad/comments/c2").set(COMMENT)
    found = _apply_both(base, emulator, target_dsn)
    assert found["comments"]["samples"]["rejected"][0]["reason"] == "parent_rejected"


def test_strays_are_counted_and_not_examined(base, emulator, target_dsn):
    base.document("archive/2025/comments/c1").set(COMMENT)
    base.document("boards/b1/comments/c1").set(COMMENT)
    found = _apply_both(base, emulator, target_dsn, collections=["comments"])["comments"]
    assert (found["stray"], found["examined"], found["documents_read"]) == (2, 1, 3)


def test_a_document_of_a_mebibyte_is_written(base, emulator, target_dsn):
    big = "가" * 340_000
    base.document("boards/b1/posts/big").set({**POST, "content": big})
    apply(base.project, emulator, target_dsn, collections=["posts"])
    assert one(target_dsn, "SELECT length(content) FROM posts WHERE id = 'big'") == 340_000


def test_an_empty_collection_is_examined_and_verified(base, emulator, target_dsn):
    found = _apply_both(base, emulator, target_dsn, collections=["blocks"])["blocks"]
    assert (found["outcome"], found["examined"]) == ("examined", 0)
    with gap_run(base.project, emulator, target_dsn, collections=["blocks"]) as run:
        assert verify_all(run, ["blocks"])["blocks"]["verification"] == "verified"


def test_entries_of_maps_and_arrays_are_judged_one_by_one(base, emulator, target_dsn):
    base.document("boards/b2").set({"title": "b", "createdAt": T})
    base.document("users/u1").update(
        {"boardPermissions": {"b1": "write", "b2": "admin", "gone": "read", "a/b": "read"}}
    )
    base.document("users/u2").update({"boardPermissions": "all"})
    base.document("boards/b1").update({"waitingUsersIds": ["u1", "u1", "gone", 5]})
    found = _apply_both(base, emulator, target_dsn, collections=["user_board_permissions", "board_waiting_users"])
    assert nonzero(found["user_board_permissions"]["counts"]) == {"missing": 1, "rejected": 3, "orphan": 1}
    assert nonzero(found["board_waiting_users"]["counts"]) == {"missing": 1, "rejected": 1, "orphan": 1}
    base.document("users/u1").update({"boardPermissions": {"b2": "read"}})
    last = dry_run(base.project, emulator, target_dsn, collections=["user_board_permissions"])["user_board_permissions"]
    assert nonzero(last["counts"]) == {"missing": 1, "extra": 1, "rejected": 1}
    assert last["samples"]["extra"][0]["key"] == "u1/b1"


def test_a_stale_notification_is_updated_its_duplicate_is_left(base, emulator, target_dsn):
    fields = {
        "type": "like_on_post",
        "postId": "p1",
        "boardId": "b1",
        "fromUserId": "u2",
        "message": "m",
        "read": False,
    }
    for i in (1, 2):
        base.document(f"users/u1/notifications/n{i}").set({**fields, "timestamp": T + timedelta(seconds=i)})
    found = _apply_both(base, emulator, target_dsn, collections=["notifications"])["notifications"]
    assert nonzero(found["counts"]) == {"missing": 1, "duplicate": 1}
    base.document("users/u1/notifications/n1").update({"read": True})
    for scope in ("window", "all"):
        with psycopg.connect(target_dsn) as connection:
            connection.execute("UPDATE notifications SET read = false")
        found = _apply_both(base, emulator, target_dsn, collections=["notifications"], scope=scope)["notifications"]
        assert nonzero(found["counts"]) == {"stale": 1, "duplicate": 1}
        assert found["updated"] == 1
        assert one(target_dsn, "SELECT read FROM notifications") is True
