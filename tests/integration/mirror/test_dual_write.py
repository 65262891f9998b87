"""The dual-write helper on a real Postgres: the app's order, never in the caller's way, and the engine's own mapping."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualwrite import alerts, dual_write, postgres
from dualwrite.catalog import CATALOG
from dualwrite.dual_write import DualWriter, Outcome, Write
from dualwrite.model.change import Name
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Row, map_document
from dualwrite.postgres.target import Target
from tests.integration.mirror.test_round_trip import documents
from tests.integration.mirrored import insert_ancestors
from tests.proxy import proxy
from tests.support import one

T = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)
POST = {"title": "t", "content": "c", "authorId": "u1", "authorName": "n", "createdAt": T, "updatedAt": T}


@pytest.fixture
def told(monkeypatch) -> list[dict]:
    """What Sentry is told, taken at the edge."""
    found: list[dict] = []
    monkeypatch.setattr(alerts, "write_failed", lambda text, **tags: found.append({"text": text, **tags}))
    return found


@pytest.fixture
def writer(target_dsn):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u1'), ('u2')")
        connection.execute("INSERT INTO boards (id, title) VALUES ('b1', 'b')")
    writer = DualWriter(lambda: postgres.connect(target_dsn))
    yield writer
    writer.close()


def _operations(dsn: str) -> list[str]:
    """Op ids without their time."""
    with psycopg.connect(dsn) as connection:
        return [
            r[0].rsplit(":", 1)[0] for r in connection.execute("SELECT op_id FROM write_ops ORDER BY created_at, op_id")
        ]


def test_each_of_the_ten_domains_is_created_updated_and_deleted(writer, target_dsn, told):
    fields = {
        "users/u3": ({"nickname": "a", "createdAt": T, "boardPermissions": {"b1": "read"}}, {"nickname": "b", "createdAt": T, "boardPermissions": {"b1": "write"}}),
        "boards/b1/posts/p1": (POST, {**POST, "title": "new"}),
        "boards/b1/posts/p1/comments/c1": ({"content": "c", "userId": "u1", "createdAt": T}, {"content": "d", "userId": "u1", "createdAt": T}),
        "boards/b1/posts/p1/comments/c1/replies/r1": ({"content": "c", "userId": "u1", "createdAt": T}, {"content": "d", "userId": "u1", "createdAt": T}),
        "boards/b1/posts/p1/likes/l1": ({"userId": "u1", "createdAt": T}, {"userId": "u1", "userName": "n", "createdAt": T}),
        "boards/b1/posts/p1/comments/c1/reactions/x1": ({"content": "👍", "reactionUser": {"userId": "u1"}, "createdAt": T}, {"content": "🎉", "reactionUser": {"userId": "u1"}, "createdAt": T}),
        "boards/b1/posts/p1/comments/c1/replies/r1/reactions/x2": ({"content": "👍", "reactionUser": {"userId": "u1"}, "createdAt": T}, {"content": "🎉", "reactionUser": {"userId": "u1"}, "createdAt": T}),
        "users/u1/drafts/d1": ({"boardId": "b1", "title": "t", "savedAt": T}, {"boardId": "b1", "title": "s", "savedAt": T}),
        "boards/b1/reviews/u1": ({"keep": "k", "createdAt": T}, {"keep": "l", "createdAt": T}),
        "boards/b1": ({"title": "b", "createdAt": T, "waitingUsersIds": ["u1"]}, {"title": "b", "createdAt": T, "waitingUsersIds": ["u2"]}),
        "users/u1/notifications/n1": ({"type": "like_on_post", "postId": "p1", "fromUserId": "u2", "message": "m", "timestamp": T}, {"type": "like_on_post", "postId": "p1", "fromUserId": "u2", "message": "m", "timestamp": T, "read": True}),
        "users/u1/blockedUsers/u2": ({"blockedAt": T}, {"blockedAt": datetime(2026, 3, 1, tzinfo=UTC)}),
    }  # fmt: skip
    writer.siblings = lambda question: []  # of a notification
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:

        def matches(path: str, document: dict | None) -> bool:
            """Whether every row that the mapping makes of the document is there and equal, and no other of its keys."""
            for collection in CATALOG:
                if collection.match(path) is None or not collection.operations or document is None:
                    continue
                rows = [u for u in map_document(collection, Document(path, document, T, T)) or [] if isinstance(u, Row)]
                with target.transaction() as connection:
                    if target.compare(connection, collection, rows).differences:
                        return False
            return True

        for path, (first, second) in fields.items():
            assert writer.mirror(path, None, first, create_time=T) is Outcome.WRITTEN, (path, told)
            assert matches(path, first), path
            assert writer.mirror(path, first, second, create_time=T) is Outcome.WRITTEN, (path, told)
            assert matches(path, second), path
        assert one(target_dsn, "SELECT array_agg(user_id) FROM board_waiting_users") == ["u2"]
        assert one(target_dsn, "SELECT permission FROM user_board_permissions WHERE user_id = 'u3'") == "write"
        for path, (_, second) in reversed(fields.items()):
            if path != "boards/b1":
                assert writer.mirror(path, second, None, create_time=T) is Outcome.WRITTEN, (path, told)
        writer.mirror("boards/b1", fields["boards/b1"][1], {"title": "b", "createdAt": T}, create_time=T)
        left = "SELECT " + " + ".join(
            f"(SELECT count(*) FROM {c.table})" for c in CATALOG if c.name not in ("users", "boards")
        )
        assert one(target_dsn, left) == 0
    assert told == []
    operations = _operations(target_dsn)
    for entity_id in ("post:create:p1", "reaction:update:x2", "review:delete:u1", "notification:update:n1", "block:create:u1_u2",
                      "user:update:u3", "board_waiting_users:create:b1_u2", "board_waiting_users:delete:b1_u1"):  # fmt: skip
        assert entity_id in operations


@pytest.mark.parametrize("collection", [c for c in CATALOG if c.operations], ids=lambda c: c.name)
def test_what_mirror_writes_is_what_the_engine_calls_matching(collection, unparented_dsn):
    mirrored = 0
    with Target(lambda: postgres.connect(unparented_dsn), CATALOG) as target:
        writer = DualWriter(lambda: postgres.connect(unparented_dsn), timeout=30, siblings=lambda question: [])

        @settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
        @given(st.tuples(documents(collection), documents(collection)))
        def equal(pair):
            nonlocal mirrored
            with psycopg.connect(unparented_dsn, autocommit=True) as connection:
                connection.execute("TRUNCATE " + ", ".join({c.table for c in CATALOG}))
                insert_ancestors(connection, pair[0].path)
            before, after = pair[0], Document(pair[0].path, pair[1].fields, pair[0].create_time, pair[0].update_time)
            units = map_document(collection, after) or []
            rows = [u for u in units if isinstance(u, Row)]
            first = writer.mirror(before.path, None, before.fields, create_time=before.create_time)
            second = writer.mirror(after.path, before.fields, after.fields, create_time=after.create_time)
            if Outcome.FAILED in (first, second):  # a CHECK refuses it
                return
            with target.transaction() as connection:
                assert target.compare(connection, collection, rows).differences == []
            if len(rows) < len(units):  # what is rejected keeps the row that it has: test_mirror.py
                assert second in (Outcome.PARTLY, Outcome.REFUSED)
                return
            assert target.count(collection) == len({r.key for r in rows})
            mirrored += len(rows)
            writer.mirror(after.path, after.fields, None, create_time=after.create_time)
            assert target.count(collection) == 0

        try:
            equal()
        finally:
            writer.close()
    assert mirrored > 5, "a property of nothing proves nothing"


def test_the_lock_comes_before_the_row_and_stays_when_that_fails(writer, target_dsn, told):
    outcome = writer.mirror(
        "boards/b1/posts/p1/comments/c1", None, {"content": "c", "userId": "nobody", "createdAt": T}
    )
    assert outcome is Outcome.FAILED
    assert _operations(target_dsn) == ["comment:create:c1"]
    assert (
        told
        == [
            {
                "text": "failed: ForeignKeyViolation 23503 (constraint comments_post_id_fkey)",
                "entity_type": "comment",
                "operation_type": "create",
                "entity_id": "c1",
                "operations": 1,
            }
        ]
        or "comments_user_id_fkey" in told[0]["text"]
    )


def test_two_writes_of_one_entity_in_a_millisecond_are_both_made(writer, target_dsn, monkeypatch):
    """The op id is the entity's, and the time is all that tells two writes of it apart: the second takes the next one."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_768_512_345_678_000_000)
    written = []
    for n in (1, 2, 3):
        assert (
            writer.dual_write(
                entity_type="post",
                operation_type="update",
                entity_id="p1",
                supabase_write=lambda c, n=n: written.append(n),
            )
            is Outcome.WRITTEN
        )
    assert written == [1, 2, 3]
    assert one(target_dsn, "SELECT array_agg(op_id ORDER BY op_id) FROM write_ops") == [
        f"post:update:p1:176851234567{n}" for n in (8, 9)
    ] + ["post:update:p1:1768512345680"]


