"""Who made a run write, accept or take back something, `dualwrite.interventions`: a line for each run and kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dualwrite.model.run_report import Intervention
from dualwrite.postgres.connection import Connection, Jsonb
from dualwrite.postgres.own_statements import own_statements

_SQL = own_statements(__file__)
_KEEP = _SQL["keep"]
_SETTLE = _SQL["settle"]
_LATEST = _SQL["latest"]
_PRUNE = _SQL["prune"]

Kind = Literal["repair", "backfill", "excuse", "unexcuse", "undo", "approval", "rejection", "migration"]
WRITING = ("repair", "backfill", "undo")
SCHEDULE = "the schedule"
"""The `person` of a run that nobody triggered."""


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
    """Records that a person did this. A task that runs again replaces its line, but not the time."""
    connection.execute(
        _KEEP,
        {
            "dag": dag_id,
            "run": run_id,
            "kind": kind,
            "person": person,
            "reason": reason,
            "numbers": Jsonb(dict(numbers or {})),
        },
    )


def settle(connection: Connection, dag_id: str, run_id: str) -> None:
    """Records how many rows a run wrote, by collection and action, for the time after its journal is pruned."""
    connection.execute(_SETTLE, {"dag": dag_id, "run": run_id, "kinds": list(WRITING)})


def latest(connection: Connection, limit: int) -> list[Intervention]:
    """The last interventions, the latest first: numbers by collection (if the run wrote: and by action), how many of its rows the
    journal still has, and how many of those were taken back. A long reason is cut, because reports are kept small. A scheduled
    repair is among them if it wrote something."""
    given = {"limit": limit, "kinds": list(WRITING), "schedule": SCHEDULE}
    rows = connection.execute(_LATEST, given).fetchall()
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
    connection.execute(_PRUNE, {"days": days})
