"""Is dual-write alive? Documents that are written while write_ops stands still mean that it is off, whoever switched it.

A flag that was missing from a build kept it off for three weeks once, and nobody noticed. It may be off for some clients
only: server functions that log their own operations would hide a web client whose flag is off. So it is asked of each
entity type too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dualwrite.engine import op_log as operations
from dualwrite.engine.scans import scans
from dualwrite.model.declaration import Collection, CreateTime, Field
from dualwrite.model.problems import Problem, ProblemKind
from dualwrite.model.windows import Window
from dualwrite.runs.reconcile_plan import Run


@dataclass(frozen=True, slots=True)
class Liveness:
    """Operations and documents of the run's minutes. `problem` is None where all is well."""

    minutes: float
    activity: operations.Activity
    documents: int
    problem: Problem | None

    def as_json(self) -> dict[str, Any]:
        per_minute = None if self.activity.total is None else round(self.activity.total / max(self.minutes, 1), 2)
        return {
            **self.activity.as_json(),
            "minutes": round(self.minutes, 1),
            "per_minute": per_minute,
            "documents": self.documents,
            "documents_per_minute": round(self.documents / max(self.minutes, 1), 2),
            "problem": self.problem.text if self.problem else None,
        }


def liveness(run: Run) -> Liveness:
    """Whether operations come in while documents are written: all in all, and for each entity type.

    Asked of the last `minutes`, and of the whole stretch since the last run, where few documents may add up. Documents
    are counted, not read: one or two billed reads a collection.
    """
    params, end = run.params, run.plan.now
    starts = [end - timedelta(minutes=params.minutes)]
    starts += [min((w.start for w in run.plan.windows.values() if w is not None), default=starts[0])]
    found: list[Liveness] = []
    for start in dict.fromkeys(starts):
        found.append(_alive(run, Window(start, end)))
        if found[-1].problem:
            break
    return next((one for one in found if one.problem), found[0])


def _alive(run: Run, window: Window) -> Liveness:
    logged = [c for c in run.catalog if c.operations and c.check_fields and c.entries is None]
    entities = [entity for c in run.catalog for entity in operations.entities_of(c)]
    with run.target.transaction() as connection:
        # A lock is taken after its document is written, and its time is another clock's.
        activity = operations.activity(connection, entities, window.start, window.end + operations.AROUND)
    documents, silent = 0, []
    for collection in logged:
        number = {s.check_field: run.source.count(s)[0] for s in scans(collection, window)}
        # A document that lies in the window by several fields is one document.
        documents += max(number.values())
        # Of one entity alone only creations are evidence: a server function that updates counters moves updatedAt.
        created = max((number[name] for name in _creation_fields(collection)), default=0)
        if created >= run.params.liveness_minimum and not activity.of(operations.entities_of(collection)):
            silent.append((collection, created))
    problem: str | None = None
    since = window.start.isoformat(timespec="minutes")
    if activity.total is None or not run.plan.dual_write_enabled:
        pass  # nothing to go by, or nothing is expected
    elif activity.total == 0 and documents >= run.params.liveness_minimum:
        problem = (
            f"dual-write seems off: {documents:,} documents were written since {since} and write_ops has no operation "
            "since then"
        )
    elif silent:
        listed = ", ".join(f"{number:,} {collection.name}" for collection, number in silent)
        problem = (
            f"dual-write seems off for a part of the app: since {since} these were created, and write_ops has no "
            f"operation of their entity types: {listed}. Other entity types have {activity.total:,} operations"
        )
    minutes = (window.end - window.start).total_seconds() / 60
    return Liveness(minutes, activity, documents, Problem(ProblemKind.DUAL_WRITE_OFF, problem) if problem else None)


def _creation_fields(collection: Collection) -> list[str]:
    """The check fields that say when a document was created, not when it was last touched."""
    stated = [c.origin for c in collection.columns if isinstance(c.origin, Field)]
    created = {origin.path for origin in stated if isinstance(origin.otherwise, CreateTime)}
    return [name for name in collection.check_fields if name in created]
