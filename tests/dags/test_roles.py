"""Every DAG as Airflow runs it, under the roles of sql/roles, set up by an administrator who is no superuser."""

from __future__ import annotations

import psycopg
import pytest

from dev import airflow_home, seed
from tests.roles import secured
from tests.support import one


@pytest.fixture(params=["postgres_server", "postgres15_server"])
def secured_target(request, firestore):
    """A target whose administrator has run sql/roles/migrations.sql; and a world, in Firestore."""
    world = seed.small()
    world.load_source(firestore)
    with secured(request.getfixturevalue(request.param), "supabase") as target:
        target.run("migrations.sql")
        yield target, world, request.param == "postgres_server"


@pytest.mark.timeout(900)  # up to five runs of Airflow's
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
    few = {
        "collections": ["users", "blocks"],
        "grace_seconds": 1,
    }  # all of them: tests/integration/postgres/test_roles.py
    if newest:
        run("backfill_gap", **few)
    run("backfill_gap", **few, mode="apply")
    with psycopg.connect(target.superuser) as connection:
        connection.execute("DELETE FROM blocks")
    run("reconcile_dual_writes", **few, scope="sweep", repair="all")
    assert one(target.superuser, "SELECT count(*) > 0 FROM blocks")
