"""Reconciliation: did what was written lately arrive? Looks from four sides, looks twice, says why, and can mend it.

The sides are the documents whose check fields lie in the window, the rows written in it, the operations of write_ops in
it, and the differences that are still open. A sweep looks at every document and every row instead. docs/verification.md
says what each side can see.

What a run finds is kept in `dualwrite.open_differences` before anything else happens, in the transaction that moves the
watermark: a run that dies anywhere forgets nothing, the next one looks at what is open. A difference is drift when it
was first seen at least `grace_seconds` ago and is the same at a second look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dualwrite.engine import op_log as operations
from dualwrite.engine.compare import Examiner
from dualwrite.engine.units import Key, Policy, Unit, unit_of
from dualwrite.model.declaration import Collection
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import DRIFT, SETTLED_BY_WRITING, Cause, Finding, Verdict, is_same
from dualwrite.model.windows import Window, with_overlap
from dualwrite.postgres import Connection, memory
from dualwrite.postgres.memory import OpenDifference
from dualwrite.runs.reconcile_plan import DAG_ID, Plan, ReconcileParams, Run
from dualwrite.runs.record import recorded

PAGE_SIZE = 5000
DUAL_WRITE_OFF = "dual_write_off"
"""The cause of what is missing because dual-write is switched off: kept open, and no failure."""

PATIENCE = timedelta(hours=1)
"""A difference that was there at every look for this long is drift, even if its document kept changing: else a busy
document whose writes never arrive would be in flight for ever."""


# --- the first look -------------------------------------------------------------------------------------------------------


def compare(run: Run, name: str) -> dict[str, Any]:
    """The first look at one collection. Returns its report, with `pending`: how many differences need a second look.

    What differs is kept open, and the watermark moved, in one transaction at the end.
    """
    window = run.plan.windows[name]
    found = CollectionReport(name, "compare")
    pending: list[tuple[Finding, Key]] = []
    with run.target.transaction() as connection:
        known = memory.open_differences(connection, name)
        moment = memory.now(connection)
    excused = frozenset(d.label for d in known if d.excused)
    paths = {d.label: d.path for d in known}
    watched = frozenset(paths)  # an excuse ends with the difference that it was for
    examiner = examiner_of(run, found, Policy(), excused, watched)

    def work() -> None:
        with examiner:
            read = window and with_overlap(window, timedelta(minutes=run.params.overlap_minutes))
            pending.extend(examiner.first_look(read, PAGE_SIZE, lambda e: _other_sides(e, window)))

    def finish(connection: Connection) -> None:
        # Not drift before the second look has said so: this run may die here, and another look at the table.
        new: list[tuple[Finding, Key | None, Cause | None]] = [
            (replace(f, verdict=Verdict.IN_FLIGHT, reason="first_look"), k, None)
            for f, k in pending
            if f.label not in watched or f.path != paths[f.label]  # known, and its document is elsewhere
        ]
        new += [(f, None, None) for f in examiner.rejected]
        memory.remember(connection, name, new, run.run_id)
        memory.close(connection, name, examiner.settled)
        end = run.plan.now if window is None else window.end
        swept = run.plan.now if window is None else None
        memory.advance_watermark(connection, name, end, run.run_id, swept_at=swept)

    report = measured(run, found, work, finish)
    still = watched - excused - examiner.settled - {f.label for f in examiner.rejected}
    new = sum(1 for f, _ in pending if f.label not in watched)
    grace = timedelta(seconds=run.params.grace_seconds)
    # Those of a run that died between its looks may be young too.
    young = sum(1 for d in known if d.label in still and moment - d.first_seen < grace)
    return {
        **report,
        "pending": new + len(still),
        "to_wait_for": new + young,
        "looked_at": datetime.now(UTC).isoformat(),
    }


def _other_sides(examiner: Examiner, window: Window | None) -> list[Unit]:
    """Keys that rows and operations of the window name, and that no document of the window was."""
    if window is None:
        return []
    target, collection = examiner.target, examiner.collection
    keys = target.written_between(collection, window.start, window.end)
    units = examiner.fresh(examiner.units_of(keys))
    with target.transaction() as connection:
        found = operations.since(connection, collection, window.start)
    located = operations.locate(target, collection, found, examiner.seen)
    examiner.report.unlocatable += located.unlocatable
    units += examiner.examine_documents(located.paths)
    return list({u.label: u for u in [*units, *examiner.fresh(located.units)]}.values())


def may_look_again(plan: Plan, compared: Iterable[dict[str, Any] | None]) -> bool:
    """Whether what the first looks found is old enough for a second one."""
    looks = [c for c in compared if c and c["to_wait_for"]]
    last = max((datetime.fromisoformat(c["looked_at"]) for c in looks), default=None)
    return last is None or datetime.now(UTC) >= last + timedelta(seconds=plan.params.grace_seconds)


# --- the second look ------------------------------------------------------------------------------------------------------


def look_again(run: Run) -> dict[str, dict[str, Any]]:
    """Looks at everything that is open in the selected collections, by key, with fresh reads on both sides.

    Parents first: rows that hang on a row whose document is gone are found through it. Returns a report for each
    collection; what rejections this run's first look has counted already is left out.
    """
    reports: dict[str, dict[str, Any]] = {}
    hanging: dict[str, dict[str, Unit]] = {}
    for name in [n for n in run.catalog.names if n in run.params.selected]:
        found = CollectionReport(name, "second_look")
        reports[name] = _look_at_collection(run, found, hanging, lambda d: not _counted_already(d, run.run_id))
    return reports


def _counted_already(difference: OpenDifference, run_id: str) -> bool:
    return difference.verdict == Verdict.REJECTED and difference.run_id == run_id


def re_examine(run: Run, repaired: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Looks once more at what is open in collections that were repaired: what is mended is open no more."""
    hanging: dict[str, dict[str, Unit]] = {}
    wanted = set(repaired)
    return {
        name: _look_at_collection(
            run,
            CollectionReport(name, "re_examine"),
            hanging,
            lambda d: not d.excused,
            after_repair=run.params.policy.delete,
        )
        for name in run.catalog.names
        if name in wanted
    }


