"""The building blocks of the statements over a collection's table.

Composed, never concatenated: names come from the catalog as identifiers, values are parameters, which a message of several
statements carries as literals that psycopg escapes (see `transactions.fetch`). Writing statements qualify names with pg_catalog,
see `transactions.as_a_client` (unnest of several arrays is always Postgres's own).

All composed statements call a row by the same name:

    t     of the target table; old: its version in the statement's snapshot; was: its before-image from the journal
    h     another row of that table, which holds the key that `t` should
    p     that a column refers to; t_p and t_0 too, where `t` is the row that refers
    r     that refers to `t`; in trial.py and rivals.py, one that is tried
    s     of the staged page
    c     of the candidates of one write or look; k and u are these before they have the columns' types
    x     of further values, sent as arrays
    j     of the journal; w: of what a statement has written
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, Self

from dualwrite.model import share
from dualwrite.model.declaration import Catalog, Collection, Column, Field
from dualwrite.model.live import INSTANTS, TEXTS, equal_as
from dualwrite.postgres.connection import sql

_BITS = 63
"""The bits of an int8 without its sign."""

COMMA = sql.SQL(", ")
AND = sql.SQL(" AND ")
OR = sql.SQL(" OR ")


def column_name(name: str, alias: str | None = None) -> sql.Composable:
    """A column, behind a row's alias (or a table, behind its schema)."""
    named = _identifier(name)
    return named if alias is None else sql.SQL("{}.{}").format(sql.Identifier(alias), named)


def _identifier(name: str) -> sql.Composable:
    """A name. A percent sign is escaped, because a statement with parameters would read it as one, and one without parameters
    wouldn't undo a doubled one."""
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
    """The table with its schema: a bare name could mean a temporary table, or a common table expression of the statement."""
    schema, table = collection.place
    return column_name(table, schema)


def as_text(column: Column, alias: str | None = None) -> sql.Composable:
    """A key column's value as text (left alone if it is text already, so that an index serves), a time as `cell_types.key_part` writes
    it. If the column gets its value through another row: the value that names that row, whatever share of its table the row is in,
    so that it is never null."""
    if column.via is not None:
        above = f"{alias or ''}_p"
        return sql.SQL("(SELECT {} FROM {} {} WHERE {})").format(
            as_text(column.via.key, above),
            column_name(column.via.table[1], column.via.table[0]),
            sql.Identifier(above),
            _is_held(column, above, column_name(column.name, alias)),
        )
    return _time_text(column, alias, "MS") if column.live.kind in TIMES else raw_text(column, alias)


def raw_text(column: Column, alias: str | None = None) -> sql.Composable:
    """A column's own value as text, from which `raw_cast` restores it exactly."""
    if column.live.kind in TIMES:
        return _time_text(column, alias, "US")
    name = column_name(column.name, alias)
    return name if column.live.kind in ("text", "varchar") else sql.SQL("{}::text").format(name)


TIMES = frozenset({"timestamptz", "timestamp"})
"""Kinds that may hold microseconds; a document's time is cut to milliseconds."""


def _time_text(column: Column, alias: str | None, digits: str) -> sql.Composed:
    """A time as text, whatever TimeZone and DateStyle are; one that no document can have (infinity, before Christ) as Postgres
    writes it. `digits`: MS or US."""
    zone = " AT TIME ZONE 'UTC'" if column.live.kind == "timestamptz" else ""
    return sql.SQL(
        "CASE WHEN {at} OPERATOR(pg_catalog.>=) {first} AND {at} OPERATOR(pg_catalog.<) {end} "
        "THEN pg_catalog.to_char({at}{zone}, {form}) ELSE {at}::text END"
    ).format(
        at=column_name(column.name, alias),
        first=sql.SQL(f"'0001-01-01 00:00:00+00'::{column.live.kind}"),
        end=sql.SQL(f"'10000-01-01 00:00:00+00'::{column.live.kind}"),
        zone=sql.SQL(zone),
        form=sql.Literal(f'YYYY-MM-DD"T"HH24:MI:SS.{digits}"Z"'),
    )


def has_key_part(column: Column, value: sql.Composable, part: sql.Composable) -> sql.Composed:
    """Whether a row's value in a key column is this part of a key. A time matches any within the part's millisecond; compared as a
    range, so that an index serves, and only one partition is read."""
    if column.live.kind not in TIMES:
        return sql.Composed([value, operator(column, "="), part])
    return sql.SQL(
        "({value} OPERATOR(pg_catalog.>=) {part} AND {value} OPERATOR(pg_catalog.<=) "
        "({part} OPERATOR(pg_catalog.+) '999 microseconds'::pg_catalog.interval))"
    ).format(value=value, part=part)


def _is_held(column: Column, above: str, value: sql.Composable) -> sql.Composed:
    """Whether the row `above`, through which a column gets its value, is the one that gives this value."""
    assert column.via is not None
    return column_name(column.via.holds, above) + operator(column, "=") + value


