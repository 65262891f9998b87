"""Pure: the verdict of a look at a difference that was seen before. A difference is drift if two looks, a grace period apart,
see the same, and it stays drift until a look finds it gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from dualwrite.model.verdicts import SETTLED_BY_WRITING, Finding, Reason, Verdict, is_same

PATIENCE = timedelta(hours=1)
"""A difference that was there at every look for longer than this is drift, even if its document kept changing: otherwise a
busy document whose writes never arrive would be in flight for ever."""


def vanished(finding: Finding, before: Finding | None, *, age: timedelta) -> Finding:
    """The finding of a second look that sees neither the document nor the row of a document that the first look saw. For keys
    whose document may be elsewhere: a document that moves between the looks is never where it was seen, and would be missing
    from every count. It stays in flight until the next run's first look. If that doesn't see it either, it is closed; if it is
    seen again and again for longer than PATIENCE, it is drift.
    """
    if finding.verdict is not Verdict.ABSENT or before is None or before.verdict is not Verdict.IN_FLIGHT:
        return finding
    if ":" not in (before.fingerprint or ""):  # it was a row without a document
        return finding
    seen = replace(finding, path=before.path, fingerprint=before.fingerprint)
    if age <= PATIENCE:
        return replace(seen, verdict=Verdict.IN_FLIGHT, reason=Reason.CHANGED_BETWEEN_LOOKS)
    if before.reason is Reason.FIRST_LOOK:
        return replace(seen, verdict=Verdict.MISSING, reason=Reason.KEPT_CHANGING)
    return finding


def seen_twice(
    finding: Finding, before: Finding | None, *, waited: timedelta, age: timedelta, grace: timedelta
) -> Finding:
    """The finding with the verdict of a look. `before`: the finding that the look before left open at the key; `waited`: how
    long ago that look was; `age`: how long ago the difference was first seen.

    Drift stays drift, whatever changed: a document that changes while its row stays wrong isn't in flight. Nor is a key
    that kept changing through this look: it has not been found gone.
    """
    was_drift = before is not None and before.verdict in SETTLED_BY_WRITING
    if before is not None and was_drift and finding.verdict is Verdict.IN_FLIGHT:
        return replace(finding, verdict=before.verdict)
    if finding.verdict not in SETTLED_BY_WRITING or finding.requires is not None or was_drift:
        return finding  # a dependent of an extra row has waited with it
    if before is None or before.verdict is Verdict.REJECTED:  # another difference than the one that was open
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason=Reason.FIRST_LOOK)
    if waited < grace:
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason=Reason.YOUNGER_THAN_GRACE)
    if not is_same(before.fingerprint, finding.fingerprint) and age <= PATIENCE:
        return replace(finding, verdict=Verdict.IN_FLIGHT, reason=Reason.CHANGED_BETWEEN_LOOKS)
    return finding
