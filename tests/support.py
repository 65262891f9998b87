"""What several tests need: a run of the backfill without Airflow, and an independent look at both databases."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg

from dualwrite import backfill, postgres
from dualwrite.catalog import CATALOG
from dualwrite.declaration import Catalog
from dualwrite.source import Source
from dualwrite.target import Target

DEFAULTS: dict[str, Any] = {
    "since": backfill.EXPORT_TIME,
    "margin_hours": 24,
    "until": None,
    "collections": list(CATALOG.names),
    "scope": "window",
    "mode": "apply",
    "update_stale": True,
    "page_size": 5000,
    "explain_up_to": 250_000,
    "grace_seconds": 0.2,
    "excuse": [],
    "excuse_reason": None,
}


def params(**changes: Any) -> backfill.GapParams:
    return backfill.parse({**DEFAULTS, **changes}, backfill.PARAMETERS, CATALOG, datetime.now(UTC))


@contextmanager
def gap_run(project: str, emulator: str, dsn: str, *, run_id: str = "run", catalog: Catalog = CATALOG, **changes: Any):
    """A Run over real parts, closed afterwards."""
    with (
        Source(project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(dsn), catalog) as target,
    ):
        yield backfill.Run(source, target, catalog, params(**changes), run_id)


def examine_all(run: backfill.Run, *, dry: bool, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    return {name: backfill.examine(run, name, dry=dry) for name in names or run.params.names}


def verify_all(run: backfill.Run, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    return {name: backfill.verify(run, name, counts_only=False) for name in names or run.params.names}


def apply(project: str, emulator: str, dsn: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """One apply of the gap backfill."""
    with gap_run(project, emulator, dsn, **changes) as run:
        return examine_all(run, dry=False)


def dry_run(project: str, emulator: str, dsn: str, **changes: Any) -> dict[str, dict[str, Any]]:
    with gap_run(project, emulator, dsn, mode="dry_run", **changes) as run:
        return examine_all(run, dry=True)


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {verdict: n for verdict, n in counts.items() if n}


def table_bytes(dsn: str) -> dict[str, str]:
    """A digest of every row of every table of the app with its place and version: any write changes it."""
    with psycopg.connect(dsn) as connection:
        return {
            table: connection.execute(
                f"SELECT md5(coalesce(string_agg(t.ctid::text || t.xmin::text || t::text, '|' ORDER BY t.ctid), '')) FROM {table} t"
            ).fetchone()[0]
            for table in sorted({c.table for c in CATALOG})
        }


def one(dsn: str, query: str, *parameters: Any) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query, parameters).fetchone()
        return row[0] if row and len(row) == 1 else row


__all__ = ["apply", "dry_run", "examine_all", "gap_run", "nonzero", "one", "params", "table_bytes", "verify_all"]
