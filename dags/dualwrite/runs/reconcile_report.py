"""What a reconciliation's last task says: the report, and the sentences that a failed run ends with.

Everything open counts, wherever and whenever it was found: a difference of last week fails today's run too, until it is
repaired or a person accepts it.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from dualwrite import migrations, settings
from dualwrite.engine import preflight
from dualwrite.engine.second_look import PATIENCE
from dualwrite.model import cost, coverage, report
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.problems import ProblemKind
from dualwrite.model.render import Block, Heading, Paragraph, Table, moment
from dualwrite.model.report import Alert, CollectionReport, merged
from dualwrite.model.verdicts import DRIFT, Reason, Why
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import differences, excuses, interventions, journal, run_log, watermarks
from dualwrite.runs import undo
from dualwrite.runs.parity import parity
from dualwrite.runs.ready import CLEAN_DAYS, checklist, clean_streak
from dualwrite.runs.reconcile_plan import DAG_ID, Plan
from dualwrite.runs.repair import steps

_DONE = {"examined": "complete comparison", "swept": "sweep"}
EXCUSES = 20
"""How many excused differences a report lists; the counts beside them are exact."""
INTERVENTIONS = 20
"""How many interventions a report lists."""
NO_GATE = "Whether dual-write is alive is unknown: the task look_again failed or did not run; see its log."
NOT_RUN = "it failed or did not run; see the task's log"
LOST = (
    "the target lost what this run had committed there: it failed over to a server that lagged, or was restored. The next run "
    "looks again from where the target's watermark is now; scope sweep also finds edits and deletes that no window shows"
)
NO_WRITE_OPS = "write_ops is missing or may not be read: why a row differs is unknown."
NO_OPERATIONS = (
    "The catalog declares no operations, so write_ops isn't read. What that leaves unseen: why a row differs; whether dual-write is "
    "alive (no collection is known to be dual-written, so silence stops no repair); and until the next sweep, edits that "
    "move no check field and deletes of old documents that the counts don't show."
)
_REPAIRS = {"missing": "missing", "stale": "missing_and_stale", "extra": "all"}
_BLOCKED: dict[str, str] = {
    Reason.UNIQUE_KEY_HELD_BY_EXTRA_ROW: f"trigger {DAG_ID} with repair = all: a row whose document is gone holds the unique key, and must go first",
    Reason.UNIQUE_KEY_HELD_BY_STALE_ROW: f"trigger {DAG_ID} with repair = missing_and_stale: the row that holds the unique "
    "key must be updated first",
    Reason.ABSENCE_NOT_PROVED: "look at the rows by hand, or excuse them: proving that no document has their keys would read "
    "more names than max_proof_reads, so no repair deletes them; or scheduled runs have read max_proof_reads_a_day, then a "
    "run that you trigger proves it. See who makes such rows",
    Reason.PARENT_EXCUSED: "a person accepted that the row which it needs is missing: take that excuse back (unexcuse), or "
    "excuse this one too",
    Reason.PARENT_REJECTED: "correct the document that it needs: that one can't become a row",
    Reason.PATH_UNKNOWN: "look at the row by hand: nothing tells which document it belongs to, so no repair deletes it",
    Reason.CANT_BE_ASKED: "look at the row by hand: a part of its document's path is no id that Firestore can be asked for, so "
    "no repair deletes it",
    Reason.STILL_REFERENCED: "remove the rows that reference it first, or select their collection too, or excuse it",
    Reason.REFERENCES_UNSEEN: "let the role see the tables that reference it, because a delete would change rows that it can't "
    "see, or excuse it",
    Reason.DELETE_REFUSED: "see which trigger or policy of the table keeps the row, because Postgres didn't delete it, or excuse it",
    Reason.CHANGED_BY_TABLE: "a trigger of the table makes something else of what is written there: declare the columns insert_only "
    f"in {settings.catalog_file()} if that is meant, or correct the trigger, or excuse it",
}
"""What to do where the repair that the verdict suggests can't help, by the difference's reason."""
_HELPS: dict[str, str] = {
    Reason.UNIQUE_KEY_HELD_BY_EXTRA_ROW: "all",
    Reason.UNIQUE_KEY_HELD_BY_STALE_ROW: "missing_and_stale",
}
"""The repair that helps, by the difference's reason."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the stages of a run returned; one that failed or never ran gives nothing. `errors` says what ended it, by task id
    (`look_again`), by stage and collection (`compare.posts`), or by step of the repair (`write.posts`)."""

    compared: Mapping[str, dict[str, Any] | None]
    looked: Mapping[str, dict[str, Any]] | None
    gate: Mapping[str, Any] | None
    repaired: Sequence[dict[str, Any]] = field(default=())
    re_examined: Mapping[str, dict[str, Any]] | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    billed_reads: int = 0
    """Of the repair, for no collection."""


def build_report(
    connection: Connection, catalog: Catalog, run_id: str, plan: Plan, parts: Parts, *, link: str = ""
) -> dict[str, Any]:
    """The whole run, with what is open now, the age of the last complete looks, and the last runs in short form."""
    why = parts.errors.get("look_again")
    gate = parts.gate or {
        "problem": f"{NO_GATE} {why}" if why else NO_GATE,
        "problem_kind": str(ProblemKind.NOT_EXAMINED),
    }
    planned = gate.get("planned") or {}
    done = {(part["collection"], part["phase"]) for part in parts.repaired}
    due = (
        []
        if gate["problem"] or plan.params.undo
        else [(name, step) for name in planned for step in steps(planned[name])]
    )
    looked = [name for name in plan.windows if parts.compared.get(name) is not None]
    interventions.settle(connection, DAG_ID, run_id)
    lost = watermarks.lost(connection, looked, plan.now, run_id)
    collections = [_collection(name, plan, parts, is_lost=name in lost) for name in _examined(plan, parts)]
    whole_report = {
        "version": report.VERSION,
        "dag_id": DAG_ID,
        "run_id": run_id,
        "at": plan.now.isoformat(),
        "repair": plan.params.repair,
        "compares": plan.params.compares,
        "named": gate.get("named"),
        "undone": undo.told(plan, parts.repaired),
        "undo": plan.params.undo,
        "undo_failed": None if parts.repaired or gate["problem"] else parts.errors.get("repair") or NOT_RUN,
        "undo_left_out": gate.get("left_out") or [],
        "dual_write_enabled": plan.dual_write_enabled,
        "windows": plan.as_json()["windows"],
        "problem": gate["problem"],
        "problem_kind": gate["problem_kind"],
        "gate": "not_examined" if parts.gate is None else "examined",
        "operations": gate.get("operations"),
        "operations_declared": any(c.operations for c in catalog),
        "planned": planned,
        "not_repaired": {
            f"{step}.{name}": parts.errors.get(f"{step}.{name}") or parts.errors.get("repair") or NOT_RUN
            for name, step in due
            if (name, step) not in done
        },
        "repaired_lately": [dataclasses.asdict(r) for r in journal.repaired_lately(connection, DAG_ID, run_id)],
        "billed_reads": _billed(collections, gate, plan, parts),
        "collections": collections,
        "open": differences.open_counts(connection),
        "ages": watermarks.ages(connection),
        "declared": list(catalog.names),
        "history": run_log.history(connection, DAG_ID),
        "excuses": excuses.latest(connection, EXCUSES),
        "interventions": interventions.latest(connection, INTERVENTIONS),
        "days": run_log.days(connection, DAG_ID, CLEAN_DAYS),
        "price": cost.DOLLARS_PER_100_000_READS,
        "clean_days": clean_streak(run_log.clean_days(connection, DAG_ID), plan.now.date()),
        "migrations": migrations.standing(connection),
        "coverage": {
            name: found.as_json()
            for name, found in preflight.coverage(connection, [catalog[n] for n in plan.params.collections]).items()
        },
    }
    whole_report["references"] = _references(connection, catalog, whole_report["open"])
    derived = [c.name for c in catalog if c.entries is not None]
    whole_report["ready"] = checklist(whole_report, catalog.names, derived)
    whole_report["verdict"] = verdict(whole_report)
    whole_report["alerts"] = [a.text for a in alerts(whole_report, catalog, plan, link)]
    whole_report["parity"] = parity(whole_report, catalog.names)
    return report.fit(whole_report)


def _billed(collections: Sequence[Mapping[str, Any]], gate: Mapping[str, Any], plan: Plan, parts: Parts) -> int:
    """All reads of the run: of its collections, of parents that only the repair touched, and of no collection."""
    others = [part for name, part in (parts.re_examined or {}).items() if name not in plan.params.collections]
    own = sum(c["billed_reads"] for c in [*collections, *others])
    return int(own + gate.get("billed_reads", 0) + plan.billed_reads + parts.billed_reads)


def _examined(plan: Plan, parts: Parts) -> list[str]:
    """The collections that the report has a line for: where keys are named, theirs, and those of rows that go with them."""
    also = {name for name, look in (parts.looked or {}).items() if look["examined"] and not plan.params.compares}
    also |= {part["collection"] for part in parts.repaired} if plan.params.undo else set()
    return [name for name in plan.params.collections if name in plan.names or name in also]


def _collection(name: str, plan: Plan, parts: Parts, *, is_lost: bool) -> dict[str, Any]:
    """The looks at one collection as one, with what was written there. `is_lost`: the target has forgotten the first look."""
    compared = parts.compared.get(name)
    looked = (parts.looked or {}).get(name)
    if not plan.params.compares:
        return _named_in(name, plan, parts)
    if compared is None:
        why = parts.errors.get(f"compare.{name}") or parts.errors.get("compare") or NOT_RUN
        missing = CollectionReport(name, "compare", not_examined=why).as_json()
        return {**missing, "scope": "recent", "not_looked_at": 0, "undecided": 0, "sweep_failed": None}
    whole = merged([CollectionReport.from_json(look) for look in (compared, looked) if look])
    if looked is None and compared.get("pending"):
        why = parts.errors.get(f"look_again.{name}") or parts.errors.get("look_again") or NOT_RUN
        whole.not_examined = f"its second look: {why}"
    if is_lost:  # nothing is open there, but only because nobody knows of it any more
        whole.not_examined = LOST
    for written in parts.repaired:
        if written["collection"] == name:
            whole.add_work(CollectionReport.from_json(written))
    if parts.re_examined and name in parts.re_examined:
        whole.billed_reads += parts.re_examined[name]["billed_reads"]
    return {
        **compared,
        **whole.as_json(),
        "sweep_failed": compared.get("sweep_failed"),
        **{n: (looked or {}).get(n, 0) for n in ("not_looked_at", "undecided")},
    }


def _named_in(name: str, plan: Plan, parts: Parts) -> dict[str, Any]:
    """The look at what was named in one collection, with what was written there."""
    looked = (parts.looked or {}).get(name)
    if looked is None and name not in plan.names:  # an undo looks at nothing
        looked = CollectionReport(name, "second_look").as_json()
    if looked is None:
        why = parts.errors.get(f"look_again.{name}") or parts.errors.get("look_again") or NOT_RUN
        looked = CollectionReport(name, "second_look", not_examined=why).as_json()
    whole = CollectionReport.from_json(looked)
    for written in parts.repaired:
        if written["collection"] == name:
            whole.add_work(CollectionReport.from_json(written))
    if parts.re_examined and name in parts.re_examined:
        whole.billed_reads += parts.re_examined[name]["billed_reads"]
    return {**whole.as_json(), "scope": "none", "sweep_failed": None, "not_looked_at": 0, "undecided": 0}


def _references(
    connection: Connection, catalog: Catalog, is_open: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """By reason and collection, the tables whose rows keep open extra rows from being deleted, and what to do about them."""
    waiting = {(line["reason"], line["collection"]) for line in is_open if not line["excused"]}

    def among(reason: Reason) -> list[Collection]:
        return [c for c in catalog if (reason, c.name) in waiting]

    return {
        Reason.STILL_REFERENCED: preflight.referencing_tables(connection, among(Reason.STILL_REFERENCED)),
        Reason.REFERENCES_UNSEEN: preflight.unseen_references(connection, among(Reason.REFERENCES_UNSEEN)),
    }


# --- alerts -------------------------------------------------------------------------------------------------------------


def alerts(whole: Mapping[str, Any], catalog: Catalog, plan: Plan, link: str) -> list[Alert]:
    """Why the run fails; empty where it succeeds."""
    found = []
    if problem := whole["problem"]:
        found.append(Alert(problem, kind=str(whole["problem_kind"])))
    for collection in whole["collections"]:
        name = collection["collection"]
        if collection["not_examined"]:
            found.append(Alert(f"{name} was not examined: {collection['not_examined']}", name, "not_examined"))
        if collection["sweep_failed"]:
            text = f"{name} was not swept; only recent writes were compared: {collection['sweep_failed']}"
            found.append(Alert(text, name, "not_swept"))
        if collection["undecided"]:
            number = collection["undecided"]
            text = (
                f"{name}: {number:,} {'difference still needs its' if number == 1 else 'differences still need their'} second "
                f"look, because more than max_open_looks = {plan.params.max_open_looks:,} are open; later runs take "
                f"{'it' if number == 1 else 'them'}"
            )
            found.append(Alert(text, name, "not_examined"))
        if collection["operations_left"]:
            text = (
                f"{name}: {collection['operations_left']:,} keys that only write_ops names were not looked at, because a run "
                f"looks at max_operation_looks = {plan.params.max_operation_looks:,}; the next sweep compares them. See "
                f"who writes so many operations, or raise it"
            )
            found.append(Alert(text, name, "operations_left"))
    for step, why in whole["not_repaired"].items():
        name = step.partition(".")[2]
        found.append(Alert(f"{name} was only partly repaired: step {step}: {why}", name, "not_repaired"))
    found += [
        Alert(
            f"run {run} was cut off without a report, by its timeout of two hours or by hand, and no other run could start before "
            "that; what it had examined is kept. See which of its tasks waited, and for what",
            kind="timed_out",
        )
        for run in plan.hung
    ]
    for key, needed in ((whole["named"] or {}).get("needs") or {}).items():
        text = (
            f"{key} was not repaired: it needs {report.few(needed)}, which keys doesn't name. Name {'it' if len(needed) == 1 else 'them'} too: "
            "nothing is written that isn't named"
        )
        found.append(Alert(text, key.partition(":")[0], "not_repaired"))
    found += _not_undone(whole)
    found += _undecided(whole, plan)
    found += _drift(whole, catalog, link)
    return [*found, *_quiet_repairs(whole, plan), *_blind(whole, catalog, plan)]


def _not_undone(whole: Mapping[str, Any]) -> list[Alert]:
    """What an undo couldn't take back; what somebody has written since is left on purpose."""
    undone, found = whole["undone"], []
    if whole["undo"] is None:
        return []
    if undone is None:
        failed = whole["undo_failed"]
        return [Alert(f"The run {whole['undo']} was not undone: {failed}", kind="not_undone")] if failed else []
    left = {
        why: number for why, number in undone["left"].items() if why not in (undo.DONE_BEFORE, undo.MOVED, undo.BROKEN)
    }
    if left:
        listed = ", ".join(f"{number:,} {why}" for why, number in left.items())
        keys = [key for key, why in undone["keys"].items() if why in left]
        found.append(
            Alert(
                f"The undo of {undone['run_id']} left rows as they are: {listed}: {report.few(keys)}", kind="not_undone"
            )
        )
    if names := whole["undo_left_out"]:
        text = f"The run {undone['run_id']} also wrote {', '.join(names)}, which this undo leaves out: select them too, if the catalog declares them"
        found.append(Alert(text, kind="not_undone"))
    return found


