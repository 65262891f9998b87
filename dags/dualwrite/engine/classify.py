"""Judges mapped documents against rows: one verdict for each, and, in the same transaction, the writes it calls for.

What the target alone can't settle is asked of the source between transactions, never inside one: whether the document
of a missing parent exists, and whether the document that a contested row belongs to does. Then the page is compared
again, until nothing is unknown.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dualwrite import postgres
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog, Collection, EntryKey, Field, ParentId, Segment
from dualwrite.model.errors import TargetError
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.postgres.target import Comparison, Difference, Key, Target, Write

log = logging.getLogger(__name__)

ATTEMPTS = 10
_REMEMBERED = 200_000
"""Parents and rows' owners remembered in one run; forgotten all at once when there are more."""

TRANSIENT = (
    postgres.errors.LockNotAvailable,
    postgres.errors.DeadlockDetected,
    postgres.errors.SerializationFailure,
    postgres.errors.OperationalError,
)

ParentState = Literal["present", "insertable", "gone", "unfit"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run may write. Nothing, by default."""

    insert: bool = False
    update: bool = False
    delete: bool = False

    @property
    def writes(self) -> bool:
        return self.insert or self.update or self.delete


@dataclass(frozen=True, slots=True)
class Unit:
    """One key to be examined by itself. Without a path it is a row whose document can only be searched for.

    `requires` names another document without which this key can't have a row: while that is gone, the key counts as
    gone too (what hangs below a post that was deleted).
    """

    label: str
    key: Key
    path: str | None
    entry: str | None = None
    requires: str | None = None


@dataclass(slots=True)
class _Known:
    """What was learned from the source in this run."""

    parents: dict[tuple[str, str], ParentState] = field(default_factory=dict)
    owners: dict[Key, bool] = field(default_factory=dict)
    """Keys of rows, and whether the document that the row belongs to exists."""
    claims: dict[tuple[int, Key], str] = field(default_factory=dict)
    """Unique keys of rows that this run inserts, or would."""

    def trim(self) -> None:
        for memo in (self.parents, self.owners):
            if len(memo) > _REMEMBERED:
                memo.clear()


class Judge:
    """Judges the units of one collection in one run.

    `settle_parents(collection name, paths)` says of documents whose rows aren't there what they are; a writing run
    inserts them first.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        catalog: Catalog,
        collection: Collection,
        *,
        report: CollectionReport,
        run_id: str,
        settle_parents: Callable[[str, list[str]], dict[str, ParentState]],
        strict_parents: bool = False,
    ) -> None:
        """`strict_parents`: before a row is called missing, all documents that it requires are looked up, not only
        those whose rows aren't there. A row of a deleted post may still be there, and would let a comment in."""
        self.source = source
        self.target = target
        self.catalog = catalog
        self.collection = collection
        self.report = report
        self.run_id = run_id
        self._settle_parents = settle_parents
        self._strict_parents = strict_parents
        self._known = _Known()
        self._owned: set[str] = set()
        """Paths of documents that were found to own a key which others share; see `owner_finding`."""

    def judge(
        self, rows: list[Row], policy: Policy, expected: dict[Key, str | None] | None = None
    ) -> tuple[list[tuple[Row, Finding | None]], Write]:
        """Verdicts of all rows that do not match, and what was written of them.

        With `expected` (versions read before the documents) stale rows are updated too, on that condition. A finding
        of None is a row that shares its key with another document's: settled when all of them were seen.
        """
        for attempt in range(ATTEMPTS):
            try:
                with self.target.transaction() as connection:
                    comparison = self.target.compare(connection, self.collection, rows)
                    needs = self._needs(comparison)
                    settled = None if needs else self._settle(connection, rows, comparison, policy, expected)
            except TRANSIENT as error:
                self.wait_or_raise(error, attempt)
                continue
            if settled is not None:
                judged, write = settled
                # Counted after the commit: an attempt that was rolled back wrote nothing.
                self.report.inserted += write.inserted
                self.report.updated += len(write.journal) - write.inserted
                self.report.derived_lag += comparison.derived_lag if expected is None else 0
                if policy.insert:
                    self._known.claims.clear()  # the target's own unique keys hold them from now on
                return judged, write
            # No transaction is open now: Firestore is never read while a lock or a snapshot is held.
            self._learn(needs)
        raise TargetError(
            f"Rows hold still for a moment: those of {self.collection.name} kept changing through {ATTEMPTS} "
            "looks. Run again when there are fewer writes."
        )

    def wait_or_raise(self, error: postgres.Error, attempt: int) -> None:
        if attempt + 1 >= ATTEMPTS:
            raise TargetError(
                f"Postgres must let us write: {self.collection.name} ended in {postgres.condition(error)} "
                f"{attempt + 1} times. See who holds locks (pg_stat_activity), or whether the server is up, and run again."
            ) from None
        log.info("%s: %s, trying again", self.collection.name, postgres.condition(error))
        time.sleep(random.uniform(0.5, 1.0) * min(5.0, 0.1 * 2**attempt))

    def _needs(self, comparison: Comparison) -> list[Difference]:
        """The differences that can't be judged from the target alone, by what is known so far."""
        return [d for d in comparison.differences if self._unknown_parents(d) or self._unknown_owners(d)]

    def forget(self) -> None:
        """Keeps what is remembered within bounds; called between pages."""
        self._known.trim()

    def _unknown_parents(self, difference: Difference) -> list[tuple[str, str]]:
        return [p for p in self._parents(difference) if p not in self._known.parents]

    def _parents(self, difference: Difference) -> list[tuple[str, str]]:
        """Collection and path of each referenced document to look up: those whose rows aren't there, or (strictly) all
        that a row to be inserted needs."""
        found = []
        names = difference.lacks
        if self._strict_parents and not difference.found:
            names = tuple(c.name for c in self.collection.references)
        for name in names:
            column = self.collection.column(name)
            value = difference.row.cells[self.collection.columns.index(column)]
            if value is None:
                continue
            path = self.catalog.ancestor_path(self.collection, column, difference.row.path, str(value))
            found.append((str(column.references), path))
        return found

    def _unknown_owners(self, difference: Difference) -> list[Key]:
        return [key for key in self._contested(difference) if key not in self._known.owners]

    def _contested(self, difference: Difference) -> list[Key]:
        """Keys of rows that may belong to another document: holders of a unique key, and the row itself where it
        says that it belongs on another path."""
        keys = [key for key in difference.holders if key is not None]
        if difference.found and self.collection.keyed_by_path and self._moved(difference):
            keys.append(difference.row.key)
        return keys

    def _moved(self, difference: Difference) -> bool:
        """Whether the row says that its document is elsewhere: a column that comes from the path differs."""
        return any(isinstance(self.collection.column(name).origin, Segment | ParentId) for name in difference.columns)

    def _learn(self, differences: list[Difference]) -> None:
        """Asks the source about parents without rows, and about the documents that contested rows belong to."""
        parents: dict[str, set[str]] = {}
        for difference in differences:
            for name, path in self._unknown_parents(difference):
                parents.setdefault(name, set()).add(path)
        for name, paths in parents.items():
            for path, state in self._settle_parents(name, sorted(paths)).items():
                self._known.parents[name, path] = state
        self._learn_owners([(key, d.row.path) for d in differences for key in self._unknown_owners(d)])

    def _learn_owners(self, contested: list[tuple[Key, str]]) -> None:
        keys = list(dict.fromkeys(key for key, _ in contested))
        if not keys:
            return
        paths = self.target.paths(self.collection, keys)
        existing = self.source.get([p for p in paths.values() if p is not None])
        by_key: dict[Key, set[str]] = {}
        for key, path in contested:
            by_key.setdefault(key, set()).add(path)
        for key in keys:
            owner = paths.get(key)
            # A row on the very path of the document that contests it is its own, whatever a column says.
            self._known.owners[key] = owner is not None and existing[owner] is not None and owner not in by_key[key]

    def _settle(
        self,
        connection: postgres.Connection,
        rows: list[Row],
        comparison: Comparison,
        policy: Policy,
        expected: dict[Key, str | None] | None,
    ) -> tuple[list[tuple[Row, Finding | None]], Write]:
        """Decides every difference, and writes inside the comparison's own transaction."""
        verdicts: dict[int, Finding | None] = {}
        numbers = {id(row): n for n, row in enumerate(rows)}
        for row, why in comparison.refused:
            verdicts[numbers[id(row)]] = finding_of(Verdict.REJECTED, row, None, reason=why)
        insertable: list[Difference] = []
        for difference in comparison.differences:
            finding = self._decide(difference)
            verdicts[numbers[id(difference.row)]] = finding
            if (
                finding is not None
                and finding.verdict is Verdict.MISSING
                and finding.reason in (None, "parent_missing")
            ):
                insertable.append(difference)
        journal, refused = self._insert(connection, rows, insertable, verdicts, policy, expected)
        inserted = len(journal)
        if expected is not None and policy.update:
            updates = [
                (numbers[id(d.row)], d)
                for d in comparison.differences
                if d.found and d.xmin == expected.get(d.row.key) and _is(verdicts[numbers[id(d.row)]], Verdict.STALE)
            ]
            if updates:
                update = self.target.update(connection, self.collection, updates, self.run_id)
                journal.update(update.journal)
                refused += update.refused
        for row, why in refused:
            if not why.startswith("ForeignKeyViolation"):  # a parent's row vanished this moment: looked at again
                verdicts[numbers[id(row)]] = finding_of(Verdict.REJECTED, row, None, reason=why)
        return [(rows[n], verdicts[n]) for n in sorted(verdicts)], Write(journal, refused, inserted)

    def _insert(
        self,
        connection: postgres.Connection,
        rows: list[Row],
        insertable: list[Difference],
        verdicts: dict[int, Finding | None],
        policy: Policy,
        expected: dict[Key, str | None] | None,
    ) -> tuple[dict[str, int], list[tuple[Row, str]]]:
        """Inserts, or tries on a copy, what is missing; of several that want one unique key only one.

        Of those the older wins, then the smaller id; of several pages, the first one read. A winner that Postgres
        refuses holds no key after all, so the others get their turn. Fills `verdicts` with the duplicates.
        """
        numbers = {id(row): n for n, row in enumerate(rows)}
        journal: dict[str, int] = {}
        refused: list[tuple[Row, str]] = []
        waiting = sorted(insertable, key=lambda d: (d.row.create_time, d.row.label))
        while waiting:
            claimed = [(d, self._claim(d)) for d in waiting]
            winners = [d for d, won in claimed if won]
            waiting = [d for d, won in claimed if not won]
            ns = sorted(
                numbers[id(d.row)]
                for d in winners
                if not policy.insert or not (d.lacks or (expected and expected.get(d.row.key)))
            )
            if policy.insert:
                write = self.target.insert(connection, self.collection, rows, ns, self.run_id)
            else:
                write = Write(refused=self.target.try_insert(connection, self.collection, rows, ns))
            journal |= write.journal
            refused += write.refused
            for row, _ in write.refused:
                self._release(row)
            if not write.refused:
                break
        for d in waiting:
            verdicts[numbers[id(d.row)]] = finding_of(Verdict.DUPLICATE, d.row, d, reason="unique_key_taken")
        return journal, refused

    def _decide(self, difference: Difference) -> Finding | None:
        """The verdict on a difference, once everything it needs is known. None: see `judge`."""
        row = difference.row
        states = [s for s in (self._known.parents[p] for p in self._parents(difference)) if s != "present"]
        held = self._held(difference)
        if difference.found:
            if not self.collection.keyed_by_path and row.path not in self._owned:
                return None
            if "gone" in states:  # it can't have a row, and has one
                return finding_of(Verdict.EXTRA, row, difference, reason="parent_gone")
            if held == "document" or (self._moved(difference) and self._known.owners.get(row.key)):
                return finding_of(Verdict.DUPLICATE, row, difference, reason="key_held_by_another_document")
            return finding_of(Verdict.STALE, row, difference, reason=_blocked(states, held))
        if "gone" in states:
            return finding_of(Verdict.ORPHAN, row, difference, reason="parent_gone")
        if "unfit" in states:
            return finding_of(Verdict.REJECTED, row, difference, reason="parent_rejected")
        if held == "document":
            return finding_of(Verdict.DUPLICATE, row, difference, reason="unique_key_taken")
        if held == "extra":
            return finding_of(Verdict.MISSING, row, difference, reason="unique_key_held_by_extra_row")
        return finding_of(Verdict.MISSING, row, difference, reason="parent_missing" if states else None)

    def _held(self, difference: Difference) -> Literal["document", "extra"] | None:
        holders = [key for key in difference.holders if key is not None]
        if any(self._known.owners[key] for key in holders):
            return "document"
        return "extra" if holders else None

    def _claim(self, difference: Difference) -> bool:
        """Reserves the keys of a row to be inserted; False where another document of this run has one already."""
        row = difference.row
        wanted: list[tuple[int, Key]] = [(-1, row.key)]
        names = [c.name for c in self.collection.columns]
        for number, unique in enumerate(self.collection.unique):
            values = tuple(row.cells[names.index(n)] for n in unique)
            if None not in values:  # nulls are distinct in a unique key
                wanted.append((number, values))
        claimant = f"{row.path}#{row.entry}"
        if any(self._known.claims.get(w, claimant) != claimant for w in wanted):
            return False
        for w in wanted:
            self._known.claims[w] = claimant
        return True

    def _release(self, row: Row) -> None:
        """A row that Postgres refused holds no unique key after all."""
        claimant = f"{row.path}#{row.entry}"
        for key in [k for k, v in self._known.claims.items() if v == claimant]:
            del self._known.claims[key]

    def differing(self, rows: list[Row]) -> list[tuple[Row, Difference]]:
        """The rows that differ, with the difference, and no verdict."""
        with self.target.transaction() as connection:
            return [(d.row, d) for d in self.target.compare(connection, self.collection, rows).differences]

    def siblings(self, key: Key) -> list[Row]:
        """All documents that map to this natural key."""
        return [unit for unit in self.sharing(key) if isinstance(unit, Row)]

    def sharing(self, key: Key) -> list[Row | Rejection]:
        """All documents that map to this natural key, searched by the fields that it is made of; also those that share
        these fields and can't become a row."""
        variables: dict[str, str] = {}
        equals: dict[str, str] = {}
        for column, value in zip(self.collection.key, key, strict=True):
            if isinstance(column.origin, Segment):
                variables[column.origin.variable] = str(value)
            elif isinstance(column.origin, Field) and value != column.absent:
                equals[column.origin.path] = str(value)
        template = self.collection.templates[0]
        parent = "/".join(variables[s[1:-1]] if s.startswith("{") else s for s in template.segments[:-2])
        documents = self.source.children_where(parent, self.collection.collection_id, equals, self.collection.fields)
        units = [unit for document in documents for unit in map_document(self.collection, document) or []]
        return [unit for unit in units if isinstance(unit, Rejection) or unit.key == key]

    def owner_finding(self, row: Row) -> Finding:
        """For a natural key that several documents may share: whose row is it?"""
        siblings = self.siblings(row.key) or [row]
        differing = {r.label: d for r, d in self.differing([*siblings, row])}
        if any(r.label not in differing for r in siblings):
            return finding_of(Verdict.DUPLICATE, row, None, reason="key_held_by_another_document")
        owner = min(siblings, key=lambda r: (r.create_time, r.label))
        if owner.path != row.path:
            self._owned.discard(row.path)
            return finding_of(Verdict.DUPLICATE, row, None, reason="key_held_by_another_document")
        self._owned.add(row.path)
        return finding_of(Verdict.STALE, row, differing.get(row.label))


