"""Pure: the operations on rows that follow from a change of one document, for the dual-write helper.

They are planned from the document before and after alone. Conditions that the target and the source must meet before a row
may be deleted are part of the plan, as data:

- An entry or a document that can't become a row keeps its present row: it is *kept*, with the reason.
- A row is deleted only while it belongs to the deleted document: it gives that document's path, and no row of the document
  has another time of creation (the document was deleted and created again, and the events came in the other order).
- A key that several documents may share belongs to none: its row is deleted when no document has the key any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dualwrite.model.cell_types import Cell
from dualwrite.model.declaration import Catalog, Collection, Column, CreateTime, Field
from dualwrite.model.documents import Document, Value
from dualwrite.model.keys import Key, can_have, key_of_path
from dualwrite.model.mapping import Rejection, Row, map_document, stated_cell

Fields = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Name:
    """An operation's op id in write_ops, without its time."""

    entity_type: str
    operation_type: str
    entity_id: str

    def op_id(self, milliseconds: int) -> str:
        return f"{self.entity_type}:{self.operation_type}:{self.entity_id}:{milliseconds}"


@dataclass(frozen=True, slots=True)
class Birth:
    """A document's time of creation. Its own row in `collection`, if it is there, must have one of `at` in `column`: of each
    creation whose deletion is told."""

    collection: Collection
    key: Key
    column: Column
    at: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Upsert:
    """A row to insert, or whose compared columns are set. `created`: the document is new, and takes over any row with its
    key; otherwise the row must give the document's path. `version`: instead of that condition, the xmin that the row must
    still have."""

    name: Name
    collection: Collection
    row: Row
    created: bool
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """A row to delete, if it is the document's. `version`: instead of that condition, the xmin that the row must still have,
    read before the source was asked which other documents have its key."""

    name: Name
    collection: Collection
    key: Key
    path: str
    label: str
    births: tuple[Birth, ...] = ()
    version: str | None = None

    @property
    def shared(self) -> bool:
        """Whether several documents may have this key, so that only a read of all of them shows which owns the row."""
        return not self.collection.keyed_by_path


Operation = Upsert | Delete


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that stays as it is, and why: a text of column names and types, without values. `written`: the row is written, but
    not as the document says."""

    entity_type: str
    label: str
    why: str
    written: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of one document: its fields before and after, None if it wasn't there. `create_time`: the server's, which stands
    in for an absent time of creation; None: now."""

    path: str
    before: Fields | None
    after: Fields | None
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Operations in the order of writing: rows to delete, children first, then rows to write, parents first. Operations with
    one name are one operation of the app."""

    operations: tuple[Operation, ...]
    kept: tuple[Kept, ...]

    @property
    def names(self) -> tuple[Name, ...]:
        return tuple(dict.fromkeys(operation.name for operation in self.operations))


@dataclass(frozen=True, slots=True)
class _Whole:
    """The changes of one document as one: its fields at each time (`states`) and at last (`after`). `ended`: its fields whenever it
    was deleted. `made`: it was created. `reborn`: it was created and deleted, so that its row may be of an earlier life."""

    path: str
    states: tuple[Fields | None, ...]
    after: Fields | None
    created: datetime
    made: bool
    reborn: bool
    ended: tuple[Fields, ...]


def change_of(catalog: Catalog, path: str, before: Fields | None, after: Fields | None, created: datetime) -> Change:
    """The operations of a change, and the rows kept. `before`, `after`: the document's fields; None if it isn't there.
    `created` stands in for an absent time of creation. Collections without declared operations are left out."""
    return _change(catalog, _whole(catalog, [Changed(path, before, after, created)], created))


def changes_of(catalog: Catalog, changed: Iterable[Changed], now: datetime) -> Change:
    """The operations of several changes as those of one: all deletes, children first, then all rows to write, parents first. In one
    collection both go in the order of their labels, so that two writers lock rows alike; but deletes in a collection that references
    itself go in the given order, by which a caller deletes children first.

    Changes of one document are one. An event may come twice, or late, so the first `before` is not what the row holds: a key is
    written unless every state of the document says the same of it, and deleted if only an earlier state has it. A late delete of an
    earlier creation doesn't end the document."""
    by_path: dict[str, list[Changed]] = {}
    for one in changed:
        by_path.setdefault(one.path, []).append(one)
    parts = [_change(catalog, _whole(catalog, of_one, now)) for of_one in by_path.values()]
    place = {c.name: n for n, c in enumerate(catalog.order)}
    operations = [operation for part in parts for operation in part.operations]
    deletes = [o for o in operations if isinstance(o, Delete)]
    upserts = [o for o in operations if isinstance(o, Upsert)]
    deletes.sort(key=lambda o: (-place[o.collection.name], "" if _references_itself(o.collection) else o.label))
    upserts.sort(key=lambda o: (place[o.collection.name], o.row.label))
    return Change((*deletes, *upserts), tuple(kept for part in parts for kept in part.kept))


