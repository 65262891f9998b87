"""Is dual-write alive?"""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.op_log import Activity
from dualwrite.model.declaration import Catalog
from dualwrite.model.errors import TargetError
from dualwrite.runs import first_look, repair
from dualwrite.runs.liveness import Liveness, _creation_fields, liveness
from dualwrite.runs.report import build
from tests.integration.reconcile.world import (
    arrives,
    attempted,
    busy,
    create,
    delete_of_a_recent_document,
    edit_that_moves_a_check_field,
    execute,
    now,
)
from tests.support import one, reconcile_run, reconciled
from tests.worlds import LONG_AGO, comment, post


def test_documents_but_no_operations_mean_that_dual_write_is_off(world, run):
    busy(world, 5)
    found = run(repair="missing")
    assert found.alerts[0].startswith("dual-write seems off: 5 documents were written since")
    assert found.gate["planned"]
    assert found.counts("posts") == {"missing": 5}, "nothing was repaired"


def test_a_document_counts_once_and_its_entries_do_not(world, emulator, target_dsn):
    """Once, by whichever field it lies in the window. Users are also read as permissions, and posts by two fields."""
    for user in ("u1", "u2", "u3"):
        world.document(f"users/{user}").update({"updatedAt": now()})
    busy(world, 2)
    with reconcile_run(world.project, emulator, target_dsn, liveness_minimum=6) as run:
        assert liveness(run).as_json() == {
            **Activity(0).as_json(),
            "minutes": 30.0,
            "per_minute": 0.0,
            "documents": 5,
            "arrived": 0,
            "documents_per_minute": 0.17,
            "problem": None,
        }
    with reconcile_run(world.project, emulator, target_dsn, liveness_minimum=5) as run:
        problem = liveness(run).problem
        assert problem is not None
        assert problem.text.startswith("dual-write seems off: 5 documents")


def test_a_part_of_the_app_is_silent_from_so_many_creations_on(world, emulator, target_dsn):
    """From as many as are evidence."""
    attempted(target_dsn, "comment:create:c")
    arrives(world, target_dsn, 2)
    busy(world, 5)
    with reconcile_run(world.project, emulator, target_dsn, liveness_minimum=6) as run:
        alive = liveness(run)
        assert (alive.problem, alive.as_json()["per_minute"], alive.arrived) == (None, 0.03, 2)
    with reconcile_run(world.project, emulator, target_dsn, liveness_minimum=5) as run:
        assert "none of their rows arrived by itself: 5 posts" in str(liveness(run).problem)


def test_an_operation_counts_up_to_five_minutes_after_the_window(world, emulator, target_dsn):
    """Its clock is another."""
    attempted(target_dsn, "post:create:busy0")
    with reconcile_run(world.project, emulator, target_dsn) as run:
        for after, total in ((timedelta(minutes=4.5), 1), (timedelta(minutes=5.5), 0)):
            execute(target_dsn, "UPDATE write_ops SET created_at = %s", run.plan.now + after)
            assert liveness(run).activity.total == total


def test_without_an_op_log_rows_alone_tell(world, emulator, target_dsn):
    """Documents that were only touched are no evidence then: a server's counters move their times."""
    execute(target_dsn, "DROP TABLE write_ops CASCADE")
    for user in ("u1", "u2", "u3", "u4", "u5", "u6"):
        fields = {"nickname": user, "createdAt": LONG_AGO, "updatedAt": now(), "boardPermissions": {}}
        world.document(f"users/{user}").set(fields)
    with reconcile_run(world.project, emulator, target_dsn, write_ops_required=False) as run:
        alive = liveness(run)
        assert (alive.problem, alive.documents, alive.as_json()["per_minute"]) == (None, 6, None)
        busy(world, 6)
        problem = liveness(dataclasses.replace(run, plan=dataclasses.replace(run.plan, now=now()))).problem
    assert "12 documents were written since" in str(problem)
    assert "no row arrived by itself; write_ops can't be read" in str(problem)


