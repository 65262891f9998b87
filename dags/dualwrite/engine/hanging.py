"""Which documents hang on one that is gone, though they live themselves: their rows name it, or name a document that hangs on it.

Such a document can't have a row. That it lies below the one that is gone says nothing, unless a column names that by the path: a like
lies below somebody else's post, and names in a field the person who is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dualwrite.engine.job import Job
from dualwrite.engine.parents import References, Required
from dualwrite.model.declaration import ParentId, Segment
from dualwrite.model.documents import Document
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Rejection, Row, map_document

Start = tuple[Key, str]
"""A row's key, and the path of a document that has it."""


@dataclass(frozen=True, slots=True)
class Hanging:
    """`answers`: of the documents that have, or may have, a row of their key: whether it hangs on the one that is gone. `reads`:
    the documents read for that, each one billed read."""

    answers: Mapping[Start, bool]
    reads: int


def hanging(job: Job, starts: Mapping[Start, str], most: int) -> Hanging | None:
    """Whether these documents of the job's collection hang on the document that is named beside each. All that they name is read,
    up to the root: once each, in parts. Of a document that is there and can't be mapped, or read, only its path is known; the look
    at its own key reports the documents that its fields name. None if that would read more than `most` documents.
    """
    ways = _Ways(job, most)
    try:
        answers = _answers(ways, job.collection.name, starts)
    except _TooMany:
        return None
    return Hanging(answers, ways.reads)


def _answers(ways: _Ways, collection: str, starts: Mapping[Start, str]) -> dict[Start, bool]:
    named: dict[Start, set[Required]] = {}
    keys: dict[str, set[Key]] = {}
    for key, path in starts:
        keys.setdefault(path, set()).add(key)
    for path, units in ways.units(collection, list(keys)):
        if units is None or any(isinstance(unit, Rejection) for unit in units):
            by_path = set(ways.named_by_path(collection, path))
            named.update({(key, path): by_path for key in keys[path]})  # any of its entries may be the one
        for unit in units or ():
            if isinstance(unit, Row) and unit.key in keys[path]:
                named[unit.key, path] = set(ways.named(collection, unit))
    above: dict[Required, set[Required]] = {}
    todo = {required for of in named.values() for required in of}
    while todo:
        by_name: dict[str, list[str]] = {}
        for name, path in sorted(todo):
            above[name, path] = set()
            by_name.setdefault(name, []).append(path)
        for name, paths in by_name.items():
            for path, units in ways.units(name, paths):
                row = next((unit for unit in units or () if isinstance(unit, Row)), None)
                above[name, path] = set(ways.named_by_path(name, path) if row is None else ways.named(name, row))
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


class _TooMany(Exception):
    """More documents than may be read."""


class _Ways:
    """Reads up to `most` documents, and gives the documents that their rows name."""

    def __init__(self, job: Job, most: int) -> None:
        self._job = job
        self._most = most
        self._references: dict[str, References] = {}
        self._nulls: dict[str, frozenset[str]] = {}
        self.reads = 0

    def units(self, name: str, paths: Sequence[str]) -> Iterator[tuple[str, list[Row | Rejection] | None]]:
        """The rows and rejections of the documents at these paths: none if one is gone, None if it can't be mapped, or Firestore can't
        be asked for it. No transaction is open meanwhile. Raises _TooMany, before it reads."""
        if self.reads + len(paths) > self._most:
            raise _TooMany
        self.reads += len(paths)
        collection = self._job.catalog[name]
        for documents in self._job.source.get_in_parts(paths, collection.fields):
            for path, document in documents.items():
                if isinstance(document, Document):
                    yield path, map_document(collection, document)
                else:
                    yield path, [] if document is None else None

    def named(self, name: str, row: Row) -> Iterator[Required]:
        """The documents without which the row can't stay: not those whose columns become null."""
        if name not in self._references:
            self._references[name] = References(self._job.catalog, self._job.catalog[name], but=self._nulling(name))
        return self._references[name].named(row)

    def named_by_path(self, name: str, path: str) -> Iterator[Required]:
        """Those of them that a document names by its path, whatever its fields hold."""
        collection, segments = self._job.catalog[name], path.split("/")
        template = collection.template_of(segments)
        if template is None:
            return
        nulling = self._nulling(name)
        for column in collection.references:
            parent, origin = self._job.catalog[column.parent.collection], column.source
            if column.name in nulling:
                continue
            for depth, pattern in enumerate(template.ids[:-1], start=1):
                above = "/".join(segments[: 2 * depth])
                told = isinstance(origin, Segment) and origin.variable in pattern.variables
                if (told or (isinstance(origin, ParentId) and depth == len(template.ids) - 1)) and parent.has(above):
                    yield parent.name, above

    def _nulling(self, name: str) -> frozenset[str]:
        if name not in self._nulls:
            with self._job.target.transaction() as connection:
                self._nulls[name] = self._job.target.nulling(connection, self._job.catalog[name])
        return self._nulls[name]
