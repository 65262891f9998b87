"""Whether row-level security hides rows from the role that we are. A hidden row gives no error: it looks missing."""

from __future__ import annotations

from collections.abc import Iterable

from dualwrite.postgres import Connection


def tables_hiding_rows(connection: Connection, tables: Iterable[int]) -> set[int]:
    """Of tables, by oid, those of which some rows may be invisible to this role.

    Nothing is hidden from a role that bypasses row-level security or owns the table, nor where a policy for the role
    shows every row (`USING (true)`) and no restrictive one narrows it.
    """
    rows = connection.execute(
        """
        SELECT t.oid
        FROM unnest(%s::oid[]) AS t (oid)
        LEFT JOIN pg_policy p ON p.polrelid = t.oid AND p.polcmd IN ('r', '*') AND (
          p.polroles @> ARRAY[0::oid]
          OR EXISTS (SELECT FROM unnest(p.polroles) r WHERE r <> 0 AND pg_has_role(r, 'USAGE'))
        )
        WHERE row_security_active(t.oid)
        GROUP BY t.oid
        HAVING bool_or(NOT p.polpermissive) IS TRUE
          OR bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true') IS NOT TRUE
        """,
        (list(tables),),
    ).fetchall()
    return {oid for (oid,) in rows}