@pytest.mark.parametrize("operations", [8, 500])
def test_operations_that_nobody_carried_out_are_no_life(operations, world, target_dsn, run):
    """Whoever may take a lock may log any operation: eight calls made a dead client look alive."""
    busy(world, 8)
    for i in range(operations):
        attempted(target_dsn, f"post:create:busy{i % 8}")
    found = run(repair="missing")
    assert found.alerts[0].startswith("dual-write seems off: 8 documents were written since")
    assert f"write_ops has {operations} operations since then, which is what clients say and no row" in found.alerts[0]
    assert one(target_dsn, "SELECT count(*) FROM posts") == 2, "nothing is repaired meanwhile"


def test_a_job_that_writes_both_sides_and_no_operations_is_alive(world, target_dsn, run):
    """A healthy night job: its rows arrive, and repairs of other things go on."""
    execute(target_dsn, "DELETE FROM dualwrite.repair_journal")  # it holds that the world was backfilled a moment ago
    arrives(world, target_dsn, 6)
    at = now()
    world.document("users/u1").update({"nickname": "n", "updatedAt": at})
    execute(
        target_dsn,
        "UPDATE users SET nickname = 'n', updated_at = date_trunc('milliseconds', %s::timestamptz) WHERE id = 'u1'",
        at,
    )
    world.document("boards/b1/posts/lost").set(post(createdAt=now(), updatedAt=now()))
    found = run(repair="missing")
    assert found.alerts == []
    assert found.report["operations"]["arrived"] == 7
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'lost'") == 1


def test_rows_that_a_repair_wrote_did_not_arrive_by_themselves(world, target_dsn, run):
    """Else the repairs of a dead client would be its signs of life."""
    busy(world, 9)
    assert run(repair="missing", liveness_minimum=10**6).alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts") == 11
    [alert] = run(repair="missing").alerts
    assert alert.startswith("dual-write seems off: 9 documents were written since")


def test_a_catalog_without_operations_needs_no_op_log(world, emulator, target_dsn):
    """The report says what that hides."""
    execute(target_dsn, "DROP TABLE write_ops CASCADE")
    catalog = Catalog(tuple(dataclasses.replace(c, operations=()) for c in CATALOG))
    busy(world, 9)
    arrives(world, target_dsn, 3)
    found = reconciled(world.project, emulator, target_dsn, catalog=catalog, repair="missing")
    assert found.alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts") == 11
    assert (
        "The catalog declares no operations, so write_ops isn't read. Therefore unknown: the causes of differences"
        in found.text()
    )
    alive = next(c for c in found.report["ready"]["checks"] if c["name"] == "alive")
    assert (alive["ok"], alive["says"]) == (True, "3 rows arrived by themselves in the last 30 minutes.")


def test_what_is_told_by_the_minute_is_of_a_minute_at_least():
    told = Liveness(0.5, Activity(3), 2, 0, None).as_json()
    assert (told["minutes"], told["per_minute"], told["documents_per_minute"]) == (0.5, 3.0, 2.0)
    told = Liveness(7.26, Activity(3), 2, 0, None).as_json()
    assert (told["minutes"], told["per_minute"], told["documents_per_minute"]) == (7.3, 0.41, 0.28)


def test_only_a_time_of_creation_is_evidence_of_a_creation():
    assert _creation_fields(CATALOG["posts"]) == ["createdAt"]
    assert _creation_fields(CATALOG["users"]) == ["createdAt"], "updatedAt falls back on createdAt, and is not one"
    assert _creation_fields(CATALOG["boards"]) == []


def test_a_gate_that_never_ran_fails_the_report(world, run, monkeypatch):
    """Nothing is open, and yet nobody knows whether dual-write is alive."""
    monkeypatch.setattr(repair, "gate", lambda run: None)
    assert run().alerts == [build.NO_GATE]


def test_a_repair_that_failed_half_way_is_told(world, run, monkeypatch):
    """Its task wrote the row and died before it could say so; the look afterwards finds nothing wrong."""
    world.document("boards/b1/posts/lost").set(post(createdAt=now(), updatedAt=now()))
    write = repair.write

    def dies(run, name):
        write(run, name)
        raise TargetError("The connection was lost.")

    monkeypatch.setattr(repair, "write", dies)
    alert = "posts was only partly repaired: step write.posts: The connection was lost."
    assert run(repair="missing").alerts == [alert]
    monkeypatch.undo()
    assert run(repair="missing").alerts == []


