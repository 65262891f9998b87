"""`make migration name=add_something`: an empty, correctly named file in the folder that DUALWRITE_MIGRATIONS names, or in
sql/migrations."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from dualwrite import settings

FOLDER = settings.own_migrations() or Path(__file__).resolve().parents[1] / "sql" / "migrations"


def create(name: str, folder: Path = FOLDER, now: datetime | None = None) -> Path:
    """Makes the file and returns its path. The version is the moment, or one more than the newest file's."""
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise SystemExit(
            f"A migration's name is made of a-z, 0-9 and _: {name!r} is not. Try make migration name=add_x."
        )
    newest = max((p.name[:14] for p in folder.glob("*.sql")), default="0")
    version = max((now or datetime.now(UTC)).strftime("%Y%m%d%H%M%S"), str(int(newest) + 1).zfill(14))
    path = folder / f"{version}_{name}.sql"
    path.write_text(
        "-- Why this change is needed, and its effect on writers that run beside it.\n"
        "-- (An index built concurrently: one statement, and a line `-- dualwrite: no-transaction` here.)\n"
    )
    return path


if __name__ == "__main__":
    print(create(sys.argv[1] if len(sys.argv) > 1 else ""))
