"""Whether row-level security hides rows from the role that we are. A hidden row gives no error: it looks missing."""

from __future__ import annotations

from dualwrite.postgres import Connection, privileges


def hides_rows(connection: Connection, table: str) -> bool:
    """Whether some rows of a table may be invisible to this role; False where there is no such table.

    `table` is schema.name, or found through search_path. Nothing is hidden from a role that bypasses row-level security or
    owns the table, nor where a policy for the role shows every row (`USING (true)`) and no restrictive one narrows it.
    """
    row = connection.execute(
        """
        SELECT row_security_active(t.oid) AND (
          bool_or(NOT p.polpermissive) IS TRUE
          OR bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true') IS NOT TRUE
        )
        FROM (SELECT %s::oid AS oid) t
        LEFT JOIN pg_policy p ON p.polrelid = t.oid AND p.polcmd IN ('r', '*') AND (
          p.polroles @> ARRAY[0::oid]
          OR EXISTS (SELECT FROM unnest(p.polroles) r WHERE r <> 0 AND pg_has_role(r, 'USAGE'))
        )
        GROUP BY t.oid
        """,
        (privileges.relation(connection, table),),
    ).fetchone()
    return bool(row and row[0])
