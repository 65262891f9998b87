"""SQL that looks at a collection's rows by key, by a column's value or by time, and gives their documents' paths.

The names are those of fragments.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dualwrite.model.declaration import Column, DocumentId, ParentId, Segment, Template
from dualwrite.model.id_patterns import IdPattern
from dualwrite.postgres.connection import sql
from dualwrite.postgres.fragments import (
    AND,
    COMMA,
    OR,
    Fragments,
    as_text,
    cast_to,
    column_name,
    has_key_part,
    is_among,
    key_after,
    operator,
    raw_text,
    statement,
)
from dualwrite.postgres.own_schema import JOURNAL
from dualwrite.postgres.references import Reference


class Lookups(Fragments):
    """The statements that look at the rows of one collection."""

    @statement
    def versions(self) -> sql.Composed:
        """The rows of some keys: n, xmin, digest. Absent keys give no line."""
        return sql.SQL("WITH {c} SELECT c._n, t.xmin::text, {digest} FROM c JOIN {table} t ON {same}").format(
            c=self.candidate_keys(), digest=self.digest("t"), table=self.table, same=self.is_at("t", "c")
        )

    @statement
    def count(self) -> sql.Composed:
        """How many rows there are."""
        return sql.SQL("SELECT count(*) FROM {} t{}").format(self.table, self.where("t"))

    def keys_after(self, *, first: bool) -> sql.Composed:
        """A page of keys in key order. Parameters: after (the last columns of the last line of the page before), limit."""
        columns = self.names(self._collection.key, "t")
        texts = self.key_texts("t")
        if self.has_held_key or self.time_in_key:  # the page after needs the columns' own values
            texts = COMMA.join([texts, *(raw_text(c, "t") for c in self._collection.key)])
        after = [] if first else [key_after(self._collection, "t", sql.SQL("(%(after)s::text[])"))]
        return sql.SQL("SELECT {texts} FROM {table} t{where} ORDER BY {columns} LIMIT %(limit)s").format(
            texts=texts, columns=columns, table=self.table, where=self.where("t", *after)
        )

    def keys_where(self, column: str) -> sql.Composed:
        """The keys of rows with one of these values in a column. Parameters: values (text[])."""
        among = is_among(self._collection.column(column), "t", sql.SQL("%(values)s::text[]"))
        return sql.SQL("SELECT {} FROM {} t{}").format(self.key_texts("t"), self.table, self.where("t", among))

    def dependents(self, column: str) -> sql.Composed:
        """For rows with one of these values in a column: that value, then the key. Parameters: values (text[])."""
        declared = self._collection.column(column)
        among = is_among(declared, "t", sql.SQL("%(values)s::text[]"))
        return sql.SQL("SELECT {}, {} FROM {} t{}").format(
            as_text(declared, "t"), self.key_texts("t"), self.table, self.where("t", among)
        )

    def dependents_of(self, columns: Sequence[str]) -> sql.Composed:
        """For rows that refer with some columns to one of these rows: n of that, then the key. Parameters: n, keys (text[])."""
        return sql.SQL(
            """
            SELECT k._n, {keys}
            FROM (SELECT u._n, u.key::jsonb AS key FROM unnest(%(n)s::int4[], %(keys)s::text[]) AS u (_n, key)) k
            JOIN {table} t ON {same}
            """
        ).format(
            keys=self.key_texts("t"),
            table=self.table,
            same=AND.join(
                [
                    *(
                        column_name(name, "t")
                        + operator(self._collection.column(name), "=")
                        + cast_to(self._collection.column(name), sql.SQL("(k.key ->> {})").format(sql.Literal(place)))
                        for place, name in enumerate(columns)
                    ),
                    *self.own("t"),
                ]
            ),
        )

    def referenced(self, references: Sequence[Reference]) -> sql.Composed:
        """The keys whose rows other rows reference, or could: n, and the indexes of the foreign keys in `references`.
        Parameters: n, keys.

        If we see all rows of the referencing table, the answer is exact. If not, any row with values in all referenced
        columns could be referenced, unless Postgres itself refuses the delete.
        """
        cases = []
        for place, reference in enumerate(references):
            pairs = zip(reference.columns, reference.referenced, reference.operators, strict=True)
            if reference.seen:
                condition = sql.SQL("EXISTS (SELECT FROM {} r WHERE {})").format(
                    sql.Identifier(reference.schema, reference.table),
                    AND.join(
                        column_name(b, "t") + sql.SQL(f" OPERATOR({equals}) ") + column_name(a, "r")
                        for a, b, equals in pairs
                    ),
                )
            elif reference.unproved:
                condition = AND.join(sql.SQL("{} IS NOT NULL").format(column_name(b, "t")) for _, b, _ in pairs)
            else:
                continue
            cases.append(sql.SQL("CASE WHEN {} THEN {} END").format(condition, sql.Literal(place)))
        return sql.SQL(
            "WITH {c} SELECT c._n, pg_catalog.array_remove(ARRAY[{cases}]::int4[], NULL) FROM c JOIN {table} t ON {same_key}"
        ).format(c=self.candidate_keys(), cases=COMMA.join(cases), table=self.table, same_key=self.is_at("t", "c"))

    @statement
    def written_between(self) -> sql.Composed:
        """The keys of rows written in an interval. Parameters: start, end."""
        inside = sql.SQL("({})").format(OR.join(map(is_within, self._collection.written_columns)))
        return sql.SQL("SELECT {} FROM {} t{}").format(self.key_texts("t"), self.table, self.where("t", inside))

    def arrived(self, columns: Sequence[str], created: Sequence[str]) -> sql.Composed:
        """How many rows have one of the times `columns` in an interval, and how many one of `created`. Rows that this bundle
        has written since it began are left out: they did not arrive by themselves. Parameters: collection, start, end, since.
        """

        def inside(names: Sequence[str]) -> sql.Composable:
            return OR.join(map(is_within, names)) if names else sql.SQL("false")

        not_ours = sql.SQL(
            """
            NOT EXISTS (
              SELECT FROM {} j
              WHERE j.collection = %(collection)s AND j.written_at >= %(since)s AND j.row_key = to_jsonb({})
            )
            """
        ).format(JOURNAL, self.key_array("t"))
        return sql.SQL("SELECT count(*), count(*) FILTER (WHERE {}) FROM {} t{}").format(
            inside(created),
            self.table,
            self.where("t", sql.SQL("({})").format(inside(columns)), not_ours),
        )

    @statement
    def whole(self) -> sql.Composed:
        """Whole rows, as JSON. Parameters: n, keys."""
        return sql.SQL("WITH {c} SELECT to_jsonb(t.*) FROM c JOIN {table} t ON {same_key}").format(
            c=self.candidate_keys(), table=self.table, same_key=self.same_key("t", "c")
        )

    @statement
    def untouched(self) -> sql.Composed:
        """Keys of journaled inserts whose row no one has written since. Parameters: ids."""
        same = AND.join(
            has_key_part(c, column_name(c.name, "t"), cast_to(c, sql.SQL("(j.row_key ->> {})").format(sql.Literal(i))))
            for i, c in enumerate(self._collection.key)
        )
        same = AND.join([same, *self.own("t")])
        return sql.SQL(
            """
            SELECT j.key
            FROM {journal} j
            JOIN {table} t ON {same_key}
            WHERE j.id = ANY(%(ids)s::int8[]) AND j.action = 'insert' AND j.confirmed_at IS NULL
              AND t.xmin::text = coalesce(j.row_xmin, j.xmin::text)
            """
        ).format(journal=JOURNAL, table=self.table, same_key=same)

    # --- rows to documents ----------------------------------------------------------------------------------------

    @statement
    def paths(self) -> sql.Composed:
        """Where the documents of some rows may be: n, paths (text[], the likeliest first; empty if none is known).

        A path variable comes from the referenced rows and from the row's own columns. If they disagree (a denormalised
        column is wrong), both paths are returned. Parameters: n, keys.
        """
        joins, referenced = self._variables("t", referenced_first=True)
        _, own = self._variables("t", referenced_first=False)
        return sql.SQL(
            """
            WITH {c}
            SELECT c._n, pg_catalog.array_remove(ARRAY[{referenced}, nullif({own}, {referenced})], NULL)
            FROM c
            JOIN {table} t ON {same_key}
            {joins}
            """
        ).format(
            c=self.candidate_keys(),
            referenced=self._path(referenced),
            own=self._path(own),
            table=self.table,
            same_key=self.is_at("t", "c"),
            joins=joins,
        )

    def paths_of(self, alias: str) -> sql.Composed:
        """As `paths`, as an expression over one row."""
        joins, referenced = self._variables(alias, referenced_first=True)
        _, own = self._variables(alias, referenced_first=False)
        return sql.SQL(
            "(SELECT pg_catalog.array_remove(ARRAY[{referenced}, nullif({own}, {referenced})], NULL) FROM (SELECT) nothing {joins})"
        ).format(referenced=self._path(referenced), own=self._path(own), joins=joins)

    def _path(self, variables: list[dict[str, sql.Composable]]) -> sql.Composable:
        """The first template all of whose variables have a value."""
        alternatives = []
        for template, known in zip(self._collection.templates, variables, strict=True):
            ids = [_id(pattern, f"/{number}", known) for number, pattern in enumerate(template.ids)]
            of_row = [each for each in ids if each is not None]
            if len(of_row) < len(ids):
                continue
            parts = [
                sql.SQL("{} || '/' || {}").format(sql.Literal(name), each)
                for name, each in zip(template.segments[0::2], of_row, strict=True)
            ]
            alternatives.append(sql.SQL("({})").format(sql.SQL(" || '/' || ").join(parts)))
        if not alternatives:
            return sql.SQL("NULL::text")
        return sql.SQL("coalesce({})").format(COMMA.join(alternatives))

    def _variables(
        self, alias: str, *, referenced_first: bool
    ) -> tuple[sql.Composable, list[dict[str, sql.Composable]]]:
        """The joins to the rows that a row references; and for each template, SQL for its variables, from the row's columns and
        through those rows. An id of several parts that a column holds whole is called by its place: /0 is the first."""
        joins: list[sql.Composable] = []
        reached: list[tuple[Column, list[dict[str, sql.Composable]]]] = []
        for number, column in enumerate(self._collection.references):
            if not isinstance(column.origin, Segment | ParentId) or column.late or column.beside:
                continue  # a late one may lead back here; columns that refer together are a part of the row's own path
            parent = self._catalog[column.parent.collection]
            other = f"{alias}_{number}"
            above = Lookups(self._catalog, parent)
            inner_joins, inner = above._variables(other, referenced_first=True)
            held = column.via.holds if column.via else parent.key[0].name
            same = sql.SQL("{} = {}").format(column_name(held, other), column_name(column.name, alias))
            joins.append(
                sql.SQL("LEFT JOIN {} {} ON {} ").format(
                    above.table, sql.Identifier(other), AND.join([same, *above.own(other)])
                )
                + inner_joins
            )
            reached.append((column, inner))
        variables = []
        for template in self._collection.templates:
            own = self._own_variables(template, alias)
            referenced: dict[str, sql.Composable] = {}
            for column, inner in reached:
                if isinstance(column.origin, ParentId) and column.origin.collection_id != template.parent_collection_id:
                    continue
                for variable, value in inner[0].items():
                    if variable.startswith("/") and not _begins(template, parent.templates[0]):
                        continue
                    referenced.setdefault(variable, value)
            variables.append(
                {
                    variable: _first_known(*((referenced, own) if referenced_first else (own, referenced)), variable)
                    for variable in {**own, **referenced}
                }
            )
        return sql.SQL("").join(joins), variables

    def _own_variables(self, template: Template, alias: str) -> dict[str, sql.Composable]:
        """The variables of a template that the row's own columns hold."""
        known: dict[str, sql.Composable] = {}
        for column in self._collection.columns:
            if isinstance(column.origin, Segment):
                known[column.origin.variable] = as_text(column, alias)
            elif isinstance(column.origin, DocumentId):
                known[_called(template, len(template.ids) - 1)] = as_text(column, alias)
            elif isinstance(column.origin, ParentId) and column.origin.collection_id == template.parent_collection_id:
                known[_called(template, len(template.ids) - 2)] = as_text(column, alias)
        return known


