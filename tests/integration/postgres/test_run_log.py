"""What `dualwrite.runs` keeps of a run, and what is read out of it, without the runs themselves."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.declaration import Catalog
from dualwrite.model.errors import IdentityError
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.model.windows import Window
from dualwrite.postgres.remembered import run_log
from dualwrite.postgres.target import Target
from dualwrite.runs.record import BaseRun, Limits, count_earlier_reads, phase
from tests.support import gap_run, one

DAG = "reconcile_dual_writes"


def _record(
    connection,
    run_id: str,
    phase: str,
    *verdicts: Verdict,
    part: int = 0,
    dag_id: str = DAG,
    excused: bool = False,
    **told,
) -> None:
    report = CollectionReport("posts", phase)
    for number, verdict in enumerate(verdicts):
        report.add(Finding(verdict, f"{verdict}{number}", "boards/b/posts/p", excused=excused))
    for name, value in told.items():
        setattr(report, name, value)
    work = run_log.Work(dag_id, run_id, "recent", "off", None, datetime.now(UTC), part=part)
    run_log.record(connection, report, work)


def test_the_history_tells_each_number_by_its_own_name(connection):
    seen = [
        verdict
        for verdict, number in (
            (Verdict.MISSING, 1), (Verdict.STALE, 2), (Verdict.EXTRA, 3), (Verdict.REJECTED, 4), (Verdict.IN_FLIGHT, 5),
        )
        for _ in range(number)
    ]  # fmt: skip
    _record(connection, "first", "compare", *seen, billed_reads=7)
    _record(connection, "first", "write", Verdict.MISSING, inserted=1, updated=2, deleted=3, billed_reads=1)
    _record(connection, "second", "compare", not_examined="TargetError")
    second, first = run_log.history(connection, DAG)
    assert (first["run_id"], second["run_id"]) == ("first", "second")
    del first["at"], second["at"]
    assert first == {
        "run_id": "first", "examined": 15, "missing": 1, "stale": 2, "extra": 3, "rejected": 4, "in_flight": 5,
        "written": 6, "billed": 8,
    }  # fmt: skip
    assert second == {"run_id": "second", "not_examined": 1}
    assert [run["run_id"] for run in run_log.history(connection, DAG, 1)] == ["second"]
    assert run_log.history(connection, "another_dag") == []


@pytest.mark.parametrize("verdict", [Verdict.MISSING, Verdict.STALE, Verdict.EXTRA, Verdict.REJECTED])
def test_what_a_person_excused_is_no_drift_of_its_day(connection, verdict):
    """Else one excused row would keep the fourteen clean days from ever being reached."""
    _record(connection, "excused", "compare", verdict, excused=True)
    run = dict(run_log.history(connection, DAG)[0])
    assert (run.get(str(verdict)), run["excused"]) == (None, 1)
    [today] = run_log.days(connection, DAG, 1)
    assert (today["clean"], today["not_clean"]) == (True, None)
    assert [clean for _, clean in run_log.clean_days(connection, DAG)] == [True]
    _record(connection, "open", "compare", verdict)
    [today] = run_log.days(connection, DAG, 1)
    drift = verdict is not Verdict.REJECTED
    assert (today["clean"], today["not_clean"]) == (not drift, ["open"] if drift else None)
    assert [clean for _, clean in run_log.clean_days(connection, DAG)] == [not drift]
    connection.execute("UPDATE dualwrite.runs SET counts = counts - 'excused'")  # as an earlier version left them
    assert dict(run_log.history(connection, DAG)[1])[str(verdict)] == 1


def test_a_retry_replaces_its_own_line_and_no_other_slices(connection):
    _record(connection, "run", "compare", Verdict.MISSING, billed_reads=5)
    _record(connection, "run", "compare", Verdict.MISSING, part=1, billed_reads=10)
    _record(connection, "run", "compare", Verdict.MISSING, part=2, billed_reads=20)
    _record(connection, "run", "compare", part=2, billed_reads=40)
    lines = connection.execute("SELECT slice, counts ->> 'missing' FROM dualwrite.runs ORDER BY slice").fetchall()
    assert [(number, int(missing or 0)) for number, missing in lines] == [(0, 1), (1, 1), (2, 0)]


def test_a_dry_run_keeps_its_counts_where_its_role_may(connection):
    assert run_log.can_record(connection)
    connection.execute("CREATE ROLE only_looks; GRANT USAGE ON SCHEMA dualwrite TO only_looks")
    try:
        connection.execute("GRANT SELECT, INSERT ON dualwrite.runs TO only_looks; SET ROLE only_looks")
        assert not run_log.can_record(connection), "a retry updates its line"
        connection.execute("RESET ROLE; GRANT UPDATE ON dualwrite.runs TO only_looks; SET ROLE only_looks")
        assert run_log.can_record(connection)
        connection.execute("RESET ROLE; REVOKE INSERT ON dualwrite.runs FROM only_looks; SET ROLE only_looks")
        assert not run_log.can_record(connection)
    finally:
        connection.execute("RESET ROLE; DROP OWNED BY only_looks; DROP ROLE only_looks")


# --- a phase of a run --------------------------------------------------------------------------------------------------------


LINE = ("SELECT outcome, mode, scope, slice, billed_reads, seconds, window_from, window_until, unattended, "
        "now() - started_at, (SELECT count(*) FROM dualwrite.watermarks) FROM dualwrite.runs")  # fmt: skip


@pytest.fixture
def run(firestore, emulator, target_dsn):
    with gap_run(firestore.project, emulator, target_dsn, scope="all") as opened:
        opened.source.count(Scan("posts", ()))  # before the phase: not its cost
        yield opened


def _keep(connection) -> None:
    connection.execute(
        "INSERT INTO dualwrite.watermarks (collection, examined_until, run_id) VALUES ('posts', now(), 'r')"
    )


def test_a_phase_keeps_what_it_found_with_its_line(run, target_dsn):
    report, window = (
        CollectionReport("posts", "gap"),
        Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    )
    with phase(run, report, mode="apply", window=window, part=3) as line:
        run.source.count(Scan("posts", ()))
        time.sleep(0.05)
        with line.kept() as connection:
            _keep(connection)
    outcome, mode, scope, part, billed, seconds, *times, unattended, ago, marks = one(target_dsn, LINE)
    assert (outcome, mode, scope, part, billed, times) == ("examined", "apply", "all", 3, 1, [window.start, window.end])
    assert (unattended, marks, report.billed_reads) == (False, 1, 1)
    assert 0.05 <= seconds == pytest.approx(report.seconds, abs=0.01)
    assert seconds <= ago.total_seconds() < 60


@pytest.mark.parametrize("kept", [False, True])
def test_a_phase_that_fails_keeps_nothing_and_says_so(run, target_dsn, kept):
    """Also one that fails within the transaction that keeps what it found."""
    report = CollectionReport("posts", "gap")

    def fails() -> None:
        with phase(run, report, mode="apply", window=None) as line:
            run.source.count(Scan("posts", ()))
            with line.kept() if kept else nullcontext() as connection:
                if connection is not None:
                    _keep(connection)
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert report.not_examined == "ZeroDivisionError"
    outcome, _mode, _scope, part, billed, *_, marks = one(target_dsn, LINE)
    assert (outcome, part, billed, marks) == ("not_examined", 0, 1, 0)


def test_a_phase_whose_counts_do_not_add_up_keeps_nothing(run, target_dsn):
    report = CollectionReport("posts", "gap", taken=1)

    def keeps() -> None:
        with phase(run, report, mode="apply", window=None) as line, line.kept() as connection:
            _keep(connection)

    with pytest.raises(IdentityError):
        keeps()
    assert one(
        target_dsn, "SELECT array_agg(outcome), (SELECT count(*) FROM dualwrite.watermarks) FROM dualwrite.runs"
    ) == (["not_examined"], 0)


def test_a_phase_that_is_not_logged_leaves_no_line(run, target_dsn):
    with (
        phase(run, CollectionReport("posts", "gap"), mode="apply", window=None, logged=False) as line,
        line.kept() as connection,
    ):
        _keep(connection)
    with (
        pytest.raises(ZeroDivisionError),
        phase(run, CollectionReport("posts", "gap"), mode="apply", window=None, logged=False),
    ):
        raise ZeroDivisionError
    assert one(
        target_dsn, "SELECT (SELECT count(*) FROM dualwrite.runs), (SELECT count(*) FROM dualwrite.watermarks)"
    ) == (0, 1)
    with phase(run, CollectionReport("posts", "gap"), mode="apply", window=None):
        pass
    assert one(target_dsn, "SELECT array_agg(outcome) FROM dualwrite.runs") == ["examined"], (
        "with nothing to keep, its line"
    )


def test_a_failure_that_can_not_be_recorded_is_told_as_it_was(run, target_dsn, caplog):
    """What took the disk or the connection takes the line too: the first error is the one that helps."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE dualwrite.runs RENAME TO elsewhere")
    with pytest.raises(ZeroDivisionError), phase(run, CollectionReport("posts", "gap"), mode="apply", window=None):
        raise ZeroDivisionError
    assert [
        m for m in caplog.messages if m.startswith("posts: its failure could not be recorded: UndefinedTable 42P01")
    ]


