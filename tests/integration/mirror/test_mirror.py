"""`mirror` beside what documents, events and people do: no row of a living document goes, and every answer is true."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualwrite import alerts, postgres
from dualwrite.catalog import CATALOG
from dualwrite.dual_write import Changed, DualWriter, Outcome
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog, Collection, Column, CreateTime, DocumentId, Field, Operations
from dualwrite.model.documents import UNASKED, Document
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.postgres.target import Target
from tests.databases import clone
from tests.integration.mirror.test_round_trip import documents
from tests.integration.mirrored import insert_ancestors
from tests.proxy import proxy
from tests.support import one
from tests.wire import wire

T = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = T + timedelta(days=1)
USER = {"nickname": "n", "createdAt": T, "boardPermissions": {"b1": "read", "b2": "write"}}
POST = {"title": "t", "content": "c", "authorId": "u1", "authorName": "n", "createdAt": T, "updatedAt": T}
COMMENT = {"content": "c", "userId": "u1", "createdAt": T}
LIKE = {"userId": "u1", "createdAt": T}
NOTICE = {"type": "like_on_post", "postId": "p1", "fromUserId": "u2", "message": "m", "timestamp": T}
WRITTEN, PARTLY, REFUSED, NOTHING, FAILED = (
    Outcome.WRITTEN, Outcome.PARTLY, Outcome.REFUSED, Outcome.NOTHING, Outcome.FAILED,
)  # fmt: skip


@pytest.fixture(params=["postgres_server", "postgres15_server"], ids=["18", "15"])
def target_dsn(request):
    yield from clone(request.getfixturevalue(request.param), "migrated")


@pytest.fixture
def told(monkeypatch) -> list[dict]:
    found: list[dict] = []
    monkeypatch.setattr(alerts, "write_failed", lambda text, **tags: found.append({"text": text, **tags}))
    return found


@pytest.fixture
def writer(target_dsn):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u1'), ('u2')")
        connection.execute("INSERT INTO boards (id, title) VALUES ('b1', 'b'), ('b2', 'b')")
    writer = DualWriter(lambda: postgres.connect(target_dsn))
    yield writer
    writer.close()


@pytest.fixture
def mirror(writer):
    return lambda path, before, after: writer.mirror(path, before, after, create_time=T)


def _counts(dsn: str, *tables: str) -> tuple[int, ...]:
    return tuple(one(dsn, f"SELECT count(*) FROM {table}") for table in tables)


@pytest.fixture
def post(mirror):
    """A post with three comments and a like, mirrored."""
    mirror("boards/b1/posts/p1", None, POST)
    for n in range(3):
        mirror(f"boards/b1/posts/p1/comments/c{n}", None, COMMENT)
    mirror("boards/b1/posts/p1/likes/l1", None, LIKE)


# --- what can't become a row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"title": 5},
        {"title": "a\x00b"},
        {"weekDaysFromFirstDay": 2**40},
        {"contentJson": {"a": b"bytes"}},
        {"authorId": None},
        {"createdAt": "yesterday"},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_an_edit_that_breaks_a_document_keeps_row_and_all_below(post, mirror, target_dsn, told, fault):
    """Rejected isn't gone: the row stays as it was, and the caller and Sentry are told."""
    assert mirror("boards/b1/posts/p1", POST, {**POST, "content": "new", **fault}) is REFUSED
    assert _counts(target_dsn, "posts", "comments", "likes") == (1, 3, 1)
    assert one(target_dsn, "SELECT content FROM posts") == "c"
    assert [t["entity_id"] for t in told] == ["p1"]
    told.clear()
    assert mirror("boards/b1/posts/p1", {**POST, **fault}, {**POST, "content": "mended"}) is WRITTEN
    assert one(target_dsn, "SELECT content FROM posts") == "mended"
    assert told == []


def test_a_nickname_that_is_a_number_does_not_take_the_account(mirror, target_dsn, told):
    mirror("users/u3", None, USER)
    mirror("boards/b1/posts/p3", None, {**POST, "authorId": "u3"})
    broken = {**USER, "nickname": 5, "boardPermissions": {"b1": "read"}}
    assert mirror("users/u3", USER, broken) is PARTLY, "the permission is taken away"
    assert _counts(target_dsn, "users", "posts", "user_board_permissions") == (3, 1, 1)
    assert [t["entity_id"] for t in told] == ["u3"]


