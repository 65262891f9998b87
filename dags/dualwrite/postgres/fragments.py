"""The parts that statements over a collection's table are composed of.

Composed, never concatenated: names come from the catalog as identifiers, values are parameters, which a message of several
statements carries as literals that psycopg escapes (see `connection.fetch`). Names used throughout: `t` the target table, `s` the staged page, `c` the candidates of one write or look. What a writing statement is
made of names pg_catalog, see `connection.as_a_client` (unnest of several arrays is always Postgres's own).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, Self

from dualwrite.model.declaration import Catalog, Collection, Column, Field
from dualwrite.model.live import TEXTS, equal_as
from dualwrite.postgres.connection import sql

_BITS = 63
"""Of an int8 that is not negative."""

COMMA = sql.SQL(", ")
AND = sql.SQL(" AND ")
OR = sql.SQL(" OR ")


def column_name(name: str, alias: str | None = None) -> sql.Composable:
    named = _identifier(name)
    return named if alias is None else sql.SQL("{}.{}").format(sql.Identifier(alias), named)


def _identifier(name: str) -> sql.Composable:
    """A name. A percent sign would be taken for a parameter's in a statement that has some, and is doubled in none."""
    if "%" not in name:
        return sql.Identifier(name)
    escaped = name.replace("\\", "\\\\").replace('"', '""').replace("%", "\\0025")
    return sql.SQL(f'U&"{escaped}"')


def _named(name: str) -> sql.Composable:
    """A name as text; see `_identifier`."""
    if "%" not in name:
        return sql.Literal(name)
    escaped = name.replace("\\", "\\\\").replace("'", "\\'").replace("%", "\\x25")
    return sql.SQL(f"E'{escaped}'")


def table_of(collection: Collection) -> sql.Composable:
    """The table with its schema: a bare name could be a temporary table's, or a part's of the statement."""
    schema, table = collection.place
    return column_name(table, schema)


def as_text(column: Column, alias: str | None = None) -> sql.Composable:
    """A key column's value as text; it is left as it is where it is one, for an index's sake."""
    name = column_name(column.name, alias)
    return name if column.live.kind in ("text", "varchar") else sql.SQL("{}::text").format(name)


def cast_to(column: Column, text: sql.Composable, suffix: str = "") -> sql.Composable:
    """A text as a value that the column can be compared with; `suffix` [] makes an array of them."""
    kind = column.live.base if column.live.kind not in ("text", "varchar") else "text"
    return sql.SQL("{}::{}").format(text, sql.SQL(kind + suffix)) if kind != "text" or suffix else text


def _as_staged(column: Column) -> sql.Composable:
    equal = equal_as(column.live)
    name = column_name(column.name, "s")
    return name if equal is None else sql.SQL("{}::{}").format(name, sql.SQL(equal))


def operator(column: Column, name: str) -> sql.Composable:
    """The operator of a column's own type, whatever the search path is: Postgres's, or citext's, beside which it lies. (For
    varchar, which has none and takes text's, another may fit better.)"""
    schema = column.live.base.rpartition(".")[0] if column.live.kind == "citext" else ""
    return sql.SQL(f" OPERATOR({schema or 'pg_catalog'}.{name}) ")


def key_after(collection: Collection, alias: str, after: sql.Composable) -> sql.Composable:
    """Whether a row's key comes after another one, in the order of ORDER BY. `after`: its texts, as an array."""
    names = [column_name(c.name, alias) for c in collection.key]
    lasts = [cast_to(c, after + sql.SQL(f"[{n + 1}]")) for n, c in enumerate(collection.key)]
    greater = [operator(c, ">") for c in collection.key]
    if len({g.as_string(None) for g in greater}) == 1:  # an index serves it
        return sql.SQL("({})").format(COMMA.join(names)) + greater[0] + sql.SQL("({})").format(COMMA.join(lasts))
    found = names[-1] + greater[-1] + lasts[-1]
    for n in range(len(names) - 2, -1, -1):
        same = names[n] + operator(collection.key[n], "=") + lasts[n]
        found = sql.SQL("({} OR {} AND {})").format(names[n] + greater[n] + lasts[n], same, found)
    return found


class _Written(sql.Composed):
    """A statement that is written out once in each encoding, not each time that it is sent."""

    def __init__(self, composed: sql.Composed) -> None:
        super().__init__(list(composed))
        self._texts: dict[str, bytes] = {}

    def as_bytes(self, context: Any = None) -> bytes:
        connection = context.connection if context else None
        encoding = connection.info.encoding if connection else "utf-8"
        if encoding not in self._texts:
            self._texts[encoding] = super().as_bytes(context)
        return self._texts[encoding]


def statement(made: Callable[[Any], sql.Composed]) -> cached_property[sql.Composed]:
    """A property of Fragments that is a whole statement."""
    found = cached_property[sql.Composed](lambda fragments: _Written(made(fragments)))
    found.__doc__ = made.__doc__
    return found


