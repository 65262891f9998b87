"""The nine verdicts, and the one finding that each examined key ends in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dualwrite.model.keys import Key
from dualwrite.model.mapping import Refusal, Rejection
from dualwrite.model.run_report import Sample


class Verdict(StrEnum):
    """The verdict on one key. If several would fit, the first in this order applies."""

    REJECTED = "rejected"
    """A document that can't become a row. Drift, until a person excuses it."""
    ORPHAN = "orphan"
    """A document without a row, because a document that it requires is gone. Explained."""
    DUPLICATE = "duplicate"
    """A document whose unique key is held by the row of another document that exists. Explained."""
    MISSING = "missing"
    """A document without a row. Drift."""
    EXTRA = "extra"
    """A row whose document is gone, or is itself an orphan. Drift."""
    STALE = "stale"
    """A compared column differs. Drift."""
    IN_FLIGHT = "in_flight"
    """Instead of missing, extra or stale, until two looks a grace period apart have seen the same difference."""
    MATCHING = "matching"
    """The row equals the document in every compared column."""
    ABSENT = "absent"
    """Neither document nor row: created and deleted since."""


VERDICTS: tuple[Verdict, ...] = tuple(Verdict)
DRIFT = frozenset({Verdict.REJECTED, Verdict.MISSING, Verdict.EXTRA, Verdict.STALE})
SETTLED_BY_WRITING = frozenset({Verdict.MISSING, Verdict.EXTRA, Verdict.STALE})
"""The verdicts that need a second look, and that a repair can write."""


class Reason(StrEnum):
    """Why a key has its verdict, if the verdict alone doesn't show it. A rejection usually has a `Refusal` instead."""

    PARENT_GONE = "parent_gone"
    """A document that it requires is gone from the source, or left out of its collection."""
    LEFT_OUT = "left_out"
    """The row's document, or entry, is there and doesn't meet the collection's `where`."""
    PARENT_MISSING = "parent_missing"
    """A document that it requires has no row yet."""
    PARENT_EXCUSED = "parent_excused"
    """A document that it requires has no row, which is excused, so no run writes that row."""
    PARENT_REJECTED = "parent_rejected"
    """A document that it requires can't become a row."""
    KEY_HELD_BY_ANOTHER_DOCUMENT = "key_held_by_another_document"
    """The row at this key belongs to another document that exists."""
    UNIQUE_KEY_TAKEN = "unique_key_taken"
    """A further unique key is held by the row of another document that exists."""
    UNIQUE_KEY_HELD_BY_EXTRA_ROW = "unique_key_held_by_extra_row"
    """A further unique key is held by a row whose document is gone: that row must go first."""
    UNIQUE_KEY_HELD_BY_STALE_ROW = "unique_key_held_by_stale_row"
    """A further unique key is held by a row whose document states another value: that row must be updated first."""
    PATH_UNKNOWN = "path_unknown"
    """The row doesn't give its document's path."""
    CANT_BE_ASKED = "cant_be_asked"
    """Firestore can't be asked for the document: a part of its path is no valid id."""
    STILL_REFERENCED = "still_referenced"
    """Rows reference it, so it isn't deleted."""
    REFERENCES_UNSEEN = "references_unseen"
    """Rows that the role can't see could reference it, and would be changed with it, so it isn't deleted."""
    NEW_ROW_LACKING = "new_row_lacking"
    """A field of its document that the key holds has changed, and there is no row with the new value (the table refuses it, for
    example), so it isn't deleted."""
    DELETE_REFUSED = "delete_refused"
    """Postgres didn't delete it: a trigger, or a policy for deletes."""
    ABSENCE_NOT_PROVED = "absence_not_proved"
    """Proving that no document has this key would read more names than max_proof_reads, or than are left of scheduled runs'
    max_proof_reads_a_day, so it isn't deleted."""
    CHANGED_BY_TABLE = "changed_by_table"
    """A trigger of the table changes the columns that differ, so an update would not keep them."""
    FIRST_LOOK = "first_look"
    YOUNGER_THAN_GRACE = "younger_than_grace"
    CHANGED_BETWEEN_LOOKS = "changed_between_looks"
    KEPT_CHANGING = "kept_changing"
    UNDONE = "undone"
    """A person had a write of ours taken back; the next look decides the verdict."""
    EXCUSED_IN_ADVANCE = "excused_in_advance"
    """Nothing differs yet: a person has excused the first difference to come."""


