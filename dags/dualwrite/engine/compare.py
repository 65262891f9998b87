"""The engine: examines a collection, over a window or whole, and counts one verdict for each key.

It knows the two databases only through `Source` and `Target`, and no collection by name. `judge.py` decides,
`compare_and_set.py` writes beside live clients; this file reads pages, overlaps reading with writing, and looks twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self

from dualwrite.engine.classify import duplicate, still_to_write
from dualwrite.engine.compare_and_set import Protocol
from dualwrite.engine.job import Job
from dualwrite.engine.page import Page
from dualwrite.engine.parents import Parents
from dualwrite.engine.progress import ProgressLog
from dualwrite.engine.scans import scans
from dualwrite.engine.second_look import seen_twice
from dualwrite.engine.seen import Keys, Seen
from dualwrite.engine.units import Policy, Unit, unit_of, unit_of_finding, unit_of_row
from dualwrite.firestore.source import Scan
from dualwrite.firestore.values import document_of, is_anothers
from dualwrite.model.check_fields import begun
from dualwrite.model.documents import Document
from dualwrite.model.errors import IdentityError
from dualwrite.model.mapping import Key, Row, joined_label, key_of_path, map_document
from dualwrite.model.slices import Slice
from dualwrite.model.verdicts import (
    DRIFT,
    OBSTACLES,
    SETTLED_BY_WRITING,
    Excuse,
    Finding,
    Reason,
    Verdict,
    rejected,
)
from dualwrite.model.windows import Window

log = logging.getLogger(__name__)

_ROWS_AT_FIRST = 2_000
_MOST_ROWS = 50_000
"""Rows that are held at a time. A document of 1 MiB may have forty thousand entries."""
_SLICE_PAGE = 1_000
_LOOKS = 4
"""How often what differs is looked at again before it is left in flight."""
_LOCKED_SECONDS = 0.4
"""How long a transaction that inserts should last: it holds locks on keys and on parents' rows, and a client's statement
ends after 3 s. A page is cut into parts of that length, whatever its size."""


class Examiner:
    """Examines one collection in one run. `report` fills while it works."""

    def __init__(
        self,
        job: Job,
        policy: Policy,
        *,
        excused: Mapping[str, Excuse] | None = None,
        watched: frozenset[str] = frozenset(),
        trusted: timedelta | None = None,
    ) -> None:
        """`excused`: what a person accepted, by label. `watched`: labels already open before this run;
        `settled` collects those that match now. `trusted`: see Parents."""
        self.job = job
        self.source = job.source
        self.target = job.target
        self.catalog = job.catalog
        self.collection = job.collection
        self.policy = policy
        self.report = job.report
        self._excused = excused or {}
        self._watched = watched
        self._told = watched | self._excused.keys()
        self.settled: set[str] = set()
        """Watched keys that match now."""
        self._seen_labels: set[str] = set()
        """Labels that a first look examined. In a window: all. In a sweep: those that the rows' keys don't give, and those that
        were open before this run."""
        self._seen_paths: set[str] = set()
        self.rejected: list[Finding] = []
        """Rejections that nobody excused; kept for `first_look` alone."""
        self.accepted: list[Finding] = []
        """Drift that a person had excused before it was found; kept for `first_look` alone."""
        self.obstructed: list[Finding] = []
        """Extra rows that were to be deleted and are still there, each with the reason."""
        self.parents = Parents(job, trusted)
        self.protocol = Protocol(job, policy, self.parents)
        self._unresolved: list[tuple[Unit, Finding]] = []
        """Keys that documents share, each with what it is if its row is another document's."""
        self._waiting: list[Unit] = []
        """Rows of the scan that need another row of their own table first."""
        self._pending: list[Finding] | None = None
        self._matched_keys = Seen()
        self._seen_keys: Keys | None = None
        """Keys that this first look saw in documents."""
        self._whole = False
        """Whether this first look is of all documents and rows."""
        self._seen_names = Seen()
        """Of the documents that this first look of a window read."""
        self._rows_at_once = _ROWS_AT_FIRST

    def close(self) -> None:
        self.protocol.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- a window or all of a collection ----------------------------------------------------------------------------

    def scan(self, window: Window | None, page_size: int, part: Slice | None = None) -> None:
        """Examines every document whose check fields lie in the window, or (None) all there are; of a slice, its part.

        Raises SourceError or TargetError where that did not succeed whole; what was written until then is right.
        """
        # Beside other slices the journal is not ours alone: who adds them up finishes it.
        if self.policy.writes and part is None:
            self.protocol.finish_journal()
        progress = ProgressLog(self.collection.name)
        seen = Seen()
        parts = list(scans(self.collection, window, part))
        for n, scan in enumerate(parts):
            # A document that lies in the window by two check fields comes twice (and is billed twice): examined once.
            last = scan is parts[-1]
            for page in self.source.pages(scan, page_size):
                messages = page.messages
                if scan is not parts[0]:
                    messages = [m for m in messages if m.name not in seen]
                if part is not None and window is not None and n:
                    checks = self.collection.checks
                    cut = begun(checks, window)
                    messages = [m for m in messages if not is_anothers(m, checks[:n], cut, part.cut_at)]
                if not last:
                    seen.update(m.name for m in messages)
                self.report.documents_read += len(page.messages)
                if self._pending is not None and not self._whole:
                    self._seen_names.update(m.name for m in messages)
                self._page(messages)
                progress.tell(len(page.messages), page.total)
        self._resolve_shared_keys()
        self._look_at_waiting()
        self.protocol.collect_confirmations(wait=True)
        self.protocol.finish_late()
        if self.policy.writes and part is None:  # a commit whose answer was lost left rows that nobody here knows of
            self.protocol.finish_journal()
        progress.end()

    def first_look(
        self, window: Window | None, page_size: int, more: Callable[[Examiner], list[Unit]] = lambda _: []
    ) -> list[Finding]:
        """Examines a window from all sides, or (None) every document and every row. Writes nothing.

        Returns the differences that must be looked at a second time, which are not counted yet. A row that no document
        accounted for is examined by key, with fresh reads, and so are the units that `more` adds when the documents have
        been seen. Holds eight bytes for each document in memory, and the differences.
        """
        self._pending = []
        self._seen_keys = seen = Seen()
        self._whole = window is None
        self.scan(window, page_size)
        if self._whole:
            self._rows_without_documents(seen)
        self.examine_units(more(self))
        pending, self._pending = self._pending, None
        self._seen_keys = None
        self.report.taken -= len(pending)  # counted by the second look
        return pending

    def examine_slice(self, scan: Scan, rows: Sequence[Key]) -> int:
        """Examines the documents of a further scan, and these rows, as far as this first look of a window hasn't yet.
        Returns how many of the rows match a document that the scan doesn't hold."""
        try:
            for page in self.source.pages(scan, _SLICE_PAGE):
                self.report.documents_read += len(page.messages)
                self._page([m for m in page.messages if m.name not in self._seen_names])
        finally:  # what was taken up ends in a verdict, though the slice can't be read to its end
            self._resolve_shared_keys()
            self._look_at_waiting()
        matching = self.report.counts[Verdict.MATCHING]
        self.examine_units(self.fresh(self.units_of(rows)))
        return self.report.counts[Verdict.MATCHING] - matching

    def _rows_without_documents(self, seen: Seen) -> None:
        """Examines all rows that no document accounted for, by key. Those that came since the documents were read are among
        them: fresh reads on both sides tell."""
        for keys in self.target.keys(self.collection):
            left = [key for key in keys if key not in seen]
            # A document that can't become a row may have one; it has its verdict already.
            self.examine_units([u for u in self.units_of(left) if u.label not in self._seen_labels])

    @property
    def missing_parents(self) -> list[tuple[str, str]]:
        """Collections and paths of documents without rows that what was examined here requires."""
        return self.parents.insertable()

    @property
    def seen(self) -> frozenset[str]:
        """Labels of the keys that a first look of a window examined so far; of a sweep, see `_seen_labels`."""
        return frozenset(self._seen_labels)

    @property
    def seen_paths(self) -> frozenset[str]:
        """Paths of the documents whose entries this first look examined so far."""
        return frozenset(self._seen_paths)

    def fresh(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units that this first look has not examined yet."""
        keys = self._seen_keys if isinstance(self._seen_keys, Seen) else Seen()
        return list({u.label: u for u in units if u.label not in self._seen_labels and u.key not in keys}.values())

    def sweep(self, page_size: int, *, grace: float) -> None:
        """Examines every document and every row, and looks again, `grace` seconds later, at what differs: what changed
        meanwhile is in flight. Writes nothing."""
        pending = self.first_look(None, page_size)
        if pending:
            log.info("%s: %d differences, looking again in %.0f s", self.collection.name, len(pending), grace)
            self.target.close()
            time.sleep(grace)
            self.look_again(pending, grace)

    def look_again(self, seen: Sequence[Finding], grace: float) -> None:
        """Examines differences again, `grace` seconds after they were seen, until each is the same at two looks or gone. What
        keeps changing is in flight after a few looks."""
        waited = timedelta(seconds=grace)
        self.report.taken += len(seen)
        for left in reversed(range(_LOOKS)):
            before = {f.label: replace(f, verdict=Verdict.IN_FLIGHT) for f in seen}
            changed: list[Finding] = []
            found = self.protocol.run([unit_of_finding(self.collection, f) for f in seen], Policy())
            if not self.collection.key_leads_back:  # no read at a path tells that it is gone
                found = self.protocol.prove_extra(found)
            for finding in found:
                judged = seen_twice(finding, before[finding.label], waited=waited, age=waited, grace=waited)
                if left and judged.verdict is Verdict.IN_FLIGHT:
                    changed.append(finding)
                else:
                    self._found(judged)
            if not changed:
                return
            seen = changed
            self.target.close()
            time.sleep(grace)

    def _page(self, messages: Iterable[Any]) -> None:
        """Examines documents as Firestore's messages. Most match: those take the short way, and become no object."""
        page = self.protocol.page()
        entries: dict[str, set[str]] = {}
        stale: list[Unit] = []
        for message in messages:
            if not page.add_message(message):
                self._map(document_of(message), page, entries)
            if len(page) >= self._most_rows:
                stale += self._judge_part(page)
                page = self.protocol.page()
        self._finish_page([*stale, *self._judge_part(page)], entries)

    def _finish_page(self, stale: list[Unit], entries: dict[str, set[str]]) -> None:
        if entries:
            self._entries_gone(entries)
        if stale:
            self._examine(stale)
        self.protocol.collect_confirmations(wait=False)
        self.protocol.whereabouts.forget()

    def _map(self, document: Document, page: Page, entries: dict[str, set[str]]) -> None:
        """The exact way from a document to its rows or rejections. `entries` gets the labels of a document's entries."""
        units = map_document(self.collection, document)
        if units is None:
            self.report.stray += 1
            return
        if self.collection.entries is not None:
            entries[document.path] = {unit.label for unit in units}
            self._seen_paths.add(document.path)
        for unit in units:
            if isinstance(unit, Row):
                page.add(unit)
                continue
            self.report.taken += 1
            self._seen_labels.add(unit.label)
            self._found(rejected(unit))

    def _documents(self, documents: Iterable[Document]) -> None:
        """Examines documents that were read by path."""
        page, entries = self.protocol.page(), dict[str, set[str]]()
        for document in documents:
            self._map(document, page, entries)
        self._finish_page(self._judge_part(page), entries)
        self._look_at_waiting()

    def _judge_part(self, page: Page) -> list[Unit]:
        """Judges a page; where it inserts, the next one is cut so that it holds its locks for a moment only."""
        if not len(page):
            return []
        began, before, busy = time.monotonic(), self.report.inserted, self.target.busy_seconds
        stale = self._judge_page(page)
        took = self.target.busy_seconds - busy
        if self.report.inserted > before:
            ideal = len(page) * _LOCKED_SECONDS / max(time.monotonic() - began, 0.001)
            self._rows_at_once = int(max(50, min(2 * self._rows_at_once, ideal)))
        self.target.pressure.after(self.collection.name, len(page), took)
        return stale

    @property
    def _most_rows(self) -> int:
        """How many rows are judged at a time: what inserts holds locks, and a slow target gets less."""
        usual = self._rows_at_once if self.policy.insert else _MOST_ROWS
        slow = self.target.pressure.most_rows
        return usual if slow is None else min(usual, slow)

    def _judge_page(self, page: Page) -> list[Unit]:
        """Judges and, if the policy says so, inserts rows. Returns the stale rows that still need an update."""
        judged = self.protocol.judge(page, self.policy)
        # Only now: a page that can't be judged was not taken up, and a caller may go on without it.
        self.report.taken += len(page)
        if self._seen_keys is not None:
            self._seen_keys.update(page.key(n) for n in range(len(page)))
            if not self._whole:
                self._seen_labels.update(page.label(n) for n in range(len(page)))
            elif self._told:
                self._seen_labels |= self._told & {page.label(n) for n in range(len(page))}
        stale: list[Unit] = []
        for n, finding in judged.findings.items():
            row = page[n]
            if finding is None:
                self._unresolved.append((unit_of_row(row), duplicate(row)))
            elif n in judged.obstacles and judged.obstacles[n].own_table:
                self._waiting.append(unit_of_row(row))
            elif n not in judged.journal and still_to_write(finding, self.policy) and not _waits_for_parent(finding):
                stale.append(unit_of_row(row))  # or a client was faster with this row: settled by the protocol
            elif finding.reason == Reason.KEY_HELD_BY_ANOTHER_DOCUMENT and self.collection.keyed_by_path:
                # Of two documents of one id the key names the other one.
                self._found(replace(finding, label=joined_label(row.path.split("/"))))
            else:
                self._found(finding)
        if self._watched:
            matching = (n for n in range(len(page)) if n not in judged.findings)
            self.settled |= {page.label(n) for n in matching} & self._watched
        self.report.add_matching(len(page) - len(judged.findings))
        if not self.collection.keyed_by_path:
            self._matched_keys.update(
                page.key(n) for n in range(len(page)) if n not in judged.findings or n in judged.journal
            )
        late = [n in judged.late for n in judged.journal]
        self.protocol.confirm_later([page[n] for n in judged.journal], list(judged.journal.values()), late)
        return stale

    def _found(self, finding: Finding) -> None:
        excuse = self._excused.get(finding.label)
        if excuse is not None and excuse.covers(finding):
            finding = replace(finding, excused=True)
            if excuse.verdict is None and self._pending is not None:
                self.accepted.append(finding)
        if self._pending is not None:
            unsettled = finding.verdict in SETTLED_BY_WRITING or finding.verdict is Verdict.IN_FLIGHT
            if unsettled and finding.key is not None and not finding.excused:
                self._pending.append(finding)
                return
            if finding.verdict is Verdict.REJECTED and not finding.excused:
                self.rejected.append(replace(finding, key=None))  # it is the document that is mapped again
        if finding.reason in OBSTACLES and self.policy.writes:
            self.obstructed.append(finding)
        if finding.label in self._watched and finding.verdict not in DRIFT | {Verdict.IN_FLIGHT}:
            self.settled.add(finding.label)
        self.report.add(finding)

    # --- several documents on one natural key -------------------------------------------------------------------------

    def _resolve_shared_keys(self) -> None:
        """After the scan, settles rows whose key other documents may share: the protocol reads all of them and decides who
        owns the row."""
        unresolved, self._unresolved = self._unresolved, []
        contested = []
        for unit, if_another_has_it in unresolved:
            if unit.key in self._matched_keys:
                self._found(if_another_has_it)
            else:
                contested.append(unit)
        self._examine(contested)

    def _look_at_waiting(self) -> None:
        """Examines rows that reference rows of their own table, now that the scan has come to these."""
        waiting, self._waiting = self._waiting, []
        self._examine(waiting)

    # --- rows without documents -----------------------------------------------------------------------------------------

    def _entries_gone(self, entries: dict[str, set[str]]) -> None:
        """Rows of documents that none of their entries (labels by path) accounts for: examined by themselves."""
        there = set().union(*entries.values())
        gone = [u for u in self.rows_of(entries) if u.label not in there]
        if self._seen_keys is not None:
            self._seen_keys.update(u.key for u in gone)
        self.examine_units(gone)

    def rows_of(self, paths: Iterable[str]) -> list[Unit]:
        """The rows that are of entries of these documents, as far as the rows tell."""
        column = self.collection.document_column
        if column is None:
            return []
        by_id: dict[str, list[str]] = {}
        for path in paths:
            by_id.setdefault(path.rsplit("/", 1)[-1], []).append(path)
        found: list[Unit] = []
        for value, key in self.target.dependents(self.collection, column.name, by_id):
            unit = unit_of(self.collection, key, None)
            # Documents of one id lie below several parents; a key that names another parent is another document's.
            at = next((p for p in by_id[value] if self._could_be_at(unit, p)), None)
            if at is not None:
                found.append(replace(unit, path=at))
        return found

    def _could_be_at(self, unit: Unit, path: str) -> bool:
        return not self.collection.keyed_by_path or key_of_path(self.collection, path, unit.entry) == unit.key

    def units_of(self, keys: Sequence[Key]) -> list[Unit]:
        """The units of rows by key, their documents' paths told by the rows."""
        found: list[Unit] = []
        for start in range(0, len(keys), 5000):
            part = list(keys[start : start + 5000])
            paths = self.target.paths(self.collection, part)
            found += [unit_of(self.collection, key, next(iter(paths.get(key, ())), None)) for key in part]
        return found

    def examine_documents(self, paths: Sequence[str]) -> list[Unit]:
        """Examines documents whole (all their entries), as if they lay in the window. Returns the rows of those that
        are gone, which are to be examined by key."""
        gone: list[str] = []
        for documents in self.source.get_in_parts(paths, self.collection.fields):
            there = [d for d in documents.values() if isinstance(d, Document)]
            self._documents([d for d in there if d.path not in self._seen_paths])
            gone += [path for path, document in documents.items() if document is None]
        return self.fresh(self.rows_of(gone)) if gone else []

    # --- by key ---------------------------------------------------------------------------------------------------------

    def examine_units(self, units: Sequence[Unit]) -> list[Finding]:
        """Examines keys one by one with fresh reads on both sides, and writes what the policy allows. Returns the findings,
        which are counted already."""
        self.report.taken += len(units)
        if self._pending is not None:
            again = self._seen_labels & {u.label for u in units}
            if again or len({u.label for u in units}) < len(units):
                raise IdentityError(
                    f"Each key is examined once in a look: {self.collection.name} would examine {len(again)} again. This is a "
                    "defect of the bundle. Report it with the task's log."
                )
            self._seen_labels.update(u.label for u in units)
        return self._examine(units)

    def take(self, finding: Finding) -> None:
        """Counts a finding made elsewhere as a key of this look."""
        self.report.taken += 1
        self._seen_labels.add(finding.label)
        self._found(finding)

    def _examine(self, units: Sequence[Unit]) -> list[Finding]:
        """As examine_units, for keys that were taken up already."""
        findings = self.protocol.run(units, self.policy)
        for finding in findings:
            self._found(finding)
        self.protocol.finish_late()
        return findings


def _waits_for_parent(finding: Finding) -> bool:
    return finding.verdict is Verdict.MISSING and finding.reason is not None
