"""Which documents hang on one that is gone, though they live themselves: their rows name it, or name what hangs on it.

Such a document can't have a row. Where it lives says nothing of that: a like lies below somebody else's post, and names in a field
the person who is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dualwrite.engine.job import Job
from dualwrite.engine.parents import References, Required
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Key, Row, map_document

Start = tuple[Key, str]
"""A row's key, and the path of a document that has it."""


def hanging(job: Job, starts: Mapping[Start, str]) -> dict[Start, bool]:
    """Of these documents of the job's collection those that have a row of this key, and whether it hangs on the document that is
    named beside it. All that they name is read, up to the root: once each, in parts. What can't be read or mapped hangs on
    nothing; it is told by the look at its own key.
    """
    ways = _Ways(job)
    named: dict[Start, set[Required]] = {}
    keys: dict[str, set[Key]] = {}
    for key, path in starts:
        keys.setdefault(path, set()).add(key)
    for path, rows in ways.rows(job.collection.name, list(keys)):
        for row in rows:
            if row.key in keys[path]:
                named[row.key, path] = set(ways.named(job.collection.name, row))
    above: dict[Required, set[Required]] = {}
    todo = {required for of in named.values() for required in of}
    while todo:
        by_name: dict[str, list[str]] = {}
        for name, path in sorted(todo):
            above[name, path] = set()
            by_name.setdefault(name, []).append(path)
        for name, paths in by_name.items():
            for path, rows in ways.rows(name, paths):
                above[name, path] = set(ways.named(name, rows[0])) if rows else set()
        todo = {required for of in above.values() for required in of} - above.keys()
    return {start: starts[start] in _reached(of, above) for start, of in named.items()}


def _reached(named: set[Required], above: Mapping[Required, set[Required]]) -> set[str]:
    """The paths of all documents that these are, or hang on."""
    reached: set[Required] = set()
    todo = set(named)
    while todo:
        reached |= todo
        todo = {required for one in todo for required in above[one]} - reached
    return {path for _, path in reached}


class _Ways:
    """Reads documents, and tells what their rows name."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._references: dict[str, References] = {}

    def rows(self, name: str, paths: Sequence[str]) -> Iterator[tuple[str, list[Row]]]:
        """The rows that the documents at these paths mean. No transaction is open meanwhile."""
        collection = self._job.catalog[name]
        for documents in self._job.source.get_in_parts(paths, collection.fields):
            for path, document in documents.items():
                units = map_document(collection, document) if isinstance(document, Document) else None
                yield path, [unit for unit in units or () if isinstance(unit, Row)]

    def named(self, name: str, row: Row) -> Iterator[Required]:
        """The documents without which the row can't stay: not those whose columns become null."""
        if name not in self._references:
            collection = self._job.catalog[name]
            with self._job.target.transaction() as connection:
                nulling = self._job.target.nulling(connection, collection)
            self._references[name] = References(self._job.catalog, collection, but=nulling)
        return self._references[name].named(row)
