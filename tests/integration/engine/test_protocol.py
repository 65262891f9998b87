"""The writing protocol over real parts: whose a row is, what is written first, and what is settled when."""

from __future__ import annotations

import threading
from dataclasses import replace

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dualwrite.catalog import CATALOG
from dualwrite.engine.units import Policy, unit_of
from dualwrite.engine.whereabouts import Whereabouts
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Verdict
from dualwrite.runs import backfill
from tests.support import examiner_of, gap_run, nonzero, one
from tests.worlds import comment, discussion, notification, post, put


@pytest.fixture
def at_work(firestore, emulator, target_dsn):
    discussion(firestore, emulator, target_dsn)
    return firestore


def _execute(dsn: str, statement: str, *parameters) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement, parameters or None)


def test_a_post_in_its_place_is_not_sought_where_its_row_says(at_work, emulator, target_dsn):
    """Two boards have the id, and the row is the other one's."""
    put(at_work, {"boards/b2/posts/p2": post(title="the other")})
    _execute(target_dsn, "UPDATE posts SET board_id = 'b2', title = 'the other' WHERE id = 'p2'")
    report = CollectionReport("posts", "look")
    with examiner_of(at_work, emulator, target_dsn, report, Policy()) as examiner:
        [finding] = examiner.protocol.run([unit_of(CATALOG["posts"], ("p2",), "boards/b1/posts/p2")], Policy())
    assert (finding.verdict, finding.path) == (Verdict.DUPLICATE, "boards/b1/posts/p2")


def test_the_thread_that_confirms_inserts_ends_with_the_look(at_work, emulator, target_dsn):
    put(at_work, {"boards/b1/posts/p3": post()})
    report = CollectionReport("posts", "write")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(insert=True)) as examiner:
        examiner.scan(None, 10)
    assert report.inserted == 1
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("confirm")]


def test_a_shared_keys_row_belongs_to_the_document_it_equals(at_work, emulator, target_dsn):
    """A client wrote the younger's row: the older has no claim to it, and nothing is written."""
    put(at_work, {"users/u1/notifications/n1": notification(message="older")})
    put(at_work, {"users/u1/notifications/n2": notification(message="younger")})
    with gap_run(at_work.project, emulator, target_dsn, collections=["notifications"], scope="all") as gap:
        backfill.examine(gap, "notifications", dry=False)
    assert one(target_dsn, "SELECT array_agg(message) FROM notifications") == ["older"]
    _execute(target_dsn, "UPDATE notifications SET message = 'younger'")
    report = CollectionReport("notifications", "look")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(insert=True, update=True)) as examiner:
        [key] = [key for page in examiner.job.target.keys(CATALOG["notifications"]) for key in page]
        examiner.examine_units(examiner.units_of([key]))
        older = unit_of(CATALOG["notifications"], key, "users/u1/notifications/n1")
        assert [f.verdict for f in examiner.protocol.run([older], Policy())] == [Verdict.DUPLICATE]
        at_work.document("users/u1/notifications/n1").delete()
        assert [f.verdict for f in examiner.protocol.run([older], Policy(delete=True))] == [Verdict.MATCHING]
    assert nonzero(report.as_json()["counts"]) == {"matching": 1}
    assert one(target_dsn, "SELECT array_agg(message) FROM notifications") == ["younger"]


def test_a_document_with_another_key_now_is_looked_at_there(at_work, emulator, target_dsn):
    """Though another document has its old one."""
    first, second = ("users/u1/notifications/n1", "users/u1/notifications/n2")
    put(at_work, {first: notification(), second: notification()})
    with gap_run(at_work.project, emulator, target_dsn, collections=["notifications"], scope="all") as gap:
        backfill.examine(gap, "notifications", dry=False)
    report = CollectionReport("notifications", "look")
    with examiner_of(at_work, emulator, target_dsn, report, Policy()) as examiner:
        [key] = [key for page in examiner.job.target.keys(CATALOG["notifications"]) for key in page]
        at_work.document(first).update({"fromUserId": "u3"})
        row = unit_of(CATALOG["notifications"], key, first)
        [of_document] = examiner.protocol.run([replace(row, label="u1/n1")], Policy())
        [of_row] = examiner.protocol.run([row], Policy())
    assert of_document.verdict is Verdict.MISSING
    assert of_document.key != key
    assert (of_row.verdict, of_row.key, of_row.path) == (Verdict.MATCHING, key, second), "it isn't extra"


