"""The words in which a catalog declares collections. Declarations are checked at import: column_checks.py,
collection_checks.py, catalog_checks.py.

A `Collection` declares the documents' paths, the table with their rows, and for each column the origin of its value (see
origins.py) and its role. Nothing here knows a collection by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dualwrite.model.catalog_checks import checked_order, two_on_one_table, with_references
from dualwrite.model.collection_checks import check, check_share
from dualwrite.model.columns import ROLES, WHEN_GONE, Column, Role
from dualwrite.model.entries import ArrayElements, ComputedEntries, Entries, Itself, MapEntries
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
)
from dualwrite.model.references import Parent
from dualwrite.model.templates import Template, is_template
from dualwrite.model.unchecked import Operations, UncheckedCollection

__all__ = [
    "ALL_FIELDS",
    "ROLES",
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


@dataclass(
    frozen=True, eq=False
)  # equal by identity: hashing its columns would take a fifth of the time of each document
class Collection(UncheckedCollection):
    """Documents of one collection id, and the table with their rows. Raises CatalogError if a declaration breaks a rule.

    `paths`: templates such as `boards/{board}/posts/{id}` or `users/{user}/private/profile` (see templates.py); a document of
    the same collection id on another path is a stray. `check_fields`: the fields with the time when a document was written, by
    name if they hold timestamps, as `Check("updated", iso_time)` if they hold another format; without one, the collection is
    always read whole. `written_columns`: the columns with the time when a row was written. `unique`: further unique keys of the
    table; of two documents that want one of them, one is a duplicate. `entries`: if rows come from a map or an array in the
    documents, or from a function's list. `where`: which documents, or which of their entries, have a row. `rows`: the
    collection's share of a table with other rows too, as columns and values. `operations`: how the app's write_ops name keys
    (see Operations). `selected`: a run without a selection examines it. `sentinel`: it is never empty on a live system.
    """

    def __post_init__(self) -> None:
        check_share(self)
        declared = {column.name for column in self.columns}
        own = [Column(n, "insert_only", Constant(v)) for n, v in self.rows.items() if n not in declared]
        object.__setattr__(self, "columns", (*self.columns, *own))
        if isinstance(self.entries, Itself | None) and all(map(is_template, self.paths)):
            object.__setattr__(self, "entries", Itself() if self.paths and self.holds_fields_beside_id else None)
        check(self)


@dataclass(frozen=True, eq=False)  # equal by identity: it is a key of caches
class Catalog:
    """All collections, checked together: unique names, disjoint shares of tables, references that can be resolved and written
    in some order. Raises CatalogError."""

    collections: tuple[Collection, ...]
    order: tuple[Collection, ...] = field(init=False)
    """Parents before children; among equals as declared."""

    def __post_init__(self) -> None:
        found = {c.name: c for c in self.collections}
        order = checked_order(self.collections)
        for name in order.names:  # parents first, because children's columns may get their value through a parent's
            found[name] = with_references(found[name], found, order.late)
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
            f"Choose from: {', '.join(c.name for c in self.collections)}.",
            code="collection-not-declared",
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.order)

    @property
    def default_selection(self) -> tuple[str, ...]:
        """The collections that a run examines if nothing else is chosen: all, if no collection says `selected`."""
        return tuple(c.name for c in self.order if c.selected) or self.names

    def with_live(self, types: frozenset[tuple[str, str, LiveType]]) -> Catalog:
        """The catalog with its columns' types in the target, given as (table, column, type). Cached, so that equal types give the
        same object, and caches by catalog stay valid."""
        return _with_live(self, types)

    def children(self, name: str) -> tuple[tuple[Collection, Column], ...]:
        """Each collection whose rows reference this one's, with the referencing column."""
        return tuple((c, column) for c in self.order for column in c.references if column.parent.collection == name)

    def with_parents(self, names: Iterable[str]) -> tuple[str, ...]:
        """The named collections and all that they need, directly or not, parents first."""
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
