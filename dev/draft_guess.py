"""Guesses a catalog from the shape of two databases. Pure: shapes in, the text of a catalog.py out, each guess marked.

Names are data: whatever a collection, a field, a table or a column is called, it stands in the text as a string or, in a
comment, as one; what can't be declared is named in a comment.

What it is sure of comes from the target: tables, types, NOT NULL, keys, foreign keys. What it guesses is which collection
fills which table and which field which column, by their names; a person reads every line marked GUESS or TODO.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dualwrite.model.declaration import is_field_path, is_template


@dataclass
class Shape:
    """What a sample of one collection shows: ids and types, no content.

    `path` is a template. `fields`: dotted path -> the types seen. `always`: fields that every sampled document has.
    `open_maps`: map fields whose keys differ between documents, with the type of their values. `lists`: array fields
    of strings. `unsayable`: fields whose own names hold a dot or a backtick, by the names on their way.
    """

    path: str
    fields: dict[str, set[str]] = field(default_factory=dict)
    always: set[str] = field(default_factory=set)
    open_maps: dict[str, str] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    unsayable: set[tuple[str, ...]] = field(default_factory=set)
    sampled: int = 0

    @property
    def id(self) -> str:
        return self.path.split("/")[-2]

    @property
    def variables(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/")[1::2]]


@dataclass(frozen=True)
class LiveColumn:
    """A column of the target. `default` is its SQL, None where it has none."""

    name: str
    type: str
    not_null: bool
    default: str | None


@dataclass(frozen=True)
class LiveTable:
    """A table of the target. `foreign` maps a column to the table that it references (one-column keys only)."""

    name: str
    columns: tuple[LiveColumn, ...]
    primary: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    foreign: Mapping[str, str]
    odd: bool = False
    """Its own name holds a dot, so it can't be declared."""

    @property
    def bare(self) -> str:
        return self.name.rsplit(".", 1)[-1]


_TYPES = {
    "text": "text", "character varying": "text", "integer": "integer", "bigint": "integer", "smallint": "integer",
    "numeric": "numeric", "boolean": "boolean", "timestamp with time zone": "timestamp", "jsonb": "json",
}  # fmt: skip
_FITS = {
    "text": {"str"}, "integer": {"int", "float"}, "numeric": {"int", "float"}, "boolean": {"bool"},
    "timestamp": {"datetime"}, "json": {"dict", "list"},
}  # fmt: skip
_CREATED = ("created_at", "timestamp", "saved_at", "placed_at", "added_at", "joined_at", "created", "time", "date")
_UPDATED = ("updated_at", "changed_at", "modified_at", "updated", "changed", "modified")
_COUNTER = re.compile(r"(^|_)(counts?|counter|score|total_of|number_of)(_|$)|^(count|number)_of_")


def words(name: str) -> tuple[str, ...]:
    """`waitingUsersIds`, `waiting_users` and `WaitingUser` as the same singular words: waiting, user."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower().split("_")
    stems = [_singular(part) for part in parts if part]
    return tuple(stem for stem in stems if stem not in ("id", "uid")) or tuple(stems)


def _singular(word: str) -> str:
    for ending, singular in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x")):
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return word.removesuffix("s") if not word.endswith(("ss", "us")) else word


def likeness(one: str, other: str) -> float:
    """How alike two names are: shared words against all words; 1 for equal ones."""
    a, b = set(words(one)), set(words(other))
    return len(a & b) / len(a | b) if a | b else 0.0


# --- which collection fills which table ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """A table and where its rows come from: the paths of one collection id, or entries of one of its fields."""

    table: LiveTable
    shapes: tuple[Shape, ...]
    entries: str | None = None


def match(shapes: Sequence[Shape], tables: Sequence[LiveTable]) -> tuple[list[Match], list[LiveTable], list[Shape]]:
    """The likeliest pairs, each table and each shape once; then the tables and the shapes that are left."""
    grouped: dict[str, list[Shape]] = {}
    for shape in shapes:
        if is_template(shape.path):
            grouped.setdefault(shape.id, []).append(shape)
    scored: list[tuple[float, int, LiveTable, tuple[Shape, ...], str | None]] = []
    for table in tables:
        if table.odd:
            continue
        for group in grouped.values():
            scored.append((_score(table, group), len(scored), table, tuple(group), None))
            for shape in group:
                parent = shape.id
                for name in filter(is_field_path, [*shape.open_maps, *shape.lists]):
                    value = max(likeness(table.bare, f"{parent}_{name}"), likeness(table.bare, name) - 0.01)
                    if len(table.foreign) >= 1:
                        scored.append((value, len(scored), table, (shape,), name))
    found: list[Match] = []
    used_tables: set[str] = set()
    used: set[tuple[str, str | None]] = set()
    for value, _, table, chosen, entries in sorted(scored, key=lambda s: (-s[0], s[1])):
        if value >= 0.5 and table.name not in used_tables and (chosen[0].id, entries) not in used:
            found.append(Match(table, chosen, entries))
            used_tables.add(table.name)
            used.add((chosen[0].id, entries))
    left = [shape for shape in shapes if (shape.id, None) not in used or not is_template(shape.path)]
    return found, [t for t in tables if t.name not in used_tables], left


def _score(table: LiveTable, group: Sequence[Shape]) -> float:
    """By name, alone or behind the parent's (`order_lines` for orders/{o}/lines), and a little by columns."""
    shape = group[0]
    segments = shape.path.split("/")[0::2]
    names = [shape.id] + ([f"{segments[-2]}_{shape.id}"] if len(segments) > 1 else [])
    fields = {words(name.rsplit(".", 1)[-1]) for s in group for name in s.fields}
    own = [c for c in table.columns if c.name not in table.foreign and c.name not in table.primary]
    shared = sum(words(c.name) in fields for c in own) / max(1, len(own))
    return max(likeness(table.bare, name) for name in names) * 0.8 + shared * 0.2


