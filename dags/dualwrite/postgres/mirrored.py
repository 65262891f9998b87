"""SQL that writes single rows as a client does, for the dual-write helper. Each statement checks itself which document owns the row.

The names are those of fragments.py. A statement comes with its parameters, which are written into it (`postgres.at_once`): as a
literal, a value takes the type of the column that it goes into or is compared with. A cell is written in the text form that COPY
takes, so it becomes exactly the value that the engine would write.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dualwrite.model.declaration import Column
from dualwrite.model.mapping import Cell, Json, Key, Row
from dualwrite.postgres.connection import sql
from dualwrite.postgres.fragments import AND, COMMA, Fragments, column_name, operator, value_of
from dualwrite.postgres.lookups import Lookups
from dualwrite.postgres.visibility import hides_rows

Statement = tuple[sql.Composed, list[Cell]]
Told = tuple[Fragments, Key, Column, Cell]
"""The value that a row of this key must have in a column."""


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
        comes is absent. Returns one line: how many rows were written, and whether those are there."""
        columns = self._collection.columns
        parameters: list[Cell] = [as_copied(cell) for cell in row.cells]
        through = [(c, cell) for c, cell in zip(columns, row.cells, strict=True) if c.via and cell is not None]
        there = AND.join(
            [sql.SQL("true"), *(sql.SQL("{} IS NOT NULL").format(value_of(c, _PARAMETER)) for c, _ in through)]
        )
        parameters += [as_copied(cell) for _, cell in through]
        updated = [c for i, c in enumerate(columns) if c.role == "compared" and i not in row.stand_ins]
        action: sql.Composable = sql.SQL("DO NOTHING")
        if updated:
            conditions: list[sql.Composable] = []
            if version is not None:
                conditions = [sql.SQL("t.xmin = %s::xid")]
                parameters.append(version)
            elif path is not None:
                told_this = sql.SQL(
                    "({told} OPERATOR(pg_catalog.=) ARRAY[]::text[] OR {told} OPERATOR(pg_catalog.@>) ARRAY[%s]::text[])"
                ).format(told=self.told("t"))
                conditions = [told_this]
                parameters.append(path)
            action = sql.SQL("DO UPDATE SET {}{}").format(
                COMMA.join(
                    sql.SQL("{} = {}").format(column_name(c.name), column_name(c.name, "excluded")) for c in updated
                ),
                self.where("t", *conditions),
            )
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
            values=COMMA.join(value_of(c, _PARAMETER) for c in columns),
            there=there,
            key=self.names(self._collection.key),
            action=action,
        )
        return statement, [*parameters, *(as_copied(cell) for _, cell in through)]

    def updates(self, row: Row) -> bool:
        """Whether an upsert of the row would update one that is there."""
        return any(c.role == "compared" and i not in row.stand_ins for i, c in enumerate(self._collection.columns))

    def delete(self, key: Key, *, path: str, births: Iterable[Told] = (), version: str | None = None) -> Statement:
        """Deletes a row that gives `path` and no other, unless a row of `births` gives another birth; or, if a `version` is given,
        a row that still has it. Returns one line: whether it was deleted, whether it was there, whether
        row-level security may have hidden it."""
        parameters: list[Cell] = list(key)
        condition: list[sql.Composable]
        if version is not None:
            condition = [sql.SQL("t.xmin = %s::xid")]
            parameters.append(version)
        else:
            condition = [sql.SQL("{} OPERATOR(pg_catalog.=) ARRAY[%s]::text[]").format(self.told("t"))]
            parameters.append(path)
            for other, its_key, column, at in births:
                condition.append(
                    sql.SQL("NOT EXISTS (SELECT FROM {} o WHERE {} AND {} IS DISTINCT FROM %s)").format(
                        other.table, _key_is(other, "o"), other.as_compared(column, "o")
                    )
                )
                parameters += [*its_key, at]
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
        return statement, [*parameters, *key]

    def version(self, key: Key) -> Statement:
        """One line: the row's xmin, or null; whether row-level security may have hidden it."""
        statement = sql.SQL("SELECT (SELECT t.xmin::text FROM {} t WHERE {}), {}").format(
            self.table, _key_is(self, "t"), hides_rows(self.table)
        )
        return statement, list(key)


def _key_is(fragments: Fragments, alias: str) -> sql.Composed:
    """Whether `alias`, a row of the table, is the collection's and has a key. Its parts are parameters."""
    same = [column_name(c.name, alias) + operator(c, "=") + value_of(c, _PARAMETER) for c in fragments.key]
    return AND.join([*same, *fragments.own(alias)])
