"""Repairs open differences: brakes first, then the writing protocol, one collection at a time.

Rows whose documents are gone are deleted first, children before parents, because one of them may hold a unique key
that a missing document needs; then rows are inserted and updated, parents before children. Every key is read again on
both sides before it is written, so nothing here trusts an earlier task's reads. The same holds for the gate: each write asks
it again, because Airflow can clear single tasks of old runs and run them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dualwrite import settings
from dualwrite.engine import preflight as checks
from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import Look, RepairLook
from dualwrite.engine.units import Policy
from dualwrite.model.choices import MAX_PLAN_AGE
from dualwrite.model.entries import Itself
from dualwrite.model.errors import BrakeError
from dualwrite.model.keys import joined_label, key_of_path
from dualwrite.model.problems import Problem, ProblemKind
from dualwrite.model.repairs import ACTIONS
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult, Gate, NamedKeys, PlannedRows
from dualwrite.model.verdicts import Reason, Verdict
from dualwrite.postgres.remembered import differences, journal
from dualwrite.postgres.remembered.differences import OpenDifference, differences_at, in_pages
from dualwrite.runs import second_look, undo
from dualwrite.runs.liveness import liveness
from dualwrite.runs.open_units import units_of
from dualwrite.runs.reconcile_plan import Run
from dualwrite.runs.record import phase

FEW = 20
"""Up to so many updates and deletes in a collection, the brake on their share of the table doesn't apply."""


@dataclass(frozen=True, slots=True)
class Planned:
    """How many rows of one collection a repair would insert, update and delete. The brakes judge `total`."""

    insert: int = 0
    update: int = 0
    delete: int = 0
    unfinished: int = 0
    """Writes of a killed run that are still to be confirmed."""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    """Rows that this run has deleted, inserted and updated so far: its tasks may run again, and the brakes are for the
    whole run."""
    parents: int = 0
    """Rows to be inserted only because rows of other collections need them."""

    @property
    def total(self) -> int:
        return self.insert + self.inserted + self.parents + self.changed

    @property
    def changed(self) -> int:
        """Rows that were there before the run and are touched by it."""
        return self.update + self.delete + self.updated + self.deleted

    def as_json(self) -> PlannedRows:
        return {
            "insert": self.insert,
            "update": self.update,
            "delete": self.delete,
            "unfinished": self.unfinished,
            "inserted": self.inserted,
            "updated": self.updated,
            "deleted": self.deleted,
            "parents": self.parents,
        }


def plan(run: Run) -> dict[str, Planned]:
    """The open differences that the run's policy would repair, counted by collection, with the parents that it would insert
    for them and the rows it has written; collections with nothing to repair are left out.

    Each key counts once: a written one stays open until the look after the repair.
    """
    plans: dict[str, Planned] = {}
    waiting: list[tuple[str, OpenDifference]] = []
    most = run.params.max_repairs + 1
    with run.target.transaction() as connection:
        written = journal.written_by(connection, run.run_id)
        for name in run.catalog.with_parents(run.params.collections):
            planned = {"insert": 0, "update": 0, "delete": 0}
            selected = name in run.plan.names
            for page in in_pages(lambda: nullcontext(connection), name) if selected else ():
                done = journal.written_among(connection, run.run_id, name, [d.label for d in page])
                for difference in page:
                    if is_asked_for(run, name, difference) and difference.label not in done:
                        planned[ACTIONS[difference.finding.verdict]] += 1
                        if difference.finding.reason is Reason.PARENT_MISSING and len(waiting) < most:
                            waiting.append((name, difference))
            part = Planned(
                **planned,
                unfinished=len(journal.unconfirmed(connection, name)) if selected else 0,
                inserted=written[name, "insert"],
                updated=written[name, "update"],
                deleted=written[name, "delete"],
            )
            if part.unfinished or part.total:
                plans[name] = part
    # A repair that is refused anyway needs no count of parents; and if keys are named, only those are written.
    if run.policy.parents and sum(part.total for part in plans.values()) <= run.params.max_repairs:
        for name, number in _parents(run, waiting).items():
            if number:
                plans[name] = replace(plans.get(name, Planned()), parents=number)
    return plans


