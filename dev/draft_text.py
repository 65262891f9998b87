"""The text of a drafted catalog.py, which imports as it stands: each declaration in it was tried before it is written, and
one that the declaration's own checks refuse is in a comment with their reason.

Names are data: each is in the text as a string or, in a comment, without anything that could end the line.
"""

from __future__ import annotations

import itertools
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dev.draft_guess import (
    Declared,
    Guess,
    check_fields,
    guess_columns,
    other_times,
)
from dev.draft_ids import told_of_split, with_parts
from dev.draft_path import key_of
from dev.draft_reading import spelled
from dev.draft_shapes import ForeignKey, Left, LiveTable, Match, Names, Shape, tells_end, tells_writing
from dualwrite import settings
from dualwrite.model import check_fields as formats
from dualwrite.model import conditions, conversions, declaration
from dualwrite.model.declaration import Catalog, Collection, Column, Parent, is_template
from dualwrite.model.errors import CatalogError
from dualwrite.model.live import TEXTS

_WORDS: dict[str, Any] = {**vars(conversions), **vars(declaration), **vars(conditions), **vars(formats)}


@dataclass
class Part:
    """The draft of one table's collection. `columns`: the declarations that hold. `refused`: why the collection can't be declared."""

    matched: Match
    name: str
    variable: str
    guesses: list[Guess]
    columns: dict[str, Column] = field(default_factory=dict)
    options: list[tuple[str, str]] = field(default_factory=list)
    """Further arguments of the collection, each with a remark."""
    notes: list[str] = field(default_factory=list)
    refused: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """The collection's arguments besides its columns and options."""
        paths = tuple(shape.path for shape in self.matched.shapes)
        given = {"name": self.name, "table": self.matched.table.name, "paths": paths}
        if self.matched.entries is not None:
            given["entries"] = eval(_entries(self.matched), dict(_WORDS))
        return given

    def collection(self, columns: Mapping[str, Column], **options: Any) -> Collection:
        """The collection with these columns and further options. Raises CatalogError."""
        ordered = (columns[g.column.name] for g in self.guesses if g.column.name in columns)
        return Collection(**{**self.arguments, "columns": tuple(ordered), **options})

    def leave_out(self, name: str, reason: str) -> None:
        """A column becomes a comment with its reason."""
        self.columns.pop(name, None)
        self.guesses = [Guess(g.column, None, f"TODO {reason}") if g.column.name == name else g for g in self.guesses]


def load(text: str) -> Catalog:
    """The catalog of a draft. Raises whatever its import raises."""
    module = types.ModuleType("a_draft")
    exec(compile(text, "draft.py", "exec"), module.__dict__)
    catalog: Catalog = module.__dict__["CATALOG"]
    return catalog


