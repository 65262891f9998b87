"""Rows out of a list that a function makes of a document (a map of arrays): found, repaired, verified, mirrored and undone, against an
oracle that reads both databases by itself. What the function can't take costs its document alone, which keeps its rows."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualwrite import postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.model.conditions import Is, Not
from dualwrite.model.declaration import (
    Catalog,
    Collection,
    Column,
    Computed,
    ComputedEntries,
    DocumentId,
    DocumentPath,
    EntryField,
    Field,
    Operations,
    Segment,
)
from dualwrite.model.documents import Document
from dualwrite.model.errors import PreflightError
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.postgres.target import Target
from tests.in_slices import gap as gap_in_slices
from tests.in_slices import verification as verification_in_slices
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import LONG_AGO, put


def opening_hours(hours: dict[str, list[dict[str, Any]]] | None) -> list[dict[str, Any]]:
    return [
        {"day": day, "opens": slot["from"], "closes": slot.get("to")}
        for day, slots in sorted((hours or {}).items())
        for slot in slots
    ]


def slots(hours: dict[str, list[dict[str, Any]]] | None, path: str) -> list[dict[str, Any]]:
    named = {(path, slot["day"], slot["opens"]) for slot in opening_hours(hours)}
    return [{"id": str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(name))), "day": name[1]} for name in sorted(named)]


PATHS = ("cities/{city}/places/{place}",)
PLACE = Column("place_id", "key", Segment("place"), references="places")
TIMES: dict[str, Any] = {"check_fields": ("updatedAt",), "selected": True}
PLACES = Collection(
    "places", "places", PATHS,
    (Column("id", "key", DocumentId()), Column("city", "compared", Segment("city")),
     Column("updated_at", "compared", Field("updatedAt"), "timestamp")), **TIMES,
)  # fmt: skip
HOURS = Collection(
    "hours", "hours", PATHS,
    (PLACE, Column("day", "key", EntryField("day")), Column("opens", "key", EntryField("opens")),
     Column("closes", "compared", EntryField("closes"))),
    entries=ComputedEntries(opening_hours, "hours"), where=Not(Is(EntryField("closes"), "never")),
    operations=(Operations("hours", ("place_id", "day", "opens")),), **TIMES,
)  # fmt: skip
# Their key, a uuid, doesn't lead back to the document.
SLOTS = Collection(
    "slots", "slots", PATHS,
    (Column("id", "key", EntryField("id")), Column("day", "compared", EntryField("day")),
     Column("place_id", "compared", Segment("place"), references="places", required=True)),
    entries=ComputedEntries(slots, "hours", DocumentPath()), operations=(Operations("slot", ("id",)),), **TIMES,
)  # fmt: skip
# No column at all tells of which place they are.
MARKS = Collection(
    "marks", "marks", PATHS, (SLOTS.columns[0], SLOTS.columns[1]), entries=SLOTS.entries,
    operations=(Operations("mark", ("id",)),), **TIMES,
)  # fmt: skip
CATALOG = Catalog((PLACES, HOURS, SLOTS, MARKS))
SCHEMA = """
CREATE TABLE places (id TEXT PRIMARY KEY, city TEXT, updated_at TIMESTAMPTZ);
CREATE TABLE hours (place_id TEXT NOT NULL REFERENCES places, day TEXT NOT NULL, opens SMALLINT NOT NULL, closes TEXT,
  PRIMARY KEY (place_id, day, opens));
