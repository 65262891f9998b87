"""Why a reconciliation fails: one alert for each problem, each with its remedy and, if there is one, its button."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dualwrite import settings
from dualwrite.engine.second_look import PATIENCE
from dualwrite.model import report
from dualwrite.model.alert import alert, press
from dualwrite.model.declaration import Catalog
from dualwrite.model.render import moment
from dualwrite.model.repairs import ACTIONS, REPAIRS, Repair, most, needed
from dualwrite.model.run_report import Alert, OpenGroup, Press, RunFacts
from dualwrite.model.verdicts import DRIFT, Reason, Verdict, Why
from dualwrite.runs import undo
from dualwrite.runs.reconcile_plan import DAG_ID, Plan

_DONE = {"examined": "complete comparison", "swept": "sweep"}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the repair that a verdict needs doesn't end a difference, and the remedy. `also`: the `repair` that it takes
    besides; None if no repair can end it before the next look has found the obstacle gone."""

    text: str
    also: Repair | None = "off"


OBSTACLES: dict[str, Obstacle] = {
    Reason.UNIQUE_KEY_HELD_BY_EXTRA_ROW: Obstacle(
        "a row whose document is gone holds the unique key, and must go first: that takes repair = all", "all"
    ),
    Reason.UNIQUE_KEY_HELD_BY_STALE_ROW: Obstacle(
        "the row that holds the unique key must be updated first: that takes repair = missing_and_stale; or, if each of two rows "
        "waits for the other one, change one by hand",
        "missing_and_stale",
    ),
    Reason.ABSENCE_NOT_PROVED: Obstacle(
        "look at the rows by hand, or excuse them: proving that no document has their keys would read more names than "
        "max_proof_reads, so no repair deletes them; or scheduled runs have read max_proof_reads_a_day, then a run that you "
        "trigger proves it. Find out who makes such rows"
    ),
    Reason.PARENT_EXCUSED: Obstacle(
        "the row that it needs is missing and excused: take that excuse back (unexcuse), or excuse this one too",
        None,
    ),
    Reason.PARENT_REJECTED: Obstacle(
        "correct the document that it needs, which can't become a row",
        None,
    ),
    Reason.PATH_UNKNOWN: Obstacle(
        "look at the row by hand: its document is unknown, so no repair deletes it",
        None,
    ),
    Reason.CANT_BE_ASKED: Obstacle(
        "look at the row by hand: Firestore can't be asked for its document, whose path has a part that is no valid id, so no "
        "repair deletes it",
        None,
    ),
    Reason.LEFT_OUT: Obstacle(
        "their documents are there and don't hold the collection's where: a repair deletes the rows; if they belong there, correct "
        f"where in {settings.catalog_file()}"
    ),
    Reason.STILL_REFERENCED: Obstacle(
        "remove the rows that reference it first, or select their collection too, or excuse it"
    ),
    Reason.REFERENCES_UNSEEN: Obstacle(
        "let the role see the tables that reference it, because a delete would change rows that it can't see, or excuse it",
        None,
    ),
    Reason.NEW_ROW_LACKING: Obstacle(
        "its document belongs at another key by now, and has no row there: see why the table refuses that, or excuse it"
    ),
    Reason.DELETE_REFUSED: Obstacle(
        "find the trigger or policy of the table that kept Postgres from deleting the row, or excuse it"
    ),
    Reason.CHANGED_BY_TABLE: Obstacle(
        "a trigger of the table changes written rows: declare the columns insert_only "
        f"in {settings.catalog_file()} if that is meant, or correct the trigger, or excuse it"
    ),
}
"""By the difference's reason."""


def alerts(facts: RunFacts, catalog: Catalog, plan: Plan) -> list[Alert]:
    """Why the run fails; empty if it succeeds."""
    return [
        *_problem(facts),
        *_not_compared(facts, plan),
        *_not_repaired(facts),
        *_hung(plan),
        *_needs(facts),
        *_not_undone(facts),
        *_undecided(facts, plan),
        *drift(facts),
        *_quiet_repairs(facts, plan),
        *_blind(facts, catalog, plan),
    ]


