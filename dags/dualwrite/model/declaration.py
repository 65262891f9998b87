"""The words in which a catalog declares collections, and the checks that a declaration must pass at import.

A `Collection` says where documents live, which table holds their rows, and for each column where its value comes from
(its origin, see origins.py) and what a difference in it means (its role). Nothing here knows any collection's name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import get_args

from dualwrite import settings
from dualwrite.model import conditions, entries, share, templates
from dualwrite.model.check_fields import Check, checks_of
from dualwrite.model.columns import ROLES, TYPES, WHEN_GONE, Column, Role, Via
from dualwrite.model.conditions import Condition
from dualwrite.model.documents import is_valid_id
from dualwrite.model.entries import ArrayElements, ComputedEntries, Entries, MapEntries
from dualwrite.model.errors import CatalogError
from dualwrite.model.live import LiveType
from dualwrite.model.origins import (
    ALL_FIELDS,
    Computed,
    Constant,
    Converted,
    CreateTime,
    DocumentId,
    DocumentPath,
    EntryField,
    EntryIndex,
    EntryKey,
    EntryOrigin,
    EntryValue,
    Field,
    FieldPath,
    FirstOf,
    Origin,
    ParentId,
    Segment,
    Type,
    WholeDocument,
    entry_parts,
    fields_of,
    is_field_path,
    names_of,
    other_spellings,
    within,
)
from dualwrite.model.parents_told import is_told
from dualwrite.model.references import Need, NeedEachOther, Order, Parent, in_order
from dualwrite.model.templates import Template, is_template

__all__ = [
    "ALL_FIELDS",
    "ROLES",
    "TYPES",
    "WHEN_GONE",
    "ArrayElements",
    "Catalog",
    "Collection",
    "Column",
    "Computed",
    "ComputedEntries",
    "Constant",
    "Converted",
    "CreateTime",
    "DocumentId",
    "DocumentPath",
    "Entries",
    "EntryField",
    "EntryIndex",
    "EntryKey",
    "EntryOrigin",
    "EntryValue",
    "Field",
    "FieldPath",
    "FirstOf",
    "MapEntries",
    "Operations",
    "Origin",
    "Parent",
    "ParentId",
    "Role",
    "Segment",
    "Template",
    "Type",
    "WholeDocument",
    "entry_parts",
    "fields_of",
    "is_field_path",
    "is_template",
    "names_of",
    "other_spellings",
    "two_on_one_table",
]


@dataclass(frozen=True, slots=True)
class Operations:
    """How the app's write_ops name keys of this collection: the entity type, and the columns that the entity id
    holds, joined by underscores (`block:create:<blocker>_<blocked>:...`). No columns: the entity id is the document's
    id, which no column holds."""

    entity: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)  # itself and no other: hashing its columns for each document would cost a fifth
class Collection:
    """One unit of the move: documents of one collection id, and the table that holds their rows.

    `paths` are templates such as `boards/{board}/posts/{id}` or `users/{user}/private/profile` (see templates.py); a document of the
    same collection id on any other path is a stray. `check_fields` are the fields that say when a document was written: a name holds timestamps,
    `Check("updated", iso_time)` holds times in a format; with none, the
    collection is read whole every time (for small ones that carry no such field). `written_columns` are the columns
    that say when a row was written. `unique` lists further unique keys of the table. `entries` makes rows out of
    a map or an array inside the documents, or of a list that a function makes of them. `where` says which documents, or which of their entries, have a row. `rows` is the
    collection's share of a table that holds other rows too: columns and their values.
    """

    name: str
    table: str
    paths: tuple[str, ...]
    columns: tuple[Column, ...]
    check_fields: tuple[str | Check, ...] = ()
    written_columns: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    entries: Entries | None = None
    operations: tuple[Operations, ...] = ()
    selected: bool = False
    """Whether a run examines it when nobody chose."""
    sentinel: bool = False
    """Never empty on a live system: without documents or rows here, a run refuses to begin."""
    where: Condition | None = None
    rows: share.Share = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (fault := share.fault(self.rows)) is not None:
            _refuse(
                self, "rows= gives columns of the table their values", fault, 'Write it as rows={"channel": "web"}.'
            )
        declared = {column.name for column in self.columns}
        own = [Column(n, "insert_only", Constant(v)) for n, v in self.rows.items() if n not in declared]
        object.__setattr__(self, "columns", (*self.columns, *own))
        _check_collection(self)

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        return tuple(Template(path) for path in self.paths)

    @cached_property
    def place(self) -> tuple[str, str]:
        """The schema and the name of the table; named without a schema it is in `public`, whoever looks."""
        schema, _, name = self.table.rpartition(".")
        return schema or "public", name

    @property
    def collection_id(self) -> str:
        """The last collection id of the path: what a collection-group query names."""
        return self.templates[0].collection_id

    @cached_property
    def top_level(self) -> bool:
        """Whether its documents lie at the root of the database."""
        return all(len(t.segments) == 2 for t in self.templates)

    @cached_property
    def is_one_document(self) -> bool:
        """Whether its path has no variables, so that there is but one document."""
        return len(self.templates) == 1 and not self.templates[0].variables

    @cached_property
    def is_plain(self) -> bool:
        """Whether each id of its paths is one variable, so that any id is one."""
        return all(t.is_plain for t in self.templates)

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The check fields, each with its format."""
        return checks_of(self.check_fields)

    def check_of(self, column: Column) -> Check | None:
        """The check field whose value a column holds, converted or not."""
        origin = column.origin.origin if isinstance(column.origin, Converted) else column.origin
        if not isinstance(origin, Field):
            return None
        return next((check for check in self.checks if check.field == origin.path), None)

    def has_instant_of(self, column: Column) -> Check | None:
        """The check field whose instant a column holds, as a window asks for it."""
        check = self.check_of(column)
        form = column.origin.conversion if isinstance(column.origin, Converted) else None
        return check if check is not None and column.type == "timestamp" and form == check.format else None

    def _is_time_of_writing(self, column: Column) -> bool:
        if isinstance(column.origin, FirstOf):
            return all(self._is_time_of_writing(replace(column, origin=inner)) for inner in column.origin.origins)
        return self.check_of(column) is not None

    @cached_property
    def share_columns(self) -> tuple[tuple[Column, share.Value], ...]:
        """The columns that tell its rows from others of the table, with their values."""
        return tuple((self.column(name), value) for name, value in self.rows.items())

    @cached_property
    def key(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.role == "key")

    @cached_property
    def references(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.references is not None)

    @cached_property
    def parents(self) -> frozenset[str]:
        """Names of the collections that this one's rows need first."""
        return frozenset(c.parent.collection for c in self.references)

    @cached_property
    def parents_first(self) -> frozenset[str]:
        """Those of its parents whose rows are written before this one's, not filled in later."""
        return frozenset(c.parent.collection for c in self.references if not c.late)

    @cached_property
    def keyed_by_path(self) -> bool:
        """Whether the path alone gives the key. Where it doesn't (a natural key out of fields), several documents
        may share one key, and which of them a row belongs to must be settled by looking at all of them."""
        return all(not isinstance(c.source, Field) for c in self.key)

    @cached_property
    def keyed_by_whole_path(self) -> bool:
        """Whether the key gives the whole path of the only document that can have it. Where it doesn't (a post's id
        says nothing of its board), a document with this key may be at a path that nobody thought of."""
        known = {c.origin.variable for c in self.key if isinstance(c.origin, Segment)}
        if any(isinstance(c.origin, DocumentId) for c in self.key):
            known.update(self.templates[0].ids[-1].variables)
        return len(self.templates) == 1 and self.keyed_by_path and known >= set(self.templates[0].variables)

    @cached_property
    def key_leads_back(self) -> bool:
        """Whether a row's key says which ids it was made of. If not (a uuid v5 of a path), only a complete read of names tells
        whether its document is there."""
        if self.entries is not None and self.document_column is None:
            return False
        return not any(
            isinstance(c.source, DocumentPath)
            or (isinstance(c.origin, Converted) and isinstance(c.source, DocumentId | Segment))
            for c in self.key
        )

    @cached_property
    def entry_columns(self) -> tuple[Column, ...]:
        """The columns of the key that tell an entry from the others of its document. None of them: no entries."""
        return tuple(c for c in self.key if any(entry_parts(c.origin)))

    @cached_property
    def document_column(self) -> Column | None:
        """The column that tells whose a row is among a few documents, of the key if one there does: it holds the document's id, or
        the last variable of its path (see `document_value`)."""
        last = {t.variables[-1] if t.variables else None for t in self.templates}
        found = [
            c
            for c in self.columns
            if (isinstance(c.origin, DocumentId) and not any(t.ids[-1].is_literal for t in self.templates))
            or (isinstance(c.origin, Segment) and last == {c.origin.variable})
        ]
        in_key = [c for c in found if c.role == "key"]
        return next((c for c in [*in_key, *found] if isinstance(c.origin, DocumentId) or self._tells(c)), None)

    def _tells(self, column: Column) -> bool:
        """Whether a variable tells a document from others: alone, or with the others of its id, all of which the key has."""
        held = {c.origin.variable for c in self.key if isinstance(c.origin, Segment)}
        ids = [next(p for p in reversed(t.ids) if p.variables) for t in self.templates]
        return all(len(p.variables) == 1 or (self.keyed_by_path and held >= set(p.variables)) for p in ids)

    def document_value(self, path: str) -> str | None:
        """What `document_column` holds in the rows of a document. None: the path has no such value."""
        assert self.document_column is not None
        if self.is_plain or isinstance(self.document_column.origin, DocumentId):
            return path.rsplit("/", 1)[-1]
        variables = self.match(path)
        return None if variables is None else list(variables.values())[-1]

    @cached_property
    def entries_are_ids(self) -> tuple[bool, ...]:
        """Of each column that tells entries apart whether it names documents of another collection."""
        named = [c.origin for c in self.columns if c.references is not None]
        return tuple(told.origin in named for told in self.entry_columns)

    @cached_property
    def parts_of_entries(self) -> tuple[EntryOrigin, ...]:
        """What its columns and its condition look at of an entry."""
        origins = [c.origin for c in self.columns] + [w for w in self._looked_at if isinstance(w, Origin)]
        return tuple(part for origin in origins for part in entry_parts(origin))

    @cached_property
    def entries_are_maps(self) -> bool:
        return any(isinstance(part, EntryField) for part in self.parts_of_entries)

    @cached_property
    def _looked_at(self) -> tuple[FieldPath | Origin, ...]:
        """What its condition looks at."""
        return () if self.where is None else tuple(conditions.looked_at(self.where))

    @cached_property
    def conditions(self) -> tuple[Condition | None, Condition | None]:
        """What a document must hold, and what each of its entries must hold besides, to have a row."""
        return conditions.split(self.where, lambda what: isinstance(what, Origin) and any(entry_parts(what)))

    @cached_property
    def key_is_ids(self) -> tuple[bool, ...]:
        """Of each key column whether it holds documents' ids, which may be told to people; else it holds content."""
        return tuple(
            c.references is not None
            or isinstance(c.origin, EntryIndex)
            or not (isinstance(c.origin, Field) or any(entry_parts(c.origin)))
            for c in self.key
        )

    @cached_property
    def fingerprinted(self) -> tuple[Column, ...]:
        """The columns that tell whether a difference is still the same one: what is compared, but for the times of
        writing, which counters move all day."""
        return tuple(
            c for c in self.columns if c.role == "key" or (c.role == "compared" and not self._is_time_of_writing(c))
        )

    @cached_property
    def fields(self) -> tuple[FieldPath, ...]:
        """The document fields that the columns need: what a query selects."""
        paths: list[FieldPath] = []
        if self.entries is not None:
            paths += entries.read_for(self.entries)
        for column in self.columns:
            paths += fields_of(column.origin)
        for what in self._looked_at:
            paths += fields_of(what) if isinstance(what, Origin) else [what]
        return tuple(dict.fromkeys(paths))

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)

    def match(self, path: str) -> dict[str, str] | None:
        """The variables of the path, or None for a stray, and for a path whose ids can't be split."""
        segments = path.split("/")
        for template in self.templates:
            variables = template.match(segments)
            if variables is not None:
                return variables
        return None

    def template_of(self, segments: Sequence[str]) -> Template | None:
        """The template that a path is of, even if its ids can't be split. None: a stray."""
        return next((t for t in self.templates if t.fits(segments)), None)

    def has(self, path: str) -> bool:
        """Whether a document at this path is one of the collection's, even if it has no variables; else it is a stray."""
        return self.template_of(path.split("/")) is not None


