"""A row is deleted only where no document of its collection has its key, wherever that document is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.absence import Absence
from dualwrite.engine.deletes import Deletes
from dualwrite.engine.units import Policy
from dualwrite.firestore.source import Source
from dualwrite.model.report import CollectionReport
from dualwrite.runs import backfill
from tests.support import examiner_of, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import (
    LONG_AGO,
    board,
    club,
    comment,
    discussion,
    like,
    notification,
    post,
    put,
    reaction,
    user,
)

N = 16
"""More than any collection has columns: each gets a row of its own to be wrong in."""

DOCUMENTS = {
    **{f"boards/x{i}": board(waitingUsersIds=["u1"]) for i in range(N)},
    **{f"users/x{i}": user(f"x{i}", boardPermissions={f"x{i}": "read"}) for i in range(N)},
    "boards/b1/posts/spare": post(),
    "boards/b1/posts/spare/comments/spare": comment(),
    "boards/b1/posts/spare/comments/spare/replies/spare": comment(),
    **{f"boards/b1/posts/p{i}": post(contentJson={"a": i, "b": [1, {"z": 1, "y": 2}]}) for i in range(N)},
    **{f"boards/b1/posts/p{i}/comments/c{i}": comment() for i in range(N)},
    **{f"boards/b1/posts/p{i}/comments/c{i}/replies/r{i}": comment() for i in range(N)},
    **{f"boards/b1/posts/p{i}/likes/l{i}": like() for i in range(N)},
    **{f"boards/b1/posts/p{i}/comments/c{i}/reactions/a{i}": reaction() for i in range(0, N, 2)},
    **{f"boards/b1/posts/p{i}/comments/c{i}/replies/r{i}/reactions/a{i}": reaction() for i in range(1, N, 2)},
    **{f"users/x{i}/blockedUsers/u1": {"blockedAt": LONG_AGO} for i in range(N)},
    **{f"users/x{i}/drafts/d{i}": {"boardId": "b1", "title": "t", "savedAt": LONG_AGO} for i in range(N)},
    **{f"boards/x{i}/reviews/u1": {"keep": "k", "nps": 7, "willContinue": True, "createdAt": LONG_AGO} for i in range(N)},
    **{f"users/x{i}/notifications/n{i}": notification() for i in range(N)},
}  # fmt: skip

WRONG = ("spare", "x0", "x1", "b2", "u3", "private", "write", "eligible", "reply_on_post", "wrong", "wrong'")
"""Values of text columns to be wrong with: what exists first, so that foreign keys let them in."""


def _corrupt(connection: psycopg.Connection, collection, column, key_of_row: list) -> bool:
    """Makes one column of one row wrong. False where the schema lets no wrong value in."""
    same = " AND ".join(f"{c.name} = %s" for c in collection.key)
    others: dict[str, list] = {"timestamp": ["2001-02-03"], "integer": [77], "numeric": [77], "json": ['{"w": 1}']}
    candidates = others.get(column.type) or ([True, False] if column.type == "boolean" else WRONG)
    for value in candidates:
        try:
            with connection.transaction():
                done = connection.execute(
                    f"UPDATE {collection.table} SET {column.name} = %s WHERE {same} AND {column.name} IS DISTINCT FROM %s",
                    [value, *key_of_row, value],
                )
                if done.rowcount:
                    return True
        except psycopg.errors.IntegrityError:
            continue
    return False


@pytest.fixture(scope="module")
def full_world(emulator, postgres_server):
    """Rows and documents of all collections; a database of the test's own."""
    import uuid

    from google.cloud import firestore as library

    from tests.databases import clone

    client = library.Client(project=f"t{uuid.uuid4().hex[:12]}")
    for dsn in clone(postgres_server, "migrated"):
        club(client, emulator, dsn, DOCUMENTS)
        yield client, dsn
    client.close()


