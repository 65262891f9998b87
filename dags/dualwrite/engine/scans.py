"""The queries that read a collection: all of it, or a window by its check fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dualwrite.firestore.source import Scan
from dualwrite.model.check_fields import begun
from dualwrite.model.declaration import Collection
from dualwrite.model.windows import Window


def scans(collection: Collection, window: Window | None) -> Iterator[Scan]:
    """One scan a check field for a window; one scan of all documents without a window or a check field."""
    base = Scan(collection.collection_id, collection.fields, collection.top_level)
    if window is None or not collection.check_fields:
        yield base
    else:
        window = begun(collection.checks, window)
        for check in collection.checks:
            yield replace(base, check_field=check.field, check_format=check.format, window=window)
