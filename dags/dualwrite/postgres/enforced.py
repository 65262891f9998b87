"""The live tables' constraints and triggers: those that the catalog knows, and those that it doesn't.

The catalog declares what the app means; only Postgres knows which rows it refuses. A refusal has its constraint's name, and a
refusal by a constraint that the catalog doesn't know is no race that another look would settle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualwrite.model.declaration import Catalog, Collection
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.transactions import answers


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A column as it is. `default`: the SQL of the value that an insert without the column gets (None: null). Unless `constant`,
    only an insert can tell the value: the default may call a sequence, or a function that writes.
    `generated`: its definition, if it is computed from others."""

    name: str
    not_null: bool
    constant: bool
    default: str | None
    generated: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """A CHECK that is enforced, or, without a name, the condition that some partition of a table takes the row. `columns` are those
    that it reads; None if it reads the row as a whole, or no column."""

    name: str | None
    expression: str
    columns: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Index:
    """An index: its columns and expressions, as SQL, and when two rows collide in it."""

    name: str
    made_with: str | None
    """The end of the CREATE INDEX that makes it, from USING on; None if it can't be recreated."""
    unique: bool
    exclusion: bool
    immediate: bool
    elements: tuple[str, ...]
    operators: tuple[str, ...]
    """One for each element of an exclusion constraint."""
    predicate: str | None
    columns: tuple[str, ...] | None
    """The elements' columns; None if one of them is an expression."""
    reads: frozenset[str]
    """All columns that it needs, also those of its predicate and those that it only includes."""
    nulls_collide: bool
    excludes: str | None
    """An exclusion constraint's definition, without being deferrable."""

    @property
    def sqlstate(self) -> str:
        return "23P01" if self.exclusion else "23505"

    def is_on(self, columns: Sequence[str], *, whole: bool) -> bool:
        """Whether it is on exactly these columns, in any order.

        A partial index doesn't count, because it lets two rows share a key. Unless `whole`, it does count if it leaves out only rows
        with a null in one of its columns, because nulls never equal each other.
        """
        return (
            self.unique
            and not self.exclusion
            and self.columns is not None
            and sorted(self.columns) == sorted(columns)
            and (self.predicate is None or (not whole and _only_leaves_nulls_out(self.predicate, columns)))
        )


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key that is enforced: its columns, and the columns that they reference."""

    name: str
    columns: tuple[str, ...]
    schema: str
    table: str
    referenced: tuple[str, ...]
    own_table: bool
    readable: bool
    """Whether we see every row that it may reference."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of the app's that fires in our session. `kind`: pg_trigger's tgtype, a bit mask of events and moments."""

    name: str
    kind: int

    def fires(self, event: str, *, before: bool | None = None) -> bool:
        """Whether it fires for each row of an insert or update; `before`: only those before, or after, the write."""
        bit = {"insert": 4, "delete": 8, "update": 16}[event]
        return bool(self.kind & 1 and self.kind & bit) and (before is None or bool(self.kind & 2) is before)


@dataclass(frozen=True, slots=True)
class Enforced:
    """The constraints and triggers of one table."""

    schema: str
    table: str
    columns: tuple[LiveColumn, ...]
    checks: tuple[Check, ...]
    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...]
    triggers: tuple[Trigger, ...]

    def unknown_indexes(self, collection: Collection) -> list[Index]:
        """Unique indexes and exclusion constraints that the catalog doesn't declare."""
        return [i for i in self.indexes if (i.unique or i.exclusion) and not _is_declared(collection, i)]

    def unknown_foreign_keys(self, catalog: Catalog, collection: Collection) -> list[ForeignKey]:
        """Foreign keys that the catalog doesn't declare, or declares as one to another table."""
        return [k for k in self.foreign_keys if not _declares(catalog, collection, k)]

    def known(self, catalog: Catalog, collection: Collection) -> frozenset[str]:
        """The names of the constraints that the catalog declares."""
        unknown = {i.name for i in self.unknown_indexes(collection)}
        unknown |= {k.name for k in self.unknown_foreign_keys(catalog, collection)}
        every = [*(i.name for i in self.indexes if i.unique or i.exclusion), *(k.name for k in self.foreign_keys)]
        return frozenset(every) - unknown

    def firing(self, event: str, *, before: bool | None = None) -> list[str]:
        """The names of the triggers that fire for each row of an event."""
        return [t.name for t in self.triggers if t.fires(event, before=before)]


