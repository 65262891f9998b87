"""Guesses a table's key, and the columns that an id of the document's path fills, or its entry.

A foreign key says it, or a column's name; a field that looks like the column says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dev.draft_entries import from_entry, names_entries
from dev.draft_ids import Held, held, sharing
from dev.draft_shapes import ForeignKey, LiveColumn, Match, words
from dualwrite.model.live import TEXTS as TEXT_COLUMNS
from dualwrite.model.live import is_key

_ITS_ID = "the document's id"


def key_of(found: Match) -> tuple[str, ...]:
    """The columns that identify the document: the primary key, unless Postgres generates its value and the documents' ids can't be
    it; then a unique key, rather one that the ids fill."""
    table = found.table
    own = {c.name for c in table.columns if c.default is not None or c.identity or c.live.generated} | {*table.triggers}
    natural = [u for u in table.unique if not set(u) & own]
    of_ids = [u for u in natural if found.entries is None and any(_may_be_id(found, name) for name in u)]
    if not natural or (table.primary and _is_written(found, own, bool(of_ids))):
        return table.primary
    return (of_ids or natural)[0]


def _is_written(found: Match, own: set[str], other: bool) -> bool:
    """Whether the app seems to write the primary key itself. `other`: whether the ids may be another key, too."""
    columns = [c for c in found.table.columns if c.name in found.table.primary]
    if found.entries is not None:
        return not {*found.table.primary} & own and (len(columns) > 1 or names_entries(found, columns[0]))
    if not {*found.table.primary} & own:
        repeated = len(columns) == 1 and sharing(found, ["DocumentId()"]) and held(found, columns[0]) is None
        return not (other and repeated)
    return not other and len(columns) == 1 and not columns[0].live.generated and ids_fit(found, columns[0])


def ids_fit(found: Match, column: LiveColumn) -> bool:
    """Whether a column can hold all sampled ids."""
    ids = [id_ for shape in found.shapes for id_ in shape.ids]
    return bool(ids) and all(is_key(column.live, id_) for id_ in ids)


def _may_be_id(found: Match, name: str) -> bool:
    """Whether a column may hold the documents' ids: no field is called like it, or that is the id."""
    column = next(c for c in found.table.columns if c.name == name)
    field_ = held(found, column)
    there = field_ is None or field_.is_it or not field_.is_named_so
    return there and found.table.key_to(name) is None and ids_fit(found, column)


def from_path(
    found: Match, column: LiveColumn, by_table: Mapping[str, Match], key: tuple[str, ...], taken: set[object]
) -> tuple[str, str, str] | None:
    """An origin that needs no field: from the document's path, or its entry. Its type, and the remark on it."""
    shape, is_key_ = found.shapes[0], column.name in key
    foreign = found.table.key_to(column.name)
    parent = by_table.get(foreign.table) if foreign else None
    if parent is not None:
        segment = _segment(found, parent, nullable=not column.not_null)
        # a second reference to the same table is a field's
        if segment is not None and segment not in taken and (told := _claim(found, column, segment, key)):
            taken.add(segment)
            return segment, "text", told
    several = next(
        filter(None, (_segment_of_several(found, column, k, by_table) for k in found.table.keys_with(column.name))),
        None,
    )
    if several is not None:
        return several, "text", "GUESS the id above, as in the row that it references"
    if found.entries is not None:
        return from_entry(found, column, is_key_, taken)
    if column.name in found.parts:
        return f"Segment({found.parts[column.name]!r})", "text", "GUESS a part of the id"
    above = _above(found, column, is_key_)
    if key == (column.name,) and shape.fixed:  # it says nothing of its parent
        variable = shape.variables[-1]
        return f"Segment({variable!r})", "text", _beside(held(found, column, variable), "the id above")
    by_name = key == (column.name,) or (is_key_ and column.name.removesuffix("_id") == shape.variables[-1])
    alone = is_key_ and len(found.shapes) == 1 and "DocumentId" not in taken and not shape.fixed and not found.parts
    if by_name or (alone and above is None):
        told = _document_id(found, column, key, by_name)
        if told:
            taken.add("DocumentId")
        return ("DocumentId()", "text", told) if told else None
    if above is not None:
        return f"Segment({above!r})", "text", "GUESS from the path, by name: there is no foreign key"
    return None


def _above(found: Match, column: LiveColumn, is_key_: bool) -> str | None:
    """The variable of a document above that a column is called like, though no foreign key says so."""
    variables = set.intersection(*(set(s.above) for s in found.shapes))
    named = column.name.endswith("_id") or is_key_ or found.table.refers(column.name)
    able = column.live.kind in TEXT_COLUMNS | {"uuid"} and named
    for variable in sorted(v for v in variables if able and words(v) == words(column.name)):
        field_ = held(found, column, variable)
        if field_ is None or (is_key_ and (field_.is_it or not field_.is_named_so)):
            return variable
    return None