def test_a_list_of_entries_that_becomes_a_number_keeps_its_rows(mirror, target_dsn, told):
    mirror("users/u3", None, USER)
    assert mirror("users/u3", USER, {**USER, "boardPermissions": 5}) is REFUSED
    assert _counts(target_dsn, "user_board_permissions") == (2,)
    assert mirror("users/u3", {**USER, "boardPermissions": 5}, {**USER, "boardPermissions": {"b1": "read"}}) is PARTLY
    assert "so its key isn't known" in told[-1]["text"]
    waiting = {"title": "b", "waitingUsersIds": ["u1"]}
    mirror("boards/b1", None, waiting)
    assert mirror("boards/b1", waiting, {"title": "b", "waitingUsersIds": ["u1", 5, ""]}) is REFUSED
    assert mirror("boards/b1", {"title": "b", "waitingUsersIds": ["u1", 5]}, {"title": "b"}) is WRITTEN
    assert _counts(target_dsn, "board_waiting_users") == (0,)


def test_a_document_that_was_broken_and_is_deleted_takes_its_row(post, mirror, target_dsn, told):
    """The path gives its key, and the row tells the path; whatever else the document said."""
    broken = {**POST, "title": 5}
    mirror("boards/b1/posts/p1", POST, broken)
    assert mirror("boards/b1/posts/p1", broken, None) is WRITTEN
    assert _counts(target_dsn, "posts", "comments", "likes") == (0, 0, 0)
    entries = {**USER, "boardPermissions": {"b1": 5, "b2": "read"}}
    mirror("users/u3", None, USER)
    assert mirror("users/u3", entries, {**USER, "boardPermissions": {"b2": "write"}}) is WRITTEN
    assert one(target_dsn, "SELECT array_agg(board_id) FROM user_board_permissions") == ["b2"]


def test_a_broken_notification_that_is_deleted_leaves_its_row(mirror, writer, target_dsn, told):
    """Its key is made of its fields, so the row can't be named: it is left, and that is told."""
    writer.siblings = lambda question: []
    mirror("users/u1/notifications/n1", None, NOTICE)
    broken = {**NOTICE, "message": 5}
    assert mirror("users/u1/notifications/n1", NOTICE, broken) is REFUSED
    assert mirror("users/u1/notifications/n1", broken, None) is REFUSED
    assert _counts(target_dsn, "notifications") == (1,)
    assert len(told) == 2


# --- whose row it is --------------------------------------------------------------------------------------------------------

OLD, NEW = "boards/b1/posts/p1", "boards/b2/posts/p1"


def test_a_document_moved_by_create_then_delete_keeps_its_row(post, mirror, target_dsn, told):
    assert mirror(NEW, None, POST) is WRITTEN
    assert mirror(OLD, POST, None) is REFUSED
    assert one(target_dsn, "SELECT board_id FROM posts") == "b2"
    assert _counts(target_dsn, "posts", "comments", "likes") == (1, 3, 1)
    assert [t["text"] for t in told] == ["left: the row gives another path than the document's, or another birth"]


def test_a_document_moved_by_delete_then_create_has_its_row(post, mirror, target_dsn, told):
    """What stood below the old path is gone from Postgres, as in the app: those documents have no post any more."""
    assert mirror(OLD, POST, None) is WRITTEN
    assert mirror(NEW, None, POST) is WRITTEN
    assert mirror(f"{NEW}/comments/c0", None, COMMENT) is WRITTEN
    assert one(target_dsn, "SELECT board_id FROM posts") == "b2"
    assert _counts(target_dsn, "posts", "comments", "likes") == (1, 1, 0)


def test_nothing_below_a_moved_document_goes_by_its_old_path(post, mirror, target_dsn, told):
    """A comment's row doesn't hold its board: the post's row tells it."""
    mirror(NEW, None, POST)
    mirror(f"{NEW}/comments/c0", None, COMMENT)
    assert mirror(f"{OLD}/comments/c0", COMMENT, None) is REFUSED
    assert mirror(f"{OLD}/likes/l1", LIKE, None) is REFUSED
    assert _counts(target_dsn, "comments", "likes") == (3, 1)
    assert mirror(f"{NEW}/comments/c0", COMMENT, None) is WRITTEN
    assert _counts(target_dsn, "comments", "likes") == (2, 1)


