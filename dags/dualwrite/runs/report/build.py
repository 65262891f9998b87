"""A reconciliation's report, made of its tasks' results and of the differences open in the target now.

Every open difference counts, whichever run saw it first: last week's fails today's run too, until it is repaired or excused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dualwrite import migrations
from dualwrite.engine import preflight
from dualwrite.model import cost, links, repairs, report
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.problems import ProblemKind
from dualwrite.model.report import CollectionReport, merged
from dualwrite.model.run_report import (
    VERSION,
    CollectionResult,
    FirstLook,
    Gate,
    Links,
    OpenGroup,
    OpenLine,
    ReconciledCollection,
    RunFacts,
    RunReport,
    Scope,
    SecondLook,
)
from dualwrite.model.verdicts import DRIFT, Reason
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import differences, excuses, interventions, journal, run_log, watermarks
from dualwrite.runs import undo
from dualwrite.runs.parity import parity
from dualwrite.runs.ready import CLEAN_DAYS, checklist, clean_streak
from dualwrite.runs.reconcile_plan import DAG_ID, Plan
from dualwrite.runs.repair import steps
from dualwrite.runs.report import alerts, text

EXCUSES = 20
"""How many excused differences a report lists; the counts beside them are exact."""
COLUMNS = 20
"""How many differing columns of a collection a report counts."""
INTERVENTIONS = 20
"""How many interventions a report lists."""
NO_GATE = "Whether dual-write is alive is unknown: the task look_again failed or did not run; see its log."
NOT_RUN = "it failed or did not run; see the task's log"
LOST = (
    "the target lost what this run had committed there: it failed over to a server that lagged, or was restored. The next run "
    "looks again from the target's present watermark; scope sweep also finds edits and deletes that no window shows"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The results of a run's tasks; empty or None for one that failed or never ran. `errors`: the errors that ended them,
    by task id (`look_again`), by task and collection (`compare.posts`), or by step of the repair (`write.posts`)."""

    compared: Mapping[str, FirstLook]
    looked: Mapping[str, SecondLook] | None
    gate: Gate | None
    repaired: Sequence[CollectionResult] = field(default=())
    re_examined: Mapping[str, CollectionResult] | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    billed_reads: int = 0
    """The repair's reads for no collection."""


def build_report(connection: Connection, catalog: Catalog, run_id: str, plan: Plan, parts: Parts) -> RunReport:
    """The report of the whole run, with the open differences, the ages of the last complete comparisons, and the last runs
    in short form."""
    facts = _facts(connection, catalog, run_id, plan, parts)
    derived = [c.name for c in catalog if not c.has_one_row]
    raised = alerts.alerts(facts, catalog, plan)
    whole: RunReport = {
        **facts,
        "rules": repairs.rules(),
        "ready": checklist(facts, catalog.names, derived),
        "verdict": text.summary(facts),
        "alerts": raised,
        "press": alerts.together(raised),
        "parity": parity(facts, catalog.names, fails=bool(raised)),
        "listed": None,
        "samples_shown": report.SAMPLES,
    }
    return fit(whole)


