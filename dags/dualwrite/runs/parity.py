"""Pure: does a reconciliation's report show that source and target are equal? If so, the asset dual-write-parity is updated.

Other DAGs schedule jobs on it that must only see equal databases. So any known difference counts, whether excused, in flight
or expected, and so does a collection that this run didn't compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from dualwrite import settings
from dualwrite.model import report
from dualwrite.model.choices import MAX_PLAN_AGE
from dualwrite.model.run_report import Parity, RunFacts
from dualwrite.model.verdicts import Reason
from dualwrite.runs.ready import SWEPT_WITHIN, swept_at

_OLDEST_SWEEP = SWEPT_WITHIN + MAX_PLAN_AGE
"""A sweep is due a day after the last one, in a run that may last MAX_PLAN_AGE."""


def parity(whole: RunFacts, collections: Sequence[str], *, fails: bool) -> Parity:
    """Whether source and target are equal, why not, and the time of the oldest of the collections' last sweeps (None if one
    was never swept). `whole`: the run's facts, `fails`: whether it fails, `collections`: all of the catalog."""
    ages = swept_at(whole, collections)
    why = [
        fault
        for fault in (_run(whole, fails=fails), _open(whole), _compared(whole, collections), _swept(whole, ages))
        if fault
    ]
    return {
        "equal": not why,
        "why_not": why,
        "oldest_sweep": None if None in ages.values() else min(at for at in ages.values() if at is not None),
    }


def _run(whole: RunFacts, *, fails: bool) -> str | None:
    if not whole["dual_write_enabled"]:
        return f"Variable {settings.named('dual_write_enabled')} is false"
    return "this run fails" if fails else None


def _open(whole: RunFacts) -> str | None:
    number: Counter[str] = Counter()
    excused = 0
    for line in whole["open"]:
        if line["reason"] != Reason.EXCUSED_IN_ADVANCE:  # nothing differs there yet
            number[line["verdict"]] += line["number"]
            excused += line["number"] if line["excused"] else 0
    if not number:
        return None
    return f"open: {report.listed(number)}" + (f" ({excused:,} of them excused)" if excused else "")


def _compared(whole: RunFacts, collections: Sequence[str]) -> str | None:
    compared = {c["collection"] for c in whole["collections"] if not c["not_examined"] and not c["sweep_failed"]}
    left = [name for name in collections if name not in compared]
    return f"not compared by this run: {', '.join(left)}" if left else None


def _swept(whole: RunFacts, ages: Mapping[str, str | None]) -> str | None:
    now = datetime.fromisoformat(whole["at"])
    late = [name for name, at in ages.items() if at is None or now - datetime.fromisoformat(at) > _OLDEST_SWEEP]
    return f"not swept within a day: {', '.join(late)}" if late else None
