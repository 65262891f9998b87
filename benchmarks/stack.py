"""What the benchmarks run on: the emulator, Postgres 18, and comments that stand in both."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from google.cloud import firestore

from dev import seed
from dev.emulator import emulator
from dev.postgres_server import server
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Scan, Source
from dualwrite.postgres.target import Target

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "bench"
COMMENTS = CATALOG["comments"]
SCAN = Scan(COMMENTS.collection_id, COMMENTS.fields)
PAGE_SIZE = 5000
"""The DAGs' default."""


@dataclass(frozen=True)
class Stack:
    """Where the two databases are, and how many comments stand in each."""

    host: str
    uri: str
    documents: int

    def source(self) -> Source:
        return Source(PROJECT, emulator_host=self.host)

    def target(self) -> Target:
        return Target(lambda: postgres.connect(self.uri), CATALOG)


@contextmanager
def stack(documents: int) -> Iterator[Stack]:
    """Both databases, filled with `documents` comments that all match."""
    with _filled(_comments(documents), documents) as on:
        yield on


@contextmanager
def real_size() -> Iterator[tuple[Stack, list[str]]]:
    """Both databases as production is on the day of the export, with a fortnight's gap; and the documents' paths."""
    world = seed.real_size()
    with _filled(world, len(world.documents)) as on:
        yield on, list(world.documents)


@contextmanager
def _filled(world: seed.World, documents: int) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory() as folder, emulator(Path(folder)) as host, server() as uri:
        os.environ["FIRESTORE_EMULATOR_HOST"] = host
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute((ROOT / "sql/local/phase1.sql").read_text())
            for file in sorted((ROOT / "sql/migrations").glob("*.sql")):
                connection.execute(file.read_text())
            world.load_target(connection)
        client = firestore.Client(project=PROJECT)
        world.load_source(client)
        client.close()
        yield Stack(host, uri, documents)


def _comments(number: int) -> seed.World:
    """Comments below 2,000 posts, as production has them: a name, some hundred bytes of Korean HTML, a time."""
    world = seed.World(random.Random(1))
    boards = [world.board(cohort=n) for n in range(20)]
    users = [world.user() for _ in range(100)]
    posts = [f"boards/{boards[n % 20]}/posts/{world.post(boards[n % 20], users[n % 100])}" for n in range(2000)]
    for n in range(number):
        world.comment(posts[n % 2000], users[n % 100])
    return world