def render(matches: Iterable[Match], left: Left, export_time: str) -> str:
    """The text of a catalog.py, with marks at the lines that a person must read."""
    matches = list(matches)
    by_table = {m.table.name: m for m in matches}
    everywhere = [shape for m in matches for shape in m.shapes] + list(left.shapes)
    matches = [with_parts(m, by_table, everywhere, key_of(m)) for m in matches]
    by_table = {m.table.name: m for m in matches}
    names, variables = _names(matches), _variables(matches)
    parts = [Part(m, names[m.table.name], variables[m.table.name], guess_columns(m, by_table)) for m in matches]
    for part in parts:
        _prove_columns(part)
    _prove_references(parts)
    for part in parts:
        if part.refused:
            part.guesses = [_in_words(g, names) for g in part.guesses]
        else:
            _prove_options(part)
            part.notes += _gone_from(part)
    out = [
        '"""DRAFT, made from a sample: which documents become which rows.',
        "",
        "Read every line that says GUESS or TODO, correct it, and remove the mark. docs/catalog.md explains the words.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from dualwrite.model.check_fields import Check  # noqa: F401",
        "from dualwrite.model.conditions import Absent, AllOf, AnyOf, Is, Not  # noqa: F401",
        "from dualwrite.model.conversions import (  # noqa: F401",
        "    array, boolean, count, each, epoch_milliseconds, epoch_seconds, hexadecimal, http_date, integer, iso_text, iso_time,",
        "    json_text, latitude, longitude, number, one_of, plain_json, point_text, reference_id, scaled, text, timestamp_map,",
        "    vector_text, Conversion,",
        ")  # fmt: skip",
        "from dualwrite.model.declaration import (  # noqa: F401",
        "    ArrayElements, Catalog, Collection, Column, Computed, Constant, CreateTime, DocumentId, EntryField, EntryIndex, EntryKey,",
        "    EntryValue, Field, FirstOf, MapEntries, Operations, Parent, ParentId, Segment, WholeDocument,",
        ")  # fmt: skip",
        "",
        f"EXPORT_TIME = {export_time!r}  # TODO when the export was taken that first filled the target, with its offset",
        "",
    ]
    for part in parts:
        out += _collection(part)
    out += [_table_left(table, told) for table, told in left.tables]
    by_name = {part.matched.table.name: part for part in parts}
    out += [_entries_left(match_, other) for match_, other in left.entries]
    out += [_shape_left(shape, left.shared.get(shape.path), by_name) for shape in left.shapes]
    declared = ", ".join(part.variable for part in parts if not part.refused)
    out += ["", f"CATALOG = Catalog(({declared}{',' if declared else ''}))", ""]
    return "\n".join([*out, *_summary(parts, left), ""])


def _in_words(guess: Guess, names: Mapping[str, str]) -> Guess:
    """A guess in a collection that can't be declared, with the name of the collection that it references."""
    declared = guess.declared
    if declared is None or declared.references is None:
        return guess
    return replace(guess, declared=replace(declared, references=names.get(declared.references)))


def with_faults(text: str, faults: Sequence[str]) -> str:
    """The draft, with the faults at its end for which preflight would refuse it."""
    if not faults:
        return text + comment("Preflight finds nothing else to mend in the target.") + "\n"
    return text + "\n".join(
        [comment("TODO Preflight would refuse this catalog:"), *(comment(f"- {_of_a_draft(f)}") for f in faults), ""]
    )


# --- the proof: everything is made before it is written ---------------------------------------------------------------------


def _made(name: str, declared: Declared) -> Column:
    """The column that a declaration's text makes, without its reference. Raises CatalogError."""
    made: Column = eval(replace(declared, references=None).text(name), dict(_WORDS))
    return made


def _prove_columns(part: Part) -> None:
    """Keeps the columns that a collection accepts. Without its key nothing can be proved of the others: they stand as guessed."""
    part.refused = _prove_key(part, key_of(part.matched))
    if part.refused:
        return
    for guess in part.guesses:
        name = guess.column.name
        if guess.declared is None or name in part.columns:
            continue
        reason = ""
        for declared in dict.fromkeys((guess.declared, replace(guess.declared, absent=None))):
            try:
                column = _made(name, declared)
                part.collection({**part.columns, name: column})
            except CatalogError as error:
                reason = reason or _of_a_draft(error)
                continue
            part.columns[name] = column
            if declared != guess.declared:
                kept = replace(guess, declared=declared, remark=f"{guess.remark}, TODO no absent: {reason}")
                part.guesses = [kept if g is guess else g for g in part.guesses]
            break
        else:
            part.leave_out(name, reason)


def _prove_key(part: Part, key: Sequence[str]) -> str:
    """Keeps the columns of the key if they tell documents apart, alone or with the columns that hold ids of the path, as rows of
    entries need them. Returns why they can't; empty if they can."""
    declared = {g.column.name: g.declared for g in part.guesses if g.declared is not None}
    if not key:
        return "the table has no unique key, or only one that is checked late (DEFERRABLE)"
    if lacking := [name for name in key if name not in declared]:
        return f"its key column {lacking[0]!r} isn't known{told_of_split(part.matched, key)}"
    ids = [name for name, told in declared.items() if told.origin.startswith(("DocumentId()", "Segment("))]
    reason = ""
    for names in dict.fromkeys([tuple(key), tuple(dict.fromkeys([*key, *ids]))]):
        try:
            made = {name: _made(name, declared[name]) for name in names}
            part.collection(made)
        except CatalogError as error:
            reason = _of_a_draft(error).rstrip(".")
        else:
            part.columns.update(made)
            return ""
    return reason