def test_of_two_documents_of_one_id_a_late_edit_takes_no_row(post, mirror, target_dsn, told):
    """Else the delete that follows it would find the row at the old path, and take it from the living document."""
    mirror(NEW, None, POST)
    assert mirror(OLD, POST, {**POST, "title": "late"}) is REFUSED
    assert mirror(OLD, {**POST, "title": "late"}, None) is REFUSED
    assert one(target_dsn, "SELECT (board_id, title) FROM posts") == ("b2", "t")
    assert mirror(NEW, POST, {**POST, "title": "new"}) is WRITTEN
    assert one(target_dsn, "SELECT title FROM posts") == "new"


def test_a_row_with_wrong_columns_is_mended_and_not_deleted(post, mirror, target_dsn, told):
    """A reply's post_id is denormalised; the comment that it references tells the path."""
    reply = f"{OLD}/comments/c0/replies/r1"
    mirror(reply, None, COMMENT)
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE replies SET post_id = 'elsewhere'")
    assert mirror(reply, COMMENT, None) is REFUSED
    assert mirror(reply, COMMENT, {**COMMENT, "content": "d"}) is WRITTEN
    assert one(target_dsn, "SELECT (post_id, content) FROM replies") == ("p1", "d")
    assert mirror(reply, {**COMMENT, "content": "d"}, None) is WRITTEN


@pytest.mark.parametrize(
    ("path", "fields", "table"),
    [
        ("users/u1/blockedUsers/u2", {"blockedAt": T}, "blocks"),
        (OLD, POST, "posts"),
        ("users/u3", USER, "user_board_permissions"),
    ],
    ids=["block", "post", "user with permissions"],
)
def test_a_delete_after_the_next_creation_takes_nothing(mirror, target_dsn, told, path, fields, table):
    """Blocked, unblocked, blocked again: the events may come in any order. The row tells another birth."""
    again = {**fields, **dict.fromkeys(fields.keys() & {"createdAt", "blockedAt"}, LATER)}
    mirror(path, None, fields)
    assert mirror(path, None, again) is WRITTEN
    before = _counts(target_dsn, table)
    assert mirror(path, fields, None) is REFUSED
    assert _counts(target_dsn, table) == before != (0,)
    assert mirror(path, again, None) is WRITTEN
    assert _counts(target_dsn, table) == (0,)


def test_a_row_that_a_trigger_dates_is_deleted_with_its_document(post, mirror, target_dsn, told):
    """What the row says beside its path and its birth may be older, or another's word: it is the document's all the same."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE posts SET updated_at = now(), title = 'a lost edit'")
    assert mirror(OLD, POST, None) is WRITTEN
    assert _counts(target_dsn, "posts") == (0,)


def test_a_row_that_is_gone_already_is_no_failure(mirror, target_dsn, told):
    assert mirror(OLD, POST, None) is WRITTEN
    assert told == []


def test_a_row_that_row_security_hides_is_not_called_deleted(post, target_dsn, told):
    """What a role may not see isn't absent."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE ROLE hidden_helper")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO hidden_helper")

    def connect():
        connection = postgres.connect(target_dsn)
        connection.execute("SET ROLE hidden_helper")
        return connection

    writer = DualWriter(connect)
    try:
        assert writer.mirror(OLD, POST, None, create_time=T) is REFUSED
        with psycopg.connect(target_dsn) as connection:
            connection.execute("CREATE POLICY all_rows ON posts TO hidden_helper USING (true)")
        assert writer.mirror("boards/b1/posts/gone", POST, None, create_time=T) is WRITTEN, "a policy shows every row"
    finally:
        writer.close()
        with psycopg.connect(target_dsn) as connection:
            connection.execute("DROP OWNED BY hidden_helper")
            connection.execute("DROP ROLE hidden_helper")
    assert _counts(target_dsn, "posts") == (1,)
    assert [t["text"] for t in told] == ["left: no row can be seen, and row-level security may hide it"]


