"""A migration keeps the one transaction that it is applied in, whatever its file says; a dry run leaves nothing."""

from __future__ import annotations

import logging
import time

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.migrations.execution import FileTransaction
from dualwrite.migrations.locks import tried_again
from dualwrite.migrations.migrator import _DRY_RUN_SECONDS
from dualwrite.migrations.parser import Statement, split
from dualwrite.model.errors import MigrationError
from tests.databases import clone
from tests.migrating import NO_TRANSACTION, execute, migrator, role, states, transaction_pooler, write
from tests.refusals import coded
from tests.support import one

SECRET = "010-1234-5678"


@pytest.fixture(params=["postgres_server", "postgres15_server"])
def dsn(request):
    """A database of before any migration, on Postgres 18 and on 15."""
    yield from clone(request.getfixturevalue(request.param), "phase1")


ENDINGS = ("ABORT", "COMMIT", "END", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "PREPARE TRANSACTION 'x'",
           "abort /* in a comment */ work", "/* before */ Commit")  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mode", ["dry_run", "apply"])
def test_a_file_that_ends_its_transaction_is_refused_whole(phase1_dsn, tmp_path, ending, mode):
    write(tmp_path, f"CREATE TABLE before_it (a INT);\n{ending};\nCREATE TABLE after_it (a INT);\n")
    with pytest.raises(MigrationError, match=r"t1\.sql, line 2 begins or ends a transaction"):
        migrator(phase1_dsn, tmp_path, mode).run()
    assert one(phase1_dsn, "SELECT to_regclass('before_it') IS NULL AND to_regclass('after_it') IS NULL")


@pytest.mark.parametrize("ending", ["ABORT", "COMMIT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"])
def test_each_statement_must_leave_the_same_transaction(dsn, ending):
    """Had the rules let such a statement through, the file would still not be taken for applied. Postgres is asked
    after each."""
    statements = [Statement(1, "CREATE TABLE one ()"), Statement(2, ending), Statement(3, "CREATE TABLE two ()")]
    with postgres.connect(dsn) as connection:
        with (
            pytest.raises(MigrationError, match=r"f\.sql, line 2", check=coded("migration-ended-transaction")),
            connection.transaction(),
        ):
            FileTransaction(connection, lock_timeout=1, statement_timeout=10).execute_file("f.sql", statements)
        assert connection.execute("SELECT to_regclass('two') IS NULL").fetchone() == (True,)


@pytest.mark.parametrize("mode", ["dry_run", "apply"])
def test_a_second_command_in_a_statement_is_refused_by_postgres(dsn, mode):
    """A split that went wrong is an error, never a COMMIT in silence."""
    hidden = Statement(1, "CREATE TABLE one (); COMMIT; CREATE TABLE two ()")
    with postgres.connect(dsn) as connection:
        with pytest.raises(MigrationError, match="SyntaxError 42601"), connection.transaction():
            FileTransaction(connection, lock_timeout=1, statement_timeout=10).execute_file("f.sql", [hidden])
        assert connection.execute("SELECT to_regclass('one') IS NULL").fetchone() == (True,)


SESSIONS = {
    "a pg_dump header": "SET statement_timeout = 0;",
    "pg_dump's search path": "SELECT pg_catalog.set_config('search_path', '', false);",
    "for the session": "SET SESSION search_path = app;",
    "a role": "SET ROLE anon;",
    "an authorization": "SET SESSION AUTHORIZATION anon;",
    "a reset": "RESET lock_timeout;",
    "discard": "DISCARD ALL;",
    "inside a DO": "DO $$ BEGIN PERFORM 1; SET search_path = app; END $$;",
    "a function inside a DO": "DO $$ BEGIN PERFORM set_config('lock_timeout', '0', false); END $$;",
}


@pytest.mark.parametrize("case", SESSIONS)
def test_a_change_of_the_session_is_refused_with_file_and_line(phase1_dsn, tmp_path, case):
    write(tmp_path, f"-- a comment\n{SESSIONS[case]}\n")
    with pytest.raises(MigrationError, match=r"t1\.sql, line 2 changes the session"):
        migrator(phase1_dsn, tmp_path).run()


def test_what_is_set_for_the_transaction_reaches_no_other_file(dsn, tmp_path):
    """It is let through."""
    write(
        tmp_path,
        "SET LOCAL search_path = app;\nSELECT set_config('work_mem', '1MB', true);\n"
        "SET CONSTRAINTS ALL IMMEDIATE;\nCREATE SCHEMA app;\nCREATE TABLE first (a INT);\n",
        "CREATE TABLE second (a INT);\nUPDATE second SET a = 1;\nALTER TABLE second SET (fillfactor = 70);\n"
        "CREATE FUNCTION f() RETURNS INT LANGUAGE sql SET search_path = public AS 'SELECT 1';\n",
    )
    for mode in ("dry_run", "apply"):
        migrator(dsn, tmp_path, mode).run()
    assert one(dsn, "SELECT to_regclass('app.first') IS NOT NULL AND to_regclass('public.second') IS NOT NULL")


