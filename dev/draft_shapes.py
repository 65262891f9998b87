"""The input of a catalog's draft: shapes of collections, tables, and how alike two names are. Pure.

Names are data, never code, whatever a collection, a field, a table or a column is called.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from dualwrite.model.check_fields import Check
from dualwrite.model.conversions import epoch_milliseconds, epoch_seconds, http_date, iso_time
from dualwrite.model.live import LiveType

Names = tuple[str, ...]
"""A field, as the names on its way: `("address", "city")`."""

TEXTS = frozenset({"text", "ISO time", "HTTP date", "ISO date", "number as text", "boolean as text", "JSON as text"})
NUMBERS = frozenset({"integer", "number", "epoch milliseconds", "epoch seconds"})
_SECONDS = (946_684_800, 4_102_444_800)
"""2000 to 2100: numbers in between may be times."""


@dataclass
class Seen:
    """One field as a sample shows it.

    `kinds`: the kinds of its values (see `kind_of_text` and `kind_of_number`; also null, boolean, timestamp, reference, geopoint,
    vector, bytes, array, map, timestamp map). `elements`: the kinds of an array's elements. `refers`: ids of the collections that
    references lead to, an array's too. `unplain`: a map or array in it holds a value that JSON can't represent. `documents`: how many
    have a value in it. `texts`: its texts, to be compared with an enum's labels; none of them leaves this process. `other_style`: a
    time isn't written as a check field's format would ask for it.
    """

    kinds: set[str] = field(default_factory=set)
    elements: set[str] = field(default_factory=set)
    refers: set[str] = field(default_factory=set)
    unplain: bool = False
    documents: int = 0
    texts: set[str] = field(default_factory=set, repr=False)
    other_style: bool = False

    @property
    def kind(self) -> str | None:
        """The narrowest kind that all values have; None if there is none, or several."""
        kinds = self.kinds - {"null"}
        if len(kinds) == 1:
            return next(iter(kinds))
        if kinds and kinds <= TEXTS:
            return "text"
        if kinds and kinds <= NUMBERS:
            return "number" if "number" in kinds else "integer"
        return None


@dataclass
class Within:
    """The maps that an array field holds, or a map field, as a sample shows them. `entries`: by document, the values of each map, as
    texts; none of them leaves this process. `others`: values that are no maps lie beside them."""

    fields: dict[Names, Seen] = field(default_factory=dict)
    entries: list[list[Mapping[Names, str]]] = field(default_factory=list, repr=False)
    others: bool = False

    @property
    def sampled(self) -> int:
        return sum(map(len, self.entries))

    @property
    def several(self) -> bool:
        """Whether a document has more than one, so that `apart` says something."""
        return any(len(held) > 1 for held in self.entries)

    def twice(self, *names: Names, across: bool = False) -> int:
        """How many have the values of another of their document in these fields; or of any, `across` all documents."""
        told = [[tuple(entry[n] for n in names) for entry in held if {*names} <= {*entry}] for held in self.entries]
        told = [[values for held in told for values in held]] if across else told
        return sum(len(held) - len({*held}) for held in told)

    def apart(self, *names: Names, across: bool = False) -> bool:
        """Whether these fields tell each from the others, as far as sampled."""
        return not self.twice(*names, across=across) and all({*names} <= {*e} for held in self.entries for e in held)


@dataclass(frozen=True)
class Told:
    """One sampled document; nothing of it leaves this process. `ids`: those of its path. `names`: its texts, whole numbers and the
    ids of its references, by field, as an id is written. `present`: the fields that have a value."""

    ids: tuple[str, ...]
    names: Mapping[Names, str]
    present: frozenset[Names]


@dataclass
class Shape:
    """One collection as a sample shows it. `path` is a template. `open_maps`: map fields whose keys differ between documents,
    with the kind of their values. `within`: the maps in an array field, or in an open map. `documents`: the sampled ones. `fixed_ids`:
    ids in its path that seem to be the same below each parent, with how many sampled parents have them."""

    path: str
    fields: dict[Names, Seen] = field(default_factory=dict)
    open_maps: dict[Names, str] = field(default_factory=dict)
    within: dict[Names, Within] = field(default_factory=dict)
    documents: list[Told] = field(default_factory=list, repr=False)
    fixed_ids: dict[str, int] = field(default_factory=dict)

    @property
    def sampled(self) -> int:
        return len(self.documents)

    @property
    def ids(self) -> set[str]:
        return {told.ids[-1] for told in self.documents}

    @property
    def id(self) -> str:
        return self.path.split("/")[-2]

    @property
    def collections(self) -> list[str]:
        return self.path.split("/")[0::2]

    @property
    def variables(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/")[1::2] if part.startswith("{")]

    @property
    def fixed(self) -> str | None:
        """The id of its documents, if it is the same below each parent: `users/{user}/private/profile`."""
        last = self.path.split("/")[-1]
        return None if last.startswith("{") else last

    @property
    def above(self) -> list[str]:
        """The variables of the documents above."""
        return self.variables if self.fixed else self.variables[:-1]

    @property
    def lists(self) -> list[Names]:
        """Array fields of texts, or of references."""
        lists = {names: seen.elements for names, seen in self.fields.items() if seen.elements}
        return [names for names, held in lists.items() if held <= TEXTS or held == {"reference"}]

    @property
    def entries(self) -> list[Names]:
        """Fields whose entries or elements may be rows."""
        maps = [names for names, within in self.within.items() if not within.others]
        return list(dict.fromkeys([*(n for n, kind in self.open_maps.items() if kind != "map"), *self.lists, *maps]))

    def is_of_a_map_of_arrays(self, names: Names) -> bool:
        """Whether an array is one of several in a map that holds nothing else: `hours.mon` beside `hours.tue`."""
        beside = [seen for n, seen in self.fields.items() if len(n) == len(names) > 1 and n[:-1] == names[:-1]]
        return len(beside) > 1 and all(seen.kind == "array" for seen in beside)

    def always(self, names: Names) -> bool:
        return names in self.fields and self.fields[names].documents >= self.sampled


@dataclass(frozen=True)
class LiveColumn:
    """A column of the target. `default` is its SQL, None if it has none. `identity`: Postgres gives it a number by default."""

    name: str
    live: LiveType
    not_null: bool
    default: str | None
    identity: bool = False

    @property
    def filled(self) -> bool:
        """Whether a row may leave it out."""
        return not self.not_null or self.default is not None or self.identity or self.live.generated


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of a table: its columns, and the `to` columns of the `table` that they reference. `on_delete`: in lower case."""

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]
    on_delete: str


