"""Pure: maps a document to its rows, or to rejections that say why it can't become one.

Each unit of any document ends as a `Row` or a `Rejection`. Constraints that only the target can judge (CHECK, the size of an
index row) are left to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, NewType

from dualwrite.model import entries
from dualwrite.model.cells import (
    DOTTED_NAME,
    Make,
    Refused,
    cell_or_none,
    compile_column,
    compile_condition,
    compile_entry,
    compile_reference,
    exact_converter,
    is_unicode,
    key_part,
    origin_name,
    stands_for_key,
)
from dualwrite.model.cells import Cell as Cell
from dualwrite.model.cells import Json as Json
from dualwrite.model.cells import truncate_to_milliseconds as truncate_to_milliseconds
from dualwrite.model.computed import List, are_equal, compile_list
from dualwrite.model.conditions import Holds
from dualwrite.model.declaration import (
    Collection,
    Column,
    ComputedEntries,
    Constant,
    Converted,
    DocumentPath,
    EntryKey,
    Field,
    FieldPath,
    MapEntries,
    Segment,
    names_of,
    other_spellings,
)
from dualwrite.model.documents import Document, Value, can_be_asked, is_valid_id, type_name
from dualwrite.model.entries import Entries, Itself, name_of
from dualwrite.model.live import is_key
from dualwrite.model.templates import Template

Key = tuple[Cell, ...]
"""A row's key, in the order of the collection's key columns."""


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
    holds = _holds(collection, document, _Unit(document.create_time))
    if holds is False:
        return []
    if collection.entries is None:
        if isinstance(holds, str):
            return [Rejection(label_of(collection, variables, None), document.path, None, holds)]
        return [_map_unit(collection, document, variables, None, _Unit(document.create_time))]
    if isinstance(holds, str):
        return [Rejection(joined_label(variables.values()), document.path, None, holds, entire=True)]
    if isinstance(collection.entries, Itself):
        return [_map_itself(collection, document, variables)]
    return _map_entries(collection, collection.entries, document, variables)


def _map_itself(collection: Collection, document: Document, variables: dict[str, str]) -> Row | Rejection:
    """The unit of a document whose key holds fields of it. While these can't be read, any row of the document may be this one."""
    template, segments = _template_of(collection, document.path)
    of = _Unit(document.create_time)
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
        units_in = _entries_in(collection, declared, document)
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
        entry = _entry_of(collection, of, name)
        if isinstance(entry, _NoEntry):
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
            elif not (_is_itself(collection) and earlier == of.key):
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


def _entries_in(collection: Collection, declared: Entries, document: Document) -> list[_Unit]:
    """A document's entries. Raises Refused if they can't be read."""
    created = document.create_time
    if isinstance(declared, ComputedEntries):
        template, segments = _template_of(collection, document.path)
        made = _computed_list(collection, declared, template)
        return [
            _Unit(created, entry, entry, i) for i, entry in enumerate(made(segments, document.fields, _Unit(created)))
        ]
    listed, name = value_at(document.fields, declared.field), name_of(declared)
    if listed is None:
        if any(value_at(document.fields, names) is not None for names in other_spellings(declared.field)):
            raise Refused(DOTTED_NAME.format(name))
        return []
    if isinstance(declared, MapEntries):
        if not isinstance(listed, dict):
            raise Refused(f"wrong_type: {name} is {type_name(listed)}, a map is expected")
        return [_Unit(created, key, value, i) for i, (key, value) in enumerate(sorted(listed.items()))]
    if not isinstance(listed, list):
        raise Refused(f"wrong_type: {name} is {type_name(listed)}, an array is expected")
    return [_Unit(created, element, element, i) for i, element in enumerate(listed)]


@cache
def _computed_list(collection: Collection, declared: ComputedEntries, template: Template) -> List:
    return compile_list(collection, declared, template, _Plain())


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
        found = _entries_in(collection, collection.entries, document)
    except Refused:
        return []
    if collection.entries_are_maps:
        found = [of for of in found if isinstance(of.value, dict)]
    out = [of for of in found if _holds(collection, document, of, of_entry=True) is False]
    told = [_entry_of(collection, of, name_of(collection.entries)) for of in out]
    return [LeftOut(entry) for entry in dict.fromkeys(told) if isinstance(entry, str) and entry in wanted]


def is_left_out(collection: Collection, document: Document) -> bool:
    """Whether a document that is no stray doesn't meet the collection's condition, whatever its entries are."""
    return _holds(collection, document, _Unit(document.create_time)) is False


def key_left_out(collection: Collection, document: Document) -> Key | None:
    """The key of the row that a document would have if it met the condition; None if it would have none, or it is unknown."""
    if collection.keyed_by_path:
        return key_of_path(collection, document.path)
    variables = collection.match(document.path)
    unit = None if variables is None else _map_unit(collection, document, variables, None, _Unit(document.create_time))
    return unit.key if isinstance(unit, Row) else None


