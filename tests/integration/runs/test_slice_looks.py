"""The look at a slice and the one at the rest: each document and each row is examined by one of them, and by one alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine.compare import Examiner
from dualwrite.engine.job import Job
from dualwrite.engine.looks import SweepLook
from dualwrite.engine.units import Policy
from dualwrite.firestore.source import Source
from dualwrite.model.conditions import Is
from dualwrite.model.declaration import Catalog
from dualwrite.model.report import CollectionReport
from dualwrite.postgres.target import Target
from dualwrite.runs.slices import seen_keys
from dualwrite.runs.slices.examine import SliceLook, examine_rest, examine_slice
from dualwrite.runs.slices.slice import Slice
from tests.worlds import board, post, put, user

T = datetime(2026, 2, 1, tzinfo=UTC)
SHOWN = Catalog(tuple(replace(c, where=Is("title", "t")) if c.name == "posts" else c for c in CATALOG.collections))
"""Posts have a row only if they are called t."""


@pytest.fixture
def rows(unparented_dsn) -> Iterator[psycopg.Connection]:
    with psycopg.connect(unparented_dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE users, boards, posts, user_board_permissions CASCADE")
        yield connection


@pytest.fixture
def looked(firestore, emulator, rows, unparented_dsn):
    """What the one slice of a collection found, what it saw of some labels, what the rest found, and the labels that it looked at."""

    @contextmanager
    def parts(name: str):
        with (
            Source(firestore.project, emulator_host=emulator) as source,
            Target(lambda: postgres.connect(unparented_dsn), SHOWN) as target,
        ):
            yield target, lambda: Job(source, target, SHOWN, SHOWN[name], "run", CollectionReport(name, "compare"))

    def looked(name: str, watched: frozenset[str] = frozenset()):
        with parts(name) as (target, job):
            keys = seen_keys.Attempt(target, name, "a_dag", "run")
            slice_job, rest_job = job(), job()
            look = SliceLook(slice_job.report, {}, watched, keys=keys)
            with Examiner(slice_job, Policy(), look) as examiner:
                examine_slice(examiner, Slice(name, 1, 1, "name", None, None, 9, T), 100, look)
            rest = SweepLook(rest_job.report)
            with Examiner(rest_job, Policy(), rest) as examiner:
                examine_rest(examiner, [keys.number])
            seen = seen_keys.seen_labels(target, sorted(watched), [keys.number])
            found = [{f.label: f.verdict.value for f in part.ended()} for part in (look, rest)]
            return *found, seen, rest.labels, slice_job.report

    return looked


def with_posts(rows: psycopg.Connection, *ids: str) -> None:
    for post_id in ids:
        rows.execute(
            "INSERT INTO posts (id, board_id, author_id, author_name, title, content, created_at, updated_at) "
            "VALUES (%s, 'b1', 'u1', 'n', 't', 'c', '2026-02-01 12:00:00.123', '2026-02-01 12:00:00.123')",
            (post_id,),
        )


def test_the_rest_is_the_rows_that_no_document_accounts_for(firestore, rows, looked):
    """A rejected document has its verdict, whatever its row is; the row of one that is left out is extra, once."""
    put(firestore, {"users/u1": user("n"), "boards/b1": board(), **{f"boards/b1/posts/{name}": fields for name, fields in {
        "same": post(), "missing": post(), "watched": post(), "unfit": post(authorId=7), "hidden": post(title="x"),
    }.items()}})  # fmt: skip
    with_posts(rows, "same", "watched", "unfit", "hidden", "extra")
    in_slice, in_rest, seen, again, report = looked("posts", frozenset({"watched", "extra"}))
    assert set(in_slice) == {"missing"}
    assert report.taken == sum(report.as_json()["counts"].values()) > 0, "what is pending is counted by the second look"
    assert in_rest == {"hidden": "extra", "extra": "extra"}
    assert again == {"hidden", "extra"}, "and nothing else was looked at again"
    assert seen == {"watched"}, "what is open there already, and was seen"


def test_the_rows_of_a_documents_entries_are_the_slices(firestore, rows, looked):
    """Also those that no entry has any more."""
    put(firestore, {"users/u1": user("n", boardPermissions={"b1": "read"}), "boards/b1": board()})
    rows.execute("INSERT INTO user_board_permissions (user_id, board_id, permission) VALUES "
                 "('u1', 'b1', 'read'), ('u1', 'b2', 'read'), ('gone', 'b1', 'read')")  # fmt: skip
    in_slice, in_rest, _, again, _ = looked("user_board_permissions")
    assert list(in_slice.values()) == ["extra"]
    assert list(in_rest.values()) == ["extra"]
    assert again == set(in_rest)
    assert set(in_slice).isdisjoint(in_rest)
