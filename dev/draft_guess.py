"""Guesses a catalog from the shape of two databases. Pure: shapes and tables in, declarations out, each guess with its reason.

Tables, types, NOT NULL, keys, foreign keys and triggers come from the target, so they are certain. It guesses, by names, types
and formats, which collection fills which table and which field which column; a person reads every line marked GUESS or TODO.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dev.draft_entries import key_of_entries, told_of_key
from dev.draft_ids import held, sharing
from dev.draft_path import from_path, ids_fit, key_of
from dev.draft_reading import (
    COUNTER,
    MOMENTS,
    TIMES,
    Candidate,
    Reading,
    best_candidates,
    holds_id_of,
    likeness_of,
    reading,
    spelled,
    text_path,
    use,
)
from dev.draft_shapes import (
    CHECK_FORMATS,
    NUMBERS,
    TEXTS,
    LiveColumn,
    Match,
    Names,
    Seen,
    Shape,
    tells_creation,
    tells_writing,
    words,
)
from dualwrite.model.declaration import is_field_path
from dualwrite.model.live import INTEGERS, LiveType, can_be_key, is_key
from dualwrite.model.live import TEXTS as TEXT_COLUMNS

_DOCUMENTS = {("data",), ("document",), ("doc",), ("raw",), ("payload",), ("field",), ("source",)}

_IDS = {("firestore",), ("firebase",), ("document",), ("doc",)}


# --- columns ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """A column's declaration, each part as it stands in the file."""

    role: str
    origin: str
    type: str = "text"
    required: bool = False
    absent: str | None = None
    references: str | None = None
    holds: str | None = None
    to_table: str | None = None
    """The table that it references; by its name, `references` is found."""

    def text(self, name: str) -> str:
        parts = [repr(name), repr(self.role), self.origin]
        is_told = ">>" in self.origin and not self.origin.startswith("FirstOf(")
        if self.type != "text" and not is_told and self.origin != "CreateTime()":
            parts.append(repr(self.type))
        if self.required:
            parts.append("required=True")
        if self.absent is not None:
            parts.append(f"absent={self.absent}")
        if self.references is not None:
            parent = repr(self.references)
            parts.append(f"references={parent if self.holds is None else f'Parent({parent}, holds={self.holds!r})'}")
        return f"Column({', '.join(parts)})"


@dataclass(frozen=True)
class Guess:
    """One line of a draft: a column's declaration, or None if it is left out; what a person should know. `certain`: the schema
    says that it is left out."""

    column: LiveColumn
    declared: Declared | None
    remark: str = ""
    certain: bool = False


def guess_columns(found: Match, by_table: Mapping[str, Match]) -> list[Guess]:
    """A guess for each column of a table."""
    key = key_of(found)
    taken: set[object] = set()
    columns = found.table.columns
    first = sorted(columns, key=lambda c: c.name not in key) if found.entries is not None else columns
    guesses = {
        column.name: replace(_guess(found, _as_named(found, column, by_table), by_table, key, taken), column=column)
        for column in first
    }
    told = {**_told_of_unique(found, guesses, key), **_told_of_key(found, guesses, key)}
    guesses = {
        name: replace(g, remark=f"{g.remark}, {told[name]}") if name in told else g for name, g in guesses.items()
    }
    return [guesses[column.name] for column in columns]


def _origins(guesses: Mapping[str, Guess], names: Sequence[str]) -> dict[str, str]:
    """By column, where its value comes from, not converted; empty if one isn't declared."""
    found = {c: g.declared.origin.split(" >> ")[0] for c in names if (g := guesses[c]).declared is not None}
    return found if len(found) == len(names) else {}


def _entry_fields(found: Match, origins: Mapping[str, str]) -> dict[str, Names]:
    """By column, the field of the entry that it comes from."""
    fields = {} if found.maps is None else found.maps.fields
    by_text = {f"EntryField({spelled(names)})": names for names in fields}
    return {column: by_text[origin] for column, origin in origins.items() if origin in by_text}