def _holds(collection: Collection, document: Document, of: _Unit, *, of_entry: bool = False) -> bool | Refusal:
    """Whether a document meets the condition on documents, or one of its entries that on entries. A Refusal if that can't be
    judged."""
    if collection.where is None:
        return True
    template, segments = _template_of(collection, document.path)
    holds = _condition(collection, template, of_entry)
    try:
        return holds is None or holds(segments, document.fields, of)
    except Refused as refused:
        return Refusal(refused.args[0].replace("{}", "where", 1))


@cache
def _condition(collection: Collection, template: Template, of_entry: bool) -> Holds | None:
    condition = collection.conditions[of_entry]
    return None if condition is None else compile_condition(condition, template, _Plain())


def _template_of(collection: Collection, path: str) -> tuple[Template, list[str]]:
    """The template of a path that has variables, and its segments, extended."""
    segments = path.split("/")
    template = collection.template_of(segments)
    extended = None if template is None else template.extended(segments)
    assert template is not None, "the caller excludes strays"
    assert extended is not None, "the caller excludes paths without variables"
    return template, extended


@dataclass(frozen=True, slots=True)
class _NoEntry:
    """Why an entry can't be identified. `unreadable`: its key is there, in a form that isn't declared."""

    why: str
    unreadable: bool = False


def _is_itself(collection: Collection) -> bool:
    """Whether entries are the key themselves, or what parts of it are converted from: equal ones are one row."""
    return all(isinstance(column.source, EntryKey) for column in collection.entry_columns)


@cache
def _entry_finders(collection: Collection) -> tuple[tuple[Column, bool, Callable[[_Unit], Value]], ...]:
    """The columns that identify entries, each with whether it holds documents' ids, and the function to its value."""
    columns = zip(collection.entry_columns, collection.entries_are_ids, strict=True)
    return tuple((c, is_id, compile_entry(c, collection.templates[0], _Plain())) for c, is_id in columns)


def _entry_of(collection: Collection, of: _Unit, name: str) -> str | _NoEntry:
    """The text that identifies an entry among the others of the field `name`."""
    parts: list[str] = []
    for column, is_id, find in _entry_finders(collection):
        part = _part_of(column, is_id, find, of, name)
        if isinstance(part, _NoEntry):
            return part
        parts.append(part)
    return entries.joined(parts)


def _part_of(column: Column, is_id: bool, find: Callable[[_Unit], Value], of: _Unit, name: str) -> str | _NoEntry:
    called = f"{column.name} ({origin_name(column.origin)})"
    try:
        text = find(of)
    except Refused as refused:
        return _NoEntry(refused.args[0].replace("{}", called, 1), unreadable=True)
    is_itself = isinstance(column.origin, EntryKey)
    if text is None and not is_itself:
        return _NoEntry(f"missing_value: {column.name} is a key and {origin_name(column.origin)} is absent")
    if not isinstance(text, str):
        holds = f"{name} holds" if is_itself else f"{called} is"
        return _NoEntry(f"wrong_type: {holds} {type_name(text)}, a string is expected", unreadable=not is_itself)
    if not is_unicode(text):
        return _NoEntry(f"surrogate: {called} holds half a character, which Postgres text can't", unreadable=True)
    if not is_valid_id(text) and is_id:
        return _NoEntry(f"not_an_id: {name} holds what no document could have as its id")
    return text


def is_odd(name: str) -> bool:
    """Whether a document's name or path may have an id that Firestore can't be asked for, but a scan delivers: a quick test
    for `__...__`."""
    return "/__" in name


LABEL_BYTES = 400
"""Bytes of a label. Labels are in primary keys of the schema dualwrite, and Postgres limits an index row to about 2,700 bytes."""


def joined_label(parts: Iterable[object]) -> str:
    """A unit's label: ids joined by slashes, which no id contains, so it is unambiguous within its collection.

    A part that is no valid id may be content, and is replaced by a digest; a long label ends in a digest. U+0000, which
    Postgres can't store, is written as \\u0000.
    """
    texts = [text if not text or is_valid_id(text) else "~" + _digest(text) for text in map(str, parts)]
    label = "/".join(texts).replace("\x00", "\\u0000")
    if len(label.encode()) <= LABEL_BYTES:
        return label
    return label.encode()[: LABEL_BYTES - 20].decode(errors="ignore") + "…" + _digest(label)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digested(text: str) -> str:
    return "~" + _digest(text) if text else text


def label_of_key(collection: Collection, key: Iterable[object]) -> str:
    """The label of a key's unit. A part from a field or an entry is content, and is always replaced by a digest."""
    if all(collection.key_is_ids):
        return joined_label(key)
    return joined_label(
        part if is_id else _digested(str(part)) for is_id, part in zip(collection.key_is_ids, key, strict=True)
    )


def _split(collection: Collection, entry: str | None) -> list[str]:
    """The values of the columns that identify an entry; empty without an entry."""
    return [] if entry is None else entries.split(entry, len(collection.entry_columns))


