"""Origins of a column's value, as a catalog names them, and the paths of fields.

Values only; cells.py reads documents by them.
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
        """This value, converted: `Field("created") >> iso_time`. Several conversions run in their order."""
        return Converted(self, conversion)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class DocumentId(_Origin):
    """The last segment of the document's path."""


@dataclass(frozen=True, slots=True)
class DocumentPath(_Origin):
    """The document's whole path, usually converted, for example to a uuid v5."""


@dataclass(frozen=True, slots=True)
class Segment(_Origin):
    """The path segment at a variable of the template: `Segment("board")` of `boards/{board}/posts/{id}`."""

    variable: str


@dataclass(frozen=True, slots=True)
class ParentId(_Origin):
    """The id of the document directly above, if that is in the collection with this id; otherwise null.

    For collections below two kinds of parent (reactions on a comment, reactions on a reply).
    """

    collection_id: str


FieldPath = str | tuple[str, ...]
"""The place of a value in a document: names joined by dots for nested maps, or a tuple of names, which may contain dots."""


def names_of(path: FieldPath) -> tuple[str, ...]:
    """The names of a path, from the outermost map on."""
    return tuple(path.split(".")) if isinstance(path, str) else path


@dataclass(frozen=True, slots=True)
class Field(_Origin):
    """A field of the document, with dots for nested maps: `Field("address.city")`. A null field counts as absent. A name that
    contains a dot itself is written as a tuple: `Field(("project.name",))`.

    `otherwise`: the origin whose value is inserted if the field is absent; such a stand-in is never compared.
    """

    path: FieldPath
    otherwise: Field | CreateTime | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.path)


@dataclass(frozen=True, slots=True)
class CreateTime(_Origin):
    """The document's create_time, which the server set: the same in every run."""


@dataclass(frozen=True, slots=True)
class EntryKey(_Origin):
    """The key of a map entry, or the element of an array, for collections with `entries`."""


@dataclass(frozen=True, slots=True)
class EntryValue(_Origin):
    """The value of a map entry, for collections with `entries`."""


@dataclass(frozen=True, slots=True)
class EntryIndex(_Origin):
    """The place of an array's element, counted from `start`: `EntryIndex()`, or `EntryIndex(1)` to count from 1. In a key it is
    a text, whatever the column's type. After an element is moved or removed, the rows behind it are stale, and the last one is
    extra."""

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
    """All fields of the document, as a map. For a jsonb column, usually `WholeDocument() >> plain_json`."""


@dataclass(frozen=True, slots=True)
class Constant(_Origin):
    """The same value in each row: `Constant("project")`."""

    value: share.Value


@dataclass(frozen=True, slots=True, init=False)
class FirstOf(_Origin):
    """The first of several origins that has a value: `FirstOf(Field("displayName"), Field("userName"))`, for example for a field
    that was renamed. Unlike a stand-in, it is compared."""

    origins: tuple[Origin, ...]

    def __init__(self, *origins: Origin) -> None:
        object.__setattr__(self, "origins", origins)


@dataclass(frozen=True, slots=True, init=False)
class Computed(_Origin):
    """The result of a pure Python function on some values (None if absent): `Computed(full_name, "first", "last")`. A value is
    named by its field's path or by an origin: `EntryField("price")`, `DocumentPath()`, `WholeDocument()`.

    The function returns a value of the column's `type`, or None. It may depend on nothing but its arguments: the same values
    must give the same result in each run. If it raises, the document is rejected with the function's name.
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
"""In a query's fields, it means that the query reads whole documents."""


def fields_of(origin: Origin) -> Iterator[FieldPath]:
    """The document's fields that an origin reads."""
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
    """An origin, and those inside it."""
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
    """The parts of an origin that read an entry."""
    return (part for part in within(origin) if isinstance(part, EntryOrigin))


def is_field_path(path: FieldPath) -> bool:
    """Whether a path names a field: names joined by dots, or a tuple of names. A name that contains a dot or a backtick must be
    in a tuple; as joined names it would be another field, and its column null."""
    names = names_of(path)
    return bool(names) and all(names) and (not isinstance(path, str) or "`" not in path)


@cache
def other_spellings(path: FieldPath) -> tuple[tuple[str, ...], ...]:
    """The other fields, each as a tuple of names, that a dotted path could mean, with one or more of its dots inside a name. If a
    document has one of them and nothing at the path, the catalog probably means it. Empty for a tuple, which is unambiguous."""
    if not isinstance(path, str):
        return ()
    names = path.split(".")
    spellings: list[tuple[str, ...]] = [(names[0],)]
    for name in names[1:]:
        spellings = [s for before in spellings for s in ((*before, name), (*before[:-1], f"{before[-1]}.{name}"))]
    return tuple(spelling for spelling in spellings if list(spelling) != names)


def type_told_by(origin: Origin) -> Type | None:
    """The type of an origin that has only one possible type; None for others."""
    match origin:
        case Converted(conversion=conversion):
            return conversion.type
        case FirstOf(origins=origins):
            types = {type_told_by(inner) for inner in origins}
            return types.pop() if len(types) == 1 else None
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
