"""Proves that no document of a collection has a row's key, before that row is deleted.

The path that a row tells may be wrong (a denormalised column, a document that an admin moved under its id), so finding
nothing there proves nothing. Where the key gives the whole path, a read at that path is the proof. Elsewhere it takes
a complete read of the collection's names, in this run: one billed read a document, counted beforehand and capped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dualwrite.firestore.source import Scan, Source
from dualwrite.model.declaration import Collection
from dualwrite.model.mapping import Key, key_of_path

log = logging.getLogger(__name__)

_PAGE = 10_000


class Absence:
    """Where complete reads of names found some keys. Make a new one for each check; answers go stale."""

    def __init__(self, source: Source, max_reads: int) -> None:
        self._source = source
        self._max_reads = max_reads
        self._paths: dict[tuple[str, Key], list[str]] = {}
        self.reads = 0
        """Names that were read."""

    def look(self, collection: Collection, keys: Iterable[Key]) -> None:
        """Reads all names of a collection and keeps where these keys are; not if that is impossible, or would read more
        than `max_reads`: then `paths` answers None."""
        wanted = set(keys)
        if not collection.keyed_by_path or collection.entries is not None:
            return
        scan = Scan(collection.collection_id, (), collection.top_level)
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
        log.info("%s: reading %s names, to prove that no document has a key", collection.name, f"{number:,}")
        found: dict[Key, list[str]] = {key: [] for key in wanted}
        for page in self._source.pages(scan, _PAGE):
            for document in page.documents:
                key = key_of_path(collection, document.path)
                if key in found:
                    found[key].append(document.path)
        self._paths.update({(collection.name, key): paths for key, paths in found.items()})

    def paths(self, collection: Collection, key: Key) -> list[str] | None:
        """Where documents with this key are; None where nobody could look."""
        return self._paths.get((collection.name, key))