# --- columns ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guess:
    """One line of a draft: the column's declaration, or None where it is left out; and what a person should know."""

    column: LiveColumn
    text: str | None
    remark: str = ""


def _key(found: Match) -> tuple[str, ...]:
    """The columns that tell the document: the primary key, unless it is a default that no document knows."""
    table = found.table
    defaults = {c.name for c in table.columns if c.default is not None}
    if not set(table.primary) & defaults and (found.entries is None or len(table.primary) > 1):
        return table.primary
    natural = [u for u in table.unique if not set(u) & defaults]
    return natural[0] if natural else table.primary


def guess_columns(found: Match, by_table: Mapping[str, Match]) -> list[Guess]:
    """A declaration for each column of a table."""
    key = _key(found)
    taken: set[str] = set()
    guesses = []
    for column in found.table.columns:
        kind = _TYPES.get(column.type)
        if kind is None:
            guesses.append(Guess(column, None, f"TODO {column.type!r} is no type that can be declared"))
            continue
        if column.name in found.table.primary and column.name not in key:
            continue  # left to its default
        origin, remark = _origin(found, column, kind, by_table, key, taken)
        if origin is None:
            needs = column.not_null and column.default is None
            told = "TODO it is NOT NULL and needs a value" if needs else "no field looks like it"
            alike = sorted(
                ".".join(map(repr, names))
                for shape in found.shapes
                for names in shape.unsayable
                if likeness(column.name, re.sub(r"[.`]", "_", names[-1])) >= 0.5
            )
            if alike:
                told = f"TODO field {alike[0]} looks like it, and can't be declared: a dot or a backtick is in its own name"
            guesses.append(Guess(column, None, told))
            continue
        if kind == "json" and origin.startswith("Field") and column.default is not None:
            remark = f"{remark} TODO an absent field doesn't become its default, {column.default!r}".strip()
        guesses.append(Guess(column, _declaration(found, column, kind, origin, key, by_table), remark))
    return guesses


def _origin(
    found: Match,
    column: LiveColumn,
    kind: str,
    by_table: Mapping[str, Match],
    key: tuple[str, ...],
    taken: set[str],
) -> tuple[str | None, str]:
    shape = found.shapes[0]
    parent = by_table.get(found.table.foreign.get(column.name, ""))
    if parent is not None:
        segment = _segment(found, parent, nullable=not column.not_null)
        if segment is not None and segment not in taken:  # a second reference to the same table is a field's
            taken.add(segment)
            return segment, ""
    if found.entries is not None:
        if column.name in key:
            return "EntryKey()", "GUESS"
        if found.entries in shape.open_maps and kind != "timestamp":
            return "EntryValue()", "GUESS"
        return ("CreateTime()", "") if kind == "timestamp" else (None, "")
    if key == (column.name,) or (column.name in key and column.name.removesuffix("_id") == shape.variables[-1]):
        return "DocumentId()", ""
    if column.name in key and len(found.shapes) == 1 and "DocumentId" not in taken and not _fields(found, column, kind):
        taken.add("DocumentId")
        return "DocumentId()", "GUESS the document's id"
    variables = set.intersection(*(set(s.variables[:-1]) for s in found.shapes))
    named = [v for v in variables if words(v) == words(column.name) and column.name.endswith("_id")]
    if named and not _fields(found, column, kind):
        return f"Segment({named[0]!r})", "GUESS by name: there is no foreign key"
    candidates = [name for name in _fields(found, column, kind) if name not in taken]
    if candidates:
        best = candidates[0]
        taken.add(best)
        exact = words(best.rsplit(".", 1)[-1]) == words(column.name)
        remark = "" if exact and len(candidates) == 1 else f"GUESS field {best!r}"
        if kind == "timestamp" and column.not_null:
            return f"Field({best!r}, CreateTime())", remark
        return f"Field({best!r})", remark
    if kind == "timestamp":
        created = _check_fields(shape)[:1]
        stand_in = f"Field({created[0]!r}, CreateTime())" if created else "CreateTime()"
        return stand_in, "GUESS no field looks like it: set on insert, never compared"
    return None, ""


