"""What the op log says of why a write was missed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from dualwrite.engine import op_log as operations
from tests.integration.reconcile.world import (
    attempted,
    create,
    delete_of_a_recent_document,
    edit_that_moves_a_check_field,
    edit_that_moves_none,
    execute,
    now,
)
from tests.support import one
from tests.worlds import LONG_AGO


@pytest.mark.parametrize(
    ("change", "operation", "cause"),
    [
        (create, None, "never_attempted"),
        (create, "post:create:new", "attempted_failed"),
        (edit_that_moves_a_check_field, None, "never_attempted"),
        (edit_that_moves_a_check_field, "post:update:p1", "attempted_failed"),
        (delete_of_a_recent_document, None, "never_attempted"),
        (delete_of_a_recent_document, "comment:create:gone", "never_attempted"),
        (delete_of_a_recent_document, "comment:delete:gone", "attempted_failed"),
    ],
)
def test_the_op_log_says_why(change, operation, cause, world, target_dsn, run):
    change(world, target_dsn)
    if operation:
        attempted(target_dsn, operation)
    found = run()
    [alert] = found.alerts
    assert f"(1 {cause})" in alert
    op_id, at = one(target_dsn, "SELECT op_id, op_time FROM dualwrite.open_differences")
    if cause == "attempted_failed":
        assert op_id.startswith(operation)
        assert abs(at - now()) < timedelta(minutes=1)


def test_an_operation_long_before_an_edit_says_nothing_of_it(world, target_dsn, run):
    attempted(target_dsn, "post:update:p1")
    execute(target_dsn, "UPDATE write_ops SET created_at = now() - interval '3 days'")
    edit_that_moves_a_check_field(world, target_dsn)
    assert "(1 unknown)" in run().alerts[0]


def test_without_write_ops_causes_are_unknown_the_run_goes_on(world, target_dsn, run):
    create(world, target_dsn)
    execute(target_dsn, "DROP TABLE write_ops")
    found = run()
    assert "(1 unknown)" in found.alerts[0]
    assert found.report["operations"]["total"] is None
    assert found.alerts[1].startswith("write_ops is missing or not fully readable")
    assert len(run(write_ops_required=False).alerts) == 1


def test_half_of_write_ops_is_no_sign_that_dual_write_is_off(world, target_dsn):
    """Row-level security hides the rest. A role that sees half of the operations must not conclude from the other
    half."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("GRANT SELECT ON write_ops TO authenticated")
        connection.execute("ALTER TABLE write_ops DISABLE ROW LEVEL SECURITY; SET LOCAL ROLE authenticated")
        assert operations.is_readable(connection)
        half = "ALTER POLICY app ON write_ops USING (op_id LIKE 'post:%')"
        connection.execute(
            f"RESET ROLE; ALTER TABLE write_ops ENABLE ROW LEVEL SECURITY; {half}; SET LOCAL ROLE authenticated"
        )
        assert not operations.is_readable(connection)
        assert operations.activity(connection, [], LONG_AGO, now()).total is None


def test_operations_of_any_form_are_counted_and_break_nothing(world, target_dsn, run):
    for op_id in ("no colons", "::", "planet:create:x:1", "comment:create::1", "block:create:u1:1", "block:create:a_b_c:1",
                  "comment:create:with:colons:1", "notification:create:n1:2", "review:create:u1:1", "user:update:u1:x"):  # fmt: skip
        execute(target_dsn, "INSERT INTO write_ops VALUES (%s)", op_id)
    execute(target_dsn, "INSERT INTO write_ops VALUES ('post:create:p1:9999999999999', now() + interval '3 days')")
    execute(target_dsn, "ALTER TABLE write_ops ALTER created_at DROP NOT NULL")
    execute(target_dsn, "INSERT INTO write_ops VALUES ('comment:update:cp1:1', NULL)")
    edit_that_moves_none(world, target_dsn)
    found = run()
    assert found.counts("comments") == {"stale": 1}, "an operation without a time could be of any"
    log = found.report["operations"]
    assert (log["malformed"], log["unknown_entities"], log["in_the_future"]) == (4, 1, 1)


def test_a_hundred_thousand_operations_take_seconds(world, target_dsn, run):
    """Not longer the more there are, squared: measured against a quiet run beside the same neighbours."""

    def seconds() -> tuple[Any, float]:
        began = time.monotonic()
        return run(), time.monotonic() - began

    _, quiet = seconds()
    execute(
        target_dsn,
        "INSERT INTO write_ops SELECT 'comment:create:x' || i || ':' || 1780000000000 + i FROM generate_series(1, 100000) i",
    )
    found, busy = seconds()
    assert busy < 50 * quiet, f"{busy:.1f} s against {quiet:.1f} s"
    [comments] = [c for c in found.report["collections"] if c["collection"] == "comments"]
    assert comments["unlocatable"] == 100_000
    assert found.alerts == []
