"""What the target remembers of the keys that a run names: open or not, and what the journal has of them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dualwrite.model.history import KeyHistory
from dualwrite.model.named import Named
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import differences, journal
from dualwrite.runs.open_list import PAGE_BYTES, shown

MOST = 100
"""Keys of one run whose history is told."""


def histories(connection: Connection, named: Mapping[str, Named]) -> list[KeyHistory]:
    """Of each key that is named itself, not by its verdict, as far as they fit into an XCom: as the run left it. Ids, paths and names of columns."""
    found: list[KeyHistory] = []
    size = 0
    for name, what in named.items():
        for history in _of(connection, name, what):
            size += len(json.dumps(history, ensure_ascii=False).encode()) + 2
            if size > PAGE_BYTES or len(found) == MOST:
                return found
            found.append(history)
    return found


def _of(connection: Connection, name: str, what: Named) -> list[KeyHistory]:
    labels = sorted(what.keys)[:MOST]
    is_open = differences.told(connection, name, labels)
    return [
        {
            "collection": name,
            "key": shown(label),
            "open": is_open.get(label),
            "written": journal.of_key(connection, name, label),
        }
        for label in labels
    ]