def _undecided(whole: Mapping[str, Any], plan: Plan) -> list[Alert]:
    """Nothing stays without a verdict for longer than patience lasts."""
    found = []
    for line in whole["open"]:
        waits = plan.now - datetime.fromisoformat(line["since"])
        if (
            line["reason"] == Reason.KEPT_CHANGING
            and line["verdict"] not in DRIFT
            and waits > PATIENCE
            and not line["excused"]
        ):
            text = (
                f"{line['collection']}: {line['number']:,} keys have kept changing while they were looked at, since "
                f"{line['since'][:16]}, so they have no verdict: find the client that writes them all the time"
            )
            found.append(Alert(text, line["collection"], "kept_changing"))
    return found


def _drift(whole: Mapping[str, Any], catalog: Catalog, link: str) -> list[Alert]:
    """What is open, one alert for each collection and verdict. While dual-write is off, only what it can't explain."""
    found = []
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in whole["open"]:
        expected = (
            not whole["dual_write_enabled"] and line["verdict"] in _REPAIRS and line["collection"] in catalog.names
        )
        if line["verdict"] in DRIFT and not line["excused"] and not expected:
            groups.setdefault((line["collection"], line["verdict"]), []).append(line)
    for (name, verdict), lines in groups.items():
        number = sum(line["number"] for line in lines)
        since = min(line["since"] for line in lines)
        causes: Counter[str] = Counter()
        reasons: Counter[str | None] = Counter()
        for line in lines:
            causes[line["cause"]] += line["number"]
            reasons[line["reason"] if line["reason"] in _BLOCKED else None] += line["number"]
        why = (
            ", ".join(f"{n:,} {cause}" for cause, n in causes.most_common())
            if verdict != "rejected"
            else "see the report"
        )
        text = f"{name}: {number:,} {verdict} since {moment(since)} ({why}); {_remedy(name, verdict, reasons, catalog, link)}"
        tables = [whole["references"].get(reason, {}).get(name) for reason in reasons]
        text += "".join(f". {told}" for told in tables if told)
        if not whole["dual_write_enabled"]:
            text += "; Variable dual_write_enabled is false, so nothing is repaired until it is true again"
        found.append(Alert(text, name, verdict, causes.most_common(1)[0][0]))
    return found


