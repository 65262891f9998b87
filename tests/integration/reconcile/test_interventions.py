"""Who did what: repairs, excuses, undos, backfills, approvals and migrations, with person, run, numbers and reason."""

from __future__ import annotations

import pytest

from dualwrite import migrations
from dualwrite.catalog import CATALOG
from dualwrite.postgres import connect
from dualwrite.postgres.remembered import interventions
from dualwrite.postgres.target import Target
from dualwrite.runs import backfill
from tests.integration.reconcile.world import create, edit_that_moves_none, execute
from tests.migrating import migrator
from tests.support import one


def _told(report) -> list[tuple[str, str, str | None, dict]]:
    return [(i["kind"], i["by"], i["reason"], i["numbers"]) for i in report["interventions"]]


def test_a_report_tells_who_repaired_excused_and_undid(world, target_dsn, run):
    create(world, target_dsn)
    edit_that_moves_none(world, target_dsn)
    assert _told(run(scope="sweep").report) == [], "who only looks leaves no trace"
    run(repair="all", max_share=100, run_id="r1")
    run(undo="r1", max_share=100, run_id="r2")
    report = run(scope="none", excuse=["posts:new", "comments:never"], excuse_reason="a test account").report
    assert _told(report) == [
        ("excuse", "a test", "a test account", {"posts": 1, "comments": 1}),
        ("undo", "a test", None, {"posts": {"delete": 1}, "comments": {"update": 1}}),
        ("repair", "a test", None, {"posts": {"insert": 1}, "comments": {"update": 1}}),
    ]
    assert [(i["run_id"], i["journaled"], i["undone"]) for i in report["interventions"][1:]] == [
        ("r2", 2, 0),
        ("r1", 2, 2),
    ]
    assert _told(run(scope="none", unexcuse=["posts:*"]).report)[0] == ("unexcuse", "a test", None, {"posts": 1})


def test_numbers_outlive_the_journal(world, target_dsn, run):
    """A quiet schedule is left out."""
    create(world, target_dsn)
    run()
    run(repair="missing", run_id="r1", unattended=True)
    execute(target_dsn, "DELETE FROM dualwrite.repair_journal")
    with connect(target_dsn) as connection:
        interventions.keep(connection, "reconcile_dual_writes", "quiet", "repair", interventions.SCHEDULE)
        [found] = interventions.latest(connection, 9)
    assert (found["by"], found["numbers"], found["journaled"]) == ("the schedule", {"posts": {"insert": 1}}, 0)


@pytest.mark.parametrize(("approval", "kind"), [("approved", "approval"), ("rejected", "rejection")])
def test_who_approved_or_rejected_is_kept_with_the_reason(world, target_dsn, approval, kind):
    with Target(lambda: connect(target_dsn), CATALOG) as target:
        backfill.keep_answer(target, "b1", approval, {"by": "ada", "reason": "not before Monday"})
    asked = "SELECT person || ' ' || reason FROM dualwrite.interventions WHERE run_id = 'b1' AND kind = %s"
    assert one(target_dsn, asked, kind) == "ada not before Monday"


def test_who_migrated_is_kept(phase1_dsn):
    made = migrator(phase1_dsn)
    made.run()
    with connect(phase1_dsn) as connection:
        run_id = connection.execute("SELECT run_id FROM dualwrite.migrations LIMIT 1").fetchone()[0]
        connection.commit()
        migrations.keep_person(connection, run_id, "ada")
        migrations.keep_person(connection, "one that applied nothing", "eve")
    assert one(phase1_dsn, "SELECT array_agg(person || ' ' || kind) FROM dualwrite.interventions") == ["ada migration"]