def _segment(found: Match, parent: Match, *, nullable: bool) -> str | None:
    """Where the referenced document stands in the path. One that may be null, of several paths, is the document above."""
    if nullable and len(found.shapes) > 1 and any(s.path.split("/")[-4] == parent.shapes[0].id for s in found.shapes):
        return f"ParentId({parent.shapes[0].id!r})"
    heads = {shape.path for shape in parent.shapes}
    if found.entries is not None and found.shapes[0].path in heads:
        return f"Segment({found.shapes[0].variables[-1]!r})"
    segments = []
    for shape in found.shapes:
        parts = shape.path.split("/")
        at = [n for n in range(2, len(parts), 2) if "/".join(parts[:n]) in heads]
        segments.append(parts[at[-1] - 1][1:-1] if at else None)
    if all(s is not None and s == segments[0] for s in segments):
        return f"Segment({segments[0]!r})"
    return None


def _fields(found: Match, column: LiveColumn, kind: str) -> list[str]:
    """Fields of a fitting type whose name is like the column's, the likeliest first."""
    seen: dict[str, set[str]] = {}
    for shape in found.shapes:
        for name, types in shape.fields.items():
            seen.setdefault(name, set()).update(types - {"NoneType"})
    scored = []
    for name, types in seen.items():
        if not types or not types <= _FITS[kind]:
            continue
        value = max(likeness(column.name, name.rsplit(".", 1)[-1]), likeness(column.name, name.replace(".", "_")))
        if kind == "timestamp":
            for group in (_CREATED, _UPDATED):
                if column.name in group and "_".join(words(name)) in {"_".join(words(g)) for g in group}:
                    value = max(value, 0.6)
        if value >= 0.5:
            scored.append((-value, name.count("."), name))
    return [name for _, _, name in sorted(scored)]


def _declaration(
    found: Match,
    column: LiveColumn,
    kind: str,
    origin: str,
    key: tuple[str, ...],
    by_table: Mapping[str, Match],
) -> str:
    insert_only = kind == "timestamp" and (
        origin == "CreateTime()" or ("CreateTime" in origin and not _fields(found, column, kind))
    )
    role = "key" if column.name in key else "insert_only" if insert_only else "compared"
    if kind in ("integer", "numeric") and _COUNTER.search(column.name):
        role = "derived"
    parts = [repr(column.name), repr(role), origin]
    if kind != "text":
        parts.append(repr(kind))
    path_given = origin.startswith(("DocumentId", "Segment", "EntryKey"))
    if column.not_null and not (role == "key" and path_given):
        parts.append("required=True")
    absent = _absent(column, kind)
    target = found.table.foreign.get(column.name)
    if absent is not None and origin.startswith("Field") and target not in by_table:
        parts.append(f"absent={absent}")
    if target in by_table:
        parts.append(f"references={by_table[str(target)].table.bare!r}")
    return f"Column({', '.join(parts)})"


def _absent(column: LiveColumn, kind: str) -> str | None:
    """A column's default as Python, where it is a plain value that catalog.py can write for this type."""
    default = column.default or ""
    if kind == "text" and (literal := re.fullmatch(r"'((?:[^']|'')*)'(?:::[\w ]+)?", default)):
        return repr(literal[1].replace("''", "'"))
    if kind in ("integer", "numeric") and (number := re.fullmatch(r"'?(-?\d+)'?(?:::[\w ]+)?", default)):
        value = int(number[1])
        return str(value) if kind == "numeric" or -(2**31) <= value < 2**31 else None
    return {"true": "True", "false": "False"}.get(default) if kind == "boolean" else None


def _check_fields(shape: Shape) -> list[str]:
    """Timestamp fields that say when a document was written; those that every sampled document has come first."""
    names = {"_".join(words(n)): rank for group in ((*_UPDATED,), (*_CREATED,)) for rank, n in enumerate(group)}
    found = [
        n
        for n, t in shape.fields.items()
        if is_field_path(n) and t - {"NoneType"} == {"datetime"} and "_".join(words(n)) in names
    ]
    return sorted(found, key=lambda n: (n not in shape.always, n))


# --- the text -----------------------------------------------------------------------------------------------------------