# --- natural keys -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asks(writer, firestore, emulator):
    """The writer asks Firestore, as docs/dual-write.md shows it."""
    with Source(firestore.project, emulator_host=emulator) as source:

        def siblings(question):
            asked = [(question.parent, question.equals)]
            [found] = source.children_where_each(asked, question.collection_id, question.fields)
            return found

        writer.siblings = siblings
        yield


@pytest.fixture
def change(firestore, mirror):
    """Changes a document in Firestore, then mirrors that."""

    def changed(path: str, after: dict | None) -> Outcome:
        document = firestore.document(path)
        before = document.get().to_dict()
        if after is None:
            document.delete()
        else:
            document.set(after)
        return mirror(path, before, after)

    return changed


ONE, TWO = "users/u1/notifications/n1", "users/u1/notifications/n2"


def test_a_natural_keys_row_stays_when_one_of_two_documents_goes(asks, change, target_dsn, told):
    """The row becomes the other one's; it goes with the last."""
    assert change(ONE, NOTICE) is WRITTEN
    assert change(TWO, {**NOTICE, "message": "the other"}) is WRITTEN
    assert change(ONE, {**NOTICE, "read": True}) is WRITTEN
    assert change(ONE, None) is WRITTEN
    assert one(target_dsn, "SELECT array_agg(message || read::text) FROM notifications") == ["the otherfalse"]
    assert change(TWO, None) is WRITTEN
    assert _counts(target_dsn, "notifications") == (0,)
    assert told == []


def test_a_changed_natural_key_leaves_its_old_row_to_siblings(asks, change, target_dsn, told):
    other = {**NOTICE, "type": "comment_on_post"}
    change(ONE, NOTICE)
    change(TWO, NOTICE)
    assert change(ONE, other) is WRITTEN
    assert one(target_dsn, "SELECT array_agg(type::text ORDER BY type) FROM notifications") == [
        "comment_on_post", "like_on_post",
    ]  # fmt: skip
    assert change(TWO, other) is WRITTEN
    assert one(target_dsn, "SELECT array_agg(type::text) FROM notifications") == ["comment_on_post"]
    assert told == []


def test_a_sibling_that_cannot_become_a_row_keeps_the_row(asks, change, target_dsn, told):
    change(ONE, NOTICE)
    assert change(TWO, {**NOTICE, "message": 5}) is REFUSED
    assert change(ONE, None) is REFUSED
    assert _counts(target_dsn, "notifications") == (1,)
    assert told[-1]["text"] == "left: a document that may have its key can't become a row"


def test_a_shared_key_whose_documents_nobody_can_ask_for_is_left(mirror, writer, target_dsn, told):
    mirror(ONE, None, NOTICE)
    assert mirror(ONE, NOTICE, None) is REFUSED
    assert mirror(ONE, NOTICE, {**NOTICE, "type": "comment_on_post"}) is PARTLY
    writer.siblings = lambda question: UNASKED
    assert mirror(ONE, NOTICE, None) is REFUSED
    assert _counts(target_dsn, "notifications") == (2,)
    assert {t["text"] for t in told} == {
        "left: other documents may have its key, and Firestore could not be asked (configure siblings=)"
    }


def test_a_sibling_created_while_it_is_asked_for_keeps_its_row(mirror, writer, target_dsn, told):
    """Its client writes the row between our question and our delete: the row is no longer of the version that was read."""

    def siblings(question):
        with psycopg.connect(target_dsn) as client:
            client.execute("UPDATE notifications SET message = 'of the new one'")
        return []

    mirror(ONE, None, NOTICE)
    writer.siblings = siblings
    assert mirror(ONE, NOTICE, None) is REFUSED
    assert one(target_dsn, "SELECT message FROM notifications") == "of the new one"


def test_a_question_that_fails_deletes_nothing_and_is_told(mirror, writer, target_dsn, told):
    def siblings(question):
        raise ConnectionError("words that may quote a document")

    mirror(ONE, None, NOTICE)
    writer.siblings = siblings
    assert mirror(ONE, NOTICE, None) is FAILED
    assert _counts(target_dsn, "notifications") == (1,)
    assert [t["text"] for t in told] == ["failed: ConnectionError"]


