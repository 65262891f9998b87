"""Where a column's value comes from: the origins that a catalog may name, and the paths of fields.

Values only; what they make of a document is in cells.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from dualwrite.model import share
from dualwrite.model.conversions import Conversion
from dualwrite.model.live import DocumentType

Type = DocumentType


class _Origin:
    __slots__ = ()

    def __rshift__(self, conversion: Conversion) -> Converted:
        """This value, converted: `Field("created") >> iso_time`. Several are done in their order."""
        return Converted(self, conversion)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class DocumentId(_Origin):
    """The last segment of the document's path."""


@dataclass(frozen=True, slots=True)
class DocumentPath(_Origin):
    """The document's whole path, mostly converted: a uuid v5 of it."""


@dataclass(frozen=True, slots=True)
class Segment(_Origin):
    """The path segment at a variable of the template: `Segment("board")` of `boards/{board}/posts/{id}`."""

    variable: str


@dataclass(frozen=True, slots=True)
class ParentId(_Origin):
    """The id of the document directly above, when that is in the collection with this id; null otherwise.

    For collections that hang below two kinds of parent (reactions on a comment, reactions on a reply).
    """

    collection_id: str


FieldPath = str | tuple[str, ...]
"""Where a value is in a document: names joined by dots for nested maps, or a tuple of names, which may hold dots."""


def names_of(path: FieldPath) -> tuple[str, ...]:
    return tuple(path.split(".")) if isinstance(path, str) else path


@dataclass(frozen=True, slots=True)
class Field(_Origin):
    """A field of the document, dots for nested maps: `Field("address.city")`. Absent and null are one. A name that holds a dot
    itself stands in a tuple: `Field(("project.name",))`.

    `otherwise` names what an absent field becomes when the row is inserted; such a value is a stand-in, not a
    statement of the document's, so it is never compared.
    """

    path: FieldPath
    otherwise: Field | CreateTime | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.path)


@dataclass(frozen=True, slots=True)
class CreateTime(_Origin):
    """The server's create_time: the same in every run, unlike the time of the run."""


@dataclass(frozen=True, slots=True)
class EntryKey(_Origin):
    """The key of a map entry, or the element of an array, for collections with `entries`."""


@dataclass(frozen=True, slots=True)
class EntryValue(_Origin):
    """The value of a map entry, for collections with `entries`."""


@dataclass(frozen=True, slots=True)
class EntryIndex(_Origin):
    """The place of an array's element, counted from `start`: `EntryIndex()`, or `EntryIndex(1)` for a position that begins at 1.
    As a key it is written as text, whatever the column is."""

    start: int = 0


@dataclass(frozen=True, slots=True)
class EntryField(_Origin):
    """A field of an entry that is a map: `EntryField("sku")`. The path is written as a Field's."""

    path: FieldPath

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.path)


@dataclass(frozen=True, slots=True)
class WholeDocument(_Origin):
    """All fields of the document, as a map: for a jsonb column, mostly `WholeDocument() >> plain_json`."""


@dataclass(frozen=True, slots=True)
class Constant(_Origin):
    """The same value in each row: `Constant("project")`."""

    value: share.Value


@dataclass(frozen=True, slots=True, init=False)
class FirstOf(_Origin):
    """The first of some origins that has a value: `FirstOf(Field("displayName"), Field("userName"))`. Compared, unlike a
    stand-in: for a field that got another name in a version of the app."""

    origins: tuple[Origin, ...]

    def __init__(self, *origins: Origin) -> None:
        object.__setattr__(self, "origins", origins)


@dataclass(frozen=True, slots=True, init=False)
class Computed(_Origin):
    """What a pure Python function makes of some values (None where absent): `Computed(full_name, "first", "last")`. Each is named
    by its field's path or by an origin: `EntryField("price")`, `DocumentPath()`, `WholeDocument()`.

    It returns a value of the column's `type`, or None. It may see nothing but its arguments: the same values must give the same
    result in each run. Where it raises, the document is rejected, with the function's name.
    """

    function: Callable[..., Any]
    paths: tuple[FieldPath | Origin, ...]

    def __init__(self, function: Callable[..., Any], *paths: FieldPath | Origin) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "paths", paths)


@dataclass(frozen=True, slots=True)
class Converted(_Origin):
    """An origin's value, converted (see conversions.py)."""

    origin: Origin
    conversion: Conversion

    def __rshift__(self, conversion: Conversion) -> Converted:
        return Converted(self.origin, self.conversion >> conversion)


Origin = (
    DocumentId
    | DocumentPath
    | Segment
    | ParentId
    | Field
    | CreateTime
    | EntryKey
    | EntryValue
    | EntryIndex
    | EntryField
    | WholeDocument
    | Constant
    | FirstOf
    | Computed
    | Converted
)

ALL_FIELDS = ""
"""Stands among the fields of a query that reads documents whole."""


def fields_of(origin: Origin) -> Iterator[FieldPath]:
    """The fields of the document that an origin looks at."""
    match origin:
        case Field(path=path, otherwise=otherwise):
            yield path
            if otherwise is not None:
                yield from fields_of(otherwise)
        case Computed(paths=paths):
            for named in paths:
                yield from fields_of(named) if isinstance(named, Origin) else [named]
        case Converted(origin=inner):
            yield from fields_of(inner)
        case FirstOf(origins=origins):
            for inner in origins:
                yield from fields_of(inner)
        case WholeDocument():
            yield ALL_FIELDS


EntryOrigin = EntryKey | EntryValue | EntryIndex | EntryField


def within(origin: Origin) -> Iterator[Origin]:
    """An origin, and those that it is made of."""
    yield origin
    match origin:
        case Computed(paths=paths):
            for path in paths:
                if isinstance(path, Origin):
                    yield from within(path)
        case Converted(origin=inner):
            yield from within(inner)
        case FirstOf(origins=origins):
            for inner in origins:
                yield from within(inner)


def entry_parts(origin: Origin) -> Iterator[EntryOrigin]:
    """What an origin looks at of an entry."""
    return (part for part in within(origin) if isinstance(part, EntryOrigin))


def is_field_path(path: FieldPath) -> bool:
    """Whether a path names a field: names joined by dots, or a tuple of names. A field whose own name holds a dot or a
    backtick can only stand in a tuple; read as joined names it would be another field, and its column null."""
    names = names_of(path)
    return bool(names) and all(names) and (not isinstance(path, str) or "`" not in path)


@cache
def other_spellings(path: FieldPath) -> tuple[tuple[str, ...], ...]:
    """The fields, each as the names on its way, that look like a dotted path and are none: one or more of its dots stand
    inside a name. A document that has one of them, and nothing at the path, says what the catalog doesn't. A tuple of names
    can't be mistaken."""
    if not isinstance(path, str):
        return ()
    names = path.split(".")
    found: list[tuple[str, ...]] = [(names[0],)]
    for name in names[1:]:
        found = [s for before in found for s in ((*before, name), (*before[:-1], f"{before[-1]}.{name}"))]
    return tuple(spelling for spelling in found if list(spelling) != names)


def type_told_by(origin: Origin) -> Type | None:
    """The type of an origin that can have but one."""
    match origin:
        case Converted(conversion=conversion):
            return conversion.type
        case FirstOf(origins=origins):
            told = {type_told_by(inner) for inner in origins}
            return told.pop() if len(told) == 1 else None
        case CreateTime():
            return "timestamp"
        case EntryIndex():
            return "integer"
        case Constant(value=bool()):
            return "boolean"
        case Constant(value=int()):
            return "integer"
        case WholeDocument():
            return "json"
        case _:
            return None
