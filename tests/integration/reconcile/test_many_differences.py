"""A store of differences that grows: found, shown, repaired and closed, without all of them in one statement or in memory."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.postgres import connect
from dualwrite.postgres.remembered import differences
from dualwrite.runs import open_units, repair
from tests.support import one, reconcile_run, reconciled
from tests.worlds import club, comment, post, put

FILL = """
INSERT INTO dualwrite.open_differences (collection, key, path, row_key, verdict, first_seen, last_seen, run_id)
SELECT 'comments', 'c' || lpad(n::text, 7, '0'), 'boards/b1/posts/p1/comments/c' || lpad(n::text, 7, '0'),
  jsonb_build_array('c' || lpad(n::text, 7, '0')), 'missing', now() - interval '1 hour', now(), 'before'
FROM generate_series(1, %s) n
"""


def _fill(dsn: str, number: int) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(FILL, (number,))


def test_pages_hold_each_difference_once_and_none_too_many(target_dsn):
    _fill(target_dsn, 23)
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "UPDATE dualwrite.open_differences SET key = '!' WHERE key = 'c0000023'"
        )  # before all letters

    @contextmanager
    def transaction():
        with connect(target_dsn) as connection:
            yield connection

    pages = list(differences.in_pages(transaction, "comments", 5))
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3]
    labels = [d.label for page in pages for d in page]
    assert labels == sorted(set(labels))
    with transaction() as connection:
        assert set(differences.differences_at(connection, "comments", [*labels[:7], "none"])) == set(labels[:7])
        assert differences.waiting(connection, "comments", "run", timedelta(minutes=1)) == differences.Waiting(23, 0)
        connection.execute("UPDATE dualwrite.open_differences SET verdict = 'in_flight' WHERE key < 'c0000010'")
        waiting = differences.waiting(connection, "comments", "run", timedelta(minutes=1))
        assert waiting == differences.Waiting(23, 10), "drift is waited for by nobody"


def test_what_is_kept_goes_in_parts_and_each_has_its_time(target_dsn, monkeypatch):
    """All at once had the time of one statement: on a slow server 100,000 could not be kept, and no run got any further."""
    monkeypatch.setattr(differences, "AT_ONCE", 1)
    with psycopg.connect(target_dsn) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON dualwrite.open_differences FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    found = [Finding(Verdict.MISSING, f"c{n}", f"boards/b1/posts/p1/comments/c{n}", key=(f"c{n}",)) for n in range(13)]
    with connect(target_dsn, answer_within=1.0) as connection, connection.transaction():
        differences.remember(connection, "comments", found, "run")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 13


def test_closing_a_page_looks_each_write_up_by_its_key(target_dsn):
    """In tables without statistics, as they are in the run that repairs an outage: compared each with each, 15,000 took a minute."""
    _fill(target_dsn, 10_000)
    with psycopg.connect(target_dsn) as connection:
        connection.execute("UPDATE dualwrite.open_differences SET cause = 'never_attempted' WHERE key <> 'c0000007'")
        connection.execute(
            """
            INSERT INTO dualwrite.repair_journal (run_id, collection, key, path, action, table_name, row_key, written_at)
            SELECT 'run', collection, key, path, 'insert', collection, row_key,
              CASE WHEN key = 'c0000008' THEN now() - interval '90 minutes' ELSE now() END
            FROM dualwrite.open_differences
            """
        )
    labels = [f"c{n:07}" for n in range(1, 10_001)]
    with connect(target_dsn) as connection, connection.transaction():
        connection.execute("SET LOCAL statement_timeout = '3s'")
        assert differences.close(connection, "comments", labels) == 10_000
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0
    told = "SELECT array_agg(key ORDER BY key) FROM dualwrite.repair_journal WHERE cause IS NULL"
    assert one(target_dsn, told) == ["c0000007", "c0000008"], "one without a cause, one written before it was seen"


def test_a_run_looks_at_some_and_counts_the_others(target_dsn):
    _fill(target_dsn, 50)
    with connect(target_dsn) as connection:
        due = differences.due(connection, ["comments", "posts"], "run", 20)
    assert len(due.differences["comments"]) == 20
    assert (due.waiting, due.undecided) == ({"comments": 30}, {"comments": 0})


@pytest.mark.parametrize("number", [1_200, pytest.param(100_000, marks=(pytest.mark.soak, pytest.mark.timeout(3600)))])
def test_what_an_outage_left_is_found_shown_repaired_and_closed(firestore, emulator, target_dsn, monkeypatch, number):
    """The repair goes in pages: none holds more than a page of differences."""
    monkeypatch.setattr(differences, "AT_ONCE", 500)
    club(firestore, emulator, target_dsn, {"boards/b1/posts/p1": post()})
    now = datetime.now(UTC)
    for start in range(0, number, 400):
        names = range(start, min(number, start + 400))
        put(firestore, {f"boards/b1/posts/p1/comments/c{n:07}": comment(createdAt=now) for n in names})
    changes = {"collections": ["comments"], "liveness_minimum": 10**6, "max_open_looks": 10**6, "max_repairs": 10**6}
    found = reconciled(firestore.project, emulator, target_dsn, **changes)
    assert found.counts("comments") == {"missing": number}
    [shown] = [c for c in found.report["collections"] if c["collection"] == "comments"]
    assert len(shown["samples"]["missing"]) == 20, "samples, and exact counts"
    sizes: list[int] = []
    original = open_units.units_of
    monkeypatch.setattr(
        repair, "units_of", lambda examiner, known: sizes.append(len(known)) or original(examiner, known)
    )
    repaired = reconciled(firestore.project, emulator, target_dsn, repair="missing", **changes)
    assert one(target_dsn, "SELECT count(*) FROM comments") == number
    assert sum(sizes) == number
    assert max(sizes) <= 500
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0
    assert repaired.alerts == []


@pytest.mark.soak
def test_a_repairs_plan_takes_no_more_memory_for_half_a_million(firestore, emulator, target_dsn):
    """No more than for three pages."""
    club(firestore, emulator, target_dsn)
    peaks = []
    with reconcile_run(firestore.project, emulator, target_dsn, collections=["comments"], repair="missing") as run:
        for number in (15_000, 500_000):
            with psycopg.connect(target_dsn) as connection:
                connection.execute("DELETE FROM dualwrite.open_differences")
            _fill(target_dsn, number)
            tracemalloc.start()
            assert repair.plan(run)["comments"].insert == number
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks
