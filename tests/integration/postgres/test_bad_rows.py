"""One bad row or element concerns itself alone: its neighbours are compared, written and verified as ever."""

from __future__ import annotations

import re

import psycopg
import pytest

from dualwrite.runs import backfill
from tests.support import dry_run, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import LONG_AGO, club, comment, like, notification, post, put, user


def _execute(dsn: str, statement: str, *parameters) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement, parameters or None)


def test_a_bad_array_element_leaves_its_neighbours_alone(firestore, emulator, target_dsn):
    club(firestore, emulator, target_dsn)
    firestore.document("boards/b1").update({"waitingUsersIds": [None, "u1", "u3"]})
    _execute(target_dsn, "INSERT INTO board_waiting_users (board_id, user_id) VALUES ('b1', 'u2')")
    found = reconciled(firestore.project, emulator, target_dsn, repair="all", max_share=100)
    assert found.counts("board_waiting_users") == {"rejected": 1, "missing": 2, "extra": 1}
    assert found.sample("board_waiting_users", "rejected")["key"] == "b1/waitingUsersIds[0]"
    assert one(target_dsn, "SELECT array_agg(user_id ORDER BY user_id) FROM board_waiting_users") == ["u1", "u3"]


def test_an_element_that_left_during_its_insert_keeps_no_row(firestore, emulator, target_dsn, monkeypatch):
    """Also beside a bad element of its list."""
    club(firestore, emulator, target_dsn)
    firestore.document("boards/b1").update({"waitingUsersIds": [7, "u1", "u3"]})
    with gap_run(firestore.project, emulator, target_dsn, collections=["board_waiting_users"], scope="all") as run:
        original, acted = run.target.insert, []

        def insert(*arguments, **named):
            if not acted:
                acted.append(firestore.document("boards/b1").update({"waitingUsersIds": [7, "u1"]}))
            return original(*arguments, **named)

        monkeypatch.setattr(run.target, "insert", insert)
        backfill.examine(run, "board_waiting_users", dry=False)
    assert one(target_dsn, "SELECT array_agg(user_id) FROM board_waiting_users") == ["u1"]


def test_what_is_no_id_is_told_by_its_place_and_never_quoted(firestore, emulator, target_dsn):
    """An element of 6,000 characters, too: it is no id, and no index could hold it."""
    club(firestore, emulator, target_dsn)
    secret = "전화 010-1234-5678 / " + "x" * 6000
    firestore.document("boards/b1").update({"waitingUsersIds": ["u1", secret]})
    firestore.document("users/u1").update({"boardPermissions": {"b1": "read", secret[:200]: "write"}})
    for _ in range(2):
        found = reconciled(firestore.project, emulator, target_dsn, scope="sweep")
        assert not re.search("010-1234", str(found.report) + str(found.alerts))
        assert found.sample("board_waiting_users", "rejected")["key"] == "b1/waitingUsersIds[1]"
        assert found.sample("user_board_permissions", "rejected")["key"].startswith("u1/boardPermissions[")
    with psycopg.connect(target_dsn) as connection:
        kept = connection.execute("SELECT o::text FROM dualwrite.open_differences o").fetchall()
    assert kept
    assert "010-1234" not in str(kept)


def test_keys_of_two_long_ids_are_kept_open_and_can_be_excused(firestore, emulator, target_dsn):
    club(firestore, emulator, target_dsn)
    long = "가" * 500
    put(firestore, {
        f"users/{long}": user("l"), f"boards/{long}": {"title": "t", "createdAt": LONG_AGO},
        f"boards/{long}/reviews/{long}": {"keep": "k", "createdAt": LONG_AGO},
    })  # fmt: skip
    for _ in range(2):
        found = reconciled(firestore.project, emulator, target_dsn, scope="sweep", collections=["reviews"])
        assert found.counts("reviews") == {"missing": 1}
    [(label,)] = _rows(target_dsn, "SELECT key FROM dualwrite.open_differences WHERE collection = 'reviews'")
    assert len(label.encode()) <= 400
    excused = reconciled(
        firestore.project,
        emulator,
        target_dsn,
        collections=["reviews"],
        excuse=[f"reviews:{label}"],
        excuse_reason="long",
    )
    assert not [alert for alert in excused.alerts if alert.startswith("reviews")]


