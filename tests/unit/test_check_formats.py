"""A check field with a format: a window asks for strings or numbers, and loses nothing at its edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.cloud.firestore_v1.types import Document
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.model.check_fields import END_OF_TIME, Check, begun
from dualwrite.model.conversions import (
    Conversion,
    epoch_milliseconds,
    epoch_seconds,
    http_date,
    iso_text,
    iso_time,
    timestamp_map,
    trim,
)
from dualwrite.model.declaration import Collection, Column, CreateTime, DocumentId, Field, FirstOf
from dualwrite.model.errors import CatalogError
from dualwrite.model.windows import LONG_AGO, Window
from dualwrite.runs.slices.scans import is_anothers
from dualwrite.runs.tripwire.baseline import time_column
from tests.arbitrary import characters
from tests.refusals import coded

day = Conversion(
    "day",
    lambda value: datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC),
    "timestamp",
    lambda instant: instant.date().isoformat(),
    ordered=True,
)
CHECKS = [Check("at", form) for form in (iso_time, epoch_milliseconds, epoch_seconds, day)]
INSTANTS = st.integers(-(2**51), 2**53).map(lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n))
NEAR = st.tuples(INSTANTS, st.integers(0, 10**7), st.integers(0, 10**7)).map(
    lambda t: (t[0], t[0] + timedelta(microseconds=t[1]), t[0] + timedelta(microseconds=t[1] + t[2]))
)


@given(st.sampled_from(CHECKS), st.one_of(NEAR, st.tuples(INSTANTS, INSTANTS, INSTANTS).map(sorted)), INSTANTS)
def test_windows_that_touch_share_no_value_and_leave_none_out(check, edges, written):
    """A slice more would read a document twice, and a slice less would lose it."""
    a, b, c = edges
    first, second, both = (check.bounds(Window(*w)) for w in ((a, b), (b, c), (a, c)))
    for instant in (written, *edges, a + (c - a) / 2):
        value = check.format.back(instant)
        said = check.format.convert(value)
        assert (value in first) == (a <= said < b)
        assert (value in second) == (b <= said < c)
        assert (value in both) == (value in first or value in second)


@given(st.sampled_from(CHECKS), NEAR)
def test_what_is_written_after_a_windows_start_lies_in_it(check, edges):
    """The app cuts the time of writing to what the format says, which may lie before the last run's end."""
    start, written, end = edges
    window = begun((check, Check("plain")), Window(start, end))
    value = check.format.back(written)
    assert (value in check.bounds(window)) == (check.format.convert(value) < end)
    assert begun((check,), window) == window
    assert timedelta() <= start - window.start < timedelta(days=1)


@given(st.text(characters), NEAR)
def test_a_string_in_another_style_lies_in_one_of_two_slices(text, edges):
    a, b, c = edges
    check = Check("at", iso_time)
    first, second, both = (check.bounds(Window(*w)) for w in ((a, b), (b, c), (a, c)))
    assert (text in first) + (text in second) == (text in both)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.format.name)
def test_values_of_another_type_lie_in_no_window(check):
    everything = check.bounds(Window(LONG_AGO, END_OF_TIME))
    for value in (
        True,
        None,
        b"x",
        {},
        [],
        datetime(2026, 1, 1, tzinfo=UTC),
        "x" if check.format is epoch_seconds else {},
    ):
        assert value not in everything
        assert not check.is_as_said(value)


@pytest.mark.parametrize(
    ("value", "is_said"),
    [
        ("2026-01-15T12:52:00.000Z", True),
        ("2026-01-15T12:52:00Z", False),
        ("2026-01-15T12:52:00.000+00:00", False),
        ("2026-01-15T21:52:00.000+09:00", False),
        ("2026-01-15T12:52:00.000000Z", False),
        ("2026-01-15 12:52:00.000Z", False),
        ("", False),
        (5, False),
    ],
)
def test_only_what_javascript_writes_is_as_iso_time_says_it(value, is_said):
    assert Check("at", iso_time).is_as_said(value) is is_said


def _collection(check_fields, *columns) -> Collection:
    key = Column("id", "key", DocumentId())
    return Collection("notes", "notes", ("notes/{note}",), (key, *columns), check_fields=check_fields)