def value_of(column: Column, named: sql.Composable) -> sql.Composable:
    """The value that the column holds for the id that a document names, as it is staged; null if the row of that id isn't there."""
    if column.via is None:
        return named
    key = column.via.key
    is_it = column_name(key.name, "p") + operator(key, "=") + value_of(key, named)
    return sql.SQL("(SELECT {holds} FROM {table} p WHERE {is_it})").format(
        holds=column_name(column.via.holds, "p"),
        table=column_name(column.via.table[1], column.via.table[0]),
        is_it=AND.join([is_it, *_own(column.via.share, "p")]),
    )


def _own(share_of: Sequence[tuple[Column, share.Value]], alias: str) -> list[sql.Composable]:
    """The conditions that a row is in a share of its table, one for each column."""
    conditions: list[sql.Composable] = []
    for column, value in share_of:
        its, text = column_name(column.name, alias), share.text_of(value)
        is_null = sql.SQL("{} IS NULL").format(its)
        conditions.append(is_null if text is None else its + operator(column, "=") + raw_cast(column, _named(text)))
    return conditions


def cast_to(column: Column, text: sql.Composable) -> sql.Composable:
    """A text as a value that the column can be compared with. If it gets its value through another row, the text names that."""
    inmost = column
    while inmost.via is not None:
        inmost = inmost.via.key
    return value_of(column, raw_cast(inmost, text))


def is_among(column: Column, alias: str, texts: sql.Composable) -> sql.Composed:
    """Whether a row's column is one of these (text[]), or names a row that is."""
    name = column_name(column.name, alias)
    if column.via is None:
        return sql.SQL("{}{}ANY ({})").format(name, operator(column, "="), raw_cast(column, texts, "[]"))
    above = f"{alias}_p"
    return sql.SQL("{} IN (SELECT {} FROM {} {} WHERE {})").format(
        name,
        column_name(column.via.holds, above),
        column_name(column.via.table[1], column.via.table[0]),
        sql.Identifier(above),
        AND.join([is_among(column.via.key, above, texts), *_own(column.via.share, above)]),
    )


def raw_cast(column: Column, text: sql.Composable, suffix: str = "") -> sql.Composable:
    """A text, cast to the type of the column's own value; with the `suffix` [], an array of texts to an array of these."""
    kind = column.live.base if column.live.kind not in ("text", "varchar") else "text"
    return sql.SQL("{}::{}").format(text, sql.SQL(kind + suffix)) if kind != "text" or suffix else text


STAGED_AS = "dualwrite_names_{}"
"""The stage's column with the id that a document names, beside the one with the value that the table's column holds."""


def named_column(collection: Collection, column: Column, alias: str | None = None) -> sql.Composable:
    """The column of the stage into which a document's value is copied."""
    if column.via is None and not column.late:
        return column_name(column.name, alias)
    return column_name(STAGED_AS.format([c.name for c in collection.columns].index(column.name)), alias)


def _as_staged(column: Column) -> sql.Composable:
    equal = equal_as(column.live)
    name = column_name(column.name, "s")
    return name if equal is None else sql.SQL("{}::{}").format(name, sql.SQL(equal))


def operator(column: Column, name: str) -> sql.Composable:
    """The operator of a column's own type, whatever the search path is: Postgres's, or citext's, beside which it lies. (For
    varchar, which has none and takes text's, another may fit better.)"""
    schema = column.live.base.rpartition(".")[0] if column.live.kind == "citext" else ""
    return sql.SQL(f" OPERATOR({schema or 'pg_catalog'}.{name}) ")


def expression(text: str) -> sql.SQL:
    """SQL over a table's columns, as Postgres prints it, for a statement with parameters."""
    return sql.SQL(text.replace("%", "%%"))


