"""What the bundle remembers, in its own schema `dualwrite` of the target: runs, watermarks, open differences, and the
journal of repairs. The schema is made by apply_migrations and closed to the API's roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from dualwrite.model.errors import PreflightError
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import DRIFT, Cause, Excuse, Finding
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


CLOCKS_APART = timedelta(minutes=15)
"""How far the clocks of source, target and worker may be apart. A mark further ahead of the target's clock is wrong."""

_NEEDED = {
    ("runs", "unattended"),
    ("runs", "slice"),
    ("seen_keys", "key"),
    ("repair_journal", "cause"),
    ("watermarks", "swept_at"),
    ("open_differences", "excused_verdict"),
}
"""Columns of our tables that no older schema has."""

_WRITTEN = {
    "dualwrite.runs": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.watermarks": ("SELECT", "INSERT", "UPDATE"),
    "dualwrite.open_differences": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.repair_journal": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.count_baselines": ("SELECT", "INSERT", "UPDATE"),
    "dualwrite.looks": ("SELECT", "INSERT", "DELETE"),
    "dualwrite.seen_keys": ("SELECT", "INSERT", "TRUNCATE"),
}
"""What a run that remembers does with each table of ours. A dry run reads them."""


def require_schema(connection: Connection) -> None:
    """Raises PreflightError where the schema isn't there yet, or the role may not write what a run must remember."""
    require_tables(connection)
    faults = missing_grants(connection, writes=True)
    if faults:
        raise PreflightError("The role can't keep what a run must remember:\n" + "\n".join(f"- {f}" for f in faults))


