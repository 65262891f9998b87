"""Whatever is asked for or found, nothing breaks and nothing is taken for something else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.model.errors import DualWriteError
from dualwrite.model.reconcile_params import ReconcileParams
from tests.integration.reconcile.world import attempted, create, execute, now
from tests.refusals import coded
from tests.support import RECONCILE_DEFAULTS, one
from tests.worlds import post


@pytest.mark.parametrize(
    ("changes", "named", "code"),
    [
        ({"minutes": 0}, "minutes .* from 1 ", "parameter-out-of-range"),
        ({"overlap_minutes": -1}, "overlap_minutes", "parameter-out-of-range"),
        ({"grace_seconds": "120"}, "grace_seconds", "parameter-out-of-range"),
        ({"scope": "all"}, "scope .* recent, sweep", "parameter-out-of-range"),
        ({"repair": True}, "repair .* off, missing", "parameter-out-of-range"),
        ({"collections": ["polls"]}, "'polls'", "collection-not-declared"),
        ({"collections": []}, "boards, users", "collections-malformed"),
        ({"max_share": 101}, "max_share .* 0 to 100", "parameter-out-of-range"),
        ({"excuse": ["posts"], "excuse_reason": "x"}, "collection:key", "parameter-out-of-range"),
        ({"excuse": ["posts:x"]}, "excuse_reason", "excuse-without-reason"),
        ({"unexcuse": "posts:x"}, "unexcuse", "parameter-out-of-range"),
        ({"dry_run": True}, "dry_run", "parameter-unknown"),
    ],
)
def test_a_bad_parameter_is_refused_with_rule_place_and_remedy(changes, named, code):
    with pytest.raises(DualWriteError, match=named, check=coded(code)):
        ReconcileParams.checked({**RECONCILE_DEFAULTS, **changes}, CATALOG)


def test_an_excuse_of_a_collection_that_nobody_knows_is_refused(run):
    with pytest.raises(DualWriteError, match="'post' in post:x", check=coded("difference-of-unknown-collection")):
        run(excuse=["post:x"], excuse_reason="a slip")


def test_a_document_that_is_shown_twice_is_examined_once(world, target_dsn, run):
    """The window and an operation show it."""
    world.document("users/u1").update({"boardPermissions": {"b1": "write"}, "updatedAt": now()})
    attempted(target_dsn, "user:update:u1")
    found = run()
    [line] = [c for c in found.report["collections"] if c["collection"] == "user_board_permissions"]
    assert line["examined"] == 1
    assert found.counts("user_board_permissions") == {"stale": 1}


def test_a_first_look_alone_is_no_drift(world, target_dsn, run):
    """A run dies between its looks; a run of other collections must not call its first looks drift."""
    create(world, target_dsn)

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(between=dies)
    assert run(collections=["likes"]).alerts == []


def test_clocks_apart_by_minutes_lose_nothing(world, target_dsn, run):
    """The worker's clock lags by ten minutes: what was written 'in the future' is seen by the next run."""
    create(world, target_dsn)
    behind = run(now=now() - timedelta(minutes=10))
    assert behind.alerts == []
    assert run().counts("posts") == {"missing": 1}


def test_a_row_edited_by_hand_is_found_by_its_time_or_the_sweep(world, target_dsn, run):
    execute(target_dsn, "UPDATE posts SET title = 'by hand', updated_at = now() WHERE id = 'p1'")
    assert run(repair="missing_and_stale").alerts == []
    assert one(target_dsn, "SELECT title FROM posts WHERE id = 'p1'") == "t"
    execute(target_dsn, "UPDATE comments SET content = 'by hand' WHERE id = 'cp1'")
    assert run().counts("comments") == {}
    assert run(scope="sweep").counts("comments") == {"stale": 1}


def test_an_id_with_control_characters_can_be_open_and_excused(world, target_dsn, run):
    world.document("boards/b1/posts/a\x00b").set(post(createdAt=now(), updatedAt=now()))
    found = run()
    assert found.counts("posts") == {"rejected": 1}
    assert run().counts("posts") == {"rejected": 1}
    assert run(excuse=["posts:a\\u0000b"], excuse_reason="unfit").alerts == []
    world.document("boards/b1/posts/a\x00b").delete()
    assert run(unexcuse=["posts:*"]).counts("posts") == {"absent": 1}


def test_an_id_that_spells_the_escape_is_no_other_document(world, target_dsn, run):
    """Six characters, no U+0000: read as that, the path would name no document, and the row would go as extra."""
    document = world.document("boards/b1/posts/a\\u0000b")
    document.set(post(createdAt=now(), updatedAt=now()))
    assert run(repair="missing").alerts == []
    document.update({"title": "newer", "updatedAt": now()})
    assert run().counts("posts") == {"stale": 1}
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT title FROM posts WHERE id = %s", "a\\u0000b") == "newer"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0