def _parents(run: Run, waiting: Sequence[tuple[str, OpenDifference]]) -> Counter[str]:
    """How many parents a repair of these differences would insert for them, by collection."""
    return Counter(name for name, _ in _needed(run, waiting))


def _needed(run: Run, waiting: Sequence[tuple[str, OpenDifference]]) -> list[tuple[str, str]]:
    """Collections and labels of the missing rows that these differences need, read anew on both sides. Rows that the repair
    writes as differences of their own are left out."""
    required: dict[str, dict[str, None]] = {}
    for name in dict.fromkeys(name for name, _ in waiting):
        report = CollectionReport(name, "write")
        with Examiner(run.job(report), Policy(), Look(report)) as examiner:
            units, _ = units_of(examiner, [d for of, d in waiting if of == name])
            examiner.protocol.run(units, Policy())
            for parent, path in examiner.parents.insertable():
                required.setdefault(parent, {})[path] = None
    needed: list[tuple[str, str]] = []
    for parent, paths in required.items():
        keys = (key_of_path(run.catalog[parent], path) for path in paths)
        labels = [joined_label(key) for key in keys if key is not None]
        with run.target.transaction() as connection:
            own = differences_at(connection, parent, labels) if parent in run.params.collections else {}
            done = journal.written_among(connection, run.run_id, parent, labels)
        needed += [
            (parent, label)
            for label in labels
            if label not in done and not (label in own and is_asked_for(run, parent, own[label]))
        ]
    return needed


@dataclass(frozen=True, slots=True)
class Named:
    """Named keys that a run can't repair: those that aren't open (any more) or are excused, and those that need rows which
    aren't named, with these rows. Each as collection:key."""

    not_open: tuple[str, ...] = ()
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def as_json(self) -> NamedKeys:
        return {"not_open": list(self.not_open), "needs": {key: list(rows) for key, rows in self.needs.items()}}


MOST_NAMED = 100
"""Named keys that a report lists."""


def named(run: Run) -> Named:
    """The named keys that can't be repaired as named. A row that one of them needs is reported, and not written along: a
    missing row needs the rows that it references, an extra row stays while rows that go with it are there."""
    if not run.params.keys:
        return Named()
    not_open: list[str] = []
    needs: dict[str, list[str]] = {}
    for name in run.plan.names:
        what = run.params.named[name]
        with run.target.transaction() as connection:
            is_open = differences.named(connection, name, what)
        not_open += [f"{name}:{label}" for label in sorted(what.keys - {d.label for d in is_open})]
        lacking = [d for d in is_open if d.finding.reason is Reason.PARENT_MISSING and is_asked_for(run, name, d)]
        for difference in lacking[:MOST_NAMED]:
            for parent, label in _needed(run, [(name, difference)]):
                needs.setdefault(f"{name}:{difference.label}", []).append(f"{parent}:{label}")
        gone = {str(d.finding.path): d.label for d in is_open if d.finding.verdict is Verdict.EXTRA and d.finding.path}
        with run.target.transaction() as connection:
            for path, child, label in differences.going_with(connection, list(gone)):
                if not run.params.repairs_key(child, label, Verdict.EXTRA):
                    needs.setdefault(f"{name}:{gone[str(path)]}", []).append(f"{child}:{label}")
    return Named(tuple(not_open[:MOST_NAMED]), dict(list(needs.items())[:MOST_NAMED]))


def steps(planned: PlannedRows | None) -> tuple[str, ...]:
    """The steps, of "delete" and "write", that a collection's part of the gate's `planned` needs."""
    if planned is None:
        return ()
    written = planned["insert"] + planned["update"] + planned["unfinished"]
    return tuple(step for step, rows in (("delete", planned["delete"]), ("write", written)) if rows)


