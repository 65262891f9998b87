"""Mends what a reconciliation found: brakes first, then by the protocol, one collection at a time.

Rows whose documents are gone are deleted first, children before parents, because one of them may hold a unique key
that a missing document needs; then rows are inserted and updated, parents before children. Every key is read again on
both sides before it is written, so nothing here trusts what an earlier task saw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dualwrite.engine import preflight as checks
from dualwrite.engine.units import Policy
from dualwrite.model.errors import BrakeError
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Verdict
from dualwrite.postgres import memory
from dualwrite.postgres.memory import OpenDifference
from dualwrite.runs.liveness import liveness
from dualwrite.runs.reconcile import DUAL_WRITE_OFF, examiner_of, measured, units_of
from dualwrite.runs.reconcile_plan import Run

FEW = 20
"""Updates and deletes up to this number in a collection need no share of the table to be small."""

_WRITTEN_BY = {Verdict.MISSING: "insert", Verdict.STALE: "update", Verdict.EXTRA: "delete"}


@dataclass(frozen=True, slots=True)
class Planned:
    """How many rows of one collection a repair would insert, update and delete. `total` is what the brakes see."""

    insert: int = 0
    update: int = 0
    delete: int = 0
    unfinished: int = 0
    """Writes of a killed run that are still to be confirmed."""

    @property
    def total(self) -> int:
        return self.insert + self.update + self.delete


def plan(run: Run) -> dict[str, Planned]:
    """What the run's policy would mend of what is open, by collection; those with nothing to mend are left out."""
    found: dict[str, Planned] = {}
    with run.target.transaction() as connection:
        for name in run.params.selected:
            number = {"insert": 0, "update": 0, "delete": 0}
            for difference in memory.open_differences(connection, name):
                if _is_ours(difference, run.params.policy):
                    number[_WRITTEN_BY[Verdict(difference.verdict)]] += 1
            unfinished = len(memory.unconfirmed(connection, name))
            if unfinished or any(number.values()):
                found[name] = Planned(**number, unfinished=unfinished)
    return found


def steps(planned: Mapping[str, int] | None) -> tuple[str, ...]:
    """The tasks that a collection's part of the gate's `planned` needs."""
    if planned is None:
        return ()
    written = planned["insert"] + planned["update"] + planned["unfinished"]
    return tuple(step for step, rows in (("delete", planned["delete"]), ("write", written)) if rows)


def _is_ours(difference: OpenDifference, policy: Policy) -> bool:
    """Drift that a person has not accepted, that is no consequence of the switch, and that the policy may write."""
    if difference.excused or difference.cause == DUAL_WRITE_OFF or difference.verdict not in _WRITTEN_BY:
        return False
    return bool(getattr(policy, _WRITTEN_BY[Verdict(difference.verdict)]))


def gate(run: Run) -> dict[str, Any]:
    """Decides what happens after the second look: whether dual-write is alive, and what may be mended.

    Returns `problem` (the sentence to fail with, or None), `planned` (rows by collection) and `operations`. With a problem
    nothing is repaired.
    """
    billed = run.source.billed_reads
    alive = liveness(run)
    problem = alive.problem
    planned = plan(run) if run.plan.repairs else {}
    if planned and problem is None:
        try:
            brake(run, planned)
        except BrakeError as error:
            problem = str(error)
    return {
        "problem": problem,
        "planned": {name: dataclasses.asdict(part) for name, part in planned.items()},
        "operations": alive.as_json(),
        "billed_reads": run.source.billed_reads - billed,
    }


def brake(run: Run, planned: Mapping[str, Planned]) -> None:
    """Raises BrakeError where a repair looks like a disaster. Nothing has been written then."""
    checks.check_not_empty(run.source, run.target, run.catalog)
    total = sum(p.total for p in planned.values())
    if total > run.params.max_repairs:
        listed = ", ".join(f"{name} {p.total:,}" for name, p in planned.items())
        raise BrakeError(
            f"A repair writes at most max_repairs = {run.params.max_repairs:,} rows: {total:,} would be written ({listed}). "
            "Nothing was. Find out why there are so many; then trigger a run with a larger max_repairs."
        )
    for name, part in planned.items():
        changed = part.update + part.delete
        rows = run.target.count(run.catalog[name])
        share = 100 * changed / rows if rows else 100.0
        if changed > FEW and share > run.params.max_share:
            raise BrakeError(
                f"A repair changes at most max_share = {run.params.max_share:g} % of a table: {part.update:,} updates and "
                f"{part.delete:,} deletes are {share:.1f} % of the {rows:,} rows of {name}. Nothing was written. Find out why "
                "there are so many; then trigger a run with a larger max_share."
            )


def delete(run: Run, name: str) -> dict[str, Any]:
    """Deletes rows of one collection whose documents are gone, as far as no row references them."""
    return _write(run, name, replace(run.params.policy, insert=False, update=False))


def write(run: Run, name: str) -> dict[str, Any]:
    """Inserts and updates rows of one collection."""
    return _write(run, name, replace(run.params.policy, delete=False))


def _write(run: Run, name: str, policy: Policy) -> dict[str, Any]:
    """Repairs what is open in one collection, as far as the policy goes. First finishes what a killed run left."""
    found = CollectionReport(name, "delete" if policy.delete else "write")
    with run.target.transaction() as connection:
        known = [d for d in memory.open_differences(connection, name) if _is_ours(d, policy)]
    with examiner_of(run, found, policy, frozenset()) as examiner:

        def work() -> None:
            examiner.protocol.finish_journal()
            units, _ = units_of(examiner, known)
            examiner.examine_units(units)
            examiner.protocol.finish_journal()

        return measured(run, found, work)
