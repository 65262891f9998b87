"""The foreign keys of the live database that reference a table, and whether this session sees every row that has one.

A foreign key's action on a delete (CASCADE, SET NULL, SET DEFAULT) runs as the referencing table's owner: no missing grant and no
row-level security stops it, but both keep those rows from a query. So a query that finds no
referencing row proves that there is none only if nothing is hidden from it. NO ACTION and RESTRICT need no proof of
ours: Postgres itself refuses the delete, for rows that we can't see too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dualwrite.model.verdicts import Reason
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.visibility import HIDING

_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_REFUSING = ("NO ACTION", "RESTRICT")


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key to a table, as pg_constraint has it. Its `columns` and the `referenced` ones belong together, in order."""

    to: int
    """The oid of the referenced table."""
    relation: int
    """The oid of the table that has the key."""
    schema: str
    table: str
    constraint: str
    columns: tuple[str, ...]
    referenced: tuple[str, ...]
    operators: tuple[str, ...]
    """The operators with which the key compares them, the referenced column first; each with its schema, as SQL writes it."""
    on_delete: str
    enforced: bool
    """Whether Postgres acts on a delete. Not if its triggers are switched off, or the constraint is NOT ENFORCED."""
    granted: bool
    """Whether the role may read the columns."""
    filtered: bool
    """Whether row-level security may hide rows of the table from the role."""

    @property
    def seen(self) -> bool:
        """Whether this session sees every row that has the key."""
        return self.granted and not self.filtered

    @property
    def refused_by_postgres(self) -> bool:
        """Whether Postgres itself refuses to delete a row that is referenced."""
        return self.enforced and self.on_delete in _REFUSING

    @property
    def unproved(self) -> bool:
        """Whether we can't prove that a row isn't referenced through this key."""
        return not (self.seen or self.refused_by_postgres)

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


_REFERENCES = f"""
    WITH k AS (
      SELECT k.oid, k.conname, k.conrelid, k.confrelid, k.conkey, k.confkey, k.conpfeqop, k.confdeltype
      FROM pg_catalog.pg_constraint k
      LEFT JOIN pg_catalog.pg_constraint whole ON whole.oid = k.conparentid
      WHERE k.contype = 'f' AND k.confrelid = ANY(%(tables)s::oid[])
        -- Once for a partitioned table, not again for each partition.
        AND whole.confrelid IS DISTINCT FROM k.confrelid
    ), hiding AS ({HIDING.format(tables="(SELECT DISTINCT conrelid FROM k)")})
    SELECT k.confrelid, k.conrelid, n.nspname::text, r.relname::text, k.conname::text,
      ARRAY(
        SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place
      ),
      ARRAY(
        SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place
      ),
      ARRAY(
        SELECT quote_ident(m.nspname) || '.' || o.oprname::text FROM unnest(k.conpfeqop) WITH ORDINALITY AS u (oid, place)
        JOIN pg_catalog.pg_operator o ON o.oid = u.oid
        JOIN pg_catalog.pg_namespace m ON m.oid = o.oprnamespace ORDER BY u.place
      ),
      k.confdeltype::text,
      EXISTS (
        SELECT FROM pg_catalog.pg_trigger g
        WHERE g.tgconstraint = k.oid AND g.tgrelid = k.confrelid AND g.tgtype & 8 <> 0 -- on DELETE
          AND (g.tgenabled = 'A' OR (g.tgenabled = 'O' AND current_setting('session_replication_role') <> 'replica'))
      ),
      has_schema_privilege(n.oid, 'USAGE') AND NOT EXISTS (
        SELECT FROM unnest(k.conkey) AS u (number) WHERE NOT has_column_privilege(k.conrelid, u.number, 'SELECT')
      ),
      k.conrelid IN (SELECT oid FROM hiding)
    FROM k
    JOIN pg_catalog.pg_class r ON r.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
    ORDER BY n.nspname, r.relname, k.conname
"""


def references_to(connection: Connection, tables: Iterable[int]) -> list[Reference]:
    """The foreign keys to some tables (by oid), those of tables that the catalog doesn't know included."""
    rows = connection.execute(_REFERENCES, {"tables": list(tables)}).fetchall()
    return [
        Reference(
            to,
            relation,
            schema,
            table,
            constraint,
            tuple(columns),
            tuple(referenced),
            tuple(operators),
            _ACTIONS[action],
            *facts,
        )
        for to, relation, schema, table, constraint, columns, referenced, operators, action, *facts in rows
    ]


def columns_set_null(connection: Connection, table: int) -> frozenset[str]:
    """The nullable columns of a table that a foreign key of its own sets to null when the referenced row is deleted."""
    rows = connection.execute(
        """
        SELECT DISTINCT a.attname::text
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid
          AND a.attnum = ANY(CASE WHEN cardinality(k.confdelsetcols) > 0 THEN k.confdelsetcols ELSE k.conkey END)
        WHERE k.conrelid = %s AND k.contype = 'f' AND k.confdeltype = 'n' AND NOT a.attnotnull
        """,
        (table,),
    )
    return frozenset(name for (name,) in rows)


def why_kept(by: Iterable[Reference]) -> Reason | None:
    """Why a row that these keys reference, or could, isn't deleted; None if none does."""
    references = list(by)
    if any(reference.seen for reference in references):
        return Reason.STILL_REFERENCED
    return Reason.REFERENCES_UNSEEN if references else None
