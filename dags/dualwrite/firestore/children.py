"""Asks Firestore for the documents below others that have certain values, and proves that an answer is complete."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dualwrite.firestore.calls import Calls
from dualwrite.firestore.queries import children_query, leave_fields_out
from dualwrite.firestore.values import document_of, moment
from dualwrite.firestore.wire import CountRequest, QueryRequest
from dualwrite.model.declaration import FieldPath
from dualwrite.model.documents import UNASKED, Document, Unasked, can_be_asked, is_valid_id
from dualwrite.model.errors import IncompleteRead
from dualwrite.model.question import NAME

_QUESTIONS_AT_ONCE = 64
_PROOFS = 3
_FEW_QUESTIONS = 2
"""How many are asked at first, before it is known how large the documents are. An answer is held whole."""


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


class Children:
    """Questions of one Source about documents below others."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def in_parts(
        self,
        questions: Sequence[tuple[str, Mapping[FieldPath, str]]],
        collection_id: str,
        fields: Sequence[FieldPath],
        most_bytes: int,
    ) -> Iterator[dict[int, list[Document] | Paths | Unasked]]:
        """See Source.children_in_parts."""
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
            requests = [self._request(questions[n][0], collection_id, questions[n][1], fields) for n in part]
            purpose = f"looking for {collection_id} below {len(part)} documents"
            with self._calls.budget.asking(2 * len(part), purpose, all_that_is_left=True) as most:
                if most is not None:
                    for request in requests:
                        request.structured_query.limit.value = most // len(part) - 1
                answers, size = self._proved(requests, collection_id, most_bytes)
            yield dict(zip(part, answers, strict=False))
            todo = todo[len(answers) :]
            at_once = max(1, min(_QUESTIONS_AT_ONCE, 2 * at_once, len(answers) * most_bytes // max(1, size)))

    def _proved(
        self, requests: Sequence[Any], collection_id: str, most_bytes: int
    ) -> tuple[list[list[Document] | Paths], int]:
        """The answers to the first of these questions, as many as take `most_bytes` together, and their size in bytes. An answer
        that its count() doesn't prove is read again, up to _PROOFS times."""
        proved: dict[int, list[Document] | Paths] = {}
        size = 0
        for _ in range(_PROOFS):
            todo = {n: request for n, request in enumerate(requests) if n not in proved}
            # The calls run side by side from the moment they are made; their answers are read in turn.
            calls = {n: self._calls.wire.run_query(r) for n, r in todo.items()}
            answers: dict[int, _Answer] = {}
            held = 0
            for n, request in todo.items():
                if held > most_bytes:  # larger than the part before: the next part reads the rest
                    for left, call in calls.items():
                        if left >= n:
                            call.cancel()
                    requests = requests[:n]
                    break
                answers[n] = self._finish(request, calls[n], collection_id, most_bytes)
                held += answers[n].size
            size = max(size, held)
            proved |= {n: answer.result for n, answer in answers.items() if answer.documents and answer.is_done}
            counts = {
                n: self._call_count(todo[n], answer.read_time)
                for n, answer in answers.items()
                if n not in proved and answer.read_time is not None
            }
            for n, call in counts.items():
                if self._finish_count(todo[n], answers[n].read_time, call) == len(answers[n].documents):
                    proved[n] = answers[n].result
            if all(n in proved for n in range(len(requests))):
                return [proved[n] for n in range(len(requests))], size
        raise IncompleteRead(
            f"Firestore's answers about {collection_id} below a document did not hold as many documents as it counted at the "
            f"same instant, {_PROOFS} times. Nothing was concluded from them. Run again."
        )

    def _request(
        self, parent_path: str, collection_id: str, equals: Mapping[FieldPath, str], fields: Sequence[FieldPath]
    ) -> Any:
        request = QueryRequest(parent=f"{self._calls.root}/{parent_path}" if parent_path else self._calls.root)
        request.structured_query.CopyFrom(children_query(request.parent, collection_id, equals, fields))
        return request

    def _finish(self, request: Any, call: Any, collection_id: str, most_bytes: int) -> _Answer:
        calls = [call]

        def ask() -> _Answer:
            answers = calls.pop() if calls else self._calls.wire.run_query(request)
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

        answer = self._calls.retry(ask, f"looking for {collection_id} below one document")
        self._calls.bill(max(1, len(answer.documents)))
        if request.structured_query.HasField("limit") and len(answer.documents) >= request.structured_query.limit.value:
            raise self._calls.budget.refusal(1, f"looking for more {collection_id}", or_more=True)
        return self._only_paths(request, answer, collection_id) if answer.is_large else answer

    def _only_paths(self, request: Any, begun: _Answer, collection_id: str) -> _Answer:
        """The answer to a question without the documents' fields, because `begun`, with them, was too large."""
        names = QueryRequest()
        names.CopyFrom(request)
        leave_fields_out(names.structured_query)
        if names.structured_query.HasField("limit"):
            names.structured_query.limit.value -= len(begun.documents)
        call = self._calls.wire.run_query(names)
        answer = self._finish(names, call, collection_id, sys.maxsize)
        answer.is_large, answer.size = True, begun.size
        return answer

    def _call_count(self, request: Any, instant: datetime | None) -> Any:
        counted = CountRequest(parent=request.parent)
        query = counted.structured_aggregation_query.structured_query
        query.CopyFrom(request.structured_query)
        query.ClearField("select")
        query.ClearField("limit")
        counted.structured_aggregation_query.aggregations.add(alias="n").count.SetInParent()
        counted.read_time.FromDatetime(instant)
        return self._calls.wire.run_count(counted)

    def _finish_count(self, request: Any, instant: datetime | None, call: Any) -> int | None:
        """The count(); None if its own answer was truncated."""
        calls = [call]

        def ask() -> int | None:
            for answer in calls.pop() if calls else self._call_count(request, instant):
                if answer.HasField("result"):
                    return int(answer.result.aggregate_fields["n"].integer_value)
            return None

        number = self._calls.retry(ask, "count() below one document")
        self._calls.bill(max(1, -(-(number or 0) // 1000)))
        return number
