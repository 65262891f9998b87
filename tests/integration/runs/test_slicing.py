"""Where a collection is cut, on the real emulator and Postgres: by which names, how finely, and for how many counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Source
from dualwrite.model.windows import Window
from dualwrite.postgres.target import Target
from dualwrite.runs.slices import cutter as slicing
from dualwrite.runs.slices.cutter import Cutter
from dualwrite.runs.slices.slice import Slice
from tests.worlds import board, comment, post, put, user

T = datetime(2026, 2, 1, tzinfo=UTC)
WINDOW = Window(T, T + timedelta(days=10))
POST = "boards/b1/posts/p1"


@pytest.fixture
def rows(unparented_dsn) -> Iterator[psycopg.Connection]:
    """A database without rows, and without foreign keys."""
    with psycopg.connect(unparented_dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE users, boards, posts, comments CASCADE")
        yield connection


@pytest.fixture
def cutter(firestore, emulator, rows, unparented_dsn):
    """A cutter of slices of so many documents."""
    with (
        Source(firestore.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(unparented_dsn), CATALOG) as target,
    ):
        yield lambda most: Cutter(source, target, CATALOG, most)


def bounds(slices: list[Slice]) -> list:
    """Where one collection is cut. Its slices are told in order, touch, and are of one moment."""
    assert [(s.number, s.of) for s in slices] == [(n, len(slices)) for n in range(1, len(slices) + 1)]
    assert [s.start for s in slices[1:]] == [s.end for s in slices[:-1]]
    assert len({(s.collection, s.by, s.cut_at) for s in slices}) <= 1
    return [s.end for s in slices[:-1]]


def comments(number: int, path: str = POST, **changes) -> dict[str, dict]:
    return {f"{path}/comments/c{n}": comment(**{"createdAt": T + timedelta(hours=n), **changes}) for n in range(number)}


def with_posts(rows: psycopg.Connection, *ids: str) -> None:
    for post_id in ids:
        rows.execute(
            "INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES (%s, 'b1', 'u', 'n', 't')",
            (post_id,),
        )


def with_comments(rows: psycopg.Connection, *ids: str) -> None:
    """Below POST, which has a row then, too."""
    with_posts(rows, "p1")
    with rows.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO comments (id, post_id, user_id, content) VALUES (%s, 'p1', 'u', 'c')", [(i,) for i in ids]
        )


# --- what is cut --------------------------------------------------------------------------------------------------------


def test_only_what_exceeds_a_slice_and_not_the_limit_is_cut(firestore, cutter):
    put(firestore, comments(8))
    assert bounds(cutter(4).cut({"comments": WINDOW}, at_most=8))
    assert cutter(4).cut({"comments": WINDOW}, at_most=7) == []
    assert bounds(cutter(7).cut({"comments": WINDOW}))
    fitting = cutter(8)
    assert fitting.cut({"comments": WINDOW, "posts": None}) == []
    before = fitting.source.billed_reads
    fitting.cut({"comments": WINDOW, "users": WINDOW})
    assert fitting.source.billed_reads - before == 3, "what fits costs its counts alone, one a check field"


def test_collections_are_cut_in_the_order_they_are_named_in(firestore, cutter):
    put(
        firestore,
        {**comments(6), **{f"users/u{n}": user("n", createdAt=T + timedelta(hours=n), updatedAt=T) for n in range(5)}},
    )
    windows = {"users": WINDOW, "posts": WINDOW, "comments": WINDOW}
    slices = cutter(2).cut(windows)
    assert list(dict.fromkeys(s.collection for s in slices)) == ["users", "comments"]
    of_users = [s for s in slices if s.collection == "users"]
    assert bounds(of_users)
    assert sum(s.documents for s in of_users) == 10, "one with two times is read for each"
    assert sum(s.documents for s in slices if s.collection == "comments") == 6


def test_what_cannot_be_cut_is_left_whole_and_told(firestore, cutter, caplog):
    """A window of one instant, or no name that is known."""
    caplog.set_level(logging.INFO, logger="dualwrite.runs.slices.cutter")
    put(firestore, comments(8, createdAt=T))
    for window in (Window(T, T + timedelta(microseconds=1)), None):
        caplog.clear()
        assert cutter(4).cut({"comments": window}) == []
        warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert len(warned) == 1
        assert warned[0].startswith("comments 1 of 1: ")
        assert warned[0].endswith("it holds 8 documents and can't be cut finer")
        assert "comments: 8 documents in 1 slices" in caplog.messages
    caplog.clear()
    put(firestore, comments(8))
    assert bounds(cutter(4).cut({"comments": WINDOW}))
    assert [r.levelname for r in caplog.records] == ["INFO"]


def test_a_collection_without_check_field_is_cut_by_name(firestore, rows, cutter):
    """In any window."""
    put(firestore, {f"boards/b{n}": board() for n in range(6)})
    rows.execute("INSERT INTO boards (id, title) SELECT 'b' || n, 't' FROM generate_series(0, 5) n")
    slices = cutter(2).cut({"boards": WINDOW})
    assert {s.by for s in slices} == {"name"}
    assert bounds(slices) == ["boards/b2", "boards/b4"]


@pytest.mark.parametrize("window", [WINDOW, None], ids=["by time", "by name"])
def test_a_collection_that_grows_meanwhile_is_cut_as_it_was(firestore, rows, cutter, monkeypatch, window):
    """Clients write between any two counts: these are all of one moment, or their sum would never be the whole."""
    with_comments(rows, *(f"c{n}" for n in range(8)))
    put(firestore, comments(8))
    counted, written = Source.count, iter(range(10**6))

    def growing(self, scan, read_time=None):
        found = counted(self, scan, read_time)
        put(firestore, {f"{POST}/comments/c{next(written)}new": comment(createdAt=T)})
        return found

    monkeypatch.setattr(Source, "count", growing)
    slices = cutter(2).cut({"comments": window})
    assert bounds(slices)
    assert sum(s.documents for s in slices) == 8
    assert max(s.documents for s in slices) <= 2


# --- names --------------------------------------------------------------------------------------------------------------


def test_names_are_the_rows_own_where_these_are_half_of_all(rows, cutter):
    """Of fewer, or of none that can be told, the parents' names are taken too."""
    with_posts(rows, "p2")
    with_comments(rows, *(f"c{n}" for n in range(5)))
    own = [f"{POST}/comments/c{n}" for n in range(5)]
    parents = [f"boards/b1/posts/{p}/comments/!" for p in ("p1", "p2")]
    assert cutter(2).names_of(CATALOG["comments"], 10, 2) == own
    assert cutter(2).names_of(CATALOG["comments"], 11, 2) == [parents[0], *own, parents[1]]


