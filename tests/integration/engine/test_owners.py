"""Whose a contested row is, asked of real documents: of those that hold a unique key, of those on another path, and of those on
one natural key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import owners as owners_module
from dualwrite.engine.job import Job
from dualwrite.engine.owners import Owners
from dualwrite.firestore.source import Paths, Source
from dualwrite.model.conditions import Is
from dualwrite.model.declaration import Catalog
from dualwrite.model.documents import UNASKED, Document
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.report import CollectionReport
from dualwrite.postgres.target import Difference, Target
from tests.worlds import comment, like, notification, post, put, reaction

T = datetime(2026, 2, 1, tzinfo=UTC)
POST = "boards/b1/posts/p1"


@pytest.fixture
def rows(unparented_dsn) -> Iterator[psycopg.Connection]:
    """A database without rows, and without foreign keys."""
    with psycopg.connect(unparented_dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE users, boards, posts, comments, replies, likes, reactions CASCADE")
        connection.execute(
            "INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES ('p1', 'b1', 'u', 'n', 't')"
        )
        yield connection


@pytest.fixture
def owners_of(firestore, emulator, rows, unparented_dsn):
    """The owners of a collection's rows, over real parts."""

    @contextmanager
    def owners_of(name: str, catalog: Catalog = CATALOG) -> Iterator[Owners]:
        with (
            Source(firestore.project, emulator_host=emulator) as source,
            Target(lambda: postgres.connect(unparented_dsn), catalog) as target,
        ):
            yield Owners(Job(source, target, catalog, catalog[name], "run", CollectionReport(name, "compare")))

    return owners_of


def row_of(name: str, path: str, fields: dict[str, Any]) -> Row:
    [unit] = map_document(CATALOG[name], Document(path, fields, T, T)) or []
    assert isinstance(unit, Row)
    return unit


def difference(row: Row, *, exists: bool = False, columns: tuple[str, ...] = (), holders=()) -> Difference:
    return Difference(0, row, exists, "1" if exists else None, columns, (), tuple(holders), None)


def with_likes(rows: psycopg.Connection, *ids: str) -> None:
    for like_id in ids:
        rows.execute(
            "INSERT INTO likes (id, post_id, user_id, user_name) VALUES (%s, 'p1', %s, 'n')", (like_id, like_id)
        )


# --- unique keys ----------------------------------------------------------------------------------------------------------


def test_a_document_a_stale_or_an_extra_row_holds_a_unique_key(firestore, rows, owners_of):
    """A document that can't become a row keeps what it has, until a person corrected it."""
    put(firestore, {
        f"{POST}/likes/states": like(userId="u1"), f"{POST}/likes/other": like(userId="u2"),
        f"{POST}/likes/unfit": like(userId=7),
    })  # fmt: skip
    with_likes(rows, "states", "other", "unfit", "gone")
    row = row_of("likes", f"{POST}/likes/new", like(userId="u1"))
    expected = {"states": "document", "other": "stale", "unfit": "document", "gone": "extra", "rowless": "extra"}
    with owners_of("likes") as owners:
        contested = [difference(row, holders=[(name,)]) for name in expected]
        assert [owners.unknown(d) for d in contested] == [[(name,)] for name in expected]
        owners.learn([(name,) for name in [*expected, *expected]])
        assert {name: owners.holders(d) for name, d in zip(expected, contested, strict=True)} == {
            name: [state] for name, state in expected.items()
        }
        assert not any(owners.unknown(d) or owners.is_unasked(d) or owners.belongs_elsewhere(d) for d in contested)
        free = difference(row, holders=[None])
        assert (owners.unknown(free), owners.holders(free)) == ([], [])


def test_each_unique_key_is_compared_with_its_own_values(firestore, rows, owners_of):
    """A reaction has one below a comment, and another one below a reply."""
    below = f"{POST}/comments/c1/replies/r1/reactions"
    put(
        firestore,
        {f"{below}/same": reaction(), f"{below}/other": reaction(reactionUser={"userId": "u2", "userName": "n"})},
    )
    for name in ("same", "other"):
        rows.execute(
            "INSERT INTO reactions (id, reply_id, user_id, reaction_type) VALUES (%s, 'r1', %s, 'x')", (name, name)
        )
    rows.execute("INSERT INTO replies (id, comment_id, post_id, user_id, content) VALUES ('r1', 'c1', 'p1', 'u', 'c')")
    rows.execute("INSERT INTO comments (id, post_id, user_id, content) VALUES ('c1', 'p1', 'u', 'c')")
    row = row_of("reactions", f"{below}/new", reaction())
    with owners_of("reactions") as owners:
        assert owners.uniques(row) == ((None, "u1"), ("r1", "u1"))
        owners.learn([("same",), ("other",)])
        assert owners.holders(difference(row, holders=[None, ("same",)])) == ["document"]
        assert owners.holders(difference(row, holders=[None, ("other",)])) == ["stale"]
        assert owners.holders(difference(row, holders=[("other",), ("same",)])) == ["stale", "document"]


