"""What a run bills: counted as the wire shows it, told in dollars, estimated before, and capped."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dualwrite.firestore.budget import Budget
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.errors import BudgetError
from dualwrite.model.render import as_text
from dualwrite.runs import backfill
from dualwrite.runs.report import gap as gap_report
from dualwrite.runs.slices import backfill as sliced
from tests.counting_proxy import counting_proxy
from tests.support import apply, examine_all, gap_run, one, reconciled, verify_all
from tests.worlds import board, comment, notification, post, put, user

COMMENTS = Scan("comments", ("content",))


def _world(firestore) -> None:
    """Sixty comments and a few others; two notifications share a key, and a like has no post."""
    documents = {
        "boards/b1": board(),
        **{f"users/u{n}": user(f"u{n}") for n in (1, 2, 3)},
        "boards/b1/posts/p1": post(),
    }
    documents |= {f"boards/b1/posts/p1/comments/c{n}": comment() for n in range(60)}
    documents |= {f"users/u1/notifications/n{n}": notification() for n in range(2)}
    documents["boards/b1/posts/gone/likes/l1"] = {"userId": "u1", "userName": "n", "createdAt": datetime.now(UTC)}
    put(firestore, documents)


@pytest.fixture
def world(firestore, emulator, target_dsn):
    """Of the rows only the users are there."""
    _world(firestore)
    apply(firestore.project, emulator, target_dsn, scope="all", collections=["users"], run_id="before")
    return firestore


def test_the_bill_of_each_phase_is_what_the_wire_shows(world, emulator, target_dsn):
    """Of a dry run, and of an apply with its verification."""
    with counting_proxy(emulator) as (proxy, host):
        with gap_run(world.project, host, target_dsn, scope="all", mode="dry_run") as run:
            backfill.preflight(run, by="a test")
            examine_all(run, dry=True)
            assert run.source.billed_reads == proxy.reads
        before = proxy.reads
        with gap_run(world.project, host, target_dsn, scope="all") as run:
            examine_all(run, dry=False)
            verify_all(run)
            assert run.source.billed_reads == proxy.reads - before


def test_the_bill_of_a_sweep_that_repairs_is_what_the_wire_shows(world, emulator, target_dsn):
    with counting_proxy(emulator) as (proxy, host):
        apply(world.project, host, target_dsn, scope="all")
        before = proxy.reads
        world.document("boards/b1/posts/p1/comments/c7").delete()
        found = reconciled(world.project, host, target_dsn, scope="sweep", repair="all", liveness_minimum=10**6)
        assert found.report["billed_reads"] == proxy.reads - before


def test_each_collection_has_its_reads_and_dollars_in_the_report(world, emulator, target_dsn):
    found = reconciled(world.project, emulator, target_dsn, collections=["users", "posts"], liveness_minimum=10**6)
    text = found.text()
    assert "billed reads" in text
    [line] = [c for c in found.report["collections"] if c["collection"] == "users"]
    assert line["billed_reads"] > 3
    assert "<$0.01" in text


def test_a_dry_run_estimates_what_the_apply_then_bills(world, emulator, target_dsn):
    with gap_run(world.project, emulator, target_dsn, mode="dry_run", scope="all") as run:
        found = examine_all(run, dry=True)
        counted = {name: backfill.verify(run, name, counts_only=True) for name in run.params.names}
        whole = gap_report.build_report("run", run.params, found, counted, dry=True)
    with gap_run(world.project, emulator, target_dsn, scope="all", run_id="apply") as run:
        examine_all(run, dry=False)
        verify_all(run)
        billed = run.source.billed_reads
    assert billed * 0.8 <= whole["estimated_reads"] <= billed * 1.3
    assert "An apply would bill about" in as_text(gap_report.described(whole))
    asked = " ".join(as_text(gap_report.asked(whole)).split())
    assert f"about {whole['estimated_reads']:,} billed reads more" in asked, "the approval's text"


# --- the cap ----------------------------------------------------------------------------------------------------------------


def test_a_run_stops_before_its_cap_and_the_next_one_goes_on(world, emulator, target_dsn):
    with counting_proxy(emulator) as (proxy, host):
        with gap_run(world.project, host, target_dsn, scope="all", max_billed_reads=50) as run:
            for name in ("boards", "users", "posts"):
                backfill.examine(run, name, dry=False)
            with pytest.raises(
                BudgetError, match=r"max_billed_reads = 50 reads: \d+ are spent .* reading comments with 60"
            ):
                backfill.examine(run, "comments", dry=False)
        assert proxy.reads <= 50
    assert one(target_dsn, "SELECT count(*) FROM posts") == 1, "what was examined is kept"
    assert one(target_dsn, "SELECT outcome FROM dualwrite.runs WHERE collection = 'comments'") == "not_examined"
    with gap_run(world.project, emulator, target_dsn, scope="all", run_id="next") as run:
        backfill.examine(run, "comments", dry=False)
    assert one(target_dsn, "SELECT count(*) FROM comments") == 60


def test_a_capped_reconciliation_leaves_the_watermark_alone(world, emulator, target_dsn):
    found = reconciled(
        world.project, emulator, target_dsn, collections=["users", "comments"], max_billed_reads=40, liveness_minimum=10**6
    )  # fmt: skip
    [alert] = [text for text in found.alerts if text.startswith("comments was not examined")]
    assert "max_billed_reads = 40 reads" in alert
    assert "the others keep their watermark" in alert
    assert one(target_dsn, "SELECT array_agg(collection) FROM dualwrite.watermarks") == ["users"]


def test_tasks_of_one_run_start_from_what_it_has_spent(world, emulator, target_dsn):
    """Each task has a Source of its own; what the others spent stands in dualwrite.runs."""
    for name, passes in (("users", True), ("boards", True), ("comments", False)):
        with gap_run(world.project, emulator, target_dsn, scope="all", max_billed_reads=66) as run:
            if passes:
                backfill.examine(run, name, dry=True)
            else:
                with pytest.raises(BudgetError):
                    backfill.examine(run, name, dry=True)
    with gap_run(world.project, emulator, target_dsn, scope="all", max_billed_reads=66, run_id="another") as run:
        backfill.examine(run, "comments", dry=True)


def test_the_counts_that_cut_a_verification_lie_within_the_cap(world, emulator, target_dsn):
    """What tasks before it read counts too, though no line of the run log tells of it."""
    cap = {"max_billed_reads": 30, "slice_documents": 5, "scope": "all"}
    with gap_run(world.project, emulator, target_dsn, **cap) as run:
        with pytest.raises(BudgetError, match="max_billed_reads = 30 reads: 30 are spent"):
            sliced.cut_verification(replace(run, unlogged_reads=29))
        assert run.source.billed_reads <= 1
    with gap_run(world.project, emulator, target_dsn, **{**cap, "max_billed_reads": 1000}) as run:
        sliced.cut_verification(run)
        assert run.source.budget.spent == run.source.billed_reads > 10


def test_a_count_of_unknown_size_does_not_pass_the_cap(world, emulator):
    put(world, {f"boards/b1/posts/p1/comments/d{n}": comment() for n in range(400)})
    put(world, {f"boards/b1/posts/p1/comments/e{n}": comment() for n in range(400)})
    put(world, {f"boards/b1/posts/p1/comments/f{n}": comment() for n in range(400)})
    with (
        Source(world.project, emulator_host=emulator, budget=Budget(1)) as source,
        pytest.raises(BudgetError, match="would cost 1 or more"),
    ):
        source.count(COMMENTS)
    assert source.billed_reads == 1
    with Source(world.project, emulator_host=emulator, budget=Budget(3)) as source:
        assert source.count(COMMENTS)[0] == 1260
        assert source.budget.spent == 2


def test_a_scan_left_early_gives_back_what_it_did_not_read(world, emulator):
    with Source(world.project, emulator_host=emulator, budget=Budget(1000)) as source:
        pages = source.pages(COMMENTS, 10)
        next(pages)
        pages.close()  # type: ignore[attr-defined]
        assert source.budget.spent == source.billed_reads < 62


def test_keys_that_documents_share_are_asked_for_within_the_cap(world, emulator):
    with Source(
        world.project, emulator_host=emulator, budget=Budget(3)
    ) as source:  # one of them for the count that the answer may need
        with pytest.raises(BudgetError):
            source.children_where_each([("users/u1", {"type": "like_on_post"})], "notifications", ("type",))
        assert source.billed_reads == 2


def test_counts_of_a_capped_run_go_side_by_side(world, emulator, monkeypatch):
    """A run with a cap made one call at a time: one that hung held up all others."""
    with Source(world.project, emulator_host=emulator, budget=Budget(100_000)) as source:
        both = threading.Barrier(2, timeout=20)
        count = source.wire.run_count

        def meets(request):
            both.wait()
            return count(request)

        monkeypatch.setattr(source.wire, "run_count", meets)
        with ThreadPoolExecutor(2) as threads:
            assert [n for n, _ in threads.map(source.count, [COMMENTS, COMMENTS])] == [60, 60]
        assert source.budget.spent == 2


def test_calls_that_are_lent_reads_never_pass_the_cap_together(world, emulator):
    put(world, {f"boards/b1/posts/p1/comments/d{n}": comment() for n in range(400)})
    with Source(world.project, emulator_host=emulator, budget=Budget(5)) as source:

        def count(_):
            try:
                return source.count(COMMENTS)[0]
            except BudgetError:
                return None

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(count, range(12)))
        assert source.billed_reads == source.budget.spent == 5
        assert found.count(460) == 5