def _prove_references(parts: Sequence[Part]) -> None:
    """Adds one reference after another, those of keys first, as long as the whole is a catalog. If that refuses a collection, it
    begins again without that collection."""
    before = [(part, dict(part.columns), list(part.guesses)) for part in parts]
    while not _references_hold(parts):
        for part, columns, guesses in before:
            part.columns, part.guesses = dict(columns), list(guesses)


def _references_hold(parts: Sequence[Part]) -> bool:
    """False once a collection is refused, because a column of its key holds a value that only its parent's row has."""
    there = {part.matched.table.name: part for part in parts if not part.refused}
    todo = [
        (part, g) for part in there.values() for g in part.guesses if g.declared is not None and g.declared.to_table
    ]
    for part, guess in sorted(todo, key=lambda t: t[0].columns[t[1].column.name].role != "key"):
        assert guess.declared is not None
        name, parent, holds = guess.column.name, there.get(str(guess.declared.to_table)), guess.declared.holds
        before, reason = part.columns[name], ""
        if parent is None:
            reason = f"it references {guess.declared.to_table}, which isn't declared here"
        else:
            try:
                part.columns[name] = replace(before, references=Parent(parent.name, holds) if holds else parent.name)
                Catalog(tuple(p.collection(p.columns) for p in there.values()))
            except CatalogError as error:
                part.columns[name] = before
                reason = f"references={parent.name!r} is refused: {_of_a_draft(error)}"
            else:
                kept = replace(guess, declared=replace(guess.declared, references=parent.name))
                part.guesses = [kept if g is guess else g for g in part.guesses]
                continue
        if holds and before.role == "key":
            part.refused = f"key {name!r} is {holds!r} of its parent's row, and {reason.rstrip('.')}"
            return False
        if before.role == "key" or (parent is None and not holds):
            _without_reference(part, guess, f"TODO {reason}")
        else:
            part.leave_out(name, reason)
    for part in there.values():
        for key in [k for k in part.matched.table.foreign if len(k.columns) > 1]:
            _refer_together(part, key, there)
    return True


def _refer_together(part: Part, key: ForeignKey, there: Mapping[str, Part]) -> None:
    """Adds a reference of several columns, or says at these why it isn't there."""
    parent, own = there.get(key.table), {g.column.name: g for g in part.guesses if g.column.name in part.columns}
    called = f"foreign key ({', '.join(key.columns)})"
    if parent is None:
        reason = "which isn't declared here"
    elif lacking := [name for name in key.columns if name not in own]:
        reason = f"and {lacking[0]!r} isn't declared"
    elif taken := [name for name in key.columns if part.columns[name].references is not None]:
        reason = f"and {taken[0]!r} references {part.columns[taken[0]].parent.collection!r} already"
    else:
        before, held = dict(part.columns), dict(zip(key.columns, key.to, strict=True))
        try:
            for name, to in held.items():
                part.columns[name] = replace(before[name], references=Parent(parent.name, to), absent=None)
            Catalog(tuple(p.collection(p.columns) for p in there.values()))
        except CatalogError as error:
            part.columns, reason = before, f"and that is refused: {_of_a_draft(error)}"
        else:
            for name, to in held.items():
                guessed = own[name].declared
                assert guessed is not None
                declared = replace(guessed, references=parent.name, holds=to, absent=None)
                told = replace(
                    own[name], declared=declared, remark=f"{own[name].remark}, {called}, on delete {key.on_delete}"
                )
                part.guesses = [told if g is own[name] else g for g in part.guesses]
            return
    for name in [name for name in key.columns if name in own]:
        told = replace(own[name], remark=f"{own[name].remark}, TODO its {called} is to {key.table}, {reason}")
        part.guesses = [told if g is own[name] else g for g in part.guesses]


