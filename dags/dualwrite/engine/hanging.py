"""Which documents hang on one that is gone, though they live themselves: their rows name it, or name what hangs on it.

Such a document can't have a row. Where it lives says nothing of that: a like lies below somebody else's post, and names in a field
the person who is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dualwrite.engine.job import Job
from dualwrite.engine.parents import References, Required
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Key, Rejection, Row, map_document

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
    up to the root: once each, in parts. A document that is there and can't be mapped, or read, hangs on nothing: its own look
    tells it. None if that would read more than `most` documents.
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
            named.update({(key, path): set() for key in keys[path]})  # any of its entries may be the one
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
                above[name, path] = set() if row is None else set(ways.named(name, row))
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
    """Reads up to `most` documents, and tells what their rows name."""

    def __init__(self, job: Job, most: int) -> None:
        self._job = job
        self._most = most
        self._references: dict[str, References] = {}
        self.reads = 0

    def units(self, name: str, paths: Sequence[str]) -> Iterator[tuple[str, list[Row | Rejection] | None]]:
        """What the documents at these paths mean: nothing if one is gone, None if it can't be mapped, or Firestore can't be asked
        for it. No transaction is open meanwhile. Raises _TooMany, before it reads."""
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
            collection = self._job.catalog[name]
            with self._job.target.transaction() as connection:
                nulling = self._job.target.nulling(connection, collection)
            self._references[name] = References(self._job.catalog, collection, but=nulling)
        return self._references[name].named(row)
