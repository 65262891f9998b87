"""No wait without an end: black holes, terminated backends, servers that are down, on both sides."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL

from dev import processes
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore import failures, wire
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.documents import Document
from dualwrite.model.errors import SourceError
from dualwrite.model.mapping import map_document
from dualwrite.postgres import session as session_module
from dualwrite.postgres.target import Target
from dualwrite.runs import backfill
from tests.proxy import Proxy, proxy
from tests.support import one, params

T = datetime(2026, 2, 1, tzinfo=UTC)
LIMIT = 0.7
"""Seconds that a statement here may take to be answered."""


@pytest.fixture
def hole(target_dsn) -> Iterator[Proxy]:
    """A proxy in front of Postgres, open."""
    server = psycopg.conninfo.conninfo_to_dict(target_dsn)
    with proxy(str(server["host"]), int(server["port"])) as made:
        yield made


def _through(hole: Proxy, dsn: str) -> str:
    database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    return f"postgresql://postgres@127.0.0.1:{hole.port}/{database}"


@pytest.fixture
def connection(hole, target_dsn) -> Iterator[postgres.Connection]:
    with postgres.connect(_through(hole, target_dsn), answer_within=LIMIT) as made:
        yield made


@pytest.fixture
def people(target_dsn) -> None:
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "INSERT INTO public.users (id, created_at, updated_at) VALUES ('u1', %s, %s), ('u2', %s, %s)", [T] * 4
        )


def _ends(work, error=postgres.AnswerTimeout) -> None:
    """`work` ends in `error` soon after the limit."""
    began = time.monotonic()
    with pytest.raises(error):
        work()
    assert time.monotonic() - began < LIMIT + 2


# --- Postgres -------------------------------------------------------------------------------------------------------


def test_a_statement_that_a_silent_pooler_swallows_is_an_error(hole, connection):
    """Its connection is not used again."""
    assert connection.execute("SELECT 1").fetchall() == [(1,)]
    hole.mute()
    _ends(lambda: connection.execute("SELECT 2"))
    assert connection.closed
    hole.resume()
    with pytest.raises(psycopg.OperationalError, match="closed"):
        connection.execute("SELECT 3")


def test_unanswered_rows_sent_together_leave_nothing_behind(connection, monkeypatch, caplog):
    """What psycopg had begun ended whenever Python collected it, with a traceback in the log of whatever ran by then."""
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    def together() -> None:
        with connection.cursor() as cursor:
            cursor.executemany("SELECT pg_sleep(%s), length(%s::text)", [(LIMIT, "waits unread" * 10_000)] * 300)

    caplog.set_level("CRITICAL", "psycopg")  # its warning would be kept, and with that what it had begun
    _ends(together)
    gc.collect()
    assert seen == []


@pytest.mark.parametrize("when", ["begin", "statement", "copy", "commit"])
def test_each_part_of_a_transaction_ends_at_a_silent_pooler(hole, connection, people, target_dsn, when):
    def transaction() -> None:
        hole.mute() if when == "begin" else None
        with postgres.transaction(connection, statement_timeout="1s"):
            hole.mute() if when == "statement" else None
            connection.execute("UPDATE public.users SET bio = 'x'")
            hole.mute() if when == "copy" else None
            with connection.cursor() as cursor, cursor.copy("COPY public.write_ops (op_id) FROM STDIN") as copy:
                copy.write_row(["post:create:x:1"])
            hole.mute() if when == "commit" else None

    _ends(transaction)
    assert connection.closed


def test_a_statements_timeout_leaves_the_connection_alive(connection):
    with pytest.raises(psycopg.errors.QueryCanceled), postgres.transaction(connection, statement_timeout="100ms"):
        connection.execute("SELECT pg_sleep(5)")
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_transaction_may_have_a_limit_of_its_own(hole, connection):
    connection.answer_within = 60
    hole.mute()
    _ends(lambda: postgres.transaction(connection, answer_within=LIMIT).__enter__())
    assert connection.answer_within == 60


def test_a_transaction_has_its_settings_and_leaves_none_behind(connection):
    def settings() -> list[str]:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_read_only")
        return [connection.execute(f"SHOW {name}").fetchone()[0] for name in names]

    before = settings()
    with postgres.transaction(connection, statement_timeout="3s", lock_timeout="2s", idle_timeout="4s", read_only=True):
        assert settings() == ["3s", "2s", "4s", "on"]
    assert settings() == before == ["0", "0", "0", "off"]


def test_a_transaction_whose_block_raises_is_undone(connection, people):
    """One inside another is undone alone."""

    def deleted(name: str) -> None:
        with postgres.transaction(connection):
            connection.execute("DELETE FROM public.users WHERE id = %s", (name,))
            connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        deleted("u1")
    assert connection.execute("SELECT count(*) FROM public.users").fetchone() == (2,)
    with postgres.transaction(connection):
        connection.execute("DELETE FROM public.users WHERE id = 'u2'")
        with pytest.raises(psycopg.errors.DivisionByZero):
            deleted("u1")
    assert connection.execute("SELECT array_agg(id) FROM public.users").fetchone() == (["u1"],)


def test_a_connection_that_cannot_roll_back_is_closed(connection):
    """Its statement still runs, as after an alarm that Airflow raises in the middle."""

    def interrupted() -> None:
        with postgres.transaction(connection):
            connection.pgconn.send_query(b"SELECT pg_sleep(0.5)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert connection.closed


def test_a_server_that_accepts_and_says_nothing_is_an_error(hole, target_dsn):
    hole.mute()
    began = time.monotonic()
    with pytest.raises(postgres.ConnectError, match=f"127.0.0.1:{hole.port}.*timeout"):
        postgres.connect(_through(hole, target_dsn), connect_timeout=2)
    assert time.monotonic() - began < 4


def test_the_kernel_notices_a_network_that_swallows_packets(connection):
    assert connection.info.get_parameters()["tcp_user_timeout"] == "30000"


def test_a_backfill_fails_behind_a_pooler_that_falls_silent(hole, firestore, emulator, target_dsn, people, monkeypatch):
    """It doesn't hang."""
    monkeypatch.setattr(session_module, "RECONNECT_SECONDS", 3.0)
    firestore.document("users/u1").set({"createdAt": T, "updatedAt": T})
    dsn = _through(hole, target_dsn)
    with (
        Source(firestore.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(dsn, answer_within=LIMIT, connect_timeout=2), CATALOG) as target,
    ):
        run = backfill.Run(source, target, CATALOG, "run", params(collections=["users"], mode="dry_run"))
        backfill.preflight(run, by="test")
        hole.mute()
        began = time.monotonic()
        with pytest.raises(postgres.ConnectError):
            backfill.examine(run, "users", dry=True)
        assert time.monotonic() - began < 20


