"""Windows, watermarks and sweeps."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dualwrite.engine.compare import Examiner
from dualwrite.model.errors import PreflightError, SourceError
from dualwrite.runs import first_look
from tests.integration.reconcile.world import execute, now
from tests.refusals import coded
from tests.support import one, reconcile_run
from tests.worlds import post


@pytest.fixture
def run(run_all):
    """Of every collection: these tests are about whole runs."""
    return run_all


def test_after_an_outage_the_window_begins_at_the_last_runs_end(world, target_dsn, run):
    """Also after weeks."""
    lost = now() - timedelta(days=20)
    world.document("boards/b1/posts/lost").set(post(createdAt=lost, updatedAt=lost))
    execute(target_dsn, "UPDATE dualwrite.watermarks SET examined_until = now() - interval '21 days'")
    assert run(sweep_every_hours=24 * 300).counts("posts") == {"missing": 1}
    assert one(target_dsn, "SELECT min(now() - examined_until) < interval '1 minute' FROM dualwrite.watermarks")


def test_a_collection_that_can_not_be_read_keeps_its_watermark(world, emulator, target_dsn, run, monkeypatch):
    """It is not examined."""
    before = one(target_dsn, "SELECT examined_until FROM dualwrite.watermarks WHERE collection = 'posts'")
    original = first_look.compare

    def breaks(run, name, sweep):
        with pytest.MonkeyPatch.context() as patch:
            if name == "posts":
                patch.setattr(run.source, "pages", lambda *_: (_ for _ in ()).throw(PreflightError("broken")))
            return original(run, name, sweep)

    monkeypatch.setattr(first_look, "compare", breaks)
    found = run()
    assert found.alerts == ["posts was not examined: broken"]
    assert (
        one(
            target_dsn,
            "SELECT outcome FROM dualwrite.runs WHERE collection = 'posts' AND phase = 'compare' ORDER BY id DESC",
        )
        == "not_examined"
    )
    assert one(target_dsn, "SELECT examined_until FROM dualwrite.watermarks WHERE collection = 'posts'") == before


def test_a_sweep_is_due_once_a_day(world, target_dsn, run):
    def scopes() -> dict[str, str]:
        found = {c["collection"]: c["scope"] for c in run().report["collections"]}
        whole = {found.pop(name) for name in ("boards", "board_waiting_users")}  # no check field: read whole every time
        assert whole == {"sweep"}
        return found

    assert set(scopes().values()) == {"recent"}
    execute(
        target_dsn, "UPDATE dualwrite.watermarks SET swept_at = now() - interval '25 hours' WHERE collection = 'likes'"
    )
    again = scopes()
    assert again.pop("likes") == "sweep"
    assert set(again.values()) == {"recent"}
    assert set(scopes().values()) == {"recent"}


def test_a_run_that_began_earlier_moves_no_watermark_back(world, target_dsn, run):
    """It ends later. A cleared task of an old run, for example: what lies between the two would be read again, and
    swept again."""
    marks = "SELECT jsonb_object_agg(collection, ARRAY[examined_until, swept_at]) FROM dualwrite.watermarks"
    run(scope="sweep")
    before = one(target_dsn, marks)
    run(scope="sweep", now=now() - timedelta(hours=2))
    assert one(target_dsn, marks) == before
    run(scope="sweep")
    after = one(target_dsn, marks)
    assert all(after[name] > mark for name, mark in before.items())


def test_a_report_tells_when_a_collection_was_examined_and_swept(world, target_dsn, run):
    execute(
        target_dsn,
        "UPDATE dualwrite.watermarks SET swept_at = NULL, examined_until = now() - interval '100.1225 hours' WHERE collection = 'posts'",
    )
    execute(
        target_dsn,
        "UPDATE dualwrite.watermarks SET swept_at = now() - interval '20.1225 hours' WHERE collection = 'likes'",
    )
    execute(
        target_dsn, "UPDATE dualwrite.watermarks SET swept_at = '2026-03-01T10:00:00+00' WHERE collection = 'comments'"
    )
    ages = run(collections=["boards"]).report["ages"]
    assert (ages["posts"]["swept_at"], ages["posts"]["swept_hours"]) == (None, None)
    assert ages["posts"]["examined_hours"] == 100.12
    assert ages["likes"]["swept_hours"] == 20.12
    assert ages["comments"]["swept_at"] == "2026-03-01T10:00:00+00:00"


def test_each_collection_has_the_window_that_its_marks_leave(world, emulator, target_dsn):
    """From the last look on, at least the minutes asked for; all of it if that is due, called for, asked for or never done."""
    execute(
        target_dsn,
        "UPDATE dualwrite.watermarks SET examined_until = now() - interval '3 hours', swept_at = now() - interval '9 hours'",
    )
    execute(
        target_dsn, "UPDATE dualwrite.watermarks SET swept_at = now() - interval '11 hours' WHERE collection = 'likes'"
    )
    execute(target_dsn, "UPDATE dualwrite.watermarks SET examined_until = now() WHERE collection = 'users'")
    execute(target_dsn, "DELETE FROM dualwrite.watermarks WHERE collection = 'blocks'")
    execute(target_dsn, "INSERT INTO dualwrite.count_baselines (collection, field, edges, differences, untimed, run_id, sweep_due) "
                        "VALUES ('comments', 'createdAt', ARRAY[now()], ARRAY[0], 0, 'r', true) "
                        "ON CONFLICT (collection) DO UPDATE SET sweep_due = true")  # fmt: skip
    given = {
        "collections": ["boards", "users", "posts", "comments", "likes", "blocks"],
        "minutes": 60,
        "sweep_every_hours": 10,
    }

    def hours(window) -> float | None:
        return window and round((window.end - window.start).total_seconds() / 3600, 1)

    with reconcile_run(world.project, emulator, target_dsn, **given) as run:
        assert {n: hours(w) for n, w in run.plan.windows.items()} == {
            "boards": None, "users": 1.0, "posts": 3.0, "comments": None, "likes": None, "blocks": None,
        }  # fmt: skip
        assert {n: hours(w) for n, w in run.plan.instead.items()} == {"comments": 3.0, "likes": 3.0}
        assert run.plan.billed_reads > 0
    with reconcile_run(world.project, emulator, target_dsn, **given, scope="sweep") as run:
        assert set(run.plan.windows.values()) == {None}
        assert run.plan.instead == {}, "what a person asked for isn't replaced"


# --- clocks -------------------------------------------------------------------------------------------------------------


def test_a_worker_whose_clock_is_far_ahead_is_refused(run):
    with pytest.raises(PreflightError, match="target's are 300 minutes", check=coded("clocks-apart")):
        run(clock=lambda: now() + timedelta(hours=5))


def test_no_watermark_is_set_ahead_of_the_targets_clock(world, target_dsn, run):
    run(now=now() + timedelta(days=400), scope="sweep")
    ahead = "SELECT count(*) FROM dualwrite.watermarks WHERE greatest(examined_until, swept_at) > now()"
    assert one(target_dsn, ahead) == 0


def test_marks_from_the_future_are_not_believed_and_not_kept(world, target_dsn, run):
    """An earlier run's clock was far ahead. Its marks would end all sweeps, and hide what was written since."""
    lost = now() - timedelta(hours=5)
    world.document("boards/b1/posts/lost").set(post(createdAt=lost, updatedAt=lost))
    execute(target_dsn, "UPDATE dualwrite.watermarks SET examined_until = now() + interval '1 year'")
    assert run().counts("posts") == {"missing": 1}
    execute(target_dsn, "UPDATE dualwrite.watermarks SET swept_at = now() + interval '1 year'")
    world.document("boards/b1/posts/p1/comments/cp1").update({"content": "edited"})
    assert run().counts("comments") == {"stale": 1}
    ahead = "SELECT count(*) FROM dualwrite.watermarks WHERE greatest(examined_until, swept_at) > now()"
    assert one(target_dsn, ahead) == 0


