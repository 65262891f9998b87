"""What is to be read of a collection: all of it, a window by its check fields, or a slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dualwrite.firestore.source import Scan
from dualwrite.model.check_fields import begun
from dualwrite.model.declaration import Collection
from dualwrite.model.slices import Slice
from dualwrite.model.windows import Window


def scans(collection: Collection, window: Window | None, part: Slice | None = None) -> Iterator[Scan]:
    """What to read for a window: one scan a check field. All documents, where there is no window or no such field. Of a
    slice, only what lies in it."""
    base = Scan(collection.collection_id, collection.fields, collection.top_level)
    if part is not None and part.by == "name":
        yield replace(base, start=part.name_start, end=part.name_end)
    elif window is None or not collection.check_fields:
        yield base
    else:
        window = begun(collection.checks, window)
        if part is not None:  # and what tells whether another slice has the document
            window = part.window
            base = replace(base, fields=tuple(dict.fromkeys([*base.fields, *(c.field for c in collection.checks)])))
        for check in collection.checks:
            yield replace(base, check_field=check.field, check_format=check.format, window=window)
