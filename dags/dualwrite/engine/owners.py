"""Which document owns a row? The question arises if a row holds a unique key that another one needs, if a row gives another
path than its document's, or if several documents may share a natural key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dualwrite.engine.classify import HolderState, says_elsewhere
from dualwrite.engine.job import Job
from dualwrite.firestore.source import Paths
from dualwrite.model.cell_types import Cell
from dualwrite.model.documents import UNASKED, Document, Unasked
from dualwrite.model.keys import Key, entry_of_key
from dualwrite.model.mapping import LeftOut, Rejection, Row, key_left_out, left_out_among, map_document
from dualwrite.model.question import question_of
from dualwrite.postgres.target import Difference

REMEMBERED = 200_000
"""Owners remembered in one run; if there are more, all are forgotten."""


Shared = list[Row | Rejection | LeftOut]
"""Documents of one natural key."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The document that a row belongs to. `uniques`: its values for the table's further unique keys; None if it can't become
    a row."""

    path: str
    uniques: tuple[tuple[Cell, ...], ...] | None


@dataclass(frozen=True, slots=True)
class _There:
    """A document at a path that a row gives. `stated`: its further unique values for each of its keys, as texts."""

    path: str
    stated: Mapping[tuple[str, ...], tuple[tuple[Cell, ...], ...]]
    rejections: Sequence[Rejection]

    def owner(self, key: Key, entry: str | None) -> Owner | None:
        """The owner of the row at a key. None: the document has other keys, and nothing in it is rejected that may have had this
        one; so the row is left over from before."""
        uniques = self.stated.get(tuple(map(str, key)))
        may_be = any(r.entire or r.entry is None or r.entry == entry for r in self.rejections)
        return Owner(self.path, uniques) if uniques is not None or may_be else None


class Owners:
    """The owners of contested rows of one collection in one run, by the rows' keys."""

    def __init__(self, job: Job) -> None:
        self._source = job.source
        self._target = job.target
        self._collection = collection = job.collection
        self._known: dict[Key, Owner | Unasked | None] = {}
        names = [c.name for c in collection.columns]
        self._unique_indexes = [tuple(names.index(n) for n in unique) for unique in collection.unique]

    def forget(self) -> None:
        """Keeps its memory within bounds; called between pages."""
        if len(self._known) > REMEMBERED:
            self._known.clear()

    def uniques(self, row: Row) -> tuple[tuple[Cell, ...], ...]:
        """The row's values for each further unique key."""
        return tuple(tuple(row.cells[i] for i in indexes) for indexes in self._unique_indexes)

    # --- contested rows -------------------------------------------------------------------------------------------------

    def unknown(self, difference: Difference) -> list[Key]:
        """The contested rows of a difference whose owner isn't known yet."""
        return [key for key in self._contested(difference) if key not in self._known]

    def _contested(self, difference: Difference) -> list[Key]:
        keys = [key for key in difference.holders if key is not None]
        if self._may_belong_elsewhere(difference):
            keys.append(difference.row.key)
        return keys

    def _may_belong_elsewhere(self, difference: Difference) -> bool:
        return (
            difference.exists
            and self._collection.keyed_by_path
            and not self._collection.keyed_by_whole_path
            and says_elsewhere(self._collection, difference)
        )

    def learn(self, keys: Iterable[Key]) -> None:
        """Reads the documents of contested rows: the owner is at the first of a row's paths at which a document exists."""
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return
        paths = self._target.paths(self._collection, wanted)
        there: dict[str, _There | Unasked | None] = {}
        """By path, the document; None if it is gone, or has no row."""
        for documents in self._source.get_in_parts(
            [p for told in paths.values() for p in told], self._collection.fields
        ):
            for path, document in documents.items():
                if not isinstance(document, Document):
                    there[path] = document
                    continue
                units = map_document(self._collection, document) or []
                stated = {tuple(map(str, unit.key)): self.uniques(unit) for unit in units if isinstance(unit, Row)}
                rejections = [unit for unit in units if isinstance(unit, Rejection)]
                there[path] = _There(path, stated, rejections) if units else None  # else no entries, or left out
        for key in wanted:
            told = [there[path] for path in paths.get(key, ())]
            entry = entry_of_key(self._collection, key)
            owners = (document.owner(key, entry) for document in told if isinstance(document, _There))
            owner = next((one for one in owners if one is not None), None)
            self._known[key] = owner or (UNASKED if UNASKED in told else None)

    def belongs_elsewhere(self, difference: Difference) -> bool:
        """Whether the row at this key belongs to another document, which exists. If several documents have one id, the row
        belongs to the one at the path that it gives."""
        if not self._may_belong_elsewhere(difference):
            return False
        owner = self._known[difference.row.key]
        return isinstance(owner, Owner) and owner.path != difference.row.path

    def is_unasked(self, difference: Difference) -> bool:
        """Whether a row that the difference depends on gives a path that Firestore can't be asked for."""
        return any(self._known[key] is UNASKED for key in self._contested(difference))

    def holders(self, difference: Difference) -> list[HolderState]:
        """The states of the rows that hold the difference's further unique keys."""
        return [
            self._holder(key, number, difference.row)
            for number, key in enumerate(difference.holders)
            if key is not None
        ]

    def _holder(self, key: Key, number: int, row: Row) -> HolderState:
        owner = self._known[key]
        if not isinstance(owner, Owner):
            return "extra"
        # A rejected document keeps its row's keys until a person corrects it.
        states_it = owner.uniques is None or owner.uniques[number] == self.uniques(row)[number]
        return "document" if states_it else "stale"

    # --- natural keys that several documents may share --------------------------------------------------------------------

    def sharing(self, keys: Sequence[Key]) -> Iterator[dict[Key, Shared | Paths | Unasked]]:
        """The documents that map to each of these natural keys, found by the fields that the key comes from, and those with
        the same fields that can't become a row, or don't meet the condition. In parts, because documents may be large; if
        those of one key are too large together, their paths, for `shared_at`. UNASKED if the key can't be queried. Bills as
        children_in_parts."""
        questions = [(q.parent, q.equals) for q in (question_of(self._collection, key) for key in keys)]
        collection_id, fields = self._collection.collection_id, self._collection.fields
        for part in self._source.children_in_parts(questions, collection_id, fields):
            yield {
                keys[n]: self._of_key(keys[n], answer) if isinstance(answer, list) else answer
                for n, answer in part.items()
            }

    def shared_at(self, key: Key, paths: Paths) -> Iterator[Shared]:
        """The documents at these paths that have the key, or can't become a row, in parts."""
        for documents in self._source.get_in_parts(paths.paths, self._collection.fields):
            yield self._of_key(key, [d for d in documents.values() if isinstance(d, Document)])

    def _of_key(self, key: Key, documents: Iterable[Document]) -> Shared:
        units: Shared = []
        for document in documents:
            mapped = map_document(self._collection, document) or []
            units += [unit for unit in mapped if isinstance(unit, Rejection) or unit.key == key]
            if not mapped and left_out_among(self._collection, document, {None}):
                units += [LeftOut()] if key_left_out(self._collection, document) == key else []
        return units