def test_two_writes_of_one_entity_in_one_batch_are_both_made(writer, target_dsn):
    written = []
    batch = [Write("post", "update", "p1", lambda c, n=n: written.append(n)) for n in (1, 2, 3)]
    assert writer.dual_write_batch(batch) is Outcome.WRITTEN
    assert written == [1, 2, 3]
    assert _operations(target_dsn) == ["post:update:p1"] * 3


def test_a_lock_that_nobody_gives_is_told_and_nothing_is_written(writer, target_dsn, told):
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION try_acquire_write_lock(p_op_id text) RETURNS boolean LANGUAGE sql AS 'SELECT false'"
        )
    assert writer.mirror("boards/b1/posts/p1", None, POST, create_time=T) is Outcome.FAILED
    assert [t["text"] for t in told] == ["failed: LocksTaken"]
    assert one(target_dsn, "SELECT count(*) FROM posts") == 0


def test_a_batch_is_all_or_nothing(writer, target_dsn, told):
    def block(connection):
        connection.execute("INSERT INTO blocks (blocker_id, blocked_id) VALUES ('u1', 'u2')")

    def fails(connection):
        connection.execute("INSERT INTO blocks (blocker_id, blocked_id) VALUES ('u1', 'nobody')")

    writes = [Write("block", "create", "u1_u2", block), Write("block", "create", "u1_nobody", fails)]
    assert writer.dual_write_batch(writes) is Outcome.FAILED
    assert one(target_dsn, "SELECT count(*) FROM blocks") == 0
    assert writer.dual_write_batch(writes[:1]) is Outcome.WRITTEN
    assert one(target_dsn, "SELECT count(*) FROM blocks") == 1
    assert [(t["entity_id"], t["operations"]) for t in told] == [("u1_u2", 2)], "one event"