def test_a_holder_that_cant_be_asked_for_is_not_there_nor_gone(firestore, rows, owners_of):
    """Of several keys one is enough: whoever judges must wait for a person."""
    put(firestore, {f"{POST}/likes/there": like(userId="u1")})
    with_likes(rows, "there", "__x__")
    row = row_of("likes", f"{POST}/likes/new", like(userId="u1"))
    with owners_of("likes") as owners:
        owners.learn([("there",), ("__x__",), ("gone",)])
        unasked = {
            name: owners.is_unasked(difference(row, holders=[(name,) if name else None]))
            for name in ("there", "__x__", "gone", "")
        }
        assert unasked == {"there": False, "__x__": True, "gone": False, "": False}
        assert owners.is_unasked(difference(row, holders=[("there",), ("__x__",)]))


# --- another path ---------------------------------------------------------------------------------------------------------


def test_a_row_belongs_to_the_document_on_the_path_that_it_tells(firestore, rows, owners_of):
    """It says board b1; the document that is judged lies in b2, or elsewhere in b1."""
    put(firestore, {POST: post(), "boards/b2/posts/p1": post(), "boards/b2/posts/p2": post()})
    rows.execute("INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES ('p2', 'b1', 'u', 'n', 't')")
    of = {path: row_of("posts", path, post()) for path in (POST, "boards/b2/posts/p1", "boards/b2/posts/p2")}
    other_board = {"exists": True, "columns": ("title", "board_id")}
    with owners_of("posts") as owners:
        differing = {path: difference(row, **other_board) for path, row in of.items()}
        assert [owners.unknown(d) for d in differing.values()] == [[("p1",)], [("p1",)], [("p2",)]]
        owners.learn([("p1",), ("p2",)])
        assert {path: owners.belongs_elsewhere(d) for path, d in differing.items()} == {
            POST: False,  # its own
            "boards/b2/posts/p1": True,
            "boards/b2/posts/p2": False,  # nobody else's: the row is just stale
        }
        moved = of["boards/b2/posts/p1"]
        assert not owners.belongs_elsewhere(difference(moved, exists=True, columns=("title",)))
        assert not owners.belongs_elsewhere(difference(moved, exists=False, columns=("board_id",)))
    with owners_of("posts") as owners:
        asks_nobody = [difference(moved, exists=True, columns=("title",)), difference(moved, columns=("board_id",))]
        assert [owners.unknown(d) for d in asks_nobody] == [[], []]
        assert not any(owners.belongs_elsewhere(d) or owners.is_unasked(d) for d in asks_nobody)


@pytest.mark.parametrize(("name", "path", "fields"), [
    ("blocks", "users/u1/blockedUsers/u2", {"blockedAt": T}),
    ("notifications", "users/u1/notifications/n1", notification()),
])  # fmt: skip
def test_a_key_that_gives_its_path_or_none_belongs_nowhere_else(owners_of, name, path, fields):
    """Its key is the path, or several documents may share it: that is settled elsewhere."""
    row = row_of(name, path, fields)
    differing = difference(row, exists=True, columns=tuple(c.name for c in CATALOG[name].columns))
    with owners_of(name) as owners:
        assert owners.unknown(differing) == []
        assert not owners.belongs_elsewhere(differing)
        assert not owners.is_unasked(differing)


