"""The world of world.py in both databases, and whole reconciliations of it."""

from __future__ import annotations

import pytest

from tests.integration.reconcile.world import execute
from tests.support import apply, reconciled
from tests.worlds import LONG_AGO, comment, examined_until_now, post


@pytest.fixture
def world(firestore, emulator, target_dsn):
    """Two users, a board, two posts with a comment each, in both databases; everything examined until now."""
    firestore.document("boards/b1").set({"title": "b", "createdAt": LONG_AGO, "waitingUsersIds": ["u1"]})
    for user in ("u1", "u2", "u3"):
        fields = {"nickname": user, "createdAt": LONG_AGO, "updatedAt": LONG_AGO, "boardPermissions": {"b1": "read"}}
        firestore.document(f"users/{user}").set(fields)
    for p in ("p1", "p2"):
        firestore.document(f"boards/b1/posts/{p}").set(post())
        firestore.document(f"boards/b1/posts/{p}/comments/c{p}").set(comment())
    apply(firestore.project, emulator, target_dsn, scope="all")
    execute(
        target_dsn,
        "UPDATE user_board_permissions SET created_at = '2026-02-01'; UPDATE board_waiting_users SET created_at = '2026-02-01'",
    )
    examined_until_now(target_dsn)
    return firestore


@pytest.fixture
def run(world, emulator, target_dsn):
    def run(**changes):
        return reconciled(world.project, emulator, target_dsn, **changes)

    return run