@dataclass(frozen=True)
class LiveTable:
    """A table of the target. `partial`: unique indexes that leave out rows with nulls. `triggers`: column -> the trigger that
    sets it. `odd`: its own name holds a dot, so it can't be declared."""

    name: str
    columns: tuple[LiveColumn, ...]
    primary: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    foreign: tuple[ForeignKey, ...] = ()
    partial: tuple[tuple[str, ...], ...] = ()
    triggers: Mapping[str, str] = field(default_factory=dict)
    odd: bool = False

    @property
    def bare(self) -> str:
        return self.name.rsplit(".", 1)[-1]

    @property
    def own(self) -> list[LiveColumn]:
        """Its columns that are neither of its primary key nor a foreign key, nor made by Postgres."""
        return [
            c for c in self.columns if not c.live.generated and c.name not in self.primary and not self.key_to(c.name)
        ]

    def key_to(self, column: str) -> ForeignKey | None:
        """The foreign key of just this column."""
        return next((k for k in self.foreign if k.columns == (column,)), None)

    def keys_with(self, column: str) -> list[ForeignKey]:
        """The foreign keys of this column and others."""
        return [k for k in self.foreign if len(k.columns) > 1 and column in k.columns]

    def refers(self, column: str) -> bool:
        return any(column in k.columns for k in self.foreign)


