"""The writing protocol: keys one by one, beside live clients that write to both sides, killed at any line.

docs/protocol.md argues it with numbered interleavings; the steps are numbered here as there.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from dualwrite.engine.classify import (
    ATTEMPTS,
    TRANSIENT,
    Judge,
    Policy,
    Unit,
    finding_of,
    still_to_write,
    unit_of,
    unit_of_row,
)
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.postgres import memory
from dualwrite.postgres.target import Key

log = logging.getLogger(__name__)

_ROUNDS = 5
UNITS_AT_ONCE = 300
"""Keys in one round: its transaction holds their locks, so it must stay well below a second."""


class Protocol:
    """Runs the protocol for one collection. `may_delete` also holds for rows that are brought into line afterwards."""

    def __init__(self, judge: Judge, *, may_delete: bool) -> None:
        self._judge = judge
        self._source = judge.source
        self._target = judge.target
        self._collection = judge.collection
        # What we wrote is brought into line with its document whatever the run's policy.
        self._mending = Policy(insert=True, update=True, delete=may_delete)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="confirm")
        self._confirming: list[tuple[list[Row], dict[str, int], Future[dict[str, Document | None]]]] = []

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def run(
        self, units: Sequence[Unit], policy: Policy, *, own_inserts: frozenset[str] = frozenset()
    ) -> list[tuple[Finding, Key]]:
        """Steps 1 to 5 for some keys, until each has a verdict that held still. Returns one finding a unit.

        `own_inserts` are labels of rows that we inserted and that may be taken back where the document is gone,
        whatever the policy says of deletes.
        """
        done: dict[str, tuple[Finding, Key]] = {}
        todo: dict[str, Unit] = {}
        twins: list[Unit] = []  # two documents of one id on different paths: the second gets a turn of its own
        for unit in units:
            if unit.label in todo:
                twins.append(unit)
            else:
                todo[unit.label] = unit
        for attempt in range(_ROUNDS):
            if not todo:
                break
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)
            todo = self._round(todo, done, policy, own_inserts)
        for label, unit in todo.items():
            finding = Finding(Verdict.IN_FLIGHT, label, unit.path, unit.entry, reason="kept_changing")
            done[label] = (finding, unit.key)
        found = list(done.values())
        return found + self.run(twins, policy, own_inserts=own_inserts) if twins else found

    def _round(
        self,
        todo: dict[str, Unit],
        done: dict[str, tuple[Finding, Key]],
        policy: Policy,
        own_inserts: frozenset[str],
    ) -> dict[str, Unit]:
        """One round over some keys: fills `done`, returns what must be looked at again."""
        again: dict[str, Unit] = {}
        versions = self._target.versions(self._collection, [u.key for u in todo.values()])  # step 1
        documents, doomed = self._documents(todo.values())  # step 2
        rows: list[Row] = []
        gone: list[Unit] = []
        for unit in todo.values():
            mapped = documents[unit.label]
            if unit.path is None and unit.label not in doomed and self._collection.keyed_by_path:
                done[unit.label] = (self._unlocated(unit, versions), unit.key)
            elif mapped is None:
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
            judged, write = self._judge.judge(rows, policy, expected)  # steps 3 and 4
            written.update(write.journal)
            differing = {row.label: finding for row, finding in judged}
            for row in rows:
                finding = differing.get(row.label, finding_of(Verdict.MATCHING, row, None))
                if finding is None:
                    finding = self._judge.owner_finding(row)
                if still_to_write(finding, policy) and row.label not in written:
                    again[row.label] = todo[row.label]
                elif not (row.label in done and finding.verdict is Verdict.MATCHING):
                    done[row.label] = (finding, row.key)  # what it was when we wrote, not that it matches since
        self._judge_gone(gone, versions, policy, own_inserts, done, written, again)
        # Step 5.
        if written:
            paths = {label: todo[label].path or done[label][0].path for label in written}
            now = self._source.get([p for p in paths.values() if p is not None])
            read = {row.label: row.update_time for row in rows}
            settled = []
            required = [str(todo[label].requires) for label in written if label in doomed]
            back = {path for path, document in self._source.get(required).items() if document is not None}
            for label, journal_id in written.items():
                document = now.get(str(paths[label]))
                moment = document.update_time if document else None
                if moment == read.get(label) or (label in doomed and todo[label].requires not in back):
                    settled.append(journal_id)
                else:
                    again[label] = todo[label]
            with self._target.transaction() as connection:
                memory.confirm(connection, settled)
        return again

    @staticmethod
    def _unlocated(unit: Unit, versions: dict[Key, tuple[str, str]]) -> Finding:
        """A row whose document's path can't be told (no row above it, an id that no document has): never deleted,
        because nobody can look."""
        version = versions.get(unit.key)
        if version is None:
            return Finding(Verdict.ABSENT, unit.label)
        return Finding(Verdict.EXTRA, unit.label, reason="path_unknown", fingerprint=version[1])

    def _documents(self, units: Iterable[Unit]) -> tuple[dict[str, Row | Rejection | None], set[str]]:
        """The fresh mapping of each unit's document, None where it, its entry, or what it requires is gone; and the
        labels of the last kind."""
        units = list(units)
        required = self._source.get([u.requires for u in units if u.requires is not None])
        documents = self._source.get([u.path for u in units if u.path is not None], self._collection.fields)
        found: dict[str, Row | Rejection | None] = {}
        doomed = {u.label for u in units if u.requires is not None and required[u.requires] is None}
        for unit in units:
            if unit.label in doomed:
                found[unit.label] = None
                continue
            if unit.path is None:
                sharing = self._judge.sharing(unit.key) if not self._collection.keyed_by_path else []
                rows = [s for s in sharing if isinstance(s, Row)]
                refused = next((s for s in sharing if isinstance(s, Rejection)), None)  # it may be this row's document
                found[unit.label] = min(rows, key=lambda r: (r.create_time, r.label)) if rows else refused
                continue
            document = documents[unit.path]
            mapped = [] if document is None else map_document(self._collection, document) or []
            found[unit.label] = next(
                (m for m in mapped if m.entry == unit.entry or (isinstance(m, Rejection) and m.entry is None)), None
            )
        return found, doomed

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
            finding = Finding(
                Verdict.EXTRA,
                unit.label,
                unit.path,
                unit.entry,
                reason="parent_gone" if unit.requires else None,
                fingerprint=version[1],
                requires=unit.requires,
            )
            if not policy.delete and unit.label not in own_inserts:
                done[unit.label] = (finding, unit.key)
                continue
            candidates.append((unit, version[0], finding))
        if not candidates:
            return
        journal = self._delete([(u.key, u.label, u.path, xmin) for u, xmin, _ in candidates])
        self._judge.report.deleted += len(journal)
        written.update(journal)
        for unit, _, finding in candidates:
            if unit.label in journal:
                done[unit.label] = (finding, unit.key)
                continue
            before = done.get(unit.label)
            done[unit.label] = (replace(finding, reason="still_referenced"), unit.key)
            if before is None or before[0].fingerprint != finding.fingerprint:
                again[unit.label] = unit  # or a client changed it this moment: looked at once more

    def _delete(self, candidates: list[tuple[Key, str, str | None, str]]) -> dict[str, int]:
        for attempt in range(ATTEMPTS):
            try:
                return self._target.delete(self._collection, candidates, self._judge.run_id)
            except TRANSIENT as error:
                self._judge.wait_or_raise(error, attempt)
        return {}

    # --- confirming -----------------------------------------------------------------------------------------------------

    def confirm_later(self, rows: list[Row], journal: dict[str, int]) -> None:
        """Step 5 of a page's inserts, beside the next page."""
        if rows:
            paths = list(dict.fromkeys(row.path for row in rows))
            self._confirming.append((rows, journal, self._executor.submit(self._source.get, paths)))

    def collect_confirmations(self, *, wait: bool) -> None:
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
            with self._target.transaction() as connection:
                memory.confirm(connection, still)
            if moved:
                self._repair_moved([unit_of_row(row) for row in moved], [journal[row.label] for row in moved])

    def _repair_moved(self, units: list[Unit], journal_ids: list[int]) -> None:
        """Keys that we wrote and whose documents moved meanwhile. They were counted when they were written."""
        for start in range(0, len(units), UNITS_AT_ONCE):
            self._mend(units[start : start + UNITS_AT_ONCE], journal_ids[start : start + UNITS_AT_ONCE])

    def _mend(self, units: Sequence[Unit], journal_ids: Sequence[int]) -> None:
        """Runs the protocol over keys that were written and not confirmed, then confirms their journal rows.

        A row that we inserted and nobody touched since is taken back where its document is gone.
        """
        with self._target.transaction() as connection:
            own = self._target.untouched(connection, self._collection, journal_ids)
        findings = self.run(units, self._mending, own_inserts=own)
        unsettled = {f.label for f, _ in findings if f.verdict is Verdict.IN_FLIGHT}
        settled = [i for u, i in zip(units, journal_ids, strict=True) if u.label not in unsettled]
        with self._target.transaction() as connection:
            memory.confirm(connection, settled)

    def finish_journal(self) -> int:
        """Finishes what a killed run left unconfirmed in this collection; returns how many writes that were."""
        with self._target.transaction() as connection:
            entries = memory.unconfirmed(connection, self._collection.name)
        if not entries:
            return 0
        log.info("%s: finishing %d writes that an earlier run left unconfirmed", self._collection.name, len(entries))
        for start in range(0, len(entries), UNITS_AT_ONCE):
            part = entries[start : start + UNITS_AT_ONCE]
            units = [replace(unit_of(self._collection, e.key, e.path), label=e.label) for e in part]
            self._mend(units, [e.id for e in part])
        return len(entries)
