"""The gap backfill: what was written to Firestore after the export and is absent or stale in the target.

Window and policy around the engine in `engine/compare.py`, the verification that follows an apply, and the report.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from dualwrite.engine import preflight as checks
from dualwrite.engine.compare import Examiner
from dualwrite.engine.scans import scans
from dualwrite.engine.units import Policy
from dualwrite.firestore.budget import Budget
from dualwrite.model import cost, coverage, report
from dualwrite.model.gap_params import GapParams
from dualwrite.model.render import Block, Heading, Paragraph, Table, moment
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import DRIFT, VERDICTS, Excuse, Verdict
from dualwrite.model.windows import Window
from dualwrite.postgres.remembered import baselines, differences, excuses, interventions, journal, run_log, watermarks
from dualwrite.postgres.target import Target
from dualwrite.runs import tripwire
from dualwrite.runs.record import BaseRun, phase

log = logging.getLogger(__name__)

DAG_ID = "backfill_gap"
JOURNAL_DAYS = 30
"""How long the rows as they were before a write are kept."""

Approval = Literal["approved", "rejected", "unanswered"]
"""How a review ended. Unanswered: its dry run failed, or nobody could be asked."""


@dataclass(frozen=True, slots=True)
class Run(BaseRun):
    """What the tasks of one run share."""

    dag_id = DAG_ID
    params: GapParams
    unlogged_reads: int = 0
    """What tasks before this one billed that no line of the run log tells."""

    @property
    def billed_before(self) -> int:
        return self.unlogged_reads

    @property
    def max_billed_reads(self) -> int | None:
        return self.params.max_billed_reads

    def scope_of(self, collection: str, window: Window | None) -> str:
        return self.params.scope

    def logs(self, report: CollectionReport) -> bool:
        """A dry run leaves lines if its role may."""
        if self.params.mode != "dry_run":
            return True
        with self.target.transaction() as connection:
            return run_log.can_record(connection)


def preflight(run: Run, *, by: str) -> dict[str, Any]:
    """Checks both sides, keeps the run's excuses, and returns what the other tasks need. `by` is who excuses."""
    params = run.params
    run.source.budget = Budget(params.max_billed_reads)
    checked = checks.check(
        run.source,
        run.target,
        run.declared,
        dict.fromkeys(params.names, params.scan_window),
        writes=params.mode != "dry_run",
        remembers=params.mode != "dry_run" or bool(params.excuses),
    )
    log.info(
        "Connected as %s to Postgres %s; billed reads estimated: %s in the window",
        checked.role,
        checked.server,
        f"{sum(checked.estimated_reads.values()):,}",
    )
    _keep_excuses(run, by)
    if params.mode != "dry_run":
        with run.target.transaction() as connection:
            interventions.keep(connection, run.dag_id, run.run_id, "backfill", by)
    with run.target.transaction() as connection:
        covered = checks.coverage(connection, [run.declared[name] for name in params.names])
    if params.mode != "dry_run":
        with run.target.transaction() as connection:
            journal.prune(connection, JOURNAL_DAYS)
    return {
        "params": params.model_dump(mode="json"),
        "preflight": checked.as_json(),
        "coverage": {name: found.as_json() for name, found in covered.items()},
        "billed_reads": run.source.billed_reads,
    }


def _keep_excuses(run: Run, by: str) -> None:
    if run.params.excuses:
        with run.target.transaction() as connection:
            reason = str(run.params.excuse_reason)
            excused = excuses.excuse(connection, run.params.excuses, by=by, reason=reason, run_id=run.run_id)
            interventions.keep(connection, run.dag_id, run.run_id, "excuse", by, reason=reason, numbers=excused)


def keep_answer(target: Target, run_id: str, approval: Approval | None, answer: Mapping[str, Any] | None) -> None:
    """Keeps who approved or rejected a run, and why; and how many rows it wrote."""
    with target.transaction() as connection:
        if approval in ("approved", "rejected"):
            kind: interventions.Kind = "approval" if approval == "approved" else "rejection"
            person, reason = str((answer or {}).get("by") or "somebody"), (answer or {}).get("reason")
            interventions.keep(connection, DAG_ID, run_id, kind, person, reason=reason)
        interventions.settle(connection, DAG_ID, run_id)