def test_a_document_created_between_two_questions_keeps_its_row(at_work, emulator, target_dsn, monkeypatch):
    """1. nobody has the key; 2. a client creates the document again; 3. its own path is read. The row stays."""
    path = "users/u1/notifications/n1"
    put(at_work, {path: notification()})
    with gap_run(at_work.project, emulator, target_dsn, collections=["notifications"], scope="all") as gap:
        backfill.examine(gap, "notifications", dry=False)
    report = CollectionReport("notifications", "look")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(delete=True)) as examiner:
        [key] = [key for page in examiner.job.target.keys(CATALOG["notifications"]) for key in page]
        whereabouts = examiner.protocol.whereabouts
        original = whereabouts.sharing

        def sharing(keys):
            monkeypatch.setattr(whereabouts, "sharing", original)
            at_work.document(path).delete()
            answer = original(keys)
            put(at_work, {path: notification()})
            return answer

        monkeypatch.setattr(whereabouts, "sharing", sharing)
        [finding] = examiner.protocol.run([unit_of(CATALOG["notifications"], key, path)], Policy(delete=True))
    assert finding.verdict is Verdict.MATCHING
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0


def test_a_dry_run_counts_two_documents_of_one_key_as_one_row(at_work, emulator, target_dsn):
    """Though they come on two pages."""
    for name in ("n1", "n2"):
        put(at_work, {f"users/u1/notifications/{name}": notification()})
    report = CollectionReport("notifications", "dry")
    with examiner_of(at_work, emulator, target_dsn, report, Policy()) as examiner:
        examiner.scan(None, 1)
    assert nonzero(report.as_json()["counts"]) == {"missing": 1, "duplicate": 1}


def test_a_stale_row_whose_new_parent_has_no_row_gets_it_first(at_work, emulator, target_dsn):
    """The reply's document moved to another comment, which dual-write lost."""
    reply = "boards/b1/posts/p1/comments/c2/replies/r1"
    put(at_work, {"boards/b1/posts/p1/comments/c2": comment(), reply: comment()})
    at_work.document("boards/b1/posts/p1/comments/c1/replies/r1").delete()
    report = CollectionReport("replies", "write")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(insert=True, update=True)) as examiner:
        examiner.examine_units([unit_of(CATALOG["replies"], ("r1",), reply)])
    assert nonzero(report.as_json()["counts"]) == {"stale": 1}
    assert one(target_dsn, "SELECT comment_id FROM replies WHERE id = 'r1'") == "c2"


def test_a_row_that_came_back_is_not_deleted_twice_by_one_run(at_work, emulator, target_dsn, monkeypatch):
    """1. p2's row is deleted; 2. its document is created again, which step 5 sees; 3. a client writes the row and deletes the
    document. Two that take turns like this must not keep the run for ever: the next one deletes it."""
    document = at_work.document("boards/b1/posts/p2")
    row = one(target_dsn, "SELECT to_jsonb(p) FROM posts p WHERE id = 'p2'")
    document.delete()
    original = Whereabouts.back

    def back(whereabouts, units):
        document.set(post())
        there = original(whereabouts, units)
        _execute(target_dsn, "INSERT INTO posts SELECT * FROM jsonb_populate_record(NULL::posts, %s)", Jsonb(row))
        document.delete()
        return there

    monkeypatch.setattr(Whereabouts, "back", back)
    report = CollectionReport("posts", "delete")
    with examiner_of(at_work, emulator, target_dsn, report, Policy(delete=True)) as examiner:
        examiner.examine_units(examiner.units_of([("p2",)]))
    assert report.deleted == 1
    assert nonzero(report.as_json()["counts"]) == {"extra": 1}
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p2'") == 1