def _segment_of_several(found: Match, column: LiveColumn, key: ForeignKey, by_table: Mapping[str, Match]) -> str | None:
    """Where a part of a key of several columns stands in the path, if that lies below the referenced document's."""
    parent = by_table.get(key.table)
    if parent is None or parent.table is found.table or parent.entries is not None or len(parent.shapes) > 1:
        return None
    [above] = parent.shapes
    if any(
        not f"{s.path}/".startswith(f"{above.path}/") or (s is above and found.entries is None) for s in found.shapes
    ):
        return None
    held_ = next(c for c in parent.table.columns if c.name == key.to[key.columns.index(column.name)])
    by_path = from_path(parent, held_, by_table, key_of(parent), set())
    if by_path is None or not by_path[0].startswith(("DocumentId()", "Segment(")):
        return None
    return by_path[0] if by_path[0].startswith("Segment(") else f"Segment({above.variables[-1]!r})"


def _document_id(found: Match, column: LiveColumn, key: Sequence[str], by_name: bool) -> str:
    """The remark on a key that is the document's id; empty if it is a field, which isn't the id and tells documents apart, or if most
    ids can't be it."""
    field_ = held(found, column)
    own = field_ is not None and field_.is_named_so and not field_.is_it
    if own and field_ is not None and (tuple(key) != (column.name,) or (field_.same == 0 and field_.tells)):
        return ""
    ids = [id_ for s in found.shapes for id_ in s.ids]
    wrong = sum(not is_key(column.live, id_) for id_ in ids)
    if by_name and 2 * wrong > len(ids):
        return ""
    told = _beside(field_, _ITS_ID)
    if wrong:
        told += f", {wrong} of {len(ids)} sampled ids are no key of this type: their documents are rejected"
    return told


def _beside(field_: Held | None, what: str) -> str:
    """The remark on a column that an id of the path fills, beside the field that looks like it."""
    if field_ is None or not (field_.is_it or field_.is_named_so or (field_.tells and what == _ITS_ID)):
        return f"GUESS {what}: no field looks like it"
    if field_.is_it:
        return f"GUESS {what}, which {field_.shown} is in each of {field_.same} sampled documents"
    count = f"{field_.other} of {field_.same + field_.other} sampled"
    return f"GUESS {what}, TODO {field_.shown} looks like it, and isn't that id in {count}: which of them has the row?"


def _claim(found: Match, column: LiveColumn, segment: str, key: Sequence[str]) -> str:
    """The remark on a column that takes an id of its path, as a reference to the document there; empty if another column, or a field
    of its own, is likelier."""
    foreign = found.table.key_to(column.name)
    assert foreign is not None
    rivals = [c for c in found.table.columns if (k := found.table.key_to(c.name)) and k.table == foreign.table]
    variable = segment[9:-2] if segment.startswith("Segment(") else ""
    fields = {c.name: held(found, c, variable) if variable else None for c in rivals}
    if found.entries is None and variable:
        rivals = [c for c in rivals if (f := fields[c.name]) is None or f.is_it or not f.is_named_so]
    ranked = sorted(rivals, key=lambda c: _rank(c, fields[c.name], variable, key))
    if not ranked or ranked[0].name != column.name:
        return ""
    field_ = fields[column.name]
    told = _beside(
        field_ if field_ is None or field_.is_named_so else None, "the id above" if found.entries is None else _ITS_ID
    )
    if len(ranked) > 1 and not ((f := fields[column.name]) and f.is_it):
        others = ", ".join(repr(c.name) for c in ranked[1:])
        told += f"; TODO it could be {others}, which reference{'s' if len(ranked) == 2 else ''} {foreign.table} too"
    return told


def _rank(column: LiveColumn, field_: Held | None, variable: str, key: Sequence[str]) -> tuple[bool, ...]:
    is_it = field_ is not None and field_.is_it
    return not is_it, words(column.name) != words(variable), field_ is not None and not is_it, column.name not in key


def _segment(found: Match, parent: Match, *, nullable: bool) -> str | None:
    """Where the referenced document stands in the path. One that may be null, of several paths, is the document above."""
    if (
        nullable
        and len(found.shapes) > 1
        and any(s.path.split("/")[-4:-3] == [parent.shapes[0].id] for s in found.shapes)
    ):
        return f"ParentId({parent.shapes[0].id!r})"
    heads = {shape.path for shape in parent.shapes}
    if found.entries is not None and found.shapes[0].path in heads:
        return f"Segment({found.shapes[0].variables[-1]!r})"
    segments = []
    for shape in found.shapes:
        parts = shape.path.split("/")
        at = [n for n in range(2, len(parts), 2) if "/".join(parts[:n]) in heads]
        segment = parts[at[-1] - 1] if at else ""
        segments.append(segment[1:-1] if segment.startswith("{") else None)
    if all(s is not None and s == segments[0] for s in segments):
        return f"Segment({segments[0]!r})"
    return None
