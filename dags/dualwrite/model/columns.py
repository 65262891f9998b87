"""A column of a table, as a catalog declares it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dualwrite.model import share
from dualwrite.model.live import DEFAULT, DocumentType, LiveType
from dualwrite.model.origins import Converted, EntryIndex, Origin, Type, type_told_by
from dualwrite.model.references import Parent

Role = Literal["key", "compared", "insert_only", "derived"]
ROLES = get_args(Role)
WHEN_GONE = ("row_goes", "null")
TYPES = get_args(DocumentType)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the target table. Columns that are not declared are left to their defaults and never looked at.

    `type` is what the *document* holds, or what a conversion makes of it, which tells it; the column's own type in the target is
    read from there. `required` says the column is NOT NULL: a document without a value for it is rejected. `absent` is the value
    that an absent or null field becomes (compared, because the first export wrote it): a dict or a list for JSON. A timestamp
    can have none. `references` names the collection whose row must exist first (a foreign key), as a name or a `Parent`. `when_gone` says what that
    document's end means for the row: `row_goes`, or the column is `null` from then on; None: what the live foreign key says
    (ON DELETE SET NULL is `null`).
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
    """Not declared: what the target said that the column is (see `Catalog.with_live`)."""
    via: Via | None = None
    """Not declared: through which row it gets its value, if that isn't what the document names (see `Catalog`)."""

    def __post_init__(self) -> None:
        told = type_told_by(self.origin)
        if self.role == "key" and isinstance(self.origin, EntryIndex):
            told = None  # keys are known by their text
        if told is not None and self.type == "text":
            object.__setattr__(self, "type", told)

    @property
    def live(self) -> LiveType:
        """What the column is in the target; what the catalog makes it look like until the target was asked."""
        return self.read or DEFAULT[self.type]

    late: bool = False
    """Not declared: null until the row is there that it refers to, because that one may need this one first (see `Catalog`)."""

    beside: tuple[str, ...] = ()
    """Not declared: the columns that refer to the same row together, itself included, in the order of that one's key; empty if it
    does so alone."""

    @property
    def named(self) -> LiveType:
        """The type of what the document names: the column's own, or that of the referenced row's key."""
        return self.live if self.via is None else self.via.key.named

    @property
    def parent(self) -> Parent:
        """What it references; only of a column that does."""
        assert self.references is not None
        return Parent(self.references) if isinstance(self.references, str) else self.references

    @property
    def source(self) -> Origin:
        """The origin before it is converted."""
        return self.origin.origin if isinstance(self.origin, Converted) else self.origin

    @property
    def of_reference(self) -> bool:
        """Whether its value is a Firestore reference, which says the whole path of what it names."""
        return isinstance(self.origin, Converted) and self.origin.conversion.of_reference

    @property
    def may_become_null(self) -> bool:
        """Whether a row could stay without what the column refers to."""
        return self.references is not None and not self.required and self.role != "key" and self.when_gone != "row_goes"


@dataclass(frozen=True, slots=True)
class Via:
    """Through which row a column gets what it holds: the value of `holds` in the row of `table` (schema, name) whose `key` is
    what the document names. The key may be held itself."""

    table: tuple[str, str]
    key: Column
    holds: str
    share: tuple[tuple[Column, share.Value], ...] = ()
    """Of the table: the columns that tell the referenced collection's rows from others, with their values."""
