"""A file outside a transaction: limited, repeatable, told truly, and refused where it can't be limited."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.migrations import MigrationParams, Migrator
from dualwrite.migrations.outside import limits, require_session
from dualwrite.migrations.picture import invalid_indexes
from dualwrite.model.errors import MigrationError
from tests.child_migrate import killed_at
from tests.databases import clone
from tests.migrating import NO_TRANSACTION, execute, migrator, states, transaction_pooler, write
from tests.refusals import coded
from tests.support import one


@pytest.fixture(params=["postgres_server", "postgres15_server"])
def dsn(request):
    """A database with a table of two equal rows, on Postgres 18 and on 15."""
    for uri in clone(request.getfixturevalue(request.param), "phase1"):
        execute(uri, "CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1), (1)")
        yield uri


def _index(folder: Path, statement: str, number: int = 1) -> None:
    (folder / f"2026010100000{number}_index.sql").write_text(f"{NO_TRANSACTION}{statement};\n")


REFUSED = {
    "a plain index": "CREATE INDEX i ON t (a)",
    "a change of a table": "ALTER TABLE t ADD COLUMN b INT",
    "data": "INSERT INTO t VALUES (2)",
    "a plain drop": "DROP INDEX i",
    "another change of a type": "ALTER TYPE mood RENAME TO moods",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_run_in_a_transaction_is_refused_outside(dsn, tmp_path, case):
    _index(tmp_path, REFUSED[case])
    with pytest.raises(MigrationError, match="line 2 needs no `-- dualwrite: no-transaction`"):
        migrator(dsn, tmp_path).run()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DROP INDEX CONCURRENTLY i", "Write DROP INDEX CONCURRENTLY IF EXISTS"),
        ("ALTER TYPE mood ADD VALUE 'x'", "Write ADD VALUE IF NOT EXISTS"),
        ("CREATE INDEX CONCURRENTLY ON t (a)", "an index without a name"),
        ("VACUUM FULL t", "Remove FULL"),
    ],
)
def test_a_statement_that_cant_be_repeated_is_refused(dsn, tmp_path, statement, why):
    """After a killed run it would be."""
    _index(tmp_path, statement)
    with pytest.raises(MigrationError, match=why):
        migrator(dsn, tmp_path).run()


@pytest.mark.parametrize(
    "statement", ["CREATE INDEX CONCURRENTLY i ON t (a)", "VACUUM t", "REINDEX TABLE CONCURRENTLY t"]
)
def test_what_cant_run_in_a_transaction_is_refused_beforehand(dsn, tmp_path, statement):
    """No file runs."""
    write(tmp_path, "CREATE TABLE first (a INT);\n", f"{statement};\n")
    with pytest.raises(MigrationError, match=r"t2\.sql, line 1 can't run in a transaction"):
        migrator(dsn, tmp_path).run()
    assert one(dsn, "SELECT to_regclass('first') IS NULL")


def test_all_that_needs_no_transaction_is_applied_and_recorded(dsn, tmp_path):
    execute(dsn, "CREATE TYPE mood AS ENUM ('good')", "CREATE INDEX old ON t (a)")
    for n, statement in enumerate(
        ("CREATE INDEX CONCURRENTLY i ON ONLY public.t (a)", "REINDEX INDEX CONCURRENTLY i", "VACUUM (ANALYZE) t",
         "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'better'", "DROP INDEX CONCURRENTLY IF EXISTS old"), 1,
    ):  # fmt: skip
        _index(tmp_path, statement, n)
    assert states(migrator(dsn, tmp_path).run()) == ["applied"] * 5
    assert one(dsn, "SELECT indisvalid AND to_regclass('old') IS NULL FROM pg_index WHERE indexrelid = 'i'::regclass")


def test_a_failed_file_outside_a_transaction_can_be_corrected(dsn, tmp_path):
    """It never finished, so its sha256 isn't held against it."""
    _index(tmp_path, "CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)")
    with pytest.raises(
        MigrationError, match=r"line 2: UniqueViolation 23505\. It ran outside a transaction, so an invalid"
    ):
        migrator(dsn, tmp_path).run()
    _index(tmp_path, "CREATE INDEX CONCURRENTLY t_a ON t (a)")
    assert states(migrator(dsn, tmp_path, "dry_run").run()) == ["interrupted"]
    assert states(migrator(dsn, tmp_path).run()) == ["applied"]
    assert one(dsn, "SELECT indisvalid AND NOT indisunique FROM pg_index WHERE indexrelid = 't_a'::regclass")
    assert states(migrator(dsn, tmp_path).run()) == ["applied"]


