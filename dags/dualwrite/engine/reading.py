"""Step 2 of the writing protocol: reads the documents of some keys.

A document is read at its unit's path, then at the other paths that its row gives. If several documents may share a key, all
of them are read.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dualwrite.engine.classify import duplicate
from dualwrite.engine.job import Job
from dualwrite.engine.owners import Shared
from dualwrite.engine.required import required_documents
from dualwrite.engine.units import Unit, unit_of
from dualwrite.engine.whereabouts import Whereabouts
from dualwrite.firestore.source import Paths
from dualwrite.model.documents import UNASKED, Document, Unasked
from dualwrite.model.keys import Key
from dualwrite.model.mapping import LeftOut, Rejection, Row, left_out_among, map_document
from dualwrite.model.verdicts import Finding

Entries = Shared | Unasked
"""The units of one document, none if it is gone; UNASKED if Firestore can't be asked for it."""
Mapped = Row | Rejection | Finding | LeftOut | None | Unasked
"""A unit's document as it maps now; None if it, or its entry, is gone; a Finding if its natural key is another document's."""


@dataclass(frozen=True, slots=True)
class Read:
    """A part of the keys of one round, with their documents as they map now, by label."""

    units: dict[str, Unit]
    mapped: dict[str, Mapped] = field(default_factory=dict)
    orphaned: frozenset[str] = frozenset()
    """Labels of keys whose required document is gone, so that they count as gone too."""
    to_null: frozenset[str] = frozenset()
    """Labels of rows that stay, with a null in place of a required document that is gone."""

    @property
    def left_out(self) -> frozenset[str]:
        """Labels of keys whose documents are there and don't meet the collection's condition."""
        return frozenset(label for label, mapped in self.mapped.items() if isinstance(mapped, LeftOut))

    def gone_path(self, label: str) -> str | None:
        """The path of the required document that is gone, if a key's row stays with a null in its place; else None."""
        return self.units[label].requires if label in self.to_null else None


