"""The tripwire of counts: what it finds between two sweeps, what it costs, and that healthy apps don't set it off."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import compare
from dualwrite.firestore import wire as calls
from dualwrite.firestore.source import Source
from dualwrite.model.errors import IncompleteRead, SourceError
from dualwrite.postgres import sql
from dualwrite.postgres.target import Target
from dualwrite.runs import backfill
from dualwrite.runs.tripwire import baseline, counts, tripwire
from dualwrite.runs.tripwire.baseline import time_column
from dualwrite.runs.tripwire.tripwire import Tripwire
from tests.clients import Client, beside, milliseconds
from tests.kept import looking
from tests.support import gap_run, one, reconciled, verify_all
from tests.worlds import LONG_AGO, board, comment, put, user

HOUR = timedelta(hours=1)

COUNTED = {"failed": None, "waits_until": None}
"""Of a tripwire that counted."""


def execute(dsn: str, statement: str, *parameters) -> None:
    with looking(dsn) as connection:
        connection.execute(statement, parameters or None)


@pytest.fixture
def world(firestore, emulator, target_dsn):
    """A board, three users, a post with forty comments of forty hours; verified, and so with a baseline."""
    documents = {"boards/b1": board(), **{f"users/u{n}": user(f"u{n}") for n in (1, 2, 3)}}
    documents["boards/b1/posts/p1"] = {
        "title": "t", "content": "c", "authorId": "u1", "authorName": "n", "createdAt": LONG_AGO, "updatedAt": LONG_AGO,
    }  # fmt: skip
    documents |= {f"boards/b1/posts/p1/comments/c{n}": comment(createdAt=LONG_AGO + n * HOUR) for n in range(40)}
    documents["boards/b1/posts/p1/likes/l1"] = {"userId": "u1", "userName": "n", "createdAt": LONG_AGO}
    put(firestore, documents)
    with gap_run(firestore.project, emulator, target_dsn, scope="all") as run:
        for name in run.params.names:
            backfill.examine(run, name, dry=False)
        assert {v["verification"] for v in verify_all(run).values()} == {"verified"}
    return firestore


@pytest.fixture
def run(world, emulator, target_dsn):
    def run(**changes):
        return reconciled(world.project, emulator, target_dsn, **{"liveness_minimum": 10**6, **changes})

    return run


def collection(found, name: str) -> dict:
    [line] = [c for c in found.report["collections"] if c["collection"] == name]
    return line


def test_a_lost_delete_of_an_old_document_is_found_in_one_run(world, target_dsn, run):
    world.document("boards/b1/posts/p1/comments/c7").delete()
    found = run()
    assert found.counts("comments") == {"extra": 1}
    assert collection(found, "comments")["scope"] == "recent"
    assert collection(found, "comments")["tripwire"] == {"deviation": -1, "buckets": 1, "calls_sweep": False, **COUNTED}
    assert len(found.alerts) == 1
    assert run(repair="all").alerts == []
    settled = run()  # the repair itself moved the difference back
    assert settled.alerts == []
    assert collection(run(), "comments")["tripwire"]["buckets"] == 0


def test_a_lost_creation_that_no_window_sees_is_found_in_one_run(world, run):
    world.document("users/u1/blockedUsers/u2").set({"blockedAt": datetime.now(UTC) - 5 * HOUR})
    world.document("boards/b1/posts/p1/comments/old").set(comment(createdAt=LONG_AGO + 5 * HOUR))
    found = run()
    assert found.counts("blocks") == {"missing": 1}
    assert found.counts("comments") == {"missing": 1}


def test_a_lost_creation_without_check_field_calls_a_sweep(world, target_dsn, run):
    """The next run is that sweep, and finds it."""
    fields = comment()
    del fields["createdAt"]
    world.document("boards/b1/posts/p1/comments/late").set(fields)
    found = run()
    assert collection(found, "comments")["tripwire"]["calls_sweep"]
    assert found.counts("comments") == {}
    found = run()
    assert collection(found, "comments")["scope"] == "sweep"
    assert found.counts("comments") == {"missing": 1}
    assert collection(run(), "comments")["scope"] == "recent"


def test_a_second_sweep_is_not_called_within_hours_of_the_first(world, target_dsn, run):
    fields = comment()
    del fields["createdAt"]
    for n in range(2):
        world.document(f"boards/b1/posts/p1/comments/late{n}").set(fields)
        called = collection(run(), "comments")["tripwire"]["calls_sweep"]
        assert called == (n == 0)
        run()
    execute(target_dsn, "UPDATE dualwrite.count_baselines SET sweep_called_at = now() - interval '7 hours'")
    assert collection(run(), "comments")["tripwire"]["calls_sweep"]


def test_an_arrived_creation_without_check_field_calls_no_sweep(world, target_dsn, run):
    fields = comment()
    del fields["createdAt"]
    world.document("boards/b1/posts/p1/comments/new").set(fields)
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, user_name, content, created_at) "
                        "VALUES ('new', 'p1', 'u1', 'n', 'c', now())")  # fmt: skip
    found = run()
    assert collection(found, "comments")["tripwire"] == {"deviation": 1, "buckets": 0, "calls_sweep": False, **COUNTED}
    assert collection(run(), "comments")["tripwire"]["deviation"] == 0, "its row was found, so it is expected now"
    # Two hours later its row lies in a bucket, and its document in none.
    execute(target_dsn, "UPDATE comments SET created_at = now() - interval '100 minutes' WHERE id = 'new'")
    found = run()
    assert collection(found, "comments")["tripwire"]["calls_sweep"] is False
    assert collection(found, "comments")["tripwire"]["buckets"] == 1
    assert found.alerts == []
    assert collection(run(), "comments")["tripwire"]["buckets"] == 0


def test_a_deleted_posts_orphans_are_examined_once_without_alarm(world, target_dsn, run):
    world.document("boards/b1/posts/p1").delete()
    execute(target_dsn, "DELETE FROM posts WHERE id = 'p1'")
    found = run()
    assert found.alerts == []
    assert found.counts("comments") == {"orphan": 40}
    again = run()
    assert collection(again, "comments")["tripwire"] == {"deviation": 0, "buckets": 0, "calls_sweep": False, **COUNTED}
    assert collection(again, "comments")["documents_read"] == 0


def test_a_deviation_gone_at_the_second_look_is_not_examined(world, emulator, target_dsn, run, monkeypatch):
    """A delete of an old document in flight: its row goes a moment later."""
    world.document("boards/b1/posts/p1/comments/c7").delete()

    def the_row_follows(_seconds: float) -> None:
        execute(target_dsn, "DELETE FROM comments WHERE id = 'c7'")

    monkeypatch.setattr("dualwrite.runs.tripwire.tripwire.time.sleep", the_row_follows)
    found = run()
    assert collection(found, "comments")["tripwire"] == {"deviation": 0, "buckets": 0, "calls_sweep": False, **COUNTED}
    assert collection(found, "comments")["documents_read"] == 0


def test_a_lost_delete_of_what_came_since_the_sweep_is_found(world, target_dsn, run):
    """Examined by a window hours ago, deleted since: between what a window sees and what a sweep had counted."""
    written = datetime.now(UTC) - timedelta(minutes=100)
    execute(
        target_dsn,
        "INSERT INTO comments (id, post_id, user_id, user_name, content, created_at, updated_at) "
        "VALUES ('since', 'p1', 'u1', 'n', 'c', %s, %s)",
        written,
        written,
    )
    found = run()
    assert found.counts("comments") == {"extra": 1}


def test_a_run_killed_after_it_examined_a_bucket_forgets_nothing(world, emulator, target_dsn, run):
    world.document("boards/b1/posts/p1/comments/c7").delete()
    before = one(target_dsn, "SELECT differences FROM dualwrite.count_baselines WHERE collection = 'comments'")

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(between=dies)
    assert one(target_dsn, "SELECT differences FROM dualwrite.count_baselines WHERE collection = 'comments'") != before
    assert one(target_dsn, "SELECT verdict FROM dualwrite.open_differences") == "in_flight"
    assert run().counts("comments") == {"extra": 1}


def test_entries_and_collections_without_a_time_have_no_baseline(world, target_dsn):
    kept = one(target_dsn, "SELECT array_agg(collection ORDER BY collection) FROM dualwrite.count_baselines")
    left_out = {c.name for c in CATALOG} - set(kept)
    assert left_out == {"boards", "user_board_permissions", "board_waiting_users"}


# --- an extra, which costs nothing else ---------------------------------------------------------------------------------


def refused_by_firestore(self, *_, **__):
    raise SourceError("Firestore failed: count() of comments ended in DEADLINE_EXCEEDED: . Run again.")


def refused_by_postgres(self, *_, **__):
    self._target.fetch(sql.SQL("SELECT 1 / 0"), {})


@pytest.mark.parametrize("fault", [refused_by_firestore, refused_by_postgres])
def test_a_tripwire_that_fails_is_told_and_costs_nothing_else(world, target_dsn, run, monkeypatch, fault):
    """A count() that takes too long ended the look at the window, in every run."""
    world.document("boards/b1/posts/p1/comments/new").set(comment(createdAt=datetime.now(UTC)))
    monkeypatch.setattr(Tripwire, "_look", fault)
    found = run()
    assert found.counts("comments") == {"missing": 1}
    assert [a for a in found.alerts if "not examined" in a] == []
    failed = collection(found, "comments")["tripwire"]["failed"]
    assert ("DEADLINE_EXCEEDED" in failed) if fault is refused_by_firestore else ("DivisionByZero 22012" in failed)
    assert "comments: the tripwire failed" in found.text()
    assert one(target_dsn, "SELECT counted_at > now() - interval '1 hour' FROM dualwrite.count_baselines "
                           "WHERE collection = 'comments'")  # fmt: skip


def test_a_bucket_that_breaks_off_leaves_the_window_examined(world, target_dsn, run, monkeypatch):
    world.document("boards/b1/posts/p1/comments/c7").delete()
    world.document("boards/b1/posts/p1/comments/new").set(comment(createdAt=datetime.now(UTC)))
    pages = Source.pages

    def breaking(self, scan, page_size):
        yield from pages(self, scan, page_size)
        if page_size == compare.FURTHER_PAGE:
            raise IncompleteRead("comments delivered 39 of the 40 documents.")

    monkeypatch.setattr(Source, "pages", breaking)
    found = run()
    assert found.counts("comments") == {"missing": 1}
    assert "39 of the 40" in collection(found, "comments")["tripwire"]["failed"]
    monkeypatch.undo()
    assert run().counts("comments")["extra"] == 1, "the next run sees the same deviation"


@pytest.mark.parametrize("fault", [refused_by_firestore, refused_by_postgres])
def test_a_baseline_that_fails_leaves_the_sweep_and_its_call(world, target_dsn, run, monkeypatch, fault):
    execute(target_dsn, "UPDATE dualwrite.count_baselines SET sweep_due = true WHERE collection = 'comments'")
    monkeypatch.setattr(Tripwire, "measure", fault)
    found = run()
    assert collection(found, "comments")["scope"] == "sweep"
    assert found.alerts == []
    assert collection(run(), "comments")["scope"] == "recent", "it isn't swept again in every run"


def test_counts_that_take_long_are_made_less_often(world, target_dsn, run):
    """At a hundred million rows they would keep a core of the target busy all day."""
    execute(target_dsn, "UPDATE dualwrite.count_baselines SET counted_at = now(), counted_seconds = 30")
    world.document("boards/b1/posts/p1/comments/c7").delete()
    found = run()
    assert found.counts("comments") == {}
    assert collection(found, "comments")["tripwire"]["waits_until"] > (datetime.now(UTC) + 0.8 * HOUR).isoformat()
    execute(target_dsn, "UPDATE dualwrite.count_baselines SET counted_at = now() - interval '51 minutes'")
    assert run().counts("comments") == {"extra": 1}


def test_few_edges_give_the_sums_that_many_do(world, target_dsn):
    """Sums are counted in another way than buckets, for a fraction of the time."""
    edges = [LONG_AGO + n * HOUR for n in range(0, 41, 4)]
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
        each = counts.rows_between(target, CATALOG["comments"], "created_at", edges)
        for few in (1, 2, 3):
            sums = counts.rows_between(target, CATALOG["comments"], "created_at", edges[-few:])
            assert sums == [sum(each[:-few]), *each[-few:]]
    assert sum(each) == 40


@pytest.fixture
def wire(world, emulator, target_dsn, monkeypatch):
    """The tripwire of comments, with buckets of ten rows."""
    monkeypatch.setattr(tripwire, "BUCKET", 10)
    comments = CATALOG["comments"]
    with (
        Source(world.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(target_dsn), CATALOG) as target,
    ):
        yield Tripwire(source, target, comments, time_column(comments))


END = (LONG_AGO + 1000 * HOUR).replace(microsecond=123000)


def _truth(world, dsn: str, baseline) -> list[int]:
    """Documents minus rows of each bucket, counted one by one."""
    times = [
        d.get("createdAt") for d in world.collection("boards/b1/posts/p1/comments").get() if "createdAt" in d.to_dict()
    ]
    with looking(dsn) as connection:
        rows = [at for (at,) in connection.execute("SELECT created_at FROM comments").fetchall()]
    windows = [baseline.window(n, n + 1) for n in range(len(baseline.edges))]
    return [sum(w.start <= t < w.end for t in times) - sum(w.start <= t < w.end for t in rows) for w in windows]


def test_a_baseline_holds_the_difference_of_each_bucket(world, target_dsn, wire):
    world.document("boards/b1/posts/p1/comments/c7").delete()
    execute(target_dsn, "DELETE FROM comments WHERE id IN ('c15', 'c25', 'c26')")
    timeless = comment()
    del timeless["createdAt"]
    put(
        world,
        {
            "boards/b1/posts/p1/comments/timeless": timeless,
            "archive/a/comments/old": comment(),
            "archive/b/comments/old": comment(),
        },
    )
    found = wire.measure(END + timedelta(microseconds=1))
    assert len(found.edges) >= 4
    assert (found.end, found.field) == (END, "createdAt")
    first, *others = _truth(world, target_dsn, found)
    assert (first, sum(others)) == (-1, 3)
    assert list(found.differences) == [first + 2, *others], "those elsewhere have a time, too"
    assert (found.untimed, found.stray) == (1, 2)


@pytest.mark.parametrize("moves", [1, 2, 9])
def test_a_bucket_whose_rows_move_meanwhile_is_measured_again(world, target_dsn, wire, monkeypatch, moves):
    """A row that goes between the two counts would be taken for a difference that had been there."""
    counted, gone = wire.count_rows, [f"c{n}" for n in range(moves)]  # of one bucket
    asked = []

    def rows(edges):
        found = counted(edges)
        asked.append(found)
        if gone and len(asked) % 2:
            execute(target_dsn, "DELETE FROM comments WHERE id = %s", gone.pop())
        return found

    monkeypatch.setattr(wire, "count_rows", rows)
    found = wire.measure(END)
    assert len(asked) == 2 * min(moves + 1, 3)
    if moves < 3:
        assert list(found.differences) == _truth(world, target_dsn, found)


def test_more_buckets_than_a_run_examines_call_a_sweep(world, target_dsn, run, monkeypatch):
    """And just as many are examined."""
    monkeypatch.setattr(tripwire, "BUCKET", 10)
    assert run(scope="sweep", collections=["comments"]).alerts == []
    for name in ("c3", "c23"):
        world.document(f"boards/b1/posts/p1/comments/{name}").delete()
    for most, expected in (
        (1, {"deviation": -2, "buckets": 0, "calls_sweep": True, **COUNTED}),
        (2, {"deviation": -2, "buckets": 2, "calls_sweep": False, **COUNTED}),
    ):
        execute(target_dsn, "UPDATE dualwrite.count_baselines SET sweep_due = false, sweep_called_at = NULL")
        monkeypatch.setattr(tripwire, "MOST_EXAMINED", most)
        found = run(collections=["comments"])
        assert collection(found, "comments")["tripwire"] == expected
    assert found.counts("comments") == {"extra": 2}


# --- what lies elsewhere --------------------------------------------------------------------------------------------------


def archive(world, path: str) -> None:
    document = world.document(path)
    world.document(f"archive/a/posts/p1/comments/{document.id}").set(document.get().to_dict())
    document.delete()


def test_an_archived_document_whose_row_stayed_calls_a_sweep(world, target_dsn, run):
    """Moved to another path of the same collection id, it is counted as before."""
    archive(world, "boards/b1/posts/p1/comments/c7")
    found = run()
    assert collection(found, "comments")["tripwire"] == {"deviation": 1, "buckets": 0, "calls_sweep": True, **COUNTED}
    assert run().counts("comments") == {"extra": 1}


def test_an_archived_document_whose_row_went_calls_no_sweep(world, target_dsn, run):
    archive(world, "boards/b1/posts/p1/comments/c7")
    execute(target_dsn, "DELETE FROM comments WHERE id = 'c7'")
    found = run()
    assert collection(found, "comments")["tripwire"] == {"deviation": 2, "buckets": 1, "calls_sweep": False, **COUNTED}
    assert found.alerts == []
    assert collection(run(), "comments")["tripwire"]["deviation"] == 0


def test_a_healthy_document_without_a_time_calls_no_sweep(world, target_dsn, run):
    """Beside a young document that can't have a row, its own row didn't count for it."""
    fields = comment()
    del fields["createdAt"]
    now = datetime.now(UTC)
    put(world, {
        "boards/b1/posts/p1/comments/new": fields,
        "boards/b1/posts/gone/comments/orphan": comment(createdAt=now),
    })  # fmt: skip
    execute(target_dsn, "INSERT INTO comments (id, post_id, user_id, user_name, content, created_at) "
                        "VALUES ('new', 'p1', 'u1', 'n', 'c', now())")  # fmt: skip
    found = run()
    assert found.alerts == []
    assert collection(found, "comments")["tripwire"]["calls_sweep"] is False
    assert collection(run(), "comments")["tripwire"]["deviation"] == 0
    world.document("boards/b1/posts/p1/comments/lost").set(fields)
    assert collection(run(), "comments")["tripwire"]["calls_sweep"], "one that has no row does"


# --- beside busy clients ----------------------------------------------------------------------------------------------------


class OldClient(Client):
    """Creates and deletes likes whose time of creation is long ago, rows following; loses nothing."""

    def run(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as self.connection:
            for n in range(self.steps):
                like, at = f"{self.post}l{n}", LONG_AGO + timedelta(minutes=self.random.randrange(10_000))
                document = self.firestore.document(f"boards/b1/posts/p1/likes/{like}")
                document.set({"userId": f"u{self.seed}", "userName": "n", "createdAt": at})
                self.then_row(
                    f"like:create:{like}",
                    "INSERT INTO likes (id, post_id, user_id, user_name, created_at) VALUES (%s, 'p1', %s, 'n', %s)",
                    like, f"u{self.seed}", milliseconds(at),
                )  # fmt: skip
                if n < self.steps - 1:  # one person likes once; the last one stays
                    document.delete()
                    self.then_row(f"like:delete:{like}", "DELETE FROM likes WHERE id = %s", like)


def test_beside_busy_clients_that_lose_nothing_there_is_no_alarm(world, emulator, target_dsn, run):
    clients = [OldClient(world, target_dsn, seed, failing=0.0, steps=8, pause=0.2) for seed in range(100, 120)]
    put(world, {f"users/u{c.seed}": user("n") for c in clients})
    execute(
        target_dsn,
        "INSERT INTO users (id, nickname, created_at, updated_at) SELECT 'u' || n, 'n', %s, %s FROM generate_series(100, 119) n",
        milliseconds(LONG_AGO),
        milliseconds(LONG_AGO),
    )
    alarms: list[str] = []
    looks: list[dict] = []

    def live() -> None:
        found = run(collections=["users", "posts", "likes"], grace_seconds=2)
        alarms.extend(found.alerts)
        looks.append(collection(found, "likes")["tripwire"])

    assert beside(clients, live) >= 2
    live()
    assert alarms == []
    assert run(collections=["users", "posts", "likes"], scope="sweep").alerts == []
    sys.stdout.write(f"\n{looks}\n")


# --- many documents ---------------------------------------------------------------------------------------------------------


def _many(world, dsn: str, number: int) -> None:
    """Comments in both databases, one a minute."""

    def write(first: int) -> None:
        ns = range(first, min(first + 500, number))
        at = {n: LONG_AGO + timedelta(minutes=n) for n in ns}
        put(world, {f"boards/b1/posts/p1/comments/m{n:06}": comment(createdAt=at[n]) for n in ns})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(0, number, 500)))
    execute(
        dsn,
        "INSERT INTO comments (id, post_id, user_id, user_name, content, created_at, updated_at) "
        "SELECT 'm' || lpad(n::text, 6, '0'), 'p1', 'u1', 'n', 'c', at, at FROM generate_series(0, %s) n, "
        "LATERAL (SELECT %s + make_interval(mins => n) AS at) t",
        number - 1,
        milliseconds(LONG_AGO),
    )


def _one_lost_among(number: int, world, target_dsn, run) -> Iterator[tuple[str, int]]:
    _many(world, target_dsn, number)
    began = time.monotonic()
    swept = run(scope="sweep", collections=["comments"])
    assert swept.alerts == []
    assert collection(swept, "comments")["tripwire"] is None, "its baseline was measured"
    yield "sweep", collection(swept, "comments")["billed_reads"]
    quiet = collection(run(collections=["comments"]), "comments")
    assert quiet["tripwire"]["buckets"] == 0
    yield "quiet", quiet["billed_reads"]
    # On a busy machine the counts may have taken so long that the next run would leave them out.
    execute(target_dsn, "UPDATE dualwrite.count_baselines SET counted_seconds = 0")
    lost = random.randrange(number)
    world.document(f"boards/b1/posts/p1/comments/m{lost:06}").delete()
    found = run(collections=["comments"])
    assert collection(found, "comments")["tripwire"]["failed"] is None
    assert found.counts("comments") == {"extra": 1}, f"of m{lost:06}"
    assert found.sample("comments", "extra")["key"] == f"m{lost:06}"
    compared = one(
        target_dsn, "SELECT billed_reads FROM dualwrite.runs WHERE phase = 'compare' ORDER BY id DESC LIMIT 1"
    )
    yield "found", compared
    sys.stdout.write(f"\n{number} documents, {time.monotonic() - began:.0f} s: ")


def _costs(number: int, bucket: int, world, target_dsn, run) -> None:
    """With buckets of so many rows, a quiet run costs a hundredth of a sweep, one that finds a loss two buckets more."""
    reads = dict(_one_lost_among(number, world, target_dsn, run))
    sys.stdout.write(f"{reads}\n")
    assert reads["quiet"] <= number / 100
    assert reads["found"] <= 2 * bucket + number / 100
    assert reads["sweep"] <= number * 1.01 + 100


def test_one_lost_delete_among_20_buckets_is_found_for_one(world, target_dsn, run, monkeypatch):
    """As many buckets as 20,000 documents have in production, each a fifth as large. A quiet run costs less than a
    hundredth of a sweep."""
    for module in (baseline, tripwire):
        monkeypatch.setattr(module, "BUCKET", 200)
    _costs(4_000, 200, world, target_dsn, run)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_one_lost_delete_among_100000_is_found_for_a_bucket(world, target_dsn, run, monkeypatch):
    """The emulator counts by reading: on a busy machine it takes longer for 100,000 than any call to Firestore may."""
    monkeypatch.setattr(calls, "CALL_SECONDS", 1800)
    _costs(100_000, baseline.BUCKET, world, target_dsn, run)
