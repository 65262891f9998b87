"""Pure: maps a document to its rows, or to rejections that say why it can't become one.

Each unit of any document ends as a `Row` or a `Rejection`. Constraints that only the target can judge (CHECK, the size of an
index row) are left to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import NewType

from dualwrite.model import entries
from dualwrite.model.cell_types import Cell, cell_or_none, key_part
from dualwrite.model.cells import (
    Make,
    compile_column,
    compile_condition,
    compile_reference,
    origin_name,
)
from dualwrite.model.computed import are_equal
from dualwrite.model.conditions import Holds
from dualwrite.model.declaration import (
    Collection,
    Column,
    ComputedEntries,
    Field,
)
from dualwrite.model.document_entries import (
    Input,
    NoEntry,
    PlainReader,
    entries_in,
    entry_of,
    is_itself,
    template_of,
    value_at,
)
from dualwrite.model.documents import Document, Value, can_be_asked, type_name
from dualwrite.model.entries import Entries, Itself, name_of
from dualwrite.model.errors import Refused
from dualwrite.model.keys import Key, joined_label, key_of_path, label_of
from dualwrite.model.templates import Template


@dataclass(frozen=True, slots=True)
class Row:
    """The row that one unit of a document should have in the target.

    `cells` are in the order of the collection's columns. `stand_ins`: indexes of cells that no field of the document states
    (an absent createdAt); they are inserted and never compared. `label` names the unit in reports and excuses. `entry`
    identifies the entry among those of its document (a map's key, an array's element or its place, or a field of it).
    """

    label: str
    key: Key
    cells: tuple[Cell, ...]
    stand_ins: frozenset[int]
    path: str
    entry: str | None
    create_time: datetime
    update_time: datetime
    fingerprinted: tuple[int, ...] = ()
    """Indexes of the cells that `fingerprint` covers."""
    leads: tuple[tuple[int, str], ...] = ()
    """For each converted reference: the cell's index, and the unconverted value, a path or an id."""

    @property
    def fingerprint(self) -> str:
        """Changes if a fingerprinted cell changes, or if the document is created anew. It is a hash, and holds no content."""
        stated = [self.create_time, *(self.cells[i] for i in self.fingerprinted if i not in self.stand_ins)]
        return hashlib.sha256(repr(stated).encode()).hexdigest()[:16]


def without(row: Row, indexes: Iterable[int]) -> Row:
    """The row with nulls in the cells of these indexes."""
    gone = set(indexes)
    return replace(row, cells=tuple(None if i in gone else cell for i, cell in enumerate(row.cells)))


Staged = tuple[Cell, ...]
"""A row for the target's stage: its number in the page, its stand-ins as a bit mask, its cells."""


def staged(number: int, row: Row) -> Staged:
    """A row as it is staged."""
    return (number, sum(1 << index for index in row.stand_ins), *row.cells)


Refusal = NewType("Refusal", str)
"""Why a document can't become a row: a text of column names and types, or Postgres's condition and the constraint's name,
without values."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A unit that can't become a row.

    `entry` is as in `Row`; None if it is unknown, and the label has its place instead. `entire`: the document's entries aren't
    all known, because its list isn't one or an entry's key can't be read. Then a row of the document that no other entry
    accounts for may belong to this one, and isn't extra.
    """

    label: str
    path: str
    entry: str | None
    reason: Refusal
    entire: bool = False


def map_document(collection: Collection, document: Document) -> list[Row | Rejection] | None:
    """The units of a document: one, or, for a collection with entries, one for each of them. Empty if it has no entries or
    doesn't meet the collection's condition. None if it is a stray: the same collection id on another path.
    """
    variables = collection.match(document.path)
    if variables is None:
        return _unsplit(collection, document.path)
    if is_odd(document.path) and not can_be_asked(document.path):
        reason = Refusal("cant_be_asked: its path holds an id that Firestore can't be asked for")
        label = (
            label_of(collection, variables, None) if collection.entries is None else joined_label(variables.values())
        )
        return [Rejection(label, document.path, None, reason, entire=True)]
    holds = _holds(collection, document, Input(document.create_time))
    if holds is False:
        return []
    if collection.entries is None:
        if isinstance(holds, str):
            return [Rejection(label_of(collection, variables, None), document.path, None, holds)]
        return [_map_unit(collection, document, variables, None, Input(document.create_time))]
    if isinstance(holds, str):
        return [Rejection(joined_label(variables.values()), document.path, None, holds, entire=True)]
    if isinstance(collection.entries, Itself):
        return [_map_itself(collection, document, variables)]
    return _map_entries(collection, collection.entries, document, variables)


