"""Failed calls to Firestore: whether to try again, and the remedy if that doesn't help."""

from __future__ import annotations

import random
import time

import grpc

from dualwrite import settings
from dualwrite.model.errors import SourceError

CallError = grpc.RpcError
"""A call's failure, as gRPC raises it."""

_RETRIED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.ABORTED,
}
PATIENCE_SECONDS = 30.0
"""How long a read is tried again without progress, before it gives up."""


class Retries:
    """The failures of one read since its last progress, and the wait after each.

    Not a library's retry loop, because that wraps whole calls: here, progress inside a stream starts the count anew.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._failures = 0
        self._first = 0.0

    def progress(self) -> None:
        """Call it when the read has made progress."""
        self._failures = 0

    def give_up_or_wait(self, error: grpc.RpcError) -> None:
        """Sleeps, or raises SourceError if no retry helps, or none has helped for PATIENCE_SECONDS."""
        now = time.monotonic()
        self._first = self._first if self._failures else now
        if error.code() not in _RETRIED or now - self._first >= PATIENCE_SECONDS:
            raise explained(error, self._purpose) from None
        time.sleep(random.uniform(0.5, 1.0) * min(8.0, 0.2 * 2**self._failures))
        self._failures += 1


def explained(error: grpc.RpcError, purpose: str) -> SourceError:
    """Firestore's own message with the remedy. Its messages name indexes and projects, not content."""
    code = error.code()
    details = (error.details() or "").strip()
    named = settings.named("firestore_default")
    remedies = {
        grpc.StatusCode.FAILED_PRECONDITION: _precondition(details),
        grpc.StatusCode.PERMISSION_DENIED: f"Give the account of connection {named} the role "
        "roles/datastore.viewer in this project.",
        grpc.StatusCode.UNAUTHENTICATED: f"Check the key of connection {named}.",
        # A key that Google refuses also arrives as UNAVAILABLE, with "Getting metadata from plugin failed".
        grpc.StatusCode.UNAVAILABLE: f"Check the network, the key of connection {named}, or that the emulator "
        "runs at FIRESTORE_EMULATOR_HOST.",
        grpc.StatusCode.NOT_FOUND: f"Check the project and database of connection {named}.",
    }
    return SourceError(
        f"Firestore failed: {purpose} ended in {code.name}: {details}. {remedies.get(code, 'Run again.')}"
    )


def _precondition(details: str) -> str:
    """The remedy for a FAILED_PRECONDITION, whose causes only its message distinguishes."""
    words = details.lower()
    if "currently building" in words:
        return "The index that this query needs is being built. Run again when it is ready."
    if "requires a" in words and "index" in words:
        return (
            "The index that this query needs is missing: open the link above, or deploy docs/firestore.indexes.json, and "
            "run again when it is built."
        )
    if "datastore mode" in words:
        named = settings.named("firestore_default")
        return f"This database is in Datastore mode. Set a database in native mode in connection {named}."
    return "Correct the cause that it names, and run again."