CREATE TABLE slots (id UUID PRIMARY KEY, day TEXT, place_id TEXT NOT NULL REFERENCES places);
CREATE TABLE marks (id UUID PRIMARY KEY, day TEXT);
"""
EVERYTHING: dict[str, Any] = {"catalog": CATALOG, "collections": list(CATALOG.names)}
EQUAL = {"hours": 0, "slots": 0, "marks": 0}


def slot(opens: int, closes: str | None = "x") -> dict[str, Any]:
    return {"from": str(opens), "to": closes}


def place(at: datetime = LONG_AGO, **hours: Any) -> dict[str, Any]:
    return {"updatedAt": at, "hours": hours}


def just_now() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


def differences(client: Any, dsn: str) -> dict[str, int]:
    """The oracle: how many rows of each table are in one of the databases alone."""
    wanted: dict[str, set[tuple[Any, ...]]] = {"hours": set(), "slots": set(), "marks": set()}
    for snapshot in client.collection_group("places").stream():
        for day, of_day in snapshot.to_dict().get("hours", {}).items():
            for one_slot in of_day:
                path = f"{snapshot.reference.path}/{day}/{one_slot['from']}"
                name = str(uuid.uuid5(uuid.NAMESPACE_URL, path))
                wanted["slots"].add((name, day, snapshot.id))
                wanted["marks"].add((name, day))
                if one_slot["to"] != "never":
                    wanted["hours"].add((snapshot.id, day, one_slot["from"], one_slot["to"]))
    queries = {
        "hours": "SELECT place_id, day, opens::text, closes FROM hours",
        "slots": "SELECT id::text, day, place_id FROM slots",
        "marks": "SELECT id::text, day FROM marks",
    }
    with psycopg.connect(dsn) as connection:
        return {n: len(set(connection.execute(queries[n])) ^ wanted[n]) for n in wanted}


@pytest.fixture
def app(firestore, emulator, target_dsn):
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
    put(firestore, {
        "cities/c1/places/p1": place(mon=[slot(9), slot(13, None)], tue=[slot(9, "never")]),
        "cities/c1/places/p2": place(mon=[slot(8)], sun=[]), "cities/c2/places/p3": {"updatedAt": LONG_AGO},
    })  # fmt: skip
    return firestore


def filled(app, emulator, dsn) -> None:
    apply(app.project, emulator, dsn, scope="all", **EVERYTHING)
    reconcile(app, emulator, dsn, scope="sweep")


def reconcile(app, emulator, dsn, **changes):
    return reconciled(app.project, emulator, dsn, grace_seconds=0, max_share=100, **{**EVERYTHING, **changes})


def test_a_gap_is_foretold_filled_and_verified(app, emulator, target_dsn):
    tried = dry_run(app.project, emulator, target_dsn, scope="all", **EVERYTHING)
    found = apply(app.project, emulator, target_dsn, scope="all", **EVERYTHING)
    assert {n: nonzero(found[n]["counts"]) for n in found} == {n: nonzero(tried[n]["counts"]) for n in tried}
    assert {n: nonzero(found[n]["counts"]) for n in ("hours", "slots")} == {
        "hours": {"missing": 3},
        "slots": {"missing": 4},
    }
    assert differences(app, target_dsn) == EQUAL
    with gap_run(app.project, emulator, target_dsn, scope="all", **EVERYTHING) as run:
        assert {c["verification"] for c in verify_all(run).values()} == {"verified"}


def test_slices_give_the_same_rows(app, emulator, target_dsn):
    """Of places at the root of the database, which names cut."""
    at_root = replace(PLACES, paths=("places/{place}",), columns=(PLACES.columns[0], PLACES.columns[2]))
    top = Catalog((at_root, *(replace(c, paths=at_root.paths) for c in (HOURS, SLOTS, MARKS))))
    put(app, {f"places/q{n}": place(mon=[slot(n), slot(n + 1)], tue=[slot(n)]) for n in range(30)})
    everything = {**EVERYTHING, "catalog": top, "scope": "all"}
    with gap_run(app.project, emulator, target_dsn, slice_documents=5, **everything) as run:
        _, parts = gap_in_slices(run, dry=False)
        checked, _ = verification_in_slices(run)
    assert {"hours", "slots", "marks"} <= {part.collection for part in parts}
    assert {c["verification"] for c in checked.values()} == {"verified"}
    assert one(
        target_dsn, "SELECT (SELECT count(*) FROM hours), (SELECT count(*) FROM slots), (SELECT count(*) FROM marks)"
    ) == (90, 90, 90)


@pytest.mark.parametrize("scope", ["recent", "sweep"])
def test_entries_changed_and_removed_are_stale_and_extra(app, emulator, target_dsn, scope):
    """One slot closes later, one is filtered out, one moves, one comes; then the repair is undone and done again. Rows that tell
    no document are missed by a sweep alone."""
    filled(app, emulator, target_dsn)
    app.document("cities/c1/places/p1").set(place(just_now(), mon=[slot(9, "later"), slot(13, "never")], tue=[slot(7)]))
    app.document("cities/c1/places/p2").set(place(just_now(), tue=[slot(8)]))
    extra = {"extra": 2} if scope == "sweep" else {}
    expected = {
        "hours": {"stale": 1, "missing": 2, "extra": 2},
        "slots": {"missing": 2, "extra": 2},
        "marks": {"missing": 2, **extra},
    }
    found = reconcile(app, emulator, target_dsn, scope=scope)
    assert {n: found.counts(n) for n in expected} == expected
    before = one(target_dsn, "SELECT array_agg(h::text ORDER BY h::text) FROM hours h")
    reconcile(app, emulator, target_dsn, scope=scope, repair="all", run_id="repair")
    assert differences(app, target_dsn) == {**EQUAL, "marks": 0 if scope == "sweep" else 2}
    reconcile(app, emulator, target_dsn, undo="repair", run_id="undo")
    assert one(target_dsn, "SELECT array_agg(h::text ORDER BY h::text) FROM hours h") == before
    reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert differences(app, target_dsn) == EQUAL
    assert reconcile(app, emulator, target_dsn, scope="sweep").alerts == []


def test_rows_of_a_document_that_is_gone_go_with_it(app, emulator, target_dsn):
    filled(app, emulator, target_dsn)
    app.document("cities/c1/places/p1").delete()
    found = reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert {n: found.counts(n) for n in EQUAL} == {"hours": {"extra": 2}, "slots": {"extra": 3}, "marks": {"extra": 3}}
    assert differences(app, target_dsn) == EQUAL
    assert one(target_dsn, "SELECT array_agg(id) FROM places") == ["p2", "p3"]


def test_a_row_that_tells_no_path_goes_after_a_complete_read(app, emulator, target_dsn):
    """Two places swap the path that their slots' rows give: no row goes while a document makes its key."""
    filled(app, emulator, target_dsn)
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute("UPDATE slots SET place_id = 'p3' WHERE place_id = 'p2'")
        connection.execute("INSERT INTO slots VALUES (gen_random_uuid(), 'mon', 'p3')")
    found = reconcile(app, emulator, target_dsn, scope="sweep", repair="all", max_proof_reads=1)
    assert found.sample("slots", "extra")["reason"] == "absence_not_proved"
    reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert differences(app, target_dsn) == EQUAL
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 1


