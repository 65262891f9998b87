"""The engine: judges documents against rows, key by key, and on request writes what is missing or stale.

It knows the two databases only through `Source` and `Target`, and no collection by name.

Beside live clients (they write the document first, then their lock in write_ops, then the row, and may die between
any two), each written key goes through these steps; docs/protocol.md argues them with numbered interleavings:

1. read the rows' versions (xmin), an absent row being a reading too; hold no lock;
2. only then read the documents;
3. decide again from these two; where there is nothing to write any more, write nothing;
4. write in one short transaction, each row on condition that its version is still the one of step 1, with a journal
   row beside it;
5. confirm: read the documents once more. What changed, vanished or came back goes to 1. Only then is the journal row
   confirmed; a later run first finishes the journal rows of a killed one.

Inserts of a whole page read documents before rows: there is no row that could be overwritten (ON CONFLICT DO
NOTHING), and step 5 holds for them as well.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from dualwrite import memory, postgres
from dualwrite.declaration import Catalog, Collection, EntryKey, Field, ParentId, Segment
from dualwrite.documents import Document
from dualwrite.errors import TargetError
from dualwrite.mapping import Rejection, Row, map_document
from dualwrite.report import CollectionReport
from dualwrite.source import Scan, Source
from dualwrite.target import Comparison, Difference, Key, Target, Write
from dualwrite.verdicts import DRIFT, SETTLED_BY_WRITING, Finding, Verdict
from dualwrite.windows import Window

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
_ATTEMPTS = 5
_UNITS_AT_ONCE = 300
"""Keys in one round of the protocol: its transaction holds their locks, so it must stay well below a second."""

_REMEMBERED = 200_000
"""Parents and rows' owners remembered in one run; forgotten all at once when there are more."""