def _catches(connection):
    with contextlib.suppress(psycopg.Error):
        connection.execute("INSERT INTO blocks (blocker_id, blocked_id) VALUES ('u1', 'u2'), ('u1', 'u2')")


def _catches_in_a_savepoint(connection):
    with contextlib.suppress(psycopg.Error), connection.transaction():
        connection.execute("INSERT INTO blocks (blocker_id, blocked_id) VALUES ('u1', 'u2'), ('u1', 'u2')")


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (_catches, "failed: InFailedSqlTransaction 25P02"),
        (lambda c: c.execute("ROLLBACK"), "failed: NoActiveSqlTransaction 25P01"),
        (lambda c: c.commit(), "failed: NoActiveSqlTransaction 25P01"),
    ],
    ids=["catches an error", "rolls back", "commits"],
)
def test_a_write_that_ends_its_transaction_is_not_called_written(writer, target_dsn, told, last, text):
    """Of a transaction in which a statement failed, Postgres takes a COMMIT for a ROLLBACK: the batch is lost."""
    writes = [
        Write("user", "update", "u1", lambda c: c.execute("UPDATE users SET bio = 'b' WHERE id = 'u1'")),
        Write("block", "create", "u1_u2", last),
    ]
    assert writer.dual_write_batch(writes) is Outcome.FAILED
    assert [t["text"] for t in told] == [text]
    told.clear()
    assert writer.dual_write_batch([writes[0], Write("block", "create", "u1_u2", _catches_in_a_savepoint)]) is (
        Outcome.WRITTEN
    )
    assert one(target_dsn, "SELECT bio FROM users WHERE id = 'u1'") == "b"
    assert told == []


