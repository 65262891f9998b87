"""Pure: open differences as a person names them, one a line: `collection:key`, `collection:missing` (or stale, extra,
rejected: all with that verdict), or `collection:*`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dualwrite.model.verdicts import DRIFT

VERDICTS = frozenset(str(verdict) for verdict in DRIFT)
"""The words that name a verdict. A key that is such a word can't be named by itself."""


@dataclass(frozen=True, slots=True)
class Named:
    """The keys named in one collection, and the verdicts of which all are named."""

    keys: frozenset[str] = frozenset()
    verdicts: frozenset[str] = frozenset()

    def names(self, label: str, verdict: str) -> bool:
        """Whether a difference is named."""
        return label in self.keys or verdict in self.verdicts


def by_collection(pairs: Iterable[tuple[str, str]]) -> Mapping[str, Named]:
    """(collection, key) pairs, as `pairs` gives them, by collection."""
    keys: dict[str, set[str]] = {}
    verdicts: dict[str, set[str]] = {}
    for collection, key in pairs:
        words = VERDICTS if key == "*" else {key} & VERDICTS
        verdicts.setdefault(collection, set()).update(words)
        keys.setdefault(collection, set()).update(() if words else (key,))
    return {name: Named(frozenset(keys[name]), frozenset(verdicts[name])) for name in keys}