@dataclass(frozen=True, eq=False)  # one is as good as itself: a key of caches
class Catalog:
    """All collections, checked together: references resolve, no cycles, names are unique."""

    collections: tuple[Collection, ...]
    order: tuple[Collection, ...] = field(init=False)
    """Parents before children; among equals as declared."""

    def __post_init__(self) -> None:
        found = {c.name: c for c in self.collections}
        order = _in_order(self.collections)
        for name in order.names:  # a parent's columns are made before those that get a value through them
            found[name] = _with_references(found[name], found, order.late)
        found = {name: found[name] for name in order.names}
        object.__setattr__(self, "collections", tuple(found[c.name] for c in self.collections))
        object.__setattr__(self, "order", tuple(found.values()))

    def __iter__(self) -> Iterator[Collection]:
        return iter(self.order)

    def __getitem__(self, name: str) -> Collection:
        for collection in self.collections:
            if collection.name == name:
                return collection
        raise CatalogError(
            f"A collection must be declared in the catalog: {name!r} is not. "
            f"Choose from: {', '.join(c.name for c in self.collections)}."
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.order)

    @property
    def default_selection(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.order if c.selected)

    def with_live(self, types: frozenset[tuple[str, str, LiveType]]) -> Catalog:
        """The same catalog, whose columns know what they are in the target: (table, column, type). One for each answer, so
        that what is made of a catalog is made once."""
        return _with_live(self, types)

    def children(self, name: str) -> tuple[tuple[Collection, Column], ...]:
        """The collections whose rows reference this one's, each with the column that does."""
        return tuple((c, column) for c in self.order for column in c.references if column.parent.collection == name)

    def with_parents(self, names: Iterable[str]) -> tuple[str, ...]:
        """The named collections and everything that they need first, in an order fit for inserting."""
        wanted: set[str] = set()
        todo = [self[name] for name in names]
        while todo:
            collection = todo.pop()
            if collection.name not in wanted:
                wanted.add(collection.name)
                todo.extend(self[parent] for parent in collection.parents)
        return tuple(c.name for c in self.order if c.name in wanted)