_TRANSIENT = (
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
    """One key to be examined by itself. Without a path it is a row whose document can only be searched for."""

    label: str
    key: Key
    path: str | None
    entry: str | None = None


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


def scans(collection: Collection, window: Window | None) -> Iterator[Scan]:
    """What to read for a window: one scan a check field. All documents, where there is no window or no such field."""
    top_level = all(len(t.variables) == 1 for t in collection.templates)
    base = Scan(collection.collection_id, collection.fields, top_level)
    if window is None or not collection.check_fields:
        yield base
    else:
        for name in collection.check_fields:
            yield replace(base, check_field=name, window=window)


class Examiner:
    """Examines one collection in one run. `report` fills while it works."""

    def __init__(
        self,
        source: Source,
        target: Target,
        catalog: Catalog,
        collection: Collection,
        *,
        policy: Policy,
        report: CollectionReport,
        run_id: str,
        excused: frozenset[str] = frozenset(),
        on_difference: Callable[[Finding, Key | None], None] | None = None,
    ) -> None:
        self.source = source
        self.target = target
        self.catalog = catalog
        self.collection = collection
        self.policy = policy
        self.report = report
        self.run_id = run_id
        self._excused = excused
        self._on_difference = on_difference
        self._known = _Known()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="confirm")
        self._confirming: list[tuple[list[Row], dict[str, int], Future[dict[str, Document | None]]]] = []
        self._unresolved: list[Row] = []
        self._rows_left: set[Key] | None = None
        self._pending: list[tuple[Finding, Key]] | None = None
        self._matched_keys: set[int] = set()
        self._sub: dict[str, Examiner] = {}

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        for examiner in self._sub.values():
            examiner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- a window or all of a collection ----------------------------------------------------------------------------

    def scan(self, window: Window | None, page_size: int) -> None:
        """Examines every document whose check fields lie in the window, or (None) all there are.

        Raises SourceError or TargetError where that did not succeed whole; what was written until then is right.
        """
        if self.policy.writes:
            self.finish_journal()
        progress = _ProgressLog(self.collection.name)
        seen: set[str] = set()
        parts = list(scans(self.collection, window))
        for scan in parts:
            # A document that lies in the window by two check fields comes twice (and is billed twice): examined once.
            last = scan is parts[-1]
            for page in self.source.pages(scan, page_size):
                fresh = [d for d in page.documents if d.path not in seen]
                if not last:
                    seen.update(d.path for d in fresh)
                self.report.documents_read += len(page.documents)
                self._page(fresh)
                progress.tell(len(page.documents), page.total)
        self._resolve_shared_keys(whole=window is None or not self.collection.check_fields)
        self._collect_confirmations(wait=True)
        progress.end()

    def sweep(self, page_size: int, *, grace: float) -> None:
        """Examines every document and every row, and looks twice at what differs. Writes nothing by itself.

        The rows' keys are read before the documents: a row that comes later isn't missed, it is nobody's concern. A
        row that no document accounted for is then examined by key, with fresh reads. Differences are looked at again
        `grace` seconds later; what changed meanwhile is in flight. Holds the keys of all rows in memory (about 200
        bytes each).
        """
        self._rows_left = {key for page in self.target.keys(self.collection) for key in page}
        self._pending = []
        self.scan(None, page_size)
        left, self._rows_left = self._rows_left, None
        self.examine_units(self.units_of(sorted(left)))
        pending, self._pending = self._pending, None
        if pending:
            log.info("%s: %d differences, looking again in %.0f s", self.collection.name, len(pending), grace)
            self.target.close()
            time.sleep(grace)
            self.look_again(pending)

    def look_again(self, seen: Sequence[tuple[Finding, Key]]) -> None:
        """Examines differences a second time: what stayed as it was is drift, what changed is in flight."""
        before = {finding.label: finding for finding, _ in seen}
        units = [Unit(f.label, key, f.path, f.entry) for f, key in seen]
        for start in range(0, len(units), _UNITS_AT_ONCE):
            for finding, key in self.protocol(units[start : start + _UNITS_AT_ONCE], Policy()):
                first = before[finding.label]
                if finding.verdict in SETTLED_BY_WRITING and finding.fingerprint != first.fingerprint:
                    finding = replace(finding, verdict=Verdict.IN_FLIGHT, reason="changed_between_looks")
                self._found(finding, key)

    def _page(self, documents: list[Document]) -> None:
        rows: list[Row] = []
        parents: dict[str, Document] = {}
        for document in documents:
            units = map_document(self.collection, document)
            if units is None:
                self.report.stray += 1
                continue
            parents[document.path] = document
            for unit in units:
                if isinstance(unit, Rejection):
                    self._found(Finding(Verdict.REJECTED, unit.label, unit.path, unit.entry, reason=unit.reason))
                else:
                    rows.append(unit)
        stale = self._judge_page(rows)
        if self.collection.entries is not None:
            self._entries_gone(parents, rows)
        if stale:
            self._write_units([_unit(row) for row in stale])
        self._collect_confirmations(wait=False)
        self._known.trim()

    def _judge_page(self, rows: list[Row]) -> list[Row]:
        """Judges and, where the policy says so, inserts a page. Returns the stale rows that still are to be updated."""
        if not rows:
            return []
        if self._rows_left is not None:
            self._rows_left.difference_update(row.key for row in rows)
        judged, written = self._judge(rows, self.policy)
        stale: list[Row] = []
        inserted = set(written.journal)
        for row, finding in judged:
            if finding is None:
                self._unresolved.append(row)
            elif finding.verdict is Verdict.STALE and self.policy.update:
                stale.append(row)
            elif (
                finding.verdict is Verdict.MISSING
                and self.policy.insert
                and finding.reason is None
                and row.label not in inserted
            ):
                stale.append(row)  # a client was faster with this row: settled by the protocol
            else:
                self._found(finding, row.key)
        matching = len(rows) - len(judged)
        self.report.add_matching(matching)
        if not self.collection.keyed_by_path:
            differing = {id(row) for row, _ in judged}
            self._matched_keys.update(
                hash(row.key) for row in rows if id(row) not in differing or row.label in inserted
            )
        self._confirm_later([row for row, _ in judged if row.label in inserted], written.journal)
        return stale

    def _found(self, finding: Finding, key: Key | None = None) -> None:
        if finding.label in self._excused and finding.verdict in DRIFT:
            finding = replace(finding, excused=True)
        if self._pending is not None and finding.verdict in SETTLED_BY_WRITING and key is not None:
            self._pending.append((finding, key))
            return
        self.report.add(finding)
        if self._on_difference is not None:
            self._on_difference(finding, key)

    # --- judging ----------------------------------------------------------------------------------------------------

    def _judge(
        self, rows: list[Row], policy: Policy, expected: dict[Key, str | None] | None = None
    ) -> tuple[list[tuple[Row, Finding | None]], Write]:
        """Verdicts of all rows that do not match, and what was written of them.

        With `expected` (versions read before the documents) stale rows are updated too, on that condition. A finding
        of None is a row that shares its key with another document's: settled when all of them were seen.
        """
        for attempt in range(_ATTEMPTS * 2):
            try:
                with self.target.transaction() as connection:
                    comparison = self.target.compare(connection, self.collection, rows)
                    needs = self._needs(comparison)
                    if not needs:
                        return self._settle(connection, rows, comparison, policy, expected)
            except _TRANSIENT as error:
                self._wait_or_raise(error, attempt)
                continue
            # No transaction is open now: Firestore is never read while a lock or a snapshot is held.
            self._learn(needs)
        raise TargetError(
            f"Rows hold still for a moment: those of {self.collection.name} kept changing through {_ATTEMPTS * 2} "
            "looks. Run again when there are fewer writes."
        )

    def _wait_or_raise(self, error: postgres.Error, attempt: int) -> None:
        if attempt + 1 >= _ATTEMPTS * 2:
            raise TargetError(
                f"Postgres must let us write: {self.collection.name} ended in {postgres.condition(error)} "
                f"{attempt + 1} times. See who holds locks (pg_stat_activity), or whether the server is up, and run again."
            ) from None
        log.info("%s: %s, trying again", self.collection.name, postgres.condition(error))
        time.sleep(random.uniform(0.5, 1.0) * min(5.0, 0.1 * 2**attempt))

    def _needs(self, comparison: Comparison) -> list[Difference]:
        """The differences that can't be judged from the target alone, by what is known so far."""
        return [d for d in comparison.differences if self._unknown_parents(d) or self._unknown_owners(d)]

    def _unknown_parents(self, difference: Difference) -> list[tuple[str, str]]:
        return [p for p in self._parents(difference) if p not in self._known.parents]

    def _parents(self, difference: Difference) -> list[tuple[str, str]]:
        """Collection and path of each referenced document whose row isn't there."""
        found = []
        for name in difference.lacks:
            column = self.collection.column(name)
            value = difference.row.cells[self.collection.columns.index(column)]
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

    def _settle_parents(self, name: str, paths: list[str]) -> dict[str, ParentState]:
        """Whether each parent document is there and could be a row; with an inserting policy, makes it one."""
        parent = self.catalog[name]
        documents = self.source.get(paths, parent.fields)
        states: dict[str, ParentState] = {path: "gone" for path, d in documents.items() if d is None}
        rows: list[Row] = []
        for path, document in documents.items():
            if document is None:
                continue
            units = map_document(parent, document)
            if units and isinstance(units[0], Row):
                rows.append(units[0])
            else:
                states[path] = "unfit"
        if rows:
            examiner = self._examiner_of(parent)
            judged, written = examiner._judge(rows, examiner.policy)
            findings = {row.path: finding for row, finding in judged}
            for row in rows:
                finding = findings.get(row.path)
                states[row.path] = _parent_state(finding, row.label in written.journal)
            inserted = [row for row in rows if row.label in written.journal]
            self.report.parents_inserted += len(inserted)
            examiner._confirm_later(inserted, written.journal)
            examiner._collect_confirmations(wait=True)
        return states

    def _examiner_of(self, parent: Collection) -> Examiner:
        if parent.name not in self._sub:
            self._sub[parent.name] = Examiner(
                self.source,
                self.target,
                self.catalog,
                parent,
                policy=Policy(insert=self.policy.insert),
                report=CollectionReport(parent.name, self.report.phase),
                run_id=self.run_id,
            )
        return self._sub[parent.name]

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
            verdicts[numbers[id(row)]] = _finding(Verdict.REJECTED, row, None, reason=why)
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
        # Of several that want one unique key the older wins, then the smaller id; of several pages, the first one read.
        insertable.sort(key=lambda d: (d.row.create_time, d.row.label))
        ns = []
        for difference in insertable:
            n = numbers[id(difference.row)]
            if self._claim(difference):
                if not self._parents(difference) or not policy.insert:
                    ns.append(n)
            else:
                verdicts[n] = _finding(Verdict.DUPLICATE, difference.row, difference, reason="unique_key_taken")
        write = Write({}, [])
        if ns and policy.insert:
            if expected is not None:
                ns = [n for n in ns if expected.get(rows[n].key) is None]
            write = self.target.insert(connection, self.collection, rows, sorted(ns), self.run_id)
        elif ns:
            write = Write({}, self.target.try_insert(connection, self.collection, rows, sorted(ns)))
        refused = list(write.refused)
        self.report.inserted += len(write.journal)
        journal = dict(write.journal)
        if expected is not None and policy.update:
            updates = [
                (numbers[id(d.row)], d)
                for d in comparison.differences
                if d.found and d.xmin == expected.get(d.row.key) and _is(verdicts[numbers[id(d.row)]], Verdict.STALE)
            ]
            if updates:
                update = self.target.update(connection, self.collection, updates, self.run_id)
                self.report.updated += len(update.journal)
                journal.update(update.journal)
                refused += update.refused
        for row, why in refused:
            if why.startswith("ForeignKeyViolation"):
                continue  # a parent's row vanished this moment: still missing or stale, and looked at again
            verdicts[numbers[id(row)]] = _finding(Verdict.REJECTED, row, None, reason=why)
            self._release(row)
        if expected is None:
            self.report.derived_lag += comparison.derived_lag
        return [(rows[n], verdicts[n]) for n in sorted(verdicts)], Write(journal, refused)

    def _decide(self, difference: Difference) -> Finding | None:
        """The verdict on a difference, once everything it needs is known. None: see `_judge`."""
        row = difference.row
        states = [self._known.parents[p] for p in self._parents(difference)]
        if difference.found:
            if not self.collection.keyed_by_path:
                return None
            if self._moved(difference) and self._known.owners.get(row.key):
                return _finding(Verdict.DUPLICATE, row, difference, reason="key_held_by_another_document")
            return _finding(Verdict.STALE, row, difference, reason=_blocked(states, self._held(difference)))
        if "gone" in states:
            return _finding(Verdict.ORPHAN, row, difference, reason="parent_gone")
        if "unfit" in states:
            return _finding(Verdict.REJECTED, row, difference, reason="parent_rejected")
        held = self._held(difference)
        if held == "document":
            return _finding(Verdict.DUPLICATE, row, difference, reason="unique_key_taken")
        if held == "extra":
            return _finding(Verdict.MISSING, row, difference, reason="unique_key_held_by_extra_row")
        return _finding(Verdict.MISSING, row, difference, reason="parent_missing" if states else None)

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

    # --- several documents on one natural key -------------------------------------------------------------------------

    def _resolve_shared_keys(self, whole: bool) -> None:
        """Judges rows that differ from a row which another document may own, now that the scan is over.

        The owner of a key is the document that equals its row; where none does, the oldest. Unless the scan was of
        all documents, the others that share the key are searched for.
        """
        unresolved, self._unresolved = self._unresolved, []
        if not unresolved:
            return
        groups: dict[Key, list[Row]] = {}
        for row in unresolved:
            groups.setdefault(row.key, []).append(row)
        stale: list[Row] = []
        for key, rows in groups.items():
            owned = hash(key) in self._matched_keys
            candidates = rows
            if not owned and not whole:
                candidates = self._siblings(key) or rows
                judged = {r.label for r, _ in self._judge_only(candidates)}
                owned = any(r.label not in judged for r in candidates)
            owner = min(candidates, key=lambda r: (r.create_time, r.label))
            for row in rows:
                if owned or row.label != owner.label:
                    self._found(_finding(Verdict.DUPLICATE, row, None, reason="key_held_by_another_document"), key)
                elif self.policy.update:
                    stale.append(row)
                else:
                    differing = self._judge_only([row])
                    verdict = Verdict.STALE if differing else Verdict.MATCHING
                    self._found(_finding(verdict, row, differing[0][1] if differing else None), key)
        if stale:
            self._write_units([_unit(row) for row in stale])

    def _judge_only(self, rows: list[Row]) -> list[tuple[Row, Difference]]:
        """The rows that differ, with the difference, and no verdict."""
        with self.target.transaction() as connection:
            return [(d.row, d) for d in self.target.compare(connection, self.collection, rows).differences]

    def _siblings(self, key: Key) -> list[Row]:
        """All documents that map to this natural key, searched by the fields that it is made of."""
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
        units = [u for d in documents for u in map_document(self.collection, d) or [] if isinstance(u, Row)]
        return [u for u in units if u.key == key]

    # --- rows without documents -----------------------------------------------------------------------------------------

    def _entries_gone(self, parents: dict[str, Document], rows: list[Row]) -> None:
        """Rows of the page's parents that none of their entries accounts for: examined by themselves."""
        column = next(c for c in self.collection.key if isinstance(c.origin, Segment))
        index = self.collection.key.index(column)
        by_id = {path.split("/")[-1]: path for path in parents}
        known = {row.key for row in rows}
        keys = self.target.keys_where(self.collection, column.name, by_id)
        suspects = [key for key in keys if key not in known]
        self.examine_units([self.unit_of(key, by_id[str(key[index])]) for key in suspects])

    def unit_of(self, key: Key, path: str | None) -> Unit:
        """The unit of a row: its key, and the path of its document as far as the row can tell."""
        entry = None
        for column, value in zip(self.collection.key, key, strict=True):
            if isinstance(column.origin, EntryKey):
                entry = str(value)
        if not self.collection.keyed_by_path:
            return Unit("row:" + "/".join(str(part) for part in key), key, path, entry)
        return Unit("/".join(str(part) for part in key), key, path, entry)

    def units_of(self, keys: Sequence[Key]) -> list[Unit]:
        """The units of rows by key, their documents' paths told by the rows."""
        found: list[Unit] = []
        for start in range(0, len(keys), 5000):
            part = list(keys[start : start + 5000])
            paths = self.target.paths(self.collection, part)
            found += [self.unit_of(key, paths.get(key)) for key in part]
        return found

    # --- by key ---------------------------------------------------------------------------------------------------------

    def examine_units(self, units: Sequence[Unit]) -> None:
        """Examines keys one by one with fresh reads on both sides, and writes what the policy allows."""
        self._write_units(units)

    def _write_units(self, units: Sequence[Unit]) -> None:
        for start in range(0, len(units), _UNITS_AT_ONCE):
            for finding, key in self.protocol(units[start : start + _UNITS_AT_ONCE], self.policy):
                self._found(finding, key)

    def protocol(
        self, units: Sequence[Unit], policy: Policy, *, own_inserts: frozenset[str] = frozenset()
    ) -> list[tuple[Finding, Key]]:
        """Steps 1 to 5 for some keys, until each has a verdict that held still. Returns one finding a unit.

        `own_inserts` are labels of rows that we inserted and that may be taken back where the document is gone,
        whatever the policy says of deletes.
        """
        done: dict[str, tuple[Finding, Key]] = {}
        todo = {unit.label: unit for unit in units}
        for attempt in range(_ATTEMPTS):
            if not todo:
                break
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)
            todo = self._round(todo, done, policy, own_inserts)
        for label, unit in todo.items():
            finding = Finding(Verdict.IN_FLIGHT, label, unit.path, unit.entry, reason="kept_changing")
            done.setdefault(label, (finding, unit.key))
        return list(done.values())

    def _round(
        self,
        todo: dict[str, Unit],
        done: dict[str, tuple[Finding, Key]],
        policy: Policy,
        own_inserts: frozenset[str],
    ) -> dict[str, Unit]:
        """One round over some keys: fills `done`, returns what must be looked at again."""
        again: dict[str, Unit] = {}
        versions = self.target.versions(self.collection, [u.key for u in todo.values()])  # step 1
        documents = self._documents(todo.values())  # step 2
        rows: list[Row] = []
        gone: list[Unit] = []
        for unit in todo.values():
            mapped = documents[unit.label]
            if mapped is None:
                gone.append(unit)
            elif isinstance(mapped, Rejection):
                verdict = Finding(Verdict.REJECTED, unit.label, mapped.path, mapped.entry, reason=mapped.reason)
                done[unit.label] = (verdict, unit.key)
            elif mapped.key != unit.key:  # its key is made of fields, and they changed: the row of the new key counts
                again[unit.label] = replace(unit, key=mapped.key)
            else:
                rows.append(replace(mapped, label=unit.label))
        written: dict[str, int] = {}
        if rows:
            expected: dict[Key, str | None] = {row.key: versions.get(row.key, (None, ""))[0] for row in rows}
            judged, write = self._judge(rows, policy, expected)  # steps 3 and 4
            written.update(write.journal)
            differing = {row.label: finding for row, finding in judged}
            for row in rows:
                finding = differing.get(row.label, _finding(Verdict.MATCHING, row, None))
                if finding is None:
                    finding = self._owner_finding(row)
                if _still_to_write(finding, policy) and row.label not in written:
                    again[row.label] = todo[row.label]
                elif not (row.label in done and finding.verdict is Verdict.MATCHING):
                    done[row.label] = (finding, row.key)  # what it was when we wrote, not that it matches since
        self._judge_gone(gone, versions, policy, own_inserts, done, written, again)
        # Step 5.
        if written:
            paths = {label: todo[label].path or done[label][0].path for label in written}
            now = self.source.get([p for p in paths.values() if p is not None])
            read = {row.label: row.update_time for row in rows}
            settled = []
            for label, journal_id in written.items():
                document = now.get(str(paths[label]))
                moment = document.update_time if document else None
                if moment == read.get(label):
                    settled.append(journal_id)
                else:
                    again[label] = todo[label]
            with self.target.transaction() as connection:
                memory.confirm(connection, settled)
        return again

    def _owner_finding(self, row: Row) -> Finding:
        """For a natural key that several documents may share: whose row is it?"""
        siblings = self._siblings(row.key) or [row]
        differing = {r.label: d for r, d in self._judge_only([*siblings, row])}
        if any(r.label not in differing for r in siblings):
            return _finding(Verdict.DUPLICATE, row, None, reason="key_held_by_another_document")
        owner = min(siblings, key=lambda r: (r.create_time, r.label))
        if owner.path != row.path:
            return _finding(Verdict.DUPLICATE, row, None, reason="key_held_by_another_document")
        return _finding(Verdict.STALE, row, differing.get(row.label))

    def _documents(self, units: Iterable[Unit]) -> dict[str, Row | Rejection | None]:
        """The fresh mapping of each unit's document; None where the document or the entry is gone."""
        units = list(units)
        documents = self.source.get([u.path for u in units if u.path is not None], self.collection.fields)
        found: dict[str, Row | Rejection | None] = {}
        for unit in units:
            if unit.path is None:
                siblings = self._siblings(unit.key) if not self.collection.keyed_by_path else []
                found[unit.label] = min(siblings, key=lambda r: (r.create_time, r.label)) if siblings else None
                continue
            document = documents[unit.path]
            mapped = [] if document is None else map_document(self.collection, document) or []
            found[unit.label] = next(
                (m for m in mapped if m.entry == unit.entry or (isinstance(m, Rejection) and m.entry is None)), None
            )
        return found

    def _judge_gone(
        self,
        gone: list[Unit],
        versions: dict[Key, tuple[str, str]],
        policy: Policy,
        own_inserts: frozenset[str],
        done: dict[str, tuple[Finding, Key]],
        written: dict[str, int],
        again: dict[str, Unit],
    ) -> None:
        """Keys whose document is gone: extra where a row is there, absent where none is."""
        candidates = []
        for unit in gone:
            version = versions.get(unit.key)
            if version is None:
                done.setdefault(unit.label, (Finding(Verdict.ABSENT, unit.label, unit.path, unit.entry), unit.key))
                continue
            finding = Finding(Verdict.EXTRA, unit.label, unit.path, unit.entry, fingerprint=version[1])
            if not policy.delete and unit.label not in own_inserts:
                done[unit.label] = (finding, unit.key)
                continue
            candidates.append((unit, version[0], finding))
        if not candidates:
            return
        journal = self._delete([(u.key, u.label, u.path, xmin) for u, xmin, _ in candidates])
        self.report.deleted += len(journal)
        written.update(journal)
        for unit, _, finding in candidates:
            if unit.label in journal:
                done[unit.label] = (finding, unit.key)
            elif unit.label not in done:
                # Referenced still, or changed by a client since: looked at again, and extra if it stays so.
                done[unit.label] = (replace(finding, reason="referenced_or_changed"), unit.key)
                again[unit.label] = unit

    def _delete(self, candidates: list[tuple[Key, str, str | None, str]]) -> dict[str, int]:
        for attempt in range(_ATTEMPTS * 2):
            try:
                return self.target.delete(self.collection, candidates, self.run_id)
            except _TRANSIENT as error:
                self._wait_or_raise(error, attempt)
        return {}

    # --- confirming -----------------------------------------------------------------------------------------------------

    def _confirm_later(self, rows: list[Row], journal: dict[str, int]) -> None:
        """Step 5 of a page's inserts, beside the next page."""
        if rows:
            paths = list(dict.fromkeys(row.path for row in rows))
            self._confirming.append((rows, journal, self._executor.submit(self.source.get, paths)))

    def _collect_confirmations(self, *, wait: bool) -> None:
        while self._confirming and (wait or self._confirming[0][2].done() or len(self._confirming) > 2):
            rows, journal, future = self._confirming.pop(0)
            documents = future.result()
            still, moved = [], []
            for row in rows:
                document = documents[row.path]
                if document is not None and document.update_time == row.update_time:
                    still.append(journal[row.label])
                else:
                    moved.append(row)
            with self.target.transaction() as connection:
                memory.confirm(connection, still)
            if moved:
                self._repair_moved([_unit(row) for row in moved], [journal[row.label] for row in moved])

    def _repair_moved(self, units: list[Unit], journal_ids: list[int]) -> None:
        """Keys that we wrote and whose documents moved meanwhile. They were counted when they were written."""
        for start in range(0, len(units), _UNITS_AT_ONCE):
            self._mend(units[start : start + _UNITS_AT_ONCE], journal_ids[start : start + _UNITS_AT_ONCE])

    def _mend(self, units: Sequence[Unit], journal_ids: Sequence[int]) -> None:
        """Runs the protocol over keys that were written and not confirmed, then confirms their journal rows.

        A row that we inserted and nobody touched since is taken back where its document is gone.
        """
        with self.target.transaction() as connection:
            own = self.target.untouched(connection, self.collection, journal_ids)
        findings = self.protocol(units, self._mending(), own_inserts=own)
        unsettled = {f.label for f, _ in findings if f.verdict is Verdict.IN_FLIGHT}
        settled = [i for u, i in zip(units, journal_ids, strict=True) if u.label not in unsettled]
        with self.target.transaction() as connection:
            memory.confirm(connection, settled)

    def _mending(self) -> Policy:
        """What we wrote is brought into line with its document whatever the run's policy."""
        return Policy(insert=True, update=True, delete=self.policy.delete)

    def finish_journal(self) -> int:
        """Finishes what a killed run left unconfirmed in this collection; returns how many writes that were."""
        with self.target.transaction() as connection:
            entries = memory.unconfirmed(connection, self.collection.name)
        if not entries:
            return 0
        log.info("%s: finishing %d writes that an earlier run left unconfirmed", self.collection.name, len(entries))
        for start in range(0, len(entries), _UNITS_AT_ONCE):
            part = entries[start : start + _UNITS_AT_ONCE]
            units = [replace(self.unit_of(e.key, e.path), label=e.label) for e in part]
            self._mend(units, [e.id for e in part])
        return len(entries)


