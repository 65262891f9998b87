"""A sample of a table's keys."""

from __future__ import annotations

from dualwrite.model.cell_types import Cell
from dualwrite.model.declaration import Collection
from dualwrite.postgres.connection import sql
from dualwrite.postgres.fragments import as_text, table_of
from dualwrite.postgres.target import Target

_READ_WHOLE = 1_000_000
"""A table of up to this many rows is sampled row by row, which reads all of it; a larger one by blocks."""


def sample_keys(target: Target, collection: Collection, number: int, rows: int) -> list[tuple[Cell, ...]]:
    """About `number` keys from all over a table of `rows` rows; all keys if it has fewer."""
    if rows == 0:
        return []
    statement = sql.SQL("SELECT {keys} FROM {table} t TABLESAMPLE {method} ({percent}){where} LIMIT {most}").format(
        keys=sql.SQL(", ").join(as_text(c, "t") for c in collection.key),
        table=table_of(collection),
        method=sql.SQL("BERNOULLI" if rows <= _READ_WHOLE else "SYSTEM"),
        percent=sql.Literal(min(100.0, max(0.0001, 100 * number / rows))),
        where=target.lookups(collection).where("t"),
        most=sql.Literal(4 * number),
    )
    with target.transaction() as connection:
        return [tuple(key) for key in connection.execute(statement).fetchall()]
