"""The run log, `dualwrite.runs`: the counts of each phase of each run in a collection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import cast

from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import Day, PastRun
from dualwrite.model.windows import Window
from dualwrite.postgres import privileges
from dualwrite.postgres.connection import Connection, Jsonb, sql
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.session import Session


def can_record(connection: Connection) -> bool:
    """Whether the role may keep a run's counts: a dry run does so if it may."""
    return not privileges.missing_grants(connection, {f"{SCHEMA}.runs": ("INSERT", "UPDATE")})


@dataclass(frozen=True, slots=True)
class Work:
    """What a line tells beside the counts: whose work it was, on how much, and when it began."""

    dag_id: str
    run_id: str
    scope: str
    mode: str
    window: Window | None
    started_at: datetime
    unattended: bool = False
    """A schedule began the run."""
    part: int = 0
    """The slice of the collection; 0: the collection, or what its slices left."""


def record(connection: Connection, report: CollectionReport, work: Work) -> None:
    """Keeps a collection's counts. A retried task replaces its own line."""
    line = {
        "dag_id": work.dag_id,
        "run_id": work.run_id,
        "collection": report.collection,
        "phase": report.phase,
        "scope": work.scope,
        "mode": work.mode,
        "outcome": report.outcome,
        "window_from": work.window.start if work.window else None,
        "window_until": work.window.end if work.window else None,
        "started_at": work.started_at,
        "counts": Jsonb({**report.as_json()["counts"], "left_out": report.left_out, "excused": report.excused_counts}),
        "verification": report.verification,
        "unattended": work.unattended,
        "slice": work.part,
        **report.logged(),
    }
    connection.execute(_RECORD.format(schema=SCHEMA, **_columns(line)), line)


_RECORD = """
INSERT INTO {schema}.runs ({columns})
VALUES ({values})
ON CONFLICT (dag_id, run_id, collection, phase, slice) DO UPDATE SET {replaced}, recorded_at = now()
"""


def _columns(line: Iterable[str]) -> dict[str, str]:
    """A line's columns, their values as named parameters, and how another try replaces it."""
    return {
        "columns": ", ".join(line),
        "values": ", ".join(f"%({column})s" for column in line),
        "replaced": ", ".join(f"{column} = excluded.{column}" for column in line),
    }


def billed(connection: Connection, dag_id: str, run_id: str) -> int:
    """Reads that a run's tasks have recorded so far."""
    row = connection.execute(
        f"SELECT coalesce(sum(billed_reads), 0)::int8 FROM {SCHEMA}.runs WHERE dag_id = %s AND run_id = %s",
        (dag_id, run_id),
    ).fetchone()
    assert row is not None
    return int(row[0])


_PROOF_READS = sql.SQL(f"""
    SELECT coalesce(sum(proof_reads), 0)::int8 FROM {SCHEMA}.runs
    WHERE dag_id = %(dag)s AND unattended AND recorded_at > now() - interval '1 day'
""")


def proof_reads(session: Session, dag_id: str) -> int:
    """Names that a DAG's scheduled runs have read for proofs within a day."""
    [[reads]] = session.fetch(_PROOF_READS, {"dag": dag_id})
    return int(reads)


def without_rows(session: Session, dag_id: str, run_id: str) -> dict[str, int]:
    """How many documents that this run compared can have no row, by collection: orphans (a comment below a deleted post),
    duplicates, and those that their collection's condition leaves out. A sweep's are of any age, so it may overlook that dual-write
    is off; the next window doesn't."""
    return dict(session.fetch(_WITHOUT_ROWS, {"dag": dag_id, "run": run_id}))


_WITHOUT_ROWS = sql.SQL(f"""
    SELECT collection, sum(
      (counts ->> 'orphan')::int8 + (counts ->> 'duplicate')::int8 + coalesce((counts ->> 'left_out')::int8, 0)
    )::int8 FROM {SCHEMA}.runs
    WHERE dag_id = %(dag)s AND run_id = %(run)s AND phase = 'compare' GROUP BY 1
""")


def prune(connection: Connection, days: int) -> int:
    """Drops runs older than `days`; returns how many lines."""
    return connection.execute(
        f"DELETE FROM {SCHEMA}.runs WHERE recorded_at < now() - make_interval(days => %s)", (days,)
    ).rowcount


def last_run(connection: Connection, dag_id: str, *, but: str) -> str | None:
    """The run that left the last line, apart from this one; None if there is none."""
    row = connection.execute(
        f"SELECT run_id FROM {SCHEMA}.runs WHERE dag_id = %s AND run_id <> %s ORDER BY id DESC LIMIT 1", (dag_id, but)
    ).fetchone()
    return str(row[0]) if row else None


