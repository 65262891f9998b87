"""Firestore's own calls over gRPC: the channel, the headers, and how long a call may last. Nothing is retried or billed here."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.experimental
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.cloud.firestore_v1.types import firestore as service_types

QueryRequest = service_types.RunQueryRequest.pb()
QueryResponse = service_types.RunQueryResponse.pb()
CountRequest = service_types.RunAggregationQueryRequest.pb()
_CountResponse = service_types.RunAggregationQueryResponse.pb()
GetRequest = service_types.BatchGetDocumentsRequest.pb()
_GetResponse = service_types.BatchGetDocumentsResponse.pb()

CALL_SECONDS = 90.0
"""How long one call may last. It ends a stream that fell silent, and a healthy long one too (Firestore itself ends streams after
about a minute): both are resumed after the last document delivered."""

_LARGE = 64 * 1024
_OF_FOUR_BYTES = tuple(bytes([lead]) for lead in range(0xF0, 0xF5))


def held_bytes(raw: bytes) -> int:
    """The most memory that an answer's texts take: Python stores a text in four bytes a character if it contains an emoji, in two
    if it contains a letter of most other alphabets. Small answers are not inspected, because a page of them is small."""
    if len(raw) < _LARGE:
        return len(raw)
    return len(raw) * (4 if any(lead in raw for lead in _OF_FOUR_BYTES) else 2)


def channel_options(*, emulator: bool) -> list[tuple[str, int]]:
    """gRPC's options. A connection that is silent for half a minute is pinged, as by Google's own client; not the emulator's, which
    allows one ping in five minutes. More pings, as while it counts for minutes on a busy machine, would end the connection with all
    its calls (`too_many_pings`)."""
    options = [
        ("grpc.max_receive_message_length", -1),
        # The reader already iterates a stream in a thread of its own. By default gRPC passes every answer through one more
        # thread, which takes three times the CPU [measured: 44 us a document instead of 15].
        (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    ]
    return options if emulator else [*options, ("grpc.keepalive_time_ms", 30_000)]


class Wire:
    """The calls of one Firestore database. A call starts at once, and its answers come as they are iterated.

    `emulator_host` ("host:port") goes to the emulator without credentials; else `credentials` are google.auth's.
    """

    def __init__(self, project: str, database: str, credentials: Any = None, emulator_host: str | None = None) -> None:
        self.database_id = database
        self.database = f"projects/{project}/databases/{database}"
        self.root = f"{self.database}/documents"
        self.metadata: tuple[tuple[str, str], ...] = (
            ("google-cloud-resource-prefix", self.database),
            to_grpc_metadata((("project_id", project), ("database_id", database))),
        )
        options = channel_options(emulator=bool(emulator_host))
        if emulator_host:
            self._channel = grpc.insecure_channel(emulator_host, options=options)
            self.metadata += (("authorization", "Bearer owner"),)
        else:
            from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

            self._channel = FirestoreGrpcTransport.create_channel(credentials=credentials, options=options)
        service = "/google.firestore.v1.Firestore/"
        self._query = self._channel.unary_stream(
            service + "RunQuery",
            QueryRequest.SerializeToString,
            lambda raw: (held_bytes(raw), QueryResponse.FromString(raw)),
        )
        self._count = self._channel.unary_stream(
            service + "RunAggregationQuery", CountRequest.SerializeToString, _CountResponse.FromString
        )
        self._get = self._channel.unary_stream(
            service + "BatchGetDocuments",
            GetRequest.SerializeToString,
            lambda raw: (held_bytes(raw), _GetResponse.FromString(raw)),
        )

    def close(self) -> None:
        self._channel.close()

    def run_query(self, request: Any) -> Any:
        """The parts of the answer, each as (size in memory in bytes, message)."""
        return self._query(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def run_count(self, request: Any) -> Any:
        """The parts of the answer, as messages; one of them has the result."""
        return self._count(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def batch_get(self, request: Any) -> Any:
        """The answers, each as (size in memory in bytes, message with the document or its missing name)."""
        return self._get(request, metadata=self.metadata, timeout=CALL_SECONDS)