def _without_reference(part: Part, guess: Guess, reason: str) -> None:
    assert guess.declared is not None
    kept = replace(guess, declared=replace(guess.declared, references=None), remark=f"{guess.remark}, {reason}")
    part.guesses = [kept if g is guess else g for g in part.guesses]


def _prove_options(part: Part) -> None:
    """Check fields, written columns and unique keys, each as far as the collection takes it."""
    matched, key = part.matched, key_of(part.matched)
    checks = check_fields(matched.shapes)
    rare = [c.path for c in checks if not all(s.always(tuple(c.path.split("."))) for s in matched.shapes)]
    written = [
        g.column.name
        for g in part.guesses
        if g.column.name in part.columns and g.column.live.kind == "timestamptz" and tells_writing(g.column.name)
    ]
    table = matched.table
    unique = [u for u in (table.primary, *table.unique, *table.partial) if u and set(u) != set(key)]
    unique = [u for u in unique if set(u) <= set(part.columns)]
    told = "GUESS from its fields' names and types"
    if any(c.format is not None for c in checks):
        told += ", and how all sampled times are written"
    if rare:
        told += f": not every document has {', '.join(rare)}, and those without are seen by sweeps alone"
    for name, texts, remark in (
        ("check_fields", [c.text for c in checks], told),
        ("written_columns", [repr(c) for c in written], "GUESS from their names"),
        ("unique", [repr(u) for u in dict.fromkeys(unique)], ""),
    ):
        kept: list[str] = []
        for text in texts:
            try:
                part.collection(part.columns, **{name: tuple(eval(t, dict(_WORDS)) for t in (*kept, text))})
            except CatalogError as error:
                part.notes.append(f"TODO {text} can't be in {name}: {_of_a_draft(error)}")
            else:
                kept.append(text)
        if kept:
            part.options.append((f"{name}=({', '.join(kept)},)", remark))
        elif name == "check_fields":
            part.notes.append("No check field: it is read whole every time. GUESS")
    part.notes += [
        f"GUESS {path!r} says when it was written, but no window can ask for it: {why}"
        for path, why in other_times(matched.shapes)
    ]


def _gone_from(part: Part) -> list[str]:
    """A condition for each field that seems to say that its document is gone, as comments: no column holds it, so such a document's row
    is either absent or looks like any other."""
    held = {str(g.declared.origin) for g in part.guesses if g.declared is not None}
    notes = []
    for names, seen in part.matched.fields.items():
        if not tells_end(names[-1]) or any(f"({spelled(names)}" in origin for origin in held):
            continue
        if seen.kind == "boolean":
            condition = f"Not(Is({spelled(names)}, True))"
        elif seen.kinds - {"null"} and not seen.kinds & {"map", "array", "boolean"}:
            condition = f"Absent({spelled(names)})"
        else:
            continue
        try:
            part.collection(part.columns, where=eval(condition, dict(_WORDS)))
        except CatalogError:
            continue
        told = f"{seen.documents} of {part.matched.sampled} sampled have it, and no column holds it"
        notes.append(f"GUESS where={condition}, if such documents have no row: from its field's name; {told}")
    return notes


# --- the text -----------------------------------------------------------------------------------------------------------


def _of_a_draft(told: object) -> str:
    """A message of the product, which names the file of the catalog that is in use."""
    return str(told).replace(settings.catalog_file(), "this draft")


def comment(text: str, indent: str = "") -> str:
    """A line of comment, whatever the text holds."""
    return f"{indent}# {_line(text)}"


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split(" ")))


def _said(name: str) -> str:
    """A name in a comment: as it is if it is plain, else as a string."""
    return name if re.fullmatch(r"[\w{}/.-]+", name) else repr(name)


def _names(matches: Sequence[Match]) -> dict[str, str]:
    """The name of each table's collection: its own, with its schema if another has it too, and a number if that is another's."""
    bare = [m.table.bare for m in matches]
    names = {m.table.name: m.table.bare for m in matches if bare.count(m.table.bare) == 1}
    for match_ in matches:
        table = match_.table
        if table.name not in names:
            name = table.name.replace(".", "_")
            several = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(2)))
            names[table.name] = next(n for n in several if n not in names.values())
    return names


