"""A copy that a test has had is as new for the next one, or is dropped (tests/databases.py)."""

from __future__ import annotations

from contextlib import closing, contextmanager

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from tests.databases import MOST_TESTS, clone
from tests.kept import KeptTarget

ROWS = (
    "INSERT INTO public.users (id, created_at, updated_at) VALUES ('u1', now(), now())",
    "INSERT INTO dualwrite.watermarks (collection, examined_until, run_id) VALUES ('users', now(), 'r')",
)
SCHEMAS = (
    "CREATE TABLE public.another (id int)",
    "ALTER TABLE public.users ADD another int",
    "ALTER TABLE public.users DISABLE TRIGGER ALL",
    "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON public.users USING (true)",
    "GRANT SELECT ON public.users TO anon",
    "CREATE FUNCTION public.one() RETURNS int LANGUAGE sql RETURN 1",
    "REVOKE EXECUTE ON FUNCTION pg_catalog.now() FROM PUBLIC",
    "CREATE TYPE public.mood AS ENUM ('good')",
    "CREATE INDEX ON public.users (updated_at)",
    "DROP TABLE public.likes CASCADE",
    "CREATE SCHEMA another",
    "COMMENT ON TABLE public.users IS 'another'",
    "CREATE EXTENSION pg_trgm",
)


@contextmanager
def had(server: str):
    """A test's turn with a copy."""
    yield from clone(server, "migrated")


def content(dsn: str) -> dict[str, list]:
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'S') AND oid >= 16384 ORDER BY 1"
        ).fetchall()
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for (table,) in tables}


def test_rows_and_sequences_are_the_templates_again(postgres_server):
    with had(postgres_server) as first:
        new = content(first)
    with had(postgres_server) as dsn, psycopg.connect(dsn) as connection:
        assert dsn == first
        for statement in ROWS:
            connection.execute(statement)
        for (sequence,) in connection.execute("SELECT seqrelid::regclass::text FROM pg_sequence").fetchall():
            connection.execute("SELECT nextval(%s)", [sequence])
    with had(postgres_server) as dsn:
        assert dsn == first
        assert content(dsn) == new


@pytest.mark.parametrize("statement", SCHEMAS)
def test_one_with_another_schema_is_dropped(postgres_server, statement):
    with had(postgres_server) as changed, psycopg.connect(changed) as connection:
        connection.execute(statement)
    with had(postgres_server) as dsn:
        assert dsn != changed


def test_one_with_settings_of_its_own_is_dropped(postgres_server):
    with had(postgres_server) as changed, psycopg.connect(changed, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET statement_timeout = '1h'")
    with had(postgres_server) as dsn:
        assert dsn != changed


def test_one_that_somebody_is_connected_to_is_dropped(postgres_server):
    with had(postgres_server) as used:
        stays = psycopg.connect(used)
    with had(postgres_server) as dsn:
        assert dsn != used
    with pytest.raises(psycopg.OperationalError):
        stays.execute("SELECT 1")
    stays.close()


def test_none_serves_more_than_so_many_tests(postgres_server):
    names = set()
    for _ in range(MOST_TESTS + 1):
        with had(postgres_server) as dsn:
            names.add(dsn)
    assert len(names) == 2


def test_a_runs_connection_serves_the_next_tests_runs(postgres_server):
    """It knows the catalogs of the database by then: that is what a copy is kept for."""
    seen = []
    for _ in range(2):
        with had(postgres_server) as dsn, closing(KeptTarget(dsn, CATALOG)) as target:
            seen.append((dsn, target.connection.info.backend_pid))
    assert seen[0] == seen[1]
