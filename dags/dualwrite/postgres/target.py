"""Reads and writes the target's rows. Everything here runs in short transactions that hold no lock while Firestore
is read; see docs/protocol.md for the order of steps and the interleavings considered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from dualwrite import postgres
from dualwrite.model.cell_types import Json
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Row, Staged, staged
from dualwrite.model.pace import Pace
from dualwrite.model.verdicts import Reason
from dualwrite.postgres import privileges
from dualwrite.postgres.bad_rows import Refused, at_column, bisect, may_be_a_rows, refused_by
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.enforced import Enforced, enforced
from dualwrite.postgres.promises import Promises
from dualwrite.postgres.references import Reference, columns_set_null, references_to, why_kept
from dualwrite.postgres.rows import Rows, key_json, numbered
from dualwrite.postgres.statements import Statements
from dualwrite.postgres.text import stored
from dualwrite.postgres.trial import Trial

_ATTEMPTS = 3
_KEYS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A staged row that does not match: its number in the page, and the target's row at its key when the page was compared."""

    n: int
    row: Row
    exists: bool
    """Whether the target has a row at its key."""
    xmin: str | None
    columns: tuple[str, ...]
    lacks: tuple[str, ...]
    """Columns that reference a row which isn't there."""
    holders: tuple[Key | None, ...]
    """For each further unique key: the key of another row that holds it."""
    digest: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing a page: differences, rows that could not be staged, rows whose counters lag."""

    differences: list[Difference]
    refused: list[tuple[int, Refused]]
    derived_lag: int
    others: Sequence[tuple[int, Key]] = ()
    """Keys of rows beside those of documents with one row, each with the number of a document that may have it."""


@dataclass(frozen=True, slots=True)
class Write:
    """The result of a write, by numbers in the page: journal ids of rows written, and why Postgres refused others. A row in
    neither was changed by a client meanwhile; that was checked, not assumed."""

    journal: dict[int, int] = field(default_factory=dict)
    refused: dict[int, Refused] = field(default_factory=dict)
    unmade: set[int] = field(default_factory=set)
    """Rows that were not written because the table undoes the update: no column that differed would be right afterwards."""

    late: set[int] = field(default_factory=set)
    """Rows that were inserted with a null for a reference to a row that isn't there yet."""

    def has(self, n: int) -> bool:
        """Whether the write of this row has a result."""
        return n in self.journal or n in self.refused or n in self.unmade


class _Unmade(Exception):
    """Raised to roll back an update that the table's triggers undo."""

    def __init__(self, ns: set[int]) -> None:
        super().__init__()
        self.ns = ns


class Candidate(NamedTuple):
    """A row to delete, if it is still the version that was read."""

    key: Key
    label: str
    path: str | None
    xmin: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """The result of a delete, by label: journal ids of deleted rows, and why others are kept. A row in neither was changed by a
    client since it was read."""

    journal: dict[str, int] = field(default_factory=dict)
    kept: dict[str, Reason] = field(default_factory=dict)


_TWINS = Refused(
    "several_rows: the table has several rows with this key, whose times differ by less than a millisecond"
)
"""A document has one row. Which of these it is, a person must say."""


class _ReferencesChanged(Exception):
    """The foreign keys to a table, or our view of their rows, changed in the middle of a delete."""


