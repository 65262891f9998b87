"""The world of world.py in both databases, and whole reconciliations of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial

import pytest
from google.cloud import firestore as firestore_library

from dualwrite.runs import reconciliation
from tests.databases import clone
from tests.integration.reconcile.world import execute
from tests.kept import forget
from tests.support import apply, reconciled
from tests.worlds import board, comment, examined_until_now, post, put, user

WORLD = {
    "boards/b1": board(waitingUsersIds=["u1"]),
    **{f"users/{name}": user(name, boardPermissions={"b1": "read"}) for name in ("u1", "u2", "u3")},
    **{f"boards/b1/posts/{p}": post() for p in ("p1", "p2")},
    **{f"boards/b1/posts/{p}/comments/c{p}": comment() for p in ("p1", "p2")},
}
"""Three users, a board, two posts with a comment each."""

COLLECTIONS = ["boards", "users", "user_board_permissions", "board_waiting_users", "posts", "comments"]
"""Those that the world has documents of. The seven empty ones are compared where a test is about whole runs."""


@pytest.fixture(scope="session")
def backfilled(emulator: str, postgres_server: str) -> Iterator[str]:
    """The name of a database with the world in it, as a backfill leaves it: made once, for tests to have copies of."""
    for dsn in clone(postgres_server, "migrated"):
        client = firestore_library.Client(project=f"t{uuid.uuid4().hex[:12]}")
        put(client, WORLD)
        apply(client.project, emulator, dsn, scope="all")
        client.close()
        execute(
            dsn,
            "UPDATE user_board_permissions SET created_at = '2026-02-01'; "
            "UPDATE board_waiting_users SET created_at = '2026-02-01'",
        )
        forget(dsn)  # nobody may use a database while it is copied
        yield dsn.rsplit("/", 1)[1]


@pytest.fixture
def target_dsn(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[str]:
    """A database as apply_migrations leaves it, with the world in it where the test has one."""
    template = request.getfixturevalue("backfilled") if "world" in request.fixturenames else "migrated"
    yield from clone(postgres_server, template)


@pytest.fixture
def world(firestore, target_dsn):
    """The world in both databases; everything examined until now."""
    put(firestore, WORLD)
    examined_until_now(target_dsn)
    return firestore


@pytest.fixture
def run_all(world, emulator, target_dsn):
    """A whole reconciliation of every collection, or of those that are given, as many at a time as in production."""

    def run(*, side_by_side=reconciliation.SIDE_BY_SIDE, **changes):
        return reconciled(world.project, emulator, target_dsn, side_by_side=side_by_side, **changes)

    return run


@pytest.fixture
def run(run_all):
    """A whole reconciliation of the world's collections, or of those that are given, two at a time."""
    return partial(run_all, collections=COLLECTIONS, side_by_side=2)