def _variables(matches: Sequence[Match]) -> dict[str, str]:
    """The Python name of each table's collection; a table may have any name."""
    variables: dict[str, str] = {}
    for match_ in matches:
        name = re.sub(r"\W", "_", _names(matches)[match_.table.name], flags=re.ASCII).upper()
        taken = {"CATALOG", "EXPORT_TIME", *variables.values()}
        if not name.isidentifier() or name in taken:
            name = next(n for n in (f"TABLE_{i}" for i in itertools.count(1)) if n not in taken)
        variables[match_.table.name] = name
    return variables


def _entries(matched: Match) -> str:
    assert matched.entries is not None
    kind = "MapEntries" if matched.entries in matched.shapes[0].open_maps else "ArrayElements"
    return f"{kind}({spelled(matched.entries)})"


def _fixed(shape: Shape) -> str:
    """The remark on ids in a path: they are content, unless they are the same below each parent."""
    return "".join(f"; GUESS the id {id_!r} is fixed: below {n} sampled parents" for id_, n in shape.fixed_ids.items())


def _collection(part: Part) -> list[str]:
    matched = part.matched
    paths = ", ".join(repr(shape.path) for shape in matched.shapes)
    fixed = "".join(map(_fixed, matched.shapes))
    lines = [
        f"{part.variable} = Collection(",
        f"    name={part.name!r},",
        f"    table={matched.table.name!r},",
        f"    paths=({paths},),  # {_line(f'GUESS from {matched.ground}, {matched.sampled} sampled{fixed}')}",
    ]
    if matched.entries is not None:
        lines.append(f"    entries={_entries(matched)},  # GUESS from {matched.ground}")
    for option, remark in part.options:
        lines.append(f"    {option},{f'  # {_line(remark)}' if remark else ''}")
    lines += [comment(note, "    ") for note in part.notes]
    lines.append(
        "    # TODO operations=(Operations('entity of write_ops', ('column', ...)),), if the app logs its writes"
    )
    lines += ["    selected=True,", "    columns=("]
    for guess in part.guesses:
        if guess.declared is not None:
            remark = f"  # {_line(guess.remark)}" if guess.remark else ""
            lines.append(f"        {guess.declared.text(guess.column.name)},{remark}")
        else:
            column = guess.column
            lines.append(comment(f"{_said(column.name)} ({column.live.name}): {guess.remark}", "        "))
    lines += ["    ),", ")"]
    if part.refused:
        why = comment(f"TODO {_said(part.matched.table.name)} can't be declared: {part.refused}. What is known of it:")
        lines = [why, *(comment(line) for line in lines)]
    return [*lines, ""]


def _table_left(table: LiveTable, told: str) -> str:
    if table.odd:
        return comment(f"TODO table {table.name!r} can't be declared: a dot is in its own name.")
    return comment(f"No collection looks like table {_said(table.name)}{f': {told}' if told else ''}.")


def _shape_left(shape: Shape, shared: Match | None, parts: Mapping[str, Part]) -> str:
    if not is_template(shape.path):
        return comment(f"TODO {_said(shape.path)} can't be declared: braces are in its collections' names.")
    if not shape.sampled:
        return comment(f"{_said(shape.path)}: no document is there itself, only collections below.")
    if shared is not None:
        return _share(shape, shared, parts[shared.table.name])
    inside = [
        _said(".".join(p.matched.entries)) for p in parts.values() if p.matched.entries and shape in p.matched.shapes
    ]
    own = f" itself: rows come from its {', '.join(inside)}" if inside else ""
    return comment(f"No table looks like {_said(shape.path)} ({shape.sampled} sampled{_fixed(shape)}){own}.")


def _dotted(names: Names) -> str:
    return ".".join(names)


