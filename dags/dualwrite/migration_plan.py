"""Where each migration stands: the files on disk against what the target says was applied. Writes nothing.

Two ledgers count. Ours, `dualwrite.migrations`, knows each file's checksum. The Supabase CLI's history,
`supabase_migrations.schema_migrations`, knows versions alone; it is only ever read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dualwrite.errors import MigrationError, ParameterError
from dualwrite.migration_files import Created, MigrationFile
from dualwrite.postgres import Connection

State = Literal["applied", "pending", "refused"]

CLI_HISTORY = "supabase_migrations.schema_migrations"
LEDGER = "dualwrite.migrations"

_EXISTS = {
    "schema": "SELECT FROM pg_namespace WHERE nspname = %(name)s",
    "type": "SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
    "WHERE n.nspname = %(schema)s AND t.typname = %(name)s",
    "policy": "SELECT FROM pg_policies WHERE schemaname = %(schema)s AND tablename = %(table)s "
    "AND policyname = %(name)s",
    "trigger": "SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND t.tgname = %(name)s",
    "column": "SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND a.attname = %(name)s "
    "AND NOT a.attisdropped",
    "constraint": "SELECT FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND k.conname = %(name)s",
    "table": "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = %(schema)s AND c.relname = %(name)s",
}
_EXISTS["domain"] = _EXISTS["type"]
_RELATIONS = ("table", "view", "materialized view", "sequence", "index")  # one name, one of them


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of our ledger. `finished` is false for a file outside a transaction that was begun and not recorded."""

    name: str
    sha256: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the target says was applied: our lines by version, and the versions of the Supabase CLI."""

    ours: Mapping[str, Entry] = field(default_factory=dict)
    cli: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One file and where it stands. `runs`: pending, and this run would apply it."""

    version: str
    name: str
    state: State
    reason: str | None = None
    transactional: bool = True
    runs: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "transactional": self.transactional,
            "runs": self.runs,
        }


def make_plan(connection: Connection, files: Sequence[MigrationFile], target: str | None) -> list[Step]:
    """Reads both ledgers and what exists, inside the caller's transaction. Raises ParameterError, MigrationError."""
    return plan(files, read_ledger(connection), lambda created: exists(connection, created), target)


def plan(
    files: Sequence[MigrationFile], ledger: Ledger, exists: Callable[[Created], bool], target: str | None
) -> list[Step]:
    """Where each file stands, in the order of versions. `exists` says whether the target has such an object.

    `target` is the last version to apply (None: all). Raises ParameterError where no file has it.
    """
    known = sorted({f.version for f in files} | set(ledger.ours))
    if target is not None and target not in known:
        raise ParameterError(
            f"target_version is one of the files' versions: {target} is not. There are {', '.join(known) or 'none'}."
        )
    applied = {v for v, entry in ledger.ours.items() if entry.finished} | (ledger.cli & {f.version for f in files})
    last = max(applied, default="")
    earlier: list[MigrationFile] = []  # pending ones before the file, which may drop what it creates
    steps = []
    for file in files:
        step = _step(file, ledger, last, target) or _judge(file, earlier, exists)
        if step.state == "pending" and step.runs:
            earlier.append(file)
        steps.append(step)
    on_disk = {f.version for f in files}
    steps += [
        Step(
            version,
            entry.name,
            "refused",
            f"it was {'applied' if entry.finished else 'begun'} and its file has vanished. Restore the file from the "
            "repository's history",
        )
        for version, entry in ledger.ours.items()
        if version not in on_disk
    ]
    return sorted(steps, key=lambda s: s.version)


