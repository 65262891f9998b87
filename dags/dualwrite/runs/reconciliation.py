"""A whole reconciliation, task by task; `whole` runs them all in one process, for tests and benchmarks. Only this module knows
the tasks and their order.

If one collection fails, the others go on: its error is kept beside their reports.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Generic

from dualwrite.model.errors import DualWriteError, TargetError
from dualwrite.model.run_report import (
    CollectionResult,
    FirstLook,
    Gate,
    PlannedRows,
    R,
    RunReport,
    SecondLook,
    TaskResult,
)
from dualwrite.postgres.remembered import interventions
from dualwrite.runs import first_look, repair, second_look, undo
from dualwrite.runs.reconcile_plan import Plan, Run
from dualwrite.runs.report.build import Parts, build_report
from dualwrite.runs.slices import sweep
from dualwrite.runs.slices.sweep import Sweeps

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 4
"""Collections compared at a time: each has a connection to Postgres and a stream from Firestore of its own."""

COMPARE_SECONDS = 50 * 60.0
"""Time limit for all first looks together. A collection that exceeds it is reported as not examined; the task's own timeout
would lose its neighbours' reports too."""

Opened = Callable[[], AbstractContextManager[Run]]
"""Opens a run with connections of its own, for one thread."""


@dataclass
class TaskReports(Generic[R]):
    """The reports that a task ended with: by collection, a report or the error that ended it."""

    reports: dict[str, R] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    billed_reads: int = 0
    """Reads for no collection: those of the check whether a repair may begin."""


@dataclass(frozen=True)
class Finished(Generic[R]):
    """The reports that a task has finished, so that a retry repeats only the rest."""

    before: Mapping[str, R] = field(default_factory=dict)
    """Reports of the tries before this one."""
    keep: Callable[[str, R], object] = lambda name, report: None
    """Called with each new report."""


# --- compare ------------------------------------------------------------------------------------------------------------


def compare(
    plan: Plan,
    opened: Opened,
    finished: Finished[FirstLook] | None = None,
    seconds: float = COMPARE_SECONDS,
    sweeps: Sweeps | None = None,
) -> TaskReports[FirstLook]:
    """The first look at every selected collection, SIDE_BY_SIDE at a time, within `seconds`.

    `finished`: a collection with a report from an earlier try is not looked at again.
    `sweeps`: the slices of large collections and their reports; the last step of those sweeps is done here.
    """
    finished = finished or Finished()
    sweeps = sweeps or Sweeps()
    ended = TaskReports[FirstLook]({name: finished.before[name] for name in plan.windows if name in finished.before})
    waiting = [name for name in plan.windows if name not in ended.reports]
    looks = _Looks(opened, sweeps)
    for name in waiting:
        looks.todo.put(name)
    # Daemons: a thread whose connection answers nothing must not keep the process from ending.
    for n in range(min(SIDE_BY_SIDE, len(waiting))):
        threading.Thread(target=looks.work, name=f"compare-{n}", daemon=True).start()
    deadline = time.monotonic() + seconds
    try:
        while len(ended.reports) + len(ended.errors) < len(plan.windows):
            name, result = looks.done.get(timeout=max(0.001, deadline - time.monotonic()))
            if isinstance(result, Exception):
                log.warning("%s: its look failed with %s", name, type(result).__name__)
                ended.errors[name] = result
            else:
                ended.reports[name] = result
                finished.keep(name, result)
    except queue.Empty:
        for name in plan.windows:
            if name not in ended.reports and name not in ended.errors:
                ended.errors[name] = TargetError(
                    f"It did not end within {seconds / 60:g} minutes. Find out what it waits for."
                )
    finally:
        looks.stop.set()
    return ended


@dataclass(frozen=True, slots=True)
class _Looks:
    """First looks that several threads share through one queue."""

    opened: Opened
    sweeps: Sweeps
    todo: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    done: queue.SimpleQueue[tuple[str, FirstLook | Exception]] = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        """One thread: looks at collections until none is left."""
        try:
            with self.opened() as run:
                while not self.stop.is_set():
                    name = self.todo.get_nowait()
                    self.done.put((name, self._look(run, name)))
        except queue.Empty:
            return
        except Exception as error:  # noqa: BLE001 - no thread can open what this one couldn't
            for name in _drained(self.todo):
                self.done.put((name, error))

    def _look(self, run: Run, name: str) -> FirstLook | Exception:
        last_step = partial(sweep.look_at_rest, run, name, self.sweeps) if name in self.sweeps.names else None
        try:
            return first_look.compare(run, name, last_step)
        except Exception as error:  # noqa: BLE001 - one collection's failure is reported by its name
            return error


def _drained(names: queue.SimpleQueue[str]) -> Iterator[str]:
    while True:
        try:
            yield names.get_nowait()
        except queue.Empty:
            return


def look_again_at(plan: Plan, compared: Mapping[str, FirstLook]) -> datetime | None:
    """When the differences of the first looks are old enough for a second one. None: there is nothing to wait for."""
    looks = [datetime.fromisoformat(c["looked_at"]) for c in compared.values() if c["to_wait_for"]]
    return max(looks) + timedelta(seconds=plan.params.grace_seconds) if looks else None


# --- look again, gate, repair -------------------------------------------------------------------------------------------


def look_again(run: Run) -> TaskReports[SecondLook]:
    """The second look, by key, at the open differences."""
    if not run.plan.names:
        return TaskReports[SecondLook]()
    sweep.forget_looks(run)
    return TaskReports[SecondLook](*second_look.look_again(run))


def is_due(gate: Gate | None) -> bool:
    """Whether there is something to repair or undo, and the gate lets it through."""
    return bool(gate and not gate["problem"] and (gate["planned"] or gate["undo"]))


