"""Keys are remembered by their hashes, in eight bytes each."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.engine import seen
from dualwrite.engine.seen import Seen


class Hashed:
    """A key whose hash is chosen."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __hash__(self) -> int:
        return self._number


@given(st.lists(st.lists(st.integers(-(2**61) + 2, 2**61 - 2))), st.integers(-(2**61) + 2, 2**61 - 2))
def test_what_was_added_in_any_steps_is_in_it_and_nothing_else(steps, other):
    seen = Seen()
    added: set[int] = set()
    for step in steps:
        seen.update(map(Hashed, step))
        added |= set(step)
        assert all(Hashed(n) in seen for n in added)
        assert (Hashed(other) in seen) == (other in {hash(Hashed(n)) for n in added} or other in added)
    assert bool(seen) == bool(added)


def test_nothing_was_seen_at_first():
    seen = Seen()
    assert not seen
    assert ("a",) not in seen


def test_hashes_differing_in_first_or_last_bits_are_told_apart():
    """Also if nothing else differs."""
    for number in (0, 1, 2**55, 2**56, 2**60, -1 << 60, 2**56 + 1):
        for other in (0, 1, 2**55, 2**56, 2**60, -1 << 60, 2**56 + 1):
            seen = Seen()
            seen.update([Hashed(number)])
            assert (Hashed(other) in seen) == (number == other)


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """How many numbers were sorted, each time."""
    found: list[int] = []
    monkeypatch.setattr(seen, "sorted", lambda numbers: found.append(len(numbers)) or sorted(numbers), raising=False)
    return found


def test_keys_are_spread_over_buckets_by_their_hashs_first_byte(sizes):
    """So that sorting one bucket is a 256th of the work: a page's look-ups beside a scan that still adds."""
    keys = [Hashed((n << 56) - (2**64 if n > 127 else 0)) for n in range(256)]
    known = Seen()
    known.update(keys[:0x1F])
    known.update(keys[0xE0:])
    assert [n for n, key in enumerate(keys) if key in known] == [*range(0x1F), *range(0xE0, 256)]
    assert sizes == [1] * (0x1F + 0x20), "a bucket without a key is never sorted"


def test_a_key_takes_eight_bytes():
    known = Seen()
    tracemalloc.start()
    known.update(Hashed(n << 40) for n in range(20_000))
    snapshot = tracemalloc.take_snapshot()
    tracemalloc.stop()
    of_the_module = snapshot.filter_traces([tracemalloc.Filter(True, seen.__file__)])  # other threads allocate, too
    assert 20_000 * 8 <= sum(trace.size for trace in of_the_module.traces) < 20_000 * 8 * 1.2


def test_a_bucket_is_sorted_again_only_where_keys_were_added(sizes):
    known = Seen()
    known.update([Hashed(2), Hashed(1)])
    assert Hashed(1) in known
    assert Hashed(2) in known
    assert sizes == [2]
    known.update([Hashed(0)])
    assert Hashed(0) in known
    assert Hashed(2) in known
    assert sizes == [2, 3]