# --- many changes in a batch ------------------------------------------------------------------------------------------------

THINGS = Collection(
    name="things",
    table="things",
    paths=("things/{id}",),
    columns=(
        Column("id", "key", DocumentId()),
        Column("name", "compared", Field("name")),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp"),
    ),
    operations=(Operations("thing", ("id",)),),
)


@pytest.fixture
def things(target_dsn, told):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE TABLE things (id text PRIMARY KEY, name text, created_at timestamptz(3))")
    writer = DualWriter(lambda: postgres.connect(target_dsn), catalog=Catalog((THINGS,)))
    yield writer
    writer.close()


def _rows(dsn: str) -> list[tuple]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT id, name, created_at FROM things ORDER BY 1").fetchall()


def _born(name: str, at: datetime, stated: bool) -> dict:
    return {"name": name, **({"createdAt": at} if stated else {})}


BORN, REBORN = T.replace(microsecond=123000), LATER.replace(microsecond=123000)


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "stand-in"])
def test_a_batch_that_begins_with_known_events_ends_alike(things, target_dsn, told, stated):
    """Created, changed, changed back, deleted, created again, changed, deleted. Of the events that came already, any last ones come
    again before the next ones, in one batch: the row is what the document is at the batch's end."""
    a, b, a2, c, d = (
        _born(name, at, stated) for name, at in [("a", BORN), ("b", BORN), ("a", BORN), ("c", REBORN), ("d", REBORN)]
    )
    states = [None, a, b, a2, None, c, d, None]
    events = [Changed("things/x", states[n], states[n + 1], REBORN if n > 3 else BORN) for n in range(len(states) - 1)]
    for known in range(len(states)):
        for first in range(known + 1):
            for last in range(max(known, first + 1), len(states)):
                with psycopg.connect(target_dsn) as connection:
                    connection.execute("DELETE FROM things")
                for event in events[:known]:
                    things.mirror_batch([event])
                told.clear()
                assert things.mirror_batch(events[first:last]) is WRITTEN, (known, first, last)
                is_now = states[last]
                wanted = [("x", is_now["name"], REBORN if last > 4 else BORN)] if is_now else []
                assert (_rows(target_dsn), told) == (wanted, []), (known, first, last)


def test_events_of_a_batch_in_another_order_lose_no_row(things, target_dsn, told):
    a, b = ({"name": name, "createdAt": BORN} for name in "ab")
    again = {"name": "c", "createdAt": REBORN}
    assert things.mirror_batch([Changed("things/x", a, b), Changed("things/x", None, a)]) is WRITTEN
    assert _rows(target_dsn) == [("x", "a", BORN)], "an older value: it is stale"
    late = [Changed("things/x", None, again), Changed("things/x", a, None)]
    for batch in late, [*late, late[1]], [late[0], Changed("things/x", a, b), *late]:
        assert things.mirror_batch(batch) is WRITTEN
        assert _rows(target_dsn) == [("x", "c", REBORN)], "a late delete of an earlier creation"


def test_the_create_time_of_any_event_of_a_batch_counts(things, target_dsn, told):
    a, b = {"name": "a"}, {"name": "b"}
    assert things.mirror_batch([Changed("things/x", None, a, BORN), Changed("things/x", a, b)]) is WRITTEN
    assert _rows(target_dsn) == [("x", "b", BORN)]


def test_an_entry_of_a_state_in_between_goes(mirror, writer, target_dsn, told):
    few, many = {**USER, "boardPermissions": {"b1": "read"}}, USER
    mirror("users/u3", None, few)
    added = Changed("users/u3", few, many, T)
    assert writer.mirror_batch([added]) is WRITTEN
    assert writer.mirror_batch([added, Changed("users/u3", many, few, T)]) is WRITTEN
    assert one(target_dsn, "SELECT array_agg(board_id) FROM user_board_permissions") == ["b1"]
    assert told == []


