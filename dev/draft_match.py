"""Guesses which collection fills which table, by names and by columns. Pure: shapes and tables in, pairs out, each with its ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dev.draft_ids import held
from dev.draft_path import key_of
from dev.draft_reading import TIMES, candidates_of, holds_id_of, text_path
from dev.draft_shapes import Left, LiveColumn, LiveTable, Match, Names, Shape, Within, likeness, variable_of, words
from dualwrite.model.declaration import is_template
from dualwrite.model.live import is_key


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
    groups = [tuple(cluster) for clusters in by_id.values() for cluster in clusters]
    return groups + [(shape,) for cluster in groups if len(cluster) > 1 for shape in cluster]


def _alike(one: Shape, other: Shape) -> float:
    a, b = ({names for names in shape.fields if len(names) == 1} for shape in (one, other))
    return len(a & b) / len(a | b) if a | b else 1.0


def match(shapes: Sequence[Shape], tables: Sequence[LiveTable]) -> tuple[list[Match], Left]:
    """The likeliest pairs, each table and each path once; then the rest."""
    known = [table for table in tables if not table.odd and table.columns]
    often: dict[tuple[str, ...], int] = {}
    for table in known:
        for name in {words(c.name) for c in table.columns}:
            often[name] = often.get(name, 0) + 1
    groups = groups_of(shapes)
    scored = [_score(table, group, often) for table in known for group in groups]
    scored += _entries(known, shapes, _taken(scored), often)
    ordered = _in_order(scored)
    matches = _taken(scored)
    unfixed = _unfixed(shapes, matches)
    if unfixed != [*shapes]:
        return match(unfixed, tables)
    used = {(shape.path, match_.entries) for match_ in matches for shape in match_.shapes}
    left = []
    for table in tables:
        if table not in [m.table for m in matches]:
            near = max(((v, m) for v, m in scored if m.table is table), key=lambda s: s[0], default=None)
            told = f"{near[1].shapes[0].path} is nearest, by {near[1].ground}" if near and near[0] >= 0.25 else ""
            left.append((table, _rows_within(table, shapes) or _called_so(table, shapes) or told))
    paths = {path for path, entries in used if entries is None}
    rest = tuple(shape for shape in shapes if shape.path not in paths)
    taken = [m.table for m in matches]
    shared: dict[str, Match] = {}
    for value, match_ in ordered:
        if value >= 0.5 and match_.entries is None and match_.table in taken:
            for shape in match_.shapes:
                if shape in rest:
                    shared.setdefault(shape.path, match_)
    others = [
        (m, by)
        for value, m in ordered
        if value >= 0.5 and m.entries is not None
        for by in matches
        if by.table is m.table
    ]
    fields = [(m, by) for m, by in others if (m.shapes[0].path, m.entries) not in used]
    return matches, Left(tuple(left), rest, shared, tuple(fields))


def _unfixed(shapes: Sequence[Shape], matches: Sequence[Match]) -> list[Shape]:
    """The shapes, without one fixed id that is a document's of another collection: the same admin in each sampled room."""
    paths, filled = (
        [shape.path for shape in shapes],
        {s.path: m for m in matches if m.entries is None for s in m.shapes},
    )
    several = [s.ids for s in shapes if not s.fixed and len(s.ids) > 1]
    for shape in [s for s in shapes if s.fixed]:
        head = shape.path.rsplit("/", 1)[0]
        if any(
            path != shape.path and not path.startswith(f"{shape.path}/") and path.startswith(f"{head}/")
            for path in paths
        ):
            continue  # other ids beside it, and each has fields of its own
        is_known = any(shape.fixed in ids for ids in several)
        match_ = filled.get(shape.path)
        if is_known if match_ is None else _tells_id(match_, shape, is_known=is_known):
            below = [path for path in paths if path.startswith(f"{shape.path}/")]
            path = f"{head}/{{{variable_of(shape.id, '/'.join([shape.path, *below]))}}}"
            return [_moved(s, shape, path) for s in shapes]
    return [*shapes]


