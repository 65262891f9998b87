"""What the files promise, and what verify sees of a live database that differs."""

from __future__ import annotations

import psycopg
import pytest

from dev import schema_snapshot as snapshot_maker
from dualwrite import migrations
from dualwrite.migrations import Step
from dualwrite.migrations.promise import Snapshot
from tests.databases import clone
from tests.migrating import execute, migrator, role, write


@pytest.fixture(params=["postgres_server", "postgres15_server"])
def dsn(request):
    """A database of before any migration, on Postgres 18 and on 15."""
    yield from clone(request.getfixturevalue(request.param), "phase1")


def _verified(dsn: str, steps: list[Step], snapshot: Snapshot | None = None) -> list[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return migrations.verify(connection, steps, snapshot)


CHANGES = {
    "a column's grant": (
        ["GRANT SELECT (title) ON drafts TO anon"],
        "public.drafts.title: anon may SELECT, promised nothing",
    ),
    "another role's grant": (
        ["GRANT SELECT, INSERT ON reviews TO other"],
        "public.reviews: other may INSERT, SELECT, promised nothing",
    ),
    "another role's column grant": (
        ["GRANT UPDATE (nps) ON reviews TO other"],
        "public.reviews.nps: other may UPDATE, promised nothing",
    ),
    "an owner that the API is a member of": (
        ["ALTER TABLE drafts OWNER TO anon"],
        "public.drafts: owner is anon, promised the migrating role",
    ),
    "a trigger": (
        [
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER quiet BEFORE INSERT ON drafts FOR EACH ROW EXECUTE FUNCTION f()",
        ],
        "public.drafts: trigger quiet is CREATE TRIGGER quiet BEFORE INSERT ON public.drafts FOR EACH ROW EXECUTE FUNCTION public.f(), "
        "promised none",
    ),
    "a view": (
        ["CREATE VIEW peek AS SELECT title FROM drafts"],
        "public.drafts: view public.peek reads it with its owner's rights, which no file promises",
    ),
    "use of the schema": (
        ["GRANT USAGE ON SCHEMA dualwrite TO anon"],
        "dualwrite: anon may USAGE, promised nothing",
    ),
    "a policy": (
        ["CREATE POLICY everyone ON drafts USING (true)"],
        "public.drafts: policy everyone is ALL to public using true check -, promised none",
    ),
    "a sequence's grant": (
        ["GRANT USAGE ON SEQUENCE dualwrite.runs_id_seq TO anon"],
        "dualwrite.runs_id_seq: anon may USAGE, promised nothing",
    ),
    "a table that is gone": (["DROP TABLE dualwrite.watermarks"], "dualwrite.watermarks: table missing"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_verify_sees(dsn, case):
    statements, line = CHANGES[case]
    steps = migrator(dsn).run()
    assert _verified(dsn, steps) == []
    with role(dsn, "other"):
        execute(dsn, *statements)
        assert line in _verified(dsn, steps)


def test_own_and_bypassing_roles_are_the_operators_affair(dsn):
    """Roles of the bundle, and those that bypass row-level security."""
    steps = migrator(dsn).run()
    grants = ["GRANT SELECT, INSERT ON drafts, dualwrite.runs TO {}", "GRANT USAGE ON SCHEMA dualwrite TO {}"]
    with role(dsn, "dualwrite_data"), role(dsn, "mover", "BYPASSRLS"):
        execute(dsn, *(g.format(name) for g in grants for name in ("dualwrite_data", "mover")))
        execute(dsn, "CREATE POLICY own ON drafts TO dualwrite_data USING (true)")
        assert _verified(dsn, steps) == []


def test_a_partitioned_tables_or_other_schemas_index_is_no_fault(dsn):
    steps = migrator(dsn).run()
    execute(
        dsn,
        "CREATE SCHEMA app",
        "CREATE TABLE app.parts (a INT) PARTITION BY LIST (a)",
        "CREATE TABLE app.part PARTITION OF app.parts FOR VALUES IN (1)",
        "CREATE INDEX parts_a ON ONLY app.parts (a)",
        "CREATE TABLE parts (a INT) PARTITION BY LIST (a)",
        "CREATE TABLE part PARTITION OF parts FOR VALUES IN (1)",
        "CREATE INDEX parts_a ON ONLY parts (a)",
    )
    assert _verified(dsn, steps) == []


@pytest.mark.parametrize("path", ["app", "''", '"$user"', "pg_catalog"])
def test_verify_says_the_same_whatever_the_roles_search_path_is(dsn, path):
    steps = migrator(dsn).run()
    execute(dsn, "CREATE SCHEMA app", "CREATE TABLE app.drafts (id INT)", "CREATE TABLE app.users (id INT)")
    execute(dsn, f"ALTER DATABASE {dsn.rsplit('/', 1)[1]} SET search_path = {path}")
    assert _verified(dsn, steps) == []


def test_a_global_default_privilege_reaches_no_table_of_ours(dsn):
    """One without IN SCHEMA holds in every schema, for tables and sequences."""
    execute(
        dsn,
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated, service_role",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO anon, authenticated, service_role",
    )
    steps = migrator(dsn).run()
    assert _verified(dsn, steps) == []
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT c.relname, r.name FROM pg_class c, unnest(ARRAY['anon', 'authenticated', 'service_role']) r (name) "
            "WHERE c.relnamespace = 'dualwrite'::regnamespace AND c.relkind IN ('r', 'S') "
            "AND CASE c.relkind WHEN 'r' THEN has_table_privilege(r.name, c.oid, 'SELECT') "
            "ELSE has_sequence_privilege(r.name, c.oid, 'USAGE') END"
        ).fetchall()
    assert rows == []


def test_a_default_privilege_that_reaches_a_later_table_is_seen(dsn, tmp_path, empty_dsn):
    write(tmp_path, "CREATE SCHEMA own;\nCREATE TABLE own.secrets (a INT);\n")
    snapshot = snapshot_maker.take(empty_dsn, [tmp_path], optional=None)
    execute(dsn, "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO anon")
    steps = migrator(dsn, tmp_path).run()
    assert _verified(dsn, steps, snapshot) == ["own.secrets: anon may SELECT, promised nothing"]


def test_of_an_apps_table_only_what_a_file_alters_is_promised(dsn, tmp_path, empty_dsn):
    write(
        tmp_path,
        "ALTER TABLE posts ADD COLUMN slug TEXT NOT NULL DEFAULT '';\nALTER TABLE posts DROP COLUMN engagement_score;\n"
        "CREATE UNIQUE INDEX posts_slug ON posts (slug) WHERE slug <> '';\nGRANT SELECT (slug) ON posts TO anon;\n"
        "CREATE VIEW titles WITH (security_invoker = true) AS SELECT id, title FROM posts;\n",
        "ALTER TABLE posts ALTER COLUMN slug SET DEFAULT 'none';\nDROP TABLE blocks;\n",
    )
    snapshot = snapshot_maker.take(empty_dsn, [tmp_path], optional=None)
    first = migrator(dsn, tmp_path, target_version="20260101000001").run()
    assert _verified(dsn, first, snapshot) == [], "a later file's promise isn't kept yet, and not expected"
    steps = migrator(dsn, tmp_path).run()
    execute(dsn, "ALTER TABLE posts ADD COLUMN of_the_app INT", "CREATE INDEX of_the_app ON posts (of_the_app)")
    assert _verified(dsn, steps, snapshot) == []
    execute(
        dsn,
        "ALTER TABLE posts ALTER COLUMN slug DROP NOT NULL, ADD COLUMN engagement_score INT, ALTER COLUMN slug SET DEFAULT ''",
        "DROP INDEX posts_slug",
        "REVOKE SELECT (slug) ON posts FROM anon",
        "ALTER VIEW titles RENAME COLUMN title TO name",
        "CREATE TABLE blocks (a INT)",
    )
    found = _verified(dsn, steps, snapshot)
    assert found == [
        "public.blocks: is there, promised to be dropped",
        "public.posts.engagement_score: type is integer, promised no such column",
        "public.posts.slug: type is text, promised text NOT NULL",
        "public.posts.slug: anon may nothing, promised SELECT",
        "public.posts.slug: default is ''::text, promised 'none'::text",
        "public.posts: index posts_slug missing (promised CREATE UNIQUE INDEX posts_slug ON public.posts USING btree (slug) WHERE "
        "(slug <> ''::text))",
        "public.titles.name: type is text, promised no such column",
        "public.titles.title: column missing (promised text)",
    ]


def test_a_file_that_the_snapshot_lacks_is_told_as_unverified(dsn, tmp_path):
    write(tmp_path, "CREATE TABLE t (a INT);\n")
    steps = migrator(dsn, tmp_path).run()
    assert _verified(dsn, steps) == ["20260101000001_t1: no snapshot.json says what it promises; run `make snapshot`"]


def test_the_files_that_change_the_web_client_tell_its_state(dsn):
    found = migrator(dsn, web_client="anon")
    steps = found.run()
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert migrations.build_report(connection, migrations.MigrationParams(), "r", [], [])["web_client"] == "closed"
        found.set_web_client()
        report = migrations.build_report(connection, migrations.MigrationParams(), "r", [], [])
    assert (report["web_client"], report["web_client_tables"]) == ("anon", ["public.drafts", "public.reviews"])
    execute(dsn, "REVOKE DELETE ON drafts FROM anon")
    assert _verified(dsn, steps) == [
        "public.drafts: anon may INSERT, SELECT, UPDATE, promised DELETE, INSERT, SELECT, UPDATE"
    ]