def test_a_rejected_last_state_keeps_the_row_in_a_batch(mirror, writer, target_dsn, told):
    mirror(OLD, None, POST)
    edited, broken = {**POST, "content": "d"}, {**POST, "title": 5}
    assert writer.mirror_batch([Changed(OLD, POST, edited, T), Changed(OLD, edited, broken, T)]) is REFUSED
    assert (_counts(target_dsn, "posts"), len(told)) == ((1,), 1)


def test_two_batches_of_the_same_documents_never_fail(things, target_dsn, told):
    """Deletes in two orders lock alike. Where one deletes what the other edits, the one that Postgres ends tries again."""
    things.timeout = 20
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_sleep(0.3); RETURN coalesce(NEW, OLD); END$$"
        )
        connection.execute("CREATE TRIGGER slow AFTER DELETE OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION slow()")
    a, b = {"name": "a"}, {"name": "b"}
    gone = [Changed(f"things/{name}", a, None) for name in "xy"]
    edited = [Changed(f"things/{name}", a, b, BORN) for name in "xy"]
    pairs = [(gone, gone[::-1]), ([gone[0], edited[1]], [gone[1], edited[0]])]
    for one_batch, other in pairs:
        with psycopg.connect(target_dsn) as connection:
            connection.execute("INSERT INTO things SELECT unnest(ARRAY['x', 'y']), 'a'")
        with ThreadPoolExecutor(2) as threads:
            assert set(threads.map(things.mirror_batch, [one_batch, other])) <= {WRITTEN, PARTLY, REFUSED}
        with psycopg.connect(target_dsn) as connection:
            connection.execute("DELETE FROM things")


# --- a change that is many rows ---------------------------------------------------------------------------------------------


def test_a_waiting_list_of_150_far_away_is_written_in_time(writer, target_dsn, told):
    """At 10 ms a round trip, within the three seconds; and what fails is one event."""
    names = [f"w{n}" for n in range(150)]
    with psycopg.connect(target_dsn) as connection:
        connection.execute("INSERT INTO users (id) SELECT unnest(%s::text[])", (names,))
    server = psycopg.conninfo.conninfo_to_dict(target_dsn)
    with proxy(str(server["host"]), int(server["port"]), seconds_late=0.005) as far:
        dsn = f"postgresql://postgres@127.0.0.1:{far.port}/{target_dsn.rsplit('/', 1)[1]}"
        away = DualWriter(lambda: postgres.connect(dsn))
        board = {"title": "b", "createdAt": T}
        full = {**board, "waitingUsersIds": names}
        assert away.mirror("boards/b1", board, full, create_time=T) is WRITTEN
        assert _counts(target_dsn, "board_waiting_users", "write_ops") == (150, 150)
        assert away.mirror("boards/b1", full, board, create_time=T) is WRITTEN
        assert _counts(target_dsn, "board_waiting_users", "write_ops") == (0, 300)
        assert told == []
        wrong = {**board, "waitingUsersIds": [f"nobody{n}" for n in range(150)]}
        assert away.mirror("boards/b1", board, wrong, create_time=T) is FAILED
        assert [t["operations"] for t in told] == [150], "one event"
        told.clear()
        assert away.mirror("boards/b1", board, {**board, "waitingUsersIds": [5] * 150}, create_time=T) is REFUSED
        assert len(told) == 1
        away.close()


def test_a_change_takes_as_many_round_trips_as_the_docs_say(writer, target_dsn, told):
    """However many rows it means: 1, 2 or 150. The first one of a process also asks for the tables' columns."""
    names = [f"w{n}" for n in range(150)]
    with psycopg.connect(target_dsn) as connection:
        connection.execute("INSERT INTO users (id) SELECT unnest(%s::text[])", (names,))
    asked: list[str] = []
    counts = []
    board = {"title": "b", "createdAt": T}
    with wire(target_dsn, lambda message: asked.append(message.text)) as dsn:
        away = DualWriter(lambda: postgres.connect(dsn))
        for had, has in ([], names[:1]), (names[:1], []), ([], names[:2]), (names[:2], names), (names, []):
            asked.clear()
            before, after = ({**board, "waitingUsersIds": listed} for listed in (had, has))
            assert away.mirror("boards/b1", before, after, create_time=T) is WRITTEN
            counts.append(len(asked))
        notice = "users/u1/notifications/n1"
        assert away.mirror(notice, None, NOTICE, create_time=T) is WRITTEN
        away.siblings = lambda _: []
        asked.clear()
        assert away.mirror(notice, NOTICE, None, create_time=T) is WRITTEN
        shared = len(asked)
        away.close()
    assert (counts, shared) == ([9, 6, 6, 6, 6], 9), "docs/dual-write.md, Time"


