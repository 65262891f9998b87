"""A run that names keys: what it looks at, what it writes, and what it only tells. And excuses that take effect at once."""

from __future__ import annotations

import pytest

from dualwrite.engine.compare import Examiner
from dualwrite.firestore.source import Source
from dualwrite.model.errors import ParameterError
from tests.integration.reconcile.world import create, delete_of_a_recent_document, edit_that_moves_none, execute, now
from tests.refusals import coded
from tests.support import one
from tests.worlds import comment, post


@pytest.fixture(autouse=True)
def _journal(world, target_dsn):
    """Empty: the backfill that made the world has written into it."""
    execute(target_dsn, "DELETE FROM dualwrite.repair_journal")


def _three_missing(world):
    for name in ("one", "two", "three"):
        world.document(f"boards/b1/posts/{name}").set(post(createdAt=now(), updatedAt=now()))


def test_a_repair_by_key_writes_that_row_and_no_other(world, target_dsn, run):
    _three_missing(world)
    edit_that_moves_none(world, target_dsn)
    run(scope="sweep")
    report = run(keys=["posts:two"], repair="missing_and_stale").report
    assert one(target_dsn, "SELECT array_agg(id ORDER BY id) FROM posts WHERE id NOT LIKE 'p_'") == ["two"]
    assert one(target_dsn, "SELECT array_agg(collection || ':' || key) FROM dualwrite.repair_journal") == ["posts:two"]
    assert [(c["collection"], c["examined"], c["inserted"]) for c in report["collections"]] == [("posts", 1, 1)]
    assert sum(line["number"] for line in report["open"]) == 3, "what was not named is open as before"
    assert one(target_dsn, "SELECT bool_and(confirmed_at IS NOT NULL) FROM dualwrite.repair_journal")


def test_a_run_that_names_keys_compares_nothing_else(world, target_dsn, run, monkeypatch):
    _three_missing(world)
    run()
    before = one(target_dsn, "SELECT array_agg(w ORDER BY collection) FROM dualwrite.watermarks w")
    world.document("boards/b1/posts/later").set(post(createdAt=now(), updatedAt=now()))

    def scan(*_: object, **__: object) -> None:
        raise AssertionError("a named key is looked at by itself")

    monkeypatch.setattr(Examiner, "scan", scan)
    report = run(keys=["posts:one"], repair="off").report
    assert one(target_dsn, "SELECT array_agg(w ORDER BY collection) FROM dualwrite.watermarks w") == before
    assert (report["compares"], report["parity"]["equal"]) == (False, False)
    assert "posts" in report["parity"]["why_not"][-1] or "not compared by this run" in str(report["parity"]["why_not"])
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences WHERE key = 'later'") == 0


def test_a_verdict_names_all_that_have_it_and_nothing_else(world, target_dsn, run):
    _three_missing(world)
    execute(target_dsn, "UPDATE posts SET title = 'other' WHERE id = 'p1'")
    run(scope="sweep")
    run(keys=["posts:missing"], repair="all", max_share=100)
    assert one(target_dsn, "SELECT array_agg(DISTINCT action) FROM dualwrite.repair_journal") == ["insert"]
    assert one(target_dsn, "SELECT count(*) FROM posts") == 5
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "other"


def test_a_missing_parent_that_is_not_named_is_told_not_written(world, target_dsn, run):
    world.document("boards/b1/posts/new").set(post(createdAt=now(), updatedAt=now()))
    world.document("boards/b1/posts/new/comments/c").set(comment(createdAt=now()))
    run()
    made = run(keys=["comments:c"], repair="missing")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal") == 0
    assert made.report["named"]["needs"] == {"comments:c": ["posts:new"]}
    assert any("comments:c was not repaired: it needs posts:new, which keys doesn't name" in a for a in made.alerts)
    run(keys=["comments:c", "posts:new"], repair="missing")
    assert one(target_dsn, "SELECT array_agg(collection ORDER BY id) FROM dualwrite.repair_journal") == [
        "posts",
        "comments",
    ]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_rows_that_go_with_a_named_one_are_told_not_deleted(world, target_dsn, run):
    world.document("boards/b1/posts/p1").delete()
    run(scope="sweep")
    made = run(keys=["posts:p1"], repair="all", max_share=100)
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p1'") == 1, "its comment would go by cascade"
    assert made.report["named"]["needs"] == {"posts:p1": ["comments:cp1"]}
    run(keys=["posts:p1", "comments:cp1"], repair="all", max_share=100)
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p1'") == 0
    assert one(target_dsn, "SELECT array_agg(collection ORDER BY id) FROM dualwrite.repair_journal") == [
        "comments",
        "posts",
    ]


