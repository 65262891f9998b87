"""The writing protocol: keys one by one, beside live clients that write to both sides, killed at any line.

docs/protocol.md argues it with numbered interleavings; the methods are named after its five steps.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dualwrite import postgres, settings
from dualwrite.engine.classify import ParentState, finding_of, parent_state, still_to_write
from dualwrite.engine.confirmations import Confirmations
from dualwrite.engine.deletes import Deletes
from dualwrite.engine.job import Job
from dualwrite.engine.judge import ATTEMPTS, Judge, Judged, wait_or_raise
from dualwrite.engine.page import Page
from dualwrite.engine.parents import Parents
from dualwrite.engine.reading import Read, Reading
from dualwrite.engine.units import Policy, Unit, is_of_another_key, unit_of, unit_of_finding, unit_of_row
from dualwrite.engine.whereabouts import Unknown, Whereabouts, takes_names
from dualwrite.firestore.staging import Stager
from dualwrite.model.declaration import Collection
from dualwrite.model.documents import UNASKED, Document, Unasked
from dualwrite.model.errors import TargetError
from dualwrite.model.mapping import Key, LeftOut, Refusal, Rejection, Row, map_document
from dualwrite.model.verdicts import Finding, Reason, Verdict, rejected
from dualwrite.postgres.bad_rows import Refused
from dualwrite.postgres.remembered import journal
from dualwrite.postgres.remembered.journal import JournalEntry

log = logging.getLogger(__name__)

_ROUNDS = 5
UNITS_AT_ONCE = 300
"""Keys in one round, whose transaction holds their locks and must stay well below a second."""

Versions = Mapping[Key, tuple[str, str]]
"""xmin and digest of rows."""


@dataclass(slots=True)
class _Round:
    """A part of one round: the readings of steps 1 and 2, and the keys written, or to be looked at again."""

    read: Read
    versions: Versions
    written: dict[str, int] = field(default_factory=dict)
    """Journal ids of rows that this round inserted or updated, by label."""
    again: dict[str, Unit] = field(default_factory=dict)
    obstacles: dict[str, Refused] = field(default_factory=dict)
    """The constraints that refused keys, by label."""


class WritingProtocol:
    """Runs the protocol for one collection. `policy.delete` also limits what happens to rows that are brought into line
    afterwards."""

    def __init__(self, job: Job, policy: Policy, parents: Parents, top: _ParentProtocols | None = None) -> None:
        """`parents` is shared with the protocols of the collections that this one requires, whose `top` are the required ones of
        the collection which is examined (None: this one's own)."""
        self._job = job
        self.whereabouts = Whereabouts(job, parents)
        self._judge = Judge(job, self.whereabouts)
        self._reading = Reading(job, self.whereabouts)
        self._confirmations = Confirmations(job.source)
        self._stager = Stager(job.collection)
        # A row that we wrote is brought into line with its document, whatever the run's policy.
        self._bring_into_line = replace(policy, insert=True, update=True)
        self._required = _ParentProtocols(job, Policy(insert=policy.insert and policy.parents), parents, top)
        self._late: list[tuple[Unit, int]] = []
        """Rows inserted with nulls in place of references to rows that weren't there yet, with their journal ids."""
        self.waiting: dict[str, Unit] = {}
        """Keys of the last `run` that wait for other rows of their table, by label: these come later, or never."""

    def close(self) -> None:
        self._confirmations.close()
        self._required.close()

    # --- judging a page -----------------------------------------------------------------------------------------------

    def page(self, rows: Iterable[Row] = ()) -> Page:
        """A page of rows to be judged."""
        return Page.of(self._stager, rows)

    def release(self, unit: Unit) -> None:
        """Gives up what a look that wrote nothing had reserved for a row: another document turned out to own one of its keys, or
        it is looked at again."""
        self._judge.release(unit)

    def may_be_freed(self, unit: Unit) -> bool:
        """Whether what refused a row, in a look that writes nothing, would have left its place by now."""
        return self._judge.promises.may_be_freed(unit)

    def waits(self, unit: Unit) -> bool:
        """Whether rows of the table refuse a row, in a look that writes nothing, which may leave their places yet."""
        return self._judge.promises.waits(unit)

    @property
    def order_decides(self) -> int:
        """See Promises.order_decides."""
        return self._judge.promises.order_decides()

    def judge(self, page: Page, policy: Policy, expected: Mapping[Key, str | None] | None = None) -> Judged:
        """The verdicts of a page, and the writes, which are counted; see Judge.judge. Unknown facts are read from the source
        between two attempts, and rows that the page's rows require are inserted first if the run inserts. Raises TargetError
        if the rows keep changing, or if writing keeps failing."""
        for attempt in range(ATTEMPTS):
            try:
                judged = self._judge.judge(page, policy, expected)
            except postgres.Error as error:
                wait_or_raise(self._job.collection.name, error, attempt)
                continue
            if isinstance(judged, Judged):
                # Counted after the commit: an attempt that was rolled back wrote nothing.
                self._job.report.inserted += judged.inserted
                self._job.report.updated += len(judged.journal) - judged.inserted
                self._job.report.derived_lag += judged.derived_lag
                return judged
            for n, row in judged.nulled.items():
                page.put(n, row)
            # No transaction is open now: Firestore is never read while a lock or a snapshot is held.
            if judged.unknown is not None:
                self._required.learn(judged.unknown)
                self.whereabouts.learn(judged.unknown.contested)
        raise TargetError(
            f"Rows of {self._job.collection.name} kept changing through {ATTEMPTS} looks, so they could not be judged. Run "
            "again when there are fewer writes."
        )

    # --- keys one by one --------------------------------------------------------------------------------------------------

    def run(self, units: Sequence[Unit], policy: Policy, *, own_inserts: frozenset[str] = frozenset()) -> list[Finding]:
        """Steps 1 to 5 for some keys, until each has a verdict; one that keeps changing is in flight. Returns one finding a
        unit.

        `own_inserts`: labels of rows that we inserted and that may be taken back if the document is gone, whatever
        `policy.delete` is.
        """
        deletes = Deletes(self._job, self.whereabouts, units, policy, own_inserts)
        findings: list[Finding] = []
        self.waiting.clear()
        for batch in _batches(units):
            findings += self._run_batch(batch, policy, deletes)
        findings = self._after_others(findings, policy, deletes)
        alive = deletes.confirm()
        if not alive:
            return findings
        # These documents were created or moved while their rows were deleted: they get them back.
        restore = replace(self._bring_into_line, delete=False)
        back = {f.label: f for f in self.run([unit for unit, _ in alive], restore)}
        settled = [i for unit, i in alive if back[unit.label].verdict is not Verdict.IN_FLIGHT]
        with self._job.target.transaction() as connection:
            journal.confirm(connection, settled)
        return [back.get(finding.label, finding) for finding in findings]

    def _after_others(self, findings: list[Finding], policy: Policy, deletes: Deletes) -> list[Finding]:
        """The findings, after keys that wait for other rows of their table (which must come first, or make room) have had
        another turn, again and again as long as fewer of them wait."""
        while self.waiting:
            before, self.waiting = self.waiting, {}
            again: dict[str, Finding] = {}
            for batch in _batches(list(before.values())):
                again.update((f.label, f) for f in self._run_batch(batch, policy, deletes))
            findings = [again.get(f.label, f) for f in findings]
            if len(self.waiting) >= len(before):
                break
        return findings

    def _run_batch(self, batch: dict[str, Unit], policy: Policy, deletes: Deletes) -> list[Finding]:
        done: dict[str, Finding] = {}
        todo = batch
        obstacles: dict[str, Refused] = {}
        for attempt in range(_ROUNDS):
            if not todo:
                break
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)
            todo, obstacles = self._round(todo, done, policy, deletes)
        for label, unit in todo.items():
            if label in obstacles:  # nobody changes it: the same constraint refuses it each time
                done[label] = unit.finding(Verdict.REJECTED, reason=Refusal(obstacles[label].text))
            else:
                done[label] = unit.finding(Verdict.IN_FLIGHT, reason=Reason.KEPT_CHANGING)
        return list(done.values())

    def _round(
        self, units: dict[str, Unit], done: dict[str, Finding], policy: Policy, deletes: Deletes
    ) -> tuple[dict[str, Unit], dict[str, Refused]]:
        """One round over some keys: fills `done`, returns what must be looked at again, and by label the constraints that refused
        keys, and may not be in the way in the next round."""
        again: dict[str, Unit] = {}
        obstacles: dict[str, Refused] = {}
        versions = self._read_versions(units.values())
        for read in self._reading.read(units, versions):  # only then the documents
            current = _Round(read, versions)
            rows, gone = self._decide(current, done)
            self._write(current, rows, done, policy)
            current.again.update(deletes.write(gone, current.versions, done, read.left_out))
            self._confirm(current, rows, done)
            again.update(current.again)
            obstacles.update(current.obstacles)
        return again, obstacles

    # --- step 1 -------------------------------------------------------------------------------------------------------

    def _read_versions(self, units: Iterable[Unit]) -> dict[Key, tuple[str, str]]:
        """The rows' versions, without a lock. Absence counts as a version."""
        return self._job.target.versions(self._job.collection, [u.key for u in units])

    # --- step 3 -------------------------------------------------------------------------------------------------------

    def _decide(self, current: _Round, done: dict[str, Finding]) -> tuple[list[Row], list[Unit]]:
        """Puts findings that need no comparison into `done`; returns the rows to judge, and the units whose document is
        gone."""
        rows: list[Row] = []
        gone: list[Unit] = []
        for unit in current.read.units.values():
            mapped = current.read.mapped[unit.label]
            if (
                unit.path is None
                and mapped is None
                and unit.label not in current.read.orphaned
                and self._job.collection.keyed_by_path
                and self._job.collection.key_leads_back
            ):
                done[unit.label] = _untold(unit, current.versions, Reason.PATH_UNKNOWN)
            elif mapped is UNASKED and not takes_names(self._job.collection):
                done[unit.label] = _untold(unit, current.versions, Reason.CANT_BE_ASKED)
            elif mapped is None or isinstance(mapped, Unasked | LeftOut):  # all names are read before such a row goes
                gone.append(unit)
            elif isinstance(mapped, Rejection):
                done[unit.label] = replace(rejected(mapped), label=unit.label, key=unit.key)
            elif isinstance(mapped, Finding):
                done[unit.label] = replace(mapped, label=unit.label)
            elif mapped.key != unit.key:  # its key comes from fields, and they changed: look at the row of the new key
                current.again[unit.label] = replace(unit, key=mapped.key)
            else:
                gone_path = unit.requires if unit.label in current.read.to_null else None
                rows.append(self._judge.without_gone(replace(mapped, label=unit.label), gone_path))
        return rows, gone

    # --- step 4 -------------------------------------------------------------------------------------------------------

    def _write(self, current: _Round, rows: Sequence[Row], done: dict[str, Finding], policy: Policy) -> None:
        """Writes in one short transaction, each row only if it still has the version of step 1."""
        if not rows:
            return
        expected: dict[Key, str | None] = {row.key: current.versions.get(row.key, (None, ""))[0] for row in rows}
        judged = self.judge(self.page(rows), policy, expected)
        for n, row in enumerate(rows):
            finding = judged.findings.get(n) or finding_of(Verdict.MATCHING, row, None)
            if row.label in current.read.to_null and finding.verdict is Verdict.STALE:
                finding = replace(finding, requires=current.read.units[row.label].requires)
            if n in judged.late:
                self._late.append((unit_of_row(row), judged.journal[n]))
            elif n in judged.journal:
                current.written[row.label] = judged.journal[n]
            if n in judged.obstacles:
                current.obstacles[row.label] = judged.obstacles[n]
                unit = current.read.units[row.label]
                frees = judged.obstacles[n].may_be_freed and (policy.writes or self.may_be_freed(unit))
                if judged.obstacles[n].own_table or frees:
                    self.waiting[row.label] = unit
            if still_to_write(finding, policy) and n not in judged.journal:
                current.again[row.label] = current.read.units[row.label]
            elif not (row.label in done and finding.verdict is Verdict.MATCHING):
                done[row.label] = finding  # keep the verdict from before our write: it matches only because we wrote it

    # --- step 5 -------------------------------------------------------------------------------------------------------

    def _confirm(self, current: _Round, rows: Sequence[Row], done: Mapping[str, Finding]) -> None:
        """Reads the documents once more; keys whose document changed or vanished meanwhile are looked at again. (Deletes are
        confirmed at the end of the run: see deletes.py.)"""
        if not current.written:
            return
        read = {row.label: row for row in rows}
        now = self._job.source.get([read[label].path for label in current.written])
        settled = []
        for label, journal_id in current.written.items():
            document = now[read[label].path]
            if isinstance(document, Document) and document.update_time == read[label].update_time:
                settled.append(journal_id)
            else:
                current.again[label] = current.read.units[label]
        with self._job.target.transaction() as connection:
            journal.confirm(connection, settled)

    # --- confirming a page's inserts --------------------------------------------------------------------------------------

    def confirm_later(self, rows: Sequence[Row], journal_ids: Sequence[int], late: Sequence[bool] = ()) -> None:
        """Starts step 5 of a page's inserts, beside the next page. Rows that are `late` wait for `finish_late`."""
        every = list(zip(rows, journal_ids, late or [False] * len(rows), strict=True))
        whole = [(row, i) for row, i, waits in every if not waits]
        self._confirmations.ask([row for row, _ in whole], [i for _, i in whole])
        self._late += [(unit_of_row(row), i) for row, i, waits in every if waits]

    @property
    def unfinished(self) -> bool:
        return bool(self._late) or self._required.unfinished

    def finish_late(self) -> None:
        """Fills in the references of rows that were inserted before the rows that they refer to, and inserts these if they
        are still missing, up to the root of a tree. A row is confirmed only after that, so a killed run leaves it to the
        next."""
        while self.unfinished:
            late, self._late = self._late, []
            if late:
                self._finish([unit for unit, _ in late], [i for _, i in late])
            self._required.finish_late()

    def collect_confirmations(self, *, wait: bool) -> None:
        """Confirms inserts whose documents were read again; with `wait`, all. If a document changed, its row is brought into
        line; it was counted when it was written."""
        for answered in self._confirmations.answered(wait=wait):
            with self._job.target.transaction() as connection:
                journal.confirm(connection, answered.still)
            if answered.moved:
                self._finish([unit for unit, _ in answered.moved], [i for _, i in answered.moved])

    def _finish(
        self, units: Sequence[Unit], journal_ids: Sequence[int], unproved: frozenset[str] = frozenset()
    ) -> None:
        """Runs the protocol over keys that were written and not confirmed, then confirms their journal rows; not of a deleted one
        that has no document at its path and may have one elsewhere (`unproved`, labels).

        A row that we inserted and no client has touched since is taken back if its document is gone.
        """
        with self._job.target.transaction() as connection:
            own = self._job.target.untouched(connection, self._job.collection, journal_ids)
        findings = self.run(units, self._bring_into_line, own_inserts=own)
        open_still = {f.label for f in findings if f.verdict is Verdict.IN_FLIGHT}
        open_still |= {f.label for f in findings if f.verdict is Verdict.ABSENT and f.label in unproved}
        settled = [i for u, i in zip(units, journal_ids, strict=True) if u.label not in open_still]
        with self._job.target.transaction() as connection:
            journal.confirm(connection, settled)

    def finish_journal(self) -> int:
        """Finishes the writes that a killed run left unconfirmed in this collection; returns how many they were."""
        with self._job.target.transaction() as connection:
            entries = journal.unconfirmed(connection, self._job.collection.name)
        if not entries:
            return 0
        log.info(
            "%s: finishing %d writes that an earlier run left unconfirmed", self._job.collection.name, len(entries)
        )
        outdated = [e for e in entries if is_of_another_key(self._job.collection, e.key, e.path)]
        if outdated:
            self._finish_outdated(outdated)
        entries = [e for e in entries if e not in outdated]
        units = [replace(unit_of(self._job.collection, e.key, e.path), label=e.label) for e in entries]
        # A document whose row was deleted may have moved meanwhile: a read at its path isn't enough.
        deleted = [u for u, e in zip(units, entries, strict=True) if e.action == "delete"]
        proof = self.whereabouts.proof(deleted, self._bring_into_line.max_proof_reads)
        now = [there if isinstance(there := proof.get(u.label), Unit) else u for u in units]
        unproved = frozenset(label for label, there in proof.items() if there is UNASKED)
        self._finish(now, [e.id for e in entries], unproved)
        return len(entries) + len(outdated)

    def _finish_outdated(self, entries: Sequence[JournalEntry]) -> None:
        """Confirms writes whose key is of another kind than the catalog declares now, after their documents, by path, are in
        line with their rows. Without a path, the row can't be known any more."""
        log.warning(
            "%s: %d writes that an earlier run left unconfirmed have another key than %s declares now. Their "
            "documents are looked at by path; the next sweep compares every row",
            self._job.collection.name,
            len(entries),
            settings.catalog_file(),
        )
        asked: set[str] = set()
        units: dict[str, Unit] = {}
        paths = [e.path for e in entries if e.path is not None]
        for documents in self._job.source.get_in_parts(paths, self._job.collection.fields):
            for path, document in documents.items():
                if isinstance(document, Unasked):
                    continue
                asked.add(path)
                mapped = map_document(self._job.collection, document) or [] if document is not None else []
                units.update((row.label, unit_of_row(row)) for row in mapped if isinstance(row, Row))
        looked = self.run(list(units.values()), self._bring_into_line)
        if all(finding.verdict is not Verdict.IN_FLIGHT for finding in looked):
            with self._job.target.transaction() as connection:
                journal.confirm(connection, [e.id for e in entries if e.path is None or e.path in asked])

    def found_elsewhere(self, units: Sequence[Unit]) -> list[Unit]:
        """The units whose document is at another path, with that path."""
        proof = self.whereabouts.proof(units, self._bring_into_line.max_proof_reads)
        return [unit for unit in proof.values() if isinstance(unit, Unit)]

    def prove_extra(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings, after every place where a document could be was searched: a document with an extra row's key may live
        at a path that the row doesn't give. Costs a complete read of names (see absence.py)."""
        extra = [unit_of_finding(self._job.collection, f) for f in findings if _takes_proof(f, self._job.collection)]
        proof = self.whereabouts.proof(extra, self._bring_into_line.max_proof_reads)
        alive = [unit for unit in proof.values() if isinstance(unit, Unit)]
        known = {f.label: f for f in self.run(alive, Policy())}
        unproved = {label for label, answer in proof.items() if answer is UNASKED}
        return [
            known.get(f.label, replace(f, reason=Reason.ABSENCE_NOT_PROVED) if f.label in unproved else f)
            for f in findings
        ]


class _ParentProtocols:
    """The protocols of the collections whose rows this one's rows require, by name. Each has these too, and asks those at the `top`:
    a collection that several require has one protocol."""

    def __init__(self, job: Job, policy: Policy, parents: Parents, top: _ParentProtocols | None) -> None:
        self._job = job
        self._policy = policy
        self._parents = parents
        self._top = top or self
        self._protocols: dict[str, WritingProtocol] = {}

    def close(self) -> None:
        for protocol in self._protocols.values():
            protocol.close()

    def learn(self, unknown: Unknown) -> None:
        """Asks the source for what is unknown of required documents. Those without a row are inserted where the run inserts, with
        their own parents first."""
        for name, rows in self._parents.read(unknown.required, unknown.rowless):
            self._parents.learn(name, self._top.states(name, rows), unknown.rowless)
        if unknown.awaited:
            self._parents.look(unknown.awaited, unknown.here)

    def states(self, name: str, rows: Sequence[Row]) -> dict[str, ParentState]:
        """The states of required documents, by path, from their own rows, which are inserted if the run inserts."""
        if name not in self._protocols:
            self._protocols[name] = WritingProtocol(self._job.of(name), self._policy, self._parents, self)
        protocol = self._protocols[name]
        judged = protocol.judge(protocol.page(rows), self._policy)
        inserted = [rows[n] for n in judged.journal]
        self._job.report.parents_inserted += len(inserted)
        protocol.confirm_later(inserted, list(judged.journal.values()), [n in judged.late for n in judged.journal])
        protocol.collect_confirmations(wait=True)
        return {row.path: parent_state(judged.findings.get(n), n in judged.journal) for n, row in enumerate(rows)}

    @property
    def unfinished(self) -> bool:
        return any(protocol.unfinished for protocol in self._protocols.values())

    def finish_late(self) -> None:
        for protocol in list(self._protocols.values()):
            protocol.finish_late()


# --- small things -----------------------------------------------------------------------------------------------------


def _batches(units: Sequence[Unit]) -> Iterator[dict[str, Unit]]:
    """The units in batches of one round's size, by label. Two documents with one id on different paths have the same label:
    the second goes into a later batch."""
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


def _takes_proof(finding: Finding, collection: Collection) -> bool:
    """Whether an extra row's document may be at another path, which only a complete read of names rules out, or may not hang on
    the one that it required. Not of one that is kept anyway, because nobody can look."""
    if finding.verdict is not Verdict.EXTRA or finding.reason in (Reason.CANT_BE_ASKED, Reason.PATH_UNKNOWN):
        return False
    return finding.path is not None or not collection.key_leads_back or finding.requires is not None


def _untold(unit: Unit, versions: Mapping[Key, tuple[str, str]], reason: Reason) -> Finding:
    """The finding on a row whose document's path is unknown (no row above it) or refused by Firestore (an invalid id): such a
    row is never deleted, because nothing can prove that its document is gone."""
    version = versions.get(unit.key)
    if version is None:
        return unit.finding(Verdict.ABSENT)
    return unit.finding(Verdict.EXTRA, reason=reason, fingerprint=version[1])
