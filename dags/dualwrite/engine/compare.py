"""The engine: examines a collection, over a window or whole, and counts one verdict for each key.

It knows the two databases only through `Source` and `Target`, and no collection by name. `judge.py` decides,
`protocol.py` writes beside live clients; this file reads pages, overlaps reading with writing, and looks twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Self

from dualwrite.engine.classify import Judge, ParentState, Policy, Unit, finding_of, parent_state, unit_of, unit_of_row
from dualwrite.engine.compare_and_set import UNITS_AT_ONCE, Protocol
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.declaration import Catalog, Collection, Segment
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import DRIFT, SETTLED_BY_WRITING, Finding, Verdict
from dualwrite.model.windows import Window
from dualwrite.postgres.target import Key, Target

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0


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
        watched: frozenset[str] = frozenset(),
        strict_parents: bool = False,
    ) -> None:
        """`excused` and `watched` are labels: differences that a person accepted, and those that are open from before
        (what became of them is told by `settled`). `strict_parents`: see Judge."""
        self.source = source
        self.target = target
        self.catalog = catalog
        self.collection = collection
        self.policy = policy
        self.report = report
        self.run_id = run_id
        self._excused = excused
        self._watched = watched
        self._strict_parents = strict_parents
        self.settled: set[str] = set()
        """Watched keys that match now."""
        self.seen: set[str] = set()
        """Labels of the keys examined so far; kept for `first_look` alone."""
        self._seen_paths: set[str] = set()
        self.rejected: list[Finding] = []
        """Rejections that nobody excused; kept for `first_look` alone."""
        self.judge = Judge(
            source,
            target,
            catalog,
            collection,
            report=report,
            run_id=run_id,
            settle_parents=self._settle_parents,
            strict_parents=strict_parents,
        )
        self.protocol = Protocol(self.judge, may_delete=policy.delete)
        self._unresolved: list[Row] = []
        self._rows_left: set[Key] | None = None
        self._pending: list[tuple[Finding, Key]] | None = None
        self._matched_keys: set[int] = set()
        self._seen_keys: set[Key] | None = None
        self._parents: dict[str, Examiner] = {}

    def close(self) -> None:
        self.protocol.close()
        for examiner in self._parents.values():
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
            self.protocol.finish_journal()
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
        self.protocol.collect_confirmations(wait=True)
        if self.policy.writes:  # a commit whose answer was lost left rows that nobody here knows of
            self.protocol.finish_journal()
        progress.end()

    def first_look(
        self, window: Window | None, page_size: int, more: Callable[[Examiner], list[Unit]] = lambda _: []
    ) -> list[tuple[Finding, Key]]:
        """Examines a window from all sides, or (None) every document and every row. Writes nothing.

        Returns the differences that must be looked at a second time, which are not counted yet. All rows: their keys
        are read before the documents; a row that comes later isn't missed, it is nobody's concern. A row that no
        document accounted for is examined by key, with fresh reads, and so are the units that `more` adds when the
        documents have been seen. Holds the keys of all rows in memory (about 200 bytes each).
        """
        self._pending = []
        self._seen_keys = set() if window is not None else None
        self._rows_left = (
            {key for page in self.target.keys(self.collection) for key in page} if window is None else None
        )
        self.scan(window, page_size)
        if self._rows_left is not None:
            left, self._rows_left = self._rows_left, None
            # A document that can't become a row may have one; it has its verdict already.
            self.examine_units([u for u in self.units_of(sorted(left)) if u.label not in self.seen])
        self.examine_units(more(self))
        pending, self._pending = self._pending, None
        self._seen_keys = None
        return pending

    def fresh(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units that this first look has not examined yet."""
        keys = self._seen_keys or set()
        return list({u.label: u for u in units if u.label not in self.seen and u.key not in keys}.values())

    def sweep(self, page_size: int, *, grace: float) -> None:
        """Examines every document and every row, and looks again, `grace` seconds later, at what differs: what changed
        meanwhile is in flight. Writes nothing."""
        pending = self.first_look(None, page_size)
        if pending:
            log.info("%s: %d differences, looking again in %.0f s", self.collection.name, len(pending), grace)
            self.target.close()
            time.sleep(grace)
            self.look_again(pending)

    def look_again(self, seen: Sequence[tuple[Finding, Key]]) -> None:
        """Examines differences a second time: what stayed as it was is drift, what changed is in flight."""
        before = {finding.label: finding for finding, _ in seen}
        units = [Unit(f.label, key, f.path, f.entry) for f, key in seen]
        for start in range(0, len(units), UNITS_AT_ONCE):
            for finding, key in self.protocol.run(units[start : start + UNITS_AT_ONCE], Policy()):
                first = before[finding.label]
                if finding.verdict in SETTLED_BY_WRITING and finding.fingerprint != first.fingerprint:
                    finding = replace(finding, verdict=Verdict.IN_FLIGHT, reason="changed_between_looks")
                self._found(finding, key)

    def _page(self, documents: list[Document]) -> None:
        rows: list[Row] = []
        parents: dict[str, Document] = {}
        labels: set[str] = set()
        for document in documents:
            units = map_document(self.collection, document)
            if units is None:
                self.report.stray += 1
                continue
            parents[document.path] = document
            if self._pending is not None:
                self._seen_paths.add(document.path)
            for unit in units:
                if isinstance(unit, Rejection):
                    self._found(Finding(Verdict.REJECTED, unit.label, unit.path, unit.entry, reason=unit.reason))
                else:
                    rows.append(unit)
                labels.add(unit.label)
        if self._pending is not None:
            self.seen |= labels
        stale = self._judge_page(rows)
        if self.collection.entries is not None:
            self._entries_gone(parents, labels)
        if stale:
            self.examine_units([unit_of_row(row) for row in stale])
        self.protocol.collect_confirmations(wait=False)
        self.judge.forget()

    def _judge_page(self, rows: list[Row]) -> list[Row]:
        """Judges and, where the policy says so, inserts a page. Returns the stale rows that still are to be updated."""
        if not rows:
            return []
        if self._rows_left is not None:
            self._rows_left.difference_update(row.key for row in rows)
        if self._seen_keys is not None:
            self._seen_keys.update(row.key for row in rows)
        judged, written = self.judge.judge(rows, self.policy)
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
        if self._watched:
            differing_labels = {row.label for row, _ in judged}
            self.settled |= {row.label for row in rows if row.label not in differing_labels} & self._watched
        matching = len(rows) - len(judged)
        self.report.add_matching(matching)
        if not self.collection.keyed_by_path:
            differing = {id(row) for row, _ in judged}
            self._matched_keys.update(
                hash(row.key) for row in rows if id(row) not in differing or row.label in inserted
            )
        written_rows = [r for r, f in judged if r.label in inserted and f is not None and f.verdict is Verdict.MISSING]
        self.protocol.confirm_later(written_rows, written.journal)
        return stale

    def _found(self, finding: Finding, key: Key | None = None) -> None:
        if finding.label in self._excused and finding.verdict in DRIFT:
            finding = replace(finding, excused=True)
        if self._pending is not None:
            unsettled = finding.verdict in SETTLED_BY_WRITING or finding.verdict is Verdict.IN_FLIGHT
            if unsettled and key is not None and not finding.excused:
                self._pending.append((finding, key))
                return
            if finding.verdict is Verdict.REJECTED and not finding.excused:
                self.rejected.append(finding)
        if finding.label in self._watched and finding.verdict not in DRIFT | {Verdict.IN_FLIGHT}:
            self.settled.add(finding.label)
        self.report.add(finding)

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
            judged, written = examiner.judge.judge(rows, examiner.policy)
            findings = {row.path: finding for row, finding in judged}
            for row in rows:
                finding = findings.get(row.path)
                states[row.path] = parent_state(finding, row.label in written.journal)
            inserted = [row for row in rows if row.label in written.journal]
            self.report.parents_inserted += len(inserted)
            examiner.protocol.confirm_later(inserted, written.journal)
            examiner.protocol.collect_confirmations(wait=True)
        return states

    def _examiner_of(self, parent: Collection) -> Examiner:
        if parent.name not in self._parents:
            self._parents[parent.name] = Examiner(
                self.source,
                self.target,
                self.catalog,
                parent,
                policy=Policy(insert=self.policy.insert),
                report=CollectionReport(parent.name, self.report.phase),
                run_id=self.run_id,
                strict_parents=self._strict_parents,
            )
        return self._parents[parent.name]

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
                candidates = self.judge.siblings(key) or rows
                judged = {r.label for r, _ in self.judge.differing(candidates)}
                owned = any(r.label not in judged for r in candidates)
            owner = min(candidates, key=lambda r: (r.create_time, r.label))
            for row in rows:
                if owned or row.label != owner.label:
                    self._found(finding_of(Verdict.DUPLICATE, row, None, reason="key_held_by_another_document"), key)
                else:
                    stale.append(row)
        if stale:
            self.examine_units([unit_of_row(row) for row in stale])

    # --- rows without documents -----------------------------------------------------------------------------------------

    def _entries_gone(self, parents: dict[str, Document], labels: set[str]) -> None:
        """Rows of the page's parents that none of their entries (`labels`) accounts for: examined by themselves."""
        column = next(c for c in self.collection.key if isinstance(c.origin, Segment))
        index = self.collection.key.index(column)
        by_id = {path.split("/")[-1]: path for path in parents}
        keys = self.target.keys_where(self.collection, column.name, by_id)
        units = [unit_of(self.collection, key, by_id[str(key[index])]) for key in keys]
        self.examine_units([u for u in units if u.label not in labels])

    def units_of(self, keys: Sequence[Key]) -> list[Unit]:
        """The units of rows by key, their documents' paths told by the rows."""
        found: list[Unit] = []
        for start in range(0, len(keys), 5000):
            part = list(keys[start : start + 5000])
            paths = self.target.paths(self.collection, part)
            for key in part:
                path = paths.get(key)
                # An id with a slash in it, written by hand, would name another document's path.
                fits = path is not None and self.collection.match(path) is not None
                found.append(unit_of(self.collection, key, path if fits else None))
        return found

    def examine_documents(self, paths: Sequence[str]) -> list[Unit]:
        """Examines documents whole (all their entries), as if they lay in the window. Returns the rows of those that
        are gone, which are to be examined by key."""
        documents = self.source.get(paths, self.collection.fields)
        self._page([d for d in documents.values() if d is not None and d.path not in self._seen_paths])
        gone = [path for path, document in documents.items() if document is None]
        column = next((c for c in self.collection.key if isinstance(c.origin, Segment)), None)
        if not gone or column is None:
            return []
        ids = {path.rsplit("/", 1)[-1]: path for path in gone}
        index = self.collection.key.index(column)
        keys = self.target.keys_where(self.collection, column.name, ids)
        return self.fresh([unit_of(self.collection, key, ids[str(key[index])]) for key in keys])

    # --- by key ---------------------------------------------------------------------------------------------------------

    def examine_units(self, units: Sequence[Unit]) -> None:
        """Examines keys one by one with fresh reads on both sides, and writes what the policy allows."""
        for start in range(0, len(units), UNITS_AT_ONCE):
            for finding, key in self.protocol.run(units[start : start + UNITS_AT_ONCE], self.policy):
                self._found(finding, key)


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
