"""Pure: which columns of a collection's table are compared, and which nobody looks at.

*Verified* says that the compared columns are equal. What a catalog leaves out is named, so that nobody takes it for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from dualwrite.model.cells import condition_told
from dualwrite.model.declaration import Collection
from dualwrite.model.render import Block, Items
from dualwrite.model.run_report import CoverageResult


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of one collection's table, as it is in the target now. `undeclared`: columns that the catalog doesn't name, of which
    `made` are made by Postgres itself (generated). `uncompared`: declared columns and the role that keeps them from it."""

    collection: str
    compared: int
    undeclared: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    uncompared: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> int:
        return self.compared + len(self.undeclared) + len(self.uncompared)

    def as_json(self) -> CoverageResult:
        return {
            "compared": self.compared,
            "undeclared": list(self.undeclared),
            "made": list(self.made),
            "uncompared": dict(self.uncompared),
        }

    @classmethod
    def from_json(cls, collection: str, given: CoverageResult) -> Self:
        uncompared = tuple(given["uncompared"].items())
        return cls(collection, given["compared"], tuple(given["undeclared"]), tuple(given["made"]), uncompared)

    def sentence(self, *, inserts: bool = False) -> str:
        """In one line. `inserts`: also what an inserted row gets in the columns that no document fills."""
        left_out = [*self.undeclared, *(f"{name} ({role})" for name, role in self.uncompared)]
        if not left_out:
            return f"all {self.columns} columns are compared"
        text = f"{self.compared} of {self.columns} columns are compared; not looked at: {', '.join(left_out)}"
        filled = [name for name in self.undeclared if name not in self.made]
        if inserts and filled:
            text += f". Inserted rows get the table's defaults in {', '.join(filled)}"
        return text


def coverage_of(collection: Collection, live: Mapping[str, bool]) -> Coverage:
    """`live`: the table's columns, and of each whether Postgres makes its value."""
    roles = {c.name: c.role for c in collection.columns if c.name in live}
    # What tells the collection's rows from others' is compared by each statement.
    compared = [name for name, role in roles.items() if role in ("key", "compared") or name in collection.rows]
    undeclared = tuple(sorted(set(live) - set(roles)))
    return Coverage(
        collection.name,
        len(compared),
        undeclared,
        tuple(name for name in undeclared if live[name]),
        tuple((name, role) for name, role in roles.items() if name not in compared),
    )


def limits(collection: Collection) -> str:
    """Which documents (or entries) have rows, and which rows of the table are the collection's; empty: all of them."""
    parts = []
    if collection.where is not None:
        parts.append(f"only of documents where {condition_told(collection.where)}")
    if collection.rows:
        share = " and ".join(f"{name} = {'null' if v is None else repr(v)}" for name, v in collection.rows.items())
        parts.append(f"of table {collection.table} only where {share}")
    return "; ".join(parts)


def described(found: Iterable[Coverage], *, inserts: bool = False) -> list[Block]:
    """What the catalog leaves out, a line a collection; nothing if it leaves out nothing."""
    lines = [f"{c.collection}: {c.sentence(inserts=inserts)}." for c in found if c.compared < c.columns]
    return [Items("What the catalog leaves out:", lines)] if lines else []
