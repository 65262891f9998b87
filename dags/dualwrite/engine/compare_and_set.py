"""The writing protocol: keys one by one, beside live clients that write to both sides, killed at any line.

docs/protocol.md argues it with numbered interleavings; the methods are named after its five steps.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from dualwrite.engine.classify import duplicate, finding_of, still_to_write
from dualwrite.engine.deletes import Deletes, takes_names
from dualwrite.engine.judge import Judge
from dualwrite.engine.page import Page
from dualwrite.engine.units import Policy, Unit, is_of_another_key, unit_of, unit_of_finding, unit_of_row
from dualwrite.model.documents import UNASKED, Answer, Document, Unasked
from dualwrite.model.mapping import Key, Refusal, Rejection, Row, map_document
from dualwrite.model.verdicts import Finding, Reason, Verdict, rejected
from dualwrite.postgres.bad_rows import Refused
from dualwrite.postgres.remembered import journal
from dualwrite.postgres.remembered.journal import JournalEntry

log = logging.getLogger(__name__)

_ROUNDS = 5
UNITS_AT_ONCE = 300
"""Keys in one round: its transaction holds their locks, so it must stay well below a second."""

Entries = list[Row | Rejection] | Unasked
"""The units of one document, none where it is gone; UNASKED where Firestore can't be asked for it."""
Mapped = Row | Rejection | None | Unasked
"""What a unit's document is now; None where it, or its entry, is gone."""


@dataclass(slots=True)
class _Round:
    """One round over some keys: what was read in steps 1 and 2, and what became of each key."""

    units: dict[str, Unit]
    versions: Mapping[Key, tuple[str, str]]
    mapped: dict[str, Mapped] = field(default_factory=dict)
    duplicates: set[str] = field(default_factory=set)
    """Labels of documents whose natural key belongs to another one."""
    orphaned: set[str] = field(default_factory=set)
    """Labels of keys that go with a document that they require."""
    to_null: set[str] = field(default_factory=set)
    """Labels of rows that stay, with a null in place of a document that is gone."""
    written: dict[str, int] = field(default_factory=dict)
    """Journal ids of what this round inserted or updated."""
    again: dict[str, Unit] = field(default_factory=dict)


