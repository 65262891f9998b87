"""Collections that are cut into slices, on the real emulator and Postgres: the same answers as from whole ones."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from google.cloud import firestore as firestore_library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dev.postgres_server import server
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Source
from dualwrite.migrations.files import folders, list_folders
from dualwrite.model.errors import TargetError
from dualwrite.model.gap_params import GapParams
from dualwrite.model.run_report import GapReport
from dualwrite.model.windows import Window
from dualwrite.postgres.target import Target
from dualwrite.runs.report import gap as gap_report
from dualwrite.runs.slices import backfill as sliced
from dualwrite.runs.slices import seen_keys
from dualwrite.runs.slices.cutter import Cutter
from dualwrite.runs.slices.scans import scans_of
from dualwrite.runs.slices.slice import Slice
from tests import in_slices
from tests.arbitrary import characters
from tests.shape import faults
from tests.support import examine_all, gap_run, nonzero, one, table_bytes, verify_all
from tests.worlds import club, put, small_world

ROOT = Path(__file__).resolve().parents[3]
T = datetime(2026, 2, 1, tzinfo=UTC)
WINDOW = Window(T, T + timedelta(days=10))


@pytest.fixture
def world(firestore, target_dsn):
    return small_world(firestore, target_dsn)


def _counts(reports) -> dict[str, dict[str, int]]:
    return {name: nonzero(reports[name]["counts"]) for name in CATALOG.names}


def _there_or_missing(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {
        name: {**found, "missing": 0, "matching": found.get("missing", 0) + found.get("matching", 0)}
        for name, found in counts.items()
    }


# --- cutting ------------------------------------------------------------------------------------------------------------

IDS = st.text("aB9-_~é", min_size=1, max_size=2)
MOMENTS = st.one_of(
    st.sampled_from([T, WINDOW.end, WINDOW.end - timedelta(microseconds=1), T + timedelta(days=3)]),
    st.integers(-(10**10), 10**12).map(lambda us: T + timedelta(microseconds=us)),
)
COMMENTS = st.dictionaries(st.tuples(IDS, IDS, IDS), MOMENTS, min_size=1, max_size=60)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(COMMENTS, st.integers(2, 20), st.data())
def test_slices_deliver_each_document_exactly_once(emulator, unparented_dsn, comments, most, data):
    """By time and by name; rows are there for some of the documents, and for some that are gone."""
    collection = CATALOG["comments"]
    paths = {f"boards/{b}/posts/{p}/comments/{c}": at for (b, p, c), at in comments.items()}
    rows = data.draw(st.lists(st.sampled_from(sorted(comments)), unique_by=lambda ids: ids[2]))
    with psycopg.connect(unparented_dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE posts, comments CASCADE")
        for b, p, c in [*rows, ("zz", "zz", "gone")]:
            connection.execute(
                "INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES (%s, %s, 'u', 'n', 't') "
                "ON CONFLICT DO NOTHING",
                (p, b),
            )
            connection.execute("INSERT INTO comments (id, post_id, user_id, content) VALUES (%s, %s, 'u', 'c')", (c, p))
    client = firestore_library.Client(project=f"t{uuid.uuid4().hex[:12]}")
    for part in [list(paths.items())[i : i + 400] for i in range(0, len(paths), 400)]:
        put(client, {path: {"createdAt": at} for path, at in part})
    with (
        Source(client.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(unparented_dsn), CATALOG) as target,
    ):
        for window in (None, WINDOW):
            whole = [d.path for s in scans(collection, window) for p in source.pages(s, 100) for d in p.documents]
            parts = Cutter(source, target, CATALOG, most).cut({"comments": window})
            if not parts:
                told_apart = {at for at in paths.values() if at in WINDOW}
                assert len(whole) <= most or len(told_apart) == 1 or window is None
                continue
            delivered = [
                d.path
                for part in parts
                for s in scans_of(part, collection)
                for p in source.pages(replace(s, fields=collection.fields), 100)
                for d in p.documents
            ]
            assert Counter(delivered) == Counter(whole)
            assert sum(p.documents for p in parts) == len(whole)


def test_a_large_collection_is_cut_into_slices_of_the_given_size(world, firestore, emulator, target_dsn):
    """By time always; by name as finely as the target knows names: documents without rows may lie between two."""
    with gap_run(firestore.project, emulator, target_dsn) as run:
        cutter = Cutter(run.source, run.target, CATALOG, 10)
        by_name = cutter.cut({"comments": None, "notifications": None})
        assert {p.collection for p in by_name} == {"comments", "notifications"}
        assert sum(p.documents <= 10 for p in by_name) >= len(by_name) - 2
        by_time = cutter.cut({"comments": run.params.window})
        assert len(by_time) >= 4
        assert all(p.documents <= 10 for p in by_time)


# --- the gap ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["window", "all"])
def test_an_apply_in_slices_does_what_one_without_does(world, firestore, emulator, target_dsn, scope):
    expected = world.in_window if scope == "window" else world.over_all
    with gap_run(firestore.project, emulator, target_dsn, scope=scope, slice_documents=5) as run:
        said, parts = in_slices.gap(run, dry=True)
        assert len({p.collection for p in parts}) >= 4
        assert _counts(said) == {n: dict(expected[n]) for n in CATALOG.names}
        did, _ = in_slices.gap(run, dry=False)
        # A missing parent is inserted by whoever needs it first: its own slice then finds it there.
        assert _there_or_missing(_counts(did)) == _there_or_missing(_counts(said))
        assert sum(r["updated"] for r in did.values()) == sum(r["counts"]["stale"] for r in said.values())
        written = sum(r["inserted"] + r["parents_inserted"] for r in did.values())
        assert written == sum(r["counts"]["missing"] for r in said.values())
    before = table_bytes(target_dsn)
    with gap_run(firestore.project, emulator, target_dsn, scope=scope, slice_documents=5, run_id="again") as run:
        again, _ = in_slices.gap(run, dry=False)
        assert sum(r["inserted"] + r["updated"] + r["deleted"] for r in again.values()) == 0
    assert table_bytes(target_dsn) == before


def test_a_document_with_two_times_in_a_window_is_examined_once(firestore, emulator, target_dsn):
    """Its createdAt lies in one slice, its updatedAt in another."""
    club(firestore, emulator, target_dsn)
    post = {"title": "t", "content": "c", "authorId": "u1", "authorName": "n"}
    put(
        firestore,
        {
            f"boards/b1/posts/p{i}": {
                **post,
                "createdAt": T + timedelta(hours=i),
                "updatedAt": T + timedelta(days=5, hours=i),
            }
            for i in range(30)
        },
    )
    with gap_run(firestore.project, emulator, target_dsn, slice_documents=8, collections=["posts"]) as run:
        found, parts = in_slices.gap(run, dry=False)
        assert sum(p.collection == "posts" for p in parts) >= 4
        assert found["posts"]["examined"] == 30
        assert found["posts"]["documents_read"] == 60


# --- verification -------------------------------------------------------------------------------------------------------


def test_a_verification_in_slices_says_what_one_without_says(world, firestore, emulator, target_dsn):
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        _lose_and_add(target_dsn)
        whole = verify_all(run)
    with gap_run(firestore.project, emulator, target_dsn, slice_documents=5, run_id="sliced") as run:
        checked, parts = in_slices.verification(run)
    assert len({p.collection for p in parts}) >= 6
    assert _counts(checked) == _counts(whole)
    assert whole["comments"]["counts"]["extra"] == 3
    for name, part in checked.items():
        assert part["verification"] == whole[name]["verification"], name
        assert part["source_count"] == whole[name]["source_count"]
        assert part["target_count"] == whole[name]["target_count"]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.seen_keys") == 0, "nothing is left behind"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.looks") == 0


def _lose_and_add(dsn: str) -> None:
    """Three comments' rows without a document, and one row that differs from its."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO comments (id, post_id, user_id, content) SELECT 'extra-' || n, post_id, user_id, 'c' "
            "FROM (SELECT * FROM comments ORDER BY id LIMIT 1) c, generate_series(1, 3) n"
        )
        connection.execute("UPDATE comments SET content = 'x' WHERE id = (SELECT max(id) FROM comments)")


