"""The engine as the DAGs run it, without Airflow: dry run, verification, apply."""

from __future__ import annotations

import psycopg

from benchmarks.stack import PAGE_SIZE, PROJECT, Stack
from dualwrite.model.run_report import CollectionResult
from dualwrite.runs import backfill
from dualwrite.runs.tripwire import wire as tripwire
from tests.support import gap_run


def dry_run(stack: Stack) -> int:
    """All comments, nothing written."""
    return int(_examine(stack, dry=True)["counts"]["matching"])


def verify(stack: Stack) -> int:
    """All comments and all rows, both ways."""
    with gap_run(PROJECT, stack.host, stack.uri, collections=["comments"]) as run:
        report = backfill.verify(run, "comments", counts_only=False)
    assert report["verification"] == "verified", report
    return int(report["documents_read"])


def verify_without_baseline(stack: Stack) -> int:
    """The same without the tripwire's counts, one for a thousand documents: the emulator walks the whole collection for each of
    them, Firestore an index."""
    measure = tripwire.measure
    tripwire.measure = lambda *_: None
    try:
        return verify(stack)
    finally:
        tripwire.measure = measure


def apply(stack: Stack) -> int:
    """All comments into a table that `empty` emptied, each confirmed by a second read."""
    report = _examine(stack, dry=False)
    assert report["inserted"] == stack.documents, report
    return stack.documents


def empty(stack: Stack) -> None:
    """Empties the table of comments and the journal."""
    with psycopg.connect(stack.uri, autocommit=True) as connection:
        connection.execute("TRUNCATE comments CASCADE")
        connection.execute("TRUNCATE dualwrite.repair_journal")


def _examine(stack: Stack, *, dry: bool) -> CollectionResult:
    with gap_run(PROJECT, stack.host, stack.uri, collections=["comments"], scope="all", page_size=PAGE_SIZE) as run:
        return backfill.examine(run, "comments", dry=dry)