def _is_declared(collection: Collection, index: Index) -> bool:
    if index.is_on([c.name for c in collection.key], whole=True):
        return True
    return any(index.is_on(unique, whole=False) for unique in collection.unique)


def _declares(catalog: Catalog, collection: Collection, foreign_key: ForeignKey) -> bool:
    for column in collection.references:
        parent = catalog[column.parent.collection]
        schema, _, table = parent.table.rpartition(".")
        referenced = (column.via.holds,) if column.via else [key.name for key in parent.key]
        pairs = set(zip(column.beside or (column.name,), referenced, strict=True))
        if (
            set(zip(foreign_key.columns, foreign_key.referenced, strict=True)) == pairs
            and foreign_key.table == table
            and schema in ("", foreign_key.schema)
        ):
            return True
    return False


def _only_leaves_nulls_out(predicate: str, columns: Sequence[str]) -> bool:
    """Whether an index's predicate, as Postgres prints it, is `(a IS NOT NULL)`, or several of these joined by AND."""
    null_tests = {f"{name} IS NOT NULL" for column in columns for name in (column, f'"{column}"')}
    return all(part.strip("() ") in null_tests for part in predicate.split(" AND "))


def enforced(connection: Connection, tables: Mapping[str, int]) -> dict[str, Enforced]:
    """The constraints and triggers of tables, by the names under which their oids are given. One round trip."""
    oids = list(tables.values())
    named, columns, partitions, checks, indexes, foreign_keys, triggers = answers(
        connection, [_TABLES, _COLUMNS, _PARTITIONS, _CHECKS, _INDEXES, _FOREIGN_KEYS, _TRIGGERS], {"tables": oids}
    )
    return {
        name: Enforced(
            *next((schema, table) for oid, schema, table in named if oid == wanted),
            tuple(LiveColumn(*facts) for _, *facts in _of(columns, wanted)),
            tuple(
                Check(n, e, None if c is None else frozenset(c))
                for _, n, e, c in [*_of(partitions, wanted), *_of(checks, wanted)]
            ),
            tuple(_index(line) for _, *line in _of(indexes, wanted)),
            tuple(
                ForeignKey(n, tuple(c), s, t, tuple(r), own, readable)
                for _, n, c, s, t, r, own, readable in _of(foreign_keys, wanted)
            ),
            tuple(Trigger(n, kind) for _, n, kind in _of(triggers, wanted)),
        )
        for name, wanted in tables.items()
    }


def _of(rows: Sequence[Any], table: int) -> list[Any]:
    return [row for row in rows if row[0] == table]


def _index(line: Sequence[Any]) -> Index:
    """An index from a line of `_INDEXES`, whose columns are in the order of the fields."""
    name, made_with, unique, exclusion, immediate, elements, operators, predicate, columns, reads, *rest = line
    return Index(
        name,
        made_with,
        unique,
        exclusion,
        immediate,
        tuple(elements),
        tuple(operators or ()),
        predicate,
        None if columns is None else tuple(columns),
        frozenset(reads),
        *rest,
    )


_TABLES = """
    SELECT c.oid, n.nspname::text, c.relname::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY(%(tables)s::oid[])
"""

# `constant`: a constant of the column's type, or one that an immutable cast converts to it.
_COLUMNS = """
    SELECT a.attrelid, a.attname::text, a.attnotnull,
      a.attidentity = '' AND a.attgenerated = '' AND (
        d.oid IS NULL OR d.adbin::text ~ '^{CONST [^{}]*}$' OR EXISTS (
          SELECT FROM pg_proc p
          WHERE d.adbin::text ~ '^{FUNCEXPR :funcid [0-9]+ [^{}]*:args [(]{CONST [^{}]*}( {CONST [^{}]*})*[)][^{}]*}$'
            AND p.oid = substring(d.adbin::text FROM ':funcid ([0-9]+) ')::oid AND p.provolatile = 'i'
        )
      ),
      CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
      CASE WHEN a.attgenerated <> '' THEN
        format_type(a.atttypid, a.atttypmod) || ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') '
          || CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END
      END
    FROM pg_attribute a
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = ANY(%(tables)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum
"""