# --- connections that are lost -----------------------------------------------------------------------------------------


@pytest.fixture
def target(target_dsn, people) -> Iterator[Target]:
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as made:
        made.count(CATALOG["users"])
        yield made


def _terminate(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'dualwrite' AND datname = current_database()"
        ).fetchall()
    assert ended


USERS = CATALOG["users"]
KEYS = [("u1",), ("nobody",)]
READS = {
    "versions": lambda target: sorted(target.versions(USERS, KEYS)) == [("u1",)],
    "paths": lambda target: target.paths(USERS, KEYS) == {("u1",): ("users/u1",)},
    "count": lambda target: target.count(USERS) == 2,
    "keys": lambda target: list(target.keys(USERS)) == [[("u1",), ("u2",)]],
    "keys_where": lambda target: target.keys_where(USERS, "id", ["u2"]) == [("u2",)],
    "written_between": lambda target: len(target.written_between(USERS, T, datetime.now(UTC))) == 2,
}


@pytest.mark.parametrize("name", READS)
def test_a_read_whose_backend_is_gone_uses_a_new_connection(target, target_dsn, name):
    _terminate(target_dsn)
    assert READS[name](target)


def test_a_read_whose_backend_ends_in_the_middle_is_repeated(target):
    first = target.connection.info.backend_pid
    ends_the_first = SQL(
        "SELECT pg_backend_pid() FROM (SELECT CASE WHEN pg_backend_pid() = %(first)s THEN "
        "pg_terminate_backend(pg_backend_pid()) END) ended"
    ).format()
    [(answered,)] = target.fetch(ends_the_first, {"first": first})
    assert answered != first


