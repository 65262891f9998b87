"""Every DAG as Airflow runs it, under the roles of sql/roles, set up by an administrator who is no superuser."""

from __future__ import annotations

import psycopg
import pytest

from dev import airflow_home, seed
from dualwrite.catalog import CATALOG
from tests.roles import secured


@pytest.fixture(params=["postgres_server", "postgres15_server"])
def secured_target(request, firestore):
    """A target whose administrator has run sql/roles/migrations.sql; and a world, in Firestore."""
    world = seed.small()
    world.load_source(firestore)
    with secured(request.getfixturevalue(request.param), "supabase") as target:
        target.run("migrations.sql")
        yield target, world, request.param == "postgres_server"


@pytest.mark.timeout(900)  # up to eight runs of Airflow's
def test_every_dag_and_mode_runs_under_its_role(secured_target, firestore, run_dag):
    target, world, newest = secured_target
    connections = {"AIRFLOW_CONN_SUPABASE_MIGRATIONS": airflow_home.connection(target.migrations)}

    def run(dag_id: str, state: str = "success", **conf):
        found = run_dag(dag_id, conf, project=firestore.project, dsn=target.data, **connections)
        assert found.state == state, found.log[-3000:]
        assert "InsufficientPrivilege" not in found.log
        return found

    if newest:
        run("apply_migrations")
    run("apply_migrations", mode="apply")
    target.run("data.sql")
    with psycopg.connect(target.superuser) as connection:
        world.load_target(connection)
    everything = {"collections": list(CATALOG.names), "grace_seconds": 1}
    if newest:
        run("backfill_gap", **everything)
    excuse = {"excuse": [f"{name}:*" for name in CATALOG.names], "excuse_reason": "made so by this test"}
    run("backfill_gap", "failed", **everything, mode="apply")
    run("backfill_gap", **everything, mode="apply", **excuse)
    with psycopg.connect(target.superuser) as connection:
        connection.execute("DELETE FROM likes WHERE id = (SELECT min(id) FROM likes)")
    if newest:
        assert "1 missing" in run("reconcile_dual_writes", "failed", grace_seconds=1, scope="sweep").log
    run("reconcile_dual_writes", grace_seconds=1, scope="sweep", repair="all")
