"""Finds the rows that a table refuses, so that the other rows of their page can be written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dualwrite import postgres
from dualwrite.postgres.conditions import NO_PARTITION
from dualwrite.postgres.connection import Connection

_SURELY_A_ROWS = ("21", "22", "23", "44", "54", "P0")
"""Classes of SQLSTATE that a statement over no rows can't raise: values, constraints, limits, PL/pgSQL's RAISE. For all others
`bisect` asks the table."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the target refused a row. `text`, for people, is remembered: the condition, with its constraint and column. Code uses
    the other fields."""

    text: str
    sqlstate: str | None = None
    """None: there was no error; a trigger or a policy skipped the row."""
    constraint: str | None = None
    table: tuple[str, str] | None = None
    """The schema and name of the constraint's table: a trigger's own statements may fail elsewhere."""
    passing: bool = False
    """The catalog declares the constraint, so the comparison saw no conflict: it arose later, or the row differs from the one that
    was compared."""
    own_table: bool = False
    """Another row of the same table must be there first."""

    @property
    def may_be_freed(self) -> bool:
        """Whether another row is in the way, by a key that the catalog doesn't know: that one may be about to change."""
        return not self.passing and self.sqlstate in ("23505", "23P01")


def refused_by(error: postgres.Error) -> Refused:
    """An error as a refusal."""
    at = error.diag
    table = (at.schema_name, at.table_name) if at.schema_name and at.table_name else None
    return Refused(postgres.condition(error), error.sqlstate, at.constraint_name, table)


def at_column(refusal: Refused, name: str) -> Refused:
    """The refusal, with the column that is to blame."""
    head, bracket, _ = refusal.text.partition(" (")
    text = f"{refusal.text[:-1]}, column {name})" if bracket else f"{head} (column {name})"
    return replace(refusal, text=text)


def by_constraint(name: str | None, sqlstate: str) -> Refused:
    """The refusal that a constraint would cause, as `refused_by` reports it. None: no partition takes the row."""
    place = NO_PARTITION if name is None else f"constraint {name}"
    return Refused(f"{_NAMES[sqlstate]} {sqlstate} ({place})", sqlstate, name)


_NAMES = {
    "23503": "ForeignKeyViolation",
    "23505": "UniqueViolation",
    "23514": "CheckViolation",
    "23P01": "ExclusionViolation",
}


def may_be_a_rows(error: postgres.Error) -> bool:
    """Whether a row may be to blame: Postgres, or psycopg before it, refused the statement, and will do so again."""
    if error.sqlstate is None:
        return isinstance(error, postgres.errors.DataError)
    return not postgres.is_transient(error)


def bisect(
    connection: Connection,
    ns: list[int],
    write: Callable[[list[int]], object],
    refuse: Callable[[int, Refused], object],
    schema: str = "public",
) -> None:
    """Runs `write` on all numbers, halving on each error that isn't transient, until only the bad ones are left out: those
    go to `refuse`.

    No list of SQLSTATEs tells whether a row or the table causes an error: a trigger raises its own, and row-level security
    refuses a row with the condition of a missing grant. So the statement is tried over no rows: an error that it raises then
    is the table's, and is raised. `schema`: the table's; defaults, CHECKs and triggers run in `write` (see as_a_client).
    """
    todo = [ns] if ns else []
    asked = False
    while todo:
        part = todo.pop()
        try:
            with postgres.as_a_client(connection, schema):
                write(part)
            continue
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise
            refusal = refused_by(error)
        if not asked and not (refusal.sqlstate or "22").startswith(_SURELY_A_ROWS):
            with postgres.as_a_client(connection, schema):
                write([])
            asked = True
        if len(part) > 1:
            middle = len(part) // 2
            todo += [part[middle:], part[:middle]]
        else:
            refuse(part[0], refusal)
