"""Migrations on a real Postgres, in every bad state that we could think of."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest

from dev import postgres_server as server_module
from dev import schema_snapshot as snapshot_maker
from dualwrite import migrations, postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine.preflight import check
from dualwrite.firestore.source import Source
from dualwrite.migrations import MigrationParams, Migrator, picture
from dualwrite.migrations.promise import Snapshot
from dualwrite.migrations.verify import snapshot_path
from dualwrite.model.errors import MigrationError, ParameterError
from dualwrite.model.render import as_markdown
from dualwrite.postgres.target import Target
from tests.child_migrate import killed_at
from tests.migrating import NUMBER
from tests.refusals import coded

ROOT = Path(__file__).resolve().parents[3]


def _migrator(dsn: str, folder: Path | None = None, mode: str = "apply", **changes) -> Migrator:
    options = {} if folder is None else {"among": [folder]}
    return Migrator(lambda: postgres.connect(dsn), MigrationParams(mode=mode, **changes), "run", **options)


def _states(steps) -> list[str]:
    return [s.state for s in steps]


def _tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema IN ('public', 'dualwrite')"
        ).fetchall()
    return {name for (name,) in rows}


def _ledger(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [v for (v,) in connection.execute("SELECT version FROM dualwrite.migrations ORDER BY version")]


@pytest.fixture
def three(tmp_path) -> Path:
    """Three small migrations."""
    for n in (1, 2, 3):
        (tmp_path / f"2026010100000{n}_t{n}.sql").write_text(
            f"CREATE TABLE t{n} (a INT);\nINSERT INTO t{n} VALUES ({n});\n"
        )
    return tmp_path


def test_all_files_on_phase_1_give_what_the_catalog_declares(phase1_dsn, firestore, emulator):
    """Preflight holds the live tables against the whole catalog: tables, columns, types and unique keys."""
    _migrator(phase1_dsn).run()
    firestore.document("users/u").set({})
    with psycopg.connect(phase1_dsn) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u')")
    with (
        Source(firestore.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(phase1_dsn), CATALOG) as target,
    ):
        check(source, target, CATALOG, dict.fromkeys(CATALOG.names), writes=True)


def test_a_dry_run_executes_everything_and_leaves_nothing(phase1_dsn):
    before = _tables(phase1_dsn)
    assert _states(_migrator(phase1_dsn, mode="dry_run").run()) == ["pending"] * NUMBER
    assert _tables(phase1_dsn) == before


def test_an_apply_is_recorded_and_a_second_one_does_nothing(phase1_dsn):
    assert _states(_migrator(phase1_dsn).run()) == ["applied"] * NUMBER
    with psycopg.connect(phase1_dsn) as connection:
        rows = connection.execute(
            "SELECT version, name, length(sha256), applied_by, run_id FROM dualwrite.migrations"
        ).fetchall()
        assert ("20260115000000", "add_drafts_reviews", 64, "postgres", "run") in rows
        before = connection.execute("SELECT xmin::text, * FROM dualwrite.migrations ORDER BY version").fetchall()
        connection.commit()
        _migrator(phase1_dsn).run()
        assert (
            connection.execute("SELECT xmin::text, * FROM dualwrite.migrations ORDER BY version").fetchall() == before
        )


def test_the_drafts_and_reviews_tables_are_as_the_plan_says(phase1_dsn):
    _migrator(phase1_dsn).run()
    with psycopg.connect(phase1_dsn) as connection:
        live = picture.take_picture(connection, ["public.drafts", "public.reviews"])
    assert live["public.drafts"]["column"] == {
        "id": "text NOT NULL", "user_id": "text NOT NULL", "board_id": "text NOT NULL", "title": "text NOT NULL",
        "content": "text NOT NULL", "content_json": "jsonb", "saved_at": "timestamp with time zone NOT NULL",
    }  # fmt: skip
    assert "(user_id, board_id, saved_at DESC)" in live["public.drafts"]["index"]["idx_drafts_user_board"]
    assert live["public.reviews"]["constraint"]["reviews_board_id_reviewer_id_key"] == "UNIQUE (board_id, reviewer_id)"
    assert live["public.reviews"]["default"]["id"] == "(gen_random_uuid())::text"
    for table in live.values():
        assert table["row-level security"] == {"enabled": True}
        assert table["grant"] == {
            "anon": "nothing", "authenticated": "nothing", "public": "nothing", "service_role": "DELETE, INSERT, SELECT, UPDATE",
        }  # fmt: skip


@pytest.mark.parametrize("automatic_grants", [True, False])
def test_both_kinds_of_supabase_project_end_the_same(phase1_dsn, automatic_grants):
    """A project of before 30 October 2026 opens every new table to the anon key; a newer one closes it to everybody."""
    with psycopg.connect(phase1_dsn) as connection:
        if automatic_grants:
            connection.execute(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role"
            )
    steps = _migrator(phase1_dsn).run()
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        assert migrations.verify(connection, steps) == []


def test_the_committed_snapshot_is_current(empty_dsn):
    assert snapshot_maker.take(empty_dsn) == Snapshot.load(snapshot_path()), "run `make snapshot`"


def test_verify_lists_each_difference_in_a_line(phase1_dsn):
    steps = _migrator(phase1_dsn).run()
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        for statement in (
            "ALTER TABLE drafts ALTER COLUMN title DROP DEFAULT",
            "ALTER TABLE drafts DROP COLUMN content_json",
            "ALTER TABLE drafts DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE reviews ALTER COLUMN nps TYPE BIGINT",
            "ALTER TABLE reviews DROP CONSTRAINT reviews_board_id_reviewer_id_key",
            "DROP INDEX idx_drafts_user_board",
            "GRANT SELECT ON reviews TO authenticated",
            "DROP TABLE dualwrite.runs",
        ):
            connection.execute(statement)
        found = migrations.verify(connection, steps)
    for line in (
        "public.drafts.title: default missing (promised ''::text)",
        "public.drafts.content_json: column missing (promised jsonb)",
        "public.drafts: row-level security is off, promised on",
        "public.reviews.nps: type is bigint, promised integer",
        "public.reviews: constraint reviews_board_id_reviewer_id_key missing (promised UNIQUE (board_id, reviewer_id))",
        "public.reviews: authenticated may SELECT, promised nothing",
        "dualwrite.runs: table missing",
    ):
        assert line in found
    assert any(line.startswith("public.drafts: index idx_drafts_user_board missing") for line in found)


def test_the_web_client_is_let_in_or_shut_out_only_by_choice(phase1_dsn):
    def may(connection) -> tuple[bool, bool]:
        return connection.execute(
            "SELECT has_table_privilege('anon', 'drafts', 'INSERT'), has_table_privilege('anon', 'reviews', 'SELECT')"
        ).fetchone()

    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        for choice, expected in (("leave", False), ("anon", True), ("leave", True), ("closed", False)):
            migrator = _migrator(phase1_dsn, web_client=choice)
            steps = migrator.run()
            migrator.set_web_client()
            assert may(connection) == (expected, expected), choice
            assert migrations.verify(connection, steps) == []
        report = migrations.build_report(connection, MigrationParams(), "run", [s.as_json() for s in steps], [])
    assert "refused (42501)" in as_markdown(migrations.described(report))


def test_the_anon_key_can_upsert_a_draft_when_it_is_let_in(phase1_dsn):
    migrator = _migrator(phase1_dsn, web_client="anon")
    migrator.run()
    migrator.set_web_client()
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u'); INSERT INTO boards (id, title) VALUES ('b', 't')")
        connection.execute("SET ROLE anon")
        for title in ("one", "two"):
            connection.execute(
                "INSERT INTO drafts (id, user_id, board_id, title) VALUES ('d', 'u', 'b', %s) "
                "ON CONFLICT (id) DO UPDATE SET title = excluded.title",
                (title,),
            )
        assert connection.execute("SELECT title FROM drafts").fetchone() == ("two",)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_changed_applied_file_is_refused_and_nothing_runs(phase1_dsn, three):
    _migrator(phase1_dsn, three).run()
    (three / "20260101000002_t2.sql").write_text("SELECT 2;\n")
    (three / "20260101000004_t4.sql").write_text("CREATE TABLE t4 ();\n")
    with pytest.raises(MigrationError, match="20260101000002_t2: the file has changed.*Restore it as it was"):
        _migrator(phase1_dsn, three).run()
    assert "public.t4" not in _tables(phase1_dsn)


def test_a_file_that_vanished_after_it_was_applied_is_refused(phase1_dsn, three):
    _migrator(phase1_dsn, three).run()
    (three / "20260101000002_t2.sql").unlink()
    with pytest.raises(MigrationError, match="20260101000002_t2: it was applied, but its file is gone"):
        _migrator(phase1_dsn, three).run()


def test_a_pending_file_older_than_the_last_applied_is_refused(phase1_dsn, three):
    _migrator(phase1_dsn, three).run()
    (three / "20260101000000_late.sql").write_text("SELECT 0;\n")
    with pytest.raises(MigrationError, match="20260101000000_late: it is older than 20260101000003"):
        _migrator(phase1_dsn, three).run()


def test_an_object_that_stands_in_no_ledger_is_refused_by_name(phase1_dsn, three):
    with psycopg.connect(phase1_dsn) as connection:
        connection.execute("CREATE TABLE t2 (other TEXT)")
    with pytest.raises(MigrationError, match="table t2 exists and isn't recorded as applied"):
        _migrator(phase1_dsn, three, mode="dry_run").run()


def test_an_unknown_target_is_refused_a_known_one_is_the_last(phase1_dsn, three):
    with pytest.raises(ParameterError, match="20990101000000", check=coded("target-version-unknown")):
        _migrator(phase1_dsn, three, target_version="20990101000000").run()
    steps = _migrator(phase1_dsn, three, target_version="20260101000002").run()
    assert _states(steps) == ["applied", "applied", "beyond_target"]
    assert _ledger(phase1_dsn) == ["20260101000001", "20260101000002"]


def test_what_supabases_cli_applied_counts(phase1_dsn):
    """Its history is never written."""
    with psycopg.connect(phase1_dsn) as connection:
        connection.execute("CREATE SCHEMA supabase_migrations")
        connection.execute(
            "CREATE TABLE supabase_migrations.schema_migrations (version text PRIMARY KEY, statements text[], name text)"
        )
        connection.execute("INSERT INTO supabase_migrations.schema_migrations (version) VALUES ('20260115000000')")
        connection.execute((ROOT / "sql/shipped_app/20260115000000_add_drafts_reviews.sql").read_text())
        connection.execute(
            "ALTER TABLE drafts ALTER COLUMN title DROP DEFAULT"
        )  # what it left is verified all the same
    steps = _migrator(phase1_dsn).run()
    assert _states(steps) == ["applied_by_supabase", *["applied"] * (NUMBER - 1)]
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        assert migrations.verify(connection, steps) == ["public.drafts.title: default missing (promised ''::text)"]
        assert connection.execute("SELECT count(*) FROM supabase_migrations.schema_migrations").fetchone() == (1,)


# --- bad states -----------------------------------------------------------------------------------------------------


def test_a_syntax_error_keeps_the_file_before_and_names_its_line(phase1_dsn, three):
    """It is in the second of three files."""
    (three / "20260101000002_t2.sql").write_text("CREATE TABLE t2 (a INT);\n\nINSERT INTO t2\n  VALUEZ (1);\n")
    for mode in ("dry_run", "apply"):
        with pytest.raises(
            MigrationError, match=r"t2\.sql, line 4: SyntaxError 42601\. Everything of this file was rolled back"
        ):
            _migrator(phase1_dsn, three, mode=mode).run()
        assert {"public.t1", "public.t2", "public.t3"} & _tables(phase1_dsn) == (
            {"public.t1"} if mode == "apply" else set()
        )
    assert _ledger(phase1_dsn) == ["20260101000001"]


def test_a_read_only_server_says_so(phase1_dsn, three):
    name = phase1_dsn.rsplit("/", 1)[1]
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(MigrationError, match="ReadOnlySqlTransaction 25006"):
        _migrator(phase1_dsn, three).run()


def test_a_role_without_create_is_told_by_postgres(phase1_dsn, three):
    with psycopg.connect(phase1_dsn) as connection:
        connection.execute("DROP ROLE IF EXISTS weak")
        connection.execute("CREATE ROLE weak LOGIN")
    try:
        with pytest.raises(MigrationError, match="Role weak lacks CREATE on database .*GRANT CREATE ON DATABASE"):
            _migrator(phase1_dsn.replace("postgres@", "weak@"), three).run()
    finally:
        with psycopg.connect(phase1_dsn) as connection:
            connection.execute("DROP ROLE weak")


def test_no_connection_is_an_error_without_the_password(three):
    with pytest.raises(postgres.ConnectError) as refused:
        _migrator("postgresql://u:secret@127.0.0.1:1/db", three).run()
    assert "secret" not in str(refused.value)


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="a tiny file system to fill needs root and mount"
)
def test_a_full_disk_is_postgress_own_message(phase1_dsn, tmp_path):
    disk = Path("/tmp") / f"dualwrite-disk-{os.getpid()}"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0777", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode:
        disk.rmdir()
        pytest.skip("mounting a tiny file system is not allowed here")
    name = f"tiny{os.getpid()}"
    owner = server_module.unprivileged()
    assert owner is not None
    os.chown(disk, owner.pw_uid, owner.pw_gid)
    try:
        with psycopg.connect(phase1_dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk}'")
        (tmp_path / "20260101000001_big.sql").write_text(
            f"CREATE TABLE big (a TEXT) TABLESPACE {name};\n"
            "INSERT INTO big SELECT repeat(md5(i::text), 100) FROM generate_series(1, 20000) i;\n"
        )
        with pytest.raises(MigrationError, match="line 2: DiskFull 53100"):
            _migrator(phase1_dsn, tmp_path).run()
        assert "public.big" not in _tables(phase1_dsn)
    finally:
        with psycopg.connect(phase1_dsn, autocommit=True) as connection:
            connection.execute(f"DROP TABLESPACE IF EXISTS {name}")
        subprocess.run(["umount", str(disk)], check=False)
        disk.rmdir()


def test_a_run_after_a_kill_between_steps_ends_as_a_clean_one(phase1_dsn, three):
    (three / "20260101000004_index.sql").write_text(
        "-- dualwrite: no-transaction\nCREATE INDEX CONCURRENTLY t3_a ON t3 (a);\n"
    )
    deaths = 0
    # Each file has four steps, the index three: killed at the first, second, third and fourth of what is left.
    for at in itertools.islice(itertools.cycle((1, 2, 3, 4)), 40):
        if not killed_at(phase1_dsn, three, at):
            break
        deaths += 1
    assert deaths == 15
    assert _states(_migrator(phase1_dsn, three).run()) == ["applied"] * 4
    with psycopg.connect(phase1_dsn) as connection:
        assert connection.execute(
            "SELECT (SELECT sum(a) FROM t1), (SELECT sum(a) FROM t2), (SELECT sum(a) FROM t3)"
        ).fetchone() == (1, 2, 3)
        assert connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 't3_a'::regclass").fetchone() == (
            True,
        )
        assert connection.execute("SELECT count(*) FROM dualwrite.migrations WHERE applied_at IS NULL").fetchone() == (
            0,
        )


def test_our_invalid_index_is_built_again_and_anothers_is_named(phase1_dsn, three):
    (three / "20260101000004_index.sql").write_text(
        "-- dualwrite: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY t3_a ON t3 (a);\n"
    )
    _migrator(phase1_dsn, three, target_version="20260101000003").run()
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO t3 VALUES (3)")
        with pytest.raises(
            MigrationError,
            match="line 2: UniqueViolation 23505. It ran outside a transaction, so an invalid index may be left",
        ):
            _migrator(phase1_dsn, three).run()
        [line] = picture.invalid_indexes(connection, ["public"])
        assert re.match(r"public\.t3_a: index is invalid.*remedy: DROP INDEX CONCURRENTLY public\.t3_a", line)
        connection.execute("DELETE FROM t3 WHERE ctid = (SELECT min(ctid) FROM t3)")
        _migrator(phase1_dsn, three).run()
        assert picture.invalid_indexes(connection, ["public"]) == []


def test_four_at_once_apply_each_file_once(phase1_dsn, three):
    results: list[object] = []

    def run() -> None:
        try:
            results.append(_states(_migrator(phase1_dsn, three).run()))
        except Exception as error:  # noqa: BLE001 - shown by the test
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["applied"] * 3] * 4
    with psycopg.connect(phase1_dsn) as connection:
        assert connection.execute("SELECT sum(a) FROM t1").fetchone() == (1,)


def test_a_table_locked_too_long_is_left_and_its_holder_named(phase1_dsn, tmp_path):
    (tmp_path / "20260101000001_alter.sql").write_text("ALTER TABLE posts ADD COLUMN slug TEXT;\n")
    with psycopg.connect(phase1_dsn, application_name="the app") as holder:
        holder.execute("SELECT * FROM posts")
        began = time.monotonic()
        with pytest.raises(MigrationError) as refused:
            _migrator(phase1_dsn, tmp_path, lock_timeout=0.5, wait_for_lock=2).run()
        assert time.monotonic() - began < 10
        pid = holder.info.backend_pid
    assert re.search(
        rf"didn't get its locks within 2 s\. Held by pid {pid}, role postgres, application the app, .*since 20",
        str(refused.value),
    )
    assert "SELECT" not in str(refused.value)


def test_a_lock_released_in_time_lets_the_migration_through(phase1_dsn, tmp_path):
    (tmp_path / "20260101000001_alter.sql").write_text("ALTER TABLE posts ADD COLUMN slug TEXT;\n")
    holder = psycopg.connect(phase1_dsn)
    holder.execute("SELECT * FROM posts")
    threading.Timer(1.5, holder.close).start()
    assert _states(_migrator(phase1_dsn, tmp_path, lock_timeout=0.3, wait_for_lock=20).run()) == ["applied"]


BAD_PARAMETERS = {
    "mode": ({"mode": "go"}, "mode must be one of dry_run, apply"),
    "web client": ({"web_client": "open"}, "web_client must be one of"),
    "lock timeout": ({"lock_timeout": 0}, "lock_timeout must be a number from 0.05"),
    "target": ({"target_version": "1"}, r"\[0-9\]\{14\}"),
    "unknown": ({"dry": True}, "Unknown parameter: dry"),
}


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_bad_parameters_are_refused(case):
    changes, message = BAD_PARAMETERS[case]
    given = {"mode": "apply", "web_client": "leave", "lock_timeout": 1, "wait_for_lock": 60,
             "statement_timeout": 600, "target_version": None}  # fmt: skip
    with pytest.raises(ParameterError, match=message):
        MigrationParams.checked({**given, **changes})


LONG_AGO: dict[str, str | bytes] = {
    "20250101000000_remote-schema.sql": "SET check_function_bodies = false;\nSELECT pg_catalog.set_config('search_path', '', false);\n"
    "CREATE TABLE public.old (a INT);\nRESET ALL;\n",
    "20250102000000_with_a_transaction.sql": "BEGIN;\nCREATE TABLE public.older (a INT);\nCOMMIT;\n",
    "001_Short Version.sql": "\\restrict x\nSELECT 1;\n",
    "20250103000000_latin.sql": b"-- caf\xe9\nSELECT 1;\n",
    "20250104000000_empty.sql": "",
}


def test_what_a_ledger_holds_is_not_checked_again(phase1_dsn, tmp_path):
    """What the Supabase CLI applied by wider rules blocked every new file, and nobody may edit an applied one."""
    for name, text in LONG_AGO.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with psycopg.connect(phase1_dsn) as connection:
        connection.execute("CREATE SCHEMA supabase_migrations")
        connection.execute("CREATE TABLE supabase_migrations.schema_migrations (version TEXT PRIMARY KEY)")
        for name in LONG_AGO:
            connection.execute(
                "INSERT INTO supabase_migrations.schema_migrations VALUES (%s)", (name.partition("_")[0],)
            )
    (tmp_path / "20260101000000_new.sql").write_text("CREATE TABLE new (a INT);\n")
    for mode in ("dry_run", "apply"):
        steps = _migrator(phase1_dsn, tmp_path, mode=mode).run()
        assert [s.state for s in steps] == ["applied_by_supabase"] * 5 + ["pending" if mode == "dry_run" else "applied"]
    applied = tmp_path / "20260101000000_new.sql"
    for bad, why in (
        ("20260102000000_with-hyphen.sql", "is not named"),
        ("20260102000000_begins.sql", "begins or ends"),
    ):
        (tmp_path / bad).write_text("BEGIN;\n")
        with pytest.raises(MigrationError, match=f"{bad}.*{why}"):
            _migrator(phase1_dsn, tmp_path).run()
        (tmp_path / bad).unlink()
    applied.write_text("CREATE TABLE changed (a INT);\n")
    with pytest.raises(MigrationError, match="changed since it was applied"):
        _migrator(phase1_dsn, tmp_path).run()
