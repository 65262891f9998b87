"""max_reads_per_second, max_rows_per_second and giving way to a slow target, on the real emulator and Postgres."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dualwrite.engine.compare_and_set import WritingProtocol
from dualwrite.model.pace import BURST_SECONDS
from dualwrite.postgres.pressure import SLOW_SECONDS
from dualwrite.runs import backfill
from tests.support import gap_run, nonzero, one
from tests.worlds import club, put

T = datetime(2026, 2, 1, tzinfo=UTC)
NUMBER = 300


@pytest.fixture
def world(firestore, emulator, target_dsn):
    """A board with posts that have no rows."""
    club(firestore, emulator, target_dsn)
    post = {"title": "t", "content": "c", "authorId": "u1", "authorName": "n"}
    at = [T + timedelta(minutes=n) for n in range(NUMBER)]
    put(firestore, {f"boards/b1/posts/p{n}": {**post, "createdAt": at[n], "updatedAt": at[n]} for n in range(NUMBER)})
    return firestore


@pytest.mark.parametrize("limited", ["reads", "rows"])
def test_a_run_with_a_limit_takes_its_time_and_does_the_same(world, emulator, target_dsn, limited):
    changes = {"collections": ["posts"], "page_size": 50, f"max_{limited}_per_second": 100}
    with gap_run(world.project, emulator, target_dsn, **changes) as run:
        began = time.monotonic()
        found = backfill.examine(run, "posts", dry=True)
        took = time.monotonic() - began
    assert nonzero(found["counts"]) == {"missing": NUMBER}
    assert took >= NUMBER / 100 - BURST_SECONDS, "300 at 100 a second, and a second's worth is free"


def test_a_slow_target_gets_smaller_pages_and_every_row(world, emulator, target_dsn, caplog, monkeypatch):
    """A client holds a lock on the table for longer than a page may take, and less than a run gives up after."""
    caplog.set_level("INFO")
    pages: list[int] = []
    judged = WritingProtocol.judge

    def noted(self, page, policy, expected=None):
        pages.append(len(page))
        return judged(self, page, policy, expected)

    monkeypatch.setattr(WritingProtocol, "judge", noted)
    locked = threading.Event()

    def hold() -> None:
        with psycopg.connect(target_dsn) as connection:
            connection.execute("LOCK TABLE posts IN SHARE MODE")
            locked.set()
            time.sleep(SLOW_SECONDS + 0.4)

    holder = threading.Thread(target=hold)
    with gap_run(world.project, emulator, target_dsn, collections=["posts"], page_size=100) as run:
        holder.start()
        locked.wait()
        found = backfill.examine(run, "posts", dry=False)
    holder.join()
    assert found["inserted"] == one(target_dsn, "SELECT count(*) FROM posts") == NUMBER
    assert sum("Postgres is slow" in r.getMessage() for r in caplog.records) == 1
    assert pages[1] < pages[0], f"pages got smaller: {pages}"
