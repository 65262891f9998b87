"""The engine: examines a collection, over a window or whole, and ends each key in one verdict.

It knows the two databases only through `Source` and `Target`, and no collection by name. `judge.py` decides,
`compare_and_set.py` writes beside live clients, and a look (`looks.py`) remembers; this file reads pages, and overlaps reading
with writing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

from dualwrite.engine.classify import duplicate, is_insertable, still_to_write
from dualwrite.engine.compare_and_set import Protocol
from dualwrite.engine.job import Job
from dualwrite.engine.looks import Look
from dualwrite.engine.page import Page
from dualwrite.engine.parents import Parents
from dualwrite.engine.progress import ProgressLog
from dualwrite.engine.scans import scans
from dualwrite.engine.second_look import seen_twice
from dualwrite.engine.seen import Seen
from dualwrite.engine.units import Policy, Unit, unit_of, unit_of_finding, unit_of_row
from dualwrite.firestore.source import Scan
from dualwrite.firestore.values import document_of
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Key, Row, is_left_out, joined_label, key_left_out, key_of_path, map_document
from dualwrite.model.verdicts import Finding, Reason, Verdict, rejected
from dualwrite.model.windows import Window
from dualwrite.postgres.bad_rows import Refused

log = logging.getLogger(__name__)

_ROWS_AT_FIRST = 2_000
_MOST_ROWS = 50_000
"""Rows that are held at a time. A document of 1 MiB may have forty thousand entries."""
_FURTHER_PAGE = 1_000
_KEYS_AT_ONCE = 5_000
_LOOKS = 4
"""How often what differs is looked at again before it is left in flight."""
_LOCKED_SECONDS = 0.4
"""How long a transaction that inserts should last: it holds locks on keys and on parents' rows, and a client's statement
ends after 3 s. A page is cut into parts of that length, whatever its size."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """A row to be inserted under a natural key; not the row itself, which may be large."""

    unit: Unit
    finding: Finding
    if_another_has_it: Finding
    create_time: datetime


@dataclass(slots=True)
class _Left:
    """What pages leave to be examined when all of them are read."""

    unresolved: list[tuple[Unit, Finding]] = field(default_factory=list)
    """Keys that documents share, each with what it is if its row is another document's."""
    missing: dict[Key, _Missing] = field(default_factory=dict)
    """Rows to be inserted under natural keys, if this look writes nothing: an older document on a later page owns the key."""
    contested: set[Key] = field(default_factory=set)
    """Natural keys of which that was seen."""
    waiting: list[Unit] = field(default_factory=list)
    """Rows that need another row of their own table first, or that another row is in the way of which this run may change."""
    out: list[Unit] = field(default_factory=list)
    """Keys of documents that don't hold the collection's condition."""
    out_with_rows: dict[str, Unit] = field(default_factory=dict)
    """Of these, those that have a row nevertheless, by label."""


