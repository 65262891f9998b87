"""The engine: examines a collection, over a window or whole, and ends each key in one verdict.

It knows the two databases only through `Source` and `Target`, and no collection by name. It reads pages; `judge.py` decides,
`compare_and_set.py` writes beside live clients, and a look (`looks.py`) counts and remembers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

from dualwrite.engine.classify import duplicate, is_insertable, still_to_write
from dualwrite.engine.compare_and_set import WritingProtocol
from dualwrite.engine.job import Job
from dualwrite.engine.judge import Judged
from dualwrite.engine.looks import Look
from dualwrite.engine.parents import Parents
from dualwrite.engine.progress import ProgressLog
from dualwrite.engine.scans import scans
from dualwrite.engine.second_look import seen_twice
from dualwrite.engine.seen import Seen
from dualwrite.engine.staged_rows import StagedRows
from dualwrite.engine.units import Policy, Unit, unit_of, unit_of_finding, unit_of_row
from dualwrite.firestore.source import Scan
from dualwrite.firestore.values import document_of, path_of
from dualwrite.model.documents import Document
from dualwrite.model.keys import Key, joined_label, key_of_path
from dualwrite.model.mapping import Row, is_left_out, key_left_out, map_document
from dualwrite.model.verdicts import Finding, Reason, Verdict, rejected
from dualwrite.model.windows import Window
from dualwrite.postgres.bad_rows import Refused

log = logging.getLogger(__name__)

ROWS_AT_FIRST = 2_000
MOST_ROWS = 50_000
"""Rows held in memory at a time. A document of 1 MiB may have forty thousand entries."""
FURTHER_PAGE = 1_000
_KEYS_AT_ONCE = 5_000
_LOOKS = 4
"""How often a difference is looked at again before it is left in flight."""
LOCKED_SECONDS = 0.4
"""How long a transaction that inserts should last, in seconds: it holds locks on keys and on parents' rows, and a client's
statement times out after 3 s. A page is cut into parts that take this long."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """A row to be inserted under a natural key; not the row itself, which may be large."""

    unit: Unit
    finding: Finding
    if_another_has_it: Finding
    create_time: datetime


@dataclass(slots=True)
class _Left:
    """Keys that are examined only after all pages are read."""

    unresolved: list[tuple[Unit, Finding]] = field(default_factory=list)
    """Keys that documents may share, each with its finding if the row is another document's."""
    missing: dict[Key, _Missing] = field(default_factory=dict)
    """Rows missing under natural keys, in a look that inserts nothing: an older document on a later page would own the key."""
    contested: set[Key] = field(default_factory=set)
    """Natural keys for which an older document came later."""
    waiting: list[Unit] = field(default_factory=list)
    """Rows that need another row of their own table first, or that are blocked by a row that this run may change."""
    held: list[tuple[Unit, Finding]] = field(default_factory=list)
    """Rows that another row blocks, in a look that writes nothing."""
    out: list[Unit] = field(default_factory=list)
    """Keys of documents that don't meet the collection's condition."""
    out_with_rows: dict[str, Unit] = field(default_factory=dict)
    """Those of `out` that have a row nevertheless, by label."""


