"""The connected role's privileges, asked without an error: to_regclass raises if the role lacks USAGE on the table's schema,
whereas pg_class can always be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dualwrite.postgres.connection import Connection
from dualwrite.postgres.transactions import answers


def relation(connection: Connection, name: str) -> int | None:
    """The oid of one relation, see `relations`; None if there is none."""
    return relations(connection, [name]).get(name)


RELATIONS = """
    SELECT w.name, c.oid
    FROM unnest(%(names)s::text[], %(schemas)s::text[], %(bare_names)s::text[]) AS w (name, schema, bare)
    JOIN pg_catalog.pg_class c ON c.relname = w.bare
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = CASE WHEN w.schema <> '' THEN w.schema ELSE 'public' END
"""
"""SQL for (name, oid) of the relations of some names. Its parameters: `relations_parameters`."""


def relations_parameters(names: Iterable[str]) -> dict[str, list[str]]:
    """The parameters of RELATIONS for these names."""
    wanted = list(dict.fromkeys(names))
    parts = [name.rpartition(".") for name in wanted]
    return {
        "names": wanted,
        "schemas": [schema for schema, _, _ in parts],
        "bare_names": [bare for _, _, bare in parts],
    }


def relations(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """The oids of tables, views, indexes or sequences by name: schema.name, or the name of one in `public`. Missing
    relations are omitted."""
    return dict(connection.execute(RELATIONS, relations_parameters(names)).fetchall())


def missing_grants(
    connection: Connection, needed: Mapping[str, Sequence[str]], tables: Mapping[str, int] | None = None
) -> list[str]:
    """The privileges that the role lacks on some tables (name -> privileges), a sentence each with the GRANT that gives it: on the
    tables themselves, on their schemas, and on the sequences that an INSERT takes its defaults from. Missing tables
    are omitted. `tables`: their oids, if known."""
    tables = relations(connection, needed) if tables is None else tables
    asked = [(tables[name], privilege) for name in needed if name in tables for privilege in needed[name]]
    schemas, lines, sequences = answers(
        connection,
        [_CLOSED_SCHEMAS, _LACKING, _CLOSED_SEQUENCES],
        {
            "tables": [table for table, _ in asked],
            "privileges": [privilege for _, privilege in asked],
            "inserted": [table for table, privilege in asked if privilege == "INSERT"],
        },
    )
    faults = [_fault(connection, ["USAGE"], f"SCHEMA {schema}") for (schema,) in schemas]
    lacking, closed = _by_first((oid, privilege) for oid, _, privilege in lines), _by_first(sequences)
    as_sql = {oid: name for oid, name, _ in lines}
    for name in needed:
        if name in tables:
            if lacks := lacking.get(tables[name]):
                faults.append(_fault(connection, lacks, f"TABLE {as_sql[tables[name]]}"))
            faults += [_fault(connection, ["USAGE"], f"SEQUENCE {s}") for s in closed.get(tables[name], ())]
    return faults


_CLOSED_SCHEMAS = """
    SELECT DISTINCT quote_ident(n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY(%(tables)s::oid[]) AND NOT has_schema_privilege(n.oid, 'USAGE')
    ORDER BY 1
"""

_LACKING = """
    SELECT u.oid, CASE WHEN n.nspname <> 'public' THEN quote_ident(n.nspname) || '.' ELSE '' END || quote_ident(c.relname), p
    FROM unnest(%(tables)s::oid[], %(privileges)s::text[]) WITH ORDINALITY AS u (oid, p, place)
    JOIN pg_class c ON c.oid = u.oid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT has_table_privilege(u.oid, p)
    ORDER BY place
"""

# Sequences that the default of a column calls. (Those of identity columns need no privilege.)
_CLOSED_SEQUENCES = """
    SELECT d.adrelid, quote_ident(n.nspname) || '.' || quote_ident(s.relname)
    FROM pg_attrdef d
    JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
    JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
    JOIN pg_namespace n ON n.oid = s.relnamespace
    -- CASE, because the planner may ask before it joins, and the function raises if the relation is no sequence.
    WHERE d.adrelid = ANY(%(inserted)s::oid[])
      AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END
    ORDER BY 1, 2
"""


def _by_first(rows: Iterable[tuple[int, str]]) -> dict[int, list[str]]:
    by_table: dict[int, list[str]] = {}
    for table, value in rows:
        by_table.setdefault(table, []).append(value)
    return by_table


def missing_on_types(connection: Connection, columns: Iterable[tuple[str, str]]) -> list[str]:
    """The schemas of these columns' types (columns as table, column) on which the role lacks USAGE; a sentence each with the GRANT."""
    named = list(columns)
    rows = connection.execute(
        _CLOSED_TYPES,
        {
            **relations_parameters(table for table, _ in named),
            "of": [t for t, _ in named],
            "columns": [c for _, c in named],
        },
    ).fetchall()
    return [_fault(connection, ["USAGE"], f"SCHEMA {schema}") for (schema,) in rows]


# A page is staged in columns of these types, and cast to the base type of a domain.
_CLOSED_TYPES = f"""
    WITH RECURSIVE tables AS ({RELATIONS}), types AS (
      SELECT a.atttypid AS oid
      FROM unnest(%(of)s::text[], %(columns)s::text[]) AS wanted (name, attname)
      JOIN tables ON tables.name = wanted.name
      JOIN pg_catalog.pg_attribute a ON a.attrelid = tables.oid AND a.attname = wanted.attname AND a.attnum > 0
      UNION
      SELECT y.typbasetype FROM types JOIN pg_catalog.pg_type y ON y.oid = types.oid WHERE y.typtype = 'd'
    )
    SELECT DISTINCT quote_ident(n.nspname)
    FROM types JOIN pg_catalog.pg_type y ON y.oid = types.oid JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
    WHERE NOT has_schema_privilege(n.oid, 'USAGE')
    ORDER BY 1
"""


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
    listed = ", ".join(privileges)
    kind, _, name = place.partition(" ")
    return f"Role {row[0]} lacks {listed} on {kind.lower()} {name}. GRANT {listed} ON {place} TO {row[1]};"
