"""The tripwire's baseline of each collection, `dualwrite.count_baselines`: documents minus rows, by interval
(see baseline.py)."""

from __future__ import annotations

from datetime import datetime

from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.session import Session
from dualwrite.runs.tripwire.baseline import Baseline

_LOAD = sql.SQL(f"""
    SELECT field, edges, differences, untimed, sweep_called_at, sweep_due, stray, counted_at, coalesce(counted_seconds, 0),
      updated_at
    FROM {SCHEMA}.count_baselines WHERE collection = %(collection)s
""")


def load(session: Session, collection: str) -> Baseline | None:
    """The baseline of a collection; None before its first complete comparison."""
    loaded = [
        Baseline(field, tuple(edges), tuple(differences), *others)
        for field, edges, differences, *others in session.fetch(_LOAD, {"collection": collection})
    ]
    return loaded[0] if loaded else None


def save(connection: Connection, collection: str, baseline: Baseline, run_id: str) -> None:
    """Keeps a baseline, in the caller's transaction, which also keeps the differences."""
    connection.execute(
        f"""
        INSERT INTO {SCHEMA}.count_baselines AS b (
          collection, field, edges, differences, untimed, sweep_called_at, sweep_due, stray, counted_at, counted_seconds,
          run_id
        )
        VALUES (
          %(collection)s, %(field)s, %(edges)s, %(differences)s, %(untimed)s, %(sweep_called_at)s, %(sweep_due)s, %(stray)s,
          %(counted_at)s, %(counted_seconds)s, %(run)s
        )
        ON CONFLICT (collection) DO UPDATE SET
          field = excluded.field, edges = excluded.edges, differences = excluded.differences,
          untimed = excluded.untimed, sweep_called_at = coalesce(excluded.sweep_called_at, b.sweep_called_at),
          sweep_due = excluded.sweep_due, stray = excluded.stray, counted_at = excluded.counted_at,
          counted_seconds = excluded.counted_seconds, run_id = excluded.run_id, updated_at = now()
        """,
        {
            "collection": collection,
            "field": baseline.field,
            "edges": list(baseline.edges),
            "differences": list(baseline.differences),
            "untimed": baseline.untimed,
            "sweep_called_at": baseline.sweep_called_at,
            "sweep_due": baseline.sweep_due,
            "stray": baseline.stray,
            "counted_at": baseline.counted_at,
            "counted_seconds": baseline.counted_seconds,
            "run": run_id,
        },
    )


def swept(connection: Connection, collection: str, baseline: Baseline | None, run_id: str) -> None:
    """Keeps the baseline of a complete comparison; if it could not be measured (None), withdraws the older one's request for
    a sweep."""
    if baseline is not None:
        save(connection, collection, baseline, run_id)
        return
    connection.execute(
        f"UPDATE {SCHEMA}.count_baselines SET sweep_due = false WHERE collection = %s AND sweep_due", (collection,)
    )


def counted(connection: Connection, collection: str, at: datetime, seconds: float) -> None:
    """Records when counts failed, and after how many seconds: the next try waits accordingly."""
    connection.execute(
        f"UPDATE {SCHEMA}.count_baselines SET counted_at = %s, counted_seconds = %s WHERE collection = %s",
        (at, seconds, collection),
    )


def called_sweeps(connection: Connection) -> frozenset[str]:
    """The collections whose counts request a sweep. A sweep replaces the baseline, which ends the request."""
    rows = connection.execute(f"SELECT collection FROM {SCHEMA}.count_baselines WHERE sweep_due").fetchall()
    return frozenset(name for (name,) in rows)
