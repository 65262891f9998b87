"""The SQL that is made from a collection's declaration: staging, comparing, writing.

Composed, never concatenated: names come from the catalog as identifiers, values only as parameters. All of it runs
inside one transaction of the caller's, on temporary tables that end with it, so it is fit for a transaction pooler.

Names used throughout: `t` the target table, `s` the staged page, `c` the candidates of one write.
"""

from __future__ import annotations

from functools import cached_property

from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, ParentId, Segment, Template, Type
from dualwrite.postgres import sql

_TYPES: dict[Type, str] = {
    "text": "text",
    "integer": "int4",
    "numeric": "numeric",
    "boolean": "bool",
    "timestamp": "timestamptz",
    "json": "jsonb",
}
_STAGE = sql.Identifier("pg_temp", "dualwrite_stage")
_TRIAL = sql.Identifier("pg_temp", "dualwrite_trial")
_COMMA = sql.SQL(", ")
_AND = sql.SQL(" AND ")
_OR = sql.SQL(" OR ")
_JOURNAL = sql.SQL(
    "INSERT INTO dualwrite.repair_journal (run_id, collection, key, path, action, table_name, row_key, row_before) "
)


def _name(name: str, alias: str | None = None) -> sql.Composable:
    return sql.Identifier(name) if alias is None else sql.Identifier(alias, name)


