"""The gap backfill on a small world with every awkward case of production, on the real emulator and Postgres."""

from __future__ import annotations

import time

import psycopg
import pytest

from dev import seed
from dualwrite.catalog import CATALOG
from dualwrite.model.alert import line
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import GapReport
from dualwrite.runs import backfill
from dualwrite.runs.report import gap as gap_report
from tests import in_slices
from tests.shape import faults
from tests.support import (
    DEFAULTS,
    apply,
    dry_run,
    examine_all,
    gap_run,
    nonzero,
    one,
    reconciled,
    table_bytes,
    verify_all,
)
from tests.worlds import club, post, small_world


@pytest.fixture
def world(firestore, target_dsn):
    return small_world(firestore, target_dsn)


def _expected(counts) -> dict[str, dict[str, int]]:
    return {name: dict(counts[name]) for name in CATALOG.names}


def test_a_dry_run_finds_what_is_in_the_gap_and_writes_nothing(world, firestore, emulator, target_dsn):
    before = table_bytes(target_dsn)
    found = dry_run(firestore.project, emulator, target_dsn)
    assert {n: nonzero(r["counts"]) for n, r in found.items()} == _expected(world.in_window)
    assert found["comments"]["stray"] == world.strays["comments"]
    assert table_bytes(target_dsn) == before


def test_scope_all_judges_every_document(world, firestore, emulator, target_dsn):
    found = dry_run(firestore.project, emulator, target_dsn, scope="all")
    assert {n: nonzero(r["counts"]) for n, r in found.items()} == _expected(world.over_all)


@pytest.mark.parametrize("scope", ["window", "all"])
@pytest.mark.parametrize("page_size", [1, 7, 5000])
def test_an_apply_does_what_the_dry_run_said(world, firestore, emulator, target_dsn, scope, page_size):
    said = dry_run(firestore.project, emulator, target_dsn, scope=scope, page_size=page_size)
    did = apply(firestore.project, emulator, target_dsn, scope=scope, page_size=page_size)
    assert {n: r["counts"] for n, r in did.items()} == {n: r["counts"] for n, r in said.items()}
    assert {n: r["inserted"] for n, r in did.items()} == {n: r["counts"]["missing"] for n, r in said.items()}
    assert {n: r["updated"] for n, r in did.items()} == {n: r["counts"]["stale"] for n, r in said.items()}


def test_a_second_apply_writes_nothing_and_changes_no_byte(world, firestore, emulator, target_dsn):
    apply(firestore.project, emulator, target_dsn)
    before = table_bytes(target_dsn)
    again = apply(firestore.project, emulator, target_dsn)
    assert all(r["inserted"] == r["updated"] == r["deleted"] == 0 for r in again.values())
    assert table_bytes(target_dsn) == before


def test_after_an_apply_all_is_verified_but_for_rejections(world, firestore, emulator, target_dsn):
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        checked = verify_all(run)
    rejected = {n for n in CATALOG.names if world.over_all[n]["rejected"]}
    assert {n for n, r in checked.items() if r["verification"] != "verified"} == rejected
    left = {
        n: nonzero(r["counts"]).keys() - {"matching", "orphan", "duplicate", "rejected"} for n, r in checked.items()
    }
    assert not any(left.values()), left
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.watermarks") == len(CATALOG.names) - len(rejected)


def test_an_excused_rejection_is_verified(world, firestore, emulator, target_dsn):
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        checked = verify_all(run, ["posts"])
    keys = [s["key"] for s in checked["posts"]["samples"]["rejected"]]
    excuses = {"excuse": [f"posts:{k}" for k in keys], "excuse_reason": "test posts of ours"}
    with gap_run(firestore.project, emulator, target_dsn, **excuses) as run:
        from dualwrite.runs import backfill

        backfill.preflight(run, by="somebody")
        checked = verify_all(run, ["posts"])
    assert checked["posts"]["verification"] == "verified"
    assert checked["posts"]["excused"] == len(keys)


def test_what_is_excused_before_it_is_found_is_a_difference_too(world, firestore, emulator, target_dsn):
    """Else the next run that compares recent writes takes the two for equal."""
    said = dry_run(firestore.project, emulator, target_dsn)
    keys = sorted(s["key"] for s in said["posts"]["samples"]["rejected"])
    assert keys
    excuses = {"excuse": [f"posts:{k}" for k in keys], "excuse_reason": "test posts of ours"}
    with gap_run(firestore.project, emulator, target_dsn, **excuses) as run:
        from dualwrite.runs import backfill

        backfill.preflight(run, by="somebody")
        examine_all(run, dry=False)
        assert verify_all(run, ["posts"])["posts"]["verification"] == "verified"
    known = "SELECT array_agg(key ORDER BY key) FROM dualwrite.open_differences WHERE verdict = 'rejected' AND excused_by = 'somebody'"
    assert one(target_dsn, known) == keys


