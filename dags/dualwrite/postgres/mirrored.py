"""SQL that writes single rows as a client does, for the dual-write helper. Each statement checks itself which document owns the row.

The names are those of fragments.py. A statement comes with its parameters, which are written into it (`postgres.at_once`): as a
literal, a value takes the type of the column that it goes into or is compared with. A cell is written in the text form that COPY
takes, so it becomes exactly the value that the engine would write.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dualwrite.model.cell_types import Cell, Json
from dualwrite.model.declaration import Column
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Row
from dualwrite.postgres.connection import sql
from dualwrite.postgres.fragments import (
    AND,
    COMMA,
    OR,
    TIMES,
    Fragments,
    column_name,
    has_key_part,
    operator,
    raw_cast,
    table_of,
    value_of,
)
from dualwrite.postgres.lookups import Lookups
from dualwrite.postgres.visibility import hides_rows

Statement = tuple[sql.Composed, list[Cell]]
Birth = tuple[Fragments, Key, Column, tuple[Cell, ...]]
"""The values of a column of which the row at a key must have one."""

_PARAMETER = sql.SQL("%s")


def as_copied(cell: Cell) -> str | None:
    """A cell in the text form in which COPY takes it."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, Json):
        return cell.text
    if isinstance(cell, datetime):
        return cell.isoformat(sep=" ")
    if isinstance(cell, list):
        return "{" + ",".join("NULL" if part is None else _quoted(part) for part in cell) + "}"
    return str(cell)


