"""Who made a run write, accept or take back something, `dualwrite.interventions`: a line for each run and kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dualwrite.model.run_report import Intervention
from dualwrite.postgres.connection import Connection, Jsonb
from dualwrite.postgres.own_schema import SCHEMA

Kind = Literal["repair", "backfill", "excuse", "unexcuse", "undo", "approval", "rejection", "migration"]
WRITING = ("repair", "backfill", "undo")
SCHEDULE = "the schedule"
"""In place of a person."""


def keep(
    connection: Connection,
    dag_id: str,
    run_id: str,
    kind: Kind,
    person: str,
    *,
    reason: str | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> None:
    """Keeps that a person did this. A task that is done again replaces its line, but not the time."""
    connection.execute(
        f"""
        INSERT INTO {SCHEMA}.interventions (dag_id, run_id, kind, person, reason, numbers) VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (dag_id, run_id, kind) DO UPDATE
          SET person = excluded.person, reason = excluded.reason, numbers = excluded.numbers
        """,
        (dag_id, run_id, kind, person, reason, Jsonb(dict(numbers or {}))),
    )


_WRITTEN = """
SELECT j.run_id, jsonb_object_agg(j.collection, j.actions) AS numbers, max(j.at) AS at, sum(j.rows) AS rows, sum(j.undone) AS undone
FROM (
  SELECT run_id, collection, jsonb_object_agg(action, rows) AS actions, max(at) AS at, sum(rows) AS rows, sum(undone) AS undone
  FROM (
    SELECT j.run_id, j.collection, j.action, count(DISTINCT j.row_key) AS rows, max(j.written_at) AS at,
      count(DISTINCT j.row_key) FILTER (WHERE EXISTS (SELECT FROM {schema}.repair_journal u WHERE u.undoes = j.id)) AS undone
    FROM {schema}.repair_journal j WHERE j.run_id = ANY({runs}) GROUP BY 1, 2, 3
  ) actions GROUP BY 1, 2
) j GROUP BY 1
"""


def settle(connection: Connection, dag_id: str, run_id: str) -> None:
    """Keeps how many rows a run wrote, by collection and action, for when its journal is pruned."""
    written = _WRITTEN.format(schema=SCHEMA, runs="ARRAY[%(run)s]")
    connection.execute(
        f"""
        UPDATE {SCHEMA}.interventions i SET numbers = w.numbers FROM ({written}) w
        WHERE i.dag_id = %(dag)s AND i.run_id = %(run)s AND i.kind = ANY(%(kinds)s)
        """,
        {"dag": dag_id, "run": run_id, "kinds": list(WRITING)},
    )


def latest(connection: Connection, limit: int) -> list[Intervention]:
    """The last interventions, the latest first: numbers by collection (of those that wrote: and action), how many rows the journal
    still has, and how many of them were taken back. A long reason is cut: reports are kept small. Scheduled repairs are among them if they
    wrote something."""
    written = _WRITTEN.format(schema=SCHEMA, runs="ARRAY(SELECT run_id FROM lately)")
    rows = connection.execute(
        f"""
        WITH lately AS (
          SELECT * FROM {SCHEMA}.interventions i
          WHERE NOT (i.person = %(schedule)s AND i.numbers = '{{}}' AND NOT EXISTS (
            SELECT FROM {SCHEMA}.repair_journal j WHERE j.run_id = i.run_id
          ))
          ORDER BY at DESC, run_id, kind LIMIT %(limit)s
        ), written AS ({written})
        SELECT s.dag_id, s.run_id, s.kind, s.person, s.at,
          CASE WHEN length(s.reason) > 120 THEN left(s.reason, 119) || '…' ELSE s.reason END,
          CASE WHEN s.kind = ANY(%(kinds)s) THEN coalesce(w.numbers, s.numbers) ELSE s.numbers END,
          CASE WHEN s.kind = ANY(%(kinds)s) THEN coalesce(w.rows, 0) ELSE 0 END::int8,
          CASE WHEN s.kind = ANY(%(kinds)s) THEN coalesce(w.undone, 0) ELSE 0 END::int8
        FROM lately s LEFT JOIN written w ON w.run_id = s.run_id ORDER BY s.at DESC, s.run_id, s.kind
        """,
        {"limit": limit, "kinds": list(WRITING), "schedule": SCHEDULE},
    ).fetchall()
    return [
        {
            "dag_id": dag_id,
            "run_id": run_id,
            "kind": kind,
            "by": by,
            "at": at.isoformat(timespec="seconds"),
            "reason": reason,
            "numbers": numbers,
            "journaled": journaled,
            "undone": undone,
        }
        for dag_id, run_id, kind, by, at, reason, numbers, journaled, undone in rows
    ]


def prune(connection: Connection, days: int) -> None:
    """Forgets interventions older than `days`."""
    connection.execute(f"DELETE FROM {SCHEMA}.interventions WHERE at < now() - make_interval(days => %s)", (days,))
