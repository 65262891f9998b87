"""What doctor says of an installation, in every state that an operator meets on the way to production."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata

import grpc
import psycopg
import pytest

from dev import airflow_home, seed
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import preflight
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog
from dualwrite.model.errors import PreflightError
from dualwrite.runs import doctor
from tests.integration.firestore.test_source import Broken
from tests.roles import secured
from tests.worlds import small_world


@pytest.fixture
def world(firestore, target_dsn):
    return small_world(firestore, target_dsn)


def _lines(project: str, emulator: str, dsn: str, **options) -> dict[str, doctor.Line]:
    found = doctor.examine(
        lambda: Source(project, emulator_host=emulator), lambda: postgres.connect(dsn), CATALOG, **options
    )
    return {line.what: line for line in found}


def _to_do(lines: dict[str, doctor.Line]) -> dict[str, str]:
    return {what: line.fault for what, line in lines.items() if line.fault is not None}


def test_a_verified_target_is_all_well(world, firestore, emulator, target_dsn):
    with psycopg.connect(target_dsn) as connection:  # as after a backfill whose last run was verified
        connection.execute(
            "INSERT INTO dualwrite.watermarks (collection, examined_until, swept_at, run_id) "
            "SELECT unnest(%s::text[]), now(), now(), 'r'",
            (list(CATALOG.names),),
        )
    lines = _lines(firestore.project, emulator, target_dsn)
    with_files = {"migrations"}  # this database was made from the files, without a ledger
    assert set(_to_do(lines)) <= with_files
    assert lines["TLS"].note == "not needed on this machine"
    assert re.fullmatch(r"\d+\.\d s apart", lines["clocks"].note)
    assert re.search(r"0\.0 h ago", lines["last complete comparison"].note)
    indexes = {what for what in lines if what.startswith("Firestore index")}
    assert "Firestore index comments.createdAt" in indexes


def test_an_unreadable_table_is_told_and_costs_no_other(world, firestore, emulator, target_dsn, monkeypatch):
    original, first = preflight.target_faults, CATALOG.names[0]

    def refused(connection, catalog, collections, **options):
        if collections[0].name == first:
            raise psycopg.errors.InsufficientPrivilege
        return original(connection, catalog, collections, **options)

    monkeypatch.setattr(preflight, "target_faults", refused)
    lines = _lines(firestore.project, emulator, target_dsn)
    told = lines[f"table {CATALOG[first].table}"].fault
    assert told == "InsufficientPrivilege 42501. Grant the role what sql/roles/data.sql says."
    assert lines["table posts"].fault is None


def test_before_the_first_migration_it_names_the_next_step(firestore, emulator, phase1_dsn):
    seed.small().load_source(firestore)
    lines = _lines(firestore.project, emulator, phase1_dsn)
    todo = _to_do(lines)
    assert "Run the DAG apply_migrations with mode=apply" in todo["migrations"]
    assert set(todo) == {"migrations", "table drafts", "table reviews"}
    assert lines["table posts"].fault is None, "what can be looked at is"
    with psycopg.connect(phase1_dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('dualwrite')").fetchone() == (None,), "and nothing is written"


@pytest.mark.parametrize("admin", ["superuser", "supabase"])
def test_all_is_well_for_the_data_role_after_both_role_files(admin, firestore, emulator, postgres_server):
    small = seed.small()
    small.load_source(firestore)
    with secured(postgres_server, admin) as target:
        target.run("migrations.sql")
        target.migrate()
        target.run("data.sql")
        with psycopg.connect(target.superuser) as connection:
            small.load_target(connection)
        lines = _lines(firestore.project, emulator, target.data)
        assert set(_to_do(lines)) == {"last complete comparison"}
        assert all(line.note == "" for what, line in lines.items() if what.startswith("table "))


def test_a_catalog_without_operations_needs_no_op_log(world, firestore, emulator, target_dsn):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("DROP TABLE write_ops CASCADE")
    assert "write_ops" in _to_do(_lines(firestore.project, emulator, target_dsn))
    catalog = Catalog(tuple(dataclasses.replace(c, operations=()) for c in CATALOG))
    found = doctor.examine(
        lambda: Source(firestore.project, emulator_host=emulator), lambda: postgres.connect(target_dsn), catalog
    )
    [line] = [line for line in found if line.what == "write_ops"]
    assert (line.fault, line.note) == (None, "not needed: the catalog declares no operations")


def test_under_a_role_without_rights_each_missing_one_is_named(world, firestore, emulator, target_dsn):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE ROLE nobody_yet LOGIN")
    try:
        todo = _to_do(_lines(firestore.project, emulator, target_dsn.replace("postgres@", "nobody_yet@")))
    finally:
        with psycopg.connect(target_dsn) as connection:
            connection.execute("DROP ROLE nobody_yet")
    assert "sql/roles/data.sql" in todo["migrations"]
    assert "write_ops" in todo
    assert {c.table for c in CATALOG} == {what.split()[-1] for what in todo if what.startswith("table ")}


def test_one_side_that_is_away_does_not_hide_the_other(firestore, emulator, target_dsn):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    seed.small().load_source(firestore)
    lines = _lines(firestore.project, emulator, f"postgresql://u:secret@127.0.0.1:{closed}/d")
    assert "Correct connection supabase_default" in lines["Postgres"].fault
    assert "secret" not in "".join(map(str, lines.values()))
    assert lines[f"Firestore {firestore.project}, users"].fault is None

    def no_source():
        raise PreflightError("Connection firestore_default is missing.")

    found = {line.what: line for line in doctor.examine(no_source, lambda: postgres.connect(target_dsn), CATALOG)}
    assert found["Firestore"].fault == "Connection firestore_default is missing."
    assert found["Postgres"].fault is None
    assert "unknown" in found["clocks"].fault


def test_a_missing_index_is_told_beside_those_that_are_there(world, firestore, emulator, target_dsn, monkeypatch):
    original = Source.count

    def refuse(*_, **__):
        raise Broken(grpc.StatusCode.FAILED_PRECONDITION, "The query requires a COLLECTION_GROUP_ASC index ...")

    def count(self, scan, read_time=None):
        with monkeypatch.context() as patch:
            if (scan.collection_id, scan.check_field) == ("comments", "createdAt"):
                patch.setattr(self.wire, "run_count", refuse)
            return original(self, scan, read_time)

    monkeypatch.setattr(Source, "count", count)
    lines = _lines(firestore.project, emulator, target_dsn)
    assert "index that this query needs is missing" in lines["Firestore index comments.createdAt"].fault
    assert lines["Firestore index replies.createdAt"].fault is None


def test_a_comparison_that_is_long_ago_and_triggers_are_told(world, firestore, emulator, target_dsn):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
        connection.execute("CREATE TRIGGER webhook AFTER INSERT ON posts FOR EACH ROW EXECUTE FUNCTION f()")
        connection.execute(
            "INSERT INTO dualwrite.watermarks (collection, examined_until, swept_at, run_id) "
            "SELECT unnest(%s::text[]), now(), now(), 'r'",
            (list(CATALOG.names),),
        )
    later = datetime.now(UTC) + timedelta(days=3)
    lines = _lines(firestore.project, emulator, target_dsn, now=later)
    assert "72.0 h ago" in lines["last complete comparison"].fault
    assert lines["triggers"].note == "1 fire on what a run writes: posts: webhook"


def test_old_and_missing_packages_are_named_with_what_to_install():
    def installed(package: str) -> str:
        if package == "psycopg":
            raise metadata.PackageNotFoundError
        return "1.1.8" if package == "apache-airflow-task-sdk" else metadata.version(package)

    todo = {line.what: line.fault for line in doctor.versions(installed) if line.fault}
    assert todo == {
        "apache-airflow-task-sdk": "1.1.8 is too old. Install apache-airflow-task-sdk>=1.2.",
        "psycopg": "it is missing. Install psycopg>=3.2.9.",
    }
    assert not [line for line in doctor.versions() if line.fault]


def test_its_lower_bounds_are_those_of_the_requirements():
    text = (airflow_home.ROOT / "requirements.txt").read_text()
    bounds = dict(re.findall(r"^([a-z0-9-]+)(?:\[\w+\])?>=([\d.]+)", text, re.MULTILINE))
    assert bounds.pop("apache-airflow") == "3.2", "which brings task SDK 1.2"
    expected = {p: ".".join(map(str, v)) for p, v in doctor.MINIMUM.items() if p != "apache-airflow-task-sdk"}
    assert bounds == expected


def test_make_doctor_is_that_on_airflows_connections(world, firestore, emulator, target_dsn, tmp_path):
    environment = airflow_home.environment(tmp_path, emulator=emulator, project=firestore.project, target=target_dsn)
    done = subprocess.run(
        [sys.executable, "-m", "dev.doctor"],
        env={**os.environ, **environment, "PYTHONPATH": "dags:."},
        cwd=airflow_home.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert "ok     Postgres: 18" in done.stdout
    assert "TO DO  last complete comparison: never" in done.stdout
    assert done.stdout.rstrip().endswith("to do")