def test_fewer_documents_or_one_row_prove_nothing(world, target_dsn, run):
    busy(world, 4)
    assert not any("seems off" in a for a in run().alerts)
    busy(world, 9)
    at = world.document("boards/b1/posts/busy1").get().get("createdAt")
    execute(
        target_dsn,
        "INSERT INTO posts (id, board_id, author_id, author_name, title, content, created_at, updated_at) VALUES "
        "('busy1', 'b1', 'u1', 'n', 't', 'c', date_trunc('milliseconds', %s::timestamptz), %s)",
        at, at,
    )  # fmt: skip
    assert not any("seems off" in a for a in run().alerts)


def test_documents_that_add_up_since_the_last_run_are_evidence(world, target_dsn, run):
    """Few are of the last minutes. A quiet night, and an outage of the scheduler: three documents an hour, and the last
    run was six hours ago."""
    execute(target_dsn, "UPDATE dualwrite.watermarks SET examined_until = now() - interval '6 hours'")
    for i, hours in enumerate((0, 1, 2, 3, 4, 5)):
        at = now() - timedelta(hours=hours)
        world.document(f"boards/b1/posts/quiet{i}").set(post(createdAt=at, updatedAt=at))
    found = run(repair="missing")
    assert found.alerts[0].startswith("dual-write seems off: 6 documents were written since")
    assert one(target_dsn, "SELECT count(*) FROM posts") == 2, "nothing is repaired meanwhile"


def test_a_busy_server_function_does_not_hide_a_dead_web_client(world, target_dsn, run):
    """Its rows come in, and not one of the web client's: a repair would mend the posts quietly, run by run."""
    for i in range(20):
        attempted(target_dsn, f"comment:create:arrived{i}")
    arrives(world, target_dsn, 20)
    busy(world, 9)
    found = run(repair="missing", unattended=True)
    assert found.alerts[0].startswith("dual-write seems off for a part of the app: since")
    assert (
        "none of their rows arrived by itself: 9 posts. In all collections together 20 rows arrived" in found.alerts[0]
    )
    assert one(target_dsn, "SELECT count(*) FROM posts") == 2, "nothing is repaired meanwhile"


def test_server_functions_are_no_sign_of_a_dead_client(world, target_dsn, run):
    """Counters move updatedAt without any operation; only creations are evidence against one client."""
    for user in ("u1", "u2", "u3", "u4", "u5", "u6"):
        fields = {"nickname": user, "createdAt": LONG_AGO, "updatedAt": now(), "boardPermissions": {}}
        world.document(f"users/{user}").set(fields)
    attempted(target_dsn, "notification:create:n1")
    assert not any("seems off" in a for a in run().alerts)


def test_scheduled_repairs_of_what_nobody_attempted_have_a_limit(world, target_dsn, run):
    """They fail beyond a few a day. A few at a time, below what liveness notices, the repair would hide a dead client
    for ever."""

    def repaired(number: int, **changes):
        for _ in range(number):
            world.document(f"boards/b1/posts/r{next(numbers)}").set(post(createdAt=now(), updatedAt=now()))
        return run(repair="missing", liveness_minimum=1000, **changes)

    numbers = iter(range(100))
    attempted(target_dsn, "comment:create:other")
    assert repaired(7).alerts == [], "a person pressed the button, and has seen what it is for"
    assert repaired(3, unattended=True).alerts == []
    found = repaired(3, unattended=True)
    [alert] = found.alerts
    assert alert.startswith(
        "This run repaired 3 rows that write_ops shows no attempt for; scheduled runs repaired 6 such rows in 24 hours "
        "(posts 6), more than max_unattempted_repairs = 5"
    )
    [line] = found.report["repaired_lately"]
    assert (line["collection"], line["cause"], line["number"], line["unattended"]) == (
        "posts",
        "never_attempted",
        13,
        6,
    )
    assert "posts never_attempted 13 6" in found.text()
    assert repaired(0, unattended=True).alerts == [], "a run that repairs nothing of that kind is green"
    assert repaired(1, unattended=True, max_unattempted_repairs=50).alerts == []