@lru_cache(maxsize=64)
def _with_live(catalog: Catalog, types: frozenset[tuple[str, str, LiveType]]) -> Catalog:
    known = {(table, column): live for table, column, live in types}
    return Catalog(
        tuple(
            replace(c, columns=tuple(replace(column, read=known.get((c.table, column.name))) for column in c.columns))
            for c in catalog.collections
        )
    )


# --- checks -----------------------------------------------------------------------------------------------------


def _refuse(collection: Collection, rule: str, place: str, remedy: str) -> None:
    raise CatalogError(f"{rule}: {place} of collection {collection.name!r} in {settings.catalog_file()}. {remedy}")


def _check_collection(collection: Collection) -> None:  # noqa: C901 - a rule after the other
    if not collection.paths:
        _refuse(collection, "A collection needs a path", "paths is empty", "Give a template such as things/{id}.")
    for path in collection.paths:
        if (rule := templates.fault(path)) is not None:
            _refuse(collection, rule, f"{path!r}", "Write it as parents/{parent}/things/{id}.")
    if len({t.collection_id for t in collection.templates}) > 1:
        rule = "All paths of a collection end in the same collection id"
        _refuse(collection, rule, f"{collection.paths}", "Declare the others as collections of their own.")
    if (pair := templates.overlapping(collection.templates)) is not None:
        rule, remedy = "A document is of one path", "Remove one, or let their ids begin or end with different texts."
        _refuse(collection, rule, f"{pair[0].text!r} and {pair[1].text!r}", remedy)
    names = [c.name for c in collection.columns]
    for name in names:
        if names.count(name) > 1:
            _refuse(collection, "A column is declared once", f"column {name!r}", "Remove one of them.")
    if not collection.key:
        _refuse(collection, "Rows need a key", "no column has the role key", "Give one or more columns that role.")
    if sum(isinstance(c.origin, DocumentId) for c in collection.key) > 1:
        _refuse(
            collection,
            "A document id is one key, not two",
            "two key columns come from the document id",
            "Keep the role key on one of them.",
        )
    for column in collection.columns:
        _check_column(collection, column)
    for unique in (
        *collection.unique,
        *(o.columns for o in collection.operations),
        collection.written_columns,
    ):
        for name in unique:
            if name not in names:
                _refuse(collection, "Keys name declared columns", f"column {name!r}", "Declare it or correct the name.")
    for name in collection.written_columns:
        if (declared := collection.column(name).type) != "timestamp":
            rule = "A written column holds timestamps: windows compare it with instants"
            _refuse(collection, rule, f"column {name!r} is {declared}", "Name another column, or none.")
    read = entries.read_for(collection.entries) if collection.entries else []
    for each in [*(c.field for c in collection.checks), *(path for path in read if path != ALL_FIELDS)]:
        _check_field_path(collection, each, "check_fields or entries")
    asked = [check.field for check in collection.checks]
    for field_path in asked:
        if asked.count(field_path) > 1:
            rule = "A check field is declared once, in one format"
            remedy = "Keep one of them; if documents hold both, take the field out of check_fields."
            _refuse(collection, rule, f"check_fields names {field_path!r} twice", remedy)
    for check in collection.checks:
        if (fault := check.fault()) is not None:
            rule = "The format of a check field goes back to what documents hold, in the order of time"
            _refuse(
                collection, rule, f"Check({check.field!r}): {fault}",
                "Use iso_time, epoch_seconds, epoch_milliseconds or a Conversion with back= and ordered=True; or take the field "
                "out of check_fields: without one, the collection is read whole each time.",
            )  # fmt: skip
    if collection.entries is not None:
        _check_entries(collection, collection.entries)
    if collection.where is not None:
        _check_where(collection, collection.where)
    _check_rows(collection)