# A row goes to its partition before anything else is checked. No columns are listed, because a partition key's columns are in
# each unique key, and so the catalog declares them.
_PARTITIONS = """
    SELECT t.oid, NULL::text, coalesce(string_agg('(' || d.takes || ')', ' OR ') FILTER (WHERE p.isleaf), 'false'), ARRAY[]::text[]
    FROM unnest(%(tables)s::oid[]) AS t (oid) CROSS JOIN pg_partition_tree(t.oid) p
    CROSS JOIN LATERAL (SELECT pg_get_partition_constraintdef(p.relid) AS takes) d
    GROUP BY t.oid
    HAVING bool_and(NOT p.isleaf OR d.takes IS NOT NULL)
"""

# In the order in which Postgres checks them. Through JSON, because only PostgreSQL 18 has conenforced.
_CHECKS = """
    SELECT k.conrelid, k.conname::text, pg_get_expr(k.conbin, k.conrelid), CASE WHEN 0 < ALL(k.conkey) THEN ARRAY(
      SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey)
    ) END
    FROM pg_constraint k
    WHERE k.conrelid = ANY(%(tables)s::oid[]) AND k.contype = 'c'
      AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true)
    ORDER BY k.conname
"""

# The definition's beginning is cut off by length: a name may hold anything.
_INDEXES = """
    SELECT i.indrelid, c.relname::text,
      CASE WHEN starts_with(d.def, d.head) THEN substr(d.def, length(d.head) + 1) END,
      i.indisunique, i.indisexclusion, i.indimmediate,
      ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, false) FROM generate_series(1, i.indnkeyatts) n ORDER BY n),
      ARRAY(
        SELECT format('OPERATOR(%%I.%%s)', s.nspname, o.oprname)
        FROM unnest(k.conexclop) WITH ORDINALITY AS u (op, n)
        JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace s ON s.oid = o.oprnamespace
        ORDER BY u.n
      ),
      pg_get_expr(i.indpred, i.indrelid),
      CASE WHEN 0 <> ALL((i.indkey::int2[])[0:i.indnkeyatts - 1]) THEN ARRAY(
        SELECT a.attname::text
        FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS u (attnum, n)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
        ORDER BY u.n
      ) END,
      ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum <> 0 AND (
          a.attnum = ANY(i.indkey::int2[]) OR a.attnum IN (
            SELECT p.refobjsubid FROM pg_depend p
            WHERE p.classid = 'pg_class'::regclass AND p.objid = i.indexrelid
              AND p.refclassid = 'pg_class'::regclass AND p.refobjid = i.indrelid
          )
        )
      ),
      coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
      regexp_replace(pg_get_constraintdef(k.oid), '( DEFERRABLE)?( INITIALLY DEFERRED)?$', '')
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.conexclop IS NOT NULL
    CROSS JOIN LATERAL (
      SELECT pg_get_indexdef(i.indexrelid) AS def,
        'CREATE ' || CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX ' || quote_ident(c.relname) || ' ON '
          || CASE WHEN c.relkind = 'I' THEN 'ONLY ' ELSE '' END || i.indrelid::regclass::text AS head
    ) d
    WHERE i.indrelid = ANY(%(tables)s::oid[]) AND i.indisready
    ORDER BY i.indexrelid
"""

# Without a key whose triggers are off, or that PostgreSQL 18 doesn't enforce: it refuses nothing.
_FOREIGN_KEYS = """
    SELECT k.conrelid, k.conname::text,
      ARRAY(
        SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, n)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.n
      ),
      n.nspname::text, c.relname::text,
      ARRAY(
        SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (attnum, n)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.n
      ),
      k.confrelid = k.conrelid,
      has_schema_privilege(n.oid, 'USAGE') AND NOT row_security_active(c.oid)
        AND NOT EXISTS (SELECT FROM unnest(k.confkey) AS u (attnum) WHERE NOT has_column_privilege(c.oid, u.attnum, 'SELECT'))
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.confrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.conrelid = ANY(%(tables)s::oid[]) AND k.contype = 'f' AND EXISTS (
      SELECT FROM pg_trigger t
      WHERE t.tgconstraint = k.oid AND t.tgrelid = k.conrelid AND t.tgenabled IN ('O', 'A')
    )
    ORDER BY k.conname
"""

_TRIGGERS = """
    SELECT tgrelid, tgname::text, tgtype::int4 FROM pg_trigger
    WHERE tgrelid = ANY(%(tables)s::oid[]) AND NOT tgisinternal AND tgenabled IN ('O', 'A')
    ORDER BY tgname
"""
