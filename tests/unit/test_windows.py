"""Window arithmetic: nothing twice, nothing skipped."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.model.errors import ParameterError
from dualwrite.model.windows import Window, gap_window, instant, recent_window, with_overlap
from tests.refusals import coded

moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive
EXPORT = datetime(2026, 1, 15, 21, 52, tzinfo=UTC)


@given(st.lists(moments, min_size=2, max_size=6, unique=True), moments)
def test_windows_that_touch_cover_each_moment_exactly_once(edges, moment):
    edges = sorted(edges)
    windows = [Window(a, b) for a, b in itertools.pairwise(edges)]
    assert sum(moment in w for w in windows) == (edges[0] <= moment < edges[-1])


@given(moments, moments, st.integers(0, 10_000), st.none() | moments)
def test_a_gap_window_begins_a_margin_before_since(since, now, hours, until):
    """It never ends in the future."""
    try:
        window = gap_window(since, timedelta(hours=hours), until, now)
    except ParameterError:
        assert since > now or (until is not None and until < since)
        return
    assert window.start == since - timedelta(hours=hours)
    assert window.end == min(until or now, now)


def test_a_margin_that_reaches_before_all_time_begins_with_it():
    window = gap_window(EXPORT, timedelta(hours=24 * 366 * 3000), None, EXPORT)
    assert window.start.year == 1


@given(moments, st.integers(1, 10_000), moments)
def test_a_recent_window_reaches_to_the_watermark_however_old(watermark, minutes, now):
    window = recent_window(watermark, minutes, now)
    assert window.end == now
    assert window.start <= now - timedelta(minutes=minutes)
    assert window.start <= watermark
    assert with_overlap(window, timedelta(hours=1)).start == window.start - timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("2026-01-15T21:52:00", "instant-without-offset"),
        ("2026-01-15", "instant-without-offset"),
        ("yesterday", "instant-malformed"),
        ("", "instant-malformed"),
    ],
)
def test_an_instant_without_offset_is_refused(text, code):
    with pytest.raises(ParameterError, match="since .*: it is", check=coded(code)):
        instant(text, "since")


def test_an_instant_is_taken_to_utc():
    assert instant("2026-01-16T06:52:00+09:00", "since") == EXPORT == instant("2026-01-15T21:52:00Z", "since")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+09:00", "9999-12-31T23:59:59-09:00"])
def test_an_instant_out_of_the_calendar_by_its_offset_is_refused(text):
    """The message says the rule."""
    with pytest.raises(ParameterError, match="since", check=coded("instant-out-of-range")):
        instant(text, "since")


def test_the_first_instant_is_one_and_no_window_begins_before_it():
    first = instant("0001-01-01T00:00:00Z", "since")
    assert gap_window(first, timedelta(hours=24), None, EXPORT).start == first
    assert with_overlap(Window(first, EXPORT), timedelta(hours=1)).start == first
    assert recent_window(EXPORT, 10**9 * 2, EXPORT).start == first


def test_a_window_holds_its_first_instant():
    """One of no length holds nothing, and one that ends before it begins is refused."""
    assert EXPORT not in Window(EXPORT, EXPORT)
    assert EXPORT in Window(EXPORT, EXPORT + timedelta(microseconds=1)), "its first instant is in it"
    with pytest.raises(ParameterError, check=coded("window-ends-before-start")):
        Window(EXPORT, EXPORT - timedelta(microseconds=1))


def test_since_may_be_now_or_until_and_neither_later():
    moment = timedelta(microseconds=1)
    none = timedelta(0)
    assert gap_window(EXPORT, none, None, EXPORT) == Window(EXPORT, EXPORT)
    assert gap_window(EXPORT, none, EXPORT, EXPORT + moment) == Window(EXPORT, EXPORT)
    with pytest.raises(ParameterError, check=coded("since-in-the-future")):
        gap_window(EXPORT + moment, none, None, EXPORT)
    with pytest.raises(ParameterError, check=coded("since-after-until")):
        gap_window(EXPORT, none, EXPORT - moment, EXPORT + moment)


def test_a_margin_that_reaches_to_the_first_instant_begins_there():
    first = instant("0001-01-01T00:00:00Z", "since")
    for beyond in (-1, 0, 1):
        margin = EXPORT - first + timedelta(microseconds=beyond)
        assert gap_window(EXPORT, margin, None, EXPORT).start == max(
            first, first - timedelta(microseconds=min(beyond, 0))
        )


def test_an_overlap_leaves_the_end_where_it_is():
    assert with_overlap(Window(EXPORT, EXPORT), timedelta(hours=1)).end == EXPORT
