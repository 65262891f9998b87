"""Problems of a run as a whole, apart from its differences."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """The kinds of such problems."""

    DUAL_WRITE_OFF = "dual_write_off"
    """Documents are written and no row arrives by itself."""
    REFUSED = "refused"
    """A brake refused the repair."""
    NOT_EXAMINED = "not_examined"
    """The task that checks for problems failed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem that a run fails with: its kind, a sentence for people, and the code of the rule (see DualWriteError)."""

    kind: ProblemKind
    text: str
    code: str
