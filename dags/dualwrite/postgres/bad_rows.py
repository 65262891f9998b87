"""Finds the rows that a table refuses, so that the others of their page are written."""

from __future__ import annotations

from collections.abc import Callable

from dualwrite import postgres
from dualwrite.model.declaration import Collection
from dualwrite.postgres.connection import Connection


def bisect(
    connection: Connection, ns: list[int], write: Callable[[list[int]], object], refuse: Callable[[int, str], object]
) -> None:
    """Runs `write` on all numbers, halving wherever Postgres blames a row, until only the bad ones are left out: those go
    to `refuse`, with Postgres's condition."""
    todo = [ns] if ns else []
    while todo:
        part = todo.pop()
        try:
            with connection.transaction():
                write(part)
        except postgres.Error as error:
            if not postgres.is_rows_fault(error):
                raise
            if len(part) > 1:
                middle = len(part) // 2
                todo += [part[middle:], part[:middle]]
            else:
                refuse(part[0], postgres.condition(error))


def quoted(collection: Collection) -> str:
    """The table's name as text that may be cast to regclass."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in collection.table.split("."))


class Checks:
    """The CHECK constraints of the tables, evaluated on the stage: thousands of rows that fail one would make the bisection
    long."""

    def __init__(self) -> None:
        self._known: dict[str, list[tuple[str, str]]] = {}

    def failing(self, connection: Connection, collection: Collection, ns: list[int]) -> dict[int, str]:
        """The staged rows that fail one, with the condition. Not those of a CHECK whose own code raises."""
        found: dict[int, str] = {}
        for name, statement in self._statements(connection, collection):
            try:
                with connection.transaction():
                    failing = connection.execute(statement, (ns,)).fetchall()
            except postgres.Error as error:
                if not postgres.is_rows_fault(error):
                    raise
                continue
            for (n,) in failing:
                found.setdefault(n, f"CheckViolation 23514 (constraint {name})")
        return found

    def _statements(self, connection: Connection, collection: Collection) -> list[tuple[str, str]]:
        """For each CHECK of the table that looks only at declared columns, a query for the staged rows that fail it."""
        if collection.name not in self._known:
            rows = connection.execute(
                """
                SELECT k.conname, pg_get_expr(k.conbin, k.conrelid), ARRAY(
                  SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey)
                )
                FROM pg_constraint k
                WHERE k.conrelid = %s::regclass AND k.contype = 'c'
                """,
                (quoted(collection),),
            ).fetchall()
            declared = {c.name for c in collection.columns}
            self._known[collection.name] = [
                (name, _FAILING.format(expression=expression.replace("%", "%%")))
                for name, expression, columns in rows
                if set(columns) <= declared
            ]
        return self._known[collection.name]


_FAILING = "SELECT _n FROM pg_temp.dualwrite_stage WHERE _n = ANY(%s) AND ({expression}) IS FALSE"
