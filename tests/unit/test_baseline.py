"""The tripwire's arithmetic: buckets that touch, and a bisection that finds exactly what deviates."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from dualwrite.catalog import CATALOG
from dualwrite.model.windows import LONG_AGO, whole_millisecond
from dualwrite.runs.tripwire.baseline import BUCKET, Baseline, deviating, time_column
from dualwrite.runs.tripwire.tripwire import Tripped, Tripwire, _Counts

T = datetime(2026, 2, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 10**13).map(lambda microseconds: T + timedelta(microseconds=microseconds))


def baseline(differences: list[int]) -> Baseline:
    edges = tuple(T + timedelta(hours=n) for n in range(len(differences)))
    return Baseline("createdAt", edges, tuple(differences), 0)


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 50), st.integers(0, 3)), min_size=1, max_size=40),
    st.sampled_from([1, -1]),
)
def test_bisection_finds_each_bucket_deviating_in_one_direction(buckets, sign):
    kept = baseline([difference for difference, _, _ in buckets])
    rows = [number for _, number, _ in buckets]
    documents = [difference + number + sign * lost for difference, number, lost in buckets]

    def count(window):
        return sum(n for n, edge in zip(documents, kept.edges, strict=True) if window.start < edge <= window.end)

    found = deviating(kept, rows, count)
    assert found == [(n, documents[n]) for n, (_, _, lost) in enumerate(buckets) if lost]


def test_a_lost_row_among_a_thousand_buckets_takes_eleven_counts():
    kept = baseline([0] * 1024)
    asked = []

    def count(window):
        asked.append(window)
        return sum(10 for edge in kept.edges if window.start < edge <= window.end)

    rows = [10] * 1024
    rows[700] = 9
    assert deviating(kept, rows, count) == [(700, 10)]
    assert len(asked) == 11


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_slices_touch_and_begin_with_time(differences):
    kept = baseline(differences)
    windows = [kept.window(n, n + 1) for n in range(len(kept.edges))]
    assert windows[0].start == LONG_AGO
    assert windows[-1].end == kept.end
    assert all(a.end == b.start for a, b in pairwise(windows))


@given(MOMENTS, MOMENTS)
def test_an_edge_cuts_a_document_and_its_truncated_row_alike(document, moment):
    edge = whole_millisecond(moment)
    assert (document < edge) == (whole_millisecond(document) < edge)


def test_small_buckets_at_the_end_are_joined_until_they_are_full():
    kept = baseline([1, 2]).extended(T + timedelta(days=1))
    assert kept.differences == (1, 2, 0)
    joined = kept.joined([900, 900, 100])
    assert joined.differences == (1, 2)
    assert joined.end == kept.end
    assert kept.joined([900, 901, 100]) is kept
    assert kept.extended(T) is kept


def test_what_can_be_divided_by_time_and_what_is_left_to_sweeps():
    divided = {c.name: at for c in CATALOG if (at := time_column(c))}
    assert {name: at.field for name, at in divided.items()} == {
        "users": "createdAt", "posts": "createdAt", "comments": "createdAt", "replies": "createdAt", "likes": "createdAt",
        "reactions": "createdAt", "blocks": "blockedAt", "drafts": "savedAt", "reviews": "createdAt",
        "notifications": "timestamp",
    }  # fmt: skip
    assert divided["notifications"].column == "created_at"


@given(st.lists(st.tuples(*[st.integers(-2, 2)] * 4), min_size=2, max_size=2))
def test_only_what_deviates_alike_at_both_looks_counts(looks):
    """A deviation that turned round between two looks is two changes that passed, and neither is there any more."""
    kept = Baseline("createdAt", (T,), (0,), 0, stray=0)
    tripwire = Tripwire(
        None, SimpleNamespace(close=lambda: None), CATALOG["comments"], time_column(CATALOG["comments"])
    )
    found: list[tuple[int, ...]] = []
    # Of the buckets, of the new one, of the documents that none holds, and of those elsewhere; as many rows as documents everywhere else.
    seen = [tripwire_look(*look) for look in looks]
    with (
        mock.patch.object(Tripwire, "_look", side_effect=seen),
        mock.patch.object(Tripwire, "_find", side_effect=lambda *given: found.append(tuple(given[4]))),
        mock.patch("time.sleep"),
    ):
        tripped = tripwire.look(None, kept, end=T + timedelta(hours=1), grace=1.0, now=T + timedelta(hours=2))
    expected = tuple(b if a * b > 0 else 0 for a, b in zip(*looks, strict=True))
    assert tripped.deviation == sum(expected)
    assert found == ([expected] if any(expected) else [])


def tripwire_look(old: int, new: int, untimed: int, stray: int = 0, rows: int = 5, at: datetime = T) -> _Counts:
    """Counts that deviate so in the old bucket, the new one, and what lies in neither; the new one has so many rows."""
    return _Counts(at, 5 + old, rows + new, 5, untimed, stray, new_buckets=1, rows=[5, rows, 5])


def looked(kept: Baseline, *looks: _Counts) -> tuple[Tripped, list[str]]:
    """What two looks come to that see nothing to examine, and what was done between them."""
    done: list[str] = []
    comments = CATALOG["comments"]
    tripwire = Tripwire(None, SimpleNamespace(close=lambda: done.append("closed")), comments, time_column(comments))
    with (
        mock.patch.object(Tripwire, "_look", side_effect=looks),
        mock.patch("time.sleep", side_effect=lambda seconds: done.append(f"slept {seconds}")),
    ):
        return tripwire.look(None, kept, end=T + timedelta(hours=1), grace=7, now=T), done


@given(st.integers(0, 2 * BUCKET), st.booleans())
def test_a_look_finding_nothing_joins_small_buckets_at_the_end(rows, passing):
    """Each run adds one; also where a deviation went away before the second look."""
    kept = Baseline("createdAt", (T,), (0,), 0)
    looks = [tripwire_look(int(passing), 0, 0, rows=rows), tripwire_look(0, 0, 0, rows=rows)]
    tripped, done = looked(kept, *looks[: 1 + passing])
    assert tripped.as_json() == {
        "deviation": 0, "buckets": 0, "calls_sweep": False, "failed": None, "waits_until": None,
    }  # fmt: skip
    assert len(tripped.baseline.edges) == (1 if 5 + rows <= BUCKET else 2)
    assert tripped.baseline.end == T + timedelta(hours=1)
    assert done == (["closed", "slept 7"] if passing else []), "no connection is held while it waits"


def test_a_baseline_knows_when_and_how_long_it_was_counted_last():
    """What arrived by then is part of it, what arrived later is not; slow counts are made less often."""
    later = T + timedelta(minutes=5)
    kept = Baseline("createdAt", (T,), (0,), 0, counted_at=LONG_AGO, counted_seconds=3000.0)
    quiet, _ = looked(kept, tripwire_look(0, 0, 0, at=later))
    passed, _ = looked(kept, tripwire_look(1, 0, 0), tripwire_look(0, 0, 0, at=later))
    for tripped in (quiet, passed):
        assert tripped.baseline.counted_at == later
        assert 0 <= tripped.baseline.counted_seconds < 10


def test_what_lies_elsewhere_is_no_deviation_until_counted():
    """An older version didn't count it; from then on it is."""
    kept = Baseline("createdAt", (T,), (0,), 0)
    tripped, done = looked(kept, tripwire_look(0, 0, 0, stray=3))
    assert (tripped.deviation, tripped.baseline.stray, done) == (0, 3, [])
    tripped, done = looked(tripped.baseline, tripwire_look(0, 0, 0, stray=4), tripwire_look(0, 0, 0, stray=3))
    assert (tripped.deviation, tripped.baseline.stray, done) == (0, 3, ["closed", "slept 7"])


@given(st.one_of(st.none(), st.integers(0, 9)), st.one_of(st.none(), st.just(T)))
def test_a_measured_baseline_survives_json(stray, counted_at):
    """One task measures it, another keeps it."""
    measured = replace(baseline([1, -2]), untimed=4, stray=stray, counted_at=counted_at)
    assert Baseline.from_json(json.loads(json.dumps(measured.as_json()))) == measured
