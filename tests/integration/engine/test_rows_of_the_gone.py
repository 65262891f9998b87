"""Rows that name a document which is gone, in a field, while their own documents are still there: the row can't stay."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.deletes import Deletes
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field, Segment
from tests.support import one, reconciled
from tests.worlds import club, comment, examined_until_now, like, post, put, user


@pytest.fixture
def outlived(firestore, emulator, target_dsn):
    """A person is gone in Firestore alone. What that person wrote lies below somebody else's post, and its ids don't say where."""
    club(firestore, emulator, target_dsn, {
        "users/u9": user("u9"), "users/u8": user("u8"), "boards/b1/posts/p1": post(),
        "boards/b1/posts/p1/likes/l1": like(), "boards/b1/posts/p1/likes/l9": like(userId="u9"),
        "boards/b1/posts/p1/comments/c9": comment(userId="u9"),
        "boards/b1/posts/p1/comments/c9/replies/r1": comment(),
    })  # fmt: skip
    examined_until_now(target_dsn)
    firestore.document("users/u9").delete()

    def run(**changes):
        return reconciled(firestore.project, emulator, target_dsn, scope="sweep", max_share=100, **changes)

    return run


def _left(dsn: str) -> dict[str, list[str]]:
    tables = ("users", "likes", "comments", "replies")
    return {t: one(dsn, f"SELECT coalesce(array_agg(id ORDER BY id), '{{}}') FROM {t}") for t in tables}


def test_what_a_gone_person_wrote_is_extra_and_goes_first(outlived, target_dsn):
    """Also what hangs on it: the reply below the comment. Firestore keeps all of it."""
    found = outlived()
    assert {n: found.counts(n) for n in ("users", "likes", "comments", "replies")} == {
        "users": {"extra": 1}, "likes": {"extra": 1}, "comments": {"extra": 1}, "replies": {"extra": 1},
    }  # fmt: skip
    assert found.sample("likes", "extra")["reason"] == "parent_gone"
    outlived(repair="all")
    left = _left(target_dsn)
    assert "u9" not in left["users"]
    assert (left["likes"], left["comments"], left["replies"]) == (["l1"], [], [])
    again = outlived(repair="all")
    assert {n: again.counts(n) for n in ("users", "likes", "comments", "replies")} == {
        "users": {}, "likes": {"orphan": 1}, "comments": {"orphan": 1}, "replies": {"orphan": 1},
    }  # fmt: skip


def test_a_row_whose_document_names_another_by_now_stays(outlived, firestore, target_dsn):
    """The edit was lost: the row still names the one who is gone. It is stale, and no row of a living document goes."""
    firestore.document("boards/b1/posts/p1/likes/l9").update({"userId": "u8"})
    outlived(repair="all")
    outlived(repair="all")
    with psycopg.connect(target_dsn) as connection:
        assert connection.execute("SELECT id, user_id FROM likes ORDER BY id").fetchall() == [
            ("l1", "u1"),
            ("l9", "u8"),
        ]
        assert connection.execute("SELECT count(*) FROM users WHERE id = 'u9'").fetchone() == (0,)
        deleted = "SELECT count(*) FROM dualwrite.repair_journal WHERE collection = 'likes' AND action = 'delete'"
        assert connection.execute(deleted).fetchone() == (0,)


FLAGS = Collection(
    name="flags",
    table="flags",
    paths=("flags/{flag}",),
    columns=(
        Column("id", "key", DocumentId()),
        Column("user_id", "compared", Field("userId"), required=True, references="users"),
    ),
)
FLAGGED = Catalog((*CATALOG.collections, FLAGS))
WITH_FLAGS = {"catalog": FLAGGED, "collections": list(FLAGGED.names)}


def test_so_does_one_whose_key_is_its_whole_path(outlived, firestore, target_dsn):
    """Of two flags on the one who is gone, one was moved to another by an edit that was lost."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE TABLE flags (id text PRIMARY KEY, user_id text NOT NULL REFERENCES users)")
        connection.execute("INSERT INTO flags VALUES ('f8', 'u9'), ('f9', 'u9')")
    put(firestore, {"flags/f8": {"userId": "u8"}, "flags/f9": {"userId": "u9"}})
    for _ in range(2):
        outlived(**WITH_FLAGS, repair="all")
    with psycopg.connect(target_dsn) as connection:
        assert connection.execute("SELECT * FROM flags").fetchall() == [("f8", "u8")]
        journal = "SELECT row_key, action FROM dualwrite.repair_journal WHERE collection = 'flags' ORDER BY action"
        assert connection.execute(journal).fetchall() == [(["f9"], "delete"), (["f8"], "update")]


