"""A column of a table, as a catalog declares it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dualwrite.model import share
from dualwrite.model.live import TYPES, LiveType
from dualwrite.model.origins import Converted, EntryIndex, Origin, Type, type_told_by
from dualwrite.model.references import Parent

Role = Literal["key", "compared", "insert_only", "derived"]
ROLES = get_args(Role)
WHEN_GONE = ("row_goes", "null")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the target table. Columns that are not declared are left to their defaults and never looked at.

    `role`: `key` identifies the row; a difference in a `compared` column is drift; `insert_only` is set on insert and never
    compared; a `derived` column (a counter) may lag, which is counted apart, and rejects nothing. `type` is the type of the
    *document's* value, or of a conversion's result (then it needn't be declared); the column's own type is read from the target.
    `required`: the column is NOT NULL, so a document without a value for it is rejected. `absent`: the value that an absent or null
    field becomes (compared, because the first export wrote it), a dict or a list for JSON; a timestamp can have none. `references`:
    the collection whose row must exist first (a foreign key), as a name or a `Parent`. `when_gone`: the effect if that document is
    gone: `row_goes`, or the column becomes `null`; None: as the live foreign key has it (ON DELETE SET NULL is `null`).
    """

    name: str
    role: Role
    origin: Origin
    type: Type = "text"
    required: bool = False
    absent: Any = field(default=None, hash=False)
    references: str | Parent | None = None
    when_gone: Literal["row_goes", "null"] | None = None
    read: LiveType | None = None
    """Not declared: the column's type in the target (see `Catalog.with_live`)."""
    via: Via | None = None
    """Not declared: the row through which it gets its value, if that isn't the id that the document names (see `Catalog`)."""

    def __post_init__(self) -> None:
        only = type_told_by(self.origin)
        if self.role == "key" and isinstance(self.origin, EntryIndex):
            only = None  # a key is compared by its text
        if only is not None and self.type == "text":
            object.__setattr__(self, "type", only)

    @property
    def live(self) -> LiveType:
        """The column's type in the target; until that was read, the usual type for `type`."""
        return self.read or TYPES[self.type].usual

    late: bool = False
    """Not declared: the column stays null until the row that it refers to is there, because that may need this row first (see
    `Catalog`)."""

    beside: tuple[str, ...] = ()
    """Not declared: the columns, itself included, that together refer to one row, in the order of its key; empty if it refers
    alone."""

    @property
    def named(self) -> LiveType:
        """The type of the id that the document names: the column's own, or that of the referenced row's key."""
        return self.live if self.via is None else self.via.key.named

    @property
    def parent(self) -> Parent:
        """The collection that it references. Only for a column with `references`."""
        assert self.references is not None
        return Parent(self.references) if isinstance(self.references, str) else self.references

    @property
    def source(self) -> Origin:
        """The origin before it is converted."""
        return self.origin.origin if isinstance(self.origin, Converted) else self.origin

    @property
    def of_reference(self) -> bool:
        """Whether its value is a Firestore reference, which has the whole path of the document that it names."""
        return isinstance(self.origin, Converted) and self.origin.conversion.of_reference

    @property
    def may_become_null(self) -> bool:
        """Whether a row could stay, with a null in this column, if the document that it refers to is gone."""
        return self.references is not None and not self.required and self.role != "key" and self.when_gone != "row_goes"


@dataclass(frozen=True, slots=True)
class Via:
    """The row through which a column gets its value: the value of `holds` in the row of `table` (schema, name) whose `key` is
    the id that the document names. That key column may have a Via of its own."""

    table: tuple[str, str]
    key: Column
    holds: str
    share: tuple[tuple[Column, share.Value], ...] = ()
    """The columns of the table that separate the referenced collection's rows from others, with their values."""
