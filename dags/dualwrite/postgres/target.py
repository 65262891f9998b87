"""Reads and writes the target's rows. Everything here runs in short transactions that hold no lock while Firestore
is read; see docs/protocol.md for the order of steps and the interleavings considered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from dualwrite import postgres
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.mapping import Json, Key, Row, Staged, staged
from dualwrite.postgres import privileges
from dualwrite.postgres.bad_rows import Refused, bisect, may_be_a_rows, quoted
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.enforced import Enforced, enforced
from dualwrite.postgres.rows import Rows, key_json
from dualwrite.postgres.statements import Statements
from dualwrite.postgres.text import stored
from dualwrite.postgres.trial import Trial, Tried


@dataclass(frozen=True, slots=True)
class Difference:
    """A staged row that does not match: its number in the page, and what the target had at its key when the page was
    compared."""

    n: int
    row: Row
    found: bool
    xmin: str | None
    columns: tuple[str, ...]
    lacks: tuple[str, ...]
    """Columns that reference a row which isn't there."""
    holders: tuple[Key | None, ...]
    """For each further unique key: the key of another row that holds it."""
    digest: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A page compared: what differs, what could not even be staged, whose counters lag."""

    differences: list[Difference]
    refused: list[tuple[int, Refused]]
    derived_lag: int


@dataclass(frozen=True, slots=True)
class Write:
    """What a write did, by numbers in the page: journal ids of rows written, and why Postgres refused others. What stands
    in neither a client moved meanwhile: that is known, not supposed."""

    journal: dict[int, int] = field(default_factory=dict)
    refused: dict[int, Refused] = field(default_factory=dict)


class Target(Rows):
    """The target's tables, over one connection. Not for several threads at once."""

    def __init__(self, connect: Callable[[], Connection], catalog: Catalog) -> None:
        super().__init__(connect, catalog)
        self._enforced: dict[str, Enforced] = {}
        self._trial: Trial | None = None
        """Of the page that is staged."""

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
        """As `compare`, with rows that were never made: each of `page` is numbered by its place in it, and `row(n)` is
        asked only for those that differ or are refused."""
        refused = self._stage(connection, collection, page)
        looks = connection.execute(self.statements(collection).compare_stage)
        looks.nextset()  # the first is the savepoint's
        differences = [
            Difference(
                n,
                row(n),
                found,
                xmin,
                tuple(columns),
                tuple(lacks),
                tuple(None if h is None else tuple(h) for h in holders),
                digest,
            )
            for n, found, xmin, columns, lacks, holders, digest in looks.fetchall()
        ]
        looks.nextset()
        [[lag]] = looks.fetchall()
        return Comparison(differences, refused, lag)

    def _stage(
        self, connection: Connection, collection: Collection, page: Sequence[Staged]
    ) -> list[tuple[int, Refused]]:
        """Copies a page into a new stage. Returns the numbers of rows that don't fit even there."""
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
                lambda n, why: refused.append((n, why)),
            )
        return refused

    def _copy(self, connection: Connection, collection: Collection, page: Sequence[Staged], ns: list[int]) -> None:
        statements = self.statements(collection)
        with connection.cursor() as cursor, cursor.copy(statements.copy_stage) as copy:
            if statements.copy_types:
                copy.set_types(statements.copy_types)
            for n in ns:
                copy.write_row(page[n])

    def enforced(self, connection: Connection, collection: Collection) -> Enforced:
        """What the collection's table enforces, asked once."""
        if collection.table not in self._enforced:
            self._enforced.update(enforced(connection, privileges.relations(connection, [collection.table])))
        return self._enforced[collection.table]

    def insert(
        self, connection: Connection, collection: Collection, rows: Sequence[Row], ns: list[int], run_id: str
    ) -> Write:
        """Inserts staged rows (by their number) that are still absent. What a client inserted meanwhile is left alone
        and stands in neither part of the answer."""
        statements, found = self.statements(collection), Write()

        def write(statement: postgres.sql.Composed) -> Callable[[list[int]], None]:
            return lambda part: found.journal.update(
                self._journaled(connection, collection, statement, rows, part, run_id)
            )

        def refuse(n: int, why: Refused) -> None:
            found.refused[n] = self._judged(connection, collection, why)

        self._write_good(connection, collection, ns, write(statements.insert), refuse, found)
        left = [n for n in ns if n not in found.journal and n not in found.refused]
        if left:
            # No row was written, and there was no error: somebody was faster, or a trigger left the row out.
            absent = [n for (n,) in connection.execute(statements.absent, {"n": left}).fetchall()]
            bisect(connection, sorted(absent), write(statements.insert_or_fail), refuse)
            for n in absent:
                if n not in found.journal and n not in found.refused:
                    found.refused[n] = self._left_out(connection, collection, "insert")
        return found

    def _write_good(
        self,
        connection: Connection,
        collection: Collection,
        ns: list[int],
        write: Callable[[list[int]], None],
        refuse: Callable[[int, Refused], None],
        found: Write,
    ) -> None:
        """Inserts all rows but the bad ones. Where a CHECK fails and no trigger may put the row right, those that fail one are
        found on the trial first: thousands of them would make the bisection long."""
        if not ns:
            return
        try:
            with connection.transaction():
                write(ns)
        except postgres.Error as error:
            if not may_be_a_rows(error):
                raise
            if error.sqlstate == "23514" and not self.enforced(connection, collection).firing("insert", before=True):
                found.refused.update(self._trial_of(connection, collection).failing_checks(ns))
            bisect(connection, [n for n in ns if n not in found.refused], write, refuse)

    def try_write(self, connection: Connection, collection: Collection, ns: list[int], *, stale: bool) -> Tried:
        """What the table would refuse of staged rows: of inserting them, or of updating the rows at their keys. Writes
        nothing but a temporary table."""
        return self._trial_of(connection, collection).rows(ns, stale=stale) if ns else Tried()

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
        found = Write()

        def write(part: list[int]) -> None:
            versions = [by_number[n].xmin for n in part]
            found.journal.update(
                self._journaled(connection, collection, statements.update, rows, part, run_id, xmin=versions)
            )

        def refuse(n: int, why: Refused) -> None:
            found.refused[n] = self._judged(connection, collection, why)

        bisect(connection, list(by_number), write, refuse)
        left = [n for n in by_number if n not in found.journal and n not in found.refused]
        if left:
            # Still the version that was read, so nobody was faster.
            versions = {"n": left, "xmin": [by_number[n].xmin for n in left]}
            for (n,) in connection.execute(statements.unmoved, versions).fetchall():
                found.refused[n] = self._left_out(connection, collection, "update")
        return found

    def _judged(self, connection: Connection, collection: Collection, why: Refused) -> Refused:
        """A refusal with what the catalog knows of its constraint."""
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
        """Why a row was not written though nothing raised and nobody was faster."""
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
        # Two documents of one label can't be written in one statement: their key is one.
        numbers = {rows[n].label: n for n in ns}
        return {numbers[label]: i for i, label in connection.execute(statement, parameters)}

    # --- transactions of their own --------------------------------------------------------------------------------

    def delete(
        self, collection: Collection, candidates: Sequence[tuple[Key, str, str | None, str]], run_id: str
    ) -> dict[str, int]:
        """Deletes rows (key, label, path, xmin as read) that are unchanged and that no row references.

        Two statements: the first locks the rows, so that no client can add a reference to them any more; the second
        sees every reference added before that. With one statement, a comment committed between its snapshot and the
        delete would be cascaded away. Returns journal ids by label; a label that isn't there was not deleted.
        """
        statements = self.statements(collection)
        ns = list(range(len(candidates)))
        keys = [key_json(key) for key, _, _, _ in candidates]
        with self.transaction() as connection:
            referencing = self._referencing(connection, collection)
            locked = [
                n
                for (n,) in connection.execute(
                    statements.lock, {"n": ns, "keys": keys, "xmin": [xmin for _, _, _, xmin in candidates]}
                )
            ]
            if not locked:
                return {}
            deleted = connection.execute(
                statements.delete(referencing),
                {
                    "n": locked,
                    "keys": [keys[n] for n in locked],
                    "label": [candidates[n][1] for n in locked],
                    "path": [stored(candidates[n][2]) for n in locked],
                    "run": run_id,
                    "collection": collection.name,
                    "table": collection.table,
                },
            )
            return {label: journal_id for journal_id, label in deleted}

    def _referencing(self, connection: Connection, collection: Collection) -> list[tuple[str, str, str, str]]:
        """The live foreign keys to this table, those of tables that the catalog doesn't know included."""
        return connection.execute(
            """
            SELECT n.nspname::text, r.relname::text, a.attname::text, b.attname::text
            FROM pg_constraint k
            JOIN pg_class r ON r.oid = k.conrelid
            JOIN pg_namespace n ON n.oid = r.relnamespace
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
            JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
            WHERE k.contype = 'f' AND k.confrelid = %s::regclass
            """,
            (quoted(collection),),
        ).fetchall()

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
