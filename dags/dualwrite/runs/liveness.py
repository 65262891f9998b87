"""Is dual-write alive? Documents that are written while write_ops stands still mean that it is off, whoever switched it.

A flag that was missing from a build kept it off for three weeks once, and nobody noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dualwrite.engine import op_log as operations
from dualwrite.engine.compare import scans
from dualwrite.model.windows import Window
from dualwrite.runs.reconcile_plan import Run


@dataclass(frozen=True, slots=True)
class Liveness:
    """Operations and documents of the run's minutes. `problem` is the sentence to fail with, None where all is well."""

    minutes: float
    activity: operations.Activity
    documents: int
    problem: str | None

    def as_json(self) -> dict[str, Any]:
        per_minute = None if self.activity.total is None else round(self.activity.total / max(self.minutes, 1), 2)
        return {
            **self.activity.as_json(),
            "minutes": round(self.minutes, 1),
            "per_minute": per_minute,
            "documents": self.documents,
            "documents_per_minute": round(self.documents / max(self.minutes, 1), 2),
            "problem": self.problem,
        }


def liveness(run: Run) -> Liveness:
    """Whether operations come in while documents are written.

    Asked of the last `minutes`, and where those saw too little, of the whole stretch since the last run. Documents are
    counted, not read: one billed read a collection.
    """
    params, end = run.params, run.plan.now
    starts = [end - timedelta(minutes=params.minutes)]
    starts += [min((w.start for w in run.plan.windows.values() if w is not None), default=starts[0])]
    found: list[Liveness] = []
    for start in dict.fromkeys(starts):
        found.append(_alive(run, Window(start, end)))
        if found[-1].problem or found[-1].documents >= params.liveness_minimum:
            break
    return next((one for one in found if one.problem), found[0])


def _alive(run: Run, window: Window) -> Liveness:
    logged = [c for c in run.catalog if c.operations and c.check_fields and c.entries is None]
    entities = [entity for c in run.catalog for entity in operations.entities_of(c)]
    with run.target.transaction() as connection:
        # A lock is taken after its document is written, and its time is another clock's.
        activity = operations.activity(connection, entities, window.start, window.end + timedelta(minutes=5))
    # A document that lies in the window by several fields is one document.
    documents = sum(max(run.source.count(scan)[0] for scan in scans(c, window)) for c in logged)
    problem = None
    if run.plan.dual_write_enabled and activity.total == 0 and documents >= run.params.liveness_minimum:
        problem = (
            f"dual-write seems off: {documents:,} documents were written since {window.start.isoformat(timespec='minutes')} "
            "and not one operation stands in write_ops"
        )
    minutes = (window.end - window.start).total_seconds() / 60
    return Liveness(minutes, activity, documents, problem)
