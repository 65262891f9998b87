"""What the tripwire settles by itself, and what calls a sweep: one change after another to one world, counted again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from google.cloud import firestore as firestore_library

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine.compare import Examiner
from dualwrite.engine.job import Job
from dualwrite.engine.looks import WindowLook
from dualwrite.engine.units import Policy
from dualwrite.firestore.source import Source
from dualwrite.model.report import CollectionReport
from dualwrite.postgres.target import Target
from dualwrite.runs.tripwire import tripwire
from dualwrite.runs.tripwire.baseline import Baseline, time_column
from dualwrite.runs.tripwire.tripwire import Tripped, Tripwire
from tests.worlds import LONG_AGO, club, comment, post, put

HERE, ARCHIVE = "boards/b1/posts/p1/comments", "archive/a/comments"
OLD = LONG_AGO + timedelta(hours=5)
HOUR = timedelta(hours=1)


@dataclass
class Both:
    """Comments in both databases, and the tripwire over them."""

    client: firestore_library.Client
    rows: psycopg.Connection
    source: Source
    target: Target
    name: str = "comments"

    def document(self, name: str, at: datetime | None, below: str = HERE) -> None:
        """`at`: its createdAt; None: it has none."""
        fields = comment(createdAt=at)
        put(self.client, {f"{below}/{name}": {f: v for f, v in fields.items() if v is not None}})

    def row(self, name: str, at: datetime = OLD) -> None:
        self.rows.execute(
            "INSERT INTO comments (id, post_id, user_id, user_name, content, created_at, updated_at) "
            "VALUES (%s, 'p1', 'u1', 'n', 'c', %s, %s)",
            (name, at, at),
        )

    def arrive(self, name: str, at: datetime = OLD) -> None:
        """A document without a time, and its row."""
        self.document(name, None)
        self.row(name, at)

    def delete(self, name: str, below: str = HERE) -> None:
        self.client.document(f"{below}/{name}").delete()

    def drop(self, name: str) -> None:
        self.rows.execute("DELETE FROM comments WHERE id = %s", (name,))

    @property
    def wire(self) -> Tripwire:
        collection = CATALOG[self.name]
        at = time_column(collection)
        assert at is not None
        return Tripwire(self.source, self.target, collection, at)

    def measured(self) -> Baseline:
        """As a sweep that ends now keeps it."""
        return replace(self.wire.measure(datetime.now(UTC) - 2 * HOUR), kept_at=datetime.now(UTC))

    def looked(self, kept: Baseline) -> tuple[Tripped, dict[str, int]]:
        """What a run in an hour sees, which looks twice; and the verdicts of what it examined."""
        report = CollectionReport(self.name, "compare")
        job = Job(self.source, self.target, CATALOG, CATALOG[self.name], "run", report)
        look = WindowLook(report)
        with Examiner(job, Policy(), look) as examiner:
            now = datetime.now(UTC)
            tripped = self.wire.look(examiner, kept, end=now - HOUR, grace=0, now=now)
        pending = [finding.verdict.value for finding in look.ended()]
        return tripped, {verdict: pending.count(verdict) for verdict in pending}


@pytest.fixture
def both(firestore, emulator, target_dsn) -> Iterator[Both]:
    club(firestore, emulator, target_dsn, {
        "boards/b1/posts/p1": post(),
        **{f"{HERE}/c{n}": comment(createdAt=LONG_AGO + n * HOUR) for n in range(12)},
    })  # fmt: skip
    with (
        psycopg.connect(target_dsn, autocommit=True) as rows,
        Source(firestore.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(target_dsn), CATALOG) as target,
    ):
        yield Both(firestore, rows, source, target)


# --- what is well: nothing is told, and the next run counts alike -------------------------------------------------------
# What is done before the yield lies in the baseline.


def nothing(both: Both):
    yield


def an_untimed_document_arrives_late(both: Both):
    yield
    both.arrive("late")


def an_untimed_document_and_its_row_are_deleted(both: Both):
    both.arrive("both-go")
    yield
    both.delete("both-go")
    both.drop("both-go")


def an_untimed_document_arrives_now(both: Both):
    yield
    both.arrive("young", datetime.now(UTC))


def an_untimed_document_arrives_beside_a_young_orphan(both: Both):
    """A document without a row hides the row of one that no count finds."""
    yield
    both.arrive("beside", datetime.now(UTC))
    both.document("orphan", datetime.now(UTC), "boards/b1/posts/gone/comments")


def a_young_document_elsewhere(both: Both):
    yield
    both.document("young-elsewhere", datetime.now(UTC), ARCHIVE)


def archived_with_its_row(both: Both):
    both.document("archived", OLD)
    both.row("archived")
    yield
    both.delete("archived")
    both.document("archived", OLD, ARCHIVE)
    both.drop("archived")


def an_archived_document_is_deleted(both: Both):
    both.document("deleted-there", OLD, ARCHIVE)
    yield
    both.delete("deleted-there", ARCHIVE)


def an_archived_document_comes_back_with_its_row(both: Both):
    both.document("back", OLD, ARCHIVE)
    yield
    both.delete("back", ARCHIVE)
    both.document("back", OLD)
    both.row("back")


def a_document_created_since_the_sweep_arrives(both: Both):
    """Between what the baseline holds and what the window sees."""
    yield
    both.document("since", datetime.now(UTC) - 1.5 * HOUR)
    both.row("since", datetime.now(UTC) - 1.5 * HOUR)


# --- what was lost: found at once, or a sweep is called ------------------------------------------------------------------


def an_untimed_document_is_lost(both: Both):
    yield
    both.document("lost", None)


def of_two_untimed_documents_one_is_lost(both: Both):
    yield
    both.arrive("one-came")
    both.document("one-lost", None)


def of_two_young_untimed_documents_one_is_lost(both: Both):
    """The row of the one doesn't stand for the other, too."""
    yield
    both.arrive("young-came", datetime.now(UTC))
    both.document("young-lost", None)