def test_after_a_migration_a_poolers_client_finds_its_tables(phase1_dsn, tmp_path):
    """Both go through a transaction pooler."""
    files = tmp_path / "files"
    files.mkdir()
    write(files, "SELECT pg_catalog.set_config('search_path', '', false);\n")
    with transaction_pooler(phase1_dsn, tmp_path) as pooled:
        with pytest.raises(MigrationError, match="changes the session"):
            migrator(pooled, files).run()
        write(files, "SET LOCAL search_path = pg_catalog;\nCREATE TABLE public.new (a INT);\n")
        assert states(migrator(pooled, files).run()) == ["applied"]
        for _ in range(8):
            assert one(pooled, "SELECT count(*) FROM posts") == 0


@pytest.mark.parametrize("mode", ["dry_run", "apply"])
def test_a_file_cannot_switch_giving_way_off(phase1_dsn, tmp_path, mode):
    write(tmp_path, "SET LOCAL lock_timeout = 0;\nALTER TABLE posts ADD COLUMN slug TEXT;\n")
    with psycopg.connect(phase1_dsn) as holder:
        holder.execute("SELECT * FROM posts")
        began = time.monotonic()
        with pytest.raises(MigrationError, match="within 1 s", check=coded("locks-not-got")):
            migrator(phase1_dsn, tmp_path, mode, lock_timeout=0.3, wait_for_lock=1).run()
    assert time.monotonic() - began < 15


LEAKS = {
    "a cast": "SELECT phone_number::bigint FROM users;",
    "a raised exception": "DO $$ BEGIN RAISE EXCEPTION 'person %', (SELECT phone_number FROM users); END $$;",
    "a raised detail and constraint": "DO $$ DECLARE p text := (SELECT phone_number FROM users); BEGIN "
    "RAISE EXCEPTION USING ERRCODE = '23505', MESSAGE = p, DETAIL = p, HINT = p, CONSTRAINT = p, COLUMN = p; END $$;",
    "a notice before the failure": "DO $$ BEGIN RAISE WARNING 'person %', (SELECT phone_number FROM users); END $$;\nSELECT 1/0;",
    "a unique index": "CREATE UNIQUE INDEX phone ON users (phone_number);",
    "a deferred trigger": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', NEW.phone_number; END $$;\n"
    "CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f();\n"
    "UPDATE users SET bio = '';",
}  # fmt: skip


@pytest.mark.parametrize("case", LEAKS)
@pytest.mark.parametrize("mode", ["dry_run", "apply"])
def test_a_failure_tells_condition_file_and_line_and_no_content(dsn, tmp_path, caplog, capsys, case, mode):
    execute(dsn, *(f"INSERT INTO users (id, phone_number) VALUES ('{i}', '{SECRET}')" for i in ("a", "b")))
    if case != "a unique index":
        execute(dsn, "DELETE FROM users WHERE id = 'b'")
    write(tmp_path, LEAKS[case] + "\n")
    if (case, mode) == ("a deferred trigger", "dry_run"):
        assert states(migrator(dsn, tmp_path, mode).run()) == ["pending"], "it fails at a commit that never comes"
        return
    with caplog.at_level(logging.DEBUG), pytest.raises(MigrationError, match=r"t1\.sql") as failed:
        migrator(dsn, tmp_path, mode).run()
    told = str(failed.value) + caplog.text + "".join(capsys.readouterr()) + repr(failed.value.__cause__)
    assert SECRET not in told
    assert failed.value.__suppress_context__


# --- where names are found ------------------------------------------------------------------------------------------


def test_a_role_named_like_a_schema_still_makes_tables_in_public(dsn):
    grants = ("CREATE SCHEMA mover AUTHORIZATION mover", "GRANT ALL ON SCHEMA public TO mover",
              "GRANT REFERENCES ON users, boards TO mover", f"GRANT CREATE ON DATABASE {dsn.rsplit('/', 1)[1]} TO mover")  # fmt: skip
    with role(dsn, "mover", "", *grants) as mover:
        migrator(mover, web_client="anon").run()
        migrator(mover, web_client="anon").set_web_client()
        assert one(dsn, "SELECT to_regclass('public.drafts') IS NOT NULL AND to_regclass('mover.drafts') IS NULL")
        assert one(dsn, "SELECT has_table_privilege('anon', 'public.drafts', 'SELECT')")