def policy_of(params: GapParams, *, dry: bool) -> Policy:
    """What a run may write."""
    return Policy() if dry else Policy(insert=True, update=params.update_stale)


def examine(run: Run, name: str, *, dry: bool, record: bool = True) -> dict[str, Any]:
    """Examines one collection over the gap and, unless dry, writes what is missing or stale. Returns its report."""
    found = CollectionReport(name, "gap")
    params = run.params

    mode, window = "dry_run" if dry else "apply", params.scan_window
    with (
        phase(run, found, mode=mode, window=window, logged=record),
        examiner_of(run, found, policy_of(params, dry=dry)) as examiner,
    ):
        examiner.scan(window, params.page_size)
    return found.as_json()


def verify(run: Run, name: str, *, counts_only: bool, record: bool = True) -> dict[str, Any]:
    """Compares count() with SELECT count(*) and, unless `counts_only`, explains the difference key by key.

    "verified": every key and column was compared, and all is explained. "not_verified": drift is left, or what still
    changed at the last look.
    "not_proven": more than explain_up_to documents, so only the counts were compared. A verified collection's
    watermark moves to the moment this began.
    """
    params = run.params
    collection = run.catalog[name]
    found = CollectionReport(name, "verify")
    began = datetime.now(UTC)
    with phase(run, found, mode="counts" if counts_only else "explain", window=None, logged=record) as line:
        most = count_both(run, found)
        if not counts_only and most > params.most_explained:
            found.verification = "not_proven"
        elif not counts_only:
            baseline = tripwire.measure(run.source, run.target, collection, began)
            with examiner_of(run, found, Policy()) as examiner:
                examiner.sweep(params.page_size, grace=params.grace_seconds)
            found.verification = verdict_of(found)
            with line.kept() as connection:
                # So that a person can excuse them all at once, and reconciliation knows them.
                differences.remember(connection, name, examiner.rejected, run.run_id)
                if found.verification == "verified":
                    watermarks.advance(connection, name, began, run.run_id, swept_at=began)
                    baselines.swept(connection, name, baseline, run.run_id)
    return found.as_json()


def count_both(run: Run, found: CollectionReport) -> int:
    """Counts a collection's rows and documents for its report; returns the larger number."""
    collection = run.catalog[found.collection]
    found.target_count = run.target.count(collection)
    [scan] = scans(collection, None)
    documents, _ = run.source.count(scan)
    found.reads_to_verify = documents
    if collection.entries is None:  # else it is their parents that were counted
        found.source_count = documents
    return max(documents, found.target_count)


def verdict_of(found: CollectionReport) -> str:
    """What a comparison of all keys, or of a slice's, proved. What is in flight may be a loss: it proves nothing."""
    return "not_verified" if found.drift or found.counts[Verdict.IN_FLIGHT] else "verified"


def examiner_of(run: Run, found: CollectionReport, policy: Policy) -> Examiner:
    """What examines a collection, with what a person excused there."""
    return Examiner(run.job(found), policy, excused=excused_in(run, found.collection))


def excused_in(run: Run, name: str) -> dict[str, Excuse]:
    with run.target.transaction() as connection:
        return excuses.excuses_of(connection, name)


# --- the report -----------------------------------------------------------------------------------------------------


def not_examined(name: str, phase: str, why: str) -> dict[str, Any]:
    """Stands in for the report of a collection that has none: its task failed or never ran."""
    return CollectionReport(name, phase, not_examined=why).as_json()


