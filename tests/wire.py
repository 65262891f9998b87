"""A real proxy in front of Postgres that understands its protocol: a test can act, or break the connection, before any message
of ours reaches the server, and before its answer reaches us."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

_STARTUP = 196608  # protocol 3.0; newer minor versions are larger
_AT_ONCE = b"Q"
_TEXT = b"P"
_ENDS = b"S"


class Broken(Exception):
    """Raised by a hook: the message, or its answer, goes nowhere, and the connection ends on both sides."""


@dataclass(slots=True)
class Message:
    """What our side sent, and waits for an answer to."""

    text: str
    backend: int
    """The server process's id."""
    port: int
    """Our side's: which process it is."""
    alone: bool
    """It was sent while no transaction was open."""
    temporary: bool
    """Its transaction has made a temporary table."""
    kept: Any = None
    """For a hook to remember, until the answer."""

    @property
    def commits(self) -> bool:
        return self.text.rstrip("; \n").upper().endswith("COMMIT")


Hook = Callable[[Message], object]


@contextlib.contextmanager
def wire(dsn: str, before: Hook = lambda _: None, after: Hook = lambda _: None) -> Iterator[str]:
    """The DSN of a proxy in front of `dsn`. The hooks are called in threads of the proxy's, one for each connection and
    direction."""
    server = psycopg.conninfo.conninfo_to_dict(dsn)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(
                    target=_Session(client, (str(server["host"]), int(server["port"])), before, after).run, daemon=True
                ).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        user, name = server["user"], server["dbname"]
        yield f"postgresql://{user}@127.0.0.1:{port}/{name}?sslmode=disable&gssencmode=disable"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class _Session:
    """One connection of ours, and the proxy's to the server."""

    def __init__(self, client: socket.socket, upstream: tuple[str, int], before: Hook, after: Hook) -> None:
        self._client, self._upstream = client, upstream
        self._before, self._after = before, after
        self._backend = 0
        self._port = client.getpeername()[1]
        self._open = False
        """Whether a transaction is, by the server's last word."""
        self._temporary = False
        self._waiting: Message | None = None

    def run(self) -> None:
        with (
            self._client,
            contextlib.suppress(OSError, EOFError, Broken),
            socket.create_connection(self._upstream) as server,
        ):
            for one in (self._client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            size = self._read(self._client, 4)
            packet = self._read(self._client, struct.unpack("!I", size)[0] - 4)
            server.sendall(size + packet)
            if struct.unpack("!I", packet[:4])[0] >> 16 != _STARTUP >> 16:
                return  # a request to cancel a statement
            answers = threading.Thread(target=self._answers, args=(server,), daemon=True)
            answers.start()
            try:
                self._messages(server)
            finally:
                self._end(server)
                answers.join()

    def _end(self, server: socket.socket) -> None:
        for one in (server, self._client):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _messages(self, server: socket.socket) -> None:
        """From our side to the server. What belongs to one statement is kept until it is whole, and then judged."""
        kept, text = b"", ""
        while True:
            kind, whole = self._message(self._client)
            if kind in (b"d", b"c", b"f"):  # of a COPY, which has begun
                server.sendall(whole)
                continue
            kept += whole
            if kind == _TEXT:
                text = whole[5:].split(b"\0", 2)[1].decode()
            if kind == _AT_ONCE:
                text = whole[5:-1].decode()
            if kind in (_AT_ONCE, _ENDS, b"X", b"H"):
                if kind in (_AT_ONCE, _ENDS) and text:
                    self._temporary = "CREATE TEMP" in text.upper() or (self._temporary and self._open)
                    message = Message(text, self._backend, self._port, not self._open, self._temporary)
                    self._waiting = message
                    self._before(message)
                    text = ""
                server.sendall(kept)
                kept = b""

    def _answers(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, Broken):
            while True:
                kind, whole = self._message(server)
                if kind == b"K":
                    self._backend = struct.unpack("!I", whole[5:9])[0]
                if kind == b"Z":
                    self._open = whole[5:6] != b"I"
                    answered, self._waiting = self._waiting, None
                    if answered is not None:
                        self._after(answered)
                self._client.sendall(whole)
        self._end(server)

    def _message(self, source: socket.socket) -> tuple[bytes, bytes]:
        head = self._read(source, 5)
        return head[:1], head + self._read(source, struct.unpack("!I", head[1:])[0] - 4)

    @staticmethod
    def _read(source: socket.socket, size: int) -> bytes:
        parts = []
        while size:
            part = source.recv(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
