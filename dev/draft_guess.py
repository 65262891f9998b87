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

from dev.draft_shapes import (
    NUMBERS,
    TEXTS,
    LiveColumn,
    LiveTable,
    Match,
    Names,
    Seen,
    Shape,
    likeness,
    tells_creation,
    tells_writing,
    time_likeness,
    words,
)
from dualwrite.model.declaration import is_field_path
from dualwrite.model.live import INTEGERS, LiveType, can_be_key, fits, is_key
from dualwrite.model.live import TEXTS as TEXT_COLUMNS

_TIMES = {"timestamptz", "timestamp", "date"}
_DECIMALS = {"numeric", "float4", "float8"}
_COUNTER = re.compile(r"(^|_)(counts?|counter|score|total_of|number_of)(_|$)|^(count|number)_of_")
_DOCUMENTS = {("data",), ("document",), ("doc",), ("raw",), ("payload",), ("field",), ("source",)}


# --- what a field's values can be in a column ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How a column takes a field's values: the conversion's text, or '' for none; the resulting type."""

    conversion: str
    type: str


def reading(seen: Seen, column: LiveColumn, names: Names, *, refers: bool = False) -> Reading | None:
    """How the column could take what the sample shows; None if it can't. `refers`: it is a foreign key."""
    kind, kinds, live = seen.kind, seen.kinds - {"null"}, column.live
    if not kinds:
        return None
    found = _reading(kind, kinds, seen, column, names, refers)
    if found is None or not fits(found.type, live, is_id=bool(found.conversion)):  # type: ignore[arg-type]
        return None
    return found


_MOMENTS = {
    "timestamp": "", "ISO time": "iso_time", "HTTP date": "http_date", "epoch milliseconds": "epoch_milliseconds",
    "epoch seconds": "epoch_seconds", "timestamp map": "timestamp_map",
}  # fmt: skip


def _reading(  # noqa: C901 - a guess after the other
    kind: str | None, kinds: set[str], seen: Seen, column: LiveColumn, names: Names, refers: bool
) -> Reading | None:
    live = column.live
    if live.kind in _TIMES:
        if kind == "ISO date" and live.kind == "date":
            return Reading("", "text")
        return Reading(_MOMENTS[kind], "timestamp") if kind in _MOMENTS else None
    if live.kind in ("json", "jsonb"):
        if kind == "JSON as text":
            return Reading("json_text", "json")
        if kinds & {"bytes"} or (not kinds & {"map", "array", "timestamp map"} and not kinds <= TEXTS):
            return None
        plain = not seen.unplain and not kinds & {"timestamp", "reference", "geopoint", "vector"}
        return Reading("" if plain else "plain_json", "json")
    if kind == "reference":
        return Reading("reference_id", "text") if refers or live.kind in TEXT_COLUMNS | {"uuid"} else None
    if refers and kinds <= NUMBERS | TEXTS and live.kind in INTEGERS:
        return Reading("text", "text")
    if live.kind in INTEGERS:
        return _whole(kind, kinds, column)
    if live.kind in _DECIMALS:
        return _decimal(kind, kinds, column, names)
    if live.kind == "bool":
        if kind == "boolean":
            return Reading("", "boolean")
        return Reading("boolean", "boolean") if kinds <= {"boolean", "boolean as text"} else None
    if live.kind == "array":
        if kind != "array" or seen.elements & {"map", "array", "geopoint", "bytes", "vector", "timestamp map"}:
            return None
        references = "reference" in seen.elements
        if references and seen.elements != {"reference"}:
            return None
        return Reading("each(reference_id)" if references else "array", "array")
    if kind == "geopoint":
        return Reading("point_text", "text") if live.kind in ("geography", "geometry") else None
    if kind == "vector":
        return Reading("vector_text", "text") if live.kind == "vector" else None
    if kinds <= TEXTS:
        return Reading("", "text")
    if live.kind in TEXT_COLUMNS - {"enum"}:
        if kind == "timestamp":
            return Reading("iso_text", "text")
        if kinds <= TEXTS | NUMBERS | {"boolean"}:
            return Reading("text", "text")
    return None


def _whole(kind: str | None, kinds: set[str], column: LiveColumn) -> Reading | None:
    if kind in NUMBERS - {"number"}:
        return Reading("", "integer")
    if kinds <= {"number as text", *NUMBERS} - {"number"}:
        return Reading("integer", "integer")
    return Reading("count", "integer") if kind in ("array", "map") and _COUNTER.search(column.name) else None


