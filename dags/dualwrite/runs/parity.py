"""Pure: are source and target equal, as far as a reconciliation's report goes? What the asset dual-write-parity says.

Others schedule on it what must only see equal databases. So one difference of which anybody knows is too many, whether it is
excused, in flight or expected; and what this run didn't compare is not equal either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dualwrite.model import report
from dualwrite.model.choices import MAX_PLAN_AGE
from dualwrite.model.verdicts import Reason
from dualwrite.runs.ready import SWEPT_WITHIN

_OLDEST_SWEEP = SWEPT_WITHIN + MAX_PLAN_AGE
"""A sweep is due a day after the last one, in a run that may last so long."""


def parity(whole: Mapping[str, Any], collections: Sequence[str]) -> dict[str, Any]:
    """Whether they are equal, why not, and when the oldest of the sweeps was that say so, as JSON. `whole` is the report as
    build_report made it, with its alerts; `collections` are all of the catalog."""
    ages = {name: whole["ages"].get(name, {}).get("swept_at") for name in collections}
    why = [fault for fault in (_run(whole), _open(whole), _compared(whole, collections), _swept(whole, ages)) if fault]
    return {
        "equal": not why,
        "why_not": why,
        "oldest_sweep": None if None in ages.values() else min(map(str, ages.values())),
    }


def _run(whole: Mapping[str, Any]) -> str | None:
    if not whole["dual_write_enabled"]:
        return "Variable dual_write_enabled is false"
    return "this run fails" if whole["alerts"] else None


def _open(whole: Mapping[str, Any]) -> str | None:
    number: Counter[str] = Counter()
    excused = 0
    for line in whole["open"]:
        if line["reason"] != Reason.EXCUSED_IN_ADVANCE:  # nothing differs there yet
            number[line["verdict"]] += line["number"]
            excused += line["number"] if line["excused"] else 0
    if not number:
        return None
    return f"open: {report.listed(number)}" + (f" ({excused:,} of them excused)" if excused else "")


def _compared(whole: Mapping[str, Any], collections: Sequence[str]) -> str | None:
    compared = {c["collection"] for c in whole["collections"] if not c["not_examined"] and not c["sweep_failed"]}
    left = [name for name in collections if name not in compared]
    return f"not compared by this run: {', '.join(left)}" if left else None


def _swept(whole: Mapping[str, Any], ages: Mapping[str, str | None]) -> str | None:
    now = datetime.fromisoformat(whole["at"])
    late = [name for name, at in ages.items() if at is None or now - datetime.fromisoformat(at) > _OLDEST_SWEEP]
    return f"not swept within a day: {', '.join(late)}" if late else None
