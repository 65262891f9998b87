"""Rows that exclude each other: the unique keys and exclusion constraints that the catalog doesn't know, in a table of their own.

Rows go into it in the order in which an apply writes them, see Promises; those that stand in the way of later ones, on this page
or another, are its rivals.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dualwrite import postgres
from dualwrite.model.declaration import Collection
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Row
from dualwrite.postgres.bad_rows import bisect, by_constraint, may_be_a_rows
from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.enforced import Index
from dualwrite.postgres.fragments import AND, COMMA, column_name, expression, has_key_part
from dualwrite.postgres.promises import Held, Place, Promises, Tried, claimant
from dualwrite.postgres.statements import TRIAL, TRIAL_N, Statements

log = logging.getLogger(__name__)

RIVALS = sql.Identifier("pg_temp", "dualwrite_rivals")
MOST_HOLDERS = 20
"""How many rows in one row's way are asked for, as long as one of them stays there: a wide range has thousands."""


@dataclass(slots=True)
class _Wants:
    """The places that a row wants in the constraints that the catalog doesn't know: those in unique keys, and `buckets`, which other
    rows may have too if they don't exclude it. `held`: places that rows of the table hold."""

    places: list[Place] = field(default_factory=list)
    buckets: list[Place] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)


class Rivals:
    """The rows of one look that took a place. Lives as long as the trial's transaction. `indexes`: those in which rows exclude each other."""

    def __init__(
        self, connection: Connection, collection: Collection, statements: Statements, indexes: Sequence[Index]
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._statements = statements
        self._indexes = indexes
        self._standing: dict[int, str] = {}
        """Promised rows, by number; those of other pages have one below zero."""
        self._loaded = 0
        """How many of them are other pages'."""
        if indexes:
            self._create()

    def __bool__(self) -> bool:
        """Whether rows can exclude each other at all."""
        return bool(self._indexes)

    def _create(self) -> None:
        """A table like the trial's, in which the unique keys and exclusion constraints that the catalog doesn't know hold."""
        # Statements without parameters, which would not undo a doubled percent sign.
        made = {
            index: sql.SQL("ALTER TABLE {} ADD ").format(RIVALS) + sql.SQL(index.excludes)
            if index.excludes is not None
            else sql.SQL("CREATE UNIQUE INDEX ON {}").format(RIVALS) + sql.SQL(str(index.made_with))
            for index in self._indexes
            if index.excludes is not None or index.made_with is not None
        }
        table = sql.SQL(
            "CREATE TEMPORARY TABLE dualwrite_rivals ON COMMIT DROP AS SELECT * FROM {} WITH NO DATA"
        ).format(TRIAL)
        self._connection.execute(table)
        for index, constraint in made.items():
            try:
                with self._connection.transaction():
                    self._connection.execute(constraint)
            except postgres.Error as error:  # an index on the row as a whole can't be made again
                if not may_be_a_rows(error):
                    raise
                if index.exclusion:  # a unique key's rivals are known by the hashes of their places
                    log.warning(
                        "%s: a dry run can't copy constraint %s (%s), so it counts rows as missing that an apply may refuse",
                        self._collection.name,
                        index.name,
                        postgres.condition(error),
                    )

    def take_places(self, rows: Mapping[int, Row], promises: Promises, found: Tried, *, keeps: bool) -> None:
        """Refuses the rows whose places in unique keys and exclusion constraints that the catalog doesn't know are held by others:
        rows of the table that stay, promised rows of other pages, and earlier rows of this page. Promises the others theirs if it
        `keeps`."""
        firsts: dict[str, int] = {}
        for n, row in rows.items():  # a page of keys may have one row under two labels
            firsts.setdefault(claimant(row), n)
        same = {n: firsts[claimant(row)] for n, row in rows.items() if firsts[claimant(row)] != n}
        self._take_each({n: row for n, row in rows.items() if n not in same}, promises, found, keeps=keeps)
        for n, first in same.items():
            if first in found.refused:
                found.refuse(n, found.refused[first])
                if first in found.lost:
                    found.lost.add(n)

    def give_back(self, rows: Mapping[int, Row], promises: Promises) -> None:
        """Takes rows of this page back from among the rivals."""
        if not rows:
            return
        self._connection.execute(
            sql.SQL("DELETE FROM {} WHERE {} = ANY(%(n)s)").format(RIVALS, TRIAL_N), {"n": list(rows)}
        )
        for n, row in rows.items():
            self._standing.pop(n, None)
            promises.release(row)

    def _take_each(self, rows: Mapping[int, Row], promises: Promises, found: Tried, *, keeps: bool) -> None:
        """As `take_places`, of rows that are all others'."""
        wants = self._wants(rows, promises.moved)
        late: set[int] = set()
        for n, row in rows.items():
            want = wants[n]
            staying = [h for h in want.held if not promises.moved.issuperset(h.keys)]
            if staying:
                if keeps:
                    promises.hold(row, want.held)
                found.refuse(n, by_constraint(staying[0].constraint, staying[0].sqlstate))
                continue
            if want.held or claimant(row) in promises.late:
                late.add(n)
            if (taken := promises.taken_by(want.places, row)) is not None:
                found.refuse(n, by_constraint(taken[0][0], "23505"))
                found.lost.add(n)
                self._lose(row, promises, contested=bool(late & {n}) or taken[1] in promises.late)
        left = found.left(rows)
        self._load({bucket for n in left for bucket in wants[n].buckets}, [rows[n] for n in left], promises)
        won: set[int] = set()

        def insert(part: list[int]) -> None:
            statement = sql.SQL(
                "INSERT INTO {} SELECT * FROM {} t WHERE t.{n} = ANY(%(n)s) ORDER BY t.{n} ON CONFLICT DO NOTHING RETURNING {n}"
            ).format(RIVALS, TRIAL, n=TRIAL_N)
            won.update(n for (n,) in self._connection.execute(statement, {"n": part}).fetchall())

        if keeps:
            bisect(self._connection, left, insert, found.refuse, self._collection.place[0])
        left = found.left(left)
        losers = [n for n in left if n not in won]
        slow = [*(late & won), *(n for n, by in self._standing.items() if by in promises.late)]
        for index in self._indexes if losers else ():
            for n, contested in self._collide(index, found.left(losers), slow):
                found.refuse(n, by_constraint(index.name, index.sqlstate))
                found.lost.add(n)
                self._lose(rows[n], promises, contested=contested or n in late)
        for n in found.left(losers) if keeps else ():  # equal by the index's own order, and by no operator
            found.refuse(n, by_constraint(self._indexes[0].name, self._indexes[0].sqlstate))
            found.lost.add(n)
        if keeps:
            self._promise({n: rows[n] for n in found.left(left)}, wants, late, promises, found)

    @staticmethod
    def _lose(row: Row, promises: Promises, *, contested: bool) -> None:
        promises.settle(row, late=contested)
        if contested:
            promises.contest(row)

    def _wants(self, rows: Mapping[int, Row], moved: set[Key]) -> dict[int, _Wants]:
        """The places that each row wants in the constraints that the catalog doesn't know."""
        wants = {n: _Wants() for n in rows}
        for index in self._indexes:
            for hashed in (True, False):
                try:
                    with self._connection.transaction():
                        answer = self._connection.execute(
                            self._asked_of(index, hashed=hashed), {"n": list(rows)}
                        ).fetchall()
                        held = [n for n, is_held, *_ in answer if is_held]
                        holders = self._holders(index, held, moved)
                except postgres.Error as error:  # values that can't be hashed, or compared
                    if not may_be_a_rows(error):
                        raise
                    continue
                for n, _, first, second in answer:
                    if n in holders:
                        keys = holders[n]
                        more = len(keys) == MOST_HOLDERS
                        wants[n].held.append(Held(index.name, index.sqlstate, index.immediate, keys, more=more))
                    if index.exclusion or not hashed:
                        wants[n].buckets.append((index.name, first, second))
                    else:
                        wants[n].places.append((index.name, first, second))
                break
        return wants

    def _itself(self, keys: Sequence[sql.Composable]) -> sql.Composed:
        """Whether a row of the table, `h`, has the key of a row of the trial, `r`. `keys`: the names of its columns."""
        return AND.join(
            has_key_part(c, sql.SQL("h.{}").format(alias), sql.SQL("r.{}").format(alias))
            for c, alias in zip(self._collection.key, keys, strict=True)
        )

    def _asked_of(self, index: Index, *, hashed: bool) -> sql.Composed:
        """Of some rows (parameter: n), those that have a place in a constraint: n, whether another row of the table stands there,
        and two hashes of the values that must be equal in both."""
        keys = [sql.Identifier(f"dualwrite_k{i}") for i in range(len(self._collection.key))]
        key = COMMA.join(
            sql.SQL("{} AS {}").format(column_name(c.name), alias)
            for c, alias in zip(self._collection.key, keys, strict=True)
        )
        itself = self._itself(keys)
        equal = [
            sql.SQL("r.{}").format(place)
            for place, operator in zip(_places(index), _operators(index), strict=True)
            if hashed and (not index.exclusion or operator.endswith(".=)"))
        ]
        record = sql.SQL("ROW({})").format(COMMA.join(equal))
        hashes = (
            sql.SQL("hash_record_extended({}, 0), hash_record_extended({}, 1)").format(record, record)
            if equal
            else sql.SQL("0::int8, 0::int8")
        )
        filled = (
            sql.SQL("")
            if index.nulls_collide
            else sql.SQL(" WHERE ") + AND.join(sql.SQL("r.{} IS NOT NULL").format(place) for place in _places(index))
        )
        return sql.SQL(
            """
            SELECT r.{n}, EXISTS (
              SELECT FROM (SELECT {key}, {elements} FROM {table} WHERE {where}) h WHERE {same} AND NOT ({itself})
            ), {hashes}
            FROM (SELECT {n}, {key}, {elements} FROM {trial} WHERE {n} = ANY(%(n)s) AND {where}) r{filled}
            """
        ).format(
            n=TRIAL_N,
            key=key,
            elements=_elements(index),
            table=self._statements.table,
            where=_where(index),
            same=_same(index),
            itself=itself,
            hashes=hashes,
            trial=TRIAL,
            filled=filled,
        )

    def _holders(self, index: Index, ns: list[int], moved: set[Key]) -> dict[int, tuple[Key, ...]]:
        """The keys of the other rows of the table that hold the places which some rows want in a constraint: all, or as many as show
        that not all of them have moved. Without parts, if a row is in another's share of the table."""
        found = self._some_holders(index, ns, MOST_HOLDERS) if ns else {}
        unclear = [n for n, keys in found.items() if len(keys) == MOST_HOLDERS and moved.issuperset(keys)]
        return found | self._some_holders(index, unclear, None) if unclear else found

    def _some_holders(self, index: Index, ns: list[int], most: int | None) -> dict[int, tuple[Key, ...]]:
        """See `_holders`. `most`: for each row."""
        keys = [sql.Identifier(f"dualwrite_k{i}") for i in range(len(self._collection.key))]
        key = COMMA.join(
            sql.SQL("{} AS {}").format(column_name(c.name), alias)
            for c, alias in zip(self._collection.key, keys, strict=True)
        )
        own = self._statements.own("t")
        statement = sql.SQL(
            """
            SELECT r.{n}, CASE WHEN h.dualwrite_own THEN h.dualwrite_key ELSE ARRAY[]::text[] END
            FROM (SELECT {n}, {key}, {elements} FROM {trial} WHERE {n} = ANY(%(n)s) AND {where}) r
            CROSS JOIN LATERAL (
              SELECT * FROM (
                SELECT {key}, {elements}, {own} AS dualwrite_own, {texts} AS dualwrite_key FROM {table} t WHERE {where}
              ) h WHERE {same} AND NOT ({itself}) LIMIT %(most)s
            ) h
            """
        ).format(
            n=TRIAL_N,
            key=key,
            elements=_elements(index),
            trial=TRIAL,
            where=_where(index),
            own=AND.join(own) if own else sql.SQL("true"),
            texts=self._statements.key_array("t"),
            table=self._statements.table,
            same=_same(index),
            itself=self._itself(keys),
        )
        found: dict[int, list[Key]] = {}
        for n, holder in self._connection.execute(statement, {"n": ns, "most": most}).fetchall():
            found.setdefault(n, []).append(tuple(holder))
        return {n: tuple(holders) for n, holders in found.items()}

    def _collide(self, index: Index, ns: list[int], slow: Iterable[int]) -> list[tuple[int, bool]]:
        """The rows, of some, whose place in one constraint is promised to another row; and whether one of these others is among
        `slow`."""
        statement = sql.SQL(
            """
            SELECT r.{n}, bool_or(h.{n} = ANY(%(slow)s))
            FROM (SELECT {n}, {elements} FROM {trial} WHERE {n} = ANY(%(n)s) AND {where}) r
            JOIN (SELECT {n}, {elements} FROM {rivals} WHERE {where}) h ON {same}
            GROUP BY r.{n}
            """
        ).format(
            n=TRIAL_N, elements=_elements(index), trial=TRIAL, rivals=RIVALS, where=_where(index), same=_same(index)
        )
        try:
            with self._connection.transaction():
                return self._connection.execute(statement, {"n": ns, "slow": list(slow)}).fetchall()
        except postgres.Error as error:  # values that can't be compared
            if not may_be_a_rows(error):
                raise
            return []

    # --- promised rows of other pages -------------------------------------------------------------------------------

    def _load(self, buckets: Iterable[Place], rows: Iterable[Row], promises: Promises) -> None:
        """Puts rows of other pages that may exclude these into the table of rivals, with numbers below zero."""
        known = {claimant(row) for row in rows}.union(self._standing.values())
        records = {
            by: record
            for bucket in buckets
            for by, record in promises.records.get(bucket, {}).items()
            if by not in known
        }
        if not records:
            return
        numbers = range(-self._loaded - len(records), -self._loaded)
        self._loaded += len(records)
        self._standing.update(zip(numbers, records, strict=True))
        columns = [list(column) for column in zip(*records.values(), strict=True)]
        values = COMMA.join(
            sql.SQL("x.{}::{}").format(sql.Identifier(f"c{i}"), expression(kind))
            for i, kind in enumerate(self._kinds.values())
        )
        given = COMMA.join(sql.SQL("%s::text[]") for _ in columns)
        names = COMMA.join(sql.Identifier(f"c{i}") for i in range(len(columns)))
        self._connection.execute(
            sql.SQL(
                "INSERT INTO {} ({}, {}) SELECT x.n, {} FROM unnest(%s::int4[], {}) AS x (n, {}) ON CONFLICT DO NOTHING"
            ).format(RIVALS, TRIAL_N, COMMA.join(map(column_name, self._kinds)), values, given, names),
            [list(numbers), *columns],
        )

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """The columns that decide who excludes whom, with their types."""
        reads = frozenset().union(*(index.reads for index in self._indexes))
        found = self._connection.execute(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'pg_temp.dualwrite_rivals'::regclass AND attname = ANY(%(reads)s)",
            {"reads": list(reads)},
        )
        return dict(found.fetchall())

    def _promise(
        self, rows: Mapping[int, Row], wants: Mapping[int, _Wants], late: set[int], promises: Promises, found: Tried
    ) -> None:
        """Promises rows their places."""
        for n, row in rows.items():
            taken = promises.taken_by(wants[n].places, row)
            if taken is not None:  # in an index that couldn't be made again
                found.refuse(n, by_constraint(taken[0][0], "23505"))
                found.lost.add(n)
                continue
            self._standing[n] = claimant(row)
            promises.take(row, wants[n].places)
            promises.settle(row, late=n in late)
        recorded = [n for n in found.left(rows) if wants[n].buckets]
        if recorded:
            texts = COMMA.join(sql.SQL("{}::text").format(column_name(name)) for name in self._kinds)
            statement = sql.SQL("SELECT {n}, ARRAY[{}]::text[] FROM {} WHERE {n} = ANY(%(n)s)").format(
                texts, TRIAL, n=TRIAL_N
            )
            for n, record in self._connection.execute(statement, {"n": recorded}).fetchall():
                promises.record(rows[n], wants[n].buckets, record)


def _places(index: Index) -> list[sql.Identifier]:
    return [sql.Identifier(f"dualwrite_{i}") for i in range(len(index.elements))]


def _elements(index: Index) -> sql.Composed:
    """An index's columns and expressions, each under a name of ours."""
    return COMMA.join(
        expression(element) + sql.SQL(" AS {}").format(place)
        for element, place in zip(index.elements, _places(index), strict=True)
    )


def _operators(index: Index) -> tuple[str, ...]:
    return index.operators or ("IS NOT DISTINCT FROM" if index.nulls_collide else "=",) * len(index.elements)


def _same(index: Index) -> sql.Composed:
    """Whether two rows, h and r, collide in an index."""
    return AND.join(
        sql.SQL("h.{} {} r.{}").format(place, sql.SQL(operator.replace("%", "%%")), place)
        for place, operator in zip(_places(index), _operators(index), strict=True)
    )


def _where(index: Index) -> sql.SQL:
    return sql.SQL("true") if index.predicate is None else expression(index.predicate)