def _references_itself(collection: Collection) -> bool:
    return any(column.references and column.parent.collection == collection.name for column in collection.columns)


def _whole(catalog: Catalog, changes: Sequence[Changed], now: datetime) -> _Whole:
    """All changes of one document, in the order in which they came."""
    path, after = changes[0].path, changes[-1].after
    written = [n for n, c in enumerate(changes) if c.after is not None]
    times = [changes[n].create_time for n in written] or [c.create_time for c in changes]
    created = next((time for time in reversed(times) if time is not None), now)
    if after is None and written:
        stated = changes[written[-1]].after
        if all(_of_other_births(catalog, path, c.before, stated, created) for c in changes[written[-1] + 1 :]):
            after = stated
    made = any(c.before is None for c in changes)
    return _Whole(
        path,
        tuple(state for c in changes for state in (c.before, c.after) if state is None or state is not after),
        after,
        created,
        made,
        made and len(written) < len(changes),
        tuple(c.before for c in changes if c.before is not None and c.after is None),
    )


def _of_other_births(catalog: Catalog, path: str, one: Fields | None, other: Fields | None, created: datetime) -> bool:
    """Whether two states of a document tell different times of creation."""
    if one is None or other is None:
        return False
    births = [{_place(b): b.at for b in _births(catalog, path, (state,), created)} for state in (one, other)]
    return any(births[1].get(place, at) != at for place, at in births[0].items())


def _change(catalog: Catalog, whole: _Whole) -> Change:
    parts = [
        _Part(catalog, collection, whole)
        for collection in catalog.order
        if collection.operations and collection.has(whole.path)
    ]
    return Change(
        tuple([d for part in reversed(parts) for d in part.deletes] + [u for part in parts for u in part.upserts]),
        tuple(kept for part in parts for kept in part.kept),
    )


class _Part:
    """The part of a change that belongs to one collection."""

    def __init__(self, catalog: Catalog, collection: Collection, whole: _Whole) -> None:
        self._collection = collection
        path, created = whole.path, whole.created
        self._path = path
        self._entity = collection.operations[0].entity
        per_key = set(collection.operations[0].columns) == {c.name for c in collection.key}
        kind = "delete" if whole.after is None else "create" if whole.made else "update"
        births = _births(catalog, path, whole.ended, created) if whole.after is None else ()
        states = [_units(collection, path, state, created) for state in whole.states]
        new = _units(collection, path, whole.after, created)
        refused = [unit for unit in new if isinstance(unit, Rejection)]
        kept = {unit.label: Kept(self._entity, unit.label, unit.reason) for unit in refused}
        rows = {unit.key: unit for unit in new if isinstance(unit, Row)}
        had = [{unit.key: unit for unit in units if isinstance(unit, Row)} for units in states]
        self.upserts = [
            Upsert(
                self._named(key, row, ("update" if all(key in h for h in had) else "create") if per_key else kind),
                collection,
                # The row that is there may be of an earlier creation: its stand-ins are not this one's.
                replace(row, stand_ins=frozenset()) if whole.reborn else row,
                whole.made,
            )
            for key, row in rows.items()
            if any(key not in h or _stated(collection, row) != _stated(collection, h[key]) for h in had)
        ]
        deletes: dict[Key, Delete] = {}
        for unit in (unit for units in states for unit in units):
            if any(_concerns(rejection, unit) for rejection in refused):
                continue  # a rejected unit keeps its row
            row = unit if isinstance(unit, Row) else None
            key = row.key if row is not None else self._key_of(unit)
            if key is None:
                if not (isinstance(unit, Rejection) and self._names_nothing(unit)):
                    why = "left: before the change it could not become a row, so its key isn't known"
                    kept.setdefault(unit.label, Kept(self._entity, unit.label, why))
            elif not can_have(collection, key):
                continue  # no row ever had it
            elif key not in rows:
                name = self._named(key, row, "delete" if per_key else kind)
                deletes.setdefault(key, Delete(name, collection, key, path, unit.label, births))
        self.deletes = list(deletes.values())
        self.kept = list(kept.values())

    def _names_nothing(self, rejection: Rejection) -> bool:
        """Whether this is an array element without an id, which never had a row."""
        return self._collection.entries is not None and rejection.entry is None and not rejection.entire

    def _key_of(self, unit: Row | Rejection) -> Key | None:
        """The key of a unit that could not become a row, if the path gives it."""
        if not self._collection.keyed_by_path or (self._collection.entries is not None and unit.entry is None):
            return None
        return key_of_path(self._collection, self._path, unit.entry)

    def _named(self, key: Key, row: Row | None, kind: str) -> Name:
        """An operation's name, with the columns that the app's entity ids have; with the document's id if these are unknown."""
        values: dict[str, Cell] = dict(zip((c.name for c in self._collection.key), key, strict=True))
        if row is not None:
            values |= dict(zip((c.name for c in self._collection.columns), row.cells, strict=True))
        columns = self._collection.operations[0].columns
        known = bool(columns) and all(column in values for column in columns)
        entity_id = "_".join(str(values[c]) for c in columns) if known else self._path.rsplit("/", 1)[-1]
        return Name(self._entity, kind, entity_id)