OBSTACLES = frozenset(
    {
        Reason.STILL_REFERENCED,
        Reason.REFERENCES_UNSEEN,
        Reason.NEW_ROW_LACKING,
        Reason.DELETE_REFUSED,
        Reason.ABSENCE_NOT_PROVED,
        Reason.CHANGED_BY_TABLE,
    }
)
"""Why an extra row isn't deleted, or a stale one not updated. Not every look checks them, so they don't make another difference."""


ENDS_NO_EXCUSE = OBSTACLES | {Reason.LEFT_OUT}
"""Reasons that don't end an excuse of an extra row: a document that is left out may be deleted later, and an obstacle hides that.
The SQL of remembered/differences.py decides by them too."""


def reason_of(text: str | None) -> Reason | Refusal | None:
    """A remembered text as a reason, or as a rejection's refusal."""
    return Reason(text) if text in frozenset(Reason) else Refusal(text) if text is not None else None


class Why(StrEnum):
    """The cause of a difference, as far as the app's own op log shows it."""

    NEVER_ATTEMPTED = "never_attempted"
    """No operation: the flag was off, an old client, or a crash before the lock."""
    ATTEMPTED_FAILED = "attempted_failed"
    """There is an operation, and the row isn't accordingly: the write after the lock failed."""
    DUAL_WRITE_OFF = "dual_write_off"
    """The difference came while dual-write was switched off: kept open, and no failure."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of a difference, with the operation that shows it."""

    why: Why
    op_id: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One examined key and its verdict: all that is known of a difference, from the comparison to repair and report.

    `label` names the key within its collection (see keys.label_of); `key` is None if the document couldn't become a row;
    `path`: the document's, or where it would be; `columns`: those that differ. `fingerprint` changes with the compared values:
    two looks with the same fingerprint saw the same difference.
    """

    verdict: Verdict
    label: str
    path: str | None = None
    entry: str | None = None
    key: Key | None = None
    columns: tuple[str, ...] = ()
    reason: Reason | Refusal | None = None
    """A Refusal if the document itself is rejected."""
    cause: Cause | None = None
    fingerprint: str | None = None
    excused: bool = False
    requires: str | None = None
    """For a row that is extra, or stale (a reference must become null), because another document is gone: that document's
    path."""
    document_time: datetime | None = None
    """The document's update_time as it was read."""

    def as_sample(self, longest: int) -> Sample:
        sample: Sample = {"key": _short(self.label, longest)}
        if self.path is not None:
            sample["path"] = _short(self.path, 2 * longest)
        if self.columns:
            sample["columns"] = list(self.columns)
        if self.reason:
            sample["reason"] = str(self.reason)
        if self.cause:
            sample["cause"] = str(self.cause.why)
        if self.requires is not None:
            sample["requires"] = _short(self.requires, 2 * longest)
        if self.excused:
            sample["excused"] = True
        return sample


def rejected(rejection: Rejection) -> Finding:
    """The finding on a document, or a part of one, that can't become a row."""
    return Finding(Verdict.REJECTED, rejection.label, rejection.path, rejection.entry, reason=rejection.reason)


def is_same(before: str | None, now: str | None) -> bool:
    """Whether two fingerprints are of one difference. The fingerprint of a row without a document is the last part of the one
    that the row has when its document is found elsewhere."""
    return before == now or (before is not None and now is not None and now.endswith(f":{before}"))


@dataclass(frozen=True, slots=True)
class Excuse:
    """A person's acceptance of one verdict, with its reason. Both None: it was given before anything differed there, and covers
    the first drift."""

    verdict: str | None = None
    reason: str | None = None

    def covers(self, finding: Finding) -> bool:
        """Whether the excuse covers a finding. It ends if verdict or reason change: an excused rejection doesn't excuse a lost
        row. Why an extra row isn't deleted, and whether its document is gone or left out, don't count."""
        if finding.verdict not in DRIFT:
            return False
        accepted, found = (None if r in ENDS_NO_EXCUSE else r for r in (self.reason, finding.reason))
        return self.verdict is None or (self.verdict, accepted) == (finding.verdict, found)


def printable(text: str) -> str:
    """An id or a path for people to read, with unprintable characters escaped: ids may contain line breaks and other control
    characters, and JSON columns refuse U+0000."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _short(text: str, longest: int) -> str:
    text = printable(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