@pytest.fixture
def waits(target, monkeypatch) -> list[int]:
    """Grows with each wait for an answer."""
    found: list[int] = []
    wait = postgres.Connection.wait
    monkeypatch.setattr(postgres.Connection, "wait", lambda self, *given: found.append(1) or wait(self, *given))
    return found


def test_a_read_with_its_own_settings_is_one_round_trip(target, waits):
    """It leaves no setting behind."""
    names = ("transaction_read_only", "lock_timeout", "statement_timeout")
    shown = ", ".join(f"current_setting('{name}')" for name in names)
    asked = SQL(f"SELECT {shown}, %(text)s::text, %(list)s::text[], %(time)s::timestamptz").format()
    values = {"text": "it's 100 % \\", "list": ['"', "\\'", "a,b", "é"], "time": T}
    target.connection.add_notice_handler(lambda told: pytest.fail(f"Postgres warns: {told.message_primary}"))
    assert target.fetch(asked, values) == [("on", "2s", "2min", *values.values())]
    assert len(waits) == 1
    assert target.connection.info.transaction_status == TransactionStatus.IDLE
    assert target.connection.execute(f"SELECT {shown}").fetchone() == ("off", "0", "0")


def test_a_read_may_take_its_timeout_and_no_longer(connection):
    """Though that is set in the same message."""
    slow = SQL("SELECT 1 FROM pg_sleep(%(seconds)s)").format()
    assert postgres.fetch(connection, slow, {"seconds": 0.3}, statement_timeout="500ms") == [(1,)]
    with pytest.raises(psycopg.errors.QueryCanceled):
        postgres.fetch(connection, slow, {"seconds": 5}, statement_timeout="100ms")
    assert postgres.fetch(connection, slow, {"seconds": 0}) == [(1,)], "the connection lives"


@pytest.mark.parametrize(
    ("name", "path", "fields"),
    [
        ("users", "users/u1", {}),
        ("posts", "boards/b1/posts/p1", {"title": "t", "authorId": "u1", "boardId": "b1"}),  # it has derived columns
    ],
)
def test_a_page_is_compared_in_seven_waits(target, waits, name, path, fields):
    """BEGIN, the stage, three of the COPY, both looks, COMMIT. What the columns are is asked once."""
    assert target.catalog is target.catalog
    waits.clear()
    rows = map_document(CATALOG[name], Document(path, {**fields, "createdAt": T, "updatedAt": T}, T, T))
    with target.transaction() as connection:
        compared = target.compare(connection, CATALOG[name], rows)
    assert [difference.exists for difference in compared.differences] == ([] if name == "users" else [False])
    assert len(waits) == 7


def test_a_read_writes_nothing(target):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        target.fetch(SQL("INSERT INTO public.write_ops (op_id) VALUES ('post:create:x:1')").format(), {})


def test_a_read_on_a_silent_connection_is_repeated_on_a_new_one(hole, target_dsn, people):
    with Target(lambda: postgres.connect(_through(hole, target_dsn), answer_within=LIMIT), CATALOG) as target:
        assert target.count(USERS) == 2
        hole.mute(new_ones=False)
        assert target.count(USERS) == 2


def test_a_write_begins_on_a_new_connection_if_the_old_one_ended(target, target_dsn):
    _terminate(target_dsn)
    with target.transaction() as connection:
        connection.execute("UPDATE public.users SET bio = 'new' WHERE id = 'u1'")
    assert one(target_dsn, "SELECT bio FROM public.users WHERE id = 'u1'") == "new"


@pytest.mark.parametrize("when", ["in the block", "at the commit"])
def test_a_write_that_has_begun_is_never_repeated(target, target_dsn, when):
    """Of a COMMIT whose answer is lost nobody knows whether it happened."""
    bodies = []

    def write() -> None:
        with target.transaction() as connection:
            bodies.append(connection.execute("INSERT INTO public.write_ops (op_id) VALUES ('post:create:x:1')"))
            _terminate(target_dsn)
            if when == "in the block":
                connection.execute("SELECT 1")

    with pytest.raises(postgres.Error):
        write()
    assert len(bodies) == 1
    assert one(target_dsn, "SELECT count(*) FROM public.write_ops") == 0


