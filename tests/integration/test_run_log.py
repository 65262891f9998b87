"""What `dualwrite.runs` keeps of a run, and what is read out of it, without the runs themselves."""

from __future__ import annotations

from datetime import UTC, datetime

from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.postgres.remembered import run_log

DAG = "reconcile_dual_writes"


def _record(connection, run_id: str, phase: str, *verdicts: Verdict, part: int = 0, **told) -> None:
    report = CollectionReport("posts", phase)
    for number, verdict in enumerate(verdicts):
        report.add(Finding(verdict, f"{verdict}{number}", "boards/b/posts/p"))
    for name, value in told.items():
        setattr(report, name, value)
    run_log.record(
        connection, report, dag_id=DAG, run_id=run_id, scope="recent", mode="off", window=None,
        started_at=datetime.now(UTC), part=part,
    )  # fmt: skip


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
