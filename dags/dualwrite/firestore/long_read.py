"""A whole scan as one stream.

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

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dualwrite.firestore.calls import Calls
from dualwrite.firestore.failures import CallError, Retries
from dualwrite.firestore.queries import Scan, cursor_after, scan_query, up_to
from dualwrite.firestore.read_ahead import Put, read_ahead
from dualwrite.firestore.values import document_of
from dualwrite.firestore.wire import QueryRequest
from dualwrite.model.documents import Document
from dualwrite.model.errors import IncompleteRead

PIN_SECONDS = 50 * 60
"""Seconds for which one read_time is used: Firestore refuses one that is older than an hour."""

PAGE_BYTES = 8 * 1024 * 1024
"""The size in memory of documents that are held together (see `held_bytes`)."""


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


def pages(calls: Calls, scan: Scan, page_size: int) -> Iterator[Page]:
    """See Source.pages."""
    return read_ahead(
        f"read {scan.collection_id}", lambda put, stop: _LongRead(calls, scan, page_size, put, stop).read()
    )


@dataclass(slots=True)
class _LongRead:
    """A scan that is being read, and its progress."""

    calls: Calls
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

    def read(self) -> None:
        try:
            self._read_parts()
        finally:
            self.calls.budget.spend(self.billed - self.reserved)

    def _read_parts(self) -> None:
        structured = scan_query(self.scan, self.calls.root)
        total = 0
        while True:
            begun, start = time.monotonic(), self.delivered
            expected, pinned = self.calls.count(structured, self.scan.collection_id, None)
            more = self.billed + max(1, expected) - self.reserved
            self.calls.budget.reserve(more, f"reading {self.scan.collection_id} with {expected:,} documents")
            self.reserved += more
            total = start + expected
            ended = self._read_pinned(structured, pinned, begun, total)
            if self.stop.is_set():
                return
            if self.delivered == start:  # a query that finds nothing is billed as one read
                self.calls.bill(1, reserved=True)
                self.billed += 1
                self.empty += 1
            if not ended:
                # The pin is too old. A count up to the last document, at the same pin, proves the part that was delivered.
                expected, _ = self.calls.count(up_to(structured, self.scan, self.last), self.scan.collection_id, pinned)
            elif self.delivered - start != expected:
                # The first count chose the instant, and may have missed a write that committed at that very moment [seen in
                # the emulator: one more was delivered]. A second count at the pin sees the same as the read.
                expected, _ = self.calls.count(structured, self.scan.collection_id, pinned)
            if self.delivered - start != expected:
                raise IncompleteRead(
                    f"{self.scan.collection_id} delivered {self.delivered - start:,} of the {expected:,} documents that Firestore "
                    "counted at the same instant. Nothing is known of the rest. Run again."
                )
            if ended:
                if self.messages:
                    self.put(Page(self.messages, total))
                return
            structured.start_at.CopyFrom(cursor_after(self.scan, self.last))

    def _read_pinned(self, structured: Any, pinned: datetime, begun: float, total: int) -> bool:
        """Reads at one instant until the end (True), or until the pin is too old or the consumer stops (False)."""
        request = QueryRequest(parent=self.calls.root)
        request.structured_query.CopyFrom(structured)
        request.read_time.FromDatetime(pinned)
        retries = Retries(f"reading {self.scan.collection_id}")
        while True:
            before = self.delivered
            call = self.calls.wire.run_query(request)
            try:
                for size, answer in call:
                    if not answer.HasField("document"):
                        continue
                    message = answer.document
                    self.messages.append(message)
                    self.delivered += 1
                    self.size += size
                    self.last = message
                    if len(self.messages) >= self.page_size or self.size >= PAGE_BYTES:
                        page = Page(self.messages, total)
                        self.messages, self.size = [], 0
                        self._bill_progress()
                        if not self.put(page):
                            return False
                        if time.monotonic() - begun > PIN_SECONDS:
                            return False
                return True
            except CallError as error:
                if self.delivered > before:
                    retries.progress()
                retries.give_up_or_wait(error)
                if self.delivered > before:
                    request.structured_query.start_at.CopyFrom(cursor_after(self.scan, self.last))
                if time.monotonic() - begun > PIN_SECONDS and self.last is not None:
                    return False
            finally:
                self._bill_progress()
                call.cancel()

    def _bill_progress(self) -> None:
        billed = self.delivered + self.empty
        self.calls.bill(billed - self.billed, reserved=True)
        self.billed = billed
