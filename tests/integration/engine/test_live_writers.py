"""The backfill beside clients that write to both sides, and killed at any moment."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dev import seed
from dualwrite.catalog import CATALOG
from dualwrite.runs import backfill
from tests.killing import killed_at_work
from tests.support import DEFAULTS, apply, examine_all, gap_run, one, table_bytes, verify_all

T = datetime(2026, 2, 1, tzinfo=UTC)
POST = {"title": "t", "content": "c", "authorId": "u1", "authorName": "n", "createdAt": T}


@pytest.fixture
def base(firestore):
    firestore.document("boards/b1").set({"title": "b", "createdAt": T})
    firestore.document("users/u1").set({"updatedAt": T, "createdAt": T})
    for i in range(5):
        firestore.document(f"boards/b1/posts/p{i}").set(POST)
    return firestore


def _before(monkeypatch, run: backfill.Run, method: str, action) -> None:
    """Lets a client act once, at the last moment before a write of ours. The databases are real; only when is chosen."""
    original = getattr(run.target, method)
    acted = []

    def acting(*args, **kwargs):
        if not acted:
            acted.append(True)
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(run.target, method, acting)


def test_a_document_deleted_before_its_insert_leaves_no_row(base, emulator, target_dsn, monkeypatch):
    """It was there when we read it."""
    with gap_run(base.project, emulator, target_dsn, collections=["posts"]) as run:
        examine_all(run, dry=False, names=["boards", "users"])
        _before(monkeypatch, run, "insert", lambda: base.document("boards/b1/posts/p3").delete())
        found = backfill.examine(run, "posts", dry=False)
    assert one(target_dsn, "SELECT array_agg(id ORDER BY id) FROM posts") == ["p0", "p1", "p2", "p4"]
    assert found["deleted"] == 1
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_a_document_edited_before_its_insert_is_written_as_it_is(base, emulator, target_dsn, monkeypatch):
    """It was another when we read it."""
    with gap_run(base.project, emulator, target_dsn, collections=["posts"]) as run:
        examine_all(run, dry=False, names=["boards", "users"])
        _before(monkeypatch, run, "insert", lambda: base.document("boards/b1/posts/p3").update({"title": "new"}))
        backfill.examine(run, "posts", dry=False)
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p3'") == "new"


def test_a_row_that_a_client_inserted_first_is_not_overwritten(base, emulator, target_dsn, monkeypatch):
    """1. we read p3; 2. a client edits p3, then inserts its row; 3. we insert: nothing happens; 4. looked at again."""

    def client() -> None:
        base.document("boards/b1/posts/p3").update({"title": "newer"})
        with psycopg.connect(target_dsn) as connection:
            connection.execute(
                "INSERT INTO posts (id, board_id, author_id, author_name, title, content, created_at, updated_at) "
                "VALUES ('p3', 'b1', 'u1', 'n', 'newer', 'c', %s, %s)",
                (T, T),
            )

    with gap_run(base.project, emulator, target_dsn, collections=["posts"]) as run:
        examine_all(run, dry=False, names=["boards", "users"])
        _before(monkeypatch, run, "compare_staged", client)
        backfill.examine(run, "posts", dry=False)
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p3'") == "newer"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE key = 'p3'") == 0


def test_a_newer_row_is_not_overwritten_by_a_stale_reading(base, emulator, target_dsn, monkeypatch):
    """Between our reading and our update a client edits the document and its row: xmin refuses our update."""
    apply(base.project, emulator, target_dsn, collections=["posts"])
    base.document("boards/b1/posts/p1").update({"title": "edit 1"})

    def client() -> None:
        base.document("boards/b1/posts/p1").update({"title": "edit 2"})
        with psycopg.connect(target_dsn) as connection:
            connection.execute("UPDATE posts SET title = 'edit 2' WHERE id = 'p1'")

    with gap_run(base.project, emulator, target_dsn, collections=["posts"]) as run:
        _before(monkeypatch, run, "update", client)
        backfill.examine(run, "posts", dry=False)
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "edit 2"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'update'") == 0


def test_a_document_edited_before_our_update_is_written_as_it_is(base, emulator, target_dsn, monkeypatch):
    """1. we read p1; 2. a client edits its document, whose row it never writes; 3. we update the row; 4. only a look at
    the document after the write tells that the row is older than it."""
    apply(base.project, emulator, target_dsn, collections=["posts"])
    base.document("boards/b1/posts/p1").update({"title": "edit 1"})
    with gap_run(base.project, emulator, target_dsn, collections=["posts"]) as run:
        _before(monkeypatch, run, "update", lambda: base.document("boards/b1/posts/p1").update({"title": "edit 2"}))
        backfill.examine(run, "posts", dry=False)
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "edit 2"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'update'") == 2
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_a_row_that_a_client_updates_while_we_wait_is_left_alone(base, emulator, target_dsn, monkeypatch):
    """The client holds the row's lock when our UPDATE arrives: Postgres checks our condition again on the new version."""
    apply(base.project, emulator, target_dsn, collections=["posts"])
    base.document("boards/b1/posts/p1").update({"title": "edit 1"})
    client = psycopg.connect(target_dsn)

    def begin() -> None:
        base.document("boards/b1/posts/p1").update({"title": "edit 2"})
        client.execute("UPDATE posts SET title = 'edit 2' WHERE id = 'p1'")
        threading.Timer(0.5, client.commit).start()

    with gap_run(base.project, emulator, target_dsn, collections=["posts"]) as run:
        _before(monkeypatch, run, "update", begin)
        backfill.examine(run, "posts", dry=False)
    client.close()
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "edit 2"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'update'") == 0


