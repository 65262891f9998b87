"""Pure: from a document to a column's cell, by the column's origin and type, or to a refusal with the reason.

The one definition of the mapping. A collection's columns are compiled into closures, once. A `Reader` reads their input: a plain
`Document` (document_entries.py), or Firestore's own message (firestore/staging.py), with short ways to usual texts and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from dualwrite.model import conditions
from dualwrite.model.cell_types import Cell, Converter, exact_converter, stands_for_key
from dualwrite.model.conditions import Condition, Holds
from dualwrite.model.declaration import (
    Column,
    Computed,
    Constant,
    Converted,
    CreateTime,
    DocumentId,
    DocumentPath,
    EntryField,
    EntryIndex,
    EntryKey,
    EntryValue,
    Field,
    FieldPath,
    FirstOf,
    Origin,
    ParentId,
    Segment,
    Template,
    WholeDocument,
    names_of,
    other_spellings,
)
from dualwrite.model.documents import Reference, Value, is_valid_id, path_of, type_name
from dualwrite.model.entries import function_name
from dualwrite.model.errors import Refused


class Reader(Protocol):
    """How to read a document in some form. `raw`: a value in that form."""

    def nested(self, names: tuple[str, ...]) -> Callable[[Any], Any]:
        """From a document's fields to the raw value at a path; None if a step leads through something that is no map."""
        ...

    def plain(self, raw: Any) -> Value: ...

    def everything(self, fields: Any) -> dict[str, Value]: ...

    def created(self, of: Any) -> datetime:
        """The create_time, in microseconds."""
        ...

    def converter(self, column: Column) -> Callable[[Any], Cell]:
        """From a raw value to the column's cell; None for null. Raises Refused."""
        ...


SURELY_AN_ID = 1500 // 4
"""Up to this many letters and digits are always a valid id: no slash, dot, underscore or U+0000, and at most 1,500 bytes."""

Make = Callable[[Sequence[str], Any, Any, list[int]], Cell]
"""From a document (the segments of its name, as `Template.extended` gives them; its fields; itself) to a column's cell. A
stand-in adds its column's bits to the list. Raises Refused."""
_Find = Callable[[Sequence[str], Any, Any], Value]
"""From a document to the plain value of an origin; None if it is absent."""


def compile_column(column: Column, template: Template, reader: Reader, *, offset: int = 0, bits: int = 0) -> Make:
    """From a document to the column's cell. `offset`: how many segments of a name stand before the path. `bits` mark a
    stand-in."""
    made = _make(column, column.origin, template, reader, offset, bits)
    return made if column.role != "derived" else _lagging(column, made)


def _lagging(column: Column, make: Make) -> Make:
    """In a derived column, a value that is refused counts as absent and rejects nothing."""
    absent = _absent(column)

    def made(segments: Sequence[str], fields: Any, of: Any, marks: list[int]) -> Cell:
        try:
            return make(segments, fields, of, marks)
        except Refused:
            return absent()

    return made


def _make(column: Column, origin: Origin, template: Template, reader: Reader, offset: int, bits: int) -> Make:
    if isinstance(origin, Field):
        return _field(column, origin, template, reader, offset, bits)
    find, exact, absent = _find(origin, template, reader, offset), exact_converter(column), _absent(column)
    if isinstance(origin, DocumentId | Segment) and column.type == "text" and not stands_for_key(column):
        return _id_in_path(
            len(template.segments) - 1 if isinstance(origin, DocumentId) else template.place(origin.variable),
            exact,
            offset,
        )
    if isinstance(origin, EntryIndex) and column.type == "text":
        find = _written(find)

    def made(segments: Sequence[str], fields: Any, of: Any, marks: list[int]) -> Cell:
        value = find(segments, fields, of)
        return absent() if value is None else exact(value)

    return made


def _id_in_path(place: int, exact: Converter, offset: int) -> Make:
    """An id of the document's path; nearly every one needs no exact check."""
    index = offset + place

    def made(segments: Sequence[str], fields: Any, of: Any, marks: list[int]) -> Cell:
        text = segments[index]
        return text if text.isalnum() and len(text) <= SURELY_AN_ID else exact(text)

    return made


