"""What the bundle remembers, in its own schema `dualwrite` of the target: runs, watermarks, open differences, and the
journal of repairs. The schema is made by apply_migrations and closed to the API's roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dualwrite.errors import ParameterError, PreflightError
from dualwrite.postgres import Connection, Jsonb
from dualwrite.report import CollectionReport
from dualwrite.windows import Window


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A write that was committed and not yet confirmed against the source: its run was killed, or still goes on."""

    id: int
    label: str
    path: str | None
    action: str
    key: tuple[str, ...]


def require_schema(connection: Connection) -> None:
    """Raises PreflightError where the schema isn't there yet."""
    found = connection.execute(
        "SELECT to_regclass('dualwrite.runs') IS NOT NULL AND to_regclass('dualwrite.repair_journal') IS NOT NULL "
        "AND to_regclass('dualwrite.watermarks') IS NOT NULL AND to_regclass('dualwrite.open_differences') IS NOT NULL"
    ).fetchone()
    if not found or not found[0]:
        raise PreflightError(
            "The schema dualwrite must exist in the target, for watermarks, the journal and the runs: it doesn't. "
            "Run the DAG apply_migrations with mode=apply first."
        )


# --- the journal --------------------------------------------------------------------------------------------------


def unconfirmed(connection: Connection, collection: str) -> list[JournalEntry]:
    """Writes in this collection that no run has confirmed, oldest first."""
    rows = connection.execute(
        "SELECT id, key, path, action, ARRAY(SELECT jsonb_array_elements_text(row_key)) FROM dualwrite.repair_journal "
        "WHERE collection = %s AND confirmed_at IS NULL ORDER BY id",
        (collection,),
    ).fetchall()
    return [JournalEntry(i, label, path, action, tuple(key)) for i, label, path, action, key in rows]


def confirm(connection: Connection, ids: Sequence[int]) -> None:
    """Marks journal rows as confirmed: the documents behind them were read again after the write and had not moved."""
    connection.execute(
        "UPDATE dualwrite.repair_journal SET confirmed_at = clock_timestamp() WHERE id = ANY(%s) AND confirmed_at IS NULL",
        (list(ids),),
    )


def prune_journal(connection: Connection, days: int) -> int:
    """Drops confirmed before-images older than `days`; returns how many."""
    return connection.execute(
        "DELETE FROM dualwrite.repair_journal WHERE confirmed_at < now() - make_interval(days => %s)", (days,)
    ).rowcount


# --- watermarks and runs ------------------------------------------------------------------------------------------


def watermark(connection: Connection, collection: str) -> tuple[datetime | None, datetime | None]:
    """Up to when the collection was examined whole, and when it was last swept (UTC; None for never)."""
    row = connection.execute(
        "SELECT examined_until, swept_at FROM dualwrite.watermarks WHERE collection = %s", (collection,)
    ).fetchone()
    return (row[0], row[1]) if row else (None, None)


def advance_watermark(
    connection: Connection, collection: str, until: datetime, run_id: str, *, swept_at: datetime | None = None
) -> None:
    """Moves a watermark forward, never back: a run that began earlier may end later."""
    connection.execute(
        "INSERT INTO dualwrite.watermarks AS w (collection, examined_until, swept_at, run_id) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (collection) DO UPDATE SET examined_until = greatest(w.examined_until, excluded.examined_until), "
        "swept_at = greatest(w.swept_at, excluded.swept_at), run_id = excluded.run_id, updated_at = now()",
        (collection, until, swept_at, run_id),
    )


def record_run(
    connection: Connection,
    report: CollectionReport,
    *,
    dag_id: str,
    run_id: str,
    scope: str,
    mode: str,
    window: Window | None,
    started_at: datetime,
) -> None:
    """Keeps a collection's counts. A retried task replaces its own line."""
    summary = report.as_json()
    connection.execute(
        "INSERT INTO dualwrite.runs (dag_id, run_id, collection, phase, scope, mode, outcome, window_from, window_until, "
        "started_at, seconds, documents_read, billed_reads, examined, counts, inserted, updated, deleted, verification) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (dag_id, run_id, collection, phase) DO UPDATE SET scope = excluded.scope, mode = excluded.mode, "
        "outcome = excluded.outcome, window_from = excluded.window_from, window_until = excluded.window_until, "
        "started_at = excluded.started_at, seconds = excluded.seconds, documents_read = excluded.documents_read, "
        "billed_reads = excluded.billed_reads, examined = excluded.examined, counts = excluded.counts, "
        "inserted = excluded.inserted, updated = excluded.updated, deleted = excluded.deleted, "
        "verification = excluded.verification, recorded_at = now()",
        (
            dag_id,
            run_id,
            report.collection,
            report.phase,
            scope,
            mode,
            summary["outcome"],
            window.start if window else None,
            window.end if window else None,
            started_at,
            report.seconds,
            report.documents_read,
            report.billed_reads,
            report.examined,
            Jsonb(summary["counts"]),
            report.inserted,
            report.updated,
            report.deleted,
            report.verification,
        ),
    )


# --- excuses ------------------------------------------------------------------------------------------------------


def excused_labels(connection: Connection, collection: str) -> frozenset[str]:
    """Keys of this collection whose difference a person accepted."""
    rows = connection.execute(
        "SELECT key FROM dualwrite.open_differences WHERE collection = %s AND excused_by IS NOT NULL", (collection,)
    ).fetchall()
    return frozenset(key for (key,) in rows)


def parse_excuses(texts: Iterable[str], collections: Iterable[str]) -> list[tuple[str, str]]:
    """`collection:key` as (collection, key). Raises ParameterError where one names no collection or no key."""
    known = set(collections)
    excuses = []
    for text in texts:
        collection, colon, key = text.partition(":")
        if not colon or not key or collection not in known:
            raise ParameterError(
                f"An excuse is written as collection:key: {text!r} is not. "
                f"Write for example comments:AbC123; collections are {', '.join(sorted(known))}."
            )
        excuses.append((collection, key))
    return excuses


def excuse(connection: Connection, excuses: Iterable[tuple[str, str]], *, by: str, reason: str, run_id: str) -> None:
    """Accepts differences: from now on they are counted as excused, and are no drift. `by` is who, or which run."""
    for collection, key in excuses:
        connection.execute(
            "INSERT INTO dualwrite.open_differences (collection, key, verdict, first_seen, last_seen, run_id, excused_by, "
            "excuse_reason, excused_at) VALUES (%s, %s, 'rejected', now(), now(), %s, %s, %s, now()) "
            "ON CONFLICT (collection, key) DO UPDATE SET excused_by = excluded.excused_by, "
            "excuse_reason = excluded.excuse_reason, excused_at = excluded.excused_at",
            (collection, key, run_id, by, reason),
        )


def recent_runs(connection: Connection, dag_id: str, limit: int) -> list[dict[str, Any]]:
    """The last runs' counts in short form, newest first."""
    rows = connection.execute(
        "SELECT run_id, collection, phase, outcome, recorded_at, examined, counts FROM dualwrite.runs WHERE dag_id = %s "
        "ORDER BY id DESC LIMIT %s",
        (dag_id, limit),
    ).fetchall()
    names = ("run_id", "collection", "phase", "outcome", "recorded_at", "examined", "counts")
    return [dict(zip(names, (*row[:4], row[4].isoformat(), *row[5:]), strict=True)) for row in rows]
