"""What the dual-write helper decides without a database: which operations a change means, and what each is called."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from dualwrite import alerts, dual_write
from dualwrite.catalog import CATALOG
from dualwrite.dual_write import DualWriter, Outcome, Write, _Live
from dualwrite.model.change import Delete, change_of
from dualwrite.postgres import Connection
from dualwrite.postgres.mirrored import Mirrored

T = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)
POST = {"title": "t", "content": "c", "authorId": "u1", "authorName": "n", "createdAt": T, "updatedAt": T}
POST_PATH = "boards/b1/posts/p1"


def _nobody() -> Connection:
    raise AssertionError("connected")


@pytest.fixture
def told(monkeypatch) -> list[dict]:
    found: list[dict] = []
    monkeypatch.setattr(alerts, "write_failed", lambda text, **tags: found.append({"text": text, **tags}))
    return found


@pytest.fixture
def writer():
    made = DualWriter(_nobody)
    yield made
    made.close()


def _operations(path: str, before: dict | None, after: dict | None) -> list[str]:
    return [
        f"{n.entity_type}:{n.operation_type}:{n.entity_id}" for n in change_of(CATALOG, path, before, after, T).names
    ]


def _rows(path: str, before: dict | None, after: dict | None) -> list[str]:
    return [
        f"{'delete' if isinstance(o, Delete) else 'write'} {o.collection.table}"
        for o in change_of(CATALOG, path, before, after, T).operations
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, POST, ["post:create:p1"]),
        (POST, {**POST, "title": "new"}, ["post:update:p1"]),
        (POST, None, ["post:delete:p1"]),
        (POST, POST, []),
        (POST, {**POST, "countOfLikes": 7}, []),
        (None, None, []),
    ],
    ids=["created", "edited", "deleted", "touched", "only a counter moved", "nothing"],
)
def test_a_change_of_a_document_is_one_operation_by_its_kind(before, after, expected):
    assert _operations(POST_PATH, before, after) == expected


def test_each_entry_that_came_or_went_is_an_operation():
    """An entity that is named by the row's whole key is made and taken away entry by entry, whatever became of the
    document."""
    board = {"title": "b", "createdAt": T}
    before, after = {**board, "waitingUsersIds": ["u1", "u2"]}, {**board, "waitingUsersIds": ["u2", "u3"]}
    named = "board_waiting_users"
    assert _operations("boards/b1", before, after) == [f"{named}:delete:b1_u1", f"{named}:create:b1_u3"]
    assert _operations("boards/b1", None, before) == [f"{named}:create:b1_u1", f"{named}:create:b1_u2"]
    assert _operations("boards/b1", before, None) == [f"{named}:delete:b1_u1", f"{named}:delete:b1_u2"]


def test_rows_that_the_app_calls_one_operation_are_one_write():
    """Children are deleted first, parents are written first."""
    user = {"nickname": "a", "createdAt": T}
    before = {**user, "boardPermissions": {"b1": "read", "b2": "read"}}
    after = {**user, "nickname": "b", "boardPermissions": {"b2": "write", "b3": "read"}}
    assert _operations("users/u1", before, after) == ["user:update:u1"]
    assert _rows("users/u1", before, after) == [
        "delete user_board_permissions",
        "write users",
        "write user_board_permissions",
        "write user_board_permissions",
    ]
    assert _operations("users/u1", before, None) == ["user:delete:u1"]
    assert _rows("users/u1", before, None) == [
        "delete user_board_permissions",
        "delete user_board_permissions",
        "delete users",
    ]
    assert _operations("users/u1", None, after) == ["user:create:u1"]


def test_an_entry_whose_value_changed_is_an_update_of_its_row():
    user = {"nickname": "a", "createdAt": T}
    before, after = ({**user, "boardPermissions": {"b1": right}} for right in ("read", "write"))
    [operation] = change_of(CATALOG, "users/u1", before, after, T).operations
    assert operation.name.operation_type == "update"
    assert operation.collection.name == "user_board_permissions"
    assert operation.row.cells[:3] == ("u1", "b1", "write")


def test_json_is_handed_over_as_its_text():
    [operation] = change_of(CATALOG, POST_PATH, None, {**POST, "contentJson": {"a": 1}}, T).operations
    _, parameters = Mirrored.of(CATALOG, operation.collection).upsert(operation.row)
    assert '{"a":1}' in parameters


def test_a_path_that_the_app_does_not_dual_write_is_left_alone(writer, told):
    """It is of no collection, or of one without operations."""
    assert writer.mirror("boards/b1/holidays/h1", None, {"name": "n"}) is Outcome.NOTHING
    assert writer.mirror("boards/b1", None, {"title": 5}) is Outcome.NOTHING, "boards have no operations"
    assert told == []


def test_what_can_be_no_row_is_kept_and_its_neighbours_written():
    user = {"nickname": "a", "createdAt": T, "boardPermissions": {"b1": 5, "b2": "read"}}
    change = change_of(CATALOG, "users/u1", None, user, T)
    assert [o.name.entity_id for o in change.operations] == ["u1", "u1"]
    [kept] = change.kept
    assert kept.why.startswith("wrong_type: permission")
    assert (kept.entity_type, kept.label) == ("user", "u1/b1")
    assert change_of(CATALOG, "users/u1", user, None, T).kept == (), "what it had been is nobody's concern any more"


def test_a_document_without_a_time_has_the_one_the_server_gave(writer, monkeypatch):
    planned: list = []
    monkeypatch.setattr(DualWriter, "_ask_within", lambda self, deadline: _Live(CATALOG, 0.0))
    monkeypatch.setattr(DualWriter, "_done", lambda self, names, do, number, kept: do(None, 0.0))
    monkeypatch.setattr(DualWriter, "_write", lambda self, operations, *_: planned.extend(operations))
    without = {k: v for k, v in POST.items() if k not in ("createdAt", "updatedAt")}

    def created(**given) -> datetime:
        planned.clear()
        writer.mirror(POST_PATH, None, without, **given)
        times = [v for v in planned[0].row.cells if isinstance(v, datetime)]
        assert len(set(times)) == 1
        return times[0]

    assert created(create_time=T) == T.replace(microsecond=123000)
    assert abs((created() - datetime.now(UTC)).total_seconds()) < 60


def test_a_change_that_breaks_the_mapping_is_told_not_raised(writer, told):
    assert writer.mirror("users/u\n1", None, 5) is Outcome.FAILED
    assert told == [
        {
            "text": "failed: AttributeError",
            "entity_type": "unknown",
            "operation_type": "mirror",
            "entity_id": r"users/u\n1",
            "operations": 1,
        }
    ]


def test_an_answer_is_the_same_where_sentry_cannot_be_told(writer, monkeypatch, caplog):
    """Nothing is raised into the caller, and no committed write is called failed, because an event could not be sent."""

    def fails(text, **tags):
        raise OSError("words of another library")

    monkeypatch.setattr(alerts, "write_failed", fails)
    assert writer.mirror(POST_PATH, POST, {**POST, "title": 5}) is Outcome.REFUSED
    assert writer.mirror(POST_PATH, POST, None) is Outcome.FAILED
    assert "words" not in caplog.text


def test_nothing_to_write_takes_no_connection(writer, told):
    assert writer.dual_write_batch([]) is Outcome.NOTHING
    assert writer.mirror(POST_PATH, POST, POST) is Outcome.NOTHING
    assert told == []


def test_an_error_of_any_kind_is_told_by_its_kind_alone(told, caplog):
    def refuses() -> bool:
        raise ValueError("content of a document")

    writer = DualWriter(_nobody, enabled=refuses)
    write = {"entity_type": "post", "operation_type": "create", "entity_id": "p1", "supabase_write": print}
    assert writer.dual_write(**write) is Outcome.FAILED
    named = {"entity_type": "post", "operation_type": "create", "entity_id": "p1", "operations": 1}
    assert told == [{"text": "failed: ValueError", **named}]
    assert [r.getMessage() for r in caplog.records] == ["dual-write post:create:p1 failed"]


def test_how_a_write_ended_is_a_word_that_a_host_app_may_keep():
    assert [str(outcome) for outcome in Outcome] == [
        "written", "partly", "refused", "nothing", "off", "failed", "timed_out"
    ]  # fmt: skip


def test_a_write_gives_up_its_place_when_its_caller_goes_on(told):
    """It still waits for a thread. Each in the queue would otherwise be taken from it, looked at and dropped, before
    one that somebody waits for."""
    freed = threading.Event()

    def connect() -> Connection:
        freed.wait(5)
        raise RuntimeError

    with ThreadPoolExecutor(1) as threads:
        writer = DualWriter(connect, timeout=0.1, _processes={os.getpid(): dual_write._OfProcess(threads)})
        queued: list[Future] = []
        original = threads.submit
        threads.submit = lambda *given: queued.append(original(*given)) or queued[-1]
        write = {"entity_type": "post", "operation_type": "create", "entity_id": "p1", "supabase_write": print}
        assert [writer.dual_write(**write) for _ in range(2)] == [Outcome.TIMED_OUT] * 2
        assert [future.cancelled() for future in queued] == [False, True]
        freed.set()


def test_a_caller_is_told_how_long_it_was_kept(told):
    connects: list[float] = []

    def connect() -> Connection:
        connects.append(time.monotonic())
        time.sleep(0.3)
        raise RuntimeError

    writer = DualWriter(connect, timeout=0.1)
    write = {"entity_type": "post", "operation_type": "create", "entity_id": "p1", "supabase_write": print}
    assert writer.dual_write(**write) is Outcome.TIMED_OUT
    assert [call["text"] for call in told] == ["timed_out: no answer within 0.1 s"]
    writer.close()
    assert len(connects) == 1


@pytest.mark.parametrize(
    ("flag", "on"),
    [("true", True), ("false", False), (" FALSE ", False), ("", True), ("0", True), ("anything", True)],
)
def test_the_flag_is_off_only_where_it_says_false(flag, on, monkeypatch):
    monkeypatch.setenv("DUAL_WRITE_ENABLED", flag)
    assert dual_write.is_enabled() is on


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.0, "3000ms"), (0.0015, "1ms"), (0.0001, "1ms"), (0.5, "500ms"), (0.002, "2ms")]
)
def test_a_timeout_is_whole_milliseconds_and_at_least_one(seconds, text):
    """Zero would mean for ever."""
    assert dual_write._milliseconds(seconds) == text


def test_what_is_left_of_a_callers_patience_ends_at_its_deadline(monkeypatch):
    """It is told in seconds."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    assert dual_write._left(102.5) == 2.5
    for over in (100.0, 99.0):
        with pytest.raises(TimeoutError):
            dual_write._left(over)


