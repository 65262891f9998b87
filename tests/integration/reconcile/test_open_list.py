"""All open differences, in pages that fit into Airflow's database."""

from __future__ import annotations

import json

import pytest

from dualwrite.postgres import connect
from dualwrite.runs import open_list
from tests.integration.reconcile.world import create, edit_that_moves_none, execute


def test_each_open_difference_is_listed_by_ids_and_columns_alone(world, target_dsn, run):
    create(world, target_dsn)
    edit_that_moves_none(world, target_dsn)
    run(scope="sweep")
    run(scope="none", excuse=["posts:new"], excuse_reason="known")
    with connect(target_dsn) as connection:
        [page], told = open_list.pages(connection, unattended=False)
    rows = [dict(zip(page["names"], row, strict=True)) for row in page["rows"]]
    assert [(r["collection"], r["key"], r["verdict"], r["columns"], r["excused_by"]) for r in rows] == [
        ("comments", "cp1", "stale", ["content"], None),
        ("posts", "new", "missing", [], "a test"),
    ]
    assert told == {"pages": 1, "rows": 2, "of": 2}
    assert "edited" not in json.dumps(page)


@pytest.mark.parametrize(("unattended", "most"), [(True, 500), (False, 10_000)])
def test_a_long_list_is_cut_and_says_so_and_each_page_fits(world, target_dsn, unattended, most):
    execute(
        target_dsn,
        "INSERT INTO dualwrite.open_differences (collection, key, path, verdict, first_seen, last_seen, run_id) "
        "SELECT 'posts', repeat('x', 700) || i, repeat('p', 5000) || chr(10), 'missing', now(), now(), 'r' "
        "FROM generate_series(1, 10001) i",
    )
    with connect(target_dsn) as connection:
        pages, told = open_list.pages(connection, unattended=unattended)
    assert told == {"pages": len(pages), "rows": most, "of": 10_001}
    assert sum(len(page["rows"]) for page in pages) == most
    assert max(len(json.dumps(page).encode()) for page in pages) < 65_000
