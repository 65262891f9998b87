"""Finds the rows of a staged page that the target would refuse, without writing to it, so that a dry run's numbers are an
apply's.

The rows go into a temporary table of the live columns' types, NOT NULLs and indexes, and are checked there against
the CHECKs and the foreign keys that the catalog doesn't know. Its unknown unique keys and exclusion constraints hold in a second
one, into which rows go in the order in which an apply writes them: see Promises. Only constant defaults are evaluated: others call sequences, and functions that write. Nor can a CHECK's or an index's function write, because Postgres
makes that part of the transaction read-only (except for temporary tables).

Not covered: triggers, constraints that need a column whose default calls something, foreign keys to tables
that this role doesn't see. Preflight names them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dualwrite import postgres
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.mapping import Key, Row
from dualwrite.postgres.bad_rows import Refused, bisect, by_constraint, may_be_a_rows
from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.enforced import Check, Enforced, ForeignKey, Index
from dualwrite.postgres.fragments import AND, COMMA, column_name, has_key_part, named_column, operator
from dualwrite.postgres.promises import Held, Place, Promises, Tried, claimant
from dualwrite.postgres.statements import STAGE, Statements

log = logging.getLogger(__name__)

TRIAL = sql.Identifier("pg_temp", "dualwrite_trial")
RIVALS = sql.Identifier("pg_temp", "dualwrite_rivals")
_N = sql.Identifier("dualwrite_n")
_READ_ONLY = "25006"
_MOST_HOLDERS = 20
"""How many rows in one row's way are asked for, as long as one of them stays there: a wide range has thousands."""


