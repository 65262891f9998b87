"""The bundle as it is, with another app's files beside it: the settings name a catalog and a folder of migrations."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from dev import airflow_home, schema_snapshot
from dev.draft_catalog import draft
from dev.run_dag import run_dag
from dualwrite import settings
from tests import world2
from tests.databases import clone
from tests.support import one

WISHES = "CREATE TABLE shop.wishes (id TEXT PRIMARY KEY, said TEXT NOT NULL DEFAULT '');\n"
PARSE = """
import json, os
from airflow.dag_processing.dagbag import BundleDagBag
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
print("RESULT " + json.dumps({"errors": bag.import_errors, "dags": {n: list(d.task_dict) for n, d in bag.dags.items()}}))
"""


def _own(folder: Path, catalog: str) -> dict[str, str]:
    """A folder of the app's own files, and the settings that name them."""
    (folder / "migrations/local").mkdir(parents=True)
    (folder / "catalog.py").write_text(catalog)
    (folder / "migrations/20260301120000_wishes.sql").write_text(WISHES)
    (folder / "migrations/local/phase1.sql").write_text(world2.SCHEMA)
    return {settings.CATALOG: str(folder / "catalog.py"), settings.MIGRATIONS: str(folder / "migrations")}


def test_another_apps_files_beside_the_bundle_run_in_airflow(
    firestore, emulator, empty_dsn, home, warm_airflow, tmp_path: Path, monkeypatch, postgres_server
):
    """Not a line of the bundle is changed."""
    world2.load(firestore, empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        named = _own(tmp_path / "own", draft(firestore, connection, "shop"))
    with monkeypatch.context() as patched:
        for name, value in named.items():
            patched.setenv(name, value)
        for dsn in clone(postgres_server, "template1"):
            taken = schema_snapshot.take_own(dsn, Path(named[settings.MIGRATIONS]))
    (tmp_path / "own/migrations/snapshot.json").write_text(json.dumps(taken.as_json()))

    environment = airflow_home.environment(home, emulator=emulator, project=firestore.project, target=empty_dsn) | named
    migrated = run_dag(environment, "apply_migrations", {"mode": "apply"}, python=warm_airflow)
    assert migrated.state == "success", migrated.log[-3000:]
    assert one(empty_dsn, "SELECT count(*) FROM shop.wishes") == 0
    assert one(empty_dsn, "SELECT to_regclass('public.drafts')") is None, "it is the shipped app's"
    conf = {"mode": "apply", "scope": "all", "since": world2.EXPORTED.isoformat(), "grace_seconds": 0.5}
    filled = run_dag(environment, "backfill_gap", conf, python=warm_airflow)
    assert filled.state == "success", filled.log[-3000:]
    assert {c["collection"] for c in filled.report["collections"]} >= {"order_lines", "customer_store_roles"}
    assert one(empty_dsn, "SELECT count(*) FROM shop.order_lines") == 24
    green = run_dag(environment, "reconcile_dual_writes", {"grace_seconds": 1}, python=warm_airflow)
    assert green.state == "success", green.log[-3000:]


def _parsed(environment: dict[str, str], python) -> dict:
    done = python(["-c", PARSE], environment)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")] or [done.stderr[-3000:]]
    return json.loads(line.removeprefix("RESULT "))


@pytest.fixture
def environment(home) -> dict[str, str]:
    return airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")


def test_airflow_parses_the_three_dags_with_the_catalog_named(
    firestore, empty_dsn, environment, warm_airflow, tmp_path
):
    """A real parse of the folder, by the file's path."""
    world2.load(firestore, empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        named = _own(tmp_path / "own", draft(firestore, connection, "shop"))
    found = _parsed(environment | named, warm_airflow)
    assert found["errors"] == {}
    assert set(found["dags"]) == {"apply_migrations", "backfill_gap", "reconcile_dual_writes"}
    assert any("order_lines" in task for task in found["dags"]["backfill_gap"])
    assert not any("boards" in task for task in found["dags"]["backfill_gap"])


def test_a_bad_catalog_is_the_import_error_of_each_dag(environment, warm_airflow, tmp_path):
    """Nothing that the file holds is shown, not even in the traceback."""
    named = _own(tmp_path / "own", "\nSECRET = 'hunter2'\nint(SECRET)\n")
    found = _parsed(environment | named, warm_airflow)
    assert found["dags"] == {}
    assert len(found["errors"]) == 3
    for text in found["errors"].values():
        assert f"{tmp_path}/own/catalog.py, line 3, raised ValueError. Correct the file" in text
        assert "hunter2" not in text
        assert "SECRET" not in text


def test_the_doctor_says_what_is_wrong_with_the_catalog(environment):
    command = [sys.executable, "-m", "dualwrite.edge.doctor"]
    given = {**environment, "DUALWRITE_CATALOG": "/nowhere.py", "PYTHONPATH": str(airflow_home.ROOT / "dags")}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "TO DO  catalog: DUALWRITE_CATALOG names a module or a Python file: /nowhere.py is no file." in done.stdout
    assert "Traceback" not in done.stderr


BOTH = """
import json, os, sys
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
sys.path.insert(0, folder)
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(folder, bundle_path=folder, bundle_name=os.environ["BUNDLE"])
from dualwrite import settings
from dualwrite.edge import assets, connections
found = {
    "dags": list(bag.dags),
    "assets": sorted(a.name for a in (assets.PARITY, assets.PARITY_IF_EQUAL, assets.GREEN, assets.GREEN_IF_COMPARED)),
    "outlets": sorted({o.name for d in bag.dags.values() for t in d.tasks for o in t.outlets}),
    "connections": [connections.SOURCE_CONNECTION, connections.TARGET_CONNECTION, connections.MIGRATIONS_CONNECTION],
    "pools": sorted({t.pool for d in bag.dags.values() for t in d.tasks}),
    "texts": "\\n".join(d.doc_md for d in bag.dags.values()),
    "collections": [t for d in bag.dags.values() for t in d.task_dict if t.startswith("collections.")],
}
print("RESULT " + json.dumps({"errors": bag.import_errors, "found": found}))
"""


def test_two_bundles_in_one_airflow_share_no_name(firestore, empty_dsn, environment, warm_airflow, tmp_path):
    """Two checkouts with a file of settings each, in one environment. Each is parsed in a process of its own, as Airflow does."""
    world2.load(firestore, empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        drafted = draft(firestore, connection, "shop")
    found = {}
    for name, prefix in (("first", ""), ("second", "shop")):
        root = tmp_path / name
        shutil.copytree(airflow_home.ROOT / "dags", root / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "catalog.py").write_text(drafted)
        own = f'prefix = "{prefix}"\ncatalog = "catalog.py"\nsource_pool = "shop_source"\ntarget_pool = "shop_target"\n'
        (root / settings.FILE).write_text(own if prefix else "")
        given = {"AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"), "BUNDLE": name, "PYTHONPATH": str(root / "dags")}
        done = warm_airflow(["-c", BOTH], environment | given)
        [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")] or [done.stderr[-3000:]]
        told = json.loads(line.removeprefix("RESULT "))
        assert told["errors"] == {}
        found[name] = told["found"]
    one, other = found["first"], found["second"]
    assert set(one["dags"]) == {"apply_migrations", "backfill_gap", "reconcile_dual_writes"}
    for names in ("dags", "assets", "connections"):
        assert other[names] == [f"shop_{name}" for name in one[names]]
    assert set(other["outlets"]) <= set(other["assets"])
    assert one["pools"] == ["default_pool"]
    assert other["pools"] == ["shop_source", "shop_target"]
    assert "Variable `shop_reconcile_repair`" in other["texts"]
    assert not re.search(
        r"(?<!shop_)\b(apply_migrations|backfill_gap|reconcile_dual|reconcile_<|dual_write_en)", other["texts"]
    )
    assert not set(one["collections"]) & set(other["collections"])


def test_a_prefixed_bundle_shares_a_target_with_another(firestore, emulator, empty_dsn, home, warm_airflow, tmp_path):
    """Nothing is asked of a name without the prefix, nor remembered in the other's schema, whose files Supabase's CLI has applied."""
    world2.load(firestore, empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        named = _own(tmp_path / "own", draft(firestore, connection, "shop"))
        connection.execute("CREATE SCHEMA supabase_migrations")
        connection.execute("CREATE TABLE supabase_migrations.schema_migrations (version text PRIMARY KEY)")
        for file in sorted((airflow_home.ROOT / "sql/migrations").glob("*.sql")):
            connection.execute(file.read_text())
            connection.execute("INSERT INTO supabase_migrations.schema_migrations VALUES (%s)", (file.name[:14],))
    plain = airflow_home.environment(home, emulator=emulator, project=firestore.project, target=empty_dsn)
    given = {re.sub("^AIRFLOW_CONN_", "AIRFLOW_CONN_SHOP_", name): value for name, value in plain.items()}
    given |= {settings.CATALOG: named[settings.CATALOG], settings.PREFIX: "shop"}
    migrated = run_dag(given, "shop_apply_migrations", {"mode": "apply"}, python=warm_airflow)
    assert migrated.state == "success", migrated.log[-3000:]
    conf = {
        "mode": "apply",
        "scope": "all",
        "since": world2.EXPORTED.isoformat(),
        "collections": ["stores", "customers"],
        "grace_seconds": 0.5,
    }
    ended = run_dag(given, "shop_backfill_gap", conf, python=warm_airflow)
    assert ended.state == "success", ended.log[-3000:]
    assert ended.report["dag_id"] == "shop_backfill_gap"
    run_dag(given, "shop_reconcile_dual_writes", {"grace_seconds": 1, "scope": "sweep"}, python=warm_airflow)
    remembered = "SELECT string_agg(DISTINCT dag_id, ' ' ORDER BY dag_id) FROM dualwrite_shop.runs"
    assert one(empty_dsn, remembered) == "shop_backfill_gap shop_reconcile_dual_writes"
    with psycopg.connect(empty_dsn) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'dualwrite'").fetchall()
    assert {one(empty_dsn, f"SELECT count(*) FROM dualwrite.{table}") for (table,) in tables} == {0}
