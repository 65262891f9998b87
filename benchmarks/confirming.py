"""Confirming written pages: point reads of the paths, or one names-only stream over the pages' interval.

Each side reads every comment once more, as an apply into an empty table does. The emulator sorts the whole collection
for every query, so there an interval of several pages is cheaper than one a page; Firestore itself walks an index.

    python -m benchmarks.confirming [--documents 100000] [--rounds 3]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from benchmarks import drain
from benchmarks.stack import PAGE_SIZE, SCAN, Stack, stack
from benchmarks.timing import Side, measure
from dualwrite.firestore.values import path_of


def by_path(on: Stack, pages: list[list[Any]]) -> int:
    """Point reads of the documents, a page at a time. Returns their number."""
    with on.source() as source:
        return sum(len(source.get([path_of(m) for m in page])) for page in pages)


def by_interval(on: Stack, pages: list[list[Any]], together: int) -> int:
    """Names of the documents, by one stream for each `together` pages. Returns their number."""
    groups = [pages[n : n + together] for n in range(0, len(pages), together)]
    return sum(drain.names_between(on, group[0][0], group[-1][-1]) for group in groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with stack(given.documents) as on:
        with on.source() as source:
            pages = [page.messages for page in source.pages(SCAN, PAGE_SIZE)]
        measure(
            [
                Side("raw drain: gRPC bytes, dropped", partial(drain.raw, on)),
                Side("point reads, 100 a call, four calls at once", partial(by_path, on, pages)),
                Side("one stream for each page", partial(by_interval, on, pages, 1)),
                Side("one stream for each four pages", partial(by_interval, on, pages, 4)),
                Side("one stream for all pages", partial(by_interval, on, pages, len(pages))),
            ],
            given.rounds,
        )


if __name__ == "__main__":
    main()
