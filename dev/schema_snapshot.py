"""`make snapshot`: the promises of each migration, taken from an empty database of our own server.

Writes sql/snapshot.json. If DUALWRITE_MIGRATIONS names a folder of the app's own: that folder's snapshot.json, of its own files;
the tables that they build on, which production already has, are made by its local/phase1.sql, if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dev import postgres_server
from dualwrite import postgres, settings
from dualwrite.migrations import picture, promise
from dualwrite.migrations.execution import SEARCH_PATH
from dualwrite.migrations.files import folders, list_folders, read_text
from dualwrite.migrations.parser import Statement, split
from dualwrite.migrations.promise import Snapshot
from dualwrite.migrations.verify import own_snapshot

SQL = Path(__file__).resolve().parents[1] / "sql"
SHIPPED = (SQL / "migrations", SQL / "shipped_app")
PHASE1 = SQL / "local/phase1.sql"


def take(
    uri: str,
    among: Sequence[Path] = SHIPPED,
    optional: Path | None = SQL / "optional",
    before: Sequence[Path] = (PHASE1,),
) -> Snapshot:
    """Executes the files `before` in an empty database, then one migration after another, then the optional files. Returns the
    changes of each. Without the migrator, whose ledger no file promises."""

    def changed_by(statements: Sequence[Statement]) -> promise.Promise:
        with postgres.connect(uri) as connection:
            before = picture.take_picture(connection)
            connection.execute(f"SET search_path = {SEARCH_PATH}")
            for statement in statements:
                connection.execute(statement.text)
            return promise.changes(before, picture.take_picture(connection))

    def of(path: Path) -> Sequence[Statement]:
        return split(read_text(path), path.name)

    for path in before:
        changed_by(of(path))
    files = {file.label: changed_by(of(file.path)) for file in list_folders(among)}
    choices = [optional / f"web_client_{name}.sql" for name in ("anon", "closed")] if optional else []
    return Snapshot(files, {path.stem: changed_by(of(path)) for path in choices if path.is_file()})


def take_own(uri: str, own: Path) -> Snapshot:
    """The promises of the files in the app's own folder, beside the bundle's."""
    before = [*([PHASE1] if settings.named_catalog() is None else []), own / "local/phase1.sql"]
    taken = take(uri, folders(), None, [path for path in before if path.is_file()])
    labels = {file.label for file in list_folders([own])}
    return Snapshot({label: made for label, made in taken.files.items() if label in labels}, {})


def main() -> Path:
    """Returns the file that was written."""
    own = settings.own_migrations()
    with postgres_server.server() as uri:
        taken = take(uri) if own is None else take_own(uri, own)
    path = SQL / "snapshot.json" if own is None else own_snapshot(own)
    path.write_text(json.dumps(taken.as_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    print(f"{main()} written")
