"""Pure: which columns of a collection's table are compared, and which aren't.

*Verified* means that the compared columns are equal. A report names the columns that the catalog leaves out, so that
*verified* isn't taken for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from dualwrite.model.cells import condition_in_words
from dualwrite.model.declaration import Collection
from dualwrite.model.render import Block, Items
from dualwrite.model.run_report import CoverageResult


@dataclass(frozen=True, slots=True)
class Coverage:
    """The coverage of one collection's table as it is in the target now. `undeclared`: columns that the catalog doesn't name, of
    which Postgres generates `made`. `uncompared`: declared columns with the role because of which they aren't compared."""

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
        """The coverage in one line. `inserts`: also names the columns in which inserted rows get the table's defaults."""
        left_out = [*self.undeclared, *(f"{name} ({role})" for name, role in self.uncompared)]
        if not left_out:
            return f"all {self.columns} columns are compared"
        text = f"{self.compared} of {self.columns} columns are compared; not looked at: {', '.join(left_out)}"
        filled = [name for name in self.undeclared if name not in self.made]
        if inserts and filled:
            text += f". Inserted rows get the table's defaults in {', '.join(filled)}"
        return text


def coverage_of(collection: Collection, live: Mapping[str, bool]) -> Coverage:
    """The coverage of a collection. `live`: the table's columns, each with whether Postgres generates it."""
    roles = {c.name: c.role for c in collection.columns if c.name in live}
    # Each statement compares the columns that separate the collection's rows from others.
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
    """The collection's limits in words: its condition, and its share of the table; empty without either."""
    parts = []
    if collection.where is not None:
        parts.append(f"only of documents where {condition_in_words(collection.where)}")
    if collection.rows:
        share = " and ".join(f"{name} = {'null' if v is None else repr(v)}" for name, v in collection.rows.items())
        parts.append(f"of table {collection.table} only where {share}")
    return "; ".join(parts)


def described(covered: Iterable[Coverage], *, inserts: bool = False) -> list[Block]:
    """A list of the columns that the catalog leaves out, a line a collection; empty if there are none."""
    lines = [f"{c.collection}: {c.sentence(inserts=inserts)}." for c in covered if c.compared < c.columns]
    return [Items("What the catalog leaves out:", lines)] if lines else []
