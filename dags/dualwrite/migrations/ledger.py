"""The ledgers of migrations applied to the target: our own, dualwrite.migrations, and the history of Supabase's CLI, which is
read and never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualwrite.migrations.files import MigrationFile
from dualwrite.model.errors import MigrationError
from dualwrite.postgres import Connection, privileges
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.own_statements import own_statements

_SQL = own_statements(__file__)
_APPLIED = _SQL["applied"]
_SUPABASE = _SQL["supabase"]
_SCHEMA_EXISTS = _SQL["schema_exists"]
_CREATE_SCHEMA = _SQL["create_schema"]
_CREATE_LEDGER = _SQL["create_ledger"]
_BEGIN_FILE = _SQL["begin_file"]
_FINISH_FILE = _SQL["finish_file"]
_APPLIED_BY = _SQL["applied_by"]

_OURS = f"{SCHEMA}.migrations"
_SUPABASES = "supabase_migrations.schema_migrations"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of our ledger. Not `finished`: the file runs outside a transaction, and was begun."""

    name: str
    sha256: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """Our lines, by version, and the versions in the history of Supabase's CLI."""

    ours: Mapping[str, Entry]
    supabase: frozenset[str]

    @property
    def held(self) -> frozenset[str]:
        """The versions of all applied files."""
        return self.supabase | {version for version, entry in self.ours.items() if entry.finished}


def read_ledger(connection: Connection) -> Ledger:
    """Both ledgers; a missing one is empty. Raises MigrationError if one exists and the role may not read it: if it were treated as
    empty, everything in it would be applied again."""
    ours: dict[str, Entry] = {}
    if _readable(connection, _OURS):
        for version, name, sha256, finished in connection.execute(_APPLIED):
            ours[version] = Entry(name, sha256, finished)
    supabase: frozenset[str] = frozenset()
    if _readable(connection, _SUPABASES):
        rows = connection.execute(_SUPABASE)
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
    """Makes our ledger if it isn't there. Raises MigrationError if the role may not."""
    if privileges.relation(connection, _OURS) is not None:
        return
    if not schema_exists(connection, SCHEMA):
        if lacks := privileges.missing_on_database(connection, "CREATE"):
            raise MigrationError(
                f"The schema {SCHEMA} can't be created. " + " ".join(lacks), code="schema-not-creatable"
            )
        connection.execute(_CREATE_SCHEMA)
    connection.execute(_CREATE_LEDGER)


def schema_exists(connection: Connection, name: str) -> bool:
    """Whether the target has a schema of this name, whatever the role may do in it."""
    row = connection.execute(_SCHEMA_EXISTS, {"name": name}).fetchone()
    return bool(row and row[0])


def begin_file(connection: Connection, file: MigrationFile, run_id: str) -> Entry | None:
    """Notes that a file outside a transaction is begun. Returns its line by an earlier run that didn't finish; the file may have
    been corrected since, because it was never applied."""
    before = read_ledger(connection).ours.get(file.version)
    connection.execute(_BEGIN_FILE, _line(file, run_id))
    return before


def finish_file(connection: Connection, file: MigrationFile, run_id: str) -> None:
    """Notes that a file is applied. In the same transaction as the file, if it has one."""
    connection.execute(_FINISH_FILE, _line(file, run_id))


def _line(file: MigrationFile, run_id: str) -> dict[str, str]:
    return {"version": file.version, "name": file.name, "sha256": file.sha256, "run": run_id}


def applied_by(connection: Connection, run_id: str) -> int:
    """How many files a run has applied."""
    row = connection.execute(_APPLIED_BY, {"run": run_id}).fetchone()
    return int(row[0]) if row else 0


def is_applied(connection: Connection, file: MigrationFile) -> bool:
    """Whether our ledger says that a file is applied. Called under the lock, because another run may have been faster."""
    entry = read_ledger(connection).ours.get(file.version)
    return entry is not None and entry.finished
