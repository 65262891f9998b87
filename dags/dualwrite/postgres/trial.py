"""Finds the rows of a staged page that the target would refuse, without writing to it, so that a dry run's numbers are an
apply's.

The rows go into a temporary table of the live columns' types, NOT NULLs and indexes, and are checked there against
the CHECKs and the foreign keys that the catalog doesn't know; rivals.py has the rows that exclude each other. Only constant
defaults are evaluated: others call sequences, and functions that write. Nor can a CHECK's or an index's function write, because
Postgres makes that part of the transaction read-only (except for temporary tables).

Not covered: triggers, constraints that need a column whose default calls something, foreign keys to tables
that this role doesn't see. Preflight names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dualwrite import postgres
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.mapping import Row
from dualwrite.postgres.bad_rows import Refused, bisect, by_constraint, may_be_a_rows
from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.enforced import Check, Enforced, ForeignKey, Index
from dualwrite.postgres.fragments import AND, COMMA, column_name, expression, named_column, operator
from dualwrite.postgres.promises import Promises, Tried
from dualwrite.postgres.rivals import Rivals
from dualwrite.postgres.statements import STAGE, TRIAL, TRIAL_N, Statements


class Trial:
    """The trial of one staged page. Lives as long as its transaction."""

    def __init__(self, connection: Connection, catalog: Catalog, collection: Collection, live: Enforced) -> None:
        self._connection = connection
        self._collection = collection
        self._statements = Statements.of(catalog, collection)
        declared = {c.name for c in collection.columns}
        self._others = [c for c in live.columns if c.name not in declared and (c.constant or c.generated)]
        """Columns that the catalog doesn't declare, and whose value is known without asking for it."""
        told = declared | {c.name for c in self._others}
        self._checks = [c for c in live.checks if c.columns is not None and c.columns <= told]
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
        not_null = {c.name for c in live.columns if c.not_null}
        self._needed = [c for c in self._statements.held if c.name in not_null]
        self._create(live, told)
        indexes = [i for i in live.unknown_indexes(collection) if i.reads <= told]
        self._rivals = Rivals(connection, collection, self._statements, indexes)

    def _create(self, live: Enforced, told: set[str]) -> None:
        names = [c.name for c in self._collection.columns]
        # What comes through a row that an apply would insert first isn't known yet.
        held = {c.name for c in self._statements.held}
        plain = [c for c in self._others if c.generated is None]
        table = sql.SQL(
            "CREATE TEMPORARY TABLE dualwrite_trial ON COMMIT DROP AS SELECT NULL::int4 AS {}, {} FROM {} t WITH NO DATA"
        ).format(
            TRIAL_N, COMMA.join(column_name(n, "t") for n in [*names, *(c.name for c in plain)]), self._statements.table
        )
        changes = [
            *(
                sql.SQL("ALTER COLUMN {} SET NOT NULL").format(column_name(c.name))
                for c in live.columns
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
            for i in live.indexes
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
        self._look_for_nulls(found.left(ns), found)
        self._check(found.left(ns), found)
        self._look_outside(found.left(ns), found)
        self._look_at_other_shares(found.left(ns), found)
        self._look_at_each_other(rows, promises, found, keeps=keeps)
        for n in found.left(ns):
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
        self._check(found.left(ns), found)
        self._connection.execute("RELEASE SAVEPOINT dualwrite_look")
        return found.refused

    # --- the rows -------------------------------------------------------------------------------------------------

    def _insert(self, ns: Sequence[int], found: Tried, *, stale: bool) -> None:
        statement = self._updated_rows() if stale else self._inserted_rows()
        bisect(
            self._connection,
            list(ns),
            lambda part: self._connection.execute(statement, {"n": part}),
            found.refuse,
            self._collection.place[0],
        )

    def _inserted_rows(self) -> sql.Composed:
        """Puts staged rows into the trial as an insert would write them. Parameters: n (int[])."""
        columns = self._collection.columns
        return sql.SQL(
            "INSERT INTO {} ({}, {}) SELECT s.dualwrite_n, {} FROM {} s WHERE s.dualwrite_n = ANY(%(n)s) ORDER BY s.dualwrite_n"
        ).format(TRIAL, TRIAL_N, self._statements.names(columns), self._statements.names(columns, "s"), STAGE)

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
            TRIAL_N,
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
                found.refuse(n, Refused(f"NotNullViolation 23502 (column {column.name})", "23502"))

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
                self._check_alone(check, found.left(ns), found)

    def _check_alone(self, check: Check, ns: list[int], found: Tried) -> None:
        try:
            bisect(
                self._connection,
                ns,
                lambda part: self._evaluate([check], part, found),
                found.refuse,
                self._collection.place[0],
            )
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise

    def _evaluate(self, checks: Sequence[Check], ns: list[int], found: Tried) -> None:
        cases = sql.SQL(" ").join(
            sql.SQL("WHEN (") + expression(check.expression) + sql.SQL(") IS FALSE THEN {}").format(sql.Literal(place))
            for place, check in enumerate(checks)
        )
        statement = sql.SQL(
            "SELECT * FROM (SELECT {n}, CASE {cases} END FROM {trial} WHERE {n} = ANY(%(n)s)) found (n, place) WHERE place IS NOT NULL"
        ).format(n=TRIAL_N, cases=cases, trial=TRIAL)
        for n, place in self._connection.execute(statement, {"n": ns}).fetchall():
            found.refuse(n, by_constraint(checks[place].name, "23514"))

    # --- other rows -----------------------------------------------------------------------------------------------

    def _look_at_each_other(self, rows: Mapping[int, Row], promises: Promises, found: Tried, *, keeps: bool) -> None:
        """Refuses the rows that others exclude, and those that lack others. A row that lacks one keeps no place, so all take
        theirs again without it."""
        while left := {n: rows[n] for n in found.left(rows)}:
            if self._rivals:
                self._rivals.take_places(left, promises, found, keeps=keeps)
            if not self._own:
                return
            placed = found.left(left)
            found.needs.clear()
            self._look_at_own(placed, found)
            lacking = promises.lacking(rows, found)
            found.refused.update(lacking)
            again = lacking and found.lost
            if self._rivals and keeps:
                self._rivals.give_back({n: rows[n] for n in ([*placed, *found.lost] if again else lacking)}, promises)
            if not again:
                return
            for n in found.lost:
                del found.refused[n]
            found.lost.clear()

    # --- promised rows of other pages -------------------------------------------------------------------------------

    def _look_at_other_shares(self, ns: list[int], found: Tried) -> None:
        """Rows of others' shares of the table that hold what a row wants in a unique key that the catalog knows."""
        for index in self._shared if ns else ():
            columns = [self._collection.column(name) for name in index.columns or ()]
            same = AND.join(column_name(c.name, "h") + operator(c, "=") + column_name(c.name, "r") for c in columns)
            statement = sql.SQL(
                "SELECT r.{n} FROM {trial} r WHERE r.{n} = ANY(%(n)s) AND EXISTS (SELECT FROM {table} h WHERE {same} AND ({own}) IS NOT TRUE)"
            ).format(
                n=TRIAL_N, trial=TRIAL, table=self._statements.table, same=same, own=AND.join(self._statements.own("h"))
            )
            for (n,) in self._connection.execute(statement, {"n": ns}).fetchall():
                found.refuse(n, by_constraint(index.name, index.sqlstate))

    def _look_outside(self, ns: list[int], found: Tried) -> None:
        """References that the catalog doesn't know, to absent rows."""
        for foreign_key in self._outside if ns else ():
            statement = sql.SQL("SELECT r.{} FROM {} r WHERE r.{} = ANY(%(n)s) AND {}").format(
                TRIAL_N, TRIAL, TRIAL_N, _dangling(foreign_key)
            )
            for (n,) in self._connection.execute(statement, {"n": ns}).fetchall():
                found.refuse(n, by_constraint(foreign_key.name, "23503"))

    def _look_at_own(self, ns: list[int], found: Tried) -> None:
        """References to absent rows of the same table, unless other rows of this page will be these."""
        for foreign_key in self._own if ns else ():
            key = COMMA.join(sql.SQL("{}::text").format(column_name(name, "r")) for name in foreign_key.columns)
            statement = sql.SQL("SELECT r.{}, ARRAY[{}]::text[] FROM {} r WHERE r.{} = ANY(%(n)s) AND {}").format(
                TRIAL_N, key, TRIAL, TRIAL_N, _dangling(foreign_key)
            )
            for n, needed in self._connection.execute(statement, {"n": ns}).fetchall():
                found.needs.setdefault(n, []).append((foreign_key.name, tuple(needed)))


def _is_shared(collection: Collection, index: Index) -> bool:
    """Whether rows outside the collection's share of its table may hold the values of an index of it."""
    return bool(collection.rows) and index.columns is not None and not set(collection.rows) <= set(index.columns)


def _dangling(foreign_key: ForeignKey) -> sql.Composed:
    """True if a row `r` references an absent row."""
    pairs = list(zip(foreign_key.columns, foreign_key.referenced, strict=True))
    return sql.SQL("{} AND NOT EXISTS (SELECT FROM {} p WHERE {})").format(
        AND.join(sql.SQL("{} IS NOT NULL").format(column_name(here, "r")) for here, _ in pairs),
        sql.Identifier(foreign_key.schema, foreign_key.table),
        AND.join(sql.SQL("{} = {}").format(column_name(there, "p"), column_name(here, "r")) for here, there in pairs),
    )
