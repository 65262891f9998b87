"""Reading Firestore whole: streams that break, streams that end early, pins that grow old."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from dualwrite.firestore import failures, long_read
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.declaration import ALL_FIELDS
from dualwrite.model.documents import UNASKED
from dualwrite.model.errors import IncompleteRead, SourceError
from dualwrite.model.windows import Window

T = datetime(2026, 2, 1, tzinfo=UTC)
WINDOW = Window(T, T + timedelta(days=1))
SCANS = [
    Scan("comments", ("content",), check_field="createdAt", window=WINDOW),
    Scan("comments", ("content",)),
]


class Broken(grpc.RpcError):
    """What a stream raises in the middle; the emulator can't be made to."""

    def __init__(self, code: grpc.StatusCode, details: str = "a fault made by the test") -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


class Call:
    """A real stream that breaks, or just ends, after some answers."""

    def __init__(self, call, after: int, error: grpc.RpcError | None) -> None:
        self._call, self._after, self._error = call, after, error

    def __iter__(self) -> Iterator:
        for number, answer in enumerate(self._call):
            if number >= self._after:
                if self._error is None:
                    return
                raise self._error
            yield answer
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        self._call.cancel()


@pytest.fixture
def source(firestore, emulator):
    batch = firestore.batch()
    for i in range(57):
        # Many share a time: the cursor must tell them apart by name.
        at = T + timedelta(minutes=i // 10)
        batch.set(firestore.document(f"boards/b{i % 3}/posts/p/comments/c{i:03}"), {"content": "x", "createdAt": at})
    batch.commit()
    with Source(firestore.project, emulator_host=emulator) as opened:
        yield opened


def _read(source: Source, scan: Scan, page_size: int = 10) -> list[str]:
    return [d.path for page in source.pages(scan, page_size) for d in page.documents]


@pytest.mark.parametrize("scan", SCANS, ids=["window", "all"])
@pytest.mark.parametrize("page_size", [1, 7, 57, 5000])
def test_a_scan_delivers_each_document_once_in_order(source, scan, page_size):
    paths = _read(source, scan, page_size)
    assert len(paths) == len(set(paths)) == 57
    assert source.billed_reads == 57 + 1


@pytest.mark.parametrize("scan", SCANS, ids=["window", "all"])
@pytest.mark.parametrize("after", [0, 1, 9, 10, 11, 56, 57])
def test_a_broken_stream_goes_on_after_the_last_document(source, scan, after, monkeypatch):
    whole = _read(source, scan)
    faults = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL]
    original = source.wire.run_query

    def breaking(*args, **kwargs):
        call = original(*args, **kwargs)
        return Call(call, after, Broken(faults.pop())) if faults else call

    monkeypatch.setattr(source.wire, "run_query", breaking)
    assert _read(source, scan) == whole
    assert not faults


class CuttingProxy:
    """Forwards one TCP port to the emulator, and cuts each of the first connections after some bytes of answers."""

    def __init__(self, host: str, cuts: list[int]) -> None:
        name, port = host.split(":")
        self._target = (name, int(port))
        self._cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                budget = self._cuts.pop(0) if self._cuts else None
                for ends in ((near, far, None), (far, near, budget)):
                    self._threads.append(threading.Thread(target=self._forward, args=ends))
                    self._threads[-1].start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket, left: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2000):
                sink.sendall(data)
                left = None if left is None else left - len(data)
                if left is not None and left <= 0:
                    break
        _shut(source, sink)

    def close(self) -> None:
        _shut(self._listener, *self._sockets)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scan", SCANS, ids=["window", "all"])
def test_a_connection_cut_in_a_stream_loses_nothing(source, scan, emulator):
    whole = _read(source, scan)
    cuts = [3000, 5000, 8000]
    proxy = CuttingProxy(emulator, cuts)
    try:
        with Source(source.project, emulator_host=proxy.host) as cut:
            assert _read(cut, scan) == whole
    finally:
        proxy.close()
    assert len(cuts) < 2, "at least one connection was cut, and another one took over"