def _rows(dsn: str, query: str) -> list[tuple]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def test_extra_entries_are_counted_once(firestore, emulator, target_dsn):
    club(firestore, emulator, target_dsn)
    firestore.document("boards/b1").update({"waitingUsersIds": ["u1"]})
    _execute(
        target_dsn,
        "INSERT INTO board_waiting_users (board_id, user_id) VALUES ('b1', 'u1'), ('b1', 'u2'), ('b1', 'u3'), ('b2', 'u1')",
    )
    found = reconciled(firestore.project, emulator, target_dsn, scope="sweep", collections=["board_waiting_users"])
    [line] = found.report["collections"]
    assert line["examined"] == 4
    assert found.counts("board_waiting_users") == {"extra": 3}


def test_2000_extra_entries_beside_2000_take_linear_time(firestore, emulator, target_dsn):
    """Each entry's document is mapped once, however many of its entries are asked for."""
    import time

    club(firestore, emulator, target_dsn)
    _execute(target_dsn, "INSERT INTO users (id) SELECT 'w' || i FROM generate_series(1, 4000) i")
    _execute(
        target_dsn,
        "INSERT INTO board_waiting_users (board_id, user_id) SELECT 'b1', 'w' || i FROM generate_series(1, 4000) i",
    )
    firestore.document("boards/b1").update({"waitingUsersIds": [f"w{i}" for i in range(1, 2001)]})
    began = time.monotonic()
    with gap_run(firestore.project, emulator, target_dsn, collections=["board_waiting_users"], grace_seconds=0) as run:
        found = backfill.verify(run, "board_waiting_users", counts_only=False)
    assert nonzero(found["counts"]) == {"matching": 2000, "extra": 2000}
    assert time.monotonic() - began < 60, "it took 173 s when the document was mapped anew for each entry"


@pytest.mark.parametrize("kind", ["check", "trigger"])
def test_a_check_or_trigger_that_raises_spares_the_good_rows(kind, firestore, emulator, target_dsn):
    club(firestore, emulator, target_dsn)
    if kind == "check":
        _execute(
            target_dsn, "ALTER TABLE posts ADD CONSTRAINT digits CHECK (title !~ '^x' OR substr(title, 2)::int > 0)"
        )
    else:
        _execute(target_dsn, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
                 "IF NEW.title = 'xy' THEN RAISE EXCEPTION 'not %', NEW.title; END IF; RETURN NEW; END$$")  # fmt: skip
        _execute(target_dsn, "CREATE TRIGGER no BEFORE INSERT OR UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION no()")
    put(firestore, {f"boards/b1/posts/p{i}": post(title="xy" if i == 3 else "t") for i in range(6)})
    with gap_run(firestore.project, emulator, target_dsn, collections=["posts"], scope="all") as run:
        found = backfill.examine(run, "posts", dry=False)
    assert nonzero(found["counts"]) == {"missing": 5, "rejected": 1}
    assert one(target_dsn, "SELECT count(*) FROM posts") == 5


def test_all_phases_agree_on_a_stale_row_that_fails_a_check(firestore, emulator, target_dsn):
    """A dry run, an apply and a verification call it rejected."""
    club(firestore, emulator, target_dsn)
    firestore.document("users/u1").update({"recoveryStatus": "lost", "nickname": "new"})
    said = dry_run(firestore.project, emulator, target_dsn, scope="all")["users"]
    with gap_run(firestore.project, emulator, target_dsn, scope="all") as run:
        done = backfill.examine(run, "users", dry=False)
        left = verify_all(run, ["users"])["users"]
    for found in (said, done, left):
        assert found["counts"]["rejected"] == 1, found["phase"]
        assert found["counts"]["stale"] == 0, found["phase"]
    assert _rows(target_dsn, "SELECT collection, key, verdict FROM dualwrite.open_differences") == [
        ("users", "u1", "rejected")
    ]


def test_a_notification_whose_id_holds_a_nul_gets_its_row(firestore, emulator, target_dsn):
    """Its id is in no column; only the journal's path had no place for it."""
    club(firestore, emulator, target_dsn)
    put(firestore, {"users/u1/notifications/a\x00b": notification()})
    with gap_run(firestore.project, emulator, target_dsn, collections=["notifications"], scope="all") as run:
        assert nonzero(backfill.examine(run, "notifications", dry=True)["counts"]) == {"missing": 1}
        assert backfill.examine(run, "notifications", dry=False)["inserted"] == 1
        assert verify_all(run, ["notifications"])["notifications"]["verification"] == "verified"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_a_wrong_row_is_not_explained_by_another_documents_row(firestore, emulator, target_dsn):
    """l2's row says u3, its document u1, and l1 holds (post, u1): u3's like is in no document."""
    club(firestore, emulator, target_dsn, {
        "boards/b1/posts/p1": post(), "boards/b1/posts/p1/likes/l1": like(userId="u1"),
    })  # fmt: skip
    put(firestore, {"boards/b1/posts/p1/likes/l2": like(userId="u1")})
    _execute(target_dsn, "INSERT INTO likes (id, post_id, user_id, user_name, created_at) "
             "SELECT 'l2', post_id, 'u3', user_name, created_at FROM likes WHERE id = 'l1'")  # fmt: skip
    with gap_run(firestore.project, emulator, target_dsn, collections=["likes"], scope="all") as run:
        left = verify_all(run, ["likes"])["likes"]
    assert left["verification"] == "not_verified"
    assert left["samples"]["stale"][0]["reason"] == "unique_key_taken"
    found = reconciled(firestore.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100)
    assert found.counts("likes") == {"stale": 1}
    assert one(target_dsn, "SELECT count(*) FROM likes") == 2, "its document lives"


