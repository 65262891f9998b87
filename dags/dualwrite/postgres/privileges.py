"""What the connected role may do, asked without an error: looking a table up with to_regclass raises where the role
lacks USAGE on its schema, and pg_class can always be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dualwrite.postgres.connection import Connection


def relation(connection: Connection, name: str) -> int | None:
    """The oid of a table, view, index or sequence: schema.name, or found through search_path, or in a `public` that isn't
    searched because the role lacks USAGE on it. None where there is none."""
    schema, _, bare = name.rpartition(".")
    row = connection.execute(
        """
        SELECT c.oid
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = %(name)s
          AND CASE WHEN %(schema)s <> '' THEN n.nspname = %(schema)s
                   ELSE pg_catalog.pg_table_is_visible(c.oid)
                     OR (n.nspname = 'public' AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')) END
        ORDER BY pg_catalog.pg_table_is_visible(c.oid) DESC
        LIMIT 1
        """,
        {"schema": schema, "name": bare},
    ).fetchone()
    return row[0] if row else None


def missing_grants(connection: Connection, needed: Mapping[str, Sequence[str]]) -> list[str]:
    """What the role lacks on some tables (name -> privileges), a sentence each with the GRANT that gives it: on the
    tables themselves, on their schemas, and on the sequences that an INSERT takes its defaults from. A table that
    isn't there isn't told."""
    tables = {name: oid for name in needed if (oid := relation(connection, name)) is not None}
    faults = [_fault(connection, ["USAGE"], f"SCHEMA {s}") for s in _closed_schemas(connection, tables.values())]
    for name, oid in tables.items():
        lacks = _lacking(connection, oid, needed[name])
        if lacks:
            faults.append(_fault(connection, lacks, f"TABLE {name}"))
        if "INSERT" in needed[name]:
            faults += [_fault(connection, ["USAGE"], f"SEQUENCE {s}") for s in _closed_sequences(connection, oid)]
    return faults


def missing_on_database(connection: Connection, privilege: str) -> list[str]:
    """Whether the role lacks CREATE or TEMPORARY on the database; a sentence with the GRANT."""
    row = connection.execute(
        "SELECT quote_ident(current_database()), has_database_privilege(current_database(), %s)", (privilege,)
    ).fetchone()
    assert row is not None
    return [] if row[1] else [_fault(connection, [privilege], f"DATABASE {row[0]}")]


def _fault(connection: Connection, privileges: Sequence[str], place: str) -> str:
    row = connection.execute("SELECT current_user::text, quote_ident(current_user)").fetchone()
    assert row is not None
    what = ", ".join(privileges)
    kind, _, name = place.partition(" ")
    return f"Role {row[0]} lacks {what} on {kind.lower()} {name}. GRANT {what} ON {place} TO {row[1]};"


def _lacking(connection: Connection, oid: int, privileges: Sequence[str]) -> list[str]:
    rows = connection.execute(
        "SELECT p FROM unnest(%s::text[]) WITH ORDINALITY AS u (p, n) WHERE NOT has_table_privilege(%s::oid, p) ORDER BY n",
        (list(privileges), oid),
    ).fetchall()
    return [p for (p,) in rows]


def _closed_schemas(connection: Connection, tables: Iterable[int]) -> list[str]:
    rows = connection.execute(
        """
        SELECT DISTINCT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY(%s::oid[]) AND NOT has_schema_privilege(n.oid, 'USAGE')
        ORDER BY 1
        """,
        (list(tables),),
    ).fetchall()
    return [schema for (schema,) in rows]


def _closed_sequences(connection: Connection, table: int) -> list[str]:
    """Sequences that a column's default calls. (Those of identity columns need no privilege.)"""
    rows = connection.execute(
        """
        SELECT quote_ident(n.nspname) || '.' || quote_ident(s.relname)
        FROM pg_attrdef d
        JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
        JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
        JOIN pg_namespace n ON n.oid = s.relnamespace
        -- CASE: the planner may ask before it joins, and the function raises for what is no sequence.
        WHERE d.adrelid = %s AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END
        ORDER BY 1
        """,
        (table,),
    ).fetchall()
    return [sequence for (sequence,) in rows]