_NOT_EXCUSED = "(counts ->> '{0}')::int8 - coalesce((counts -> 'excused' ->> '{0}')::int8, 0)"
"""Of a verdict. Lines of earlier versions don't say what was excused."""

_CLEAN = " AND ".join(
    ["outcome = 'examined'", *(f"{_NOT_EXCUSED.format(verdict)} = 0" for verdict in ("missing", "stale", "extra"))]
)
"""A line that examined all and saw no drift, but for what was excused by then. Rejections don't count: they stay open until they are
corrected or excused."""


def history(connection: Connection, dag_id: str, limit: int = 200) -> list[PastRun]:
    """The last runs in short form, newest first: the sums over all collections."""
    rows = connection.execute(
        f"""
        SELECT run_id, max(recorded_at), sum(examined) FILTER (WHERE looked),
          sum({_NOT_EXCUSED.format("missing")}) FILTER (WHERE looked),
          sum({_NOT_EXCUSED.format("stale")}) FILTER (WHERE looked),
          sum({_NOT_EXCUSED.format("extra")}) FILTER (WHERE looked),
          sum({_NOT_EXCUSED.format("rejected")}) FILTER (WHERE looked),
          sum((SELECT sum(n::int8) FROM jsonb_each_text(counts -> 'excused') AS e (verdict, n))) FILTER (WHERE looked),
          sum((counts ->> 'in_flight')::int8) FILTER (WHERE looked),
          sum(inserted + updated + deleted), sum(billed_reads), count(*) FILTER (WHERE outcome = 'not_examined')
        FROM (
          SELECT *, phase IN ('compare', 'second_look') AS looked
          FROM {SCHEMA}.runs WHERE dag_id = %s
          ORDER BY id DESC LIMIT %s
        ) lately
        GROUP BY run_id ORDER BY 2 DESC LIMIT %s
        """,
        (dag_id, 80 * limit, limit),  # a run has at most five lines for each of the collections
    ).fetchall()
    names = (
        "examined",
        "missing",
        "stale",
        "extra",
        "rejected",
        "excused",
        "in_flight",
        "written",
        "billed",
        "not_examined",
    )
    found = []
    for row in rows:
        numbers = {n: int(v) for n, v in zip(names, row[2:], strict=True) if v}
        found.append(cast("PastRun", {"run_id": row[0], "at": row[1].isoformat(timespec="seconds"), **numbers}))
    return found


def days(connection: Connection, dag_id: str, number: int) -> list[Day]:
    """The last days (UTC), today first, each with how many runs compared, whether all of them were clean (see `clean_days`; None:
    there was none), up to three that weren't, and the reads that all DAGs' tasks have recorded."""
    rows = connection.execute(
        f"""
        WITH lines AS (
          SELECT (recorded_at AT TIME ZONE 'UTC')::date AS day, run_id, billed_reads,
            dag_id = %(dag)s AND phase IN ('compare', 'second_look') AS looked,
            {_CLEAN} AS clean
          FROM {SCHEMA}.runs
          WHERE recorded_at >= ((now() AT TIME ZONE 'UTC')::date - (%(number)s - 1)::int4) AT TIME ZONE 'UTC'
        )
        SELECT d.day, count(DISTINCT l.run_id) FILTER (WHERE l.looked), bool_and(l.clean) FILTER (WHERE l.looked),
          (array_agg(DISTINCT l.run_id) FILTER (WHERE l.looked AND NOT l.clean))[:3], coalesce(sum(l.billed_reads), 0)::int8
        FROM (SELECT (now() AT TIME ZONE 'UTC')::date - n AS day FROM generate_series(0, %(number)s::int4 - 1) AS n) d
        LEFT JOIN lines l ON l.day = d.day
        GROUP BY 1 ORDER BY 1 DESC
        """,
        {"dag": dag_id, "number": number},
    ).fetchall()
    return [
        {"day": day.isoformat(), "runs": runs, "clean": clean, "not_clean": not_clean, "billed": billed}
        for day, runs, clean, not_clean, billed in rows
    ]


def clean_days(connection: Connection, dag_id: str) -> list[tuple[date, bool]]:
    """The days (UTC) with runs, newest first, each with whether all of them examined everything and saw no drift.
    Rejections don't count here: they stay open until they are corrected or excused."""
    rows = connection.execute(
        f"""
        SELECT (recorded_at AT TIME ZONE 'UTC')::date, bool_and({_CLEAN})
        FROM {SCHEMA}.runs
        WHERE dag_id = %s AND phase IN ('compare', 'second_look')
        GROUP BY 1 ORDER BY 1 DESC
        """,
        (dag_id,),
    ).fetchall()
    return [(day, bool(clean)) for day, clean in rows]
