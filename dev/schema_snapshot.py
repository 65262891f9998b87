"""`make snapshot`: sql/snapshot.json, what the migrations promise, taken from an empty database of a server of ours."""

from __future__ import annotations

import json
from pathlib import Path

from dev import postgres_server
from dualwrite import postgres
from dualwrite.migrations import migrator as migrations
from dualwrite.migrations import snapshot as schema_snapshot
from dualwrite.migrations.files import read_folder

SQL = Path(__file__).resolve().parents[1] / "sql"


def take(uri: str) -> dict[str, schema_snapshot.Snapshot]:
    """Applies Phase 1 and all migrations to an empty database; the picture with the web client closed, and open."""
    with postgres.connect(uri) as connection:
        connection.execute((SQL / "local/phase1.sql").read_text())
    found = {}
    for state in ("closed", "anon"):
        migrator = migrations.Migrator(
            lambda: postgres.connect(uri), migrations.MigrationParams(mode="apply", web_client=state), "snapshot"
        )
        migrator.run()
        migrator.set_web_client()
        with postgres.connect(uri) as connection:
            tables = migrations.tables_of(f.version for f in read_folder(SQL / "migrations"))
            found[state] = schema_snapshot.take(connection, tables)
    return found


if __name__ == "__main__":
    with postgres_server.server() as uri:
        (SQL / "snapshot.json").write_text(json.dumps(take(uri), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    print("sql/snapshot.json written")