def repair_all(
    run: Run, gate: Gate, finished: Finished[CollectionResult] | None = None
) -> TaskReports[CollectionResult]:
    """Writes the rows that the gate planned: deletes first, children before parents, then inserts and updates, parents
    before children; then looks once more at the repaired keys (`re_examine.<collection>`). Or undoes a run, if asked to.

    Reports are by step and collection (`delete.comments`). If a step fails, the others go on. `finished`: as in `compare`.
    Raises BrakeError if the repair may not begin.
    """
    finished = finished or Finished()
    ended = TaskReports[CollectionResult]()
    before = run.source.billed_reads
    if run.params.undo is not None:
        undo.check_age(run)
        repair.check_gate(repair.gate(run))
        _intervenes(run, "undo")
        ended.reports = {f"undo.{name}": part for name, part in undo.undo_all(run).items()}
        ended.billed_reads = run.source.billed_reads - before
        return ended
    repair.may_write(run)
    _intervenes(run, "repair")
    ended.billed_reads = run.source.billed_reads - before
    steps = repair_order(run.catalog.names, gate["planned"])
    for number, (step, name) in enumerate(steps, start=1):
        label = f"{step}.{name}"
        if label in finished.before:
            ended.reports[label] = finished.before[label]
            continue
        try:
            part = repair.delete(run, name) if step == "delete" else repair.write(run, name)
        except Exception as error:  # noqa: BLE001 - reported by its name; its neighbours may still be repaired
            log.warning("repair %d of %d, %s: failed with %s", number, len(steps), label, type(error).__name__)
            ended.errors[label] = error
            continue
        log.info(
            "repair %d of %d, %s: %d inserted, %d updated, %d deleted",
            number, len(steps), label, part["inserted"], part["updated"], part["deleted"],
        )  # fmt: skip
        ended.reports[label] = part
        finished.keep(label, part)
    for name, part in repair.re_examine(run, gate["planned"]).items():
        ended.reports[f"re_examine.{name}"] = part
    return ended


def _intervenes(run: Run, kind: interventions.Kind) -> None:
    """Keeps who asked for the writes, before the first row, so that no written row is without a person."""
    person = interventions.SCHEDULE if run.plan.unattended else run.plan.by
    with run.target.transaction() as connection:
        interventions.keep(connection, run.dag_id, run.run_id, kind, person)


def repair_order(names: Sequence[str], planned: Mapping[str, PlannedRows]) -> list[tuple[str, str]]:
    """The steps that a plan needs, as (step, collection). `names` are the catalog's, parents first."""
    chosen = [name for name in names if name in planned]
    deletes = [("delete", name) for name in reversed(chosen) if "delete" in repair.steps(planned[name])]
    writes = [("write", name) for name in chosen if "write" in repair.steps(planned[name])]
    return [*deletes, *writes]


# --- the whole ----------------------------------------------------------------------------------------------------------


def task_result(ended: TaskReports[R], clear: Callable[[Exception], str] | None = None) -> TaskResult[R]:
    """A task's reports as JSON. Errors that aren't ours may quote a row, so only their class is given."""
    clear = clear or (lambda e: str(e) if isinstance(e, DualWriteError) else type(e).__name__)
    errors = {name: clear(error) for name, error in ended.errors.items()}
    return {"reports": ended.reports, "errors": errors, "billed_reads": ended.billed_reads}


def parts_of(
    compared: TaskResult[FirstLook] | None,
    looked: TaskResult[SecondLook] | None,
    gate: Gate | None,
    repaired: TaskResult[CollectionResult] | None,
    errors: Mapping[str, str] | None = None,
) -> Parts:
    """The parts of the report, from the tasks' results; None for one that failed or never ran. `errors`: of whole
    tasks, by task id."""
    by_name = {
        **{f"compare.{name}": text for name, text in (compared["errors"] if compared else {}).items()},
        **{f"look_again.{name}": text for name, text in (looked["errors"] if looked else {}).items()},
        **(repaired["errors"] if repaired else {}),
    }
    written = repaired["reports"] if repaired else {}
    again = {label.partition(".")[2]: part for label, part in written.items() if label.startswith("re_examine.")}
    return Parts(
        compared=compared["reports"] if compared else {},
        looked=looked["reports"] if looked else None,
        gate=gate,
        repaired=[part for label, part in written.items() if not label.startswith("re_examine.")],
        re_examined=again or None,
        billed_reads=repaired["billed_reads"] if repaired else 0,
        errors={**(errors or {}), **by_name},
    )


@dataclass(frozen=True)
class Ended:
    """How a whole reconciliation ended: its report, and the gate's answer."""

    report: RunReport
    gate: Gate | None


def whole(plan: Plan, opened: Opened, *, between: Callable[[], object] = lambda: None) -> Ended:
    """All tasks after preflight, in one process. `between` happens between the two looks."""
    with opened() as run:
        sweeps = sweep.prepare(run)
        plan = replace(plan, billed_reads=plan.billed_reads + run.source.billed_reads)  # of the cutting
        sweeps.made.extend(sweep.look_at_slice(run, part) for part in sweeps.parts)
    compared = task_result(compare(plan, opened, sweeps=sweeps))
    between()
    if (moment := look_again_at(plan, compared["reports"])) is not None:
        time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
    repaired = None
    with opened() as run:
        looked = task_result(look_again(run))
        gate = repair.gate(run)
        if is_due(gate):
            repaired = task_result(repair_all(run, gate))
        parts = parts_of(compared, looked, gate, repaired)
        with run.target.transaction() as connection:
            return Ended(build_report(connection, run.catalog, run.run_id, plan, parts), gate)
