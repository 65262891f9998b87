"""What a reconciliation's last task says: the report, and the sentences that a failed run ends with.

Everything open counts, wherever and whenever it was found: a difference of last week fails today's run too, until it is
mended or a person accepts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualwrite import migrations
from dualwrite.model import cost, report
from dualwrite.model.declaration import Catalog
from dualwrite.model.render import Block, Heading, Paragraph, Table
from dualwrite.model.report import Alert
from dualwrite.model.verdicts import DRIFT
from dualwrite.postgres import Connection, memory
from dualwrite.runs.ready import checklist, clean_streak
from dualwrite.runs.reconcile import DUAL_WRITE_OFF
from dualwrite.runs.reconcile_plan import DAG_ID, Plan
from dualwrite.runs.repair import steps

RUNBOOK = "docs/runbook.md"
EXCUSES = 20
"""How many excused differences a report lists; the counts beside them are exact."""
NO_GATE = "Whether dual-write is alive was not examined: the task gate failed or did not run; see its log."
_MENDS = {"missing": "missing", "stale": "missing_and_stale", "extra": "all"}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the tasks of a run returned; a task that failed or never ran gives nothing."""

    compared: Mapping[str, dict[str, Any] | None]
    looked: Mapping[str, dict[str, Any]] | None
    gate: Mapping[str, Any] | None
    repaired: Sequence[dict[str, Any]] = field(default=())
    re_examined: Mapping[str, dict[str, Any]] | None = None


def build_report(
    connection: Connection, catalog: Catalog, run_id: str, plan: Plan, parts: Parts, *, link: str = ""
) -> dict[str, Any]:
    """The whole run, with what is open now, the age of the last complete looks, and the last runs in short form."""
    collections = []
    for name in plan.params.selected:
        compared = parts.compared.get(name)
        if compared is None:
            why = "its task failed or did not run; see its log"
            collections.append(report.CollectionReport(name, "compare", not_examined=why).as_json())
            continue
        looked = (parts.looked or {}).get(name)
        if looked is None and compared.get("pending"):
            compared = {**compared, "outcome": "not_examined", "not_examined": "its second look failed or did not run"}
        whole = report.merged([compared, *([looked] if looked else [])])
        whole |= {"phase": "compare", "scope": "sweep" if plan.windows[name] is None else "recent"}
        for written in parts.repaired:
            if written["collection"] == name:
                for number in ("inserted", "updated", "deleted", "parents_inserted", "billed_reads"):
                    whole[number] += written[number]
        if parts.re_examined and name in parts.re_examined:
            whole["billed_reads"] += parts.re_examined[name]["billed_reads"]
        collections.append(whole)
    open_now = memory.open_counts(connection)
    gate = parts.gate or {"problem": NO_GATE}
    planned = gate.get("planned") or {}
    done = {(part["collection"], part["phase"]) for part in parts.repaired}
    due = [] if gate["problem"] else [(name, step) for name in planned for step in steps(planned[name])]
    whole_report = {
        "version": report.VERSION,
        "dag_id": DAG_ID,
        "run_id": run_id,
        "at": plan.now.isoformat(),
        "repair": plan.params.repair,
        "dual_write_enabled": plan.dual_write_enabled,
        "windows": plan.as_json()["windows"],
        "problem": gate["problem"],
        "operations": gate.get("operations"),
        "planned": planned,
        "not_repaired": [f"{step}.{name}" for name, step in due if (name, step) not in done],
        "billed_reads": sum(c["billed_reads"] for c in collections) + gate.get("billed_reads", 0) + plan.billed_reads,
        "collections": collections,
        "open": open_now,
        "ages": memory.ages(connection),
        "history": memory.history(connection, DAG_ID),
        "excuses": memory.excuses(connection, EXCUSES),
        "clean_days": clean_streak(memory.clean_days(connection, DAG_ID), plan.now.date()),
        "migrations": migrations.standing(connection),
    }
    derived = [c.name for c in catalog if c.entries is not None]
    whole_report["ready"] = checklist(whole_report, catalog.names, derived)
    whole_report["verdict"] = verdict(whole_report)
    whole_report["alerts"] = [a.text for a in alerts(whole_report, catalog, link)]
    return report.fit(whole_report)