def _tells_id(matched: Match, shape: Shape, *, is_known: bool) -> bool:
    """Whether a column of the key holds the documents' id, the same below each sampled parent, beside a column that holds the
    parent's. `is_known`: another collection has a document of that id."""
    key = [c for c in matched.table.columns if c.name in key_of(matched)]
    above = [*shape.variables, *shape.collections[:-1]]
    for column in [c for c in key if len(key) > 1 and not c.filled and is_key(c.live, shape.fixed or "")]:
        foreign = matched.table.key_to(column.name)
        to = foreign.table.rsplit(".", 1)[-1] if foreign else ""
        is_above = any(words(name) in (words(column.name), words(to)) for name in above)
        field_ = held(matched, column)
        if (foreign or is_known) and not is_above and (field_ is None or field_.is_it):
            return True
    return False


def _moved(shape: Shape, fixed: Shape, path: str) -> Shape:
    """A shape whose path has a variable for an id that isn't fixed."""
    if shape.path != fixed.path and not shape.path.startswith(f"{fixed.path}/"):
        return shape
    left = {id_: n for id_, n in shape.fixed_ids.items() if id_ != fixed.fixed}
    return replace(shape, path=path + shape.path[len(fixed.path) :], fixed_ids=left)


Scored = tuple[float, Match]
"""How likely, from 0 to a little above 1: a pair counts from 0.5."""


def _in_order(scored: Sequence[Scored]) -> list[Scored]:
    ordered = sorted(enumerate(scored), key=lambda s: (-round(s[1][0], 6), -len(s[1][1].shapes), s[0]))
    return [pair for _, pair in ordered]


def _taken(scored: Sequence[Scored]) -> list[Match]:
    """The likeliest pairs, each table and each path, or field of a path, once."""
    taken: list[Match] = []
    used: set[tuple[str, Names | None]] = set()
    for value, match_ in _in_order(scored):
        ways = {(shape.path, match_.entries) for shape in match_.shapes}
        if value >= 0.5 and match_.table not in [m.table for m in taken] and not ways & used:
            taken.append(match_)
            used |= ways
    return taken


def _entries(
    tables: Sequence[LiveTable], shapes: Sequence[Shape], matches: Sequence[Match], often: Mapping[tuple[str, ...], int]
) -> list[Scored]:
    """How likely a table's rows are the entries of a field. Such a table names the collection whose documents hold them."""
    sampled = [shape for shape in shapes if is_template(shape.path) and shape.sampled]
    return [
        _score_entries(table, shape, names, often)
        for table in tables
        for shape in sampled
        if _is_of(table, shape, matches)
        for names in shape.entries
        if text_path(names) is not None
    ]


def _is_of(table: LiveTable, shape: Shape, matches: Sequence[Match]) -> bool:
    """Whether a row of the table names a document of the collection: by a foreign key to its table, or by a column's name."""
    filled = {m.table.name for m in matches if shape in m.shapes}
    referenced = {key.table for key in table.foreign if len(key.columns) == 1} - {table.name}
    by_name = any(likeness(name.rsplit(".", 1)[-1], shape.id) == 1 for name in referenced)
    held = any(holds_id_of(c, shape) for c in table.columns if table.primary != (c.name,))
    return bool(filled & referenced) or by_name or held


def _score_entries(table: LiveTable, shape: Shape, names: Names, often: Mapping[tuple[str, ...], int]) -> Scored:
    match_ = Match(table, (shape,), names)
    named = max(likeness(table.bare, f"{shape.id}_{names[-1]}"), likeness(table.bare, names[-1]) - 0.01)
    if shape.is_of_a_map_of_arrays(names) and named < 0.5:
        return 0.0, match_  # its rows are those of all the arrays
    if names in shape.lists and any(likeness(table.bare, id_) == 1 for id_ in shape.fields[names].refers):
        return 0.0, match_  # its rows are the documents that the references lead to
    own = [c for c in table.own if not holds_id_of(c, shape) and c.live.kind not in TIMES]
    if match_.maps is None:
        rest = len(own) - (names in shape.open_maps)  # the value
        return named - 0.3 * (rest > 0), replace(match_, ground="the names of collection and field")
    value, ground = _by_columns(match_, own, named, often)
    return value, replace(match_, ground=ground)


