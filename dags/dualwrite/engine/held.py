"""Preflight of columns that refer to other rows: those that hold another column of the referenced row, and those filled in
later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dualwrite import settings
from dualwrite.model.declaration import Catalog, Collection, Column
from dualwrite.postgres import Connection

_ALIKE = ({"smallint", "integer", "bigint"}, {"text", "character varying"})
"""Types whose values can be compared without a cast."""

Columns = Mapping[str, tuple[str, bool, bool]]
"""A table's columns by name: type, whether NOT NULL, whether the server fills it in."""


def faults(
    catalog: Catalog,
    collection: Collection,
    columns: Mapping[str, Columns],
    uniques: Mapping[str, Sequence[tuple[Sequence[str], str | None]]],
    validated: frozenset[tuple[str, str, str, str]],
) -> list[str]:
    """Faults of the live tables, a sentence each: a held value that doesn't lead to one row and back, or a late reference that
    can't be null at first. `columns`, `uniques`: by the table's name in the catalog; `validated`: see `validated_keys`."""
    problems = []
    for column in collection.columns:
        live = columns.get(collection.table, {}).get(column.name)
        if column.late and live is not None and live[1]:
            problems.append(
                f"Column {collection.table}.{column.name} is NOT NULL, and refers to {catalog[column.parent.collection].table}, whose rows "
                f"may need {collection.table}'s first: such a row is inserted with a null there, and then updated. ALTER TABLE "
                f"{collection.table} ALTER COLUMN {column.name} DROP NOT NULL (a deferrable constraint doesn't help, because each "
                f"collection is written in transactions of its own), or leave out its references= in {settings.catalog_file()}."
            )
        if column.via is not None:
            parent = catalog[column.parent.collection]
            is_validated = (collection.table, column.name, parent.table, column.via.holds) in validated
            problems += _faults(collection, column, parent, columns, uniques.get(parent.table, ()), is_validated)
    return problems


def _faults(
    collection: Collection,
    column: Column,
    parent: Collection,
    columns: Mapping[str, Columns],
    uniques: Sequence[tuple[Sequence[str], str | None]],
    is_validated: bool,
) -> list[str]:
    assert column.via is not None
    holds, file = column.via.holds, settings.catalog_file()
    place, there = f"Column {collection.table}.{column.name}", columns.get(parent.table, {})
    if not there or column.name not in columns.get(collection.table, {}):
        return []  # preflight reports a missing table or column itself
    if holds not in there:
        return [f"{place} holds {parent.table}.{holds}, which is missing. Add it, or correct holds= in {file}."]
    problems = []
    if not there[holds][1]:
        problems.append(
            f"Column {parent.table}.{holds} is not NOT NULL (or NOT VALID), and {collection.table}.{column.name} holds it: a NULL "
            f"there would look like a missing row. ALTER TABLE {parent.table} ALTER COLUMN {holds} SET NOT NULL, or "
            f"hold another column in {file}."
        )
    if not any(list(on) == [holds] and predicate is None for on, predicate in uniques):
        problems.append(
            f"Column {parent.table}.{holds} needs a unique index: on exactly this, without WHERE, not deferrable. "
            f"{collection.table}.{column.name} holds it, and must lead back to one row. Create it, or hold another column in {file}."
        )
    here, other = columns[collection.table][column.name][0], there[holds][0]
    if here != other and not any({here, other} <= alike for alike in _ALIKE):
        problems.append(
            f"{place} is of type {here}, and {parent.table}.{holds}, which it holds in {file}, of type {other}. Make them alike, or "
            "hold another column."
        )
    if column.role == "key" and not is_validated:
        problems.append(
            f"{place} is part of the key and gets its value through {parent.table}, so it needs a foreign key to {holds} there, "
            "validated: otherwise a row could hold a value that leads to no document, and no verdict would show it. Add it, or choose another "
            f"key in {file}."
        )
    return problems


def validated_keys(connection: Connection, oids: Mapping[str, int]) -> frozenset[tuple[str, str, str, str]]:
    """(table, column, referenced table, its column) of each validated and enforced foreign key of one column. `oids`: by the
    tables' names, which the result uses."""
    names = {oid: name for name, oid in oids.items()}
    rows = connection.execute(
        """
        SELECT k.conrelid, a.attname::text, k.confrelid, f.attname::text
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
        JOIN pg_catalog.pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[1]
        WHERE k.contype = 'f' AND cardinality(k.conkey) = 1 AND k.convalidated
          AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true)
          AND k.conrelid = ANY(%(tables)s::oid[]) AND k.confrelid = ANY(%(tables)s::oid[])
        """,
        {"tables": list(names)},
    ).fetchall()
    return frozenset((names[table], column, names[other], to) for table, column, other, to in rows)