def test_a_collection_with_few_rows_is_cut_between_its_parents(firestore, rows, cutter):
    """What lies below one parent stays together; others than the documents directly above are no parents."""
    put(firestore, {path: c for n in range(4) for path, c in comments(3, f"boards/b1/posts/p{n}").items()})
    rows.execute("INSERT INTO boards (id, title) SELECT 'b' || n, 't' FROM generate_series(0, 5) n")
    with_posts(rows, *(f"p{n}" for n in range(4)))
    slices = cutter(3).cut({"comments": None})
    assert bounds(slices) == [f"boards/b1/posts/p{n}/comments/!" for n in (1, 2, 3)]
    assert [s.documents for s in slices] == [3, 3, 3, 3]
    rows.execute("TRUNCATE posts CASCADE")
    put(firestore, {f"boards/b{n}/posts/p{i}": post() for n in range(3) for i in range(2)})
    assert bounds(cutter(2).cut({"posts": None})) == ["boards/b1/posts/!", "boards/b2/posts/!"]


def test_a_rowless_top_collection_is_cut_at_letters_and_digits(firestore, cutter):
    put(firestore, {f"users/{letter}{n}": user("n") for letter in "3Bx" for n in range(2)})
    slices = cutter(2).cut({"users": None})
    assert [s.documents for s in slices] == [2, 2, 2]
    assert [(bound[:6], len(bound)) for bound in bounds(slices)] == [("users/", 7)] * 2
    assert all(a < bound[-1] <= b for bound, a, b in zip(bounds(slices), "3B", "Bx", strict=True))


def test_numeric_ids_bound_slices_in_firestores_order(firestore, rows, cutter):
    """As text, 10 lies before 2; the cut's parts would not add up, and it would be left whole."""
    ids = [f"__id{n}__" for n in (-5, 2, 7, 10, 100, 1000)]
    put(firestore, comments(0) | {f"{POST}/comments/{i}": comment() for i in ids})
    with_comments(rows, *reversed(ids))
    slices = cutter(2).cut({"comments": None})
    assert [s.documents for s in slices] == [2, 2, 2]
    assert bounds(slices) == [f"{POST}/comments/{ids[n]}" for n in (2, 4)]


def test_rows_whose_ids_firestore_does_not_know_bound_no_slice(firestore, rows, cutter):
    """It refuses to be asked for such a name, and the whole run would fail."""
    put(firestore, comments(6))
    with_comments(rows, *(f"c{n}" for n in range(6)), "..", "__x__", "a/b", "é" * 751, "")
    assert bounds(cutter(3).cut({"comments": None})) == [f"{POST}/comments/c3"]


def test_a_row_that_tells_two_paths_gives_the_likelier_name(rows, cutter):
    """A reply's own column names another post than its comment's row."""
    with_comments(rows, "c1")
    with_posts(rows, "p2")
    rows.execute("INSERT INTO replies (id, comment_id, post_id, user_id, content) VALUES ('r1', 'c1', 'p2', 'u', 'c')")
    assert list(cutter(2).paths_of(CATALOG["replies"], 5, 1)) == [f"{POST}/comments/c1/replies/r1"]


def test_some_twenty_names_a_slice_come_from_all_over_the_table(rows, cutter, monkeypatch):
    """Each costs memory, and a look at its parents' rows; a sample is random, so the bounds are six deviations wide."""
    ids = [f"c{n:04}" for n in range(8_000)]
    rows.execute(
        "INSERT INTO comments (id, post_id, user_id, content) "
        "SELECT 'c' || lpad(n::text, 4, '0'), 'p1', 'u', 'c' FROM generate_series(0, 7999) n"
    )
    with_posts(rows, "p1")
    paths = [f"{POST}/comments/{i}" for i in ids]
    cut, collection = cutter(2), CATALOG["comments"]
    names = cut.names_of(collection, 199, 2)
    assert 1750 < len(names) < 2250, "a hundred slices, the last one not full"
    assert set(names) < set(paths)
    assert max(map(len, (set(names) & set(paths[n : n + 500]) for n in range(0, 8000, 500)))) < 220
    assert sorted(cut.paths_of(collection, 8_000, 8_000)) == paths, "each row once, however many pages they are"
    monkeypatch.setattr(slicing, "MOST_NAMES", 400)
    assert 280 < len(cut.names_of(collection, 199, 2)) < 520