def test_two_runs_dont_take_each_others_rows_for_seen_or_extra(world, firestore, emulator, target_dsn):
    """One run has seen all slices but one, another all: each knows its own."""
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        _lose_and_add(target_dsn)
    with (
        gap_run(firestore.project, emulator, target_dsn, slice_documents=5, run_id="one") as first,
        gap_run(firestore.project, emulator, target_dsn, slice_documents=5, run_id="two") as second,
    ):
        parts, needed = sliced.cut_verification(first)
        comments = [p for p in parts if p.collection == "comments"]
        made = [sliced.verify(first, p) for p in comments]
        with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
            look = seen_keys.Attempt(target, "comments", "another_dag", second.run_id)
            extra = [(key,) for (key,) in _rows(target_dsn, "SELECT id FROM comments WHERE id LIKE 'extra-%'")]
            look.update(extra)
            look.flush()
        found = sliced.finish_verification(first, comments, made, needed["comments"])
        assert found["counts"]["extra"] == 3
        sliced.forget_looks(first.target)
        assert one(target_dsn, "SELECT count(*) FROM dualwrite.seen_keys WHERE look = %s", look.number) == 3
        seen_keys.forget(second.target, "another_dag")
        assert one(target_dsn, "SELECT count(*) FROM dualwrite.seen_keys") == 0


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", ["boards", "board_waiting_users"])
def test_pages_of_unseen_rows_neither_overlap_nor_leave_gaps(target_dsn, monkeypatch, name, size):
    """With keys of one column and of two, that begin alike: each unseen row once, in order."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("INSERT INTO users (id) SELECT 'u' || n FROM generate_series(1, 3) n")
        connection.execute("INSERT INTO boards (id, title) SELECT 'b' || n, 't' FROM generate_series(1, 6) n")
        connection.execute(
            "INSERT INTO board_waiting_users (board_id, user_id) SELECT b.id, u.id FROM boards b, users u WHERE b.id < 'b3'"
        )
    collection = CATALOG[name]
    keys = ", ".join(c.name for c in collection.key)
    every = [tuple(row) for row in _rows(target_dsn, f"SELECT {keys} FROM {collection.table} ORDER BY {keys}")]
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
        look = seen_keys.Attempt(target, name, "a_dag", "one")
        look.update([every[2]])
        look.flush()
        monkeypatch.setattr(seen_keys, "KEYS_AT_ONCE", size)
        pages = list(seen_keys.unseen(target, collection, [look.number]))
    assert [key for page in pages for key in page] == [key for key in every if key != every[2]]
    assert all(len(page) <= size for page in pages)


@pytest.mark.parametrize("number", [5, 2**62 - 1])
def test_keys_go_to_the_target_a_page_at_a_time(target_dsn, monkeypatch, number):
    """What a slice holds of them is bounded; the number of its look is drawn, and may be small."""
    monkeypatch.setattr(seen_keys, "KEYS_AT_ONCE", 3)
    monkeypatch.setattr("secrets.randbits", lambda _: number)
    there = "SELECT count(*) FROM dualwrite.seen_keys"
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
        look = seen_keys.Attempt(target, "comments", "a_dag", "one")
        look.update([("c1",), ("c2",), ("c1",)])
        assert one(target_dsn, there) == 0
        look.update([("c3",)])
        assert one(target_dsn, there) == 3
        look.update_labels(["a label"])
        look.flush()
        look.flush()
        assert one(target_dsn, there) == 4
        assert seen_keys.seen_keys(target, [("c3",), ("c4",)], [look.number]) == {("c3",)}
        assert seen_keys.seen_labels(target, ["a label", "c3"], [look.number]) == {"a label"}


@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "SHARE"])
def test_what_slices_saw_stays_while_the_tables_are_busy(target_dsn, mode, caplog):
    """A reader waits behind the first lock, a writer behind either. It is no error."""
    kept = "SELECT count(*) FROM dualwrite.seen_keys"
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
        look = seen_keys.Attempt(target, "comments", "a_dag", "one")
        look.update([("c1",)])
        look.flush()
        with psycopg.connect(target_dsn) as other:
            other.execute(f"LOCK TABLE dualwrite.looks IN {mode} MODE")
            seen_keys.forget(target, "a_dag")
        assert one(target_dsn, kept) == 1
        assert caplog.messages[-1:] == ["Could not clear the slices' seen keys; the next run will"]
        seen_keys.forget(target, "a_dag")
        assert one(target_dsn, kept) == 0


def _rows(dsn: str, query: str):
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def test_a_failed_slice_leaves_its_interval_not_examined(world, firestore, emulator, target_dsn):
    """The watermark stays."""
    with gap_run(firestore.project, emulator, target_dsn, slice_documents=5, collections=["comments"]) as run:
        gap = examine_all(run, dry=False)
        parts, needed = sliced.cut_verification(run)
        comments = [p for p in parts if p.collection == "comments"]
        made = [None if p.number == 2 else sliced.verify(run, p) for p in comments]
        found = sliced.finish_verification(run, comments, made, needed["comments"])
    assert found["outcome"] == "not_examined"
    assert str(comments[1]) in found["not_examined"], "the report names the interval"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.watermarks WHERE collection = 'comments'") == 0
    whole = gap_report.build_report("r", run.params, gap, {"comments": found}, dry=False)
    assert faults(whole, GapReport) == []
    assert "comments is not verified: its verification failed" in [a["text"] for a in whole["alerts"]]


def test_a_slice_that_is_done_again_counts_once(world, firestore, emulator, target_dsn):
    """Its first try saw a key whose document is deleted before the second: the row is extra all the same."""
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        before = verify_all(run, ["comments"])["comments"]["counts"]
    with gap_run(firestore.project, emulator, target_dsn, slice_documents=5, run_id="sliced") as run:
        parts, needed = sliced.cut_verification(run)
        comments = [p for p in parts if p.collection == "comments"]
        first = [sliced.verify(run, p) for p in comments]
        matching = _rows(target_dsn, "SELECT id FROM comments")
        gone = next(
            d
            for d in firestore.collection_group("comments").stream()
            if (d.id,) in matching and d.reference.path.startswith("boards/")
        )
        gone.reference.delete()
        made = [sliced.verify(run, p) for p in comments]
        assert [m["look"] for m in made] != [m["look"] for m in first]
        found = sliced.finish_verification(run, comments, made, needed["comments"])
    assert found["counts"]["extra"] == before["extra"] + 1
    assert found["counts"]["matching"] == before["matching"] - 1


def test_the_last_step_of_a_verification_can_be_done_again(world, firestore, emulator, target_dsn):
    """Its task died after it had ended, or failed at another collection: a retry does it once more."""
    with gap_run(firestore.project, emulator, target_dsn) as run:
        examine_all(run, dry=False)
        _lose_and_add(target_dsn)
    with gap_run(firestore.project, emulator, target_dsn, slice_documents=5, run_id="sliced") as run:
        parts, needed = sliced.cut_verification(run)
        comments = [p for p in parts if p.collection == "comments"]
        made = [sliced.verify(run, p) for p in comments]
        first, second = (sliced.finish_verification(run, comments, made, needed["comments"]) for _ in range(2))
    assert first["counts"]["extra"] == 3
    assert {**second, "seconds": 0, "billed_reads": 0} == {**first, "seconds": 0, "billed_reads": 0}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text(characters, min_size=1), st.text(characters)).filter(lambda k: "\x00" not in "".join(k)),
        max_size=20,
    )
)
def test_postgres_and_python_agree_on_a_keys_digest(unparented_dsn, keys):
    with psycopg.connect(unparented_dsn) as connection:
        connection.execute("CREATE TEMPORARY TABLE t (blocker_id text, blocked_id text)")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO t VALUES (%s, %s)", keys)
        statement = postgres.sql.SQL("SELECT {}, blocker_id, blocked_id FROM t").format(
            seen_keys.digest_of(CATALOG["blocks"])
        )
        for found, *key in connection.execute(statement):
            assert found == seen_keys.digest(key)
        connection.rollback()


def test_after_a_servers_crash_no_row_is_taken_for_extra(target_dsn):
    """Unlogged tables are emptied together; a look that is gone ends the run with a sentence."""
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
        look = seen_keys.Attempt(target, "comments", "a_dag", "run")
        look.update([("c",)])
        look.flush()
        with target.transaction() as connection:
            connection.execute("DELETE FROM dualwrite.looks")
        with pytest.raises(Exception, match="seen keys are gone before their run is over"):
            next(seen_keys.unseen(target, CATALOG["comments"], [look.number]))


def _crash(dsn: str) -> None:
    """A backend dies: Postgres ends all others, recovers, and empties what is unlogged."""
    with psycopg.connect(dsn) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.Error), psycopg.connect(dsn, connect_timeout=2) as connection:
            if connection.execute("SELECT count(*) FROM dualwrite.looks").fetchone() == (0,):
                return
        time.sleep(0.1)
    raise AssertionError("Postgres didn't come back")


def test_a_crash_between_slices_is_noticed_by_the_last_step():
    """A counter begins again after a crash: the look of a later slice then answered for that of an earlier one."""
    with server() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for file in (ROOT / "sql/local/phase1.sql", *(f.path for f in list_folders(folders()))):
                connection.execute(file.read_text())
        with Target(lambda: postgres.connect(dsn), CATALOG) as target:
            looks = []
            for crashes in (True, False):
                look = seen_keys.Attempt(target, "comments", "a_dag", "run")
                look.update([(f"c{crashes}",)])
                look.flush()
                looks.append(look.number)
                if crashes:
                    _crash(dsn)
            with pytest.raises(TargetError, match="seen keys are gone before their run is over"):
                next(seen_keys.unseen(target, CATALOG["comments"], looks))


def _looked(target: Target, dag_id: str, run_id: str, number: int) -> int:
    look = seen_keys.Attempt(target, "comments", dag_id, run_id)
    look.update([(f"{run_id}{n}",) for n in range(number)])
    look.flush()
    return look.number


def test_what_a_killed_run_of_another_dag_saw_is_forgotten(target_dsn):
    """One killed backfill kept every later sweep's keys: 0.9 GB a day at ten million documents."""
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
        _looked(target, "backfill", "killed", 5)
        with target.transaction() as connection:
            connection.execute("UPDATE dualwrite.looks SET begun_at = now() - interval '49 hours'")
        _looked(target, "sweeps", "one", 5)
        seen_keys.forget(target, "sweeps")
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.looks") == 0
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.seen_keys") == 0


