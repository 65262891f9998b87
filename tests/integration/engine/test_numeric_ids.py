"""Numeric ids (`__id7__`, which imports from Datastore make) are documents like any other; an id that Firestore can't be asked
for is neither there nor gone."""

from __future__ import annotations

import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Source
from dualwrite.model.documents import UNASKED
from dualwrite.postgres.target import Target
from dualwrite.runs.slices.cutter import Cutter
from tests import in_slices
from tests.kept import looking
from tests.support import apply, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import (
    LONG_AGO,
    board,
    club,
    comment,
    examined_until_now,
    like,
    notification,
    post,
    put,
    reaction,
    user,
)

IDS = ("__id7__", "__id-5__", "__id10__", f"__id{2**63 - 1}__", "____", "__id1")
B, P, C, R = (f"boards/{IDS[0]}", f"boards/{IDS[0]}/posts", f"{IDS[1]}/comments", f"{IDS[2]}/replies")
DOCUMENTS = {
    **{f"users/{i}": user(f"n{n}", boardPermissions={"b9": "read"}) for n, i in enumerate(IDS)},
    "boards/b9": board(),  # no key of a map may be a numeric id
    B: board(waitingUsersIds=list(IDS)),
    **{f"{P}/{i}": post(authorId=i) for i in IDS},
    **{f"{P}/{i}/likes/{i}": like(userId=i) for i in IDS},
    **{f"{P}/{IDS[1]}/comments/{i}": comment(userId=i) for i in IDS},
    **{f"{P}/{C}/{IDS[2]}/replies/{i}": comment(userId=i) for i in IDS},
    **{
        f"{P}/{C}/{IDS[2]}/replies/{IDS[0]}/reactions/{i}": reaction(reactionUser={"userId": i, "userName": "n"})
        for i in IDS
    },
    **{f"users/{IDS[0]}/blockedUsers/{i}": {"blockedAt": LONG_AGO} for i in IDS},
    **{f"users/{IDS[0]}/drafts/{i}": {"boardId": IDS[0], "title": "t", "savedAt": LONG_AGO} for i in IDS},
    **{f"{B}/reviews/{i}": {"keep": "k", "createdAt": LONG_AGO} for i in IDS},
    **{f"users/{IDS[0]}/notifications/{i}": notification(fromUserId=i, postId=i) for i in IDS},
}


def execute(dsn: str, statement: str, *parameters) -> None:
    with looking(dsn) as connection:
        connection.execute(statement, parameters or None)


def state(dsn: str) -> dict[str, list]:
    """Every key that has a row."""
    with looking(dsn) as connection:
        return {
            c.name: sorted(connection.execute(f"SELECT {', '.join(k.name for k in c.key)} FROM {c.table}").fetchall())
            for c in CATALOG
        }


def test_documents_with_numeric_ids_get_rows_in_every_collection(firestore, emulator, target_dsn):
    """Each was inserted, read as gone, and taken back; the run was green."""
    put(firestore, DOCUMENTS)
    found = apply(firestore.project, emulator, target_dsn, scope="all")
    assert {n: nonzero(r["counts"]) for n, r in found.items()} == {
        n: {"missing": 2 if n == "boards" else len(IDS)} for n in CATALOG.names
    }
    assert all(len(keys) == found[n]["inserted"] for n, keys in state(target_dsn).items())
    with gap_run(firestore.project, emulator, target_dsn) as run:
        checked = verify_all(run)
    assert {c["verification"] for c in checked.values()} == {"verified"}
    assert {v for c in checked.values() for v in nonzero(c["counts"])} == {"matching"}


def test_a_repair_of_everything_deletes_no_row_of_a_numeric_id(firestore, emulator, target_dsn):
    """After a lost edit of each document, with every write allowed, and its rows looked at from both sides."""
    put(firestore, DOCUMENTS)
    apply(firestore.project, emulator, target_dsn, scope="all")
    examined_until_now(target_dsn)
    before = state(target_dsn)
    execute(target_dsn, "UPDATE posts SET title = 'lost'")
    execute(target_dsn, "UPDATE comments SET content = 'lost'")
    execute(target_dsn, "UPDATE users SET nickname = 'lost'")
    execute(target_dsn, "UPDATE notifications SET message = 'lost'")
    found = reconciled(
        firestore.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100, grace_seconds=0
    )
    assert found.counts("posts") == {"stale": len(IDS)}
    assert state(target_dsn) == before
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0
    again = reconciled(firestore.project, emulator, target_dsn, scope="sweep", grace_seconds=0)
    assert again.alerts == []
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_a_numeric_id_that_is_really_gone_is_deleted(firestore, emulator, target_dsn):
    put(firestore, DOCUMENTS)
    apply(firestore.project, emulator, target_dsn, scope="all")
    for path in (
        f"{P}/__id10__/likes/__id10__",
        "users/__id7__/blockedUsers/__id10__",
        "users/__id7__/notifications/__id10__",
    ):
        firestore.document(path).delete()
    reconciled(firestore.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100, grace_seconds=0)
    for query in (
        "SELECT count(*) FROM likes WHERE id = '__id10__'",
        "SELECT count(*) FROM blocks WHERE blocked_id = '__id10__'",
        "SELECT count(*) FROM notifications WHERE actor_id = '__id10__'",
    ):
        assert one(target_dsn, query) == 0