def label_of(collection: Collection, variables: Mapping[str, str], entry: str | None) -> str:
    """The label of a document's unit: its key if the path gives that, else the path's ids."""
    template = next((t for t in collection.templates if set(t.variables) == set(variables)), collection.templates[0])
    if not collection.key_leads_back:
        key = key_of_path(collection, template.path(variables), entry)
        if key is not None:
            return label_of_key(collection, ["" if part is None else part for part in key])
    entry_parts = dict(zip((c.name for c in collection.entry_columns), _split(collection, entry), strict=False))
    if not collection.keyed_by_path or not collection.key_leads_back:
        ids = variables.values() if template.is_plain else template.path(variables).split("/")[1::2]
        are_ids = collection.entries_are_ids
        shown = [part if is_id else _digested(part) for is_id, part in zip(are_ids, entry_parts.values(), strict=False)]
        return joined_label([*ids, *shown])
    parts = []
    for column in collection.key:
        origin = column.origin
        if isinstance(origin, Segment):
            parts.append(variables[origin.variable])
        elif column in collection.entry_columns:
            parts.append(entry_parts.get(column.name, ""))
        elif isinstance(origin, Constant):
            parts.append(str(origin.value))
        else:
            last = list(variables.values())[-1] if template.is_plain else template.path(variables).rsplit("/", 1)[-1]
            parts.append(last)
    return label_of_key(collection, parts)


def entry_of_key(collection: Collection, key: Sequence[object]) -> str | None:
    """The entry, as in `Row`, of a row with this key; None if the collection has no entries."""
    parts = [str(part) for column, part in zip(collection.key, key, strict=True) if column in collection.entry_columns]
    return entries.joined(parts) if parts else None


def key_of_path(collection: Collection, path: str, entry: str | None = None) -> Key | None:
    """The key of a document at this path, or of this entry of it, for a collection keyed by its path. None: a stray, or a path
    that can't be converted to a key."""
    variables = collection.match(path)
    if variables is None:
        return None
    last = path.rsplit("/", 1)[-1]
    entry_parts = dict(zip((c.name for c in collection.entry_columns), _split(collection, entry), strict=False))

    def part(column: Column) -> Cell:
        if column in collection.entry_columns:
            return entry_parts.get(column.name)
        origin = column.source
        if isinstance(origin, Constant):
            return origin.value
        named = variables[origin.variable] if isinstance(origin, Segment) else last
        if isinstance(origin, DocumentPath):
            named = path
        if isinstance(column.origin, Converted):
            return exact_converter(column)(column.origin.conversion.convert(named))
        return named

    if collection.key_leads_back:
        return tuple(part(column) for column in collection.key)
    try:
        key = tuple(part(column) for column in collection.key)
    except Exception:  # noqa: BLE001 - a person's own conversion may raise anything; mapping rejects that document
        return None
    return None if None in key else key


def can_have(collection: Collection, key: Key) -> bool:
    """Whether the types of the key's columns allow this key. Postgres refuses even a query for another."""
    return all(
        part is None or ("\x00" not in str(part) and is_unicode(str(part)) and _fits(column, str(part)))
        for column, part in zip(collection.key, key, strict=True)
    )


def _fits(column: Column, part: str) -> bool:
    return not stands_for_key(column) or is_key(column.named, part)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A document's create_time, and the entry that becomes a row: a map's key and value, or an array's element (as both) and
    its place."""

    create_time: datetime
    key: Value = None
    value: Value = None
    index: int = 0


class _Plain:
    """The Reader of a `Document`, whose values are plain already."""

    def nested(self, names: tuple[str, ...]) -> Callable[[Any], Any]:
        *above, last = names

        def find(fields: Mapping[str, Value]) -> Value:
            for name in above:
                inner = fields.get(name)
                if not isinstance(inner, dict):
                    return None
                fields = inner
            return fields.get(last)

        return find

    def plain(self, raw: Value) -> Value:
        return raw

    def everything(self, fields: Mapping[str, Value]) -> dict[str, Value]:
        return dict(fields)

    def created(self, of: _Unit) -> datetime:
        return of.create_time

    def converter(self, column: Column) -> Callable[[Any], Cell]:
        return exact_converter(column)


@cache
def _leading(collection: Collection, template: Template) -> tuple[tuple[int, Callable[..., str | None]], ...]:
    finds = ((i, compile_reference(c, template, _Plain())) for i, c in enumerate(collection.columns))
    return tuple((i, find) for i, find in finds if find is not None)


@cache
def _compiled(collection: Collection, template: Template) -> tuple[tuple[Column, Make], ...]:
    return tuple(
        (column, compile_column(column, template, _Plain(), bits=1 << index))
        for index, column in enumerate(collection.columns)
    )


def _map_unit(
    collection: Collection, document: Document, variables: dict[str, str], entry: str | None, of: _Unit
) -> Row | Rejection:
    label = label_of(collection, variables, entry)
    template, segments = _template_of(collection, document.path)
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


def value_at(fields: Mapping[str, Value], path: FieldPath) -> Value:
    """The value at a path of a document's fields; None if there is none, or if a step leads through something that is no map."""
    return _Plain().nested(names_of(path))(fields)  # type: ignore[no-any-return]


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
