"""The slow paths: stale rows of shared natural keys, entries of large maps, a page that is mostly refused.

    python -m benchmarks.differences [--notifications 5000] [--entries 2000] [--refused 20000]

For notifications rows a second and billed reads a row; for entries the time at half and at full size, which tells whether
it grows with the number or with its square; for a dry run in which three documents of five can't become rows, the pace of its first
and last fifth.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

from google.cloud import firestore

from benchmarks.stack import PROJECT, Stack, empty_stack
from dualwrite.firestore.source import Source
from dualwrite.model.run_report import CollectionResult
from dualwrite.runs import backfill
from tests.support import gap_run
from tests.worlds import board, club, comment, notification, post, put, user

_AT_ONCE = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notifications", type=int, default=5000)
    parser.add_argument("--entries", type=int, default=2000)
    parser.add_argument("--refused", type=int, default=20_000)
    given = parser.parse_args()
    with empty_stack() as on:
        client = firestore.Client(project=PROJECT)
        club(client, on.host, on.uri, {"boards/b1/posts/p1": post()})
        _notifications(on, client, given.notifications)
        for number in (given.entries // 2, given.entries):
            _entries(on, client, number)
        _refused(on, client, given.refused)
        client.close()


def _put(client: firestore.Client, documents: dict[str, dict[str, Any]]) -> None:
    items = iter(documents.items())
    while part := dict(itertools.islice(items, _AT_ONCE)):
        put(client, part)


def _examined(on: Stack, name: str, *, dry: bool = False) -> tuple[CollectionResult, float]:
    with gap_run(PROJECT, on.host, on.uri, collections=[name], scope="all") as run:
        began = time.perf_counter()
        return backfill.examine(run, name, dry=dry), time.perf_counter() - began


def _notifications(on: Stack, client: firestore.Client, number: int) -> None:
    people = [f"p{i}" for i in range(max(1, number // 50))]  # the emulator walks all of a person's for each question

    def all_of_them(**changes: Any) -> dict[str, dict[str, Any]]:
        return {
            f"users/{people[i % len(people)]}/notifications/n{i}": notification(postId=f"n{i}", **changes)
            for i in range(number)
        }

    _put(client, {f"users/{name}": user(name) for name in people} | all_of_them())
    for name in ("users", "notifications"):
        _examined(on, name)
    _put(client, all_of_them(read=True))
    report, seconds = _examined(on, "notifications")
    assert report["updated"] == number, report["counts"]
    reads = (report["billed_reads"] - report["documents_read"]) / number
    print(
        f"stale notifications: {number:,} in {seconds:.1f} s, {number / seconds:,.0f} rows/s, {reads:.2f} reads a row"
    )


def _entries(on: Stack, client: firestore.Client, number: int) -> None:
    """A board with `number` waiting users, and as many rows of people who left."""
    users = [f"w{i}" for i in range(2 * number)]
    _put(client, {f"users/{name}": user(name) for name in users})
    put(client, {"boards/b2": board(waitingUsersIds=users)})
    for name in ("users", "boards", "board_waiting_users"):
        _examined(on, name)
    put(client, {"boards/b2": board(waitingUsersIds=users[:number])})
    report, seconds = _examined(on, "board_waiting_users", dry=True)
    assert report["counts"]["extra"] == number, report["counts"]
    print(f"entries: {number:,} extra beside {number:,} in {seconds:.2f} s")


def _refused(on: Stack, client: firestore.Client, number: int) -> None:
    def content(i: int) -> dict[str, Any]:
        return comment() if i % 5 < 2 else comment(createdAt="yesterday")

    _put(client, {f"boards/b1/posts/p1/comments/c{i:06}": content(i) for i in range(number)})
    pages: list[float] = []
    original = Source.pages

    def timed(self: Source, *arguments: Any, **options: Any) -> Any:
        for page in original(self, *arguments, **options):
            began = time.perf_counter()
            yield page
            pages.append(time.perf_counter() - began)

    Source.pages = timed  # type: ignore[method-assign]
    try:
        with gap_run(PROJECT, on.host, on.uri, collections=["comments"], scope="all", page_size=500) as run:
            began = time.perf_counter()
            report = backfill.examine(run, "comments", dry=True)
            seconds = time.perf_counter() - began
    finally:
        Source.pages = original  # type: ignore[method-assign]
    assert report["counts"]["rejected"] == sum(i % 5 >= 2 for i in range(number)), report["counts"]
    fifth = max(1, len(pages) // 5)
    first, last = sum(pages[:fifth]) / fifth, sum(pages[-fifth:]) / fifth
    print(
        f"60 % refused: {number:,} in {seconds:.1f} s; a page of 500 takes {1000 * first:.0f} ms in the first fifth and "
        f"{1000 * last:.0f} ms in the last"
    )


if __name__ == "__main__":
    main()
