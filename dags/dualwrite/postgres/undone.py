"""Takes back a run's writes by the journal, each on the condition that the row is still our version.

Before-images never leave Postgres: the journal's lines are named by their ids. No document is read. A write that takes another back
is journaled as confirmed, because it follows the journal; so no run brings it into line with its document before somebody has looked
at the difference, which is opened in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dualwrite.model.declaration import Collection
from dualwrite.model.errors import ParameterError
from dualwrite.model.keys import Key
from dualwrite.model.verdicts import Reason
from dualwrite.postgres import privileges
from dualwrite.postgres.bad_rows import Refused, bisect
from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.fragments import AND, COMMA, Fragments, cast_to, column_name, has_key_part, statement
from dualwrite.postgres.own_schema import JOURNAL, SCHEMA
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.target import Candidate, Deleted, Target

_SQL = own_statements(__file__)
_COLLECTIONS = _SQL["collections"]
_DAGS = _SQL["dags"]
_COLUMNS = _SQL["columns"]
_JOURNALED_COLUMNS = _SQL["journaled_columns"]
_CHAINS = _SQL["chains"]
_REOPEN = _SQL["reopen"]
_SETTLE = _SQL["settle"]

Action = Literal["delete", "update", "insert"]
"""The action that takes a write back: a row that was inserted is deleted, one that was deleted is inserted."""

AT_ONCE = 300
"""Rows in one transaction: it holds their locks, so it must stay well below a second."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A run's writes to one row, from its first to its last line in the journal, and the action that takes them back (None: none is
    needed, because the row came and went)."""

    first: int
    last: int
    label: str
    key: Key
    path: str | None
    action: Action | None
    version: str | None
    """xmin of the row as the run left it. None: it was confirmed before versions were kept."""
    is_whole: bool
    """Nobody else wrote the row between two writes of the run, as far as the journal tells."""
    is_kept: bool
    """The row as it was before is still in the journal."""
    undone: bool
    """It was taken back before."""


@dataclass(slots=True)
class Undone:
    """The outcome for some chains, by label: done, taken back; moved, somebody has written the row since; kept, because other rows
    reference it; refused by Postgres. `differing`: taken back, except columns to which the table gave other values."""

    done: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    kept: dict[str, Reason] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    differing: set[str] = field(default_factory=set)


class _Statements(Fragments):
    """The statements that take writes of one collection back."""

    def same_as_journaled(self, alias: str) -> sql.Composed:
        return AND.join(
            has_key_part(
                c,
                column_name(c.name, alias),
                cast_to(c, sql.SQL("(j.row_key OPERATOR(pg_catalog.->>) {})").format(sql.Literal(i))),
            )
            for i, c in enumerate(self._collection.key)
        )

    def is_journaled(self, row: str) -> sql.Composed:
        """Whether `row`, a row of the table, is the collection's and has the key that was journaled."""
        return AND.join([self.same_as_journaled(row), *self.own(row)])

    _LINES = f"""
        x AS (
          SELECT * FROM unnest(%(first)s::int8[], %(last)s::int8[], %(version)s::text[], %(label)s::text[])
          AS x (first, last, version, label)
        ), j AS (
          SELECT x.last, x.version, x.label, b.path, b.row_key, b.row_before FROM x JOIN {SCHEMA}.repair_journal b ON b.id = x.first
        )
    """

    def restore(self, columns: Sequence[str]) -> sql.Composed:
        """Sets rows that are still our version back to their before-images. A column that still has its value is left alone, because
        its type may not restore the same value from JSON."""
        was = "(j.row_before OPERATOR(pg_catalog.->) {name}::text)"
        now = "(pg_catalog.to_jsonb(old.*) OPERATOR(pg_catalog.->) {name}::text)"
        assignments = COMMA.join(
            sql.SQL(f"{{column}} = CASE WHEN {was} IS DISTINCT FROM {now} THEN {{restored}} ELSE {{old}} END").format(
                column=column_name(c), name=sql.Literal(c), restored=column_name(c, "was"), old=column_name(c, "old")
            )
            for c in columns
        )
        return sql.SQL(
            """
            WITH {lines}, written AS (
              UPDATE {table} t SET {assignments}
              FROM j JOIN {table} old ON {old_is_j}, LATERAL pg_catalog.jsonb_populate_record(old, j.row_before) was
              WHERE {t_is_j} AND t.xmin = j.version::xid AND old.xmin = j.version::xid
              RETURNING j.last, j.label, j.path, j.row_key, pg_catalog.to_jsonb(old.*) AS row_before, j.version
            )
            INSERT INTO {journal}
              (run_id, collection, key, path, action, table_name, row_key, row_before, xmin_before, undoes, confirmed_at)
            SELECT %(run)s, %(collection)s, label, path, 'update', %(table)s, row_key, row_before, version, last, pg_catalog.clock_timestamp()
            FROM written
            RETURNING key
            """
        ).format(
            lines=sql.SQL(self._LINES), table=self.table, journal=JOURNAL, assignments=assignments,
            old_is_j=self.is_journaled("old"), t_is_j=self.is_journaled("t"),
        )  # fmt: skip

    def bring_back(self, columns: Sequence[str]) -> sql.Composed:
        """Inserts deleted rows whose key is free."""
        return sql.SQL(
            """
            WITH {lines}, written AS (
              INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
              SELECT {values} FROM j, LATERAL pg_catalog.jsonb_populate_record(NULL::{table}, j.row_before) was
              ON CONFLICT ({key}) DO NOTHING
              RETURNING {key}
            )
            INSERT INTO {journal}
              (run_id, collection, key, path, action, table_name, row_key, undoes, confirmed_at)
            SELECT %(run)s, %(collection)s, j.label, j.path, 'insert', %(table)s, j.row_key, j.last, pg_catalog.clock_timestamp()
            FROM written w JOIN j ON {same_key}
            RETURNING key
            """
        ).format(
            lines=sql.SQL(self._LINES), table=self.table, journal=JOURNAL,
            columns=COMMA.join(map(column_name, columns)), values=COMMA.join(column_name(c, "was") for c in columns),
            key=self.names(self._collection.key), same_key=self.same_as_journaled("w"),
        )  # fmt: skip

    @statement
    def differing(self) -> sql.Composed:
        """Labels of rows that differ from their before-images."""
        return sql.SQL(
            """
            WITH {lines}
            SELECT j.label FROM j JOIN {table} t ON {same_key}
            WHERE EXISTS (
              SELECT FROM jsonb_each(j.row_before) e WHERE to_jsonb(t.*) -> e.key IS DISTINCT FROM e.value
            )
            """
        ).format(lines=sql.SQL(self._LINES), table=self.table, same_key=self.is_journaled("t"))

    @statement
    def absent(self) -> sql.Composed:
        """Labels of rows that aren't there."""
        return sql.SQL(
            "WITH {lines} SELECT j.label FROM j WHERE NOT EXISTS (SELECT FROM {table} t WHERE {same})"
        ).format(lines=sql.SQL(self._LINES), table=self.table, same=self.is_journaled("t"))

    @statement
    def unmoved(self) -> sql.Composed:
        """Labels of rows that are still our version."""
        return sql.SQL(
            "WITH {lines} SELECT j.label FROM j JOIN {table} t ON {same} WHERE t.xmin = j.version::xid"
        ).format(lines=sql.SQL(self._LINES), table=self.table, same=self.is_journaled("t"))