def _remedy(name: str, verdict: str, reasons: Counter[str | None], catalog: Catalog, link: str) -> str:
    page = f" at {link}" if link else ""
    if name not in catalog.names:
        return f"the catalog no longer has collection {name}: restore it, or trigger with excuse = {name}:*{page}"
    if verdict not in _REPAIRS:
        return f"correct the documents, or trigger {DAG_ID} with excuse = {name}:<key>{page}"
    parts = []
    if reasons[None]:
        parts.append(f"trigger {DAG_ID} with repair = {_REPAIRS[verdict]}{_form(link, _REPAIRS[verdict], name)}")
    parts += [
        f"{number:,} {'of them ' if len(reasons) > 1 else ''}({reason}): {_BLOCKED[reason]}{_form(link, _HELPS.get(reason), name)}"
        for reason, number in reasons.items()
        if reason
    ]
    return "; ".join(parts)


def _form(link: str, repair: str | None, name: str) -> str:
    """Where the form of a repair opens with its values; the page where no repair helps. A row that is deleted may have
    dependents in other collections: then all are repaired."""
    conf = {"repair": repair} if repair == "all" else {"repair": repair, "collections": [name]}
    values = f"?conf={quote(json.dumps(conf, separators=(',', ':')))}" if repair else ""
    return f" at {link}{values}" if link else ""


