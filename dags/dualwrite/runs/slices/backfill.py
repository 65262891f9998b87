"""A backfill's large collections: cut into slices, which several tasks examine and verify.

The slices of the gap are independent: each reads its documents, and writes as a whole collection's task does. A verification
also needs the rows without a document, so its last step looks at the rows whose keys no slice saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypedDict

from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import SweepLook
from dualwrite.engine.units import Policy
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult, SliceResult
from dualwrite.model.verdicts import Finding
from dualwrite.postgres.remembered import differences, watermarks
from dualwrite.postgres.target import Target
from dualwrite.runs.backfill import DAG_ID, Run, count_both, examiner_of, excused_in, policy_of, verification_of
from dualwrite.runs.record import count_earlier_reads, phase
from dualwrite.runs.slices import reports, seen_keys
from dualwrite.runs.slices.cutter import Cutter
from dualwrite.runs.slices.examine import SliceLook, examine_rest, examine_slice
from dualwrite.runs.slices.scans import left_to_others, scans_of
from dualwrite.runs.slices.slice import Slice
from dualwrite.runs.tripwire import baselines
from dualwrite.runs.tripwire import wire as tripwire
from dualwrite.runs.tripwire.baseline import Baseline, BaselineJson


def cut_gap(run: Run, estimated: Mapping[str, int]) -> list[Slice]:
    """The slices of the selected collections that have more than slice_documents in the window, by preflight's counts."""
    large = [name for name in run.params.names if estimated[name] > run.params.slice_documents]
    cutter = Cutter(run.source, run.target, run.catalog, run.params.slice_documents)
    return cutter.cut(dict.fromkeys(large, run.params.scan_window))


def examine(run: Run, part: Slice, *, dry: bool, record: bool = True) -> CollectionResult:
    """Examines one slice of the gap and, unless `dry`, writes its missing and stale rows. Returns its report."""
    report, params = CollectionReport(part.collection, "gap"), run.params

    window = part.window if part.by == "time" else None
    with (
        phase(run, report, mode="dry_run" if dry else "apply", window=window, part=part.number, logged=record),
        examiner_of(run, report, policy_of(params, dry=dry)) as examiner,
    ):
        collection = run.catalog[part.collection]
        others = left_to_others(part, collection, params.scan_window)
        examiner.read(scans_of(part, collection), params.page_size, others)
    return report.as_json()


def finish_journals(run: Run) -> None:
    """Confirms the writes of killed tasks, of this run or earlier ones. A slice can't: it couldn't tell them from its
    neighbours' writes in progress."""
    policy = policy_of(run.params, dry=False)
    for name in run.params.names:
        with examiner_of(run, CollectionReport(name, "gap"), policy) as examiner:
            examiner.protocol.finish_journal()


# --- verification -------------------------------------------------------------------------------------------------------


class Needed(TypedDict):
    """Facts for the last step of a collection's verification: when it began (ISO 8601), and its baseline."""

    began: str
    baseline: BaselineJson | None


def cut_verification(run: Run) -> tuple[list[Slice], dict[str, Needed]]:
    """The slices of the collections that several tasks verify key by key, and each such collection's Needed: its baseline
    is measured here, before anything is compared."""
    params = run.params
    count_earlier_reads(run)
    seen_keys.forget(run.target, DAG_ID, but=run.run_id)
    began = datetime.now(UTC)
    names = [n for n in params.names if run.target.count(run.catalog[n]) <= params.most_explained]
    cutter = Cutter(run.source, run.target, run.catalog, params.slice_documents)
    parts = cutter.cut(dict.fromkeys(names), at_most=params.most_explained)
    needed: dict[str, Needed] = {}
    for name in dict.fromkeys(p.collection for p in parts):
        baseline = tripwire.measure(run.source, run.target, run.catalog[name], began)
        needed[name] = {"began": began.isoformat(), "baseline": baseline.as_json() if baseline else None}
    return parts, needed


def verify(run: Run, part: Slice) -> SliceResult:
    """Compares the documents of a slice with their rows, and looks twice if they differ. Returns its report, with the number
    of the `look` that holds the keys it saw."""
    report, params = CollectionReport(part.collection, "verify"), run.params
    with phase(run, report, mode="explain", window=None, part=part.number) as line:
        keys = seen_keys.Attempt(run.target, part.collection, DAG_ID, run.run_id)
        look = SliceLook(report, excused_in(run, part.collection), keys=keys)
        with Examiner(run.job(report), Policy(), look) as examiner:
            examine_slice(examiner, part, params.page_size, look)
            examiner.look_again(look.ended(), params.grace_seconds)
        report.verification = verification_of(report)
        with line.kept() as connection:
            differences.remember(connection, part.collection, [*look.rejected, *look.accepted], run.run_id)
    return {**report.as_json(), "look": keys.number}


def finish_verification(
    run: Run, parts: Sequence[Slice], made: reports.Made[SliceResult], needed: Needed
) -> CollectionResult:
    """The last step of one collection's verification: looks at the rows that no slice saw, and adds up the reports. A
    verified collection's watermark moves to the moment when the verification began."""
    name, params = parts[0].collection, run.params
    report = CollectionReport(name, "verify")
    began = datetime.fromisoformat(needed["began"])
    why = reports.lost(parts, made)
    accepted: list[Finding] = []
    with phase(run, report, mode="explain", window=None) as line:
        if why is not None:
            report.target_count = run.target.count(run.catalog[name])
            report.not_examined = why
        else:
            count_both(run, report)
            looks = [m["look"] for m in made if m is not None]
            look = SweepLook(report, excused_in(run, name))
            with Examiner(run.job(report), Policy(), look) as examiner:
                examine_rest(examiner, looks)
                examiner.look_again(look.ended(), params.grace_seconds)
            verdicts = {verification_of(report), *(m["verification"] for m in made if m is not None)}
            report.verification = "verified" if verdicts == {"verified"} else "not_verified"
            accepted = look.accepted
        with line.kept() as connection:
            differences.remember(connection, name, accepted, run.run_id)
            if report.verification == "verified":
                watermarks.advance(connection, name, began, run.run_id, swept_at=began)
                given = needed["baseline"]
                baselines.swept(connection, name, Baseline.from_json(given) if given else None, run.run_id)
    return reports.added_up("verify", parts, made, report.as_json())


def forget_looks(target: Target) -> None:
    """Deletes the slices' seen keys. Call it after every verification of the run: until then a last step may run again."""
    seen_keys.forget(target, DAG_ID)