class Reading:
    """Reads the documents of one collection's keys."""

    def __init__(self, job: Job, whereabouts: Whereabouts) -> None:
        self._job = job
        self._whereabouts = whereabouts

    def read(self, units: Mapping[str, Unit], with_rows: Container[Key]) -> Iterator[Read]:
        """Each unit's document as it maps now, and whether its required document is there. `with_rows`: keys that have a row.
        In parts, because documents may be large: take each through the other steps before the next."""
        required = required_documents(self._job, [u.requires for u in units.values() if u.requires is not None])
        without = {n: u for n, u in units.items() if u.requires is not None and required[u.requires] is None}
        to_null = frozenset(n for n, u in without.items() if u.nulls)
        orphaned = {n: u for n, u in without.items() if n not in to_null}
        if orphaned:
            yield Read(orphaned, dict.fromkeys(orphaned), orphaned=frozenset(orphaned))
        others = [u for n, u in units.items() if n not in orphaned]
        by_path = self._job.collection.keyed_by_path
        for part in self._read_by_path(others, with_rows) if by_path else self._read_by_key(others):
            yield replace(part, to_null=to_null & part.units.keys())

    def _read_by_path(self, units: Sequence[Unit], with_rows: Container[Key]) -> Iterator[Read]:
        """Reads documents at their units' paths. If there is none, or Firestore can't be asked for it, the other paths that its
        row gives are read, one after the other."""
        lost: dict[str, Mapped] = {u.label: None for u in units if u.path is None}
        by_label = {u.label: u for u in units}
        at = _by_path((u, u.path) for u in units)
        for entries in self._entries_at(at):
            mapped = {u.label: _mapped_of(u, told) for path, told in entries.items() for u in at[path]}
            lost.update((n, m) for n, m in mapped.items() if m is None or isinstance(m, Unasked | LeftOut))
            there = {n: m for n, m in mapped.items() if n not in lost}
            yield Read({n: by_label[n] for n in there}, there)
        rows = [by_label[n] for n in lost if by_label[n].key in with_rows]
        told = self._job.target.paths(self._job.collection, [u.key for u in rows]) if rows and self._may_move else {}
        others = {u.label: [p for p in told.get(u.key, ()) if p != u.path] for u in rows}
        for n in range(max(map(len, others.values()), default=0)):
            at = _by_path((u, others[u.label][n]) for u in rows if u.label in lost and len(others[u.label]) > n)
            for entries in self._entries_at(at):
                moved = {
                    u.label: replace(u, path=path)
                    for path, told_there in entries.items()
                    if told_there is not UNASKED and any(not isinstance(part, LeftOut) for part in told_there)
                    for u in at[path]
                }
                for path, told_there in entries.items():
                    lost.update((u.label, part) for part in _left_out(told_there) for u in at[path] if u.label in lost)
                for label in moved:
                    del lost[label]
                yield Read(moved, {n: _mapped_of(u, entries[str(u.path)]) for n, u in moved.items()})
        if lost:
            yield Read({n: by_label[n] for n in lost}, lost)

    @property
    def _may_move(self) -> bool:
        return not self._job.collection.keyed_by_whole_path

    def _entries_at(self, units: Mapping[str, Sequence[Unit]]) -> Iterator[dict[str, Entries]]:
        """The documents at these paths, mapped, with only the entries of the units there; in parts. Each document is mapped
        once, however many units it has."""
        for documents in self._job.source.get_in_parts(units, self._job.collection.fields):
            entries: dict[str, Entries] = {}
            for path, document in documents.items():
                if isinstance(document, Document):
                    there = _asked_for(map_document(self._job.collection, document) or [], units[path])
                    others = {u.entry for u in units[path]} - {part.entry for part in there}
                    out = left_out_among(self._job.collection, document, others) if others else []
                    entries[path] = [*there, *out]
                else:
                    entries[path] = [] if document is None else document
            yield entries

    def _read_by_key(self, units: Sequence[Unit]) -> Iterator[Read]:
        """Reads all documents that share each natural key. The row belongs to the document that equals it, else to the
        oldest."""
        by_key: dict[Key, list[Unit]] = {}
        for unit in units:
            by_key.setdefault(unit.key, []).append(unit)
        for answers in self._whereabouts.sharing(list(by_key)):
            listed = {key: answer for key, answer in answers.items() if isinstance(answer, list)}
            sharing = {key: _with_rows(answer) for key, answer in listed.items()}
            out = {key for key, answer in listed.items() if _left_out(answer)}
            # Firestore can't even be asked for the document above these.
            unasked = {u.label: u for key, a in answers.items() if isinstance(a, Unasked) for u in by_key[key]}
            if unasked:
                yield Read(unasked, dict.fromkeys(unasked, UNASKED))
            owners = self._owners_of(sharing)
            here = {u.label: u for key in sharing for u in by_key[key]}
            own = {n: next((s for s in sharing[u.key] if s.path == u.path), None) for n, u in here.items()}
            for part in self._shared_parts(here, own, sharing, owners):
                yield _with_left_out(part, out)
            for key, answer in answers.items():
                if isinstance(answer, Paths):
                    yield from self._read_large(key, answer, by_key[key])

    def _read_large(self, key: Key, paths: Paths, units: Sequence[Unit]) -> Iterator[Read]:
        """Reads a natural key whose documents are too large to be held together: keeps only the owner so far, and which units'
        own documents share the key."""
        owner: Row | None = None
        other: Rejection | None = None
        own: dict[str, Rejection | Finding | None] = {u.label: None for u in units}
        at = _by_path((u, u.path) for u in units)
        out: set[Key] = set()
        for found in self._whereabouts.shared_at(key, paths):
            out |= {key} if _left_out(found) else set()
            shared = _with_rows(found)
            rows = [s for s in shared if isinstance(s, Row)]
            owner = self._owners_of({key: [owner, *rows] if owner else rows}).get(key)
            for one in shared:
                other = other or (one if isinstance(one, Rejection) else None)
                for unit in at.get(one.path, ()):
                    own[unit.label] = one if isinstance(one, Rejection) else duplicate(one)
        first = owner or other
        sharing = {key: [first] if first else []}
        for part in self._shared_parts({u.label: u for u in units}, own, sharing, {key: owner} if owner else {}):
            yield _with_left_out(part, out)

    def _shared_parts(
        self,
        here: dict[str, Unit],
        own: Mapping[str, Row | Rejection | Finding | None],
        sharing: Mapping[Key, Sequence[Row | Rejection]],
        owners: Mapping[Key, Row],
    ) -> Iterator[Read]:
        """Natural keys in parts. `own`: the document at a unit's path as it maps; None if it isn't among those that share the
        key: it is gone, has another key now (then that key's row counts, unless the unit is a row that only gives the document's
        path), or was created since they were read."""
        elsewhere = _by_path((u, u.path) for n, u in here.items() if own[n] is None)
        at_once = {n: u for n, u in here.items() if own[n] is not None or u.path is None}
        yield self._shared(at_once, own, sharing, owners)
        for entries in self._entries_at(elsewhere):
            part = {u.label: u for path in entries for u in elsewhere[path]}
            told = {
                u.label: None if isinstance(there, Unasked) else self._followed(u, _with_rows(there))
                for path, there in entries.items()
                for u in elsewhere[path]
            }
            yield self._shared(part, told, sharing, owners)

    def _followed(self, unit: Unit, there: Sequence[Row | Rejection]) -> Row | Rejection | None:
        """The document at a unit's path as it maps now. None for a row's unit if the document has another key: it has another row,
        and this one may be extra."""
        mine = next((m for m in there if m.entry == unit.entry or (isinstance(m, Rejection) and m.entire)), None)
        is_row = unit.label == unit_of(self._job.collection, unit.key, None).label
        return None if is_row and isinstance(mine, Row) and mine.key != unit.key else mine

    def _shared(
        self,
        units: dict[str, Unit],
        own: Mapping[str, Row | Rejection | Finding | None],
        sharing: Mapping[Key, Sequence[Row | Rejection]],
        owners: Mapping[Key, Row],
    ) -> Read:
        """A part of the natural keys, each with the document that owns it."""
        mapped: dict[str, Mapped] = {}
        for unit in units.values():
            mine, owner = own[unit.label], owners.get(unit.key)
            if isinstance(mine, Rejection):
                mapped[unit.label] = mine
            elif mine is not None and owner is not None and owner.path != mine.path:
                mapped[unit.label] = duplicate(mine) if isinstance(mine, Row) and mine.key == unit.key else mine
            elif isinstance(mine, Finding):
                mapped[unit.label] = owner
            else:
                mapped[unit.label] = owner or mine or next(iter(sharing[unit.key]), None)
        return Read(units, mapped)

    def _owners_of(self, sharing: Mapping[Key, Sequence[Row | Rejection]]) -> dict[Key, Row]:
        candidates = {key: [s for s in shared if isinstance(s, Row)] for key, shared in sharing.items()}
        contested = [row for rows in candidates.values() if len(rows) > 1 for row in rows]
        with self._job.target.transaction() as connection:
            compared = self._job.target.compare(connection, self._job.collection, contested) if contested else None
        differing = {(d.row.path, d.row.key) for d in compared.differences} if compared else set()
        differing |= {(contested[n].path, contested[n].key) for n, _ in compared.refused} if compared else set()
        return {
            key: min(rows, key=lambda r: ((r.path, r.key) in differing, r.create_time, r.label))
            for key, rows in candidates.items()
            if rows
        }


