"""Under roles that may little: what is missing is named with its GRANT, and nothing is asked for that isn't needed."""

from __future__ import annotations

import psycopg
import pytest

from dualwrite import migrations, postgres
from dualwrite.catalog import CATALOG
from dualwrite.model.errors import MigrationError, PreflightError
from dualwrite.runs import backfill
from tests.databases import clone
from tests.migrating import NUMBER, execute, migrator, role, states, write
from tests.refusals import coded
from tests.support import examine_all, gap_run, one, verify_all


@pytest.fixture(params=["postgres_server", "postgres15_server"])
def dsn(request):
    """A database of before any migration, on Postgres 18 and on 15."""
    yield from clone(request.getfixturevalue(request.param), "phase1")


def test_verify_needs_no_more_than_to_connect(dsn):
    """Policies of schemas that the role can't use were cast to names of tables once."""
    steps = migrator(dsn).run()
    execute(
        dsn,
        "CREATE SCHEMA hidden",
        "CREATE TABLE hidden.t (a INT)",
        "ALTER TABLE hidden.t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON hidden.t USING (true)",
    )
    with role(dsn, "onlooker") as onlooker, psycopg.connect(onlooker, autocommit=True) as connection:
        assert migrations.verify(connection, steps) == []


def test_a_ledger_that_cant_be_read_is_named_not_taken_for_empty(dsn):
    migrator(dsn).run()
    with role(dsn, "onlooker") as onlooker, postgres.connect(onlooker) as connection:
        for grant in (
            "GRANT USAGE ON SCHEMA dualwrite TO onlooker;",
            "GRANT SELECT ON TABLE dualwrite.migrations TO onlooker;",
        ):
            with pytest.raises(MigrationError, check=coded("ledger-unreadable")) as refused:
                migrations.make_plan(connection, migrations.MigrationParams())
            assert grant in str(refused.value)
            execute(dsn, grant)
        execute(
            dsn,
            "CREATE SCHEMA supabase_migrations",
            "CREATE TABLE supabase_migrations.schema_migrations (version TEXT)",
        )
        with pytest.raises(MigrationError, match="GRANT USAGE ON SCHEMA supabase_migrations TO onlooker"):
            migrations.make_plan(connection, migrations.MigrationParams())
        execute(
            dsn,
            "GRANT USAGE ON SCHEMA supabase_migrations TO onlooker",
            "GRANT SELECT ON supabase_migrations.schema_migrations TO onlooker",
        )
        assert states(migrations.make_plan(connection, migrations.MigrationParams())) == ["applied"] * NUMBER


def test_a_ready_schema_needs_no_create_on_the_database(dsn):
    """An administrator made it."""
    grants = ("CREATE SCHEMA dualwrite AUTHORIZATION mover", "GRANT ALL ON SCHEMA public TO mover",
              "GRANT REFERENCES ON users, boards TO mover")  # fmt: skip
    with role(dsn, "mover", "", *grants) as mover:
        assert states(migrator(mover, mode="dry_run").run()) == ["pending"] * NUMBER
        assert states(migrator(mover).run()) == ["applied"] * NUMBER


def test_a_missing_create_on_the_database_is_named(dsn, tmp_path):
    write(tmp_path, "SELECT 1;\n")
    with role(dsn, "mover") as mover, pytest.raises(MigrationError, match="GRANT CREATE ON DATABASE .* TO mover;"):
        migrator(mover, tmp_path).run()


def test_another_role_that_holds_a_lock_is_named(dsn, tmp_path):
    """Without pg_read_all_stats the time of another role's transaction is null."""
    write(tmp_path, "ALTER TABLE mine ADD COLUMN b INT;\n")
    name = dsn.rsplit("/", 1)[1]
    grants = (
        f"GRANT CREATE ON DATABASE {name} TO mover",
        "CREATE TABLE mine (a INT)",
        "ALTER TABLE mine OWNER TO mover",
    )
    with role(dsn, "mover", "", *grants) as mover, psycopg.connect(dsn, application_name="the app") as holder:
        holder.execute("SELECT * FROM mine")
        with pytest.raises(MigrationError) as refused:
            migrator(mover, tmp_path, lock_timeout=0.5, wait_for_lock=2).run()
        assert f"Held by pid {holder.info.backend_pid}, role postgres, application the app" in str(refused.value)


