"""Every error that this package raises on purpose.

A message says three things in plain sentences: the rule that was broken, the place, and the remedy. It never holds a
document's content: ids, paths, column names and counts only.
"""

from __future__ import annotations


class DualWriteError(Exception):
    """The base of all errors of this package. `code` is what a program may rely on, in words joined by hyphens: the rule that was
    broken, where a class has several; it stays when the message is worded better."""

    code = "failed"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Refused(Exception):
    """Inside the model: a value does not fit its column, or its condition. The text names types, never values; `{}` in it stands for
    the column."""


class CatalogError(DualWriteError):
    """The declaration in a catalog contradicts itself."""


class ParameterError(DualWriteError):
    """A parameter of a run is refused before anything is read. What was given stands in the message as one line: it may hold
    line breaks, and a terminal's escape sequences."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__(shown, code=code)


class PreflightError(DualWriteError):
    """Source or target are not as a run needs them."""


class SourceError(DualWriteError):
    """Firestore could not be read whole."""

    code = "source-failed"


class IncompleteRead(SourceError):
    """A read delivered another number of documents than Firestore counted at the same instant."""

    code = "read-incomplete"


class BudgetError(DualWriteError):
    """The next read would pass the cap on billed reads."""

    code = "reads-above-cap"


class TargetError(DualWriteError):
    """Postgres refused something that isn't one row's fault."""

    code = "target-failed"


class MigrationError(DualWriteError):
    """A migration file, or the target's state, is not fit to be migrated."""


class IdentityError(DualWriteError):
    """The counts of a report do not add up."""

    code = "counts-do-not-add-up"


class BrakeError(DualWriteError):
    """A repair looks like a disaster and was not begun."""


class Defect(DualWriteError):
    """Something that nobody foresaw, stripped of its own words, which may quote a document."""

    code = "defect"