def test_of_the_paths_that_a_row_tells_the_first_existing_is_its(firestore, rows, owners_of):
    """Its comment's row leads to one post, its own column to another; one that can't be asked may be the one."""
    ids = ("both", "second", "none", "__x__")
    rows.execute("INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES ('p2', 'b1', 'u', 'n', 't')")
    rows.execute("INSERT INTO comments (id, post_id, user_id, content) VALUES ('c1', 'p1', 'u', 'c')")
    for name in ids:
        rows.execute(
            "INSERT INTO replies (id, comment_id, post_id, user_id, content) VALUES (%s, 'c1', 'p2', 'u', 'c')", (name,)
        )
    first, second = f"{POST}/comments/c1/replies", "boards/b1/posts/p2/comments/c1/replies"
    put(firestore, {f"{first}/both": comment(), f"{second}/both": comment(), f"{second}/second": comment()})
    told = {
        (path, name): difference(row_of("replies", f"{path}/{name}", comment()), exists=True, columns=("post_id",))
        for path in (first, second)
        for name in ids[:3]
    }
    with owners_of("replies") as owners:
        owners.learn([(name,) for name in ids])
        elsewhere = {at for at, of in told.items() if owners.belongs_elsewhere(of)}
        assert elsewhere == {(second, "both"), (first, "second")}, "where 'none' is, nobody has it"
        unasked = difference(told[first, "none"].row, holders=[("__x__",)])
        assert [owners.is_unasked(of) for of in (unasked, *told.values())] == [True] + [False] * len(told)


def test_a_document_that_has_no_row_owns_none(firestore, rows, owners_of):
    """It doesn't meet the condition of its collection."""
    put(
        firestore, {f"{POST}/likes/holds": like(userId="u1"), f"{POST}/likes/not": like(userId="u1", userName="hidden")}
    )
    with_likes(rows, "holds", "not")
    shown = replace(CATALOG["likes"], where=Is("userName", "n"))
    catalog = Catalog(tuple(shown if c.name == "likes" else c for c in CATALOG.collections))
    row = row_of("likes", f"{POST}/likes/new", like(userId="u1"))
    with owners_of("likes", catalog) as owners:
        owners.learn([("holds",), ("not",)])
        assert owners.holders(difference(row, holders=[("holds",)])) == ["document"]
        assert owners.holders(difference(row, holders=[("not",)])) == ["extra"]


def test_what_is_remembered_of_owners_stays_within_bounds(firestore, rows, owners_of, monkeypatch):
    monkeypatch.setattr(owners_module, "REMEMBERED", 2)
    put(firestore, {f"{POST}/likes/l1": like()})
    with_likes(rows, "l1")
    row = row_of("likes", f"{POST}/likes/new", like())
    asked: list[Key] = [("l1",), ("l2",), ("l3",)]
    with owners_of("likes") as owners:
        for number, left in ((2, []), (3, asked)):
            owners.learn(asked[:number])
            owners.forget()
            assert owners.unknown(difference(row, holders=asked[:number])) == left
        owners.learn([])
        assert owners.unknown(difference(row, holders=asked)) == asked


# --- natural keys ---------------------------------------------------------------------------------------------------------


def test_documents_share_a_natural_key_by_what_they_state(firestore, owners_of):
    """What a key doesn't state can't be searched by: who states it has another key. One that can't become a row may be the one."""
    below = "users/u1/notifications"
    fields = notification()
    del fields["postId"]
    put(firestore, {
        f"{below}/one": fields, f"{below}/two": {**fields, "message": "m2"},
        f"{below}/another": notification(), f"{below}/unfit": {**fields, "message": 7},
        "users/u2/notifications/one": fields,
    })  # fmt: skip
    plain = row_of("notifications", f"{below}/x", fields).key
    stated = row_of("notifications", f"{below}/x", notification()).key
    nobody = row_of("notifications", "users/u3/notifications/x", fields).key
    unaskable = ("__x__", *plain[1:])
    with owners_of("notifications") as owners:
        found: dict[Key, Any] = {}
        for part in owners.sharing([plain, stated, nobody, unaskable]):
            found.update(part)
        assert found[unaskable] is UNASKED
        paths = {
            key: sorted(u.path.rpartition("/")[2] for u in units)
            for key, units in found.items()
            if units is not UNASKED
        }
        assert paths == {plain: ["one", "two", "unfit"], stated: ["another"], nobody: []}
        assert {type(u) for u in found[plain] if u.path.endswith("unfit")} == {Rejection}
        everywhere = Paths(tuple(f"{below}/{name}" for name in ("one", "another", "unfit", "gone")))
        read = [u for units in owners.shared_at(plain, everywhere) for u in units]
        assert sorted(u.path.rpartition("/")[2] for u in read) == ["one", "unfit"]