def test_an_id_is_printed_as_it_is_but_for_control_characters():
    """Those are written out."""
    assert dual_write._printable("p1 가 /") == "p1 가 /"
    assert dual_write._printable("a\nb\x1b") == r"a\nb\x1b"


def test_an_operation_is_called_as_the_app_calls_it():
    assert Write("post", "create", "p1", print).name.op_id(17) == "post:create:p1:17"


def test_who_forgot_to_configure_is_told_so(monkeypatch):
    monkeypatch.setattr(dual_write, "_writer", None)
    for call in (
        lambda: dual_write.mirror(POST_PATH, None, POST),
        lambda: dual_write.dual_write_batch([]),
        lambda: dual_write.dual_write(entity_type="", operation_type="", entity_id="", supabase_write=print),
    ):
        with pytest.raises(RuntimeError, match="configure"):
            call()


def test_the_modules_functions_hand_everything_to_the_one_writer(monkeypatch):
    monkeypatch.setattr(dual_write, "_writer", None)
    flags: list[bool] = []
    dual_write.configure(_nobody, enabled=lambda: flags.append(True) or False, timeout=7.5)
    writer = dual_write._configured()
    assert (writer.connect, writer.timeout) == (_nobody, 7.5)
    named = {"entity_type": "post", "operation_type": "create", "entity_id": "p1", "supabase_write": print}
    assert dual_write.dual_write(**named) is Outcome.OFF
    assert dual_write.dual_write_batch([Write(**named)]) is Outcome.OFF
    assert dual_write.mirror(POST_PATH, None, POST, create_time=T) is Outcome.OFF
    assert flags == [True] * 3
    dual_write.configure(_nobody)
    assert dual_write._configured().timeout == 3.0
    assert dual_write._configured().enabled is dual_write.is_enabled
