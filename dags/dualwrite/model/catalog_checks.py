"""Checks of a catalog's collections against each other: names, shares of a table, references. Faults are raised at import.

It also completes the columns of references, once both ends are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dualwrite import settings
from dualwrite.model import share
from dualwrite.model.column_checks import refuse
from dualwrite.model.columns import Column, Via
from dualwrite.model.entries import Itself
from dualwrite.model.errors import CatalogError
from dualwrite.model.origins import Converted
from dualwrite.model.parents_told import is_told
from dualwrite.model.references import Need, NeedEachOther, Order, in_order
from dualwrite.model.unchecked import UncheckedCollection

Named = TypeVar("Named", bound=UncheckedCollection)


def with_references(collection: Named, made: Mapping[str, Named], late: frozenset[tuple[str, str]]) -> Named:
    """The collection with `via`, `late` and `beside` of its columns; the same object if nothing changes. `late`: (collection,
    column) of references that are filled in later."""
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


def _reachable(child: UncheckedCollection, column: Column, parent: UncheckedCollection) -> bool:
    """Whether a row gives its parent's path; see parent_paths.py."""
    if not parent.key_leads_back and not isinstance(column.origin, Converted):
        return False  # the column holds a converted id
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


def _groups(child: UncheckedCollection, parent: UncheckedCollection) -> list[tuple[str, ...]]:
    """Groups of a child's columns that together refer to one row whose key has several columns, in that key's order: those
    that come from one field, or all of them."""
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
    """The message about two collections that share rows of a table."""
    return (
        f"A row belongs to one collection: {one} and {other} share table {table} in {settings.catalog_file()}, and each would call "
        "the other's rows extra. Keep one of them, give the other a table of its own, or give each a share of its own: "
        'rows={"kind": ...}, one column with two values.'
    )


def checked_order(collections: Sequence[UncheckedCollection]) -> Order:
    """The order in which the collections' rows are written. Raises CatalogError for the first rule that they break."""
    _check_names(collections)
    _check_shares(collections)
    for collection in collections:
        _check_references(collection, {c.name: c for c in collections})
    needs = {
        c.name: [Need(column.name, column.parent.collection, _can_wait(column)) for column in c.references]
        for c in collections
    }
    try:
        return in_order(needs)
    except NeedEachOther as circle:
        circular = ", ".join(circle.names)
    raise CatalogError(
        f"If rows need each other, one is inserted first with a null: {circular} need each other, or themselves, in "
        f"{settings.catalog_file()}, and none of these columns may be null. Make one nullable (no required=, no key), or leave out "
        "its references=.",
        code="references-in-a-circle",
    )


def _check_names(collections: Sequence[UncheckedCollection]) -> None:
    names = [c.name for c in collections]
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise CatalogError(
            f"Collection names are unique: {', '.join(twice)} stands twice in {settings.catalog_file()}. Rename one.",
            code="collection-declared-twice",
        )


def _check_shares(collections: Sequence[UncheckedCollection]) -> None:
    by_table: dict[tuple[str, str], list[UncheckedCollection]] = {}
    for collection in collections:
        for other in by_table.setdefault(collection.place, []):
            if not share.are_disjoint(other.rows, collection.rows):
                raise CatalogError(two_on_one_table(other.name, collection.name, collection.table), code="table-shared")
        by_table[collection.place].append(collection)


def _check_references(collection: UncheckedCollection, by_name: Mapping[str, UncheckedCollection]) -> None:
    for column in collection.references:
        parent = by_name.get(column.parent.collection)
        if parent is None:
            refuse(
                collection,
                "reference-not-declared",
                "A reference names a declared collection, not a table",
                f"column {column.name!r} references {column.parent.collection!r}",
                "Declare it or correct the name. A table that no collection fills can't be referenced, because a missing parent "
                "would look like one that is gone. If the document holds the value itself, leave out references=: a row that the "
                "foreign key refuses is rejected with its name. If it doesn't, leave the column out, or fill it by a default or a "
                "trigger.",
            )
        elif isinstance(parent.entries, Itself):
            refuse(
                collection,
                "reference-to-key-with-fields",
                "A document is referenced by the ids in its path, not by fields of it that are in its row's key",
                f"column {column.name!r} references {column.parent.collection!r}",
                "Leave out references=: a row that the foreign key refuses is rejected with its name, and written once that row is there.",
            )
        elif len(parent.key) != 1 and not any(column.name in group for group in _groups(collection, parent)):
            refuse(
                collection,
                "reference-lacks-key-columns",
                "A key of several columns is referenced by as many, each of which holds one of them",
                f"column {column.name!r} references {column.parent.collection!r}",
                "Declare them as references=Parent(..., holds=<a column of its key>), of one reference or of the path: "
                + ", ".join(repr(k.name) for k in parent.key)
                + ".",
            )
        elif not _reachable(collection, column, parent):
            refuse(
                collection,
                "reference-not-reachable",
                "A referenced document's path must be known: it is one id, or begins like the path of the document that names it",
                f"column {column.name!r} references {column.parent.collection!r}",
                "Reference another collection, or take the id out of a Firestore reference: Field(...) >> reference_id.",
            )


def _can_wait(column: Column) -> bool:
    return not column.required and column.role == "compared"