def test_a_document_that_cant_be_mapped_keeps_its_row(outlived, firestore, target_dsn):
    """An edit that was lost made the field a number: nothing says that the document still names the one who is gone."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE TABLE flags (id text PRIMARY KEY, user_id text NOT NULL REFERENCES users)")
        connection.execute("INSERT INTO flags VALUES ('f9', 'u9')")
    put(firestore, {"flags/f9": {"userId": 7}})
    for _ in range(2):
        outlived(**WITH_FLAGS, repair="all")
    assert one(target_dsn, "SELECT count(*) FROM flags WHERE id = 'f9'") == 1
    deleted = "SELECT count(*) FROM dualwrite.repair_journal WHERE collection = 'flags' AND action = 'delete'"
    assert one(target_dsn, deleted) == 0


SEATS = Collection(
    name="seats",
    table="seats",
    paths=("seats/{seat}",),
    columns=(
        Column("room", "key", Field("room"), required=True),
        Column("number", "key", Field("number"), required=True),
        Column("user_id", "compared", Field("userId"), required=True, references="users"),
    ),
)
SEATED = Catalog((*CATALOG.collections, SEATS))
WITH_SEATS = {"catalog": SEATED, "collections": list(SEATED.names)}


def test_nor_does_one_go_whose_key_is_made_of_fields(outlived, firestore, target_dsn):
    """Of three seats of the one who is gone, one was given to another, one can't be mapped any more, one is still theirs."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "CREATE TABLE seats (room text, number text, user_id text NOT NULL REFERENCES users, PRIMARY KEY (room, number))"
        )
        connection.execute("INSERT INTO seats VALUES ('r', '1', 'u9'), ('r', '2', 'u9'), ('r', '3', 'u9')")
    put(firestore, {
        "seats/s1": {"room": "r", "number": "1", "userId": "u8"},
        "seats/s2": {"room": "r", "number": "2", "userId": 7},
        "seats/s3": {"room": "r", "number": "3", "userId": "u9"},
    })  # fmt: skip
    for _ in range(2):
        outlived(**WITH_SEATS, repair="all")
    with psycopg.connect(target_dsn) as connection:
        assert connection.execute("SELECT number, user_id FROM seats ORDER BY 1").fetchall() == [
            ("1", "u8"),
            ("2", "u9"),
        ]
        journal = (
            "SELECT row_key ->> 1, action FROM dualwrite.repair_journal WHERE collection = 'seats' ORDER BY action"
        )
        assert connection.execute(journal).fetchall() == [
            ("3", "delete"),
            ("1", "update"),
        ]


def test_a_proof_that_would_read_too_much_keeps_the_rows(outlived, target_dsn):
    """It is told as such, and the next run, which may read more, deletes them."""
    before = _left(target_dsn)
    outlived(max_proof_reads=1, repair="all")
    assert {t: rows for t, rows in _left(target_dsn).items() if t != "replies"} == {
        t: rows for t, rows in before.items() if t != "replies"
    }
    found = outlived(max_proof_reads=1)
    assert found.sample("likes", "extra")["reason"] == "absence_not_proved"
    outlived(repair="all")
    assert (_left(target_dsn)["likes"], _left(target_dsn)["comments"]) == (["l1"], [])


