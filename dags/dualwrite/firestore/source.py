"""Reads Firestore: counts, single documents, and whole scans as one stream.

It speaks the service's own protobuf messages over gRPC: the client library's `stream()` and `to_dict()` reach about a
quarter of this speed. Every read is counted as Firestore bills it (`Source.billed_reads`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Self

from dualwrite.firestore.budget import Budget
from dualwrite.firestore.calls import Calls
from dualwrite.firestore.children import Children, Paths
from dualwrite.firestore.failures import CallError, Retries
from dualwrite.firestore.long_read import PAGE_BYTES, Page, pages
from dualwrite.firestore.queries import Scan, masked, other_types_queries, scan_query
from dualwrite.firestore.values import document_of, path_of
from dualwrite.firestore.wire import GetRequest, QueryRequest, Wire
from dualwrite.model.check_fields import Check
from dualwrite.model.declaration import FieldPath
from dualwrite.model.documents import UNASKED, Answer, Document, Unasked, can_be_asked
from dualwrite.model.errors import IncompleteRead
from dualwrite.model.pace import Pace

_GET_SIZE = 100
_GETS_AT_ONCE = 4
_FEW_PATHS = 8
"""How many are read at first, before it is known how large the documents are."""

__all__ = ["Page", "Paths", "Scan", "Source"]


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
        self.budget: Final = budget or Budget()
        """Checked before each call."""
        self._calls = Calls(self.wire, self.budget, pace or Pace())
        self._children = Children(self._calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.wire.close()

    @property
    def billed_reads(self) -> int:
        """Reads that Firestore bills for the calls of this object so far."""
        return self._calls.billed_reads

    # --- one answer -----------------------------------------------------------------------------------------------

    def count(self, scan: Scan, read_time: datetime | None = None) -> tuple[int, datetime]:
        """How many documents the scan would deliver, and at which instant (UTC).

        Bills one read for 1,000 documents, at least one. Raises SourceError, or BudgetError.
        """
        return self._calls.count(scan_query(scan, self._root), scan.collection_id, read_time)

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
        counted, _ = self._calls.count(structured, collection_id, None)
        if not counted:
            return 0, []
        structured.limit.value = min(most, counted)
        request = QueryRequest(parent=self._root, structured_query=structured)
        self.budget.reserve(structured.limit.value, purpose)
        documents = self._calls.retry(lambda: self._documents_of(request), purpose)
        self._calls.bill(structured.limit.value, reserved=True)
        return counted, documents

    def _documents_of(self, request: Any) -> list[Document]:
        answers = self.wire.run_query(request)
        return [document_of(answer.document) for _, answer in answers if answer.HasField("document")]

    def get(self, paths: Iterable[str], fields: Sequence[FieldPath] = ()) -> dict[str, Answer]:
        """The documents at these paths as of now, with these fields (empty: only their existence and times).

        None: it is gone. UNASKED: unknown, because Firestore refuses such a path (a row's id may be an invalid one). Bills one
        read for each path that isn't UNASKED.
        """
        answers: dict[str, Answer] = dict.fromkeys(paths, UNASKED)
        answers.update((path, document) for _, path, document in self._answers(answers, fields))
        return answers

    def get_in_parts(
        self, paths: Iterable[str], fields: Sequence[FieldPath] = (), most_bytes: int = PAGE_BYTES
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
        self._calls.bill(len(wanted), reserved=True)
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
            except CallError as error:
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
        most_bytes: int = PAGE_BYTES,
    ) -> Iterator[dict[int, list[Document] | Paths | Unasked]]:
        """As `children_where_each`, by number of the question, in parts of up to `most_bytes`, or one answer more. Each part has
        as many questions as should take about that, judged by the one before.

        If several documents of one question take more, their Paths are given instead, because any number of documents may have
        these values. Then the documents read until that showed are billed too, besides the names."""
        return self._children.in_parts(questions, collection_id, fields, most_bytes)

    # --- a long read ----------------------------------------------------------------------------------------------

    def pages(self, scan: Scan, page_size: int) -> Iterator[Page]:
        """The documents of a scan in order, in pages of up to `page_size` (fewer if documents are large).

        A thread reads a few pages ahead; closing the iterator ends it. Raises IncompleteRead at the end if documents are
        missing, SourceError if Firestore doesn't answer, BudgetError before it begins; the pages yielded before are right, but
        not complete. Bills one read a document (one if there is none), and the count.
        """
        return pages(self._calls, scan, page_size)
