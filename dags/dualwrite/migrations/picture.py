"""A database's schemas, tables, views and sequences as a comparable picture, with their parts and privileges. Read from
Postgres's catalog, which any role can read.

A picture is relation (schema.name, or a schema's name) -> part -> name -> value, all text and truth values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dualwrite import settings
from dualwrite.postgres import Connection, answers, transaction
from dualwrite.postgres.own_schema import SCHEMA

Relation = dict[str, dict[str, Any]]
Picture = dict[str, Relation]

API_ROLES = ("public", "anon", "authenticated", "service_role")
"""Supabase's. Their privileges are listed even if they have none."""

_MIGRATING_ROLE = "the migrating role"
_OWN_ROLES = "dualwrite\\_%"
"""The bundle's own roles: the operator grants them their privileges, so no file promises these."""

# Those of `names`; all if it is null (for the snapshot of a small database).
_RELATIONS = """
SELECT c.oid, n.nspname || '.' || c.relname, c.relkind::text, c.relrowsecurity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
  AND (%(names)s::text[] IS NULL OR n.nspname || '.' || c.relname = ANY(%(names)s::text[]))
"""
_KINDS = {
    "r": "table", "p": "table", "f": "foreign table", "v": "view", "m": "materialized view", "S": "sequence",
}  # fmt: skip

_SCHEMAS = """
SELECT n.nspname::text, r.name, coalesce(string_agg(acl.privilege_type, ', ' ORDER BY acl.privilege_type), 'nothing')
FROM pg_namespace n
CROSS JOIN unnest(%(roles)s::text[]) AS r (name)
LEFT JOIN LATERAL aclexplode(n.nspacl) acl
  ON acl.grantee = CASE WHEN r.name = 'public' THEN 0 ELSE coalesce(to_regrole(r.name)::oid, 1) END
WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
  AND (%(names)s::text[] IS NULL OR n.nspname = ANY(%(names)s::text[]))
GROUP BY 1, 2
"""

# Each gives lines of oid, name, value.
_PARTS = {
    "column": """
        SELECT attrelid, attname::text, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
        FROM pg_attribute
        WHERE attrelid = ANY(%(oids)s::oid[]) AND attnum > 0 AND NOT attisdropped
          AND attrelid NOT IN (SELECT seqrelid FROM pg_sequence)
    """,
    "default": """
        SELECT a.attrelid, a.attname::text,
               CASE WHEN a.attidentity <> '' THEN 'identity ' || a.attidentity::text
                    ELSE coalesce(pg_get_expr(d.adbin, d.adrelid), 'none') END
        FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'f')
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = ANY(%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    """,
    # NOT NULL constraints have lines of their own from Postgres 18 on; the columns say the same in every version.
    "constraint": """
        SELECT conrelid, conname::text, pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE conrelid = ANY(%(oids)s::oid[]) AND contype NOT IN ('n', 't')
    """,
    "index": """
        SELECT x.indrelid, i.relname::text, pg_get_indexdef(i.oid)
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = ANY(%(oids)s::oid[]) AND x.indisvalid
    """,
    "trigger": """
        SELECT tgrelid, tgname::text, pg_get_triggerdef(oid) || CASE tgenabled WHEN 'D' THEN ' (disabled)' ELSE '' END
        FROM pg_trigger
        WHERE tgrelid = ANY(%(oids)s::oid[]) AND NOT tgisinternal
    """,
    "policy": """
        SELECT polrelid, polname::text,
               CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                           ELSE 'ALL' END
               || ' to ' || (SELECT string_agg(coalesce(r.rolname, 'public'), ', ' ORDER BY r.rolname)
                             FROM unnest(polroles) AS u (oid) LEFT JOIN pg_roles r ON r.oid = u.oid)
               || ' using ' || coalesce(pg_get_expr(polqual, polrelid), '-')
               || ' check ' || coalesce(pg_get_expr(polwithcheck, polrelid), '-')
        FROM pg_policy
        WHERE polrelid = ANY(%(oids)s::oid[])
          AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = ANY(polroles) AND rolname LIKE %(own)s)
    """,
    # A role that bypasses row-level security is a server's, and sees everything anyway.
    "grant": """
        SELECT c.oid, r.name, coalesce(string_agg(DISTINCT acl.privilege_type, ', ' ORDER BY acl.privilege_type), 'nothing')
        FROM pg_class c
        CROSS JOIN (
          SELECT name, CASE WHEN name = 'public' THEN 0 ELSE coalesce(to_regrole(name)::oid, 1) END AS oid
          FROM unnest(%(roles)s::text[]) AS a (name)
          UNION
          SELECT rolname::text, oid FROM pg_roles
          WHERE NOT rolsuper AND NOT rolbypassrls AND rolname NOT LIKE %(own)s AND rolname <> ALL(%(roles)s::text[])
        ) r
        LEFT JOIN LATERAL aclexplode(c.relacl) acl ON acl.grantee = r.oid
        WHERE c.oid = ANY(%(oids)s::oid[]) AND r.oid <> c.relowner
        GROUP BY 1, 2
        HAVING count(acl.grantee) > 0 OR r.name = ANY(%(roles)s::text[])
    """,
    "column grant": """
        SELECT a.attrelid, a.attname || ' to ' || coalesce(r.rolname, 'public'),
               string_agg(acl.privilege_type, ', ' ORDER BY acl.privilege_type)
        FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid
        CROSS JOIN LATERAL aclexplode(a.attacl) acl
        LEFT JOIN pg_roles r ON r.oid = acl.grantee
        WHERE a.attrelid = ANY(%(oids)s::oid[]) AND NOT a.attisdropped AND acl.grantee <> c.relowner
          AND (r.oid IS NULL OR r.rolname = ANY(%(roles)s::text[])
               OR NOT (r.rolsuper OR r.rolbypassrls OR r.rolname LIKE %(own)s))
        GROUP BY 1, 2
    """,
    # The owner matters in two ways: whether the role that migrates can alter the table, and whether a role of the API owns it. (The
    # journal is given to its schema's owner, so that the role that migrates can't read it.)
    "owner": """
        SELECT c.oid, 'owner',
               CASE WHEN (pg_has_role(m.oid, c.relowner, 'USAGE') OR n.nspname = %(schema)s AND n.nspowner = c.relowner)
                      AND NOT EXISTS (
                      SELECT FROM unnest(ARRAY['anon', 'authenticated']) AS a (name)
                      WHERE to_regrole(a.name) IS NOT NULL AND pg_has_role(to_regrole(a.name)::oid, c.relowner, 'MEMBER'))
                    THEN %(migrating)s ELSE c.relowner::regrole::text END
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN (
          SELECT coalesce((SELECT l.relowner FROM pg_class l JOIN pg_namespace n ON n.oid = l.relnamespace
                           WHERE n.nspname = %(schema)s AND l.relname = 'migrations'),
                          (SELECT oid FROM pg_roles WHERE rolname = current_user)) AS oid
        ) m
        WHERE c.oid = ANY(%(oids)s::oid[])
    """,
    # Not a view's definition: each major version of Postgres prints it in its own way.
    "view": """
        SELECT DISTINCT d.refobjid, n.nspname || '.' || v.relname,
               CASE WHEN coalesce(v.reloptions::text, '') ~ 'security_invoker=(true|on|1)' THEN 'with its reader''s rights'
                    ELSE 'with its owner''s rights' END
        FROM pg_depend d
        JOIN pg_rewrite w ON w.oid = d.objid
        JOIN pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
        JOIN pg_namespace n ON n.oid = v.relnamespace
        WHERE d.refobjid = ANY(%(oids)s::oid[]) AND d.classid = 'pg_rewrite'::regclass
          AND d.refclassid = 'pg_class'::regclass AND v.oid <> d.refobjid
    """,
}


