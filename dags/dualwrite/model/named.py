"""Pure: open differences as a person names them, one a line: `collection:key`, `collection:missing` (or stale, extra,
rejected: all with that verdict), or `collection:*`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dualwrite.model.verdicts import DRIFT

VERDICTS = frozenset(str(verdict) for verdict in DRIFT)
"""The words that stand for a verdict. A key of that name can't be named alone."""


@dataclass(frozen=True, slots=True)
class Named:
    """What is named of one collection: keys, and verdicts of which all are meant."""

    keys: frozenset[str] = frozenset()
    verdicts: frozenset[str] = frozenset()

    def names(self, label: str, verdict: str) -> bool:
        return label in self.keys or verdict in self.verdicts


def by_collection(pairs: Iterable[tuple[str, str]]) -> Mapping[str, Named]:
    """(collection, key) pairs as what is named of each collection."""
    keys: dict[str, set[str]] = {}
    verdicts: dict[str, set[str]] = {}
    for collection, key in pairs:
        words = VERDICTS if key == "*" else {key} & VERDICTS
        verdicts.setdefault(collection, set()).update(words)
        keys.setdefault(collection, set()).update(() if words else (key,))
    return {name: Named(frozenset(keys[name]), frozenset(verdicts[name])) for name in keys}