def test_slices_cut_at_numeric_ids_deliver_each_document_once(firestore, emulator, target_dsn):
    """Firestore sorts them first, as numbers: -5, 2, 7, 10."""
    ids = [f"__id{n}__" for n in range(-20, 120, 7)] + [f"u{n:03}" for n in range(20)]
    put(firestore, {f"users/{i}": user(i.strip("_")) for i in ids})
    apply(firestore.project, emulator, target_dsn, scope="all", collections=["users"])
    with (
        Source(firestore.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(target_dsn), CATALOG) as target,
    ):
        slices = Cutter(source, target, CATALOG, 5).cut({"users": None})
    assert len(slices) >= 8
    assert sum(s.documents for s in slices) == len(ids)
    assert any(s.name_start and "__id" in s.name_start for s in slices)


# --- what can't be asked --------------------------------------------------------------------------------------------------

UNASKABLE = ("..", "__x__", "__id07__", "é" * 751)


@pytest.mark.parametrize("name", UNASKABLE, ids=lambda n: n[:9])
def test_a_row_whose_document_cant_be_asked_for_is_told_and_kept(firestore, emulator, target_dsn, name):
    """Nobody can look, so nothing proves that its document is gone; it was deleted."""
    club(firestore, emulator, target_dsn)
    with Source(firestore.project, emulator_host=emulator) as source:
        assert source.get([f"users/{name}"]) == {f"users/{name}": UNASKED}
        assert source.children_where_each([(f"users/{name}", {})], "notifications", ()) == [UNASKED]
    execute(target_dsn, "INSERT INTO users (id) VALUES (%s)", name)
    execute(target_dsn, "INSERT INTO blocks (blocker_id, blocked_id) VALUES ('u1', %s)", name)
    execute(
        target_dsn,
        "INSERT INTO notifications (recipient_id, type, actor_id, board_id, post_id, message) "
        "VALUES (%s, 'like_on_post', 'u1', 'b1', 'p1', 'm')",
        name,
    )
    found = reconciled(
        firestore.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100, grace_seconds=0
    )
    for collection in ("users", "blocks", "notifications"):
        assert found.counts(collection) == {"extra": 1}, collection
        assert found.sample(collection, "extra")["reason"] == "cant_be_asked"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0
    assert all("look at the row by hand: Firestore can't be asked for its document" in alert for alert in found.alerts)


def test_a_unique_key_of_a_row_that_cant_be_asked_for_is_told(firestore, emulator, target_dsn):
    """Whose the holder is nobody can know: the document's row is missing for that reason, and nothing is written."""
    club(firestore, emulator, target_dsn, {"boards/b1/posts/p1": post(), "boards/b1/posts/p1/likes/l1": like()})
    execute(target_dsn, "UPDATE likes SET id = '__x__'")
    found = apply(firestore.project, emulator, target_dsn, scope="all", collections=["likes"])["likes"]
    assert nonzero(found["counts"]) == {"missing": 1}
    assert found["samples"]["missing"][0]["reason"] == "cant_be_asked"
    assert one(target_dsn, "SELECT array_agg(id) FROM likes") == ["__x__"]


def test_a_row_of_an_impossible_id_goes_when_all_names_prove_it(firestore, emulator, target_dsn):
    """Where the proof is a complete read of names, no path is asked for: the key is nobody's."""
    club(firestore, emulator, target_dsn)
    execute(
        target_dsn,
        "INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES ('__x__', 'b1', 'u1', 'n', 't')",
    )
    reconciled(firestore.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100, grace_seconds=0)
    assert one(target_dsn, "SELECT count(*) FROM posts") == 0


def test_a_verification_in_slices_sees_numeric_ids_on_both_sides(firestore, emulator, target_dsn):
    put(firestore, DOCUMENTS)
    apply(firestore.project, emulator, target_dsn, scope="all")
    execute(target_dsn, "INSERT INTO posts (id, board_id, author_id, author_name, title) SELECT '__id8__', id, author_id, 'n', 't' "
            "FROM (SELECT board_id AS id, author_id FROM posts LIMIT 1) p")  # fmt: skip
    with gap_run(firestore.project, emulator, target_dsn, scope="all", slice_documents=2) as run:
        checked, parts = in_slices.verification(run)
    assert {p.collection for p in parts} >= {"users", "posts", "notifications"}
    assert {n: v for n, c in checked.items() for v in nonzero(c["counts"]) if v != "matching"} == {"posts": "extra"}
    assert {n for n, c in checked.items() if c["verification"] != "verified"} == {"posts"}