def test_a_failed_file_may_be_made_transactional_or_taken_back(dsn, tmp_path):
    _index(tmp_path, "CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)")
    with pytest.raises(MigrationError, match="UniqueViolation"):
        migrator(dsn, tmp_path).run()
    path = tmp_path / "20260101000001_index.sql"
    path.write_text("DROP INDEX t_a;\nCREATE INDEX t_a ON t (a);\n")
    assert states(migrator(dsn, tmp_path).run()) == ["applied"]
    assert one(dsn, "SELECT applied_at IS NOT NULL FROM dualwrite.migrations")

    _index(tmp_path, "CREATE UNIQUE INDEX CONCURRENTLY t_b ON t (a)", 2)
    with pytest.raises(MigrationError, match="UniqueViolation"):
        migrator(dsn, tmp_path).run()
    (tmp_path / "20260101000002_index.sql").unlink()
    assert states(migrator(dsn, tmp_path).run()) == ["applied"]


def test_an_index_of_the_file_as_it_was_is_not_the_corrected_one(dsn, tmp_path):
    """Killed after the build and before its record, and corrected then."""
    _index(tmp_path, "CREATE INDEX CONCURRENTLY t_a ON t (a)")
    assert killed_at(dsn, tmp_path, 2)
    _index(tmp_path, "CREATE INDEX CONCURRENTLY t_a ON t (a DESC)")
    with pytest.raises(MigrationError, match="t_a", check=coded("index-file-changed")):
        migrator(dsn, tmp_path).run()
    execute(dsn, "DROP INDEX CONCURRENTLY t_a")
    assert states(migrator(dsn, tmp_path).run()) == ["applied"]


def test_an_index_in_upper_case_is_dropped_and_built_again(dsn, tmp_path):
    execute(dsn, "CREATE SCHEMA app", "CREATE TABLE app.t (a INT)", "INSERT INTO app.t VALUES (1), (1)")
    for statement, table in (("T_A ON app.T", "app.t"), ('"T_b" ON "t"', "t")):
        folder = tmp_path / table
        folder.mkdir()
        number = 1 if table == "app.t" else 2
        if number == 2:
            _index(folder, "CREATE UNIQUE INDEX CONCURRENTLY T_A ON app.T (a)")
        _index(folder, f"CREATE UNIQUE INDEX CONCURRENTLY {statement} (a)", number)
        with pytest.raises(MigrationError, match="UniqueViolation"):
            migrator(dsn, folder).run()
        execute(dsn, f"DELETE FROM {table} WHERE ctid = (SELECT min(ctid) FROM {table})")
        assert states(migrator(dsn, folder).run()) == ["applied"] * number


def test_an_invalid_index_of_another_is_left_and_told(dsn, tmp_path):
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(dsn, "CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)")
    _index(tmp_path, "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_a ON t (a)")
    with pytest.raises(MigrationError, match='DROP INDEX CONCURRENTLY "public"."t_a"', check=coded("index-invalid")):
        migrator(dsn, tmp_path).run()
    assert one(dsn, "SELECT count(*) FROM pg_index WHERE indexrelid = 't_a'::regclass") == 1


def _holding(dsn: str) -> psycopg.Connection:
    """The app's transaction that an index build must wait for: it has written to the table."""
    holder = psycopg.connect(dsn, application_name="the app")
    holder.execute("INSERT INTO t VALUES (5)")
    return holder


def test_an_index_build_ends_at_its_limit_and_names_the_holder(dsn, tmp_path):
    """No read waits meanwhile."""
    _index(tmp_path, "CREATE INDEX CONCURRENTLY t_a ON t (a)")
    longest = 0.0
    ended = threading.Event()

    def read() -> None:
        nonlocal longest
        with psycopg.connect(dsn, autocommit=True) as app:
            while not ended.wait(0.05):
                began = time.monotonic()
                app.execute("SELECT count(*) FROM t")
                longest = max(longest, time.monotonic() - began)

    reader = threading.Thread(target=read)
    with _holding(dsn):
        reader.start()
        began = time.monotonic()
        try:
            with pytest.raises(MigrationError, match="2 s.*application the app", check=coded("locks-not-got")):
                migrator(dsn, tmp_path, wait_for_lock=2).run()
        finally:
            ended.set()
            reader.join()
        assert time.monotonic() - began < 20
    assert longest < 1.5
    assert states(migrator(dsn, tmp_path).run()) == ["applied"], "the half-built index is dropped and built again"


