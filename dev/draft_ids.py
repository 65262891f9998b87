"""Guesses what the parts of documents' ids are, where a sample proves it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dev.draft_reading import candidates_of, holds_id_of
from dev.draft_shapes import LiveColumn, Match, Shape, words
from dualwrite.model.live import is_key

_SEPARATORS = ("_", "-", ":", ".", "|", "~", "+", ",", ";", "@", "__", "--", "::")
_FEWEST = 2
"""Sampled ids: one alone proves nothing."""


def with_parts(found: Match, by_table: Mapping[str, Match], shapes: Sequence[Shape], key: Sequence[str]) -> Match:
    """The match with an id of two parts in its path (`{user}_{product}`), if all sampled ids split in just one way and each part is
    what a column of the key, and one more column, holds; else as it is."""
    [shape, *others] = found.shapes
    below = any(s.path.startswith(f"{shape.path}/") for s in shapes)
    split = _split(shape.ids) if not others and not below and found.entries is None else None
    if split is None:
        return found
    columns: list[LiveColumn] = []
    for number in (0, 1):
        able = [c for c in found.table.columns if c not in columns and _holds(found, c, split, number, by_table)]
        columns += sorted(able, key=lambda c: c.name not in key)[:1]
    if len(columns) < 2 or not {c.name for c in columns} & {*key}:
        return found
    first, second = _variables([c.name for c in columns], shape.variables[:-1])
    path = f"{shape.path.rsplit('/', 1)[0]}/{{{first}}}{split}{{{second}}}"
    ground = f"{found.ground}, and {len(shape.ids)} sampled ids that split at {split!r} alone"
    parts = {columns[0].name: first, columns[1].name: second}
    return replace(found, shapes=(replace(shape, path=path),), ground=ground, parts=parts)


def is_the_id(found: Match, column: LiveColumn) -> bool:
    """Whether the field that looks like a column holds its document's own id in each sampled document."""
    candidates = candidates_of(found.fields, found.table, column)
    documents = [(id_, told) for shape in found.shapes for id_, told in shape.texts.items()]
    return bool(candidates) and bool(documents) and all(told.get(candidates[0][1]) == id_ for id_, told in documents)


def _split(ids: set[str]) -> str | None:
    """What stands in the middle of each id, once; None if nothing does, or several things."""
    found = [s for s in _SEPARATORS if len(ids) >= _FEWEST and all(_in_two(id_, s) for id_ in ids)]
    return found[0] if len(found) == 1 else None


def _in_two(id_: str, separator: str) -> bool:
    parts = id_.split(separator)
    return len(parts) == 2 and all(parts)


def _holds(found: Match, column: LiveColumn, split: str, number: int, by_table: Mapping[str, Match]) -> bool:
    """Whether a column holds a part of the ids: its field does in each document, or all such parts are ids of its parent."""
    texts = found.shapes[0].texts
    parts = {id_: id_.split(split)[number] for id_ in found.shapes[0].ids}
    if not all(is_key(column.live, part) for part in parts.values()):
        return False
    for _, names, _ in candidates_of(found.fields, found.table, column)[:1]:
        if all(texts.get(id_, {}).get(names) == part for id_, part in parts.items()):
            return True
    foreign = found.table.key_to(column.name)
    parent = by_table.get(foreign.table) if foreign else None
    parents = (
        list(parent.shapes)
        if parent is not None
        else [s for m in by_table.values() for s in m.shapes if m.entries is None and holds_id_of(column, s)]
    )
    return any(set(parts.values()) <= s.ids for s in parents)


def _variables(columns: Sequence[str], taken: Sequence[str]) -> list[str]:
    found: list[str] = []
    for number, column in enumerate(columns):
        name = re.sub(r"\W", "_", "_".join(words(column)), flags=re.ASCII)
        free = name.isidentifier() and name not in (*taken, *found)
        found.append(name if free else f"part_{number + 1}_{len(taken)}")
    return found
