"""Every error that this package raises on purpose.

A message says three things in plain sentences: the rule that was broken, the place, and the remedy. It never holds a
document's content: ids, paths, column names and counts only.
"""

from __future__ import annotations


class DualWriteError(Exception):
    """The base of all errors of this package."""


class Refused(Exception):
    """Inside the model: a value does not fit its column, or its condition. The text names types, never values; `{}` in it stands for
    the column."""


class CatalogError(DualWriteError):
    """The declaration in a catalog contradicts itself."""


class ParameterError(DualWriteError):
    """A parameter of a run is refused before anything is read. What was given stands in the message as one line: it may hold
    line breaks, and a terminal's escape sequences."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message))


class PreflightError(DualWriteError):
    """Source or target are not as a run needs them."""


class SourceError(DualWriteError):
    """Firestore could not be read whole."""


class IncompleteRead(SourceError):
    """A read delivered another number of documents than Firestore counted at the same instant."""


class BudgetError(DualWriteError):
    """The next read would pass the cap on billed reads."""


class TargetError(DualWriteError):
    """Postgres refused something that isn't one row's fault."""


class MigrationError(DualWriteError):
    """A migration file, or the target's state, is not fit to be migrated."""


class IdentityError(DualWriteError):
    """The counts of a report do not add up."""


class BrakeError(DualWriteError):
    """A repair looks like a disaster and was not begun."""


class Defect(DualWriteError):
    """Something that nobody foresaw, stripped of its own words, which may quote a document."""
