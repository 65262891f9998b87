"""A complete look at a collection by several tasks: each slice's documents, then the rows that no slice saw.

What a slice keeps in memory grows with the slice; what the last step keeps, with a page. The keys that were seen are in the
target (postgres/seen_keys.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dualwrite.engine.compare import Examiner
from dualwrite.engine.seen import Seen
from dualwrite.engine.units import Unit
from dualwrite.model.slices import Slice
from dualwrite.model.verdicts import Finding
from dualwrite.postgres import seen_keys


class SliceExaminer(Examiner):
    """An examiner whose first look is of one slice, or of what the slices left. Writes nothing."""

    def look_at_slice(self, part: Slice, page_size: int, look: seen_keys.Look) -> list[Finding]:
        """The first look at the documents of a slice, whose keys go to `look`. Returns what must be looked at a second
        time, which is not counted yet."""
        self._pending, self._seen_keys, self._whole = [], look, True
        self.scan(None, page_size, part)
        look.update_labels(self._seen_labels)
        look.flush()
        return self._end_look()

    def look_at_rest(
        self, looks: Sequence[int], more: Callable[[Examiner], list[Unit]] = lambda _: []
    ) -> list[Finding]:
        """The first look at the rows that none of these looks saw, and at the units that `more` adds: by key, with fresh
        reads on both sides, so that a row that a client wrote meanwhile, or that two tasks read at different moments,
        isn't called extra."""
        self._pending, self._seen_keys, self._whole = [], Seen(), True
        for keys in seen_keys.unseen(self.target, self.collection, looks):
            units = self.units_of(keys)
            # A document that can't become a row may have one; it has its verdict already.
            counted = seen_keys.seen_labels(self.target, [u.label for u in units], looks)
            self.examine_units([u for u in units if u.label not in counted])
        self.examine_units(more(self))
        return self._end_look()

    def again(self, pending: Sequence[Finding], grace: float) -> None:
        """The second look, `grace` seconds later. Meanwhile no connection is held."""
        if pending:
            self.target.close()
            time.sleep(grace)
            self.look_again(pending, grace)

    def _end_look(self) -> list[Finding]:
        pending, self._pending, self._seen_keys = self._pending or [], None, None
        self.report.taken -= len(pending)  # counted by the second look
        return pending
