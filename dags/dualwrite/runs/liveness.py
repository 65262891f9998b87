"""Is dual-write alive? If documents are written and no row arrives, it is off, whoever switched it off.

A flag that was missing from a build once kept it off for three weeks, unnoticed. It may be off for some clients only: server
functions that write their own rows would hide a web client whose flag is off. So each collection is checked too.

A row that this bundle wrote has not arrived by itself. write_ops holds only what clients say: a client may log an operation
that it never made, and a job that writes to both sides may log none. So operations alone don't prove that dual-write is
alive, and their absence doesn't prove that it is off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dualwrite.engine import op_log as operations
from dualwrite.engine.scans import scans
from dualwrite.model.declaration import Collection, CreateTime, Field
from dualwrite.model.problems import Problem, ProblemKind
from dualwrite.model.run_report import Operations
from dualwrite.model.windows import Window, whole_millisecond
from dualwrite.postgres.remembered import differences, run_log
from dualwrite.runs.reconcile_plan import Run


@dataclass(frozen=True, slots=True)
class Liveness:
    """Operations, documents and rows in the last `minutes`. `problem` is None if dual-write is alive."""

    minutes: float
    activity: operations.Activity
    documents: int
    arrived: int
    """Rows written in these minutes, not by this bundle."""
    problem: Problem | None

    def as_json(self) -> Operations:
        per_minute = None if self.activity.total is None else round(self.activity.total / max(self.minutes, 1), 2)
        return {
            **self.activity.as_json(),
            "minutes": round(self.minutes, 1),
            "per_minute": per_minute,
            "documents": self.documents,
            "arrived": self.arrived,
            "documents_per_minute": round(self.documents / max(self.minutes, 1), 2),
            "problem": self.problem.text if self.problem else None,
        }


def liveness(run: Run) -> Liveness:
    """Whether rows arrive while documents are written, in all collections together and in each.

    Checks the last `minutes`, then the whole time since the last run, in which a few documents may add up. Returns the
    first of the two with a problem, else the one of the last minutes. Documents are counted, not read: one count() for each
    check field of a collection.
    """
    params, end = run.params, run.plan.now
    starts = [end - timedelta(minutes=params.minutes)]
    starts += [min((w.start for w in run.plan.windows.values() if w is not None), default=starts[0])]
    checked: list[Liveness] = []
    for start in dict.fromkeys(starts):
        checked.append(_alive(run, Window(start, end)))
        if checked[-1].problem:
            break
    return next((one for one in checked if one.problem), checked[0])


@dataclass(frozen=True, slots=True)
class _Written:
    """Counts of one collection in a window: documents written and created, and rows that arrived by themselves."""

    collection: Collection
    documents: int
    created: int
    rows: int
    rows_created: int

    def without(self, number: int) -> _Written:
        """These counts without `number` documents whose rows aren't expected."""
        documents, created = max(0, self.documents - number), max(0, self.created - number)
        return replace(self, documents=documents, created=created)


def _alive(run: Run, window: Window) -> Liveness:
    declared = [c for c in run.catalog if c.operations]
    entities = [entity for c in declared for entity in operations.entities_of(c)]
    activity = operations.Activity(None)
    if declared:
        with run.target.transaction() as connection:
            # A client takes the lock after it has written its document, and by another clock.
            activity = operations.activity(connection, entities, window.start, window.end + operations.AROUND)
    # If no operation is declared, nothing says which collections are dual-written: all are counted, none can fail.
    dual_written = [c for c in declared or run.catalog if c.check_fields and c.has_one_row]
    written = [_written(run, c, window) for c in dual_written]
    documents, arrived = sum(w.documents for w in written), sum(w.rows for w in written)
    problem = None
    if declared and run.plan.dual_write_enabled and any(w.documents for w in written):
        # Rows missed while dual-write was off are no evidence that it still is.
        missed = differences.missed_while_off(run.target, window.start - 3 * operations.AROUND)
        written = [w.without(missed.get(w.collection.name, 0)) for w in written]
        problem = _problem(written, activity, run.params.liveness_minimum, window.start)
        if problem is not None:  # costs a query, so only then
            rowless = run_log.without_rows(run.target, run.dag_id, run.run_id)
            written = [w.without(rowless.get(w.collection.name, 0)) for w in written]
            problem = _problem(written, activity, run.params.liveness_minimum, window.start)
    minutes = (window.end - window.start).total_seconds() / 60
    off = Problem(ProblemKind.DUAL_WRITE_OFF, problem, "dual-write-seems-off") if problem else None
    return Liveness(minutes, activity, documents, arrived, off)


def _written(run: Run, collection: Collection, window: Window) -> _Written:
    number = {s.check_field: run.source.count(s)[0] for s in scans(collection, window)}
    # A document that lies in the window by several fields is one document.
    documents = max(number.values())
    creations = _creation_fields(collection)
    created = max((number[name] for name in creations), default=0)
    # A server function that updates counters moves updatedAt, so only creations are evidence against one collection.
    times = _time_columns(collection, [check.field for check in collection.checks])
    rows, rows_created = 0, 0
    if documents and times:
        # A row's time is its document's, cut to milliseconds.
        start, end = whole_millisecond(window.start), window.end + operations.AROUND
        rows, rows_created = run.target.arrived(
            collection,
            times,
            _time_columns(collection, creations),
            Window(start, end),
            since=start - 3 * operations.AROUND,
        )
    return _Written(collection, documents, created, rows, rows_created)


def _problem(written: Sequence[_Written], activity: operations.Activity, minimum: int, start: datetime) -> str | None:
    """The sentence to fail with, or None.

    For all collections together: created documents without any row are evidence, whatever write_ops says; updated ones
    only if write_ops is silent too (deletes leave an operation and no row).
    """
    since = start.isoformat(timespec="minutes")
    documents, created = sum(w.documents for w in written), sum(w.created for w in written)
    silent = activity.total == 0
    if not any(w.rows for w in written) and (created >= minimum or (silent and documents >= minimum)):
        log = (
            "write_ops has no operation since then either"
            if silent
            else f"write_ops has {activity.total:,} operations since then, which is what clients say and no row"
            if activity.total
            else "write_ops can't be read"
        )
        return f"dual-write seems off: {documents:,} documents were written since {since} and no row arrived by itself; {log}"
    off = [w for w in written if w.created >= minimum and not w.rows_created and _has_created_column(w.collection)]
    if not off:
        return None
    listed = ", ".join(f"{w.created:,} {w.collection.name}" for w in off)
    arrived = sum(w.rows for w in written)
    return (
        f"dual-write seems off for a part of the app: since {since} these were created, and none of their rows arrived by "
        f"itself: {listed}. In all collections together {arrived:,} rows arrived"
    )


def _has_created_column(collection: Collection) -> bool:
    return bool(_time_columns(collection, _creation_fields(collection)))


def _time_columns(collection: Collection, fields: Iterable[str]) -> list[str]:
    """The compared columns that hold the times of these check fields."""
    wanted = set(fields)
    return [
        c.name
        for c in collection.columns
        if c.role == "compared" and (check := collection.has_instant_of(c)) is not None and check.field in wanted
    ]


def _creation_fields(collection: Collection) -> list[str]:
    """The check fields that hold a document's time of creation, not of its last update."""
    stated = [c.origin for c in collection.columns if isinstance(c.origin, Field)]
    created = {origin.path for origin in stated if isinstance(origin.otherwise, CreateTime)}
    return [check.field for check in collection.checks if check.field in created]