def _called(template: Template, number: int) -> str:
    """The name of an id that a column holds whole: its variable's, or its place."""
    pattern = template.ids[number]
    return pattern.variables[0] if pattern.is_whole else f"/{number}"


def _begins(template: Template, above: Template) -> bool:
    """Whether a template begins as another one does."""
    return template.segments[: len(above.segments)] == above.segments


def _id(pattern: IdPattern, whole: str, known: Mapping[str, sql.Composable]) -> sql.Composable | None:
    """SQL for an id: a column that holds it whole, or its texts and variables joined. None: they aren't known."""
    if whole in known:
        return known[whole]
    if not known.keys() >= set(pattern.variables):
        return None
    parts = [sql.Literal(part) if isinstance(part, str) else known[part.name] for part in pattern.parts]
    return parts[0] if len(parts) == 1 else sql.SQL("({})").format(sql.SQL(" || ").join(parts))


def is_within(column: str) -> sql.Composed:
    """Whether a time of `t` lies in an interval. Parameters: start, end."""
    return sql.SQL("({at} >= %(start)s AND {at} < %(end)s)").format(at=column_name(column, "t"))


def _first_known(first: dict[str, sql.Composable], second: dict[str, sql.Composable], variable: str) -> sql.Composable:
    if variable in first and variable in second:
        return sql.SQL("coalesce({}, {})").format(first[variable], second[variable])
    return first[variable] if variable in first else second[variable]