@pytest.mark.parametrize("cause", ["attempted_failed", "unknown", "dual_write_off"])
def test_scheduled_repairs_have_a_limit_a_day_whatever_the_cause(cause, world, target_dsn, run):
    """Two hundred failing writes of two hundred would be mended run by run, and stay green."""
    lost = {f"l{i}": post(createdAt=now(), updatedAt=now()) for i in range(4)}
    for name, fields in lost.items():
        world.document(f"boards/b1/posts/{name}").set(fields)
        if cause == "attempted_failed":
            attempted(target_dsn, f"post:create:{name}")
    if cause == "unknown":
        execute(target_dsn, "DROP TABLE write_ops CASCADE")
    if cause == "dual_write_off":
        run(enabled=False)
    changes = {"unattended": True, "write_ops_required": False, "repair": "missing", "liveness_minimum": 10**6}
    [alert] = run(**changes, max_repairs_a_day=3).alerts
    assert alert.startswith("This run repaired 4 rows ")
    assert "scheduled runs repaired 4 such rows in 24 hours (posts 4), more than max_repairs_a_day = 3." in alert
    world.document("boards/b1/posts/last").set(post(createdAt=now(), updatedAt=now()))
    assert run(**changes, max_repairs_a_day=5).alerts == []


def test_parents_a_scheduled_repair_inserts_count_to_its_limits(world, target_dsn, run):
    """They were open nowhere: the windows had passed them by."""
    for i in range(4):
        world.document(f"boards/b1/posts/old{i}").set(post())
        world.document(f"boards/b1/posts/old{i}/comments/c{i}").set(comment(createdAt=now()))
        attempted(target_dsn, f"comment:create:c{i}")
    changes = {"unattended": True, "repair": "missing", "max_repairs_a_day": 4, "liveness_minimum": 10**6}
    refused = run(**changes, max_repairs=7).alerts[0]
    assert "max_repairs = 7 rows: 8 would be written" in refused
    assert "posts 4" in refused
    assert "comments 4" in refused
    assert one(target_dsn, "SELECT count(*) FROM posts") == 2, "nothing was written"
    assert run(**changes, max_repairs=8, collections=["comments"]).alerts == []
    world.document("boards/b1/posts/old9").set(post())
    world.document("boards/b1/posts/old9/comments/c9").set(comment(createdAt=now()))
    attempted(target_dsn, "comment:create:c9")
    alerts = run(**changes).alerts
    assert any(
        "for reasons that no operation shows; scheduled runs repaired 5 such rows in 24 hours (posts 5)" in a
        for a in alerts
    )


def test_rows_repaired_by_a_run_that_died_are_told_by_cause(world, emulator, target_dsn, run):
    create(world, target_dsn)
    attempted(target_dsn, "post:create:new")
    run()
    with reconcile_run(world.project, emulator, target_dsn, repair="missing") as dies:
        first_look.compare(dies, "posts")
        repair.write(dies, "posts")
    [line] = run().report["repaired_lately"]
    assert (line["cause"], line["number"]) == ("attempted_failed", 1)


@pytest.mark.parametrize("change", [create, edit_that_moves_a_check_field, delete_of_a_recent_document])
def test_with_the_switch_off_every_difference_is_expected(change, world, target_dsn, run):
    change(world, target_dsn)
    off = run(enabled=False, repair="all")
    assert off.alerts == []
    assert "Variable dual_write_enabled is false" in off.text()
    on = run()
    assert len(on.alerts) == 1
    assert "dual_write_off)" in on.alerts[0], "missed while it was off, whatever the op log says now"
    assert run(repair="all").alerts == []


def test_what_is_told_while_the_switch_is_off_names_the_switch(world, run):
    world.document("boards/b1/posts/new").set(post(createdAt=now(), updatedAt=now(), title=7))
    [alert] = run(enabled=False).alerts
    assert alert.startswith("posts: 1 rejected")
    assert alert.endswith("Variable dual_write_enabled is false, so nothing is repaired until it is true again")


def test_with_the_switch_off_what_is_missing_is_expected(world, target_dsn, run):
    """It is drift when the switch is on again."""
    busy(world, 6)
    off = run(enabled=False, repair="all")
    assert off.alerts == []
    assert off.counts("posts") == {"missing": 6}
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences WHERE cause = 'dual_write_off'") == 6
    assert one(target_dsn, "SELECT count(*) FROM posts") == 2, "the target is left alone while the switch is off"
    attempted(target_dsn, "post:update:p1")
    on = run()
    assert len(on.alerts) == 1
    assert "posts: 6 missing" in on.alerts[0]