# --- small things ---------------------------------------------------------------------------------------------


def unit_of(collection: Collection, key: Key, path: str | None) -> Unit:
    """The unit of a row: its key, and the path of its document as far as the row can tell."""
    entries = (value for column, value in zip(collection.key, key, strict=True) if isinstance(column.origin, EntryKey))
    entry = next((str(value) for value in entries), None)
    label = "/".join(map(str, key))
    return Unit(label if collection.keyed_by_path else "row:" + label, key, path, entry)


def unit_of_row(row: Row) -> Unit:
    return Unit(row.label, row.key, row.path, row.entry)


def still_to_write(finding: Finding, policy: Policy) -> bool:
    """A difference that the policy would write and nothing stands in the way of."""
    if finding.reason is not None and finding.reason != "parent_missing":
        return False
    return (finding.verdict is Verdict.MISSING and policy.insert) or (
        finding.verdict is Verdict.STALE and policy.update
    )


def _is(finding: Finding | None, verdict: Verdict) -> bool:
    return finding is not None and finding.verdict is verdict and finding.reason is None


def _blocked(states: Sequence[ParentState], held: str | None) -> str | None:
    """Why a stale row can't be updated as it should."""
    if "unfit" in states:
        return "parent_rejected"
    if "insertable" in states:
        return "parent_missing"
    return None if held is None else "unique_key_held_by_extra_row"


def parent_state(finding: Finding | None, inserted: bool) -> ParentState:
    if finding is None or inserted or finding.verdict is Verdict.STALE:
        return "present"
    if finding.verdict is Verdict.MISSING:
        return "insertable"
    return "gone" if finding.verdict is Verdict.ORPHAN else "unfit"


def finding_of(verdict: Verdict, row: Row, difference: Difference | None, *, reason: str | None = None) -> Finding:
    """The finding on a row; with the difference it tells the columns and can be compared with a later look."""
    return Finding(
        verdict,
        row.label,
        row.path,
        row.entry,
        columns=difference.columns if difference is not None else (),
        reason=reason,
        fingerprint=f"{row.fingerprint}:{difference.digest or ''}" if difference is not None else None,
        document_time=row.update_time,
    )
