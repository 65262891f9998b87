"""A backfill's report: its counts, its alerts, and the texts of its log and of the approval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dualwrite.model import cost, coverage, repairs, report
from dualwrite.model.alert import alert, press
from dualwrite.model.gap_params import GapParams
from dualwrite.model.render import Block, Heading, Paragraph, moment
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import (
    VERSION,
    Alert,
    Answer,
    Approval,
    CollectionResult,
    CoverageResult,
    GapReport,
    Press,
    Sample,
)
from dualwrite.model.verdicts import DRIFT, VERDICTS, Verdict
from dualwrite.runs import reconcile_plan
from dualwrite.runs.backfill import DAG_ID

VERIFIES = ("verify_counts", "finish")
"""The tasks that verify all collections, small and large."""

_WRITTEN = ("missing", "stale")
"""The verdicts of rows that an apply writes."""

_ASKED = 5
"""Samples of a verdict that stand in a question: Airflow puts its buttons below all of them."""


def not_examined(name: str, phase: str, why: str) -> CollectionResult:
    """A report for a collection whose task failed or never ran."""
    return CollectionReport(name, phase, not_examined=why).as_json()


def build_report(  # noqa: PLR0913 - the parts of a report, each by its name
    run_id: str,
    params: GapParams,
    found: Mapping[str, CollectionResult | None],
    verified: Mapping[str, CollectionResult | None],
    *,
    dry: bool,
    approval: Approval | None = None,
    answer: Answer | None = None,
    preflight_reads: int = 0,
    covered: Mapping[str, CoverageResult] | None = None,
    errors: Mapping[str, str] | None = None,
) -> GapReport:
    """The whole run's report. `found` and `verified`: each collection's report of the gap and of the verification, or None;
    `approval`: None if nobody was asked; `answer`: who answered and why; `covered`: which columns are compared, as preflight
    found; `errors`: the errors that ended tasks, by task id."""
    errors = errors or {}
    gap = [found.get(n) or not_examined(n, "gap", _why_not(n, approval, errors)) for n in params.names]
    checked = [one for n in params.names if (one := verified.get(n))]
    mode = "dry_run" if dry else params.mode
    whole: GapReport = {
        "version": VERSION,
        "dag_id": DAG_ID,
        "run_id": run_id,
        "mode": mode,
        "scope": params.scope,
        "window": params.window.as_json(),
        "added_parents": list(params.added),
        "approval": approval,
        "answer": answer,
        "billed_reads": preflight_reads + sum(c["billed_reads"] for c in [*gap, *checked]),
        "estimated_reads": estimated_reads(gap, checked) if dry and checked else None,
        "collections": [*gap, *checked],
        "coverage": dict(covered or {}),
        "rules": repairs.rules(),
        "verdict": _summary(mode, gap, checked, approval, answer),
        "alerts": _alerts(params, mode, gap, checked, approval, errors),
        "samples_shown": report.SAMPLES,
    }
    return report.fit(whole)


def _why_not(name: str, approval: Approval | None, errors: Mapping[str, str]) -> str:
    """Why a collection has no report."""
    if approval in ("rejected", "unanswered"):
        return "nothing was approved, so nothing was written"
    return errors.get(f"collections.{name}", "its task failed or did not run; see its log")


def estimated_reads(gap: Sequence[CollectionResult], checked: Sequence[CollectionResult]) -> int:
    """The reads that an apply would bill after a dry run: the dry run's own again, one to confirm each written row, every
    document to verify, and five times the counts that the dry run took, for the verification and its baseline."""
    writes = sum(_to_write(c) for c in gap)
    whole = sum(c["reads_to_verify"] for c in checked)
    return sum(c["billed_reads"] for c in gap) + writes + whole + 5 * sum(c["billed_reads"] for c in checked)


def _to_write(collection: CollectionResult) -> int:
    """How many rows of a collection an apply would write after a dry run: missing and stale ones that aren't excused."""
    return sum(collection["counts"][v] for v in _WRITTEN) - collection["left_alone"]


