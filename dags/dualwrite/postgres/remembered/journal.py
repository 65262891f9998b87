"""The journal of repairs, `dualwrite.repair_journal`: every write to a row, and whether it was confirmed.

The statement that writes a row writes its line here, so both carry the same xmin: the line has the version that we wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dualwrite.model.errors import TargetError
from dualwrite.model.history import Written
from dualwrite.model.run_report import RepairedLately
from dualwrite.postgres.connection import Connection, class_row
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.text import restored

_SQL = own_statements(__file__)
_UNCONFIRMED = _SQL["unconfirmed"]
_CONFIRM = _SQL["confirm"]
_WRITTEN_BY = _SQL["written_by"]
_WRITTEN_AMONG = _SQL["written_among"]
_REPAIRED_LATELY = _SQL["repaired_lately"]
_OF_KEY = _SQL["of_key"]
_FORGET_ROWS = _SQL["forget_rows"]
_PRUNE = _SQL["prune"]

KEPT_DAYS = 30
"""Days for which before-images and confirmed lines are kept."""


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
    rows = connection.execute(_UNCONFIRMED, {"collection": collection}).fetchall()
    return [JournalEntry(i, label, restored(path), action, tuple(key)) for i, label, path, action, key in rows]


def confirm(connection: Connection, ids: Sequence[int]) -> None:
    """Marks journal rows as confirmed: the documents behind them were read again after the write and had not moved.

    Raises TargetError if one of them is gone: then so is its write, and nothing was confirmed.
    """
    row = connection.execute(_CONFIRM, {"ids": list(ids)}).fetchone()
    assert row is not None
    if gone := len(set(ids)) - row[0]:
        raise TargetError(
            f"The target lost {gone:,} writes that this run had committed, with their rows in {SCHEMA}.repair_journal: it failed "
            "over to a server that lagged, or was restored. Run again: it finds these rows differing, and writes them."
        )


def written_by(connection: Connection, run_id: str) -> Counter[tuple[str, str]]:
    """How many labels a run has written so far, by collection and action. A label counts once, by the run's first action: a row that
    it inserted and then updated is an insert."""
    rows = connection.execute(_WRITTEN_BY, {"run": run_id}).fetchall()
    return Counter({(collection, action): number for collection, action, number in rows})


def written_among(connection: Connection, run_id: str, collection: str, labels: Sequence[str]) -> set[str]:
    """The labels, of these, that a run has written."""
    given = {"run": run_id, "collection": collection, "labels": list(labels)}
    rows = connection.execute(_WRITTEN_AMONG, given).fetchall()
    return {label for (label,) in rows}


@dataclass(frozen=True, slots=True)
class Repaired:
    """How many rows repairs of the last 24 hours wrote in one collection, for one cause; how many of them scheduled runs
    (`unattended`), and how many this run."""

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
    """How many rows a DAG's runs repaired in the last 24 hours, by collection and cause, from the journal. A label that a run wrote
    several times counts once for that run."""
    with connection.cursor(row_factory=class_row(Repaired)) as cursor:
        return cursor.execute(_REPAIRED_LATELY, {"dag": dag_id, "run": run_id}).fetchall()


def of_key(connection: Connection, collection: str, label: str, limit: int = 20) -> list[Written]:
    """The writes at a label, the latest first, without content."""
    rows = connection.execute(_OF_KEY, {"collection": collection, "label": label, "limit": limit}).fetchall()
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
    connection.execute(_FORGET_ROWS, {"days": days})
    return connection.execute(_PRUNE, {"days": days}).rowcount