def test_a_row_mended_on_both_sides_is_no_longer_extra(outlived, firestore, target_dsn):
    """It was extra with the one who is gone; the app has put another into the document and the row since."""
    assert outlived().counts("likes") == {"extra": 1}
    firestore.document("boards/b1/posts/p1/likes/l9").update({"userId": "u8"})
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE likes SET user_id = 'u8' WHERE id = 'l9'")
    assert outlived().counts("likes") == {}
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences WHERE collection = 'likes'") == 0


NOTES = Collection(
    name="notes",
    table="notes",
    paths=("users/{owner}/notes/{note}",),
    columns=(
        Column("id", "key", DocumentId()),
        Column("user_id", "compared", Field("userId"), required=True, references="users"),
    ),
)
OWNED = replace(NOTES, columns=(Column("owner", "key", Segment("owner")), *NOTES.columns))


@pytest.mark.parametrize("notes", [NOTES, OWNED], ids=["by id", "by whole path"])
@pytest.mark.parametrize("now", ["u8", 7], ids=["another", "no id"])
def test_lying_below_a_gone_document_proves_nothing(outlived, firestore, target_dsn, notes, now):
    """Firestore keeps what is below it; what the row needs is what its field names."""
    catalog = Catalog((*CATALOG.collections, notes))
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "CREATE TABLE notes (owner text DEFAULT 'u9', id text, user_id text NOT NULL REFERENCES users, "
            f"PRIMARY KEY ({', '.join(c.name for c in notes.key)}))"
        )
        connection.execute("INSERT INTO notes (id, user_id) VALUES ('n1', 'u9')")
    put(firestore, {"users/u9/notes/n1": {"userId": now}})
    for _ in range(2):
        outlived(catalog=catalog, collections=list(catalog.names), repair="all")
    assert one(target_dsn, "SELECT user_id FROM notes") == ("u8" if now == "u8" else "u9")
    deleted = "SELECT count(*) FROM dualwrite.repair_journal WHERE collection = 'notes' AND action = 'delete'"
    assert one(target_dsn, deleted) == 0


def test_an_open_row_that_names_another_by_now_is_stale(outlived, firestore):
    """Whether or not anything is repaired, and though the one who is gone still has a row."""
    assert outlived().counts("likes") == {"extra": 1}
    firestore.document("boards/b1/posts/p1/likes/l9").update({"userId": "u8"})
    assert outlived().counts("likes") == {"stale": 1}


def test_a_delete_is_confirmed_once_it_is_proved_again(outlived, firestore, target_dsn, monkeypatch):
    """The like's document is gone; after its row it is made again below another post, and there are more names than may be read."""
    put(firestore, {"users/u9": user("u9"), "boards/b1/posts/p5": post()})
    firestore.document("boards/b1/posts/p1/likes/l9").delete()
    likes = {f"boards/b1/posts/p1/likes/m{n}": like() for n in range(3)}
    moved = {**likes, "boards/b1/posts/p5/likes/l9": like(userId="u9")}
    real = Deletes.confirm

    def confirm(self):
        if self._deleted:
            put(firestore, moved)
            moved.clear()
        return real(self)

    with monkeypatch.context() as patched:
        patched.setattr(Deletes, "confirm", confirm)
        outlived(repair="all", max_proof_reads=2)
    unconfirmed = "SELECT count(*) FROM dualwrite.repair_journal WHERE collection = 'likes' AND confirmed_at IS NULL"
    assert one(target_dsn, unconfirmed) == 1
    outlived(repair="all")
    assert one(target_dsn, "SELECT count(*) FROM likes WHERE id = 'l9'") == 1
    assert one(target_dsn, unconfirmed) == 0


def test_one_who_comes_back_keeps_what_they_wrote(outlived, firestore, target_dsn):
    before = _left(target_dsn)
    assert outlived().counts("comments") == {"extra": 1}
    put(firestore, {"users/u9": user("u9")})
    outlived(repair="all")
    assert _left(target_dsn) == before