def _told_of_unique(found: Match, guesses: Mapping[str, Guess], key: Sequence[str]) -> dict[str, str]:
    """What the sample says against a unique index, by column."""
    table, maps, told = found.table, found.maps, dict[str, str]()
    for unique in [u for u in (table.primary, *table.unique, *table.partial) if u and set(u) != set(key)]:
        origins = _origins(guesses, unique)
        fields = _entry_fields(found, origins)
        if found.entries is None:
            twice = sharing(found, list(origins.values()))
        else:
            twice = maps.twice(*fields.values(), across=len(fields) == len(unique)) if maps and fields else 0
        if origins and twice:
            told[unique[0]] = f"TODO {twice} sampled have another's value, and the column is unique"
            if len(unique) > 1:
                told[unique[0]] = (
                    f"TODO {twice} sampled have another's values in the unique columns {', '.join(unique)}"
                )
    return told


def _told_of_key(found: Match, guesses: Mapping[str, Guess], key: Sequence[str]) -> dict[str, str]:
    """What the sample says of the key, by column."""
    origins, maps = _origins(guesses, key), found.maps
    if found.entries is None:
        twice = sharing(found, list(origins.values())) if origins else 0
        told = f"TODO {twice} sampled documents have the key of another, and one row can't be of two documents"
        return {key[0]: told} if twice else {}
    fields = _entry_fields(found, origins)
    if maps is None or not fields or any(origin.startswith("EntryIndex(") for origin in origins.values()):
        return {}
    return dict.fromkeys(fields, told_of_key(maps, list(fields.values()), across=len(origins) == len(fields)))


def _held_of(found: Match, column: str, by_table: Mapping[str, Match]) -> tuple[str, str] | None:
    """Of a foreign key that isn't to what tells the parent's document: the column that it is to, and the one that tells."""
    key = found.table.key_to(column)
    parent = by_table.get(key.table) if key else None
    if key is None or parent is None or len(key.to) != 1 or len(key_of(parent)) != 1 or key.to == key_of(parent):
        return None
    return key.to[0], key_of(parent)[0]


def _as_named(found: Match, column: LiveColumn, by_table: Mapping[str, Match]) -> LiveColumn:
    """The column, of the type of what documents name: for one that holds another column of the parent's row, that of its key."""
    key, held = found.table.key_to(column.name), _held_of(found, column.name, by_table)
    if key is None or held is None:
        return column
    return replace(column, live=next(c.live for c in by_table[key.table].table.columns if c.name == held[1]))


def _guess(
    found: Match, column: LiveColumn, by_table: Mapping[str, Match], key: tuple[str, ...], taken: set[object]
) -> Guess:
    table, live, is_key_ = found.table, column.live, column.name in key
    if live.generated:
        return Guess(column, None, "left out: Postgres makes it (identity or generated)", certain=True)
    if column.name in table.primary and not is_key_ and column.filled:
        sure = found.entries is not None or not ids_fit(found, column)
        told = f"{'' if sure else 'GUESS '}left to its default, {column.default or 'identity'}"
        return Guess(column, None, told, certain=sure)
    if (is_key_ or table.key_to(column.name)) and not can_be_key(live):
        return Guess(column, None, f"TODO a key of type {live.name} can't be declared")
    by_path = _by_path(found, column, by_table, key, taken)
    if by_path is not None:
        return by_path
    refers = table.key_to(column.name)
    if found.entries is not None:
        candidates = key_of_entries(found, column) if is_key_ else best_candidates(found.told, table, column)
    else:
        candidates = best_candidates(found.fields, table, column)
    candidates = [c for c in candidates if use(c) not in taken]
    if not candidates and refers is not None and found.entries is None:
        candidates = [c for c in _by_target(found, column, by_table) if use(c) not in taken]
    if candidates:
        several = [] if is_key_ or refers is not None else _first_of(found, column, candidates)
        taken.update(map(use, several or candidates[:1]))
        return _with_reference(found, _from_field(found, column, candidates[0], is_key_, several), by_table)
    if found.entries is not None:
        return _uncovered(found, column)
    if not is_key_ and (of_all := _of_all(found, column, by_table, key)) is not None:
        return of_all
    if live.kind in TIMES and not is_key_ and tells_writing(column.name):
        created = [c.path for c in check_fields(found.shapes) if c.format is None and tells_creation(c.path)]
        origin = f"Field({created[0]!r}, CreateTime())" if created else "CreateTime()"
        remark = "GUESS no field looks like it: set on insert, never compared"
        if column.name in table.triggers:
            remark += f"; trigger {table.triggers[column.name]} sets it"
        return Guess(column, Declared("insert_only", origin, "timestamp", column.not_null), remark)
    return _uncovered(found, column)


