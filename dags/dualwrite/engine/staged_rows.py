"""A page of rows for the comparison: staged, and made into `Row` objects only if they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

from dualwrite.firestore.staging import Stager
from dualwrite.firestore.values import document_of
from dualwrite.model.keys import Key, label_of_key
from dualwrite.model.mapping import Row, Staged, map_document, staged


class StagedRows(Sequence[Row]):
    """Rows numbered by their place. A row that was staged from its document's message is mapped on access."""

    def __init__(self, stager: Stager) -> None:
        self._stager = stager
        self.staged: list[Staged] = []
        self._messages: list[Any] = []
        self._rows: dict[int, Row] = {}

    @classmethod
    def of(cls, stager: Stager, rows: Iterable[Row]) -> StagedRows:
        staged_rows = cls(stager)
        for row in rows:
            staged_rows.add(row)
        return staged_rows

    def add_message(self, message: Any) -> bool:
        """Stages a document's message the short way; False if `map_document` must map it."""
        row = self._stager.stage(len(self.staged), message)
        if row is None:
            return False
        self.staged.append(row)
        self._messages.append(message)
        return True

    def add(self, row: Row) -> None:
        self._rows[len(self.staged)] = row
        self.staged.append(staged(len(self.staged), row))
        self._messages.append(None)

    def put(self, n: int, row: Row) -> None:
        """Replaces the row in place n."""
        self._rows[n] = row
        self.staged[n] = staged(n, row)

    def __len__(self) -> int:
        return len(self.staged)

    @overload
    def __getitem__(self, n: int) -> Row: ...
    @overload
    def __getitem__(self, n: slice) -> list[Row]: ...
    def __getitem__(self, n: int | slice) -> Row | list[Row]:
        if isinstance(n, slice):
            return [self[i] for i in range(*n.indices(len(self)))]
        if n not in self._rows:
            if not 0 <= n < len(self):
                raise IndexError(n)
            row = next(iter(map_document(self._stager.collection, document_of(self._messages[n])) or []), None)
            assert isinstance(row, Row), "the short way takes only documents that become rows"
            self._rows[n] = row
        return self._rows[n]

    def key(self, n: int) -> Key:
        return self._stager.key(self.staged[n])

    def label(self, n: int) -> str:
        """The row's label; if the key gives it, without making the row."""
        collection = self._stager.collection
        return label_of_key(collection, self.key(n)) if collection.keyed_by_path else self[n].label
