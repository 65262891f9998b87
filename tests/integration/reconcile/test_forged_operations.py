"""Anybody with the app's key may write any operation, row and document: none may blind, crash or bill a run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import op_log
from dualwrite.engine.op_log import LONGEST, activity, causes, named, seen_of
from dualwrite.model.verdicts import Finding, Verdict, Why
from dualwrite.model.windows import Window
from tests.integration.reconcile.world import attempted, create, execute, now
from tests.support import one
from tests.worlds import post

HOUR = timedelta(hours=1)
NOBODY = seen_of((), ())
POSTS = CATALOG["posts"]


def forge(
    dsn: str, number: int, op_id: str = "'user:update:nobody' || n || ':1768512345678'", at: str = "now()"
) -> None:
    execute(dsn, f"INSERT INTO write_ops (op_id, created_at) SELECT {op_id}, {at} FROM generate_series(1, {number}) n")


@pytest.fixture
def connection(target_dsn):
    with postgres.connect(target_dsn) as connection:
        yield connection


def line(found, name: str) -> dict:
    [collection] = [c for c in found.report["collections"] if c["collection"] == name]
    return collection


def test_an_op_id_that_is_too_long_is_malformed_and_never_read(connection, target_dsn):
    """A thousand ids of 190 kB took 1.4 GB and ended the look in every run."""
    forge(target_dsn, 50, op_id=f"'post:update:' || n || repeat('x', {LONGEST}) || ':1'")
    forge(target_dsn, 1, op_id="'post:update:p1:1'")
    window = Window(now() - HOUR, now() + HOUR)
    assert activity(connection, ["post"], window.start, window.end).malformed == 50
    with postgres.transaction(connection):
        assert named(connection, POSTS, window, NOBODY).entities == (("post", "p1"),)
    finding = Finding(Verdict.STALE, "p1", "boards/b1/posts/p1", key=("p1",), document_time=now())
    cause = causes(connection, POSTS, [finding])["p1"]
    assert cause.op_id == "post:update:p1:1"


@pytest.mark.parametrize("op_id", ["post:update:p1:1\n", "post:update:p1:١", ":update:p1:1", "post:update::1", "p1"])
def test_what_is_malformed_is_so_in_every_statement(connection, target_dsn, op_id):
    execute(target_dsn, "INSERT INTO write_ops (op_id) VALUES (%s)", op_id)
    window = Window(now() - HOUR, now() + HOUR)
    found = activity(connection, ["post"], window.start, window.end)
    assert (found.total, found.malformed, found.by_entity) == (1, 1, {})
    with postgres.transaction(connection):
        assert named(connection, POSTS, window, NOBODY).entities == ()


def test_what_is_held_of_operations_is_bounded_by_bytes(connection, target_dsn):
    forge(target_dsn, 100, op_id="'post:update:' || lpad(n::text, 96, 'p') || ':1'")
    with postgres.transaction(connection):
        found = named(connection, POSTS, Window(now() - HOUR, now()), NOBODY, most_bytes=1000)
    assert (len(found.entities), found.left_out) == (10, 90)


def test_many_operations_of_one_key_are_read_as_one(connection, target_dsn, monkeypatch):
    forge(target_dsn, 1000, op_id="'post:update:p1:' || n")
    made = []
    operation = op_log.Operation
    monkeypatch.setattr(op_log, "Operation", lambda *parts: made.append(parts) or operation(*parts))
    cause = causes(connection, POSTS, [Finding(Verdict.MISSING, "p1", "boards/b1/posts/p1", key=("p1",))])["p1"]
    assert cause.why is Why.ATTEMPTED_FAILED
    assert len(made) == 1


@pytest.mark.parametrize("at", ["'infinity'", "'-infinity'", "'2999-01-01'", "'4000-01-01 BC'", "'200000-01-01'"])
def test_an_operation_of_another_time_costs_no_look(world, target_dsn, run, at):
    """Dated 2999 it was billed in every run; dated infinity the collection wasn't examined at all."""
    before = run().report["billed_reads"]
    forge(target_dsn, 50, at=at)
    create(world, target_dsn)
    attempted(target_dsn, "post:create:new")
    found = run()
    assert found.counts("posts") == {"missing": 1}
    assert not [c for c in found.report["collections"] if c["not_examined"]]
    assert found.report["billed_reads"] <= before + 10


def test_forged_operations_bill_no_more_than_the_limit(world, target_dsn, run):
    """20,000 of them billed 40,107 reads in one run."""
    quiet = run().report["billed_reads"]
    forge(target_dsn, 200)
    found = run(max_operation_looks=20)
    assert found.report["billed_reads"] <= quiet + 3 * 20
    assert line(found, "users")["operations_left"] == 180
    assert line(found, "user_board_permissions")["operations_left"] == 180
    [alert] = [a for a in found.alerts if a.startswith("users:")]
    assert "180 keys that only write_ops names were not looked at" in alert
    assert "max_operation_looks = 20" in alert


def test_what_the_window_shows_is_not_among_the_limited(world, target_dsn, run):
    """A busy app's operations are mostly of documents that the window shows: they cost nothing and are no alarm."""
    create(world, target_dsn)
    for _ in range(10):
        attempted(target_dsn, "post:create:new")
    found = run(max_operation_looks=0)
    assert line(found, "posts")["operations_left"] == 0
    assert found.counts("posts") == {"missing": 1}
    assert one(target_dsn, "SELECT count(*) FROM write_ops") == 10


