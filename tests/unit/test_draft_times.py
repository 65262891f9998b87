"""Which fields a draft takes for check fields: those that a window can ask for, in the format that all sampled documents have."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.draft_shapes import CHECK_FORMATS, Left, Match
from dev.draft_text import load, render
from dualwrite.model.check_fields import Check
from dualwrite.model.conversions import epoch_milliseconds, epoch_seconds, iso_time
from dualwrite.model.origins import names_of
from tests.unit.test_draft_names import _table, shape_of, values

AT = datetime(2026, 1, 15, 12, 52, tzinfo=UTC)
MILLISECONDS, SECONDS = 1_768_481_520_123, 1_768_481_520


def drafted(*shapes) -> str:
    return render([Match(_table("things", "name"), shapes)], Left((), ()), "x")


@pytest.mark.parametrize(
    ("times", "declared", "told"),
    [
        ([AT], ["updated"], ""),
        (["2026-01-15T12:52:00.000Z", None], [Check("updated", iso_time)], "not every document has updated"),
        ([MILLISECONDS, float(MILLISECONDS)], [Check("updated", epoch_milliseconds)], ""),
        ([SECONDS, SECONDS + 1], [Check("updated", epoch_seconds)], ""),
        ([SECONDS + 0.5], [Check("updated", epoch_seconds)], ""),
        ([MILLISECONDS + 0.5], [], "epoch milliseconds is in another style than its format writes"),
        (["2026-01-15T12:52:00.000Z", "2026-01-15T12:52:00Z"], [], "ISO time is in another style than its format writes"),
        (["2026-01-15T21:52:00.000+09:00"], [], "ISO time is in another style than its format writes"),
        (["Thu, 15 Jan 2026 12:52:00 GMT"], [], "Firestore doesn't order HTTP date by time"),
        ([{"_seconds": 1, "_nanoseconds": 0}], [], "Firestore doesn't order timestamp map by time"),
        ([AT, "2026-01-15T12:52:00.000Z"], [], "it holds ISO time and timestamp"),
        ([MILLISECONDS, SECONDS], [], "it holds epoch milliseconds and epoch seconds"),
        ([7], [], ""),
        (["soon"], [], ""),
    ],
)  # fmt: skip
def test_a_check_field_is_drafted_in_the_format_of_all_its_times(times, declared, told):
    text = drafted(shape_of("things/{thing}", *({"name": "a", "updated": time} for time in times)))
    assert load(text)["things"].check_fields == tuple(declared)
    assert told in text
    assert ("no window can ask for it" in text) == (told.startswith(("ISO", "epoch", "Firestore", "it holds")))


def test_paths_in_two_formats_have_no_check_field():
    text = drafted(
        shape_of("a/{a}/things/{thing}", {"updated": MILLISECONDS}),
        shape_of("b/{a}/things/{thing}", {"updated": SECONDS}),
    )
    assert load(text)["things"].check_fields == ()
    assert "no window can ask for it: it holds epoch milliseconds and epoch seconds" in text


times = st.sampled_from([
    AT, None, "2026-01-15T12:52:00.000Z", "2026-01-15T12:52:00Z", "2026-01-15", MILLISECONDS, SECONDS, float(SECONDS), SECONDS + 0.5,
])  # fmt: skip


def _at(value, path):
    """The value at a field path; it may lie in a map."""
    for name in names_of(path):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@settings(max_examples=60)
@given(st.lists(times, max_size=3) | st.lists(times | values, max_size=2))
def test_windows_can_ask_for_each_sampled_time_of_drafted_fields(found):
    made = load(drafted(shape_of("things/{thing}", *({"updated": time} for time in found))))
    if "things" not in made.names:
        return
    assert all(c.format is None or c.format in CHECK_FORMATS.values() for c in made["things"].checks)
    for check in made["things"].checks:
        for time in [_at({"updated": value}, check.field) for value in found]:
            assert time is None or (isinstance(time, datetime) if check.format is None else check.is_as_said(time))
