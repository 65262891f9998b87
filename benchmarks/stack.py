"""The benchmarks' stack: the emulator, Postgres 18, and comments that are in both."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import psycopg
from google.cloud import firestore

from dev import seed
from dev.emulator import emulator
from dev.postgres_server import server
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Scan, Source
from dualwrite.migrations.files import folders, list_folders
from dualwrite.postgres.target import Target

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "bench"
COMMENTS = CATALOG["comments"]
SCAN = Scan(COMMENTS.collection_id, COMMENTS.fields)
PAGE_SIZE = 5000
"""The DAGs' default."""
_AT_ONCE = 50_000


@dataclass(frozen=True)
class Stack:
    """The addresses of the two databases, and how many documents the source has."""

    host: str
    uri: str
    documents: int

    def source(self) -> Source:
        return Source(PROJECT, emulator_host=self.host)

    def target(self) -> Target:
        return Target(lambda: postgres.connect(self.uri), CATALOG)


@contextmanager
def stack(documents: int, *, heap_mib: int = 4096) -> Iterator[Stack]:
    """Both databases, filled with `documents` comments that all match."""
    with empty_stack(heap_mib) as on:
        _load(on, _parents()[0])
        for start in range(0, documents, _AT_ONCE):  # in parts: a million at once would take gigabytes here
            _load(on, _comments(start, min(_AT_ONCE, documents - start)))
        yield replace(on, documents=documents)


@contextmanager
def real_size() -> Iterator[tuple[Stack, list[str]]]:
    """Both databases as production is on the day of the export, with a fortnight's gap; and the documents' paths."""
    world = seed.real_size()
    with empty_stack() as on:
        _load(on, world)
        yield replace(on, documents=len(world.documents)), list(world.documents)


@contextmanager
def small() -> Iterator[Stack]:
    """Both databases with the small world, as it is after the export."""
    world = seed.small()
    with empty_stack() as on:
        _load(on, world)
        yield replace(on, documents=len(world.documents))


@contextmanager
def empty_stack(heap_mib: int = 4096) -> Iterator[Stack]:
    """Both databases, the target migrated, with nothing in them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        emulator(Path(folder), heap_mib=heap_mib, optimised=True) as host,
        server() as uri,
    ):
        os.environ["FIRESTORE_EMULATOR_HOST"] = host
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute((ROOT / "sql/local/phase1.sql").read_text())
            for file in (f.path for f in list_folders(folders())):
                connection.execute(file.read_text())
        yield Stack(host, uri, 0)


def _load(on: Stack, world: seed.World) -> None:
    with psycopg.connect(on.uri, autocommit=True) as connection:
        world.load_target(connection)
    client = firestore.Client(project=PROJECT)
    world.load_source(client)
    client.close()


@cache
def _parents() -> tuple[seed.World, list[str], list[str]]:
    """2,000 posts and 100 users, as a world with their paths and ids."""
    world = seed.World(random.Random(1))
    boards = [world.board(cohort=n) for n in range(20)]
    users = [world.user() for _ in range(100)]
    posts = [f"boards/{boards[n % 20]}/posts/{world.post(boards[n % 20], users[n % 100])}" for n in range(2000)]
    return world, posts, users


def _comments(start: int, number: int) -> seed.World:
    """Comments below those posts, as production has them: a name, some hundred bytes of Korean HTML, a time."""
    _, posts, users = _parents()
    world = seed.World(random.Random(start + 2))
    for n in range(start, start + number):
        world.comment(posts[n % len(posts)], users[n % len(users)])
    return world