def together(given: Iterable[Alert]) -> Press | None:
    """One button that repairs all differences of these alerts that a repair can end; None if there are none."""
    # A collection may have several: an extra row beside a stale one.
    wanted = [
        (a["collection"], a["press"]["conf"]["repair"]) for a in given if a["press"] and "repair" in a["press"]["conf"]
    ]
    level = most(repair for _, asked in wanted for repair in REPAIRS if asked == repair)
    return None if level == "off" else _repair(level, [name for name, _ in wanted if name])


def _repair(level: Repair, names: Sequence[str]) -> Press:
    """The button for a repair. A deleted row may have dependents in other collections, so "all" selects every collection."""
    if level == "all":
        return press(DAG_ID, {"repair": level}, "Repair…")
    return press(DAG_ID, {"repair": level, "collections": list(dict.fromkeys(names))}, "Repair…")


def _sweep(names: Sequence[str]) -> Press:
    return press(DAG_ID, {"scope": "sweep", "collections": list(names)}, "Sweep…")


def _problem(facts: RunFacts) -> list[Alert]:
    return [alert(facts["problem"], kind=str(facts["problem_kind"]))] if facts["problem"] else []


def _not_compared(facts: RunFacts, plan: Plan) -> list[Alert]:
    """Parts of the selected collections that this run didn't look at."""
    raised = []
    for collection in facts["collections"]:
        name = collection["collection"]
        if why := collection["not_examined"]:
            raised.append(alert(f"{name} was not examined: {why}", collection=name, kind="not_examined"))
        if why := collection["sweep_failed"]:
            text = f"{name} was not swept; only recent writes were compared: {why}"
            raised.append(alert(text, collection=name, kind="not_swept", press=_sweep([name])))
        if number := collection["undecided"]:
            text = (
                f"{name}: {number:,} {'difference still needs its' if number == 1 else 'differences still need their'} second "
                f"look, because more than max_open_looks = {plan.params.max_open_looks:,} are open; later runs take "
                f"{'it' if number == 1 else 'them'}"
            )
            raised.append(alert(text, collection=name, kind="not_examined"))
        if number := collection["operations_left"]:
            text = (
                f"{name}: {number:,} keys that only write_ops names were not looked at, because a run "
                f"looks at max_operation_looks = {plan.params.max_operation_looks:,}; the next sweep compares them. Find out "
                f"who writes so many operations, or raise it"
            )
            raised.append(alert(text, collection=name, kind="operations_left", press=_sweep([name])))
    return raised


def _not_repaired(facts: RunFacts) -> list[Alert]:
    raised = []
    for step, why in facts["not_repaired"].items():
        name = step.partition(".")[2]
        text = f"{name} was only partly repaired: step {step}: {why}"
        raised.append(alert(text, collection=name, kind="not_repaired"))
    return raised


def _hung(plan: Plan) -> list[Alert]:
    return [
        alert(
            f"run {run} was cut off without a report, by its timeout of two hours or by hand; until then it blocked every other "
            "run. Collections that it had finished are kept. Find the task that hung and what it waited for",
            kind="timed_out",
        )
        for run in plan.hung
    ]


def _needs(facts: RunFacts) -> list[Alert]:
    """Named keys that weren't written, because they need rows that aren't named."""
    raised = []
    for key, rows in (facts["named"]["needs"] if facts["named"] else {}).items():
        text = (
            f"{key} was not repaired: it needs {report.few(rows)}, which keys doesn't name. Name "
            f"{'it' if len(rows) == 1 else 'them'} too: only named keys are written"
        )
        raised.append(alert(text, collection=key.partition(":")[0], kind="not_repaired"))
    return raised