def build_report(
    run_id: str,
    params: GapParams,
    found: Mapping[str, Any],
    verified: Mapping[str, Any],
    *,
    dry: bool,
    approval: Approval | None = None,
    answer: Mapping[str, Any] | None = None,
    preflight_reads: int = 0,
    covered: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole run's report. `found` and `verified` hold each collection's, or None where there is none; `approval` is
    None where nobody was asked, `answer` who answered and why; `covered` which columns are compared, as preflight found it."""
    why = "its task failed or did not run; see its log"
    if approval in ("rejected", "unanswered"):
        why = "nothing was approved, so nothing was written"
    gap = [found.get(n) or not_examined(n, "gap", why) for n in params.names]
    checked = [verified[n] for n in params.names if verified.get(n)]
    whole: dict[str, Any] = {
        "version": report.VERSION,
        "dag_id": DAG_ID,
        "run_id": run_id,
        "mode": "dry_run" if dry else params.mode,
        "scope": params.scope,
        "window": params.window.as_json(),
        "added_parents": list(params.added),
        "approval": approval,
        "answer": answer,
        "billed_reads": preflight_reads + sum(c["billed_reads"] for c in [*gap, *checked]),
        "collections": [*gap, *checked],
        "coverage": dict(covered or {}),
    }
    if dry and checked:
        whole["estimated_reads"] = estimated_reads(gap, checked)
    whole["verdict"] = verdict(whole)
    return report.fit(whole)


def estimated_reads(gap: Sequence[Mapping[str, Any]], checked: Sequence[Mapping[str, Any]]) -> int:
    """What an apply would bill after a dry run: the window again with what it looked up, each row that it writes once
    more to confirm it, and every document to verify, with a count for 1,000 and the baseline that comes of it."""
    writes = sum(_to_write(c) for c in gap)
    whole = sum(c["reads_to_verify"] for c in checked)
    return int(sum(c["billed_reads"] for c in gap) + writes + whole + 5 * sum(c["billed_reads"] for c in checked))


def _to_write(collection: Mapping[str, Any]) -> int:
    """How many rows of a collection an apply would write after a dry run: what a person accepted stays as it is."""
    return int(collection["counts"]["missing"] + collection["counts"]["stale"] - collection["left_alone"])


def verdict(whole: Mapping[str, Any]) -> str:
    """The run in one sentence."""
    gap = [c for c in whole["collections"] if c["phase"] == "gap"]
    if whole["approval"] == "rejected":
        by, reason = (whole.get("answer") or {}).get("by"), (whole.get("answer") or {}).get("reason")
        return f"Rejected{f' by {by}' if by else ''}{f': {reason}' if reason else ''}. Nothing was written."
    if whole["approval"] == "unanswered":
        return "Nobody approved or rejected, so nothing was written."
    lost = [c["collection"] for c in gap if c["not_examined"]]
    also = f" Not examined: {', '.join(lost)}." if lost else ""
    counts = report.total(gap)
    rejections = f" {counts['rejected']:,} can't become rows." if counts["rejected"] else ""
    if whole["mode"] == "dry_run":
        found = report.listed(counts, ("missing", "stale"))
        examined = sum(c["examined"] for c in gap)
        if not examined:
            why = "no document lies in the window" if len(lost) < len(gap) else "see why below"
            return f"Nothing was examined: {why}. So nothing is known of what is missing or stale.{also}"
        if not found:
            return f"Nothing is missing or stale. Nothing was written (dry run).{rejections}{also}"
        left = sum(c["left_alone"] for c in gap)
        but = f", {left:,} of them excused and left alone" if left else ""
        rows = sum(_to_write(c) for c in gap)
        return f"An apply would write {rows:,} rows: {found}{but}. Nothing was written.{rejections}{also}"
    written = sum(c["inserted"] + c["updated"] + c["parents_inserted"] for c in gap)
    left = [c["collection"] for c in whole["collections"] if c["phase"] == "verify" and c["verification"] != "verified"]
    proof = f"Not verified: {', '.join(left)}." if left else "Every collection is verified." if not lost else ""
    return f"{written:,} rows were written. {proof}{rejections}{also}"


def described(whole: Mapping[str, Any]) -> list[Block]:
    """The report as a person reads it: what was found, then how source and target stand to each other now."""
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
        Paragraph(verdict(whole), strong=True),
        report.table(gap),
    ]
    if whole["added_parents"]:
        added = ", ".join(whole["added_parents"])
        blocks.append(Paragraph(f"Added, because the selection needs them first: {added}."))
    if checked:
        counted = all(c["verification"] is None for c in checked)
        title = "Documents and rows now:" if counted else "Verification, all documents against all rows:"
        blocks += [Paragraph(title), report.table(checked)]
    blocks.append(Paragraph(cost.billed(whole["billed_reads"])))
    if "estimated_reads" in whole:
        reads = whole["estimated_reads"]
        blocks.append(
            Paragraph(f"An apply would bill about {reads:,} reads ({cost.dollars(reads)}), verification included.")
        )
    blocks += _left_out(whole)
    blocks += report.samples(gap)
    blocks += report.samples(checked)
    return blocks


def _left_out(whole: Mapping[str, Any]) -> list[Block]:
    found = [coverage.Coverage.from_json(name, given) for name, given in whole.get("coverage", {}).items()]
    return coverage.described(found, inserts=whole["mode"] == "dry_run")


_WRITTEN = ("missing", "stale")


def asked(whole: Mapping[str, Any]) -> list[Block]:
    """A dry run, with the counts that an estimate needs, as the person reads it who is to approve it: what an apply would
    write, and what it costs."""
    reads, further = whole["billed_reads"], whole["estimated_reads"]
    question = Paragraph(
        f"Approve, and these rows are written, then every collection is verified key by key: about {further:,} billed reads "
        f"more ({cost.dollars(further)}). So far the run has billed {reads:,} ({cost.dollars(reads)}). "
        "Reject, with a reason if you like, and nothing is written."
    )
    gap = [c for c in whole["collections"] if c["phase"] == "gap"]
    checked = [c for c in whole["collections"] if c["phase"] == "verify"]
    now = [
        [c["collection"], *("-" if n is None else f"{n:,}" for n in (c["source_count"], c["target_count"]))]
        for c in checked
        if not c["not_examined"]
    ]  # of entries, no documents are counted: several may come from one
    would_be_written = [{**c, "samples": {v: c["samples"][v] for v in _WRITTEN if v in c["samples"]}} for c in gap]
    return [
        Paragraph(verdict(whole), strong=True),
        question,
        report.table([c for c in gap if c["not_examined"] or any(c["counts"][v] for v in (*_WRITTEN, "rejected"))]),
        *_left_out(whole),
        *report.samples(would_be_written),
        Paragraph("Documents and rows now:"),
        Table(["collection", "documents", "rows"], now),
        *(report.samples([c for c in checked if c["not_examined"]])),
    ]


def failures(whole: Mapping[str, Any]) -> list[str]:
    """Why the run is no success, one sentence a collection; empty where it is one."""
    if whole["approval"] == "rejected":
        return []
    if whole["approval"] == "unanswered":
        return ["Nobody approved or rejected, so nothing was written: see the tasks examine_for_review and decision"]
    checked = {c["collection"]: c for c in whole["collections"] if c["phase"] == "verify"}
    faults = []
    for found in whole["collections"]:
        if found["phase"] != "gap":
            continue
        name, check = found["collection"], checked.get(found["collection"])
        if found["not_examined"]:
            faults.append(f"{name} was not examined: {found['not_examined']}")
        elif whole["mode"] != "dry_run" and (check is None or check["verification"] != "verified"):
            faults.append(f"{name} is not verified{_why(check)}")
    return faults


_REMEDIES = {
    Verdict.REJECTED: "correct the documents that can't become rows, or excuse them with a reason",
    Verdict.MISSING: "trigger backfill_gap again with mode = apply",
    Verdict.STALE: "trigger backfill_gap again with mode = apply",
    Verdict.EXTRA: "trigger reconcile_dual_writes with scope = sweep and repair = all to delete rows without a document",
}


def _why(check: Mapping[str, Any] | None) -> str:
    if check is None or check["not_examined"]:
        return ": its verification failed"
    if check["verification"] == "not_proven":
        return ": it has more documents than explain_up_to; leave that empty to compare them all"
    left = {str(v): check["counts"][v] for v in VERDICTS if v in DRIFT and check["counts"][v]}
    excused = f" ({check['excused']:,} of these {sum(left.values()):,} excused)" if check["excused"] else ""
    moving = check["counts"][Verdict.IN_FLIGHT]
    parts = [
        f"{report.listed(left, left)}{excused}" if left else "",
        *dict.fromkeys(_REMEDIES[Verdict(v)] for v in left),
        f"{moving:,} changed at every look; run it again when there are fewer writes" if moving else "",
    ]
    return f": {'; '.join(filter(None, parts))}"
