"""Planning, apart from applying: each file's state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dualwrite import postgres, settings
from dualwrite.migrations.files import MigrationFile, bundle_folder, folders, list_folders, read_folders
from dualwrite.migrations.ledger import Ledger, read_ledger
from dualwrite.migrations.rules import Created
from dualwrite.model.errors import MigrationError, ParameterError
from dualwrite.model.migration_params import MigrationParams
from dualwrite.model.run_report import MigrationStep
from dualwrite.postgres import Connection, privileges
from dualwrite.postgres.own_schema import SCHEMA


@dataclass(frozen=True, slots=True)
class Step:
    """One file and its state: applied, applied_by_supabase, interrupted, pending, beyond_target, refused; after a
    dry run also not_tried."""

    version: str
    name: str
    state: str
    reason: str | None = None

    @property
    def label(self) -> str:
        return f"{self.version}_{self.name}"

    def as_json(self) -> MigrationStep:
        return {"version": self.version, "name": self.name, "state": self.state, "reason": self.reason}


def plan(
    files: Sequence[MigrationFile], ledger: Ledger, exists: Callable[[Created], bool], target: str | None
) -> list[Step]:
    """Each file's state. Pure except for `exists`, which asks whether the target has an object.

    Files that build on each other lie in one folder, so a file is too old only within its folder: a new file of the bundle may be older
    than the app's newest.
    """
    if target is not None and target not in {f.version for f in files}:
        raise ParameterError(
            f"target_version must be the version of a file: {target} is not. Versions: {', '.join(f.version for f in files)}.",
            code="target-version-unknown",
        )
    finished = {version for version, entry in ledger.ours.items() if entry.finished}
    last = {f.path.parent: f.version for f in files if f.version in finished | ledger.supabase}
    steps = []
    for file in files:
        step = Step(file.version, file.name, "pending")
        if file.version in finished:
            step = replace(step, state="applied")
            if ledger.ours[file.version].sha256 != file.sha256:
                reason = (
                    "the file has changed since it was applied (sha256). Restore it as it was, and put the change into "
                    "a new migration"
                )
                step = replace(step, state="refused", reason=reason)
        elif file.version in ledger.supabase:
            step = replace(step, state="applied_by_supabase")
        elif target is not None and file.version > target:
            step = replace(step, state="beyond_target")
        elif file.version in ledger.ours:
            step = replace(step, state="interrupted")
        elif file.version < (newest := last.get(file.path.parent, "")):
            reason = f"it is older than {newest}, which is applied already. Give it a newer version"
            step = replace(step, state="refused", reason=reason)
        elif there := [str(created) for created in file.creates if exists(created)]:
            reason = (
                f"{', '.join(there)} exists and isn't recorded as applied. If this file's SQL created it, record the file with "
                f"`supabase migration repair --status applied {file.version}`; if not, rename or drop it"
            )
            step = replace(step, state="refused", reason=reason)
        steps.append(step)
    on_disk = {f.version for f in files}
    for version in sorted(finished - on_disk):
        reason = (
            "it was applied, but its file is gone. Restore the file from the repository's history; if it lies in a folder of your "
            f"own, name that in {settings.MIGRATIONS}"
        )
        steps.append(Step(version, ledger.ours[version].name, "refused", reason))
    return sorted(steps, key=lambda s: s.version)


def make_plan(connection: Connection, params: MigrationParams, among: Sequence[Path] | None = None) -> list[Step]:
    """Reads files and ledger and compares them. Writes nothing. `among`: the folders, by default the installation's."""
    with postgres.transaction(connection, read_only=True):
        ledger = _for_own_schema(read_ledger(connection))
        files = read_folders(among or folders(), ledger.held)
        created = [made.relation for file in files if file.version not in ledger.held for made in file.creates]
        there = privileges.relations(connection, created)
        return plan(files, ledger, lambda created: created.relation in there, params.target_version)


def _for_own_schema(ledger: Ledger) -> Ledger:
    """The ledger without the bundle's files that Supabase's CLI has applied, if this bundle has another schema than `dualwrite`: the
    CLI has applied them there."""
    if SCHEMA == settings.SCHEMA:
        return ledger
    return replace(ledger, supabase=ledger.supabase - {file.version for file in list_folders([bundle_folder()])})


def check(steps: Sequence[Step]) -> None:
    """Raises MigrationError if a file is refused."""
    refused = [s for s in steps if s.state == "refused"]
    if refused:
        raise MigrationError(
            "Nothing is applied while a migration is refused:\n"
            + "\n".join(f"- {s.label}: {s.reason}." for s in refused),
            code="migrations-refused",
        )
