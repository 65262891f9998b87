"""Documents of a megabyte, the largest that Firestore takes: what is held of them is bounded by bytes, not by their number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partialmethod

import psycopg
import pytest

from dualwrite.firestore.source import Paths, Source
from dualwrite.model.documents import UNASKED, Document
from tests.support import apply, one, reconciled
from tests.worlds import board, club, comment, examined_until_now, notification, post, put, user

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


def one_key(at: datetime) -> dict[str, dict]:
    """Notifications that all share one natural key: one of them has the row, the others are its duplicates."""
    return {path: {**fields, "postId": "p0"} for path, fields in notifications(at).items()}


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("documents", "collection", "verdicts"),
    [
        (posts, "posts", {"missing": NUMBER}),
        (rejected_posts, "posts", {"rejected": NUMBER}),
        (parents, "comments", {"missing": NUMBER}),
        (notifications, "notifications", {"missing": NUMBER}),
        (one_key, "notifications", {"missing": 1, "duplicate": NUMBER - 1}),
    ],
)
def test_what_a_run_holds_of_large_documents_is_bounded(
    firestore, emulator, target_dsn, documents, collection, verdicts
):
    """300 posts of 1 MB took 1.6 GB: a round read its 300 documents in one piece."""
    put(firestore, {"boards/b1": board(), "users/u1": user("u1"), "users/u2": user("u2")})
    apply(firestore.project, emulator, target_dsn, scope="all", collections=["boards", "users"])
    examined_until_now(target_dsn)
    for path, fields in documents(datetime.now(UTC)).items():  # one after the other: the first is the oldest
        firestore.document(path).set(fields)
    names = ["boards", "users", "posts", "comments", "notifications"]
    given = {"collections": [n for n in names if n == collection], "liveness_minimum": 10**6, "side_by_side": 1}
    with peak() as held:
        found = reconciled(firestore.project, emulator, target_dsn, **given)
        again = reconciled(firestore.project, emulator, target_dsn, repair="missing", **given)
        most = held()
    assert found.counts(collection) == verdicts
    assert again.counts(collection) == verdicts
    [line] = again.report["collections"]
    assert line["inserted"] == verdicts.get("missing", 0)
    assert most <= LIMIT, f"{most / 1024 / 1024:.0f} MiB"


def test_of_many_large_documents_on_a_key_the_oldest_owns_it(firestore, emulator, target_dsn):
    put(firestore, {"users/u1": user("u1"), "users/u2": user("u2")})
    apply(firestore.project, emulator, target_dsn, scope="all", collections=["users"])
    examined_until_now(target_dsn)
    for path, fields in reversed(one_key(datetime.now(UTC)).items()):
        firestore.document(path).set(fields)
    found = reconciled(firestore.project, emulator, target_dsn, collections=["notifications"], liveness_minimum=10**6)
    assert found.counts("notifications") == {"missing": 1, "duplicate": NUMBER - 1}


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
    assert merged[9] is UNASKED
    if most_bytes > 1:
        assert [len(answer) for n in range(9) if isinstance(answer := merged[n], list)] == [2] * 9
    else:  # two are too many to be held at once
        paths = [Paths(tuple(sorted(f"boards/b/posts/p{m}" for m in (n, n + 9)))) for n in range(9)]
        assert [merged[n] for n in range(9)] == paths


def test_larger_answers_than_the_last_ones_wait_for_their_turn(firestore, emulator):
    """Many questions are asked at once while answers are small; then come those of a megabyte."""
    kinds = {n: "k" if n < 30 else LARGE[:-1] for n in range(40)}
    for n, content in kinds.items():
        firestore.document(f"boards/b/posts/p{n:02}").set({"kind": f"k{n}", "content": content})
    questions = [("boards/b", {"kind": f"k{n}"}) for n in kinds]
    with Source(firestore.project, emulator_host=emulator) as source:
        parts = list(source.children_in_parts(questions, "posts", ("content",), 2_000_000))
    assert [n for part in parts for n in part] == list(kinds)
    assert max(sum(kinds[n] != "k" for n in part) for part in parts) <= 2
    assert [len(part) for part in parts][:4] == [2, 4, 8, 16]


def test_a_shared_key_read_in_parts_ends_as_one_read_whole(firestore, emulator, target_dsn, monkeypatch):
    """The row is the document's that equals it, else the oldest one's, and goes with the last of them alone."""
    club(firestore, emulator, target_dsn)
    monkeypatch.setattr(Source, "children_in_parts", partialmethod(Source.children_in_parts, most_bytes=1))
    at = {n: datetime(2026, 1, n, tzinfo=UTC) for n in (1, 2, 3)}
    put(firestore, {f"users/u1/notifications/n{n}": notification(message=f"m{n}", timestamp=t) for n, t in at.items()})

    def ended(*, repair="all", scope="sweep"):
        found = reconciled(
            firestore.project, emulator, target_dsn, scope=scope, repair=repair, max_share=100, liveness_minimum=10**6
        )
        return found.counts("notifications"), one(target_dsn, "SELECT array_agg(message) FROM notifications")

    assert ended(repair="missing") == ({"missing": 1, "duplicate": 2}, ["m1"])
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE notifications SET message = 'm2', created_at = %s", [at[2]])
    assert ended(repair="off") == ({"duplicate": 2}, ["m2"]), "it equals its row"
    firestore.document("users/u1/notifications/n2").delete()
    counts, rows = ended()
    assert (counts, rows) == ({"stale": 1, "duplicate": 1}, ["m1"]), "the older of those that are left"
    firestore.document("users/u1/notifications/n1").delete()
    firestore.document("users/u1/notifications/n3").update({"type": "unknown"})
    assert ended()[1] is None, "the last of them has another key now"
