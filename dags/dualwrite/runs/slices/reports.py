"""Pure: the reports of a collection's slices added up. Both DAGs use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dualwrite.model import report
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult
from dualwrite.runs.slices.slice import Slice

R = TypeVar("R", bound=CollectionResult)
Made = Sequence[R | None]
"""The reports of some slices; None for one whose task failed, or never ran."""


def of(collection: str, parts: Sequence[Slice], made: Made[R]) -> tuple[list[Slice], list[R | None]]:
    """The slices of one collection, and their reports."""
    both = [(p, m) for p, m in zip(parts, made, strict=True) if p.collection == collection]
    return [p for p, _ in both], [m for _, m in both]


def lost(parts: Sequence[Slice], made: Made[R]) -> str | None:
    """A text with the slices that have no report, for the collection's `not_examined`; None if all have one."""
    without = [str(p) for p, m in zip(parts, made, strict=True) if m is None]
    if not without:
        return None
    shown = "; ".join(without[:5]) + ("; …" if len(without) > 5 else "")
    return f"{len(without)} of its {len(parts)} slices failed or did not run, see their logs ({shown})"


def added_up(
    phase: str, parts: Sequence[Slice], made: Made[R], rest: CollectionResult | None = None
) -> CollectionResult:
    """The report of a collection, from those of its slices and of the rows that no slice saw (`rest`). If a slice has no
    report, the collection is not examined."""
    reports = [CollectionReport.from_json(m) for m in (*made, rest) if m is not None]
    if (why := lost(parts, made)) is not None:
        reports.append(CollectionReport(parts[0].collection, phase, not_examined=why))
    whole = report.merged(reports)
    if rest is not None:
        whole.source_count, whole.target_count = rest["source_count"], rest["target_count"]
        whole.reads_to_verify, whole.verification = rest["reads_to_verify"], rest["verification"]
    whole.slices = len(parts)
    return whole.as_json()
