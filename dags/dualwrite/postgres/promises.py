"""The rows that a look which writes nothing would have written by now, so that it refuses the same rows as an apply.

An apply works on rows that it changed itself: one row takes a place in a unique key or an exclusion constraint, another leaves
one. Places that the catalog declares are Claims (engine/inserts.py); these are the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from dualwrite.model.cell_types import Cell
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Row
from dualwrite.postgres.bad_rows import Refused, by_constraint

_READ_ONLY = "25006"

Place = tuple[str, int, int]
"""A place in a constraint: its name, and a hash of the values that must be equal. Equal values have equal hashes."""


class Claimant(Protocol):
    """A document's row, or the unit of one."""

    @property
    def path(self) -> str | None: ...
    @property
    def entry(self) -> str | None: ...


def claimant(row: Claimant) -> str:
    """The name under which a document's row, or an entry's, claims places that only one row may have."""
    return f"{row.path}#{row.entry}"


def as_texts(key: Sequence[Cell]) -> Key:
    """A key as the target's statements return it."""
    return tuple(map(str, key))


@dataclass(frozen=True, slots=True)
class Held:
    """The rows of the table that hold the place which a row wants in one constraint. `more`: there may be others."""

    constraint: str
    sqlstate: str
    immediate: bool
    keys: tuple[Key, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """The result of trying a page, by numbers in it. `needs`: the keys of rows of the same table that rows reference and that
    aren't there. `lost`: the refused rows that another promised row keeps from a place."""

    refused: dict[int, Refused] = field(default_factory=dict)
    needs: dict[int, list[tuple[str, Key]]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def refuse(self, n: int, refusal: Refused) -> None:
        """Refuses a row, for the first reason that is given. Not if a CHECK's or an index's function would write: only an apply
        can tell."""
        if refusal.sqlstate != _READ_ONLY:
            self.refused.setdefault(n, refusal)

    def left(self, ns: Iterable[int]) -> list[int]:
        """Those that nothing refuses."""
        return [n for n in ns if n not in self.refused]


@dataclass
class Promises:
    """The rows that a look would have written by now, in one collection."""

    places: dict[Place, str] = field(default_factory=dict)
    """Places in unique keys, and who took them."""
    records: dict[Place, dict[str, list[str | None]]] = field(default_factory=dict)
    """Rows that may exclude others, as texts of the columns that decide it: by bucket, the hash of the values that must be equal,
    and by claimant."""
    moved: set[Key] = field(default_factory=set)
    """Keys of rows that would have been updated, so that they no longer have the places that the table shows."""
    late: set[str] = field(default_factory=set)
    """Claimants that took, or waited for, a place that another row leaves."""
    contested: dict[str, Key] = field(default_factory=dict)
    """Claimants without a place that another order of the updates would give them."""
    _waited: set[str] = field(default_factory=set)
    """Claimants that wait for rows of the table, or did."""
    _behind: dict[str, tuple[Key, ...]] = field(default_factory=dict)
    """By claimant: the waiting rows that hold a declared unique key which it wants."""
    _there: set[Key] = field(default_factory=set)
    """Keys of rows that would be there, which rows of their own table may reference."""
    _taken: dict[str, list[Place]] = field(default_factory=dict)
    """The places and buckets of each claimant."""
    _rows: dict[str, Key] = field(default_factory=dict)
    """The keys in `moved` and `_there`, by claimant."""
    _held: dict[str, tuple[Key, list[Held]]] = field(default_factory=dict)

    def take(self, row: Row, places: Iterable[Place]) -> None:
        """Promises a row its places in unique keys."""
        own = claimant(row)
        self._taken[own] = list(places)
        self.places.update(dict.fromkeys(self._taken[own], own))

    def record(self, row: Row, buckets: Iterable[Place], record: list[str | None]) -> None:
        """Promises a row, which has taken its places, the buckets in which it may exclude others."""
        own = claimant(row)
        for bucket in buckets:
            self.records.setdefault(bucket, {})[own] = record
            self._taken[own].append(bucket)

    def leave(self, row: Row) -> None:
        """Notes that a row of the table would have been updated."""
        self._rows[claimant(row)] = as_texts(row.key)
        self.moved.add(as_texts(row.key))

    def stand(self, row: Row) -> None:
        """Notes that a row would be there, for those that reference it."""
        self._rows[claimant(row)] = as_texts(row.key)
        self._there.add(as_texts(row.key))

    def release(self, row: Claimant) -> None:
        """Takes back all promises to a row: it is tried anew, or isn't written after all."""
        own = claimant(row)
        for place in self._taken.pop(own, ()):
            if self.places.get(place) == own:
                del self.places[place]
            if place in self.records:
                self.records[place].pop(own, None)
                if not self.records[place]:
                    del self.records[place]
        if (key := self._rows.pop(own, None)) is not None:
            self.moved.discard(key)
            self._there.discard(key)
        self._held.pop(own, None)
        self._behind.pop(own, None)
        self.contested.pop(own, None)

    def hold(self, row: Row, held: list[Held]) -> None:
        """Notes that rows of the table are in the way of a row, which waits until they have moved."""
        self._held[claimant(row)] = (as_texts(row.key), held)
        self._waited.add(claimant(row))

    def lose(self, row: Row) -> None:
        """Notes that another document has a declared unique key which a row wants. If the row waited, it might have come first."""
        if claimant(row) in self._waited:
            self.contest(row)

    def contest(self, row: Row) -> None:
        """Notes that a row didn't get a place that another order of the updates would give it."""
        self.contested[claimant(row)] = as_texts(row.key)

    def stay_behind(self, row: Row, holders: Iterable[Key | None]) -> None:
        """Notes that rows of the table hold declared unique keys which a row wants. One of them that waits may yet move, and an
        apply may have moved it by now."""
        waiting = {key for key, _ in self._held.values()}
        if behind := tuple(key for key in holders if key in waiting):
            self._behind[claimant(row)] = behind

    def may_be_freed(self, row: Claimant) -> bool:
        """Whether only other promises are still in the way of a row that waits."""
        _, held = self._held.get(claimant(row), (None, []))
        return bool(held) and all(key in self.moved for h in held for key in h.keys)

    def waits(self, row: Claimant) -> bool:
        """Whether rows of the table are in the way of a row."""
        return claimant(row) in self._held

    def settle(self, row: Row, *, late: bool) -> None:
        """Notes that a row waits no longer. `late`: it had to wait, or takes a place that another one leaves."""
        self._held.pop(claimant(row), None)
        if late:
            self.late.add(claimant(row))

    def order_decides(self) -> int:
        """How many rows got no place that another order of the updates would have given them: the contested ones and those that
        wait for them; those behind a row that has moved since; and those that hold each other in a deferrable constraint, which one
        statement that updates all of them satisfies."""
        stuck = {key for key, _ in self._held.values()}
        behind = sum(not self.moved.isdisjoint(keys) for keys in self._behind.values())
        may_move = set(self.contested.values())
        following: set[str] = set()
        while more := {
            by: key
            for by, (key, held) in self._held.items()
            if by not in following and any(not may_move.isdisjoint(h.keys) for h in held)
        }:
            following.update(more)
            may_move.update(more.values())
        ring = sum(
            any(not h.immediate and (h.more or stuck.intersection(h.keys)) for h in held)
            for by, (_, held) in self._held.items()
            if by not in following
        )
        return len(self.contested) + len(following) + behind + ring

    def lacking(self, rows: Mapping[int, Row], tried: Tried) -> dict[int, Refused]:
        """Of the rows that aren't refused, those whose references within their own table would lead nowhere after one statement that
        writes all the others."""
        lacking: dict[int, Refused] = {}
        while True:
            left = {n: row for n, row in rows.items() if n not in tried.refused and n not in lacking}
            there = {as_texts(row.key) for row in left.values()}
            more = {
                n: replace(by_constraint(name, "23503"), own_table=True)
                for n, needs in tried.needs.items()
                for name, key in needs
                if n in left and key not in there and key not in self._there
            }
            if not more:
                return lacking
            lacking.update(more)

    def taken_by(self, places: Iterable[Place], row: Claimant) -> tuple[Place, str] | None:
        """The first of a row's places in unique keys that another row was promised, and that row's claimant."""
        own = claimant(row)
        return next(((p, by) for p in places if (by := self.places.get(p, own)) != own), None)