def _not_undone(facts: RunFacts) -> list[Alert]:
    """Rows that an undo couldn't take back, without those that somebody has written since: they are left on purpose."""
    undone, raised = facts["undone"], []
    if facts["undo"] is None:
        return []
    if undone is None:
        failed = facts["undo_failed"]
        return [alert(f"The run {facts['undo']} was not undone: {failed}", kind="not_undone")] if failed else []
    left = {
        why: number for why, number in undone["left"].items() if why not in (undo.DONE_BEFORE, undo.MOVED, undo.BROKEN)
    }
    if left:
        listed = ", ".join(f"{number:,} {why}" for why, number in left.items())
        keys = [key for key, why in undone["keys"].items() if why in left]
        text = f"The undo of {undone['run_id']} left rows as they are: {listed}: {report.few(keys)}"
        raised.append(alert(text, kind="not_undone"))
    if names := facts["undo_left_out"]:
        text = (
            f"The run {undone['run_id']} also wrote {', '.join(names)}, which this undo leaves out: select them too, if the "
            "catalog declares them"
        )
        raised.append(alert(text, kind="not_undone"))
    return raised


def _undecided(facts: RunFacts, plan: Plan) -> list[Alert]:
    """Keys that have had no verdict for longer than PATIENCE, because they keep changing."""
    raised = []
    for line in facts["open"]:
        waits = plan.now - datetime.fromisoformat(line["since"])
        if (
            line["reason"] == Reason.KEPT_CHANGING
            and line["verdict"] not in DRIFT
            and waits > PATIENCE
            and not line["excused"]
        ):
            text = (
                f"{line['collection']}: {line['number']:,} keys have kept changing while they were looked at, since "
                f"{line['since'][:16]}, so they have no verdict. Find the client that writes them all the time"
            )
            raised.append(alert(text, collection=line["collection"], kind="kept_changing"))
    return raised


# --- drift --------------------------------------------------------------------------------------------------------------


def drift(facts: RunFacts) -> list[Alert]:
    """Open differences that fail the run, one alert for each collection and verdict."""
    groups: dict[tuple[str, str], list[OpenGroup]] = {}
    for line in facts["open"]:
        if line["fails"]:
            groups.setdefault((line["collection"], line["verdict"]), []).append(line)
    return [_difference(facts, name, Verdict(verdict), lines) for (name, verdict), lines in groups.items()]


def _difference(facts: RunFacts, name: str, verdict: Verdict, lines: Sequence[OpenGroup]) -> Alert:
    causes: Counter[str] = Counter()
    reasons: Counter[str | None] = Counter()
    for line in lines:
        causes[line["cause"]] += line["number"]
        reasons[line["reason"] if line["reason"] in OBSTACLES else None] += line["number"]
    why = ", ".join(f"{n:,} {cause}" for cause, n in causes.most_common())
    if verdict is Verdict.REJECTED:
        why = "see the report"
    since = min(line["since"] for line in lines)
    parts, wanted = _remedy(name, verdict, reasons, facts["declared"])
    parts += filter(None, (facts["references"].get(str(reason), {}).get(name) for reason in reasons))
    if not facts["dual_write_enabled"]:
        parts.append(
            f"Variable {settings.named('dual_write_enabled')} is false, so nothing is repaired until it is true again"
        )
    return alert(
        "; ".join([f"{name}: {reasons.total():,} {verdict} since {moment(since)} ({why})", *parts]),
        collection=name,
        kind=str(verdict),
        cause=causes.most_common(1)[0][0],
        press=wanted,
    )


def _remedy(
    name: str, verdict: Verdict, reasons: Mapping[str | None, int], declared: Sequence[str]
) -> tuple[list[str], Press | None]:
    """The work to do by hand, and the button to press then."""
    if name not in declared:
        every = f"{name}:*"
        then = press(DAG_ID, {"excuse": [every], "excuse_reason": ""}, "Excuse…")
        return (
            [f"the catalog no longer has collection {name}: restore it, or excuse its open differences"],
            {**then, "says": f"trigger {DAG_ID} with excuse = {every}"},
        )
    if verdict not in ACTIONS:
        return [f"correct the documents, or trigger {DAG_ID} with excuse = {name}:<key>"], None
    parts: list[str] = []
    levels: list[Repair] = []
    for reason, number in reasons.items():
        obstacle = OBSTACLES.get(reason) if reason else None
        also = obstacle.also if obstacle else "off"
        if also is not None:
            levels += [needed(verdict), also]
        if obstacle:
            of_them = "of them " if len(reasons) > 1 else ""
            parts.append(f"{number:,} {of_them}({reason}): {obstacle.text}")
    return parts, _repair(most(levels), [name]) if levels else None


