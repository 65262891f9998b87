"""Seconds of a quiet reconciliation of a small world, near its target and behind a network that takes its time.

python -m benchmarks.far_target [--milliseconds 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from google.cloud import firestore

from dev import processes, seed
from dev.emulator import emulator
from dev.postgres_server import server
from dualwrite.catalog import CATALOG
from dualwrite.runs.reconciliation import SIDE_BY_SIDE
from tests.support import reconciled

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def far(uri: str, one_way: float) -> Iterator[str]:
    """The URI of a database behind a proxy that delivers everything `one_way` seconds late, in either direction."""
    reached = psycopg.conninfo.conninfo_to_dict(uri)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    upstream = socket.create_connection((str(reached["host"]), int(reached["port"])))
                    for end, other in ((client, upstream), (upstream, client)):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        _late(end, other, one_way)

        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        yield f"postgresql://{reached['user']}@127.0.0.1:{port}/{reached['dbname']}"


def _late(source: socket.socket, destination: socket.socket, seconds: float) -> None:
    """Delivers what comes from one end to the other, later, and its end too."""
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def take() -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(65_536)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + seconds, data))

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    destination.shutdown(socket.SHUT_WR)
                    return
                destination.sendall(data)

    for work in (take, deliver):
        threading.Thread(target=work, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--milliseconds", type=float, default=20.0, help="a round trip")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    processes.keep_temporary_files_in_memory()
    with tempfile.TemporaryDirectory() as folder, emulator(Path(folder)) as host, server() as uri:
        os.environ["FIRESTORE_EMULATOR_HOST"] = host
        world = seed.small()
        world.load_source(firestore.Client(project="bench"))
        with psycopg.connect(uri, autocommit=True) as connection:
            for file in (ROOT / "sql/local/phase1.sql", *sorted((ROOT / "sql/migrations").glob("*.sql"))):
                connection.execute(file.read_text())
            world.load_target(connection)

        def quiet(target: str) -> float:
            began = time.monotonic()
            ended = reconciled("bench", host, target, side_by_side=SIDE_BY_SIDE)
            assert not ended.alerts, ended.alerts
            return time.monotonic() - began

        everything = [f"{name}:*" for name in CATALOG.names]
        reconciled("bench", host, uri, scope="sweep", repair="all", max_share=100)
        reconciled("bench", host, uri, excuse=everything, excuse_reason="of the seeded world")
        quiet(uri)
        with far(uri, given.milliseconds / 2000) as away:
            for where, target in (("near", uri), (f"{given.milliseconds:g} ms away", away)):
                print(f"{where:<12} {statistics.median(quiet(target) for _ in range(given.rounds)):5.2f} s", flush=True)


if __name__ == "__main__":
    main()
