"""What a column refers to: the row of another document, and which of its columns is held."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parent:
    """The collection whose row must exist first: `references=Parent("profiles", holds="id")`.

    What the document names is always the parent document's key. `holds` is the column of the parent's row whose value the
    column has (a generated id, a uuid); without it, that is the parent's key itself, and `references="profiles"` says the same.
    """

    collection: str
    holds: str | None = None