class Fragments:
    """The parts of one collection's statements."""

    @classmethod
    def of(cls, catalog: Catalog, collection: Collection) -> Self:
        """Those of a declared collection, made once for all connections of a process."""
        return cls._made(catalog, collection.name)

    @classmethod
    @lru_cache(maxsize=256)
    def _made(cls, catalog: Catalog, name: str) -> Self:
        return cls(catalog, catalog[name])

    def __init__(self, catalog: Catalog, collection: Collection) -> None:
        self._catalog = catalog
        self._collection = collection
        self.table = table_of(collection)

    @property
    def key(self) -> tuple[Column, ...]:
        return self._collection.key

    def names(self, columns: tuple[Column, ...] | list[Column], alias: str | None = None) -> sql.Composed:
        return COMMA.join(column_name(c.name, alias) for c in columns)

    def same_key(self, left: str, right: str) -> sql.Composed:
        return AND.join(
            column_name(c.name, left) + operator(c, "=") + column_name(c.name, right) for c in self._collection.key
        )

    def key_texts(self, alias: str) -> sql.Composed:
        """A row's key as it is known everywhere but in its table: as texts."""
        return COMMA.join(as_text(column, alias) for column in self._collection.key)

    def key_array(self, alias: str) -> sql.Composed:
        return sql.SQL("ARRAY[{}]::text[]").format(self.key_texts(alias))

    @staticmethod
    def as_compared(column: Column, alias: str) -> sql.Composable:
        """A column of the target as it is compared: timestamps cut off at milliseconds; '' for null where they are one."""
        name = column_name(column.name, alias)
        if column.live.kind in ("timestamptz", "timestamp"):
            return sql.SQL("pg_catalog.date_trunc('milliseconds', {})").format(name)
        if column.absent == "" and column.live.kind in TEXTS:
            name = sql.SQL("coalesce({}, '')").format(name)
        equal = equal_as(column.live)
        return name if equal is None else sql.SQL("{}::{}").format(name, sql.SQL(equal))

    def stated(self, column: Column) -> sql.Composed:
        """True where the document states the column, false where the staged value is a stand-in."""
        bit = 1 << [c.name for c in self._collection.columns].index(column.name)
        if not (isinstance(column.origin, Field) and column.origin.otherwise is not None):
            return sql.SQL("{}").format(sql.SQL("true"))
        if self.stand_ins_type == "int8":
            return sql.SQL("s.dualwrite_stand_ins & {}::int8 = 0::int8").format(sql.Literal(bit))
        return sql.SQL(
            "pg_catalog.mod(pg_catalog.div(s.dualwrite_stand_ins, {}::numeric), 2::numeric) = 0::numeric"
        ).format(sql.Literal(bit))

    @cached_property
    def stand_ins_type(self) -> str:
        """What holds a bit for each column."""
        return "int8" if len(self._collection.columns) <= _BITS else "numeric"

    def differs(self, column: Column) -> sql.Composed:
        return sql.SQL("({} AND {} IS DISTINCT FROM {})").format(
            self.stated(column), _as_staged(column), self.as_compared(column, "t")
        )

    def names_where(self, cases: list[tuple[sql.Composable, str]]) -> sql.Composable:
        """An array of the names whose condition holds."""
        if not cases:
            return sql.SQL("ARRAY[]::text[]")
        return sql.SQL("pg_catalog.array_remove(ARRAY[{}]::text[], NULL)").format(
            COMMA.join(sql.SQL("CASE WHEN {} THEN {} END").format(c, _named(n)) for c, n in cases)
        )

    def digest(self, alias: str) -> sql.Composed:
        """Of the fingerprinted columns, the same in every session: a time's text depends on TimeZone and DateStyle."""
        columns = (
            sql.SQL("extract(epoch FROM {})").format(self.as_compared(c, alias))
            if c.live.kind in ("timestamptz", "timestamp")
            else self.as_compared(c, alias)
            for c in self._collection.fingerprinted
        )
        return sql.SQL("md5(ROW({})::text)").format(COMMA.join(columns))

    def candidate_keys(self) -> sql.Composed:
        """`c`: keys given as JSON arrays of text, numbered by _n. Parameters: n, keys (text[])."""
        columns = COMMA.join(
            sql.SQL("{} AS {}").format(
                cast_to(c, sql.SQL("(k.key ->> {})").format(sql.Literal(i))), column_name(c.name)
            )
            for i, c in enumerate(self._collection.key)
        )
        return sql.SQL(
            """
            c AS (
              SELECT k._n, {columns}
              FROM (
                SELECT u._n, u.key::jsonb AS key
                FROM unnest(%(n)s::int4[], %(keys)s::text[]) AS u (_n, key)
              ) k
            )
            """
        ).format(columns=columns)
