"""The bundle with another app's catalog: a copy of dags/ and sql/ with two changes, the catalog and a migration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psycopg

from dev import airflow_home
from dev.draft_catalog import draft
from dev.run_dag import run_dag
from tests import world2
from tests.support import one


def test_the_bundle_with_a_drafted_catalog_runs_in_airflow(
    firestore, emulator, empty_dsn, home, warm_airflow, tmp_path: Path
):
    world2.load(firestore, empty_dsn)
    bundle = tmp_path / "bundle"
    for name in ("dags", "sql"):
        shutil.copytree(airflow_home.ROOT / name, bundle / name, ignore=shutil.ignore_patterns("__pycache__"))
    with psycopg.connect(empty_dsn) as connection:
        (bundle / "dags/dualwrite/catalog.py").write_text(draft(firestore, connection, "shop"))
    for file in (bundle / "sql/migrations").glob("*_add_drafts_reviews.sql"):  # it belongs to the first app
        file.unlink()
    snapshot = json.loads((bundle / "sql/snapshot.json").read_text())
    own = {name: part for name, part in snapshot["files"].items() if not name.endswith("_add_drafts_reviews")}
    (bundle / "sql/snapshot.json").write_text(json.dumps({"files": own, "optional": {}}))

    environment = airflow_home.environment(home, emulator=emulator, project=firestore.project, target=empty_dsn)
    environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(bundle / "dags")
    migrated = run_dag(environment, "apply_migrations", {"mode": "apply"}, python=warm_airflow)
    assert migrated.state == "success", migrated.log[-3000:]
    conf = {"mode": "apply", "scope": "all", "since": world2.EXPORTED.isoformat(), "grace_seconds": 0.5}
    filled = run_dag(environment, "backfill_gap", conf, python=warm_airflow)
    assert filled.state == "success", filled.log[-3000:]
    assert {c["collection"] for c in filled.report["collections"]} >= {"order_lines", "customer_store_roles"}
    assert one(empty_dsn, "SELECT count(*) FROM shop.order_lines") == 24
    green = run_dag(environment, "reconcile_dual_writes", {"grace_seconds": 1}, python=warm_airflow)
    assert green.state == "success", green.log[-3000:]
