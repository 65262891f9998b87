"""A real TCP proxy that can turn into a black hole, where connections stay open and nothing comes through them, or be far
away."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator


class Proxy:
    """Forwards connections made to `port` to another server, until it is told to be mute. Each piece, of at most 16 KiB,
    comes `seconds_late`, in either direction."""

    def __init__(
        self, host: str, port: int, *, listen_on: tuple[str, int] = ("127.0.0.1", 0), seconds_late: float = 0.0
    ) -> None:
        self._seconds_late = seconds_late
        self._upstream = (host, port)
        self._listener = socket.create_server(listen_on)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._mute_after: int | None = None
        self._mute_until = 0
        self._ended = threading.Event()
        self._moved = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def mute(self, *, new_ones: bool = True) -> None:
        """From now on nothing comes through, in either direction; with `new_ones` False later connections do."""
        with self._moved:
            self._mute_until = 10**9 if new_ones else self.accepted

    def mute_after(self, sent_bytes: int) -> None:
        """Mute from the moment when a connection has brought this many bytes to the client."""
        self._mute_after = sent_bytes

    def resume(self) -> None:
        """What was held back comes through, and all that follows."""
        with self._moved:
            self._mute_until, self._mute_after = 0, None
            self._moved.notify_all()

    def close(self) -> None:
        self._ended.set()
        self.resume()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._forward, args=(client, self.accepted), daemon=True).start()

    def _forward(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._upstream) as server:
            other = {client: server, server: client}
            for one in other:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            delivered = 0
            while not self._ended.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.05)
                for one in readable:
                    with self._moved:
                        self._moved.wait_for(lambda: self._ended.is_set() or not self._is_mute(number))
                    data = one.recv(16_384)
                    if not data:
                        return
                    time.sleep(self._seconds_late)
                    other[one].sendall(data)
                    delivered += len(data) if one is server else 0
                    if self._mute_after is not None and delivered >= self._mute_after:
                        self.mute()

    def _is_mute(self, number: int) -> bool:
        return number <= self._mute_until


@contextlib.contextmanager
def proxy(
    host: str, port: int, *, listen_on: tuple[str, int] = ("127.0.0.1", 0), seconds_late: float = 0.0
) -> Iterator[Proxy]:
    """A proxy in front of host:port, closed afterwards."""
    made = Proxy(host, port, listen_on=listen_on, seconds_late=seconds_late)
    try:
        yield made
    finally:
        made.close()