_REPAIRED = {
    Why.NEVER_ATTEMPTED: (
        "that write_ops shows no attempt for",
        "the client that doesn't dual-write (flag off, old version)",
    ),
    Why.ATTEMPTED_FAILED: (
        "whose operation had failed",
        "the error that the clients' writes end with (a constraint, a right)",
    ),
    Why.DUAL_WRITE_OFF: ("that were missed while dual-write was switched off", "out whether that is all of them"),
    Why.UNKNOWN: ("for reasons that no operation tells", "what writes these documents without their rows"),
}
"""Which rows scheduled runs repaired, and what to find."""


def _quiet_repairs(whole: Mapping[str, Any], plan: Plan) -> list[Alert]:
    """What scheduled runs repair quietly must not hide that writes keep failing, whatever the cause: each has its limit a day,
    and parents that were inserted along with what needed them count too."""
    found = []
    for cause, (which, find) in _REPAIRED.items():
        lately = [r for r in whole["repaired_lately"] if r["cause"] == cause]
        number = sum(r["unattended"] for r in lately)
        now = sum(r["by_this_run"] for r in lately)
        limit = "max_unattempted_repairs" if cause is Why.NEVER_ATTEMPTED else "max_repairs_a_day"
        most = getattr(plan.params, limit)
        if not plan.unattended or not now or number <= most:
            continue
        listed = ", ".join(f"{r['collection']} {r['unattended']:,}" for r in lately if r["unattended"])
        text = (
            f"This run repaired {now:,} rows {which}; scheduled runs repaired {number:,} such rows in 24 hours ({listed}), more "
            f"than {limit} = {most:,}. The rows are correct now; find {find}"
        )
        found.append(
            Alert(text, kind=f"{cause}_repairs" if cause is not Why.NEVER_ATTEMPTED else "unattempted_repairs")
        )
    return found