def test_a_commit_that_is_refused_is_not_called_written(writer, target_dsn, told):
    """A constraint that is checked at COMMIT."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE posts ALTER CONSTRAINT posts_author_id_fkey DEFERRABLE INITIALLY DEFERRED")
    assert writer.mirror("boards/b1/posts/p1", None, {**POST, "authorId": "nobody"}, create_time=T) is Outcome.FAILED
    assert [t["text"] for t in told] == ["failed: ForeignKeyViolation 23503 (constraint posts_author_id_fkey)"]


def test_a_row_that_a_trigger_skips_is_not_called_written(writer, target_dsn, told):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        connection.execute("CREATE TRIGGER skip BEFORE INSERT ON posts FOR EACH ROW EXECUTE FUNCTION skip()")
    assert writer.mirror("boards/b1/posts/p1", None, POST, create_time=T) is Outcome.REFUSED
    assert len(told) == 1


def test_a_process_with_more_than_1024_open_files_loses_no_write(writer, target_dsn, told):
    """select() refuses a descriptor from 1,024 on; a busy server has such."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with contextlib.ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while opened.enter_context(open("/dev/null")).fileno() < 1100:
            pass
        outcomes = [writer.mirror(f"boards/b1/posts/p{n}", None, POST, create_time=T) for n in range(6)]
        writer.close()
    assert outcomes == [Outcome.WRITTEN] * 6
    assert told == []


FORKS = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from dualwrite import dual_write, postgres
from dualwrite.dual_write import Write

dual_write.configure(lambda: postgres.connect(sys.argv[1]))
pids = set()

def write(n):
    def does(connection):
        pids.add(connection.info.backend_pid)
        connection.execute("SELECT pg_sleep(0.1)")
    return str(dual_write.dual_write(entity_type="post", operation_type="update", entity_id=f"p{n}", supabase_write=does))

def burst(who):
    pids.clear()
    with ThreadPoolExecutor(8) as callers:
        outcomes = sorted(set(callers.map(write, range(8))))
    print(who, *outcomes, *sorted(pids), flush=True)

burst("parent")
for _ in range(2):
    if not os.fork():
        burst("child")
        if not os.fork():
            burst("grandchild")
            os._exit(0)
        os.wait()
        dual_write._configured().close()
        sys.exit(0)  # as a worker ends: what it inherited is collected
    os.wait()
burst("parent")
"""


def test_forked_workers_use_their_own_threads_and_connections(target_dsn):
    """gunicorn --preload, uWSGI, Celery: the application is loaded, and has written, before its workers are forked."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKS, target_dsn], capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(dual_write.__file__).parents[1])},
    )  # fmt: skip
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert [line[0] for line in lines] == ["parent", *["child", "grandchild"] * 2, "parent"]
    assert {outcome for line in lines for outcome in line[1:] if not outcome.isdigit()} == {"written"}
    backends = [{pid for pid in line if pid.isdigit()} for line in lines]
    assert backends[0] == backends[-1], "the parent's connections live on"
    assert len(set.union(*backends[:-1])) == sum(map(len, backends[:-1])), "none is shared"


def test_a_failure_is_not_raised_and_tells_nothing_private(writer, told):
    def fails(connection):
        raise ValueError("the secret content of a document")

    def inserts(connection):
        connection.execute("INSERT INTO posts (id) VALUES ('the secret content of a document')")

    for write in (fails, inserts):
        assert (
            writer.dual_write(entity_type="post", operation_type="create", entity_id="p1", supabase_write=write)
            is Outcome.FAILED
        )
    assert len(told) == 2
    assert "secret" not in str(told)