def _check_where(collection: Collection, where: Condition) -> None:
    rule = "A condition is made of Absent, Is, Not, AllOf and AnyOf"
    if (fault := conditions.fault(where)) is not None:
        _refuse(
            collection,
            rule,
            f"where=: {fault}",
            'Write it as where=Absent("deletedAt") or where=Is("status", "active").',
        )
    for what in conditions.looked_at(where):
        if isinstance(what, str | tuple):
            _check_field_path(collection, what, "where=")
        elif isinstance(what, Origin) and not isinstance(what, Constant | CreateTime | WholeDocument):
            # As a column's: an entry's part needs entries, a segment a variable of the paths.
            _check_column(collection, Column("where=", "insert_only", what))
        else:
            remedy = "Name a field's path, or an origin such as EntryValue() or Field(...) >> lower."
            _refuse(collection, "A condition looks at fields, entries and ids", f"where= looks at {what!r}", remedy)


def _check_rows(collection: Collection) -> None:
    for name, value in collection.rows.items():
        column = collection.column(name)
        is_same = isinstance(column.origin, Constant) and share.text_of(column.origin.value) == share.text_of(value)
        if not is_same or column.role not in ("insert_only", "key"):
            rule = "A column of rows= is declared by it; or as a key, of the same value"
            remedy = f'Remove it from columns=, or from rows=; if the table\'s key has it, Column({name!r}, "key", Constant({value!r})).'
            _refuse(collection, rule, f"column {name!r} is declared as something else", remedy)