def _summary(
    mode: str,
    gap: Sequence[CollectionResult],
    checked: Sequence[CollectionResult],
    approval: Approval | None,
    answer: Answer | None,
) -> str:
    """The run in one sentence."""
    if approval == "rejected":
        by, reason = (answer["by"], answer["reason"]) if answer else (None, None)
        return f"Rejected{f' by {by}' if by else ''}{f': {reason}' if reason else ''}. Nothing was written."
    if approval == "unanswered":
        return "Nobody approved or rejected, so nothing was written."
    lost = [c["collection"] for c in gap if c["not_examined"]]
    also = f" Not examined: {', '.join(lost)}." if lost else ""
    counts = report.total(gap)
    rejections = f" {counts['rejected']:,} can't become rows." if counts["rejected"] else ""
    if mode == "dry_run":
        to_write = report.listed(counts, ("missing", "stale"))
        examined = sum(c["examined"] for c in gap)
        if not examined:
            why = "no document lies in the window" if len(lost) < len(gap) else "see why below"
            return f"Nothing was examined: {why}. So it is unknown whether rows are missing or stale.{also}"
        if not to_write:
            return f"Nothing is missing or stale. Nothing was written (dry run).{rejections}{also}"
        excused = sum(c["left_alone"] for c in gap)
        but = f", {excused:,} of them excused and left alone" if excused else ""
        rows = sum(_to_write(c) for c in gap)
        return f"An apply would write {rows:,} rows: {to_write}{but}. Nothing was written.{rejections}{also}"
    written = sum(c["inserted"] + c["updated"] + c["parents_inserted"] for c in gap)
    left = [c["collection"] for c in checked if c["verification"] != "verified"]
    proof = f"Not verified: {', '.join(left)}." if left else "Every collection is verified." if not lost else ""
    return f"{written:,} rows were written. {proof}{rejections}{also}"


def described(whole: GapReport) -> list[Block]:
    """The report as a person reads it: the gap's counts, then the verification's."""
    gap = [c for c in whole["collections"] if c["phase"] == "gap"]
    checked = [c for c in whole["collections"] if c["phase"] == "verify"]
    window = whole["window"]
    where = (
        "all documents"
        if whole["scope"] == "all"
        else f"documents of {moment(window['start'])} to {moment(window['end'])}"
    )
    blocks: list[Block] = [
        Heading(f"Gap backfill, {whole['mode'].replace('_', ' ')}: {where}"),
        Paragraph(whole["verdict"], strong=True),
        report.table(gap),
    ]
    if whole["added_parents"]:
        added = ", ".join(whole["added_parents"])
        blocks.append(Paragraph(f"Added, because selected collections reference them: {added}."))
    if checked:
        counted = all(c["verification"] is None for c in checked)
        title = "Documents and rows now:" if counted else "Verification, all documents against all rows:"
        blocks += [Paragraph(title), report.table(checked)]
    blocks.append(Paragraph(cost.billed(whole["billed_reads"])))
    if (reads := whole["estimated_reads"]) is not None:
        blocks.append(
            Paragraph(f"An apply would bill about {reads:,} reads ({cost.dollars(reads)}), verification included.")
        )
    blocks += _left_out(whole)
    blocks += report.samples(gap)
    blocks += report.samples(checked)
    return blocks


def _left_out(whole: GapReport) -> list[Block]:
    covered = [coverage.Coverage.from_json(name, given) for name, given in whole["coverage"].items()]
    return coverage.described(covered, inserts=whole["mode"] == "dry_run")


def asked(whole: GapReport) -> list[Block]:
    """The report of a dry run for the person who is to approve it: the rows that an apply would write, and its cost."""
    reads, further = whole["billed_reads"], whole["estimated_reads"] or 0
    question = Paragraph(
        f"Approve, and these rows are written, then every collection is verified key by key: about {further:,} billed reads "
        f"more ({cost.dollars(further)}). So far the run has billed {reads:,} ({cost.dollars(reads)}). "
        "Reject, with a reason if you like, and nothing is written."
    )
    gap = [c for c in whole["collections"] if c["phase"] == "gap"]
    checked = [c for c in whole["collections"] if c["phase"] == "verify"]
    now = {c["collection"]: c for c in checked}
    shown = [c for c in gap if c["not_examined"] or any(c["counts"][v] for v in (*_WRITTEN, "rejected"))]
    counted: list[CollectionResult] = [
        {
            **c,
            "source_count": now[c["collection"]]["source_count"],
            "target_count": now[c["collection"]]["target_count"],
        }
        if c["collection"] in now
        else c
        for c in shown
    ]
    would_be_written: list[CollectionResult] = [{**c, "samples": _to_be_written(c)} for c in gap]
    return [
        Paragraph(whole["verdict"], strong=True),
        question,
        report.table(counted),
        *report.samples(would_be_written),
        *_left_out(whole),
        *(report.samples([c for c in checked if c["not_examined"]])),
    ]


