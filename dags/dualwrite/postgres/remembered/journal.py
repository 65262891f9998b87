"""The journal of repairs, `dualwrite.repair_journal`: every row that was written, and whether that was confirmed.

The statement that writes a row writes its line here, so both carry the same xmin: the line tells the version that we wrote. Whatever
updates a line keeps that in `row_xmin` first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dualwrite.model.errors import TargetError
from dualwrite.model.history import Written
from dualwrite.model.run_report import RepairedLately
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.text import restored

KEPT_DAYS = 30
"""Days for which a row is kept as it was before a write, and a confirmed line."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A write that was committed and not yet confirmed against the source: its run was killed, or still goes on."""

    id: int
    label: str
    path: str | None
    action: str
    key: tuple[str, ...]


def unconfirmed(connection: Connection, collection: str) -> list[JournalEntry]:
    """Writes in this collection that no run has confirmed, oldest first."""
    rows = connection.execute(
        f"""
        SELECT id, key, path, action, ARRAY(SELECT jsonb_array_elements_text(row_key))
        FROM {SCHEMA}.repair_journal
        WHERE collection = %s AND confirmed_at IS NULL
        ORDER BY id
        """,
        (collection,),
    ).fetchall()
    return [JournalEntry(i, label, restored(path), action, tuple(key)) for i, label, path, action, key in rows]


def confirm(connection: Connection, ids: Sequence[int]) -> None:
    """Marks journal rows as confirmed: the documents behind them were read again after the write and had not moved.

    Raises TargetError if one of them is gone: then so is its write, and nothing was confirmed.
    """
    row = connection.execute(
        f"""
        WITH confirmed AS (
          UPDATE {SCHEMA}.repair_journal SET confirmed_at = clock_timestamp(), row_xmin = coalesce(row_xmin, xmin::text)
          WHERE id = ANY(%(ids)s) AND confirmed_at IS NULL
        )
        SELECT count(*) FROM {SCHEMA}.repair_journal WHERE id = ANY(%(ids)s)
        """,
        {"ids": list(ids)},
    ).fetchone()
    assert row is not None
    if gone := len(set(ids)) - row[0]:
        raise TargetError(
            f"The target lost {gone:,} writes that this run had committed, with their rows in {SCHEMA}.repair_journal: it failed "
            "over to a server that lagged, or was restored. Run again: what is missing there now is found and written."
        )


def written_by(connection: Connection, run_id: str) -> Counter[tuple[str, str]]:
    """How many keys a run has written so far, by collection and action. What it inserted and then updated was not there
    before: a key counts once, by what was done to it first."""
    rows = connection.execute(
        f"""
        SELECT collection, action, count(*)
        FROM (
          SELECT DISTINCT ON (collection, key) collection, action
          FROM {SCHEMA}.repair_journal
          WHERE run_id = %s
          ORDER BY collection, key, id
        ) first
        GROUP BY collection, action
        """,
        (run_id,),
    ).fetchall()
    return Counter({(collection, action): number for collection, action, number in rows})


def written_among(connection: Connection, run_id: str, collection: str, labels: Sequence[str]) -> set[str]:
    """Those of the labels that a run has written."""
    rows = connection.execute(
        f"SELECT key FROM {SCHEMA}.repair_journal WHERE run_id = %s AND collection = %s AND key = ANY(%s)",
        (run_id, collection, list(labels)),
    ).fetchall()
    return {label for (label,) in rows}


@dataclass(frozen=True, slots=True)
class Repaired:
    """Rows that repairs of the last 24 hours wrote in one collection, for one cause. `unattended`: by scheduled runs; `by_this_run`: how many of all were this run's."""

    collection: str
    cause: str
    number: int
    unattended: int
    by_this_run: int

    def as_json(self) -> RepairedLately:
        return {
            "collection": self.collection,
            "cause": self.cause,
            "number": self.number,
            "unattended": self.unattended,
            "by_this_run": self.by_this_run,
        }


def repaired_lately(connection: Connection, dag_id: str, run_id: str) -> list[Repaired]:
    """How many rows a DAG's runs repaired in the last 24 hours, by collection and cause, from the journal. A key that was written
    several times counts once a run."""
    rows = connection.execute(
        f"""
        SELECT collection, cause, count(*), count(*) FILTER (WHERE unattended), count(*) FILTER (WHERE run_id = %(run)s)
        FROM (
          SELECT DISTINCT j.collection, j.key, j.run_id, r.unattended, coalesce(j.cause, d.cause, 'unknown') AS cause
          FROM {SCHEMA}.repair_journal j
          JOIN (
            SELECT run_id, bool_or(unattended) AS unattended FROM {SCHEMA}.runs WHERE dag_id = %(dag)s GROUP BY run_id
          ) r USING (run_id)
          LEFT JOIN {SCHEMA}.open_differences d ON d.collection = j.collection AND d.key = j.key
          WHERE j.written_at > now() - interval '24 hours' AND j.undoes IS NULL
        ) written
        GROUP BY 1, 2 ORDER BY 1, 2
        """,
        {"dag": dag_id, "run": run_id},
    ).fetchall()
    return [Repaired(*row) for row in rows]


def of_key(connection: Connection, collection: str, label: str, limit: int = 20) -> list[Written]:
    """What was written at a key, the latest first, without content."""
    rows = connection.execute(
        f"""
        SELECT written_at, action, run_id, confirmed_at IS NOT NULL, undoes IS NOT NULL
        FROM {SCHEMA}.repair_journal WHERE collection = %s AND key = %s ORDER BY id DESC LIMIT %s
        """,
        (collection, label, limit),
    ).fetchall()
    return [
        {
            "at": at.isoformat(timespec="seconds"),
            "action": action,
            "run_id": run_id,
            "confirmed": confirmed,
            "undo": undo,
        }
        for at, action, run_id, confirmed, undo in rows
    ]


def prune(connection: Connection, days: int = KEPT_DAYS) -> int:
    """Deletes before-images `days` after the write, of every row, because they hold personal data. Confirmed journal rows are
    deleted; returns how many. An unconfirmed one keeps its key and path, which the next run needs to finish it.

    sql/optional/prune.sql is the same for a time in which no DAG runs.
    """
    connection.execute(
        f"""
        UPDATE {SCHEMA}.repair_journal SET row_before = NULL, row_xmin = coalesce(row_xmin, xmin::text)
        WHERE confirmed_at IS NULL AND row_before IS NOT NULL AND written_at < now() - make_interval(days => %s)
        """,
        (days,),
    )
    return connection.execute(
        f"""
        DELETE FROM {SCHEMA}.repair_journal
        WHERE confirmed_at IS NOT NULL AND written_at < now() - make_interval(days => %s)
        """,
        (days,),
    ).rowcount