def _check_entries(collection: Collection, declared: Entries) -> None:
    """Whether a row leads back to its document, and there to its entry."""
    if isinstance(declared, ComputedEntries):
        if (fault := entries.fault(declared)) is not None:
            _refuse(collection, *fault)
        for named in declared.paths:
            if isinstance(named, Origin):  # as a column's: a segment is a variable of the paths
                _check_column(collection, Column("entries=", "insert_only", named))
    told = collection.entry_columns
    if not told:
        _refuse(
            collection,
            "The key tells an entry from the others of its document",
            "no key column comes from the entry",
            "Give the role key to a column of EntryKey(), EntryIndex() or EntryField(...).",
        )
    if (
        collection.document_column is None
        and not collection.is_one_document
        and not isinstance(declared, ComputedEntries)
    ):
        _refuse(
            collection,
            "Rows of entries hold their document's id, or a removed entry's row can't be found",
            "no column comes from it",
            f"Declare the column of DocumentId() or {' and '.join(f'Segment({v!r})' for v in _last_id(collection))}.",
        )
    parts = {type(part) for column in collection.columns for part in entry_parts(column.origin)}
    if EntryIndex in parts and isinstance(declared, MapEntries):
        _refuse(collection, "A map has no order", "EntryIndex()", "Use EntryKey(), or EntryField(...).")
    itself = next((c for c in told if isinstance(c.origin, EntryKey)), None)
    if collection.entries_are_maps and not isinstance(declared, MapEntries) and itself is not None:
        rule = "An array's element is a text, which is the key, or a map, which has fields"
        _refuse(collection, rule, f"key {itself.name!r} is EntryKey()", "Key it by EntryField(...) or EntryIndex().")


def _last_id(collection: Collection) -> tuple[str, ...]:
    """The variables of the last id of its path that has any."""
    return next((p.variables for p in reversed(collection.templates[0].ids) if p.variables), ())


def _check_field_path(collection: Collection, path: FieldPath, place: str) -> None:
    if not is_field_path(path):
        _refuse(
            collection,
            "A field path is names joined by dots, or a tuple of names, which may hold dots and backticks",
            f"{place} names {path!r}",
            "Correct the path.",
        )


_ABSENT: dict[Type, tuple[type, ...]] = {"text": (str,), "integer": (int,), "numeric": (int, float), "boolean": (bool,)}


