"""Collections side by side, one that fails beside its neighbours, and a retry that does again only what failed."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.model.errors import SourceError, TargetError
from dualwrite.runs import first_look, reconciliation, repair
from tests.integration.reconcile.world import busy, create, now
from tests.support import one, reconciliation_of
from tests.worlds import comment

FEW = ["boards", "users", "posts", "comments", "likes"]


@pytest.fixture
def run(run_all):
    """Of every collection: these tests are about whole runs."""
    return run_all


@pytest.fixture
def opened(world, emulator, target_dsn):
    with reconciliation_of(world.project, emulator, target_dsn, collections=FEW) as parts:
        yield parts


def test_a_few_collections_and_no_more_are_compared_side_by_side(opened, monkeypatch):
    """All of the first few must have begun before any may end."""
    together = threading.Barrier(reconciliation.SIDE_BY_SIDE, timeout=30)
    begun: list[str] = []

    def waits(run, name, sweep):
        begun.append(name)
        if len(begun) <= reconciliation.SIDE_BY_SIDE:
            assert len(begun) <= reconciliation.SIDE_BY_SIDE
            together.wait()
        return {"collection": name}

    monkeypatch.setattr(first_look, "compare", waits)
    found = reconciliation.compare(*opened)
    assert set(found.reports) == set(FEW)
    assert threading.active_count() < 50


def test_each_thread_has_connections_of_its_own(opened, monkeypatch):
    runs = []
    monkeypatch.setattr(first_look, "compare", lambda run, name, sweep: runs.append(run) or {"collection": name})
    reconciliation.compare(*opened)
    by_thread = {id(run.target): run for run in runs}
    assert len({id(run.source) for run in by_thread.values()}) == len(by_thread)


def test_one_that_fails_is_not_examined(world, target_dsn, run, monkeypatch):
    """It costs its neighbours nothing."""
    create(world, target_dsn)
    world.document("boards/b1/posts/p1/comments/new").set(comment(createdAt=now()))
    original = first_look.compare

    def fails(run, name, sweep):
        if name == "likes":
            raise SourceError("Firestore could not be read.")
        return original(run, name, sweep)

    monkeypatch.setattr(first_look, "compare", fails)
    found = run()
    assert found.alerts[0] == "likes was not examined: Firestore could not be read."
    assert found.counts("posts") == {"missing": 1}
    assert found.counts("comments") == {"missing": 1}


def test_a_retry_does_again_only_what_failed(opened, monkeypatch):
    tried: list[str] = []
    original = first_look.compare

    def fails_once(run, name, sweep):
        tried.append(name)
        if name == "posts" and tried.count("posts") == 1:
            raise SourceError("Firestore could not be read.")
        return original(run, name, sweep)

    monkeypatch.setattr(first_look, "compare", fails_once)
    kept: dict = {}
    finished = reconciliation.Finished(kept, kept.__setitem__)
    first = reconciliation.compare(*opened, finished=finished)
    assert set(first.errors) == {"posts"}
    second = reconciliation.compare(*opened, finished=finished)
    assert second.errors == {}
    assert set(second.reports) == set(FEW)
    assert sorted(tried) == sorted([*FEW, "posts"])


def test_one_that_hangs_is_not_examined(opened, monkeypatch):
    """The others' reports are kept. The time limit is reached as soon as these are there."""
    let_go, kept = threading.Event(), dict[str, object]()

    def hangs(run, name, sweep):
        if name == "users":
            let_go.wait(60)
        return {"collection": name}

    def clock() -> float:
        return time.monotonic() + (2 * reconciliation.COMPARE_SECONDS if len(kept) == len(FEW) - 1 else 0)

    monkeypatch.setattr(first_look, "compare", hangs)
    monkeypatch.setattr(reconciliation, "time", SimpleNamespace(monotonic=clock))
    found = reconciliation.compare(*opened, finished=reconciliation.Finished({}, kept.__setitem__))
    let_go.set()
    assert set(found.reports) == set(kept) == set(FEW) - {"users"}
    assert "It did not end within" in str(found.errors["users"])


def test_where_nothing_can_be_opened_every_collection_says_so(opened):
    plan, _ = opened

    def cannot():
        raise TargetError("Can't connect.")

    found = reconciliation.compare(plan, cannot)
    assert {name: str(error) for name, error in found.errors.items()} == dict.fromkeys(FEW, "Can't connect.")


def test_a_step_of_a_repair_that_fails_lets_the_others_go_on(world, target_dsn, run, monkeypatch):
    create(world, target_dsn)
    world.document("boards/b1/posts/p1/comments/new").set(comment(createdAt=now()))
    write = repair.write

    def fails(run, name):
        if name == "posts":
            raise TargetError("The connection was lost.")
        return write(run, name)

    monkeypatch.setattr(repair, "write", fails)
    found = run(repair="missing")
    assert found.alerts[0] == "posts was only partly repaired: step write.posts: The connection was lost."
    assert found.alerts[1].startswith("posts: 1 missing")
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'new'") == 1


def test_a_repeated_repair_reports_what_the_try_before_wrote(world, emulator, target_dsn, run, monkeypatch):
    busy(world, 2)
    world.document("boards/b1/posts/p1/comments/new").set(comment(createdAt=now()))
    run()
    write, failures = repair.write, iter([True])

    def fails_once(run, name):
        if name == "comments" and next(failures, False):
            raise TargetError("The connection was lost.")
        return write(run, name)

    monkeypatch.setattr(repair, "write", fails_once)
    with reconciliation_of(world.project, emulator, target_dsn, repair="missing") as (_, opened), opened() as again:
        kept: dict = {}
        finished = reconciliation.Finished(kept, kept.__setitem__)
        gate = repair.gate(again)
        first = reconciliation.repair_all(again, gate, finished)
        assert set(first.errors) == {"write.comments"}
        second = reconciliation.repair_all(again, repair.gate(again) | {"planned": gate["planned"]}, finished)
    assert second.errors == {}
    assert {name: part["inserted"] for name, part in second.reports.items() if name.startswith("write.")} == {
        "write.posts": 2,
        "write.comments": 1,
    }


def test_a_repair_deletes_children_and_writes_parents_first():
    planned = {
        name: {"insert": 1, "update": 0, "delete": 1, "unfinished": 0} for name in ("comments", "posts", "users")
    }
    steps = reconciliation.repair_order(CATALOG.names, planned)
    assert steps == [
        ("delete", "comments"), ("delete", "posts"), ("delete", "users"),
        ("write", "users"), ("write", "posts"), ("write", "comments"),
    ]  # fmt: skip


def test_a_quiet_run_asks_the_target_as_seldom_as_the_docs_say(run, monkeypatch):
    """A target may be an ocean away: each statement, BEGIN and COMMIT among them, is a round trip."""
    run(scope="sweep")
    run()
    asked: list[int] = []
    original = postgres.Connection.wait

    def wait(connection, *given, **named):
        asked.append(threading.get_ident())
        return original(connection, *given, **named)

    monkeypatch.setattr(postgres.Connection, "wait", wait)
    assert run().alerts == []
    assert 200 < len(asked) <= 282, "CHANGELOG.md says 276"