def _field(column: Column, origin: Field, template: Template, reader: Reader, offset: int, bits: int) -> Make:
    """The way of nearly every value of nearly every document, with as few steps as possible."""
    convert = reader.converter(column)
    otherwise: Make
    if origin.otherwise is None:
        absent = _absent(column)

        def otherwise(segments: Sequence[str], fields: Any, of: Any, marks: list[int]) -> Cell:
            return absent()
    else:
        standing_in = _make(column, origin.otherwise, template, reader, offset, 0)

        def otherwise(segments: Sequence[str], fields: Any, of: Any, marks: list[int]) -> Cell:
            marks.append(bits)
            return standing_in(segments, fields, of, marks)

    if len(origin.names) > 1:
        lookup = _raw_at(origin.path, reader)

        def nested(segments: Sequence[str], fields: Any, of: Any, marks: list[int]) -> Cell:
            raw = lookup(fields)
            cell = None if raw is None else convert(raw)
            return otherwise(segments, fields, of, marks) if cell is None else cell

        return nested
    [name] = origin.names

    def top(segments: Sequence[str], fields: Any, of: Any, marks: list[int]) -> Cell:
        raw = fields.get(name)
        if raw is not None:
            cell = convert(raw)
            if cell is not None:
                return cell
        return otherwise(segments, fields, of, marks)

    return top


def compile_entry(column: Column, template: Template, reader: Reader) -> Callable[[Any], Value]:
    """From an entry to the value of one of `Collection.entry_columns`. Raises Refused."""
    find = _find(column.origin, template, reader, 0)
    if isinstance(column.origin, EntryIndex):
        find = _written(find)
    return lambda of: find((), {}, of)


def compile_reference(
    column: Column, template: Template, reader: Reader
) -> Callable[[Sequence[str], Any, Any], str | None] | None:
    """From a document to the unconverted value of a reference column: the path of a Firestore reference, or an id. None for a
    column without a conversion."""
    if column.references is None or not isinstance(column.origin, Converted | FirstOf):
        return None
    finds = [_find(source, template, reader, 0) for source in _sources(column.origin)]

    def path(segments: Sequence[str], fields: Any, of: Any) -> str | None:
        value = _first(finds)(segments, fields, of)
        if isinstance(value, Reference):
            return path_of(value)
        return value if isinstance(value, str) and is_valid_id(value) else None

    return path


def _sources(origin: Origin) -> Iterator[Origin]:
    match origin:
        case Converted(origin=inner):
            yield from _sources(inner)
        case FirstOf(origins=origins):
            for inner in origins:
                yield from _sources(inner)
        case _:
            yield origin


def compile_condition(condition: Condition, template: Template, reader: Reader, *, offset: int = 0) -> Holds:
    """Whether a document, or one of its entries, has a row."""

    def way(what: FieldPath | Origin) -> tuple[str, _Find]:
        origin = _looked_at(what)
        return origin_name(origin), _find(origin, template, reader, offset)

    return conditions.compiled(condition, way)


def condition_in_words(condition: Condition) -> str:
    """A condition in words, for a person."""
    return conditions.in_words(condition, lambda what: origin_name(_looked_at(what)))


def _looked_at(what: FieldPath | Origin) -> Origin:
    return Field(what) if isinstance(what, str | tuple) else what


def _written(find: _Find) -> _Find:
    return lambda segments, fields, of: str(find(segments, fields, of))


def _find(origin: Origin, template: Template, reader: Reader, offset: int) -> _Find:  # noqa: C901 - a line for each origin
    match origin:
        case DocumentId():
            return _at(offset + len(template.segments) - 1)
        case DocumentPath():
            end = offset + len(template.segments)
            return lambda segments, fields, of: "/".join(segments[offset:end])
        case Segment(variable=variable):
            return _at(offset + template.place(variable))
        case ParentId(collection_id=name):
            above = template.parent_collection_id == name
            return _at(offset + len(template.segments) - 3) if above else lambda segments, fields, of: None
        case CreateTime():
            return lambda segments, fields, of: reader.created(of)
        case EntryKey():
            return lambda segments, fields, of: of.key
        case EntryValue():
            return lambda segments, fields, of: of.value
        case EntryIndex(start=start):
            return lambda segments, fields, of: of.index + start
        case EntryField(path=path):
            within = _value_at(path, reader)
            return lambda segments, fields, of: within(segments, of.value, of) if isinstance(of.value, dict) else None
        case Constant(value=value):
            return lambda segments, fields, of: value
        case WholeDocument():
            return lambda segments, fields, of: dict(reader.everything(fields))
        case Field(path=path):
            return _value_at(path, reader)
        case Computed(function=function, paths=paths):
            return compile_function(function, paths, template, reader, offset=offset)
        case FirstOf(origins=origins):
            return _first([_find(inner, template, reader, offset) for inner in origins])
        case Converted(origin=inner, conversion=conversion):
            return _converted(_find(inner, template, reader, offset), conversion.convert, conversion.name)