def _absent_fits(column: Column) -> bool:
    """Whether `absent` is a value that a document's field of this column could have."""
    value: object = column.absent
    if column.type in ("json", "array"):
        kinds = (dict, list) if column.type == "json" else (list,)
        return isinstance(value, kinds) and "\\u0000" not in json.dumps(value, default=str)
    if isinstance(value, bool) != (column.type == "boolean") or not isinstance(value, _ABSENT.get(column.type, ())):
        return False
    if isinstance(value, str):
        return "\x00" not in value and (column.references is None or is_valid_id(value))
    if column.type == "integer":
        return isinstance(value, int) and -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)


def _check_column(collection: Collection, column: Column) -> None:  # noqa: C901 - a rule after the other
    place = f"column {column.name!r}"
    if column.role not in ROLES:
        _refuse(collection, "A role is one of " + ", ".join(ROLES), f"{place} has {column.role!r}", "Choose one.")
    if column.type not in TYPES:
        _refuse(collection, "A type is one of " + ", ".join(TYPES), f"{place} has {column.type!r}", "Choose one.")
    if not isinstance(column.origin, Origin):
        _refuse(
            collection,
            "A column needs an origin",
            f"{place} has {column.origin!r}",
            "Say where its value comes from: " + ", ".join(kind.__name__ for kind in get_args(Origin)) + ".",
        )
    _check_origin(collection, column)
    for part in within(column.origin):
        _check_part(collection, part, place)
    parts = list(entry_parts(column.origin))
    if parts and collection.entries is None:
        _refuse(collection, "Only a collection with entries has entry origins", place, "Declare entries=.")
    if any(isinstance(part, EntryValue) for part in parts) and not isinstance(collection.entries, MapEntries | None):
        _refuse(collection, "Array elements have no value beside themselves", place, "Use EntryKey.")
    for part in parts:
        if isinstance(part, EntryField):
            _check_field_path(collection, part.path, place)
    for path in fields_of(column.origin):
        if path != ALL_FIELDS:
            _check_field_path(collection, path, place)
    origin: Origin | None = column.origin
    while isinstance(origin, Field):
        check = next((c for c in collection.checks if c.field == origin.path), None)
        if check is not None and check.format is None and column.type != "timestamp":
            rule = "A check field holds timestamps, unless its format is declared"
            where = f"{place} takes {origin.path!r}, a check field, as {column.type}"
            remedy = (
                "Declare the column as timestamp, or the field as Check(field, format), or choose another check field."
            )
            _refuse(collection, rule, where, remedy)
        if check is not None and check.format is not None and column.type == "timestamp":
            rule = "A check field with a format holds no timestamps"
            where = f"{place} takes {origin.path!r} as timestamp, and check_fields reads it as {check.format.name}"
            _refuse(
                collection, rule, where, f"Write Field({origin.path!r}) >> {check.format.name}, or remove the format."
            )
        origin = origin.otherwise
    if column.absent is not None and not _absent_fits(column):
        rule, remedy = "absent is a value that a field of this column could have", "Correct it."
        if column.type == "json":
            remedy = "Write a Python dict or list: absent={} is an empty object, absent='{}' would be a string."
        elif column.type == "timestamp":
            rule = "A timestamp column has no absent: it would be the same moment for all documents"
            remedy = "Remove it. An absent field stays null, or its document is rejected where the column is required."
        _refuse(collection, rule, f"{place} has absent={column.absent!r}", remedy)
    if column.references is not None:
        if not isinstance(column.references, str | Parent) or not column.parent.collection:
            rule, remedy = (
                "A reference names a collection",
                'Write references="profiles", or references=Parent("profiles").',
            )
            _refuse(collection, rule, f"{place} has references={column.references!r}", remedy)
        if column.parent.holds == "":
            _refuse(collection, "A column holds a column", f"{place} has holds=''", "Name it, or remove holds=.")
    if column.when_gone not in (None, *WHEN_GONE):
        _refuse(
            collection,
            "What the end of a referenced document means is one of " + ", ".join(WHEN_GONE),
            f"{place} has {column.when_gone!r}",
            "Choose one, or leave it to the live foreign key.",
        )
    if column.when_gone is not None and column.references is None:
        _refuse(collection, "Only a reference can be to what is gone", f"{place} has when_gone=", "Remove it.")
    if column.when_gone == "null" and (column.required or column.role == "key"):
        _refuse(
            collection,
            "Only a nullable column that is no key becomes null",
            f"{place} has when_gone='null'",
            "Remove required=, or when_gone=.",
        )
    if column.role == "key" and column.type != "text":
        _refuse(
            collection,
            "A key comes from an id or a text of the document",
            f"{place} is {column.type}",
            "Leave out type=, which is what the document holds; the table's column may be of another type.",
        )
    if column.role == "key" and isinstance(column.origin, Field) and column.origin.otherwise is not None:
        _refuse(collection, "A key can't be a stand-in", f"{place} has otherwise=", "Remove it.")