class Examiner:
    """Examines one collection in one run, and tells `look` what it saw."""

    def __init__(self, job: Job, policy: Policy, look: Look, *, trusted: timedelta | None = None) -> None:
        """`trusted`: see Parents."""
        self.job = job
        self.look = look
        self.parents = Parents(job, trusted)
        self.protocol = Protocol(job, policy, self.parents)
        self._policy = policy
        self._rows_at_once = _ROWS_AT_FIRST

    def close(self) -> None:
        self.protocol.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- a window or all of a collection ----------------------------------------------------------------------------

    def scan(self, window: Window | None, page_size: int) -> None:
        """Examines every document whose check fields lie in the window, or (None) all there are; raises as `read` does."""
        if self._policy.writes:
            self.protocol.finish_journal()
        self.read(list(scans(self.job.collection, window)), page_size)
        if self._policy.writes:  # a commit whose answer was lost left rows that nobody here knows of
            self.protocol.finish_journal()

    def read(self, parts: Sequence[Scan], page_size: int, leave: Callable[[int, Any], bool] | None = None) -> None:
        """Examines each document that these scans read, once. `leave(n, message)`: whether one that the n-th scan reads is to
        be left to somebody else. The journal isn't finished: beside others it is not ours alone.

        Raises SourceError or TargetError where that did not succeed whole; what was written until then is right.
        """
        progress, seen, left = ProgressLog(self.job.collection.name), Seen(), _Left()
        for n, scan in enumerate(parts):
            # A document that lies in the window by two check fields comes twice (and is billed twice): examined once.
            last = scan is parts[-1]
            for page in self.job.source.pages(scan, page_size):
                messages = page.messages
                if scan is not parts[0]:
                    messages = [m for m in messages if m.name not in seen]
                if leave is not None:
                    messages = [m for m in messages if not leave(n, m)]
                if not last:
                    seen.update(m.name for m in messages)
                self.job.report.documents_read += len(page.messages)
                self.look.read(messages)
                self._page(messages, left)
                progress.tell(len(page.messages), page.total)
        self._examine_left(left)
        self.protocol.collect_confirmations(wait=True)
        self.protocol.finish_late()
        progress.end()

    def read_further(self, scan: Scan, rows: Sequence[Key]) -> list[Finding]:
        """Examines the documents of a further scan, and these rows, as far as the look hasn't yet. Returns the findings on the
        rows."""
        left = _Left()
        try:
            for page in self.job.source.pages(scan, _FURTHER_PAGE):
                self.job.report.documents_read += len(page.messages)
                self._page(self.look.unread(page.messages), left)
        finally:  # what was taken up ends in a verdict, though the slice can't be read to its end
            self._examine_left(left)
        return self.examine_units(self.look.fresh(self.units_of(rows)))

    def examine_rows(self) -> None:
        """Examines all rows that no document of the look accounted for, by key. Those that came since the documents were read
        are among them: fresh reads on both sides tell."""
        for keys in self.job.target.keys(self.job.collection):
            # A document that can't become a row may have one; it has its verdict already.
            self.examine_units(self.look.fresh(self.units_of(self.look.unseen(keys))))

    def look_again(self, seen: Sequence[Finding], grace: float) -> None:
        """Examines differences again, `grace` seconds after they were seen, until each is the same at two looks or gone. What
        keeps changing is in flight after a few looks. Meanwhile no connection is held."""
        waited = timedelta(seconds=grace)
        self.job.report.taken += len(seen)
        for left in reversed(range(_LOOKS)):
            if not seen:
                return
            log.info("%s: %d differences, looking again in %.0f s", self.job.collection.name, len(seen), grace)
            self.job.target.close()
            time.sleep(grace)
            before = {f.label: replace(f, verdict=Verdict.IN_FLIGHT) for f in seen}
            changed: list[Finding] = []
            found = self.protocol.run([unit_of_finding(self.job.collection, f) for f in seen], Policy())
            if not self.job.collection.key_leads_back:  # no read at a path tells that it is gone
                found = self.protocol.prove_extra(found)
            for finding in found:
                judged = seen_twice(finding, before[finding.label], waited=waited, age=waited, grace=waited)
                if left and judged.verdict is Verdict.IN_FLIGHT:
                    changed.append(finding)
                else:
                    self.look.count(judged)
            seen = changed

    def _page(self, messages: Iterable[Any], left: _Left) -> None:
        """Examines documents as Firestore's messages. Most match: those take the short way, and become no object."""
        page = self.protocol.page()
        entries: dict[str, set[str]] = {}
        stale: list[Unit] = []
        for message in messages:
            if not page.add_message(message):
                self._map(document_of(message), page, entries, left)
            if len(page) >= self._most_rows:
                stale += self._judge_part(page, left)
                page = self.protocol.page()
        self._finish_page([*stale, *self._judge_part(page, left)], entries, left)

    def _finish_page(self, stale: list[Unit], entries: dict[str, set[str]], left: _Left) -> None:
        if entries:
            self._entries_gone(entries)
        if stale:
            self._examine_stale(stale, left)
        self.protocol.collect_confirmations(wait=False)
        self.protocol.whereabouts.forget()

    def _examine_stale(self, stale: list[Unit], left: _Left) -> None:
        """Updates a page's stale rows; one that another row is in the way of waits until everything is read."""
        for finding in self.protocol.run(stale, self._policy):
            if finding.verdict is Verdict.REJECTED and finding.label in self.protocol.waiting:
                left.waiting.append(self.protocol.waiting[finding.label])
            else:
                self.look.found(finding)
        self.protocol.finish_late()

    def _map(self, document: Document, page: Page, entries: dict[str, set[str]], left: _Left) -> None:
        """The exact way from a document to its rows or rejections. `entries` gets the labels of a document's entries."""
        units = map_document(self.job.collection, document)
        if units is None:
            self.job.report.stray += 1
            return
        if not units and self.job.collection.where is not None and is_left_out(self.job.collection, document):
            self.job.report.left_out += 1
            key = key_left_out(self.job.collection, document) if self.job.collection.entries is None else None
            if key is not None and not self.look.comes_to_all_rows:
                left.out.append(unit_of(self.job.collection, key, document.path))
                if len(left.out) >= _KEYS_AT_ONCE:
                    self._sift_left_out(left)
        if self.job.collection.entries is not None:
            entries[document.path] = {unit.label for unit in units}
            self.look.read_entries(document.path)
        for unit in units:
            if isinstance(unit, Row):
                page.add(unit)
                continue
            self.look.take(unit.label)
            self.look.found(rejected(unit))

    def _judge_part(self, page: Page, left: _Left) -> list[Unit]:
        """Judges a page; where it inserts, the next one is cut so that it holds its locks for a moment only."""
        if not len(page):
            return []
        began, busy = time.monotonic(), self.job.target.busy_seconds
        inserted, stale = self._judge_page(page, left)
        took = self.job.target.busy_seconds - busy
        if inserted:
            ideal = len(page) * _LOCKED_SECONDS / max(time.monotonic() - began, 0.001)
            self._rows_at_once = int(max(50, min(2 * self._rows_at_once, ideal)))
        self.job.target.pressure.after(self.job.collection.name, len(page), took)
        return stale

    @property
    def _most_rows(self) -> int:
        """How many rows are judged at a time: what inserts holds locks, and a slow target gets less."""
        usual = self._rows_at_once if self._policy.insert else _MOST_ROWS
        slow = self.job.target.pressure.most_rows
        return usual if slow is None else min(usual, slow)

    def _judge_page(self, page: Page, left: _Left) -> tuple[int, list[Unit]]:
        """Judges and, if the policy says so, inserts rows. Returns how many, and the stale rows that still need an update."""
        collection, look = self.job.collection, self.look
        judged = self.protocol.judge(page, self._policy)
        look.take_page(page)
        stale: list[Unit] = []
        for n, finding in judged.findings.items():
            row = page[n]
            if finding is None:
                left.unresolved.append((unit_of_row(row), duplicate(row)))
            elif n in judged.obstacles and self._has_another_turn(judged.obstacles[n]):
                left.waiting.append(unit_of_row(row))
            elif n not in judged.journal and still_to_write(finding, self._policy) and not _waits_for_parent(finding):
                stale.append(unit_of_row(row))  # or a client was faster with this row: settled by the protocol
            elif finding.reason == Reason.KEY_HELD_BY_ANOTHER_DOCUMENT and collection.keyed_by_path:
                # Of two documents of one id the key names the other one.
                look.found(replace(finding, label=joined_label(row.path.split("/"))))
            elif not collection.keyed_by_path and not self._policy.insert and is_insertable(finding):
                left.missing[row.key] = _Missing(unit_of_row(row), finding, duplicate(row), row.create_time)
            elif finding.reason is Reason.UNIQUE_KEY_TAKEN and _is_older(row, left.missing.get(row.key)):
                # The second look asks all documents of the key: it would call the one that was taken for missing a duplicate,
                # and nobody would look at this one. So all of them are asked for now.
                taken = left.missing.pop(row.key)
                left.contested.add(row.key)
                self.protocol.release(taken.unit)
                left.unresolved += [(taken.unit, taken.if_another_has_it), (unit_of_row(row), duplicate(row))]
            elif finding.reason is Reason.UNIQUE_KEY_TAKEN and row.key in left.contested:
                left.unresolved.append((unit_of_row(row), duplicate(row)))
            else:
                look.found(finding)
        numbers = range(len(page))
        look.match(page, [n for n in numbers if n not in judged.findings] if judged.findings else numbers)
        if not collection.keyed_by_path:
            look.match_keys(page.key(n) for n in numbers if n not in judged.findings or n in judged.journal)
        late = [n in judged.late for n in judged.journal]
        self.protocol.confirm_later([page[n] for n in judged.journal], list(judged.journal.values()), late)
        return judged.inserted, stale

    def _has_another_turn(self, why: Refused) -> bool:
        return why.own_table or (why.may_be_freed and self._policy.writes)

    def _examine_left(self, left: _Left) -> None:
        """Now that everything is read: the rows whose key other documents may share (the protocol reads all of these and
        decides who owns the row), then the rows that reference rows of their own table."""
        contested = []
        for missing in left.missing.values():
            self.look.found(missing.finding)
        for unit, if_another_has_it in left.unresolved:
            if self.look.has_matched(unit.key):
                self.look.found(if_another_has_it)
            else:
                contested.append(unit)
        self._examine(contested)
        self._examine(left.waiting)
        # With a key that several documents share, a row may be of one that holds the condition: that was examined above.
        self._sift_left_out(left)
        others = {unit.key for unit in contested}
        there = self.look.fresh(left.out_with_rows.values())
        self.examine_units([u for u in there if u.key not in others and not self.look.has_matched(u.key)])

    def _sift_left_out(self, left: _Left) -> None:
        """Of keys of documents that don't hold the condition, keeps those that have a row which doesn't tell that it is another
        document's."""
        out, left.out = left.out, []
        if out:
            told = self.job.target.paths(self.job.collection, list({u.key: None for u in out}))
            there = [u for u in out if u.key in told and (not told[u.key] or u.path in told[u.key])]
            left.out_with_rows.update((u.label, u) for u in there)

    # --- rows without documents -----------------------------------------------------------------------------------------

    def _entries_gone(self, entries: dict[str, set[str]]) -> None:
        """Rows of documents that none of their entries (labels by path) accounts for: examined by themselves."""
        there = set().union(*entries.values())
        gone = [u for u in self.rows_of(entries) if u.label not in there]
        self.look.take_rows(u.key for u in gone)
        self.examine_units(gone)

    def rows_of(self, paths: Iterable[str]) -> list[Unit]:
        """The rows that are of entries of these documents, as far as the rows tell."""
        collection, column = self.job.collection, self.job.collection.document_column
        if column is None:
            at = next(iter(paths), None) if collection.is_one_document and collection.entries is not None else None
            keys = self.job.target.keys(collection) if at is not None else ()
            return [replace(unit_of(collection, key, None), path=at) for page in keys for key in page]
        by_id: dict[str, list[str]] = {}
        for path in paths:
            value = collection.document_value(path)
            if value is not None:
                by_id.setdefault(value, []).append(path)
        found: list[Unit] = []
        for value, key in self.job.target.dependents(collection, column.name, by_id):
            unit = unit_of(collection, key, None)
            # Documents of one id lie below several parents; a key that names another parent is another document's.
            at = next((p for p in by_id[value] if self._could_be_at(unit, p)), None)
            if at is not None:
                found.append(replace(unit, path=at))
        return found

    def _could_be_at(self, unit: Unit, path: str) -> bool:
        collection = self.job.collection
        return not collection.keyed_by_path or key_of_path(collection, path, unit.entry) == unit.key

    def units_of(self, keys: Sequence[Key]) -> list[Unit]:
        """The units of rows by key, their documents' paths told by the rows."""
        collection = self.job.collection
        found: list[Unit] = []
        for start in range(0, len(keys), 5000):
            part = list(keys[start : start + 5000])
            paths = self.job.target.paths(collection, part)
            found += [unit_of(collection, key, next(iter(paths.get(key, ())), None)) for key in part]
        return found

    def examine_documents(self, paths: Sequence[str]) -> list[Unit]:
        """Examines documents whole (all their entries), as if they lay in the window. Returns the rows of those that are gone,
        which are to be examined by key."""
        gone: list[str] = []
        for documents in self.job.source.get_in_parts(paths, self.job.collection.fields):
            page, entries, left = self.protocol.page(), dict[str, set[str]](), _Left()
            for document in documents.values():
                if isinstance(document, Document) and not self.look.has_entries(document.path):
                    self._map(document, page, entries, left)
            self._finish_page(self._judge_part(page, left), entries, left)
            self._examine_left(left)
            gone += [path for path, document in documents.items() if document is None]
        return self.look.fresh(self.rows_of(gone)) if gone else []

    # --- by key ---------------------------------------------------------------------------------------------------------

    def examine_units(self, units: Sequence[Unit]) -> list[Finding]:
        """Examines keys one by one with fresh reads on both sides, and writes what the policy allows. Returns the findings,
        which the look has."""
        self.look.take_units(units)
        return self._examine(units)

    def take(self, finding: Finding) -> None:
        """Tells the look of a finding that was made elsewhere."""
        self.look.take(finding.label)
        self.look.found(finding)

    def _examine(self, units: Sequence[Unit]) -> list[Finding]:
        """As examine_units, for keys that were taken up already."""
        findings = self.protocol.run(units, self._policy)
        for finding in findings:
            self.look.found(finding)
        self.protocol.finish_late()
        return findings


def _waits_for_parent(finding: Finding) -> bool:
    return finding.verdict is Verdict.MISSING and finding.reason is not None


def _is_older(row: Row, other: _Missing | None) -> bool:
    """Whether a row's document owns a natural key before another one's: the rule of Reading, which asks all of them."""
    return other is not None and (row.create_time, row.label) < (other.create_time, other.unit.label)
