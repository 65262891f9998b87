"""Small worlds, in both databases, that several tests begin with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.cloud import firestore

from dev import seed
from dualwrite.catalog import CATALOG
from tests.kept import looking
from tests.support import apply

LONG_AGO = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)


def put(client: firestore.Client, documents: dict[str, dict[str, Any]]) -> None:
    """Writes documents by path."""
    batch = client.batch()
    for path, fields in documents.items():
        batch.set(client.document(path), fields)
    batch.commit()


def user(name: str, **changes: Any) -> dict[str, Any]:
    return {"nickname": name, "createdAt": LONG_AGO, "updatedAt": LONG_AGO, **changes}


def board(**changes: Any) -> dict[str, Any]:
    return {"title": "b", "createdAt": LONG_AGO, **changes}


def post(**changes: Any) -> dict[str, Any]:
    base = {
        "title": "t",
        "content": "c",
        "authorId": "u1",
        "authorName": "n",
        "createdAt": LONG_AGO,
        "updatedAt": LONG_AGO,
    }
    return {**base, **changes}


def comment(**changes: Any) -> dict[str, Any]:
    return {"content": "c", "userId": "u1", "userName": "n", "createdAt": LONG_AGO, **changes}


def like(**changes: Any) -> dict[str, Any]:
    return {"userId": "u1", "userName": "n", "createdAt": LONG_AGO, **changes}


def reaction(**changes: Any) -> dict[str, Any]:
    return {"content": "👍", "reactionUser": {"userId": "u1", "userName": "n"}, "createdAt": LONG_AGO, **changes}


def notification(**changes: Any) -> dict[str, Any]:
    base = {"type": "like_on_post", "boardId": "b1", "postId": "p1", "fromUserId": "u2", "message": "m", "read": False}
    return {**base, "timestamp": LONG_AGO, **changes}


def examined_until_now(dsn: str) -> None:
    """As if a reconciliation had looked at everything a minute ago."""
    with looking(dsn) as connection:
        connection.execute(
            """
            INSERT INTO dualwrite.watermarks (collection, examined_until, swept_at, run_id)
            SELECT unnest(%s::text[]), now() - interval '1 minute', now(), 'before'
            """,
            (list(CATALOG.names),),
        )


def club(client: firestore.Client, emulator: str, dsn: str, documents: dict[str, dict[str, Any]] | None = None) -> None:
    """Two boards, three users, and what else a test wants, written to both databases and verified."""
    base = {
        "boards/b1": board(),
        "boards/b2": board(),
        **{f"users/{name}": user(name) for name in ("u1", "u2", "u3")},
    }
    put(client, {**base, **(documents or {})})
    apply(client.project, emulator, dsn, scope="all")


def discussion(client: firestore.Client, emulator: str, dsn: str) -> None:
    """Two posts; one has a comment, whose reply has a reaction. All in both databases, and examined until now."""
    club(client, emulator, dsn, {
        "boards/b1/posts/p1": post(), "boards/b1/posts/p2": post(),
        "boards/b1/posts/p1/comments/c1": comment(), "boards/b1/posts/p1/comments/c1/replies/r1": comment(),
        "boards/b1/posts/p1/comments/c1/replies/r1/reactions/x1": reaction(),
    })  # fmt: skip
    examined_until_now(dsn)


def small_world(client: firestore.Client, dsn: str) -> seed.World:
    """The small world with every awkward case of production, as it is after the export: documents that have no row yet."""
    small = seed.small()
    small.load_source(client)
    with looking(dsn) as connection, connection.transaction():
        small.load_target(connection)
    return small
