"""Where does a key's document live? Answers in one place: which document owns a contested row (owners.py), whether the
documents that a row requires are there (parents.py), and whether a document that left its path is elsewhere (absence.py).

An answer is never guessed: there, gone, or unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Collection as Container
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dualwrite.engine.absence import Absence
from dualwrite.engine.classify import Circumstances
from dualwrite.engine.hanging import Hanging, hanging
from dualwrite.engine.job import Job
from dualwrite.engine.owners import Owners, Shared
from dualwrite.engine.parents import Parents, References, Required
from dualwrite.engine.required import required_documents
from dualwrite.engine.units import Unit
from dualwrite.firestore.source import Paths
from dualwrite.model.declaration import Collection
from dualwrite.model.documents import UNASKED, Document, Unasked
from dualwrite.model.keys import Key, key_of_path
from dualwrite.model.mapping import LeftOut, Rejection, Row, map_document
from dualwrite.postgres.target import Difference

log = logging.getLogger(__name__)


def takes_names(collection: Collection) -> bool:
    """Whether only a complete read of names proves that no document has a key; a read at one path isn't enough."""
    return collection.keyed_by_path and not collection.keyed_by_whole_path


@dataclass(frozen=True, slots=True)
class Unknown:
    """The facts to read from the source before some differences can be judged."""

    required: Sequence[Required]
    rowless: frozenset[Required]
    """Documents without a row that rows to be inserted need."""
    contested: Sequence[Key]
    """Rows whose owner is unknown."""
    awaited: Sequence[Required] = ()
    """Documents whose rows may come later."""
    here: Mapping[Required, Row] = field(default_factory=dict)
    """Rows to be inserted, by their own collection and path, so that awaited documents among them aren't read."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The reads that prove that rows may go. Answers go stale: gather it anew for each check.

    `shared`: paths of documents by natural key, of units that go with another document; None: Firestore can't be asked.
    `hanging`: None if it would have read too many documents.
    """

    names: Absence
    shared: Mapping[Key, Sequence[str] | None]
    hanging: Hanging | None


