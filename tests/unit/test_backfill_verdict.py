"""A backfill's one sentence says what is known, and nothing where nothing was looked at."""

from __future__ import annotations

import pytest

from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Verdict
from tests.unit.test_backfill_told import report_of


@pytest.mark.parametrize(
    ("gap", "told"),
    [
        (
            [CollectionReport("boards", "gap", not_examined="w")],
            "Nothing was examined: see why below. So it is unknown",
        ),
        ([CollectionReport("boards", "gap")], "Nothing was examined: no document lies in the window."),
        (
            [CollectionReport("users", "gap"), CollectionReport("boards", "gap", not_examined="w")],
            "Not examined: boards.",
        ),
    ],
)
def test_where_nothing_was_examined_nothing_is_said_to_be_well(gap, told):
    """It said: nothing is missing or stale."""
    said = report_of("dry_run", *gap)["verdict"]
    assert told in said
    assert "Nothing is missing" not in said


def test_where_something_was_examined_and_matches_that_is_said():
    found = CollectionReport("boards", "gap", taken=1)
    found.add_matching(1)
    assert report_of("dry_run", found)["verdict"].startswith("Nothing is missing or stale.")
    assert found.counts[Verdict.MATCHING] == 1