def test_the_flag_off_writes_nothing_and_connects_to_nothing(told):
    def connect():
        raise AssertionError("connected")

    writer = DualWriter(connect, enabled=lambda: False)
    assert writer.mirror("boards/b1/posts/p1", None, POST) is Outcome.OFF
    assert told == []


def test_an_absent_flag_means_on(monkeypatch):
    monkeypatch.delenv(dual_write.FLAG, raising=False)
    assert dual_write.is_enabled()
    monkeypatch.setenv(dual_write.FLAG, "false")
    assert not dual_write.is_enabled()


def test_a_caller_waits_no_longer_than_the_timeout(writer, target_dsn, told):
    """A client holds the row: the write would wait. The caller goes on, and the write never happens later."""
    writer.mirror("boards/b1/posts/p1", None, POST, create_time=T)
    writer.timeout = 0.5
    with psycopg.connect(target_dsn) as holder:
        holder.execute("SELECT FROM posts WHERE id = 'p1' FOR UPDATE")
        began = time.monotonic()
        outcome = writer.mirror("boards/b1/posts/p1", POST, {**POST, "title": "late"}, create_time=T)
        assert time.monotonic() - began < 1.5
        assert outcome in (Outcome.TIMED_OUT, Outcome.FAILED)
    time.sleep(1)
    assert one(target_dsn, "SELECT title FROM posts") == "t"
    assert told


def test_a_connection_that_the_server_ended_costs_no_write(writer, target_dsn, told):
    assert writer.mirror("boards/b1/posts/p1", None, POST, create_time=T) is Outcome.WRITTEN
    with psycopg.connect(target_dsn, autocommit=True) as admin:
        admin.execute(  # and waits until it is gone: killed in the middle of a write is another story
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'dualwrite'"
        )
    outcomes = [writer.mirror(f"boards/b1/posts/q{i}", None, POST, create_time=T) for i in range(5)]
    assert outcomes == [Outcome.WRITTEN] * 5
    assert told == []


@pytest.fixture
def hole(target_dsn):
    """A proxy in front of Postgres, open."""
    server = psycopg.conninfo.conninfo_to_dict(target_dsn)
    with proxy(str(server["host"]), int(server["port"])) as made:
        yield made


@pytest.fixture
def behind_the_hole(writer, hole, target_dsn):
    """A writer whose connections go through the proxy."""
    dsn = f"postgresql://postgres@127.0.0.1:{hole.port}/{target_dsn.rsplit('/', 1)[1]}"
    made = DualWriter(lambda: postgres.connect(dsn, connect_timeout=2), timeout=0.5)
    yield made
    made.close()


def test_after_an_outage_timed_out_writes_lose_none_of_the_next(behind_the_hole, hole, told, target_dsn):
    """A pooler that answers nothing; a burst of writes, each of which times out; then the pooler answers again."""
    assert behind_the_hole.mirror("boards/b1/posts/p0", None, POST, create_time=T) is Outcome.WRITTEN
    hole.mute()
    with ThreadPoolExecutor(40) as callers:
        lost = list(
            callers.map(
                lambda i: behind_the_hole.mirror(f"boards/b1/posts/lost{i}", None, POST, create_time=T), range(40)
            )
        )
    assert set(lost) <= {Outcome.TIMED_OUT, Outcome.FAILED}
    time.sleep(2.5)  # connect_timeout: what a thread may still be held by
    hole.resume()
    outcomes = [behind_the_hole.mirror(f"boards/b1/posts/p{i}", None, POST, create_time=T) for i in range(1, 21)]
    assert outcomes == [Outcome.WRITTEN] * 20
    time.sleep(1)
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id LIKE 'lost%%'") == 0, "nothing is done late"