class Target(Rows):
    """The target's tables, over one connection. Not for several threads at once."""

    def __init__(self, connect: Callable[[], Connection], catalog: Catalog, pace: Pace | None = None) -> None:
        super().__init__(connect, catalog, pace)
        self._enforced: dict[str, Enforced] = {}
        self._trial: Trial | None = None
        """The trial of the page that is staged."""
        self._to_blame: dict[str, int] = {}
        """By collection, the place of the column whose value was refused last."""
        self._nulling: dict[str, frozenset[str]] = {}

    def statements(self, collection: Collection) -> Statements:
        return Statements.of(self.catalog, collection)

    # --- inside a transaction of the caller's ---------------------------------------------------------------------

    def compare(self, connection: Connection, collection: Collection, rows: Sequence[Row]) -> Comparison:
        """Stages the rows and compares them with the target. The stage lives until the transaction ends."""
        return self.compare_staged(
            connection, collection, [staged(n, row) for n, row in enumerate(rows)], rows.__getitem__
        )

    def compare_staged(
        self, connection: Connection, collection: Collection, page: Sequence[Staged], row: Callable[[int], Row]
    ) -> Comparison:
        """As `compare`, without `Row` objects: each of `page` is numbered by its place in it, and `row(n)` is
        called only for those that differ."""
        refused = self._stage(connection, collection, page)
        results = connection.execute(self.statements(collection).compare_stage)
        results.nextset()  # past those of RELEASE SAVEPOINT and of looking values up
        results.nextset()
        differences = []
        twins: set[int] = set()
        for n, exists, xmin, columns, lacks, holders, digest, has_twins in results.fetchall():
            if has_twins:
                twins.add(n)
                continue
            others = tuple(None if h is None else tuple(h) for h in holders)
            differences.append(Difference(n, row(n), exists, xmin, tuple(columns), tuple(lacks), others, digest))
        refused += [(n, _TWINS) for n in sorted(twins)]
        results.nextset()
        [[lag]] = results.fetchall()
        results.nextset()
        beside = [(n, tuple(key)) for n, *key in results.fetchall()]
        return Comparison(differences, refused, lag, beside)

    def _stage(
        self, connection: Connection, collection: Collection, page: Sequence[Staged]
    ) -> list[tuple[int, Refused]]:
        """Copies a page into a new stage. Returns the rows that the stage refuses, by number."""
        self._trial = None
        connection.execute(self.statements(collection).create_stage)
        every = list(range(len(page)))
        refused: list[tuple[int, Refused]] = []
        try:
            self._copy(connection, collection, page, every)
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise
            connection.execute("ROLLBACK TO SAVEPOINT dualwrite_staging")
            bisect(
                connection,
                every,
                lambda ns: self._copy(connection, collection, page, ns),
                lambda n, why: refused.append((n, self._blamed(connection, collection, page[n], why))),
            )
        return refused

    def _blamed(self, connection: Connection, collection: Collection, row: Staged, why: Refused) -> Refused:
        """A refusal with the column whose value Postgres, or psycopg, refuses: each is tried by itself, first the one that was to
        blame the last time."""
        if " column " in why.text:
            return why
        statements = self.statements(collection)
        every = range(len(collection.columns))
        last = self._to_blame.get(collection.name, 0)
        for index in sorted(every, key=lambda i: i != last):
            try:
                with (
                    connection.transaction(force_rollback=True),
                    connection.cursor() as cursor,
                    cursor.copy(statements.copy_column(index)) as copy,
                ):
                    if statements.copy_types:
                        copy.set_types([statements.copy_types[0], statements.copy_types[2 + index]])
                    copy.write_row((row[0], row[2 + index]))
            except postgres.Error as error:
                if not may_be_a_rows(error):
                    raise
                self._to_blame[collection.name] = index
                return at_column(refused_by(error), collection.columns[index].name)
        return why

    def _copy(self, connection: Connection, collection: Collection, page: Sequence[Staged], ns: list[int]) -> None:
        statements = self.statements(collection)
        with connection.cursor() as cursor, cursor.copy(statements.copy_stage) as copy:
            if statements.copy_types:
                copy.set_types(statements.copy_types)
            for n in ns:
                copy.write_row(page[n])

    def enforced(self, connection: Connection, collection: Collection) -> Enforced:
        """The constraints and triggers of the collection's table, asked once."""
        name = ".".join(collection.place)
        if name not in self._enforced:
            self._enforced.update(enforced(connection, privileges.relations(connection, [name])))
        return self._enforced[name]

    def insert(
        self,
        connection: Connection,
        collection: Collection,
        rows: Sequence[Row],
        ns: list[int],
        run_id: str,
        late: Sequence[int] = (),
    ) -> Write:
        """Inserts staged rows (by their number) that are still absent. A row that a client inserted meanwhile is left
        alone and appears in neither part of the result. `late`: those that refer to absent rows, which may be among these rows: they
        are inserted with nulls, which are then filled in."""
        statements, result = self.statements(collection), Write()
        if late:
            connection.execute(statements.leave_out, {"n": list(late)})

        def write(statement: postgres.sql.Composed) -> Callable[[list[int]], None]:
            return lambda part: result.journal.update(
                self._journaled(connection, collection, statement, rows, part, run_id)
            )

        def refuse(n: int, why: Refused) -> None:
            result.refused[n] = self._judged(connection, collection, why)

        self._write_good(connection, collection, ns, write(statements.insert), refuse, result)
        left = [n for n in ns if n not in result.journal and n not in result.refused]
        if left:
            # No row was written, and there was no error: a client was faster, or a trigger skipped the row.
            absent = [n for (n,) in connection.execute(statements.absent, {"n": left}).fetchall()]
            bisect(connection, sorted(absent), write(statements.insert_or_fail), refuse, collection.place[0])
            for n in absent:
                if n not in result.journal and n not in result.refused:
                    result.refused[n] = self._left_out(connection, collection, "insert")
        if inserted := {n: result.journal[n] for n in late if n in result.journal}:
            result.late.update(inserted)
            try:
                with postgres.as_a_client(connection, collection.place[0]):
                    given = {"n": list(inserted), "ids": list(inserted.values())}
                    result.late.difference_update(n for (n,) in connection.execute(statements.fill, given).fetchall())
            except postgres.Error as error:
                if not may_be_a_rows(error):
                    raise  # otherwise each row is updated by itself later, and a refusal is reported
        return result

    def _write_good(
        self,
        connection: Connection,
        collection: Collection,
        ns: list[int],
        write: Callable[[list[int]], None],
        refuse: Callable[[int, Refused], None],
        result: Write,
    ) -> None:
        """Inserts all rows but the bad ones. If a CHECK fails and no trigger could correct the row, the trial finds the rows that fail
        one first: thousands of them would make the bisection long."""
        if not ns:
            return
        try:
            with postgres.as_a_client(connection, collection.place[0]):
                write(ns)
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise
            if error.sqlstate == "23514" and not self.enforced(connection, collection).firing("insert", before=True):
                result.refused.update(self._trial_of(connection, collection).failing_checks(ns))
            bisect(connection, [n for n in ns if n not in result.refused], write, refuse, collection.place[0])

    def try_write(
        self,
        connection: Connection,
        collection: Collection,
        rows: Mapping[int, Row],
        promises: Promises,
        *,
        stale: bool,
        keeps: bool,
    ) -> dict[int, Refused]:
        """The staged rows that the table would refuse, by their number, if they were inserted (`stale`: if the rows at their keys were
        updated) after all promised rows. `keeps`: the others are promised from now on. Writes only temporary tables."""
        if not rows:
            return {}
        trial = self._trial_of(connection, collection)
        return trial.rows(rows, promises, stale=stale, keeps=keeps)

    def _trial_of(self, connection: Connection, collection: Collection) -> Trial:
        if self._trial is None:
            self._trial = Trial(connection, self.catalog, collection, self.enforced(connection, collection))
        return self._trial

    def update(
        self, connection: Connection, collection: Collection, differences: Sequence[Difference], run_id: str
    ) -> Write:
        """Updates the rows of these differences that are still as they were read."""
        statements = self.statements(collection)
        by_number = {d.n: d for d in differences}
        rows = {n: d.row for n, d in by_number.items()}
        result = Write()

        def write(part: list[int]) -> None:
            versions = [by_number[n].xmin for n in part]
            written = self._journaled(connection, collection, statements.update, rows, part, run_id, xmin=versions)
            if written and changing:  # triggers may undo the update
                left = dict(connection.execute(statements.left_differing, {"n": list(written)}).fetchall())
                unmade = {n for n in written if set(by_number[n].columns) <= set(left.get(n, ()))}
                if unmade:
                    raise _Unmade(unmade)
            result.journal.update(written)

        def refuse(n: int, why: Refused) -> None:
            result.refused[n] = self._judged(connection, collection, why)

        changing = bool(self.enforced(connection, collection).firing("update")) if by_number else False
        while todo := [n for n in by_number if not result.has(n)]:
            try:
                bisect(connection, todo, write, refuse, collection.place[0])
                break
            except _Unmade as unmade:
                result.unmade.update(unmade.ns)
        left = [n for n in by_number if not result.has(n)]
        if left:
            # Still the version that was read, so no client was faster.
            versions = {"n": left, "xmin": [by_number[n].xmin for n in left]}
            for (n,) in connection.execute(statements.unmoved, versions).fetchall():
                result.refused[n] = self._left_out(connection, collection, "update")
        return result

    def _judged(self, connection: Connection, collection: Collection, why: Refused) -> Refused:
        """A refusal, with `passing` and `own_table` by its constraint."""
        if why.constraint is None or (why.sqlstate or "")[:2] != "23":
            return why
        live = self.enforced(connection, collection)
        if why.table != (live.schema, live.table):
            return why
        return replace(
            why,
            passing=why.constraint in live.known(self.catalog, collection),
            own_table=any(k.own_table and k.name == why.constraint for k in live.foreign_keys),
        )

    def _left_out(self, connection: Connection, collection: Collection, event: str) -> Refused:
        """Why a row was not written, though nothing raised and no client was faster."""
        names = self.enforced(connection, collection).firing(event, before=True)
        by = f"trigger {', '.join(names)}" if names else "a policy or a rule"
        return Refused(f"LeftOut ({by})")

    def _journaled(
        self,
        connection: Connection,
        collection: Collection,
        statement: postgres.sql.Composed,
        rows: Sequence[Row] | dict[int, Row],
        ns: list[int],
        run_id: str,
        **more: Any,
    ) -> dict[int, int]:
        """Runs a writing statement on staged rows; returns the journal's ids of those written, by number."""
        parameters = {
            "n": ns,
            "label": [rows[n].label for n in ns],
            "path": [stored(rows[n].path) for n in ns],
            "run": run_id,
            "collection": collection.name,
            "table": collection.table,
            **more,
        }
        # One statement never writes two documents with the same label: they have the same key.
        numbers = {rows[n].label: n for n in ns}
        return {numbers[label]: i for i, label in connection.execute(statement, parameters)}

    # --- transactions of their own --------------------------------------------------------------------------------

    def delete(
        self,
        collection: Collection,
        candidates: Sequence[Candidate],
        run_id: str,
        *,
        undoes: Mapping[str, int] | None = None,
        then: Callable[[Connection, Deleted], None] = lambda *_: None,
    ) -> Deleted:
        """Deletes rows that are unchanged and that provably no row references.

        Three statements: the first locks the rows, so that no client can add a reference to them any more; the second
        sees every reference added before that; the third deletes. With one statement, a comment committed between its
        snapshot and the delete would be cascaded away. A row whose references the second can't see is kept, or Postgres itself
        refuses its delete (see references.py). If the foreign keys, or our view of their rows, have changed by the end, nothing was
        deleted.

        `undoes`: by label, the line of the journal that a delete takes back. `then` is called in the same transaction.
        """
        for _ in range(_ATTEMPTS):
            try:
                with self.transaction() as connection:
                    before = self._references(connection, collection)
                    deleted = self._delete(connection, collection, candidates, run_id, before, undoes or {})
                    if deleted.journal and self._references(connection, collection) != before:
                        raise _ReferencesChanged
                    then(connection, deleted)
                    return deleted
            except _ReferencesChanged:
                continue
        return Deleted()

    def _delete(
        self,
        connection: Connection,
        collection: Collection,
        candidates: Sequence[Candidate],
        run_id: str,
        references: Sequence[Reference],
        undoes: Mapping[str, int],
    ) -> Deleted:
        statements = self.statements(collection)
        keys = [key_json(c.key) for c in candidates]
        labels = [c.label for c in candidates]
        versions = {"n": list(range(len(keys))), "keys": keys, "xmin": [c.xmin for c in candidates]}
        locked = [n for (n,) in connection.execute(statements.lock, versions)]
        if not locked:
            return Deleted()
        journal: dict[str, int] = {}
        kept: dict[int, Reason] = {}

        def write(ns: list[int]) -> None:
            parameters = {
                "n": ns,
                "keys": [keys[n] for n in ns],
                "label": [labels[n] for n in ns],
                "path": [stored(candidates[n].path) for n in ns],
                "undoes": [undoes.get(labels[n]) for n in ns],
                "run": run_id,
                "collection": collection.name,
                "table": collection.table,
            }
            try:
                journal.update((label, i) for i, label in connection.execute(statements.delete, parameters).fetchall())
            except (postgres.errors.ForeignKeyViolation, postgres.errors.RestrictViolation):
                if len(ns) == 1:
                    kept[ns[0]] = Reason.STILL_REFERENCED
                raise

        # A constraint that is checked at the end of the transaction would refuse all rows, and name none.
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        left = locked
        while left:  # a row that others of these reference goes after them
            for n in left:
                kept.pop(n, None)
            named = {"n": left, "keys": [keys[n] for n in left]}
            own: set[int] = set()
            for n, places in connection.execute(self.lookups(collection).referenced(references), named).fetchall():
                by = [references[place] for place in places]
                if (why := why_kept(by)) is not None:
                    kept[n] = why
                    own |= {n} if all(r.relation == r.to for r in by) else set()
            free, before = [n for n in left if n not in kept], len(journal)
            bisect(connection, free, write, lambda n, _: kept.setdefault(n, Reason.DELETE_REFUSED), collection.place[0])
            left = sorted(own) if len(journal) > before else []
        for n in locked:  # neither deleted nor an error: a trigger, or a policy for deletes, left it out
            if n not in kept and labels[n] not in journal:
                kept[n] = Reason.DELETE_REFUSED
        return Deleted(journal, {labels[n]: why for n, why in kept.items()})

    def nulling(self, connection: Connection, collection: Collection) -> frozenset[str]:
        """The reference columns whose value becomes null when the row that they refer to is deleted: declared so, or by their live
        foreign key. Asked once."""
        if collection.name not in self._nulling:
            oid = privileges.relation(connection, collection.table)
            live = columns_set_null(connection, oid) if oid is not None else frozenset()
            self._nulling[collection.name] = frozenset(
                c.name for c in collection.references if c.may_become_null and (c.when_gone == "null" or c.name in live)
            )
        return self._nulling[collection.name]

    def _references(self, connection: Connection, collection: Collection) -> list[Reference]:
        oid = privileges.relation(connection, collection.table)
        return references_to(connection, [oid] if oid is not None else [])

    def referenced(self, collection: Collection, keys: Sequence[Key]) -> dict[Key, list[Reference]]:
        """The foreign keys through which rows reference those at these keys, or could, if we may not see the referencing rows. Keys
        without any are omitted."""
        by_key: dict[Key, list[Reference]] = {}
        with self.transaction() as connection:
            references = self._references(connection, collection)
            statement = self.lookups(collection).referenced(references)
            for start in range(0, len(keys) if references else 0, _KEYS_AT_ONCE):
                part = keys[start : start + _KEYS_AT_ONCE]
                for n, places in connection.execute(statement, numbered(part)):
                    if places:
                        by_key[part[n]] = [references[place] for place in places]
        return by_key

    def untouched(self, connection: Connection, collection: Collection, journal_ids: Sequence[int]) -> frozenset[str]:
        """Labels of journaled inserts whose row is still the very version that we inserted: it carries the xmin of
        its unconfirmed journal row, which the same statement wrote."""
        return frozenset(
            label for (label,) in connection.execute(self.lookups(collection).untouched, {"ids": list(journal_ids)})
        )


@lru_cache(maxsize=1)
def register_json_dumper() -> None:
    """Lets COPY send a `Json` as text, and as jsonb in binary form: one version byte, then the text."""
    postgres.register_text(Json, lambda value: value.text.encode())
    postgres.register_binary_text(Json, "jsonb", lambda value: b"\x01" + value.text.encode())


register_json_dumper()
