"""Whether row-level security hides rows from our role. A hidden row raises no error: it looks missing."""

from __future__ import annotations

from collections.abc import Iterable

from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.privileges import RELATIONS, relations_parameters

HIDING = """
    SELECT t.oid
    FROM {tables} AS t (oid)
    LEFT JOIN pg_policy p ON p.polrelid = t.oid AND p.polcmd IN ('r', '*') AND (
      p.polroles OPERATOR(pg_catalog.@>) ARRAY[0::oid]
      OR EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) r WHERE r <> 0 AND pg_has_role(r, 'USAGE'))
    )
    WHERE row_security_active(t.oid)
    GROUP BY t.oid
    HAVING bool_or(NOT p.polpermissive) IS TRUE
      OR bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true') IS NOT TRUE
"""
"""SQL for the oids of those `tables` (SQL that gives oids) of which this role may not see every row."""


def tables_hiding_rows(connection: Connection, tables: Iterable[int]) -> set[int]:
    """The tables, by oid, of which some rows may be invisible to this role.

    Nothing is hidden from a role that bypasses row-level security or owns the table, nor if a policy for the role shows
    every row (`USING (true)`) and no restrictive one narrows it.
    """
    hiding = HIDING.format(tables="unnest(%(tables)s::oid[])")
    return {oid for (oid,) in connection.execute(hiding, {"tables": list(tables)}).fetchall()}


def hides_rows(table: sql.Composable) -> sql.Composed:
    """As an expression: whether some rows of a table may be invisible to this role."""
    hiding = sql.SQL(HIDING.format(tables="(SELECT {}::regclass::oid)"))
    return sql.SQL("EXISTS ({})").format(hiding.format(sql.Literal(table.as_string(None))))


def commands_without_policy(connection: Connection, tables: Iterable[int]) -> dict[int, list[str]]:
    """By table, the commands that row-level security allows this role on no row at all. An INSERT then raises an error; an UPDATE
    or a DELETE touches no row and raises none."""
    return dict(
        connection.execute(
            """
            SELECT t.oid, array_agg(w.command ORDER BY w.n)
            FROM unnest(%s::oid[]) AS t (oid)
            CROSS JOIN (VALUES (1, 'a', 'INSERT'), (2, 'w', 'UPDATE'), (3, 'd', 'DELETE')) AS w (n, letter, command)
            WHERE row_security_active(t.oid) AND NOT EXISTS (
              SELECT FROM pg_policy p
              WHERE p.polrelid = t.oid AND p.polpermissive AND p.polcmd::text IN (w.letter, '*') AND (
                p.polroles @> ARRAY[0::oid]
                OR EXISTS (SELECT FROM unnest(p.polroles) r WHERE r <> 0 AND pg_has_role(r, 'USAGE'))
              )
            )
            GROUP BY t.oid
            """,
            (list(tables),),
        ).fetchall()
    )


def shows_every_row(connection: Connection, name: str) -> bool:
    """Whether there is a relation of this name (as in `relations`) that this role may read, and that hides no row from it."""
    row = connection.execute(
        f"""
        WITH named AS ({RELATIONS}), hiding AS ({HIDING.format(tables="(SELECT oid FROM named)")})
        SELECT EXISTS (
          SELECT FROM named
          WHERE has_table_privilege(oid, 'SELECT') AND oid NOT IN (SELECT oid FROM hiding)
        )
        """,
        relations_parameters([name]),
    ).fetchone()
    return bool(row and row[0])
