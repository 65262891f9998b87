"""One document, its row, one client at a time, and a journal: the world that the writing protocol is run in.

A client writes its document, then its row; either half may fail, or the client may die between them. Contents are
numbers: each operation writes one of its own, so a row equals its document where the numbers are the same. Newer contents
have higher numbers; what was never in a document is below zero.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Literal, NamedTuple

from tests.model.explore import Question

Operation = Literal["create", "edit", "delete", "upsert"]
OPERATIONS: tuple[Operation, ...] = ("create", "edit", "delete", "upsert")


class Row(NamedTuple):
    content: int
    xmin: int
    ours: bool
    """Inserted by us, written by nobody since, and not yet seen beside its document."""


class Entry(NamedTuple):
    """A journal row."""

    xmin: int | None
    """The version that we wrote; None for a delete."""
    inserted: bool
    confirmed: bool


class Pending(NamedTuple):
    """A client between its two halves."""

    operation: Operation
    content: int


class World(NamedTuple):
    document: int | None
    """Its content, which is its update_time too: each write has a number of its own."""
    row: Row | None
    left: int
    """Operations that clients may still do."""
    writes: int = 0
    """Numbers the versions of rows."""
    pending: Pending | None = None
    journal: tuple[Entry, ...] = ()
    lost: bool = False
    """Since we last read the document, an operation changed it whose row failed: the next run's to find."""
    unseen: bool = False
    """Since we last read the document, it was written."""
    alone: bool = False
    """Since we last looked at the row, a client whose document failed wrote it all the same: the next run's, too."""
    newer: bool = False
    """Since we last looked at the row, a client inserted it."""
    regressed: bool = False
    """We replaced a row by one of an older document."""

    # --- clients ------------------------------------------------------------------------------------------------------

    def others(self) -> Iterator[World]:
        if self.pending is not None:
            yield self.row_half(self.pending)._replace(pending=None)
            return
        if not self.left:
            return
        content = 10 - self.left  # of this operation alone
        for operation in OPERATIONS:
            if operation == "create" and self.document is not None:
                continue
            if operation in ("edit", "delete") and self.document is None:
                continue
            written = self._replace(
                document=None if operation == "delete" else content, left=self.left - 1, unseen=True
            )
            yield written._replace(pending=Pending(operation, content))
            yield written._replace(lost=True)
            # Only the second half arrives: Firestore refused the first, and the client didn't look.
            alone = self._replace(left=self.left - 1).row_half(Pending(operation, -content))
            yield alone._replace(alone=True, lost=self.lost)

    def row_half(self, half: Pending) -> World:
        if half.operation == "delete":
            return self._replace(row=None, newer=False)
        if half.operation == "create" and self.row is not None:
            return self._failed()  # the key is taken
        if half.operation == "edit" and self.row is None:
            return self._failed()  # nothing to update
        row = Row(half.content, self.writes + 1, False)
        return self._replace(row=row, writes=self.writes + 1, newer=self.newer or self.row is None)

    def _failed(self) -> World:
        return self._replace(lost=self.lost or self.unseen)

    # --- ours ---------------------------------------------------------------------------------------------------------

    def answer(self, question: Question) -> tuple[Hashable, World]:
        return getattr(self, "_" + question.name)(*question.arguments)

    def _version(self) -> tuple[int | None, World]:
        """Step 1: the row's xmin."""
        return (self.row.xmin if self.row else None), self._replace(alone=False, newer=False)

    def _read(self) -> tuple[int | None, World]:
        """Steps 2 and 5: the document."""
        row = self.row
        if row is not None and row.content == self.document:
            row = row._replace(ours=False)  # there was a document for it: a row like any other
        return self.document, self._replace(unseen=False, lost=False, row=row)

    def _put(self, content: int, xmin: int | None, insert: bool, update: bool) -> tuple[str, World]:
        """Steps 3 and 4 where there is a document: the verdict, and what was written, in one transaction.

        Answers with the verdict and, where something was written, the number of its journal row.
        """
        here = self._replace(alone=False, newer=False)
        if self.row is None:
            return here.write_ours("missing", content, inserted=True) if insert else ("missing", here)
        if self.row.content == content:
            return "matching", here
        if not update or self.row.xmin != xmin:
            return "stale", here
        return here.write_ours("stale", content, inserted=False)

    def _compare(self, content: int) -> tuple[tuple[bool, int] | None, World]:
        """The comparison alone, as a statement of its own: whether the row equals, and its xmin; None where it is absent."""
        here = self._replace(alone=False, newer=False)
        return (None if self.row is None else (self.row.content == content, self.row.xmin)), here

    def _insert(self, content: int) -> tuple[int | None, World]:
        """INSERT ... ON CONFLICT DO NOTHING with its journal row, whose number it answers."""
        if self.row is not None:
            return None, self
        return len(self.journal), self.write_ours("", content, inserted=True)[1]

    def _update(self, content: int, xmin: int) -> tuple[int | None, World]:
        """UPDATE ... WHERE xmin with its journal row, whose number it answers."""
        if self.row is None or self.row.xmin != xmin:
            return None, self
        return len(self.journal), self.write_ours("", content, inserted=False)[1]

    def write_ours(self, verdict: str, content: int, *, inserted: bool) -> tuple[str, World]:
        row = Row(content, self.writes + 1, inserted)
        older = self.row is not None and content < self.row.content
        return f"{verdict} {len(self.journal)}", self._replace(
            row=row,
            writes=self.writes + 1,
            journal=(*self.journal, Entry(row.xmin, inserted, False)),
            alone=False,
            newer=False,
            regressed=self.regressed or older,
        )

    def _remove(self, xmin: int) -> tuple[str, World]:
        """Step 4 where the document is gone."""
        here = self._replace(alone=False, newer=False)
        if self.row is None or self.row.xmin != xmin:
            return "refused", here
        return f"extra {len(self.journal)}", here._replace(row=None, journal=(*self.journal, Entry(None, False, False)))

    def _confirm(self, numbers: tuple[int, ...]) -> tuple[None, World]:
        return None, self._replace(
            journal=tuple(e._replace(confirmed=e.confirmed or n in numbers) for n, e in enumerate(self.journal))
        )

    def _unconfirmed(self) -> tuple[tuple[int, ...], World]:
        return tuple(n for n, entry in enumerate(self.journal) if not entry.confirmed), self

    def _entries(self) -> tuple[tuple[tuple[int, str], ...], World]:
        """The unconfirmed journal rows with what they did."""
        return tuple(
            (n, "insert" if e.inserted else "delete" if e.xmin is None else "update")
            for n, e in enumerate(self.journal)
            if not e.confirmed
        ), self

    def _untouched(self, numbers: tuple[int, ...]) -> tuple[bool, World]:
        """Whether the row is still the very version that one of these journal rows inserted."""
        version = self.row.xmin if self.row else -1
        return any(self.journal[n].inserted and self.journal[n].xmin == version for n in numbers), self

    # --- the end ------------------------------------------------------------------------------------------------------

    def unfinished(self) -> bool:
        return any(not entry.confirmed for entry in self.journal)

    def wrong(self, *, may_delete: bool) -> str | None:
        """What is wrong where nothing of ours will run any more, or None. Nothing that no run of ours has written."""
        content = self.row.content if self.row else None
        if self.regressed:
            return "a newer row was overwritten"
        if self.pending is not None or content == self.document or not self.journal:
            return None
        if self.lost or self.alone:
            return None
        if self.document is None and self.newer:
            return None  # created and deleted again since: to step 5 a document that is gone looks as it did before
        if self.document is None and not may_delete and self.row is not None and not self.row.ours:
            return None  # a client's own row, and this run was not allowed to delete
        return f"document {self.document}, row {content}"


STARTS = (
    World(None, None, 3),
    World(1, None, 3),  # missing
    World(None, Row(0, 0, False), 3),  # extra
    World(1, Row(0, 0, False), 3),  # stale
    World(1, Row(1, 0, False), 3),  # matching
)