def alerts(whole: Mapping[str, Any], catalog: Catalog, link: str) -> list[Alert]:
    """Why the run fails; empty where it succeeds."""
    found = []
    if problem := whole["problem"]:
        verdict = "not_examined" if problem == NO_GATE else "dual_write_off" if "seems off" in problem else "refused"
        found.append(Alert(problem, verdict=verdict))
    for collection in whole["collections"]:
        if collection["not_examined"]:
            text = f"{collection['collection']} was not examined: {collection['not_examined']}"
            found.append(Alert(text, collection["collection"], "not_examined"))
    for task in whole["not_repaired"]:
        name = task.partition(".")[2]
        text = f"{name} was not repaired whole: the task {task} failed or did not run; see its log"
        found.append(Alert(text, name, "not_repaired"))
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in whole["open"]:
        expected = line["cause"] == DUAL_WRITE_OFF and not whole["dual_write_enabled"]
        if line["verdict"] in DRIFT and not line["excused"] and not expected:
            groups.setdefault((line["collection"], line["verdict"]), []).append(line)
    for (name, verdict), lines in groups.items():
        number = sum(line["number"] for line in lines)
        since = min(line["since"] for line in lines)
        causes: Counter[str] = Counter()
        for line in lines:
            causes[line["cause"]] += line["number"]
        why = (
            ", ".join(f"{n:,} {cause}" for cause, n in causes.most_common())
            if verdict != "rejected"
            else "see the report"
        )
        text = f"{name}: {number:,} {verdict} since {since[:16]} ({why}); {_remedy(name, verdict, name in catalog.names, link)}"
        found.append(Alert(text, name, verdict, causes.most_common(1)[0][0]))
    return found


def _remedy(name: str, verdict: str, declared: bool, link: str) -> str:
    where = f" at {link}" if link else ""
    if not declared:
        return f"the catalog has no collection {name} any more: put it back, or trigger with excuse = {name}:*{where}"
    if verdict in _MENDS:
        return f"trigger {DAG_ID} with repair = {_MENDS[verdict]}{where} ({RUNBOOK})"
    return f"correct the documents, or trigger {DAG_ID} with excuse = {name}:<key>{where} ({RUNBOOK})"


def message(found: Iterable[Alert]) -> str:
    """What the failed task ends with."""
    return "; ".join(alert.text for alert in found)


def _ages(ages: Mapping[str, Mapping[str, str | None]]) -> str:
    """The oldest complete look and the oldest sweep: all others are younger."""
    name, age = min(ages.items(), key=lambda item: str(item[1]["examined_until"]))
    never = sorted(n for n, a in ages.items() if a["swept_at"] is None)
    swept = min((str(a["swept_at"]), n) for n, a in ages.items()) if not never else None
    last = f"swept since {swept[0][:16]} ({swept[1]})" if swept else f"never swept: {', '.join(never)}"
    return f"Every collection is examined whole until {str(age['examined_until'])[:16]} ({name}), and {last}, or later."


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
    also = f" {excused:,} excused." if excused else ""
    if counts:
        are = "difference is" if sum(counts.values()) == 1 else "differences are"
        return f"{sum(counts.values()):,} {are} open: {report.listed(counts)}.{also}"
    if lost:
        return f"Not proved: {', '.join(lost)} could not be examined.{also}"
    if whole["problem"]:
        return f"Nothing differs, but: {whole['problem']}"
    return f"The two databases agree: {examined:,} keys compared, no difference is open.{also}"


def described(whole: Mapping[str, Any]) -> list[Block]:
    """The report as a person reads it: the verdict, the counts, what is open, samples."""
    blocks: list[Block] = [
        Heading(f"Reconciliation of {whole['at'][:16].replace('T', ' ')} UTC, repair {whole['repair']}"),
        Paragraph(verdict(whole), strong=True),
        report.table(whole["collections"]),
    ]
    if whole["open"]:
        lines = []
        for line in whole["open"]:
            is_open = f"{line['verdict']}, excused" if line["excused"] else line["verdict"]
            lines.append([line["collection"], is_open, line["cause"], line["since"][:16], f"{line['number']:,}"])
        blocks.append(Table(["open", "verdict", "cause", "since", "number"], lines, left=4))
    swept = [c["collection"] for c in whole["collections"] if c.get("scope") == "sweep"]
    if swept:
        blocks.append(Paragraph(f"Swept (every document and every row): {', '.join(swept)}."))
    if whole["ages"]:
        blocks.append(Paragraph(_ages(whole["ages"])))
    activity = whole["operations"]
    if activity and activity["total"] is not None:
        blocks.append(
            Paragraph(
                f"write_ops: {activity['total']:,} operations in {activity['minutes']:g} minutes "
                f"({activity['per_minute']:g} a minute; documents {activity['documents_per_minute']:g} a minute), "
                f"{activity['malformed']:,} of no known form, {activity['unknown_entities']:,} of unknown entities, "
                f"{activity['in_the_future']:,} in the future."
            )
        )
    elif activity:
        blocks.append(
            Paragraph("write_ops is not there, or may not be read: causes are unknown, and liveness can't be told.")
        )
    if not whole["dual_write_enabled"]:
        blocks.append(
            Paragraph("Variable dual_write_enabled is false: what is missing is expected, kept open, and not repaired.")
        )
    blocks.append(Paragraph(cost.billed(whole["billed_reads"])))
    blocks += report.samples(whole["collections"])
    return blocks