@pytest.mark.parametrize("name", CATALOG.names)
def test_no_wrong_column_deletes_a_living_documents_row(name, full_world, emulator):
    """Found from the row's side, where its path is guessed from its columns, with every write allowed."""
    client, dsn = full_world
    collection = CATALOG[name]
    keys = ", ".join(c.name for c in collection.key)
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = [
            list(r) for r in connection.execute(f"SELECT {keys} FROM {collection.table} ORDER BY {keys}").fetchall()
        ]
        living, left = {tuple(row) for row in rows}, list(rows)
        for column in collection.columns:
            spoiled = next((row for row in left if _corrupt(connection, collection, column, row)), None)
            assert spoiled or column.role != "compared", f"no wrong value fits {column.name}"
            left.remove(spoiled or left[0])
    report = CollectionReport(name, "write")
    with examiner_of(client, emulator, dsn, report, Policy(True, True, True), name) as examiner:
        examiner.examine_units(
            examiner.units_of([key for page in examiner.job.target.keys(collection) for key in page])
        )
    report.check_identity()
    with psycopg.connect(dsn, autocommit=True) as connection:
        deleted = connection.execute(
            "SELECT ARRAY(SELECT jsonb_array_elements_text(row_key)) FROM dualwrite.repair_journal "
            "WHERE run_id = %s AND action = 'delete'",
            (name,),
        ).fetchall()
        assert not {tuple(key) for (key,) in deleted} & living
    # What was wrong in a key is missing now, and comes back; then all is as it was.
    reconciled(
        client.project, emulator, dsn, scope="sweep", repair="all", max_share=100, grace_seconds=0, collections=[name]
    )
    with gap_run(client.project, emulator, dsn) as run:
        assert nonzero(verify_all(run, [name])[name]["counts"]).keys() == {"matching"}


@pytest.fixture
def at_work(firestore, emulator, target_dsn):
    """A post with a comment and a reply; everything examined until now."""
    discussion(firestore, emulator, target_dsn)
    return firestore


@pytest.fixture
def run(at_work, emulator, target_dsn):
    def run(**changes):
        return reconciled(at_work.project, emulator, target_dsn, **changes)

    return run


def _execute(dsn: str, statement: str, *parameters) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement, parameters or None)


def test_a_reply_with_a_wrong_post_id_is_stale_and_corrected(at_work, target_dsn, run):
    """Its post_id is denormalised."""
    _execute(target_dsn, "UPDATE replies SET post_id = 'p2', updated_at = now() WHERE id = 'r1'")
    found = run(repair="all")
    assert found.counts("replies") == {"stale": 1}
    assert found.alerts == []
    assert one(target_dsn, "SELECT post_id FROM replies WHERE id = 'r1'") == "p1"
    assert one(target_dsn, "SELECT count(*) FROM reactions") == 1
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0


def test_a_reply_whose_row_names_another_comment_keeps_its_row(at_work, target_dsn, run):
    """No path that the row tells has the document: only all the names do."""
    put(at_work, {"boards/b1/posts/p2/comments/c2": comment()})
    run(repair="missing", scope="sweep")
    _execute(target_dsn, "UPDATE replies SET comment_id = 'c2', post_id = 'p2', updated_at = now() WHERE id = 'r1'")
    found = run(repair="all")
    assert found.counts("replies") == {"stale": 1}
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT comment_id FROM replies WHERE id = 'r1'") == "c1"


def test_a_post_on_another_board_now_is_stale_and_never_deleted(at_work, target_dsn, run):
    at_work.document("boards/b1/posts/p1").delete()
    put(at_work, {"boards/b2/posts/p1": post(createdAt=LONG_AGO, updatedAt=LONG_AGO)})
    _execute(target_dsn, "INSERT INTO write_ops VALUES ('post:update:p1:1780000000000', %s)", datetime.now(UTC))
    found = run()
    assert found.counts("posts") == {"stale": 1}
    assert "extra" not in found.alerts[0]
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT board_id FROM posts WHERE id = 'p1'") == "b2"
    assert one(target_dsn, "SELECT count(*) FROM comments") == 1
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0


def test_a_post_that_moves_during_its_delete_gets_its_row_back(at_work, emulator, target_dsn):
    """The proof is made again after the delete: the document came in between, at a path that nobody thought of."""
    at_work.document("boards/b1/posts/p2").delete()
    report = CollectionReport("posts", "delete")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(delete=True)) as examiner:
        original = examiner.job.target.delete

        def delete(*arguments):
            put(at_work, {"boards/b2/posts/p2": post()})
            return original(*arguments)

        examiner.job.target.delete = delete
        examiner.examine_units(examiner.units_of([("p2",)]))
    assert report.deleted == 1
    assert one(target_dsn, "SELECT board_id FROM posts WHERE id = 'p2'") == "b2"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_a_row_that_a_client_wrote_since_our_read_is_not_deleted(at_work, emulator, target_dsn):
    """1. p2 has no document and its row is read; 2. a client creates the document again and writes its row; 3. we delete:
    the row is no longer the one that was read. Deleting and restoring it would lose what only the row has."""
    at_work.document("boards/b1/posts/p2").delete()
    report = CollectionReport("posts", "delete")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(delete=True)) as examiner:
        original = examiner.job.target.delete

        def delete(*arguments):
            put(at_work, {"boards/b1/posts/p2": post(title="again")})
            _execute(target_dsn, "UPDATE posts SET title = 'again', count_of_likes = 7 WHERE id = 'p2'")
            return original(*arguments)

        examiner.job.target.delete = delete
        examiner.examine_units(examiner.units_of([("p2",)]))
    assert report.deleted == 0
    assert one(target_dsn, "SELECT title, count_of_likes FROM posts WHERE id = 'p2'") == ("again", 7)
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE run_id = 'r'") == 0