def is_ours(difference: OpenDifference, policy: Policy) -> bool:
    """Whether this is drift that isn't excused and that the policy may write."""
    verdict = difference.finding.verdict
    if difference.excuse is not None or verdict not in ACTIONS:
        return False
    return bool(getattr(policy, ACTIONS[verdict]))


def is_asked_for(run: Run, name: str, difference: OpenDifference, policy: Policy | None = None) -> bool:
    """Whether the run is to write this difference by `policy` (None: the run's own); if the run names keys, only these."""
    named = run.params.repairs_key(name, difference.label, difference.finding.verdict)
    return named and is_ours(difference, policy or run.policy)


def gate(run: Run) -> Gate:
    """Decides what happens after the second look: whether dual-write is alive, and which rows may be written.

    Returns `problem` (the sentence to fail with, or None) with its kind and code, `planned` (rows by collection), `operations`, `named`
    (see Named), the run to undo with the collections `left_out` of that, and the billed reads. With a problem nothing is
    written. A run that neither compares nor repairs doesn't check whether dual-write is alive.
    """
    billed = run.source.billed_reads
    if run.params.undo is not None:
        return _gate_of_undo(run)
    alive = liveness(run) if run.params.compares or run.plan.repairs else None
    problem = alive.problem if alive else None
    planned = plan(run) if run.plan.repairs else {}
    if planned and problem is None:
        try:
            brake(run, planned)
        except BrakeError as error:
            problem = Problem(ProblemKind.REFUSED, str(error), error.code)
    return {
        "problem": problem.text if problem else None,
        "problem_kind": str(problem.kind) if problem else None,
        "problem_code": problem.code if problem else None,
        "planned": {name: part.as_json() for name, part in planned.items()},
        "operations": alive.as_json() if alive else None,
        "named": named(run).as_json(),
        "undo": None,
        "left_out": [],
        "billed_reads": run.source.billed_reads - billed,
    }


def _gate_of_undo(run: Run) -> Gate:
    """As `gate`, for an undo: it may go on whether or not dual-write is alive."""
    billed, problem, planned = run.source.billed_reads, None, undo.plan(run)
    try:
        brake(run, {name: Planned(**part) for name, part in planned.items()})
    except BrakeError as error:
        problem = Problem(ProblemKind.REFUSED, str(error), error.code)
    return {
        "problem": problem.text if problem else None,
        "problem_kind": str(problem.kind) if problem else None,
        "problem_code": problem.code if problem else None,
        "planned": planned,
        "operations": None,
        "named": None,
        "undo": run.params.undo,
        "left_out": undo.left_out(run),
        "billed_reads": run.source.billed_reads - billed,
    }


def brake(run: Run, planned: Mapping[str, Planned]) -> None:
    """Raises BrakeError, before anything is written, if a side is empty or the repair is too large."""
    checks.check_not_empty(run.source, run.target, run.catalog)
    total = sum(p.total for p in planned.values())
    if total > run.params.max_repairs:
        listed = ", ".join(f"{name} {p.total:,}" for name, p in planned.items())
        raise BrakeError(
            f"A repair writes at most max_repairs = {run.params.max_repairs:,} rows: {total:,} would be written ({listed}). "
            "Nothing was. Find out why there are so many; then trigger a run with a larger max_repairs.",
            code="repair-above-max-repairs",
        )
    for name, part in planned.items():
        rows = run.target.count(run.catalog[name]) + part.deleted - part.inserted  # before the repair
        share = 100 * part.changed / rows if rows > 0 else 100.0
        if part.changed > FEW and share > run.params.max_share:
            raise BrakeError(
                f"A repair changes at most max_share = {run.params.max_share:g} % of a table: "
                f"{part.update + part.updated:,} updates and {part.delete + part.deleted:,} deletes are {share:.1f} % of the "
                f"{rows:,} rows of {name}. Nothing was written. Find out why there are so many; then trigger a run with a larger max_share.",
                code="repair-above-max-share",
            )