def test_a_statement_that_passes_its_deadline_is_ended(dsn, tmp_path):
    execute(dsn, "CREATE FUNCTION slow(INT) RETURNS INT LANGUAGE sql IMMUTABLE AS 'SELECT 1 FROM pg_sleep(30)'")
    _index(tmp_path, "CREATE INDEX CONCURRENTLY t_a ON t (slow(a))")
    began = time.monotonic()
    with pytest.raises(MigrationError, match=r"line 2: QueryCanceled 57014 \(it ran into statement_timeout.*outside a"):
        migrator(dsn, tmp_path, statement_timeout=1).run()
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("header", [NO_TRANSACTION, ""])
def test_a_migrations_statement_may_take_longer_than_others(dsn, tmp_path, header):
    execute(dsn, "CREATE FUNCTION slow(INT) RETURNS INT LANGUAGE sql IMMUTABLE AS 'SELECT 1 FROM pg_sleep(1.5)'")
    concurrently = "CONCURRENTLY" if header else ""
    (tmp_path / "20260101000001_index.sql").write_text(f"{header}CREATE INDEX {concurrently} t_a ON t (slow(a));\n")
    params = MigrationParams(mode="apply")
    found = Migrator(lambda: postgres.connect(dsn, answer_within=1), params, "run", among=[tmp_path])
    assert states(found.run()) == ["applied"]


def test_the_servers_short_timeout_ends_neither_build_nor_drop(dsn, tmp_path):
    """A build that died of it left an invalid index, whose DROP died the same way, for ever."""
    name = dsn.rsplit("/", 1)[1]
    execute(
        dsn,
        "CREATE FUNCTION slow(INT) RETURNS INT LANGUAGE sql IMMUTABLE AS 'SELECT 1 FROM pg_sleep(0.4)'",
        f"ALTER DATABASE {name} SET statement_timeout = '300ms'",
        f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '300ms'",
    )
    _index(tmp_path, "CREATE INDEX CONCURRENTLY t_a ON t (slow(a))")
    assert states(migrator(dsn, tmp_path).run()) == ["applied"]
    assert one(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass")


def test_the_sessions_settings_are_taken_back(dsn):
    """A pooler in session mode hands the session on to the next client."""
    settings = (
        "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), current_setting('search_path')"
    )
    with postgres.connect(dsn) as connection:
        before = connection.execute(settings).fetchone()
        with limits(connection, 1, 2):
            assert connection.execute(settings).fetchone() == ("1s", "2s", "public, extensions, pg_temp")
        with pytest.raises(MigrationError), limits(connection, 1, 2):
            raise MigrationError
        assert connection.execute(settings).fetchone() == before


def test_a_transaction_pooler_is_refused_before_any_file_runs(dsn, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    write(files, "CREATE TABLE first (a INT);\n")
    _index(files, "CREATE INDEX CONCURRENTLY t_a ON t (a)", 2)
    with transaction_pooler(dsn, tmp_path) as pooled:
        for mode in ("dry_run", "apply"):
            with pytest.raises(MigrationError, check=coded("pooler-in-transaction-mode")):
                migrator(pooled, files, mode).run()
        assert one(dsn, "SELECT to_regclass('first') IS NULL")
        marks = {one(pooled, "SELECT current_setting('dualwrite.session', true)") for _ in range(8)}
        assert marks <= {"", None}
    require_session(lambda: postgres.connect(dsn))


def test_an_index_that_is_being_built_is_not_called_invalid(dsn):
    """Not even by a role that sees no progress of it."""
    execute(dsn, "DROP ROLE IF EXISTS onlooker", "CREATE ROLE onlooker LOGIN")
    builder = threading.Thread(target=execute, args=(dsn, "CREATE INDEX CONCURRENTLY t_a ON t (a)"))
    try:
        with _holding(dsn), psycopg.connect(dsn.replace("postgres@", "onlooker@"), autocommit=True) as onlooker:
            builder.start()
            for _ in range(100):
                if one(dsn, "SELECT to_regclass('t_a') IS NOT NULL"):
                    break
                time.sleep(0.05)
            found = invalid_indexes(onlooker, ["public"])
            assert one(dsn, "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass")
        assert found == []
    finally:
        builder.join()
        execute(dsn, "DROP ROLE onlooker")
