"""Drains a stream in a thread, a few items ahead of the consumer, so that the stream never waits long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

Put = Callable[[T], bool]
"""Takes the next item; False if the consumer has stopped."""

_AHEAD = 2


def read_ahead(name: str, read: Callable[[Put[T], threading.Event], None]) -> Iterator[T]:
    """Yields the items that `read` puts, in order, and raises its error. Closing the iterator sets the event, which `read` must
    watch while it waits, and ends the thread."""
    ahead: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=_AHEAD)
    stop = threading.Event()

    def put(item: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ahead.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            read(put, stop)
            put(None)
        except BaseException as error:  # noqa: BLE001 - passed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while True:
            item = ahead.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=10)
