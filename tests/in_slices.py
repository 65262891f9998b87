"""A backfill whose large collections go through slices, as its DAG does it, without Airflow."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from dualwrite.model.run_report import CollectionResult
from dualwrite.runs import backfill
from dualwrite.runs.slices import backfill as sliced
from dualwrite.runs.slices import reports as slices
from dualwrite.runs.slices.slice import Slice
from tests.support import gap_run

Work = Callable[[backfill.Run, Slice], Any]
Worker = Callable[[backfill.Run, list[Slice], Work], list[Any]]


def one_by_one(run: backfill.Run, parts: list[Slice], work: Work) -> list[Any]:
    """In any order: no slice may need another one."""
    order = random.Random(1).sample(range(len(parts)), len(parts))
    made = {n: work(run, Slice.from_json(parts[n].as_json())) for n in order}
    return [made[n] for n in range(len(parts))]


def gap(
    run: backfill.Run, *, dry: bool, worker: Worker = one_by_one
) -> tuple[dict[str, CollectionResult], list[Slice]]:
    """The gap's reports by collection, and the slices that there were."""
    plan = backfill.preflight(run, by="a test")
    parts = sliced.cut_gap(run, plan["preflight"]["estimated_reads"])
    large = {p.collection for p in parts}
    found = {name: backfill.examine(run, name, dry=dry) for name in run.params.names if name not in large}
    made = worker(run, parts, lambda run, part: sliced.examine(run, part, dry=dry))
    return {**found, **{n: slices.added_up("gap", *slices.of(n, parts, made)) for n in large}}, parts


def verification(run: backfill.Run, worker: Worker = one_by_one) -> tuple[dict[str, CollectionResult], list[Slice]]:
    sliced.finish_journals(run)
    parts, needed = sliced.cut_verification(run)
    checked = {name: backfill.verify(run, name, counts_only=False) for name in run.params.names if name not in needed}
    made = worker(run, parts, sliced.verify)
    for name in needed:
        checked[name] = sliced.finish_verification(run, *slices.of(name, parts, made), needed[name])
    sliced.forget_looks(run.target)
    return checked, parts


def gap_and_verification(project: str, emulator: str, dsn: str, **params: Any) -> None:
    """A whole backfill, applied and then verified."""
    with gap_run(project, emulator, dsn, **params) as run:
        gap(run, dry=False)
        verification(run)