def _of_all(found: Match, column: LiveColumn, by_table: Mapping[str, Match], key: tuple[str, ...]) -> Guess | None:
    """A column that is called after the document: its id, or the whole of it."""
    is_named_so = column.live.kind in TEXT_COLUMNS and column.name.endswith("_id") and words(column.name) in _IDS
    if is_named_so and not _is_anothers(found, column, by_table, key):
        return Guess(
            column, Declared("compared", "DocumentId()", "text", column.not_null), "GUESS from its name: the id"
        )
    if column.live.kind == "jsonb" and words(column.name) in _DOCUMENTS:
        declared = Declared("compared", "WholeDocument() >> plain_json", "json")
        return Guess(column, declared, "GUESS from its name: the whole document")
    return None


def _is_anothers(found: Match, column: LiveColumn, by_table: Mapping[str, Match], key: tuple[str, ...]) -> bool:
    """Whether a column that is called after the document's id holds something else: a foreign key says so, a collection is called
    like it, a field that is another's holds the sampled ids, or a column of the key is the id already."""
    if found.table.refers(column.name):
        return True
    if any(holds_id_of(column, s) for m in by_table.values() if m is not found for s in m.shapes):
        return True
    looks = held(found, column)
    if looks is not None and looks.other:
        return True
    own = [c for c in found.table.columns if c.name in key]
    return any((way := from_path(found, c, by_table, key, set())) and way[0] == "DocumentId()" for c in own)


def _by_path(
    found: Match, column: LiveColumn, by_table: Mapping[str, Match], key: tuple[str, ...], taken: set[object]
) -> Guess | None:
    """A column that the path fills, or the entry."""
    by_path = from_path(found, column, by_table, key, taken)
    if by_path is None:
        return None
    origin, type_, remark = by_path
    is_key_ = column.name in key
    role = "key" if is_key_ else "insert_only" if origin == "CreateTime()" else "compared"
    remarks = [remark]
    if found.entries is None and not remark.endswith("their documents are rejected"):
        remarks.append(_no_keys(column.live, _ids_at(found, origin, by_table)))
    remark = ", ".join(filter(None, remarks))
    by_itself = is_key_ and origin.startswith(("DocumentId", "Segment", "EntryKey", "EntryIndex"))
    required = column.not_null and not by_itself
    return _with_reference(found, Guess(column, Declared(role, origin, type_, required), remark), by_table)


def _ids_at(found: Match, origin: str, by_table: Mapping[str, Match]) -> list[str]:
    """The sampled ids that an origin in the path takes, as far as they are known."""
    if origin == "DocumentId()":
        return [id_ for s in found.shapes for id_ in s.ids]
    if not origin.startswith("Segment("):
        return []
    end = f"{{{origin[9:-2]}}}"
    heads = {s.path[: s.path.index(end) + len(end)] for s in found.shapes if end in s.path}
    return [id_ for m in by_table.values() for s in m.shapes if m.entries is None and s.path in heads for id_ in s.ids]


def _no_keys(live: LiveType, ids: Sequence[str]) -> str:
    """What to do where most ids can't be a column's values; empty if they can."""
    wrong = sum(not is_key(live, id_) for id_ in ids)
    if 2 * wrong <= len(ids):
        return ""
    return (
        f"TODO {wrong} of {len(ids)} sampled ids are no {live.name}: if it is made of the id (a uuid v5, say), "
        "DocumentId() or Segment(...) >> Conversion('name', a function of yours, 'text')"
    )