def _to_be_written(result: CollectionResult) -> dict[str, list[Sample]]:
    """A few samples of rows that an apply would write: those that aren't excused."""
    samples = {
        verdict: [sample for sample in result["samples"].get(verdict, ()) if not sample.get("excused")][:_ASKED]
        for verdict in _WRITTEN
    }
    return {verdict: unexcused for verdict, unexcused in samples.items() if unexcused}


# --- why it fails -----------------------------------------------------------------------------------------------------


def _alerts(
    params: GapParams,
    mode: str,
    gap: Sequence[CollectionResult],
    checked: Sequence[CollectionResult],
    approval: Approval | None,
    errors: Mapping[str, str],
) -> list[Alert]:
    """Why the run fails; empty if it succeeds. A rejection is an answer, not a failure."""
    if approval == "rejected":
        return []
    if approval == "unanswered":
        text = "Nobody approved or rejected, so nothing was written: see the tasks examine_for_review and decision"
        return [alert(text, kind="unanswered", press=_again(params, "review", params.collections))]
    verified = {c["collection"]: c for c in checked}
    raised = []
    for one in gap:
        name, check = one["collection"], verified.get(one["collection"])
        if why := one["not_examined"]:
            text = f"{name} was not examined: {why.rstrip('.')}. Correct that"
            raised.append(alert(text, collection=name, kind="not_examined", press=_again(params, mode, [name])))
        elif mode != "dry_run" and (check is None or check["verification"] != "verified"):
            raised.append(_not_verified(params, name, check))
    raised += [alert(f"{task} failed: {errors[task]}", kind="verify_failed") for task in VERIFIES if task in errors]
    return raised


def _again(params: GapParams, mode: str, names: Sequence[str]) -> Press:
    """A button for the same run again. It only opens Airflow's form, which takes no values from a link."""
    scope: dict[str, str] = {"scope": "all"} if params.scope == "all" else {}
    return press(DAG_ID, {"mode": mode, **scope, "collections": list(names)}, f"Open {DAG_ID}")


def _not_verified(params: GapParams, name: str, check: CollectionResult | None) -> Alert:
    again = _again(params, "apply", [name])
    if check is None or check["not_examined"]:
        why = f"{name} is not verified: its verification failed"
        return alert(why, collection=name, kind="not_verified", press=again)
    if check["verification"] == "not_proven":
        why = f"{name} is not verified: it has more than explain_up_to documents or rows; leave that empty to compare them all"
        return alert(why, collection=name, kind="not_proven", press=again)
    left = {str(v): check["counts"][v] for v in VERDICTS if v in DRIFT and check["counts"][v]}
    excused = f" ({check['excused']:,} of these {sum(left.values()):,} excused)" if check["excused"] else ""
    moving = check["counts"][Verdict.IN_FLIGHT]
    parts = [
        f"{report.listed(left, left)}{excused}" if left else "",
        "correct the documents that can't become rows, or excuse them with a reason" if left.get("rejected") else "",
        "rows of other collections that need these count as matching until they go" if left.get("extra") else "",
        f"{moving:,} changed at every look: run it again when there are fewer writes" if moving else "",
    ]
    writable = [v for v in repairs.ACTIONS if left.get(v)]
    wanted = again if writable or moving else None
    if Verdict.EXTRA in writable:  # a backfill deletes nothing
        then = "to delete rows without a document" if len(writable) == 1 else "to repair the rows"
        conf = {"scope": "sweep", "repair": "all"}
        wanted = press(reconcile_plan.DAG_ID, {**conf}, "Repair…", then=then)
    text = f"{name} is not verified: {'; '.join(filter(None, parts))}"
    return alert(text, collection=name, kind="not_verified", press=wanted)
