"""Verifying: the live database against the promises of the applied files."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from dualwrite import postgres, settings
from dualwrite.migrations.files import sql_folder
from dualwrite.migrations.picture import Picture, invalid_indexes, take_picture
from dualwrite.migrations.plan import Step
from dualwrite.migrations.promise import Snapshot, differences, together
from dualwrite.model.errors import MigrationError
from dualwrite.postgres import Connection
from dualwrite.postgres.own_schema import in_own_schema

_OPTIONAL = "web_client_"


def snapshot_path() -> Path:
    """The snapshot of the bundle's own migrations. Raises MigrationError if it is missing."""
    path = sql_folder() / "snapshot.json"
    if not path.is_file():
        raise MigrationError(
            f"{path} is missing. Restore it from the repository, or run `make snapshot`.", code="snapshot-missing"
        )
    return path


def own_snapshot(folder: Path) -> Path:
    """The file with the promises of the app's own folder."""
    return folder / "snapshot.json"


def installed_snapshot() -> Snapshot:
    """The promises of this installation's files: the bundle's, and those of the app's own folder."""
    snapshot, own = Snapshot.load(snapshot_path(), in_own_schema), settings.own_migrations()
    if own is not None and own_snapshot(own).is_file():
        snapshot = replace(snapshot, files={**snapshot.files, **Snapshot.load(own_snapshot(own)).files})
    return snapshot if settings.named_catalog() is None else replace(snapshot, optional={})


def verify(connection: Connection, steps: Sequence[Step], snapshot: Snapshot | None = None) -> list[str]:
    """Compares the live database with the promises of the applied files. Returns the differences, one a line."""
    snapshot = snapshot or installed_snapshot()
    applied = [s.label for s in steps if s.state.startswith("applied")]
    unknown = [
        f"{label}: no snapshot.json says what it promises; run `make snapshot`"
        for label in applied
        if label not in snapshot.files
    ]
    promised = together(snapshot.files[label] for label in applied if label in snapshot.files)
    with postgres.transaction(connection, read_only=True):
        web_client = web_client_tables(snapshot)
        live = take_picture(connection, {*promised, *web_client})
        state = _state(_restricted(live, web_client), snapshot)
        promised = together([promised, _restricted(snapshot.optional.get(_OPTIONAL + state, {}), promised)])
        live = _restricted(live, promised)
        schemas = {name.split(".")[0] for name in promised} | {"public"}
        return unknown + differences(promised, live) + invalid_indexes(connection, schemas)


def web_client_state(connection: Connection, snapshot: Snapshot | None = None) -> str:
    """Whether the web client has access: the optional file that the live tables resemble most, "closed" or "anon"."""
    snapshot = snapshot or installed_snapshot()
    return _state(take_picture(connection, web_client_tables(snapshot)), snapshot)


def _state(live: Picture, snapshot: Snapshot) -> str:
    choices = {name: snapshot.optional.get(_OPTIONAL + name, {}) for name in ("closed", "anon")}
    return min(choices, key=lambda name: len(differences(choices[name], live)))


def web_client_tables(snapshot: Snapshot | None = None) -> list[str]:
    """The tables that the optional files open and close, as schema.table."""
    snapshot = snapshot or installed_snapshot()
    return sorted({relation for promise in snapshot.optional.values() for relation in promise})


def _restricted(picture: Picture, relations: Container[str]) -> Picture:
    """The part of a picture, or of a promise, that is about these relations."""
    return {relation: parts for relation, parts in picture.items() if relation in relations}
