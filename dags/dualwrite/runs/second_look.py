"""Reconciliation's second look, at what is open, by key: what is drift, and why. And the look after a repair.

A difference is drift when two looks of one run, at least `grace_seconds` apart, see the same, and stays drift until a look
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


def look_again(run: Run, reports: dict[str, SecondLook], errors: dict[str, Exception]) -> None:
    """Looks at what is open in the selected collections, by key, with fresh reads on both sides.

    At most `max_open_looks` differences: those that no run has looked at twice yet, then those seen longest ago; the
    others stay open, and the report counts them in `not_looked_at`. Parents first: rows that depend on a row whose
    document is gone are found through that row. Rejections that this run's first look has counted are left out. Adds each
    collection's report to `reports`, or the error that ended its look to `errors`; the others are still looked at.
    """
    names = [n for n in run.catalog.names if n in run.params.collections]
    with run.target.transaction() as connection:
        due = _named(run, connection) or differences.due(connection, names, run.run_id, run.params.max_open_looks)
    looks = _Looks(run.params.max_open_looks - sum(map(len, due.differences.values())))
    for name in names:
        found = CollectionReport(name, "second_look")
        known = due.differences.get(name, [])
        try:
            # Mostly there is nothing to look at, and the target may be an ocean away.
            looked = known or name in looks.dependents
            part = _look_at_collection(run, found, looks, known) if looked else found.as_json()
        except Exception as error:  # noqa: BLE001 - told by its name
            log.warning("%s: its second look failed with %s", name, type(error).__name__)
            errors[name] = error
            continue
        waiting = due.waiting.get(name, 0) + looks.waiting.pop(name, 0)
        reports[name] = {**part, "not_looked_at": waiting, "undecided": due.undecided.get(name, 0)}


def _named(run: Run, connection: Connection) -> Due | None:
    """What `keys` names, and nothing else; None where it names nothing. The rows that hang on those are looked at too."""
    if not run.params.keys:
        return None
    return Due({n: differences.named(connection, n, run.params.named[n]) for n in run.plan.names}, {}, {})


@dataclass
class _Looks:
    """What a second look has left to spend, and the rows that hang on rows whose documents are gone, by collection."""

    budget: int
    dependents: dict[str, dict[str, Unit]] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)


def re_examine(
    run: Run, repaired: Iterable[str], ours: Callable[[str, OpenDifference], bool]
) -> dict[str, CollectionResult]:
    """Looks once more at what a repair of these collections was for (`ours`) and at whatever else it wrote, the parents
    that missing rows needed included: what is repaired is open no more.

    Where a row that was written differs again, either a client is at work or the table didn't keep what was written (a
    trigger): a second look, a grace period later, tells which. That is waited for here, only where it is so.
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
        found = CollectionReport(name, "re_examine")
        reports[name] = _look_at_collection(run, found, looks, known, after_repair=True, written=everything)
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
        found = CollectionReport(name, "re_examine")
        again_seen = _look_at_collection(run, found, looks, known, after_repair=True, part=1)
        billed = reports[name]["billed_reads"] + again_seen["billed_reads"]
        reports[name] = {**again_seen, "billed_reads": billed}
    return reports