# --- what nobody looks at -----------------------------------------------------------------------------------------------


def test_a_sweep_that_keeps_failing_stops_no_look_at_a_window(world, target_dsn, run, monkeypatch):
    world.document("boards/b1/posts/new").set(post(createdAt=now(), updatedAt=now()))
    execute(
        target_dsn, "UPDATE dualwrite.watermarks SET swept_at = now() - interval '25 hours' WHERE collection = 'posts'"
    )
    scan = Examiner.scan

    def fails(self, window, page_size):
        if window is None and self.job.collection.name == "posts":
            raise SourceError("Firestore could not be read.")
        return scan(self, window, page_size)

    monkeypatch.setattr(Examiner, "scan", fails)
    found = run()
    assert found.counts("posts") == {"missing": 1}
    told = "posts was not swept; only recent writes were compared: Firestore could not be read"
    assert found.alerts[0] == f"{told}; trigger reconcile_dual_writes with scope = sweep"
    examined, swept = one(
        target_dsn,
        "SELECT now() - examined_until, now() - swept_at FROM dualwrite.watermarks WHERE collection = 'posts'",
    )
    assert examined < timedelta(minutes=2)
    assert swept > timedelta(hours=24)
    monkeypatch.undo()
    assert len(run().alerts) == 1, "the sweep was still due"
    assert one(
        target_dsn, "SELECT now() - swept_at < interval '1 hour' FROM dualwrite.watermarks WHERE collection = 'posts'"
    )


def test_a_collection_that_nobody_selects_any_more_is_an_alert(world, target_dsn, run):
    """The age of its last look tells."""
    execute(
        target_dsn,
        "UPDATE dualwrite.watermarks SET examined_until = now() - interval '10 hours' WHERE collection = 'likes'",
    )
    execute(
        target_dsn, "UPDATE dualwrite.watermarks SET swept_at = now() - interval '100 hours' WHERE collection = 'likes'"
    )
    execute(target_dsn, "DELETE FROM dualwrite.watermarks WHERE collection = 'blocks'")
    found = run(collections=["posts"], unattended=True)
    assert [a.partition(". ")[0] for a in found.alerts] == [
        "No complete comparison in the last 6 hours (max_examined_age_hours): likes (10 h ago), blocks (never)",
        "No sweep in the last 72 hours (max_swept_age_hours): likes (100 h ago), blocks (never)",
    ]
    never = {"max_examined_age_hours": 0, "max_swept_age_hours": 0}
    assert run(collections=["posts"], unattended=True, **never).alerts == []
    assert run(collections=["posts"]).alerts == [], "a person who selects one knows that the others wait"
    assert run(unattended=True).alerts == []
