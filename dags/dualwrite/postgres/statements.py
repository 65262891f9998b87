"""The SQL that is made from a collection's declaration: staging, comparing, writing.

All of it runs inside one transaction of the caller's, on temporary tables that end with it, so it is fit for a
transaction pooler. The names are those of fragments.py.
"""

from __future__ import annotations

from functools import cached_property

from dualwrite.model.declaration import Catalog, Collection, Column
from dualwrite.model.live import copied_as
from dualwrite.postgres.connection import sql
from dualwrite.postgres.fragments import (
    AND,
    COMMA,
    OR,
    Fragments,
    column_name,
    named_column,
    operator,
    statement,
    table_of,
    value_of,
)
from dualwrite.postgres.own_schema import JOURNAL

STAGE = sql.Identifier("pg_temp", "dualwrite_stage")
TRIAL = sql.Identifier("pg_temp", "dualwrite_trial")
TRIAL_N = sql.Identifier("dualwrite_n")
"""A row's number in the stage, the trial and the rivals."""


class Statements(Fragments):
    """The statements that stage, compare and write the rows of one collection."""

    def __init__(self, catalog: Catalog, collection: Collection) -> None:
        super().__init__(catalog, collection)
        self._compared = [c for c in collection.columns if c.role == "compared"]
        self._derived = [c for c in collection.columns if c.role == "derived"]

    # --- staging and comparing ------------------------------------------------------------------------------------

    @statement
    def create_stage(self) -> sql.Composed:
        """A staged row: its number in the page, its stand-ins as a bit mask, its columns in the table's own types, so that
        it is compared as the table would keep it. A column that gets its value through another row, or late, has a second one, for
        the value that names that row. With a savepoint, because the COPY may fail; `compare_stage` releases it."""
        columns = COMMA.join(
            [
                *(sql.SQL("{} {}").format(column_name(c.name), sql.SQL(c.live.name)) for c in self._collection.columns),
                *(sql.SQL("{} {}").format(self._named(c), sql.SQL(c.named.name)) for c in self.doubled),
            ]
        )
        return sql.SQL(
            """
            CREATE TEMPORARY TABLE dualwrite_stage (dualwrite_n int4, dualwrite_stand_ins {}, {}) ON COMMIT DROP;
            SAVEPOINT dualwrite_staging
            """
        ).format(sql.SQL(self.stand_ins_type), columns)

    @cached_property
    def held(self) -> list[Column]:
        """The columns that get their value through another row."""
        return [c for c in self._collection.columns if c.via is not None]

    @cached_property
    def late(self) -> list[Column]:
        """The columns that are null until the row that they refer to is there."""
        return [c for c in self._collection.columns if c.late]

    @cached_property
    def doubled(self) -> list[Column]:
        """The columns whose value may differ from the copied one."""
        return [c for c in self._collection.columns if c.via is not None or c.late]

    def _named(self, column: Column, alias: str | None = None) -> sql.Composable:
        return named_column(self._collection, column, alias)

    @statement
    def copy_stage(self) -> sql.Composed:
        """Copies a page into the stage: in binary form, which takes a third of the time, if each column's type shares it with the
        document's."""
        return sql.SQL("COPY {} (dualwrite_n, dualwrite_stand_ins, {}) FROM STDIN (FORMAT {})").format(
            STAGE,
            COMMA.join(map(self._named, self._collection.columns)),
            sql.SQL("BINARY" if self.copy_types else "TEXT"),
        )

    def copy_column(self, index: int) -> sql.Composed:
        """As `copy_stage`, for one column by its place."""
        return sql.SQL("COPY {} (dualwrite_n, {}) FROM STDIN (FORMAT {})").format(
            STAGE, self._named(self._collection.columns[index]), sql.SQL("BINARY" if self.copy_types else "TEXT")
        )

    @cached_property
    def copy_types(self) -> list[str] | None:
        """The types in whose binary form the columns are copied; None: they are copied as text."""
        types = [copied_as(c.type, c.named) for c in self._collection.columns]
        known = [t for t in types if t is not None]
        return ["int4", self.stand_ins_type, *known] if len(known) == len(types) else None

    @statement
    def compare_stage(self) -> sql.Composed:
        """The comparison of a stage in one message, and so in one round trip: `_differing`, `_derived_lag`, then `_others`. Before
        them, the values that come through other rows are looked up, once for all statements that use the stage."""
        return sql.SQL("RELEASE SAVEPOINT dualwrite_staging; {}; {}; {}; {}").format(
            self._look_up if self.doubled else sql.SQL("SELECT"),
            self._differing,
            self._derived_lag or sql.SQL("SELECT 0"),
            self._others or sql.SQL("SELECT 0 WHERE false"),
        )

    @cached_property
    def _look_up(self) -> sql.Composed:
        """Gives the staged rows the values that other rows hold; null if these are absent."""
        return sql.SQL("UPDATE {} s SET {} WHERE {}").format(
            STAGE,
            COMMA.join(
                sql.SQL("{} = {}").format(column_name(c.name), value_of(c, self._named(c, "s"))) for c in self.doubled
            ),
            OR.join(sql.SQL("{} IS NOT NULL").format(self._named(c, "s")) for c in self.doubled),
        )

    @cached_property
    def _differing(self) -> sql.Composed:
        """One line for each staged row that is not matching.

        Columns: n, exists, xmin, differs (column names), parents (names of columns whose referenced row isn't
        there), holders (for each further unique key: the key of another row that holds it, as JSON, or null),
        digest (changes whenever a compared column of the row does), twins (whether several rows have the key, within one
        millisecond; then there may be a line for each).
        """
        differs = self.names_where([(self.differs(c), c.name) for c in self._compared])
        changed = OR.join(self.differs(c) for c in self._compared) if self._compared else sql.SQL("false")
        parents = self.names_where([(self.lacks_parent(c), c.name) for c in self._collection.references])
        holders = COMMA.join(self._holder(unique) for unique in self._collection.unique)
        # A row is there if it has a ctid: its columns may all be null.
        return sql.SQL(
            """
            SELECT s.dualwrite_n, t.ctid IS NOT NULL, t.xmin::text,
              CASE WHEN t.ctid IS NULL THEN ARRAY[]::text[] ELSE {differs} END,
              {parents},
              ARRAY[{holders}]::json[],
              CASE WHEN t.ctid IS NOT NULL THEN {digest} END, {twins}
            FROM {stage} s
            LEFT JOIN {table} t ON {same_key}
            WHERE t.ctid IS NULL OR {changed}{or_twins}
            ORDER BY s.dualwrite_n
            """
        ).format(
            differs=differs,
            parents=parents,
            holders=holders,
            digest=self.digest("t"),
            stage=STAGE,
            table=self.table,
            same_key=self.is_at("t", "s"),
            changed=changed,
            twins=self._twins or sql.SQL("false"),
            or_twins=sql.SQL(" OR {}").format(self._twins) if self._twins else sql.SQL(""),
        )

    @cached_property
    def _twins(self) -> sql.Composed | None:
        """Whether another row than `t` has the staged row's key: their times differ by less than a millisecond."""
        if self.time_in_key is None:
            return None
        name = self.time_in_key.name
        return sql.SQL("EXISTS (SELECT FROM {} h WHERE {} AND {} OPERATOR(pg_catalog.<>) {})").format(
            self.table, self.is_at("h", "s"), column_name(name, "h"), column_name(name, "t")
        )

    def _holder(self, unique: tuple[str, ...]) -> sql.Composed:
        same = AND.join(
            column_name(n, "h") + operator(self._collection.column(n), "=") + column_name(n, "s") for n in unique
        )
        another = sql.SQL("NOT ({})").format(self.same_key("h", "s"))
        return sql.SQL("(SELECT to_json({key}) FROM {table} h{where} LIMIT 1)").format(
            key=self.key_array("h"), table=self.table, where=self.where("h", same, another)
        )

    @cached_property
    def _derived_lag(self) -> sql.Composed | None:
        """How many staged rows have a row whose derived columns differ."""
        if not self._derived:
            return None
        return sql.SQL("SELECT count(*) FROM {} s JOIN {} t ON {} WHERE {}").format(
            STAGE, self.table, self.is_at("t", "s"), OR.join(self.differs(c) for c in self._derived)
        )

    @cached_property
    def _others(self) -> sql.Composed | None:
        """Rows beside those of the staged documents that share the part of the key which a path gives: n of such a document, and the
        row's key. The row may be that of another document of the same id; rows of staged documents are left out. Each id is looked
        up once, because thousands of documents may share one."""
        if not self._collection.may_have_others:
            return None
        beside = self._collection.entry_columns
        by_path = [c for c in self._collection.columns if c.role == "key" and c not in beside]
        return sql.SQL(
            """
            SELECT s.dualwrite_n, {keys}
            FROM (SELECT min(s.dualwrite_n) AS dualwrite_n, {ids} FROM {stage} s GROUP BY {ids}) s
            JOIN {table} t ON {same_id}
            WHERE NOT EXISTS (SELECT FROM {stage} h WHERE {of_another})
            """
        ).format(
            keys=self.key_texts("t"),
            stage=STAGE,
            table=self.table,
            same_id=AND.join(
                [
                    *(column_name(c.name, "t") + operator(c, "=") + column_name(c.name, "s") for c in by_path),
                    *self.own("t"),
                ]
            ),
            ids=self.names(by_path, "s"),
            of_another=self.same_key("t", "h"),
        )

    # --- writing --------------------------------------------------------------------------------------------------

    def updated(self, column: Column) -> sql.Composed:
        """The value that an update gives a compared column: a stand-in keeps the row's own."""
        return sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(
            self.stated(column), column_name(column.name, "s"), column_name(column.name, "t")
        )

    @statement
    def insert(self) -> sql.Composed:
        """Inserts candidates whose key is still free; see `_insert`. A row that holds another of their unique keys is an error, which
        names the constraint: an ON CONFLICT without the key would silently leave out each row that any unique key refuses."""
        return self._insert(sql.SQL("ON CONFLICT ({}) DO NOTHING").format(self.names(self._collection.key)))

    @statement
    def insert_or_fail(self) -> sql.Composed:
        """As `insert`, but a key that isn't free is an error too; a row that this leaves out was skipped by a trigger."""
        return self._insert(sql.SQL(""))

    @statement
    def left_differing(self) -> sql.Composed:
        """The compared columns of staged rows that still differ from the table's: n, names. Parameters: n (int[])."""
        return sql.SQL("SELECT s.dualwrite_n, {} FROM {} s JOIN {} t ON {} WHERE s.dualwrite_n = ANY(%(n)s)").format(
            self.names_where([(self.differs(c), c.name) for c in self._compared]),
            STAGE,
            self.table,
            self.is_at("t", "s"),
        )

    @statement
    def absent(self) -> sql.Composed:
        """Those of some staged rows whose key no row has. Parameters: n (int[])."""
        return sql.SQL(
            "SELECT s.dualwrite_n FROM {} s WHERE s.dualwrite_n = ANY(%(n)s) AND NOT EXISTS (SELECT FROM {} t WHERE {})"
        ).format(STAGE, self.table, self.is_at("t", "s"))

    @statement
    def unmoved(self) -> sql.Composed:
        """Those of some staged rows whose row is still the version that was read. Parameters: n (int[]), xmin (text[])."""
        return sql.SQL(
            """
            SELECT s.dualwrite_n
            FROM unnest(%(n)s::int4[], %(xmin)s::text[]) AS x (_n, xmin)
            JOIN {} s ON s.dualwrite_n = x._n
            JOIN {} t ON {}
            WHERE t.xmin = x.xmin::xid
            """
        ).format(STAGE, self.table, self.is_at("t", "s"))

    def _insert(self, conflict: sql.Composable) -> sql.Composed:
        """Inserts candidates and journals the inserted ones, in one statement.

        The journal row is written by the same (sub)transaction as the row, so both carry the same xmin: that is how
        a later run knows a row of ours that no one has touched since. Parameters: n (int[]), label, path (text[]),
        run, collection, table. Returns the journal's id and the label of each row inserted.
        """
        return sql.SQL(
            """
            WITH c AS (
              SELECT * FROM unnest(%(n)s::int4[], %(label)s::text[], %(path)s::text[]) AS c (_n, label, path)
            ), written AS (
              INSERT INTO {table} ({columns})
              SELECT {columns} FROM {stage} s WHERE s.dualwrite_n = ANY(%(n)s) ORDER BY s.dualwrite_n
              {conflict}
              RETURNING {key}
            )
            INSERT INTO {journal}
              (run_id, collection, key, path, action, table_name, row_key, row_before)
            SELECT %(run)s, %(collection)s, c.label, c.path, 'insert', %(table)s, pg_catalog.to_jsonb({key_array}), NULL
            FROM written w
            JOIN {stage} s ON {same_key}
            JOIN c ON c._n = s.dualwrite_n
            RETURNING id, key
            """
        ).format(
            table=self.table,
            columns=self.names(self._collection.columns),
            stage=STAGE,
            conflict=conflict,
            journal=JOURNAL,
            key=self.names(self._collection.key),
            key_array=self.key_array("w"),
            same_key=self.same_key("w", "s"),
        )

    @statement
    def update(self) -> sql.Composed:
        """Updates candidates whose row is still the one that was read (xmin), and journals the rows as they were.

        `old` is the version that the statement's snapshot sees. If a client changed the row meanwhile, Postgres
        checks the condition again on the new version, finds another xmin, and writes nothing. A stand-in keeps the
        row's own value. Parameters: as insert, and xmin (text[]).
        """
        assignments = COMMA.join(
            sql.SQL("{} = {}").format(column_name(c.name), self.updated(c)) for c in self._compared
        )
        return sql.SQL(
            """
            WITH c AS (
              SELECT * FROM unnest(%(n)s::int4[], %(label)s::text[], %(path)s::text[], %(xmin)s::text[])
              AS c (_n, label, path, xmin)
            ), written AS (
              UPDATE {table} t SET {assignments}
              FROM {stage} s
              JOIN c ON c._n = s.dualwrite_n
              JOIN {table} old ON {old_is_s}
              WHERE {t_is_s} AND t.xmin = c.xmin::xid AND old.xmin = c.xmin::xid
              RETURNING c.label, c.path, pg_catalog.to_jsonb({key_array}) AS row_key, pg_catalog.to_jsonb(old.*) AS row_before,
                c.xmin AS xmin_before
            )
            INSERT INTO {journal}
              (run_id, collection, key, path, action, table_name, row_key, row_before, xmin_before)
            SELECT %(run)s, %(collection)s, label, path, 'update', %(table)s, row_key, row_before, xmin_before
            FROM written
            RETURNING id, key
            """
        ).format(
            table=self.table,
            assignments=assignments,
            stage=STAGE,
            old_is_s=self.is_at("old", "s"),
            t_is_s=self.is_at("t", "s"),
            journal=JOURNAL,
            key_array=self.key_array("old"),
        )

    @statement
    def leave_out(self) -> sql.Composed:
        """Sets late columns of staged rows to null if the rows that they refer to aren't there; see `fill`. Parameters: n (int[])."""
        return sql.SQL("UPDATE {} s SET {} WHERE s.dualwrite_n = ANY(%(n)s)").format(
            STAGE,
            COMMA.join(
                sql.SQL("{name} = CASE WHEN NOT ({lacks}) THEN {value} END").format(
                    name=column_name(c.name), lacks=self.lacks_parent(c), value=column_name(c.name, "s")
                )
                for c in self.late
            ),
        )

    @statement
    def fill(self) -> sql.Composed:
        """Fills in the columns that `leave_out` left null in rows that this transaction has inserted, if the rows that they refer to
        are there now: n of the rows that are whole now. The same statement touches their journal rows, so that these still carry the
        rows' xmin. Parameters: n (int[]), ids (int8[])."""
        there = {c.name: self._named_if_there(c) for c in self.late}
        left_out = [
            sql.SQL("({} IS NULL AND {} IS NOT NULL)").format(column_name(c.name, "t"), there[c.name])
            for c in self.late
        ]
        whole = [
            sql.SQL("({} IS NULL OR {} IS NOT NULL)").format(self._named(c, "s"), there[c.name]) for c in self.late
        ]
        return sql.SQL(
            """
            WITH x AS (
              SELECT * FROM unnest(%(n)s::int4[], %(ids)s::int8[]) AS x (_n, id)
            ), filled AS (
              UPDATE {table} t SET {assignments}
              FROM {stage} s JOIN x ON x._n = s.dualwrite_n
              WHERE {same_key} AND ({left_out})
              RETURNING x.id
            ), touched AS (
              UPDATE {journal} j SET run_id = j.run_id FROM filled WHERE j.id = filled.id
            )
            SELECT x._n FROM x JOIN {stage} s ON s.dualwrite_n = x._n WHERE {whole}
            """
        ).format(
            table=self.table,
            assignments=COMMA.join(
                sql.SQL("{} = coalesce({}, {})").format(column_name(c.name), column_name(c.name, "t"), there[c.name])
                for c in self.late
            ),
            journal=JOURNAL,
            stage=STAGE,
            same_key=self.is_at("t", "s"),
            left_out=OR.join(left_out),
            whole=AND.join(whole),
        )

    def _named_if_there(self, column: Column) -> sql.Composable:
        """The value that a staged row's column would hold; null if the row that it refers to isn't there."""
        named = self._named(column, "s")
        if column.via is not None:
            return value_of(column, named)
        parent = self._catalog[column.parent.collection]
        values = [self._named(self._collection.column(name), "s") for name in column.beside or (column.name,)]
        same = [
            column_name(key.name, "p") + operator(key, "=") + value
            for key, value in zip(parent.key, values, strict=True)
        ]
        where = Fragments.of(self._catalog, parent).where("p", *same)
        return sql.SQL("(SELECT {} FROM {} p{})").format(named, table_of(parent), where)

    @statement
    def lock(self) -> sql.Composed:
        """Locks the rows of some keys that are still the ones that were read: n. Parameters: n, keys, xmin (text[])."""
        return sql.SQL(
            """
            WITH {c}, x AS (
              SELECT * FROM unnest(%(n)s::int4[], %(xmin)s::text[]) AS x (_n, xmin)
            )
            SELECT c._n
            FROM c
            JOIN x ON x._n = c._n
            JOIN {table} t ON {same_key}
            WHERE t.xmin = x.xmin::xid
            FOR UPDATE OF t
            """
        ).format(c=self.candidate_keys(), table=self.table, same_key=self.is_at("t", "c"))

    @statement
    def delete(self) -> sql.Composed:
        """Deletes rows, and journals them as they were. The caller has locked them and knows that nothing references them.
        Parameters: n, keys, label, path (text[]), undoes (int8[]: the line of the journal that each takes back, or null), run,
        collection, table."""
        return sql.SQL(
            """
            WITH {c}, x AS (
              SELECT * FROM unnest(%(n)s::int4[], %(label)s::text[], %(path)s::text[], %(undoes)s::int8[])
              AS x (_n, label, path, undoes)
            ), written AS (
              DELETE FROM {table} t
              USING c JOIN x ON x._n = c._n
              WHERE {same_key}
              RETURNING x.label, x.path, pg_catalog.to_jsonb({key_array}) AS row_key, pg_catalog.to_jsonb(t.*) AS row_before,
                t.xmin::text AS xmin_before, x.undoes
            )
            INSERT INTO {journal}
              (run_id, collection, key, path, action, table_name, row_key, row_before, xmin_before, undoes, confirmed_at)
            SELECT %(run)s, %(collection)s, label, path, 'delete', %(table)s, row_key, row_before, xmin_before, undoes,
              CASE WHEN undoes IS NOT NULL THEN pg_catalog.clock_timestamp() END
            FROM written
            RETURNING id, key
            """
        ).format(
            c=self.candidate_keys(),
            table=self.table,
            same_key=self.is_at("t", "c"),
            journal=JOURNAL,
            key_array=self.key_array("t"),
        )
