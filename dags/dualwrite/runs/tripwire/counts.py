"""A collection's rows by their time: how many lie between some edges, which edges cut them evenly, and the keys in a window.

Each reads the whole table, or an index on that column.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from dualwrite.model.declaration import Collection
from dualwrite.model.keys import Key
from dualwrite.model.windows import Window
from dualwrite.postgres.connection import sql
from dualwrite.postgres.fragments import COMMA, column_name
from dualwrite.postgres.lookups import Lookups, is_within
from dualwrite.postgres.target import Target

_FEW_EDGES = 3


def rows_between(target: Target, collection: Collection, column: str, edges: Sequence[datetime]) -> list[int]:
    """How many rows lie before the first of these ascending edges, between each two, and from the last on, in one snapshot.
    A few edges take a fraction of the time of many."""
    lookups = target.lookups(collection)
    if 0 < len(edges) <= _FEW_EDGES:
        [(total, *before)] = target.fetch(_before(lookups, column, len(edges)), {"edges": list(edges)})
        return [after - first for first, after in pairwise([0, *before, total])]
    # width_bucket gives 0 before the first edge, and n from the n-th edge on.
    statement = sql.SQL("SELECT width_bucket({}, %(edges)s::timestamptz[]), count(*) FROM {} t{} GROUP BY 1").format(
        column_name(column, "t"), lookups.table, lookups.where("t")
    )
    numbers = dict(target.fetch(statement, {"edges": list(edges)}))
    return [numbers.get(n, 0) for n in range(len(edges) + 1)]


def _before(lookups: Lookups, column: str, edges: int) -> sql.Composed:
    """How many rows have a time, and how many lie before each edge (`edges`: their number). Parameters: edges."""
    at = column_name(column, "t")
    before = [
        sql.SQL("count(*) FILTER (WHERE {} < (%(edges)s::timestamptz[])[{}])").format(at, sql.Literal(n + 1))
        for n in range(edges)
    ]
    return sql.SQL("SELECT count({}), {} FROM {} t{}").format(at, COMMA.join(before), lookups.table, lookups.where("t"))


def even_edges(target: Target, collection: Collection, column: str, before: datetime, every: int) -> list[datetime]:
    """Ascending times, in whole milliseconds, that cut the rows before a moment into groups of `every`."""
    lookups, at = target.lookups(collection), column_name(column, "t")
    statement = sql.SQL(
        """
        SELECT DISTINCT date_trunc('milliseconds', at)
        FROM (
          SELECT {at} AS at, row_number() OVER (ORDER BY {at}) AS n
          FROM {table} t{where}
        ) ordered
        WHERE n %% %(every)s = 0
        ORDER BY 1
        """
    ).format(at=at, table=lookups.table, where=lookups.where("t", at + sql.SQL(" < %(before)s")))
    return [at for (at,) in target.fetch(statement, {"before": before, "every": every})]


def keys_within(target: Target, collection: Collection, column: str, window: Window) -> list[Key]:
    """The keys of the rows whose time lies in a window."""
    lookups = target.lookups(collection)
    statement = sql.SQL("SELECT {keys} FROM {table} t{where}").format(
        keys=lookups.key_texts("t"), table=lookups.table, where=lookups.where("t", is_within(column))
    )
    return [tuple(key) for key in target.fetch(statement, {"start": window.start, "end": window.end})]
