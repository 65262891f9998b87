"""Slices cover everything exactly once, whatever lies on their bounds."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dualwrite.runs.slices.cutter import _inside, _split_time, _spread
from dualwrite.runs.slices.slice import MOST_SLICES, Interval, Slice, cut, name_order, size, slices_of

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=30)
MOMENTS = st.lists(
    st.one_of(
        st.sampled_from([BEGIN, BEGIN + timedelta(days=7), END - timedelta(microseconds=1)]),  # ties, and both ends
        st.integers(0, 30 * 24 * 3600 * 10**6 - 1).map(lambda us: BEGIN + timedelta(microseconds=us)),
    ),
    max_size=300,
)
IDS = st.one_of(
    st.text("ab-0~é", min_size=1, max_size=3), st.sampled_from(["__id7__", "__id10__", "__id-3__", "_", "!"])
)
PATHS = st.lists(st.tuples(IDS, IDS).map(lambda ids: f"boards/{ids[0]}/posts/{ids[1]}"), max_size=200, unique=True)


def _held(slices, moment) -> list[Slice]:
    return [s for s in slices if moment in s.window]


@given(MOMENTS, st.integers(1, 50))
def test_every_instant_of_a_window_lies_in_exactly_one_slice(moments, most):
    """No slice holds more than it may."""

    def count(intervals: list[Interval[datetime]]) -> list[int]:
        return [sum(start <= m < end for m in moments) for start, end in intervals]

    slices = slices_of("c", "time", cut((BEGIN, END), len(moments), most, _split_time, count), BEGIN)
    assert all(len(_held(slices, m)) == 1 for m in [*moments, BEGIN, END - timedelta(microseconds=1)])
    assert (slices[0].start, slices[-1].end) == (BEGIN, END)
    assert sum(s.documents for s in slices) == len(moments)
    ties = Counter(moments)
    for s in slices:
        inside = {m for m in moments if m in s.window}
        assert s.documents <= most or len(inside) == 1, "only documents of one instant can't be told apart"
        assert s.documents == sum(ties[m] for m in inside)
    for before, after in pairwise(slices):
        assert before.end == after.start
        assert before.documents + after.documents > most, "small neighbours are one slice"


@given(PATHS, st.data(), st.integers(1, 30))
def test_every_name_lies_in_exactly_one_slice(paths, data, most):
    """Also one beyond all known names."""
    known = data.draw(st.lists(st.sampled_from(paths), unique=True)) if paths else []
    names = sorted(known, key=name_order)
    ordered = sorted(map(name_order, paths))

    def place(bound: str | None, otherwise: int) -> int:
        return otherwise if bound is None else bisect_left(ordered, name_order(bound))

    def count(intervals: list[Interval[str]]) -> list[int]:
        return [place(end, len(ordered)) - place(start, 0) for start, end in intervals]

    def split(interval: Interval[str], number: int) -> list[str]:
        return _spread([n for n in names if _inside(n, interval)], number)

    slices = slices_of("c", "name", cut((None, None), len(paths), most, split, count), BEGIN)
    assert slices[0].start is None
    assert slices[-1].end is None
    assert all(before.end == after.start for before, after in pairwise(slices))
    for path in [*paths, "a/a", "zebra/~/posts/é"]:
        order = name_order(path)
        holding = [
            s
            for s in slices
            if (s.start is None or name_order(s.start) <= order) and (s.end is None or order < name_order(s.end))
        ]
        assert len(holding) == 1


def _pieces(bounds: list[int], whole: int) -> list[int]:
    """How long the pieces are between the bounds."""
    return [after - before for before, after in pairwise([0, *bounds, whole])]


@given(st.integers(0, 60), st.integers(1, 20))
def test_known_names_are_spread_evenly_over_a_slice(known, wanted):
    """Uneven ones would be counted and cut again: all of them, where there are few."""
    names = [f"n{n:02}" for n in range(known)]
    found = [names.index(name) for name in _spread(names, wanted)]
    assert len(found) == min(wanted, known)
    pieces = _pieces(found, known) if known > wanted else [1]
    assert max(pieces) - min(pieces) <= 1


@given(st.one_of(st.integers(0, 80), st.integers(0, 10**10)), st.integers(1, 63), st.integers(-12, 12))
def test_time_is_split_evenly_down_to_the_microsecond(microseconds, wanted, hours):
    """Inside the stretch, in UTC whatever zone its ends are told in."""
    start = BEGIN.astimezone(timezone(timedelta(hours=hours)))
    found = _split_time((start, start + timedelta(microseconds=microseconds)), wanted)
    assert all(moment.tzinfo is UTC for moment in found)
    assert len(found) == min(wanted, max(0, microseconds - 1))
    pieces = _pieces([(moment - BEGIN) // timedelta(microseconds=1) for moment in found], microseconds)
    assert max(pieces) - min(pieces) <= 1


@given(st.lists(IDS, min_size=3, max_size=3, unique_by=name_order))
def test_in_firestores_order_a_bound_lies_inside_its_slice(ids):
    """On a bound it would cut off nothing; what is open at an end holds all names beyond."""
    first, name, last = sorted(ids, key=name_order)
    assert all(_inside(name, interval) for interval in [(first, last), (None, last), (first, None), (None, None)])
    outside = [(name, last), (first, name), (name, None), (None, name), (last, None), (None, first), (last, first)]
    assert not any(_inside(name, interval) for interval in outside)


def test_a_cut_whose_parts_do_not_add_up_is_not_used():
    """Bounds in another order than the source's would leave documents out, or count them twice."""
    found = cut((None, None), 100, 10, lambda *_: ["b", "c"], lambda intervals: [40] * len(intervals))
    assert found == [((None, None), 100)]


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=13), st.integers(1, 10**6))
def test_a_run_has_no_more_slices_than_airflow_maps_a_task_over(collections, slice_documents):
    """Of two slices that touch, each pair holds more than one may: so many there can be."""
    most = size(slice_documents, sum(collections))
    assert sum(2 * n // most + 1 for n in collections) <= MOST_SLICES
    assert most >= slice_documents


@given(st.sampled_from(["time", "name"]), st.booleans())
def test_a_slice_survives_json(by, is_open):
    start, end = (BEGIN, END) if by == "time" else (None if is_open else "boards/b/posts/p", "users/u")
    part = Slice("posts", 2, 9, by, start, end, 250_000, BEGIN)
    assert Slice.from_json(part.as_json()) == part
    assert part.as_json()["name"] == "posts 2 of 9, 250,000 documents"


def test_a_slices_name_is_a_printable_line_whatever_ids_bound_it():
    """It stands in logs, XCom and alerts, and an id may hold line breaks and control characters."""
    part = Slice("posts", 1, 2, "name", "boards/a\nb\x00", "boards/\x1b[31m\u2028", 7, BEGIN)
    assert str(part).isprintable()
    assert str(part) == r"posts 1 of 2: boards/a\u000ab\u0000 to boards/\u001b[31m\u2028"
    assert part.as_json()["name"] == "posts 1 of 2, 7 documents", "two such paths fill the grid's line twice"


def test_numeric_ids_sort_first_and_as_numbers():
    paths = [f"users/{i}" for i in ("__id-5__", "__id2__", "__id10__", "!", "__id", "__id1", "a")]
    assert sorted(set(paths), key=name_order) == paths
