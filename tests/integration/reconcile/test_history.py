"""What a report tells for the page's links and columns, and the history of a key that a run names."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from dualwrite.model.history import KeyHistory
from dualwrite.model.named import by_collection
from dualwrite.model.parameters import pairs
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.postgres import connect
from dualwrite.postgres.remembered import differences
from dualwrite.runs import history
from dualwrite.runs.reconcile_plan import Plan
from dualwrite.runs.report import build
from dualwrite.shipped_catalog import CATALOG
from tests.integration.reconcile.world import create, execute
from tests.shape import faults
from tests.support import one


def _histories(dsn, *keys):
    with connect(dsn) as connection:
        return history.histories(connection, by_collection(pairs(keys)))


def test_a_keys_history_has_what_is_open_and_what_was_written(world, target_dsn, run):
    create(world, target_dsn)
    execute(target_dsn, "UPDATE posts SET title = 'secret title' WHERE id = 'p1'")
    run(scope="sweep")
    run(scope="none", excuse=["posts:p1"], excuse_reason="known")
    run(keys=["posts:new"], repair="missing")
    found = _histories(target_dsn, "posts:new", "posts:p1", "posts:nobody", "comments:*")
    assert [fault for one_ in found for fault in faults(one_, KeyHistory)] == []
    told = {h["key"]: h for h in found}
    assert sorted(told) == ["new", "nobody", "p1"], "a verdict names no key"
    assert told["new"]["open"] is None
    assert [(w["action"], w["confirmed"], w["undo"]) for w in told["new"]["written"]] == [("insert", True, False)]
    p1 = told["p1"]["open"]
    assert (p1["verdict"], p1["columns"], p1["excused_by"], p1["excuse_reason"]) == (
        "stale",
        ["title"],
        "a test",
        "known",
    )
    assert (told["nobody"]["open"], told["nobody"]["written"]) == (None, [])
    assert "secret" not in json.dumps(found)


def test_the_histories_of_many_keys_fit_into_an_xcom(target_dsn):
    keys = [f"posts:{'x' * 1400}{i}" for i in range(150)]
    found = _histories(target_dsn, *keys)
    assert 30 < len(found) < 100
    assert len(json.dumps(found).encode()) < 65_000


def test_differing_columns_are_counted_over_all_that_is_open(world, target_dsn, run):
    execute(target_dsn, "UPDATE posts SET title = 'x' WHERE id IN ('p1', 'p2')")
    execute(target_dsn, "UPDATE posts SET content = 'x' WHERE id = 'p2'")
    run(scope="sweep")
    report = run(keys=["posts:p1"]).report
    assert report["open_columns"] == {"posts": {"title": 2, "content": 1}}, "those that no look saw this time, too"
    run(scope="none", excuse=["posts:p2"], excuse_reason="known")
    with connect(target_dsn) as connection:
        assert differences.open_columns(connection, 20) == {"posts": {"title": 1}}
        assert differences.open_columns(connection, 0) == {"posts": {}}


def test_links_tell_the_tables_of_what_is_open(world, target_dsn, run):
    create(world, target_dsn)
    made = run()
    assert made.report["links"]["tables"] == {}, "without a template nobody asks"
    params = ReconcileParams.checked({"scope": "none", "collections": ["posts"]}, CATALOG)
    templates = {"row": "https://example.org/{table_oid}"}
    plan = Plan(params, datetime.now(UTC), True, {}, links=templates, project="p", database="(default)")
    with connect(target_dsn) as connection:
        links = build.build_report(
            connection, CATALOG, "r", Plan.from_json(plan.as_json()), build.Parts({}, None, None)
        )["links"]
    oid = one(target_dsn, "SELECT 'posts'::regclass::oid::int8")
    assert links["tables"] == {"posts": {"schema": "public", "table": "posts", "oid": oid, "key_column": "id"}}
    assert (links["project"], links["database"], links["templates"]) == ("p", "(default)", templates)
