"""Reconciliation's first look: did recent writes arrive? Looks from four sides, and keeps the differences.

The sides: documents whose check fields lie in the window, rows written in it, operations of write_ops in it, and
unsettled differences (keys that were in flight, and documents that couldn't become rows). Two looks of one run settle
those; drift stays drift until a second look finds it gone. A sweep looks at every document and every row instead.
docs/verification.md says what each side can see.

Differences are kept in `dualwrite.open_differences` in the transaction that moves the watermark. So a run that dies
anywhere forgets nothing: the next one looks at all that is open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dualwrite.engine import op_log as operations
from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import PendingLook, SweepLook, WindowLook
from dualwrite.engine.units import Policy, Unit
from dualwrite.model.errors import DualWriteError
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult, FirstLook, Scope, TripwireResult
from dualwrite.model.verdicts import DRIFT, SETTLED_BY_WRITING, Finding, Reason, Verdict
from dualwrite.model.windows import Window, with_overlap
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import differences, gone, watermarks
from dualwrite.postgres.remembered.differences import (
    Known,
    OpenDifference,
    differences_at,
    excused_differences,
    waiting,
)
from dualwrite.runs.open_units import units_of
from dualwrite.runs.reconcile_plan import Run
from dualwrite.runs.record import phase
from dualwrite.runs.tripwire import wire as tripwire

log = logging.getLogger(__name__)

PAGE_SIZE = 5000


def compare(run: Run, name: str, sweep: Callable[[], FirstLook] | None = None) -> FirstLook:
    """The first look at one collection. Returns its report, with `pending`: how many differences need a second look.

    One transaction at the end keeps the differences open and moves the watermark. If a sweep that was due fails, its window
    is looked at instead, because a sweep that keeps failing must not hide recent losses; the sweep stays due, and
    `sweep_failed` says why. `sweep`: the last step of a sliced sweep, in place of a sweep here.
    """
    window = run.plan.windows[name]
    instead = run.plan.instead.get(name)
    if window is not None:
        return _look(run, name, window)
    try:
        return sweep() if sweep else _look(run, name, None)
    except DualWriteError as error:
        if instead is None:
            raise
        log.warning("%s: its sweep failed, looking at the window from %s on instead", name, instead.start.isoformat())
        return {**_look(run, name, instead), "sweep_failed": str(error)}


def _look(run: Run, name: str, window: Window | None) -> FirstLook:
    """One first look at one collection, of a window or (None) of all documents and rows. Keeps the differences, and returns
    the collection's report."""
    report, known = CollectionReport(name, "compare"), differences.known(run.target, name)
    wire = tripwire.of(run, name, window)
    trusted = timedelta(hours=run.params.sweep_every_hours) if _trusts_memory(run, name, window) else None
    # Dependents of an extra row match their own documents: only a look at the document that they require closes them.
    kind = SweepLook if window is None else WindowLook
    look = kind(report, known.excuses, known.own_labels)
    examiner = Examiner(run.job(report), Policy(), look, trusted=trusted)
    with phase(run, report, mode=run.params.repair, window=window) as line:
        wire.measure()
        with examiner:
            # Then the keys that no document accounted for: those found from the other sides or, in a sweep, the excused ones.
            if window is None:
                examiner.scan(None, PAGE_SIZE)
                examiner.examine_rows()
                units = excused_and_unseen(examiner, look, lambda own: own)
            else:
                examiner.scan(with_overlap(window, timedelta(minutes=run.params.overlap_minutes)), PAGE_SIZE)
                wire.look(examiner)
                units = _other_sides(examiner, look, window, run.params.max_operation_looks)
            examiner.examine_units(unsettled_too(examiner, look, units, known, run.params.max_open_looks))
        pending, now = look.ended(), run.plan.now
        with line.kept() as connection:
            keep(connection, run, look, pending)
            gone.remember(connection, examiner.parents.gone)
            end, swept = (now, now) if window is None else (window.end, None)
            watermarks.advance(connection, name, end, run.run_id, swept_at=swept)
            wire.keep(connection)
            left = to_look_at(connection, run, name)
    return left.of(report.as_json(), scope="sweep" if window is None else "recent", tripwire=wire.as_json())


def keep(connection: Connection, run: Run, look: PendingLook, pending: Sequence[Finding]) -> None:
    """Keeps a first look's differences, and closes those that match now."""
    name = look.report.collection
    known = differences_at(connection, name, [finding.label for finding in pending])
    seen = [kept for f in pending if (kept := _to_keep(f, known.get(f.label))) is not None]
    differences.remember(connection, name, [*seen, *look.rejected, *look.accepted], run.run_id)
    differences.close(connection, name, look.settled)


def _trusts_memory(run: Run, name: str, window: Window | None) -> bool:
    """Whether a required document that was recently found gone counts as gone without being read again: not in a sweep that
    was asked for or is due. (A collection without a check field is read whole in every run.)"""
    return window is not None or (not run.catalog[name].check_fields and run.params.scope != "sweep")