@dataclass(frozen=True)
class Match:
    """A table and where its rows come from: paths of one collection id, or entries of one of their fields. `ground`: why."""

    table: LiveTable
    shapes: tuple[Shape, ...]
    entries: Names | None = None
    ground: str = "its name"
    parts: Mapping[str, str] = field(default_factory=dict)
    """By column, the variable of its path that is a part of an id."""

    @property
    def maps(self) -> Within | None:
        """The maps that its rows come from, if its entries are maps."""
        return None if self.entries is None else self.shapes[0].within.get(self.entries)

    @property
    def told(self) -> Mapping[Names, Seen]:
        """The fields that its columns may come from: its documents', or its entries'."""
        if self.entries is None:
            return self.fields
        return {} if self.maps is None else self.maps.fields

    @property
    def fields(self) -> dict[Names, Seen]:
        """The fields of all its paths."""
        if len(self.shapes) == 1:
            return self.shapes[0].fields
        fields: dict[Names, Seen] = {}
        for shape in self.shapes:
            for names, seen in shape.fields.items():
                had = fields.get(names, Seen())
                fields[names] = Seen(
                    had.kinds | seen.kinds,
                    had.elements | seen.elements,
                    had.refers | seen.refers,
                    had.unplain or seen.unplain,
                    had.documents + seen.documents,
                    had.texts | seen.texts,
                    had.other_style or seen.other_style,
                )
        return fields

    @property
    def sampled(self) -> int:
        return sum(shape.sampled for shape in self.shapes)


@dataclass(frozen=True)
class Left:
    """Tables and collections without a match, with the nearest one."""

    tables: tuple[tuple[LiveTable, str], ...]
    shapes: tuple[Shape, ...]
    shared: Mapping[str, Match] = field(default_factory=dict)
    """By path, for collections without a table of their own: a match with a table that another collection fills."""
    entries: tuple[tuple[Match, Match], ...] = ()
    """For fields whose entries look like rows of a table that has a likelier match: their match, and that one."""


# --- times ---

CHECK_FORMATS = {"ISO time": iso_time, "epoch milliseconds": epoch_milliseconds, "epoch seconds": epoch_seconds}
"""The format of a check field, by the kind of its values."""


def is_other_style(kind: str, value: object) -> bool:
    """Whether a time is written otherwise than a check field's format would ask for it: without milliseconds, with an offset."""
    return kind in CHECK_FORMATS and not Check("it", CHECK_FORMATS[kind]).is_as_said(value)


# --- kinds of values ----------------------------------------------------------------------------------------------------


def kind_of_text(value: str) -> str:
    """The narrowest kind of a text, one of TEXTS."""
    for kind, conversion in (("ISO time", iso_time), ("HTTP date", http_date)):
        with suppress(Exception):  # whatever it raises, the text is of another kind
            conversion.convert(value)
            return kind
    if re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return "number as text"
    if value.lower() in ("true", "false"):
        return "boolean as text"
    try:
        if date.fromisoformat(value).isoformat() == value:
            return "ISO date"
    except ValueError:
        pass
    try:
        return "JSON as text" if isinstance(json.loads(value), dict | list) else "text"
    except (ValueError, RecursionError):
        return "text"


def kind_of_number(value: float) -> str:
    """The narrowest kind of a number, one of NUMBERS."""
    if not math.isfinite(value):
        return "number"
    if _SECONDS[0] * 1000 <= value < _SECONDS[1] * 1000:
        return "epoch milliseconds"
    if _SECONDS[0] <= value < _SECONDS[1]:
        return "epoch seconds"
    return "integer" if float(value).is_integer() else "number"


# --- names --------------------------------------------------------------------------------------------------------------

