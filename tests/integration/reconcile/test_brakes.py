"""The brakes of a repair, at their edges; and what the gate tells of what it asked."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest

from dualwrite.engine.compare import Examiner
from dualwrite.model.errors import BrakeError
from dualwrite.runs import repair
from dualwrite.runs.reconcile_plan import Run
from dualwrite.runs.repair import Planned
from tests.integration.reconcile.world import attempted, busy, create, delete_of_a_recent_document, execute, now
from tests.refusals import coded
from tests.support import one, reconcile_run
from tests.worlds import comment, post


def _with(run: Run, **params: object) -> Run:
    plan = dataclasses.replace(run.plan, params=run.params.model_copy(update=params))
    return dataclasses.replace(run, plan=plan)


def test_a_repair_of_one_row_more_than_it_may_write_is_refused(world, emulator, target_dsn):
    """As many as it may are let through."""
    with reconcile_run(world.project, emulator, target_dsn, repair="all") as run:
        planned = {"posts": Planned(insert=3, inserted=4), "comments": Planned(update=1, delete=1, updated=1)}
        repair.brake(_with(run, max_repairs=10), planned)
        with pytest.raises(
            BrakeError, match=r"9 rows: 10 .*\(posts 7, comments 3\)", check=coded("repair-above-max-repairs")
        ):
            repair.brake(_with(run, max_repairs=9), planned)


SHARES = [
    # 2 posts are there. A part so small needs no share; one row more does.
    (Planned(update=10, delete=10), 0, None),
    (Planned(update=10, delete=11), 1050, "10 updates and 11 deletes are 1050.0 % of the 2 rows of posts"),
    # The table as it was before the repair: what it deleted is counted in, what it inserted is not.
    (Planned(deleted=40), 95.3, "0 updates and 40 deletes are 95.2 % of the 42 rows of posts"),
    (Planned(updated=30, deleted=39, inserted=1), 172.5, "30 updates and 39 deletes are 172.5 % of the 40 rows"),
    # Nothing was there: whatever changes is all of it.
    (Planned(update=21, inserted=2), 100, "21 updates and 0 deletes are 100.0 % of the 0 rows of posts"),
    (Planned(update=21, inserted=3), 100, "21 updates and 0 deletes are 100.0 % of the -1 rows of posts"),
    # What is inserted changes nothing that was there.
    (Planned(insert=400), 0, None),
]


def test_a_repair_may_change_a_share_of_what_was_there_before_it(world, emulator, target_dsn):
    with reconcile_run(world.project, emulator, target_dsn, repair="all") as run:
        for part, let_through, refused in SHARES:
            repair.brake(_with(run, max_share=let_through), {"posts": part})
            if refused is not None:
                with pytest.raises(BrakeError, match="Nothing was written") as told:
                    repair.brake(_with(run, max_share=let_through - 0.1), {"posts": part})
                assert refused in str(told.value)


def test_the_gate_plans_what_is_open_by_collection(world, emulator, target_dsn, run):
    """It tells what asking cost."""
    create(world, target_dsn)
    attempted(target_dsn, "post:create:new")
    delete_of_a_recent_document(world, target_dsn)
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="all", max_share=100) as asked:
        first, second = repair.gate(asked), repair.gate(asked)
        assert first["problem"] is None
        nothing = dict.fromkeys(Planned.__slots__, 0)
        assert first["planned"] == {"posts": {**nothing, "insert": 1}, "comments": {**nothing, "delete": 1}}
        assert first["billed_reads"] == second["billed_reads"] > 0
        assert first["operations"]["total"] == 1
    with reconcile_run(world.project, emulator, target_dsn, repair="off") as asked:
        gate = repair.gate(asked)
        assert (gate["problem"], gate["planned"]) == (None, {}), "a run that repairs nothing has nothing planned"
        for task in (repair.delete, repair.write):
            with pytest.raises(BrakeError, check=coded("repair-not-asked-for")):
                task(asked, "posts")


def test_the_gate_counts_what_this_run_has_written(world, emulator, target_dsn, run):
    """It also counts what a killed one left to be confirmed."""
    create(world, target_dsn)
    attempted(target_dsn, "post:create:new")
    delete_of_a_recent_document(world, target_dsn)
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="all", max_share=100) as again:
        deleted, written = repair.delete(again, "comments"), repair.write(again, "posts")
        assert (deleted["phase"], deleted["deleted"], deleted["inserted"]) == ("delete", 1, 0)
        assert (written["phase"], written["deleted"], written["inserted"]) == ("write", 0, 1)
        execute(target_dsn, "UPDATE dualwrite.repair_journal SET confirmed_at = NULL WHERE key = 'new'")
        execute(target_dsn, "DELETE FROM dualwrite.open_differences")
        assert repair.plan(again) == {
            "posts": Planned(inserted=1, unfinished=1),
            "comments": Planned(deleted=1),
        }
    with reconcile_run(world.project, emulator, target_dsn, repair="all") as other:
        assert repair.plan(other) == {"posts": Planned(unfinished=1)}, "the brakes are for one run's own writes"
        finished = repair.write(other, "posts")
        assert (finished["inserted"], finished["examined"]) == (0, 0)
        assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_what_a_killed_run_left_is_confirmed_before_any_write(world, emulator, target_dsn, run, monkeypatch):
    create(world, target_dsn)
    attempted(target_dsn, "post:create:new")
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="all", max_share=100) as killed:
        repair.write(killed, "posts")
    execute(target_dsn, "UPDATE dualwrite.repair_journal SET confirmed_at = NULL WHERE key = 'new'")

    def fails(*_):
        raise RuntimeError("at the first page")

    monkeypatch.setattr(Examiner, "examine_units", fails)
    with (
        reconcile_run(world.project, emulator, target_dsn, repair="all") as other,
        pytest.raises(RuntimeError, match="at the first page"),
    ):
        repair.write(other, "posts")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_what_a_repair_has_written_is_not_counted_again(world, emulator, target_dsn, run):
    """Each step asks the brakes again, and what is written stays open until the look after the last write."""
    ids = [f"both{i}" for i in range(25)]
    for i in ids:
        document = f"boards/b1/posts/{i}"
        world.document(document).set(post(createdAt=now(), updatedAt=now()))
        world.document(f"{document}/comments/c{i}").set(comment(createdAt=now(), updatedAt=now()))
        attempted(target_dsn, f"post:create:{i}")
        attempted(target_dsn, f"comment:create:{i}")
        execute(
            target_dsn,
            "INSERT INTO posts (id, board_id, author_id, author_name, title, content) VALUES (%s, 'b1', 'u1', 'n', 'old', 'c')",
            i,
        )
    ended = run(repair="all", max_repairs=50, max_share=95, liveness_minimum=10**6)
    assert ended.gate["problem"] is None
    assert (ended.gate["planned"]["posts"]["update"], ended.gate["planned"]["comments"]["insert"]) == (25, 25)
    assert ended.alerts == [], "25 updates of 27 posts and 25 comments are within both brakes, and stay so on the way"
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE starts_with(id, 'cboth')") == 25


def test_a_gate_with_a_problem_still_tells_what_it_would_plan(world, emulator, target_dsn, run):
    busy(world, 6)
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="missing", max_repairs=1) as asked:
        gate = repair.gate(asked)
        assert gate["problem"].startswith("dual-write seems off"), "the first problem is told, and not the brake's"
        assert gate["planned"]["posts"]["insert"] == 6
        with pytest.raises(BrakeError, check=coded("dual-write-seems-off")):
            repair.write(asked, "posts")


@pytest.mark.parametrize(("params", "code"), [({"max_repairs": 1}, "repair-above-max-repairs"), ({}, None)])
def test_what_a_brake_refuses_keeps_its_code(world, emulator, target_dsn, run, params, code):
    """From the rule through the gate to the task that would write: Sentry groups by it."""
    busy(world, 2)
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="missing", liveness_minimum=100, **params) as asked:
        assert repair.gate(asked)["problem_code"] == code
        with pytest.raises(BrakeError) if code else nullcontext() as refused:
            repair.write(asked, "posts")
        assert code is None or refused.value.code == code