def _quoted(element: str) -> str:
    return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Mirrored(Lookups):
    """Statements that write single rows of one collection."""

    def upsert(self, row: Row, *, path: str | None = None, version: str | None = None) -> Statement:
        """Inserts a row, or sets its compared columns; a stand-in keeps the row's value. Nothing is written if the row that
        has the key gives other paths than `path` or no longer has this `version`, or if a row through which one of its values
        comes is absent. A late reference is null while the row that it refers to is absent (`fill` fills it in), unless the row has
        it already. Returns one line: how many rows were written, and whether the rows through which values come are there."""
        columns = self._collection.columns
        values: list[sql.Composable] = []
        parameters: list[Cell] = []
        for column, cell in zip(columns, row.cells, strict=True):
            if column == self.time_in_key:
                value, of_value = self._time_in_key(column, row, cell)
            elif column.late:
                value, of_value = self._named_if_there(column, row)
            else:
                value, of_value = value_of(column, _PARAMETER), [cell]
            values.append(value)
            parameters += of_value
        through = [
            (c, cell) for c, cell in zip(columns, row.cells, strict=True) if c.via and not c.late and cell is not None
        ]
        there = AND.join(
            [sql.SQL("true"), *(sql.SQL("{} IS NOT NULL").format(value_of(c, _PARAMETER)) for c, _ in through)]
        )
        of_there = [cell for _, cell in through]
        parameters += of_there
        updated = [(c, cell) for i, (c, cell) in enumerate(zip(columns, row.cells, strict=True)) if i in self._set(row)]
        action: sql.Composable = sql.SQL("DO NOTHING")
        if updated:
            changes = []
            for column, cell in updated:
                new = column_name(column.name, "excluded")
                if column.late and column.via is None and cell is not None:
                    old = column_name(column.name, "t")
                    same = old + operator(column, "=") + _typed(column)
                    new = sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(same, old, new)
                    parameters.append(cell)
                changes.append(sql.SQL("{} = {}").format(column_name(column.name), new))
            conditions: list[sql.Composable] = []
            if version is not None:
                conditions = [sql.SQL("t.xmin = %s::xid")]
                parameters.append(version)
            elif path is not None:
                has_path = sql.SQL(
                    "({paths} OPERATOR(pg_catalog.=) ARRAY[]::text[] OR {paths} OPERATOR(pg_catalog.@>) ARRAY[%s]::text[])"
                ).format(paths=self.paths_of("t"))
                conditions = [has_path]
                parameters.append(path)
            action = sql.SQL("DO UPDATE SET {}{}").format(COMMA.join(changes), self.where("t", *conditions))
        statement = sql.SQL(
            """
            WITH written AS (
              INSERT INTO {table} AS t ({columns}) SELECT {values} FROM (SELECT) nothing WHERE {there}
              ON CONFLICT ({key}) {action} RETURNING 1
            )
            SELECT (SELECT pg_catalog.count(*) FROM written), {there}
            """
        ).format(
            table=self.table,
            columns=self.names(columns),
            values=COMMA.join(values),
            there=there,
            key=self.names(self._collection.key),
            action=action,
        )
        return statement, [as_copied(cell) for cell in [*parameters, *of_there]]

    def fill(self, row: Row) -> Statement | None:
        """Fills in late references of a row that this transaction has written, if the rows that they refer to are there now.
        Returns one line: whether all of them are. None: the row has no late reference."""
        late = [c for i, c in enumerate(self._collection.columns) if c.late and row.cells[i] is not None]
        if not late:
            return None
        changes = [c for i, c in enumerate(self._collection.columns) if c in late and i in self._set(row)]
        parameters: list[Cell] = []
        filled = sql.SQL("").format()
        if changes:
            assignments = []
            for column in changes:
                value, of_value = self._named_if_there(column, row)
                name = column_name(column.name)
                assignments.append(sql.SQL("{} = coalesce({}, {})").format(name, column_name(column.name, "t"), value))
                parameters += of_value
            is_null = OR.join(sql.SQL("{} IS NULL").format(column_name(c.name, "t")) for c in changes)
            filled = sql.SQL(
                "WITH filled AS (UPDATE {} t SET {} WHERE {} AND t.xmin OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()::xid AND ({})) "
            ).format(self.table, COMMA.join(assignments), _key_is(self, "t"), is_null)
            parameters += _key_given(self, row.key)
        there = []
        for column in late:
            value, of_value = self._named_if_there(column, row)
            there.append(sql.SQL("{} IS NOT NULL").format(value))
            parameters += of_value
        statement = filled + sql.SQL("SELECT {}").format(AND.join(there))
        return statement, [as_copied(cell) for cell in parameters]

    def _named_if_there(self, column: Column, row: Row) -> tuple[sql.Composable, list[Cell]]:
        """A late reference's value, which is null if the row that it refers to is absent; and its parameters."""
        cells = {c.name: cell for c, cell in zip(self._collection.columns, row.cells, strict=True)}
        named = cells[column.name]
        if column.via is not None:
            return value_of(column, _PARAMETER), [named]
        parent = self._catalog[column.parent.collection]
        same = [column_name(key.name, "p") + operator(key, "=") + _PARAMETER for key in parent.key]
        value = sql.SQL("(SELECT {} FROM {} p{})").format(
            _typed(column), table_of(parent), Fragments.of(self._catalog, parent).where("p", *same)
        )
        return value, [named, *(cells[name] for name in column.beside or (column.name,))]

    def _set(self, row: Row) -> set[int]:
        """The columns, by place, that an upsert sets if the row is there."""
        columns = self._collection.columns
        return {i for i, c in enumerate(columns) if c.role == "compared" and i not in row.stand_ins}

    def _time_in_key(self, column: Column, row: Row, cell: Cell) -> tuple[sql.Composable, list[Cell]]:
        """The time in the row's key, and its parameters. If there is a row within its millisecond, that row's time: otherwise there
        would be two rows."""
        there = sql.SQL("(SELECT pg_catalog.max({}) FROM {} h WHERE {})").format(
            column_name(column.name, "h"), self.table, _key_is(self, "h")
        )
        value = sql.SQL("coalesce({}, {})").format(there, raw_cast(column, _PARAMETER))
        return value, [*_key_given(self, row.key), cell]

    def updates(self, row: Row) -> bool:
        """Whether an upsert would update the row if it is there."""
        return bool(self._set(row))

    def delete(self, key: Key, *, path: str, births: Iterable[Birth] = (), version: str | None = None) -> Statement:
        """Deletes a row that gives `path` and no other, unless a row of `births` gives another birth; or, if a `version` is given,
        a row that still has it. Returns one line: whether it was deleted, whether it was there, whether row-level security may have
        hidden it."""
        parameters = _key_given(self, key)
        condition: list[sql.Composable]
        if version is not None:
            condition = [sql.SQL("t.xmin = %s::xid")]
            parameters.append(version)
        else:
            condition = [sql.SQL("{} OPERATOR(pg_catalog.=) ARRAY[%s]::text[]").format(self.paths_of("t"))]
            parameters.append(path)
            for other, its_key, column, at in births:
                differs = [sql.SQL("{} IS DISTINCT FROM %s").format(other.as_compared(column, "h"))] * len(at)
                condition.append(
                    sql.SQL("NOT EXISTS (SELECT FROM {} h WHERE {})").format(
                        other.table, AND.join([_key_is(other, "h"), *differs])
                    )
                )
                parameters += [*_key_given(other, its_key), *at]
        statement = sql.SQL(
            """
            WITH gone AS (DELETE FROM {table} t WHERE {same} AND {condition} RETURNING 1)
            SELECT f.deleted, f.there, CASE WHEN f.deleted OR f.there THEN false ELSE {hidden} END
            FROM (
              SELECT EXISTS (SELECT FROM gone) AS deleted, EXISTS (SELECT FROM {table} t WHERE {same}) AS there
            ) f
            """
        ).format(
            table=self.table, same=_key_is(self, "t"), condition=AND.join(condition), hidden=hides_rows(self.table)
        )
        return statement, [*parameters, *_key_given(self, key)]

    def version(self, key: Key) -> Statement:
        """One line: the row's xmin, or null; whether row-level security may have hidden it."""
        statement = sql.SQL("SELECT (SELECT t.xmin::text FROM {} t WHERE {}), {}").format(
            self.table, _key_is(self, "t"), hides_rows(self.table)
        )
        return statement, _key_given(self, key)


def _typed(column: Column) -> sql.Composed:
    """A parameter with the column's type, which the statement doesn't imply."""
    return sql.SQL("%s::{}").format(sql.SQL(column.live.name))


def _key_is(fragments: Fragments, alias: str) -> sql.Composed:
    """Whether `alias`, a row of the table, is the collection's and has a key. Its parts are parameters."""
    same = [
        has_key_part(
            c, column_name(c.name, alias), raw_cast(c, _PARAMETER) if c.live.kind in TIMES else value_of(c, _PARAMETER)
        )
        for c in fragments.key
    ]
    return AND.join([*same, *fragments.own(alias)])


def _key_given(fragments: Fragments, key: Key) -> list[Cell]:
    """The parameters of `_key_is`, which names a time twice."""
    parts = zip(fragments.key, key, strict=True)
    return [part for column, part in parts for _ in range(2 if column.live.kind in TIMES else 1)]