def _decimal(kind: str | None, kinds: set[str], column: LiveColumn, names: Names) -> Reading | None:
    if kind == "geopoint":
        for axis, called in (
            ("latitude", {"lat", "latitude"}),
            ("longitude", {"lng", "lon", "long", "longitude"}),
        ):
            if called & set(words(column.name)):
                return Reading(axis, "numeric")
        return None
    if kinds <= NUMBERS:
        cents = "cent" in words(names[-1]) and "cent" not in words(column.name)
        return Reading("scaled(-2)" if cents else "", "numeric")
    return Reading("number", "numeric") if kinds <= NUMBERS | {"number as text"} else None


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
        if self.type != "text" and ">>" not in self.origin and self.origin != "CreateTime()":
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
    says so."""

    column: LiveColumn
    declared: Declared | None
    remark: str = ""
    certain: bool = False


def key_of(found: Match) -> tuple[str, ...]:
    """The columns that identify the document: the primary key, unless Postgres generates its value."""
    table = found.table
    own = {c.name for c in table.columns if c.default is not None or c.identity or c.live.generated}
    if table.primary and not set(table.primary) & own and (found.entries is None or len(table.primary) > 1):
        return table.primary
    natural = [u for u in table.unique if not set(u) & own]
    return natural[0] if natural else table.primary


def text_path(names: Names) -> str | None:
    """The field as names joined by dots; None if a name holds a dot or a backtick."""
    return ".".join(names) if all("." not in n and "`" not in n for n in names) and all(names) else None


def spelled(names: Names) -> str:
    """The field as it stands in a declaration."""
    path = text_path(names)
    return repr(names if path is None or not is_field_path(path) else path)


def guess_columns(found: Match, by_table: Mapping[str, Match]) -> list[Guess]:
    """A guess for each column of a table."""
    key = key_of(found)
    taken: set[object] = set()
    return [
        replace(_guess(found, _as_named(found, column, by_table), by_table, key, taken), column=column)
        for column in found.table.columns
    ]


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
    if column.name in table.primary and not is_key_:
        return Guess(column, None, f"left to its default, {column.default or 'identity'}", certain=True)
    if (is_key_ or table.key_to(column.name)) and not can_be_key(live):
        return Guess(column, None, f"TODO a key of type {live.name} can't be declared")
    by_path = _from_path(found, column, by_table, key, taken)
    if by_path is not None:
        origin, type_, remark = by_path
        role = "key" if is_key_ else "insert_only" if origin == "CreateTime()" else "compared"
        required = column.not_null and not (is_key_ and origin.startswith(("DocumentId", "Segment", "EntryKey")))
        return _with_reference(
            found, Guess(column, Declared(role, origin, type_, required), remark, not remark), by_table
        )
    if found.entries is not None:
        return _uncovered(found, column)
    refers = table.key_to(column.name)
    fields = found.fields
    candidates = [c for c in candidates_of(fields, table, column) if _use(c) not in taken]
    if not candidates and refers is not None:
        candidates = [c for c in _by_target(found, column, by_table) if _use(c) not in taken]
    if candidates:
        alike, names, way = candidates[0]
        taken.add(_use(candidates[0]))
        return _with_reference(found, _from_field(found, column, names, way, alike, is_key_), by_table)
    if live.kind == "jsonb" and words(column.name) in _DOCUMENTS and not is_key_:
        origin = "WholeDocument() >> plain_json"
        return Guess(column, Declared("compared", origin, "json"), "GUESS from its name: the whole document")
    if live.kind in _TIMES and not is_key_ and (column.not_null or tells_writing(column.name)):
        created = [n for n in check_fields(found.shapes) if tells_creation(n)][:1]
        origin = f"Field({created[0]!r}, CreateTime())" if created else "CreateTime()"
        remark = "GUESS no field looks like it: set on insert, never compared"
        if column.name in table.triggers:
            remark += f"; trigger {table.triggers[column.name]} sets it"
        return Guess(column, Declared("insert_only", origin, "timestamp", column.not_null), remark)
    return _uncovered(found, column)


def _from_field(found: Match, column: LiveColumn, names: Names, way: Reading, alike: float, is_key_: bool) -> Guess:
    """A column that a field fills."""
    seen, sampled = found.fields[names], found.sampled
    shown = text_path(names) or str(names)
    remarks = [f"GUESS from {'its name' if alike == 1 else f'field {shown!r}'}"]
    if alike == 0:
        remarks = [f"GUESS from field {shown!r}: its references lead there"]
    kind = seen.kind or " and ".join(sorted(seen.kinds - {"null"}))
    if way.type in ("integer", "numeric") and kind in NUMBERS:
        kind = "number" if kind == "number" else "integer"  # no time here
    remarks.append(f"{seen.documents} of {sampled} sampled, {kind}")
    origin = f"Field({spelled(names)})" + (f" >> {way.conversion}" if way.conversion else "")
    absent = _absent(column, way.type) if not is_key_ and not found.table.key_to(column.name) else None
    role = "key" if is_key_ else "compared"
    if column.name in found.table.triggers and not is_key_:
        role = "insert_only"
        remarks.append(f"trigger {found.table.triggers[column.name]} sets it, so it is never compared")
    elif way.type in ("integer", "numeric") and _COUNTER.search(column.name) and not is_key_:
        role = "derived"
        remarks.append("GUESS a counter, by its name: it may lag")
    if way.type == "timestamp" and not way.conversion and column.not_null and not is_key_:
        origin = f"Field({spelled(names)}, CreateTime())"
    elif column.not_null and absent is None and seen.documents < sampled:
        remarks.append("TODO a document without it is rejected, because the column is NOT NULL")
    if wrong := _refused_texts(seen, column.live):
        remarks.append(f"TODO {wrong}")
    if column.default is not None and absent is None and way.type != "timestamp" and role != "key":
        remarks.append("TODO an absent field doesn't become the column's default")
    return Guess(column, Declared(role, origin, way.type, column.not_null, absent), ", ".join(remarks))


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


def _uncovered(found: Match, column: LiveColumn) -> Guess:
    """Why nothing fills a column."""
    by_trigger = found.table.triggers.get(column.name)
    if by_trigger is not None:
        return Guess(column, None, f"left out: trigger {by_trigger} sets it", certain=True)
    told = (
        "no field looks like it" if column.filled else "TODO it is NOT NULL and needs a value: no field looks like it"
    )
    alike = [n for n in found.fields if _likeness(found.table, column, n) >= 0.5] if found.entries is None else []
    for names in alike[:1]:
        seen = found.fields[names]
        kinds = " and ".join(sorted(seen.kinds - {"null"})) or "null alone"
        if seen.elements:
            kinds += f" of {' and '.join(sorted(seen.elements))}"
        told = f"TODO field {text_path(names) or str(names)!r} looks like it and holds {kinds}: no conversion makes {column.live.name} of that"
        if len(seen.kinds - {"null"}) > 1:
            told += ", but one of your own can"
    if told.startswith("no") and column.default is not None:
        told += f"; it gets its default, {column.default}"
    return Guess(column, None, told)


def _with_reference(found: Match, guess: Guess, by_table: Mapping[str, Match]) -> Guess:
    """The guess with what its foreign key says."""
    key = found.table.key_to(guess.column.name)
    declared = guess.declared
    if declared is None:
        return guess
    if key is None:
        several = [k for k in found.table.foreign if len(k.columns) > 1 and guess.column.name in k.columns]
        told = [f"TODO its foreign key ({', '.join(k.columns)}) to {k.table} can't be declared" for k in several]
        return replace(guess, remark=", ".join(filter(None, [guess.remark, *told])))
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


def _from_path(
    found: Match, column: LiveColumn, by_table: Mapping[str, Match], key: tuple[str, ...], taken: set[object]
) -> tuple[str, str, str] | None:
    """An origin that needs no field: from the document's path, or its entry. Its type, and the remark on it."""
    shape, live = found.shapes[0], column.live
    foreign = found.table.key_to(column.name)
    parent = by_table.get(foreign.table) if foreign else None
    if parent is not None:
        segment = _segment(found, parent, nullable=not column.not_null)
        if segment is not None and segment not in taken:  # a second reference to the same table is a field's
            taken.add(segment)
            return segment, "text", ""
    if found.entries is not None:
        if column.name in key:
            return "EntryKey()", "text", "GUESS from the entries' keys or elements"
        if live.kind in _TIMES:
            return "CreateTime()", "timestamp", "GUESS of its document"
        kind = shape.open_maps.get(found.entries)
        if kind is not None and "EntryValue" not in taken:
            way = reading(Seen({kind}), column, found.entries)
            if way is not None and not way.conversion:
                taken.add("EntryValue")
                return "EntryValue()", way.type, "GUESS from the entries' values"
        return None
    if key == (column.name,) or (column.name in key and column.name.removesuffix("_id") == shape.variables[-1]):
        ids = [id_ for s in found.shapes for id_ in s.ids]
        wrong = sum(not is_key(live, id_) for id_ in ids)
        if 2 * wrong > len(ids):
            return None
        taken.add("DocumentId")
        told = (
            f"GUESS {wrong} of {len(ids)} sampled ids are no key of this type: their documents are rejected"
            if wrong
            else ""
        )
        return "DocumentId()", "text", told
    has_field = bool(candidates_of(found.fields, found.table, column))
    if column.name in key and len(found.shapes) == 1 and "DocumentId" not in taken and not has_field:
        taken.add("DocumentId")
        return "DocumentId()", "text", "GUESS no field looks like it: the document's id"
    variables = set.intersection(*(set(s.variables[:-1]) for s in found.shapes))
    named = sorted(v for v in variables if words(v) == words(column.name) and column.name.endswith("_id"))
    if named and not has_field and live.kind in TEXT_COLUMNS | {"uuid"}:
        return f"Segment({named[0]!r})", "text", "GUESS from the path, by name: there is no foreign key"
    return None


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
        segments.append(parts[at[-1] - 1][1:-1] if at else None)
    if all(s is not None and s == segments[0] for s in segments):
        return f"Segment({segments[0]!r})"
    return None


