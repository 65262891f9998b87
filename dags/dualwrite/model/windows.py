"""Pure: windows, the stretches of time that runs examine.

All instants are aware and in UTC. A window is half-open, [start, end): two windows that touch examine each document once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from dualwrite.model.errors import ParameterError
from dualwrite.model.run_report import WindowJson

LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` (included) to `end` (excluded). Raises ParameterError if `start` is after `end`."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise ParameterError(
                f"A window's start is after its end: {self.start.isoformat()} and {self.end.isoformat()}. "
                "Correct since and until.",
                code="window-ends-before-start",
            )

    def as_json(self) -> WindowJson:
        return {"start": self.start.isoformat(), "end": self.end.isoformat()}

    @classmethod
    def from_json(cls, given: WindowJson) -> Self:
        return cls(datetime.fromisoformat(given["start"]), datetime.fromisoformat(given["end"]))

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


def instant(text: Any, name: str) -> datetime:
    """An RFC 3339 text as an instant in UTC. Raises ParameterError, also for a time without an offset: an export's local time was
    once read as UTC. `name`: of the parameter."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ParameterError(
            f"{name} must be an instant, for example 2026-01-15T21:52:00+00:00: it is {text!r}. Correct it.",
            code="instant-malformed",
        ) from None
    if moment.tzinfo is None:
        raise ParameterError(
            f"{name} needs an offset from UTC: it is {text!r}. Append +00:00, or the offset of its time zone.",
            code="instant-without-offset",
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ParameterError(
            f"{name} must lie between the years 1 and 9999 in UTC: it is {text!r}, which its offset moves beyond them. "
            f"Correct it; {LONG_AGO.isoformat()} is the earliest.",
            code="instant-out-of-range",
        ) from None


def gap_window(since: datetime, margin: timedelta, until: datetime | None, now: datetime) -> Window:
    """The window of a backfill: from `margin` before `since`, to `until` or now.

    Raises ParameterError if `since` is in the future, or `until` before `since`.
    """
    if since > now:
        raise ParameterError(
            f"since is in the future: it is {since.isoformat()}, and now is {now.isoformat()}. "
            "Check its date and its offset.",
            code="since-in-the-future",
        )
    end = until if until is not None else now
    if end < since:
        raise ParameterError(
            f"since is after until: since is {since.isoformat()}, and until is {end.isoformat()}. Correct one of them.",
            code="since-after-until",
        )
    return Window(_before(since, margin), min(end, now))


def recent_window(watermark: datetime, minutes: int, now: datetime) -> Window:
    """The window of a reconciliation: from the watermark or `minutes` ago, whichever is earlier, to now.

    So nothing is skipped after an outage of hours or weeks. A watermark in the future (a clock was wrong) counts as now.
    """
    return Window(min(watermark, _before(now, timedelta(minutes=minutes))), now)


def with_overlap(window: Window, overlap: timedelta) -> Window:
    """The window with an earlier start, for writes that an offline client sends late with old timestamps."""
    return Window(_before(window.start, overlap), window.end)


def _before(moment: datetime, span: timedelta) -> datetime:
    """`span` before `moment`, but not before LONG_AGO."""
    return moment - span if moment - LONG_AGO > span else LONG_AGO


def whole_millisecond(moment: datetime) -> datetime:
    """A moment truncated to milliseconds, as the app writes it into rows."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
