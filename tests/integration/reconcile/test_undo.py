"""Undo: what a run wrote is taken back by its journal, but for what somebody has written since."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any

import psycopg
import pytest

from dualwrite.edge.errors import without_content, worth_a_retry
from dualwrite.model.errors import ParameterError
from tests.durable import Kill, watched
from tests.integration.reconcile.world import edit_that_moves_none, execute, now
from tests.killing import killed_at_work
from tests.refusals import coded
from tests.support import apply, one, reconciled, rows_of
from tests.worlds import comment, post

TABLES = ("boards", "users", "posts", "comments")


def dump(dsn: str, tables: tuple[str, ...] = TABLES) -> dict[str, dict[str, Any]]:
    """Every row of these tables, whole, by id."""
    return {table: rows_of(dsn, table) for table in tables}


def _ruined(world, dsn: str) -> None:
    """One of each: two missing (one needs the other), two stale, and a post that is gone with its comment."""
    world.document("boards/b1/posts/new").set(post(createdAt=now(), updatedAt=now()))
    world.document("boards/b1/posts/new/comments/c").set(comment(createdAt=now()))
    edit_that_moves_none(world, dsn)
    execute(dsn, "UPDATE users SET nickname = 'other', bio = 'kept' WHERE id = 'u2'")
    world.document("boards/b1/posts/p2").delete()


def _repaired(world, dsn, run, **more: Any) -> dict[str, dict[str, Any]]:
    _ruined(world, dsn)
    run(scope="sweep")
    before = dump(dsn)
    run(repair="all", max_share=100, run_id="r1", **more)
    assert dump(dsn) != before
    return before


def test_an_undone_run_leaves_every_row_as_it_was(world, target_dsn, run):
    """Inserts, updates and deletes, a post with its comment in either direction among them."""
    before = _repaired(world, target_dsn, run)
    made = run(undo="r1", max_share=100, run_id="r2")
    assert dump(target_dsn) == before
    assert {n: made.report["undone"][n] for n in ("deleted", "updated", "inserted", "left")} == {
        "deleted": 2, "updated": 2, "inserted": 2, "left": {}
    }  # fmt: skip
    assert made.report["verdict"].startswith("Undone: 2 deleted, 2 updated, 2 inserted. Rows that differ")
    order = (
        "SELECT array_agg(action || ' ' || collection ORDER BY id) FROM dualwrite.repair_journal WHERE run_id = 'r2'"
    )
    assert one(target_dsn, order) == [
        "delete comments", "delete posts", "update users", "update comments", "insert posts", "insert comments"
    ]  # fmt: skip
    assert one(
        target_dsn,
        "SELECT bool_and(confirmed_at IS NOT NULL AND undoes IS NOT NULL) FROM dualwrite.repair_journal WHERE run_id = 'r2'",
    )


def test_what_was_undone_is_open_again_however_old_it_is(world, target_dsn, run):
    """No window shows it: its document was written before, and no operation names it."""
    before = _repaired(world, target_dsn, run)
    run(undo="r1", max_share=100, run_id="r2")
    made = run(collections=["users", "posts", "comments"])
    assert {(line["collection"], line["verdict"]) for line in made.report["open"]} >= {
        ("users", "stale"), ("posts", "missing"), ("posts", "extra"), ("comments", "missing"), ("comments", "stale"),
    }, made.report["open"]  # fmt: skip
    assert dump(target_dsn) == before


def test_an_undo_can_be_undone(world, target_dsn, run):
    _repaired(world, target_dsn, run)
    repaired = dump(target_dsn)
    run(undo="r1", max_share=100, run_id="r2")
    run(undo="r2", max_share=100, run_id="r3")
    assert dump(target_dsn) == repaired
    again = run(undo="r2", max_share=100, run_id="r4")
    assert (again.report["undone"]["left"], dump(target_dsn)) == ({"undone_before": 6}, repaired)


def test_what_a_client_wrote_since_is_left_and_told(world, target_dsn, run):
    """An update of ours edited, an insert edited, a row that we deleted made again; and a row of ours that a client's references."""
    before = _repaired(world, target_dsn, run)
    execute(target_dsn, "UPDATE users SET bio = 'a client' WHERE id = 'u2'")
    execute(
        target_dsn,
        "INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES ('p2', 'b1', 'u1', 'n', 'a client')",
    )
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('theirs', 'new', 'u1', 'c')")
    made = run(undo="r1", max_share=100)
    undone = made.report["undone"]
    assert undone["keys"] == {"users:u2": "changed_since", "posts:p2": "changed_since", "posts:new": "still_referenced"}
    assert "2 changed since, and left as they are" in made.report["verdict"]
    assert any("left rows as they are: 1 still_referenced: posts:new" in alert for alert in made.alerts)
    after = dump(target_dsn)
    assert (after["users"]["u2"]["bio"], after["posts"]["p2"]["title"]) == ("a client", "a client")
    assert "theirs" in after["comments"], "nothing goes by cascade"
    assert {k: v for k, v in after["comments"].items() if k != "theirs"} == before["comments"]


def test_brakes_hold_for_an_undo(world, target_dsn, run):
    _repaired(world, target_dsn, run)
    repaired = dump(target_dsn)
    made = run(undo="r1", max_repairs=5)
    assert "max_repairs = 5 rows: 6 would be written" in made.alerts[0]
    assert dump(target_dsn) == repaired
    run(undo="r1", max_share=100, collections=["posts", "comments"])
    assert dump(target_dsn)["users"] == repaired["users"], "only what is selected"