class Undo:
    """Takes back the writes of the run `run`, in the name of the run `by`."""

    def __init__(self, target: Target, run: str, by: str) -> None:
        self._target = target
        self._run = run
        self._by = by

    def collections(self) -> set[str]:
        """The names of the collections that the run wrote to."""
        with self._target.transaction() as connection:
            rows = connection.execute(_COLLECTIONS, {"run": self._run}).fetchall()
        return {name for (name,) in rows}

    def chains(self, collection: Collection) -> list[Chain]:
        """The run's writes, a chain for each row, the row that was written last first."""
        parameters = {"run": self._run, "collection": collection.name}
        with self._target.transaction() as connection:
            rows = connection.execute(_CHAINS, parameters).fetchall()
        return [Chain(first, last, label, tuple(key), *others) for first, last, label, key, *others in rows]

    def take_back(self, collection: Collection, action: Action, chains: Sequence[Chain]) -> Undone:
        """Takes these writes back, all by one action, in short transactions."""
        undone = Undone()
        for part in _parts(chains):
            if action == "delete":
                self._delete(collection, part, undone)
            else:
                self._write(collection, action, part, undone)
        return undone

    # --- in one transaction -------------------------------------------------------------------------------------------

    def _delete(self, collection: Collection, part: Sequence[Chain], undone: Undone) -> None:
        candidates = [Candidate(c.key, c.label, c.path, str(c.version)) for c in part]

        def then(connection: Connection, deleted: Deleted) -> None:
            self._reopen(connection, collection, [c for c in part if c.label in deleted.journal])

        undoes = {c.label: c.last for c in part}
        deleted = self._target.delete(collection, candidates, self._by, undoes=undoes, then=then)
        undone.done |= deleted.journal.keys()
        undone.kept.update(deleted.kept)
        undone.moved |= undoes.keys() - deleted.journal.keys() - deleted.kept.keys()

    def _write(self, collection: Collection, action: Action, part: Sequence[Chain], undone: Undone) -> None:
        statements, done, refused = self._of(collection), set[str](), dict[str, Refused]()

        def lines(chains: Sequence[Chain]) -> dict[str, object]:
            return {
                "first": [c.first for c in chains], "last": [c.last for c in chains], "version": [c.version for c in chains],
                "label": [c.label for c in chains], "run": self._by, "collection": collection.name, "table": collection.table,
            }  # fmt: skip

        with self._target.transaction() as connection:
            columns = _columns(connection, collection, updated=action == "update")
            if action == "insert":
                known = {name for (name,) in connection.execute(_JOURNALED_COLUMNS, {"ids": [c.first for c in part]})}
                columns = [c for c in columns if c in known]
            made = statements.restore(columns) if action == "update" else statements.bring_back(columns)

            def write(ns: list[int]) -> None:
                done.update(label for (label,) in connection.execute(made, lines([part[n] for n in ns])).fetchall())

            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            ns = list(range(len(part)))
            bisect(connection, ns, write, lambda n, why: refused.update({part[n].label: why}), collection.place[0])
            left = [c for c in part if c.label not in done and c.label not in refused]
            if left:  # somebody was faster, or a trigger or a policy left it out
                asked_for = statements.unmoved if action == "update" else statements.absent
                for (label,) in connection.execute(asked_for, lines(left)).fetchall():
                    refused[label] = Refused("LeftOut (a trigger, a policy or a rule)")
            written = [c for c in part if c.label in done]
            undone.differing |= {label for (label,) in connection.execute(statements.differing, lines(written))}
            self._reopen(connection, collection, written)
        undone.done |= done
        undone.refused.update(refused)
        undone.moved |= {c.label for c in part} - done - refused.keys()

    def _reopen(self, connection: Connection, collection: Collection, chains: Sequence[Chain]) -> None:
        """Opens a difference for each row that was taken back, because it probably differs again: the next run looks at it, however
        old its document is."""
        if not chains:
            return
        labels = [c.label for c in chains]
        connection.execute(_REOPEN, {"ids": [c.last for c in chains], "reason": str(Reason.UNDONE), "run": self._by})
        connection.execute(_SETTLE, {"undone": self._run, "collection": collection.name, "labels": labels})

    def _of(self, collection: Collection) -> _Statements:
        return _Statements.of(self._target.catalog, collection)