def test_a_row_is_missing_while_a_stale_row_holds_its_unique_key(firestore, emulator, target_dsn):
    """It is no duplicate."""
    club(firestore, emulator, target_dsn, {
        "boards/b1/posts/p1": post(), "boards/b1/posts/p1/likes/l1": like(userId="u1"),
    })  # fmt: skip
    firestore.document("boards/b1/posts/p1/likes/l1").update({"userId": "u2"})
    put(firestore, {"boards/b1/posts/p1/likes/l2": like(userId="u1")})
    said = dry_run(firestore.project, emulator, target_dsn, scope="all")["likes"]
    assert nonzero(said["counts"]) == {"stale": 1, "missing": 1}
    assert said["samples"]["missing"][0]["reason"] == "unique_key_held_by_stale_row"
    for _ in range(2):
        found = reconciled(firestore.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100)
    assert found.alerts == []
    assert _rows(target_dsn, "SELECT id, user_id FROM likes ORDER BY id") == [("l1", "u2"), ("l2", "u1")]


def test_a_comment_below_a_deleted_post_is_an_orphan(firestore, emulator, target_dsn):
    """To the backfill too, and while the post's row remains."""
    club(firestore, emulator, target_dsn, {"boards/b1/posts/p1": post()})
    firestore.document("boards/b1/posts/p1").delete()
    put(firestore, {"boards/b1/posts/p1/comments/c1": comment()})
    with gap_run(firestore.project, emulator, target_dsn, collections=["comments"], scope="all") as run:
        assert nonzero(backfill.examine(run, "comments", dry=False)["counts"]) == {"orphan": 1}
    assert one(target_dsn, "SELECT count(*) FROM comments") == 0


def test_stale_rows_of_shared_natural_keys_take_two_reads_each(firestore, emulator, target_dsn):
    club(firestore, emulator, target_dsn)
    names = [f"n{i}" for i in range(300)]
    put(firestore, {f"users/u1/notifications/{n}": notification(postId=n) for n in names})
    with gap_run(firestore.project, emulator, target_dsn, collections=["notifications"], scope="all") as run:
        backfill.examine(run, "notifications", dry=False)
    put(firestore, {f"users/u1/notifications/{n}": notification(postId=n, read=True) for n in names})
    with gap_run(firestore.project, emulator, target_dsn, collections=["notifications"], scope="all") as run:
        found = backfill.examine(run, "notifications", dry=False)
    assert found["updated"] == 300
    assert found["billed_reads"] - found["documents_read"] <= 2.1 * 300
    assert one(target_dsn, "SELECT count(*) FROM notifications WHERE read") == 300


def test_an_insert_of_a_large_page_holds_its_locks_briefly(firestore, emulator, target_dsn, monkeypatch):
    """A client's statement ends after 3 s. Whatever the page, each transaction that inserts is a short one."""
    from dualwrite.engine import compare

    monkeypatch.setattr(compare, "LOCKED_SECONDS", 0.02)
    monkeypatch.setattr(compare, "ROWS_AT_FIRST", 100)
    club(firestore, emulator, target_dsn, {"boards/b1/posts/p1": post()})
    for start in range(0, 3000, 500):
        put(firestore, {f"boards/b1/posts/p1/comments/c{i}": comment() for i in range(start, start + 500)})
    sizes = []
    with gap_run(
        firestore.project, emulator, target_dsn, collections=["comments"], scope="all", page_size=50_000
    ) as run:
        original = run.target.insert
        monkeypatch.setattr(run.target, "insert", lambda *a, **n: sizes.append(len(a[3])) or original(*a, **n))
        assert backfill.examine(run, "comments", dry=False)["inserted"] == 3000
    assert max(sizes) < 1000
    assert sum(sizes) == 3000