def _map_itself(collection: Collection, document: Document, variables: dict[str, str]) -> Row | Rejection:
    """The unit of a document whose key holds fields of it. While these can't be read, any row of the document may be this one."""
    template, segments = template_of(collection, document.path)
    of = Input(document.create_time)
    parts: list[str] = []
    for column, make in _compiled(collection, template):
        if column not in collection.entry_columns:
            continue
        try:
            parts.append(str(key_part(column, make(segments, document.fields, of, []))))
        except Refused as refused:
            return Rejection(
                joined_label(variables.values()), document.path, None, _refusal(column, refused), entire=True
            )
    return _map_unit(collection, document, variables, entries.joined(parts), of)


def _map_entries(
    collection: Collection, declared: Entries, document: Document, variables: dict[str, str]
) -> list[Row | Rejection]:
    """The units of a document's entries."""
    name, parent_label = name_of(declared), joined_label(variables.values())
    computed = isinstance(declared, ComputedEntries)

    def refused(reason: str, place: str | None = None, *, entire: bool = False) -> Rejection:
        label = parent_label if place is None else f"{parent_label}/{place}"
        return Rejection(label, document.path, None, Refusal(reason), entire=entire or place is None)

    try:
        units_in = entries_in(collection, declared, document)
    except Refused as why:
        return [refused(why.args[0])]
    units: list[Row | Rejection] = []
    seen: dict[str, tuple[Value, int]] = {}
    """Each entry's value, and its place among the units."""
    for of in units_in:
        place = f"{name}[{of.index}]"
        not_a_map = None
        if collection.entries_are_maps and not isinstance(of.value, dict):
            not_a_map = f"wrong_type: {place} is {type_name(of.value)}, a map is expected"
        wanted = True if not_a_map is not None else _holds(collection, document, of, of_entry=True)
        if wanted is False:
            continue
        entry = entry_of(collection, of, name)
        if isinstance(entry, NoEntry):
            # An entry without a key from a function may belong to any row; one in a document only if its key is unreadable.
            unreadable = computed or entry.unreadable or (not_a_map is not None and of.value is not None)
            units.append(refused(not_a_map or entry.why, place, entire=unreadable))
            continue
        if entry in seen:
            earlier, at = seen[entry]
            if computed:
                if not are_equal(earlier, of.value):  # either may be right, so neither is written
                    differ = Refusal(f"duplicate_entry: {name} returns two different entries with one key")
                    units[at] = Rejection(label_of(collection, variables, entry), document.path, entry, differ)
            # The same text twice is one row. Two maps with one key can't both be it.
            elif not (is_itself(collection) and earlier == of.key):
                units.append(refused(f"duplicate_entry: an earlier entry of {name} has the same key", place))
            continue
        seen[entry] = (of.key, len(units))
        reason = not_a_map or (wanted if isinstance(wanted, str) else None)
        if reason is not None:
            label = label_of(collection, variables, entry)
            units.append(Rejection(label, document.path, entry, Refusal(reason)))
        else:
            units.append(_map_unit(collection, document, variables, entry, of))
    return units