def _columns(connection: Connection, collection: Collection, *, updated: bool) -> list[str]:
    """The columns of a table that an insert, or an update, may give a value."""
    oid = privileges.relation(connection, collection.table)
    rows = connection.execute(_COLUMNS, {"table": oid, "updated": updated}).fetchall()
    return [name for (name,) in rows]


def _parts(chains: Sequence[Chain]) -> Iterator[Sequence[Chain]]:
    for start in range(0, len(chains), AT_ONCE):
        yield chains[start : start + AT_ONCE]


def refuse_unknown(target: Target, run_id: str) -> None:
    """Raises ParameterError if a run's writes can't be taken back: the journal has none of this id, or two DAGs have runs of it."""
    with target.transaction() as connection:
        dags = {dag for (dag,) in connection.execute(_DAGS, {"run": run_id}).fetchall()}
    if len(dags) > 1:
        raise ParameterError(
            f"undo = {run_id}: {' and '.join(sorted(dags))} both have a run of this id, and the journal can't tell their writes "
            "apart. Restore rows by hand (docs/runbook.md).",
            code="undo-run-ambiguous",
        )
    if not Undo(target, run_id, "").collections():
        raise ParameterError(
            f"undo = {run_id}: the journal has no write of such a run. It keeps a write for 30 days; see the interventions on the "
            "Parity page for the runs that wrote.",
            code="undo-run-unknown",
        )