def test_no_more_than_a_read_a_document_and_one_to_confirm(world, firestore, emulator, target_dsn):
    said = dry_run(firestore.project, emulator, target_dsn)
    for name, found in said.items():
        # All that a row to be inserted requires is looked up: at most a comment, its post, its board and a person.
        parents = found["counts"]["missing"] + found["counts"]["orphan"]
        owners = found["counts"]["duplicate"]
        assert found["billed_reads"] <= found["documents_read"] + 2 + 4 * parents + 3 * owners, name


def test_every_run_is_kept_with_its_counts(world, firestore, emulator, target_dsn):
    found = dry_run(firestore.project, emulator, target_dsn)
    with psycopg.connect(target_dsn) as connection:
        kept = connection.execute("SELECT collection, examined, counts, mode, outcome FROM dualwrite.runs").fetchall()
    assert {name: (examined, counts) for name, examined, counts, _, _ in kept} == {
        n: (r["examined"], {**r["counts"], "left_out": r["left_out"], "excused": r["excused_counts"]})
        for n, r in found.items()
    }
    assert {(mode, outcome) for *_, mode, outcome in kept} == {("dry_run", "examined")}


def test_a_parent_from_before_the_window_is_inserted_first(world, firestore, emulator, target_dsn):
    """A post that the export lost: no window shows it, but a new comment needs it."""
    with psycopg.connect(target_dsn) as connection:
        path = next(p for p in world.documents if "/posts/" in p and p.count("/") == 5 and "comments" in p)
        post = path.split("/")[3]
        connection.execute("DELETE FROM posts WHERE id = %s", (post,))
    board = path.split("/")[1]
    firestore.document(f"boards/{board}/posts/{post}/comments/new").set(
        {"content": "x", "userId": next(p for p in world.documents if p.startswith("users/")).split("/")[1],
         "createdAt": seed.EXPORT}
    )  # fmt: skip
    said = dry_run(firestore.project, emulator, target_dsn, collections=["comments"])
    did = apply(firestore.project, emulator, target_dsn, collections=["comments"])
    assert said["comments"]["counts"] == did["comments"]["counts"]
    assert did["comments"]["parents_inserted"] == 1
    assert one(target_dsn, "SELECT count(*) FROM comments WHERE id = 'new'") == 1


def test_all_that_a_verification_leaves_can_be_excused_at_once(world, firestore, emulator, target_dsn):
    with gap_run(firestore.project, emulator, target_dsn, collections=["posts"]) as run:
        examine_all(run, dry=False)
        assert verify_all(run)["posts"]["verification"] == "not_verified"
    changes = {"collections": ["posts"], "excuse": ["posts:*"], "excuse_reason": "broken since 2024"}
    with gap_run(firestore.project, emulator, target_dsn, run_id="second", **changes) as run:
        backfill.preflight(run, by="a person")
        assert verify_all(run)["posts"]["verification"] == "verified"


@pytest.mark.parametrize("slice_documents", [250_000, 2], ids=["whole", "in_slices"])
@pytest.mark.parametrize("edits", [1, 99], ids=["edited_once", "edited_at_every_look"])
def test_a_loss_that_is_edited_between_the_looks_is_not_verified(
    edits, slice_documents, firestore, emulator, target_dsn, monkeypatch
):
    """In flight is no proof: called verified, its watermark and its baseline would hide the loss from then on."""
    club(firestore, emulator, target_dsn, {f"boards/b1/posts/p{i}": post() for i in range(4)})
    lost = firestore.document("boards/b1/posts/lost")
    lost.set(post())
    left, slept = iter(range(edits)), time.sleep

    def edited(seconds: float) -> None:
        if seconds == DEFAULTS["grace_seconds"] and (number := next(left, None)) is not None:
            lost.update({"title": f"edit {number}"})
        slept(min(seconds, 0.05))

    with gap_run(
        firestore.project, emulator, target_dsn, collections=["posts"], slice_documents=slice_documents
    ) as run:
        monkeypatch.setattr(time, "sleep", edited)
        checked, _ = in_slices.verification(run)
        monkeypatch.undo()
        gap = {name: CollectionReport(name, "gap").as_json() for name in run.params.names}
        whole = gap_report.build_report("run", run.params, gap, checked, dry=False)
    found = checked["posts"]
    assert found["verification"] == "not_verified"
    assert (found["counts"]["missing"], found["counts"]["in_flight"]) == ((1, 0) if edits == 1 else (0, 1))
    why = "1 missing; trigger backfill_gap with mode = apply" if edits == 1 else "1 changed at every look"
    assert faults(whole, GapReport) == []
    assert [f"posts is not verified: {why}" in line(a) for a in whole["alerts"] if a["collection"] == "posts"] == [True]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.watermarks WHERE collection = 'posts'") == 0
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.count_baselines WHERE collection = 'posts'") == 0
    assert reconciled(firestore.project, emulator, target_dsn, collections=["posts"]).counts("posts") == {"missing": 1}