def test_a_named_key_that_is_not_open_is_told(world, target_dsn, run):
    create(world, target_dsn)
    run()
    report = run(keys=["posts:new", "posts:p1"], repair="missing").report
    assert report["named"]["not_open"] == ["posts:p1"]
    report = run(keys=["posts:new"], repair="missing").report
    assert (report["named"]["not_open"], report["collections"][0]["examined"]) == (["posts:new"], 0)


def test_brakes_and_excuses_hold_for_named_keys(world, target_dsn, run):
    _three_missing(world)
    run()
    made = run(keys=["posts:one", "posts:two"], repair="missing", max_repairs=1)
    assert "2 would be written" in made.alerts[0]
    run(scope="none", excuse=["posts:one"], excuse_reason="a test account")
    run(keys=["posts:one", "posts:two"], repair="missing")
    assert one(target_dsn, "SELECT array_agg(key) FROM dualwrite.repair_journal") == ["two"]


def test_keys_of_a_collection_left_out_or_of_a_sweep_are_refused(world, run):
    with pytest.raises(ParameterError, match="comments:c", check=coded("keys-outside-collections")):
        run(collections=["posts"], keys=["comments:c"])
    with pytest.raises(ParameterError, check=coded("keys-with-sweep")):
        run(scope="sweep", keys=["posts:p1"])


# --- excuses ------------------------------------------------------------------------------------------------------------


def test_an_excuse_alone_takes_effect_without_a_comparison(world, target_dsn, run, monkeypatch):
    """It took 137 s, a whole reconciliation and its grace, and the next person's waited behind it."""
    create(world, target_dsn)
    run()

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be asked of Firestore")

    monkeypatch.setattr(Source, "count", asked)
    monkeypatch.setattr(Examiner, "scan", asked)
    made = run(scope="none", excuse=["posts:new"], excuse_reason="a test account", grace_seconds=3600)
    assert (made.alerts, made.report["billed_reads"], made.report["collections"]) == ([], 0, [])
    assert made.report["excuses"][0]["key"] == "new"
    assert (
        made.report["verdict"] == "No difference is open. This run compared nothing, but for 0 named keys. 1 excused."
    )


def test_an_excuse_of_a_verdict_covers_no_other_verdict(world, target_dsn, run):
    create(world, target_dsn)
    execute(target_dsn, "UPDATE posts SET title = 'other' WHERE id = 'p1'")
    delete_of_a_recent_document(world, target_dsn)
    run(scope="sweep")
    run(scope="none", excuse=["posts:missing"], excuse_reason="a test account")
    excused = "SELECT array_agg(collection || ':' || key) FROM dualwrite.open_differences WHERE excused_by IS NOT NULL"
    assert one(target_dsn, excused) == ["posts:new"]
    run(scope="none", unexcuse=["posts:stale"])
    assert one(target_dsn, excused) == ["posts:new"]
    run(scope="none", unexcuse=["posts:missing"])
    assert one(target_dsn, excused) is None


def test_a_word_that_is_a_verdict_and_an_open_key_is_refused(world, target_dsn, run):
    world.document("boards/b1/posts/missing").set(post(createdAt=now(), updatedAt=now()))
    run()
    for given in (
        {"excuse": ["posts:missing"], "excuse_reason": "x"},
        {"unexcuse": ["posts:missing"]},
        {"keys": ["posts:missing"]},
    ):
        with pytest.raises(ParameterError, match="posts:missing", check=coded("excuse-ambiguous")):
            run(**given)
