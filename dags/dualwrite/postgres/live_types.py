"""Reads the types of the catalog's columns in the target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dualwrite.model.live import LiveType
from dualwrite.postgres.connection import sql
from dualwrite.postgres.privileges import RELATIONS, relations_parameters

_TYPES = sql.SQL(
    """
    WITH RECURSIVE tables AS ({relations}), below AS (
      SELECT tables.name, a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attidentity, a.attgenerated, a.atttypid AS base
      FROM tables
      JOIN pg_catalog.pg_attribute a ON a.attrelid = tables.oid
      WHERE a.attnum > 0 AND NOT a.attisdropped
      UNION ALL
      SELECT below.name, below.attname, below.atttypid, below.atttypmod, below.attcollation, below.attidentity,
             below.attgenerated, y.typbasetype
      FROM below
      JOIN pg_catalog.pg_type y ON y.oid = below.base AND y.typtype = 'd'
    )
    SELECT below.name, below.attname::text,
           pg_catalog.format_type(below.atttypid, below.atttypmod), pg_catalog.format_type(below.base, -1),
           CASE WHEN y.typtype = 'e' THEN 'enum' WHEN y.typcategory = 'A' THEN 'array' ELSE y.typname::text END,
           ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = y.oid ORDER BY e.enumsortorder),
           below.attidentity = 'a' OR below.attgenerated <> '',
           EXISTS (SELECT FROM pg_catalog.pg_collation l WHERE l.oid = below.attcollation AND NOT l.collisdeterministic)
    FROM below
    JOIN pg_catalog.pg_type y ON y.oid = below.base AND y.typtype <> 'd'
    """
).format(relations=sql.SQL(RELATIONS))


def read(
    ask: Callable[[sql.Composed, dict[str, list[str]]], Iterable[Any]], tables: Iterable[str]
) -> frozenset[tuple[str, str, LiveType]]:
    """(table, column, type) of every column of these tables. A table that is missing, or that the role can't see, has none.

    `ask` runs one statement that only reads.
    """
    return frozenset(
        (table, column, LiveType(name, base, kind, tuple(labels), generated, collated))
        for table, column, name, base, kind, labels, generated, collated in ask(_TYPES, relations_parameters(tables))
    )