FAILS = {
    "it raises": ({"mon": [{"to": "x"}]}, 3, "not_computed: opening_hours of entries (computed of hours) raises KeyError"),
    "two of one key": ({"mon": [slot(9), slot(9, "secret")]}, 1, "duplicate_entry: opening_hours returns two different entries with one key"),
    "a null key": ({"mon": [{"from": None}]}, 3, "missing_value: opens is a key and entry's field opens is absent"),
    "no key of its type": ({"mon": [slot(9), {"from": "soon"}]}, 1, "not_a_key: opens (entry's field opens) is not written as Postgres writes a value"),
    "a wrong cell": ({"mon": [slot(9, "\x00")]}, 1, "nul_character: closes (entry's field closes) holds U+0000"),
    "what can't be judged": ({"mon": [slot(9, 5)]}, 1, "cant_be_judged: entry's field closes is an integer"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILS)
def test_what_the_function_cant_take_keeps_its_rows_and_is_told(app, emulator, target_dsn, case):
    """Where nobody can tell which entries the document has, its two rows are rejected with it."""
    filled(app, emulator, target_dsn)
    hours, number, why = FAILS[case]
    app.document("cities/c1/places/p1").set({"updatedAt": just_now(), "hours": hours})
    app.document("cities/c1/places/p2").set(place(just_now(), mon=[slot(8, "later")]))
    rows = "SELECT array_agg(h::text ORDER BY h::text) FROM hours h WHERE place_id = 'p1' AND opens = 9"
    before = one(target_dsn, rows)
    found = reconcile(app, emulator, target_dsn, scope="recent", repair="all")
    assert found.counts("hours")["rejected"] == number
    [told] = [c for c in found.report["collections"] if c["collection"] == "hours"]
    assert {(sample["path"], why in sample["reason"]) for sample in told["samples"]["rejected"]} == {
        ("cities/c1/places/p1", True)
    }
    assert "secret" not in str(found.report)
    assert one(target_dsn, rows) == before
    assert one(target_dsn, "SELECT closes FROM hours WHERE place_id = 'p2'") == "later", "other documents are repaired"
    app.document("cities/c1/places/p1").set(place(just_now(), tue=[slot(9)]))
    reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert differences(app, target_dsn) == EQUAL


def test_a_function_that_fails_or_is_impure_is_told_before_a_run(app, emulator, target_dsn, caplog):
    app.document("cities/c1/places/p1").set({"updatedAt": LONG_AGO, "hours": "secret"})
    reconcile(app, emulator, target_dsn, scope="sweep")
    assert (
        "A function of hours can't take 1 of 3 documents that were looked at, cities/c1/places/p1 for example"
        in caplog.text
    )
    assert "opening_hours of entries (computed of hours) raises AttributeError" in caplog.text
    assert "secret" not in caplog.text
    calls = itertools.count()
    counted = Collection("places", "places", PATHS, (*PLACES.columns[:2], Column("updated_at", "compared", Computed(
        lambda at: at + timedelta(seconds=next(calls)), "updatedAt"), "timestamp")), **TIMES)  # fmt: skip
    with pytest.raises(PreflightError) as refused:
        reconcile(app, emulator, target_dsn, scope="sweep", catalog=Catalog((counted,)), collections=["places"])
    assert "A function of places makes two rows of one document (cities/c1/places/p1 for example; 3 of 3" in str(
        refused.value
    )


DAYS = st.sampled_from(["mon", "tue", "w/d"])
SLOT = st.fixed_dictionaries(
    {"from": st.sampled_from(["1", "2", "3", None, "soon", "9\x00", 4])},
    optional={"to": st.sampled_from(["x", "y", "never", None, 5])},
)
STATES = st.one_of(
    st.none(),
    st.fixed_dictionaries({"hours": st.dictionaries(DAYS, st.lists(SLOT, max_size=3), max_size=2)}),
    st.fixed_dictionaries({"hours": st.sampled_from([None, "x", {"mon": None}])}),
)


ROWS = {
    "hours": "SELECT place_id, day, opens::text FROM hours",
    "slots": "SELECT id::text FROM slots",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_engine_and_mirror_make_the_same_rows(app, emulator, target_dsn, name):
    """Whatever a document becomes: a mirrored change leaves just the rows that the engine expects, and those of what is rejected."""
    path, seen = "cities/c1/places/p1", Counter[Outcome]()
    with (
        closing(DualWriter(lambda: postgres.connect(target_dsn), catalog=Catalog((PLACES, CATALOG[name])))) as writer,
        Target(lambda: postgres.connect(target_dsn), CATALOG) as target,
        psycopg.connect(target_dsn, autocommit=True) as beside,
    ):
        live = target.catalog[name]

        @settings(max_examples=50, suppress_health_check=list(HealthCheck), deadline=None)
        @given(st.lists(STATES, min_size=1, max_size=4))
        def holds(states: list[Any]) -> None:
            beside.execute("TRUNCATE places CASCADE; INSERT INTO places VALUES ('p1', 'c1')")
            before, held, outcomes = None, dict[Any, str | None](), set[Outcome]()
            for after in states:
                outcomes.add(writer.mirror(path, before, after, create_time=LONG_AGO))
                units = [] if after is None else map_document(live, Document(path, after, LONG_AGO, LONG_AGO)) or []
                rows = {unit.key: unit.entry for unit in units if isinstance(unit, Row)}
                refused = [unit for unit in units if isinstance(unit, Rejection)]
                with target.transaction() as connection:
                    assert target.compare(connection, live, [u for u in units if isinstance(u, Row)]).differences == []
                there = set(beside.execute(ROWS[name]).fetchall())
                kept = {key for key, entry in held.items() if any(r.entire or r.entry == entry for r in refused)}
                assert kept | set(rows) <= there <= set(held) | set(rows)
                if outcomes <= {Outcome.WRITTEN, Outcome.NOTHING}:
                    assert there == set(rows)
                held = {key: {**held, **rows}[key] for key in there}
                before = after
            seen.update(outcomes)

        holds()
    assert set(seen) >= {Outcome.WRITTEN, Outcome.REFUSED, Outcome.NOTHING}


def test_mirror_leaves_a_gone_entry_whose_row_tells_no_document(app, emulator, target_dsn):
    """Nobody asks all documents then: a sweep finds it."""
    filled(app, emulator, target_dsn)
    path, before, after = "cities/c1/places/p2", place(mon=[slot(8)], sun=[]), place(tue=[slot(8)])
    with closing(DualWriter(lambda: postgres.connect(target_dsn), catalog=CATALOG)) as writer:
        assert writer.mirror(path, before, after, create_time=LONG_AGO) is Outcome.PARTLY
    app.document(path).set(after)
    assert differences(app, target_dsn) == {**EQUAL, "marks": 1}
    assert reconcile(app, emulator, target_dsn, scope="sweep").counts("marks") == {"extra": 1}
