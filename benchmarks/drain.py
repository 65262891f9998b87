"""Firestore's own pace: the comments' stream with nothing done to it, as bytes and as protobuf messages."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from typing import Any

import grpc
import grpc.experimental
from google.cloud.firestore_v1.types import firestore as service_types

from benchmarks.stack import PROJECT, SCAN, Stack
from dualwrite.firestore.queries import cursor_after, scan_query
from dualwrite.firestore.values import moment

_DATABASE = f"projects/{PROJECT}/databases/(default)"


def raw(stack: Stack) -> int:
    """Every answer as bytes, dropped."""
    return sum(1 for _ in _answers(stack, None, single_threaded=False))


def raw_single_threaded(stack: Stack) -> int:
    """The same in gRPC's single-threaded mode, which the reader uses."""
    return sum(1 for _ in _answers(stack, None, single_threaded=True))


def parsed(stack: Stack) -> int:
    """Every answer as a protobuf message, read by a thread of its own and dropped by this one."""
    ahead: queue.Queue[list[Any] | None] = queue.Queue(maxsize=4)

    def read() -> None:
        page: list[Any] = []
        for answer in _answers(stack, service_types.RunQueryResponse.pb().FromString, single_threaded=True):
            page.append(answer.document)
            if len(page) == 1000:
                ahead.put(page)
                page = []
        ahead.put(page)
        ahead.put(None)

    threading.Thread(target=read).start()
    return sum(len(page) for page in iter(ahead.get, None))


def names_between(stack: Stack, first: Any, last: Any) -> int:
    """The names and times of the documents from one to another (as messages, both included), as a confirmation by interval
    would read them. Returns their number."""
    query = scan_query(replace(SCAN, fields=()), f"{_DATABASE}/documents")
    query.start_at.CopyFrom(cursor_after(SCAN, first))
    query.start_at.before = True
    query.end_at.CopyFrom(cursor_after(SCAN, last))
    parse = service_types.RunQueryResponse.pb().FromString
    times = {
        answer.document.name: moment(answer.document.update_time)
        for answer in _answers(stack, parse, single_threaded=True, query=query)
        if answer.HasField("document")
    }
    return len(times)


def _answers(stack: Stack, parse: Any, *, single_threaded: bool, query: Any = None) -> Any:
    request = service_types.RunQueryRequest.pb()(parent=f"{_DATABASE}/documents")
    request.structured_query.CopyFrom(query or scan_query(SCAN, request.parent))
    options: list[tuple[str, int]] = [("grpc.max_receive_message_length", -1)]
    if single_threaded:
        options.append((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
    with grpc.insecure_channel(stack.host, options=options) as channel:
        call = channel.unary_stream(
            "/google.firestore.v1.Firestore/RunQuery",
            service_types.RunQueryRequest.pb().SerializeToString,
            response_deserializer=parse,
        )
        metadata = (("google-cloud-resource-prefix", _DATABASE), ("authorization", "Bearer owner"))
        yield from call(request, metadata=metadata)