def _check_part(collection: Collection, part: Origin, place: str) -> None:
    """What an origin can't be, wherever it stands."""
    if isinstance(part, Segment):
        for template in collection.templates:
            if part.variable not in template.variables:
                _refuse(
                    collection,
                    "A segment is a variable of every path",
                    f"{place} names {part.variable!r}",
                    f"Choose from {', '.join(template.variables)}."
                    if template.variables
                    else "There is none: write a Constant.",
                )
    fixed = {t.segments[-1] if t.ids[-1].is_literal else None for t in collection.templates}
    if isinstance(part, DocumentId) and len(fixed) == 1 and None not in fixed:
        remedy = f"Write Constant({fixed.pop()!r}), or the Segment of a variable, which tells whose document it is."
        _refuse(collection, "A document id is the same for all documents of a path that ends in a text", place, remedy)
    if isinstance(part, ParentId):
        above = {t.parent_collection_id for t in collection.templates}
        if part.collection_id not in above:
            _refuse(
                collection,
                "A parent id names the collection above one of the paths",
                f"{place} names {part.collection_id!r}",
                "Correct the name.",
            )
    if isinstance(part, Computed) and (fault := entries.fault_of_call(part.function, len(part.paths))) is not None:
        rule = "A value is computed by a function that takes as many values as are named and returns one"
        _refuse(collection, rule, f"{place}: {fault}", "Correct the function, or what Computed names.")


def _check_origin(collection: Collection, column: Column) -> None:
    """What a column's origin can't be, by its role and beside other settings."""
    place, origin = f"column {column.name!r}", column.origin
    # An entry may be converted: it is looked for among all entries of its document.
    # What comes from the path is looked for among all names.
    is_told = isinstance(column.source, EntryOrigin | DocumentId | DocumentPath | Segment)
    if isinstance(origin, Converted | FirstOf | Computed | WholeDocument) and column.role == "key" and not is_told:
        _refuse(
            collection,
            "A key is made of the path or an entry, converted or not, or is a field or a constant as it is: of another, only a read of "
            "all documents' fields, for each row, would tell whose it is",
            f"{place} has {type(origin).__name__}",
            "Choose another key.",
        )
    if isinstance(origin, FirstOf) and (
        len(origin.origins) < 2 or not all(isinstance(o, Field | EntryField | Converted) for o in origin.origins)
    ):
        _refuse(
            collection,
            "FirstOf takes two or more fields",
            place,
            "Name each as Field(...) or EntryField(...), converted or not.",
        )
    for inner in within(origin):
        if isinstance(inner, Field) and inner is not origin and inner.otherwise is not None:
            _refuse(
                collection,
                "A stand-in is never compared, so it can't be converted or chosen",
                f"{place} has otherwise=",
                "Use FirstOf(Field(...), Field(...)).",
            )
    if isinstance(origin, Constant) and column.absent is not None:
        _refuse(collection, "A constant is never absent", f"{place} has absent=", "Remove absent=.")


def _with_references(
    collection: Collection, made: Mapping[str, Collection], late: frozenset[tuple[str, str]]
) -> Collection:
    """The collection, whose columns know through which rows they get their values, and when. The same one if all are what is
    named, and their parents come first."""
    columns = []
    for column in collection.columns:
        via: Via | None = None
        beside: tuple[str, ...] = ()
        if column.references is not None and len(made[column.parent.collection].key) > 1:
            groups = _groups(collection, made[column.parent.collection])
            beside = next(group for group in groups if column.name in group)
        elif column.references is not None:
            parent = made[column.parent.collection]
            holds = column.parent.holds or parent.key[0].name
            if holds != parent.key[0].name or parent.key[0].via is not None:
                via = Via(parent.place, parent.key[0], holds, parent.share_columns)
        is_late = (collection.name, column.name) in late
        unchanged = column.via == via and column.late is is_late and column.beside == beside
        columns.append(column if unchanged else replace(column, via=via, late=is_late, beside=beside))
    return collection if tuple(columns) == collection.columns else replace(collection, columns=tuple(columns))


