"""The writing protocol: keys one by one, beside live clients that write to both sides, killed at any line.

docs/protocol.md argues it with numbered interleavings; `WritingProtocol._round` takes its five steps.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dualwrite import postgres, settings
from dualwrite.engine.classify import ParentState, finding_of, parent_state, still_to_write
from dualwrite.engine.confirmations import Confirmations
from dualwrite.engine.deletes import Deletes
from dualwrite.engine.job import Job
from dualwrite.engine.judge import ATTEMPTS, Judge, Judged, wait_or_raise
from dualwrite.engine.parents import Parents
from dualwrite.engine.reading import Read, Reading
from dualwrite.engine.rounds import StepResult, Versions, batches, decide
from dualwrite.engine.staged_rows import StagedRows
from dualwrite.engine.units import Policy, Unit, is_of_another_key, unit_of, unit_of_finding, unit_of_row
from dualwrite.engine.whereabouts import Unknown, Whereabouts
from dualwrite.firestore.staging import Stager
from dualwrite.model.declaration import Collection
from dualwrite.model.documents import UNASKED, Document, Unasked
from dualwrite.model.errors import TargetError
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Refusal, Row, map_document
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres.remembered import journal
from dualwrite.postgres.remembered.journal import JournalEntry

log = logging.getLogger(__name__)

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class ProtocolResult:
    """The result of a run of the protocol: one finding a unit."""

    findings: list[Finding]
    waiting: Mapping[str, Unit]
    """Keys that wait for other rows of their table, by label: these come later, or never."""


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

    def close(self) -> None:
        self._confirmations.close()
        self._required.close()

    # --- judging a page -----------------------------------------------------------------------------------------------

    def staged(self, rows: Iterable[Row] = ()) -> StagedRows:
        """A page of rows to be judged."""
        return StagedRows.of(self._stager, rows)

    def release(self, unit: Unit) -> None:
        """Gives up the places that a look which writes nothing had reserved for a row: another document turned out to own one of its
        keys, or it is looked at again."""
        self._judge.release(unit)

    def may_be_freed(self, unit: Unit) -> bool:
        """Whether the rows that refused a row, in a look that writes nothing, would have left their places by now."""
        return self._judge.promises.may_be_freed(unit)

    def waits(self, unit: Unit) -> bool:
        """Whether rows of the table refuse a row, in a look that writes nothing, which may leave their places yet."""
        return self._judge.promises.waits(unit)

    @property
    def order_decides(self) -> int:
        """See Promises.order_decides."""
        return self._judge.promises.order_decides()

    def judge(self, page: StagedRows, policy: Policy, expected: Mapping[Key, str | None] | None = None) -> Judged:
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
        return self.run_in_turn(units, policy, own_inserts=own_inserts).findings

    def run_in_turn(
        self, units: Sequence[Unit], policy: Policy, *, own_inserts: frozenset[str] = frozenset()
    ) -> ProtocolResult:
        """As `run`, with the keys that still wait."""
        deletes = Deletes(self._job, self.whereabouts, units, policy, own_inserts)
        result = self._after_others(self._batched(units, policy, deletes), policy, deletes)
        alive = deletes.confirm()
        if not alive:
            return result
        # These documents were created or moved while their rows were deleted: they get them back.
        restored = self.run_in_turn([unit for unit, _ in alive], replace(self._bring_into_line, delete=False))
        back = {f.label: f for f in restored.findings}
        settled = [i for unit, i in alive if back[unit.label].verdict is not Verdict.IN_FLIGHT]
        with self._job.target.transaction() as connection:
            journal.confirm(connection, settled)
        waiting = {label: unit for label, unit in result.waiting.items() if label not in back}
        return ProtocolResult([back.get(f.label, f) for f in result.findings], {**waiting, **restored.waiting})

    def _batched(self, units: Sequence[Unit], policy: Policy, deletes: Deletes) -> ProtocolResult:
        findings: list[Finding] = []
        waiting: dict[str, Unit] = {}
        for batch in batches(units):
            result = self._run_batch(batch, policy, deletes)
            findings += result.findings.values()
            waiting.update(result.waiting)
        return ProtocolResult(findings, waiting)

    def _after_others(self, result: ProtocolResult, policy: Policy, deletes: Deletes) -> ProtocolResult:
        """The same after keys that wait for other rows of their table (which must come first, or make room) have had another
        turn, again and again as long as fewer of them wait."""
        while before := result.waiting:
            turn = self._batched(list(before.values()), policy, deletes)
            again = {f.label: f for f in turn.findings}
            result = ProtocolResult([again.get(f.label, f) for f in result.findings], turn.waiting)
            if len(result.waiting) >= len(before):
                break
        return result

    def _run_batch(self, batch: dict[str, Unit], policy: Policy, deletes: Deletes) -> StepResult:
        result = StepResult(again=batch)
        for attempt in range(_ROUNDS):
            if not result.again:
                break
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)
            before = replace(result, again={}, refused={})
            result = before | self._round(result.again, result.findings, policy, deletes)
        findings = dict(result.findings)
        for label, unit in result.again.items():
            if label in result.refused:
                # No race that another look would settle: the same constraint refuses it each time.
                findings[label] = unit.finding(Verdict.REJECTED, reason=Refusal(result.refused[label].text))
            else:
                findings[label] = unit.finding(Verdict.IN_FLIGHT, reason=Reason.KEPT_CHANGING)
        return replace(result, findings=findings)

    def _round(
        self, units: Mapping[str, Unit], known: Mapping[str, Finding], policy: Policy, deletes: Deletes
    ) -> StepResult:
        """One round over some keys. `known`: findings of the rounds before."""
        result = StepResult()
        # Step 1: the rows' versions, without a lock. Absence counts as a version.
        versions = self._job.target.versions(self._job.collection, [u.key for u in units.values()])
        for read in self._reading.read(units, versions):  # only then the documents
            decided = decide(self._job.collection, read, versions)
            rows = [self._judge.without_gone(row, read.gone_path(row.label)) for row in decided.rows]
            compared, written = self._write(read, rows, versions, known, policy)
            deleted = deletes.write(decided.gone, versions, known, read.left_out)
            result |= decided.settled | compared | deleted | self._confirm(read, rows, written)
        return result

    # --- step 4 -------------------------------------------------------------------------------------------------------

    def _write(
        self, read: Read, rows: Sequence[Row], versions: Versions, known: Mapping[str, Finding], policy: Policy
    ) -> tuple[StepResult, dict[str, int]]:
        """Writes in one short transaction, each row only if it still has the version of step 1. Returns also the journal ids
        of the written rows, by label."""
        if not rows:
            return StepResult(), {}
        findings: dict[str, Finding] = {}
        again: dict[str, Unit] = {}
        waiting: dict[str, Unit] = {}
        written: dict[str, int] = {}
        expected: dict[Key, str | None] = {row.key: versions.get(row.key, (None, ""))[0] for row in rows}
        judged = self.judge(self.staged(rows), policy, expected)
        for n, row in enumerate(rows):
            unit = read.units[row.label]
            finding = judged.findings.get(n) or finding_of(Verdict.MATCHING, row, None)
            if row.label in read.to_null and finding.verdict is Verdict.STALE:
                finding = replace(finding, requires=unit.requires)
            if n in judged.late:
                self._confirmations.add_late(unit_of_row(row), judged.journal[n])
            elif n in judged.journal:
                written[row.label] = judged.journal[n]
            if n in judged.obstacles:
                frees = judged.obstacles[n].may_be_freed and (policy.writes or self.may_be_freed(unit))
                if judged.obstacles[n].own_table or frees:
                    waiting[row.label] = unit
            if still_to_write(finding, policy) and n not in judged.journal:
                again[row.label] = unit
            elif not (row.label in known and finding.verdict is Verdict.MATCHING):
                # The verdict from before our write is kept: it matches only because we wrote it.
                findings[row.label] = finding
        refused = {rows[n].label: why for n, why in judged.obstacles.items()}
        return StepResult(findings, again, refused, waiting), written

    # --- step 5 -------------------------------------------------------------------------------------------------------

    def _confirm(self, read: Read, rows: Sequence[Row], written: Mapping[str, int]) -> StepResult:
        """Reads the documents once more; keys whose document changed or vanished meanwhile are looked at again. (Deletes are
        confirmed at the end of the run: see deletes.py.)"""
        if not written:
            return StepResult()
        by_label = {row.label: row for row in rows}
        now = self._job.source.get([by_label[label].path for label in written])
        settled: list[int] = []
        again: dict[str, Unit] = {}
        for label, journal_id in written.items():
            document = now[by_label[label].path]
            if isinstance(document, Document) and document.update_time == by_label[label].update_time:
                settled.append(journal_id)
            else:
                again[label] = read.units[label]
        with self._job.target.transaction() as connection:
            journal.confirm(connection, settled)
        return StepResult(again=again)

    # --- confirming a page's inserts --------------------------------------------------------------------------------------

    def confirm_later(self, rows: Sequence[Row], journal_ids: Sequence[int], late: Sequence[bool] = ()) -> None:
        """Starts step 5 of a page's inserts, beside the next page. Rows that are `late` wait for `finish_late`."""
        every = list(zip(rows, journal_ids, late or [False] * len(rows), strict=True))
        whole = [(row, i) for row, i, waits in every if not waits]
        self._confirmations.ask([row for row, _ in whole], [i for _, i in whole])
        for row, journal_id in ((row, i) for row, i, waits in every if waits):
            self._confirmations.add_late(unit_of_row(row), journal_id)

    @property
    def unfinished(self) -> bool:
        return self._confirmations.has_late or self._required.unfinished

    def finish_late(self) -> None:
        """Fills in the references of rows that were inserted before the rows that they refer to, and inserts these if they
        are still missing, up to the root of a tree. A row is confirmed only after that, so a killed run leaves it to the
        next."""
        while self.unfinished:
            if late := self._confirmations.take_late():
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
        """Asks the source for the unknown required documents. Those without a row are inserted, if the run inserts, with their own
        parents first."""
        for name, rows in self._parents.read(unknown.required, unknown.rowless):
            self._parents.learn(name, self._top.states(name, rows), unknown.rowless)
        if unknown.awaited:
            self._parents.look(unknown.awaited, unknown.here)

    def states(self, name: str, rows: Sequence[Row]) -> dict[str, ParentState]:
        """The states of required documents, by path, from their own rows, which are inserted if the run inserts."""
        if name not in self._protocols:
            self._protocols[name] = WritingProtocol(self._job.of(name), self._policy, self._parents, self)
        protocol = self._protocols[name]
        judged = protocol.judge(protocol.staged(rows), self._policy)
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


def _takes_proof(finding: Finding, collection: Collection) -> bool:
    """Whether an extra row's document may be at another path, which only a complete read of names rules out, or may not hang on
    the one that it required. Not if the row is kept anyway, because its document can't be asked for."""
    if finding.verdict is not Verdict.EXTRA or finding.reason in (Reason.CANT_BE_ASKED, Reason.PATH_UNKNOWN):
        return False
    return finding.path is not None or not collection.key_leads_back or finding.requires is not None
