"""A set of keys in eight bytes each, so that a collection of any size is compared both ways in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterable

_BUCKETS = 256


class Seen:
    """Remembers the 64-bit hashes of keys, not the keys.

    With n keys, an unseen key collides with a seen one with probability n / 2^64. For ten million rows that hides one row
    in about 200,000 sweeps, and a different one each time, because Python reseeds its hash in every process.
    """

    def __init__(self) -> None:
        self._buckets: list[array[int]] = []
        """Created with the first key, because most looks of a quiet run have none."""
        self._unsorted: set[int] = set()

    def update(self, keys: Iterable[Hashable]) -> None:
        """Adds keys."""
        if not self._buckets:
            self._buckets = [array("Q") for _ in range(_BUCKETS)]
        buckets = self._buckets
        for key in keys:
            number = hash(key) & 0xFFFF_FFFF_FFFF_FFFF
            buckets[number >> 56].append(number)
            self._unsorted.add(number >> 56)

    def __contains__(self, key: Hashable) -> bool:
        if not self._buckets:
            return False
        number = hash(key) & 0xFFFF_FFFF_FFFF_FFFF
        index = number >> 56
        if index in self._unsorted:
            self._buckets[index] = array("Q", sorted(self._buckets[index]))
            self._unsorted.discard(index)
        bucket = self._buckets[index]
        place = bisect_left(bucket, number)
        return place < len(bucket) and bucket[place] == number

    def __bool__(self) -> bool:
        return any(self._buckets)
