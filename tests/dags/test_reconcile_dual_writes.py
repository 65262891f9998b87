"""reconcile_dual_writes as Airflow runs it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import unquote

import psycopg
import pytest

from dev import seed
from dualwrite.catalog import CATALOG
from dualwrite.model.choices import STAGES
from tests.support import examine_all, gap_run, one, table_bytes, verify_all
from tests.worlds import club

QUICK = {"grace_seconds": 1}


@pytest.fixture
def world(firestore, emulator, target_dsn):
    """A world whose gap was backfilled and verified, so that what can't become a row is known to be open."""
    world = seed.small()
    with psycopg.connect(target_dsn) as connection:
        world.load_target(connection)
    world.load_source(firestore)
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        verify_all(run)
    return world


def _post(firestore, name: str) -> None:
    board = next(firestore.collection("boards").limit(1).stream()).id
    user = next(firestore.collection("users").limit(1).stream()).id
    now = datetime.now(UTC)
    firestore.document(f"boards/{board}/posts/{name}").set(
        {
            "title": "t",
            "content": "never to be seen in a log",
            "authorId": user,
            "authorName": "n",
            "createdAt": now,
            "updatedAt": now,
        }
    )


def test_drift_fails_the_run_a_repair_mends_it_the_next_is_green(world, firestore, target_dsn, run_dag):
    def run(**conf):
        base = {"AIRFLOW__API__BASE_URL": "http://airflow.example.org"}
        return run_dag("reconcile_dual_writes", {**QUICK, **conf}, project=firestore.project, dsn=target_dsn, **base)

    accepted = run(excuse=[f"{c.name}:*" for c in CATALOG], excuse_reason="looked at: broken since 2024")
    assert accepted.state == "success", accepted.log[-3000:]
    assert f"[info ] {accepted.report['verdict']}" in accepted.said, "again at the end, from which Airflow shows a log"
    _post(firestore, "lost")
    before = table_bytes(target_dsn)
    drifted = run()
    assert drifted.state == "failed"
    assert table_bytes(target_dsn) == before, "a run without repair writes nothing"
    assert "posts: 1 missing since" in drifted.said
    assert "(1 never_attempted); trigger reconcile_dual_writes with repair = missing" in drifted.said
    conf = drifted.said.partition("/plugin/parity?conf=")[2].partition(" ")[0]
    assert json.loads(unquote(conf)) == {"repair": "missing", "collections": ["posts"]}, (
        "the link opens the form as it is to be sent"
    )
    assert [a["press"]["conf"] for a in drifted.report["alerts"]] == [json.loads(unquote(conf))]
    table, alert = drifted.log.index("never_attempted  "), drifted.log.rindex("This run fails:")
    assert table < alert, "the alert stands last"
    assert "Traceback" not in drifted.log[alert:]
    assert {t for t, s in drifted.tasks.items() if s == "failed"} == {"report"}
    mended = run(repair="missing")
    assert mended.state == "success", mended.log[-3000:]
    assert mended.tasks == {**dict.fromkeys(STAGES, "success"), "sweep_slices": "skipped"}
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'lost'") == 1
    green = run()
    assert green.state == "success"
    assert green.report["open"] == [line for line in green.report["open"] if line["excused"]]
    assert len(green.report["history"]) == 4
    assert all("never to be seen" not in r.log for r in (drifted, mended, green))
    assert all("Returned value was" not in r.log for r in (drifted, mended, green)), "a log is for people"


@pytest.mark.timeout(900)  # three runs
def test_parity_is_announced_only_where_databases_are_equal(firestore, emulator, target_dsn, run_dag, home):
    """Others schedule on it. A green run may have excused rows that are missing: that is another asset."""

    def announced(**conf) -> tuple[str, list[str]]:
        run = run_dag("reconcile_dual_writes", {**QUICK, **conf}, project=firestore.project, dsn=target_dsn)
        with closing(sqlite3.connect(home / "airflow.db")) as airflow:
            events = airflow.execute(
                "SELECT a.name FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE e.source_run_id = ? ORDER BY 1",
                (run.run_id,),
            ).fetchall()
        return run.state, [name for (name,) in events]

    club(firestore, emulator, target_dsn)
    assert announced() == ("success", ["dual-write-green", "dual-write-parity"])
    _post(firestore, "lost")
    accepted = {"excuse": ["posts:lost"], "excuse_reason": "a test account"}
    assert announced(**accepted) == ("success", ["dual-write-green"])
    assert announced(scope="none") == ("success", []), "it compared nothing"
    assert announced(unexcuse=["posts:lost"]) == ("failed", [])


