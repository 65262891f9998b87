"""A key that is examined by itself, and the writes that a run allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualwrite.model.declaration import Collection
from dualwrite.model.keys import Key, entry_of_key, key_of_path, label_of_key
from dualwrite.model.mapping import Refusal, Row
from dualwrite.model.verdicts import Finding, Reason, Verdict

MAX_PROOF_READS = 250_000
ROW_LABEL = "row:"
"""The beginning of a row's label in collections whose documents are labelled by path, which the row's key doesn't give."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The writes that a run allows: none by default.

    `max_proof_reads`: how many document names may be read to prove that no document has a row's key (see
    engine/absence.py). `parents`: whether rows that an inserted row needs may be inserted too. `would_update`: whether the run
    that a look without writes is for would update stale rows, which then leave their places in unique keys to others.
    """

    insert: bool = False
    update: bool = False
    delete: bool = False
    parents: bool = True
    would_update: bool = True
    max_proof_reads: int = MAX_PROOF_READS

    @property
    def writes(self) -> bool:
        return self.insert or self.update or self.delete


@dataclass(frozen=True, slots=True)
class Unit:
    """One key to be examined by itself. Without a path, it is a row whose document must be searched for.

    `requires`: the path of another document without which this key can't have a row. If that is gone, the key counts as
    gone too (a comment of a deleted post). With `nulls`, the row stays instead, and the columns that name that document
    become null.
    """

    label: str
    key: Key
    path: str | None
    entry: str | None = None
    requires: str | None = None
    nulls: bool = False

    def finding(
        self, verdict: Verdict, *, reason: Reason | Refusal | None = None, fingerprint: str | None = None
    ) -> Finding:
        """The finding on this key. Only an extra row's finding has `requires`."""
        requires = self.requires if verdict is Verdict.EXTRA else None
        return Finding(
            verdict,
            self.label,
            self.path,
            self.entry,
            self.key,
            reason=reason,
            fingerprint=fingerprint,
            requires=requires,
        )


def unit_of(collection: Collection, key: Key, path: str | None) -> Unit:
    """The unit of a row: its key, and its document's path if that is known."""
    label = label_of_key(collection, key)
    return Unit(label if collection.keyed_by_path else ROW_LABEL + label, key, path, entry_of_key(collection, key))


def is_of_another_key(collection: Collection, key: Key, path: str | None) -> bool:
    """Whether a remembered key is none of this collection as the catalog declares it now, because its declaration was
    corrected since. If the key comes from the path, `path` gives the present one."""
    if len(key) != len(collection.key):
        return True
    if path is None or not collection.keyed_by_path or collection.entries is not None:
        return False
    now = key_of_path(collection, path)
    return now is not None and now != key


def unit_of_row(row: Row) -> Unit:
    """The unit of a mapped document."""
    return Unit(row.label, row.key, row.path, row.entry)


def unit_of_finding(collection: Collection, finding: Finding) -> Unit:
    """The unit of a difference that is looked at again."""
    assert finding.key is not None, "a finding without a key needs its document mapped again"
    unit = unit_of(collection, finding.key, finding.path)
    nulls = finding.requires is not None and finding.verdict is Verdict.STALE
    return replace(unit, label=finding.label, requires=finding.requires, nulls=nulls)
