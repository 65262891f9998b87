"""The tripwire's baseline of each collection, `dualwrite.count_baselines`: documents minus rows, by interval
(see baseline.py)."""

from __future__ import annotations

from datetime import datetime

from dualwrite.postgres.connection import Connection
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.session import Session
from dualwrite.runs.tripwire.baseline import Baseline

_SQL = own_statements(__file__)
_LOAD = _SQL["load"]
_SAVE = _SQL["save"]
_SWEPT = _SQL["swept"]
_COUNTED = _SQL["counted"]
_CALLED_SWEEPS = _SQL["called_sweeps"]


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
        _SAVE,
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
    connection.execute(_SWEPT, {"collection": collection})


def counted(connection: Connection, collection: str, at: datetime, seconds: float) -> None:
    """Records when counts failed, and after how many seconds: the next try waits accordingly."""
    connection.execute(_COUNTED, {"collection": collection, "at": at, "seconds": seconds})


def called_sweeps(connection: Connection) -> frozenset[str]:
    """The collections whose counts request a sweep. A sweep replaces the baseline, which ends the request."""
    rows = connection.execute(_CALLED_SWEEPS).fetchall()
    return frozenset(name for (name,) in rows)