def _unsplit(collection: Collection, path: str) -> list[Row | Rejection] | None:
    """The rejection of a document whose ids fit the catalog and can't be split; None for a stray."""
    segments = path.split("/")
    template = collection.template_of(segments)
    if template is None:
        return None
    why = template.fault(segments)
    assert why is not None, "else it had variables"
    # Its label is its whole path, because its ids alone could be the label of another document.
    return [Rejection(joined_label(segments), path, None, Refusal(why), entire=True)]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A document, or an entry of it, that is there and doesn't meet the collection's condition, so it has no row."""

    entry: str | None = None


def left_out_among(collection: Collection, document: Document, wanted: AbstractSet[str | None]) -> list[LeftOut]:
    """The `wanted` entries of a document (None: the document itself) that don't meet the collection's condition."""
    if collection.where is None or collection.match(document.path) is None:
        return []
    if is_left_out(collection, document):
        return [LeftOut(entry) for entry in wanted]
    if isinstance(collection.entries, Itself | None) or collection.conditions[True] is None:
        return []
    try:
        found = entries_in(collection, collection.entries, document)
    except Refused:
        return []
    if collection.entries_are_maps:
        found = [of for of in found if isinstance(of.value, dict)]
    out = [of for of in found if _holds(collection, document, of, of_entry=True) is False]
    told = [entry_of(collection, of, name_of(collection.entries)) for of in out]
    return [LeftOut(entry) for entry in dict.fromkeys(told) if isinstance(entry, str) and entry in wanted]


def is_left_out(collection: Collection, document: Document) -> bool:
    """Whether a document that is no stray doesn't meet the collection's condition, whatever its entries are."""
    return _holds(collection, document, Input(document.create_time)) is False


def key_left_out(collection: Collection, document: Document) -> Key | None:
    """The key of the row that a document would have if it met the condition; None if it would have none, or it is unknown."""
    if collection.keyed_by_path:
        return key_of_path(collection, document.path)
    variables = collection.match(document.path)
    unit = None if variables is None else _map_unit(collection, document, variables, None, Input(document.create_time))
    return unit.key if isinstance(unit, Row) else None


def _holds(collection: Collection, document: Document, of: Input, *, of_entry: bool = False) -> bool | Refusal:
    """Whether a document meets the condition on documents, or one of its entries that on entries. A Refusal if that can't be
    judged."""
    if collection.where is None:
        return True
    template, segments = template_of(collection, document.path)
    holds = _condition(collection, template, of_entry)
    try:
        return holds is None or holds(segments, document.fields, of)
    except Refused as refused:
        return Refusal(refused.args[0].replace("{}", "where", 1))


@cache
def _condition(collection: Collection, template: Template, of_entry: bool) -> Holds | None:
    condition = collection.conditions[of_entry]
    return None if condition is None else compile_condition(condition, template, PlainReader())


def is_odd(name: str) -> bool:
    """Whether a document's name or path may have an id that Firestore can't be asked for, but a scan delivers: a quick test
    for `__...__`."""
    return "/__" in name


@cache
def _leading(collection: Collection, template: Template) -> tuple[tuple[int, Callable[..., str | None]], ...]:
    finds = ((i, compile_reference(c, template, PlainReader())) for i, c in enumerate(collection.columns))
    return tuple((i, find) for i, find in finds if find is not None)


@cache
def _compiled(collection: Collection, template: Template) -> tuple[tuple[Column, Make], ...]:
    return tuple(
        (column, compile_column(column, template, PlainReader(), bits=1 << index))
        for index, column in enumerate(collection.columns)
    )


def _map_unit(
    collection: Collection, document: Document, variables: dict[str, str], entry: str | None, of: Input
) -> Row | Rejection:
    label = label_of(collection, variables, entry)
    template, segments = template_of(collection, document.path)
    cells: list[Cell] = []
    marks: list[int] = []
    for column, make in _compiled(collection, template):
        try:
            cells.append(make(segments, document.fields, of, marks))
        except Refused as refused:
            return Rejection(label, document.path, entry, _refusal(column, refused))
    stand_ins = sum(marks)
    leads = ((i, find(segments, document.fields, of)) for i, find in _leading(collection, template))
    return Row(
        label,
        tuple(key_part(collection.columns[i], cells[i]) for i in _key_indexes(collection)),
        tuple(cells),
        frozenset(i for i in range(len(cells)) if stand_ins >> i & 1),
        document.path,
        entry,
        document.create_time,
        document.update_time,
        _fingerprinted(collection),
        tuple((i, path) for i, path in leads if path is not None),
    )


def _refusal(column: Column, refused: Refused) -> Refusal:
    """A refusal of a column's value, with the column."""
    return Refusal(refused.args[0].replace("{}", f"{column.name} ({origin_name(column.origin)})", 1))


@cache
def _key_indexes(collection: Collection) -> tuple[int, ...]:
    return tuple(i for i, column in enumerate(collection.columns) if column.role == "key")


@cache
def _fingerprinted(collection: Collection) -> tuple[int, ...]:
    return tuple(collection.columns.index(column) for column in collection.fingerprinted)


def stated_cell(column: Column, fields: Mapping[str, Value]) -> Cell:
    """The cell of a column that comes from a field; None if the field is absent, or its value is refused."""
    assert isinstance(column.origin, Field)
    value = value_at(fields, column.origin.path)
    return None if value is None else cell_or_none(column)(value)