def _look_at_collection(
    run: Run,
    found: CollectionReport,
    looks: _Looks,
    known: Sequence[OpenDifference],
    *,
    after_repair: bool = False,
    written: Container[str] = frozenset(),
    part: int = 0,
) -> CollectionResult:
    """Looks at what is `known` to be open in one collection, and at the dependents there; finds those of its extra rows.

    `written`: labels of rows that this run wrote and saw beside their documents. What was open there is gone; what
    differs now is seen for the first time.
    """
    name = found.collection
    collection = run.catalog[name]
    with run.target.transaction() as connection:
        everything = differences_at(connection, name, list(looks.dependents.get(name, ())))
        now = target_clock.now(connection)
    before = {d.label: d for d in known}
    with (
        phase(run, found, mode=run.params.repair, window=run.plan.windows.get(name), part=part) as line,
        Examiner(run.job(found), Policy(max_proof_reads=run.max_proof_reads()), Look(found)) as examiner,
    ):
        # A dependent of an extra row goes with it, whatever else is open about its own document; else the row above
        # could never go.
        dependents = _affordable(looks, name, everything, before)
        units, others = units_of(examiner, [d for d in known if d.label not in dependents])
        units += dependents.values()
        found.taken += len(units) + len(others)
        looks.dependents.pop(name, None)
        # What was extra before was proved then; a repair proves it again, and so does the look after it.
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
            told = _with_causes(run, collection, judged)
            for finding in told:
                found.add(finding)
                off = finding.cause is not None and finding.cause.why is Why.DUAL_WRITE_OFF
                found.expected += off and finding.verdict in DRIFT
            findings += told
            gone = [f for f in told if f.verdict is Verdict.EXTRA]
            _find_dependents(run, collection, gone, looks.dependents, run.params.collections)
            # Rows that reference gone rows of their own table, and what references those.
            units, others = _affordable_own(run, looks, name, {f.label for f in findings}), []
            found.taken += len(units)
        still = [f for f in findings if f.verdict in DRIFT or f.verdict is Verdict.IN_FLIGHT]
        with line.kept() as connection:
            differences.remember(connection, name, still, run.run_id)
            # Only what was looked at is closed, and only what both sides agree on.
            differences.close(connection, name, {f.label for f in findings} - {f.label for f in still})
    return found.as_json()


def _affordable_own(run: Run, looks: _Looks, name: str, seen: Container[str]) -> list[Unit]:
    """The dependents in a collection that its own look has just found, as far as the budget allows and nobody looked at them."""
    new = {label: unit for label, unit in looks.dependents.pop(name, {}).items() if label not in seen}
    if not new:
        return []
    looks.dependents[name] = new
    with run.target.transaction() as connection:
        everything = differences_at(connection, name, list(new))
    waiting = looks.waiting.get(name, 0)
    found = _affordable(looks, name, everything, frozenset())
    looks.waiting[name] += waiting
    del looks.dependents[name]
    return list(found.values())


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


def _is_proved(difference: OpenDifference) -> bool:
    return difference.finding.verdict is Verdict.EXTRA and difference.finding.reason != Reason.ABSENCE_NOT_PROVED


def _settled(
    finding: Finding, before: OpenDifference | None, now: datetime, params: ReconcileParams, collection: Collection
) -> Finding:
    """The verdict of this look at what was open before, if it was."""
    grace = timedelta(seconds=params.grace_seconds)
    if before is None:
        return seen_twice(finding, None, waited=timedelta(), age=timedelta(), grace=grace)
    age = now - before.first_seen
    if collection.keyed_by_path and not collection.keyed_by_whole_path:
        finding = vanished(finding, before.finding, age=age)
    return seen_twice(finding, before.finding, waited=now - before.last_seen, age=age, grace=grace)


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


_TRIED = (Reason.DELETE_REFUSED,)
"""Told by an attempt alone: kept from one look to the next, until a repair tries again. (An absence that was not proved is
proved anew by each look, or is not.)"""


def _with_obstacles(
    run: Run,
    collection: Collection,
    findings: Sequence[Finding],
    before: Mapping[str, OpenDifference],
    *,
    after_deletes: bool,
) -> list[Finding]:
    """The findings, with the reason where an extra row is one that a repair wouldn't delete, or didn't. Rows of selected
    collections that reference it are found through it and go first, so they count only if they are still there afterwards.
    """
    extra = [f for f in findings if f.verdict is Verdict.EXTRA and f.reason in (None, Reason.PARENT_GONE) and f.key]
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
    """Rows that reference rows whose documents are gone: they can't stay, though their own documents may be there, or can't
    go on naming them if the column is nullable. One statement for each selected collection that references this one:
    preflight hasn't asked whether we see all rows of the others, and no run looks at them."""
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