class Trial:
    """The trial of one staged page. Lives as long as its transaction."""

    def __init__(self, connection: Connection, catalog: Catalog, collection: Collection, live: Enforced) -> None:
        self._connection = connection
        self._collection = collection
        self._live = live
        self._statements = Statements.of(catalog, collection)
        declared = {c.name for c in collection.columns}
        self._others = [c for c in live.columns if c.name not in declared and (c.constant or c.generated)]
        """Columns that the catalog doesn't declare, and whose value is known without asking for it."""
        told = declared | {c.name for c in self._others}
        self._checks = [c for c in live.checks if c.columns is not None and c.columns <= told]
        self._rivals = [i for i in live.unknown_indexes(collection) if i.reads <= told]
        self._shared = [
            i
            for i in live.indexes
            if i.unique and i not in live.unknown_indexes(collection) and _is_shared(collection, i)
        ]
        """Unique keys that rows of others' shares of the table may hold."""
        unknown = [k for k in live.unknown_foreign_keys(catalog, collection) if set(k.columns) <= told]
        self._outside = [k for k in unknown if k.readable and not k.own_table]
        keys = tuple(c.name for c in collection.key)
        self._own = [k for k in unknown if k.own_table and k.referenced == keys]
        self._standing: dict[int, str] = {}
        """Promised rows among the rivals, by number; those of other pages have one below zero."""
        self._loaded = 0
        """How many of them are other pages'."""
        self._create(told)
        self._make_rivals()

    def _create(self, told: set[str]) -> None:
        names = [c.name for c in self._collection.columns]
        # What comes through a row that an apply would insert first isn't known yet.
        held = {c.name for c in self._statements.held}
        self._needed = [
            c for c in self._statements.held if c.name in {n.name for n in self._live.columns if n.not_null}
        ]
        plain = [c for c in self._others if c.generated is None]
        table = sql.SQL(
            "CREATE TEMPORARY TABLE dualwrite_trial ON COMMIT DROP AS SELECT NULL::int4 AS {}, {} FROM {} t WITH NO DATA"
        ).format(
            _N, COMMA.join(column_name(n, "t") for n in [*names, *(c.name for c in plain)]), self._statements.table
        )
        changes = [
            *(
                sql.SQL("ALTER COLUMN {} SET NOT NULL").format(column_name(c.name))
                for c in self._live.columns
                if c.not_null and c.name in names and c.name not in held
            ),
            *(
                sql.SQL("ALTER COLUMN {} SET DEFAULT ").format(column_name(c.name)) + sql.SQL(c.default)
                for c in plain
                if c.default is not None
            ),
        ]
        if changes:
            table += sql.SQL("; ALTER TABLE {} {}").format(TRIAL, COMMA.join(changes))
        more = [
            sql.SQL("; ALTER TABLE {} ADD COLUMN {} ").format(TRIAL, column_name(c.name)) + sql.SQL(c.generated)
            for c in self._others
            if c.generated is not None
        ]
        # Not unique here: they are for the limits of an index row, and for expressions that raise.
        more += [
            sql.SQL("; CREATE INDEX ON {}").format(TRIAL) + sql.SQL(i.made_with)
            for i in self._live.indexes
            if i.made_with is not None and i.reads and i.reads <= told
        ]
        try:
            with self._connection.transaction():
                self._connection.execute(table + sql.SQL("").join(more))
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise
            self._connection.execute(table)  # an index on the row as a whole can't be made again

    def rows(self, rows: Mapping[int, Row], promises: Promises, *, stale: bool, keeps: bool) -> dict[int, Refused]:
        """The staged rows that are refused, after all that was promised: if they are inserted, or the rows at their keys updated.
        `keeps`: promises the others."""
        ns = sorted(rows)
        self._connection.execute("SAVEPOINT dualwrite_look; SET LOCAL transaction_read_only = on")
        found = Tried()
        self._insert(ns, found, stale=stale)
        self._look_for_nulls(self._left(ns, found), found)
        self._check(self._left(ns, found), found)
        self._look_outside(self._left(ns, found), found)
        self._look_at_other_shares(self._left(ns, found), found)
        self._look_at_each_other(rows, promises, found, keeps=keeps)
        for n in self._left(ns, found):
            if self._own:
                promises.stand(rows[n])
            if keeps and stale:
                promises.leave(rows[n])
        self._connection.execute("RELEASE SAVEPOINT dualwrite_look")
        return found.refused

    def failing_checks(self, ns: Sequence[int]) -> dict[int, Refused]:
        """Of rows to be inserted, those that fail a CHECK, or whose values don't fit. Bisecting an insert with thousands of such
        rows would take long."""
        self._connection.execute("SAVEPOINT dualwrite_look; SET LOCAL transaction_read_only = on")
        found = Tried()
        self._insert(ns, found, stale=False)
        self._check(self._left(ns, found), found)
        self._connection.execute("RELEASE SAVEPOINT dualwrite_look")
        return found.refused

    @staticmethod
    def _left(ns: Iterable[int], found: Tried) -> list[int]:
        return [n for n in ns if n not in found.refused]

    def _refuse(self, found: Tried, n: int, refusal: Refused) -> None:
        if refusal.sqlstate != _READ_ONLY:  # a CHECK's or an index's function would write: only an apply can tell
            found.refused.setdefault(n, refusal)

    # --- the rows -------------------------------------------------------------------------------------------------

    def _insert(self, ns: Sequence[int], found: Tried, *, stale: bool) -> None:
        statement = self._updated_rows() if stale else self._inserted_rows()
        bisect(
            self._connection,
            list(ns),
            lambda part: self._connection.execute(statement, {"n": part}),
            lambda n, why: self._refuse(found, n, why),
            self._collection.place[0],
        )

    def _inserted_rows(self) -> sql.Composed:
        """Puts staged rows into the trial as an insert would write them. Parameters: n (int[])."""
        columns = self._collection.columns
        return sql.SQL(
            "INSERT INTO {} ({}, {}) SELECT s.dualwrite_n, {} FROM {} s WHERE s.dualwrite_n = ANY(%(n)s) ORDER BY s.dualwrite_n"
        ).format(TRIAL, _N, self._statements.names(columns), self._statements.names(columns, "s"), STAGE)

    def _updated_rows(self) -> sql.Composed:
        """Puts rows into the trial as an update by the stage would leave them. Parameters: n (int[])."""
        values: dict[str, sql.Composable] = {c.name: column_name(c.name, "t") for c in self._others if not c.generated}
        for c in self._collection.columns:
            kept = column_name(c.name, "s" if c.role == "key" else "t")
            values[c.name] = self._statements.updated(c) if c.role == "compared" else kept
        return sql.SQL(
            "INSERT INTO {} ({}, {}) SELECT s.dualwrite_n, {} FROM {} s JOIN {} t ON {} WHERE s.dualwrite_n = ANY(%(n)s) ORDER BY s.dualwrite_n"
        ).format(
            TRIAL,
            _N,
            COMMA.join(map(column_name, values)),
            COMMA.join(values.values()),
            STAGE,
            self._statements.table,
            self._statements.is_at("t", "s"),
        )

    def _look_for_nulls(self, ns: list[int], found: Tried) -> None:
        """NULLs in NOT NULL columns that get their value through another row, and name none."""
        for column in self._needed if ns else ():
            statement = sql.SQL(
                "SELECT s.dualwrite_n FROM {} s WHERE s.dualwrite_n = ANY(%(n)s) AND {} IS NULL"
            ).format(STAGE, named_column(self._collection, column, "s"))
            for (n,) in self._connection.execute(statement, {"n": ns}).fetchall():
                self._refuse(found, n, Refused(f"NotNullViolation 23502 (column {column.name})", "23502"))

    # --- CHECKs ---------------------------------------------------------------------------------------------------

    def _check(self, ns: list[int], found: Tried) -> None:
        """The first CHECK that each row fails, in Postgres's own order; all of them in one statement if none raises."""
        if not ns or not self._checks:
            return
        try:
            with self._connection.transaction():
                self._evaluate(self._checks, ns, found)
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise
            for check in self._checks:
                self._check_alone(check, self._left(ns, found), found)

    def _check_alone(self, check: Check, ns: list[int], found: Tried) -> None:
        try:
            bisect(
                self._connection,
                ns,
                lambda part: self._evaluate([check], part, found),
                lambda n, why: self._refuse(found, n, why),
                self._collection.place[0],
            )
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise

    def _evaluate(self, checks: Sequence[Check], ns: list[int], found: Tried) -> None:
        cases = sql.SQL(" ").join(
            sql.SQL("WHEN (") + _expression(check.expression) + sql.SQL(") IS FALSE THEN {}").format(sql.Literal(place))
            for place, check in enumerate(checks)
        )
        statement = sql.SQL(
            "SELECT * FROM (SELECT {n}, CASE {cases} END FROM {trial} WHERE {n} = ANY(%(n)s)) found (n, place) WHERE place IS NOT NULL"
        ).format(n=_N, cases=cases, trial=TRIAL)
        for n, place in self._connection.execute(statement, {"n": ns}).fetchall():
            self._refuse(found, n, by_constraint(checks[place].name, "23514"))

    # --- other rows -----------------------------------------------------------------------------------------------

    def _look_at_each_other(self, rows: Mapping[int, Row], promises: Promises, found: Tried, *, keeps: bool) -> None:
        """Refuses the rows that others exclude, and those that lack others. A row that lacks one keeps no place, so all take
        theirs again without it."""
        while left := {n: rows[n] for n in self._left(rows, found)}:
            if self._rivals:
                self._take_places(left, promises, found, keeps=keeps)
            if not self._own:
                return
            placed = self._left(left, found)
            found.needs.clear()
            self._look_at_own(placed, found)
            lacking = promises.lacking(rows, found)
            found.refused.update(lacking)
            again = lacking and found.lost
            if self._rivals and keeps:
                self._give_back({n: rows[n] for n in ([*placed, *found.lost] if again else lacking)}, promises)
            if not again:
                return
            for n in found.lost:
                del found.refused[n]
            found.lost.clear()

    def _give_back(self, rows: Mapping[int, Row], promises: Promises) -> None:
        """Takes rows of this page back from among the rivals."""
        if not rows:
            return
        self._connection.execute(sql.SQL("DELETE FROM {} WHERE {} = ANY(%(n)s)").format(RIVALS, _N), {"n": list(rows)})
        for n, row in rows.items():
            self._standing.pop(n, None)
            promises.release(row)

    def _make_rivals(self) -> None:
        """A table like the trial's, in which the unique keys and exclusion constraints that the catalog doesn't know hold."""
        if not self._rivals:
            return
        # Statements without parameters, which would not undo a doubled percent sign.
        made = {
            index: sql.SQL("ALTER TABLE {} ADD ").format(RIVALS) + sql.SQL(index.excludes)
            if index.excludes is not None
            else sql.SQL("CREATE UNIQUE INDEX ON {}").format(RIVALS) + sql.SQL(str(index.made_with))
            for index in self._rivals
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
                if index.exclusion:  # a unique key's rivals are known by the hashes of what they want
                    log.warning(
                        "%s: a dry run can't copy constraint %s (%s), so it counts rows as missing that an apply may refuse",
                        self._collection.name,
                        index.name,
                        postgres.condition(error),
                    )

    def _take_places(self, rows: Mapping[int, Row], promises: Promises, found: Tried, *, keeps: bool) -> None:
        """Refuses the rows that would stand where others do, in unique keys and exclusion constraints that the catalog doesn't
        know: where rows of the table do that stay, where rows of other pages were promised to, and where rows of this page come
        first. Promises the others if it `keeps`."""
        firsts: dict[str, int] = {}
        for n, row in rows.items():  # a page of keys may have one row under two labels
            firsts.setdefault(claimant(row), n)
        same = {n: firsts[claimant(row)] for n, row in rows.items() if firsts[claimant(row)] != n}
        self._take_each({n: row for n, row in rows.items() if n not in same}, promises, found, keeps=keeps)
        for n, first in same.items():
            if first in found.refused:
                self._refuse(found, n, found.refused[first])
                if first in found.lost:
                    found.lost.add(n)

    def _take_each(self, rows: Mapping[int, Row], promises: Promises, found: Tried, *, keeps: bool) -> None:
        """As `_take_places`, of rows that are all others'."""
        wants = self._wants(rows, promises.moved)
        late: set[int] = set()
        for n, row in rows.items():
            want = wants[n]
            staying = [h for h in want.held if not promises.moved.issuperset(h.keys)]
            if staying:
                if keeps:
                    promises.hold(row, want.held)
                self._refuse(found, n, by_constraint(staying[0].constraint, staying[0].sqlstate))
                continue
            if want.held or claimant(row) in promises.late:
                late.add(n)
            if (taken := promises.taken_by(want.places, row)) is not None:
                self._refuse(found, n, by_constraint(taken[0][0], "23505"))
                found.lost.add(n)
                self._lose(row, promises, contested=bool(late & {n}) or taken[1] in promises.late)
        left = self._left(rows, found)
        self._load({bucket for n in left for bucket in wants[n].buckets}, [rows[n] for n in left], promises)
        won: set[int] = set()

        def insert(part: list[int]) -> None:
            statement = sql.SQL(
                "INSERT INTO {} SELECT * FROM {} t WHERE t.{n} = ANY(%(n)s) ORDER BY t.{n} ON CONFLICT DO NOTHING RETURNING {n}"
            ).format(RIVALS, TRIAL, n=_N)
            won.update(n for (n,) in self._connection.execute(statement, {"n": part}).fetchall())

        if keeps:
            bisect(
                self._connection, left, insert, lambda n, why: self._refuse(found, n, why), self._collection.place[0]
            )
        left = self._left(left, found)
        losers = [n for n in left if n not in won]
        slow = [*(late & won), *(n for n, by in self._standing.items() if by in promises.late)]
        for index in self._rivals if losers else ():
            for n, contested in self._collide(index, self._left(losers, found), slow):
                self._refuse(found, n, by_constraint(index.name, index.sqlstate))
                found.lost.add(n)
                self._lose(rows[n], promises, contested=contested or n in late)
        for n in self._left(losers, found) if keeps else ():  # equal by the index's own order, and by no operator
            self._refuse(found, n, by_constraint(self._rivals[0].name, self._rivals[0].sqlstate))
            found.lost.add(n)
        if keeps:
            self._promise({n: rows[n] for n in self._left(left, found)}, wants, late, promises, found)

    @staticmethod
    def _lose(row: Row, promises: Promises, *, contested: bool) -> None:
        promises.settle(row, late=contested)
        if contested:
            promises.contest(row)

    def _wants(self, rows: Mapping[int, Row], moved: set[Key]) -> dict[int, _Wants]:
        """What each row wants in the constraints that the catalog doesn't know."""
        wants = {n: _Wants() for n in rows}
        for index in self._rivals:
            for hashed in (True, False):
                try:
                    with self._connection.transaction():
                        answer = self._connection.execute(
                            self._rivals_in(index, hashed=hashed), {"n": list(rows)}
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
                        more = len(keys) == _MOST_HOLDERS
                        wants[n].held.append(Held(index.name, index.sqlstate, index.immediate, keys, more=more))
                    if index.exclusion or not hashed:
                        wants[n].buckets.append((index.name, first, second))
                    else:
                        wants[n].places.append((index.name, first, second))
                break
        return wants

    def _itself(self, keys: Sequence[sql.Composable]) -> sql.Composed:
        """Whether a row of the table, `h`, has the key of a row of the trial, `r`. `keys`: what their columns are called."""
        return AND.join(
            has_key_part(c, sql.SQL("h.{}").format(alias), sql.SQL("r.{}").format(alias))
            for c, alias in zip(self._collection.key, keys, strict=True)
        )

    def _rivals_in(self, index: Index, *, hashed: bool) -> sql.Composed:
        """Of some rows (parameter: n), those that have a place in a constraint: n, whether another row of the table stands there,
        and two hashes of what must be equal in both."""
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
            n=_N,
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
        """The keys of the other rows of the table that stand in a constraint where some rows want to: all, or as many as show that
        not all of them have moved. Without parts, if a row is in another's share of the table."""
        found = self._some_holders(index, ns, _MOST_HOLDERS) if ns else {}
        unclear = [n for n, keys in found.items() if len(keys) == _MOST_HOLDERS and moved.issuperset(keys)]
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
            n=_N,
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
        """Of some rows, those that would stand where rows that were promised do, in one constraint; and whether one of these is
        among `slow`."""
        statement = sql.SQL(
            """
            SELECT r.{n}, bool_or(h.{n} = ANY(%(slow)s))
            FROM (SELECT {n}, {elements} FROM {trial} WHERE {n} = ANY(%(n)s) AND {where}) r
            JOIN (SELECT {n}, {elements} FROM {rivals} WHERE {where}) h ON {same}
            GROUP BY r.{n}
            """
        ).format(n=_N, elements=_elements(index), trial=TRIAL, rivals=RIVALS, where=_where(index), same=_same(index))
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
            sql.SQL("x.{}::{}").format(sql.Identifier(f"c{i}"), _expression(kind))
            for i, kind in enumerate(self._kinds.values())
        )
        given = COMMA.join(sql.SQL("%s::text[]") for _ in columns)
        names = COMMA.join(sql.Identifier(f"c{i}") for i in range(len(columns)))
        self._connection.execute(
            sql.SQL(
                "INSERT INTO {} ({}, {}) SELECT x.n, {} FROM unnest(%s::int4[], {}) AS x (n, {}) ON CONFLICT DO NOTHING"
            ).format(RIVALS, _N, COMMA.join(map(column_name, self._kinds)), values, given, names),
            [list(numbers), *columns],
        )

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """The columns that decide who excludes whom, with their types."""
        reads = frozenset().union(*(index.reads for index in self._rivals))
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
            if (
                taken := promises.taken_by(wants[n].places, row)
            ) is not None:  # in an index that couldn't be made again
                self._refuse(found, n, by_constraint(taken[0][0], "23505"))
                found.lost.add(n)
                continue
            self._standing[n] = claimant(row)
            promises.take(row, wants[n].places)
            promises.settle(row, late=n in late)
        recorded = [n for n in self._left(rows, found) if wants[n].buckets]
        if recorded:
            texts = COMMA.join(sql.SQL("{}::text").format(column_name(name)) for name in self._kinds)
            statement = sql.SQL("SELECT {n}, ARRAY[{}]::text[] FROM {} WHERE {n} = ANY(%(n)s)").format(
                texts, TRIAL, n=_N
            )
            for n, record in self._connection.execute(statement, {"n": recorded}).fetchall():
                promises.record(rows[n], wants[n].buckets, record)

    def _look_at_other_shares(self, ns: list[int], found: Tried) -> None:
        """Rows of others' shares of the table that hold what a row wants in a unique key that the catalog knows."""
        for index in self._shared if ns else ():
            columns = [self._collection.column(name) for name in index.columns or ()]
            same = AND.join(column_name(c.name, "h") + operator(c, "=") + column_name(c.name, "r") for c in columns)
            statement = sql.SQL(
                "SELECT r.{n} FROM {trial} r WHERE r.{n} = ANY(%(n)s) AND EXISTS (SELECT FROM {table} h WHERE {same} AND ({own}) IS NOT TRUE)"
            ).format(
                n=_N, trial=TRIAL, table=self._statements.table, same=same, own=AND.join(self._statements.own("h"))
            )
            for (n,) in self._connection.execute(statement, {"n": ns}).fetchall():
                self._refuse(found, n, by_constraint(index.name, index.sqlstate))

    def _look_outside(self, ns: list[int], found: Tried) -> None:
        """References that the catalog doesn't know, to absent rows."""
        for foreign_key in self._outside if ns else ():
            statement = sql.SQL("SELECT r.{} FROM {} r WHERE r.{} = ANY(%(n)s) AND {}").format(
                _N, TRIAL, _N, _dangling(foreign_key)
            )
            for (n,) in self._connection.execute(statement, {"n": ns}).fetchall():
                self._refuse(found, n, by_constraint(foreign_key.name, "23503"))

    def _look_at_own(self, ns: list[int], found: Tried) -> None:
        """References to absent rows of the same table, unless other rows of this page will be these."""
        for foreign_key in self._own if ns else ():
            key = COMMA.join(sql.SQL("{}::text").format(column_name(name, "r")) for name in foreign_key.columns)
            statement = sql.SQL("SELECT r.{}, ARRAY[{}]::text[] FROM {} r WHERE r.{} = ANY(%(n)s) AND {}").format(
                _N, key, TRIAL, _N, _dangling(foreign_key)
            )
            for n, needed in self._connection.execute(statement, {"n": ns}).fetchall():
                found.needs.setdefault(n, []).append((foreign_key.name, tuple(needed)))


def _is_shared(collection: Collection, index: Index) -> bool:
    """Whether rows outside the collection's share of its table may hold the values of an index of it."""
    return bool(collection.rows) and index.columns is not None and not set(collection.rows) <= set(index.columns)


@dataclass(slots=True)
class _Wants:
    """What a row wants in the constraints that the catalog doesn't know: places in unique keys, and `buckets`, places that other
    rows may have too if they don't exclude it. `held`: where rows of the table stand."""

    places: list[Place] = field(default_factory=list)
    buckets: list[Place] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)


def _places(index: Index) -> list[sql.Identifier]:
    return [sql.Identifier(f"dualwrite_{i}") for i in range(len(index.elements))]


def _elements(index: Index) -> sql.Composed:
    """An index's columns and expressions, each under a name of ours."""
    return COMMA.join(
        _expression(element) + sql.SQL(" AS {}").format(place)
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
    return sql.SQL("true") if index.predicate is None else _expression(index.predicate)


def _expression(text: str) -> sql.SQL:
    """SQL over a table's columns, as Postgres prints it, for a statement with parameters."""
    return sql.SQL(text.replace("%", "%%"))


def _dangling(foreign_key: ForeignKey) -> sql.Composed:
    """True if a row `r` references an absent row."""
    pairs = list(zip(foreign_key.columns, foreign_key.referenced, strict=True))
    return sql.SQL("{} AND NOT EXISTS (SELECT FROM {} p WHERE {})").format(
        AND.join(sql.SQL("{} IS NOT NULL").format(column_name(here, "r")) for here, _ in pairs),
        sql.Identifier(foreign_key.schema, foreign_key.table),
        AND.join(sql.SQL("{} = {}").format(column_name(there, "p"), column_name(here, "r")) for here, there in pairs),
    )
