"""The documents that a row requires: whether they are there.

Firestore keeps what is below a deleted document, and the rows of deleted documents may still be there. So before a
row is called missing, all documents that it requires are looked up, not only those whose rows aren't there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import timedelta

from dualwrite.engine.classify import ParentState
from dualwrite.engine.job import Job
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.documents import Unasked
from dualwrite.model.mapping import Row, map_document
from dualwrite.postgres.remembered import gone
from dualwrite.postgres.target import Difference

_REMEMBERED = 200_000
"""Documents remembered in one run; forgotten all at once when there are more."""

Required = tuple[str, str]
"""Collection and path of a document that a row requires."""


class Parents:
    """What was learned of required documents in one run of one collection, by collection and path."""

    def __init__(self, job: Job, trusted: timedelta | None = None) -> None:
        """`trusted`: how long it holds that a document without a row was gone when it was asked for; None: it is asked for
        again."""
        self._job = job
        self._trusted = trusted
        self._known: dict[Required, ParentState] = {}
        self.gone: set[Required] = set()
        """Documents without a row that were asked for and are gone."""

    def state(self, name: str, path: str) -> ParentState | None:
        """What is known of a document; None if nobody has asked yet."""
        return self._known.get((name, path))

    def insertable(self) -> list[Required]:
        """The documents that were asked for, could have a row and have none: what an inserting run writes for those that
        require them."""
        return [required for required, state in self._known.items() if state == "insertable"]

    def forget(self) -> None:
        """Keeps what is remembered within bounds; called between pages."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()

    def read(self, required: Iterable[Required], rowless: Container[Required]) -> Iterator[tuple[str, list[Row]]]:
        """Reads documents. Those that can't have a row are known then; yields the rows of the others, by collection, to be
        judged, and told by `learn`. Of the `rowless` ones, whose row isn't there, those are not asked for that were gone
        lately: one that came back has a row, or is missing itself.

        Called between transactions: no lock and no snapshot of ours is held while Firestore is read.
        """
        by_name: dict[str, list[str]] = {}
        wanted = dict.fromkeys(required)
        if self._trusted is not None and (without := [r for r in wanted if r in rowless]):
            for known in gone.known(self._job.target, without, self._trusted):
                self._known[known] = "gone"
                del wanted[known]
        for name, path in wanted:
            by_name.setdefault(name, []).append(path)
        for name, paths in by_name.items():
            collection = self._job.catalog[name]
            for documents in self._job.source.get_in_parts(paths, collection.fields):
                rows: list[Row] = []
                states: dict[str, ParentState] = {}
                for path, document in documents.items():
                    if document is None:
                        states[path] = "gone"
                        continue
                    units = None if isinstance(document, Unasked) else map_document(collection, document)
                    if units and isinstance(units[0], Row):
                        rows.append(units[0])
                    else:
                        states[path] = "unfit"
                self.learn(name, states, rowless)
                if rows:
                    yield name, rows

    def learn(self, name: str, states: Mapping[str, ParentState], rowless: Container[Required]) -> None:
        """What documents of a collection are, by path."""
        for path, state in states.items():
            self._known[name, path] = state
            if state == "gone" and (name, path) in rowless:
                self.gone.add((name, path))


class References:
    """Which documents the rows of a collection name, by the columns that reference other rows."""

    def __init__(self, catalog: Catalog, collection: Collection) -> None:
        self._columns = [
            (c.name, collection.columns.index(c), c.parent.collection, catalog.ancestor_path(collection, c))
            for c in collection.references
        ]

    def required(self, difference: Difference, nulling: frozenset[str]) -> list[Required]:
        """The documents that a row to be inserted needs, or whose row an existing one lacks; and what a column names that
        differs and may have become null (`nulling`)."""
        return [
            required
            for name, _, required in self._named(difference.row)
            if not difference.found or name in difference.lacks or (name in nulling and name in difference.columns)
        ]

    def rowless(self, difference: Difference) -> list[Required]:
        """Of the documents that a row to be inserted needs, those without a row."""
        if difference.found:
            return []
        return [required for name, _, required in self._named(difference.row) if name in difference.lacks]

    def nullable(self, row: Row, nulling: frozenset[str]) -> Iterable[tuple[int, Required]]:
        """Of each column that may become null: its index, and the document that it names."""
        for name, index, required in self._named(row) if nulling else ():
            if name in nulling:
                yield index, required

    def _named(self, row: Row) -> Iterator[tuple[str, int, Required]]:
        segments = row.path.split("/")
        for name, index, parent, path in self._columns:
            if row.cells[index] is not None:
                yield name, index, (parent, path(segments, str(row.cells[index])))
