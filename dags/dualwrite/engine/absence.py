"""Proves that no document of a collection has a row's key, before that row is deleted.

The path that a row gives may be wrong (a denormalised column, a document that an admin moved), so a missing document there
proves nothing. If the key gives the whole path, a read at that path is the proof. Otherwise it takes a complete read of the
collection's names in this run (of whole documents, if rows come from their entries, or if a condition decides which of them
have a row): one billed read a document, counted beforehand and capped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

from dualwrite.firestore.source import Scan, Source
from dualwrite.model.declaration import Collection, DocumentId, Segment
from dualwrite.model.documents import Document
from dualwrite.model.keys import Key, key_of_path
from dualwrite.model.mapping import Row, map_document

log = logging.getLogger(__name__)

_PAGE = 10_000
_DOCUMENTS = 1_000


class Absence:
    """The places at which complete reads of names found some keys. Make a new one for each check; answers go stale."""

    def __init__(self, source: Source, max_reads: int) -> None:
        self._source = source
        self._max_reads = max_reads
        self._paths: dict[tuple[str, Key], list[str]] = {}
        self.reads = 0
        """Names and documents that were read, each one billed read."""

    def look(self, collection: Collection, keys: Iterable[Key]) -> None:
        """Reads all names of a collection and keeps the paths of these keys. Reads nothing if keys don't come from paths, or
        if it would be more than `max_reads`: `paths` gives None then."""
        wanted = set(keys)
        if not collection.keyed_by_path:
            return
        of_names = collection.entries is None and collection.where is None
        scan = Scan(collection.collection_id, () if of_names else collection.fields, collection.top_level)
        number, _ = self._source.count(scan)
        if number > self._max_reads:
            log.warning(
                "%s: proving that no document has a key would read %s names, more than max_proof_reads = %s",
                collection.name,
                f"{number:,}",
                f"{self._max_reads:,}",
            )
            return
        self.reads += number
        what = "names" if of_names else "documents"
        log.info("%s: reading %s %s, to prove that no document has a key", collection.name, f"{number:,}", what)
        at: dict[Key, list[str]] = {key: [] for key in wanted}
        alike: dict[Key, list[Key]] = {}
        """Keys by themselves without their entry."""
        for key in wanted:
            alike.setdefault(_without_entry(collection, key), []).append(key)
        for page in self._source.pages(scan, _PAGE if of_names else _DOCUMENTS):
            for document in page.documents:
                there_may_be: Iterable[Key | None] = _keys_of(collection, document, alike)
                if not collection.is_plain and collection.match(document.path) is None:
                    there_may_be = _could_have(collection, document.path, wanted)
                for there in dict.fromkeys(there_may_be):
                    if there in at:
                        at[there].append(document.path)
        self._paths.update({(collection.name, key): places for key, places in at.items()})

    def paths(self, collection: Collection, key: Key) -> list[str] | None:
        """The paths of documents with this key; None if the names weren't read."""
        return self._paths.get((collection.name, key))


def _without_entry(collection: Collection, key: Key) -> Key:
    return tuple(
        None if column in collection.entry_columns else part for column, part in zip(collection.key, key, strict=True)
    )


def _could_have(collection: Collection, path: str, keys: Iterable[Key]) -> Iterator[Key]:
    """Those of the keys that a document could have whose id can't be split into its parts; none if it is a stray."""
    segments = path.split("/")
    template = collection.template_of(segments)
    if template is None:
        return
    for key in keys:
        parts = list(zip(collection.key, key, strict=True))
        known = {c.origin.variable: str(part) for c, part in parts if isinstance(c.origin, Segment)}
        whole = [str(part) for c, part in parts if isinstance(c.origin, DocumentId)]
        if template.could_be(segments, known) and all(text == segments[-1] for text in whole):
            yield key


def _keys_of(collection: Collection, document: Document, alike: Mapping[Key, Iterable[Key]]) -> Iterator[Key | None]:
    """The keys of a document; if its entries can't be read, all that it could have, so that its rows stay."""
    if collection.entries is None:
        if collection.where is None or map_document(collection, document):  # a rejection, too
            yield key_of_path(collection, document.path)
        return
    for unit in map_document(collection, document) or ():
        if isinstance(unit, Row):
            yield unit.key
        elif unit.entry is not None:
            yield key_of_path(collection, document.path, unit.entry)
        elif unit.entire:
            yield from alike.get(key_of_path(collection, document.path) or (), ())