class Whereabouts:
    """The places at which the documents of one collection live, in one run. Owners of contested rows are remembered; natural keys and proofs
    are read anew each time."""

    def __init__(self, job: Job, parents: Parents) -> None:
        self._job = job
        self._collection = job.collection
        self._parents = parents
        self._owners = Owners(job)
        self._references = References(job.catalog, job.collection)

    def forget(self) -> None:
        """Keeps its memory within bounds; called between pages."""
        self._parents.forget()
        self._owners.forget()

    # --- of a difference ------------------------------------------------------------------------------------------------

    def required(self, difference: Difference, nulling: frozenset[str]) -> list[Required]:
        """See References.required."""
        return self._references.required(difference, nulling)

    def uniques(self, row: Row) -> Sequence[Key]:
        """The row's values for each further unique key."""
        return self._owners.uniques(row)

    def unknown(self, differences: Sequence[Difference], required: Mapping[int, Sequence[Required]]) -> Unknown | None:
        """The unknown facts of these differences; None if there are none. `required`: their documents, by number."""
        asked = dict.fromkeys(r for d in differences for r in required[d.n] if self._parents.state(*r) is None)
        contested = dict.fromkeys(key for d in differences for key in self._owners.unknown(d))
        awaited = dict.fromkeys(a for d in differences for a in self._awaited(d) if self._parents.document(*a) is None)
        if not asked and not contested and not awaited:
            return None
        rowless = frozenset(r for d in differences for r in self._references.rowless(d))
        here = {(self._collection.name, d.row.path): d.row for d in differences if awaited and not d.exists}
        return Unknown(list(asked), rowless, list(contested), list(awaited), here)

    def _awaited(self, difference: Difference) -> Iterable[Required]:
        """The documents that a row to be inserted refers to and whose rows may come later."""
        return self._references.awaited(difference.row) if self._references.late and not difference.exists else ()

    def learn(self, contested: Iterable[Key]) -> None:
        """Reads the documents of contested rows."""
        self._owners.learn(contested)

    def gone_columns(self, row: Row, nulling: frozenset[str]) -> list[int]:
        """The indexes of columns that become null because the documents that they name were read and are gone."""
        named = self._references.nullable(row, nulling)
        return [i for i, r in named if "gone" in (self._parents.state(*r), self._parents.document(*r))]

    def columns_naming(self, row: Row, path: str, nulling: frozenset[str]) -> list[int]:
        """The indexes of columns that may become null and name the document at this path."""
        return [index for index, (_, named) in self._references.nullable(row, nulling) if named == path]

    def circumstances(self, difference: Difference, required: Sequence[Required]) -> Circumstances:
        """The circumstances of a difference; all its facts must be known."""
        states = [self._parents.state(*r) for r in required]
        for document in self._awaited(difference):
            state = self._parents.document(*document)
            if state != "insertable" or self._references.late.intersection(difference.lacks):  # else its row is there
                states.append(state)
        return Circumstances(
            parents=[state for state in states if state is not None and state != "present"],
            holders=self._owners.holders(difference),
            belongs_elsewhere=self._owners.belongs_elsewhere(difference),
            unasked=self._owners.is_unasked(difference),
        )

    # --- of natural keys ------------------------------------------------------------------------------------------------

    def sharing(self, keys: Sequence[Key]) -> Iterator[dict[Key, Shared | Paths | Unasked]]:
        """The documents that share each of these natural keys; see Owners.sharing."""
        return self._owners.sharing(keys)

    def shared_at(self, key: Key, paths: Paths) -> Iterator[Shared]:
        """The documents at these paths that share a natural key; see Owners.shared_at."""
        return self._owners.shared_at(key, paths)

    # --- of a document that is gone from its path -----------------------------------------------------------------------

    def gather(self, units: Iterable[Unit], most: int) -> Evidence:
        """Reads the evidence that a proof for these units needs: all names of each collection whose keys don't give a whole path; not
        of one with more than `most`. If units go with a document that they require, also the documents that have their keys by now,
        and those that these name, if they are up to `most` documents: do they hang on it too?"""
        units = list(units)
        names = Absence(self._job.source, most)
        if takes_names(self._collection):
            names.look(self._collection, [u.key for u in units])
        required: dict[str, set[Key]] = {}
        for parent, key in (r for u in units for r in self._required_of(u)):
            required.setdefault(parent.name, set()).add(key)
        for name, keys in required.items():
            names.look(self._job.catalog[name], keys)
        going = [u for u in units if u.requires is not None]
        natural = not self._collection.keyed_by_path
        evidence = Evidence(names, self._sharing_paths({u.key for u in going}) if natural else {}, None)
        starts = {(u.key, p): str(u.requires) for u in going for p in self._living(u, evidence) or ()}
        evidence = replace(evidence, hanging=hanging(self._job, starts, most))
        if evidence.hanging is None:
            log.warning(
                "%s: proving that no document needs rows to stay would read more documents than max_proof_reads = %s",
                self._collection.name,
                f"{most:,}",
            )
        self._job.report.proof_reads += names.reads + (evidence.hanging.reads if evidence.hanging else 0)
        return evidence

    def _sharing_paths(self, keys: Container[Key]) -> dict[Key, Sequence[str] | None]:
        """The paths of documents that have these natural keys, or may have them; None if Firestore can't be asked."""
        paths: dict[Key, Sequence[str] | None] = {}
        for answers in self.sharing(list(keys)) if keys else ():
            for key, answer in answers.items():
                if isinstance(answer, Unasked):
                    paths[key] = None
                elif isinstance(answer, Paths):
                    paths[key] = answer.paths
                else:
                    paths[key] = [unit.path for unit in answer if not isinstance(unit, LeftOut)]
        return paths

    def _living(self, unit: Unit, evidence: Evidence) -> Sequence[str] | None:
        """The paths at which documents with the unit's key are, or may be. None: they aren't known."""
        if takes_names(self._collection):
            return evidence.names.paths(self._collection, unit.key)
        if not self._collection.keyed_by_path:
            return evidence.shared.get(unit.key)
        return None if unit.path is None else [unit.path]

    def elsewhere(self, unit: Unit, evidence: Evidence) -> Unit | Unasked | None:
        """The unit as it is to be looked at again, if its document (or the one that it requires) lives elsewhere, or doesn't
        hang on the one that it required; None if it is proved gone; UNASKED if the evidence for that wasn't read."""
        for collection, key in self._required_of(unit):
            paths = evidence.names.paths(collection, key)
            if paths is None:
                return UNASKED
            if paths:
                return replace(unit, requires=None)
        by_names = takes_names(self._collection)
        if not by_names and unit.requires is None:
            return None  # step 2 read the only possible path, or all documents that could share the key
        living = self._living(unit, evidence)
        if living is None or (unit.requires is not None and evidence.hanging is None):
            return UNASKED
        free = next((p for p in living if not self._hangs(unit, p, evidence)), None)
        return None if free is None else replace(unit, path=free if by_names else unit.path, requires=None)

    def _hangs(self, unit: Unit, path: str, evidence: Evidence) -> bool:
        """Whether the document at a path goes with the one that the unit requires. One without a row of the unit's key was deleted
        or changed since its path was read; if a path can't have moved, it is gone."""
        if unit.requires is None:
            return False
        answers = evidence.hanging.answers if evidence.hanging is not None else {}
        return answers.get((unit.key, path), self._collection.keyed_by_whole_path)

    def proof(self, units: Sequence[Unit], most: int) -> dict[str, Unit | Unasked | None]:
        """By label, the places of documents that left their units' paths; see `elsewhere`. Empty if nothing needs to be read."""
        if not any(takes_names(self._collection) or u.requires for u in units):
            return {}
        evidence = self.gather(units, most)
        return {unit.label: self.elsewhere(unit, evidence) for unit in units}

    def _required_of(self, unit: Unit) -> Iterator[tuple[Collection, Key]]:
        """The collections and keys of a unit's required document, if a read at its path doesn't prove that it is gone."""
        for collection in self._job.catalog if unit.requires is not None else ():
            if collection.entries is None and takes_names(collection):
                key = key_of_path(collection, str(unit.requires))
                if key is not None:
                    yield collection, key

    def back(self, units: Sequence[Unit]) -> dict[str, Unit]:
        """The units, by label, whose document, or the one that they require, was created again at its old path."""
        required = required_documents(self._job, [u.requires for u in units if u.requires is not None])
        there = {
            u.label: replace(u, requires=None)
            for u in units
            if u.requires is not None and required[u.requires] is not None
        }
        own = [u for u in units if u.requires is None]
        at: dict[str, list[Unit]] = {}
        for unit in own:
            if unit.path is not None:
                at.setdefault(unit.path, []).append(unit)
        for documents in self._job.source.get_in_parts(at, self._collection.fields):
            for path, document in documents.items():
                mapped = map_document(self._collection, document) or [] if isinstance(document, Document) else []
                there.update((u.label, u) for u in at[path] if any(_is_of(m, u) for m in mapped))
        if not self._collection.keyed_by_path:
            for sharing in self.sharing(list(dict.fromkeys(u.key for u in own))):
                for unit in own:
                    others = sharing.get(unit.key, [])
                    if isinstance(others, Unasked):
                        continue
                    parts = [others] if isinstance(others, list) else self.shared_at(unit.key, others)
                    if any(_is_of(m, unit) for part in parts for m in part):
                        there[unit.label] = unit
        return there


def _is_of(mapped: Row | Rejection | LeftOut, unit: Unit) -> bool:
    """Whether a mapped entry belongs to the unit and may have a row."""
    if isinstance(mapped, LeftOut):
        return False
    if isinstance(mapped, Row):
        return mapped.key == unit.key
    return mapped.entire or mapped.entry == unit.entry
