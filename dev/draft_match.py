"""Guesses which collection fills which table, by names and by columns. Pure: shapes and tables in, pairs out, each with its ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dev.draft_guess import candidates_of, text_path
from dev.draft_shapes import Left, LiveTable, Match, Names, Shape, likeness, words
from dualwrite.model.declaration import is_template


def groups_of(shapes: Sequence[Shape]) -> list[tuple[Shape, ...]]:
    """Shapes of one collection id and with like fields, and each shape alone."""
    by_id: dict[str, list[list[Shape]]] = {}
    for shape in shapes:
        if not is_template(shape.path) or not shape.sampled:
            continue
        clusters = by_id.setdefault(shape.id, [])
        for cluster in clusters:
            if _alike(cluster[0], shape) >= 0.5:
                cluster.append(shape)
                break
        else:
            clusters.append([shape])
    found = [tuple(cluster) for clusters in by_id.values() for cluster in clusters]
    return found + [(shape,) for cluster in found if len(cluster) > 1 for shape in cluster]


def _alike(one: Shape, other: Shape) -> float:
    a, b = ({names for names in shape.fields if len(names) == 1} for shape in (one, other))
    return len(a & b) / len(a | b) if a | b else 1.0


def match(shapes: Sequence[Shape], tables: Sequence[LiveTable]) -> tuple[list[Match], Left]:  # noqa: C901 - a way to match after the other
    """The likeliest pairs, each table and each path once; then the rest."""
    known = [table for table in tables if not table.odd and table.columns]
    often: dict[tuple[str, ...], int] = {}
    for table in known:
        for name in {words(c.name) for c in table.columns}:
            often[name] = often.get(name, 0) + 1
    scored: list[tuple[float, Match]] = []
    groups = groups_of(shapes)
    for table in known:
        scored += [_score(table, group, often) for group in groups]
        for shape in shapes:
            if not is_template(shape.path) or not table.foreign:
                continue
            for names in dict.fromkeys([*shape.open_maps, *shape.lists]):
                if text_path(names) is None:
                    continue
                value = max(likeness(table.bare, f"{shape.id}_{names[-1]}"), likeness(table.bare, names[-1]) - 0.01)
                scored.append((value, Match(table, (shape,), names, "the names of collection and field")))
    ordered = sorted(enumerate(scored), key=lambda s: (-round(s[1][0], 6), -len(s[1][1].shapes), s[0]))
    found: list[Match] = []
    used: set[tuple[str, Names | None]] = set()
    for _, (value, match_) in ordered:
        ways = {(shape.path, match_.entries) for shape in match_.shapes}
        if value >= 0.5 and match_.table not in [m.table for m in found] and not ways & used:
            found.append(match_)
            used |= ways
    left = []
    for table in tables:
        if table not in [m.table for m in found]:
            near = max(((v, m) for v, m in scored if m.table is table), key=lambda s: s[0], default=None)
            told = f"{near[1].shapes[0].path} is nearest, by {near[1].ground}" if near and near[0] >= 0.25 else ""
            left.append((table, _rows_within(table, shapes) or told))
    paths = {path for path, entries in used if entries is None}
    rest = tuple(shape for shape in shapes if shape.path not in paths)
    taken = [m.table for m in found]
    shared: dict[str, Match] = {}
    for _, (value, match_) in ordered:
        if value >= 0.5 and match_.entries is None and match_.table in taken:
            for shape in match_.shapes:
                if shape in rest:
                    shared.setdefault(shape.path, match_)
    return found, Left(tuple(left), rest, shared)


def _rows_within(table: LiveTable, shapes: Sequence[Shape]) -> str:
    """The array of maps whose fields are like the table's columns."""
    for shape in shapes:
        for names, fields in shape.holds.items():
            shared = sum(any(likeness(c.name, f) == 1 for f in fields) for c in table.columns)
            if shared >= 2 or likeness(table.bare, f"{shape.id}_{names[-1]}") == 1:
                return f"the maps in array {'.'.join(names)!r} of {shape.path} look like its rows, by {shared} of their fields"
    return ""


def _score(table: LiveTable, group: tuple[Shape, ...], often: Mapping[tuple[str, ...], int]) -> tuple[float, Match]:
    """How likely a table's rows are these documents: by name, alone or behind the parent's (`order_lines` for
    orders/{o}/lines), and by columns; a column that every table has says little."""
    named = min(
        max(
            likeness(table.bare, name)
            for name in (shape.id, *([f"{shape.collections[-2]}_{shape.id}"] if len(shape.collections) > 1 else []))
        )
        for shape in group
    )
    found = Match(table, group)
    own = [
        c for c in table.columns if not c.live.generated and c.name not in table.primary and not table.key_to(c.name)
    ]
    weights = {c.name: 1 / max(1, often.get(words(c.name), 1)) for c in own}
    fields = found.fields
    hits = {c.name: best for c in own for best in candidates_of(fields, table, c)[:1]}
    covered = sum(weights[name] for name in hits) / sum(weights.values()) if own else 0.0
    tops = {names[:1] for names in fields}
    filled = len({names[:1] for _, names, _ in hits.values()}) / len(tops) if tops else 0.0
    columns = 0.6 * covered + 0.4 * filled
    above = {name for shape in group for name in shape.collections[:-1]}
    value = 0.65 * named + 0.35 * covered
    if any(likeness(key.table.rsplit(".", 1)[-1], name) == 1 for key in table.foreign for name in above):
        value += 0.05
    if len(hits) >= 2 and sum(weights[name] for name in hits) >= 1.5:
        value = max(value, 0.2 * named + 0.8 * columns)
    if len(group) > 1:  # all paths of like documents before one of them, unless a name says otherwise
        value += 0.1
    ground = f"{len(hits)} of {len(own)} columns"
    return value, replace(found, ground=f"its name and {ground}" if named >= 0.5 else ground)