def test_threads_of_a_task_share_its_runs_cap(run, emulator, target_dsn):
    """What other tasks of the run have billed counts too, once; another run's reads don't."""
    limits = Limits.of(run.params.model_copy(update={"max_billed_reads": 100}))
    with postgres.connect(target_dsn) as connection, postgres.transaction(connection):
        _record(connection, run.run_id, "gap", billed_reads=20, dag_id=run.dag_id)
        _record(connection, "another", "gap", billed_reads=50, dag_id=run.dag_id)
    with (
        Source(run.source.project, emulator_host=emulator, budget=limits.budget) as one,
        Source(run.source.project, emulator_host=emulator, budget=limits.budget) as other,
    ):
        one.count(Scan("posts", ()))
        for source in (one, other):
            count_earlier_reads(replace(run, source=source, unlogged_reads=7))
            assert source.budget.spent == 20 + 7 + 1
        other.count(Scan("posts", ()))
        assert one.budget.spent == 20 + 7 + 1 + 1


def test_a_runs_columns_are_what_its_own_target_found_them_to_be(run):
    """A target that was opened for another catalog knows nothing of this one's."""
    assert run.catalog is run.target.catalog
    another = Catalog(CATALOG.collections)
    assert replace(run, declared=another).catalog is another


def test_all_that_a_task_opens_shares_its_limits(run, emulator, target_dsn):
    limits = Limits.of(run.params.model_copy(update={"max_reads_per_second": 7, "max_rows_per_second": 9}))

    def connected() -> Target:
        return Target(lambda: postgres.connect(target_dsn), CATALOG, limits.rows)

    with (
        Source(run.source.project, emulator_host=emulator, pace=limits.reads) as source,
        connected() as one,
        connected() as other,
    ):
        source.count(Scan("posts", ()))
        assert one.pressure is not other.pressure, "each connection slows down by itself"
    assert limits.reads.delay(700, 0.0) > 90, "seven a second"
    assert limits.rows.delay(900, 0.0) > 90, "nine a second"


def test_a_run_of_a_new_kind_is_attended_and_logged():
    """It says itself how much it looks at."""
    plain = BaseRun(None, None, CATALOG, "run")
    assert (plain.billed_before, plain.unattended) == (0, False)
    assert plain.logs(CollectionReport("posts", "gap")) is True
    with pytest.raises(NotImplementedError):
        plain.scope_of("posts", None)
