"""Steps 4 and 5 of the writing protocol for keys whose document is gone.

A row is deleted only if no document of its collection has its key. If a read at one path can't prove that, all names are
read (see absence.py): once before the first delete of a run, and once after the last, because a document may be created or
moved in between. Only then are the journal rows confirmed.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from dualwrite import postgres
from dualwrite.engine.job import Job
from dualwrite.engine.judge import ATTEMPTS, wait_or_raise
from dualwrite.engine.rounds import StepResult, Versions
from dualwrite.engine.units import Policy, Unit
from dualwrite.engine.whereabouts import Evidence, Whereabouts
from dualwrite.model.documents import UNASKED, Document, Unasked
from dualwrite.model.entries import Itself
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Row, map_document
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres.remembered import excuses, journal
from dualwrite.postgres.target import Candidate, Deleted


class Deletes:
    """The deletes of one run of the protocol, over all its batches. `own_inserts`: see WritingProtocol.run."""

    def __init__(
        self, job: Job, whereabouts: Whereabouts, units: Sequence[Unit], policy: Policy, own_inserts: frozenset[str]
    ) -> None:
        self._job = job
        self._whereabouts = whereabouts
        self._units = units
        self._policy = policy
        self._own_inserts = own_inserts
        self._before: Evidence | None = None
        self._deleted: dict[str, tuple[Unit, int]] = {}

    # --- step 4 -------------------------------------------------------------------------------------------------------

    def write(
        self,
        gone: Sequence[Unit],
        versions: Versions,
        known: Container[str] = (),
        left_out: Container[str] = (),
    ) -> StepResult:
        """Findings of these units: extra if it has a row, absent if not. Deletes rows if that is allowed and proved.

        `known`: labels with a finding from before; one that has no row any more keeps it. `left_out`: labels of units whose
        document is there and doesn't meet the condition."""
        findings: dict[str, Finding] = {}
        again: dict[str, Unit] = {}
        candidates: list[tuple[Unit, str, Finding]] = []
        for unit in gone:
            version = versions.get(unit.key)
            if version is None:
                if unit.label not in known:
                    findings[unit.label] = unit.finding(Verdict.ABSENT)
                continue
            finding = _extra(unit, version[1], is_left_out=unit.label in left_out)
            if not self._policy.delete and unit.label not in self._own_inserts:
                findings[unit.label] = finding
                continue
            candidates.append((unit, version[0], finding))
        kept = self._kept([(unit, finding) for unit, _, finding in candidates])
        proved = []
        for unit, xmin, finding in candidates:
            if unit.label in kept:
                findings[unit.label] = kept[unit.label]
                continue
            elsewhere = self._elsewhere(unit)
            if isinstance(elsewhere, Unit):
                again[unit.label] = elsewhere
            elif elsewhere is UNASKED:
                findings[unit.label] = replace(finding, reason=Reason.ABSENCE_NOT_PROVED)
            else:
                proved.append((unit, xmin, finding))
        return StepResult(findings, again) | self._remove(proved)

    def _remove(self, proved: Sequence[tuple[Unit, str, Finding]]) -> StepResult:
        """Deletes rows without a document; a row of another version than given is looked at again."""
        if not proved:
            return StepResult()
        findings: dict[str, Finding] = {}
        again: dict[str, Unit] = {}
        deleted = self._delete([Candidate(u.key, u.label, u.path, xmin) for u, xmin, _ in proved])
        self._job.report.deleted += len(deleted.journal)
        for unit, _, finding in proved:
            if unit.label in deleted.journal:
                findings[unit.label] = finding
                self._deleted[unit.label] = (unit, deleted.journal[unit.label])
            elif unit.label in deleted.kept:
                findings[unit.label] = replace(finding, reason=deleted.kept[unit.label])
                if deleted.journal and deleted.kept[unit.label] is Reason.STILL_REFERENCED:
                    again[unit.label] = unit  # rows that referenced it may have gone in this round
            else:
                again[unit.label] = unit  # a client has just changed it
        return StepResult(findings, again)

    def _kept(self, extra: Sequence[tuple[Unit, Finding]]) -> dict[str, Finding]:
        """The findings on extra rows that aren't deleted whatever is proved of their documents, by label."""
        accepted = self._accepted([finding for _, finding in extra])
        lacking = self._lacking([unit for unit, _ in extra if unit.label not in accepted])
        kept = {unit.label: replace(finding, excused=True) for unit, finding in extra if unit.label in accepted}
        kept.update((u.label, replace(f, reason=Reason.NEW_ROW_LACKING)) for u, f in extra if u.label in lacking)
        return kept

    def _accepted(self, extra: Sequence[Finding]) -> set[str]:
        """Labels of excused rows, which are never deleted."""
        if not extra:
            return set()
        with self._job.target.transaction() as connection:
            accepted = excuses.excuses_among(connection, self._job.collection.name, [f.label for f in extra])
        return {f.label for f in extra if f.label in accepted and accepted[f.label].covers(f)}

    def _lacking(self, units: Sequence[Unit]) -> set[str]:
        """Labels of rows whose document has another key by now and no row there: deleting them would leave it without one. A row
        that goes with another document goes all the same. Bills a read for each document."""
        if not isinstance(self._job.collection.entries, Itself):
            return set()
        moved: dict[str, Key] = {}
        paths = {unit.path for unit in units if unit.path is not None and unit.requires is None}
        for documents in self._job.source.get_in_parts(paths, self._job.collection.fields):
            for path, document in documents.items():
                mapped = map_document(self._job.collection, document) if isinstance(document, Document) else None
                moved.update((path, unit.key) for unit in mapped or () if isinstance(unit, Row))
        there = self._job.target.versions(self._job.collection, list(moved.values())) if moved else {}
        now = {path: key for path, key in moved.items() if key not in there}
        return {u.label for u in units if u.path in now and u.requires is None and now[u.path] != u.key}

    def _delete(self, candidates: list[Candidate]) -> Deleted:
        for attempt in range(ATTEMPTS):
            try:
                return self._job.target.delete(self._job.collection, candidates, self._job.run_id)
            except postgres.Error as error:
                wait_or_raise(self._job.collection.name, error, attempt)
        return Deleted()

    def _elsewhere(self, unit: Unit) -> Unit | Unasked | None:
        """See Whereabouts.elsewhere; its evidence is gathered once, before the first delete."""
        if self._before is None:
            self._before = self._whereabouts.gather(self._units, self._policy.max_proof_reads)
        return self._whereabouts.elsewhere(unit, self._before)

    # --- step 5 -------------------------------------------------------------------------------------------------------

    def confirm(self) -> list[tuple[Unit, int]]:
        """Looks once more, everywhere, for documents of deleted rows; confirms the journal rows of those still gone. Returns
        the units whose document is back, with their journal ids. A delete that can't be proved any more stays unconfirmed, so that a later
        run looks again (WritingProtocol.finish_journal)."""
        if not self._deleted:
            return []
        units = [unit for unit, _ in self._deleted.values()]
        evidence = self._whereabouts.gather(units, self._policy.max_proof_reads)
        back = self._whereabouts.back(units)
        alive: list[tuple[Unit, int]] = []
        settled: list[int] = []
        for unit, journal_id in self._deleted.values():
            living = back.get(unit.label) or self._whereabouts.elsewhere(unit, evidence)
            if isinstance(living, Unit):
                alive.append((living, journal_id))
            elif living is None:
                settled.append(journal_id)
        with self._job.target.transaction() as connection:
            journal.confirm(connection, settled)
        return alive


def _extra(unit: Unit, fingerprint: str, *, is_left_out: bool) -> Finding:
    reason = Reason.PARENT_GONE if unit.requires else Reason.LEFT_OUT if is_left_out else None
    return unit.finding(Verdict.EXTRA, reason=reason, fingerprint=fingerprint)
