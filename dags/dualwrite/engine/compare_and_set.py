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
from datetime import datetime

from dualwrite import settings
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

Versions = Mapping[Key, tuple[str, str]]
"""xmin and digest of rows."""


@dataclass(slots=True)
class _Round:
    """A part of one round over some keys: what was read in steps 1 and 2, and what became of each key."""

    units: dict[str, Unit]
    versions: Versions
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


@dataclass(frozen=True, slots=True)
class _Inserted:
    """A row that was inserted and isn't confirmed yet, without its content."""

    unit: Unit
    path: str
    update_time: datetime
    journal_id: int


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
        self._confirming: list[tuple[list[_Inserted], Future[dict[str, Answer]]]] = []

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
    ) -> dict[str, Unit]:
        """One round over some keys: fills `done`, returns what must be looked at again."""
        again: dict[str, Unit] = {}
        self._obstacles = {}
        for current in self._read_documents(units, self._read_versions(units.values())):
            rows, gone = self._decide(current, done)
            self._write(current, rows, done, policy)
            current.again.update(deletes.write(gone, current.versions, done))
            self._confirm(current, rows, done)
            again.update(current.again)
        return again

    # --- step 1 -------------------------------------------------------------------------------------------------------

    def _read_versions(self, units: Iterable[Unit]) -> dict[Key, tuple[str, str]]:
        """The rows' versions, without a lock. An absent row is a reading too."""
        return self._target.versions(self._collection, [u.key for u in units])

    # --- step 2 -------------------------------------------------------------------------------------------------------

    def _read_documents(self, units: Mapping[str, Unit], versions: Versions) -> Iterator[_Round]:
        """Only then the documents: what each unit's is now, and whether what it requires is there. In parts, each of which
        goes through the other steps before the next is taken: documents may be large."""
        required = self._source.get([u.requires for u in units.values() if u.requires is not None])
        without = {n: u for n, u in units.items() if u.requires is not None and required[u.requires] is None}
        to_null = {n for n, u in without.items() if u.nulls}
        orphaned = {n: u for n, u in without.items() if n not in to_null}
        if orphaned:
            yield _Round(orphaned, versions, dict.fromkeys(orphaned), orphaned=set(orphaned))
        others = [u for n, u in units.items() if n not in orphaned]
        read = self._read_by_path if self._collection.keyed_by_path else self._read_by_key
        for current in read(others, versions):
            current.to_null = to_null & current.units.keys()
            yield current

    def _read_by_path(self, units: Sequence[Unit], versions: Versions) -> Iterator[_Round]:
        """Where no document is at a unit's path, or it can't be asked for, the other paths that its row may belong to are
        asked for, one after the other."""
        lost: dict[str, Mapped] = {u.label: None for u in units if u.path is None}
        by_label = {u.label: u for u in units}
        at = _by_path((u, u.path) for u in units)
        for entries in self._entries_at(at):
            found = {u.label: _mapped_of(u, told) for path, told in entries.items() for u in at[path]}
            lost.update((n, m) for n, m in found.items() if m is None or m is UNASKED)
            there = {n: m for n, m in found.items() if n not in lost}
            yield _Round({n: by_label[n] for n in there}, versions, there)
        rows = [by_label[n] for n in lost if by_label[n].key in versions]
        told = self._target.paths(self._collection, [u.key for u in rows]) if rows and self._may_move else {}
        others = {u.label: [p for p in told.get(u.key, ()) if p != u.path] for u in rows}
        for n in range(max(map(len, others.values()), default=0)):
            at = _by_path((u, others[u.label][n]) for u in rows if u.label in lost and len(others[u.label]) > n)
            for entries in self._entries_at(at):
                moved = {
                    u.label: replace(u, path=path)
                    for path, told_there in entries.items()
                    if told_there not in ([], UNASKED)
                    for u in at[path]
                }
                for label in moved:
                    del lost[label]
                yield _Round(moved, versions, {n: _mapped_of(u, entries[str(u.path)]) for n, u in moved.items()})
        if lost:
            yield _Round({n: by_label[n] for n in lost}, versions, lost)

    @property
    def _may_move(self) -> bool:
        return not self._collection.keyed_by_whole_path

    def _entries_at(self, units: Mapping[str, Sequence[Unit]]) -> Iterator[dict[str, Entries]]:
        """Of the documents at these paths what the units there ask for, in parts. Each is mapped once, however many of its
        entries are asked for."""
        for documents in self._source.get_in_parts(units, self._collection.fields):
            found: dict[str, Entries] = {}
            for path, document in documents.items():
                if isinstance(document, Document):
                    found[path] = _asked_for(map_document(self._collection, document) or [], units[path])
                else:
                    found[path] = [] if document is None else document
            yield found

    def _read_by_key(self, units: Sequence[Unit], versions: Versions) -> Iterator[_Round]:
        """Natural keys that several documents may share: all of them are asked for. The row belongs to the document that
        equals it, else to the oldest."""
        by_key: dict[Key, list[Unit]] = {}
        for unit in units:
            by_key.setdefault(unit.key, []).append(unit)
        for answers in self._judge.owners.sharing(list(by_key)):
            sharing = {key: answer for key, answer in answers.items() if not isinstance(answer, Unasked)}
            # not even the document above it can be asked for
            unasked = {u.label: u for key in answers if key not in sharing for u in by_key[key]}
            if unasked:
                yield _Round(unasked, versions, dict.fromkeys(unasked, UNASKED))
            owners = self._owners_of(sharing)
            here = {u.label: u for key in sharing for u in by_key[key]}
            own = {n: next((s for s in sharing[u.key] if s.path == u.path), None) for n, u in here.items()}
            # Gone, or with another key now (then the row of that counts), or created since everybody was asked.
            elsewhere = _by_path((u, u.path) for n, u in here.items() if own[n] is None)
            at_once = {n: u for n, u in here.items() if own[n] is not None or u.path is None}
            yield self._shared(at_once, versions, own, sharing, owners)
            for entries in self._entries_at(elsewhere):
                part = {u.label: u for path in entries for u in elsewhere[path]}
                told = {
                    u.label: None if isinstance(there, Unasked) else next(iter(there), None)
                    for path, there in entries.items()
                    for u in elsewhere[path]
                }
                yield self._shared(part, versions, told, sharing, owners)

    def _shared(
        self,
        units: dict[str, Unit],
        versions: Versions,
        own: Mapping[str, Row | Rejection | None],
        sharing: Mapping[Key, Sequence[Row | Rejection]],
        owners: Mapping[Key, Row],
    ) -> _Round:
        """A part of a round over natural keys: whose document each unit's key is."""
        current = _Round(units, versions)
        for unit in units.values():
            mine, owner = own[unit.label], owners.get(unit.key)
            if isinstance(mine, Rejection):
                current.mapped[unit.label] = mine
            elif mine is not None and owner is not None and owner.path != mine.path:
                current.mapped[unit.label] = mine
                current.duplicates.add(unit.label)
            else:
                current.mapped[unit.label] = owner or mine or next(iter(sharing[unit.key]), None)
        return current

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
                done[row.label] = finding  # the verdict from before our write: it matches only because we wrote it

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

    def confirm_later(self, rows: Sequence[Row], journal_ids: Sequence[int]) -> None:
        """Step 5 of a page's inserts, beside the next page."""
        if rows:
            written = [
                _Inserted(unit_of_row(row), row.path, row.update_time, i)
                for row, i in zip(rows, journal_ids, strict=True)
            ]
            paths = list(dict.fromkeys(row.path for row in rows))
            self._confirming.append((written, self._executor.submit(self._source.get, paths)))

    def collect_confirmations(self, *, wait: bool) -> None:
        while self._confirming and (wait or self._confirming[0][1].done() or len(self._confirming) > 2):
            written, future = self._confirming.pop(0)
            documents = future.result()
            still: list[int] = []
            moved: list[_Inserted] = []
            for one in written:
                document = documents[one.path]
                if isinstance(document, Document) and document.update_time == one.update_time:
                    still.append(one.journal_id)
                else:
                    moved.append(one)
            with self._target.transaction() as connection:
                journal.confirm(connection, still)
            if moved:  # they were counted when they were written
                self._finish([one.unit for one in moved], [one.journal_id for one in moved])

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
            "%s: %d writes that an earlier run left unconfirmed are of another key than %s declares now. Their "
            "documents are looked at by path; the next sweep compares every row",
            self._collection.name,
            len(entries),
            settings.catalog_file(),
        )
        asked: set[str] = set()
        units: dict[str, Unit] = {}
        paths = [e.path for e in entries if e.path is not None]
        for documents in self._source.get_in_parts(paths, self._collection.fields):
            for path, document in documents.items():
                if isinstance(document, Unasked):
                    continue
                asked.add(path)
                mapped = map_document(self._collection, document) or [] if document is not None else []
                units.update((row.label, unit_of_row(row)) for row in mapped if isinstance(row, Row))
        looked = self.run(list(units.values()), self._bring_into_line)
        if all(finding.verdict is not Verdict.IN_FLIGHT for finding in looked):
            with self._target.transaction() as connection:
                journal.confirm(connection, [e.id for e in entries if e.path is None or e.path in asked])

    def found_elsewhere(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units whose document is at another path than was thought, with that path."""
        return Deletes(self._judge, units, self._bring_into_line, frozenset()).found_elsewhere(units)

    def prove_extra(self, found: Sequence[Finding]) -> list[Finding]:
        """The findings, after every place where a document could be was searched: a document with an extra row's key may live
        at a path that the row doesn't give. Costs a complete read of names (see absence.py)."""
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
    own = next((m for m in entries if m.entry == unit.entry), None)
    return own or next((m for m in entries if isinstance(m, Rejection) and m.entire), None)


def _asked_for(entries: Sequence[Row | Rejection], units: Sequence[Unit]) -> list[Row | Rejection]:
    """Those of a document's entries that these units are: it may have forty thousand."""
    wanted = {u.entry for u in units}
    return [m for m in entries if m.entry in wanted or (isinstance(m, Rejection) and m.entire)]


def _by_path(units: Iterable[tuple[Unit, str | None]]) -> dict[str, list[Unit]]:
    found: dict[str, list[Unit]] = {}
    for unit, path in units:
        if path is not None:
            found.setdefault(path, []).append(unit)
    return found


def _takes_proof(finding: Finding) -> bool:
    return finding.verdict is Verdict.EXTRA and finding.path is not None


def _untold(unit: Unit, versions: Mapping[Key, tuple[str, str]], reason: Reason) -> Finding:
    """A row whose document's path can't be told (no row above it), or asked for (an id that Firestore refuses): never
    deleted, because nobody can look."""
    version = versions.get(unit.key)
    if version is None:
        return unit.found(Verdict.ABSENT)
    return unit.found(Verdict.EXTRA, reason=reason, fingerprint=version[1])
