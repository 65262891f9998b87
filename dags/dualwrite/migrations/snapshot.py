"""What migrations promise, as a comparable picture of the live database: tables, columns, types, defaults,
constraints, indexes, row-level security, policies and grants.

The committed picture (sql/snapshot.json) is made from an empty database by `make snapshot`; a test proves it current.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dualwrite.postgres import Connection

ROLES = ("public", "anon", "authenticated", "service_role")
Table = dict[str, Any]
Snapshot = dict[str, Table]


def take(connection: Connection, tables: Iterable[str]) -> Snapshot:
    """The picture of some tables (schema.name). One that doesn't exist is left out."""
    found: Snapshot = {}
    for table in sorted(tables):
        row = connection.execute(
            "SELECT c.oid, c.relrowsecurity FROM pg_class c WHERE c.oid = to_regclass(%s)", (table,)
        ).fetchone()
        if row is not None:
            found[table] = {"row-level security": {"enabled": row[1]}, **_parts(connection, row[0], table)}
    return found


def _parts(connection: Connection, oid: int, table: str) -> Table:
    columns = connection.execute(
        "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), "
        "a.attidentity::text FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
        "WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        (oid,),
    ).fetchall()
    # NOT NULL constraints have rows of their own from Postgres 18 on; the columns say the same in every version.
    constraints = connection.execute(
        "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype <> 'n'",
        (oid,),
    ).fetchall()
    indexes = connection.execute(
        "SELECT i.relname::text, pg_get_indexdef(i.oid) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
        "WHERE x.indrelid = %s AND x.indisvalid",
        (oid,),
    ).fetchall()
    policies = connection.execute(
        # Joined by name: a cast of every policy's table to regclass needs USAGE on schemas that we have no right to.
        # Policies of other roles are the operator's.
        "SELECT p.policyname::text, p.cmd || ' to ' || array_to_string(p.roles, ', ') || ' using ' || "
        "coalesce(p.qual, '-') || ' check ' || coalesce(p.with_check, '-') FROM pg_policies p "
        "JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid "
        "AND c.relname = p.tablename WHERE c.oid = %s AND p.roles && %s::name[]",
        (oid, list(ROLES)),
    ).fetchall()
    grants = connection.execute(
        "SELECT r.name, coalesce(string_agg(DISTINCT acl.privilege_type, ', ' ORDER BY acl.privilege_type), 'nothing') "
        "FROM unnest(%s::text[]) AS r (name) LEFT JOIN (SELECT (aclexplode(relacl)).* FROM pg_class WHERE oid = %s) acl "
        "ON acl.grantee = CASE WHEN r.name = 'public' THEN 0 ELSE coalesce(to_regrole(r.name)::oid, 1) END GROUP BY r.name",
        (list(ROLES), oid),
    ).fetchall()
    return {
        "column": {name: f"{kind}{' NOT NULL' if not_null else ''}" for name, kind, not_null, _, _ in columns},
        "default": {name: _default(default, identity) for name, _, _, default, identity in columns},
        "constraint": dict(constraints),
        "index": dict(indexes),
        "policy": dict(policies),
        "grant": dict(grants),
    }


def _default(default: str | None, identity: str) -> str:
    return f"identity {identity}" if identity else (default or "none")


def compare(promised: Mapping[str, Table], live: Mapping[str, Table]) -> list[str]:
    """The differences, one a line: `drafts.title: default missing (promised ''::text)`."""
    lines = []
    for table, parts in promised.items():
        if table not in live:
            lines.append(f"{table}: table missing")
            continue
        for kind, entries in parts.items():
            there = live[table].get(kind, {})
            for name in sorted({*entries, *there}):
                line = _difference(table, kind, name, entries.get(name), there.get(name))
                if line:
                    lines.append(line)
    return lines


def _difference(table: str, kind: str, name: str, promised: Any, live: Any) -> str | None:
    if promised == live:
        return None
    if kind == "default":
        if live in (None, "none"):
            return None if live is None else f"{table}.{name}: default missing (promised {promised})"
        return f"{table}.{name}: default is {live}, promised {promised or 'none'}"
    if kind == "column":
        if live is None:
            return f"{table}.{name}: column missing (promised {promised})"
        return f"{table}.{name}: type is {live}, promised {promised or 'no such column'}"
    if kind == "grant":
        return f"{table}: {name} may {live or 'nothing'}, promised {promised}"
    if kind == "row-level security":
        return f"{table}: row-level security is {'on' if live else 'off'}, promised {'on' if promised else 'off'}"
    if live is None:
        return f"{table}: {kind} {name} missing (promised {promised})"
    return f"{table}: {kind} {name} is {live}, promised {promised or 'none'}"


def invalid_indexes(connection: Connection) -> list[str]:
    """Indexes that an interrupted CREATE INDEX CONCURRENTLY left behind, with the remedy."""
    rows = connection.execute(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
        "JOIN pg_namespace n ON n.oid = i.relnamespace WHERE NOT x.indisvalid AND n.nspname NOT LIKE 'pg\\_%' "
        # One that is being built this moment is not valid yet either.
        "AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.oid)"
    ).fetchall()
    return [
        f"{name}: index is invalid, left by an interrupted CREATE INDEX CONCURRENTLY; "
        f"remedy: DROP INDEX CONCURRENTLY {name}; then run apply_migrations again"
        for (name,) in rows
    ]


def load(path: Path) -> dict[str, Snapshot]:
    """The committed pictures, by the state of the web client's access: closed, anon."""
    found: dict[str, Snapshot] = json.loads(path.read_text())
    return found
