"""Steps 4 and 5 of the writing protocol for keys whose document is gone.

A row is deleted only when no document of its collection has its key. Where a read at one path can't prove that, all
names are read (see absence.py): once before the first delete of a run, and once after the last, because a document
may be created or moved in between. Only then are the journal rows confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dualwrite import postgres
from dualwrite.engine.absence import Absence
from dualwrite.engine.judge import ATTEMPTS, Judge
from dualwrite.engine.units import Policy, Unit
from dualwrite.model.declaration import Collection
from dualwrite.model.documents import Document, Unasked
from dualwrite.model.mapping import Key, Rejection, Row, key_of_path, map_document
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres.remembered import excuses, journal
from dualwrite.postgres.target import Deleted


def takes_names(collection: Collection) -> bool:
    """Whether only a complete read of names proves that no document has a key: a read at one path says nothing."""
    return collection.keyed_by_path and not collection.keyed_by_whole_path


class Deletes:
    """The deletes of one run of the protocol, over all its batches. `own_inserts`: see Protocol.run."""

    def __init__(self, judge: Judge, units: Sequence[Unit], policy: Policy, own_inserts: frozenset[str]) -> None:
        self._judge = judge
        self._source = judge.source
        self._collection = judge.collection
        self._units = units
        self._policy = policy
        self._own_inserts = own_inserts
        self._before: Absence | None = None
        self._deleted: dict[str, tuple[Unit, int]] = {}

    # --- step 4 -------------------------------------------------------------------------------------------------------

    def write(
        self,
        gone: Sequence[Unit],
        versions: Mapping[Key, tuple[str, str]],
        done: dict[str, Finding],
    ) -> dict[str, Unit]:
        """Extra where a row is there, absent where none is; deleted where that is allowed and proved. Fills `done`,
        returns what must be looked at again."""
        again: dict[str, Unit] = {}
        candidates: list[tuple[Unit, str, Finding]] = []
        for unit in gone:
            version = versions.get(unit.key)
            if version is None:
                done.setdefault(unit.label, unit.found(Verdict.ABSENT))
                continue
            reason = Reason.PARENT_GONE if unit.requires else None
            finding = unit.found(Verdict.EXTRA, reason=reason, fingerprint=version[1])
            if not self._policy.delete and unit.label not in self._own_inserts:
                done[unit.label] = finding
                continue
            candidates.append((unit, version[0], finding))
        accepted = self._accepted([finding for _, _, finding in candidates])
        proved = []
        for unit, xmin, finding in candidates:
            if unit.label in accepted:
                done[unit.label] = replace(finding, excused=True)
                continue
            elsewhere = self._elsewhere(unit)
            if elsewhere is None:
                done[unit.label] = replace(finding, reason=Reason.ABSENCE_NOT_PROVED)
            elif elsewhere:
                again[unit.label] = elsewhere[0]
            else:
                proved.append((unit, xmin, finding))
        deleted = self._delete([(u.key, u.label, u.path, xmin) for u, xmin, _ in proved]) if proved else Deleted()
        self._judge.report.deleted += len(deleted.journal)
        for unit, _, finding in proved:
            if unit.label in deleted.journal:
                done[unit.label] = finding
                self._deleted[unit.label] = (unit, deleted.journal[unit.label])
            elif unit.label in deleted.kept:
                done[unit.label] = replace(finding, reason=deleted.kept[unit.label])
                if deleted.journal and deleted.kept[unit.label] is Reason.STILL_REFERENCED:
                    again[unit.label] = unit  # what referenced it may have gone with this round
            else:
                again[unit.label] = unit  # a client changed it this moment
        return again

    def _accepted(self, extra: Sequence[Finding]) -> set[str]:
        """Labels of what a person accepted: such a row is never deleted."""
        if not extra:
            return set()
        with self._judge.target.transaction() as connection:
            accepted = excuses.excuses_among(connection, self._collection.name, [f.label for f in extra])
        return {f.label for f in extra if f.label in accepted and accepted[f.label].covers(f)}

    def _delete(self, candidates: list[tuple[Key, str, str | None, str]]) -> Deleted:
        for attempt in range(ATTEMPTS):
            try:
                return self._judge.target.delete(self._collection, candidates, self._judge.run_id)
            except postgres.Error as error:
                self._judge.wait_or_raise(error, attempt)
        return Deleted()

    # --- the proof ----------------------------------------------------------------------------------------------------

    def _elsewhere(self, unit: Unit) -> list[Unit] | None:
        """Where the document (or the one it requires) really lives: one unit; empty if proved gone; None if the proof was
        refused."""
        if self._before is None:
            self._before = self._look(self._units)
        return self._alive(unit, self._before)

    def _look(self, units: Sequence[Unit]) -> Absence:
        """One complete read of the names of each collection that the proof needs."""
        absence = Absence(self._source, self._policy.max_proof_reads)
        if takes_names(self._collection):
            absence.look(self._collection, [u.key for u in units])
        required: dict[str, set[Key]] = {}
        for parent, key in (r for u in units for r in self._required(u)):
            required.setdefault(parent.name, set()).add(key)
        for name, keys in required.items():
            absence.look(self._judge.catalog[name], keys)
        self._judge.report.proof_reads += absence.reads
        return absence

    def _required(self, unit: Unit) -> Iterable[tuple[Collection, Key]]:
        """The document that a unit requires, where a read at its path doesn't prove that it is gone."""
        for collection in self._judge.catalog if unit.requires is not None else ():
            if collection.entries is None and takes_names(collection):
                key = key_of_path(collection, str(unit.requires))
                if key is not None:
                    yield collection, key

    def _alive(self, unit: Unit, absence: Absence) -> list[Unit] | None:
        for collection, key in self._required(unit):
            paths = absence.paths(collection, key)
            if paths is None:
                return None
            if paths:
                return [replace(unit, requires=None)]
        if not takes_names(self._collection):
            return []  # step 2 read the only path there is, or asked everybody who could share the key
        paths = absence.paths(self._collection, unit.key)
        if paths is None:
            return None
        below = f"{unit.requires}/"
        return [replace(unit, path=p, requires=None) for p in paths if unit.requires is None or not p.startswith(below)]

    def found_elsewhere(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units whose document is alive at another path than was thought, with that path."""
        return self.proof(units)[0]

    def proof(self, units: Sequence[Unit]) -> tuple[list[Unit], set[str]]:
        """Of keys whose document is gone from its path: those that live elsewhere, as they really are, and the labels of
        those that could not be looked for."""
        if not any(takes_names(self._collection) or list(self._required(u)) for u in units):
            return [], set()
        absence = self._look(units)
        found = {unit.label: self._alive(unit, absence) for unit in units}
        return [alive[0] for alive in found.values() if alive], {
            label for label, alive in found.items() if alive is None
        }

    # --- step 5 -------------------------------------------------------------------------------------------------------

    def confirm(self) -> list[tuple[Unit, int]]:
        """Looks once more, everywhere, at what was deleted; confirms the journal rows of what is still gone. Returns the
        others, with their journal rows."""
        if not self._deleted:
            return []
        units = [unit for unit, _ in self._deleted.values()]
        absence = self._look(units)
        back = self._back(units)
        alive: list[tuple[Unit, int]] = []
        settled: list[int] = []
        for unit, journal_id in self._deleted.values():
            found = [back[unit.label]] if unit.label in back else self._alive(unit, absence)
            if found:
                alive.append((found[0], journal_id))
            else:
                settled.append(journal_id)
        with self._judge.target.transaction() as connection:
            journal.confirm(connection, settled)
        return alive

    def _back(self, units: Sequence[Unit]) -> dict[str, Unit]:
        """Those whose document, or the one that they require, was created again where it had been."""
        required = self._source.get([u.requires for u in units if u.requires is not None])
        found = {
            u.label: replace(u, requires=None)
            for u in units
            if u.requires is not None and required[u.requires] is not None
        }
        own = [u for u in units if u.requires is None]
        at: dict[str, list[Unit]] = {}
        for unit in own:
            if unit.path is not None:
                at.setdefault(unit.path, []).append(unit)
        for documents in self._source.get_in_parts(at, self._collection.fields):
            for path, document in documents.items():
                mapped = map_document(self._collection, document) or [] if isinstance(document, Document) else []
                found.update((u.label, u) for u in at[path] if any(_is_of(m, u) for m in mapped))
        if not self._collection.keyed_by_path:
            for sharing in self._judge.owners.sharing(list(dict.fromkeys(u.key for u in own))):
                for unit in own:
                    others = sharing.get(unit.key, ())
                    if not isinstance(others, Unasked) and any(_is_of(m, unit) for m in others):
                        found[unit.label] = unit
        return found


def _is_of(mapped: Row | Rejection, unit: Unit) -> bool:
    """Whether a part of a document is the unit's."""
    if isinstance(mapped, Row):
        return mapped.key == unit.key
    return mapped.entire or mapped.entry == unit.entry