def _look_at_collection(
    run: Run,
    found: CollectionReport,
    hanging: dict[str, dict[str, Unit]],
    wanted: Callable[[OpenDifference], bool],
    *,
    after_repair: bool = False,
) -> dict[str, Any]:
    """Looks at what is open in one collection, and at what hangs there; adds to `hanging` what hangs on its extra rows."""
    name = found.collection
    collection = run.catalog[name]
    with run.target.transaction() as connection:
        everything = memory.open_differences(connection, name)
        now = memory.now(connection)
    known = [d for d in everything if not d.excused and wanted(d)]
    before = {d.label: d for d in known}
    accepted = {d.label for d in everything if d.excused}
    findings: list[tuple[Finding, Key | None]] = []
    causes: dict[str, Cause] = {}
    with examiner_of(run, found, Policy(), frozenset()) as examiner:

        def work() -> None:
            # A row that hangs on an extra one goes with it, whatever else is open about its own document; else the
            # row above could never go.
            hung = {label: unit for label, unit in hanging.get(name, {}).items() if label not in accepted}
            units, others = units_of(examiner, [d for d in known if d.label not in hung])
            findings.extend(others)
            units += hung.values()
            found.taken += len(units) + len(others)
            looked = examiner.protocol.run(units, Policy())
            # What was extra before was proved then; a repair proves it again, and so does the look after it.
            known_extra = {d.label for d in known if d.verdict == Verdict.EXTRA and not after_repair}
            new = examiner.protocol.prove_extra([(f, k) for f, k in looked if f.label not in known_extra])
            findings.extend([*new, *((f, k) for f, k in looked if f.label in known_extra)])
            judged = [(_settled(f, before.get(f.label), now, run.params), k) for f, k in findings]
            causes.update(_causes(run, collection, [f for f, _ in judged]))
            findings[:] = [(replace(f, cause=causes[f.label].cause) if f.label in causes else f, k) for f, k in judged]
            for finding, _ in findings:
                found.add(finding)
                found.expected += finding.cause == DUAL_WRITE_OFF
            _hang(examiner, [f for f, _ in findings if f.verdict is Verdict.EXTRA], hanging)

        def finish(connection: Connection) -> None:
            still = [(f, k) for f, k in findings if f.verdict in DRIFT or f.verdict is Verdict.IN_FLIGHT]
            memory.remember(connection, name, [(f, k, causes.get(f.label)) for f, k in still], run.run_id)
            memory.close(connection, name, set(before) - {f.label for f, _ in still})

        return measured(run, found, work, finish)


