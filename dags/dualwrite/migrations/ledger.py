"""What was applied to the target: our own ledger dualwrite.migrations, and the history of Supabase's CLI, which is read and
never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualwrite.migrations.files import MigrationFile
from dualwrite.model.errors import MigrationError
from dualwrite.postgres import Connection, privileges
from dualwrite.postgres.own_schema import SCHEMA

_OURS = f"{SCHEMA}.migrations"
_SUPABASE = "supabase_migrations.schema_migrations"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of our ledger. Not finished: a file outside a transaction that was begun."""

    name: str
    sha256: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """By version; and the versions of Supabase's CLI."""

    ours: Mapping[str, Entry]
    supabase: frozenset[str]

    @property
    def held(self) -> frozenset[str]:
        """The versions of what was applied."""
        return self.supabase | {version for version, entry in self.ours.items() if entry.finished}


def read_ledger(connection: Connection) -> Ledger:
    """Raises MigrationError if a ledger exists and the role may not read it: if it were treated as empty, everything in it
    would be applied again."""
    ours: dict[str, Entry] = {}
    if _readable(connection, _OURS):
        for version, name, sha256, finished in connection.execute(
            f"SELECT version, name, sha256, applied_at IS NOT NULL FROM {SCHEMA}.migrations"
        ):
            ours[version] = Entry(name, sha256, finished)
    supabase: frozenset[str] = frozenset()
    if _readable(connection, _SUPABASE):
        rows = connection.execute("SELECT version FROM supabase_migrations.schema_migrations")
        supabase = frozenset(version for (version,) in rows)
    return Ledger(ours, supabase)


def _readable(connection: Connection, table: str) -> bool:
    if privileges.relation(connection, table) is None:
        return False
    if lacks := privileges.missing_grants(connection, {table: ["SELECT"]}):
        raise MigrationError(
            "The ledger of applied migrations can't be read. " + " ".join(lacks), code="ledger-unreadable"
        )
    return True


def create_ledger(connection: Connection) -> None:
    """Makes the ledger if it isn't there. (CREATE ... IF NOT EXISTS needs CREATE even if the object exists.)
    Raises MigrationError if the role may not."""
    if privileges.relation(connection, _OURS) is not None:
        return
    if not schema_exists(connection, SCHEMA):
        if lacks := privileges.missing_on_database(connection, "CREATE"):
            raise MigrationError(
                f"The schema {SCHEMA} can't be created. " + " ".join(lacks), code="schema-not-creatable"
            )
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
    connection.execute(
        f"""
        CREATE TABLE {SCHEMA}.migrations (
          version TEXT PRIMARY KEY,
          name TEXT NOT NULL,
          sha256 TEXT NOT NULL,
          applied_at TIMESTAMPTZ DEFAULT NOW(),
          applied_by TEXT NOT NULL DEFAULT CURRENT_USER,
          run_id TEXT
        )
        """
    )


def schema_exists(connection: Connection, name: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)", (name,)
    ).fetchone()
    return bool(row and row[0])


def begin_file(connection: Connection, file: MigrationFile, run_id: str) -> Entry | None:
    """Notes that a file outside a transaction is begun; returns what an earlier run that didn't finish noted of it. The
    file may have been corrected since: it was never applied."""
    before = read_ledger(connection).ours.get(file.version)
    connection.execute(
        f"""
        INSERT INTO {SCHEMA}.migrations AS m (version, name, sha256, applied_at, run_id)
        VALUES (%s, %s, %s, NULL, %s)
        ON CONFLICT (version) DO UPDATE SET name = excluded.name, sha256 = excluded.sha256, run_id = excluded.run_id
        WHERE m.applied_at IS NULL
        """,
        (file.version, file.name, file.sha256, run_id),
    )
    return before


def finish_file(connection: Connection, file: MigrationFile, run_id: str) -> None:
    """Notes that a file is applied. In the same transaction as the file, if it has one."""
    connection.execute(
        f"""
        INSERT INTO {SCHEMA}.migrations AS m (version, name, sha256, run_id) VALUES (%s, %s, %s, %s)
        ON CONFLICT (version) DO UPDATE
        SET name = excluded.name, sha256 = excluded.sha256, run_id = excluded.run_id, applied_at = now(),
            applied_by = CURRENT_USER
        WHERE m.applied_at IS NULL
        """,
        (file.version, file.name, file.sha256, run_id),
    )


def is_applied(connection: Connection, file: MigrationFile) -> bool:
    """Called under the lock: another run may have been faster."""
    entry = read_ledger(connection).ours.get(file.version)
    return entry is not None and entry.finished