def _entries_left(matched: Match, other: Match) -> str:
    """The remark on entries that look like rows of a table which another collection, or another field, fills."""
    [shape], own = matched.shapes, _said(_dotted(matched.entries or ()))
    by = f"{_said(other.shapes[0].path)}{'' if other.entries is None else f' {_said(_dotted(other.entries))}'}"
    told = f"{own} of {_said(shape.path)} looks like rows of {_said(matched.table.name)} too, by {matched.ground}; {by} is likelier"
    return comment(
        f"GUESS {told}. If both fill it: one more path of that collection, or a collection with a share of its own, rows=."
    )


_TELLS_APART = TEXTS | {"bool"}


def _share(shape: Shape, matched: Match, part: Part) -> str:
    """The remark on a collection whose rows seem to be in a table that another one fills."""
    free = [g.column for g in part.guesses if g.declared is None and g.column.live.kind in _TELLS_APART]
    free = [c for c in free if not c.live.generated and c.name not in matched.table.triggers]
    told = f"{_said(shape.path)} ({shape.sampled} sampled{_fixed(shape)}) looks like rows of {_said(matched.table.name)} too, by {matched.ground}. "
    if (name := _of_fixed_ids(shape, part)) is not None:
        own, other = repr(shape.fixed), repr(part.matched.shapes[0].fixed)
        told += (
            f"If so, key column {_said(name)} tells them apart: Column({name!r}, 'key', Constant({own})) beside rows={{{name!r}: {own}}} here, "
            f"and {other} there."
        )
    elif not free:
        told += "Two collections share a table by a column that tells their rows apart, and none is left: add one, and give each rows=."
    else:
        others = f" (or {', '.join(_said(c.name) for c in free[1:])})" if free[1:] else ""
        told += f"If so, give each its share: rows={{{free[0].name!r}: ...}}, a column that no field fills{others}."
    return comment(f"GUESS {told}")


def _of_fixed_ids(shape: Shape, part: Part) -> str | None:
    """The key column that may hold the fixed ids of two collections that share a table: no field fills it, or one that is the id in
    each sampled document. None if there is none."""
    [first, *others], key = part.matched.shapes, key_of(part.matched)
    if others or len(key) < 2 or shape.fixed is None or first.fixed in (None, shape.fixed):
        return None
    for guess in part.guesses:
        live, origin = guess.column.live, "" if guess.declared is None else guess.declared.origin
        field_ = next((n for n in part.matched.fields if origin == f"Field({spelled(n)})"), None)
        if guess.column.name not in key or live.kind not in TEXTS or (origin and field_ is None):
            continue
        held = [(s.fixed, s.fields[field_].texts) for s in (shape, first) if field_ in s.fields] if field_ else []
        labelled = live.kind != "enum" or {shape.fixed, first.fixed} <= {*live.labels}
        if labelled and all(texts <= {id_} for id_, texts in held):
            return guess.column.name
    return None


def _summary(parts: Sequence[Part], left: Left) -> list[str]:
    """A line for each collection: how many columns are left to Postgres, how many are guessed, and which are not covered."""
    rows = [("collection", "table", "left out", "guessed", "not covered")]
    for part in parts:
        more = f" and {len(part.matched.shapes) - 1} more" if len(part.matched.shapes) > 1 else ""
        paths = _said(part.matched.shapes[0].path) + more
        if part.matched.entries is not None:
            paths += f" {_said('.'.join(part.matched.entries))}"
        if part.refused:
            rows.append((paths, _said(part.matched.table.name), "0", "0", "all: can't be declared"))
            continue
        lacking = [g.column.name for g in part.guesses if g.declared is None and not g.certain]
        certain = sum(g.certain for g in part.guesses)
        guessed = sum(g.declared is not None and not g.certain for g in part.guesses)
        rows.append((paths, _said(part.matched.table.name), str(certain), str(guessed), _counted(lacking)))
    rows += [("-", _said(table.name), "0", "0", "all") for table, _ in left.tables]
    for shape in left.shapes:
        if shape.sampled:
            table = left.shared.get(shape.path)
            rows.append((_said(shape.path), f"{_said(table.table.name)}?" if table else "-", "", "", ""))
    cells = [[_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in cells
    ]
    return ["# What is known of each table's columns:", *(f"#   {line}".rstrip() for line in lines)]


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(map(_said, names))}" if names else "0"
