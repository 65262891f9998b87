"""Whether the schema `dualwrite` exists, is as new as this bundle, and is open to our role."""

from __future__ import annotations

from dualwrite import settings
from dualwrite.model.errors import PreflightError
from dualwrite.postgres import privileges
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.own_statements import own_statements

_SQL = own_statements(__file__)
_COLUMNS = _SQL["columns"]

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
    f"{SCHEMA}.runs": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    f"{SCHEMA}.watermarks": ("SELECT", "INSERT", "UPDATE"),
    f"{SCHEMA}.open_differences": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    f"{SCHEMA}.repair_journal": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    f"{SCHEMA}.count_baselines": ("SELECT", "INSERT", "UPDATE"),
    f"{SCHEMA}.looks": ("SELECT", "INSERT", "DELETE"),
    f"{SCHEMA}.seen_keys": ("SELECT", "INSERT", "DELETE", "TRUNCATE"),
    f"{SCHEMA}.gone_documents": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    f"{SCHEMA}.interventions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""The privileges that a writing run needs on each of our tables. A dry run reads them."""


def require(connection: Connection) -> None:
    """Raises PreflightError if the schema isn't there yet, or the role may not write its tables."""
    require_tables(connection)
    faults = missing_grants(connection, writes=True)
    if faults:
        raise PreflightError(
            "The role lacks privileges that the bundle's own schema needs:\n" + "\n".join(f"- {f}" for f in faults),
            code="schema-privileges-missing",
        )


def require_tables(connection: Connection) -> None:
    """Raises PreflightError if the schema isn't there yet, or is an older one."""
    columns = connection.execute(_COLUMNS, {"schema": SCHEMA}).fetchall()
    missing = sorted(f"{table}.{column}" for table, column in _NEEDED - set(columns))
    if missing:
        raise PreflightError(
            f"The schema {SCHEMA}, for watermarks, the journal and the runs, is missing in the target or older than this "
            f"bundle: it lacks {', '.join(missing)}. Run the DAG {settings.named('apply_migrations')} with mode=apply first.",
            code="schema-missing-or-old",
        )


def missing_grants(connection: Connection, *, writes: bool) -> list[str]:
    """The privileges that the role lacks on our tables, a sentence each with the GRANT that gives it."""
    needed = _WRITTEN if writes else dict.fromkeys(_WRITTEN, ("SELECT",))
    return privileges.missing_grants(connection, needed)