def units_of(
    examiner: Examiner, known: Sequence[OpenDifference]
) -> tuple[list[Unit], list[tuple[Finding, Key | None]]]:
    """What to look at for each open difference. A document that couldn't become a row is mapped again first; what
    can't be looked at by itself (an id that no document can have) stays as it is."""
    units: list[Unit] = []
    done: list[tuple[Finding, Key | None]] = []
    keyless = [d for d in known if d.key is None]
    documents = examiner.source.get([d.path for d in keyless if d.path], examiner.collection.fields)
    for difference in known:
        if difference.key is not None:
            unit = unit_of(examiner.collection, difference.key, difference.path)
            units.append(replace(unit, label=difference.label, requires=difference.requires))
            continue
        document = documents.get(difference.path or "")
        mapped = map_document(examiner.collection, document) or [] if document is not None else []
        unit_now = next((m for m in mapped if m.label == difference.label), None)
        if isinstance(unit_now, Row):
            units.append(Unit(unit_now.label, unit_now.key, unit_now.path, unit_now.entry))
        elif isinstance(unit_now, Rejection):
            reason = unit_now.reason
            done.append((Finding(Verdict.REJECTED, unit_now.label, unit_now.path, unit_now.entry, reason=reason), None))
        else:
            done.append((Finding(Verdict.ABSENT, difference.label, difference.path), None))
    return units, done


def _settled(finding: Finding, before: OpenDifference | None, now: datetime, params: ReconcileParams) -> Finding:
    """The verdict of a second look: drift is what stayed, unchanged, for the grace period."""
    if finding.verdict not in SETTLED_BY_WRITING or before is None or finding.requires is not None:
        return finding  # what hangs on an extra row has waited with it
    age = now - before.first_seen
    if age < timedelta(seconds=params.grace_seconds):
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason="younger_than_grace")
    if not is_same(before.fingerprint, finding.fingerprint) and age < PATIENCE:
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason="changed_between_looks")
    return finding


def _causes(run: Run, collection: Collection, findings: Sequence[Finding]) -> dict[str, Cause]:
    wanted = [f for f in findings if f.verdict in SETTLED_BY_WRITING]
    if not wanted:
        return {}
    with run.target.transaction() as connection:
        found = operations.causes(connection, collection, wanted)
    if not run.plan.dual_write_enabled:
        for finding in wanted:
            if finding.verdict is Verdict.MISSING:
                found[finding.label] = Cause(DUAL_WRITE_OFF)
    return found


def _hang(examiner: Examiner, extra: Sequence[Finding], hanging: dict[str, dict[str, Unit]]) -> None:
    """Rows that reference rows whose documents are gone: they can't stay, though their own documents may be there."""
    catalog, collection = examiner.catalog, examiner.collection
    gone = {f.label: f.requires or f.path for f in extra if f.path is not None or f.requires is not None}
    if not gone or len(collection.key) != 1:
        return
    for child, column in catalog.children(collection.name):
        for label, requires in gone.items():
            keys = examiner.target.keys_where(child, column.name, [label])
            paths = examiner.target.paths(child, keys)
            for key in keys:
                unit = replace(unit_of(child, key, next(iter(paths.get(key, ())), None)), requires=requires)
                hanging.setdefault(child.name, {}).setdefault(unit.label, unit)


# --- small things -----------------------------------------------------------------------------------------------------------


def examiner_of(
    run: Run,
    found: CollectionReport,
    policy: Policy,
    excused: frozenset[str],
    watched: frozenset[str] = frozenset(),
) -> Examiner:
    return Examiner(
        run.source,
        run.target,
        run.catalog,
        run.catalog[found.collection],
        policy=policy,
        report=found,
        run_id=run.run_id,
        excused=excused,
        watched=watched,
    )


def measured(
    run: Run, found: CollectionReport, work: Callable[[], None], finish: Callable[[Connection], None] = lambda _: None
) -> dict[str, Any]:
    """One phase of one collection, with its line in dualwrite.runs. A look at nothing leaves no line."""
    window = run.plan.windows.get(found.collection)
    return recorded(
        run.source, run.target, found, work, finish,
        dag_id=DAG_ID, run_id=run.run_id, scope="recent" if window is not None else "sweep", mode=run.params.repair,
        window=window, line=lambda: bool(found.examined or found.not_examined or found.phase == "compare"),
    )  # fmt: skip
