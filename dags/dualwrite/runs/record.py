"""One examination with its time, its billed reads, its identity checked, and its line in `dualwrite.runs`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dualwrite.firestore.source import Source
from dualwrite.model.report import CollectionReport
from dualwrite.model.windows import Window
from dualwrite.postgres import Connection, memory
from dualwrite.postgres.target import Target


def recorded(
    source: Source,
    target: Target,
    found: CollectionReport,
    work: Callable[[], None],
    finish: Callable[[Connection], None],
    *,
    dag_id: str,
    run_id: str,
    scope: str,
    mode: str,
    window: Window | None,
    line: Callable[[], bool] = lambda: True,
    unattended: bool = False,
) -> dict[str, Any]:
    """Runs `work`, which fills `found`, and returns it as JSON.

    `finish` keeps what was found, in one transaction with the line; `line` says whether there is one. A failure is
    recorded as not examined, and raised again.
    """
    started_at, began, billed = datetime.now(UTC), time.monotonic(), source.billed_reads

    def tally() -> None:
        found.seconds = time.monotonic() - began
        found.billed_reads = source.billed_reads - billed

    def record(connection: Connection) -> None:
        memory.record_run(
            connection,
            found,
            dag_id=dag_id,
            run_id=run_id,
            scope=scope,
            mode=mode,
            window=window,
            started_at=started_at,
            unattended=unattended,
        )

    try:
        work()
        found.check_identity()
        tally()
        with target.transaction() as connection:
            finish(connection)
            if line():
                record(connection)
    except Exception as error:
        found.not_examined = type(error).__name__
        tally()
        if line():
            with target.transaction() as connection:
                record(connection)
        raise
    return found.as_json()