def test_an_insert_taken_back_leaves_rows_that_reference_it(base, emulator, target_dsn, monkeypatch):
    """Our post's document vanished, but a client's comment row hangs on the row: deleting would cascade."""

    def client() -> None:
        base.document("boards/b1/posts/p3").delete()
        with psycopg.connect(target_dsn) as connection:
            connection.execute("INSERT INTO comments (id, post_id, user_id, content) VALUES ('c', 'p3', 'u1', 'x')")

    with gap_run(base.project, emulator, target_dsn, collections=["posts"]) as run:
        examine_all(run, dry=False, names=["boards", "users"])
        _before(monkeypatch, run, "untouched", client)
        _before(monkeypatch, run, "insert", lambda: base.document("boards/b1/posts/p3").delete())
        backfill.examine(run, "posts", dry=False)
    assert one(target_dsn, "SELECT count(*) FROM comments") == 1


@pytest.mark.parametrize("number", range(3))
def test_killed_at_any_moment_and_run_again_ends_as_a_clean_run(
    number, firestore, emulator, target_dsn, postgres_server
):
    rng = random.Random(number)
    world = seed.small(seed=number)
    world.load_source(firestore)
    with psycopg.connect(target_dsn) as connection:
        world.load_target(connection)
    killed_at_work(apply, firestore.project, emulator, target_dsn, page_size=5, moments=rng, within=(0.01, 0.6))
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        left = verify_all(run)
    for name, found in left.items():
        assert {v for v, n in found["counts"].items() if n} <= {"matching", "orphan", "duplicate", "rejected"}, name
        assert (
            found["counts"]["matching"]
            == world.over_all[name]["matching"] + world.over_all[name]["missing"] + (world.over_all[name]["stale"])
        ), name
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_a_journal_left_unconfirmed_is_finished_by_the_next_run(base, emulator, target_dsn, monkeypatch):
    """Killed after the commit and before the confirmation; meanwhile one document was deleted and one edited."""
    with gap_run(base.project, emulator, target_dsn, collections=["posts"], run_id="killed") as run:
        examine_all(run, dry=False, names=["boards", "users"])
        monkeypatch.setattr(
            "dualwrite.engine.compare_and_set.WritingProtocol.collect_confirmations", lambda self, wait: None
        )
        monkeypatch.setattr("dualwrite.engine.compare_and_set.WritingProtocol.finish_journal", lambda self: 0)
        backfill.examine(run, "posts", dry=False)
    monkeypatch.undo()
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 5
    base.document("boards/b1/posts/p0").delete()
    base.document("boards/b1/posts/p1").update({"title": "edited"})
    apply(base.project, emulator, target_dsn, collections=["posts"], until=(T - timedelta(days=10)).isoformat())
    assert one(target_dsn, "SELECT array_agg(id ORDER BY id) FROM posts") == ["p1", "p2", "p3", "p4"]
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "edited"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_beside_busy_clients_the_last_run_ends_with_both_equal(base, emulator, target_dsn):
    """Clients create, edit and delete in their own order (document, then row) while the backfill runs again and again."""
    apply(base.project, emulator, target_dsn, collections=["posts", "comments"])
    stop, numbers, failures = threading.Event(), iter(range(10**6)), []

    def client(number: int) -> None:
        rng = random.Random(number)
        alive: list[str] = []
        try:
            with psycopg.connect(target_dsn, autocommit=True) as connection:
                while not stop.is_set():
                    action = rng.random()
                    if action < 0.5 or not alive:
                        name = f"c{number}-{next(numbers)}"
                        base.document(f"boards/b1/posts/p{rng.randrange(5)}/comments/{name}").set(
                            {"content": "a", "userId": "u1", "createdAt": datetime.now(UTC)}
                        )
                        alive.append(name)
                        if rng.random() < 0.5:  # half of them never get their row from the client
                            continue
                        path = next(d.reference.path for d in _find(base, name))
                        connection.execute(
                            "INSERT INTO comments (id, post_id, user_id, content) VALUES (%s, %s, 'u1', 'a') ON CONFLICT DO NOTHING",
                            (name, path.split("/")[3]),
                        )
                    elif action < 0.8:
                        name, text = rng.choice(alive), str(rng.random())
                        for found in _find(base, name):
                            found.reference.update({"content": text})
                        connection.execute("UPDATE comments SET content = %s WHERE id = %s", (text, name))
                    else:
                        name = alive.pop(rng.randrange(len(alive)))
                        for found in _find(base, name):
                            found.reference.delete()
                        connection.execute("DELETE FROM comments WHERE id = %s", (name,))
        except Exception as error:  # noqa: BLE001 - a thread's error is shown by the test
            failures.append(error)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        apply(base.project, emulator, target_dsn, collections=["comments"], page_size=20, scope="all")
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    # An insert of ours whose document was deleted before the client knew of the row is taken back when it is
    # confirmed; an edit that only reached the document is stale and found by reading everything.
    apply(base.project, emulator, target_dsn, collections=["comments"], scope="all")
    documents = {d.id: d.get("content") for d in base.collection_group("comments").stream()}
    with psycopg.connect(target_dsn) as connection:
        rows = dict(connection.execute("SELECT id, content FROM comments").fetchall())
    assert rows == documents
    assert len(documents) > 20


def _find(base, name: str):
    return [d for p in range(5) if (d := base.document(f"boards/b1/posts/p{p}/comments/{name}").get()).exists]


def test_a_run_through_all_collections_writes_no_row_again(base, emulator, target_dsn):
    apply(base.project, emulator, target_dsn)
    before = table_bytes(target_dsn)
    for scope in ("window", "all"):
        apply(base.project, emulator, target_dsn, scope=scope)
    assert table_bytes(target_dsn) == before
    assert set(DEFAULTS["collections"]) == set(CATALOG.names)