def test_a_server_that_is_down_for_a_moment_is_waited_for(target_dsn, people):
    server = psycopg.conninfo.conninfo_to_dict(target_dsn)
    port, made = processes.free_port(), []
    dsn = f"postgresql://postgres@127.0.0.1:{port}/{server['dbname']}"

    def up() -> None:
        made.append(Proxy(str(server["host"]), int(server["port"]), listen_on=("127.0.0.1", port)))

    threading.Timer(1.0, up).start()
    with Target(lambda: postgres.connect(dsn), CATALOG) as target:
        assert target.count(USERS) == 2
    made[0].close()


def test_a_server_that_stays_down_is_given_up(monkeypatch):
    monkeypatch.setattr(session_module, "RECONNECT_SECONDS", 1.0)
    target = Target(lambda: postgres.connect(f"postgresql://u@127.0.0.1:{processes.free_port()}/d"), CATALOG)
    began = time.monotonic()
    with pytest.raises(postgres.ConnectError, match="refused"):
        target.count(USERS)
    assert 0.5 < time.monotonic() - began < 8


def test_a_login_that_is_refused_is_not_tried_again(target_dsn):
    """Poolers ban an address that keeps trying a wrong password."""
    tries = []

    def connect() -> postgres.Connection:
        tries.append(1)
        return postgres.connect(target_dsn.replace("postgres@", "nobody@"))

    with pytest.raises(postgres.ConnectError, match='role "nobody" does not exist'):
        Target(connect, CATALOG).count(USERS)
    assert len(tries) == 1


# --- Firestore ------------------------------------------------------------------------------------------------------


COMMENTS = Scan("comments", ("content",))


@pytest.fixture
def stream(firestore, emulator) -> Iterator[Proxy]:
    """A proxy in front of the emulator, which holds 300 comments of 2 kB."""
    batch = firestore.batch()
    for i in range(300):
        batch.set(firestore.document(f"boards/b/posts/p/comments/c{i:03}"), {"content": "x" * 2000})
    batch.commit()
    host, port = emulator.split(":")
    with proxy(host, int(port)) as made:
        yield made


def test_a_silent_stream_ends_and_goes_on_where_it_was(stream, firestore, monkeypatch):
    monkeypatch.setattr(wire, "CALL_SECONDS", 1.5)
    stream.mute_after(200_000)
    threading.Timer(2.5, stream.resume).start()  # after the first call's deadline
    with Source(firestore.project, emulator_host=f"127.0.0.1:{stream.port}") as source:
        calls, original = [], source.wire.run_query
        monkeypatch.setattr(source.wire, "run_query", lambda *a, **k: calls.append(1) or original(*a, **k))
        paths = [d.path for page in source.pages(COMMENTS, 50) for d in page.documents]
    assert paths == [f"boards/b/posts/p/comments/c{i:03}" for i in range(300)]
    assert len(calls) > 1, "the silent call was ended and another one made"


def test_a_stream_that_stays_silent_becomes_an_error(stream, firestore, monkeypatch):
    monkeypatch.setattr(wire, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(failures, "PATIENCE_SECONDS", 1.0)
    stream.mute_after(200_000)
    began = time.monotonic()
    with (
        Source(firestore.project, emulator_host=f"127.0.0.1:{stream.port}") as source,
        pytest.raises(SourceError, match="reading comments ended in DEADLINE_EXCEEDED"),
    ):
        list(source.pages(COMMENTS, 50))
    assert time.monotonic() - began < 10


def test_a_read_is_tried_for_half_a_minute_before_it_gives_up(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(failures, "time", clock)
    with Source("p", emulator_host="127.0.0.1:1") as nobody, pytest.raises(SourceError, match="UNAVAILABLE"):
        nobody.count(COMMENTS)
    assert 30 <= clock.now < 40