@pytest.mark.parametrize("delivered", [0, 40, 56])
def test_a_stream_that_ends_early_is_an_incomplete_read(delivered, source, monkeypatch):
    """The stream tells no error."""
    original = source.wire.run_query
    monkeypatch.setattr(source.wire, "run_query", lambda *a, **k: Call(original(*a, **k), delivered, None))
    with pytest.raises(IncompleteRead, match=f"delivered {delivered} of the 57"):
        _read(source, SCANS[0])


class Losing(Call):
    """A real stream from which one answer is lost in the middle, or comes twice."""

    def __init__(self, call, number: int, times: int) -> None:
        super().__init__(call, 0, None)
        self._number, self._times = number, times

    def __iter__(self) -> Iterator:
        for number, answer in enumerate(self._call):
            yield from [answer] * (self._times if number == self._number else 1)


@pytest.mark.parametrize("pin_seconds", [0, 3000], ids=["several pins", "one pin"])
@pytest.mark.parametrize("times", [0, 2], ids=["lost", "twice"])
def test_a_document_lost_or_repeated_is_an_incomplete_read(times, pin_seconds, source, monkeypatch):
    monkeypatch.setattr(long_read, "PIN_SECONDS", pin_seconds)
    original = source.wire.run_query
    monkeypatch.setattr(source.wire, "run_query", lambda *a, **k: Losing(original(*a, **k), 4, times))
    with pytest.raises(IncompleteRead, match="comments delivered"):
        _read(source, SCANS[0])


def test_a_read_past_its_pin_pins_anew_and_loses_nothing(source, monkeypatch):
    monkeypatch.setattr(long_read, "PIN_SECONDS", 0)
    for scan in SCANS:
        paths = _read(source, scan, 10)
        assert len(paths) == len(set(paths)) == 57


def _create_last(firestore) -> str:
    """A document that sorts behind all others in both scans."""
    path = "boards/b9/posts/p/comments/z"
    firestore.document(path).set({"content": "x", "createdAt": T + timedelta(hours=1)})
    return path


@pytest.mark.parametrize("scan", SCANS, ids=["window", "all"])
@pytest.mark.parametrize("pin_seconds", [0, 3000], ids=["outlived", "in time"])
def test_only_a_read_past_its_pin_sees_what_was_created_since(scan, pin_seconds, source, firestore, monkeypatch):
    """Firestore refuses a read_time older than an hour: a read that kept the first one would fail there for ever."""
    monkeypatch.setattr(long_read, "PIN_SECONDS", pin_seconds)
    pages = source.pages(scan, 10)
    paths = [d.path for d in next(pages).documents]
    last = _create_last(firestore)  # the reader is at most three pages ahead, and waits
    paths += [d.path for page in pages for d in page.documents]
    assert len(paths) == len(set(paths))
    assert (last in paths) == (pin_seconds == 0)


def test_a_stream_that_breaks_at_an_old_pin_goes_on_at_a_new_one(source, firestore, monkeypatch):
    monkeypatch.setattr(long_read, "PIN_SECONDS", 0)
    faults = [grpc.StatusCode.UNAVAILABLE]
    original = source.wire.run_query
    created = []

    def breaking(*args, **kwargs):
        call = original(*args, **kwargs)
        if not faults:
            return call
        created.append(_create_last(firestore))
        return Call(call, 10, Broken(faults.pop()))

    monkeypatch.setattr(source.wire, "run_query", breaking)
    paths = _read(source, SCANS[1], 5000)
    assert len(paths) == len(set(paths)) == 58
    assert created[0] in paths


def test_documents_that_come_and_go_do_not_disturb_the_count(source, firestore):
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            firestore.document(f"boards/b0/posts/p/comments/new{i % 5}").set({"content": "y", "createdAt": T})
            firestore.document(f"boards/b0/posts/p/comments/new{(i + 2) % 5}").delete()
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            assert 57 <= len(_read(source, SCANS[0])) <= 62
    finally:
        stop.set()
        writer.join()


