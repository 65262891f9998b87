"""What a backfill asks a person, and says when it fails."""

from __future__ import annotations

from dualwrite.model.render import as_markdown
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.runs import backfill

WINDOW = {"start": "2026-01-14T12:52:00+00:00", "end": "2026-11-29T07:05:00+00:00"}


def _report(mode: str, *collections: CollectionReport) -> dict:
    return {
        "mode": mode, "scope": "window", "window": WINDOW, "added_parents": [], "approval": None, "answer": None,
        "billed_reads": 5, "estimated_reads": 9, "collections": [c.as_json() for c in collections],
    }  # fmt: skip


def _collection(name: str, phase: str, *verdicts: Verdict, excused: bool = False, **numbers) -> CollectionReport:
    made = CollectionReport(name, phase, **numbers)
    for verdict in verdicts:
        made.add(Finding(verdict, f"{name}-{verdict}", f"{name}/{verdict}", excused=excused))
    return made


def test_an_approval_shows_what_would_be_written_alone():
    """The buttons stood 2,000 pixels down, below samples of what isn't decided, and a column of zeros."""
    asked = as_markdown(
        backfill.asked(
            _report(
                "dry_run",
                _collection("posts", "gap", Verdict.MISSING, Verdict.ORPHAN, Verdict.REJECTED),
                _collection("blocks", "gap", Verdict.MATCHING),
                _collection("posts", "verify", source_count=3, target_count=1),
                _collection("blocks", "verify", source_count=1, target_count=1),
            )
        )
    )
    assert "posts-missing" in asked
    assert "posts-orphan" not in asked
    assert "posts-rejected" not in asked
    counts, _, now = asked.partition("Documents and rows now:")
    assert "| blocks" not in counts, "nothing would be written there"
    assert "| posts | 3 | 1 |" in now
    assert "| blocks | 1 | 1 |" in now
    assert "examined" not in now


def test_a_failed_backfill_says_what_to_do():
    """ "1 rejected, 2 extra, 1 of them excused" told neither, and left open of which one."""
    gap = _collection("comments", "gap", Verdict.MATCHING)
    checked = _collection("comments", "verify", Verdict.REJECTED, Verdict.EXTRA, verification="differs")
    checked.add(Finding(Verdict.EXTRA, "x", excused=True))
    assert backfill.failures(_report("apply", gap, checked)) == [
        "comments is not verified: 1 rejected, 2 extra (1 of these 3 excused); correct the documents that can't become rows, "
        "or excuse them with a reason; trigger reconcile_dual_writes with scope = sweep and repair = all to delete rows without "
        "a document"
    ]
