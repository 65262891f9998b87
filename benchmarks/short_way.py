"""The least that a comparison can do: the reader's messages, straight to tuples, COPY and the comparing statement,
while the next page is read."""

from __future__ import annotations

from typing import Any

from benchmarks.stack import COMMENTS, PAGE_SIZE, SCAN, Stack
from dualwrite.firestore.staging import Stager


def compare(stack: Stack) -> int:
    """Compares every comment; all of them match. Returns their number."""
    stage = Stager(COMMENTS).stage
    done = 0
    with stack.source() as source, stack.target() as target:
        for page in source.pages(SCAN, PAGE_SIZE):
            staged = [row for n, message in enumerate(page.messages) if (row := stage(n, message))]
            with target.transaction() as connection:
                comparison = target.compare_staged(connection, COMMENTS, staged, _never)
            assert not comparison.differences
            assert len(staged) == len(page.messages)
            done += len(staged)
    return done


def _never(n: int) -> Any:
    raise AssertionError("every comment matches")
