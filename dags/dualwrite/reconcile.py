"""Reconciliation: did what was written lately arrive? Looks from four sides, looks twice, says why, and can mend it.

The sides are the documents whose check fields lie in the window, the rows written in it, the operations of write_ops in
it, and the differences that are still open. A sweep looks at every document and every row instead. docs/verification.md
says what each side can see.

What a run finds is kept in `dualwrite.open_differences` before anything else happens, in the transaction that moves the
watermark: a run that dies anywhere forgets nothing, the next one looks at what is open. A difference is drift when it
was first seen at least `grace_seconds` ago and is the same at a second look.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from dualwrite import memory, operations, parameters
from dualwrite import preflight as checks
from dualwrite.declaration import Catalog, Collection
from dualwrite.errors import ParameterError
from dualwrite.examine import Examiner, scans
from dualwrite.judge import Policy, Unit
from dualwrite.mapping import Rejection, Row, map_document
from dualwrite.memory import OpenDifference
from dualwrite.postgres import Connection
from dualwrite.protocol import UNITS_AT_ONCE
from dualwrite.report import CollectionReport
from dualwrite.source import Source
from dualwrite.target import Key, Target
from dualwrite.verdicts import DRIFT, SETTLED_BY_WRITING, Cause, Finding, Verdict
from dualwrite.windows import Window, instant, recent_window, with_overlap

log = logging.getLogger(__name__)

DAG_ID = "reconcile_dual_writes"
EXPORT_TIME = "2026-01-15T21:52:00+00:00"
REPAIRS = ("off", "missing", "missing_and_stale", "all")
SCOPES = ("recent", "sweep")
PARAMETERS = (
    "minutes", "overlap_minutes", "grace_seconds", "scope", "sweep_every_hours", "collections", "repair", "max_repairs",
    "max_share", "liveness_minimum", "excuse", "excuse_reason", "unexcuse",
)  # fmt: skip

PAGE_SIZE = 5000
JOURNAL_DAYS = 30
RUNS_DAYS = 400
DUAL_WRITE_OFF = "dual_write_off"
"""The cause of what is missing because dual-write is switched off: kept open, and no failure."""

PATIENCE = timedelta(hours=1)
"""A difference that was there at every look for this long is drift, even if its document kept changing: else a busy
document whose writes never arrive would be in flight for ever."""


@dataclass(frozen=True, slots=True)
class ReconcileParams:
    """The parameters of one run, checked."""

    minutes: int
    overlap_minutes: int
    grace_seconds: float
    scope: str
    sweep_every_hours: float
    selected: tuple[str, ...]
    repair: str
    max_repairs: int
    max_share: float
    liveness_minimum: int
    excuses: tuple[tuple[str, str], ...]
    excuse_reason: str | None
    unexcuses: tuple[tuple[str, str], ...]

    @property
    def policy(self) -> Policy:
        """What a repair may write."""
        return Policy(
            insert=self.repair != "off",
            update=self.repair in ("missing_and_stale", "all"),
            delete=self.repair == "all",
        )

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        pairs = {name: tuple((c, k) for c, k in given[name]) for name in ("excuses", "unexcuses")}
        return cls(**{**given, **pairs, "selected": tuple(given["selected"])})


def parse(given: Mapping[str, Any], catalog: Catalog) -> ReconcileParams:
    """Checks the parameters of a run. Raises ParameterError with the first fault."""
    parameters.refuse_unknown(given, PARAMETERS)
    excuses = parameters.excuses(given)
    return ReconcileParams(
        minutes=int(parameters.number(given, "minutes", 1, 7 * 24 * 60)),
        overlap_minutes=int(parameters.number(given, "overlap_minutes", 0, 7 * 24 * 60)),
        grace_seconds=parameters.number(given, "grace_seconds", 0, 3600),
        scope=parameters.choice(given, "scope", SCOPES),
        sweep_every_hours=parameters.number(given, "sweep_every_hours", 0, 24 * 366),
        selected=parameters.collections(given, catalog),
        repair=parameters.choice(given, "repair", REPAIRS),
        max_repairs=int(parameters.number(given, "max_repairs", 1, 1_000_000)),
        max_share=parameters.number(given, "max_share", 0, 100),
        liveness_minimum=int(parameters.number(given, "liveness_minimum", 1, 1_000_000)),
        excuses=tuple(excuses),
        excuse_reason=parameters.reason(given, bool(excuses)),
        unexcuses=tuple(parameters.excuses(given, "unexcuse")),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What all tasks of a run agree on. `windows`: each collection's, and None where it is swept."""

    params: ReconcileParams
    now: datetime
    dual_write_enabled: bool
    windows: dict[str, Window | None]
    billed_reads: int = 0
    """What preflight itself cost."""

    @property
    def repairs(self) -> bool:
        """Whether this run may write: not while dual-write is switched off, which says that the target must wait."""
        return self.params.repair != "off" and self.dual_write_enabled

    def as_json(self) -> dict[str, Any]:
        windows = {
            n: None if w is None else {"start": w.start.isoformat(), "end": w.end.isoformat()}
            for n, w in self.windows.items()
        }
        return {
            "params": dataclasses.asdict(self.params),
            "now": self.now.isoformat(),
            "dual_write_enabled": self.dual_write_enabled,
            "windows": windows,
            "billed_reads": self.billed_reads,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        windows = {
            n: None if w is None else Window(datetime.fromisoformat(w["start"]), datetime.fromisoformat(w["end"]))
            for n, w in given["windows"].items()
        }
        return cls(
            ReconcileParams.from_json(given["params"]),
            datetime.fromisoformat(given["now"]),
            given["dual_write_enabled"],
            windows,
            given["billed_reads"],
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What the tasks of one run share."""

    source: Source
    target: Target
    catalog: Catalog
    run_id: str
    plan: Plan

    @property
    def params(self) -> ReconcileParams:
        return self.plan.params


# --- preflight ----------------------------------------------------------------------------------------------------------


def preflight(
    source: Source,
    target: Target,
    catalog: Catalog,
    params: ReconcileParams,
    run_id: str,
    *,
    by: str,
    dual_write_enabled: bool,
    now: datetime | None = None,
) -> Plan:
    """Checks both sides, keeps excuses, and fixes the windows: from each collection's watermark on. `by` is who asks."""
    now = now or datetime.now(UTC)
    with target.transaction() as connection:
        memory.require_schema(connection)
        memory.prune_journal(connection, JOURNAL_DAYS)
        memory.prune_runs(connection, RUNS_DAYS)
        _check_excuses(connection, catalog, [*params.excuses, *params.unexcuses])
        memory.excuse(connection, params.excuses, by=by, reason=str(params.excuse_reason), run_id=run_id)
        memory.unexcuse(connection, params.unexcuses)
        marks = {name: memory.watermark(connection, name) for name in params.selected}
    windows: dict[str, Window | None] = {}
    for name, (until, swept) in marks.items():
        due = swept is None or now - swept >= timedelta(hours=params.sweep_every_hours)
        due = due or not catalog[name].check_fields  # read whole anyway
        recent = recent_window(until, params.minutes, now, instant(EXPORT_TIME, "the export's time"))
        windows[name] = None if params.scope == "sweep" or due else recent
    plan = Plan(params, now, dual_write_enabled, windows)
    # A repair also writes the parents that a missing row needs.
    examined = dict.fromkeys(catalog.with_parents(params.selected))
    checks.check(source, target, catalog, examined, writes=plan.repairs, estimate=False)
    return replace(plan, billed_reads=source.billed_reads)


def _check_excuses(connection: Connection, catalog: Catalog, named: Iterable[tuple[str, str]]) -> None:
    """A collection that is named must be declared, or have differences open from when it was."""
    known = {*catalog.names, *(line["collection"] for line in memory.open_counts(connection))}
    for name, key in named:
        if name not in known:
            raise ParameterError(
                f"An excuse names a collection: {name!r} in {name}:{key} is none. Choose from {', '.join(sorted(known))}."
            )


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
    excused = frozenset(d.label for d in known if d.excused)
    watched = frozenset(d.label for d in known)  # an excuse ends with the difference that it was for
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
            if f.label not in watched
        ]
        new += [(f, None, None) for f in examiner.rejected]
        memory.remember(connection, name, new, run.run_id)
        memory.close(connection, name, examiner.settled)
        end = run.plan.now if window is None else window.end
        swept = run.plan.now if window is None else None
        memory.advance_watermark(connection, name, end, run.run_id, swept_at=swept)

    report = measured(run, found, work, finish=finish)
    still = len(watched - excused - examiner.settled - {f.label for f in examiner.rejected})
    new = sum(1 for f, _ in pending if f.label not in watched)
    return {**report, "pending": new + still, "to_wait_for": new, "looked_at": datetime.now(UTC).isoformat()}


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
        name: _look_at_collection(run, CollectionReport(name, "re_examine"), hanging, lambda d: not d.excused)
        for name in run.catalog.names
        if name in wanted
    }