def test_a_forged_future_does_not_hide_why_a_row_is_missing(connection, target_dsn):
    execute(target_dsn, "INSERT INTO write_ops VALUES ('post:create:p1:1', now()), ('post:create:p1:2', 'infinity')")
    cause = causes(connection, POSTS, [Finding(Verdict.MISSING, "p1", "boards/b1/posts/p1", key=("p1",))])["p1"]
    assert cause.op_id == "post:create:p1:1"


# --- proofs -------------------------------------------------------------------------------------------------------------


def bogus(dsn: str, name: str) -> None:
    execute(dsn, f"INSERT INTO comments (id, post_id, user_id, content) VALUES ('{name}', 'p1', 'u1', 'c')")


def test_bogus_rows_cost_no_more_than_a_days_proofs(world, target_dsn, run):
    """Each made the next run read all names of its collection: $14.40 a day at max_proof_reads."""
    given = {"unattended": True, "max_proof_reads_a_day": 3, "max_swept_age_hours": 0, "max_examined_age_hours": 0}
    bogus(target_dsn, "bogus1")
    first = run(**given)
    assert (line(first, "comments")["proof_reads"], first.counts("comments")) == (2, {"extra": 1})
    bogus(target_dsn, "bogus2")
    second = run(**given)
    assert line(second, "comments")["proof_reads"] == 0, "one read is left of the day's three, and two are needed"
    [alert] = [a for a in second.alerts if a.startswith("comments:")]
    assert "1 of them (absence_not_proved)" in alert
    assert "max_proof_reads_a_day" in alert
    by_hand = run(max_proof_reads_a_day=3)
    assert line(by_hand, "comments")["proof_reads"] == 2, "a person's own run proves it"
    assert not [a for a in by_hand.alerts if "absence_not_proved" in a]
    assert line(run(**given), "comments")["proof_reads"] == 0, "what was proved is not proved again"


# --- documents that don't hold still ----------------------------------------------------------------------------------------


def test_a_document_that_moves_between_looks_is_drift_in_time(world, target_dsn, run):
    """It was never where it had been seen: absent at each second look, and closed."""
    world.document("boards/b2").set({"title": "b"})
    document = post(createdAt=now(), updatedAt=now())
    boards = ["b1", "b2"]

    def moves():
        boards.reverse()
        world.document(f"boards/{boards[0]}/posts/moved").set(document)
        world.document(f"boards/{boards[1]}/posts/moved").delete()

    moves()
    assert run(between=moves).counts("posts") == {"in_flight": 1}
    assert run(between=moves).counts("posts") == {"in_flight": 1}
    execute(target_dsn, "UPDATE dualwrite.open_differences SET first_seen = now() - interval '61 minutes'")
    assert run(between=moves).counts("posts") == {"missing": 1}
    assert run(repair="missing").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'moved'") == 1


def test_a_document_gone_at_its_second_look_ends_as_absent(world, target_dsn, run):
    create(world, target_dsn)
    gone = world.document("boards/b1/posts/new").delete
    assert run(between=gone).counts("posts") == {"in_flight": 1}
    assert run().counts("posts") == {"absent": 1}
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_what_keeps_changing_is_told_once_patience_has_ended(world, target_dsn, run):
    create(world, target_dsn)
    run(between=world.document("boards/b1/posts/new").delete)
    execute(
        target_dsn,
        "UPDATE dualwrite.open_differences SET reason = 'kept_changing', collection = 'likes', "
        "first_seen = now() - interval '61 minutes'",
    )
    [alert] = [a for a in run().alerts if a.startswith("likes")]
    assert "1 keys have kept changing while they were looked at" in alert


# --- orphans that are met in every run -----------------------------------------------------------------------------------------


def test_orphans_of_a_waiting_list_are_asked_for_once_a_day(world, target_dsn, run):
    """20,000 people who left cost 20,000 reads every 15 minutes: boards are read whole in each run."""
    world.document("boards/b1").update({"waitingUsersIds": ["u1", *(f"left{n}" for n in range(50))]})
    given = {"collections": ["boards", "users", "board_waiting_users"]}
    first, second = run(**given), run(**given)
    assert first.counts("board_waiting_users") == second.counts("board_waiting_users") == {"orphan": 50}
    reads = [line(found, "board_waiting_users")["billed_reads"] for found in (first, second)]
    assert reads[0] >= 50
    assert reads[1] <= 5
    swept = run(scope="sweep", **given)
    assert line(swept, "board_waiting_users")["billed_reads"] >= 50, "a sweep believes nobody"
    execute(target_dsn, "UPDATE dualwrite.gone_documents SET asked_at = now() - interval '25 hours'")
    assert line(run(**given), "board_waiting_users")["billed_reads"] >= 50


def test_a_required_document_that_came_back_with_its_row_is_seen(world, target_dsn, run):
    world.document("boards/b1").update({"waitingUsersIds": ["u1", "left"]})
    assert run().counts("board_waiting_users") == {"orphan": 1}
    world.document("users/left").set({"nickname": "left", "createdAt": now(), "updatedAt": now()})
    execute(target_dsn, "INSERT INTO users (id, nickname) VALUES ('left', 'left')")
    assert run().counts("board_waiting_users") == {"missing": 1}
