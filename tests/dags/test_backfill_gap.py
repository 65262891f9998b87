"""backfill_gap as Airflow runs it."""

from __future__ import annotations

import re

import psycopg
import pytest

from dev import seed
from dualwrite.catalog import CATALOG
from tests.support import one, table_bytes

ALL = list(CATALOG.names)


@pytest.fixture
def world(firestore, target_dsn):
    world = seed.small()
    with psycopg.connect(target_dsn) as connection:
        world.load_target(connection)
    world.load_source(firestore)
    return world


def _task_states(run, *states: str) -> set[str]:
    return {task.removeprefix("collections.") for task, state in run.tasks.items() if state in states}


def test_the_default_run_shows_the_gap_of_the_seven(world, firestore, target_dsn, run_dag):
    """It writes nothing."""
    before = table_bytes(target_dsn)
    run = run_dag("backfill_gap", {}, project=firestore.project, dsn=target_dsn)
    assert run.state == "success"
    assert table_bytes(target_dsn) == before
    chosen = set(CATALOG.with_parents(CATALOG.default_selection))
    assert _task_states(run, "success") >= chosen
    assert _task_states(run, "skipped") >= set(CATALOG.names) - chosen
    assert run.report["added_parents"] == ["boards"]
    found = {c["collection"]: c for c in run.report["collections"] if c["phase"] == "gap"}
    assert set(found) == chosen
    for name, part in found.items():
        assert {v: n for v, n in part["counts"].items() if n} == dict(world.in_window[name])
    assert re.search(r"^collection +examined ", run.log, re.MULTILINE), "the log shows aligned columns"
    assert run.report["verdict"].startswith("An apply would write")
    assert f"[info ] {run.report['verdict']}" in run.said, "again at the end, from which Airflow shows a log"
    assert "| collection" not in run.log
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.runs WHERE run_id = %s", run.run_id) == 2 * len(chosen)


def test_an_apply_fails_until_each_rejection_is_excused(world, firestore, target_dsn, run_dag):
    conf = {"mode": "apply", "collections": ALL, "grace_seconds": 0.5}
    first = run_dag("backfill_gap", conf, project=firestore.project, dsn=target_dsn)
    assert first.state == "failed"
    assert "is not verified" in first.log
    assert _task_states(first, "failed") == {"report"}
    rejected = [
        f"{c['collection']}:{sample['key']}"
        for c in first.report["collections"]
        if c["phase"] == "verify"
        for sample in c["samples"].get("rejected", [])
    ]
    excuse = {"excuse": rejected, "excuse_reason": "known since the export"}
    second = run_dag("backfill_gap", {**conf, **excuse}, project=firestore.project, dsn=target_dsn)
    assert second.state == "success"
    assert all(c["verification"] == "verified" for c in second.report["collections"] if c["phase"] == "verify")
    assert sum(c["inserted"] + c["updated"] for c in second.report["collections"]) == 0
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.watermarks") == len(ALL)
    for document in world.documents.values():  # no content anywhere in what was logged
        for value in document.values():
            if isinstance(value, str) and len(value) > 30:
                assert value not in first.log
                assert value not in second.log


def test_a_review_that_nobody_answered_writes_nothing(world, firestore, target_dsn, run_dag):
    """It is no success."""
    before = table_bytes(target_dsn)
    conf = {"mode": "review", "collections": ["users"]}
    run = run_dag("backfill_gap", conf, project=firestore.project, dsn=target_dsn, marked="decision")
    assert table_bytes(target_dsn) == before
    assert run.state == "failed"
    assert "Nobody approved or rejected, so nothing was written" in run.said
    assert run.tasks["examine_for_review"] == "success"
    assert _task_states(run, "skipped") >= set(ALL)


def test_a_review_of_a_large_collection_is_examined_in_slices(world, firestore, target_dsn, run_dag):
    """Nobody answers here; what the approval would have shown is the return value of its task."""
    conf = {"mode": "review", "collections": ["comments"], "scope": "all", "slice_documents": 40}
    run = run_dag("backfill_gap", conf, project=firestore.project, dsn=target_dsn, marked="decision")
    assert run.tasks["review_slices"] == "success"
    assert run.tasks["examine_for_review"] == "success"
    missing = world.over_all["comments"]["missing"]
    assert missing > 0
    shown = run.returned["examine_for_review"]
    row = next(line for line in shown.splitlines() if line.startswith("| comments"))
    assert f" {missing} " in row
    assert f"the run has billed {run.report['billed_reads']:,} (" in shown, "its dry run is on the run's bill"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.runs") == 0, "what an approval shows is no run's work"


def test_the_slices_of_a_review_lie_within_the_runs_cap_together(world, firestore, target_dsn, run_dag):
    """Each of them alone would."""
    documents = sum(world.over_all["comments"].values())
    conf = {"mode": "review", "collections": ["comments"], "scope": "all", "slice_documents": 40}
    conf["max_billed_reads"] = documents
    run = run_dag("backfill_gap", conf, project=firestore.project, dsn=target_dsn, marked="decision")
    assert run.tasks["review_slices"] == "failed"
    assert f"A run bills at most max_billed_reads = {documents} reads" in run.said
    assert run.state == "failed"


def test_a_refused_parameter_fails_the_run_before_it_reads(world, firestore, target_dsn, run_dag):
    run = run_dag("backfill_gap", {"dry_run": False}, project=firestore.project, dsn=target_dsn)
    assert run.state == "failed"
    assert run.tasks["preflight"] == "failed"
    assert run.tasks["report"] == "failed", "a run whose preflight failed is no success"
    assert "Unknown parameter: dry_run" in run.log
    assert "Traceback" not in run.log.split("Unknown parameter")[0][-200:]


def test_without_the_bundles_schema_a_line_says_which_dag_to_run(firestore, phase1_dsn, run_dag):
    run = run_dag("backfill_gap", {}, project=firestore.project, dsn=phase1_dsn)
    assert run.state == "failed"
    assert "Run the DAG apply_migrations with mode=apply first." in run.log


def test_a_collection_not_examined_costs_no_other(world, firestore, target_dsn, run_dag):
    """It fails the run. A trigger of the target's own makes every insert of a comment end in a fault that is nobody's
    row's."""
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'out of it' USING ERRCODE = 'insufficient_privilege'; END $$"
        )
        connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON comments EXECUTE FUNCTION refuse()")
    conf = {"mode": "apply", "collections": ["comments", "likes"], "grace_seconds": 0.5}
    run = run_dag("backfill_gap", conf, project=firestore.project, dsn=target_dsn)
    assert run.state == "failed"
    found = {(c["collection"], c["phase"]): c for c in run.report["collections"]}
    assert found["comments", "gap"]["outcome"] == "not_examined"
    assert found["likes", "gap"]["outcome"] == "examined"
    assert found["likes", "gap"]["inserted"] > 0
    assert "comments was not examined" in run.said
    assert [a for a in run.report["alerts"] if a["text"].startswith("comments was not examined")], (
        "the run's tab says why"
    )
    assert "out of it" not in run.log, "what Postgres says may quote a row"
