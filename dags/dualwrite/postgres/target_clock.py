"""The target's clock, by which grace, ages and watermarks are measured, on whatever worker."""

from __future__ import annotations

from datetime import datetime, timedelta

from dualwrite.postgres.connection import Connection

MAX_CLOCK_SKEW = timedelta(minutes=15)
"""How far the clocks of source, target and worker may be apart. A mark further ahead of the target's clock is wrong."""


def now(connection: Connection) -> datetime:
    """The target's time, UTC."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]