# --- the property -----------------------------------------------------------------------------------------------------------

junk = st.sampled_from(
    [5, 2.5, "", "a\x00b", "a/b", b"bytes", 2**40, True, None, T, [], ["x", 5], {"a": b"b"}, {"b": 5}]
)


@st.composite
def histories(draw, collection):
    """A document, then what it is after each of two changes, at one path; any field of these may be anything."""
    first = draw(documents(collection))
    states = [first.fields]
    for _ in range(2):
        fields = draw(documents(collection)).fields if draw(st.booleans()) else dict(states[0])
        for name in draw(st.lists(st.sampled_from([f.split(".")[0] for f in collection.fields]), max_size=2)):
            fields[name] = draw(junk)
        states.append(draw(st.sampled_from([fields, fields, fields, None])))
    return first.path, states


def _table(connection: psycopg.Connection, table: str) -> list:
    return connection.execute(f"SELECT xmin::text, t::text FROM {table} t ORDER BY 2").fetchall()


@pytest.mark.parametrize("collection", [c for c in CATALOG if c.operations], ids=lambda c: c.name)
def test_no_change_deletes_a_living_row_and_each_answer_is_true(collection, unparented_dsn, told):
    """Whatever a document was and becomes: what it states has its row, what is rejected keeps its row, the rest is gone,
    unless the answer says that something was left."""
    seen: set[Outcome] = set()
    with (
        Target(lambda: postgres.connect(unparented_dsn), CATALOG) as target,
        psycopg.connect(unparented_dsn, autocommit=True) as beside,
    ):
        writer = DualWriter(lambda: postgres.connect(unparented_dsn), timeout=30, siblings=lambda question: [])

        def step(path: str, before: dict | None, after: dict | None, held: dict) -> bool:
            """One change; `held` is what the table holds of the document, by key: the entry. False where Postgres refused."""
            was = _table(beside, collection.table)
            told.clear()
            outcome = writer.mirror(path, before, after, create_time=T)
            seen.add(outcome)
            now = _table(beside, collection.table)
            if outcome is FAILED:
                assert now == was
                return False
            units = [] if after is None else map_document(collection, Document(path, after, T, T)) or []
            rows = {u.key: u for u in units if isinstance(u, Row)}
            refused = [u for u in units if isinstance(u, Rejection)]
            with target.transaction() as connection:
                assert target.compare(connection, collection, list(rows.values())).differences == []
                keys = list(dict.fromkeys([*held, *rows]))
            present = set(target.versions(collection, keys))
            for key, entry in held.items():
                kept = any(r.entire or r.entry == entry for r in refused)
                assert key in present or (key not in rows and not kept), "a row of a living document"
                if key in present and key not in rows and not kept:
                    assert any(t["text"].startswith("left") for t in told)
            if outcome in (REFUSED, NOTHING):
                assert now == was
            if outcome in (WRITTEN, NOTHING):
                assert told == []
                assert present == set(rows)
            if outcome in (PARTLY, REFUSED):
                assert told
            entries = {**held, **{u.key: u.entry for u in rows.values()}}
            living = {
                key
                for key, entry in entries.items()
                if key in rows or any(r.entire or r.entry == entry for r in refused)
            }
            held.clear()
            held.update({key: entries[key] for key in present & living})  # what was left is the reconciliation's
            return True

        @settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
        @given(histories(collection))
        def holds(history):
            path, (first, second, third) = history
            beside.execute("TRUNCATE " + ", ".join({c.table for c in CATALOG}))
            insert_ancestors(beside, path)
            held: dict = {}
            before = None
            for after in (first, second, third, None):
                if step(path, before, after, held):
                    before = after
                else:
                    return

        try:
            holds()
        finally:
            writer.close()
    assert seen >= {WRITTEN, REFUSED}, "a property of nothing proves nothing"