def _step(file: MigrationFile, ledger: Ledger, last: str, target: str | None) -> Step | None:
    """What the ledgers alone decide; None for a pending file that must be looked at closely."""

    def step(state: State, reason: str | None = None) -> Step:
        return Step(file.version, file.name, state, reason, file.transactional)

    ours = ledger.ours.get(file.version)
    if ours is not None and ours.finished:
        if ours.sha256 == file.sha256:
            return step("applied")
        return step(
            "refused",
            "it has changed since it was applied (sha256). Restore it as it was, and put the change into a new migration",
        )
    if ours is None and file.version in ledger.cli:
        return step("applied", "by the Supabase CLI, says its history")
    if target is not None and file.version > target:
        return step("pending", f"newer than target_version {target}: left alone")
    if ours is None and file.version < last:
        return step(
            "refused",
            f"it is older than {last}, which is applied already, so other targets have them in another order. Give it "
            "a newer version",
        )
    if file.faults:
        return step("refused", "; ".join(file.faults))
    if ours is not None:
        return Step(
            file.version,
            file.name,
            "pending",
            "begun by a run that was interrupted: it will be finished",
            file.transactional,
            runs=True,
        )
    return None


def _judge(file: MigrationFile, earlier: Sequence[MigrationFile], exists: Callable[[Created], bool]) -> Step:
    found = [made for made in file.creates if not _goes_before(made, [*earlier, file]) and exists(made)]
    if found:
        names = ", ".join(f"{made} (line {made.line})" for made in found)
        reason = (
            f"{names} exists already and stands in no ledger. If this file made it, record that with `supabase "
            f"migration repair --status applied {file.version}` (docs/migrations.md has the same in SQL); otherwise "
            "rename it or drop it"
        )
        return Step(file.version, file.name, "refused", reason, file.transactional)
    return Step(file.version, file.name, "pending", None, file.transactional, runs=True)


def _goes_before(made: Created, files: Sequence[MigrationFile]) -> bool:
    """Whether a statement before it drops or renames what has this name now. Better to miss a refusal here than to
    refuse a right file: Postgres itself still refuses to create what exists."""
    name = re.compile(rf"(?<![\w\"]){re.escape(made.name)}(?![\w\"])|\"{re.escape(made.name)}\"", re.IGNORECASE)
    for number, file in enumerate(files, 1):
        for statement in file.statements:
            if number == len(files) and statement.line >= made.line:
                return False
            if re.search(r"\b(drop|rename)\b", statement.text, re.IGNORECASE) and name.search(statement.text):
                return True
    return False


# --- reading the target -----------------------------------------------------------------------------------------------


def read_ledger(connection: Connection) -> Ledger:
    """Both ledgers. Raises MigrationError where one is there and can't be read: nothing could be said about it."""
    ours = {}
    if _readable(connection, LEDGER):
        for version, name, sha256, finished in connection.execute(
            "SELECT version, name, sha256, applied_at IS NOT NULL FROM dualwrite.migrations"
        ):
            ours[version] = Entry(name, sha256, finished)
    cli: frozenset[str] = frozenset()
    if _readable(connection, CLI_HISTORY):
        rows = connection.execute("SELECT version FROM supabase_migrations.schema_migrations")
        cli = frozenset(version for (version,) in rows)
    return Ledger(ours, cli)


def _readable(connection: Connection, table: str) -> bool:
    """False where there is no such table. (to_regclass raises where the role may not use the schema.)"""
    schema, name = table.split(".")
    row = connection.execute(
        "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), current_user::text "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (schema, name),
    ).fetchone()
    if row is not None and not row[0]:
        raise MigrationError(
            f"What was applied must be known first: role {row[1]} may not read {table}. Connect as the role that owns "
            f"it (postgres on Supabase), or GRANT USAGE ON SCHEMA {schema} and SELECT ON {table} TO {row[1]}."
        )
    return row is not None


def exists(connection: Connection, created: Created) -> bool:
    """Whether the target has an object of this kind and name."""
    query = _EXISTS["table" if created.kind in _RELATIONS else created.kind]
    names = {"schema": created.schema, "name": created.name, "table": created.table}
    return connection.execute(query, names).fetchone() is not None