def _units(collection: Collection, path: str, fields: Fields | None, created: datetime) -> list[Row | Rejection]:
    return [] if fields is None else map_document(collection, Document(path, fields, created, created)) or []


def _concerns(rejection: Rejection, unit: Row | Rejection) -> bool:
    """Whether the rejection after the change is of the same unit as before it. A rejection without a name (an array element
    without an id) concerns none."""
    if rejection.entire:
        return True
    if rejection.entry is None and unit.entry is None:
        return rejection.label == unit.label
    return rejection.entry is not None and rejection.entry == unit.entry


def _stated(collection: Collection, row: Row) -> list[object]:
    """The cells of a row that a client writes: all but derived ones, such as counters, which lag by design."""
    return [cell for cell, column in zip(row.cells, collection.columns, strict=True) if column.role != "derived"]


def _births(catalog: Catalog, path: str, ended: Sequence[Fields], created: datetime) -> tuple[Birth, ...]:
    """The times of creation that a document stated whenever it ended, for each collection in which it has a row of its own. An end
    that states none is that of any creation."""
    each = [{_place(b): b for b in _births_of(catalog, path, fields, created)} for fields in ended]
    return tuple(
        replace(birth, at=tuple(dict.fromkeys(at for births in each for at in births[place].at)))
        for place, birth in (each[0] if each else {}).items()
        if all(place in births for births in each)
    )


def _place(birth: Birth) -> tuple[str, Key, str]:
    return birth.collection.name, birth.key, birth.column.name


def _births_of(catalog: Catalog, path: str, fields: Fields, created: datetime) -> list[Birth]:
    births = []
    for collection in catalog.order:
        if collection.match(path) is None or not collection.has_one_row or not collection.keyed_by_path:
            continue
        key = key_of_path(collection, path)
        if collection.entries is not None:  # the path doesn't give the whole key
            key = next((u.key for u in _units(collection, path, fields, created) if isinstance(u, Row)), None)
        for column in collection.columns:
            origin = column.origin
            if column.role != "compared" or not (
                isinstance(origin, Field) and isinstance(origin.otherwise, CreateTime)
            ):
                continue
            at = stated_cell(column, fields)
            if key is not None and at is not None:
                births.append(Birth(collection, key, column, (at,)))
    return births


def owner_of(collection: Collection, key: Key, documents: list[Document]) -> Row | Rejection | None:
    """The row of the document that owns a key, of those that may have it: the oldest, then the smaller path. If none can
    become its row, one of the rejections; None if there is neither."""
    units = [unit for document in documents for unit in map_document(collection, document) or []]
    rows = [unit for unit in units if isinstance(unit, Row) and unit.key == key]
    if rows:
        return min(rows, key=lambda row: (row.create_time, row.path))
    return next((unit for unit in units if isinstance(unit, Rejection)), None)
