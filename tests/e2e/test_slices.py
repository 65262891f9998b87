"""Large collections through Airflow's own scheduler: several workers share one, and a small run stays as it is."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from tests.support import one

pytestmark = pytest.mark.timeout(2400)
SECONDS = 900
SLOWLY = {"slice_documents": 40, "max_reads_per_second": 10}
"""Each slice takes some seconds. Without a limit a worker may be through with one before the next worker has begun."""


def _instances(airflow, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200"
    found: list[dict[str, Any]] = airflow.api.call("GET", path)["task_instances"]
    return found


def _run(airflow, dag_id: str, **conf: Any) -> tuple[str, list[dict[str, Any]]]:
    run = airflow.api.trigger(dag_id, **conf)
    airflow.api.wait(dag_id, run, SECONDS)
    return run, _instances(airflow, dag_id, run)


def _of(instances: list[dict[str, Any]], task_id: str) -> list[dict[str, Any]]:
    return [i for i in instances if i["task_id"] == task_id]


def _side_by_side(instances: list[dict[str, Any]]) -> bool:
    return any(
        a["start_date"] < b["end_date"] and b["start_date"] < a["end_date"] for a, b in combinations(instances, 2)
    )


def test_several_workers_examine_and_verify_one_collection(airflow):
    conf = {"mode": "apply", "scope": "all", "collections": ["comments"], **SLOWLY, "grace_seconds": 0.5}
    run, instances = _run(airflow, "backfill_gap", **conf)
    for task_id in ("examine_slices", "verify_slices"):
        slices = _of(instances, task_id)
        assert {i["state"] for i in slices} == {"success"}, slices
        comments = [i["rendered_map_index"] for i in slices if i["rendered_map_index"].startswith("comments ")]
        assert len(comments) >= 2, "named by collection and interval"
        assert _side_by_side(slices), "LocalExecutor has four workers"
    [own] = _of(instances, "collections.comments")
    assert (own["state"], own["hostname"]) == ("skipped", ""), "its slices are its task; this one starts no process"
    report = airflow.api.report("backfill_gap", run)
    found = {(c["collection"], c["phase"]): c for c in report["collections"]}
    assert found["comments", "verify"]["outcome"] == "examined"
    left = {v: n for v, n in found["comments", "verify"]["counts"].items() if n}
    assert not left.keys() & {"missing", "stale", "extra"}, left
    documents = found["comments", "verify"]["source_count"]
    assert found["comments", "gap"]["documents_read"] == documents
    assert one(airflow.stack.target, "SELECT count(*) FROM dualwrite.looks") == 0


def test_several_workers_sweep_one_collection(airflow):
    conf = {"scope": "sweep", "collections": ["comments"], **SLOWLY, "grace_seconds": 1}
    before = one(airflow.stack.target, "SELECT now()")
    run, instances = _run(airflow, "reconcile_dual_writes", **conf)
    slices = _of(instances, "sweep_slices")
    assert len(slices) >= 2
    assert {i["state"] for i in slices} == {"success"}
    assert _side_by_side(slices)
    swept = one(airflow.stack.target, "SELECT swept_at FROM dualwrite.watermarks WHERE collection = 'comments'")
    assert swept >= before
    report = airflow.api.report("reconcile_dual_writes", run)
    [comments] = [c for c in report["collections"] if c["collection"] == "comments"]
    assert comments["scope"] == "sweep"


def test_a_run_of_small_collections_starts_no_more_processes(airflow):
    """Mapped over nothing, a task is skipped by the scheduler."""
    _, instances = _run(airflow, "reconcile_dual_writes", collections=["users"], grace_seconds=0)
    assert Counter(i["task_id"] for i in instances if i["hostname"]).keys() <= {
        "preflight", "compare", "grace", "look_again", "report",
    }  # fmt: skip
    assert {i["state"] for i in _of(instances, "sweep_slices")} == {"skipped"}
    _, instances = _run(airflow, "backfill_gap", collections=["users"], grace_seconds=0)
    for task_id in ("examine_slices", "verify_slices", "finish"):
        assert {(i["state"], i["hostname"]) for i in _of(instances, task_id)} == {("skipped", "")}, task_id