def may_write(run: Run) -> None:
    """Raises BrakeError unless the repair may begin, or go on, now: the plan is fresh, dual-write is on and alive, and the
    whole repair is within the brakes."""
    age = datetime.now(UTC) - run.plan.now
    if age > MAX_PLAN_AGE:
        raise BrakeError(
            f"This run's comparison is too old to repair by: it is from "
            f"{run.plan.now.isoformat(timespec='minutes')}, more than {MAX_PLAN_AGE.total_seconds() / 3600:g} hours ago. "
            "Nothing was written. Trigger a new run instead of clearing this one.",
            code="comparison-too-old",
        )
    if run.switch is not None and not run.switch():
        raise BrakeError(
            f"Nothing is repaired while dual-write is switched off: Variable {settings.named('dual_write_enabled')} is false now. Set it to true "
            "when the app dual-writes again, then trigger a new run.",
            code="dual-write-switched-off",
        )
    if not run.plan.repairs:
        raise BrakeError(
            "This run was not asked to repair anything, or dual-write was switched off when it began.",
            code="repair-not-asked-for",
        )
    check_gate(gate(run))


def check_gate(gate: Gate) -> None:
    """Raises BrakeError, with the code of the rule, if a gate found a problem."""
    if gate["problem"]:
        code = gate["problem_code"]
        raise BrakeError(gate["problem"], code=code)


def re_examine(run: Run, planned: Iterable[str]) -> dict[str, CollectionResult]:
    """Looks once more at the repaired keys; see second_look.re_examine."""
    return second_look.re_examine(run, planned, lambda name, difference: is_asked_for(run, name, difference))


def delete(run: Run, name: str) -> CollectionResult:
    """Deletes the open extra rows of one collection that no other row references. A row that moves to another key, because a field
    of its document did, is inserted there just before, so that the document is never without one."""
    moves = isinstance(run.catalog[name].entries, Itself)
    return _write(run, name, replace(run.policy, insert=moves and run.policy.insert, update=False))


def write(run: Run, name: str) -> CollectionResult:
    """Inserts and updates the open missing and stale rows of one collection."""
    return _write(run, name, replace(run.policy, delete=False))


def _with_moves(known: Sequence[OpenDifference]) -> list[OpenDifference]:
    """The extra rows of these differences, and just before each of them the missing row of the same document: wherever a batch
    ends, no row is deleted before the other one is inserted."""
    missing = {d.finding.path: d for d in known if d.finding.verdict is Verdict.MISSING}
    extra = [d for d in known if d.finding.verdict is Verdict.EXTRA]
    both = ((missing.pop(d.finding.path, None), d) for d in extra)
    return [d for pair in both for d in pair if d is not None]


def _write(run: Run, name: str, policy: Policy) -> CollectionResult:
    """Repairs open differences of one collection that the policy allows. First confirms the writes of a killed run."""
    policy = replace(policy, max_proof_reads=run.max_proof_reads())
    report = CollectionReport(name, "delete" if policy.delete else "write")
    # Deletes take all pages at once: one complete read of names before the first delete and one after the last prove them.
    pages = ([d for d in page if is_asked_for(run, name, d, policy)] for page in in_pages(run.target.transaction, name))
    parts = iter([_with_moves([d for page in pages for d in page])]) if policy.delete else pages
    look = RepairLook(report)
    with (
        phase(run, report, mode=run.params.repair, window=run.plan.windows.get(name)) as line,
        Examiner(run.job(report), policy, look) as examiner,
    ):
        may_write(run)  # inside the phase, so that its reads are counted
        examiner.protocol.finish_journal()
        for part in parts:
            units, _ = units_of(examiner, part)
            examiner.examine_units(units)
        examiner.protocol.finish_journal()
        with line.kept() as connection:
            # Only the attempt shows why Postgres refused a delete; a look can't.
            differences.remember(connection, name, look.obstructed, run.run_id)
    return report.as_json()
