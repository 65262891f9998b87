"""The role files that `make roles` writes for another app: its doctor and its backfill pass with them, and nothing else is open."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from dev import roles, schema_snapshot
from dev.airflow_home import BIN, ROOT
from dev.processes import Missing
from dualwrite import postgres, settings
from dualwrite.catalog import CATALOG as SHIPPED
from dualwrite.engine.preflight import target_faults
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field
from dualwrite.runs import backfill, doctor
from tests.databases import clone
from tests.integration.postgres.test_roles import server  # noqa: F401 - a fixture
from tests.roles import ADMINS, ROLES, Secured, secured
from tests.support import examine_all, gap_run, verify_all

SCHEMA = """
CREATE SCHEMA words;
CREATE TYPE words."How full" AS ENUM ('half', 'full');
CREATE DOMAIN words.mood AS words."How full";
CREATE SCHEMA "My Shop";
CREATE TABLE "My Shop"."Order ""lines"" of" (
  id text PRIMARY KEY, fill words."How full", felt words.mood, number bigserial, made timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE "My Shop"."Order ""lines"" of" ENABLE ROW LEVEL SECURITY;
CREATE TABLE "My Shop".payments (card text);
CREATE SCHEMA "user";
CREATE TABLE "user"."order" (id text PRIMARY KEY, name text);
CREATE TABLE "user".secrets (word text);
CREATE TABLE public.outside (word text);
"""
WISHES = """
CREATE TABLE "user".wishes (id text PRIMARY KEY, of text NOT NULL REFERENCES "user"."order" (id));
CREATE TABLE "user".parts (id text PRIMARY KEY, wish text REFERENCES "user".wishes (id));
"""
OWN = Catalog(
    (
        Collection(
            name="lines",
            table='My Shop.Order "lines" of',
            paths=("lines/{line}",),
            columns=(
                Column("id", "key", DocumentId()),
                Column("fill", "compared", Field("fill")),
                Column("felt", "compared", Field("felt")),
            ),
        ),
        Collection(
            name="orders",
            table="user.order",
            paths=("orders/{order}",),
            columns=(Column("id", "key", DocumentId()), Column("name", "compared", Field("name"))),
        ),
    )
)
_HELD = """
SELECT format('%%s %%s', c.oid::regclass, string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type))
FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
WHERE a.grantee = %s::regrole AND c.relnamespace::regnamespace::text NOT IN ('dualwrite', 'supabase_migrations') GROUP BY c.oid
UNION ALL
SELECT format('%%I %%s', n.nspname, string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type))
FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
WHERE a.grantee = %s::regrole AND n.nspname NOT IN ('dualwrite', 'supabase_migrations') GROUP BY n.oid
"""


def _held(dsn: str, role: str) -> list[str]:
    """What a role may do outside of the bundle's schema, and of the Supabase CLI's."""
    with psycopg.connect(dsn) as connection:
        return sorted(told for (told,) in connection.execute(_HELD, (role, role)).fetchall())


@pytest.fixture(scope="module")
def own(tmp_path_factory, postgres_server) -> Path:
    """A folder with a catalog and migrations of one's own, which the settings name."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "migrations/local").mkdir(parents=True)
    (folder / "migrations/20270101000000_wishes.sql").write_text(WISHES)
    (folder / "migrations/local/phase1.sql").write_text(SCHEMA)
    with _named(folder):
        with pytest.raises(Missing, match="make snapshot"):
            roles.write(OWN, folder / "roles", roles.app_promises())
        for dsn in clone(postgres_server, "template1"):
            taken = schema_snapshot.take_own(dsn, folder / "migrations")
        (folder / "migrations/snapshot.json").write_text(json.dumps(taken.as_json()))
        roles.write(OWN, folder / "roles", roles.app_promises())
    return folder


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(settings.CATALOG, str(folder / "catalog.py"))
        patched.setenv(settings.MIGRATIONS, str(folder / "migrations"))
        yield


