"""The history of the keys that a run names: whether each is open, and its writes in the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dualwrite.model.history import KeyHistory
from dualwrite.model.named import Named
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import differences, journal
from dualwrite.runs.open_list import PAGE_BYTES, shown

MOST = 100
"""Keys of one run whose history is reported."""


def histories(connection: Connection, named: Mapping[str, Named]) -> list[KeyHistory]:
    """The history of each key that is named by itself, not by its verdict, as the run left it: at most MOST keys, and
    PAGE_BYTES together. Holds ids, times and actions, no content."""
    kept: list[KeyHistory] = []
    size = 0
    for name, what in named.items():
        for history in _of(connection, name, what):
            size += len(json.dumps(history, ensure_ascii=False).encode()) + 2
            if size > PAGE_BYTES or len(kept) == MOST:
                return kept
            kept.append(history)
    return kept


def _of(connection: Connection, name: str, what: Named) -> list[KeyHistory]:
    labels = sorted(what.keys)[:MOST]
    is_open = differences.open_keys(connection, name, labels)
    return [
        {
            "collection": name,
            "key": shown(label),
            "open": is_open.get(label),
            "written": journal.of_key(connection, name, label),
        }
        for label in labels
    ]
