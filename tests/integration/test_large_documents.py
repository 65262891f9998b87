"""Documents of a megabyte, the largest that Firestore takes: what is held of them is bounded by bytes, not by their number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from dualwrite.firestore.source import Source
from dualwrite.model.documents import UNASKED, Document
from tests.support import apply, reconciled
from tests.worlds import board, comment, examined_until_now, notification, post, put, user

NUMBER = 16
LARGE = "x" * 1_000_000 + "😀"
"""Python keeps each of its characters in four bytes."""
LIMIT = 40 * 1024 * 1024
"""A few times what is held in one piece; all of them would be 64 MiB."""


def posts(at: datetime) -> dict[str, dict]:
    """Missing."""
    return {f"boards/b1/posts/p{n}": post(content=LARGE, createdAt=at, updatedAt=at) for n in range(NUMBER)}


def rejected_posts(at: datetime) -> dict[str, dict]:
    return {path: {**fields, "title": 5} for path, fields in posts(at).items()}


def parents(at: datetime) -> dict[str, dict]:
    """Small comments, whose large posts have no rows."""
    comments = {f"boards/b1/posts/p{n}/comments/c{n}": comment(createdAt=at) for n in range(NUMBER)}
    return {**posts(datetime(2026, 1, 1, tzinfo=UTC)), **comments}


def notifications(at: datetime) -> dict[str, dict]:
    """Of a natural key that documents may share."""
    return {
        f"users/u1/notifications/n{n}": notification(postId=f"p{n}", message=LARGE, timestamp=at) for n in range(NUMBER)
    }


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("documents", "collection", "verdict"),
    [
        (posts, "posts", "missing"),
        (rejected_posts, "posts", "rejected"),
        (parents, "comments", "missing"),
        (notifications, "notifications", "missing"),
    ],
)
def test_what_a_run_holds_of_large_documents_is_bounded(
    firestore, emulator, target_dsn, documents, collection, verdict
):
    """300 posts of 1 MB took 1.6 GB: a round read its 300 documents in one piece."""
    put(firestore, {"boards/b1": board(), "users/u1": user("u1"), "users/u2": user("u2")})
    apply(firestore.project, emulator, target_dsn, scope="all", collections=["boards", "users"])
    examined_until_now(target_dsn)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda item: firestore.document(item[0]).set(item[1]), documents(datetime.now(UTC)).items()))
    names = ["boards", "users", "posts", "comments", "notifications"]
    given = {"collections": [n for n in names if n == collection], "liveness_minimum": 10**6, "side_by_side": 1}
    with peak() as held:
        found = reconciled(firestore.project, emulator, target_dsn, **given)
        again = reconciled(firestore.project, emulator, target_dsn, repair="missing", **given)
        most = held()
    assert found.counts(collection) == {verdict: NUMBER}
    assert again.counts(collection) == {verdict: NUMBER}
    [line] = again.report["collections"]
    assert line["inserted"] == (NUMBER if verdict == "missing" else 0)
    assert most <= LIMIT, f"{most / 1024 / 1024:.0f} MiB"


@pytest.mark.parametrize("most_bytes", [1, 400, 10_000, 10**9])
def test_documents_by_path_come_in_parts_each_path_once(firestore, emulator, most_bytes):
    paths = [f"boards/b{n}" for n in range(7)]
    put(firestore, {path: {"title": "t" * 100 * n} for n, path in enumerate(paths) if n != 3})
    with Source(firestore.project, emulator_host=emulator) as source:
        parts = list(source.get_in_parts([*paths, "not/a/document", paths[0]], ["title"], most_bytes))
        assert source.billed_reads == 7
    merged = {path: document for part in parts for path, document in part.items()}
    assert sum(map(len, parts)) == len(merged) == 8
    assert (merged[paths[3]], merged["not/a/document"]) == (None, UNASKED)
    assert sum(isinstance(document, Document) for document in merged.values()) == 6
    for part in parts:
        there = [document for document in part.values() if isinstance(document, Document)]
        assert len(there) <= 1 or sum(len(d.fields["title"]) for d in there) <= most_bytes
    assert most_bytes < 10**9 or len(parts) == 1


@pytest.mark.parametrize("most_bytes", [1, 1000, 10**9])
def test_answers_about_children_come_in_parts_each_once(firestore, emulator, most_bytes):
    put(firestore, {f"boards/b/posts/p{n}": {"kind": f"k{n % 9}", "content": "c" * 200} for n in range(18)})
    with Source(firestore.project, emulator_host=emulator) as source:
        questions = [*(("boards/b", {"kind": f"k{n}"}) for n in range(9)), ("boards", {"kind": "k0"})]
        parts = list(source.children_in_parts(questions, "posts", ("content",), most_bytes))
    merged = {n: documents for part in parts for n, documents in part.items()}
    assert sum(map(len, parts)) == len(merged) == 10
    assert [len(answer) for n in range(9) if isinstance(answer := merged[n], list)] == [2] * 9
    assert merged[9] is UNASKED