def _reachable(child: Collection, column: Column, parent: Collection) -> bool:
    """Whether a parent's path is told, see parent_paths.py."""
    if not parent.key_leads_back and not isinstance(column.origin, Converted):
        return False  # it holds what the id became
    if column.of_reference or (len(parent.key) > 1 and parent.keyed_by_whole_path):
        return True
    if not parent.is_plain:
        return is_told(parent.templates, parent.key[0], child.templates)
    if len(parent.templates[0].variables) == 1:
        return True
    return any(
        len(c.segments) >= len(p.segments) - 2 and c.segments[: len(p.segments) - 2][0::2] == p.segments[:-2][0::2]
        for c in child.templates
        for p in parent.templates
    )


def _groups(child: Collection, parent: Collection) -> list[tuple[str, ...]]:
    """The columns of a child that refer together to a row whose key has several, in that key's order: those that take it from
    one field, or all that do."""
    keys = [k.name for k in parent.key]
    by_source: dict[object, dict[str, list[str]]] = {}
    for column in child.references:
        if column.parent.collection == parent.name and column.parent.holds in keys:
            source = column.source if isinstance(column.origin, Converted) else None
            by_source.setdefault(source, {}).setdefault(str(column.parent.holds), []).append(column.name)
    if all(len(held) < len(keys) for held in by_source.values()):  # one part from the path, another from a field
        together: dict[str, list[str]] = {}
        for held in by_source.values():
            for key, names in held.items():
                together.setdefault(key, []).extend(names)
        by_source = {None: together}
    return [
        tuple(held[k][0] for k in keys)
        for held in by_source.values()
        if set(held) == set(keys) and all(len(names) == 1 for names in held.values())
    ]


def two_on_one_table(one: str, other: str, table: str) -> str:
    """What to say of two collections that share rows of a table."""
    return (
        f"A row belongs to one collection: {one} and {other} share table {table} in {settings.catalog_file()}, and each would take "
        "the other's rows for extra. Keep one of them, give the other a table of its own, or give each a share of its own: "
        'rows={"kind": ...}, one column with two values.'
    )


def _in_order(collections: tuple[Collection, ...]) -> Order:
    by_name = {c.name: c for c in collections}
    if len(by_name) != len(collections):
        names = [c.name for c in collections]
        twice = sorted({n for n in names if names.count(n) > 1})
        raise CatalogError(
            f"Collection names are unique: {', '.join(twice)} stands twice in {settings.catalog_file()}. Rename one."
        )
    by_table: dict[tuple[str, str], list[Collection]] = {}
    for collection in collections:
        for other in by_table.setdefault(collection.place, []):
            if not share.are_disjoint(other.rows, collection.rows):
                raise CatalogError(two_on_one_table(other.name, collection.name, collection.table))
        by_table[collection.place].append(collection)
    for collection in collections:
        for column in collection.references:
            parent = by_name.get(column.parent.collection)
            if parent is None:
                _refuse(
                    collection,
                    "A reference names a declared collection, not a table",
                    f"column {column.name!r} references {column.parent.collection!r}",
                    "Declare it or correct the name. A table that no collection fills can't be one: nobody could tell a parent that is "
                    "missing from one that is gone. If the document holds the value itself, leave out references=: what the foreign key "
                    "refuses is rejected with its name. If it doesn't, leave the column out, or fill it by a default or a trigger.",
                )
            elif len(parent.key) != 1 and not any(column.name in group for group in _groups(collection, parent)):
                _refuse(
                    collection,
                    "A key of several columns is referenced by as many, each of which holds one of them",
                    f"column {column.name!r} references {column.parent.collection!r}",
                    "Declare them as references=Parent(..., holds=<a column of its key>), of one reference or of the path: "
                    + ", ".join(repr(k.name) for k in parent.key)
                    + ".",
                )
            elif not _reachable(collection, column, parent):
                _refuse(
                    collection,
                    "A referenced document can be found: its path is one id, or begins as the path of the document that names it",
                    f"column {column.name!r} references {column.parent.collection!r}",
                    "Reference another collection, or take the id out of a Firestore reference: Field(...) >> reference_id.",
                )
    needs = {
        c.name: [Need(column.name, column.parent.collection, _can_wait(column)) for column in c.references]
        for c in collections
    }
    try:
        return in_order(needs)
    except NeedEachOther as circle:
        circular = ", ".join(circle.names)
    raise CatalogError(
        f"Of rows that need each other one is inserted first, with a null: {circular} need each other, or themselves, in "
        f"{settings.catalog_file()}, and none of these columns may be null. Let one be nullable (no required=, no key), or leave out "
        "its references=."
    )


def _can_wait(column: Column) -> bool:
    return not column.required and column.role == "compared"
