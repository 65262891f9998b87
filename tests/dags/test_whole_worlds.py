"""Whole apps through Airflow: their tables, their catalogs, and what their oracles say, which share no code with the product."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import psycopg
import pytest

from dev import airflow_home
from dev.run_dag import DagRun, run_dag
from dualwrite import settings
from tests.places import catalog as places_catalog
from tests.places.world import PLACES
from tests.plain import World, put
from tests.shop import catalog as shop_catalog
from tests.shop.world import SHOP


@pytest.mark.parametrize(("world", "module"), [(SHOP, shop_catalog), (PLACES, places_catalog)], ids=["shop", "places"])
def test_the_three_dags_lead_a_world_to_its_oracle(
    firestore, emulator, empty_dsn, home, warm_airflow, world: World, module: ModuleType
):
    """From an export with gaps, through edits and lost writes, to rows that equal what the oracle says of the documents."""
    environment = airflow_home.environment(home, emulator=emulator, project=firestore.project, target=empty_dsn)
    environment |= {settings.CATALOG: str(module.__file__)}

    def run(dag: str, **conf: Any) -> DagRun:
        return run_dag(environment, dag, conf, python=warm_airflow)

    def execute(*files: str) -> None:
        with psycopg.connect(empty_dsn) as connection:
            for file in files:
                connection.execute(world.sql(file))

    execute("schema", "export")
    documents = world.documents()
    put(firestore, {}, documents)
    migrated = run("apply_migrations", mode="apply")
    assert migrated.state == "success", migrated.log[-3000:]
    run("backfill_gap", mode="apply", scope="all", since=module.EXPORT_TIME.isoformat(), grace_seconds=0.5)
    wanted, filled = world.wanted(documents), world.rows(empty_dsn)
    of_documents = {n: {k: v for k, v in rows.items() if k in wanted.rows.get(n, ())} for n, rows in filled.items()}
    assert of_documents == {name: wanted.rows.get(name, {}) for name in world.queries}

    after = world.edits(documents)
    put(firestore, documents, after)
    execute("lost")
    wanted = world.wanted(after)
    repaired = wanted.after_repair(world.rows(empty_dsn))
    for _ in range(2):  # what waits for another row, or is still referenced, has its turn in the second
        last = run("reconcile_dual_writes", scope="sweep", repair="all", max_share=100, grace_seconds=1)
        if world.rows(empty_dsn) == repaired:
            break
    assert world.rows(empty_dsn) == repaired
    assert {c["collection"] for c in last.report["collections"]} == set(module.CATALOG.names)