class Statements:
    """All statements of one collection."""

    def __init__(self, catalog: Catalog, collection: Collection) -> None:
        self._catalog = catalog
        self._collection = collection
        self.table = sql.Identifier(*collection.table.split("."))
        self._compared = [c for c in collection.columns if c.role == "compared"]
        self._derived = [c for c in collection.columns if c.role == "derived"]

    # --- pieces ---------------------------------------------------------------------------------------------------

    def _names(self, columns: tuple[Column, ...] | list[Column], alias: str | None = None) -> sql.Composed:
        return _COMMA.join(_name(c.name, alias) for c in columns)

    def _same_key(self, left: str, right: str) -> sql.Composed:
        return _AND.join(
            sql.SQL("{} = {}").format(_name(c.name, left), _name(c.name, right)) for c in self._collection.key
        )

    def _key_array(self, alias: str) -> sql.Composed:
        return sql.SQL("ARRAY[{}]::text[]").format(self._names(self._collection.key, alias))

    @staticmethod
    def _as_compared(column: Column, alias: str) -> sql.Composable:
        """A column of the target as it is compared: timestamps cut off at milliseconds; '' for null where they are one."""
        name = _name(column.name, alias)
        if column.type == "timestamp":
            return sql.SQL("date_trunc('milliseconds', {})").format(name)
        if column.absent == "":
            return sql.SQL("coalesce({}, '')").format(name)
        return name

    def _stated(self, column: Column) -> sql.Composed:
        """True where the document states the column, false where the staged value is a stand-in."""
        return sql.SQL("s._stand_ins & {} = 0").format(sql.Literal(1 << self._collection.columns.index(column)))

    def _differs(self, column: Column) -> sql.Composed:
        return sql.SQL("({} AND {} IS DISTINCT FROM {})").format(
            self._stated(column), _name(column.name, "s"), self._as_compared(column, "t")
        )

    def _names_where(self, cases: list[tuple[sql.Composable, str]]) -> sql.Composable:
        """An array of the names whose condition holds."""
        if not cases:
            return sql.SQL("ARRAY[]::text[]")
        return sql.SQL("array_remove(ARRAY[{}]::text[], NULL)").format(
            _COMMA.join(sql.SQL("CASE WHEN {} THEN {} END").format(c, sql.Literal(n)) for c, n in cases)
        )

    def _digest(self, alias: str) -> sql.Composed:
        """Of the fingerprinted columns, the same in every session: a time's text depends on TimeZone and DateStyle."""
        columns = (
            sql.SQL("extract(epoch FROM {})").format(self._as_compared(c, alias))
            if c.type == "timestamp"
            else self._as_compared(c, alias)
            for c in self._collection.fingerprinted
        )
        return sql.SQL("md5(ROW({})::text)").format(_COMMA.join(columns))

    # --- staging and comparing ------------------------------------------------------------------------------------

    @cached_property
    def create_stage(self) -> sql.Composed:
        """A staged row: its number in the page, its stand-ins as a bit mask, its columns in the catalog's types."""
        columns = _COMMA.join(
            sql.SQL("{} {}").format(_name(c.name), sql.SQL(_TYPES[c.type])) for c in self._collection.columns
        )
        return sql.SQL("CREATE TEMPORARY TABLE dualwrite_stage (_n int4, _stand_ins int8, {}) ON COMMIT DROP").format(
            columns
        )

    @cached_property
    def copy_stage(self) -> sql.Composed:
        return sql.SQL("COPY {} (_n, _stand_ins, {}) FROM STDIN (FORMAT BINARY)").format(
            _STAGE, self._names(self._collection.columns)
        )

    @cached_property
    def copy_types(self) -> list[str]:
        return ["int4", "int8", *(_TYPES[c.type] for c in self._collection.columns)]

    @cached_property
    def compare(self) -> sql.Composed:
        """One line for each staged row that is not matching.

        Columns: n, found, xmin, differs (column names), parents (names of columns whose referenced row isn't
        there), holders (for each further unique key: the key of another row that holds it, as JSON, or null),
        digest (changes whenever a compared column of the row does).
        """
        differs = self._names_where([(self._differs(c), c.name) for c in self._compared])
        changed = _OR.join(self._differs(c) for c in self._compared) if self._compared else sql.SQL("false")
        parents = self._names_where([(self._lacks_parent(c), c.name) for c in self._collection.references])
        holders = _COMMA.join(self._holder(unique) for unique in self._collection.unique)
        return sql.SQL(
            # A row is found when it has a place; its columns say nothing, they may all be null.
            "SELECT s._n, t.ctid IS NOT NULL, t.xmin::text, "
            "CASE WHEN t.ctid IS NULL THEN ARRAY[]::text[] ELSE {differs} END, {parents}, ARRAY[{holders}]::json[], "
            "CASE WHEN t.ctid IS NOT NULL THEN {digest} END "
            "FROM {stage} s LEFT JOIN {table} t ON {same_key} WHERE t.ctid IS NULL OR {changed} ORDER BY s._n"
        ).format(
            differs=differs,
            parents=parents,
            holders=holders,
            digest=self._digest("t"),
            stage=_STAGE,
            table=self.table,
            same_key=self._same_key("t", "s"),
            changed=changed,
        )

    def _lacks_parent(self, column: Column) -> sql.Composed:
        parent = self._catalog[str(column.references)]
        return sql.SQL("{value} IS NOT NULL AND NOT EXISTS (SELECT FROM {parent} p WHERE {key} = {value})").format(
            value=_name(column.name, "s"),
            parent=Statements(self._catalog, parent).table,
            key=_name(parent.key[0].name, "p"),
        )

    def _holder(self, unique: tuple[str, ...]) -> sql.Composed:
        same = _AND.join(sql.SQL("{} = {}").format(_name(n, "h"), _name(n, "s")) for n in unique)
        return sql.SQL("(SELECT to_json({key}) FROM {table} h WHERE {same} AND NOT ({itself}) LIMIT 1)").format(
            key=self._key_array("h"), table=self.table, same=same, itself=self._same_key("h", "s")
        )

    @cached_property
    def derived_lag(self) -> sql.Composed | None:
        """How many staged rows have a row whose derived columns differ."""
        if not self._derived:
            return None
        return sql.SQL("SELECT count(*) FROM {} s JOIN {} t ON {} WHERE {}").format(
            _STAGE, self.table, self._same_key("t", "s"), _OR.join(self._differs(c) for c in self._derived)
        )

    # --- writing --------------------------------------------------------------------------------------------------

    @cached_property
    def create_trial(self) -> sql.Composed:
        """An empty copy of the target with its NOT NULL, CHECK and unique constraints, for a dry run's inserts."""
        return sql.SQL(
            "CREATE TEMPORARY TABLE IF NOT EXISTS dualwrite_trial (LIKE {} INCLUDING ALL) ON COMMIT DROP"
        ).format(self.table)

    @cached_property
    def insert_trial(self) -> sql.Composed:
        """Parameters: n (int[])."""
        columns = self._names(self._collection.columns)
        return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} s WHERE s._n = ANY(%(n)s) ON CONFLICT DO NOTHING").format(
            _TRIAL, columns, columns, _STAGE
        )

    @cached_property
    def insert(self) -> sql.Composed:
        """Inserts candidates and journals what it inserted, in one statement.

        The journal row is written by the same (sub)transaction as the row, so both carry the same xmin: that is how
        a later run knows a row of ours that nobody has touched since. Parameters: n (int[]), label, path (text[]),
        run, collection, table. Returns the journal's id and the label of each row inserted.
        """
        columns = self._names(self._collection.columns)
        return (
            sql.SQL(
                "WITH c AS (SELECT * FROM unnest(%(n)s::int4[], %(label)s::text[], %(path)s::text[]) AS c (_n, label, path)), "
                "written AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} s WHERE s._n = ANY(%(n)s) "
                "ORDER BY s._n ON CONFLICT DO NOTHING RETURNING {key}) "
            ).format(table=self.table, columns=columns, stage=_STAGE, key=self._names(self._collection.key))
            + _JOURNAL
            + sql.SQL(
                "SELECT %(run)s, %(collection)s, c.label, c.path, 'insert', %(table)s, to_jsonb({key}), NULL "
                "FROM written w JOIN {stage} s ON {same} JOIN c ON c._n = s._n RETURNING id, key"
            ).format(key=self._key_array("w"), stage=_STAGE, same=self._same_key("w", "s"))
        )

    @cached_property
    def update(self) -> sql.Composed:
        """Updates candidates whose row is still the one that was read (xmin), and journals the rows as they were.

        `old` is the version that the statement's snapshot sees. Where a client changed the row meanwhile, Postgres
        checks the condition again on the new version, finds another xmin, and writes nothing. A stand-in keeps the
        row's own value. Parameters: as insert, and xmin (text[]).
        """
        assignments = _COMMA.join(
            sql.SQL("{} = CASE WHEN {} THEN {} ELSE {} END").format(
                _name(c.name), self._stated(c), _name(c.name, "s"), _name(c.name, "t")
            )
            for c in self._compared
        )
        return (
            sql.SQL(
                "WITH c AS (SELECT * FROM unnest(%(n)s::int4[], %(label)s::text[], %(path)s::text[], %(xmin)s::text[]) "
                "AS c (_n, label, path, xmin)), "
                "written AS (UPDATE {table} t SET {assignments} FROM {stage} s JOIN c ON c._n = s._n "
                "JOIN {table} old ON {old_is_s} WHERE {t_is_s} AND t.xmin = c.xmin::xid AND old.xmin = c.xmin::xid "
                "RETURNING c.label, c.path, to_jsonb({key}) AS row_key, to_jsonb(old) AS row_before) "
            ).format(
                table=self.table,
                assignments=assignments,
                stage=_STAGE,
                old_is_s=self._same_key("old", "s"),
                t_is_s=self._same_key("t", "s"),
                key=self._key_array("old"),
            )
            + _JOURNAL
            + sql.SQL(
                "SELECT %(run)s, %(collection)s, label, path, 'update', %(table)s, row_key, row_before FROM written "
                "RETURNING id, key"
            )
        )

    def upsert(self, stand_ins: frozenset[int]) -> sql.Composed:
        """One row as a client writes it: inserted, or its compared columns set; a stand-in leaves what is there.
        Parameters: one a column, in the catalog's order."""
        columns = self._collection.columns
        values = _COMMA.join(sql.SQL("%s::" + _TYPES[c.type]) for c in columns)
        updated = [c for i, c in enumerate(columns) if c.role == "compared" and i not in stand_ins]
        action: sql.Composable = sql.SQL("DO NOTHING")
        if updated:
            action = sql.SQL("DO UPDATE SET {}").format(
                _COMMA.join(sql.SQL("{} = {}").format(_name(c.name), _name(c.name, "excluded")) for c in updated)
            )
        return sql.SQL("INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT ({key}) {action}").format(
            table=self.table,
            columns=self._names(columns),
            values=values,
            key=self._names(self._collection.key),
            action=action,
        )

    @cached_property
    def delete_one(self) -> sql.Composed:
        """One row by its key, as a client deletes it. Parameters: one a key column."""
        same = _AND.join(sql.SQL("{} = %s").format(_name(c.name)) for c in self._collection.key)
        return sql.SQL("DELETE FROM {} WHERE {}").format(self.table, same)

    # --- by key ---------------------------------------------------------------------------------------------------

    def _candidate_keys(self) -> sql.Composed:
        """`c`: keys given as JSON arrays of text, numbered by _n. Parameters: n, keys (text[])."""
        columns = _COMMA.join(
            sql.SQL("(k.key ->> {}) AS {}").format(sql.Literal(i), _name(c.name))
            for i, c in enumerate(self._collection.key)
        )
        return sql.SQL(
            "c AS (SELECT k._n, {} FROM (SELECT u._n, u.key::jsonb AS key FROM unnest(%(n)s::int4[], %(keys)s::text[]) "
            "AS u (_n, key)) k)"
        ).format(columns)

    @cached_property
    def versions(self) -> sql.Composed:
        """The rows of some keys: n, xmin, digest. Absent keys give no line."""
        return sql.SQL("WITH {c} SELECT c._n, t.xmin::text, {digest} FROM c JOIN {table} t ON {same}").format(
            c=self._candidate_keys(), digest=self._digest("t"), table=self.table, same=self._same_key("t", "c")
        )

    @cached_property
    def lock(self) -> sql.Composed:
        """Locks the rows of some keys that are still the ones that were read: n. Parameters: n, keys, xmin (text[])."""
        return sql.SQL(
            "WITH {c}, x AS (SELECT * FROM unnest(%(n)s::int4[], %(xmin)s::text[]) AS x (_n, xmin)) "
            "SELECT c._n FROM c JOIN x ON x._n = c._n JOIN {table} t ON {same} WHERE t.xmin = x.xmin::xid FOR UPDATE OF t"
        ).format(c=self._candidate_keys(), table=self.table, same=self._same_key("t", "c"))

    def delete(self, referencing: list[tuple[str, str, str, str]]) -> sql.Composed:
        """Deletes locked rows that no row references, and journals them as they were.

        `referencing` are the foreign keys of the live database to this table: schema, table, column, and this
        table's column. Parameters: n, keys, label, path (text[]), run, collection, table.
        """
        free = _AND.join(
            sql.SQL("NOT EXISTS (SELECT FROM {} r WHERE {} = {})").format(
                sql.Identifier(schema, name), _name(column, "r"), _name(referenced, "t")
            )
            for schema, name, column, referenced in referencing
        )
        return (
            sql.SQL(
                "WITH {c}, l AS (SELECT * FROM unnest(%(n)s::int4[], %(label)s::text[], %(path)s::text[]) AS l (_n, label, path)), "
                "written AS (DELETE FROM {table} t USING c JOIN l ON l._n = c._n WHERE {same} {free} "
                "RETURNING l.label, l.path, to_jsonb({key}) AS row_key, to_jsonb(t) AS row_before) "
            ).format(
                c=self._candidate_keys(),
                table=self.table,
                same=self._same_key("t", "c"),
                free=sql.SQL("AND ") + free if referencing else sql.SQL(""),
                key=self._key_array("t"),
            )
            + _JOURNAL
            + sql.SQL(
                "SELECT %(run)s, %(collection)s, label, path, 'delete', %(table)s, row_key, row_before FROM written "
                "RETURNING id, key"
            )
        )

    def keys_after(self, *, first: bool) -> sql.Composed:
        """A page of keys in key order. Parameters: after (the last key of the page before), limit."""
        columns = self._names(self._collection.key)
        last = _COMMA.join(
            sql.SQL("(%(after)s::text[])[{}]").format(sql.Literal(i + 1)) for i in range(len(self._collection.key))
        )
        after = sql.SQL("WHERE ({}) > ({})").format(columns, last)
        return sql.SQL("SELECT {columns} FROM {table} t {after} ORDER BY {columns} LIMIT %(limit)s").format(
            columns=columns, table=self.table, after=sql.SQL("") if first else after
        )

    def keys_where(self, column: str) -> sql.Composed:
        """The keys of rows with one of these values in a column. Parameters: values (text[])."""
        return sql.SQL("SELECT {} FROM {} t WHERE {} = ANY(%(values)s::text[])").format(
            self._names(self._collection.key), self.table, _name(column)
        )

    def dependents(self, column: str) -> sql.Composed:
        """For rows with one of these values in a column: that value, then the key. Parameters: values (text[])."""
        return sql.SQL("SELECT {}, {} FROM {} t WHERE {} = ANY(%(values)s::text[])").format(
            _name(column, "t"), self._names(self._collection.key, "t"), self.table, _name(column, "t")
        )

    def counts_by_time(self, column: str) -> sql.Composed:
        """How many rows lie before the first edge (0), from the n-th edge on (n), and so on. Parameters: edges."""
        return sql.SQL("SELECT width_bucket({}, %(edges)s::timestamptz[]), count(*) FROM {} t GROUP BY 1").format(
            _name(column, "t"), self.table
        )

    def time_edges(self, column: str) -> sql.Composed:
        """The time, in whole milliseconds, of each `every`-th row before a moment. Parameters: before, every."""
        return sql.SQL(
            "SELECT DISTINCT date_trunc('milliseconds', at) FROM "
            "(SELECT {at} AS at, row_number() OVER (ORDER BY {at}) AS n FROM {table} t WHERE {at} < %(before)s) ordered "
            "WHERE n %% %(every)s = 0 ORDER BY 1"
        ).format(at=_name(column, "t"), table=self.table)

    def keys_between(self, column: str) -> sql.Composed:
        """The keys of rows with a time in a stretch. Parameters: start, end."""
        return sql.SQL("SELECT {keys} FROM {table} t WHERE {at} >= %(start)s AND {at} < %(end)s").format(
            keys=self._names(self._collection.key), table=self.table, at=_name(column, "t")
        )

    @cached_property
    def written_between(self) -> sql.Composed:
        """The keys of rows written in a stretch of time. Parameters: start, end."""
        inside = _OR.join(
            sql.SQL("({name} >= %(start)s AND {name} < %(end)s)").format(name=_name(n, "t"))
            for n in self._collection.written_columns
        )
        return sql.SQL("SELECT {} FROM {} t WHERE {}").format(self._names(self._collection.key), self.table, inside)

    @cached_property
    def untouched(self) -> sql.Composed:
        """Keys of journaled inserts whose row nobody has written since. Parameters: ids."""
        same = _AND.join(
            sql.SQL("{} = (j.row_key ->> {})").format(_name(c.name, "t"), sql.Literal(i))
            for i, c in enumerate(self._collection.key)
        )
        return sql.SQL(
            "SELECT j.key FROM dualwrite.repair_journal j JOIN {} t ON {} "
            "WHERE j.id = ANY(%(ids)s::int8[]) AND j.action = 'insert' AND j.confirmed_at IS NULL AND t.xmin = j.xmin"
        ).format(self.table, same)

    # --- rows to documents ----------------------------------------------------------------------------------------

    @cached_property
    def paths(self) -> sql.Composed:
        """Where the documents of some rows may be: n, paths (text[], the likeliest first; empty where none can be told).

        A variable of the path is told by the rows that this one references, and by its own columns. Where these disagree
        (a denormalised column is wrong), both paths are told. Parameters: n, keys.
        """
        joins, referenced = self._variables("t", referenced_first=True)
        _, own = self._variables("t", referenced_first=False)
        return sql.SQL(
            "WITH {c} SELECT c._n, array_remove(ARRAY[{referenced}, nullif({own}, {referenced})], NULL) "
            "FROM c JOIN {table} t ON {same} {joins}"
        ).format(
            c=self._candidate_keys(),
            referenced=self._path(referenced),
            own=self._path(own),
            table=self.table,
            same=self._same_key("t", "c"),
            joins=joins,
        )

    def _path(self, variables: list[dict[str, sql.Composable]]) -> sql.Composable:
        """The first template all of whose variables have a value."""
        alternatives = []
        for template, known in zip(self._collection.templates, variables, strict=True):
            if not all(v in known for v in template.variables):
                continue
            parts = [
                sql.SQL("{} || '/' || {}").format(sql.Literal(name), known[variable])
                for name, variable in zip(template.segments[0::2], template.variables, strict=True)
            ]
            alternatives.append(sql.SQL("({})").format(sql.SQL(" || '/' || ").join(parts)))
        if not alternatives:
            return sql.SQL("NULL::text")
        return sql.SQL("coalesce({})").format(_COMMA.join(alternatives))

    def _variables(
        self, alias: str, *, referenced_first: bool
    ) -> tuple[sql.Composable, list[dict[str, sql.Composable]]]:
        """For each template, SQL for its variables: from the row's columns, and through the rows it references."""
        joins: list[sql.Composable] = []
        reached: list[tuple[Column, list[dict[str, sql.Composable]]]] = []
        for number, column in enumerate(self._collection.references):
            if not isinstance(column.origin, Segment | ParentId):
                continue
            parent = self._catalog[str(column.references)]
            other = f"{alias}_{number}"
            statements = Statements(self._catalog, parent)
            inner_joins, inner = statements._variables(other, referenced_first=True)
            joins.append(
                sql.SQL("LEFT JOIN {} {} ON {} = {} ").format(
                    statements.table, sql.Identifier(other), _name(parent.key[0].name, other), _name(column.name, alias)
                )
                + inner_joins
            )
            reached.append((column, inner))
        found = []
        for template in self._collection.templates:
            own = self._own_variables(template, alias)
            referenced: dict[str, sql.Composable] = {}
            for column, inner in reached:
                if isinstance(column.origin, ParentId) and column.origin.collection_id != template.parent_collection_id:
                    continue
                for variable, value in inner[0].items():
                    referenced.setdefault(variable, value)
            found.append(
                {
                    variable: _first_told(*((referenced, own) if referenced_first else (own, referenced)), variable)
                    for variable in {**own, **referenced}
                }
            )
        return sql.SQL("").join(joins), found

    def _own_variables(self, template: Template, alias: str) -> dict[str, sql.Composable]:
        """The variables of a template that the row's own columns hold."""
        known: dict[str, sql.Composable] = {}
        for column in self._collection.columns:
            if isinstance(column.origin, Segment):
                known[column.origin.variable] = _name(column.name, alias)
            elif isinstance(column.origin, DocumentId):
                known[template.variables[-1]] = _name(column.name, alias)
            elif isinstance(column.origin, ParentId) and column.origin.collection_id == template.parent_collection_id:
                known[template.variables[-2]] = _name(column.name, alias)
        return known


def _first_told(first: dict[str, sql.Composable], second: dict[str, sql.Composable], variable: str) -> sql.Composable:
    if variable in first and variable in second:
        return sql.SQL("coalesce({}, {})").format(first[variable], second[variable])
    return first[variable] if variable in first else second[variable]