def _blind(whole: Mapping[str, Any], catalog: Catalog, plan: Plan) -> list[Alert]:
    """What this and later runs can't see: an unreadable write_ops, collections that nobody looks at."""
    found = []
    operations = whole["operations"]
    declared = any(c.operations for c in catalog)  # else there is nothing in write_ops to be read
    if declared and plan.params.write_ops_required and operations is not None and operations["total"] is None:
        text = (
            "write_ops is missing or not fully readable, so nothing shows why a row differs, or which keys clients tried to write: "
            "GRANT SELECT ON write_ops to the role and let it bypass row-level security, or set write_ops_required = false"
        )
        found.append(Alert(text, kind="write_ops_unreadable"))
    limits = {"examined": plan.params.max_examined_age_hours, "swept": plan.params.max_swept_age_hours}
    if limits["swept"]:
        limits["swept"] = max(limits["swept"], 2 * plan.params.sweep_every_hours)
    # A person who selects a few knows that; what nobody selects any more, scheduled runs tell.
    names = catalog.names if plan.unattended else tuple(plan.windows)
    for what, most in limits.items():
        ages = {name: whole["ages"].get(name, {}).get(f"{what}_hours") for name in names}
        old = {name: age for name, age in ages.items() if most and (age is None or age > most)}
        if old:
            listed = ", ".join(
                f"{name} ({'never' if age is None else f'{age:,.0f} h ago'})" for name, age in old.items()
            )
            text = (
                f"No {_DONE[what]} in the last {most:g} hours (max_{what}_age_hours): {listed}. Select these collections "
                "again (Variable reconcile_collections), or see why their comparison fails"
            )
            found.append(Alert(text, kind=f"not_{what}_lately"))
    return found


