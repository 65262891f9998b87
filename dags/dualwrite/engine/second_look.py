"""Pure: what a second look makes of a difference. Drift is what was there at both looks, unchanged, for the grace period."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from dualwrite.model.verdicts import SETTLED_BY_WRITING, Finding, Reason, Verdict, is_same

PATIENCE = timedelta(hours=1)
"""A difference that was there at every look for longer than this is drift, even if its document kept changing: else a busy
document whose writes never arrive would be in flight for ever."""


def seen_twice(finding: Finding, before: Finding | None, *, age: timedelta, grace: timedelta) -> Finding:
    """The verdict of a second look. `before` is what the first one found, `age` how long ago that was."""
    if finding.verdict not in SETTLED_BY_WRITING or finding.requires is not None:
        return finding  # a dependent of an extra row has waited with it
    if before is None or before.verdict is Verdict.REJECTED:  # another difference than the one that was open
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason=Reason.FIRST_LOOK)
    if age < grace:
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason=Reason.YOUNGER_THAN_GRACE)
    if not is_same(before.fingerprint, finding.fingerprint) and age <= PATIENCE:
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason=Reason.CHANGED_BETWEEN_LOOKS)
    return finding
