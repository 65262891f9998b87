"""Reconciliation: did what was written lately arrive? Looks from four sides, looks twice, says why, and can repair it.

The sides are the documents whose check fields lie in the window, the rows written in it, the operations of write_ops in
it, and the differences that are still open. A sweep looks at every document and every row instead. docs/verification.md
says what each side can see.

What a run finds is kept in `dualwrite.open_differences` before anything else happens, in the transaction that moves the
watermark: a run that dies anywhere forgets nothing, the next one looks at what is open. A difference is drift when it
was first seen at least `grace_seconds` ago and is the same at a second look.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dualwrite.engine import op_log as operations
from dualwrite.engine.compare import Examiner
from dualwrite.engine.second_look import seen_twice
from dualwrite.engine.units import Policy, Unit, unit_of, unit_of_finding, unit_of_row
from dualwrite.model.declaration import Collection, Segment
from dualwrite.model.errors import DualWriteError
from dualwrite.model.mapping import Rejection, Row, key_of_path, map_document
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import DRIFT, SETTLED_BY_WRITING, Cause, Finding, Reason, Verdict, Why, rejected
from dualwrite.model.windows import Window, with_overlap
from dualwrite.postgres import Connection, target_clock
from dualwrite.postgres.remembered import differences, journal, watermarks
from dualwrite.postgres.remembered.differences import OpenDifference
from dualwrite.runs import tripwire
from dualwrite.runs.reconcile_plan import Run
from dualwrite.runs.record import recorded

log = logging.getLogger(__name__)

PAGE_SIZE = 5000

# --- the first look -------------------------------------------------------------------------------------------------------


def compare(run: Run, name: str) -> dict[str, Any]:
    """The first look at one collection. Returns its report, with `pending`: how many differences need a second look.

    What differs is kept open, and the watermark moved, in one transaction at the end. Where a sweep that was due fails,
    the window is looked at instead, so that a sweep that keeps failing doesn't hide what is written lately; the sweep
    stays due, and its failure is told in `sweep_failed`.
    """
    window = run.plan.windows[name]
    instead = run.plan.instead.get(name)
    if window is not None or instead is None:
        return _compare(run, name, window)
    try:
        return _compare(run, name, None)
    except DualWriteError as error:
        log.warning("%s: its sweep failed, looking at the window from %s on instead", name, instead.start.isoformat())
        return {**_compare(run, name, instead), "sweep_failed": str(error)}


def _compare(run: Run, name: str, window: Window | None) -> dict[str, Any]:
    found = CollectionReport(name, "compare")
    pending: list[Finding] = []
    with run.target.transaction() as connection:
        known = {d.label: d for d in differences.open_differences(connection, name)}
        moment = target_clock.now(connection)
    excused = {label: d.excuse for label, d in known.items() if d.excuse is not None}
    # Dependents of a row that is extra match their own documents: only a look at what they require closes them.
    watched = frozenset(label for label, d in known.items() if d.finding.requires is None)
    examiner = run.examiner(found, Policy(), excused, watched)
    wire = tripwire.of(run, name, window)

    def more(examiner: Examiner) -> list[Unit]:
        if window is not None:
            wire.look(examiner)
            return _other_sides(examiner, window)
        # An excuse ends with its difference. A sweep has seen every document and row: what it hasn't seen, or only as
        # the document of a dependent, is looked at by key.
        accepted = [d for d in known.values() if d.excuse is not None]
        dependents, _ = units_of(examiner, [d for d in accepted if d.finding.requires is not None])
        looked = examiner.protocol.run(dependents, Policy())
        examiner.settled |= {f.label for f in looked if f.verdict not in DRIFT | {Verdict.IN_FLIGHT}}
        alone = [d for d in accepted if d.finding.requires is None and d.label not in examiner.seen]
        units, others = units_of(examiner, alone)
        for finding in others:
            examiner.take(finding)
        return units

    def begins(finding: Finding) -> bool:
        """Whether a pending difference is another one than what was open at its key, or in no table yet."""
        before = known.get(finding.label)
        if before is None:
            return True
        if before.excuse is not None:
            return finding.verdict in DRIFT and not before.excuse.covers(finding)
        return (
            before.finding.verdict is Verdict.REJECTED or finding.path != before.finding.path
        )  # its document is elsewhere

    def work() -> None:
        wire.measure()
        with examiner:
            read = window and with_overlap(window, timedelta(minutes=run.params.overlap_minutes))
            pending.extend(examiner.first_look(read, PAGE_SIZE, more))

    def finish(connection: Connection) -> None:
        # Not drift before the second look has said so: this run may die here, and another look at the table.
        new = [replace(f, verdict=Verdict.IN_FLIGHT, reason=Reason.FIRST_LOOK) for f in pending if begins(f)]
        differences.remember(connection, name, [*new, *examiner.rejected, *examiner.accepted], run.run_id)
        differences.close(connection, name, examiner.settled)
        end = run.plan.now if window is None else window.end
        swept = run.plan.now if window is None else None
        watermarks.advance(connection, name, end, run.run_id, swept_at=swept)
        wire.keep(connection)

    report = measured(run, found, work, finish, window)
    rejected = {f.label for f in examiner.rejected}
    still = known.keys() - excused.keys() - examiner.settled - rejected
    new = sum(1 for f in pending if begins(f))
    grace = timedelta(seconds=run.params.grace_seconds)
    # Those of a run that died between its looks may be young too.
    young = sum(1 for label in still if moment - known[label].first_seen < grace)
    return {
        **report,
        "scope": "sweep" if window is None else "recent",
        "pending": new + len(still),
        "to_wait_for": new + young,
        "looked_at": datetime.now(UTC).isoformat(),
        "tripwire": wire.as_json(),
    }


def _other_sides(examiner: Examiner, window: Window) -> list[Unit]:
    """Keys that rows and operations of the window name, and that no document of the window was."""
    target, collection = examiner.target, examiner.collection
    keys = target.written_between(collection, window.start, window.end)
    units = examiner.fresh(examiner.units_of(keys))
    with target.transaction() as connection:
        found = operations.since(connection, collection, window.start)
    located = operations.locate(target, collection, found, examiner.seen)
    examiner.report.unlocatable += located.unlocatable
    units += examiner.examine_documents(located.paths)
    return list({u.label: u for u in [*units, *examiner.fresh(located.units)]}.values())


# --- the second look ------------------------------------------------------------------------------------------------------


def look_again(run: Run, reports: dict[str, dict[str, Any]], errors: dict[str, Exception]) -> None:
    """Looks at what is open in the selected collections, by key, with fresh reads on both sides.

    At most `max_open_looks` differences: those that no run has looked at twice yet, then those seen longest ago; the
    others stay open, and the report counts them in `not_looked_at`. Parents first: rows that hang on a row whose document
    is gone are found through it. What rejections this run's first look has counted already is left out. Adds each
    collection's report to `reports`, or what ended its look to `errors`: its neighbours are looked at all the same.
    """
    names = [n for n in run.catalog.names if n in run.params.collections]
    with run.target.transaction() as connection:
        due = differences.due(connection, names, run.run_id, run.params.max_open_looks)
    looks = _Looks(run.params.max_open_looks - sum(map(len, due.differences.values())))
    for name in names:
        found = CollectionReport(name, "second_look")
        try:
            part = _look_at_collection(run, found, looks, due.differences.get(name, []))
        except Exception as error:  # noqa: BLE001 - told by its name
            log.warning("%s: its second look failed with %s", name, type(error).__name__)
            errors[name] = error
            continue
        waiting = due.waiting.get(name, 0) + looks.waiting.pop(name, 0)
        reports[name] = {**part, "not_looked_at": waiting, "undecided": due.undecided.get(name, 0)}


@dataclass
class _Looks:
    """What a second look has left to spend, and the rows that hang on rows whose documents are gone, by collection."""

    budget: int
    dependents: dict[str, dict[str, Unit]] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)


def re_examine(run: Run, repaired: Iterable[str], ours: Callable[[OpenDifference], bool]) -> dict[str, dict[str, Any]]:
    """Looks once more at what a repair of these collections was for (`ours`) and at whatever else it wrote, the parents
    that missing rows needed included: what is repaired is open no more."""
    wanted = run.catalog.with_parents([n for n in run.catalog.names if n in set(repaired)])
    with run.target.transaction() as connection:
        written = {(name, label) for name, label, _ in journal.written_by(connection, run.run_id)}
        open_now = {name: differences.open_differences(connection, name) for name in wanted}
    looks = _Looks(budget=0)
    reports = {}
    for name in wanted:
        known = [
            d
            for d in open_now[name]
            if d.excuse is None and ((name, d.label) in written or (name in run.params.collections and ours(d)))
        ]
        reports[name] = _look_at_collection(
            run, CollectionReport(name, "re_examine"), looks, known, after_repair=run.policy.delete
        )
    return reports


def _look_at_collection(
    run: Run, found: CollectionReport, looks: _Looks, known: Sequence[OpenDifference], *, after_repair: bool = False
) -> dict[str, Any]:
    """Looks at what is `known` to be open in one collection, and at the dependents there; finds those of its extra rows."""
    name = found.collection
    collection = run.catalog[name]
    with run.target.transaction() as connection:
        everything = {d.label: d for d in differences.open_differences(connection, name)}
        now = target_clock.now(connection)
    before = {d.label: d for d in known}
    findings: list[Finding] = []
    with run.examiner(found, Policy(max_proof_reads=run.params.max_proof_reads)) as examiner:

        def work() -> None:
            # A dependent of an extra row goes with it, whatever else is open about its own document; else the row above
            # could never go.
            dependents = _affordable(looks, name, everything, before)
            units, others = units_of(examiner, [d for d in known if d.label not in dependents])
            findings.extend(others)
            units += dependents.values()
            found.taken += len(units) + len(others)
            looked = examiner.protocol.run(units, Policy())
            # What was extra before was proved then; a repair proves it again, and so does the look after it.
            known_extra = {d.label for d in known if d.finding.verdict is Verdict.EXTRA and not after_repair}
            findings.extend(examiner.protocol.prove_extra([f for f in looked if f.label not in known_extra]))
            findings.extend(f for f in looked if f.label in known_extra)
            judged = [_settled(f, before.get(f.label), now, run.params) for f in findings]
            findings[:] = _with_causes(run, collection, judged)
            for finding in findings:
                found.add(finding)
                off = finding.cause is not None and finding.cause.why is Why.DUAL_WRITE_OFF
                found.expected += off and finding.verdict in DRIFT
            _find_dependents(examiner, [f for f in findings if f.verdict is Verdict.EXTRA], looks.dependents)

        def finish(connection: Connection) -> None:
            still = [f for f in findings if f.verdict in DRIFT or f.verdict is Verdict.IN_FLIGHT]
            differences.remember(connection, name, still, run.run_id)
            # Only what was looked at is closed, and only what both sides agree on.
            differences.close(connection, name, {f.label for f in findings} - {f.label for f in still})

        return measured(run, found, work, finish, run.plan.windows.get(name))


def _affordable(
    looks: _Looks, name: str, everything: Mapping[str, OpenDifference], before: Container[str]
) -> dict[str, Unit]:
    """The dependents in one collection that the budget allows, those that nobody knows of first; excused ones left out."""
    found = {
        label: unit
        for label, unit in looks.dependents.get(name, {}).items()
        if not (label in everything and everything[label].excuse is not None)
    }
    others = sorted((label for label in found if label not in before), key=lambda label: label in everything)
    left_out = others[max(0, looks.budget) :]
    looks.budget -= len(others) - len(left_out)
    looks.waiting[name] = sum(label not in everything for label in left_out)
    return {label: unit for label, unit in found.items() if label not in set(left_out)}


def units_of(examiner: Examiner, known: Sequence[OpenDifference]) -> tuple[list[Unit], list[Finding]]:
    """What to look at for each open difference: its document and its row, by key.

    A difference without a key was a document, or a part of one, that couldn't become a row. It is mapped again: as long
    as it is rejected, there is nothing else to look at. Otherwise its row is asked for even where the document is gone
    or has lost the part: it may stand there from before.
    """
    collection = examiner.collection
    units: dict[str, Unit] = {}
    done: list[Finding] = []
    keyless = []
    for finding in (difference.finding for difference in known):
        if finding.key is None:
            keyless.append(finding)
        else:
            units[finding.label] = unit_of_finding(collection, finding)
    documents = examiner.source.get([f.path for f in keyless if f.path], collection.fields)
    ended: list[Finding] = []
    for finding in keyless:
        document = documents.get(finding.path or "")
        mapped = map_document(collection, document) or [] if document is not None else []
        now = next((m for m in mapped if m.label == finding.label), None)
        if isinstance(now, Rejection):
            done.append(rejected(now))
        elif isinstance(now, Row):
            units[now.label] = unit_of_row(now)
        else:
            ended.append(finding)
            for row in mapped:  # of an array or a map that was refused whole, each part by itself
                if isinstance(row, Row):
                    units.setdefault(row.label, unit_of_row(row))
    for unit in _rows_left(examiner, ended):
        units.setdefault(unit.label, unit)
    done += [Finding(Verdict.ABSENT, f.label, f.path) for f in ended if f.label not in units]
    return list(units.values()), done


def _rows_left(examiner: Examiner, ended: Sequence[Finding]) -> list[Unit]:
    """The rows that documents which are gone, or no longer say so, may have left. Where the key is made of fields, nobody
    can tell any more which row that is: the sweep looks at every row."""
    collection = examiner.collection
    if not collection.keyed_by_path:
        return []
    parent = next((c for c in collection.key if isinstance(c.origin, Segment)), None)
    if collection.entries is not None and parent is not None:
        paths = {f.path.rsplit("/", 1)[-1]: f.path for f in ended if f.path and "\x00" not in f.path}
        index = collection.key.index(parent)
        keys = examiner.target.keys_where(collection, parent.name, paths)
        return [unit_of(collection, key, paths[str(key[index])]) for key in keys]
    # No row's key can hold U+0000.
    keyed = ((f, key_of_path(collection, f.path)) for f in ended if f.path and "\x00" not in f.path)
    return [unit_of_finding(collection, replace(f, key=key)) for f, key in keyed if key is not None]


def _settled(finding: Finding, before: OpenDifference | None, now: datetime, params: ReconcileParams) -> Finding:
    """The verdict of this look at what was open before, if it was."""
    age = now - before.first_seen if before else timedelta()
    grace = timedelta(seconds=params.grace_seconds)
    return seen_twice(finding, before.finding if before else None, age=age, grace=grace)


def _with_causes(run: Run, collection: Collection, findings: Sequence[Finding]) -> list[Finding]:
    """The findings, with why it is so where a row differs."""
    wanted = [f for f in findings if f.verdict in SETTLED_BY_WRITING]
    if not wanted:
        return list(findings)
    with run.target.transaction() as connection:
        causes = operations.causes(connection, collection, wanted)
    if not run.plan.dual_write_enabled:
        causes = dict.fromkeys(causes, Cause(Why.DUAL_WRITE_OFF))
    return [replace(f, cause=causes.get(f.label)) for f in findings]


def _find_dependents(examiner: Examiner, extra: Sequence[Finding], dependents: dict[str, dict[str, Unit]]) -> None:
    """Rows that reference rows whose documents are gone: they can't stay, though their own documents may be there. One
    statement for each table that references this one."""
    catalog, collection = examiner.catalog, examiner.collection
    gone = {str(f.key[0]): f.requires or f.path for f in extra if f.key and (f.requires or f.path)}
    if not gone or len(collection.key) != 1:
        return
    for child, column in catalog.children(collection.name):
        rows = examiner.target.dependents(child, column.name, gone)
        paths = examiner.target.paths(child, [key for _, key in rows])
        for value, key in rows:
            unit = replace(unit_of(child, key, next(iter(paths.get(key, ())), None)), requires=gone[value])
            dependents.setdefault(child.name, {}).setdefault(unit.label, unit)


# --- small things -----------------------------------------------------------------------------------------------------------


def measured(
    run: Run,
    found: CollectionReport,
    work: Callable[[], None],
    finish: Callable[[Connection], None],
    window: Window | None,
) -> dict[str, Any]:
    """One phase of one collection, with its line in dualwrite.runs. A look at nothing leaves no line."""
    swept = window is None and found.collection in run.plan.windows
    return recorded(
        run,
        found,
        work,
        finish,
        scope="sweep" if swept else "recent",
        mode=run.params.repair,
        window=window,
        line=lambda: bool(found.examined or found.not_examined or found.phase == "compare"),
    )