@dataclass(slots=True)
class _Beside:
    """Rows beside those that a page's documents have."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    """By path, the labels of the entries of documents whose rows must be looked up by their id."""
    pages: list[StagedRows] = field(default_factory=list)
    """The judged pages of documents that have one row each: the comparison with the stage finds rows beside these."""
    found: dict[str, Unit] = field(default_factory=dict)
    """Those rows, by label."""


class Examiner:
    """Examines one collection in one run, and reports to `look`."""

    def __init__(self, job: Job, policy: Policy, look: Look, *, trusted: timedelta | None = None) -> None:
        """`trusted`: see Parents."""
        self.job = job
        self.look = look
        self.parents = Parents(job, trusted)
        self.protocol = WritingProtocol(job, policy, self.parents)
        self._policy = policy
        self._rows_at_once = ROWS_AT_FIRST
        self._stage_shows_others = job.collection.may_have_others

    def close(self) -> None:
        self.protocol.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- a window or all of a collection ----------------------------------------------------------------------------

    def scan(self, window: Window | None, page_size: int) -> None:
        """Examines every document whose check fields lie in the window (None: all documents); raises as `read` does."""
        if self._policy.writes:
            self.protocol.finish_journal()
        self.read(list(scans(self.job.collection, window)), page_size)
        if self._policy.writes:  # a commit whose answer was lost left rows that only the journal knows
            self.protocol.finish_journal()

    def read(self, parts: Sequence[Scan], page_size: int, leave: Callable[[int, Any], bool] | None = None) -> None:
        """Examines each document that these scans read, once. `leave(n, message)`: whether a document of the n-th scan is
        another slice's. Doesn't finish the journal, which other slices write too.

        Raises SourceError or TargetError if it can't read or write everything; rows written until then are right.
        """
        progress, seen, left = ProgressLog(self.job.collection.name), Seen(), _Left()
        for n, scan in enumerate(parts):
            # A document with two check fields in the window is delivered (and billed) twice, and examined once.
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
        """Examines the documents of a further scan and these rows, except those that the look has seen. Returns the findings
        on the rows."""
        left = _Left()
        try:
            for page in self.job.source.pages(scan, FURTHER_PAGE):
                self.job.report.documents_read += len(page.messages)
                self._page(self.look.unread(page.messages), left)
        finally:  # keys that were taken up get their verdict even if the scan fails
            self._examine_left(left)
        return self.examine_units(self.look.fresh(self.units_of(rows)))

    def examine_rows(self) -> None:
        """Examines, by key and with fresh reads on both sides, all rows that no document of the look accounted for. Rows
        that came after the documents were read are among them."""
        for keys in self.job.target.keys(self.job.collection):
            # A rejected document may have a row; it has its verdict already.
            self.examine_units(self.look.fresh(self.units_of(self.look.unseen(keys))))

    def look_again(self, seen: Sequence[Finding], grace: float) -> None:
        """Examines differences again, `grace` seconds after they were seen, until each is the same at two looks or gone. If
        one keeps changing, it is in flight after a few looks. No connection is held while waiting."""
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
            units = [unit_of_finding(self.job.collection, f) for f in seen]
            for unit in units:
                self.protocol.release(unit)
            findings = self.protocol.run(units, Policy())
            if not self.job.collection.key_leads_back:  # no read at a path proves that it is gone
                findings = self.protocol.prove_extra(findings)
            for finding in findings:
                judged = seen_twice(finding, before[finding.label], waited=waited, age=waited, grace=waited)
                if left and judged.verdict is Verdict.IN_FLIGHT:
                    changed.append(finding)
                else:
                    self.look.count(judged)
            seen = changed

    def _page(self, messages: Iterable[Any], left: _Left) -> None:
        """Examines documents as Firestore's messages. Most match and take the short way, without becoming objects."""
        page = self.protocol.staged()
        beside = _Beside()
        stale: list[Unit] = []
        has_entries = self.job.collection.entries is not None
        for message in messages:
            if not page.add_message(message):
                self._map(document_of(message), page, beside, left)
            elif has_entries:
                path = path_of(message)
                self.look.read_entries(path)
                if not self._stage_shows_others:
                    beside.labels[path] = {page.label(len(page) - 1)}
            if len(page) >= self._most_rows:
                stale += self._judge_part(page, beside, left)
                page = self.protocol.staged()
        self._finish_page([*stale, *self._judge_part(page, beside, left)], beside, left)

    def _finish_page(self, stale: list[Unit], beside: _Beside, left: _Left) -> None:
        if beside.labels or beside.found:
            self._entries_gone(beside)
        if stale:
            self._examine_stale(stale, left)
        self.protocol.collect_confirmations(wait=False)
        self.protocol.whereabouts.forget()

    def _examine_stale(self, stale: list[Unit], left: _Left) -> None:
        """Updates a page's stale rows; one that another row blocks waits until everything is read."""
        ran = self.protocol.run_in_turn(stale, self._policy)
        for finding in ran.findings:
            if finding.verdict is Verdict.REJECTED and finding.label in ran.waiting:
                left.waiting.append(ran.waiting[finding.label])
            else:
                self.look.add(finding)
        self.protocol.finish_late()

    def _map(self, document: Document, page: StagedRows, beside: _Beside, left: _Left) -> None:
        """Maps a document with `map_document`, the exact way: its rows go to the page, its rejections to the look, the labels of
        its entries to `beside`."""
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
            self.look.read_entries(document.path)
            if not self._stage_shows_others or not any(isinstance(unit, Row) for unit in units):
                beside.labels[document.path] = {unit.label for unit in units}
        for unit in units:
            if isinstance(unit, Row):
                page.add(unit)
                continue
            self.look.take(unit.label)
            self.look.add(rejected(unit))

    def _judge_part(self, page: StagedRows, beside: _Beside, left: _Left) -> list[Unit]:
        """Judges a page, and returns the stale rows that still need an update. If it inserted, the next page is sized by the
        time that this one took."""
        if not len(page):
            return []
        began, busy = time.monotonic(), self.job.target.busy_seconds
        inserted, stale = self._judge_page(page, beside, left)
        took = self.job.target.busy_seconds - busy
        if inserted:
            ideal = len(page) * LOCKED_SECONDS / max(time.monotonic() - began, 0.001)
            self._rows_at_once = int(max(50, min(2 * self._rows_at_once, ideal)))
        self.job.target.pressure.after(self.job.collection.name, len(page), took)
        return stale

    @property
    def _most_rows(self) -> int:
        """How many rows are judged at a time: fewer if the run inserts, because inserts hold locks, or if the target is
        slow."""
        usual = self._rows_at_once if self._policy.insert else MOST_ROWS
        slow = self.job.target.pressure.most_rows
        return usual if slow is None else min(usual, slow)

    def _judge_page(self, page: StagedRows, beside: _Beside, left: _Left) -> tuple[int, list[Unit]]:
        """Judges rows and, if the policy allows, inserts the missing ones. Returns how many it inserted, and the stale rows
        that still need an update."""
        collection, look = self.job.collection, self.look
        judged = self.protocol.judge(page, self._policy)
        look.take_page(page)
        if self._stage_shows_others:
            self._look_beside(page, judged, beside)
        stale: list[Unit] = []
        for n, finding in judged.findings.items():
            row = page[n]
            if finding is None:
                left.unresolved.append((unit_of_row(row), duplicate(row)))
            elif n in judged.obstacles and self._has_another_turn(judged.obstacles[n]):
                left.waiting.append(unit_of_row(row))
            elif n in judged.obstacles and not self._policy.writes and judged.obstacles[n].may_be_freed:
                left.held.append((unit_of_row(row), finding))
            elif n not in judged.journal and still_to_write(finding, self._policy) and not _waits_for_parent(finding):
                stale.append(unit_of_row(row))  # or a client was faster with this row: the protocol settles it
            elif finding.reason == Reason.KEY_HELD_BY_ANOTHER_DOCUMENT and collection.keyed_by_path:
                # Of two documents with one id, the key is the other one's.
                look.add(replace(finding, label=joined_label(row.path.split("/"))))
            elif not collection.keyed_by_path and not self._policy.insert and is_insertable(finding):
                left.missing[row.key] = _Missing(unit_of_row(row), finding, duplicate(row), row.create_time)
            elif finding.reason is Reason.UNIQUE_KEY_TAKEN and _is_older(row, left.missing.get(row.key)):
                # The second look reads all documents of the key: it would call the other one a duplicate, and this one would
                # get no look. So all of them are read now.
                taken = left.missing.pop(row.key)
                left.contested.add(row.key)
                self.protocol.release(taken.unit)
                left.unresolved += [(taken.unit, taken.if_another_has_it), (unit_of_row(row), duplicate(row))]
            elif finding.reason is Reason.UNIQUE_KEY_TAKEN and row.key in left.contested:
                left.unresolved.append((unit_of_row(row), duplicate(row)))
            else:
                look.add(finding)
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
        """After everything is read, settles rows whose key other documents may share (the protocol reads all of these and
        decides which owns the row), then rows that wait for others of their own table, then rows of left-out documents."""
        contested = []
        for missing in left.missing.values():
            self.look.add(missing.finding)
        for unit, if_another_has_it in left.unresolved:
            if self.look.has_matched(unit.key):
                self.look.add(if_another_has_it)
            else:
                contested.append(unit)
        self._examine(contested)
        self._examine(left.waiting)
        self._examine_held(left)
        # If several documents share a key, its row may be of one that meets the condition: that was examined above.
        self._sift_left_out(left)
        others = {unit.key for unit in contested}
        there = self.look.fresh(left.out_with_rows.values())
        self.examine_units([u for u in there if u.key not in others and not self.look.has_matched(u.key)])

    def _examine_held(self, left: _Left) -> None:
        """Examines rows again whose place a row leaves that an apply would update, as long as there are any; then, as an apply
        does, all that are still blocked and may have lost a unique key meanwhile."""
        while freed := [unit for unit, _ in left.held if self.protocol.may_be_freed(unit)]:
            labels = {unit.label for unit in freed}
            left.held = [(unit, finding) for unit, finding in left.held if unit.label not in labels]
            units = {unit.label: unit for unit in freed}
            for unit in freed:  # one whose document is gone by now isn't judged again, and waits no longer
                self.protocol.release(unit)
            for finding in self.protocol.run(freed, self._policy):
                if self.protocol.waits(units[finding.label]):  # for further rows
                    left.held.append((units[finding.label], finding))
                else:
                    self.look.add(finding)
            self.protocol.finish_late()
        held, left.held = left.held, []
        if self.job.collection.unique:
            self._examine([unit for unit, _ in held])
        else:
            for _, finding in held:
                self.look.add(finding)
        self.job.report.order_decides = self.protocol.order_decides

    def _sift_left_out(self, left: _Left) -> None:
        """Moves keys of left-out documents to `out_with_rows` if they have a row, and that row doesn't give another
        document's path."""
        out, left.out = left.out, []
        if out:
            told = self.job.target.paths(self.job.collection, list({u.key: None for u in out}))
            there = [u for u in out if u.key in told and (not told[u.key] or u.path in told[u.key])]
            left.out_with_rows.update((u.label, u) for u in there)

    # --- rows without documents -----------------------------------------------------------------------------------------

    def _look_beside(self, page: StagedRows, judged: Judged, beside: _Beside) -> None:
        """Adds to `beside` the rows that the stage's documents have besides. Refused rows aren't on the stage."""
        beside.pages.append(page)
        for n, key in judged.others:
            unit, path = unit_of(self.job.collection, key, None), page[n].path
            if self._could_be_at(unit, path):
                beside.found.setdefault(unit.label, replace(unit, path=path))
        for n, finding in judged.findings.items():
            if finding is not None and finding.verdict is Verdict.REJECTED:
                beside.labels[page[n].path] = {page.label(n)}

    def _entries_gone(self, beside: _Beside) -> None:
        """Examines, by key, rows of documents that belong to none of their entries, nor to a document of the same id."""
        there = set().union(*beside.labels.values(), *({p.label(n) for n in range(len(p))} for p in beside.pages))
        found = {**{u.label: u for u in self.rows_of(beside.labels)}, **beside.found}
        gone = [unit for label, unit in found.items() if label not in there]
        self.look.take_rows(u.key for u in gone)
        self.examine_units(gone)

    def rows_of(self, paths: Iterable[str]) -> list[Unit]:
        """The units of rows that belong to entries of these documents, as far as the rows show it."""
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
        if not by_id:
            return []
        units: list[Unit] = []
        for value, key in self.job.target.dependents(collection, column.name, by_id):
            unit = unit_of(collection, key, None)
            # Several parents may have documents with one id; a key that names another parent is another document's.
            at = next((p for p in by_id[value] if self._could_be_at(unit, p)), None)
            if at is not None:
                units.append(replace(unit, path=at))
        return units

    def _could_be_at(self, unit: Unit, path: str) -> bool:
        collection = self.job.collection
        return not collection.keyed_by_path or key_of_path(collection, path, unit.entry) == unit.key

    def units_of(self, keys: Sequence[Key]) -> list[Unit]:
        """The units of rows by key, with the first path that each row gives for its document."""
        collection = self.job.collection
        units: list[Unit] = []
        for start in range(0, len(keys), 5000):
            part = list(keys[start : start + 5000])
            paths = self.job.target.paths(collection, part)
            units += [unit_of(collection, key, next(iter(paths.get(key, ())), None)) for key in part]
        return units

    def examine_documents(self, paths: Sequence[str]) -> list[Unit]:
        """Examines whole documents (all their entries), as if they lay in the window. Returns the units of rows whose
        document is gone, which the caller must examine by key."""
        gone: list[str] = []
        for documents in self.job.source.get_in_parts(paths, self.job.collection.fields):
            page, beside, left = self.protocol.staged(), _Beside(), _Left()
            for document in documents.values():
                if isinstance(document, Document) and not self.look.has_entries(document.path):
                    self._map(document, page, beside, left)
            self._finish_page(self._judge_part(page, beside, left), beside, left)
            self._examine_left(left)
            gone += [path for path, document in documents.items() if document is None]
        return self.look.fresh(self.rows_of(gone)) if gone else []

    # --- by key ---------------------------------------------------------------------------------------------------------

    def examine_units(self, units: Sequence[Unit]) -> list[Finding]:
        """Examines keys one by one with fresh reads on both sides, and writes what the policy allows. Adds the findings to
        the look, and returns them."""
        self.look.take_units(units)
        return self._examine(units)

    def take(self, finding: Finding) -> None:
        """Adds a finding that was made elsewhere to the look."""
        self.look.take(finding.label)
        self.look.add(finding)

    def _examine(self, units: Sequence[Unit]) -> list[Finding]:
        """As examine_units, for keys that the look has taken up already."""
        findings = self.protocol.run(units, self._policy)
        for finding in findings:
            self.look.add(finding)
        self.protocol.finish_late()
        return findings


def _waits_for_parent(finding: Finding) -> bool:
    return finding.verdict is Verdict.MISSING and finding.reason is not None


def _is_older(row: Row, other: _Missing | None) -> bool:
    """Whether a row's document is before the other one in the order of owners of a natural key: Reading has the rule."""
    return other is not None and (row.create_time, row.label) < (other.create_time, other.unit.label)