def _first_of(found: Match, column: LiveColumn, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Fields like a column of which each sampled document has just one, as after one was renamed; empty if one is enough, or if
    another column is as much like one."""
    documents = [told.present for shape in found.shapes for told in shape.documents]
    chosen: list[Candidate] = []
    if found.entries is not None:
        return []
    for alike, names, way in candidates:
        others = (likeness_of(found.table, c, names) for c in found.table.columns if c.name != column.name)
        beside = any(names in present and any(n in present for _, n, _ in chosen) for present in documents)
        typed = not chosen or way.type == chosen[0][2].type
        if typed and not beside and any(names in p for p in documents) and all(other < alike for other in others):
            chosen.append((alike, names, way))
    whole = all(any(names in present for _, names, _ in chosen) for present in documents)
    return chosen if len(chosen) > 1 and whole else []


def _from_field(
    found: Match, column: LiveColumn, best: Candidate, is_key_: bool, several: Sequence[Candidate] = ()
) -> Guess:
    """A column that a field of the document fills, or of the entry. `several`: the first of these that a document has."""
    maps, (alike, names, way) = found.maps, best
    seen, sampled, word = (
        (found.fields[names], found.sampled, "Field")
        if maps is None
        else (maps.fields[names], maps.sampled, "EntryField")
    )
    shown = text_path(names) or str(names)
    remarks = [f"GUESS from {'its name' if alike == 1 else f'field {shown!r}'}"]
    if alike == 0:
        why = (
            "its references lead there" if seen.kind == "reference" else "its texts are ids of sampled documents there"
        )
        remarks = [f"GUESS from field {shown!r}: {why if maps is None else 'no other tells the entries apart'}"]
    kind = seen.kind or " and ".join(sorted(seen.kinds - {"null"}))
    if way.type in ("integer", "numeric") and kind in NUMBERS:
        kind = "number" if kind == "number" else "integer"  # no time here
    if several:
        counts = [f"{text_path(n) or str(n)!r} in {found.fields[n].documents}" for _, n, _ in several]
        remarks = [f"GUESS of several fields, each of {sampled} sampled documents has just one: {', '.join(counts)}"]
    else:
        remarks.append(f"{seen.documents} of {sampled} sampled{' entries' if maps is not None else ''}, {kind}")
    origin = _read_from(word, names, way)
    if several:
        origin = f"FirstOf({', '.join(_read_from(word, n, w) for _, n, w in several)})"
    absent = _absent(column, way.type) if not is_key_ and not found.table.key_to(column.name) else None
    role = "key" if is_key_ else "compared"
    if column.name in found.table.triggers and not is_key_:
        role = "insert_only"
        remarks.append(f"trigger {found.table.triggers[column.name]} sets it, so it is never compared")
    elif way.type in ("integer", "numeric") and COUNTER.search(column.name) and not is_key_:
        role = "derived"
        remarks.append("GUESS a counter, by its name: it may lag")
    lacking = not several and seen.documents < sampled
    is_of_writing = way.type == "timestamp" and (tells_writing(column.name) or tells_writing(names[-1]))
    if maps is None and is_of_writing and not (way.conversion or several or is_key_) and column.not_null:
        origin = f"Field({spelled(names)}, CreateTime())"
    elif column.not_null and absent is None and lacking:
        one = "a document" if maps is None else "an entry"
        remarks.append(f"TODO {one} without it is rejected, because the column is NOT NULL")
    if wrong := _refused_texts(seen, column.live):
        remarks.append(f"TODO {wrong}")
    if column.default is not None and absent is None and way.type != "timestamp" and role != "key":
        remarks.append("TODO an absent field doesn't become the column's default")
    required = column.not_null and not (is_key_ and maps is not None)
    return Guess(column, Declared(role, origin, way.type, required, absent), ", ".join(remarks))


def _read_from(word: str, names: Names, way: Reading) -> str:
    return f"{word}({spelled(names)})" + (f" >> {way.conversion}" if way.conversion else "")


def _refused_texts(seen: Seen, live: LiveType) -> str:
    """How many of the sampled texts the column's type can't hold, as far as that is known here."""
    if live.kind == "enum" and (bad := len(seen.texts - set(live.labels))):
        labels = ", ".join(map(repr, live.labels))
        return f"{bad} of {len(seen.texts)} sampled texts are no label of {live.name} ({labels}): one_of({{...}}) maps them"
    if live.kind == "uuid" and (bad := sum(not _is_uuid(text) for text in seen.texts)):
        return f"{bad} of {len(seen.texts)} sampled texts are no uuid"
    return ""


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


_TYPES = {
    "text": "text",
    "varchar": "text",
    "jsonb": "json",
    "timestamptz": "timestamp",
    "bool": "boolean",
    "int4": "integer",
}
"""By a column's kind: what a field most likely holds that fills it."""


def _uncovered(found: Match, column: LiveColumn) -> Guess:
    """Why nothing fills a column."""
    by_trigger = found.table.triggers.get(column.name)
    if by_trigger is not None:
        return Guess(column, None, f"left out: trigger {by_trigger} sets it", certain=True)
    in_path = found.entries is None and column.name in key_of(found)
    if in_path and (no_keys := _no_keys(column.live, _ids_at(found, "DocumentId()", {}))):
        return Guess(column, None, no_keys)
    told = (
        "no field looks like it" if column.filled else "TODO it is NOT NULL and needs a value: no field looks like it"
    )
    fields = found.told
    refers = found.table.refers(column.name)
    alike = [n for n in fields if likeness_of(found.table, column, n) >= 0.5]
    alike.sort(key=lambda n: -likeness_of(found.table, column, n))
    for names in [n for n in alike if reading(fields[n], column, n, refers=refers) is None][:1]:
        seen = fields[names]
        if not column.not_null and not seen.kinds - {"null"} and (type_ := _TYPES.get(column.live.kind)):
            remark = "GUESS from its name; it is null in all sampled, so what it holds is not known"
            return Guess(column, Declared("compared", f"Field({spelled(names)})", type_), remark)
        kinds = " and ".join(sorted(seen.kinds - {"null"})) or "null alone"
        if seen.elements:
            kinds += f" of {' and '.join(sorted(seen.elements))}"
        told = f"TODO field {text_path(names) or str(names)!r} looks like it and holds {kinds}: no conversion of docs/catalog.md makes {column.live.name} of that, but one of your own can"
    if told.startswith("no") and column.default is not None:
        told += f"; it gets its default, {column.default}"
    ids = {shape.fixed for shape in found.shapes}
    if in_path and len(key_of(found)) > 1 and len(ids) == 1 and (fixed := ids.pop()) and is_key(column.live, fixed):
        told += f"; the fixed id is Constant({fixed!r})"
    if tables := [k.table for k in found.table.foreign if column.name in k.columns]:
        told += f"; its foreign key is to {', '.join(dict.fromkeys(tables))}"
    return Guess(column, None, told)


def _with_reference(found: Match, guess: Guess, by_table: Mapping[str, Match]) -> Guess:
    """The guess with what its foreign key says."""
    key = found.table.key_to(guess.column.name)
    declared = guess.declared
    if declared is None:
        return guess
    if key is None:
        return guess
    parent = by_table.get(key.table)
    remarks = [guess.remark] if guess.remark else []
    if parent is None:
        remarks.append(f"TODO it references {key.table}, which no collection fills")
    else:
        held = _held_of(found, guess.column.name, by_table)
        declared = replace(
            declared, references=key.table, to_table=key.table, holds=held[0] if held else None, absent=None
        )
        remarks.append(f"foreign key, on delete {key.on_delete}")
    return replace(guess, declared=declared, remark=", ".join(remarks))


def _by_target(found: Match, column: LiveColumn, by_table: Mapping[str, Match]) -> list[Candidate]:
    """The field whose references lead to the collection that fills the referenced table, or whose texts are ids of its sampled
    documents, if there is just one."""
    key = found.table.key_to(column.name)
    parent = by_table.get(key.table) if key else None
    if parent is None:
        return []
    ids = {shape.id for shape in parent.shapes}
    leading = [n for n, seen in found.fields.items() if seen.kind == "reference" and seen.refers <= ids and seen.refers]
    leading = leading or _naming(found, column, parent)
    ways = [(0.0, names, reading(found.fields[names], column, names, refers=True)) for names in leading[:2]]
    return [(v, n, w) for v, n, w in ways if w is not None] if len(leading) == 1 else []


_FEWEST = 2
"""Sampled ids in a field: one alone proves nothing."""


def _naming(found: Match, column: LiveColumn, parent: Match) -> list[Names]:
    """The fields of which each sampled text is the id of one of the parent's sampled documents, and that no other column is like."""
    ids = set[str]().union(*(shape.ids for shape in parent.shapes)) if parent.entries is None else set()
    others = [c for c in found.table.columns if c.name != column.name]
    return [
        names
        for names, seen in found.fields.items()
        if len(seen.texts) >= _FEWEST
        and seen.kinds <= TEXTS | {"null"}
        and seen.texts <= ids
        and not any(likeness_of(found.table, c, names) >= 0.5 for c in others)
    ]


def _absent(column: LiveColumn, type_: str) -> str | None:
    """A column's default as Python, if it is a plain value that catalog.py can write for this type."""
    default = column.default or ""
    literal = re.fullmatch(r"'((?:[^']|'')*)'(?:::.*)?", default, re.DOTALL)
    inner = literal[1].replace("''", "'") if literal else None
    if type_ == "text":
        return None if inner is None else repr(inner)
    if type_ == "array":
        return "[]" if inner == "{}" or default.startswith("ARRAY[]::") else None
    if type_ == "json" and inner is not None:
        try:
            value = json.loads(inner)
        except (ValueError, RecursionError):
            return None
        return (
            repr(value)
            if isinstance(value, dict | list) and "inf" not in repr(value) and "nan" not in repr(value)
            else None
        )
    if type_ in ("integer", "numeric") and (number := re.fullmatch(r"'?\(?(-?\d{1,18})\)?'?(?:::.*)?", default)):
        value = int(number[1])
        size = INTEGERS.get(column.live.kind, 8)
        return str(value) if -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1) else None
    return {"true": "True", "false": "False"}.get(default) if type_ == "boolean" else None


