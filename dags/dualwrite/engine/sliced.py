"""A complete look at a collection by several tasks: each slice's documents, then the rows that no slice saw.

What a slice keeps in memory grows with the slice; what the last step keeps, with a page. The keys that were seen are in the
target (postgres/seen_keys.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from dualwrite.engine.compare import Examiner
from dualwrite.engine.looks import SliceLook
from dualwrite.model.slices import Slice
from dualwrite.postgres import seen_keys


def examine_slice(examiner: Examiner, part: Slice, page_size: int, look: SliceLook, seen: seen_keys.Look) -> None:
    """Examines the documents of a slice, and keeps what the look saw of them in the target."""
    examiner.scan(None, page_size, part)
    seen.update_labels(look.labels)
    seen.flush()


def examine_rest(examiner: Examiner, looks: Sequence[int]) -> None:
    """Examines the rows that none of these looks saw, by key, with fresh reads on both sides, so that a row that a client
    wrote meanwhile, or that two tasks read at different moments, isn't called extra."""
    target = examiner.job.target
    for keys in seen_keys.unseen(target, examiner.job.collection, looks):
        units = examiner.units_of(keys)
        # A document that can't become a row may have one; it has its verdict already.
        counted = seen_keys.seen_labels(target, [u.label for u in units], looks)
        examiner.examine_units([u for u in units if u.label not in counted])