def take_picture(connection: Connection, names: Iterable[str] | None = None) -> Picture:
    """The picture of some relations and schemas, or of all. Missing ones are omitted. Names in it have their schema,
    because the search path of our transactions reaches none."""
    wanted = None if names is None else sorted(names)
    picture: Picture = {}
    with transaction(connection):
        parameters: dict[str, Any] = {
            "names": wanted,
            "roles": list(API_ROLES),
            "migrating": _MIGRATING_ROLE,
            "own": _OWN_ROLES,
            "schema": SCHEMA,
        }
        schemas, relations = answers(connection, [_SCHEMAS, _RELATIONS], parameters)
        for schema, role, privileges in schemas:
            picture.setdefault(schema, {"relation": {"kind": "schema"}, "grant": {}})["grant"][role] = privileges
        by_oid: dict[int, Relation] = {}
        for oid, name, kind, secured in relations:
            picture[name] = by_oid[oid] = {"relation": {"kind": _KINDS[kind]}, **{part: {} for part in _PARTS}}
            if _KINDS[kind] == "table":
                picture[name]["row-level security"] = {"enabled": secured}
        lines = answers(connection, _PARTS.values(), {**parameters, "oids": list(by_oid)})
        for part, lines_of_part in zip(_PARTS, lines, strict=True):
            for oid, name, value in lines_of_part:
                by_oid[oid][part][name] = value
    return picture


def invalid_indexes(connection: Connection, schemas: Iterable[str]) -> list[str]:
    """Indexes that an interrupted CREATE INDEX CONCURRENTLY left in some schemas, each with the remedy. (A partitioned table's index is
    invalid until its partitions have it, which is no fault.)"""
    rows = connection.execute(
        """
        SELECT quote_ident(n.nspname) || '.' || quote_ident(i.relname)
        FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid AND i.relkind = 'i'
        JOIN pg_namespace n ON n.oid = i.relnamespace
        WHERE NOT x.indisvalid AND n.nspname = ANY(%s)
          -- One that is being built this moment isn't valid yet either. Another role's build shows its pid alone.
          AND NOT EXISTS (
            SELECT FROM pg_stat_progress_create_index p JOIN pg_locks l ON l.pid = p.pid
            WHERE l.relation = x.indrelid AND l.mode = 'ShareUpdateExclusiveLock'
          )
        ORDER BY 1
        """,
        (sorted(schemas),),
    ).fetchall()
    return [
        f"{name}: index is invalid, left by an interrupted CREATE INDEX CONCURRENTLY; "
        f"remedy: DROP INDEX CONCURRENTLY {name}; then run {settings.named('apply_migrations')} again"
        for (name,) in rows
    ]