# --- as a person reads it -----------------------------------------------------------------------------------------------


def _tripped(name: str, tripped: Mapping[str, Any]) -> str:
    """What the counts of a collection led to."""
    if tripped.get("failed"):
        return f"{name}: the tripwire failed, so between two sweeps nothing sees old losses: {tripped['failed']}"
    slices = tripped["slices"]
    text = f"{name}: counts moved by {tripped['deviation']:+,} since the last complete comparison"
    if slices:
        text += f"; {slices:,} slice{'s' if slices != 1 else ''} of time examined"
    return f"{text}; a sweep is due in the next run." if tripped["calls_sweep"] else f"{text}."


def _ages(ages: Mapping[str, Mapping[str, Any]]) -> str:
    """The oldest complete look and the oldest sweep: all others are younger."""
    name, age = min(ages.items(), key=lambda item: str(item[1]["examined_until"]))
    never = sorted(n for n, a in ages.items() if a["swept_at"] is None)
    swept = min((str(a["swept_at"]), n) for n, a in ages.items()) if not never else None
    last = f"oldest sweep: {moment(swept[0])} ({swept[1]})" if swept else f"never swept: {', '.join(never)}"
    return f"Oldest complete comparison: {moment(str(age['examined_until']))} ({name}); {last}."


def verdict(whole: Mapping[str, Any]) -> str:
    """The run in one sentence."""
    lost = [c["collection"] for c in whole["collections"] if c["not_examined"]]
    counts: Counter[str] = Counter()
    excused = 0
    for line in whole["open"]:
        if line["excused"]:
            excused += line["number"]
        elif line["verdict"] in DRIFT:
            counts[line["verdict"]] += line["number"]
    examined = sum(c["examined"] for c in whole["collections"])
    if whole["undone"] and not whole["problem"]:
        return _undone(whole["undone"])
    also = f" {excused:,} excused." if excused else ""
    if counts:
        are = "difference is" if sum(counts.values()) == 1 else "differences are"
        return f"{sum(counts.values()):,} {are} open: {report.listed(counts)}.{also}"
    if lost:
        return f"Not proved: {', '.join(lost)} could not be examined.{also}"
    if whole["problem"]:
        return f"Nothing differs, but: {whole['problem']}"
    if not whole["compares"]:
        return f"No difference is open. This run compared nothing, but for {examined:,} named keys.{also}"
    return f"No difference is open: {examined:,} keys compared in {len(whole['collections'])} collections.{also}"