# --- alerts without a difference ----------------------------------------------------------------------------------------

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
    Why.UNKNOWN: ("for reasons that no operation shows", "what writes these documents without their rows"),
}
"""By cause: which rows scheduled runs repaired, and the ending of "find ..."."""


def _quiet_repairs(facts: RunFacts, plan: Plan) -> list[Alert]:
    """Quiet repairs by scheduled runs must not hide that writes keep failing: each cause has a limit a day, and parents that
    were inserted for other rows count too."""
    raised = []
    for cause, (which, find) in _REPAIRED.items():
        lately = [r for r in facts["repaired_lately"] if r["cause"] == cause]
        number = sum(r["unattended"] for r in lately)
        now = sum(r["by_this_run"] for r in lately)
        unattempted = cause is Why.NEVER_ATTEMPTED
        limit = "max_unattempted_repairs" if unattempted else "max_repairs_a_day"
        most_a_day = plan.params.max_unattempted_repairs if unattempted else plan.params.max_repairs_a_day
        if not plan.unattended or not now or number <= most_a_day:
            continue
        listed = ", ".join(f"{r['collection']} {r['unattended']:,}" for r in lately if r["unattended"])
        text = (
            f"This run repaired {now:,} rows {which}; scheduled runs repaired {number:,} such rows in 24 hours ({listed}), more "
            f"than {limit} = {most_a_day:,}. The rows are correct now; find {find}"
        )
        raised.append(alert(text, kind="unattempted_repairs" if unattempted else f"{cause}_repairs"))
    return raised


def _blind(facts: RunFacts, catalog: Catalog, plan: Plan) -> list[Alert]:
    """Blind spots of this and later runs: an unreadable write_ops, and collections that no run has compared for long."""
    raised = []
    operations = facts["operations"]
    declared = any(c.operations for c in catalog)  # else there is nothing in write_ops to be read
    if declared and plan.params.write_ops_required and operations is not None and operations["total"] is None:
        text = (
            "write_ops is missing or not fully readable, so nothing shows why a row differs, or which keys clients tried to write: "
            "GRANT SELECT ON write_ops to the role and let it bypass row-level security, or set write_ops_required = false"
        )
        raised.append(alert(text, kind="write_ops_unreadable"))
    # A person who selects a few collections knows that; scheduled runs report those that no run selects any more.
    names = catalog.names if plan.unattended else tuple(plan.windows)
    ages = {name: facts["ages"].get(name) for name in names}
    examined = {name: age["examined_hours"] if age else None for name, age in ages.items()}
    swept = {name: age["swept_hours"] if age else None for name, age in ages.items()}
    most_swept = plan.params.max_swept_age_hours
    if most_swept:
        most_swept = max(most_swept, 2 * plan.params.sweep_every_hours)
    return [
        *raised,
        *_too_old("examined", examined, plan.params.max_examined_age_hours),
        *_too_old("swept", swept, most_swept),
    ]


def _too_old(what: Literal["examined", "swept"], hours: Mapping[str, float | None], limit: float) -> list[Alert]:
    """`hours`: the age by collection; None for never. `limit`: in hours; 0 for none."""
    old = {name: age for name, age in hours.items() if limit and (age is None or age > limit)}
    if not old:
        return []
    listed = ", ".join(f"{name} ({'never' if age is None else f'{age:,.0f} h ago'})" for name, age in old.items())
    text = (
        f"No {_DONE[what]} in the last {limit:g} hours (max_{what}_age_hours): {listed}. Select these collections "
        f"again (Variable {settings.named('reconcile_collections')}), or find out why their comparison fails"
    )
    return [alert(text, kind=f"not_{what}_lately", press=_sweep(list(old)) if what == "swept" else None)]
