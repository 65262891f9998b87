"""What the tests of the Parity page make up has the shape of what a run reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Cause, Finding, Verdict, Why
from dualwrite.postgres import connect
from dualwrite.postgres.remembered.excuses import excuses_of
from tests.e2e.parity_stub import report_of
from tests.integration.reconcile.world import create, delete_of_a_recent_document


def _unknown(made_up: Any, real: Any, place: str = "report") -> list[str]:
    """Keys that the made up one has and the real one hasn't, at any depth; of lists and maps by id the first stands for all."""
    if isinstance(made_up, list) and isinstance(real, list):
        return _unknown(made_up[0], real[0], f"{place}[0]") if made_up and real else []
    if not isinstance(made_up, dict) or not isinstance(real, dict):
        return []
    if place.endswith((".ages", ".samples")):
        made_up, real = ({"any": next(iter(d.values()), {})} for d in (made_up, real))
    found = [f"{place}.{key}" for key in made_up if key not in real]
    return found + [u for key in made_up if key in real for u in _unknown(made_up[key], real[key], f"{place}.{key}")]


def test_the_report_that_the_pages_tests_make_up_has_no_field_that_a_real_one_lacks(world, target_dsn, run):
    create(world, target_dsn)
    delete_of_a_recent_document(world, target_dsn)
    run()
    run(collections=["comments"], scope="sweep", excuse=["comments:gone"], excuse_reason="known")
    ended = run(scope="sweep")
    posts = CollectionReport("posts", "compare")
    posts.add(Finding(Verdict.MISSING, "new", "boards/b/posts/new", cause=Cause(Why.NEVER_ATTEMPTED)))
    made_up = report_of(posts)
    assert _unknown(made_up, ended.report) == []
    assert ended.report["open"], "the real one has what there is to compare"
    [excuse] = ended.report["excuses"]
    assert {**excuse, "since": None} == {
        "collection": "comments", "key": "gone", "verdict": "extra", "by": "a test", "reason": "known", "since": None,
    }  # fmt: skip
    assert abs(datetime.fromisoformat(excuse["since"]) - datetime.now(UTC)) < timedelta(minutes=5)
    with connect(target_dsn) as connection:
        [(label, accepted)] = excuses_of(connection, "comments").items()
    assert (label, accepted.verdict) == ("gone", "extra")
    assert _unknown({**made_up, "renamed": 1}, ended.report) == ["report.renamed"]
