"""What the tests of the Parity page make up has the shape of what a run reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import RunReport
from dualwrite.model.verdicts import Cause, Finding, Verdict, Why
from dualwrite.postgres import connect
from dualwrite.postgres.remembered.excuses import excuses_of
from tests.e2e.parity_stub import report_of
from tests.integration.reconcile.world import create, delete_of_a_recent_document
from tests.shape import faults


def test_the_report_of_the_pages_tests_has_the_declared_shape(world, target_dsn, run):
    """Each real one is held against the shape as it is made: tests/support.py, tests/dags/conftest.py."""
    create(world, target_dsn)
    delete_of_a_recent_document(world, target_dsn)
    run()
    run(collections=["comments"], scope="sweep", excuse=["comments:gone"], excuse_reason="known")
    ended = run(scope="sweep")
    posts = CollectionReport("posts", "compare")
    posts.add(Finding(Verdict.MISSING, "new", "boards/b/posts/new", cause=Cause(Why.NEVER_ATTEMPTED)))
    made_up = report_of(posts)
    assert faults(made_up, RunReport) == []
    assert faults(ended.report, RunReport) == []
    assert ended.report["open"], "the real one has what there is to compare"
    [excuse] = ended.report["excuses"]
    assert {**excuse, "since": None} == {
        "collection": "comments", "key": "gone", "verdict": "extra", "by": "a test", "reason": "known", "since": None,
    }  # fmt: skip
    assert abs(datetime.fromisoformat(excuse["since"]) - datetime.now(UTC)) < timedelta(minutes=5)
    with connect(target_dsn) as connection:
        [(label, accepted)] = excuses_of(connection, "comments").items()
    assert (label, accepted.verdict) == ("gone", "extra")
    assert faults({**made_up, "renamed": 1}, RunReport) == ["report.renamed is not declared"]