@pytest.fixture(scope="module", params=ADMINS)
def target(request, server, own) -> Iterator[Secured]:  # noqa: F811
    with secured(server, request.param, "template1") as found:
        with psycopg.connect(found.admin) as connection:
            connection.execute(SCHEMA)
        found.run("migrations.sql", own / "roles")
        with _named(own):
            assert set(found.migrate()) == {"applied"}
        found.run("data.sql", own / "roles")
        yield found


def test_the_shipped_files_are_what_the_command_makes(monkeypatch):
    for name in (settings.CATALOG, settings.MIGRATIONS):
        monkeypatch.delenv(name, raising=False)
    assert {name: (ROLES / name).read_text() for name in roles.NAMES} == roles.role_files(SHIPPED, roles.app_promises())


def test_ones_own_files_pass_the_linter(own):
    files = [own / "roles" / name for name in roles.NAMES]
    done = subprocess.run([BIN / "squawk", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "boards" not in "".join(file.read_text() for file in files)


def test_doctor_and_backfill_pass_with_the_roles_of_another_app(target, own, firestore, emulator):
    for path, fields in {
        "lines/l1": {"fill": "half", "felt": "full"}, "lines/l2": {"fill": "full"}, "orders/o1": {"name": "first"},
    }.items():  # fmt: skip
        firestore.document(path).set(fields)
    everything = {"catalog": OWN, "collections": list(OWN.names), "since": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}
    with gap_run(firestore.project, emulator, target.data, **everything, scope="all") as run:
        backfill.preflight(run, by="a test")
        found = examine_all(run, dry=False)
        assert {name: result["inserted"] for name, result in found.items()} == {"lines": 2, "orders": 1}
        assert {c["verification"] for c in verify_all(run).values()} == {"verified"}
    with _named(own):
        told = doctor.examine(
            lambda: Source(firestore.project, emulator_host=emulator), lambda: postgres.connect(target.data), OWN
        )
        todo = {line.what: line.fault for line in told if line.fault}
    assert todo.keys() <= {"last complete comparison"}, todo


def test_the_roles_of_another_app_may_do_no_more(target, own):
    target.run("migrations.sql", own / "roles")  # data.sql closed the role
    rows = "DELETE INSERT SELECT UPDATE"
    assert _held(target.superuser, "dualwrite_data") == sorted(
        [
            f'"My Shop"."Order ""lines"" of" {rows}', '"My Shop"."Order ""lines"" of_number_seq" USAGE', '"My Shop" USAGE',
            f'"user"."order" {rows}', '"user" USAGE', "words USAGE",
        ]
    )  # fmt: skip
    assert set(_held(target.superuser, "dualwrite_migrations")) >= {'"user" CREATE USAGE', '"user"."order" REFERENCES'}
    for role in (target.data, target.migrations):
        for table in ('"My Shop".payments', '"user".secrets', "public.outside"):
            with psycopg.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {table}")


def test_what_preflight_says_is_missing_can_be_pasted(target, own):
    """Each GRANT that it names, with its quotes, until nothing is missing."""
    with psycopg.connect(target.admin) as connection:
        connection.execute('REVOKE ALL ON "My Shop"."Order ""lines"" of", "user"."order" FROM dualwrite_data')
        connection.execute('REVOKE ALL ON SEQUENCE "My Shop"."Order ""lines"" of_number_seq" FROM dualwrite_data')
        connection.execute('REVOKE USAGE ON SCHEMA words, "My Shop", "user" FROM dualwrite_data')
    with postgres.connect(target.data) as connection, postgres.transaction(connection, read_only=True):
        faults = target_faults(connection, OWN, OWN.collections, writes=True)
    granted = [fault[fault.index("GRANT ") :] for fault in faults if "GRANT " in fault]
    with psycopg.connect(target.admin) as connection:
        for statement in granted:
            connection.execute(statement)
    with postgres.connect(target.data) as connection, postgres.transaction(connection, read_only=True):
        assert target_faults(connection, OWN, OWN.collections, writes=True) == []
    assert "GRANT USAGE ON SCHEMA words TO dualwrite_data;" in granted