def test_dual_write_seems_off_fails_with_just_that_sentence(world, firestore, target_dsn, run_dag):
    for i in range(5):
        _post(firestore, f"p{i}")
    conf = {**QUICK, "collections": ["posts"], "repair": "missing"}
    run = run_dag("reconcile_dual_writes", conf, project=firestore.project, dsn=target_dsn)
    assert run.tasks == {
        **dict.fromkeys(STAGES, "success"),
        **dict.fromkeys(("repair", "sweep_slices"), "skipped"),
        "report": "failed",
    }
    assert "dual-write seems off: 5 documents were written since" in run.said
    assert run.state == "failed"
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p1'") == 0, "nothing is repaired meanwhile"
    off = run_dag(
        "reconcile_dual_writes", conf, project=firestore.project, dsn=target_dsn, AIRFLOW_VAR_DUAL_WRITE_ENABLED="false"
    )
    [posts] = [c for c in off.report["collections"] if c["collection"] == "posts"]
    assert posts["expected"] == 5
    assert "posts: 5 missing" not in off.said, "with the switch off, what is missing is expected"


def test_the_last_task_says_why_preflight_failed(firestore, target_dsn, run_dag):
    """Notifiers hang on `report`: "preflight did not pass" would send everybody to another log."""
    run = run_dag("reconcile_dual_writes", {}, project=firestore.project, dsn=target_dsn)
    assert run.state == "failed"
    assert {t for t, s in run.tasks.items() if s == "failed"} == {"preflight", "report"}
    why = "Collection users is empty in Firestore"
    assert f"Nothing was examined, because preflight did not pass: {why}" in run.said
    assert run.report["stopped"].startswith(f"Nothing was examined, because preflight did not pass: {why}")
    assert [a["text"] for a in run.report["alerts"]] == [run.report["stopped"]], (
        "the page and the run's tab show the sentence too"
    )
    assert "Traceback" not in run.log[run.log.rindex("This run fails:") :], "and nothing of Airflow's stands around it"


def test_a_run_that_was_cut_off_is_told_by_the_next_one(world, firestore, target_dsn, run_dag, home):
    """It leaves no report, and a callback that told of it would burn a core. The one after the next is quiet again."""
    conf = {**QUICK, "collections": ["blocks"]}

    def run(**more):
        return run_dag("reconcile_dual_writes", {**conf, **more}, project=firestore.project, dsn=target_dsn)

    first = run(excuse=[f"{c.name}:*" for c in CATALOG], excuse_reason="broken since 2024")
    assert first.state == "success", first.log[-3000:]
    cut_off = (
        "UPDATE task_instance SET state = 'skipped' WHERE run_id = ? AND task_id IN ('look_again', 'repair', 'report')"
    )
    with sqlite3.connect(home / "airflow.db") as airflow:  # as dagrun_timeout leaves it, after two hours
        airflow.execute(cut_off, (first.run_id,))
    told = run()
    assert told.state == "failed"
    [alert] = told.report["alerts"]
    assert alert["text"].startswith(f"run {first.run_id} was cut off without a report")
    assert run().state == "success"


@pytest.mark.timeout(900)  # four runs
def test_an_excuse_and_a_repair_by_key_list_who_did_what(world, firestore, target_dsn, run_dag, home):
    """The tasks that have nothing to do ask nobody; the list of what is open is left in XComs."""

    def run(**conf):
        return run_dag("reconcile_dual_writes", {**QUICK, **conf}, project=firestore.project, dsn=target_dsn)

    everything = [f"{c.name}:*" for c in CATALOG]
    run(scope="none", excuse=everything, excuse_reason="broken since 2024")
    for name in ("one", "two"):
        _post(firestore, name)
    run(collections=["posts"])
    mended = run(scope="none", repair="missing", keys=["posts:one"])
    assert mended.tasks == {**dict.fromkeys(STAGES, "success"), "sweep_slices": "skipped", "report": "failed"}
    assert [i["kind"] for i in mended.report["interventions"]] == ["repair", "excuse"]
    with closing(sqlite3.connect(home / "airflow.db")) as airflow:
        asked = "SELECT value FROM xcom WHERE run_id = ? AND key = 'open_0'"
        [(text,)] = airflow.execute(asked, (mended.run_id,)).fetchall()
    assert ("two" in text, "one" in text) == (True, False)
    undone = run(undo=mended.run_id, max_share=100)
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'one'") == 0
    assert undone.report["verdict"].startswith("Undone: 1 deleted.")