Candidate = tuple[float, Names, Reading]


def _use(candidate: Candidate) -> object:
    """What only one column may take: a field, or a part of it."""
    _, names, way = candidate
    return (names, way.conversion if way.conversion in ("latitude", "longitude") else "")


def _likeness(table: LiveTable, column: LiveColumn, names: Names) -> float:
    like = time_likeness if column.live.kind in _TIMES else likeness
    value = max(like(column.name, names[-1]), like(column.name, "_".join(names)))
    bare = [word for word in words(column.name) if word not in words(table.bare)]
    if bare and len(bare) < len(words(column.name)):  # posts.post_title
        value = max(value, like("_".join(bare), names[-1]) - 0.1)
    axis = set(words(column.name)) & {"lat", "latitude", "lng", "lon", "longitude"}
    if axis and column.live.kind in _DECIMALS:
        rest = "_".join(word for word in words(column.name) if word not in axis)
        value = max(value, like(rest, names[-1]) if rest else 0.5)
    if column.live.kind in _DECIMALS and "cent" in words(names[-1]):
        value = max(value, like(column.name, "_".join(w for w in words(names[-1]) if w != "cent")) - 0.1)
    return value


def candidates_of(fields: Mapping[Names, Seen], table: LiveTable, column: LiveColumn) -> list[Candidate]:
    """Fields that the column can take and whose name is like its own, the likeliest first."""
    refers = table.key_to(column.name) is not None
    axis = column.live.kind in _DECIMALS and set(words(column.name)) & {"lat", "latitude", "lng", "lon", "longitude"}
    found = []
    for names, seen in fields.items():
        value = _likeness(table, column, names)
        if value < 0.5 or (axis and value == 0.5 and seen.kind != "geopoint"):
            continue
        way = reading(seen, column, names, refers=refers)
        if way is not None:
            found.append((value, names, way))
    return sorted(found, key=lambda c: (-c[0], len(c[1]), c[1]))