def _look_at_collection(
    run: Run,
    found: CollectionReport,
    hanging: dict[str, dict[str, Unit]],
    wanted: Callable[[OpenDifference], bool],
) -> dict[str, Any]:
    """Looks at what is open in one collection, and adds to `hanging` the rows of others that hang on extra ones."""
    name = found.collection
    collection = run.catalog[name]
    with run.target.transaction() as connection:
        everything = memory.open_differences(connection, name)
        now = memory.now(connection)
    known = [d for d in everything if not d.excused and wanted(d)]
    before = {d.label: d for d in known}
    elsewhere = {d.label for d in everything} - set(before)
    findings: list[tuple[Finding, Key | None]] = []
    causes: dict[str, Cause] = {}
    with examiner_of(run, found, Policy(), frozenset()) as examiner:

        def work() -> None:
            units, unreadable = units_of(examiner, known)
            findings.extend(unreadable)
            units += [u for label, u in hanging.get(name, {}).items() if label not in before and label not in elsewhere]
            for start in range(0, len(units), UNITS_AT_ONCE):
                findings.extend(examiner.protocol.run(units[start : start + UNITS_AT_ONCE], Policy()))
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

        return measured(run, found, work, finish=finish)


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
            unit = examiner.judge.unit_of(difference.key, difference.path)
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
    if before.fingerprint != finding.fingerprint and age < PATIENCE:
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
                path = paths.get(key)
                unit = Unit("/".join(map(str, key)), key, path, requires=requires)
                if not child.keyed_by_path:
                    unit = replace(unit, label="row:" + unit.label)
                hanging.setdefault(child.name, {}).setdefault(unit.label, unit)