def key_after(collection: Collection, alias: str, after: sql.Composable) -> sql.Composable:
    """Whether a row's key comes after another one, in the order of ORDER BY. `after`: its own values' texts, as an array."""
    names = [column_name(c.name, alias) for c in collection.key]
    lasts = [raw_cast(c, after + sql.SQL(f"[{n + 1}]")) for n, c in enumerate(collection.key)]
    greater = [operator(c, ">") for c in collection.key]
    if len({g.as_string(None) for g in greater}) == 1:  # an index serves it
        return sql.SQL("({})").format(COMMA.join(names)) + greater[0] + sql.SQL("({})").format(COMMA.join(lasts))
    condition = names[-1] + greater[-1] + lasts[-1]
    for n in range(len(names) - 2, -1, -1):
        same = names[n] + operator(collection.key[n], "=") + lasts[n]
        condition = sql.SQL("({} OR {} AND {})").format(names[n] + greater[n] + lasts[n], same, condition)
    return condition


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
    """Makes a method of Fragments a property that is a whole statement, composed once."""
    composed = cached_property[sql.Composed](lambda fragments: _Written(made(fragments)))
    composed.__doc__ = made.__doc__
    return composed


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
        """A list of columns, each behind the alias."""
        return COMMA.join(column_name(c.name, alias) for c in columns)

    def own(self, alias: str) -> list[sql.Composable]:
        """Conditions that a row of the table is in the collection's share; none if the whole table is the collection's.

        Each statement that reads, counts, compares or writes rows of the table has them for each alias of the table: `is_at` and
        `where` add them.
        """
        return _own(self._collection.share_columns, alias)

    def is_at(self, row: str, key: str) -> sql.Composed:
        """Whether `row`, a row of the table, is the collection's and has the key that `key` has."""
        return AND.join([self.same_key(row, key), *self.own(row)])

    def where(self, row: str, *conditions: sql.Composable) -> sql.Composed:
        """WHERE these conditions hold for `row`, a row of the table, and it is the collection's."""
        every = [*conditions, *self.own(row)]
        return sql.SQL(" WHERE ") + AND.join(every) if every else sql.SQL("").format()

    def same_key(self, row: str, key: str) -> sql.Composed:
        """Whether `row`, a row of the table, has the key that `key` has, in any share of the table."""
        return AND.join(
            has_key_part(c, column_name(c.name, row), column_name(c.name, key)) for c in self._collection.key
        )

    @cached_property
    def time_in_key(self) -> Column | None:
        """The column of the key that holds a time."""
        return next((c for c in self._collection.key if c.live.kind in TIMES), None)

    @cached_property
    def has_held_key(self) -> bool:
        """Whether a part of the key comes through another row."""
        return any(c.via is not None for c in self._collection.key)

    def key_texts(self, alias: str) -> sql.Composed:
        """A row's key as it is known everywhere but in its table: as texts."""
        return COMMA.join(as_text(column, alias) for column in self._collection.key)

    def key_array(self, alias: str) -> sql.Composed:
        """A row's key as a text[]."""
        return sql.SQL("ARRAY[{}]::text[]").format(self.key_texts(alias))

    @staticmethod
    def as_compared(column: Column, alias: str) -> sql.Composable:
        """A column of the target as it is compared: timestamps truncated to milliseconds, null as '' if `absent` is ''."""
        name = column_name(column.name, alias)
        if column.live.kind in INSTANTS:
            return sql.SQL("pg_catalog.date_trunc('milliseconds', {})").format(name)
        if column.absent == "" and column.live.kind in TEXTS:
            name = sql.SQL("coalesce({}, '')").format(name)
        equal = equal_as(column.live)
        return name if equal is None else sql.SQL("{}::{}").format(name, sql.SQL(equal))

    def stated(self, column: Column) -> sql.Composed:
        """True if the document states the column, false if the staged value is a stand-in."""
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
        """The type of the bit mask, with a bit for each column."""
        return "int8" if len(self._collection.columns) <= _BITS else "numeric"

    def differs(self, column: Column) -> sql.Composed:
        """Whether a staged row's column differs from the target's; not if the document doesn't state it."""
        differ = sql.SQL("{} IS DISTINCT FROM {}").format(_as_staged(column), self.as_compared(column, "t"))
        if column.via is not None:  # a staged null for an absent row equals nothing
            differ = sql.SQL("({} OR {})").format(differ, self.lacks_parent(column))
        return sql.SQL("({} AND {})").format(self.stated(column), differ)

    def lacks_parent(self, column: Column) -> sql.Composed:
        """Whether the row that a staged row's column refers to isn't there. If the value comes through that row: whether it wasn't
        there when the stage was filled, so that this agrees with the value that is written."""
        if column.via is not None:
            return sql.SQL("({} IS NOT NULL AND {} IS NULL)").format(
                named_column(self._collection, column, "s"), column_name(column.name, "s")
            )
        parent = self._catalog[column.parent.collection]
        values = [column_name(name, "s") for name in column.beside or (column.name,)]
        same = [
            column_name(key.name, "p") + operator(key, "=") + value
            for key, value in zip(parent.key, values, strict=True)
        ]
        return sql.SQL("({} AND NOT EXISTS (SELECT FROM {} p{}))").format(
            AND.join(sql.SQL("{} IS NOT NULL").format(value) for value in values),
            table_of(parent),
            Fragments.of(self._catalog, parent).where("p", *same),
        )

    def names_where(self, cases: list[tuple[sql.Composable, str]]) -> sql.Composable:
        """An array of the names whose condition holds."""
        if not cases:
            return sql.SQL("ARRAY[]::text[]")
        return sql.SQL("pg_catalog.array_remove(ARRAY[{}]::text[], NULL)").format(
            COMMA.join(sql.SQL("CASE WHEN {} THEN {} END").format(c, _named(n)) for c, n in cases)
        )

    def digest(self, alias: str) -> sql.Composed:
        """The digest of the fingerprinted columns, the same in every session: a time's text depends on TimeZone and DateStyle."""
        columns = (
            sql.SQL("extract(epoch FROM {})").format(self.as_compared(c, alias))
            if c.live.kind in INSTANTS
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