def render(
    matches: Iterable[Match], tables_left: Iterable[LiveTable], shapes_left: Iterable[Shape], export_time: str
) -> str:
    """The text of a catalog.py that imports as it stands, with what a person must look at marked."""
    matches = list(matches)
    by_table = {m.table.name: m for m in matches}
    variables = _variables(matches)
    out = [
        '"""DRAFT, made from a sample: which documents become which rows.',
        "",
        "Read every line that says GUESS or TODO, correct it, and remove the mark. docs/catalog.md explains the words.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from dualwrite.model.declaration import (  # noqa: F401",
        "    ArrayElements, Catalog, Collection, Column, CreateTime, DocumentId, EntryKey, EntryValue, Field, MapEntries,",
        "    Operations, ParentId, Segment,",
        ")  # fmt: skip",
        "",
        f"EXPORT_TIME = {export_time!r}  # TODO when the export was taken that first filled the target, with its offset",
        "",
    ]
    for found in matches:
        out += _collection(found, by_table, variables[found.table.name])
    for table in tables_left:
        if table.odd:
            out.append(f"# TODO table {table.name!r} can't be declared: a dot is in its own name.")
        else:
            out.append(f"# No collection looks like table {_said(table.name)}.")
    for shape in shapes_left:
        if not is_template(shape.path):
            out.append(f"# TODO {_said(shape.path)} can't be declared: braces are in its collections' names.")
        else:
            out.append(f"# No table looks like {_said(shape.path)} ({shape.sampled} sampled).")
    names = ", ".join(variables[m.table.name] for m in matches)
    out += ["", f"CATALOG = Catalog(({names}{',' if names else ''}))", ""]
    return "\n".join(out)


def _said(name: str) -> str:
    """A name in a comment: as it is if it is plain, else as a string, in which no line ends."""
    return name if re.fullmatch(r"[\w{}/.-]+", name) else repr(name)


def _variables(matches: Sequence[Match]) -> dict[str, str]:
    """What each table's collection is called in Python. Tables are called what they like."""
    found: dict[str, str] = {}
    for match_ in matches:
        name = re.sub(r"\W", "_", match_.table.bare, flags=re.ASCII).upper()
        if not name.isidentifier() or name in ("CATALOG", "EXPORT_TIME", *found.values()):
            name = f"TABLE_{len(found) + 1}"
        found[match_.table.name] = name
    return found


def _collection(found: Match, by_table: Mapping[str, Match], variable: str) -> list[str]:
    name, shape = found.table.bare, found.shapes[0]
    checks = (
        _check_fields(shape) if all(set(_check_fields(s)) == set(_check_fields(shape)) for s in found.shapes) else []
    )
    guesses = guess_columns(found, by_table)
    declared = [g.column.name for g in guesses if g.text is not None]
    times = {c.name for c in found.table.columns if _TYPES.get(c.type) == "timestamp"}
    written = [n for n in declared if n in times and n in (*_CREATED, *_UPDATED)]
    key = _key(found)
    unique = [u for u in found.table.unique if set(u) != set(key) and set(u) <= set(declared)]
    lines = [
        f"{variable} = Collection(",
        f"    name={name!r},",
        f"    table={found.table.name!r},",
        f"    paths=({', '.join(map(repr, (s.path for s in found.shapes)))},),  # GUESS by name, {shape.sampled} sampled",
    ]
    if found.entries is not None:
        kind = "MapEntries" if found.entries in shape.open_maps else "ArrayElements"
        lines.append(f"    entries={kind}({found.entries!r}),  # GUESS")
    if checks:
        rare = [c for c in checks if c not in shape.always]
        lines.append(f"    check_fields=({', '.join(map(repr, checks))},),  # GUESS{_rare(rare)}")
    else:
        lines.append("    # No check field: it is read whole every time. GUESS")
    if written:
        lines.append(f"    written_columns=({', '.join(map(repr, written))},),")
    if unique:
        lines.append(f"    unique=({', '.join(map(repr, unique))},),")
    lines.append(
        "    # TODO operations=(Operations('entity of write_ops', ('column', ...)),), if the app logs its writes"
    )
    lines.append("    selected=True,")
    lines.append("    columns=(")
    for guess in guesses:
        if guess.text is not None:
            lines.append(f"        {guess.text},{f'  # {guess.remark}' if guess.remark else ''}")
        else:
            lines.append(f"        # {_said(guess.column.name)} ({_said(guess.column.type)}): {guess.remark}.")
    told = sorted({".".join(map(repr, names)) for s in found.shapes for names in s.unsayable})
    lines += [f"    # TODO field {name} can't be declared: a dot or a backtick is in its own name." for name in told]
    return [*lines, "    ),", ")", ""]


def _rare(names: Sequence[str]) -> str:
    return (
        f": not every document has {', '.join(map(_said, names))}, and those without are seen by sweeps alone"
        if names
        else ""
    )