def _undone(undone: Mapping[str, Any]) -> str:
    """An undo in one sentence or two."""
    made = (
        ", ".join(f"{undone[n]:,} {n}" for n in ("deleted", "updated", "inserted") if undone[n])
        or "nothing to take back"
    )
    moved = undone["left"].get(undo.MOVED, 0) + undone["left"].get(undo.BROKEN, 0)
    also = f" {moved:,} changed since, and left as they are." if moved else ""
    before = undone["left"].get(undo.DONE_BEFORE, 0)
    also += f" {before:,} undone before." if before else ""
    also += (
        f" In {undone['differing']:,} the table itself made something else of a column." if undone["differing"] else ""
    )
    return f"Undone: {made}.{also} What differs from its document again is open: the next run looks at it."


def described(whole: Mapping[str, Any]) -> list[Block]:
    """The report as a person reads it: the verdict, the counts, what is open, samples."""
    blocks: list[Block] = [
        Heading(f"Reconciliation of {moment(whole['at'])}, repair {whole['repair']}"),
        Paragraph(verdict(whole), strong=True),
        report.table(whole["collections"]),
    ]
    if whole["open"]:
        lines = []
        for line in whole["open"]:
            is_open = f"{line['verdict']}, excused" if line["excused"] else line["verdict"]
            found = [line["collection"], is_open, line["reason"] or "", line["cause"], moment(line["since"])]
            lines.append([*found, f"{line['number']:,}"])
        blocks.append(Table(["open", "verdict", "reason", "cause", "since", "number"], lines, left=5))
    if whole["repaired_lately"]:
        lines = [
            [r["collection"], r["cause"], f"{r['number']:,}", f"{r['unattended']:,}"] for r in whole["repaired_lately"]
        ]
        blocks.append(Table(["repaired in the last 24 hours", "cause", "rows", "by scheduled runs"], lines, left=2))
    if left := (whole["named"] or {}).get("not_open"):
        blocks.append(Paragraph(f"Named in keys and not open (any more), or excused: {report.few(left)}."))
    if waiting := {c["collection"]: c["not_looked_at"] for c in whole["collections"] if c["not_looked_at"]}:
        listed = ", ".join(f"{name} {number:,}" for name, number in waiting.items())
        blocks.append(
            Paragraph(f"Open and not looked at again by this run (max_open_looks): {listed}. Later runs do that.")
        )
    swept = [c["collection"] for c in whole["collections"] if c.get("scope") == "sweep"]
    if swept:
        blocks.append(Paragraph(f"Swept (every document and every row): {', '.join(swept)}."))
    blocks += [
        Paragraph(_tripped(c["collection"], c["tripwire"]))
        for c in whole["collections"]
        if c.get("tripwire") and (c["tripwire"]["deviation"] or c["tripwire"].get("failed"))
    ]
    if whole["ages"]:
        blocks.append(Paragraph(_ages(whole["ages"])))
    activity = whole["operations"]
    if activity and activity["total"] is not None:
        blocks.append(
            Paragraph(
                f"write_ops: {activity['total']:,} operations in {activity['minutes']:g} minutes "
                f"({activity['per_minute']:g} a minute; documents {activity['documents_per_minute']:g} a minute): "
                f"{report.listed(activity['by_entity'], activity['by_entity']) or 'none of a known entity'}; "
                f"{activity['malformed']:,} of no known form, {activity['unknown_entities']:,} of unknown entities, "
                f"{activity['in_the_future']:,} in the future. An operation is what a client says, not a proof that it wrote."
            )
        )
    elif activity:
        blocks.append(Paragraph(NO_OPERATIONS if not whole["operations_declared"] else NO_WRITE_OPS))
    if activity:
        blocks.append(
            Paragraph(
                f"Of {activity['documents']:,} documents written in {activity['minutes']:g} minutes, {activity['arrived']:,} rows "
                "arrived by themselves."
            )
        )
    if not whole["dual_write_enabled"]:
        blocks.append(
            Paragraph(
                "Variable dual_write_enabled is false: differences are expected, stay open, and are not repaired."
            )
        )
    found = whole["parity"]
    says = "is updated: nothing differs" if found["equal"] else f"isn't updated: {'; '.join(found['why_not'])}"
    blocks.append(Paragraph(f"Asset dual-write-parity {says}."))
    blocks.append(Paragraph(cost.billed(whole["billed_reads"])))
    covered = whole.get("coverage", {})
    blocks += coverage.described(coverage.Coverage.from_json(name, given) for name, given in covered.items())
    blocks += report.samples(whole["collections"])
    return blocks