BAD = {
    "no way back": (http_date, "http_date has no back="),
    "a map": (timestamp_map, "timestamp_map has no back="),
    "text": (iso_text, "iso_text gives text, not timestamps"),
    "trimmed first": (trim >> iso_time, "trim >> iso_time has no back="),
    "no conversion": ("iso", "it is no conversion"),
    "not in order": (Conversion("c", lambda v: LONG_AGO, "timestamp", lambda v: "x"), "Firestore doesn't order the values of c by time"),
    "backwards": (
        Conversion("c", lambda v: LONG_AGO + timedelta(seconds=-v), "timestamp", lambda v: (LONG_AGO - v).total_seconds(), True),
        "c doesn't write an instant as it read it",
    ),
    "one value for all": (Conversion("c", lambda v: LONG_AGO, "timestamp", lambda v: "x", True), "not in the order of time"),
    "a list": (Conversion("c", lambda v: v[0], "timestamp", lambda v: [v], True), "something other than strings or numbers"),
    "local years": (
        Conversion("c", datetime.fromisoformat, "timestamp", lambda v: str(v.year), True), "c can't write all instants"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_format_that_can_not_be_asked_for_is_refused_by_name(case):
    form, words = BAD[case]
    with pytest.raises(CatalogError) as refused:
        _collection((Check("at", form),))
    assert words in str(refused.value)
    assert "Check('at')" in str(refused.value)


def test_a_check_field_in_two_formats_is_refused():
    """Each would be told what the other one sees."""
    with pytest.raises(CatalogError, match="'at'", check=coded("check-field-twice")):
        _collection(("at", Check("at", iso_time)))


def test_a_column_that_reads_a_check_field_otherwise_is_refused():
    with pytest.raises(CatalogError, match=r"Field\('at'\) >> iso_time", check=coded("check-field-no-timestamp")):
        _collection((Check("at", iso_time),), Column("at", "compared", Field("at"), "timestamp"))
    with pytest.raises(CatalogError, check=coded("check-field-without-format")):
        _collection(("at",), Column("at", "compared", Field("at")))


def test_times_of_writing_in_any_format_are_no_fingerprint():
    """A counter moves them between two looks, and the difference would never count as the same."""
    moved = [
        Column("a", "compared", Field("updated") >> iso_time),
        Column("b", "compared", Field("updated")),
        Column("c", "compared", Field("plain", CreateTime()), "timestamp"),
        Column("d", "compared", Field("plain") >> iso_text),
        Column("e", "compared", FirstOf(Field("updated") >> iso_time, Field("created") >> epoch_milliseconds)),
    ]
    still = [
        Column("f", "compared", Field("seen") >> iso_time),
        Column("g", "compared", FirstOf(Field("updated") >> iso_time, Field("seen") >> iso_time)),
    ]
    collection = _collection(
        (Check("updated", iso_time), Check("created", epoch_milliseconds), "plain"), *moved, *still
    )
    assert [c.name for c in collection.fingerprinted] == ["id", "f", "g"]


def test_the_tripwire_counts_by_a_column_read_as_windows_ask():
    """By one that reads the field otherwise, the two sides would be cut at different instants."""
    other = Conversion("other", iso_time.convert, "timestamp")
    checks = (Check("updated", iso_time), "plain")
    by_iso = Column("b", "compared", Field("updated") >> iso_time)
    collection = _collection(checks, Column("a", "compared", Field("updated") >> other), by_iso)
    found = time_column(collection)
    assert (found.column, found.field) == ("b", "updated as iso_time")
    assert time_column(_collection(checks, Column("a", "compared", Field("updated") >> other))) is None


def test_a_document_is_in_the_slice_of_its_first_formatted_field():
    """It lies where Firestore's order puts it, also written in another style."""
    window = Window(datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 1, 16, tzinfo=UTC))
    checks = (Check("a.iso", iso_time), Check("ms", epoch_milliseconds))

    def document(**fields):
        made = Document.pb(Document(name="p/p/databases/d/documents/notes/n", fields=fields))
        made.update_time.FromDatetime(datetime(2026, 1, 16, tzinfo=UTC))
        return made

    def has(fields, cut_at=window.end):
        return is_anothers(document(**fields), checks, window, cut_at)

    ms = int(window.start.timestamp() * 1000)
    iso = [
        {"a": {"map_value": {"fields": {"iso": {"string_value": s}}}}}
        for s in ("2026-01-15T05:00:00Z", "2026-01-16T00:00:00.000Z")
    ]
    assert has(iso[0])
    assert not has(iso[1])
    assert has({"ms": {"integer_value": ms}})
    assert has({"ms": {"double_value": ms + 0.5}})
    assert not has({"ms": {"integer_value": ms - 1}})
    assert not has({"ms": {"string_value": "2026-01-15T05:00:00.000Z"}})
    assert not has({"ms": {"integer_value": ms}}, window.start)
