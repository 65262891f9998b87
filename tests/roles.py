"""A target as an operator with sql/roles sets it up: who administers it, and the two roles that the DAGs connect as."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from dev.airflow_home import ROOT
from dualwrite import postgres
from dualwrite.migrations import MigrationParams, Migrator
from tests.databases import clone

ROLES = ROOT / "sql/roles"
ADMINS = ("superuser", "supabase")
"""Who runs sql/roles: a superuser, or a role such as Supabase's postgres, which owns everything and is none."""


@dataclass(frozen=True)
class Secured:
    """URIs of one database: as its superuser, as who administers it, and as each role."""

    superuser: str
    admin: str
    migrations: str
    data: str

    def run(self, name: str, folder: Path = ROLES) -> None:
        """One file of sql/roles, or of an app's own, as the administrator."""
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute((folder / name).read_text())

    def migrate(self, mode: str = "apply") -> list[str]:
        """apply_migrations' work under its role; the states of the files afterwards."""
        steps = Migrator(lambda: postgres.connect(self.migrations), MigrationParams(mode=mode), "run").run()
        return [step.state for step in steps]


@contextlib.contextmanager
def secured(server: str, admin: str, template: str = "phase1") -> Iterator[Secured]:
    """A database with Phase 1's tables, or an empty one (template1), to be dropped with its roles. Nothing of sql/roles has run
    yet."""
    try:
        with contextlib.closing(clone(server, template)) as cloned:
            uri = next(cloned)
            if admin == "supabase":
                _as_on_supabase(uri)
            made = (uri.replace("postgres@", f"{role}@") for role in ("dualwrite_migrations", "dualwrite_data"))
            yield Secured(uri, uri.replace("postgres@", "supabase_postgres@") if admin == "supabase" else uri, *made)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            for role in ("dualwrite_migrations", "dualwrite_data", "supabase_postgres"):
                connection.execute(f"DROP ROLE IF EXISTS {role}")


def _as_on_supabase(uri: str) -> None:
    """Gives the database and all in it to a role with the attributes of Supabase's postgres."""
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE ROLE supabase_postgres LOGIN CREATEROLE CREATEDB REPLICATION BYPASSRLS")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} OWNER TO supabase_postgres")
        connection.execute("CREATE SCHEMA supabase_migrations AUTHORIZATION supabase_postgres")
        connection.execute(
            "CREATE TABLE supabase_migrations.schema_migrations (version text PRIMARY KEY, statements text[], name text)"
        )
        tables = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace IN ('public'::regnamespace, 'supabase_migrations'::regnamespace)"
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"ALTER TABLE {table} OWNER TO supabase_postgres")