def _mapped_of(unit: Unit, entries: Entries) -> Mapped:
    """The unit's own entry of its document, or the rejection of all its entries."""
    if isinstance(entries, Unasked):
        return entries
    own = next((m for m in entries if m.entry == unit.entry and not isinstance(m, LeftOut)), None)
    whole = next((m for m in entries if isinstance(m, Rejection) and m.entire), None)
    return own or whole or next((m for m in _left_out(entries) if m.entry == unit.entry), None)


def _left_out(entries: Entries) -> list[LeftOut]:
    return [] if isinstance(entries, Unasked) else [m for m in entries if isinstance(m, LeftOut)]


def _with_rows(entries: Shared) -> list[Row | Rejection]:
    return [m for m in entries if not isinstance(m, LeftOut)]


def _with_left_out(read: Read, keys: Container[Key]) -> Read:
    """A part of natural keys; `keys` that no document has, and one would have if it met the condition, are LeftOut."""
    out = {n: LeftOut() for n, m in read.mapped.items() if m is None and read.units[n].key in keys}
    return replace(read, mapped={**read.mapped, **out}) if out else read


def _asked_for(entries: Sequence[Row | Rejection], units: Sequence[Unit]) -> list[Row | Rejection]:
    """The entries of a document that belong to these units: it may have forty thousand."""
    wanted = {u.entry for u in units}
    return [m for m in entries if m.entry in wanted or (isinstance(m, Rejection) and m.entire)]


def _by_path(units: Iterable[tuple[Unit, str | None]]) -> dict[str, list[Unit]]:
    by_path: dict[str, list[Unit]] = {}
    for unit, path in units:
        if path is not None:
            by_path.setdefault(path, []).append(unit)
    return by_path
