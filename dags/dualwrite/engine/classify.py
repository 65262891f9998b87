"""Pure: from the comparison, the required documents and the owners of rows to one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dualwrite.engine.units import Policy
from dualwrite.model.declaration import Collection, ParentId, Segment
from dualwrite.model.mapping import Refusal, Row
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres.target import Difference

ParentState = Literal["present", "insertable", "excused", "gone", "unfit"]
"""The state of a required document: "present": it has a row; "insertable": it could have one; "excused": it (or its parent)
lacks one, and that is excused; "gone": it is gone, or an orphan itself; "unfit": it can't become a row."""

HolderState = Literal["document", "extra", "stale"]
"""The owner of a row that holds a unique key: "document": one that states that key; "extra": none; "stale": one that states
another key."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts about one difference besides the comparison."""

    parents: Sequence[ParentState] = ()
    holders: Sequence[HolderState] = ()
    belongs_elsewhere: bool = False
    """The row at this key belongs to another document, which exists."""
    unasked: bool = False
    """Firestore can't be asked for the owner of the row at this key, or of the holder of a unique key."""


def classify(difference: Difference, known: Circumstances) -> Finding:
    """The verdict on a row that does not match."""
    row = difference.row
    if difference.exists:
        if known.belongs_elsewhere:
            return duplicate(row)
        if "gone" in known.parents:  # it can't have a row, and has one
            return finding_of(Verdict.EXTRA, row, difference, reason=Reason.PARENT_GONE)
        return finding_of(Verdict.STALE, row, difference, reason=_blocked(known))
    if "gone" in known.parents:
        return finding_of(Verdict.ORPHAN, row, difference, reason=Reason.PARENT_GONE)
    if "unfit" in known.parents:
        return finding_of(Verdict.REJECTED, row, difference, reason=Reason.PARENT_REJECTED)
    if "document" in known.holders:
        return finding_of(Verdict.DUPLICATE, row, difference, reason=Reason.UNIQUE_KEY_TAKEN)
    return finding_of(Verdict.MISSING, row, difference, reason=_blocked(known))


def _blocked(known: Circumstances) -> Reason | None:
    """Why the row can't be inserted or updated; None if nothing blocks it."""
    if "unfit" in known.parents:
        return Reason.PARENT_REJECTED
    if "excused" in known.parents:
        return Reason.PARENT_EXCUSED
    if "insertable" in known.parents:
        return Reason.PARENT_MISSING
    if "document" in known.holders:
        return Reason.UNIQUE_KEY_TAKEN
    if known.unasked:
        return Reason.CANT_BE_ASKED
    if "extra" in known.holders:
        return Reason.UNIQUE_KEY_HELD_BY_EXTRA_ROW
    return Reason.UNIQUE_KEY_HELD_BY_STALE_ROW if known.holders else None


def says_elsewhere(collection: Collection, difference: Difference) -> bool:
    """Whether the row says that its document is on another path: a column that comes from the path differs."""
    return any(isinstance(collection.column(name).origin, Segment | ParentId) for name in difference.columns)


def still_to_write(finding: Finding, policy: Policy) -> bool:
    """A difference that the policy allows and nothing blocks."""
    if finding.excused:
        return False
    if finding.reason is not None and not (finding.reason is Reason.PARENT_MISSING and policy.parents):
        return False
    return (finding.verdict is Verdict.MISSING and policy.insert) or (
        finding.verdict is Verdict.STALE and policy.update
    )


def is_insertable(finding: Finding) -> bool:
    """Whether the row is missing, not excused, and blocked by nothing but missing parents."""
    return (
        finding.verdict is Verdict.MISSING and not finding.excused and finding.reason in (None, Reason.PARENT_MISSING)
    )


def is_updatable(finding: Finding) -> bool:
    """Whether the row is stale, not excused, and not blocked."""
    return finding.verdict is Verdict.STALE and not finding.excused and finding.reason is None


def parent_state(finding: Finding | None, inserted: bool) -> ParentState:
    """The state of a document for those that require it, by the finding on its own row (None: it matches)."""
    if finding is None or inserted or finding.verdict is Verdict.STALE:
        return "present"
    if finding.verdict is Verdict.MISSING:
        return "excused" if finding.excused or finding.reason is Reason.PARENT_EXCUSED else "insertable"
    return "gone" if finding.verdict in (Verdict.ORPHAN, Verdict.EXTRA) else "unfit"


def duplicate(row: Row) -> Finding:
    """The finding on a document whose key has another document's row."""
    return finding_of(Verdict.DUPLICATE, row, None, reason=Reason.KEY_HELD_BY_ANOTHER_DOCUMENT)


def finding_of(
    verdict: Verdict, row: Row, difference: Difference | None, *, reason: Reason | Refusal | None = None
) -> Finding:
    """The finding on a row; with its difference it has the columns, and a fingerprint to compare with a later look's."""
    return Finding(
        verdict,
        row.label,
        row.path,
        row.entry,
        row.key,
        columns=difference.columns if difference is not None else (),
        reason=reason,
        fingerprint=f"{row.fingerprint}:{difference.digest or ''}" if difference is not None else None,
        document_time=row.update_time,
    )