def _rows_within(table: LiveTable, shapes: Sequence[Shape]) -> str:
    """The maps in a document whose fields are like the table's columns."""
    for shape in shapes:
        for names, maps in shape.within.items():
            fields = {names[0] for names in maps.fields}
            shared = sum(any(likeness(c.name, f) == 1 for f in fields) for c in table.columns)
            if shared >= 2 or likeness(table.bare, f"{shape.id}_{names[-1]}") == 1:
                return f"the maps in {_called(shape, names)} of {shape.path} look like its rows, by {shared} of their fields{_why_not(maps)}"
    return ""


def _called_so(table: LiveTable, shapes: Sequence[Shape]) -> str:
    """The map that is called like the table, but whose keys are names of fields rather than entries, as far as sampled; or the array
    whose elements may be no rows."""
    for shape in shapes:
        for names, seen in shape.fields.items():
            alike = max(likeness(table.bare, f"{shape.id}_{names[-1]}"), likeness(table.bare, names[-1])) == 1
            if alike and seen.kind == "map" and text_path(names) is not None:
                return (
                    f"map {'.'.join(names)!r} of {shape.path} is called like it, but its keys seem to be names of fields, or its values are of "
                    f"several kinds: MapEntries({'.'.join(names)!r}), if each is a row"
                )
            if alike and seen.kind == "array" and text_path(names) is not None:
                holds = f"holds {' and '.join(sorted(seen.elements))}" if seen.elements else "is empty in all sampled"
                return (
                    f"{_called(shape, names)} of {shape.path} is called like it and {holds}: "
                    f"ArrayElements({'.'.join(names)!r}), or ComputedEntries, a function of yours, if each is a row"
                )
    return ""


def _called(shape: Shape, names: Names) -> str:
    if shape.is_of_a_map_of_arrays(names):
        return f"the arrays of map {'.'.join(names[:-1])!r}"
    return f"{'map' if names in shape.open_maps else 'array'} {'.'.join(names)!r}"


def _why_not(maps: Within) -> str:
    if maps.others:
        return "; beside them lie elements that are no maps, which would be rejected"
    return (
        ". If no column holds their document's id, or they lie in several arrays: ComputedEntries, a function of yours"
    )


def _score(table: LiveTable, group: tuple[Shape, ...], often: Mapping[tuple[str, ...], int]) -> tuple[float, Match]:
    """How likely a table's rows are these documents: by name, alone or behind the parent's (`order_lines` for
    orders/{o}/lines), and by columns; a column that every table has says little."""
    named = min(max(likeness(table.bare, name) for name in _names_of(shape)) for shape in group)
    matched = Match(table, group)
    value, ground = _by_columns(matched, table.own, named, often)
    above = {name for shape in group for name in shape.collections[:-1]}
    if any(likeness(key.table.rsplit(".", 1)[-1], name) == 1 for key in table.foreign for name in above):
        value += 0.05
    if len(group) > 1:  # all paths of like documents before one of them, unless a name says otherwise
        value += 0.1
    return value, replace(matched, ground=ground)


def _names_of(shape: Shape) -> list[str]:
    """The names that a table of its rows may have."""
    own = [shape.id, *([f"{shape.id}_{shape.fixed}", shape.fixed] if shape.fixed else [])]
    return [*own, *(f"{shape.collections[-2]}_{name}" for name in own if len(shape.collections) > 1)]


def _by_columns(
    matched: Match, own: Sequence[LiveColumn], named: float, often: Mapping[tuple[str, ...], int]
) -> tuple[float, str]:
    """How likely a table's rows are these documents or entries, by how alike their names are (`named`) and by columns; and the ground
    for that, in words."""
    weights = {c.name: 1 / max(1, often.get(words(c.name), 1)) for c in own}
    fields = matched.told
    hits = {c.name: best for c in own for best in candidates_of(fields, matched.table, c)[:1]}
    covered = sum(weights[name] for name in hits) / sum(weights.values()) if own else 0.0
    tops = {names[:1] for names in fields}
    filled = len({names[:1] for _, names, _ in hits.values()}) / len(tops) if tops else 0.0
    columns = 0.6 * covered + 0.4 * filled
    value = 0.65 * named + 0.35 * covered
    if len(hits) >= 2 and sum(weights[name] for name in hits) >= 1.5:
        value = max(value, 0.2 * named + 0.8 * columns)
    ground = f"{len(hits)} of {len(own)} columns"
    return value, f"its name and {ground}" if named >= 0.5 else ground