def test_a_row_stays_where_the_proof_of_absence_costs_too_much(at_work, emulator, target_dsn):
    """Too many reads: the report gives that as the reason."""
    at_work.document("boards/b1/posts/p2").delete()
    report = CollectionReport("posts", "delete")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(delete=True, max_proof_reads=0)) as examiner:
        examiner.examine_units(examiner.units_of([("p2",)]))
    assert report.as_json()["samples"]["extra"][0]["reason"] == "absence_not_proved"
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p2'") == 1


def test_a_row_below_a_document_that_nobody_could_look_for_stays(at_work, emulator, target_dsn):
    """Its post is elsewhere, among more names than may be read: what can't be asked isn't gone."""
    at_work.document("boards/b1/posts/p1").delete()
    put(at_work, {
        "boards/b2/posts/p1": post(), "boards/b1/posts/p3": post(),
        "boards/b1/posts/p1/likes/l1": like(),
    })  # fmt: skip
    _execute(target_dsn, "INSERT INTO likes (id, post_id, user_id) VALUES ('l1', 'p1', 'u1')")
    report = CollectionReport("likes", "delete")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(delete=True, max_proof_reads=2)) as examiner:
        [unit] = examiner.units_of([("l1",)])
        examiner.examine_units([replace(unit, requires="boards/b1/posts/p1")])
    assert report.as_json()["samples"]["extra"][0]["reason"] == "absence_not_proved"
    assert one(target_dsn, "SELECT count(*) FROM likes WHERE id = 'l1'") == 1


def test_a_row_whose_path_nobody_can_tell_is_never_deleted(at_work, emulator, target_dsn):
    """No document can have this id, so no look at a path proves anything."""
    _execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, content) VALUES ('a/b', 'p1', 'u1', 'c')")
    report = CollectionReport("comments", "delete")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(delete=True)) as examiner:
        examiner.examine_units(examiner.units_of([("a/b",)]))
    assert report.as_json()["samples"]["extra"][0]["reason"] == "path_unknown"
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'a/b'") == 1


def test_a_post_moved_before_the_confirmation_gets_its_row_back(at_work, emulator, target_dsn, monkeypatch):
    """1. p2's row is deleted; 2. the run is killed; 3. an admin makes p2 anew on another board; 4. the next run finishes."""
    at_work.document("boards/b1/posts/p2").delete()
    with monkeypatch.context() as killed:
        killed.setattr(Deletes, "confirm", lambda self: [])
        with examiner_of(
            at_work, emulator, target_dsn, CollectionReport("posts", "delete"), Policy(delete=True)
        ) as examiner:
            examiner.examine_units(examiner.units_of([("p2",)]))
    put(at_work, {"boards/b2/posts/p2": post()})
    with examiner_of(
        at_work, emulator, target_dsn, CollectionReport("posts", "finish"), Policy(delete=True)
    ) as examiner:
        assert examiner.protocol.finish_journal() == 1
    assert one(target_dsn, "SELECT board_id FROM posts WHERE id = 'p2'") == "b2"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_comments_of_a_moved_post_stay_when_its_old_path_goes(at_work, target_dsn, run):
    """Its dependents are extra only while no document at all has the post's id."""
    at_work.document("boards/b1/posts/p1").delete()
    assert run(scope="sweep").sample("comments", "extra")["reason"] == "parent_gone"
    put(at_work, {"boards/b2/posts/p1": post()})
    run(repair="all", max_share=100)
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0
    assert run(repair="all", scope="sweep").alerts == []
    assert one(target_dsn, "SELECT board_id FROM posts WHERE id = 'p1'") == "b2"
    assert one(target_dsn, "SELECT count(*) FROM comments") == 1
    assert one(target_dsn, "SELECT count(*) FROM replies") == 1


