"""The documents that a row requires: whether they are there.

Firestore keeps what is below a deleted document, and the rows of deleted documents may still be there. So before a
row is called missing, all documents that it requires are looked up, not only those whose rows aren't there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from dualwrite.engine.classify import ParentState
from dualwrite.engine.job import Job
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.documents import Document, Unasked
from dualwrite.model.mapping import Row, map_document
from dualwrite.model.parent_paths import parent_path
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
        self._documents: dict[Required, ParentState] = {}
        """Of documents whose rows may come later: whether they are there."""
        self._ways: dict[str, References] = {}
        self.gone: set[Required] = set()
        """Documents without a row that were asked for and are gone."""
        self._left_out: set[Required] = set()
        """Documents that exist and don't hold their collection's condition: an edit brings them back, at any time."""

    def state(self, name: str, path: str) -> ParentState | None:
        """What is known of a document; None if nobody has asked yet."""
        return self._known.get((name, path))

    def insertable(self) -> list[Required]:
        """The documents that were asked for, could have a row and have none: what an inserting run writes for those that
        require them."""
        known = {**self._documents, **self._known}
        return [required for required, state in known.items() if state == "insertable"]

    def forget(self) -> None:
        """Keeps what is remembered within bounds; called between pages."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
            self._left_out.clear()
        if len(self._documents) > _REMEMBERED:
            self._documents.clear()

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
                    if units == []:  # it doesn't hold the condition, so it has no row either
                        states[path] = "gone"
                        self._left_out.add((name, path))
                    elif units and isinstance(units[0], Row):
                        rows.append(units[0])
                    else:
                        states[path] = "unfit"
                # Collections that refer to each other would ask for each other without end.
                self.learn(name, states | {row.path: "present" for row in rows}, rowless)
                if rows:
                    yield name, rows

    def learn(self, name: str, states: Mapping[str, ParentState], rowless: Container[Required]) -> None:
        """What documents of a collection are, by path."""
        for path, state in states.items():
            self._known[name, path] = state
            if state == "gone" and (name, path) in rowless and (name, path) not in self._left_out:
                self.gone.add((name, path))

    # --- documents whose rows may come later ------------------------------------------------------------------------------

    def document(self, name: str, path: str) -> ParentState | None:
        """What is known of a document whose row may come later: insertable, unfit or gone. None if nobody has asked yet."""
        return self._documents.get((name, path))

    def look(self, awaited: Iterable[Required], here: Mapping[Required, Row]) -> None:
        """Whether documents are there whose rows may come later. No row of theirs is judged or inserted, because it may need the
        one that is judged now. `here`: those that need not be read.

        A document that hangs on one that is gone is gone too, unless it becomes null there: so all that it hangs on is read, up to
        the root of a tree.
        """
        rows: dict[Required, Row] = {}
        below: dict[Required, list[Required]] = {}
        todo = [a for a in dict.fromkeys(awaited) if a not in self._documents]
        while todo:
            found = {a: here[a] for a in todo if a in here}
            found.update(self._read([a for a in todo if a not in found]))
            rows.update(found)
            todo = []
            for this, row in found.items():
                for above in self._hangs_on(this[0], row):
                    below.setdefault(above, []).append(this)
                    todo.append(above)
            todo = [a for a in dict.fromkeys(todo) if a not in rows and a not in self._documents]
        settled = [above for above in below if above in self._documents]
        while settled:
            above = settled.pop()
            state = self._documents[above]
            for this in below.get(above, ()) if state in ("gone", "unfit") else ():
                if self._documents.get(this) is None:
                    self._documents[this] = state
                    settled.append(this)
        for this in rows:
            self._documents.setdefault(this, "insertable")

    def _read(self, wanted: Sequence[Required]) -> dict[Required, Row]:
        """The rows of documents; of those that can't have one it is known then."""
        by_name: dict[str, list[str]] = {}
        for name, path in wanted:
            by_name.setdefault(name, []).append(path)
        rows: dict[Required, Row] = {}
        for name, paths in by_name.items():
            collection = self._job.catalog[name]
            for documents in self._job.source.get_in_parts(paths, collection.fields):
                for path, document in documents.items():
                    units = map_document(collection, document) if isinstance(document, Document) else None
                    if units and isinstance(units[0], Row):
                        rows[name, path] = units[0]
                    elif document is None:
                        self._documents[name, path] = "gone"
                        self.gone.add((name, path))
                    elif units == []:  # it doesn't hold its collection's condition
                        self._documents[name, path] = "gone"
                    else:
                        self._documents[name, path] = "unfit"
        return rows

    def _hangs_on(self, name: str, row: Row) -> Iterator[Required]:
        """The documents without which a row whose parents may come later can't stay."""
        if name not in self._ways:
            collection = self._job.catalog[name]
            with self._job.target.transaction() as connection:
                nulling = self._job.target.nulling(connection, collection)
            self._ways[name] = References(self._job.catalog, collection, but=nulling)
        return self._ways[name].awaited(row)


class References:
    """Which documents the rows of a collection name, by the columns that reference other rows."""

    def __init__(self, catalog: Catalog, collection: Collection, but: frozenset[str] = frozenset()) -> None:
        """`but`: columns that are left out."""
        names = [c.name for c in collection.columns]
        self._columns = [
            (
                c.name,
                [names.index(n) for n in c.beside or (c.name,)],
                names.index(c.name),
                c.parent.collection,
                parent_path(catalog, collection, c),
            )
            for c in collection.references
            if c.name not in but
        ]
        self.late = frozenset(c.name for c in collection.references if c.late)
        """The columns that are null until the row is there that they refer to."""

    def required(self, difference: Difference, nulling: frozenset[str]) -> list[Required]:
        """The documents that a row to be inserted needs, or whose row an existing one lacks; and what a column names that
        differs and may have become null (`nulling`)."""
        return [
            required
            for name, _, required in self._named(difference.row)
            if (
                name not in self.late
                if not difference.found
                else name in difference.lacks or (name in nulling and name in difference.columns)
            )
        ]

    def named(self, row: Row) -> Iterator[Required]:
        """All documents to which a row refers."""
        return (required for _, _, required in self._named(row))

    def awaited(self, row: Row) -> Iterator[Required]:
        """The documents to which a row refers, and whose rows may come later."""
        return (required for name, _, required in self._named(row) if name in self.late)

    def rowless(self, difference: Difference) -> list[Required]:
        """Of the documents that a row to be inserted needs, those without a row."""
        if difference.found:
            return []
        lacks = set(difference.lacks) - self.late
        return [required for name, _, required in self._named(difference.row) if name in lacks]

    def nullable(self, row: Row, nulling: frozenset[str]) -> Iterable[tuple[int, Required]]:
        """Of each column that may become null: its index, and the document that it names."""
        for name, index, required in self._named(row) if nulling else ():
            if name in nulling:
                yield index, required

    def _named(self, row: Row) -> Iterator[tuple[str, int, Required]]:
        for name, places, index, parent, path in self._columns:
            # Not if a column is null that refers to the same row with it.
            if all(row.cells[place] is not None for place in places):
                yield name, index, (parent, path(row))
