"""Reconciliation beside simulated clients that write in the app's order, and fail in either half.

Each schedule is one client's history on a post of its own, made from a seed that is printed (tests/clients.py). Each kind of
run is tried with whole collections and with collections in slices.
"""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.clients import COLLECTIONS, Client, beside, differences
from tests.killing import killed_at_work
from tests.soak import sized
from tests.support import reconciled

ROOT = Path(__file__).resolve().parents[3]
T = datetime(2026, 2, 1, tzinfo=UTC)
slice_documents = pytest.mark.parametrize(
    "slice_documents", [pytest.param(250_000, id="whole"), pytest.param(20, id="in slices")]
)
"""Of how many documents a sweep's slice may be: more than there are, or few."""


@pytest.fixture
def base(firestore, target_dsn):
    firestore.document("boards/b1").set({"title": "b", "createdAt": T})
    for user in ("u1", "u2"):
        firestore.document(f"users/{user}").set({"createdAt": T, "updatedAt": T})
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "INSERT INTO users (id, created_at, updated_at) VALUES ('u1', %s, %s), ('u2', %s, %s)", (T, T, T, T)
        )
        connection.execute("INSERT INTO boards (id, title, created_at, updated_at) VALUES ('b1', 'b', %s, %s)", (T, T))
    return firestore


def _schedules(base, emulator, dsn: str, number: int, *, pause: float = 0.2, **params: int) -> None:
    first = random.randrange(10**9)
    sys.stdout.write(f"\nseeds {first} to {first + number - 1}\n")
    repair = {
        "collections": COLLECTIONS,
        "repair": "all",
        "max_repairs": 1_000_000,
        "max_share": 100,
        "liveness_minimum": 10**6,
        **params,
    }
    clients = [Client(base, dsn, first + i, failing=0.25, pause=pause) for i in range(number)]
    turn = iter(range(10**6))

    def live() -> None:
        scope = "sweep" if next(turn) % 2 else "recent"
        reconciled(base.project, emulator, dsn, scope=scope, grace_seconds=0.1, **repair)

    assert beside(clients, live) >= 3
    last = reconciled(base.project, emulator, dsn, scope="sweep", grace_seconds=0.1, **repair)
    assert differences(base, dsn) == [], f"seeds from {first}"
    assert last.alerts == [], f"seeds from {first}"


@slice_documents
def test_75_random_schedules_end_with_target_equal_to_source(base, emulator, target_dsn, slice_documents):
    # Their pauses make it last as long as several reconciliations.
    _schedules(base, emulator, target_dsn, 75, pause=0.35, slice_documents=slice_documents)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_5000_random_schedules_end_with_target_equal_to_source(base, emulator, target_dsn):
    _schedules(base, emulator, target_dsn, max(300, sized(5_000)))


def _ends_with_nothing_left(base, emulator, dsn: str, clients: int, steps: int) -> None:
    """Beside clients of whose operations every tenth loses a half, runs that repair; once they stop, one run that repairs and
    sweeps nothing must leave nothing for a sweep to find. (In each run some differences are in flight, and documents change
    that were drift before.)"""
    first = random.randrange(10**9)
    sys.stdout.write(f"\nseeds from {first}\n")
    changes = {
        "collections": COLLECTIONS,
        "grace_seconds": 0.2,
        "max_repairs": 1_000_000,
        "max_share": 100,
        "liveness_minimum": 10**6,
    }

    def run(**more):
        return reconciled(base.project, emulator, dsn, **changes, **more)

    run(scope="sweep")
    busy = [Client(base, dsn, first + i, failing=0.05, steps=steps, pause=0.4, in_windows=True) for i in range(clients)]
    assert beside(busy, lambda: run(repair="all")) >= 2
    last = run(repair="all")
    assert last.alerts == [], f"seeds from {first}"
    assert differences(base, dsn) == [], f"seeds from {first}"
    swept = run(scope="sweep")
    assert swept.alerts == [], f"seeds from {first}"
    assert [swept.counts(name) for name in COLLECTIONS] == [{}] * len(COLLECTIONS), f"seeds from {first}"


def test_once_clients_stop_one_repair_leaves_nothing_to_a_sweep(base, emulator, target_dsn):
    _ends_with_nothing_left(base, emulator, target_dsn, clients=12, steps=20)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_once_thousands_of_operations_stop_one_repair_is_enough(base, emulator, target_dsn):
    _ends_with_nothing_left(base, emulator, target_dsn, clients=sized(250), steps=15)


def test_clients_that_lose_nothing_raise_no_alarm(base, emulator, target_dsn):
    """Rows lag their documents by up to a few hundred milliseconds; the grace is longer."""
    first = random.randrange(10**9)
    sys.stdout.write(f"\nseeds from {first}\n")
    reconciled(base.project, emulator, target_dsn, collections=COLLECTIONS)
    clients = [
        Client(base, target_dsn, first + i, failing=0.0, steps=12, pause=0.2, cascading=False) for i in range(24)
    ]
    alarms: list[str] = []

    def live() -> None:
        found = reconciled(base.project, emulator, target_dsn, collections=COLLECTIONS, grace_seconds=3, minutes=1)
        alarms.extend(found.alerts)

    beside(clients, live)
    assert alarms == [], f"seeds from {first}"


@pytest.mark.parametrize("number", range(2))
@slice_documents
def test_after_kills_at_any_moment_a_run_leaves_both_equal(base, emulator, target_dsn, number, slice_documents):
    """SIGKILL wherever it happens to be: before a write, between a write and its confirmation, between two tasks."""
    seed = random.randrange(10**9)
    sys.stdout.write(f"\nseed {seed}\n")
    clients = [Client(base, target_dsn, seed + i, failing=0.4, pause=0.0) for i in range(60)]
    with ThreadPoolExecutor(max_workers=8) as threads:
        list(threads.map(Client.run, clients))
    assert differences(base, target_dsn), "the clients lost nothing"
    repair = {
        "scope": "sweep",
        "repair": "all",
        "max_repairs": 100_000,
        "max_share": 100,
        "liveness_minimum": 10**6,
        "slice_documents": slice_documents,
    }
    killed_at_work(
        reconciled, base.project, emulator, target_dsn, moments=random.Random(seed), within=(0.05, 0.8), **repair
    )
    last = reconciled(base.project, emulator, target_dsn, **repair)
    assert differences(base, target_dsn) == [], f"seed {seed}"
    assert last.alerts == [], f"seed {seed}"
    with psycopg.connect(target_dsn) as connection:
        left = connection.execute("SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL").fetchone()
    assert left == (0,), f"seed {seed}"