def _by_target(found: Match, column: LiveColumn, by_table: Mapping[str, Match]) -> list[Candidate]:
    """The field whose references lead to the collection that fills the referenced table, if there is just one."""
    key = found.table.key_to(column.name)
    parent = by_table.get(key.table) if key else None
    if parent is None:
        return []
    ids = {shape.id for shape in parent.shapes}
    leading = [n for n, seen in found.fields.items() if seen.kind == "reference" and seen.refers <= ids and seen.refers]
    ways = [(0.0, names, reading(found.fields[names], column, names, refers=True)) for names in leading[:2]]
    return [(v, n, w) for v, n, w in ways if w is not None] if len(leading) == 1 else []


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


def check_fields(shapes: Sequence[Shape]) -> list[str]:
    """Timestamp fields that say when a document was written, of all the paths; those that every document has come first."""
    found = []
    for names in shapes[0].fields:
        path = text_path(names)
        everywhere = all(s.fields[names].kind == "timestamp" if names in s.fields else not s.sampled for s in shapes)
        if path is not None and is_field_path(path) and everywhere and tells_writing(path):
            found.append((not all(s.always(names) for s in shapes), path))
    return [path for _, path in sorted(found)]


def other_times(shapes: Sequence[Shape]) -> list[tuple[str, str]]:
    """Fields that say when a document was written and hold no timestamps, with what they hold."""
    return [
        (path, seen.kind)
        for names, seen in shapes[0].fields.items()
        if (path := text_path(names)) and tells_writing(path) and seen.kind in {*_MOMENTS} - {"timestamp"}
    ]