_OF_TIME = {"at", "on", "time", "date", "timestamp", "ts", "ms", "utc", "datetime"}
_CREATED = {("created",), ("creation",), ("create",), ("saved",), ("placed",), ("added",), ("joined",), ("inserted",),
            ("posted",), ("submitted",), ("timestamp",), ("time",), ("date",), ("registered",)}  # fmt: skip
_UPDATED = {("updated",), ("update",), ("changed",), ("modified",), ("edited",), ("last", "updated"), ("last", "modified"),
            ("last", "changed"), ("last", "edited"), ("modification",)}  # fmt: skip


@lru_cache(maxsize=100_000)
def words(name: str) -> tuple[str, ...]:
    """`waitingUsersIds`, `waiting_users` and `WaitingUser` as the same singular words: waiting, user. Without ids, and without
    versions: `v3_users` is user."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    stems = [_singular(part) for part in re.split(r"[\W_]+", parts.lower()) if part]
    for dropped in (r"id|uid|ref|reference", r"v?[0-9]+|rev[0-9]*|ver[0-9]*"):
        stems = [stem for stem in stems if not re.fullmatch(dropped, stem)] or stems
    return tuple(stems)


def variable_of(collection_id: str, head: str) -> str:
    """The name of a template's variable: an identifier that no other variable of the path has."""
    variable = re.sub(r"\W", "_", "_".join(words(collection_id)) or "id", flags=re.ASCII)
    variable = variable if variable.isidentifier() else f"_{variable}"
    taken = [part[1:-1] for part in head.split("/")[1::2] if part.startswith("{")]
    return variable if variable not in taken else f"{variable}_{len(taken)}"


_PLURALS = {
    "people": "person", "children": "child", "men": "man", "women": "woman", "shelves": "shelf", "halves": "half", "lives": "life",
    "statuses": "status", "bonuses": "bonus", "campuses": "campus", "viruses": "virus", "indices": "index", "criteria": "criterion",
    "analyses": "analysis", "analysis": "analysis",
}  # fmt: skip


def _singular(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    for ending, singular in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x")):
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return word.removesuffix("s") if not word.endswith(("ss", "us")) else word


@lru_cache(maxsize=500_000)
def likeness(one: str, other: str) -> float:
    """How alike two names are: shared words against all words; 1 for equal ones, also if joined otherwise (fullname)."""
    a, b = words(one), words(other)
    if not a or not b:
        return 0.0
    if "".join(a) == "".join(b):
        return 1.0
    return len({*a} & {*b}) / len({*a} | {*b})


def _moment(name: str) -> tuple[str, ...]:
    every = words(name)
    return tuple(word for word in every if word not in _OF_TIME) or every


def time_likeness(one: str, other: str) -> float:
    """How alike two names of times are: `_created`, `createdOn` and `created_at` are one, `placed_at` is nearly that."""
    a, b = _moment(one), _moment(other)
    if a == b:
        return 1.0
    return max(likeness(one, other), 0.6 if any(a in group and b in group for group in (_CREATED, _UPDATED)) else 0.0)


def tells_creation(name: str) -> bool:
    """Whether a name seems to be that of a time of creation: `createdAt`, `joined_on`."""
    return _moment(name) in _CREATED


def tells_writing(name: str) -> bool:
    """Whether a name seems to be that of a time of creation or of the last change."""
    return _moment(name) in _CREATED | _UPDATED


_ENDED = {
    "deleted",
    "delete",
    "removed",
    "archived",
    "trashed",
    "disabled",
    "deactivated",
    "tombstone",
    "banned",
    "hidden",
}


def tells_end(name: str) -> bool:
    """Whether a field seems to say that its document is gone, or isn't to be seen: `deletedAt`, `is_archived`."""
    own = {word for word in _moment(name) if word not in ("i", "is", "wa", "was", "by")}
    return bool(own) and own <= _ENDED
