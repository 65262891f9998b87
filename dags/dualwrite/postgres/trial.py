"""Finds the rows of a staged page that the target would refuse, without writing to it, so that a dry run's numbers are an
apply's.

The rows go into a temporary table of the live columns' types, NOT NULLs and indexes, and are checked there against
the CHECKs, and the unique keys, exclusion constraints and foreign keys that the catalog doesn't know. Only constant defaults
are evaluated: others call sequences, and functions that write. Nor can a CHECK's or an index's function write, because Postgres
makes that part of the transaction read-only (except for temporary tables).

Not covered: triggers, constraints that need a column whose default calls something, foreign keys to tables
that this role doesn't see. Preflight names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dualwrite import postgres
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.postgres.bad_rows import Refused, bisect, by_constraint, may_be_a_rows
from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.enforced import Check, Enforced, ForeignKey, Index
from dualwrite.postgres.fragments import AND, COMMA, column_name, named_column, operator
from dualwrite.postgres.statements import STAGE, Statements

TRIAL = sql.Identifier("pg_temp", "dualwrite_trial")
_N = sql.Identifier("dualwrite_n")
_READ_ONLY = "25006"

Place = tuple[str, int, int]
"""A place in a unique index: the constraint's name, and a hash of the values. Equal values have equal hashes."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The result of trying a page, by numbers in it. `takes`: the places that the others would take in unique keys that the
    catalog doesn't know. `needs`: the keys of rows of the same table that they reference and that aren't there."""

    refused: dict[int, Refused] = field(default_factory=dict)
    takes: dict[int, list[Place]] = field(default_factory=dict)
    needs: dict[int, list[tuple[str, tuple[str, ...]]]] = field(default_factory=dict)
    has_own_references: bool = False


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
        self._create(told)

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

    def rows(self, ns: Sequence[int], *, stale: bool) -> Tried:
        """Tries staged rows: to insert them, or to update the rows at their keys."""
        self._connection.execute("SAVEPOINT dualwrite_look; SET LOCAL transaction_read_only = on")
        found = Tried(has_own_references=bool(self._own))
        self._insert(ns, found, stale=stale)
        self._look_for_nulls(self._left(ns, found), found)
        self._check(self._left(ns, found), found)
        self._look_outside(self._left(ns, found), found)
        self._look_for_rivals(self._left(ns, found), found)
        self._look_at_other_shares(self._left(ns, found), found)
        if self._own:
            self._look_at_own(self._left(ns, found), found)
        self._connection.execute("RELEASE SAVEPOINT dualwrite_look")
        return found

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
            "SELECT * FROM (SELECT {n}, CASE {cases} END FROM {trial} WHERE {n} = ANY(%(n)s)) f (n, place) WHERE place IS NOT NULL"
        ).format(n=_N, cases=cases, trial=TRIAL)
        for n, place in self._connection.execute(statement, {"n": ns}).fetchall():
            self._refuse(found, n, by_constraint(checks[place].name, "23514"))

    # --- other rows -----------------------------------------------------------------------------------------------

    def _look_for_rivals(self, ns: list[int], found: Tried) -> None:
        """Rows of the target that hold what a row wants in a unique key or an exclusion constraint that the catalog doesn't
        know; and the places that the others would take."""
        for index in self._rivals:
            left = self._left(ns, found)
            for hashed in (not index.exclusion, False) if left else ():
                try:
                    with self._connection.transaction():
                        answer = self._connection.execute(self._rivals_in(index, hashed=hashed), {"n": left}).fetchall()
                except postgres.Error as error:  # values that can't be hashed, or compared
                    if not may_be_a_rows(error):
                        raise
                    continue
                for n, held, first, second in answer:
                    if held:
                        self._refuse(found, n, by_constraint(index.name, index.sqlstate))
                    elif hashed:
                        found.takes.setdefault(n, []).append((index.name, first, second))
                break

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

    def _rivals_in(self, index: Index, *, hashed: bool) -> sql.Composed:
        places = [sql.Identifier(f"dualwrite_{i}") for i in range(len(index.elements))]
        elements = COMMA.join(
            _expression(element) + sql.SQL(" AS {}").format(place)
            for element, place in zip(index.elements, places, strict=True)
        )
        where = sql.SQL("true") if index.predicate is None else _expression(index.predicate)
        operators = index.operators or (["IS NOT DISTINCT FROM" if index.nulls_collide else "="] * len(places))
        same = AND.join(
            sql.SQL("h.{} {} r.{}").format(place, sql.SQL(operator.replace("%", "%%")), place)
            for place, operator in zip(places, operators, strict=True)
        )
        keys = [sql.Identifier(f"dualwrite_k{i}") for i in range(len(self._collection.key))]
        key = COMMA.join(
            sql.SQL("{} AS {}").format(column_name(c.name), alias)
            for c, alias in zip(self._collection.key, keys, strict=True)
        )
        itself = AND.join(sql.SQL("h.{} = r.{}").format(alias, alias) for alias in keys)
        record = sql.SQL("ROW({})").format(COMMA.join(sql.SQL("r.{}").format(place) for place in places))
        hashes = sql.SQL(
            "hash_record_extended({}, 0), hash_record_extended({}, 1)" if hashed else "NULL::int8, NULL::int8"
        ).format(*([record, record] if hashed else []))
        filled = (
            sql.SQL("")
            if index.nulls_collide
            else sql.SQL(" WHERE ") + AND.join(sql.SQL("r.{} IS NOT NULL").format(place) for place in places)
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
            elements=elements,
            table=self._statements.table,
            where=where,
            same=same,
            itself=itself,
            hashes=hashes,
            trial=TRIAL,
            filled=filled,
        )

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


def _expression(text: str) -> sql.SQL:
    """SQL over a table's columns, as Postgres prints it."""
    return sql.SQL(text.replace("%", "%%"))


def _dangling(foreign_key: ForeignKey) -> sql.Composed:
    """True if a row `r` references an absent row."""
    pairs = list(zip(foreign_key.columns, foreign_key.referenced, strict=True))
    return sql.SQL("{} AND NOT EXISTS (SELECT FROM {} f WHERE {})").format(
        AND.join(sql.SQL("{} IS NOT NULL").format(column_name(here, "r")) for here, _ in pairs),
        sql.Identifier(foreign_key.schema, foreign_key.table),
        AND.join(sql.SQL("{} = {}").format(column_name(there, "f"), column_name(here, "r")) for here, there in pairs),
    )
