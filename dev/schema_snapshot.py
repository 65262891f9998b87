"""`make snapshot`: sql/snapshot.json, what each migration promises, taken from an empty database of a server of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dev import postgres_server
from dualwrite import postgres
from dualwrite.migrations import picture, promise
from dualwrite.migrations.execution import SEARCH_PATH
from dualwrite.migrations.files import list_folder, read_text
from dualwrite.migrations.promise import Snapshot
from dualwrite.migrations.statements import Statement, split

SQL = Path(__file__).resolve().parents[1] / "sql"


def take(uri: str, folder: Path = SQL / "migrations", optional: Path | None = SQL / "optional") -> Snapshot:
    """Executes Phase 1 in an empty database, then one migration after another, then the optional files; what each of
    them changed. Without the migrator, whose ledger no file promises."""

    def changed_by(statements: Sequence[Statement]) -> promise.Promise:
        with postgres.connect(uri) as connection:
            before = picture.take_picture(connection)
            connection.execute(f"SET search_path = {SEARCH_PATH}")
            for statement in statements:
                connection.execute(statement.text)
            return promise.changes(before, picture.take_picture(connection))

    def of(path: Path) -> Sequence[Statement]:
        return split(read_text(path), path.name)

    changed_by(of(SQL / "local/phase1.sql"))
    files = {file.label: changed_by(of(file.path)) for file in list_folder(folder)}
    choices = [optional / f"web_client_{name}.sql" for name in ("anon", "closed")] if optional else []
    return Snapshot(files, {path.stem: changed_by(of(path)) for path in choices if path.is_file()})


if __name__ == "__main__":
    with postgres_server.server() as uri:
        text = json.dumps(take(uri).as_json(), indent=2, sort_keys=True, ensure_ascii=False)
        (SQL / "snapshot.json").write_text(text + "\n")
    print("sql/snapshot.json written")
