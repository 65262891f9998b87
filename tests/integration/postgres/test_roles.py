"""Everything that the DAGs do runs under the roles of sql/roles, on every Postgres that is here; and what they can't do."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from dev import postgres_server, seed
from dualwrite import migrations, postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import op_log
from dualwrite.migrations.files import folders, list_folders
from dualwrite.migrations.verify import web_client_state
from dualwrite.model.errors import PreflightError
from dualwrite.runs import backfill
from tests.conftest import prepare
from tests.databases import administrated
from tests.roles import ADMINS, Secured, secured
from tests.support import apply, examine_all, gap_run, nonzero, one, reconciled, table_bytes, verify_all

VERSIONS = ("18", *sorted(path.parent.name for path in postgres_server.DEBIAN.glob("*/bin")))


@pytest.fixture(scope="module", params=VERSIONS)
def server(request) -> Iterator[str]:
    if request.param == "18":
        yield request.getfixturevalue("postgres_server")
        return
    with (
        postgres_server.server(binaries=postgres_server.DEBIAN / request.param / "bin") as uri,
        administrated(prepare(uri)),
    ):
        yield uri


@pytest.fixture(params=ADMINS)
def target(request, server) -> Iterator[Secured]:
    """A target whose administrator has run both files, with the migrations in between."""
    with secured(server, request.param) as found:
        found.run("migrations.sql")
        found.migrate()
        found.run("data.sql")
        yield found


@pytest.fixture
def world(firestore, target) -> seed.World:
    small = seed.small()
    small.load_source(firestore)
    with psycopg.connect(target.superuser) as connection:
        small.load_target(connection)
    return small


def test_the_migrations_role_plans_tries_applies_and_verifies(server):
    for admin in ADMINS:
        with secured(server, admin) as target:
            target.run("migrations.sql")
            files = len(list_folders(folders()))
            assert target.migrate("dry_run") == ["pending"] * files
            assert (
                one(target.superuser, "SELECT count(*) FROM pg_class WHERE relnamespace = 'dualwrite'::regnamespace")
                == 0
            )
            assert target.migrate() == ["applied"] * files
            target.run("data.sql")
            target.run("migrations.sql")  # data.sql closed the role
            with postgres.connect(target.migrations) as connection:
                steps = migrations.make_plan(connection, migrations.MigrationParams(mode="apply"))
                assert migrations.verify(connection, steps) == [], "what the role files grant is no difference"
            for web_client in ("anon", "closed"):
                params = migrations.MigrationParams(mode="apply", web_client=web_client)
                migrations.Migrator(lambda t=target: postgres.connect(t.migrations), params, "run").set_web_client()
                with postgres.connect(target.migrations) as connection:
                    assert web_client_state(connection) == web_client


def test_the_data_role_suffices_for_a_backfill_and_a_repair(world, target, firestore, emulator):
    """It finds, writes, verifies, reconciles and repairs."""
    before = table_bytes(target.superuser)
    with gap_run(firestore.project, emulator, target.data, mode="dry_run") as run:
        backfill.preflight(run, by="a test")
        dry = examine_all(run, dry=True)
    assert table_bytes(target.superuser) == before
    with gap_run(firestore.project, emulator, target.data) as run:
        backfill.preflight(run, by="a test")
        found = examine_all(run, dry=False)
        checked = verify_all(run)
    assert {n: nonzero(r["counts"]) for n, r in found.items()} == {n: dict(world.in_window[n]) for n in CATALOG.names}
    assert {n: nonzero(r["counts"]) for n, r in dry.items()} == {n: nonzero(r["counts"]) for n, r in found.items()}
    for name, check in checked.items():
        assert {v for v, n in check["counts"].items() if n} <= {"matching", "orphan", "duplicate", "rejected"}, name
    again = apply(firestore.project, emulator, target.data)
    assert sum(r["inserted"] + r["updated"] for r in again.values()) == 0

    like = one(target.superuser, "SELECT id FROM likes LIMIT 1")
    with psycopg.connect(target.superuser) as connection:
        connection.execute(
            "UPDATE posts SET title = 'changed behind the app''s back' WHERE id = (SELECT min(id) FROM posts)"
        )
        connection.execute("DELETE FROM likes WHERE id = %s", (like,))
        connection.execute(
            "INSERT INTO blocks (blocker_id, blocked_id) SELECT min(id), max(id) FROM users ON CONFLICT DO NOTHING"
        )
    mended = reconciled(firestore.project, emulator, target.data, scope="sweep", repair="all", max_share=100)
    assert mended.gate["problem"] is None
    assert mended.report["operations"]["total"] is not None, "write_ops is readable"
    assert one(target.superuser, "SELECT count(*) FROM likes WHERE id = %s", like) == 1
    assert one(target.superuser, "SELECT count(*) FROM posts WHERE title LIKE %s", "changed behind%") == 0


FORBIDDEN = {
    "dualwrite_data": {
        "make a table": "CREATE TABLE public.mine (a int)",
        "make one beside the bundle's": "CREATE TABLE dualwrite.mine (a int)",
        "make a schema": "CREATE SCHEMA mine",
        "change a table": "ALTER TABLE posts ADD COLUMN mine int",
        "switch row-level security off": "ALTER TABLE posts DISABLE ROW LEVEL SECURITY",
        "drop a table": "DROP TABLE likes",
        "empty a table": "TRUNCATE likes",
        "read a table that no collection has": "SELECT * FROM payments",
        "write an operation": "INSERT INTO write_ops (op_id) VALUES ('x')",
        "forget an operation": "DELETE FROM write_ops",
        "rewrite which migrations were applied": "DELETE FROM dualwrite.migrations",
        "make a role": "CREATE ROLE mine",
        "act as the migrations role": "SET ROLE dualwrite_migrations",
    },
    "dualwrite_migrations": {
        "read a person": "SELECT * FROM users",
        "write a person": "INSERT INTO users (id) VALUES ('x')",
        "delete a post": "DELETE FROM posts",
        "change a table of the app's": "ALTER TABLE posts ADD COLUMN mine int",
        "read a table that no collection has": "SELECT * FROM payments",
        "make a role": "CREATE ROLE mine",
        "act as the data role": "SET ROLE dualwrite_data",
    },
}


def _is_refused(dsn: str, statement: str) -> bool:
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def test_what_the_roles_can_not_do(target):
    target.run("migrations.sql")  # data.sql closed the role
    with psycopg.connect(target.superuser) as connection:
        connection.execute("CREATE TABLE payments (card text)")
    for role, statements in FORBIDDEN.items():
        dsn = target.data if role == "dualwrite_data" else target.migrations
        assert [what for what, statement in statements.items() if not _is_refused(dsn, statement)] == [], role
    with psycopg.connect(target.superuser) as connection:
        attributes = connection.execute(
            "SELECT bool_or(rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication) FROM pg_roles WHERE rolname LIKE 'dualwrite%%'",
        ).fetchone()
        connection.execute("DROP TABLE payments")
    assert attributes == (False,)


def test_no_role_becomes_another(target):
    """By SET ROLE, in one step or several, by a role of Postgres's own, or by the session's authorization."""
    target.run("migrations.sql")
    ours = ("anon", "authenticated", "service_role", "dualwrite_data", "dualwrite_migrations")
    with psycopg.connect(target.superuser) as connection:
        reached = connection.execute(
            "SELECT r.rolname, m.rolname FROM pg_roles r, pg_roles m WHERE r.rolname = ANY(%s) AND r.oid <> m.oid "
            "AND pg_has_role(r.oid, m.oid, 'MEMBER')",
            [list(ours)],
        ).fetchall()
        everybody = [name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()]
    assert reached == [], "any number of steps"
    for dsn, own in ((target.data, "dualwrite_data"), (target.migrations, "dualwrite_migrations")):
        for other in sorted({*everybody} - {own}):
            for statement in ("SET ROLE", "SET SESSION AUTHORIZATION"):
                assert _is_refused(dsn, f"{statement} {other}"), (own, statement, other)
            if other != "pg_database_owner":  # it takes no members at all
                assert _is_refused(dsn, f"GRANT {other} TO {own}"), (own, "GRANT", other)


def test_the_apps_roles_reach_nothing_of_the_bundles(target):
    """Neither a table, nor a column, a sequence or a function of the schema, whoever is asked for it."""
    with psycopg.connect(target.superuser) as connection:
        named = connection.execute(
            "SELECT format('SELECT * FROM dualwrite.%I', relname) FROM pg_class "
            "WHERE relnamespace = 'dualwrite'::regnamespace AND relkind IN ('r', 'v', 'm', 'S') UNION ALL "
            "SELECT format('SELECT %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'dualwrite'::regnamespace"
        ).fetchall()
    assert len(named) >= 9
    for role in ("anon", "authenticated", "service_role"):
        for (statement,) in named:
            with psycopg.connect(target.superuser) as connection:
                connection.execute(f"SET ROLE {role}")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


def test_the_files_may_be_run_again(target):
    for _ in range(2):
        target.run("migrations.sql")
        target.run("data.sql")


def test_a_role_that_may_only_look_passes_a_dry_run_alone(world, target, firestore, emulator):
    """It is refused an apply."""
    tables = ", ".join(c.table for c in CATALOG)
    with psycopg.connect(target.admin) as connection:
        connection.execute(f"REVOKE INSERT, UPDATE, DELETE ON {tables} FROM dualwrite_data")
    with gap_run(firestore.project, emulator, target.data, mode="dry_run") as run:
        backfill.preflight(run, by="a test")
        examine_all(run, dry=True)
    with gap_run(firestore.project, emulator, target.data) as run, pytest.raises(PreflightError, match="GRANT INSERT"):
        backfill.preflight(run, by="a test")


@pytest.fixture
def walled(target_dsn):
    """Two tables behind row-level security, seen by a role without BYPASSRLS."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE ROLE looker LOGIN")
        connection.execute("GRANT SELECT ON posts, write_ops TO looker")
    yield target_dsn
    with psycopg.connect(target_dsn) as connection:
        connection.execute("DROP OWNED BY looker")
        connection.execute("DROP ROLE looker")


@pytest.mark.parametrize(
    ("policies", "visible"),
    [
        ([], False),
        (["CREATE POLICY p ON {} TO looker USING (true)"], True),
        (["CREATE POLICY p ON {} USING (true)"], True),
        (["CREATE POLICY p ON {} FOR INSERT TO looker WITH CHECK (true)"], False),
        (["CREATE POLICY p ON {} TO looker USING (created_at > '2026-01-01')"], False),
        (
            ["CREATE POLICY p ON {} TO looker USING (true)", "CREATE POLICY q ON {} AS RESTRICTIVE USING (false)"],
            False,
        ),
    ],
)
def test_rows_are_visible_only_where_a_policy_shows_them_all(walled, policies, visible):
    with psycopg.connect(walled) as connection:
        for table in ("posts", "write_ops"):
            connection.execute(f"INSERT INTO write_ops (op_id) VALUES ('{table}')")
            for policy in policies:
                connection.execute(policy.format(table))
    with postgres.connect(walled.replace("postgres@", "looker@")) as connection:
        assert op_log.is_readable(connection) == visible