def test_a_write_whose_caller_has_gone_on_does_not_even_connect(told):
    connected = []

    def connect():
        connected.append(1)
        time.sleep(0.5)
        raise RuntimeError

    writer = DualWriter(connect, timeout=0.2)
    with ThreadPoolExecutor(20) as callers:
        write = {"entity_type": "post", "operation_type": "create", "entity_id": "p", "supabase_write": lambda c: None}
        outcomes = list(callers.map(lambda _: writer.dual_write(**write), range(20)))
    writer.close()
    assert outcomes == [Outcome.TIMED_OUT] * 20
    assert len(connected) == 4, "one for each thread; the other sixteen were dropped"


def test_statements_that_outlast_the_caller_are_not_committed(writer, target_dsn, told):
    """Each of them is quick, and so is each pause, so the server sees nothing to end: only our own clock tells."""
    writer.mirror("boards/b1/posts/p1", None, POST, create_time=T)
    writer.timeout = 1.0
    ended = threading.Event()

    def write(connection):
        try:
            for title in ("late 1", "late 2", "late 3"):
                connection.execute("UPDATE posts SET title = %s WHERE id = 'p1'", (title,))
                time.sleep(0.4)
        finally:
            ended.set()

    outcome = writer.dual_write(entity_type="post", operation_type="update", entity_id="p1", supabase_write=write)
    assert outcome is Outcome.TIMED_OUT
    assert ended.wait(5)
    writer.close()
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "t"


def test_a_write_that_begins_after_its_caller_left_is_dropped(told, target_dsn):
    """It is queued behind others when the caller is told, and can't be cancelled: it began in that very moment."""
    connected = []
    writer = DualWriter(lambda: connected.append(1) or postgres.connect(target_dsn))
    begun_late = time.monotonic() - 0.001
    with pytest.raises(TimeoutError):
        writer._attempt([Name("post", "create", "p1")], lambda *given: (), begun_late)
    assert connected == []
    assert one(target_dsn, "SELECT count(*) FROM write_ops") == 0


def test_a_frozen_process_keeps_its_row_lock_a_second_at_most(writer, target_dsn, told):
    """Cloud Functions stop the process once it has answered. The second begins with the timeout."""
    writer.mirror("boards/b1/posts/p1", None, POST, create_time=T)
    writer.timeout = 1.0
    frozen = threading.Event()

    def write(connection):
        connection.execute("UPDATE posts SET title = 'late' WHERE id = 'p1'")
        frozen.wait(20)

    began = time.monotonic()
    outcome = writer.dual_write(entity_type="post", operation_type="update", entity_id="p1", supabase_write=write)
    assert outcome is Outcome.TIMED_OUT
    with psycopg.connect(target_dsn) as client:
        client.execute("SET statement_timeout = '3s'")
        client.execute("UPDATE posts SET title = 'a client' WHERE id = 'p1'")
    assert time.monotonic() - began < 1.0 + 1.5
    frozen.set()
    writer.close()
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "a client"


def test_an_id_cannot_write_lines_of_its_own_into_the_log(writer, told, caplog):
    def fails(connection):
        raise ValueError

    evil = "p1\nERROR all is lost\r\x1b[31m\u2028\u202e한"
    writer.dual_write(entity_type="post", operation_type="create", entity_id=evil, supabase_write=fails)
    writer.mirror(f"boards/b1/posts/{evil}", None, {**POST, "title": ["not", "text"]}, create_time=T)
    [line] = [r.getMessage() for r in caplog.records if r.name == "dualwrite.dual_write"]
    assert line == r"dual-write post:create:p1\nERROR all is lost\r\x1b[31m\u2028\u202e한 failed"
    assert all(str(text).isprintable() for call in told for text in call.values())
    assert len(told) == 2


def test_the_module_speaks_for_one_writer_a_process(writer, target_dsn):
    dual_write.configure(lambda: postgres.connect(target_dsn))
    assert dual_write.mirror("boards/b1/posts/p9", None, POST, create_time=T) is Outcome.WRITTEN
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p9'") == 1
    dual_write._configured().close()