# --- is dual-write alive? ---------------------------------------------------------------------------------------------------


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
        strict_parents=True,
    )


def measured(
    run: Run,
    found: CollectionReport,
    work: Callable[[], None],
    *,
    finish: Callable[[Connection], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs one examination with its time and billed reads. What it found, and its line in dualwrite.runs, are kept in
    one transaction; a failure is recorded as not examined and raised again."""
    started_at, began, billed = datetime.now(UTC), time.monotonic(), run.source.billed_reads
    window = run.plan.windows.get(found.collection)
    scope = "recent" if window is not None else "sweep"

    def tally() -> None:
        found.seconds = time.monotonic() - began
        found.billed_reads = run.source.billed_reads - billed

    def record(connection: Connection) -> None:
        tally()
        memory.record_run(
            connection, found, dag_id=DAG_ID, run_id=run.run_id, scope=scope, mode=run.params.repair, window=window,
            started_at=started_at,
        )  # fmt: skip

    try:
        work()
        found.check_identity()
        with run.target.transaction() as connection:
            finish(connection)
            if found.examined or found.phase == "compare":  # nothing to look at again: no line
                record(connection)
            else:
                tally()
    except Exception as error:
        found.not_examined = type(error).__name__
        with run.target.transaction() as connection:
            record(connection)
        raise
    return found.as_json()
