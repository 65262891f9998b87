"""A complete look at a collection by several tasks: each slice's documents, then the rows that no slice saw.

A slice's memory grows with the slice, the last step's only with a page. The seen keys are kept in the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import PendingLook, told_of
from dualwrite.engine.staged_rows import StagedRows
from dualwrite.model.keys import Key
from dualwrite.runs.slices import seen_keys
from dualwrite.runs.slices.scans import scans_of
from dualwrite.runs.slices.slice import Slice


@dataclass
class SliceLook(PendingLook):
    """The first look at a slice of all documents. It keeps the keys that it sees in the target, for the last step."""

    comes_to_all_rows = True
    keys: seen_keys.Attempt = field(kw_only=True)

    def take_page(self, page: StagedRows) -> None:
        super().take_page(page)
        self.keys.update(page.key(n) for n in range(len(page)))
        self.labels |= told_of(page, self.told)

    def take_rows(self, keys: Iterable[Key]) -> None:
        self.keys.update(keys)


def examine_slice(examiner: Examiner, part: Slice, page_size: int, look: SliceLook) -> None:
    """Examines the documents of a slice, and keeps the keys and labels that the look saw in the target."""
    examiner.read(scans_of(part, examiner.job.collection), page_size)
    look.keys.update_labels(look.labels)
    look.keys.flush()


def examine_rest(examiner: Examiner, looks: Sequence[int]) -> None:
    """Examines the rows that none of these looks saw, by key, with fresh reads on both sides: a row that a client wrote
    meanwhile, or that two tasks read at different moments, isn't extra."""
    target = examiner.job.target
    for keys in seen_keys.unseen(target, examiner.job.collection, looks):
        units = examiner.units_of(keys)
        # A rejected document may have a row; it has its verdict already.
        counted = seen_keys.seen_labels(target, [u.label for u in units], looks)
        examiner.examine_units([u for u in units if u.label not in counted])