@pytest.mark.parametrize("repair", ["all"])
def test_a_shared_keys_row_stays_while_another_document_owns_it(repair, at_work, target_dsn, run):
    put(at_work, {"users/u1/notifications/n1": notification()})
    assert run(repair="missing", scope="sweep").alerts == []
    later = datetime.now(UTC)
    put(at_work, {"users/u1/notifications/n2": notification(timestamp=later, message="the second")})
    at_work.document("users/u1/notifications/n1").update({"message": "edited"})
    run(scope="sweep")  # n1 is stale, and open under its path
    at_work.document("users/u1/notifications/n1").delete()
    found = run(repair=repair, max_share=100)
    assert "extra" not in found.counts("notifications")
    run(repair=repair, scope="sweep", max_share=100)
    assert one(target_dsn, "SELECT array_agg(message) FROM notifications") == ["the second"]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0


def test_an_inserted_row_stays_if_another_document_has_its_key(at_work, emulator, target_dsn, monkeypatch):
    """Step 5 of the backfill: the older of two notifications on one key is deleted while its row is inserted."""
    put(at_work, {
        "users/u1/notifications/n1": notification(message="older"),
        "users/u1/notifications/n2": notification(message="younger", timestamp=LONG_AGO + timedelta(hours=1)),
    })  # fmt: skip
    with gap_run(at_work.project, emulator, target_dsn, collections=["notifications"], scope="all") as gap:
        original, acted = gap.target.insert, []

        def insert(*arguments, **named):
            if not acted:
                acted.append(at_work.document("users/u1/notifications/n1").delete())
            return original(*arguments, **named)

        monkeypatch.setattr(gap.target, "insert", insert)
        backfill.examine(gap, "notifications", dry=False)
    assert one(target_dsn, "SELECT array_agg(message) FROM notifications") == ["younger"]


# --- the proof by itself ----------------------------------------------------------------------------------------------------


def test_a_complete_read_tells_each_place_of_a_key(firestore, emulator, caplog):
    """Read up to its cap, once for each collection; what nobody asked for, or could look for, isn't gone."""
    caplog.set_level("INFO")
    posts, comments = CATALOG["posts"], CATALOG["comments"]
    put(firestore, {path: post() for path in ("boards/b1/posts/p", "boards/b2/posts/p", "boards/b1/posts/other")})
    put(firestore, {"boards/b1/posts/p/comments/c": comment(), "elsewhere/x/posts/p": post()})
    with Source(firestore.project, emulator_host=emulator) as source:
        absence = Absence(source, 4)
        absence.look(posts, [("p",), ("gone",)])
        assert absence.paths(posts, ("p",)) == ["boards/b1/posts/p", "boards/b2/posts/p"]
        assert absence.paths(posts, ("gone",)) == []
        assert absence.paths(posts, ("other",)) is None
        assert absence.paths(comments, ("p",)) is None
        absence.look(comments, [("c",), ("p",)])
        assert [absence.paths(comments, (key,)) for key in "cp"] == [["boards/b1/posts/p/comments/c"], []]
        assert absence.paths(posts, ("gone",)) == []
        assert absence.reads == 5
        refused = Absence(source, 3)
        refused.look(posts, [("gone",)])
        billed = source.billed_reads
        refused.look(CATALOG["notifications"], [("u1", "like_on_post", "p", "", "", "u2")])
        assert refused.paths(CATALOG["notifications"], ("u1", "like_on_post", "p", "", "", "u2")) is None
        assert source.billed_reads == billed, "a key made of fields is asked for in another way"
        assert (refused.reads, refused.paths(posts, ("gone",))) == (0, None)
    assert caplog.messages == [
        "posts: reading 4 names, to prove that no document has a key",
        "comments: reading 1 names, to prove that no document has a key",
        "posts: proving that no document has a key would read 4 names, more than max_proof_reads = 3",
    ]


def test_an_unreadable_entry_may_be_any_of_its_documents(firestore, emulator, caplog):
    """A row is kept by a bad entry of its key, and by a list that is none; not by an empty one, or another's."""
    caplog.set_level("INFO")
    permissions = {"u1": {"b1": "read"}, "u2": 7, "u3": {"b1": ["bad"]}, "u4": {}, "u5": None}
    put(firestore, {f"users/{u}": user(u, boardPermissions=given) for u, given in permissions.items()})
    keys = [(u, b) for u in (*permissions, "u6") for b in ("b1", "b2")]
    with Source(firestore.project, emulator_host=emulator) as source:
        absence = Absence(source, 100)
        absence.look(CATALOG["user_board_permissions"], keys)
        found = [key for key in keys if absence.paths(CATALOG["user_board_permissions"], key)]
    assert found == [("u1", "b1"), ("u2", "b1"), ("u2", "b2"), ("u3", "b1")]
    assert absence.reads == 5
    assert absence.paths(CATALOG["user_board_permissions"], ("u2", "b2")) == ["users/u2"]
    assert caplog.messages == ["user_board_permissions: reading 5 documents, to prove that no document has a key"]