# --- what a run of the other DAGs needs -----------------------------------------------------------------------------

_DATA = (
    "GRANT USAGE ON SCHEMA dualwrite TO mover",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, dualwrite TO mover",
)
MISSING = {
    "SELECT on one of ours": ("REVOKE SELECT ON dualwrite.watermarks FROM mover", "GRANT SELECT ON TABLE dualwrite.watermarks"),
    "INSERT on one of ours": ("REVOKE INSERT ON dualwrite.runs FROM mover", "GRANT INSERT ON TABLE dualwrite.runs"),
    "DELETE on the journal": (
        "REVOKE DELETE ON dualwrite.repair_journal FROM mover",
        "GRANT DELETE ON TABLE dualwrite.repair_journal",
    ),
    "USAGE on our schema": ("REVOKE USAGE ON SCHEMA dualwrite FROM mover", "GRANT USAGE ON SCHEMA dualwrite TO mover"),
    "INSERT and DELETE on the app's": (
        "REVOKE INSERT, DELETE ON users FROM mover",
        "GRANT INSERT, DELETE ON TABLE users TO mover",
    ),
    "USAGE on the app's schema": (
        "REVOKE USAGE ON SCHEMA public FROM public",
        "GRANT USAGE ON SCHEMA public TO mover",
    ),
    "USAGE on a sequence": (
        "CREATE SEQUENCE numbers; ALTER TABLE users ADD COLUMN number INT DEFAULT nextval('numbers')",
        "GRANT USAGE ON SEQUENCE public.numbers TO mover",
    ),
    "temporary tables": ("DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM public', current_database()); END $$",
                         "GRANT TEMPORARY ON DATABASE"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_preflight_names_each_grant_that_the_run_would_miss(firestore, emulator, target_dsn, case):
    """Before, it passed, and the run failed at the first comparison, write or record."""
    firestore.document("users/u1").set({})
    execute(target_dsn, "INSERT INTO users (id) VALUES ('u1')")
    change, grant = MISSING[case]
    with (
        role(target_dsn, "mover", "BYPASSRLS", *_DATA, change) as mover,
        gap_run(firestore.project, emulator, mover, mode="apply") as run,
        pytest.raises(PreflightError) as refused,
    ):
        backfill.preflight(run, by="a test")
    assert grant in str(refused.value)


def test_a_dry_run_writes_nothing_of_ours_and_needs_no_right_to(firestore, emulator, target_dsn):
    firestore.document("users/u1").set({})
    execute(target_dsn, "INSERT INTO users (id) VALUES ('u1')")
    grants = ("GRANT USAGE ON SCHEMA dualwrite TO onlooker",
              "GRANT SELECT ON ALL TABLES IN SCHEMA public, dualwrite TO onlooker")  # fmt: skip
    with (
        role(target_dsn, "onlooker", "BYPASSRLS", *grants) as onlooker,
        gap_run(firestore.project, emulator, onlooker, mode="dry_run") as run,
    ):
        assert backfill.preflight(run, by="a test")["preflight"]["role"] == "onlooker"
        assert set(examine_all(run, dry=True)) == set(CATALOG.names)
        for name in run.params.names:
            backfill.verify(run, name, counts_only=True)
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.runs") == 0


def test_a_dry_run_keeps_its_counts_alone_where_the_role_may(firestore, emulator, target_dsn):
    firestore.document("users/u1").set({})
    execute(
        target_dsn,
        "INSERT INTO users (id) VALUES ('u1')",
        "INSERT INTO dualwrite.repair_journal (run_id, collection, key, action, table_name, row_key, "
        "written_at, confirmed_at) VALUES ('r', 'users', 'u', 'insert', 'users', '[]', '2000-01-01', '2000-01-01')",
    )
    with gap_run(firestore.project, emulator, target_dsn, mode="dry_run", collections=["users"]) as run:
        backfill.preflight(run, by="a test")
        examine_all(run, dry=True)
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal") == 1, (
        "an old line is pruned by runs that write"
    )
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.runs") == 1
    with gap_run(firestore.project, emulator, target_dsn, mode="apply", collections=["users"]) as run:
        backfill.preflight(run, by="a test")
        assert verify_all(run)["users"]["verification"] == "verified"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal") == 0