@dataclass(frozen=True)
class CheckField:
    """A field that says when a document was written; its format's name if it holds no timestamps."""

    path: str
    format: str | None

    @property
    def text(self) -> str:
        return repr(self.path) if self.format is None else f"Check({self.path!r}, {self.format})"


def check_fields(shapes: Sequence[Shape]) -> list[CheckField]:
    """Fields that say when a document was written, of all the paths, as timestamps or in a format that a window can ask for; those
    that every document has come first."""
    found = []
    for names, path in _times_of_writing(shapes):
        kinds = {s.fields[names].kind for s in shapes if names in s.fields}
        kind = kinds.pop() if len(kinds) == 1 else None
        everywhere = all(names in s.fields or not s.sampled for s in shapes)
        if kind is None or not everywhere or _unasked(shapes, names):
            continue
        form = None if kind == "timestamp" else CHECK_FORMATS[kind].name
        found.append((not all(s.always(names) for s in shapes), path, form))
    return [CheckField(path, form) for _, path, form in sorted(found, key=lambda f: f[:2])]


def _times_of_writing(shapes: Sequence[Shape]) -> list[tuple[Names, str]]:
    paths = [(names, text_path(names)) for names in shapes[0].fields]
    return [(names, path) for names, path in paths if path and is_field_path(path) and tells_writing(path)]


def _unasked(shapes: Sequence[Shape], names: Names) -> str:
    """Why no window can ask for a field; empty if one can."""
    seen = [s.fields[names] for s in shapes if names in s.fields]
    kinds = set[str]().union(*(one.kinds for one in seen)) - {"null"}
    if len(kinds) != 1:
        return f"it holds {' and '.join(sorted(kinds)) or 'null alone'}"
    if not kinds <= {"timestamp", *CHECK_FORMATS}:
        return f"Firestore doesn't order {kinds.pop()} by time"
    if any(one.other_style for one in seen):
        return f"{kinds.pop()} is in another style than its format writes (docs/catalog.md)"
    return ""


def other_times(shapes: Sequence[Shape]) -> list[tuple[str, str]]:
    """Fields that say when a document was written and that no window can ask for, with why not."""
    found = []
    for names, path in _times_of_writing(shapes):
        kinds = {kind for s in shapes if names in s.fields for kind in s.fields[names].kinds} - {"null"}
        if kinds and kinds <= {*MOMENTS} and (why := _unasked(shapes, names)):
            found.append((path, why))
    return found