def of_three_untimed_documents_beside_a_young_orphan_one_is_lost(both: Both):
    yield
    both.arrive("third-old")
    both.arrive("third-young", datetime.now(UTC))
    both.document("third-lost", None)
    both.document("third-orphan", datetime.now(UTC), "boards/b1/posts/gone/comments")


def a_row_without_a_document_stands_for_no_untimed_one(both: Both):
    yield
    both.row("extra")
    both.document("beside-extra", None)


def an_untimed_documents_delete_is_lost(both: Both):
    both.arrive("stays")
    yield
    both.delete("stays")


def an_archived_documents_row_stays(both: Both):
    both.document("moved", OLD)
    both.row("moved")
    yield
    both.delete("moved")
    both.document("moved", OLD, ARCHIVE)


def an_archived_documents_row_stays_beside_a_young_document(both: Both):
    yield
    both.document("young-timed", datetime.now(UTC))
    both.row("young-timed", datetime.now(UTC))
    both.delete("c5")
    both.document("c5", LONG_AGO + 5 * HOUR, ARCHIVE)


def an_archived_documents_row_stays_beside_a_young_untimed_document(both: Both):
    """One that arrived explains nothing elsewhere."""
    yield
    both.arrive("young-untimed", datetime.now(UTC))
    both.delete("c6")
    both.document("c6", LONG_AGO + 6 * HOUR, ARCHIVE)


def a_document_created_since_the_sweep_is_lost(both: Both):
    yield
    both.document("since-lost", datetime.now(UTC) - 1.5 * HOUR)


def an_archived_document_comes_back_and_its_row_is_lost(both: Both):
    both.document("back-lost", OLD, ARCHIVE)
    yield
    both.delete("back-lost", ARCHIVE)
    both.document("back-lost", OLD)


def an_untimed_document_goes_and_an_archived_documents_row_stays(both: Both):
    """The row that went was the untimed one's: it explains nothing elsewhere."""
    both.arrive("goes")
    both.document("stays-there", OLD)
    both.row("stays-there")
    yield
    both.delete("goes")
    both.drop("goes")
    both.delete("stays-there")
    both.document("stays-there", OLD, ARCHIVE)


def an_old_document_is_deleted_and_its_row_stays(both: Both):
    yield
    both.delete("c3")


WELL = (
    nothing, an_untimed_document_arrives_late, an_untimed_document_and_its_row_are_deleted, an_untimed_document_arrives_now,
    an_untimed_document_arrives_beside_a_young_orphan, a_young_document_elsewhere, archived_with_its_row,
    an_archived_document_is_deleted, an_archived_document_comes_back_with_its_row,
    a_document_created_since_the_sweep_arrives,
)  # fmt: skip
LOST = (
    an_untimed_document_is_lost, of_two_untimed_documents_one_is_lost, of_two_young_untimed_documents_one_is_lost,
    of_three_untimed_documents_beside_a_young_orphan_one_is_lost, a_row_without_a_document_stands_for_no_untimed_one,
    an_untimed_documents_delete_is_lost, an_archived_documents_row_stays,
    an_archived_documents_row_stays_beside_a_young_document,
    an_archived_documents_row_stays_beside_a_young_untimed_document, a_document_created_since_the_sweep_is_lost,
    an_archived_document_comes_back_and_its_row_is_lost, an_untimed_document_goes_and_an_archived_documents_row_stays,
    an_old_document_is_deleted_and_its_row_stays,
)  # fmt: skip

Change = Callable[[Both], Iterator[None]]


def changed(both: Both, change: Change) -> Baseline:
    """The baseline from before the change."""
    steps = change(both)
    next(steps)
    kept = both.measured()
    assert next(steps, None) is None
    return kept


