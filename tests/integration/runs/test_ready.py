"""What a report says beyond its counts, on real databases: excuses, clean days, and whether reads may be switched."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dev import seed
from dev.live_app import LiveApp
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.migrations import migrator
from dualwrite.model.migration_params import MigrationParams
from tests.support import examine_all, gap_run, reconciled, verify_all

EVERYTHING = {"excuse": [f"{name}:*" for name in CATALOG.names], "excuse_reason": "broken since 2024"}


@pytest.fixture
def world(firestore, emulator, phase1_dsn):
    """A world whose gap was backfilled and verified, with an app that has written since."""
    made = seed.small()
    migrator.Migrator(lambda: postgres.connect(phase1_dsn), MigrationParams(mode="apply"), "setup").run()
    with psycopg.connect(phase1_dsn) as connection:
        made.load_target(connection)
    made.load_source(firestore)
    with gap_run(firestore.project, emulator, phase1_dsn) as run:
        examine_all(run, dry=False)
        verify_all(run)
    return made


def _lacking(report) -> set[str]:
    return {check["name"] for check in report["ready"]["checks"] if not check["ok"]}


def test_reads_may_be_switched_after_fourteen_clean_days(world, firestore, emulator, phase1_dsn):
    """They also take a sweep, and an excuse for what is rejected."""
    app = LiveApp(firestore, phase1_dsn)
    app.post()  # so that write_ops shows life
    app.close()
    first = reconciled(firestore.project, emulator, phase1_dsn, scope="sweep").report
    assert {"rejected", "clean"} <= _lacking(first)
    accepted = reconciled(firestore.project, emulator, phase1_dsn, scope="sweep", **EVERYTHING).report
    assert _lacking(accepted) == {"clean"}, accepted["ready"]
    assert accepted["excuses"], "who excused what, and why"
    assert {(e["by"], e["reason"]) for e in accepted["excuses"]} == {("a test", "broken since 2024")}
    assert accepted["verdict"].startswith("No difference is open: ")
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        for days in range(1, 14):  # the same runs, as if they had been there every day
            connection.execute(
                "INSERT INTO dualwrite.runs (dag_id, run_id, collection, phase, scope, mode, outcome, started_at, seconds, "
                "documents_read, billed_reads, examined, counts, inserted, updated, deleted, recorded_at) "
                "SELECT dag_id, run_id || %s, collection, phase, scope, mode, outcome, started_at, seconds, documents_read, "
                "billed_reads, examined, counts, inserted, updated, deleted, recorded_at - make_interval(days => %s) "
                "FROM dualwrite.runs WHERE run_id = (SELECT run_id FROM dualwrite.runs WHERE recorded_at > now() - "
                "make_interval(hours => 1) ORDER BY id DESC LIMIT 1)",
                (f"-{days}", days),
            )
    proved = reconciled(firestore.project, emulator, phase1_dsn, scope="sweep").report
    assert proved["clean_days"] == 14
    assert proved["ready"]["answer"] is True, proved["ready"]
    late = datetime.now(UTC) + timedelta(days=2)
    stale = reconciled(firestore.project, emulator, phase1_dsn, collections=["users"], now=late).report
    assert "swept" in _lacking(stale), "all other collections were swept two days before"


def test_drift_of_today_starts_the_count_of_clean_days_again(world, firestore, emulator, phase1_dsn):
    reconciled(firestore.project, emulator, phase1_dsn, scope="sweep", **EVERYTHING)
    app = LiveApp(firestore, phase1_dsn)
    app.lose_a_create()
    app.close()
    found = reconciled(firestore.project, emulator, phase1_dsn).report
    assert found["clean_days"] == 0
    assert {"drift", "clean"} <= _lacking(found)
    assert found["verdict"].startswith("1 difference is open: 1 missing.")


def test_the_demos_app_loses_one_write_after_another_once_told(world, firestore, phase1_dsn):
    """It writes on meanwhile."""
    app = LiveApp(firestore, phase1_dsn)
    stop, loses, lost = threading.Event(), threading.Event(), []

    def told(what: str) -> None:
        lost.append(what)
        if len(lost) == 2:
            stop.set()

    thread = threading.Thread(target=app.live, args=(stop, loses, 0.1, told))
    thread.start()
    stop.wait(5)
    assert lost == [], "it loses nothing before it is told to"
    loses.set()
    thread.join(timeout=60)
    app.close()
    assert len(set(lost)) == 2
    assert sum(app.written.values()) >= 2