def fit(whole: RunReport) -> RunReport:
    """The report with as many samples as fit; if it is too large without any, with fewer of the last runs."""
    whole = report.fit(whole)
    while report.size(whole) > report.LIMIT and whole["history"]:
        whole["history"] = whole["history"][: len(whole["history"]) // 2]
    return whole


def _facts(connection: Connection, catalog: Catalog, run_id: str, plan: Plan, parts: Parts) -> RunFacts:
    gate = parts.gate or _no_gate(parts.errors.get("look_again"))
    planned = gate["planned"]
    done = {(part["collection"], part["phase"]) for part in parts.repaired}
    due = [(name, step) for name in planned for step in steps(planned[name])]
    if gate["problem"] or plan.params.undo:
        due = []
    looked = [name for name in plan.windows if name in parts.compared]
    interventions.settle(connection, DAG_ID, run_id)
    lost = watermarks.lost(connection, looked, plan.now, run_id)
    collections = [_collection(name, plan, parts, is_lost=name in lost) for name in _examined(plan, parts)]
    is_open = [_group(line, plan, catalog) for line in differences.open_counts(connection)]
    covered = preflight.coverage(connection, [catalog[n] for n in plan.params.collections])
    return {
        "version": VERSION,
        "dag_id": DAG_ID,
        "run_id": run_id,
        "at": plan.now.isoformat(),
        "repair": plan.params.repair,
        "compares": plan.params.compares,
        "named": gate["named"],
        "undo": plan.params.undo,
        "undone": undo.undone_run(plan, parts.repaired),
        "undo_failed": None if parts.repaired or gate["problem"] else parts.errors.get("repair") or NOT_RUN,
        "undo_left_out": gate["left_out"],
        "dual_write_enabled": plan.dual_write_enabled,
        "windows": {n: None if w is None else w.as_json() for n, w in plan.windows.items()},
        "problem": gate["problem"],
        "problem_kind": gate["problem_kind"],
        "gate": "not_examined" if parts.gate is None else "examined",
        "operations": gate["operations"],
        "operations_declared": any(c.operations for c in catalog),
        "planned": planned,
        "not_repaired": {
            f"{step}.{name}": parts.errors.get(f"{step}.{name}") or parts.errors.get("repair") or NOT_RUN
            for name, step in due
            if (name, step) not in done
        },
        "repaired_lately": [r.as_json() for r in journal.repaired_lately(connection, DAG_ID, run_id)],
        "billed_reads": _billed(collections, gate, plan, parts),
        "collections": collections,
        "open": is_open,
        "open_columns": differences.open_columns(connection, COLUMNS),
        "ages": watermarks.ages(connection),
        "declared": list(catalog.names),
        "parents_not_compared": [name for name in catalog.with_parents(plan.windows) if name not in plan.windows],
        "history": run_log.history(connection, DAG_ID),
        "excuses": excuses.latest(connection, EXCUSES),
        "interventions": interventions.latest(connection, INTERVENTIONS),
        "days": run_log.days(connection, DAG_ID, CLEAN_DAYS),
        "price": cost.DOLLARS_PER_100_000_READS,
        "clean_days": clean_streak(run_log.clean_days(connection, DAG_ID), plan.now.date()),
        "migrations": migrations.standing(connection),
        "coverage": {name: columns.as_json() for name, columns in covered.items()},
        "references": _references(connection, catalog, is_open),
        "links": _links(connection, catalog, plan, is_open),
    }


def _no_gate(why: str | None) -> Gate:
    return {
        "problem": f"{NO_GATE} {why}" if why else NO_GATE,
        "problem_kind": str(ProblemKind.NOT_EXAMINED),
        "problem_code": "not-examined",
        "planned": {},
        "operations": None,
        "named": None,
        "undo": None,
        "left_out": [],
        "billed_reads": 0,
    }


def _billed(collections: Sequence[ReconciledCollection], gate: Gate, plan: Plan, parts: Parts) -> int:
    """All billed reads of the run: for its collections, for parents that only the repair touched, and for no collection."""
    others = [part for name, part in (parts.re_examined or {}).items() if name not in plan.params.collections]
    own = sum(c["billed_reads"] for c in collections) + sum(part["billed_reads"] for part in others)
    return own + gate["billed_reads"] + plan.billed_reads + parts.billed_reads


def _examined(plan: Plan, parts: Parts) -> list[str]:
    """The collections that the report has a line for: the selected ones; in a run that compares nothing, those of named
    keys and of rows that go with them, and those that an undo wrote to."""
    also = {name for name, look in (parts.looked or {}).items() if look["examined"] and not plan.params.compares}
    also |= {part["collection"] for part in parts.repaired} if plan.params.undo else set()
    return [name for name in plan.params.collections if name in plan.names or name in also]


def _collection(name: str, plan: Plan, parts: Parts, *, is_lost: bool) -> ReconciledCollection:
    """Both looks at one collection added up, with the rows written there. `is_lost`: the target has lost the first look."""
    compared = parts.compared.get(name)
    looked = (parts.looked or {}).get(name)
    if not plan.params.compares:
        return _named_in(name, plan, parts)
    if compared is None:
        why = parts.errors.get(f"compare.{name}") or parts.errors.get("compare") or NOT_RUN
        return _reconciled(CollectionReport(name, "compare", not_examined=why), None, None)
    whole = merged([CollectionReport.from_json(look) for look in (compared, looked) if look])
    if looked is None and compared["pending"]:
        why = parts.errors.get(f"look_again.{name}") or parts.errors.get("look_again") or NOT_RUN
        whole.not_examined = f"its second look: {why}"
    if is_lost:  # nothing is open there, but only because the differences were lost too
        whole.not_examined = LOST
    _add_repair(whole, parts)
    return _reconciled(whole, compared, looked)


def _named_in(name: str, plan: Plan, parts: Parts) -> ReconciledCollection:
    """The look at one collection's named keys, with the rows written there."""
    looked = (parts.looked or {}).get(name)
    whole = CollectionReport(name, "second_look")
    if looked is not None:
        whole = CollectionReport.from_json(looked)
    elif name in plan.names:  # an undo looks at nothing
        whole.not_examined = parts.errors.get(f"look_again.{name}") or parts.errors.get("look_again") or NOT_RUN
    _add_repair(whole, parts)
    return _reconciled(whole, None, None, scope="none")


def _add_repair(whole: CollectionReport, parts: Parts) -> None:
    """Adds the rows written in a collection, and the reads of the look after that."""
    name = whole.collection
    for written in parts.repaired:
        if written["collection"] == name:
            whole.add_work(CollectionReport.from_json(written))
    if parts.re_examined and name in parts.re_examined:
        whole.billed_reads += parts.re_examined[name]["billed_reads"]


def _reconciled(
    whole: CollectionReport, compared: FirstLook | None, looked: SecondLook | None, *, scope: Scope = "recent"
) -> ReconciledCollection:
    return {
        **whole.as_json(),
        "scope": compared["scope"] if compared else scope,
        "tripwire": compared["tripwire"] if compared else None,
        "sweep_failed": compared["sweep_failed"] if compared else None,
        "not_looked_at": looked["not_looked_at"] if looked else 0,
        "undecided": looked["undecided"] if looked else 0,
    }


def _group(line: OpenLine, plan: Plan, catalog: Catalog) -> OpenGroup:
    """An open group, with whether it fails the run: while dual-write is off, missing, stale and extra rows don't."""
    explained = (
        not plan.dual_write_enabled and line["verdict"] in repairs.ACTIONS and line["collection"] in catalog.names
    )
    return {**line, "fails": line["verdict"] in DRIFT and not line["excused"] and not explained}


def _links(connection: Connection, catalog: Catalog, plan: Plan, is_open: Iterable[OpenGroup]) -> Links:
    """The installation's templates of links, and the tables of collections with open differences, to fill in."""
    named = {line["collection"] for line in is_open} if plan.links else set()
    linked = [c for c in catalog if c.name in named]
    oids = preflight.table_oids(connection, linked)
    return {
        "templates": dict(plan.links),
        "project": plan.project,
        "database": plan.database,
        "tables": {
            c.name: {
                "schema": c.place[0],
                "table": c.place[1],
                "oid": oids.get(c.name),
                "key_column": links.key_column(c),
            }
            for c in linked
        },
    }


def _references(connection: Connection, catalog: Catalog, is_open: Iterable[OpenGroup]) -> dict[str, dict[str, str]]:
    """By reason and collection: a sentence with the tables whose rows keep open extra rows from being deleted, and the
    remedy."""
    waiting = {(line["reason"], line["collection"]) for line in is_open if not line["excused"]}

    def among(reason: Reason) -> list[Collection]:
        return [c for c in catalog if (reason, c.name) in waiting]

    return {
        Reason.STILL_REFERENCED: preflight.referencing_tables(connection, among(Reason.STILL_REFERENCED)),
        Reason.REFERENCES_UNSEEN: preflight.unseen_references(connection, among(Reason.REFERENCES_UNSEEN)),
    }
