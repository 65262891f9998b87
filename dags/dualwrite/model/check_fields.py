"""Pure: check fields, which hold the time when a document was written, and the values that a window queries.

A check field holds timestamps, or times in a format that can be queried: a conversion that can be reversed and keeps the
order. Then a window is a range of strings or of numbers. Two windows that touch share no value and leave none out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise

from dualwrite.model.conversions import Conversion
from dualwrite.model.windows import LONG_AGO, Window

END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)

Asked = str | int | float
"""A value of a field with a format, as a document holds it and a query names it."""

_TRIED = (
    LONG_AGO,
    datetime(1969, 7, 20, 20, 17, 40, 123456, tzinfo=UTC),
    datetime(2026, 1, 15, 12, 52, tzinfo=UTC),
    END_OF_TIME,
)
"""Instants on which a format is tried at import."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range of a formatted field's values, as Firestore orders them: strings or numbers."""

    lowest: Asked
    is_lowest_in: bool
    highest: Asked
    is_highest_in: bool

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, str if isinstance(self.lowest, str) else int | float):
            return False
        above = value >= self.lowest if self.is_lowest_in else value > self.lowest  # type: ignore[operator]
        return above and (value <= self.highest if self.is_highest_in else value < self.highest)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Check:
    """A check field: `Check("updated", iso_time)` holds times in that format, `Check("updated")` and plain "updated" timestamps.

    The format is a conversion that goes back and keeps the order: iso_time, epoch_seconds, epoch_milliseconds, or your own.
    """

    field: str
    format: Conversion | None = None

    def __str__(self) -> str:
        return self.field if self.format is None else f"{self.field} as {self.format.name}"

    def fault(self) -> str | None:
        """Why the format can't be queried; None if it can."""
        form = self.format
        if form is None:
            return None
        if not isinstance(form, Conversion):
            return "it is no conversion"
        if form.type != "timestamp":
            return f"{form.name} gives {form.type}, not timestamps"
        if form.back is None:
            return f"{form.name} has no back=, from an instant to a document's value"
        if not form.ordered:
            return f"Firestore doesn't order the values of {form.name} by time"
        try:
            said = [form.back(instant) for instant in _TRIED]
            in_order = all(a < b for a, b in pairwise(said))
            read = [form.convert(value) for value in said]
        except Exception as error:  # noqa: BLE001 - a format may be a person's own
            return f"{form.name} can't write all instants from {LONG_AGO.year} to {END_OF_TIME.year} ({type(error).__name__})"
        if not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in said):
            return f"{form.name} writes instants as something other than strings or numbers"
        if not in_order or any(self.said(instant) != value for instant, value in zip(read, said, strict=True)):
            return f"{form.name} doesn't write an instant as it read it, or not in the order of time"
        return None

    def said(self, instant: datetime) -> Asked:
        """An instant as the format writes it."""
        assert self.format is not None
        assert self.format.back is not None
        written: Asked = self.format.back(instant)
        return written

    def bounds(self, window: Window) -> Bounds | None:
        """The range of values of a window; None for timestamps, which need no conversion.

        A format may be coarser than the window's edges (milliseconds, days). The value that an edge is cut to belongs to the
        side on which its own instant lies.
        """
        return None if self.format is None else _bounds(self, window)

    def begun(self, start: datetime) -> datetime:
        """The latest instant, at most `start`, that the format can write: a document written at `start` may have it."""
        if self.format is None:
            return start
        said: datetime = self.format.convert(self.said(start))
        return min(start, said)

    def is_as_said(self, value: object) -> bool:
        """Whether a value is as the format writes it. A value in another style is elsewhere in Firestore's order, so windows
        miss it."""
        assert self.format is not None
        if isinstance(value, bool):
            return False
        try:
            instant = self.format.convert(value)
            return isinstance(instant, datetime) and self.said(instant) == value
        except Exception:  # noqa: BLE001 - a conversion may raise anything for a value of another kind
            return False


@lru_cache(maxsize=256)
def _bounds(check: Check, window: Window) -> Bounds:
    assert check.format is not None
    lowest, highest = check.said(window.start), check.said(window.end)
    return Bounds(
        lowest, check.format.convert(lowest) >= window.start, highest, check.format.convert(highest) < window.end
    )


def checks_of(declared: tuple[str | Check, ...]) -> tuple[Check, ...]:
    """The declared check fields, each as a Check."""
    return tuple(one if isinstance(one, Check) else Check(one) for one in declared)


def begun(checks: tuple[Check, ...], window: Window) -> Window:
    """The window with its start moved back to an instant that each check field can write: a document written just after the
    start may have a coarser time just before it."""
    return Window(min([window.start, *(check.begun(window.start) for check in checks)]), window.end)
