"""The watermarks, `dualwrite.watermarks`: up to when each collection was examined completely, and when it was last swept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dualwrite.model.run_report import Age
from dualwrite.postgres.connection import Connection, class_row
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.target_clock import MAX_CLOCK_SKEW

_SQL = own_statements(__file__)
_WATERMARKS = _SQL["watermarks"]
_ADVANCE = _SQL["advance"]
_LOST = _SQL["lost"]
_AGES = _SQL["ages"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """Up to when a collection was examined completely, and when it was last swept (UTC; None for never)."""

    collection: str
    examined_until: datetime
    swept_at: datetime | None


def watermarks(connection: Connection) -> dict[str, Watermark]:
    """All watermarks, by collection."""
    with connection.cursor(row_factory=class_row(Watermark)) as cursor:
        return {mark.collection: mark for mark in cursor.execute(_WATERMARKS)}


def advance(
    connection: Connection, collection: str, until: datetime, run_id: str, *, swept_at: datetime | None = None
) -> None:
    """Moves a watermark forward, never back: a run that began earlier may end later.

    No mark is set ahead of the target's clock: a worker whose clock is days ahead would otherwise end all sweeps. A mark that lies
    ahead of it is replaced.
    """
    given = {"collection": collection, "until": until, "swept": swept_at, "run": run_id, "apart": MAX_CLOCK_SKEW}
    connection.execute(_ADVANCE, given)


def lost(connection: Connection, collections: Sequence[str], until: datetime, run_id: str) -> set[str]:
    """The collections whose mark isn't this run's and lies before `until`, which this run had committed: then the server has lost
    the run's commits (a failover to a replica that lagged, a restored backup)."""
    given = {"names": list(collections), "run": run_id, "until": until}
    rows = connection.execute(_LOST, given).fetchall()
    return {name for (name,) in rows}


def ages(connection: Connection) -> dict[str, Age]:
    """For each collection, up to when it was examined completely and when it was last swept (UTC), and how many hours ago that
    is by the target's clock."""
    rows = connection.execute(_AGES).fetchall()
    return {
        name: {
            "examined_until": until.isoformat(),
            "swept_at": swept.isoformat() if swept else None,
            "examined_hours": round(float(examined_hours), 2),
            "swept_hours": None if swept_hours is None else round(float(swept_hours), 2),
        }
        for name, until, swept, examined_hours, swept_hours in rows
    }
