"""Reads Firestore: counts, single documents, and whole scans as one stream.

It speaks the service's own protobuf messages over gRPC: the client library's `stream()` and `to_dict()` reach about a
quarter of this speed. Every read is counted as Firestore bills it (`Source.billed_reads`).

How a long read survives:

1. A stream ends early with UNAVAILABLE (they last about a minute), the network breaks, or the stream falls silent (each
   call has a deadline): the read resumes after the last document delivered, at the same read_time.
2. A stream ends early *without* an error (slow consumers have seen that): the number delivered must equal a count()
   at the same read_time, or IncompleteRead is raised.
3. A slow consumer: a thread drains the stream into a few pages, so the stream never waits long.
4. Documents come, go and change meanwhile: the whole read is pinned to one read_time. That lasts an hour, so a longer read
   proves the part that it has, and pins a new one for the rest.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self, TypeVar

import grpc

from dualwrite.firestore.budget import Budget
from dualwrite.firestore.failures import Retries
from dualwrite.firestore.queries import (
    Scan,
    children_query,
    cursor_after,
    leave_fields_out,
    masked,
    other_types_queries,
    scan_query,
    up_to,
)
from dualwrite.firestore.read_ahead import Put, read_ahead
from dualwrite.firestore.values import document_of, moment, path_of
from dualwrite.firestore.wire import CountRequest, GetRequest, QueryRequest, Wire
from dualwrite.model.check_fields import Check
from dualwrite.model.declaration import FieldPath
from dualwrite.model.documents import UNASKED, Answer, Document, Unasked, can_be_asked, is_valid_id
from dualwrite.model.errors import IncompleteRead, SourceError
from dualwrite.model.pace import Pace
from dualwrite.model.question import NAME

_PIN_SECONDS = 50 * 60
"""Seconds for which one read_time is used: Firestore refuses one that is older than an hour."""

_GET_SIZE = 100
_GETS_AT_ONCE = 4
_QUESTIONS_AT_ONCE = 64
_PROOFS = 3
_PAGE_BYTES = 8 * 1024 * 1024
"""The size in memory of documents that are held together (see `held_bytes`)."""

_FEW_PATHS = 8
_FEW_QUESTIONS = 2
"""How many are read at first, before it is known how large the documents are. A question's answer is held whole."""

T = TypeVar("T")


__all__ = ["Page", "Paths", "Scan", "Source"]


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive documents of a scan, and how many the whole scan will deliver.

    `messages` are Firestore's own (protobuf Documents): a document that matches its row needs nothing else.
    """

    messages: list[Any]
    total: int

    @property
    def documents(self) -> list[Document]:
        """The documents as plain Python, converted anew on each access."""
        return [document_of(message) for message in self.messages]


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths in place of documents that are too large to be held together. `get_in_parts` reads them."""

    paths: tuple[str, ...]


@dataclass
class _Answer:
    """The documents of one question, with the read_time of the last part of its stream, and whether that part said that the answer
    is complete."""

    documents: list[Document] = field(default_factory=list)
    read_time: datetime | None = None
    size: int = 0
    is_done: bool = False
    is_large: bool = False
    """There are more documents than may be held together: only their names were read."""

    @property
    def result(self) -> list[Document] | Paths:
        return Paths(tuple(d.path for d in self.documents)) if self.is_large and self.documents else self.documents


@dataclass
class _Read:
    """A scan that is being read, and its progress."""

    scan: Scan
    page_size: int
    put: Put[Page]
    """Takes a page; False if the consumer has stopped."""
    stop: threading.Event
    last: Any = None
    """The last document delivered, as its protobuf message, for a cursor."""
    delivered: int = 0
    billed: int = 0
    empty: int = 0
    """Queries that delivered nothing."""
    reserved: int = 0
    """Reads taken from the budget: the scan's size is known before it is read."""
    messages: list[Any] = field(default_factory=list)
    size: int = 0


