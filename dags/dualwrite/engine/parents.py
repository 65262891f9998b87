"""Are the documents there that a row requires?

Firestore keeps the documents below a deleted one, and the rows of deleted documents may still be there. So before a row is
called missing, all documents that it requires are read, not only those without rows.
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

REMEMBERED = 200_000
"""Documents remembered in one run; if there are more, all are forgotten."""

Required = tuple[str, str]
"""Collection and path of a document that a row requires."""


class Parents:
    """The states of required documents in one run of one collection, by collection and path."""

    def __init__(self, job: Job, trusted: timedelta | None = None) -> None:
        """`trusted`: for this long, a document without a row that was found gone counts as gone without being read again;
        None: it is always read."""
        self._job = job
        self._trusted = trusted
        self._known: dict[Required, ParentState] = {}
        self._documents: dict[Required, ParentState] = {}
        """The states of documents whose rows may come later."""
        self._ways: dict[str, References] = {}
        self.gone: set[Required] = set()
        """Documents without a row that were read and are gone."""
        self._left_out: set[Required] = set()
        """Documents that exist and don't meet their collection's condition: an edit may bring them back at any time."""

    def state(self, name: str, path: str) -> ParentState | None:
        """The state of a document; None if it wasn't read yet."""
        return self._known.get((name, path))

    def insertable(self) -> list[Required]:
        """The documents that were read, could have a row and have none: a run that inserts writes them for rows that require
        them."""
        known = {**self._documents, **self._known}
        return [required for required, state in known.items() if state == "insertable"]

    def forget(self) -> None:
        """Keeps its memory within bounds; called between pages."""
        if len(self._known) > REMEMBERED:
            self._known.clear()
            self._left_out.clear()
        if len(self._documents) > REMEMBERED:
            self._documents.clear()

    def read(self, required: Iterable[Required], rowless: Container[Required]) -> Iterator[tuple[str, list[Row]]]:
        """Reads documents. Keeps the states of those that can't have a row; yields the rows of the others, by collection: the
        caller judges them and passes their states to `learn`. `rowless` documents, those without a row, aren't read if they
        were gone within `trusted`: one that came back has a row, or is missing itself.

        Call it between transactions: no lock and no snapshot of ours may be held while Firestore is read.
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
                    if units == []:  # it doesn't meet the condition, so it has no row either
                        states[path] = "gone"
                        self._left_out.add((name, path))
                    elif units and isinstance(units[0], Row):
                        rows.append(units[0])
                    else:
                        states[path] = "unfit"
                # Provisional: collections that refer to each other would read each other for ever.
                self.learn(name, states | {row.path: "present" for row in rows}, rowless)
                if rows:
                    yield name, rows

    def learn(self, name: str, states: Mapping[str, ParentState], rowless: Container[Required]) -> None:
        """Keeps the states of a collection's documents, by path."""
        for path, state in states.items():
            self._known[name, path] = state
            if state == "gone" and (name, path) in rowless and (name, path) not in self._left_out:
                self.gone.add((name, path))

    # --- documents whose rows may come later ------------------------------------------------------------------------------

    def document(self, name: str, path: str) -> ParentState | None:
        """The state of a document whose row may come later: insertable, unfit or gone. None if it wasn't read yet."""
        return self._documents.get((name, path))

    def look(self, awaited: Iterable[Required], here: Mapping[Required, Row]) -> None:
        """Reads the documents whose rows may come later, and keeps their states. No row of theirs is judged or inserted,
        because it may need the one that is judged now. `here`: rows of documents that needn't be read.

        If a document needs one that is gone, it is gone too, unless its reference becomes null. So all documents that it needs
        are read, up to the root of a tree.
        """
        rows: dict[Required, Row] = {}
        below: dict[Required, list[Required]] = {}
        todo = [a for a in dict.fromkeys(awaited) if a not in self._documents]
        while todo:
            there = {a: here[a] for a in todo if a in here}
            there.update(self._read([a for a in todo if a not in there]))
            rows.update(there)
            todo = []
            for this, row in there.items():
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
        """The rows of documents. Keeps the states of those that can't have one."""
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
                    elif units == []:  # it doesn't meet its collection's condition
                        self._documents[name, path] = "gone"
                    else:
                        self._documents[name, path] = "unfit"
        return rows

    def _hangs_on(self, name: str, row: Row) -> Iterator[Required]:
        """The documents that a row needs although their rows may come later: those whose columns can't become null."""
        if name not in self._ways:
            collection = self._job.catalog[name]
            with self._job.target.transaction() as connection:
                nulling = self._job.target.nulling(connection, collection)
            self._ways[name] = References(self._job.catalog, collection, but=nulling)
        return self._ways[name].awaited(row)


class References:
    """The documents that a collection's rows name in columns that reference other rows."""

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
        """The columns that stay null until the row that they refer to is there."""

    def required(self, difference: Difference, nulling: frozenset[str]) -> list[Required]:
        """The documents that a row to be inserted needs. For an existing row: those whose rows it lacks, and those named by
        columns that differ and may have become null (`nulling`)."""
        return [
            required
            for name, _, required in self._named(difference.row)
            if (
                name not in self.late
                if not difference.exists
                else name in difference.lacks or (name in nulling and name in difference.columns)
            )
        ]

    def named(self, row: Row) -> Iterator[Required]:
        """All documents to which a row refers."""
        return (required for _, _, required in self._named(row))

    def awaited(self, row: Row) -> Iterator[Required]:
        """The documents that a row refers to and whose rows may come later."""
        return (required for name, _, required in self._named(row) if name in self.late)

    def rowless(self, difference: Difference) -> list[Required]:
        """The documents that a row to be inserted needs and that have no row."""
        if difference.exists:
            return []
        lacks = set(difference.lacks) - self.late
        return [required for name, _, required in self._named(difference.row) if name in lacks]

    def nullable(self, row: Row, nulling: frozenset[str]) -> Iterable[tuple[int, Required]]:
        """Each column that may become null, as its index and the document that it names."""
        for name, index, required in self._named(row) if nulling else ():
            if name in nulling:
                yield index, required

    def _named(self, row: Row) -> Iterator[tuple[str, int, Required]]:
        for name, places, index, parent, path in self._columns:
            # A reference of several columns names no document if one of them is null.
            if all(row.cells[place] is not None for place in places):
                yield name, index, (parent, path(row))
