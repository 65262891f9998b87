"""What the bundle remembers, in its own schema `dualwrite` of the target: runs, watermarks, open differences, and the
journal of repairs. The schema is made by apply_migrations and closed to the API's roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from dualwrite.model.errors import PreflightError
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Cause, Finding
from dualwrite.model.windows import Window
from dualwrite.postgres import Connection, Jsonb, privileges
from dualwrite.postgres.text import restored, stored


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A write that was committed and not yet confirmed against the source: its run was killed, or still goes on."""

    id: int
    label: str
    path: str | None
    action: str
    key: tuple[str, ...]


_WRITTEN = {
    "dualwrite.runs": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.watermarks": ("SELECT", "INSERT", "UPDATE"),
    "dualwrite.open_differences": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.repair_journal": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""What a run that remembers does with each table of ours. A dry run reads them."""


def require_schema(connection: Connection) -> None:
    """Raises PreflightError where the schema isn't there yet, or the role may not write what a run must remember."""
    require_tables(connection)
    faults = missing_grants(connection, writes=True)
    if faults:
        raise PreflightError("The role can't keep what a run must remember:\n" + "\n".join(f"- {f}" for f in faults))


def require_tables(connection: Connection) -> None:
    """Raises PreflightError where the schema isn't there yet."""
    if any(privileges.relation(connection, table) is None for table in _WRITTEN):
        raise PreflightError(
            "The schema dualwrite, for watermarks, the journal and the runs, is missing in the target. "
            "Run the DAG apply_migrations with mode=apply first."
        )


def missing_grants(connection: Connection, *, writes: bool) -> list[str]:
    """What the role lacks on our tables, a sentence each with the GRANT that gives it."""
    needed = _WRITTEN if writes else dict.fromkeys(_WRITTEN, ("SELECT",))
    return privileges.missing_grants(connection, needed)


def can_record_runs(connection: Connection) -> bool:
    """Whether the role may keep a run's counts: a dry run does where it may, and needs no right to."""
    return not privileges.missing_grants(connection, {"dualwrite.runs": ("INSERT", "UPDATE")})


# --- the journal --------------------------------------------------------------------------------------------------


def unconfirmed(connection: Connection, collection: str) -> list[JournalEntry]:
    """Writes in this collection that no run has confirmed, oldest first."""
    rows = connection.execute(
        "SELECT id, key, path, action, ARRAY(SELECT jsonb_array_elements_text(row_key)) FROM dualwrite.repair_journal "
        "WHERE collection = %s AND confirmed_at IS NULL ORDER BY id",
        (collection,),
    ).fetchall()
    return [JournalEntry(i, label, restored(path), action, tuple(key)) for i, label, path, action, key in rows]


def confirm(connection: Connection, ids: Sequence[int]) -> None:
    """Marks journal rows as confirmed: the documents behind them were read again after the write and had not moved."""
    connection.execute(
        "UPDATE dualwrite.repair_journal SET confirmed_at = clock_timestamp() WHERE id = ANY(%s) AND confirmed_at IS NULL",
        (list(ids),),
    )


def prune_journal(connection: Connection, days: int) -> int:
    """Forgets how rows were before our writes, `days` after the write: the promise of personal data's end holds for every
    row. Confirmed journal rows go; returns how many. One that no run has confirmed keeps its key and path, which the next
    run needs to finish it, and loses its before-image.

    sql/optional/prune.sql is the same for a time in which no DAG runs.
    """
    # An insert has no before-image, so this leaves it alone: `untouched` compares the journal row's own xmin.
    connection.execute(
        "UPDATE dualwrite.repair_journal SET row_before = NULL WHERE confirmed_at IS NULL AND row_before IS NOT NULL "
        "AND written_at < now() - make_interval(days => %s)",
        (days,),
    )
    return connection.execute(
        "DELETE FROM dualwrite.repair_journal WHERE confirmed_at IS NOT NULL "
        "AND written_at < now() - make_interval(days => %s)",
        (days,),
    ).rowcount


def prune_runs(connection: Connection, days: int) -> int:
    """Drops runs older than `days`; returns how many lines."""
    return connection.execute(
        "DELETE FROM dualwrite.runs WHERE recorded_at < now() - make_interval(days => %s)", (days,)
    ).rowcount


# --- watermarks and runs ------------------------------------------------------------------------------------------


def watermark(connection: Connection, collection: str) -> tuple[datetime, datetime | None] | None:
    """Up to when the collection was examined whole, and when it was last swept (UTC; None for never)."""
    row = connection.execute(
        "SELECT examined_until, swept_at FROM dualwrite.watermarks WHERE collection = %s", (collection,)
    ).fetchone()
    return (row[0], row[1]) if row else None


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


# --- open differences ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenDifference:
    """A difference that was found and isn't known to be gone. Times are the target's, UTC.

    `key` is None where no row could be made of the document, `path` where a row doesn't tell it. `requires` is the
    document whose absence makes a row extra (see Unit).
    """

    label: str
    key: tuple[str, ...] | None
    path: str | None
    requires: str | None
    verdict: str
    cause: str | None
    reason: str | None
    first_seen: datetime
    run_id: str
    fingerprint: str | None
    excused: bool


def now(connection: Connection) -> datetime:
    """The target's clock: what first_seen and grace are measured by, whichever worker asks."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def open_differences(connection: Connection, collection: str) -> list[OpenDifference]:
    """All that is open in a collection, the excused ones too, oldest first."""
    rows = connection.execute(
        "SELECT key, CASE WHEN row_key IS NULL THEN NULL ELSE ARRAY(SELECT jsonb_array_elements_text(row_key)) END, path, "
        "requires, verdict, cause, reason, first_seen, run_id, fingerprint, excused_by IS NOT NULL "
        "FROM dualwrite.open_differences WHERE collection = %s ORDER BY first_seen, key",
        (collection,),
    ).fetchall()
    return [
        OpenDifference(label, tuple(key) if key is not None else None, restored(path), restored(requires), *rest)
        for label, key, path, requires, *rest in rows
    ]


def remember(
    connection: Connection,
    collection: str,
    findings: Iterable[tuple[Finding, Sequence[object] | None, Cause | None]],
    run_id: str,
) -> None:
    """Keeps differences open: new ones from now on, known ones with what is known of them now. An excuse stays."""
    parameters = [
        (
            collection,
            finding.label,
            stored(finding.path),
            stored(finding.requires),
            None if key is None else Jsonb([str(part) for part in key]),
            finding.verdict,
            cause.cause if cause else finding.cause,
            cause.op_id if cause else None,
            cause.at if cause else None,
            finding.reason,
            list(finding.columns),
            run_id,
            finding.fingerprint,
        )
        for finding, key, cause in findings
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO dualwrite.open_differences AS d (collection, key, path, requires, row_key, verdict, cause, op_id, "
            "op_time, reason, columns, first_seen, last_seen, run_id, fingerprint) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, "
            "%s, %s, %s, clock_timestamp(), clock_timestamp(), %s, %s) "
            "ON CONFLICT (collection, key) DO UPDATE SET path = excluded.path, requires = excluded.requires, "
            "row_key = excluded.row_key, verdict = excluded.verdict, cause = coalesce(excluded.cause, d.cause), "
            "op_id = coalesce(excluded.op_id, d.op_id), op_time = coalesce(excluded.op_time, d.op_time), "
            "reason = excluded.reason, columns = excluded.columns, last_seen = excluded.last_seen, "
            "run_id = excluded.run_id, fingerprint = excluded.fingerprint",
            parameters,
        )


def close(connection: Connection, collection: str, labels: Iterable[str]) -> int:
    """Forgets differences that are gone, with their excuses; returns how many."""
    return connection.execute(
        "DELETE FROM dualwrite.open_differences WHERE collection = %s AND key = ANY(%s)", (collection, list(labels))
    ).rowcount


def open_counts(connection: Connection) -> list[dict[str, Any]]:
    """What is open, by collection, verdict, cause and whether it is excused, with the time it was first seen."""
    rows = connection.execute(
        "SELECT collection, verdict, coalesce(cause, 'unknown'), excused_by IS NOT NULL, count(*), min(first_seen) "
        "FROM dualwrite.open_differences GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    ).fetchall()
    names = ("collection", "verdict", "cause", "excused", "number")
    return [{**dict(zip(names, row[:5], strict=True)), "since": row[5].isoformat()} for row in rows]


# --- excuses ------------------------------------------------------------------------------------------------------


def excused_labels(connection: Connection, collection: str) -> frozenset[str]:
    """Keys of this collection whose difference a person accepted."""
    rows = connection.execute(
        "SELECT key FROM dualwrite.open_differences WHERE collection = %s AND excused_by IS NOT NULL", (collection,)
    ).fetchall()
    return frozenset(key for (key,) in rows)


def excuse(connection: Connection, excuses: Iterable[tuple[str, str]], *, by: str, reason: str, run_id: str) -> None:
    """Accepts differences: from now on they are counted as excused, and are no drift. `by` is who, or which run.

    The key `*` stands for all that is open in the collection now; what comes later is not excused by it.
    """
    for collection, key in excuses:
        if key == "*":
            connection.execute(
                "UPDATE dualwrite.open_differences SET excused_by = %s, excuse_reason = %s, excused_at = now() "
                "WHERE collection = %s AND excused_by IS NULL",
                (by, reason, collection),
            )
            continue
        connection.execute(
            "INSERT INTO dualwrite.open_differences (collection, key, verdict, first_seen, last_seen, run_id, excused_by, "
            "excuse_reason, excused_at) VALUES (%s, %s, 'rejected', now(), now(), %s, %s, %s, now()) "
            "ON CONFLICT (collection, key) DO UPDATE SET excused_by = excluded.excused_by, "
            "excuse_reason = excluded.excuse_reason, excused_at = excluded.excused_at",
            (collection, key, run_id, by, reason),
        )


def unexcuse(connection: Connection, excuses: Iterable[tuple[str, str]]) -> int:
    """Takes excuses back (`*`: all of a collection); returns how many. The differences are drift again."""
    return sum(
        connection.execute(
            "UPDATE dualwrite.open_differences SET excused_by = NULL, excuse_reason = NULL, excused_at = NULL "
            "WHERE collection = %s AND (key = %s OR %s = '*') AND excused_by IS NOT NULL",
            (collection, key, key),
        ).rowcount
        for collection, key in excuses
    )


def excuses(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """The differences that a person accepted, the latest first: who, why and since when. Long keys and reasons are cut,
    with an ellipsis: reports are kept small."""
    rows = connection.execute(
        "SELECT collection, CASE WHEN length(key) > 120 THEN left(key, 119) || '…' ELSE key END, verdict, excused_by, "
        "CASE WHEN length(excuse_reason) > 120 THEN left(excuse_reason, 119) || '…' ELSE excuse_reason END, excused_at "
        "FROM dualwrite.open_differences WHERE excused_by IS NOT NULL ORDER BY excused_at DESC, collection, key LIMIT %s",
        (limit,),
    ).fetchall()
    names = ("collection", "key", "verdict", "by", "reason")
    return [{**dict(zip(names, row[:5], strict=True)), "since": row[5].isoformat(timespec="seconds")} for row in rows]


# --- history --------------------------------------------------------------------------------------------------------


def ages(connection: Connection) -> dict[str, dict[str, str | None]]:
    """For each collection, up to when it was examined whole and when it was last swept (UTC)."""
    rows = connection.execute("SELECT collection, examined_until, swept_at FROM dualwrite.watermarks").fetchall()
    return {
        name: {"examined_until": until.isoformat(), "swept_at": swept.isoformat() if swept else None}
        for name, until, swept in rows
    }


def history(connection: Connection, dag_id: str, limit: int = 200) -> list[dict[str, Any]]:
    """The last runs in short form, newest first: what each found and wrote over all collections."""
    verdicts = ", ".join(
        f"sum((counts ->> '{v}')::int8) FILTER (WHERE looked)"
        for v in ("missing", "stale", "extra", "rejected", "in_flight")
    )
    rows = connection.execute(
        f"SELECT run_id, max(recorded_at), sum(examined) FILTER (WHERE looked), {verdicts}, "
        "sum(inserted + updated + deleted), sum(billed_reads), count(*) FILTER (WHERE outcome = 'not_examined') "
        "FROM (SELECT *, phase IN ('compare', 'second_look') AS looked FROM dualwrite.runs WHERE dag_id = %s "
        "ORDER BY id DESC LIMIT %s) lately GROUP BY run_id ORDER BY 2 DESC LIMIT %s",
        (dag_id, 80 * limit, limit),  # a run has at most five lines for each of the collections
    ).fetchall()
    names = ("examined", "missing", "stale", "extra", "rejected", "in_flight", "written", "billed", "not_examined")
    return [
        {
            "run_id": row[0],
            "at": row[1].isoformat(timespec="seconds"),
            **{n: int(v) for n, v in zip(names, row[2:], strict=True) if v},
        }
        for row in rows
    ]


def clean_days(connection: Connection, dag_id: str) -> list[tuple[date, bool]]:
    """The days (UTC) with runs, newest first, each with whether all of them examined everything and saw no drift.
    Rejections don't count here: they stay open until they are corrected or excused."""
    rows = connection.execute(
        "SELECT (recorded_at AT TIME ZONE 'UTC')::date, bool_and(outcome = 'examined' AND (counts ->> 'missing')::int8 = 0 "
        "AND (counts ->> 'stale')::int8 = 0 AND (counts ->> 'extra')::int8 = 0) FROM dualwrite.runs "
        "WHERE dag_id = %s AND phase IN ('compare', 'second_look') GROUP BY 1 ORDER BY 1 DESC",
        (dag_id,),
    ).fetchall()
    return [(day, bool(clean)) for day, clean in rows]