class Protocol:
    """Runs the protocol for one collection. What `policy` says of deletes also holds for rows that are brought into line
    afterwards."""

    def __init__(self, judge: Judge, policy: Policy) -> None:
        self._judge = judge
        self._source = judge.source
        self._target = judge.target
        self._collection = judge.collection
        # What we wrote is brought into line with its document whatever the run's policy.
        self._bring_into_line = replace(policy, insert=True, update=True)
        self._waiting: dict[str, Unit] = {}
        """Keys that need another row of their own table first, by label."""
        self._obstacles: dict[str, Refused] = {}
        """By label, the constraints that refused keys in the last round, and may not be in the way in the next."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="confirm")
        self._confirming: list[tuple[list[Row], list[int], Future[dict[str, Answer]]]] = []

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, units: Sequence[Unit], policy: Policy, *, own_inserts: frozenset[str] = frozenset()) -> list[Finding]:
        """Steps 1 to 5 for some keys, until each has a verdict that held still. Returns one finding a unit.

        `own_inserts` are labels of rows that we inserted and that may be taken back where the document is gone,
        whatever the policy says of deletes.
        """
        deletes = Deletes(self._judge, units, policy, own_inserts)
        found: list[Finding] = []
        self._waiting.clear()
        for batch in _batches(units):
            found += self._run_batch(batch, policy, deletes)
        found = self._after_their_own_table(found, policy, deletes)
        alive = deletes.confirm()
        if not alive:
            return found
        # Created or moved elsewhere while their rows were deleted: they get them back.
        restore = replace(self._bring_into_line, delete=False)
        back = {f.label: f for f in self.run([unit for unit, _ in alive], restore)}
        settled = [i for unit, i in alive if back[unit.label].verdict is not Verdict.IN_FLIGHT]
        with self._target.transaction() as connection:
            journal.confirm(connection, settled)
        return [back.get(finding.label, finding) for finding in found]

    def _after_their_own_table(self, found: list[Finding], policy: Policy, deletes: Deletes) -> list[Finding]:
        """The findings, once those that reference rows of their own table had another turn each time that some of these came."""
        while self._waiting:
            before, self._waiting = self._waiting, {}
            again: dict[str, Finding] = {}
            for batch in _batches(list(before.values())):
                again.update((f.label, f) for f in self._run_batch(batch, policy, deletes))
            found = [again.get(f.label, f) for f in found]
            if len(self._waiting) >= len(before):
                break
        return found

    def _run_batch(self, batch: dict[str, Unit], policy: Policy, deletes: Deletes) -> list[Finding]:
        done: dict[str, Finding] = {}
        todo = batch
        self._obstacles = {}
        for attempt in range(_ROUNDS):
            if not todo:
                break
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)
            todo = self._round(todo, done, policy, deletes)
        for label, unit in todo.items():
            if label in self._obstacles:  # nobody changes it: the same constraint refuses it each time
                done[label] = unit.found(Verdict.REJECTED, reason=Refusal(self._obstacles[label].text))
            else:
                done[label] = unit.found(Verdict.IN_FLIGHT, reason=Reason.KEPT_CHANGING)
        return list(done.values())

    def _round(
        self, units: dict[str, Unit], done: dict[str, Finding], policy: Policy, deletes: Deletes
    ) -> tuple[dict[str, Unit], Mapping[str, Refused]]:
        """One round over some keys: fills `done`, returns what must be looked at again, and the constraints that made it so."""
        current = _Round(units, self._read_versions(units.values()))
        self._read_documents(current)
        self._obstacles = {}
        rows, gone = self._decide(current, done)
        self._write(current, rows, done, policy)
        current.again.update(deletes.write(gone, current.versions, done))
        self._confirm(current, rows, done)
        return current.again

    # --- step 1 -------------------------------------------------------------------------------------------------------

    def _read_versions(self, units: Iterable[Unit]) -> dict[Key, tuple[str, str]]:
        """The rows' versions, without a lock. An absent row is a reading too."""
        return self._target.versions(self._collection, [u.key for u in units])

    # --- step 2 -------------------------------------------------------------------------------------------------------

    def _read_documents(self, current: _Round) -> None:
        """Only then the documents: what each unit's is now, and whether what it requires is there."""
        required = self._source.get([u.requires for u in current.units.values() if u.requires is not None])
        current.orphaned = {
            u.label for u in current.units.values() if u.requires is not None and required[u.requires] is None
        }
        current.to_null = {label for label in current.orphaned if current.units[label].nulls}
        current.orphaned -= current.to_null
        units = [u for u in current.units.values() if u.label not in current.orphaned]
        current.mapped.update(dict.fromkeys(current.orphaned))
        if self._collection.keyed_by_path:
            self._read_by_path(current, units)
        else:
            self._read_by_key(current, units)

    def _read_by_path(self, current: _Round, units: Sequence[Unit]) -> None:
        """Where no document is at a unit's path, the other paths that its row may belong to are asked for."""
        entries = self._entries_at([u.path for u in units if u.path is not None])
        for unit in units:
            current.mapped[unit.label] = _mapped_of(unit, entries.get(unit.path or "", []))
        if self._collection.keyed_by_whole_path:
            return
        lost = [u for u in units if current.mapped[u.label] in (None, UNASKED) and u.key in current.versions]
        told = self._target.paths(self._collection, [u.key for u in lost]) if lost else {}
        others = {u.label: [p for p in told.get(u.key, ()) if p != u.path] for u in lost}
        entries = self._entries_at([path for paths in others.values() for path in paths])
        for unit in lost:
            there = (p for p in others[unit.label] if entries[p] not in ([], UNASKED))
            self._move(current, unit, next(there, None), entries)

    def _move(self, current: _Round, unit: Unit, path: str | None, entries: Mapping[str, Entries]) -> None:
        """The unit's document is at another path than was thought."""
        if path is not None:
            current.units[unit.label] = moved = replace(unit, path=path)
            current.mapped[unit.label] = _mapped_of(moved, entries[path])

    def _entries_at(self, paths: Iterable[str]) -> dict[str, Entries]:
        """The units of the documents at these paths. Each is mapped once, however many of its entries are asked for."""
        found: dict[str, Entries] = {}
        for path, document in self._source.get(paths, self._collection.fields).items():
            if isinstance(document, Document):
                found[path] = map_document(self._collection, document) or []
            else:
                found[path] = [] if document is None else document
        return found

    def _read_by_key(self, current: _Round, units: Sequence[Unit]) -> None:
        """Natural keys that several documents may share: all of them are asked for. The row belongs to the document that
        equals it, else to the oldest."""
        answers = self._judge.owners.sharing(list(dict.fromkeys(u.key for u in units)))
        sharing = {key: answer for key, answer in answers.items() if not isinstance(answer, Unasked)}
        owners = self._owners_of(sharing)
        elsewhere = [u for u in units if u.path is not None and u.path not in {s.path for s in sharing.get(u.key, ())}]
        entries = self._entries_at([u.path for u in elsewhere if u.path is not None])
        for unit in units:
            if unit.key not in sharing:  # not even the document above it can be asked for
                current.mapped[unit.label] = UNASKED
                continue
            own = next((s for s in sharing[unit.key] if s.path == unit.path), None)
            if own is None and unit.path is not None:
                # Gone, or with another key now (then the row of that counts), or created since everybody was asked.
                told = entries[unit.path]
                own = None if isinstance(told, Unasked) else next(iter(told), None)
            owner = owners.get(unit.key)
            if isinstance(own, Rejection):
                current.mapped[unit.label] = own
            elif own is not None and owner is not None and owner.path != own.path:
                current.mapped[unit.label] = own
                current.duplicates.add(unit.label)
            else:
                current.mapped[unit.label] = owner or own or next(iter(sharing[unit.key]), None)

    def _owners_of(self, sharing: Mapping[Key, Sequence[Row | Rejection]]) -> dict[Key, Row]:
        candidates = {key: [s for s in shared if isinstance(s, Row)] for key, shared in sharing.items()}
        contested = [row for rows in candidates.values() if len(rows) > 1 for row in rows]
        with self._target.transaction() as connection:
            compared = self._target.compare(connection, self._collection, contested) if contested else None
        differing = {(d.row.path, d.row.key) for d in compared.differences} if compared else set()
        differing |= {(contested[n].path, contested[n].key) for n, _ in compared.refused} if compared else set()
        return {
            key: min(rows, key=lambda r: ((r.path, r.key) in differing, r.create_time, r.label))
            for key, rows in candidates.items()
            if rows
        }

    # --- step 3 -------------------------------------------------------------------------------------------------------

    def _decide(self, current: _Round, done: dict[str, Finding]) -> tuple[list[Row], list[Unit]]:
        """What is settled without a comparison; the rest as rows to judge, and keys whose document is gone."""
        rows: list[Row] = []
        gone: list[Unit] = []
        for unit in current.units.values():
            mapped = current.mapped[unit.label]
            if (
                unit.path is None
                and mapped is None
                and unit.label not in current.orphaned
                and self._collection.keyed_by_path
            ):
                done[unit.label] = _untold(unit, current.versions, Reason.PATH_UNKNOWN)
            elif mapped is UNASKED and not takes_names(self._collection):
                done[unit.label] = _untold(unit, current.versions, Reason.CANT_BE_ASKED)
            elif mapped is None or isinstance(mapped, Unasked):  # names are read before such a row is deleted
                gone.append(unit)
            elif isinstance(mapped, Rejection):
                done[unit.label] = replace(rejected(mapped), label=unit.label, key=unit.key)
            elif mapped.key != unit.key:  # its key is made of fields, and they changed: the row of the new key counts
                current.again[unit.label] = replace(unit, key=mapped.key)
            elif unit.label in current.duplicates:
                done[unit.label] = duplicate(replace(mapped, label=unit.label))
            else:
                gone_path = unit.requires if unit.label in current.to_null else None
                rows.append(self._judge.without_gone(replace(mapped, label=unit.label), gone_path))
        return rows, gone

    # --- step 4 -------------------------------------------------------------------------------------------------------

    def _write(self, current: _Round, rows: Sequence[Row], done: dict[str, Finding], policy: Policy) -> None:
        """In one short transaction, each write on the condition that the row is still the version of step 1."""
        if not rows:
            return
        expected: dict[Key, str | None] = {row.key: current.versions.get(row.key, (None, ""))[0] for row in rows}
        judged = self._judge.judge(Page.of(self._judge.stager, rows), policy, expected)
        for n, row in enumerate(rows):
            finding = judged.findings.get(n) or finding_of(Verdict.MATCHING, row, None)
            if row.label in current.to_null and finding.verdict is Verdict.STALE:
                finding = replace(finding, requires=current.units[row.label].requires)
            if n in judged.journal:
                current.written[row.label] = judged.journal[n]
            if n in judged.obstacles:
                self._obstacles[row.label] = judged.obstacles[n]
                if judged.obstacles[n].own_table:
                    self._waiting[row.label] = current.units[row.label]
            if still_to_write(finding, policy) and n not in judged.journal:
                current.again[row.label] = current.units[row.label]
            elif not (row.label in done and finding.verdict is Verdict.MATCHING):
                done[row.label] = finding  # what it was when we wrote, not that it matches since

    # --- step 5 -------------------------------------------------------------------------------------------------------

    def _confirm(self, current: _Round, rows: Sequence[Row], done: Mapping[str, Finding]) -> None:
        """The documents once more: one that changed, vanished or appeared meanwhile is looked at again. (Deletes are
        confirmed at the end of the run: see deletes.py.)"""
        if not current.written:
            return
        read = {row.label: row for row in rows}
        now = self._source.get([read[label].path for label in current.written])
        settled = []
        for label, journal_id in current.written.items():
            document = now[read[label].path]
            if isinstance(document, Document) and document.update_time == read[label].update_time:
                settled.append(journal_id)
            else:
                current.again[label] = current.units[label]
        with self._target.transaction() as connection:
            journal.confirm(connection, settled)

    # --- confirming a page's inserts --------------------------------------------------------------------------------------

    def confirm_later(self, rows: list[Row], journal_ids: list[int]) -> None:
        """Step 5 of a page's inserts, beside the next page."""
        if rows:
            paths = list(dict.fromkeys(row.path for row in rows))
            self._confirming.append((rows, journal_ids, self._executor.submit(self._source.get, paths)))

    def collect_confirmations(self, *, wait: bool) -> None:
        while self._confirming and (wait or self._confirming[0][2].done() or len(self._confirming) > 2):
            rows, journal_ids, future = self._confirming.pop(0)
            documents = future.result()
            still, moved = [], []
            for row, journal_id in zip(rows, journal_ids, strict=True):
                document = documents[row.path]
                if isinstance(document, Document) and document.update_time == row.update_time:
                    still.append(journal_id)
                else:
                    moved.append((unit_of_row(row), journal_id))
            with self._target.transaction() as connection:
                journal.confirm(connection, still)
            if moved:  # they were counted when they were written
                self._finish([unit for unit, _ in moved], [journal_id for _, journal_id in moved])

    def _finish(self, units: Sequence[Unit], journal_ids: Sequence[int]) -> None:
        """Runs the protocol over keys that were written and not confirmed, then confirms their journal rows.

        A row that we inserted and nobody touched since is taken back where its document is gone.
        """
        with self._target.transaction() as connection:
            own = self._target.untouched(connection, self._collection, journal_ids)
        findings = self.run(units, self._bring_into_line, own_inserts=own)
        unsettled = {f.label for f in findings if f.verdict is Verdict.IN_FLIGHT}
        settled = [i for u, i in zip(units, journal_ids, strict=True) if u.label not in unsettled]
        with self._target.transaction() as connection:
            journal.confirm(connection, settled)

    def finish_journal(self) -> int:
        """Finishes what a killed run left unconfirmed in this collection; returns how many writes that were."""
        with self._target.transaction() as connection:
            entries = journal.unconfirmed(connection, self._collection.name)
        if not entries:
            return 0
        log.info("%s: finishing %d writes that an earlier run left unconfirmed", self._collection.name, len(entries))
        outdated = [e for e in entries if is_of_another_key(self._collection, e.key, e.path)]
        if outdated:
            self._finish_outdated(outdated)
        entries = [e for e in entries if e not in outdated]
        units = [replace(unit_of(self._collection, e.key, e.path), label=e.label) for e in entries]
        # A document whose row was deleted may have been moved meanwhile: its path alone doesn't tell.
        deleted = [u for u, e in zip(units, entries, strict=True) if e.action == "delete"]
        alive = {u.label: u for u in self.found_elsewhere(deleted)}
        self._finish([alive.get(u.label, u) for u in units], [e.id for e in entries])
        return len(entries) + len(outdated)

    def _finish_outdated(self, entries: Sequence[JournalEntry]) -> None:
        """Finishes writes whose key is of another kind than the catalog declares now: by their documents, wherever these are
        in line with their rows now. Without a document nobody can tell any more which row it was."""
        log.warning(
            "%s: %d writes that an earlier run left unconfirmed are of another key than catalog.py declares now. Their "
            "documents are looked at by path; the next sweep compares every row",
            self._collection.name,
            len(entries),
        )
        found = self._entries_at([e.path for e in entries if e.path is not None])
        asked = {path: units for path, units in found.items() if not isinstance(units, Unasked)}
        rows = {row.label: row for units in asked.values() for row in units if isinstance(row, Row)}
        looked = self.run([unit_of_row(row) for row in rows.values()], self._bring_into_line)
        if all(finding.verdict is not Verdict.IN_FLIGHT for finding in looked):
            with self._target.transaction() as connection:
                journal.confirm(connection, [e.id for e in entries if e.path is None or e.path in asked])

    def found_elsewhere(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units whose document is at another path than was thought, with that path."""
        return Deletes(self._judge, units, self._bring_into_line, frozenset()).found_elsewhere(units)

    def prove_extra(self, found: Sequence[Finding]) -> list[Finding]:
        """Findings as they are once it was asked everywhere whether rows are really extra: a document with such a row's
        key may live at a path that the row doesn't tell. Costs a complete read of names (see absence.py)."""
        extra = [unit_of_finding(self._collection, f) for f in found if _takes_proof(f)]
        alive, unproved = Deletes(self._judge, extra, self._bring_into_line, frozenset()).proof(extra)
        known = {f.label: f for f in self.run(alive, Policy())}
        return [
            known.get(f.label, replace(f, reason=Reason.ABSENCE_NOT_PROVED) if f.label in unproved else f)
            for f in found
        ]


# --- small things -----------------------------------------------------------------------------------------------------


def _batches(units: Sequence[Unit]) -> Iterator[dict[str, Unit]]:
    """The units in parts of one round's size, by label. Two documents of one id on different paths have the same: the
    second gets a turn of its own."""
    todo = list(units)
    while todo:
        batch: dict[str, Unit] = {}
        later: list[Unit] = []
        for unit in todo:
            if unit.label in batch or len(batch) >= UNITS_AT_ONCE:
                later.append(unit)
            else:
                batch[unit.label] = unit
        yield batch
        todo = later


def _mapped_of(unit: Unit, entries: Entries) -> Mapped:
    """The unit's own part of its document. A document whose entries can't be read at all says the same of each."""
    if isinstance(entries, Unasked):
        return entries
    return next((m for m in entries if m.entry == unit.entry or (isinstance(m, Rejection) and m.entire)), None)


def _takes_proof(finding: Finding) -> bool:
    return finding.verdict is Verdict.EXTRA and finding.path is not None


def _untold(unit: Unit, versions: Mapping[Key, tuple[str, str]], reason: Reason) -> Finding:
    """A row whose document's path can't be told (no row above it), or asked for (an id that Firestore refuses): never
    deleted, because nobody can look."""
    version = versions.get(unit.key)
    if version is None:
        return unit.found(Verdict.ABSENT)
    return unit.found(Verdict.EXTRA, reason=reason, fingerprint=version[1])