# --- small things ---------------------------------------------------------------------------------------------


def _unit(row: Row) -> Unit:
    return Unit(row.label, row.key, row.path, row.entry)


def _still_to_write(finding: Finding, policy: Policy) -> bool:
    """A difference that the policy would write and nothing stands in the way of."""
    if finding.reason is not None and finding.reason != "parent_missing":
        return False
    return (finding.verdict is Verdict.MISSING and policy.insert) or (
        finding.verdict is Verdict.STALE and policy.update
    )


def _is(finding: Finding | None, verdict: Verdict) -> bool:
    return finding is not None and finding.verdict is verdict and finding.reason is None


def _blocked(states: list[ParentState], held: str | None) -> str | None:
    """Why a stale row can't be updated as it should."""
    if "gone" in states:
        return "parent_gone"
    if states:
        return "parent_missing"
    return None if held is None else "unique_key_taken"


def _parent_state(finding: Finding | None, inserted: bool) -> ParentState:
    if finding is None or inserted or finding.verdict is Verdict.STALE:
        return "present"
    if finding.verdict is Verdict.MISSING:
        return "insertable"
    return "gone" if finding.verdict is Verdict.ORPHAN else "unfit"


def _finding(verdict: Verdict, row: Row, difference: Difference | None, *, reason: str | None = None) -> Finding:
    return Finding(
        verdict,
        row.label,
        row.path,
        row.entry,
        columns=difference.columns if difference is not None else (),
        reason=reason,
        fingerprint=None if verdict is Verdict.MATCHING else _fingerprint(row, difference),
    )


def _fingerprint(row: Row, difference: Difference | None) -> str:
    """Changes whenever the document's mapped values or the row's compared ones do. One-way: it holds no content."""
    document = hashlib.sha256(repr(row.cells).encode()).hexdigest()[:16]
    return f"{document}:{(difference.digest if difference else None) or ''}"


class _ProgressLog:
    """Says at least every few seconds how far a long read has come."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = self._told = time.monotonic()
        self._done = 0

    def tell(self, number: int, total: int) -> None:
        self._done += number
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        rate = self._done / (now - self._begun)
        share = min(1.0, self._done / total) if total else 1.0
        left = max(0, total - self._done) / rate if rate else 0
        log.info(
            "%s: %s of %s documents, %.0f %%, %.0f/s, about %.0f s left",
            self._name,
            f"{self._done:,}",
            f"{total:,}",
            100 * share,
            rate,
            left,
        )

    def end(self) -> None:
        seconds = time.monotonic() - self._begun
        log.info("%s: %s documents read in %.1f s", self._name, f"{self._done:,}", seconds)