# --- what a dry run can and can't try ---------------------------------------------------------------------------------


def test_a_dry_run_gives_its_locks_up_after_two_seconds(phase1_dsn, tmp_path):
    """It says what it did not try."""
    write(
        tmp_path,
        "ALTER TABLE posts ADD COLUMN slug TEXT;\nSELECT pg_sleep(20);\n",
        "CREATE TABLE later (a INT);\n",
    )
    began = time.monotonic()
    steps = migrator(phase1_dsn, tmp_path, "dry_run").run()
    assert time.monotonic() - began < _DRY_RUN_SECONDS + 5
    assert states(steps) == ["not_tried", "not_tried"]
    assert "had held its locks for 2 s" in steps[0].reason
    assert one(phase1_dsn, "SELECT count(*) FROM information_schema.columns WHERE column_name = 'slug'") == 0


def test_what_uses_an_earlier_files_enum_value_is_not_tried(dsn, tmp_path):
    """An apply succeeds."""
    execute(dsn, "CREATE TYPE mood AS ENUM ('good')")
    write(
        tmp_path,
        "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'better';\n",
        "CREATE TABLE moods (m mood DEFAULT 'better');\nINSERT INTO moods DEFAULT VALUES;\n",
        "CREATE TABLE later (a INT);\n",
    )
    steps = migrator(dsn, tmp_path, "dry_run").run()
    assert states(steps) == ["pending", "not_tried", "not_tried"]
    assert "enum value that an earlier file adds" in steps[1].reason
    assert states(migrator(dsn, tmp_path).run()) == ["applied"] * 3


def test_what_needs_a_concurrent_index_is_not_tried(dsn, tmp_path):
    """An apply succeeds."""
    write(
        tmp_path,
        "CREATE TABLE t (a INT NOT NULL);\n",
        f"{NO_TRANSACTION}CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a);\n",
        "ALTER TABLE t ADD CONSTRAINT t_a_key UNIQUE USING INDEX t_a;\n",
    )
    steps = migrator(dsn, tmp_path, "dry_run").run()
    assert states(steps) == ["pending", "not_tried", "not_tried"]
    assert "line 1: UndefinedObject 42704; it may need 20260101000002_t2" in steps[2].reason
    assert states(migrator(dsn, tmp_path).run()) == ["applied"] * 3


def test_a_syntax_error_after_an_untried_file_fails_a_dry_run(phase1_dsn, tmp_path):
    write(
        tmp_path,
        "CREATE TABLE t (a INT);\n",
        f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY t_a ON t (a);\n",
        "SELEC 1;\n",
    )
    with pytest.raises(MigrationError, match=r"t3\.sql, line 1: SyntaxError 42601"):
        migrator(phase1_dsn, tmp_path, "dry_run").run()


def test_the_lock_is_waited_for_again_after_a_deadlock(phase1_dsn):
    """What another try may cure is tried again; anything else goes through."""
    tries = []

    def work(watcher) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise postgres.errors.DeadlockDetected
        return "done"

    assert tried_again(lambda: postgres.connect(phase1_dsn), "x", 5, work) == "done"


def test_statements_that_hold_semicolons_run_on_both_servers(dsn, tmp_path):
    """A body in SQL, a rule, a dollar tag in another script, a CASE in a body, a lone carriage return."""
    (tmp_path / "20260101000001_t1.sql").write_bytes(
        "CREATE TABLE t (a INT);\n"
        "CREATE FUNCTION f(x INT) RETURNS INT LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN x > 0 THEN 1 ELSE 2 END; "
        "SELECT x; END;\n"
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (NEW.a); DELETE FROM u WHERE a = 0);\n"
        "DO $본문$ BEGIN PERFORM 1; END $본문$;\n"
        "-- a note\rINSERT INTO t VALUES (7);\n".replace("CREATE RULE", "CREATE TABLE u (a INT);\nCREATE RULE").encode()
    )
    assert states(migrator(dsn, tmp_path, "dry_run").run()) == ["pending"]
    assert states(migrator(dsn, tmp_path).run()) == ["applied"]
    assert one(dsn, "SELECT a FROM u") == 7
    assert one(dsn, "SELECT f(3)") == 3


def test_a_split_statement_is_what_postgres_reads(dsn):
    with postgres.connect(dsn) as connection:
        [statement] = split("SELECT 'a;' || E'\\';' || $x$;$x$ || U&'\\0041' /* ; /* ; */ */ -- ;\n;", "f.sql")
        assert connection.execute(statement.text, binary=True).fetchone() == ("a;';;A",)
