"""Whether the schema `dualwrite` exists, is as new as this bundle, and is open to our role."""

from __future__ import annotations

from dualwrite import settings
from dualwrite.model.errors import PreflightError
from dualwrite.postgres import privileges
from dualwrite.postgres.connection import Connection

_NEEDED = {
    ("runs", "proof_reads"),
    ("seen_keys", "key"),
    ("count_baselines", "counted_seconds"),
    ("gone_documents", "asked_at"),
    ("repair_journal", "undoes"),
    ("interventions", "kind"),
    ("watermarks", "swept_at"),
    ("open_differences", "excused_verdict"),
}
"""The newest column of each of our tables."""

_WRITTEN = {
    "dualwrite.runs": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.watermarks": ("SELECT", "INSERT", "UPDATE"),
    "dualwrite.open_differences": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.repair_journal": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.count_baselines": ("SELECT", "INSERT", "UPDATE"),
    "dualwrite.looks": ("SELECT", "INSERT", "DELETE"),
    "dualwrite.seen_keys": ("SELECT", "INSERT", "DELETE", "TRUNCATE"),
    "dualwrite.gone_documents": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dualwrite.interventions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""The privileges that a writing run needs on each of our tables. A dry run reads them."""


def require(connection: Connection) -> None:
    """Raises PreflightError if the schema isn't there yet, or the role may not write what a run must remember."""
    require_tables(connection)
    faults = missing_grants(connection, writes=True)
    if faults:
        raise PreflightError(
            "The role lacks privileges that the bundle's own schema needs:\n" + "\n".join(f"- {f}" for f in faults)
        )
    if others := shared_with(connection):
        raise PreflightError(others[0])


def require_tables(connection: Connection) -> None:
    """Raises PreflightError if the schema isn't there yet, or is an older one."""
    found = connection.execute(
        """
        SELECT c.relname::text, a.attname::text
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'dualwrite'
        JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
        """
    ).fetchall()
    missing = sorted(f"{table}.{column}" for table, column in _NEEDED - set(found))
    if missing:
        raise PreflightError(
            "The schema dualwrite, for watermarks, the journal and the runs, is missing in the target or older than this "
            f"bundle: it lacks {', '.join(missing)}. Run the DAG {settings.named('apply_migrations')} with mode=apply first."
        )


# The ids alone, each found by the index.
_DAGS = """
    WITH RECURSIVE ids (id) AS (
      SELECT min(dag_id) FROM dualwrite.runs
      UNION ALL
      SELECT (SELECT min(r.dag_id) FROM dualwrite.runs r WHERE r.dag_id > ids.id) FROM ids WHERE ids.id IS NOT NULL
    )
    SELECT id FROM ids WHERE id ~ '^([a-z][a-z0-9_]*_)?(backfill_gap|reconcile_dual_writes)$'
"""


def shared_with(connection: Connection) -> list[str]:
    """Whether a bundle of another prefix remembers its runs in this schema too: a sentence, or none. Names of collections,
    watermarks and differences have no prefix, so each would take the other's for its own.

    Two that begin at the same moment don't see each other's first run; the next run of either does.
    """
    ours = {settings.named(name) for name in ("backfill_gap", "reconcile_dual_writes")}
    others = sorted({name for (name,) in connection.execute(_DAGS).fetchall()} - ours)
    if not others:
        return []
    named = ", ".join(others)
    listed = ", ".join(f"'{name}'" for name in others)
    return [
        f"One target remembers the runs of one bundle: its schema dualwrite has runs of {named} too. Give each catalog a target "
        "(a database) of its own. If that bundle is gone, DELETE FROM dualwrite.runs WHERE dag_id IN "
        f"({listed}); if it is this one, before its prefix was changed, UPDATE dualwrite.runs SET dag_id to today's name."
    ]


def missing_grants(connection: Connection, *, writes: bool) -> list[str]:
    """The privileges that the role lacks on our tables, a sentence each with the GRANT that gives it."""
    needed = _WRITTEN if writes else dict.fromkeys(_WRITTEN, ("SELECT",))
    return privileges.missing_grants(connection, needed)
