"""A small world that was reconciled until now, and what can go wrong in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

from tests.kept import looking
from tests.worlds import comment, post

_millis = count(1_780_000_000_000)


def now() -> datetime:
    return datetime.now(UTC)


def execute(dsn: str, statement: str, *parameters) -> None:
    with looking(dsn) as connection:
        connection.execute(statement, parameters or None)


def attempted(dsn: str, operation: str) -> None:
    """A lock of the app's."""
    execute(dsn, "SELECT try_acquire_write_lock(%s)", f"{operation}:{next(_millis)}")


def busy(world, number: int) -> None:
    """Posts that were just written, and no row of them."""
    for i in range(number):
        world.document(f"boards/b1/posts/busy{i}").set(post(createdAt=now(), updatedAt=now()))


def arrives(world, dsn: str, number: int) -> None:
    """Comments that were just written to both sides, without a line in write_ops."""
    for i in range(number):
        at = now()
        world.document(f"boards/b1/posts/p1/comments/arrived{i}").set(comment(createdAt=at))
        execute(
            dsn,
            "INSERT INTO comments (id, post_id, user_id, user_name, content, created_at) "
            "VALUES (%s, 'p1', 'u1', 'n', 'c', date_trunc('milliseconds', %s::timestamptz))",
            f"arrived{i}", at,
        )  # fmt: skip


# --- the changes of docs/verification.md that dual-write can miss -------------------------------------------------------


def create(world, dsn):
    world.document("boards/b1/posts/new").set(post(createdAt=now(), updatedAt=now()))


def edit_that_moves_a_check_field(world, dsn):
    world.document("boards/b1/posts/p1").update({"title": "edited", "updatedAt": now()})


def edit_that_moves_none(world, dsn):
    world.document("boards/b1/posts/p1/comments/cp1").update({"content": "edited"})


def delete_of_a_recent_document(world, dsn):
    execute(dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('gone', 'p1', 'u1', 'c')")


def delete_of_an_old_document(world, dsn):
    world.document("boards/b1/posts/p1/comments/cp1").delete()


def create_without_check_field(world, dsn):
    fields = {k: v for k, v in comment().items() if k != "createdAt"}
    world.document("boards/b1/posts/p1/comments/late").set(fields)


def create_late_from_an_offline_phone(world, dsn):
    world.document("users/u1/blockedUsers/u2").set({"blockedAt": now() - timedelta(hours=5)})


CHANGES = {
    # what was missed: collection, verdict, operation, does the window see it, does the operation lead to it
    create: ("posts", "missing", "post:create:new", True, True),
    edit_that_moves_a_check_field: ("posts", "stale", "post:update:p1", True, True),
    edit_that_moves_none: ("comments", "stale", "comment:update:cp1", False, True),
    delete_of_a_recent_document: ("comments", "extra", "comment:delete:gone", True, True),
    delete_of_an_old_document: ("comments", "extra", "comment:delete:cp1", False, True),
    # no row and no document in the window: nothing says where the document is
    create_without_check_field: ("comments", "missing", "comment:create:late", False, False),
    # the operation's id says all of the path
    create_late_from_an_offline_phone: ("blocks", "missing", "block:create:u1_u2", False, True),
}
