"""All errors that this package raises on purpose.

A message says three things in plain sentences: the rule that was broken, the place, and the remedy. It never quotes a
document's content: only ids, paths, column names and counts.
"""

from __future__ import annotations


class DualWriteError(Exception):
    """The base of all errors of this package. A program may rely on `code`, words joined by hyphens: the rule that was broken, if a
    class has several. It stays when the message is worded better."""

    code = "failed"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Refused(Exception):
    """Inside the model: a value does not fit its column, or its condition. The text names types, never values; `{}` in it
    stands for the column."""


class CatalogError(DualWriteError):
    """The declaration in a catalog contradicts itself."""


class ParameterError(DualWriteError):
    """A parameter of a run is refused. The message may quote it, so line breaks and a terminal's escape sequences in it are
    escaped."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__(shown, code=code)


class PreflightError(DualWriteError):
    """Source or target are not as a run needs them."""


class SourceError(DualWriteError):
    """Firestore could not be read completely."""

    code = "source-failed"


class IncompleteRead(SourceError):
    """A read delivered a different number of documents than Firestore counted at the same instant."""

    code = "read-incomplete"


class BudgetError(DualWriteError):
    """The next read would pass the cap on billed reads."""

    code = "reads-above-cap"


class TargetError(DualWriteError):
    """Postgres refused something that isn't one row's fault, or the target did not hold still or did not end in time."""

    code = "target-failed"


class MigrationError(DualWriteError):
    """A migration file, or the target's state, is not fit to be migrated."""


class IdentityError(DualWriteError):
    """The counts of a report do not add up."""

    code = "counts-do-not-add-up"


class BrakeError(DualWriteError):
    """A repair or an undo may not begin, or not go on: it is too large, too old, or dual-write is off."""


class Defect(DualWriteError):
    """An unexpected error, without its own words, which may quote a document."""

    code = "defect"