PRECONDITIONS = {
    "a missing index": (
        "The query requires a COLLECTION_GROUP_ASC index for collection comments and field createdAt. You can create it "
        "here: https://console.firebase.google.com/...",
        "index that this query needs is missing: open the link above, or deploy docs/firestore.indexes.json",
    ),
    "a missing composite index": (
        "The query requires an index. You can create it here: https://console.firebase.google.com/...",
        "index that this query needs is missing",
    ),
    "an index that is being built": (
        "The query requires an index. That index is currently building and cannot be used yet. See its status here: ...",
        "is being built. Run again when it is ready",
    ),
    "a database in Datastore mode": (
        "The Cloud Firestore API is not available for Firestore in Datastore Mode database projects/p/databases/d.",
        "in Datastore mode. Set a database in native mode",
    ),
    "a read_time that has expired": (
        "The requested read_time is too old.",
        "too old.. Correct the cause that it names",
    ),
}
"""What Firestore answers for each, in words of the production service; the emulator can't be made to."""


@pytest.mark.parametrize("case", PRECONDITIONS)
def test_a_failed_precondition_is_told_as_what_it_is_at_once(case, source, monkeypatch):
    words, told = PRECONDITIONS[case]
    calls = []
    original = source.wire.run_query

    def refusing(*args, **kwargs):
        calls.append(1)
        return Call(original(*args, **kwargs), 0, Broken(grpc.StatusCode.FAILED_PRECONDITION, words))

    monkeypatch.setattr(source.wire, "run_query", refusing)
    with pytest.raises(SourceError, match=told) as refused:
        _read(source, SCANS[0])
    assert words in str(refused.value), "with Firestore's own words, the link among them"
    assert ("is missing" in told) == ("deploy docs/firestore.indexes.json" in str(refused.value))
    assert len(calls) == 1


def test_a_server_that_never_answers_ends_in_a_clear_error(monkeypatch):
    monkeypatch.setattr(failures, "PATIENCE_SECONDS", 0.5)
    with Source("p", emulator_host="127.0.0.1:1") as nobody, pytest.raises(SourceError, match="UNAVAILABLE.*emulator"):
        nobody.count(SCANS[1])


def test_get_tells_there_from_gone_from_what_cant_be_asked(source):
    found = source.get(
        ["boards/b0/posts/p/comments/c000", "boards/none", "users/a/b", "users/__x__", "users/"], ["content"]
    )
    assert {path: d if d in (None, UNASKED) else d.path for path, d in found.items()} == {
        "boards/b0/posts/p/comments/c000": "boards/b0/posts/p/comments/c000",
        "boards/none": None,
        "users/a/b": UNASKED,
        "users/__x__": UNASKED,
        "users/": UNASKED,
    }


def test_every_read_of_all_fields_gives_whole_documents(source):
    """A column of the whole document: a document that is read without its fields would be written as nulls."""
    [path], whole = ["boards/b0/posts/p/comments/c000"], {"content": "x", "createdAt": T}
    for fields in ((ALL_FIELDS,), ("content", ALL_FIELDS)):
        scanned = [d for page in source.pages(Scan("comments", fields), 10) for d in page.documents]
        [below] = source.children_where_each([("boards/b0/posts/p", {"content": "x"})], "comments", fields)
        [got] = source.get([path], fields).values()
        [[in_parts]] = [part.values() for part in source.get_in_parts([path], fields)]
        for document in (
            next(d for d in scanned if d.path == path),
            next(d for d in below if d.path == path),
            got,
            in_parts,
        ):
            assert document.fields == whole


def test_closing_a_scan_early_ends_its_thread(source):
    pages = source.pages(SCANS[0], 1)
    next(pages)
    pages.close()
    assert not [t for t in threading.enumerate() if t.name == "read comments"]


def test_long_work_tells_its_progress(source, firestore, emulator, target_dsn, monkeypatch, caplog):
    from dualwrite.engine import progress
    from tests.support import dry_run

    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger="dualwrite")
    dry_run(firestore.project, emulator, target_dsn, collections=["comments"], page_size=10)
    assert "comments: 10 of 57 documents, 18 %" in caplog.text
