"""A real gRPC server in front of the emulator that forwards every call as bytes, and counts what Firestore would bill."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.cloud.firestore_v1.types import firestore as types

_SERVICE = "/google.firestore.v1.Firestore/"
_QUERY = types.RunQueryResponse.pb()
_GET = types.BatchGetDocumentsResponse.pb()
_COUNT = types.RunAggregationQueryResponse.pb()


class CountingProxy(grpc.GenericRpcHandler):
    """`reads`: documents delivered, documents asked for by name (a missing one is billed too), one for each 1,000 counted,
    and one for a query or a count that finds nothing."""

    def __init__(self, upstream: str) -> None:
        self._channel = grpc.insecure_channel(upstream, options=[("grpc.max_receive_message_length", -1)])
        self._lock = threading.Lock()
        self.reads = 0

    def service(self, handler_call_details):
        method = handler_call_details.method
        call = self._channel.unary_stream(method)  # bytes in, bytes out

        def forward(request: bytes, context) -> Iterator[bytes]:
            kept = [(k, v) for k, v in context.invocation_metadata() if not k.startswith(("grpc-", ":", "user-agent"))]
            delivered = 0
            for answer in call(request, metadata=kept):
                billed = self._billed(method.removeprefix(_SERVICE), answer)
                delivered += billed
                self._add(billed)  # before the client has it: one that has what it asked for ends the call
                yield answer
            if not delivered:
                self._add(1)

        return grpc.unary_stream_rpc_method_handler(forward)

    def _add(self, reads: int) -> None:
        with self._lock:
            self.reads += reads

    @staticmethod
    def _billed(method: str, answer: bytes) -> int:
        if method == "RunQuery":
            return int(_QUERY.FromString(answer).HasField("document"))
        if method == "BatchGetDocuments":
            message = _GET.FromString(answer)
            return int(message.HasField("found") or bool(message.missing))
        message = _COUNT.FromString(answer)
        if not message.HasField("result"):
            return 0
        return max(1, -(-message.result.aggregate_fields["n"].integer_value // 1000))


@contextmanager
def counting_proxy(upstream: str) -> Iterator[tuple[CountingProxy, str]]:
    """The proxy and its host:port, closed afterwards."""
    handler = CountingProxy(upstream)
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield handler, f"127.0.0.1:{port}"
    finally:
        server.stop(grace=1).wait()
