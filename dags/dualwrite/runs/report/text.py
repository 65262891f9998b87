"""A reconciliation's report as a person reads it, in the log of its last task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dualwrite import settings
from dualwrite.model import cost, coverage, report
from dualwrite.model.render import Block, Heading, Paragraph, Table, moment
from dualwrite.model.run_report import Age, RunFacts, RunReport, TripwireResult, UndoneRun
from dualwrite.model.verdicts import DRIFT
from dualwrite.runs import undo

NO_WRITE_OPS = "write_ops is missing or can't be read, so the causes of differences are unknown."
NO_OPERATIONS = (
    "The catalog declares no operations, so write_ops isn't read. Therefore unknown: the causes of differences; whether "
    "dual-write is alive (no collection is known to be dual-written, so silence stops no repair); and until the next sweep, "
    "edits that move no check field and deletes of old documents that the counts don't show."
)


def _tripped(name: str, tripped: TripwireResult) -> str:
    """The tripwire's result for a collection, in one sentence."""
    if tripped["failed"]:
        return f"{name}: the tripwire failed, so old losses stay unseen until the next sweep: {tripped['failed']}"
    buckets = tripped["buckets"]
    text = f"{name}: counts moved by {tripped['deviation']:+,} since the last complete comparison"
    if buckets:
        text += f"; {buckets:,} stretch{'es' if buckets != 1 else ''} of time examined"
    return f"{text}; a sweep is due in the next run." if tripped["calls_sweep"] else f"{text}."


def _ages(ages: Mapping[str, Age]) -> str:
    """The oldest complete comparison and the oldest sweep, in one sentence."""
    name, age = min(ages.items(), key=lambda item: item[1]["examined_until"])
    never = sorted(n for n, a in ages.items() if a["swept_at"] is None)
    swept = min((str(a["swept_at"]), n) for n, a in ages.items()) if not never else None
    last = f"oldest sweep: {moment(swept[0])} ({swept[1]})" if swept else f"never swept: {', '.join(never)}"
    return f"Oldest complete comparison: {moment(age['examined_until'])} ({name}); {last}."


def summary(whole: RunFacts) -> str:
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
    keys, collections = f"{examined:,} {'key' if examined == 1 else 'keys'}", len(whole["collections"])
    return f"No difference is open: {keys} compared in {collections} {'collection' if collections == 1 else 'collections'}.{also}"


def _undone(undone: UndoneRun) -> str:
    """An undo in one sentence or two."""
    counted = {"deleted": undone["deleted"], "updated": undone["updated"], "inserted": undone["inserted"]}
    made = ", ".join(f"{number:,} {what}" for what, number in counted.items() if number) or "nothing to take back"
    moved = undone["left"].get(undo.MOVED, 0) + undone["left"].get(undo.BROKEN, 0)
    also = f" {moved:,} changed since, and left as they are." if moved else ""
    before = undone["left"].get(undo.DONE_BEFORE, 0)
    also += f" {before:,} undone before." if before else ""
    also += f" In {undone['differing']:,} a trigger of the table changed a column." if undone["differing"] else ""
    return f"Undone: {made}.{also} Rows that differ from their documents again are open: the next run looks at them."


def _compared(whole: RunReport) -> list[Block]:
    """The collections that the run compared whole, and those that it left out although compared ones depend on them."""
    blocks: list[Block] = []
    swept = [c["collection"] for c in whole["collections"] if c["scope"] == "sweep"]
    if swept:
        blocks.append(Paragraph(f"Swept (every document and every row): {', '.join(swept)}."))
    if whole["parents_not_compared"]:
        blocks.append(
            Paragraph(
                f"Not selected, though selected collections reference them: {', '.join(whole['parents_not_compared'])}. A row counts "
                "as matching here although a document of theirs that it needs is gone; a repair still inserts rows of theirs that "
                "others need."
            )
        )
    return blocks


def described(whole: RunReport) -> list[Block]:
    """The report as a person reads it: the verdict, the counts, open differences, samples."""
    blocks: list[Block] = [
        Heading(f"Reconciliation of {moment(whole['at'])}, repair {whole['repair']}"),
        Paragraph(summary(whole), strong=True),
        report.table(whole["collections"]),
    ]
    if whole["open"]:
        lines = []
        for line in whole["open"]:
            is_open = f"{line['verdict']}, excused" if line["excused"] else line["verdict"]
            cells = [line["collection"], is_open, line["reason"] or "", line["cause"], moment(line["since"])]
            lines.append([*cells, f"{line['number']:,}"])
        blocks.append(Table(["open", "verdict", "reason", "cause", "since", "number"], lines, left=5))
    if whole["repaired_lately"]:
        lines = [
            [r["collection"], r["cause"], f"{r['number']:,}", f"{r['unattended']:,}"] for r in whole["repaired_lately"]
        ]
        blocks.append(Table(["repaired in the last 24 hours", "cause", "rows", "by scheduled runs"], lines, left=2))
    if whole["named"] and whole["named"]["not_open"]:
        left = report.few(whole["named"]["not_open"])
        blocks.append(Paragraph(f"Named in keys and not open (any more), or excused: {left}."))
    if waiting := {c["collection"]: c["not_looked_at"] for c in whole["collections"] if c["not_looked_at"]}:
        listed = ", ".join(f"{name} {number:,}" for name, number in waiting.items())
        blocks.append(
            Paragraph(f"Open and not looked at again by this run (max_open_looks): {listed}. Later runs look at them.")
        )
    blocks += _compared(whole)
    blocks += [
        Paragraph(_tripped(c["collection"], tripped))
        for c in whole["collections"]
        if (tripped := c["tripwire"]) and (tripped["deviation"] or tripped["failed"])
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
                f"Variable {settings.named('dual_write_enabled')} is false: differences are expected, stay open, and are not repaired."
            )
        )
    equal = whole["parity"]
    says = "is updated: nothing differs" if equal["equal"] else f"isn't updated: {'; '.join(equal['why_not'])}"
    blocks.append(Paragraph(f"Asset {settings.named('dual-write-parity')} {says}."))
    blocks.append(Paragraph(cost.billed(whole["billed_reads"])))
    covered = whole["coverage"].items()
    blocks += coverage.described(coverage.Coverage.from_json(name, given) for name, given in covered)
    blocks += report.samples(whole["collections"])
    return blocks