class Source:
    """One Firestore database, read only. Threads may share it.

    With `emulator_host` ("host:port") it uses the emulator, without credentials; else `credentials` are google.auth's. `budget` caps
    its billed reads, and `pace` limits its reads a second; Sources may share both.
    """

    def __init__(
        self,
        project: str,
        *,
        database: str = "(default)",
        credentials: Any = None,
        emulator_host: str | None = None,
        budget: Budget | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.project = project
        self.wire = Wire(project, database, credentials, emulator_host)
        self._root = self.wire.root
        self._lock = threading.Lock()
        self._billed = 0
        self.budget: Final = budget or Budget()
        """Checked before each call."""
        self._pace = pace or Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.wire.close()

    @property
    def billed_reads(self) -> int:
        """Reads that Firestore bills for the calls of this object so far."""
        return self._billed

    def _bill(self, reads: int, *, reserved: bool = False) -> None:
        with self._lock:
            self._billed += reads
        if not reserved:
            self.budget.spend(reads)
        if (wait := self._pace.delay(reads, time.monotonic())) > 0:
            time.sleep(wait)  # in a reader's thread, so the stream waits in Firestore meanwhile

    # --- one answer -----------------------------------------------------------------------------------------------

    def count(self, scan: Scan, read_time: datetime | None = None) -> tuple[int, datetime]:
        """How many documents the scan would deliver, and at which instant (UTC).

        Bills one read for 1,000 documents, at least one. Raises SourceError, or BudgetError.
        """
        return self._count(scan_query(scan, self._root), scan.collection_id, read_time)

    def other_types(self, collection_id: str, check: Check, top_level: bool, most: int) -> tuple[int, list[Document]]:
        """How many documents have a value in a check field that no window matches (nulls don't count), and a few of them: up to
        `most` each with values that Firestore sorts before the timestamps (or the format's times), and after them.

        Bills two counts, and one read a document.
        """
        number, documents = 0, []
        for structured in other_types_queries(collection_id, check, top_level):
            counted, few = self._few(
                structured, collection_id, most, f"looking at the types of {collection_id}.{check.field}"
            )
            number += counted
            documents += few
        return number, documents

    def first(self, scan: Scan, most: int) -> tuple[int, list[Document]]:
        """How many documents a scan would deliver, and the first of them, up to `most`. Bills a count, and one read a
        document."""
        return self._few(
            scan_query(scan, self._root), scan.collection_id, most, f"looking at a few of {scan.collection_id}"
        )

    def _few(self, structured: Any, collection_id: str, most: int, purpose: str) -> tuple[int, list[Document]]:
        counted, _ = self._count(structured, collection_id, None)
        if not counted:
            return 0, []
        structured.limit.value = min(most, counted)
        request = QueryRequest(parent=self._root, structured_query=structured)
        self.budget.reserve(structured.limit.value, purpose)
        documents = self._retry(lambda: self._documents_of(request), purpose)
        self._bill(structured.limit.value, reserved=True)
        return counted, documents

    def _documents_of(self, request: Any) -> list[Document]:
        answers = self.wire.run_query(request)
        return [document_of(answer.document) for _, answer in answers if answer.HasField("document")]

    def _count(self, structured: Any, collection_id: str, read_time: datetime | None) -> tuple[int, datetime]:
        request = CountRequest(parent=self._root)
        request.structured_aggregation_query.structured_query.CopyFrom(structured)
        request.structured_aggregation_query.structured_query.ClearField("select")
        count = request.structured_aggregation_query.aggregations.add(alias="n").count
        count.SetInParent()
        if read_time is not None:
            request.read_time.FromDatetime(read_time)

        def ask() -> tuple[int, datetime]:
            for answer in self.wire.run_count(request):
                if answer.HasField("result"):
                    return answer.result.aggregate_fields["n"].integer_value, moment(answer.read_time)
            raise SourceError(f"Firestore returned no count for {collection_id}. Run again.")

        purpose = f"count() of {collection_id}"
        for all_that_is_left in (False, True):
            # The cost of a count isn't known beforehand, so it is limited.
            with self.budget.asking(1, purpose, all_that_is_left=all_that_is_left) as most:
                if most is not None:
                    count.up_to.value = most * 1000
                number, instant = self._retry(ask, purpose)
                self._bill(max(1, -(-number // 1000)))
                if most is None or number < most * 1000:
                    return number, instant
                left = self.budget.left
            if left is not None and left < 1:
                break
        raise self.budget.refusal(1, f"more of {purpose}", or_more=True)

    def get(self, paths: Iterable[str], fields: Sequence[FieldPath] = ()) -> dict[str, Answer]:
        """The documents at these paths as of now, with these fields (empty: only their existence and times).

        None: it is gone. UNASKED: unknown, because Firestore refuses such a path (a row's id may be an invalid one). Bills one
        read for each path that isn't UNASKED.
        """
        answers: dict[str, Answer] = dict.fromkeys(paths, UNASKED)
        answers.update((path, document) for _, path, document in self._answers(answers, fields))
        return answers

    def get_in_parts(
        self, paths: Iterable[str], fields: Sequence[FieldPath] = (), most_bytes: int = _PAGE_BYTES
    ) -> Iterator[dict[str, Answer]]:
        """As `get`, in parts whose documents take up to `most_bytes` together, or of one document that takes more. Each path is
        in one part. Each call reads as many as should take about `most_bytes`, judged by the one before, because gRPC holds
        whole answers.
        """
        wanted = list(dict.fromkeys(paths))
        part: dict[str, Answer] = {path: UNASKED for path in wanted if not can_be_asked(path)}
        size, at_once, start = 0, _FEW_PATHS, 0
        while start < len(wanted):
            asked = 0
            for more, path, document in self._answers(wanted[start : start + at_once], fields):
                if size + more > most_bytes and size:
                    yield part
                    part, size = {}, 0
                part[path] = document
                size += more
                asked += more
            start += at_once
            at_once = max(1, min(_GETS_AT_ONCE * _GET_SIZE, 2 * at_once, at_once * most_bytes // max(1, asked)))
        if part:
            yield part

    def _answers(self, paths: Iterable[str], fields: Sequence[FieldPath]) -> Iterator[tuple[int, str, Document | None]]:
        """The answers for all paths that can be asked, each with its size in bytes; four calls run side by side."""
        wanted = [path for path in paths if can_be_asked(path)]
        chunks = [wanted[i : i + _GET_SIZE] for i in range(0, len(wanted), _GET_SIZE)]
        self.budget.reserve(len(wanted), f"reading {len(wanted):,} documents by path")
        self._bill(len(wanted), reserved=True)
        for start in range(0, len(chunks), _GETS_AT_ONCE):
            group = chunks[start : start + _GETS_AT_ONCE]
            # The calls run side by side from the moment they are made; their answers are read in turn.
            calls = [self._call_get(chunk, fields) for chunk in group]
            try:
                for chunk, call in zip(group, calls, strict=True):
                    yield from self._answers_of(chunk, fields, call)
            finally:
                for call in calls:
                    call.cancel()

    def _call_get(self, paths: list[str], fields: Sequence[FieldPath]) -> Any:
        request = GetRequest(database=self.wire.database, documents=[f"{self._root}/{path}" for path in paths])
        if names := masked(fields):  # an empty mask would read documents without fields; no mask reads all fields
            request.mask.field_paths.extend(names)
        return self.wire.batch_get(request)

    def _answers_of(
        self, paths: list[str], fields: Sequence[FieldPath], call: Any
    ) -> Iterator[tuple[int, str, Document | None]]:
        """The answers of one call. If it breaks, or waits too long for us, another call reads the rest."""
        left = dict.fromkeys(paths)
        retries = Retries(f"reading {len(paths)} documents by path")
        while True:
            try:
                for size, answer in call:
                    if answer.HasField("found"):
                        document: Document | None = document_of(answer.found)
                        path = path_of(answer.found)
                    elif answer.missing:
                        document, path = None, answer.missing[len(self._root) + 1 :]
                    else:
                        continue
                    left.pop(path)
                    retries.progress()
                    yield size, path, document
                break
            except grpc.RpcError as error:
                retries.give_up_or_wait(error)
                if not left:
                    return
                call = self._call_get(list(left), fields)
        if left:
            raise IncompleteRead(
                f"Firestore answered for only {len(paths) - len(left)} of {len(paths)} paths. Run again."
            )

    def children_where_each(
        self, questions: Sequence[tuple[str, Mapping[FieldPath, str]]], collection_id: str, fields: Sequence[FieldPath]
    ) -> list[list[Document] | Unasked]:
        """For each question (a document's path, and values of fields, or at `NAME` an id) the documents directly below it in one
        collection that have these values, as of now; UNASKED if Firestore can't be asked.

        A truncated answer looks like a short one, so its last part must say that it is `done`. If it doesn't, or if there are
        no documents (a row may be deleted for that), a count() at its read_time must agree, or IncompleteRead is raised.
        Equalities need no index of their own. Bills one read a document, at least one a question, and the counts.
        """
        answers: list[list[Document] | Unasked] = [UNASKED for _ in questions]
        for part in self.children_in_parts(questions, collection_id, fields, sys.maxsize):
            for n, answer in part.items():
                assert not isinstance(answer, Paths), "nothing is too large"
                answers[n] = answer
        return answers

    def children_in_parts(
        self,
        questions: Sequence[tuple[str, Mapping[FieldPath, str]]],
        collection_id: str,
        fields: Sequence[FieldPath],
        most_bytes: int = _PAGE_BYTES,
    ) -> Iterator[dict[int, list[Document] | Paths | Unasked]]:
        """As `children_where_each`, by number of the question, in parts of up to `most_bytes`, or one answer more. Each part has
        as many questions as should take about that, judged by the one before.

        If several documents of one question take more, their Paths are given instead, because any number of documents may have
        these values. Then the documents read until that showed are billed too, besides the names."""
        unasked: dict[int, list[Document] | Paths | Unasked] = {
            n: UNASKED
            for n, (parent, equals) in enumerate(questions)
            if (parent and not can_be_asked(parent)) or not is_valid_id(equals.get(NAME, "any"))
        }
        if unasked:
            yield unasked
        todo = [n for n in range(len(questions)) if n not in unasked]
        at_once = _FEW_QUESTIONS
        while todo:
            part = todo[:at_once]
            requests = [self._children_request(questions[n][0], collection_id, questions[n][1], fields) for n in part]
            purpose = f"looking for {collection_id} below {len(part)} documents"
            with self.budget.asking(2 * len(part), purpose, all_that_is_left=True) as most:
                if most is not None:
                    for request in requests:
                        request.structured_query.limit.value = most // len(part) - 1
                answers, size = self._proved_children(requests, collection_id, most_bytes)
            yield dict(zip(part, answers, strict=False))
            todo = todo[len(answers) :]
            at_once = max(1, min(_QUESTIONS_AT_ONCE, 2 * at_once, len(answers) * most_bytes // max(1, size)))

    def _proved_children(
        self, requests: Sequence[Any], collection_id: str, most_bytes: int
    ) -> tuple[list[list[Document] | Paths], int]:
        """The answers to the first of these questions, as many as take `most_bytes` together, and their size in bytes. An answer
        that its count() doesn't prove is read again, up to _PROOFS times."""
        proved: dict[int, list[Document] | Paths] = {}
        size = 0
        for _ in range(_PROOFS):
            todo = {n: request for n, request in enumerate(requests) if n not in proved}
            # The calls run side by side from the moment they are made; their answers are read in turn.
            calls = {n: self.wire.run_query(r) for n, r in todo.items()}
            answers: dict[int, _Answer] = {}
            held = 0
            for n, request in todo.items():
                if held > most_bytes:  # larger than the part before: the next part reads the rest
                    for left, call in calls.items():
                        if left >= n:
                            call.cancel()
                    requests = requests[:n]
                    break
                answers[n] = self._finish_children(request, calls[n], collection_id, most_bytes)
                held += answers[n].size
            size = max(size, held)
            proved |= {n: answer.result for n, answer in answers.items() if answer.documents and answer.is_done}
            counts = {
                n: self._call_count_children(todo[n], answer.read_time)
                for n, answer in answers.items()
                if n not in proved and answer.read_time is not None
            }
            for n, call in counts.items():
                if self._finish_count_children(todo[n], answers[n].read_time, call) == len(answers[n].documents):
                    proved[n] = answers[n].result
            if all(n in proved for n in range(len(requests))):
                return [proved[n] for n in range(len(requests))], size
        raise IncompleteRead(
            f"Firestore's answers about {collection_id} below a document did not hold as many documents as it counted at the "
            f"same instant, {_PROOFS} times. Nothing was concluded from them. Run again."
        )

    def _children_request(
        self, parent_path: str, collection_id: str, equals: Mapping[FieldPath, str], fields: Sequence[FieldPath]
    ) -> Any:
        request = QueryRequest(parent=f"{self._root}/{parent_path}" if parent_path else self._root)
        request.structured_query.CopyFrom(children_query(request.parent, collection_id, equals, fields))
        return request

    def _finish_children(self, request: Any, call: Any, collection_id: str, most_bytes: int) -> _Answer:
        calls = [call]

        def ask() -> _Answer:
            answers = calls.pop() if calls else self.wire.run_query(request)
            read = _Answer()
            for size, part in answers:
                read.size += size
                if part.HasField("document"):
                    read.documents.append(document_of(part.document))
                    if read.size > most_bytes and len(read.documents) > 1:
                        answers.cancel()
                        read.is_large = True
                        return read
                read.read_time = moment(part.read_time) if part.HasField("read_time") else None
                read.is_done = part.done
            return read

        answer = self._retry(ask, f"looking for {collection_id} below one document")
        self._bill(max(1, len(answer.documents)))
        if request.structured_query.HasField("limit") and len(answer.documents) >= request.structured_query.limit.value:
            raise self.budget.refusal(1, f"looking for more {collection_id}", or_more=True)
        return self._only_paths(request, answer, collection_id) if answer.is_large else answer

    def _only_paths(self, request: Any, begun: _Answer, collection_id: str) -> _Answer:
        """The answer to a question without the documents' fields, because `begun`, with them, was too large."""
        names = QueryRequest()
        names.CopyFrom(request)
        leave_fields_out(names.structured_query)
        if names.structured_query.HasField("limit"):
            names.structured_query.limit.value -= len(begun.documents)
        call = self.wire.run_query(names)
        answer = self._finish_children(names, call, collection_id, sys.maxsize)
        answer.is_large, answer.size = True, begun.size
        return answer

    def _call_count_children(self, request: Any, instant: datetime | None) -> Any:
        counted = CountRequest(parent=request.parent)
        query = counted.structured_aggregation_query.structured_query
        query.CopyFrom(request.structured_query)
        query.ClearField("select")
        query.ClearField("limit")
        counted.structured_aggregation_query.aggregations.add(alias="n").count.SetInParent()
        counted.read_time.FromDatetime(instant)
        return self.wire.run_count(counted)

    def _finish_count_children(self, request: Any, instant: datetime | None, call: Any) -> int | None:
        """The count(); None if its own answer was truncated."""
        calls = [call]

        def ask() -> int | None:
            for answer in calls.pop() if calls else self._call_count_children(request, instant):
                if answer.HasField("result"):
                    return int(answer.result.aggregate_fields["n"].integer_value)
            return None

        number = self._retry(ask, "count() below one document")
        self._bill(max(1, -(-(number or 0) // 1000)))
        return number

    def _retry(self, ask: Callable[[], T], purpose: str) -> T:
        retries = Retries(purpose)
        while True:
            try:
                return ask()
            except grpc.RpcError as error:
                retries.give_up_or_wait(error)

    # --- a long read ----------------------------------------------------------------------------------------------

    def pages(self, scan: Scan, page_size: int) -> Iterator[Page]:
        """The documents of a scan in order, in pages of up to `page_size` (fewer if documents are large).

        A thread reads a few pages ahead; closing the iterator ends it. Raises IncompleteRead at the end if documents are
        missing, SourceError if Firestore doesn't answer, BudgetError before it begins; the pages yielded before are right, but
        not complete. Bills one read a document (one if there is none), and the count.
        """
        return read_ahead(f"read {scan.collection_id}", lambda put, stop: self._read(_Read(scan, page_size, put, stop)))

    def _read(self, read: _Read) -> None:
        try:
            self._read_parts(read)
        finally:
            self.budget.spend(read.billed - read.reserved)

    def _read_parts(self, read: _Read) -> None:
        scan = read.scan
        structured = scan_query(scan, self._root)
        total = 0
        while True:
            begun, start = time.monotonic(), read.delivered
            expected, pinned = self._count(structured, scan.collection_id, None)
            more = read.billed + max(1, expected) - read.reserved
            self.budget.reserve(more, f"reading {scan.collection_id} with {expected:,} documents")
            read.reserved += more
            total = start + expected
            ended = self._read_pinned(read, structured, pinned, begun, total)
            if read.stop.is_set():
                return
            if read.delivered == start:  # a query that finds nothing is billed as one read
                self._bill(1, reserved=True)
                read.billed += 1
                read.empty += 1
            if not ended:
                # The pin is too old. A count up to the last document, at the same pin, proves the part that was delivered.
                expected, _ = self._count(up_to(structured, scan, read.last), scan.collection_id, pinned)
            elif read.delivered - start != expected:
                # The first count chose the instant, and may have missed a write that committed at that very moment [seen in
                # the emulator: one more was delivered]. A second count at the pin sees the same as the read.
                expected, _ = self._count(structured, scan.collection_id, pinned)
            if read.delivered - start != expected:
                raise IncompleteRead(
                    f"{scan.collection_id} delivered {read.delivered - start:,} of the {expected:,} documents that Firestore "
                    "counted at the same instant. Nothing is known of the rest. Run again."
                )
            if ended:
                if read.messages:
                    read.put(Page(read.messages, total))
                return
            structured.start_at.CopyFrom(cursor_after(scan, read.last))

    def _read_pinned(self, read: _Read, structured: Any, pinned: datetime, begun: float, total: int) -> bool:
        """Reads at one instant until the end (True), or until the pin is too old or the consumer stops (False)."""
        scan = read.scan
        request = QueryRequest(parent=self._root)
        request.structured_query.CopyFrom(structured)
        request.read_time.FromDatetime(pinned)
        retries = Retries(f"reading {scan.collection_id}")
        while True:
            before = read.delivered
            call = self.wire.run_query(request)
            try:
                for size, answer in call:
                    if not answer.HasField("document"):
                        continue
                    message = answer.document
                    read.messages.append(message)
                    read.delivered += 1
                    read.size += size
                    read.last = message
                    if len(read.messages) >= read.page_size or read.size >= _PAGE_BYTES:
                        page = Page(read.messages, total)
                        read.messages, read.size = [], 0
                        self._bill_progress(read)
                        if not read.put(page):
                            return False
                        if time.monotonic() - begun > _PIN_SECONDS:
                            return False
                return True
            except grpc.RpcError as error:
                if read.delivered > before:
                    retries.progress()
                retries.give_up_or_wait(error)
                if read.delivered > before:
                    request.structured_query.start_at.CopyFrom(cursor_after(scan, read.last))
                if time.monotonic() - begun > _PIN_SECONDS and read.last is not None:
                    return False
            finally:
                self._bill_progress(read)
                call.cancel()

    def _bill_progress(self, read: _Read) -> None:
        billed = read.delivered + read.empty
        self._bill(billed - read.billed, reserved=True)
        read.billed = billed
