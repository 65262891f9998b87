"""One examination with its time, its billed reads, its identity checked, and its line in `dualwrite.runs`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

from dualwrite.firestore.budget import Budget
from dualwrite.firestore.source import Source
from dualwrite.model.report import CollectionReport
from dualwrite.model.windows import Window
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import run_log
from dualwrite.postgres.target import Target

_budgets: WeakValueDictionary[tuple[object, ...], Budget] = WeakValueDictionary()
"""The threads of a run that share this process share its budget; each has a Source of its own."""
_lock = threading.Lock()


def _budget(source: Source, target: Target, dag_id: str, run_id: str, limit: int, billed_before: int) -> Budget:
    with _lock:
        key = (source.project, dag_id, run_id, limit)
        budget = _budgets.get(key)
        if budget is None:
            with target.transaction() as connection:
                spent = run_log.billed(connection, dag_id, run_id)
            budget = _budgets[key] = Budget(limit, billed_before + spent)
        budget.spend(source.billed_reads)  # what this Source read before
        return budget


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
    max_billed_reads: int | None = None,
    billed_before: int = 0,
) -> dict[str, Any]:
    """Runs `work`, which fills `found`, and returns it as JSON.

    `finish` keeps what was found, in one transaction with the line; `line` says whether there is one. A failure is
    recorded as not examined, and raised again.

    `max_billed_reads` caps what the whole run reads: what its other tasks have recorded by now counts (and
    `billed_before`, which no line tells), and what tasks beside this one read meanwhile doesn't.
    """
    if max_billed_reads is not None and source.budget.limit is None:
        source.budget = _budget(source, target, dag_id, run_id, max_billed_reads, billed_before)
    started_at, began, billed = datetime.now(UTC), time.monotonic(), source.billed_reads

    def tally() -> None:
        found.seconds = time.monotonic() - began
        found.billed_reads = source.billed_reads - billed

    def record(connection: Connection) -> None:
        run_log.record(
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