def test_beside_another_runs_looks_only_its_keys_are_kept(target_dsn, monkeypatch):
    monkeypatch.setattr(seen_keys, "DELETED_AT_ONCE", 2)
    with Target(lambda: postgres.connect(target_dsn), CATALOG) as target:
        beside = _looked(target, "backfill", "beside", 4)
        _looked(target, "sweeps", "one", 5)
        seen_keys.forget(target, "sweeps")
    assert _rows(target_dsn, "SELECT look, count(*) FROM dualwrite.seen_keys GROUP BY 1") == [(beside, 4)]


def test_a_large_collection_is_verified_in_slices_by_default(world, firestore, emulator, target_dsn, monkeypatch):
    """Its defaults, all in documents by one scale: a collection of more than a slice was never proven with them."""
    scale = GapParams.model_fields["slice_documents"].default / 5
    for name, field in GapParams.model_fields.items():
        if name in ("slice_documents", "explain_up_to") and field.default is not None:
            monkeypatch.setattr(field, "default", int(field.default / scale))
    assert GapParams.model_rebuild(force=True)
    try:
        with gap_run(firestore.project, emulator, target_dsn) as run:
            assert run.params.slice_documents == 5
            in_slices.gap(run, dry=False)
            checked, parts = in_slices.verification(run)
    finally:
        monkeypatch.undo()
        GapParams.model_rebuild(force=True)
    large = {p.collection for p in parts}
    assert len(large) >= 6
    assert {checked[name]["verification"] for name in large} <= {"verified", "not_verified"}
    assert all(r["verification"] != "not_proven" for r in checked.values())


def test_the_slices_name_says_collection_and_interval():
    part = Slice("posts", 2, 9, "time", T, WINDOW.end, 12, T)
    assert str(part) == "posts 2 of 9: 2026-02-01T00:00:00 to 2026-02-11T00:00:00"