def require_tables(connection: Connection) -> None:
    """Raises PreflightError where the schema isn't there yet, or is an older one."""
    found = connection.execute(
        """
        SELECT c.relname::text, a.attname::text
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'dualwrite'
        JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
        """
    ).fetchall()
    missing = sorted(f"{table}.{column}" for table, column in _NEEDED - set(found))
    if missing:
        raise PreflightError(
            "The schema dualwrite, for watermarks, the journal and the runs, is missing in the target or older than this "
            f"bundle: it lacks {', '.join(missing)}. Run the DAG apply_migrations with mode=apply first."
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


def journaled(connection: Connection, run_id: str) -> list[tuple[str, str, str]]:
    """Collection, key and action of everything that a run has written so far."""
    return connection.execute(
        "SELECT collection, key, action FROM dualwrite.repair_journal WHERE run_id = %s", (run_id,)
    ).fetchall()


@dataclass(frozen=True, slots=True)
class Repaired:
    """Rows that repairs of the last 24 hours wrote in one collection, for one cause. `unattended`: by scheduled runs,
    which nobody watched; `by_this_run`: how many of all were this run's."""

    collection: str
    cause: str
    number: int
    unattended: int
    by_this_run: int


def repaired_lately(connection: Connection, dag_id: str, run_id: str) -> list[Repaired]:
    """What a DAG's runs repaired in the last 24 hours, by collection and cause, from the journal. A key that was written
    several times counts once a run."""
    rows = connection.execute(
        """
        SELECT collection, cause, count(*), count(*) FILTER (WHERE unattended), count(*) FILTER (WHERE run_id = %(run)s)
        FROM (
          SELECT DISTINCT j.collection, j.key, j.run_id, r.unattended, coalesce(j.cause, d.cause, 'unknown') AS cause
          FROM dualwrite.repair_journal j
          JOIN (
            SELECT run_id, bool_or(unattended) AS unattended FROM dualwrite.runs WHERE dag_id = %(dag)s GROUP BY run_id
          ) r USING (run_id)
          LEFT JOIN dualwrite.open_differences d ON d.collection = j.collection AND d.key = j.key
          WHERE j.written_at > now() - interval '24 hours'
        ) written
        GROUP BY 1, 2 ORDER BY 1, 2
        """,
        {"dag": dag_id, "run": run_id},
    ).fetchall()
    return [Repaired(*row) for row in rows]


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
    """Moves a watermark forward, never back: a run that began earlier may end later.

    No mark lies ahead of the target's clock: a worker whose clock is days ahead would otherwise end all sweeps. One that
    does, from such a run, is replaced.
    """
    connection.execute(
        """
        INSERT INTO dualwrite.watermarks AS w (collection, examined_until, swept_at, run_id)
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
        {"collection": collection, "until": until, "swept": swept_at, "run": run_id, "apart": CLOCKS_APART},
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
    unattended: bool = False,
    part: int = 0,
) -> None:
    """Keeps a collection's counts. A retried task replaces its own line. `unattended`: a schedule began the run. `part`: the
    slice of the collection that they are of (0: the collection, or what its slices left)."""
    summary = report.as_json()
    connection.execute(
        "INSERT INTO dualwrite.runs (dag_id, run_id, collection, phase, scope, mode, outcome, window_from, window_until, "
        "started_at, seconds, documents_read, billed_reads, examined, counts, inserted, updated, deleted, verification, "
        "unattended, slice) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (dag_id, run_id, collection, phase, slice) DO UPDATE SET scope = excluded.scope, mode = excluded.mode, "
        "outcome = excluded.outcome, window_from = excluded.window_from, window_until = excluded.window_until, "
        "started_at = excluded.started_at, seconds = excluded.seconds, documents_read = excluded.documents_read, "
        "billed_reads = excluded.billed_reads, examined = excluded.examined, counts = excluded.counts, "
        "inserted = excluded.inserted, updated = excluded.updated, deleted = excluded.deleted, "
        "verification = excluded.verification, unattended = excluded.unattended, recorded_at = now()",
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
            unattended,
            part,
        ),
    )


def billed(connection: Connection, dag_id: str, run_id: str) -> int:
    """Reads that a run's tasks have recorded so far."""
    row = connection.execute(
        "SELECT coalesce(sum(billed_reads), 0)::int8 FROM dualwrite.runs WHERE dag_id = %s AND run_id = %s",
        (dag_id, run_id),
    ).fetchone()
    assert row is not None
    return int(row[0])


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
    excuse: Excuse | None
    """What the excuse holds for; None where there is none."""


def now(connection: Connection) -> datetime:
    """The target's clock: what first_seen and grace are measured by, whichever worker asks."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


_DIFFERENCE = """
key, CASE WHEN row_key IS NULL THEN NULL ELSE ARRAY(SELECT jsonb_array_elements_text(row_key)) END, path, requires, verdict,
cause, reason, first_seen, run_id, fingerprint, excused_by IS NOT NULL, excused_verdict, excused_finding_reason
"""


def _difference(row: Sequence[Any]) -> OpenDifference:
    label, key, path, requires, verdict, cause, reason, first_seen, run_id, fingerprint, excused, *accepted = row
    return OpenDifference(
        label,
        None if key is None else tuple(key),
        restored(path),
        restored(requires),
        verdict,
        cause,
        reason,
        first_seen,
        run_id,
        fingerprint,
        excused,
        Excuse(*accepted) if excused else None,
    )


def open_differences(connection: Connection, collection: str) -> list[OpenDifference]:
    """All that is open in a collection, the excused ones too, oldest first."""
    rows = connection.execute(
        f"SELECT {_DIFFERENCE} FROM dualwrite.open_differences WHERE collection = %s ORDER BY first_seen, key",
        (collection,),
    ).fetchall()
    return [_difference(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Due:
    """The open differences that a run looks at, by collection, and how many must wait for a later one. `undecided` are
    those among the waiting ones that nobody has looked at twice, so that they are no drift yet."""

    differences: dict[str, list[OpenDifference]]
    waiting: dict[str, int]
    undecided: dict[str, int]


def due(connection: Connection, collections: Sequence[str], run_id: str, limit: int) -> Due:
    """At most `limit` differences that nobody excused: those that are no verdict yet, then those seen longest ago.

    Rejections that this run has found itself need no second look.
    """
    rows = connection.execute(
        f"""
        SELECT collection, verdict = 'in_flight', row_number() OVER looked <= %(limit)s, {_DIFFERENCE}
        FROM dualwrite.open_differences
        WHERE collection = ANY(%(names)s) AND excused_by IS NULL AND NOT (verdict = 'rejected' AND run_id = %(run)s)
        WINDOW looked AS (ORDER BY verdict <> 'in_flight', last_seen, collection, key)
        ORDER BY first_seen, key
        """,
        {"names": list(collections), "run": run_id, "limit": limit},
    ).fetchall()
    found = Due({}, {}, {})
    for name, undecided, now_due, *row in rows:
        if now_due:
            found.differences.setdefault(name, []).append(_difference(row))
        else:
            found.waiting[name] = found.waiting.get(name, 0) + 1
            found.undecided[name] = found.undecided.get(name, 0) + undecided
    return found


def remember(
    connection: Connection,
    collection: str,
    findings: Iterable[tuple[Finding, Sequence[object] | None, Cause | None]],
    run_id: str,
) -> None:
    """Keeps differences open: new ones from now on, known ones with what is known of them now.

    An excuse stays while verdict and reason are those that it was given for; one given in advance is for these from now
    on. Where it ends, another difference begins.
    """
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
        cursor.executemany(_REMEMBER, parameters)


_REMEMBER = """
INSERT INTO dualwrite.open_differences AS d (
  collection, key, path, requires, row_key, verdict, cause, op_id, op_time, reason, columns, first_seen, last_seen, run_id,
  fingerprint
)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp(), %s, %s)
ON CONFLICT (collection, key) DO UPDATE SET
  (first_seen, excused_by, excuse_reason, excused_at, excused_verdict, excused_finding_reason) = (
    SELECT
      CASE
        WHEN d.verdict = 'rejected' AND excluded.verdict <> 'rejected' THEN excluded.first_seen
        WHEN d.excused_by IS NULL OR (holds AND d.excused_verdict IS NOT NULL) THEN d.first_seen
        ELSE excluded.first_seen
      END,
      CASE WHEN holds THEN d.excused_by END,
      CASE WHEN holds THEN d.excuse_reason END,
      CASE WHEN holds THEN d.excused_at END,
      CASE WHEN holds THEN excluded.verdict END,
      CASE WHEN holds THEN excluded.reason END
    FROM (
      SELECT d.excused_by IS NOT NULL AND (
        d.excused_verdict IS NULL
        OR (d.excused_verdict = excluded.verdict AND d.excused_finding_reason IS NOT DISTINCT FROM excluded.reason)
      ) AS holds
    ) excuse
  ),
  path = excluded.path, requires = excluded.requires, row_key = coalesce(excluded.row_key, d.row_key),
  verdict = excluded.verdict,
  -- What was missed while dual-write was switched off stays so, and what was open before has its own cause.
  cause = CASE
    WHEN d.cause = 'dual_write_off' AND excluded.cause = 'never_attempted' THEN d.cause
    WHEN d.cause IS NOT NULL AND excluded.cause = 'dual_write_off' THEN d.cause
    ELSE coalesce(excluded.cause, d.cause)
  END,
  op_id = coalesce(excluded.op_id, d.op_id),
  op_time = coalesce(excluded.op_time, d.op_time), reason = excluded.reason, columns = excluded.columns,
  last_seen = excluded.last_seen, run_id = excluded.run_id, fingerprint = excluded.fingerprint
"""


def close(connection: Connection, collection: str, labels: Iterable[str]) -> int:
    """Forgets differences that are gone, with their excuses; returns how many. Their causes stay in the journal, with the
    writes that ended them."""
    row = connection.execute(
        """
        WITH gone AS (
          DELETE FROM dualwrite.open_differences WHERE collection = %(collection)s AND key = ANY(%(labels)s)
          RETURNING key, cause, first_seen
        ), told AS (
          UPDATE dualwrite.repair_journal j SET cause = g.cause FROM gone g
          WHERE j.collection = %(collection)s AND j.key = g.key AND j.written_at >= g.first_seen AND j.cause IS NULL
            AND j.written_at > now() - interval '2 days'
        )
        SELECT count(*) FROM gone
        """,
        {"collection": collection, "labels": list(labels)},
    ).fetchone()
    return int(row[0]) if row else 0


def open_counts(connection: Connection) -> list[dict[str, Any]]:
    """What is open, by collection, verdict, reason, cause and whether it is excused, with the time it was first seen.
    Reasons of rejections are many, and left out."""
    rows = connection.execute(
        """
        SELECT collection, verdict, CASE WHEN verdict <> 'rejected' THEN reason END, coalesce(cause, 'unknown'),
          excused_by IS NOT NULL, count(*), min(first_seen)
        FROM dualwrite.open_differences GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 4, 5, 3
        """
    ).fetchall()
    names = ("collection", "verdict", "reason", "cause", "excused", "number")
    return [{**dict(zip(names, row[:6], strict=True)), "since": row[6].isoformat()} for row in rows]


# --- excuses ------------------------------------------------------------------------------------------------------


def excuses_of(connection: Connection, collection: str) -> dict[str, Excuse]:
    """The keys of this collection whose difference a person accepted, and what the excuse holds for."""
    rows = connection.execute(
        "SELECT key, excused_verdict, excused_finding_reason FROM dualwrite.open_differences "
        "WHERE collection = %s AND excused_by IS NOT NULL",
        (collection,),
    ).fetchall()
    return {key: Excuse(verdict, reason) for key, verdict, reason in rows}


def excuse(
    connection: Connection,
    named: Iterable[tuple[str, str]],
    *,
    by: str,
    reason: str,
    run_id: str,
    asked_at: datetime | None = None,
) -> None:
    """Accepts differences: while verdict and reason stay, they are counted as excused and are no drift. `by` is who, or
    which run; `asked_at` when they asked: what was first seen after that, nobody can have meant (a run may be cleared and
    run again weeks later).

    The key `*` stands for all drift that is open in the collection. A key that isn't open, or that is in flight, is
    excused for the first drift that is found there.
    """
    for collection, key in named:
        parameters = {
            "collection": collection,
            "key": key,
            "by": by,
            "why": reason,
            "run": run_id,
            "asked": asked_at,
            "drift": [str(v) for v in DRIFT],
        }
        connection.execute(_EXCUSE_ALL if key == "*" else _EXCUSE, parameters)


_EXCUSE_ALL = """
UPDATE dualwrite.open_differences
SET excused_by = %(by)s, excuse_reason = %(why)s, excused_at = now(), excused_verdict = verdict, excused_finding_reason = reason
WHERE collection = %(collection)s AND excused_by IS NULL AND verdict = ANY(%(drift)s)
  AND first_seen <= coalesce(%(asked)s::timestamptz, first_seen)
"""
_EXCUSE = """
INSERT INTO dualwrite.open_differences AS d (
  collection, key, verdict, reason, first_seen, last_seen, run_id, excused_by, excuse_reason, excused_at
)
VALUES (%(collection)s, %(key)s, 'in_flight', 'excused_in_advance', now(), now(), %(run)s, %(by)s, %(why)s, now())
ON CONFLICT (collection, key) DO UPDATE SET
  excused_by = excluded.excused_by, excuse_reason = excluded.excuse_reason, excused_at = excluded.excused_at,
  excused_verdict = CASE WHEN d.verdict = ANY(%(drift)s) THEN d.verdict END,
  excused_finding_reason = CASE WHEN d.verdict = ANY(%(drift)s) THEN d.reason END
WHERE d.first_seen <= coalesce(%(asked)s::timestamptz, d.first_seen)
"""


def unexcuse(connection: Connection, named: Iterable[tuple[str, str]]) -> int:
    """Takes excuses back (`*`: all of a collection); returns how many. The differences are drift again; an excuse of
    something that was never found leaves nothing behind."""
    number = 0
    for collection, key in named:
        chosen = "collection = %s AND (key = %s OR %s = '*') AND excused_by IS NOT NULL"
        number += connection.execute(
            f"DELETE FROM dualwrite.open_differences WHERE {chosen} AND verdict = 'in_flight' AND reason = 'excused_in_advance'",
            (collection, key, key),
        ).rowcount
        number += connection.execute(
            "UPDATE dualwrite.open_differences SET excused_by = NULL, excuse_reason = NULL, excused_at = NULL, "
            f"excused_verdict = NULL, excused_finding_reason = NULL WHERE {chosen}",
            (collection, key, key),
        ).rowcount
    return number


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


def ages(connection: Connection) -> dict[str, dict[str, Any]]:
    """For each collection, up to when it was examined whole and when it was last swept (UTC), and how many hours ago that
    is by the target's clock."""
    rows = connection.execute(
        """
        SELECT collection, examined_until, swept_at, extract(epoch FROM now() - examined_until) / 3600,
          extract(epoch FROM now() - swept_at) / 3600
        FROM dualwrite.watermarks
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
