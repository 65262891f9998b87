"""A round of the writing protocol: the keys that it takes, those that are decided without a comparison, and the result for all.

Pure: `compare_and_set.py` reads, compares and writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dualwrite.engine.reading import Read
from dualwrite.engine.units import Unit
from dualwrite.engine.whereabouts import takes_names
from dualwrite.model.declaration import Collection
from dualwrite.model.documents import UNASKED, Unasked
from dualwrite.model.keys import Key
from dualwrite.model.mapping import LeftOut, Rejection, Row
from dualwrite.model.verdicts import Finding, Reason, Verdict, rejected
from dualwrite.postgres.bad_rows import Refused

UNITS_AT_ONCE = 300
"""Keys in one round, whose transaction holds their locks and must stay well below a second."""

Versions = Mapping[Key, tuple[str, str]]
"""xmin and digest of rows."""


def batches(units: Sequence[Unit]) -> Iterator[dict[str, Unit]]:
    """The units in batches of one round's size, by label. Two documents with one id on different paths have the same label:
    the second goes into a later batch."""
    todo = list(units)
    while todo:
        batch: dict[str, Unit] = {}
        later: list[Unit] = []
        for unit in todo:
            if unit.label in batch or len(batch) >= UNITS_AT_ONCE:
                later.append(unit)
            else:
                batch[unit.label] = unit
        yield batch
        todo = later


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result for some keys of a step or a round, by label. A key that is looked at again may have a finding from before its
    write."""

    findings: Mapping[str, Finding] = field(default_factory=dict)
    again: Mapping[str, Unit] = field(default_factory=dict)
    """Keys to be looked at in the next round."""
    refused: Mapping[str, Refused] = field(default_factory=dict)
    """Constraints that refused keys, and may not be in the way in the next round."""
    waiting: Mapping[str, Unit] = field(default_factory=dict)
    """Keys that wait for other rows of their table: these come later, or never."""

    def __or__(self, later: StepResult) -> StepResult:
        """The result for these keys and for those of a later step."""
        return StepResult(
            {**self.findings, **later.findings},
            {**self.again, **later.again},
            {**self.refused, **later.refused},
            {**self.waiting, **later.waiting},
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """The result of step 3 for a part of a round: the settled keys, the rows to judge, and the units whose document is gone."""

    settled: StepResult
    rows: Sequence[Row]
    gone: Sequence[Unit]


def decide(collection: Collection, read: Read, versions: Versions) -> Decided:
    """Step 3: which documents' rows are to be judged, and the findings that need no comparison."""
    findings: dict[str, Finding] = {}
    again: dict[str, Unit] = {}
    rows: list[Row] = []
    gone: list[Unit] = []
    for label, unit in read.units.items():
        mapped = read.mapped[label]
        if (
            unit.path is None
            and mapped is None
            and label not in read.orphaned
            and collection.keyed_by_path
            and collection.key_leads_back
        ):
            findings[label] = untold(unit, versions, Reason.PATH_UNKNOWN)
        elif mapped is UNASKED and not takes_names(collection):
            findings[label] = untold(unit, versions, Reason.CANT_BE_ASKED)
        elif mapped is None or isinstance(mapped, Unasked | LeftOut):  # all names are read before such a row goes
            gone.append(unit)
        elif isinstance(mapped, Rejection):
            findings[label] = replace(rejected(mapped), label=label, key=unit.key)
        elif isinstance(mapped, Finding):
            findings[label] = replace(mapped, label=label)
        elif mapped.key != unit.key:  # its key comes from fields, and they changed: look at the row of the new key
            again[label] = replace(unit, key=mapped.key)
        else:
            rows.append(replace(mapped, label=label))
    return Decided(StepResult(findings, again), rows, gone)


def untold(unit: Unit, versions: Versions, reason: Reason) -> Finding:
    """The finding on a row whose document's path is unknown (no row above it) or refused by Firestore (an invalid id): such a
    row is never deleted, because nothing can prove that its document is gone."""
    version = versions.get(unit.key)
    if version is None:
        return unit.finding(Verdict.ABSENT)
    return unit.finding(Verdict.EXTRA, reason=reason, fingerprint=version[1])