def _at(index: int) -> _Find:
    return lambda segments, fields, of: segments[index]


DOTTED_NAME = (
    "dotted_name: nothing is at {}, and the document has a field whose own name contains that dot. If that field is meant, write "
    "the path as a tuple of names in the catalog"
)


def _raw_at(path: FieldPath, reader: Reader) -> Callable[[Any], Any]:
    """From a document's fields to the raw value at a path. Raises Refused if it is below a name with a dot instead."""
    lookup = reader.nested(names_of(path))
    others = [reader.nested(names) for names in other_spellings(path)]
    if not others:
        return lookup

    def find(fields: Any) -> Any:
        raw = lookup(fields)
        if raw is None and any(other(fields) is not None for other in others):
            raise Refused(DOTTED_NAME.format(path))
        return raw

    return find


def _value_at(path: FieldPath, reader: Reader) -> _Find:
    lookup = _raw_at(path, reader)

    def find(segments: Sequence[str], fields: Any, of: Any) -> Value:
        raw = lookup(fields)
        return None if raw is None else reader.plain(raw)

    return find


def _first(finds: Sequence[_Find]) -> _Find:
    def find(segments: Sequence[str], fields: Any, of: Any) -> Value:
        for each in finds:
            value = each(segments, fields, of)
            if value is not None:
                return value
        return None

    return find


def compile_function(
    function: Callable[..., Value],
    paths: Sequence[FieldPath | Origin],
    template: Template,
    reader: Reader,
    *,
    offset: int = 0,
) -> _Find:
    """From a document to the result of a person's function on some of its values. Raises Refused."""
    finds = [
        _find(path, template, reader, offset) if isinstance(path, Origin) else _value_at(path, reader) for path in paths
    ]
    name = function_name(function)

    def find(segments: Sequence[str], fields: Any, of: Any) -> Value:
        values = [_copied(each(segments, fields, of)) for each in finds]
        try:
            return function(*values)
        except Exception as error:  # noqa: BLE001 - an error of a person's function rejects this document only
            raise Refused(f"not_computed: {name} of {{}} raises {type(error).__name__}") from None

    return find


def _copied(value: Value) -> Value:
    """A copy that a function may change. Maps are sorted, because their order differs from read to read."""
    if isinstance(value, dict):
        return {name: _copied(value[name]) for name in sorted(value, key=str)}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _converted(find: _Find, convert: Callable[[Any], Any], name: str) -> _Find:
    def found(segments: Sequence[str], fields: Any, of: Any) -> Value:
        value = find(segments, fields, of)
        if value is None:
            return None
        try:
            return convert(value)  # type: ignore[no-any-return]
        except Refused:  # one of ours that says more than its kind
            raise
        except Exception as error:  # noqa: BLE001 - a conversion may be a person's own
            kind = type_name(value)
            raise Refused(f"not_converted: {{}} is {kind}, which {name} can't take ({type(error).__name__})") from None

    return found


def _absent(column: Column) -> Callable[[], Cell]:
    """The cell of a column without a value. It raises Refused if the column requires one."""
    if column.absent is not None:
        cell = exact_converter(column)(column.absent)
        return lambda: cell
    if not column.required and column.role != "key":
        return lambda: None

    def refuse() -> Cell:
        raise Refused(f"missing_value: {column.name} is NOT NULL and {origin_name(column.origin)} is absent")

    return refuse


def origin_name(origin: Origin) -> str:  # noqa: C901 - a line for each origin
    """An origin's name in a message."""
    match origin:
        case Field(names=names):
            return "field " + ".".join(names)
        case Segment(variable=variable):
            return f"path segment {variable}"
        case DocumentId():
            return "document id"
        case DocumentPath():
            return "document's path"
        case ParentId(collection_id=name):
            return f"id of the document in {name}"
        case EntryKey():
            return "entry"
        case EntryValue():
            return "entry's value"
        case EntryIndex():
            return "entry's place"
        case EntryField(names=names):
            return "entry's field " + ".".join(names)
        case CreateTime():
            return "create_time"
        case WholeDocument():
            return "the document"
        case Constant():
            return "constant"
        case FirstOf(origins=origins):
            return "the first of " + ", ".join(map(origin_name, origins))
        case Computed(paths=paths):
            return computed_of(paths)
        case Converted(origin=inner):
            return origin_name(inner)


def computed_of(paths: Sequence[FieldPath | Origin]) -> str:
    """The name, in a message, of a function's result on these."""
    return "computed of " + ", ".join(origin_name(p) if isinstance(p, Origin) else ".".join(names_of(p)) for p in paths)