def test_what_is_well_calls_no_sweep_and_is_no_deviation_again(both):
    """Whatever of it the counts can't tell by themselves, is told by a look at the buckets that they lead to."""
    wrong = {}
    for change in WELL:
        kept = changed(both, change)
        tripped, drift = both.looked(kept)
        again, _ = both.looked(replace(tripped.baseline, kept_at=datetime.now(UTC)))
        seen = (tripped.calls_sweep, drift, again.deviation, again.buckets)
        if seen != (False, {}, 0, 0):
            wrong[change.__name__] = seen
        # What is young lies on until it is old; the next change shouldn't see it.
        both.rows.execute("DELETE FROM comments WHERE created_at > now() - interval '1 day'")
        for name in ("young", "beside"):
            both.delete(name)
        both.delete("orphan", "boards/b1/posts/gone/comments")
    assert wrong == {}


def test_what_was_lost_is_found_at_once_or_calls_a_sweep(both):
    wrong = {}
    for change in LOST:
        kept = changed(both, change)
        tripped, drift = both.looked(kept)
        if not tripped.calls_sweep and not drift:
            wrong[change.__name__] = (tripped.deviation, tripped.buckets)
        assert tripped.baseline.sweep_due is tripped.calls_sweep
        assert (tripped.baseline.sweep_called_at is not None) is tripped.calls_sweep
    assert wrong == {}


def test_many_young_rows_account_for_untimed_documents_by_number(both, monkeypatch):
    """They aren't looked at one by one then; up to the limit they are."""
    monkeypatch.setattr(tripwire, "MOST_YOUNG", 2)
    for number, deviation, sweep in ((2, 2, False), (3, 0, False)):
        kept = both.measured()
        for n in range(number):
            both.arrive(f"young{number}-{n}", datetime.now(UTC))
        tripped, _ = both.looked(kept)
        assert (tripped.deviation, tripped.calls_sweep) == (deviation, sweep)
        both.rows.execute("DELETE FROM comments WHERE starts_with(id, 'young')")
        for n in range(number):
            both.delete(f"young{number}-{n}")
    kept = both.measured()
    both.arrive("one", datetime.now(UTC))
    for n in range(3):
        both.document(f"timed{n}", datetime.now(UTC))
        both.row(f"timed{n}", datetime.now(UTC))
    assert both.looked(kept)[0].deviation == 0
    both.document("alone", None)
    assert both.looked(kept)[0].calls_sweep, "there is one row too many, and not two"


def test_what_a_look_finds_is_told_with_its_stretch_of_time(both, caplog):
    """How far the counts deviate, between what, and what is read for it; and why a sweep is requested."""
    caplog.set_level(logging.INFO, logger="dualwrite.runs.tripwire.tripwire")
    kept = both.measured()
    both.delete("c3")
    both.delete("c4")
    both.document("untimed", None)
    both.document("moved", OLD, ARCHIVE)
    both.looked(kept)
    assert caplog.messages == [
        "comments: counts deviate from the last comparison's; looking again in 0 s",
        f"comments: counts deviate by -1 between {kept.window(0, 1).start.isoformat()} and {kept.end.isoformat()}, "
        "examining 11 documents",
        "comments: +1 documents without createdAt, so a sweep is requested",
        "comments: +1 documents below another top-level collection, so a sweep is requested",
    ]


def test_in_a_top_level_collection_nothing_lies_elsewhere(both):
    both.name = "users"
    both.client.document("archive/a/users/old").set({"nickname": "n", "createdAt": OLD})
    kept = both.measured()
    assert (kept.stray, kept.untimed, sum(kept.differences)) == (0, 0, 0)
    assert both.looked(kept)[0].deviation == 0


def test_a_large_table_has_larger_buckets_and_none_past_the_end(both, monkeypatch):
    monkeypatch.setattr(tripwire, "BUCKET", 2)
    many = both.measured()
    assert len(many.edges) >= 5
    assert list(many.edges) == sorted(set(many.edges))
    monkeypatch.setattr(tripwire, "MOST_BUCKETS", 2)
    few = both.measured()
    assert 2 <= len(few.edges) <= 3, "two of six rows, and what is younger"
    end = LONG_AGO + 4 * HOUR
    assert both.wire.measure(end).edges[-1] == end.replace(microsecond=123000)
    assert all(edge <= end for edge in both.wire.measure(end).edges)


def test_a_look_that_ends_with_the_baseline_has_no_new_bucket(both):
    """A run again right after another one: no time lies between."""
    kept = both.measured()
    for end in (kept.end, kept.end - HOUR):
        tripped = both.wire.look(None, kept, end=end, grace=0, now=datetime.now(UTC))  # it has nothing to examine
        assert (tripped.deviation, tripped.baseline.edges) == (0, kept.edges)


def test_what_arrived_between_count_and_keeping_calls_no_sweep(both):
    """A sweep counts first and keeps its baseline hours later."""
    kept = both.measured()
    both.arrive("meanwhile", datetime.now(UTC))
    tripped, _ = both.looked(replace(kept, kept_at=datetime.now(UTC)))
    assert (tripped.deviation, tripped.calls_sweep) == (1, False)
