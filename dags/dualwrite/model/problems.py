"""What can be wrong with a run as a whole, whatever it found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    DUAL_WRITE_OFF = "dual_write_off"
    """Documents are written while the op log stands still."""
    REFUSED = "refused"
    """A brake held the repair."""
    NOT_EXAMINED = "not_examined"
    """Nobody looked whether anything is wrong: the task that asks failed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind for code, a sentence for people: the run fails with it."""

    kind: ProblemKind
    text: str
