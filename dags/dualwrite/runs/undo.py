"""Undo: takes back the writes of a run of this DAG, or of backfill_gap, by its journal (see postgres/undone.py). It has a
repair's brakes.

Rows that the run inserted go first, children before parents, because they may hold unique keys that others need; then updated
rows become what they were, and deleted ones come back, parents before children. A row that waits for another one has another
turn after each round that took something back. A row that somebody has written since is left as it is, and reported.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from dualwrite.model.choices import MAX_PLAN_AGE
from dualwrite.model.errors import BrakeError
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult, PlannedRows, UndoneRows, UndoneRun, UndoResult
from dualwrite.postgres.remembered import journal
from dualwrite.postgres.undone import Action, Chain, Undo, Undone
from dualwrite.runs.reconcile_plan import Plan, Run
from dualwrite.runs.record import phase

log = logging.getLogger(__name__)

MOST_LEFT = 50
"""Keys left as they are that a report lists, of each collection and in all."""

MOVED = "changed_since"
BROKEN = "changed_between"
FORGOTTEN = "not_in_the_journal_any_more"
UNKNOWN = "version_unknown"
DONE_BEFORE = "undone_before"


@dataclass
class _Open:
    """The chains still to be taken back in one collection, and the reasons why others were left, by label."""

    chains: list[Chain]
    left: dict[str, str] = field(default_factory=dict)


def _open(run: Run, undo: Undo, name: str) -> _Open:
    rest = _Open([])
    for chain in undo.chains(run.catalog[name]):
        if chain.undone:
            rest.left[chain.label] = DONE_BEFORE
        elif not chain.is_kept:
            rest.left[chain.label] = FORGOTTEN
        elif not chain.is_whole:
            rest.left[chain.label] = BROKEN
        elif chain.action != "insert" and chain.version is None:
            rest.left[chain.label] = UNKNOWN
        elif chain.action is not None:
            rest.chains.append(chain)
    return rest


def plan(run: Run) -> dict[str, PlannedRows]:
    """How many rows of each selected collection would be deleted, updated and inserted, and how many this run has so far;
    in the shape of a repair's plan."""
    undo = Undo(run.target, str(run.params.undo), run.run_id)
    with run.target.transaction() as connection:
        done = journal.written_by(connection, run.run_id)
    plans: dict[str, PlannedRows] = {}
    for name in _names(run, undo):
        counted = Counter(chain.action for chain in _open(run, undo, name).chains)
        part: PlannedRows = {
            "insert": counted["insert"],
            "update": counted["update"],
            "delete": counted["delete"],
            "unfinished": 0,
            "inserted": done[name, "insert"],
            "updated": done[name, "update"],
            "deleted": done[name, "delete"],
            "parents": 0,
        }
        if any(part.values()):
            plans[name] = part
    return plans


def _names(run: Run, undo: Undo) -> list[str]:
    wrote = undo.collections()
    return [name for name in run.catalog.names if name in run.params.collections and name in wrote]


def left_out(run: Run) -> list[str]:
    """Collections that the run wrote to and that aren't taken back, because they aren't selected or no longer declared."""
    wrote = Undo(run.target, str(run.params.undo), run.run_id).collections()
    return sorted(name for name in wrote if name not in run.params.collections)


def check_age(run: Run) -> None:
    """Raises BrakeError if the run is too old to undo by."""
    if datetime.now(UTC) - run.plan.now > MAX_PLAN_AGE:
        raise BrakeError(
            f"This run is too old to undo by: it is from {run.plan.now.isoformat(timespec='minutes')}. Nothing was written. Trigger "
            "a new run instead of clearing this one.",
            code="undo-too-old",
        )


def undo_all(run: Run) -> dict[str, UndoResult]:
    """Takes back all rows that can be; returns a report for each collection, with `undone`: the rows left, and why."""
    undo = Undo(run.target, str(run.params.undo), run.run_id)
    names = _names(run, undo)
    reports = {name: CollectionReport(name, "write") for name in names}
    waiting = {name: _open(run, undo, name) for name in names}
    differing: Counter[str] = Counter()
    turns: list[tuple[Action, Sequence[str]]] = [("delete", names[::-1]), ("update", names), ("insert", names)]
    progress = True
    while progress and any(w.chains for w in waiting.values()):
        progress = False
        for action, order in turns:
            for name in order:
                progress |= _turn(undo, run, name, action, waiting[name], reports[name], differing)
    results: dict[str, UndoResult] = {}
    for name in names:
        reasons = Counter(waiting[name].left.values())
        keys = {label: why for label, why in waiting[name].left.items() if why != DONE_BEFORE}
        undone: UndoneRows = {
            "left": dict(reasons),
            "differing": differing[name],
            "keys": dict(list(keys.items())[:MOST_LEFT]),
        }
        with phase(run, reports[name], mode="undo", window=None):
            pass
        results[name] = {**reports[name].as_json(), "undone": undone}
    return results


def _turn(
    undo: Undo, run: Run, name: str, action: Action, open_: _Open, report: CollectionReport, differing: Counter[str]
) -> bool:
    """One action in one collection. Returns whether any row was taken back."""
    chains = [chain for chain in open_.chains if chain.action == action]
    if not chains:
        return False
    made: Undone = undo.take_back(run.catalog[name], action, chains)
    count = {"delete": "deleted", "update": "updated", "insert": "inserted"}[action]
    setattr(report, count, getattr(report, count) + len(made.done))
    differing[name] += len(made.differing)
    why = dict.fromkeys(made.moved, MOVED)
    why |= {label: str(reason) for label, reason in made.kept.items()}
    why |= {label: refused.text for label, refused in made.refused.items()}
    open_.left.update(why)
    for label in made.done:
        open_.left.pop(label, None)
    settled = made.done | made.moved
    open_.chains = [c for c in open_.chains if c.label not in settled]
    log.info("undo, %s, %s: %d of %d rows", name, action, len(made.done), len(chains))
    return bool(made.done)


def undone_run(plan_: Plan, collections: Sequence[CollectionResult]) -> UndoneRun | None:
    """An undo for the report: the run, how many rows, and those left, by reason. None: nothing was done."""
    if plan_.params.undo is None or not collections:
        return None
    left: Counter[str] = Counter()
    keys: dict[str, str] = {}
    parts = cast("Sequence[UndoResult]", collections)  # repair_all's result for an undo
    for part in parts:
        left.update(part["undone"]["left"])
        keys |= {f"{part['collection']}:{label}": why for label, why in part["undone"]["keys"].items()}
    return {
        "run_id": plan_.params.undo,
        "deleted": sum(part["deleted"] for part in parts),
        "updated": sum(part["updated"] for part in parts),
        "inserted": sum(part["inserted"] for part in parts),
        "differing": sum(part["undone"]["differing"] for part in parts),
        "left": dict(left),
        "keys": dict(list(keys.items())[:MOST_LEFT]),
    }
