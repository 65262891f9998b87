"""A backfill's one sentence says what is known, and nothing where nothing was looked at."""

from __future__ import annotations

import pytest

from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Verdict
from dualwrite.runs.backfill import not_examined, verdict


def _whole(*collections: dict) -> dict:
    return {"collections": list(collections), "approval": None, "mode": "dry_run"}


@pytest.mark.parametrize(
    ("gap", "told"),
    [
        ((not_examined("things", "gap", "w"),), "Nothing was examined: see why below. So nothing is known"),
        ((CollectionReport("things", "gap").as_json(),), "Nothing was examined: no document lies in the window."),
        ((CollectionReport("things", "gap").as_json(), not_examined("others", "gap", "w")), "Not examined: others."),
    ],
)
def test_where_nothing_was_examined_nothing_is_said_to_be_well(gap, told):
    """It said: nothing is missing or stale."""
    said = verdict(_whole(*gap))
    assert told in said
    assert "Nothing is missing" not in said


def test_where_something_was_examined_and_matches_that_is_said():
    found = CollectionReport("things", "gap", taken=1)
    found.add_matching(1)
    assert verdict(_whole(found.as_json())).startswith("Nothing is missing or stale.")
    assert found.counts[Verdict.MATCHING] == 1