def test_an_undo_of_nothing_or_beside_a_repair_is_refused(world, run):
    with pytest.raises(ParameterError, check=coded("undo-run-unknown")):
        run(undo="never")
    with pytest.raises(ParameterError, check=coded("undo-with-others")):
        run(undo="never", repair="missing")


def test_a_row_written_twice_by_a_run_is_taken_back_to_its_start(world, target_dsn, run):
    """Its chain is one, unless somebody wrote between its two writes: then nobody can say what the row was."""
    execute(target_dsn, "UPDATE users SET nickname = 'first' WHERE id IN ('u1', 'u2')")
    run(scope="sweep", collections=["users"])
    before = dump(target_dsn, ("users",))
    run(collections=["users"], repair="all", run_id="r1", max_share=100)
    execute(target_dsn, "UPDATE users SET nickname = 'a client' WHERE id = 'u2'")
    for name in ("u1", "u2"):
        world.document(f"users/{name}").update({"nickname": "second"})
    run(scope="sweep", collections=["users"])
    run(collections=["users"], repair="all", run_id="second", max_share=100)
    execute(target_dsn, "UPDATE dualwrite.repair_journal SET run_id = 'r1' WHERE run_id = 'second'")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE run_id = 'r1'") == 4
    made = run(undo="r1", collections=["users"], max_share=100)
    after = dump(target_dsn, ("users",))["users"]
    assert (after["u1"], after["u2"]["nickname"]) == (before["users"]["u1"], "second")
    assert made.report["undone"]["left"] == {"changed_between": 1}


_UNDO = {
    "undo": "r1",
    "max_share": 100,
    "max_repairs": 10_000,
    "run_id": "killed",
    "collections": ["users", "posts"],
}


def _undo(project: str, emulator: str, dsn: str) -> None:
    reconciled(project, emulator, dsn, **_UNDO)


@pytest.fixture
def thousand(world, emulator, target_dsn):
    """A run r1 that inserted, updated and deleted a thousand rows; and the rows as they were before."""
    batch = world.batch()
    for i in range(400):
        batch.set(world.document(f"boards/b1/posts/k{i}"), post())
    batch.commit()
    apply(world.project, emulator, target_dsn, collections=["posts"], scope="all")
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute("UPDATE posts SET title = 'stale' WHERE id < 'k2' AND id LIKE 'k%'")
        connection.execute("DELETE FROM posts WHERE id >= 'k3' AND id LIKE 'k%'")
        connection.execute(
            "INSERT INTO posts (id, board_id, author_id, author_name, title) "
            "SELECT 'x' || i, 'b1', 'u1', 'n', 't' FROM generate_series(1, 720) i"
        )
    options = {"collections": ["users", "posts"], "max_share": 100, "max_repairs": 10_000}
    reconciled(world.project, emulator, target_dsn, scope="sweep", **options)
    before = dump(target_dsn, ("posts",))["posts"]
    reconciled(world.project, emulator, target_dsn, repair="all", run_id="r1", **options)
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE run_id = 'r1'") >= 1_000
    return before


def test_a_thousand_rows_are_undone_beside_live_writers(world, emulator, target_dsn, thousand):
    """What no client touched is as in the dump from before; what one did is as the client left it."""
    touched: dict[str, str] = {}
    stop = threading.Event()

    def writes() -> None:
        moments = random.Random(7)
        with psycopg.connect(target_dsn, autocommit=True) as connection:
            while not stop.is_set():
                key, title = f"k{moments.randrange(400)}", f"client {moments.random()}"
                done = connection.execute("UPDATE posts SET title = %s WHERE id = %s", (title, key)).rowcount
                if done:
                    touched[key] = title

    client = threading.Thread(target=writes)
    client.start()
    try:
        _undo(world.project, emulator, target_dsn)
    finally:
        stop.set()
        client.join()
    after = dump(target_dsn, ("posts",))["posts"]
    assert touched
    assert {k: v for k, v in after.items() if k not in touched} == {
        k: v for k, v in thousand.items() if k not in touched
    }
    assert {k: after[k]["title"] for k in touched if k in after} == {k: t for k, t in touched.items() if k in after}
    lost = [k for k in touched if k not in after and k in thousand]
    assert lost == [], "a row that a client wrote is never deleted"


def test_a_killed_undo_is_finished_by_the_next_try(world, emulator, target_dsn, thousand):
    killed_at_work(  # not _undo: each child would import this module, and Airflow with it
        reconciled, world.project, emulator, target_dsn, moments=random.Random(5), within=(0.01, 0.5), **_UNDO
    )
    _undo(world.project, emulator, target_dsn)
    assert dump(target_dsn, ("posts",))["posts"] == thousand


def test_an_undo_that_loses_each_of_its_commits_is_finished(world, emulator, target_dsn, run):
    """A pooler restarts, a server fails, before a COMMIT or before its answer: try after try, each comes one COMMIT further.
    Each row is taken back once."""
    before = _repaired(world, target_dsn, run)
    for at in itertools.count(1):
        numbers = itertools.count(1)

        def lost(*_: Any, numbers=numbers, at=at) -> Kill | None:
            return Kill(lambda: None, random.random() < 0.5) if next(numbers) == at else None

        with watched(target_dsn, lost) as (dsn, steps):
            try:
                reconciled(world.project, emulator, dsn, undo="r1", max_share=100, run_id="r2")
            except Exception as error:  # noqa: BLE001 - all that a task may end with
                clear = without_content(error)
                assert worth_a_retry(clear), clear
        if len(steps.names) < at:
            break
    assert at > 3
    assert dump(target_dsn) == before
    undone = "SELECT count(*), count(DISTINCT undoes) FROM dualwrite.repair_journal WHERE run_id = 'r2'"
    assert one(target_dsn, undone) == (6, 6)
