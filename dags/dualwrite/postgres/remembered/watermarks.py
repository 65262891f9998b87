"""The watermarks, `dualwrite.watermarks`: up to when each collection was examined completely, and when it was last swept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dualwrite.model.run_report import Age
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.target_clock import MAX_CLOCK_SKEW


def watermarks(connection: Connection) -> dict[str, tuple[datetime, datetime | None]]:
    """For each collection, up to when it was examined completely, and when it was last swept (UTC; None for never)."""
    rows = connection.execute(f"SELECT collection, examined_until, swept_at FROM {SCHEMA}.watermarks").fetchall()
    return {name: (until, swept) for name, until, swept in rows}


def advance(
    connection: Connection, collection: str, until: datetime, run_id: str, *, swept_at: datetime | None = None
) -> None:
    """Moves a watermark forward, never back: a run that began earlier may end later.

    No mark lies ahead of the target's clock: a worker whose clock is days ahead would otherwise end all sweeps. One that
    does, from such a run, is replaced.
    """
    connection.execute(
        f"""
        INSERT INTO {SCHEMA}.watermarks AS w (collection, examined_until, swept_at, run_id)
        VALUES (
          %(collection)s,
          least(%(until)s, clock_timestamp()),
          CASE WHEN %(swept)s::timestamptz IS NOT NULL THEN least(%(swept)s, clock_timestamp()) END,
          %(run)s
        )
        ON CONFLICT (collection) DO UPDATE SET
          examined_until = CASE
            WHEN w.examined_until > clock_timestamp() + %(apart)s THEN excluded.examined_until
            ELSE greatest(w.examined_until, excluded.examined_until)
          END,
          swept_at = CASE
            WHEN w.swept_at > clock_timestamp() + %(apart)s THEN excluded.swept_at
            ELSE greatest(w.swept_at, excluded.swept_at)
          END,
          run_id = excluded.run_id,
          updated_at = now()
        """,
        {"collection": collection, "until": until, "swept": swept_at, "run": run_id, "apart": MAX_CLOCK_SKEW},
    )


def lost(connection: Connection, collections: Sequence[str], until: datetime, run_id: str) -> set[str]:
    """The collections whose mark isn't this run's and lies before `until`, which this run had committed: then the server has lost
    the run's commits (a failover to a replica that lagged, a restored backup)."""
    rows = connection.execute(
        f"""
        SELECT name FROM unnest(%(names)s::text[]) AS name
        WHERE NOT EXISTS (
          SELECT 1 FROM {SCHEMA}.watermarks w
          WHERE w.collection = name AND (w.run_id = %(run)s OR w.examined_until >= %(until)s)
        )
        """,
        {"names": list(collections), "run": run_id, "until": until},
    ).fetchall()
    return {name for (name,) in rows}


def ages(connection: Connection) -> dict[str, Age]:
    """For each collection, up to when it was examined completely and when it was last swept (UTC), and how many hours ago that
    is by the target's clock."""
    rows = connection.execute(
        f"""
        SELECT collection, examined_until, swept_at, extract(epoch FROM now() - examined_until) / 3600,
          extract(epoch FROM now() - swept_at) / 3600
        FROM {SCHEMA}.watermarks
        """
    ).fetchall()
    return {
        name: {
            "examined_until": until.isoformat(),
            "swept_at": swept.isoformat() if swept else None,
            "examined_hours": round(float(examined_hours), 2),
            "swept_hours": None if swept_hours is None else round(float(swept_hours), 2),
        }
        for name, until, swept, examined_hours, swept_hours in rows
    }
