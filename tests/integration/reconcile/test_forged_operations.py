"""Anybody with the app's key may write any operation: none may blind, crash or bill a run."""

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
    finding = Finding(Verdict.STALE, "p1", "boards/b1/posts/p1", document_time=now())
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
    cause = causes(connection, POSTS, [Finding(Verdict.MISSING, "p1", "boards/b1/posts/p1")])["p1"]
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
    cause = causes(connection, POSTS, [Finding(Verdict.MISSING, "p1", "boards/b1/posts/p1")])["p1"]
    assert cause.op_id == "post:create:p1:1"
