"""Guesses the parts of documents' ids, if a sample proves them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dev.draft_reading import best_candidates, candidates_of, holds_id_of, spelled, text_path
from dev.draft_shapes import LiveColumn, Match, Names, Shape, Told, words
from dualwrite.model.live import is_key

_SEPARATORS = ("_", "-", ":", ".", "|", "~", "+", ",", ";", "@", "__", "--", "::")
_FEWEST = 2
"""Sampled ids: one alone proves nothing."""


def with_parts(matched: Match, by_table: Mapping[str, Match], shapes: Sequence[Shape], key: Sequence[str]) -> Match:
    """The match with an id of two parts in its path (`{user}_{product}`), if all sampled ids split in just one way, and a column of the
    key and another column hold the parts; otherwise the match as it is."""
    [shape, *others] = matched.shapes
    below = any(s.path.startswith(f"{shape.path}/") for s in shapes)
    split = _split(shape.ids) if not others and not below and matched.entries is None else None
    if split is None:
        return matched
    columns: list[LiveColumn] = []
    for number in (0, 1):
        able = [c for c in matched.table.columns if c not in columns and _holds(matched, c, split, number, by_table)]
        columns += sorted(able, key=lambda c: c.name not in key)[:1]
    if len(columns) < 2 or not {c.name for c in columns} & {*key}:
        return matched
    first, second = _variables([c.name for c in columns], shape.variables[:-1])
    path = f"{shape.path.rsplit('/', 1)[0]}/{{{first}}}{split}{{{second}}}"
    ground = f"{matched.ground}, and {len(shape.ids)} sampled ids that split at {split!r} alone"
    parts = {columns[0].name: first, columns[1].name: second}
    return replace(matched, shapes=(replace(shape, path=path),), ground=ground, parts=parts)


@dataclass(frozen=True)
class Held:
    """A field that looks like a column, beside an id of the path: in how many sampled documents it is that id, and in how many another
    value. `alike`: how alike the names are. `tells`: each document has it, and no two the same."""

    names: Names
    alike: float
    same: int
    other: int
    tells: bool

    @property
    def is_it(self) -> bool:
        return self.same > 0 and self.other == 0

    @property
    def is_named_so(self) -> bool:
        """Whether its name says that it is the column's value."""
        return self.alike >= 0.9

    @property
    def shown(self) -> str:
        return f"field {text_path(self.names) or str(self.names)!r}"


def held(matched: Match, column: LiveColumn, variable: str | None = None) -> Held | None:
    """The field that looks like a column, beside the document's id, or the one at a variable of its path; None if no field looks
    like it."""
    candidates = best_candidates(matched.fields, matched.table, column)
    if not candidates:
        return None
    (alike, names, _), same, there, values = candidates[0], 0, 0, list[str]()
    for shape in matched.shapes:
        for told in shape.documents:
            value = told.names.get(names)
            there += names in told.present
            same += value is not None and value == _id_at(shape, told, variable)
            values += [] if value is None else [value]
    return Held(names, alike, same, there - same, len(values) == len({*values}) == matched.sampled)


def sharing(matched: Match, origins: Sequence[str]) -> int:
    """How many sampled documents have the values of another, if they come from these origins; 0 if one isn't known."""
    fields = {f"Field({spelled(names)})": names for names in matched.fields}
    variables = {f"Segment({v!r})": v for s in matched.shapes for v in s.variables}
    if not origins or any(o not in fields and o not in variables and o != "DocumentId()" for o in origins):
        return 0
    keys = [
        tuple(told.names.get(fields[o]) if o in fields else _id_at(shape, told, variables.get(o)) for o in origins)
        for shape in matched.shapes
        for told in shape.documents
    ]
    keys = [values for values in keys if None not in values]
    return len(keys) - len({*keys})


def _id_at(shape: Shape, told: Told, variable: str | None) -> str | None:
    """The id of a document's path at a variable; None if it isn't known."""
    if variable is None:
        return told.ids[-1]
    parts = shape.path.split("/")[1::2]
    if f"{{{variable}}}" not in parts:  # a part of an id
        return None
    behind = len(parts) - parts.index(f"{{{variable}}}")
    return told.ids[-behind] if behind <= len(told.ids) else None


def _split(ids: set[str]) -> str | None:
    """The separator that splits each id in two; None if none does, or several."""
    able = [s for s in _SEPARATORS if len(ids) >= _FEWEST and all(_in_two(id_, s) for id_ in ids)]
    return able[0] if len(able) == 1 else None


def told_of_split(matched: Match, key: Sequence[str]) -> str:
    """A remark that asks a person about ids of two parts whose meaning nothing proves; empty if the ids don't have two."""
    split = (
        _split(matched.shapes[0].ids)
        if len(matched.shapes) == 1 and matched.entries is None and len(key) == 2
        else None
    )
    if split is None:
        return ""
    first, second = _variables(key, matched.shapes[0].variables[:-1])
    path = f"{matched.shapes[0].path.rsplit('/', 1)[0]}/{{{first}}}{split}{{{second}}}"
    return (
        f"; all sampled ids split at {split!r}: if that is its key, the path is {path!r}, and each column its Segment"
    )


def _in_two(id_: str, separator: str) -> bool:
    parts = id_.split(separator)
    return len(parts) == 2 and all(parts)


def _holds(matched: Match, column: LiveColumn, split: str, number: int, by_table: Mapping[str, Match]) -> bool:
    """Whether a column holds a part of the ids: its field does in each document, or all such parts are ids of its parent."""
    documents = matched.shapes[0].documents
    parts = [told.ids[-1].split(split)[number] for told in documents]
    if not all(is_key(column.live, part) for part in parts):
        return False
    for _, names, _ in candidates_of(matched.fields, matched.table, column)[:1]:
        if all(told.names.get(names) == part for told, part in zip(documents, parts, strict=True)):
            return True
    foreign = matched.table.key_to(column.name)
    parent = by_table.get(foreign.table) if foreign else None
    parents = (
        list(parent.shapes)
        if parent is not None
        else [s for m in by_table.values() for s in m.shapes if m.entries is None and holds_id_of(column, s)]
    )
    return any(set(parts) <= s.ids for s in parents)


def _variables(columns: Sequence[str], taken: Sequence[str]) -> list[str]:
    names: list[str] = []
    for number, column in enumerate(columns):
        name = re.sub(r"\W", "_", "_".join(words(column)), flags=re.ASCII)
        free = name.isidentifier() and name not in (*taken, *names)
        names.append(name if free else f"part_{number + 1}_{len(taken)}")
    return names
