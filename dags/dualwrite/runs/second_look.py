"""Reconciliation's second look, by key, at open differences: which are drift, and why. And the look after a repair.

A difference is drift if two looks of one run, at least `grace_seconds` apart, see the same, and stays drift until a look
finds it gone (the rule is engine/second_look.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as Container
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from dualwrite.engine import op_log as operations
from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import Look
from dualwrite.engine.second_look import seen_twice, vanished
from dualwrite.engine.units import Policy, Unit, unit_of
from dualwrite.model.declaration import Collection
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult, SecondLook
from dualwrite.model.verdicts import DRIFT, OBSTACLES, SETTLED_BY_WRITING, Cause, Finding, Reason, Verdict, Why, is_same
from dualwrite.postgres import Connection, target_clock
from dualwrite.postgres.references import why_kept
from dualwrite.postgres.remembered import differences, journal
from dualwrite.postgres.remembered.differences import Due, OpenDifference, differences_at
from dualwrite.runs.open_units import units_of
from dualwrite.runs.reconcile_plan import Run
from dualwrite.runs.record import phase

log = logging.getLogger(__name__)


def look_again(run: Run) -> tuple[dict[str, SecondLook], dict[str, Exception]]:
    """Looks at the open differences of the selected collections, by key, with fresh reads on both sides.

    At most `max_open_looks` differences: those that no run has looked at twice yet, then those seen longest ago; the
    others stay open, and the report counts them in `not_looked_at`. Parents first: rows that depend on a row whose
    document is gone are found through that row. Rejections that this run's first look has counted are left out. Returns
    each collection's report, and the errors that ended the looks of others.
    """
    reports: dict[str, SecondLook] = {}
    errors: dict[str, Exception] = {}
    names = [n for n in run.catalog.names if n in run.params.collections]
    with run.target.transaction() as connection:
        due = _named(run, connection) or differences.due(connection, names, run.run_id, run.params.max_open_looks)
    looks = _Looks(run.params.max_open_looks - sum(map(len, due.differences.values())))
    for name in names:
        report = CollectionReport(name, "second_look")
        known = due.differences.get(name, [])
        try:
            # Mostly there is nothing to look at: no round trip to a target that may be an ocean away.
            looked = known or name in looks.dependents
            part = _look_at_collection(run, report, looks, known) if looked else report.as_json()
        except Exception as error:  # noqa: BLE001 - reported by its name
            log.warning("%s: its second look failed with %s", name, type(error).__name__)
            errors[name] = error
            continue
        waiting = due.waiting.get(name, 0) + looks.waiting.pop(name, 0)
        reports[name] = {**part, "not_looked_at": waiting, "undecided": due.undecided.get(name, 0)}
    return reports, errors


def _named(run: Run, connection: Connection) -> Due | None:
    """The open differences that `keys` names; None if the run names none."""
    if not run.params.keys:
        return None
    return Due({n: differences.named(connection, n, run.params.named[n]) for n in run.plan.names}, {}, {})


@dataclass
class _Looks:
    """The second look's remaining budget (differences), the dependents of extra rows, and how many of these the budget left
    out, by collection."""

    budget: int
    dependents: dict[str, dict[str, Unit]] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)


def re_examine(
    run: Run, repaired: Iterable[str], ours: Callable[[str, OpenDifference], bool]
) -> dict[str, CollectionResult]:
    """Looks once more at the differences that a repair of these collections was for (`ours`) and at all other rows that it
    wrote, inserted parents included, and closes those that match now.

    If a written row differs again, either a client wrote meanwhile or a trigger changed the row: a second look, a grace
    period later, shows which. Only in that case it waits here.
    """
    wanted = run.catalog.with_parents([n for n in run.catalog.names if n in set(repaired)])
    looks = _Looks(budget=0)
    reports: dict[str, CollectionResult] = {}
    differ: dict[str, list[str]] = {}
    for name in wanted:
        everything: set[str] = set()
        known: list[OpenDifference] = []
        with run.target.transaction() as connection:
            for page in differences.in_pages(lambda: nullcontext(connection), name):
                written = journal.written_among(connection, run.run_id, name, [d.label for d in page])
                known += [
                    d
                    for d in page
                    if d.excuse is None and (d.label in written or (name in run.params.collections and ours(name, d)))
                ]
                everything |= written
        report = CollectionReport(name, "re_examine")
        reports[name] = _look_at_collection(run, report, looks, known, after_repair=True, written=everything)
        with run.target.transaction() as connection:
            open_now = differences_at(connection, name, sorted(everything))
        if again := [label for label, d in open_now.items() if d.finding.verdict is Verdict.IN_FLIGHT]:
            differ[name] = again
    if differ:
        log.info("%d rows differ after they were written, looking again", sum(map(len, differ.values())))
        run.target.close()
        time.sleep(run.params.grace_seconds)
    for name, labels in differ.items():
        with run.target.transaction() as connection:
            known = list(differences_at(connection, name, labels).values())
        report = CollectionReport(name, "re_examine")
        again_seen = _look_at_collection(run, report, looks, known, after_repair=True, part=1)
        billed = reports[name]["billed_reads"] + again_seen["billed_reads"]
        reports[name] = {**again_seen, "billed_reads": billed}
    return reports


def _look_at_collection(
    run: Run,
    report: CollectionReport,
    looks: _Looks,
    known: Sequence[OpenDifference],
    *,
    after_repair: bool = False,
    written: Container[str] = frozenset(),
    part: int = 0,
) -> CollectionResult:
    """Looks at the `known` open differences of one collection and at the dependents there, and adds the dependents of its
    own extra rows to `looks`.

    `written`: labels of rows that this run wrote and saw beside their documents. Their old differences are gone; a
    difference there now is seen for the first time.
    """
    name = report.collection
    collection = run.catalog[name]
    with run.target.transaction() as connection:
        everything = differences_at(connection, name, list(looks.dependents.get(name, ())))
        now = target_clock.now(connection)
    before = {d.label: d for d in known}
    with (
        phase(run, report, mode=run.params.repair, window=run.plan.windows.get(name), part=part) as line,
        Examiner(run.job(report), Policy(max_proof_reads=run.max_proof_reads()), Look(report)) as examiner,
    ):
        # A dependent of an extra row must go with it, whatever else is open for its own document, or the extra row could
        # never go.
        dependents = _affordable(looks, name, everything, before)
        units, others = units_of(examiner, [d for d in known if d.label not in dependents])
        units += dependents.values()
        report.taken += len(units) + len(others)
        looks.dependents.pop(name, None)
        # A row called extra before was proved then. A repair proves it again, and so does the look after it. One that goes with
        # another's document is proved at each look: its own document may name another by now.
        proves_again = after_repair and run.policy.delete
        known_extra = {d.label for d in known if _is_proved(d) and not proves_again}
        open_before = {label: d for label, d in before.items() if label not in written}
        findings: list[Finding] = []
        while units or others:
            looked = examiner.protocol.run(units, Policy())
            proved = examiner.protocol.prove_extra([f for f in looked if f.label not in known_extra])
            judged = [*others, *proved, *(f for f in looked if f.label in known_extra)]
            judged = [_settled(f, open_before.get(f.label), now, run.params, collection) for f in judged]
            judged = _with_obstacles(run, collection, judged, before, after_deletes=proves_again)
            settled = _with_causes(run, collection, judged)
            for finding in settled:
                report.add(finding)
                off = finding.cause is not None and finding.cause.why is Why.DUAL_WRITE_OFF
                report.expected += off and finding.verdict in DRIFT
            findings += settled
            gone = [f for f in settled if f.verdict is Verdict.EXTRA]
            _find_dependents(run, collection, gone, looks.dependents, run.params.collections)
            # Next: rows that reference extra rows of their own table, and so on down.
            units, others = _affordable_own(run, looks, name, {f.label for f in findings}), []
            report.taken += len(units)
        still = [f for f in findings if f.verdict in DRIFT or f.verdict is Verdict.IN_FLIGHT]
        with line.kept() as connection:
            differences.remember(connection, name, still, run.run_id)
            # Only keys that were looked at, and are no drift and not in flight, are closed.
            differences.close(connection, name, {f.label for f in findings} - {f.label for f in still})
    return report.as_json()


def _affordable_own(run: Run, looks: _Looks, name: str, seen: Container[str]) -> list[Unit]:
    """The dependents in a collection that its own look has just discovered and not seen, as far as the budget allows."""
    new = {label: unit for label, unit in looks.dependents.pop(name, {}).items() if label not in seen}
    if not new:
        return []
    looks.dependents[name] = new
    with run.target.transaction() as connection:
        everything = differences_at(connection, name, list(new))
    waiting = looks.waiting.get(name, 0)
    affordable = _affordable(looks, name, everything, frozenset())
    looks.waiting[name] += waiting
    del looks.dependents[name]
    return list(affordable.values())


def _affordable(
    looks: _Looks, name: str, everything: Mapping[str, OpenDifference], before: Container[str]
) -> dict[str, Unit]:
    """The dependents in one collection that the budget allows, those not yet open first; excused ones are left out."""
    candidates = {
        label: unit
        for label, unit in looks.dependents.get(name, {}).items()
        if not (label in everything and everything[label].excuse is not None)
    }
    others = sorted((label for label in candidates if label not in before), key=lambda label: label in everything)
    left_out = others[max(0, looks.budget) :]
    looks.budget -= len(others) - len(left_out)
    looks.waiting[name] = sum(label not in everything for label in left_out)
    return {label: unit for label, unit in candidates.items() if label not in set(left_out)}


def _is_proved(difference: OpenDifference) -> bool:
    found = difference.finding
    return found.verdict is Verdict.EXTRA and found.reason != Reason.ABSENCE_NOT_PROVED and found.requires is None


def _settled(
    finding: Finding, before: OpenDifference | None, now: datetime, params: ReconcileParams, collection: Collection
) -> Finding:
    """The finding with the verdict of a second look; `before`: the difference that was open at its key, if any."""
    grace = timedelta(seconds=params.grace_seconds)
    if before is None:
        return seen_twice(finding, None, waited=timedelta(), age=timedelta(), grace=grace)
    age = now - before.first_seen
    if collection.keyed_by_path and not collection.keyed_by_whole_path:
        finding = vanished(finding, before.finding, age=age)
    return seen_twice(finding, before.finding, waited=now - before.last_seen, age=age, grace=grace)


def _with_causes(run: Run, collection: Collection, findings: Sequence[Finding]) -> list[Finding]:
    """The findings; those of missing, stale and extra rows have their cause."""
    wanted = [f for f in findings if f.verdict in SETTLED_BY_WRITING]
    if not wanted:
        return list(findings)
    with run.target.transaction() as connection:
        causes = operations.causes(connection, collection, wanted)
    if not run.plan.dual_write_enabled:
        causes = dict.fromkeys(causes, Cause(Why.DUAL_WRITE_OFF))
    return [replace(f, cause=causes.get(f.label)) for f in findings]


_DELETABLE = (None, Reason.PARENT_GONE, Reason.LEFT_OUT)
"""Why a row is extra that a repair would delete."""
_TRIED = (Reason.NEW_ROW_LACKING, Reason.DELETE_REFUSED)
"""Reasons that only an attempt to write shows: kept from look to look, until a repair tries again. (Each look tries again to
prove an absence.)"""


def _with_obstacles(
    run: Run,
    collection: Collection,
    findings: Sequence[Finding],
    before: Mapping[str, OpenDifference],
    *,
    after_deletes: bool,
) -> list[Finding]:
    """The findings; extra rows that a repair wouldn't delete, or didn't, have their reason. Rows of selected collections
    that reference an extra row are found through it and go first, so they count only if they are still there afterwards.
    """
    extra = [f for f in findings if f.verdict is Verdict.EXTRA and f.reason in _DELETABLE and f.key]
    keys = [f.key for f in extra if f.key is not None]
    held = run.target.referenced(collection, keys) if keys else {}
    going = {
        (child.table, column.name)
        for child, column in run.catalog.children(collection.name)
        if child.name in run.params.collections
    }
    reasons: dict[str, Reason] = {}
    for finding in extra:
        was = before[finding.label].finding.reason if finding.label in before else None
        by = held.get(finding.key or (), [])
        first = [r for r in by if any((table, c) in going for table in (r.table, r.name) for c in r.columns)]
        staying = by if after_deletes or was in OBSTACLES else [r for r in by if r not in first]
        why = why_kept(staying) or (was if was in _TRIED else None)
        if why is not None:
            reasons[finding.label] = Reason(why)
    for finding in findings:
        was_open = before.get(finding.label)
        if finding.verdict is Verdict.STALE and finding.reason is None and was_open is not None:
            known = was_open.finding
            if known.reason == Reason.CHANGED_BY_TABLE and is_same(known.fingerprint, finding.fingerprint):
                reasons[finding.label] = Reason.CHANGED_BY_TABLE
    return [replace(f, reason=reasons[f.label]) if f.label in reasons else f for f in findings]


def _find_dependents(
    run: Run,
    collection: Collection,
    extra: Sequence[Finding],
    dependents: dict[str, dict[str, Unit]],
    selected: Container[str],
) -> None:
    """Adds to `dependents` the rows that reference extra rows: each must be deleted, even if its own document is there, or
    its column become null if it may. One statement for each selected collection that references this one: of the others,
    preflight hasn't checked whether we see all rows, and no run looks at them."""
    gone = {f.key: path for f in extra if f.key and (path := f.requires or f.path)}
    if not gone:
        return
    asked: set[tuple[str, ...]] = set()
    for child, column in run.catalog.children(collection.name):
        if child.name not in selected or (child.name, *column.beside) in asked:
            continue
        if column.beside:
            asked.add((child.name, *column.beside))
            rows = run.target.dependents_of(child, column.beside, list(gone))
        else:
            by_value = {str(key[0]): key for key in gone}
            rows = [(by_value[v], key) for v, key in run.target.dependents(child, column.name, by_value)]
        paths = run.target.paths(child, [key for _, key in rows])
        nulls = column.may_become_null and column.name in _nulling(run, child)
        for named, key in rows:
            path = next(iter(paths.get(key, ())), None)
            unit = replace(unit_of(child, key, path), requires=gone[named], nulls=nulls)
            dependents.setdefault(child.name, {}).setdefault(unit.label, unit)


def _nulling(run: Run, collection: Collection) -> frozenset[str]:
    with run.target.transaction() as connection:
        return run.target.nulling(connection, collection)