def excused_and_unseen(
    examiner: Examiner, look: PendingLook, unseen: Callable[[list[OpenDifference]], list[OpenDifference]]
) -> list[Unit]:
    """The excused keys that a sweep still has to look at, by key, because an excuse ends with its difference: those that no
    document or row showed, and dependents, which are settled here. `unseen` leaves out keys that other tasks of the sweep
    saw."""
    with examiner.job.target.transaction() as connection:
        accepted = excused_differences(connection, look.report.collection)
    dependents, _ = units_of(examiner, [d for d in accepted if d.finding.requires is not None])
    look.settle(examiner.protocol.run(dependents, Policy()))
    own = [d for d in accepted if d.finding.requires is None and d.label not in look.labels]
    units, others = units_of(examiner, unseen(own))
    for finding in others:
        examiner.take(finding)
    return units


def unsettled_too(
    examiner: Examiner,
    look: PendingLook,
    units: list[Unit],
    known: Known,
    limit: int,
    unseen: Callable[[list[OpenDifference]], list[OpenDifference]] = lambda own: own,
) -> list[Unit]:
    """The units, with at most `limit` more of unsettled differences that this look hasn't seen, those seen longest ago
    first: without a first look in this run, its second look couldn't settle them. `unseen` as in excused_and_unseen."""
    name, named = look.report.collection, {u.label for u in units}
    labels = [label for label in known.unsettled if label not in look.labels and label not in named]
    left: list[OpenDifference] = []
    for start in range(0, len(labels), differences.AT_ONCE):
        asked = labels[start : start + differences.AT_ONCE]
        with examiner.job.target.transaction() as connection:
            part = differences_at(connection, name, asked)
        left += unseen([part[label] for label in asked if label in part])
        if len(left) >= limit:
            break
    if not left:
        return units
    others, done = units_of(examiner, left[:limit])
    for finding in done:
        examiner.take(finding)
    return list({u.label: u for u in [*look.fresh(others), *units]}.values())


def _to_keep(finding: Finding, before: OpenDifference | None) -> Finding | None:
    """A pending difference as it is kept: in flight, because only the second look calls it drift (this run may die here, and
    others read the table). None: the difference open at its key stays as it is.
    """
    in_flight = replace(finding, verdict=Verdict.IN_FLIGHT, reason=Reason.FIRST_LOOK)
    if before is None:
        return in_flight
    if before.excuse is not None:
        return in_flight if finding.verdict in DRIFT and not before.excuse.covers(finding) else None
    if before.finding.verdict not in SETTLED_BY_WRITING:
        return in_flight
    # Drift, until the second look finds it gone. If its path has changed, its document is at the new one: look there.
    return replace(finding, verdict=before.finding.verdict) if finding.path != before.finding.path else None


class Left(NamedTuple):
    """The part of a first look's result that is left to the second one; see FirstLook."""

    pending: int
    to_wait_for: int
    looked_at: str

    def of(self, result: CollectionResult, *, scope: Scope, tripwire: TripwireResult | None) -> FirstLook:
        """A collection's result as a first look's."""
        return {
            **result,
            "scope": scope,
            "pending": self.pending,
            "to_wait_for": self.to_wait_for,
            "looked_at": self.looked_at,
            "tripwire": tripwire,
            "sweep_failed": None,
        }


def to_look_at(connection: Connection, run: Run, name: str) -> Left:
    """How many differences need a second look, and how many of these are younger than the grace period, also from a run
    that died between its looks. Call it in the transaction that keeps the first look's differences, after they are kept."""
    waits = waiting(connection, name, run.run_id, timedelta(seconds=run.params.grace_seconds))
    return Left(waits.number, waits.young, datetime.now(UTC).isoformat())


def _other_sides(examiner: Examiner, look: PendingLook, window: Window, most: int) -> list[Unit]:
    """Keys named by the window's rows or operations but by none of its documents. At most `most` of those that only
    operations name, because any client may write an operation."""
    target, collection, report = examiner.job.target, examiner.job.collection, examiner.job.report
    keys = target.written_between(collection, window.start, window.end)
    units = look.fresh(examiner.units_of(keys))
    seen = operations.seen_of([*look.labels, *(u.label for u in units)], look.paths)
    with target.transaction() as connection:
        named = operations.named(connection, collection, window, seen)
    located = operations.locate(target, collection, named.entities, seen)
    paths, others = located.paths[:most], look.fresh(located.units)
    report.unlocatable += located.unlocatable
    units += examiner.examine_documents(paths)
    by_label = {u.label: u for u in units}
    further = [u for u in look.fresh(others) if u.label not in by_label]
    room = max(0, most - len(paths))
    report.operations_left += named.left_out + len(located.paths) - len(paths) + len(further[room:])
    return [*by_label.values(), *further[:room]]
