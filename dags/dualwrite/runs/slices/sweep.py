"""The sweep of a large collection: cut into slices, which several tasks look at, and then the rows that no slice saw.

A slice keeps its differences in a transaction of its own and moves no watermark, so a run that dies anywhere forgets
nothing. The last step, which the task `compare` does, needs a report of each slice; if one is missing, the sweep has failed,
and the differences of the others stay open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import SweepLook
from dualwrite.engine.units import Policy
from dualwrite.model.errors import DualWriteError
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import FirstLook, SliceResult
from dualwrite.postgres.remembered import differences, gone, watermarks
from dualwrite.postgres.remembered.differences import OpenDifference
from dualwrite.postgres.target import Target
from dualwrite.runs import first_look
from dualwrite.runs.reconcile_plan import DAG_ID, Run
from dualwrite.runs.record import phase
from dualwrite.runs.slices import reports, seen_keys
from dualwrite.runs.slices.cutter import Cutter
from dualwrite.runs.slices.examine import SliceLook, examine_rest, examine_slice
from dualwrite.runs.slices.slice import Slice
from dualwrite.runs.tripwire import baselines
from dualwrite.runs.tripwire import wire as tripwire
from dualwrite.runs.tripwire.baseline import Baseline, BaselineJson


class SweepFailed(DualWriteError):
    """A slice of a sweep was not examined. A retry of the last step can't help."""


@dataclass(frozen=True, slots=True)
class Sweeps:
    """The sweeps of a run's large collections: the slices, their reports in the same order, and each collection's baseline,
    which is measured before anything is compared."""

    parts: list[Slice] = field(default_factory=list)
    baselines: dict[str, BaselineJson | None] = field(default_factory=dict)
    made: list[SliceResult | None] = field(default_factory=list)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.baselines)


def prepare(run: Run) -> Sweeps:
    """Cuts the collections that are to be swept and have more than slice_documents, and measures their baselines."""
    seen_keys.forget(run.target, DAG_ID, but=run.run_id)
    swept = {name: window for name, window in run.plan.windows.items() if window is None}
    parts = Cutter(run.source, run.target, run.catalog, run.params.slice_documents).cut(swept)
    needed = {}
    for name in dict.fromkeys(p.collection for p in parts):
        baseline = tripwire.measure(run.source, run.target, run.catalog[name], run.plan.now)
        needed[name] = baseline.as_json() if baseline else None
    return Sweeps(parts, needed)


def look_at_slice(run: Run, part: Slice) -> SliceResult:
    """The first look at the documents of one slice. Keeps its differences open. Returns its report, with the number of the
    `look` that holds the keys it saw."""
    name, report = part.collection, CollectionReport(part.collection, "compare")
    known = differences.known(run.target, name)
    with phase(run, report, mode=run.params.repair, window=None, part=part.number) as line:
        keys = seen_keys.Attempt(run.target, name, DAG_ID, run.run_id)
        # Dependents of an extra row match their own documents: only a look at the document that they require closes them.
        look = SliceLook(report, known.excuses, known.own_labels, keys=keys)
        with Examiner(run.job(report), Policy(), look) as examiner:
            examine_slice(examiner, part, first_look.PAGE_SIZE, look)
        pending = look.ended()
        with line.kept() as connection:
            first_look.keep(connection, run, look, pending)
            gone.remember(connection, examiner.parents.gone)
    return {**report.as_json(), "look": keys.number}


def look_at_rest(run: Run, name: str, sweeps: Sweeps) -> FirstLook:
    """The last step of a collection's sweep: looks at the rows and the excused keys that no slice saw. Moves the watermark,
    and returns the sweep's report, as first_look.compare. Raises SweepFailed if a slice has no report."""
    parts, made = reports.of(name, sweeps.parts, sweeps.made)
    if (why := reports.lost(parts, made)) is not None:
        raise SweepFailed(f"A sweep needs all of its slices: of {name}, {why}. The next run sweeps it again.")
    looks = [m["look"] for m in made if m is not None]
    report = CollectionReport(name, "compare")
    known = differences.known(run.target, name, but=run.run_id)  # the slices have kept theirs
    look = SweepLook(report, known.excuses, known.own_labels)

    def unseen(own: list[OpenDifference]) -> list[OpenDifference]:
        return _unseen(run.target, own, looks)

    with phase(run, report, mode=run.params.repair, window=None) as line:
        with Examiner(run.job(report), Policy(), look) as examiner:
            examine_rest(examiner, looks)
            units = first_look.excused_and_unseen(examiner, look, unseen)
            most = run.params.max_open_looks
            examiner.examine_units(first_look.unsettled_too(examiner, look, units, known, most, unseen))
        pending = look.ended()
        with line.kept() as connection:
            first_look.keep(connection, run, look, pending)
            gone.remember(connection, examiner.parents.gone)
            watermarks.advance(connection, name, run.plan.now, run.run_id, swept_at=run.plan.now)
            given = sweeps.baselines[name]
            baselines.swept(connection, name, Baseline.from_json(given) if given else None, run.run_id)
            left = first_look.to_look_at(connection, run, name)
    return left.of(reports.added_up("compare", parts, made, report.as_json()), scope="sweep", tripwire=None)


def forget_looks(run: Run) -> None:
    """Deletes the slices' seen keys. Call it after every sweep of the run: until then a last step may run again."""
    seen_keys.forget(run.target, DAG_ID)


def _unseen(target: Target, own: list[OpenDifference], looks: Sequence[int]) -> list[OpenDifference]:
    """The differences whose label and key no slice saw."""
    labels = seen_keys.seen_labels(target, [d.label for d in own], looks)
    keys = seen_keys.seen_keys(target, [d.finding.key for d in own if d.finding.key is not None], looks)
    return [d for d in own if d.label not in labels and d.finding.key not in keys]
