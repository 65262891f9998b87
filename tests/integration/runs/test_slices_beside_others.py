"""Slices that are killed, and slices beside clients that write: nothing is lost, nothing is written twice or left behind."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests import in_slices
from tests.clients import COLLECTIONS, Client, beside, differences
from tests.killing import killed_at_work
from tests.support import gap_run, one
from tests.worlds import club, put

ROOT = Path(__file__).resolve().parents[3]
T = datetime(2026, 2, 1, tzinfo=UTC)


def _documents(number: int) -> dict[str, dict]:
    """Posts with three comments each, one a minute, none of which has a row."""
    found = {}
    for n in range(number):
        at = T + timedelta(minutes=n)
        found[f"boards/b1/posts/p{n}"] = {
            "title": "t", "content": "c", "authorId": "u1", "authorName": "n", "createdAt": at, "updatedAt": at,
        }  # fmt: skip
        text = {"content": "c", "userId": "u1", "userName": "n", "createdAt": at}
        found.update({f"boards/b1/posts/p{n}/comments/p{n}c{i}": text for i in range(3)})
    return found


def test_slices_killed_and_done_again_write_each_row_once(firestore, emulator, target_dsn):
    """SIGKILL while slices are examined, written, confirmed or verified. The run's retry (same run id) does them again.
    They leave nothing behind."""
    club(firestore, emulator, target_dsn)
    documents = _documents(120)
    paths = list(documents)
    for start in range(0, len(paths), 400):
        put(firestore, {path: documents[path] for path in paths[start : start + 400]})
    seed = random.randrange(10**9)
    sys.stdout.write(f"\nseed {seed}\n")
    names = ["posts", "comments"]
    params = {"run_id": "run", "collections": names, "slice_documents": 40, "page_size": 20}
    killed_at_work(
        in_slices.gap_and_verification, firestore.project, emulator, target_dsn,
        moments=random.Random(seed), within=(0.1, 1.5), **params,
    )  # fmt: skip
    with gap_run(firestore.project, emulator, target_dsn, **params) as run:
        gap, parts = in_slices.gap(run, dry=False)
        checked, _ = in_slices.verification(run)
    assert sum(p.collection == "comments" for p in parts) >= 5
    assert [(gap[n]["examined"], checked[n]["verification"]) for n in names] == [(120, "verified"), (360, "verified")]
    assert differences(firestore, target_dsn) == [], f"seed {seed}"
    written = (
        "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'insert' AND collection IN ('posts', 'comments')"
    )
    assert one(target_dsn, written) == 480, "each row was inserted once, whoever of the killed did it"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.seen_keys") == 0
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.looks") == 0


def test_slices_beside_clients_that_write_leave_both_equal(firestore, emulator, target_dsn):
    """Four workers with connections of their own examine slices, while clients write documents and then rows of the same
    collections, and lose none: whatever a worker inserts or updates too early or too late, the client's newest write stands.
    """
    club(firestore, emulator, target_dsn)
    first = random.randrange(10**9)
    sys.stdout.write(f"\nseeds from {first}\n")
    clients = [
        Client(firestore, target_dsn, first + i, failing=0.0, steps=8, pause=0.15, cascading=False) for i in range(60)
    ]
    rounds = iter(range(10**6))

    def gap() -> None:
        settings = {"collections": COLLECTIONS, "slice_documents": 10, "page_size": 7, "run_id": f"run{next(rounds)}"}
        with gap_run(firestore.project, emulator, target_dsn, **settings) as run:

            def in_threads(_, parts, work):
                def alone(part):
                    with gap_run(firestore.project, emulator, target_dsn, **settings) as own:
                        return work(own, part)

                with ThreadPoolExecutor(max_workers=4) as threads:
                    return list(threads.map(alone, parts))

            in_slices.gap(run, dry=False, worker=in_threads)

    assert beside(clients, gap) >= 2
    assert differences(firestore, target_dsn) == [], f"seeds from {first}"
    with gap_run(
        firestore.project, emulator, target_dsn, collections=COLLECTIONS, slice_documents=10, run_id="last"
    ) as run:
        found, parts = in_slices.gap(run, dry=False)
        checked, _ = in_slices.verification(run)
    assert len({p.collection for p in parts}) >= 3
    assert sum(r["inserted"] + r["updated"] for r in found.values()) == 0
    assert {r["verification"] for r in checked.values()} == {"verified"}
