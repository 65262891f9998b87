"""Which documents, and which of their entries, have a row: `where`. What doesn't hold it has none, whatever stands there is extra,
and what can't be judged is rejected and keeps its row. Against an oracle that reads both databases by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.model.conditions import Absent, AllOf, AnyOf, Is, Not
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    DocumentId,
    EntryField,
    EntryKey,
    EntryValue,
    Field,
    MapEntries,
    Operations,
    Segment,
)
from dualwrite.postgres.target import Target
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import LONG_AGO, put

AT = Column("updated_at", "compared", Field("updatedAt"), "timestamp")
TIMES: dict[str, Any] = {"check_fields": ("updatedAt",), "written_columns": ("updated_at",), "selected": True}
LIVE = AllOf(Absent("deletedAt"), Is("kind", "text", "photo"))
NOTE = Column("note_id", "key", Segment("note"), references="notes")
CATALOG = Catalog((
    Collection("people", "people", ("users/{user}",), (Column("id", "key", DocumentId()), AT),
               where=Not(Is("banned", True)), operations=(Operations("user", ("id",)),), **TIMES),
    Collection("notes", "notes", ("users/{user}/notes/{note}",),
               (Column("id", "key", DocumentId()), Column("title", "compared", Field("title")),
                Column("user_id", "compared", Segment("user"), references="people"), AT),
               where=LIVE, operations=(Operations("note", ("id",)),), **TIMES),
    Collection("note_tags", "note_tags", ("users/{user}/notes/{note}",), (NOTE, Column("tag", "key", EntryKey())),
               entries=MapEntries("tags"), where=AllOf(LIVE, Is(EntryValue(), True)), check_fields=("updatedAt",), selected=True,
               operations=(Operations("tag", ("note_id", "tag")),)),
    Collection("steps", "steps", ("users/{user}/notes/{note}",), (NOTE, Column("step", "key", EntryField("id"))),
               entries=ArrayElements("steps"), where=AllOf(LIVE, Absent(EntryField("gone"))), check_fields=("updatedAt",), selected=True),
    Collection("comments", "remarks", ("users/{user}/notes/{note}/comments/{comment}",),
               (Column("id", "key", DocumentId()), Column("note_id", "compared", Segment("note"), references="notes", required=True), AT),
               **TIMES),
    Collection("bookings", "bookings", ("bookings/{id}",),
               (Column("room", "key", Field("room")), Column("slot", "key", Field("slot")), Column("guest", "compared", Field("guest")), AT),
               where=AnyOf(Is("state", "confirmed"), Is("vip", True)), **TIMES),
))  # fmt: skip
SCHEMA = """
CREATE TABLE people (id TEXT PRIMARY KEY, updated_at TIMESTAMPTZ);
CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT, user_id TEXT REFERENCES people, updated_at TIMESTAMPTZ);
CREATE TABLE note_tags (note_id TEXT NOT NULL REFERENCES notes, tag TEXT NOT NULL, PRIMARY KEY (note_id, tag));
CREATE TABLE steps (note_id TEXT NOT NULL REFERENCES notes, step TEXT NOT NULL, PRIMARY KEY (note_id, step));
CREATE TABLE remarks (id TEXT PRIMARY KEY, note_id TEXT NOT NULL REFERENCES notes, updated_at TIMESTAMPTZ);
CREATE TABLE bookings (room TEXT NOT NULL, slot TEXT NOT NULL, guest TEXT, updated_at TIMESTAMPTZ, PRIMARY KEY (room, slot));
"""
EVERYTHING: dict[str, Any] = {"catalog": CATALOG, "collections": list(CATALOG.names)}


def just_now() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


def note(**changes: Any) -> dict[str, Any]:
    return {"kind": "text", "title": "t", "updatedAt": LONG_AGO, **changes}


def booking(state: str, guest: str, **changes: Any) -> dict[str, Any]:
    return {"room": "r", "slot": "s", "state": state, "guest": guest, "updatedAt": LONG_AGO, **changes}


def differences(client: Any, dsn: str) -> dict[str, int]:
    """The oracle: how many rows of each table are in one of the databases alone."""
    wanted: dict[str, set[tuple[Any, ...]]] = {name: set() for name in CATALOG.names}
    users = {s.id: s.to_dict() for s in client.collection("users").stream()}
    wanted["people"] = {(name,) for name, fields in users.items() if fields.get("banned") is not True}
    for s in client.collection_group("notes").stream():
        fields, user = s.to_dict(), s.reference.parent.parent.id
        if fields.get("deletedAt") is None and fields.get("kind") in ("text", "photo") and (user,) in wanted["people"]:
            wanted["notes"].add((s.id, fields.get("title")))
            wanted["note_tags"] |= {(s.id, tag) for tag, on in fields.get("tags", {}).items() if on is True}
            wanted["steps"] |= {(s.id, step["id"]) for step in fields.get("steps", []) if step.get("gone") is None}
    notes = {name for name, _ in wanted["notes"]}
    for s in client.collection_group("comments").stream():
        if (parent := s.reference.parent.parent.id) in notes:
            wanted["comments"].add((s.id, parent))
    for s in client.collection("bookings").stream():
        fields = s.to_dict()
        if fields["state"] == "confirmed" or fields.get("vip") is True:
            wanted["bookings"].add((fields["room"], fields["slot"], fields["guest"]))
    queries = {
        "people": "SELECT id FROM people", "notes": "SELECT id, title FROM notes", "note_tags": "SELECT note_id, tag FROM note_tags",
        "steps": "SELECT note_id, step FROM steps", "comments": "SELECT id, note_id FROM remarks",
        "bookings": "SELECT room, slot, guest FROM bookings",
    }  # fmt: skip
    with psycopg.connect(dsn) as connection:
        return {n: found for n in wanted if (found := len(set(connection.execute(queries[n])) ^ wanted[n]))}


@pytest.fixture
def app(firestore, emulator, target_dsn):
    """Living and left out documents of each kind; the export brought none."""
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
    put(firestore, {
        "users/u1": {"updatedAt": LONG_AGO}, "users/u2": {"banned": True, "updatedAt": LONG_AGO},
        "users/u1/notes/n1": note(tags={"red": True, "blue": False}, steps=[{"id": "a"}, {"id": "b", "gone": True}]),
        "users/u1/notes/n2": note(kind="photo"), "users/u1/notes/n3": note(kind="draft", tags={"red": True}),
        "users/u1/notes/n4": note(deletedAt=LONG_AGO, tags={"red": True}, steps=[{"id": "a"}]), "users/u2/notes/n5": note(),
        "users/u1/notes/n1/comments/c1": {"updatedAt": LONG_AGO}, "users/u1/notes/n4/comments/c4": {"updatedAt": LONG_AGO},
        "bookings/b1": booking("cancelled", "x"), "bookings/b2": booking("confirmed", "y"), "bookings/b3": booking("cancelled", "z"),
    })  # fmt: skip
    return firestore


def filled(app, emulator, dsn) -> None:
    apply(app.project, emulator, dsn, scope="all", **EVERYTHING)
    reconcile(app, emulator, dsn, scope="sweep")


def reconcile(app, emulator, dsn, **changes):
    given = {**EVERYTHING, "grace_seconds": 0, "max_share": 100, "write_ops_required": False, **changes}
    return reconciled(app.project, emulator, dsn, **given)


def test_what_does_not_hold_the_condition_gets_no_row(app, emulator, target_dsn):
    tried = dry_run(app.project, emulator, target_dsn, scope="all", **EVERYTHING)
    found = apply(app.project, emulator, target_dsn, scope="all", **EVERYTHING)
    counts = {name: nonzero(found[name]["counts"]) for name in CATALOG.names}
    assert counts == {name: nonzero(tried[name]["counts"]) for name in CATALOG.names}
    assert counts == {
        "people": {"missing": 1}, "notes": {"missing": 2, "orphan": 1}, "note_tags": {"missing": 1}, "steps": {"missing": 1},
        "comments": {"missing": 1, "orphan": 1}, "bookings": {"missing": 1},
    }  # fmt: skip
    assert {name: found[name]["left_out"] for name in CATALOG.names} == {
        "people": 1, "notes": 2, "note_tags": 2, "steps": 2, "comments": 0, "bookings": 2,
    }  # fmt: skip
    for name in ("people", "notes", "bookings"):
        assert found[name]["documents_read"] == found[name]["examined"] + found[name]["left_out"]
    assert differences(app, target_dsn) == {}
    with gap_run(app.project, emulator, target_dsn, scope="all", **EVERYTHING) as run:
        assert {c["verification"] for c in verify_all(run).values()} == {"verified"}
    assert reconcile(app, emulator, target_dsn, scope="sweep").alerts == []


@pytest.mark.parametrize("scope", ["recent", "sweep"])
def test_documents_that_cease_and_begin_to_hold_it(app, emulator, target_dsn, scope):
    """Soft deletes, restored notes, a person who is banned no more, tags switched off, a booking that passed on."""
    filled(app, emulator, target_dsn)
    at = datetime.now(UTC)  # after the watermark that the sweep left
    put(app, {
        "users/u1/notes/n1": note(tags={"red": False, "blue": True}, steps=[{"id": "b", "gone": None}, {"id": "a", "gone": 1}], updatedAt=at),
        "users/u1/notes/n2": note(kind="photo", deletedAt=at, updatedAt=at),
        "users/u1/notes/n4": note(tags={"red": True}, steps=[{"id": "a"}], updatedAt=at),
        "users/u1/notes/n4/comments/c4": {"updatedAt": at},
        "users/u2": {"banned": False, "updatedAt": at}, "users/u2/notes/n5": note(updatedAt=at),
        "bookings/b2": booking("cancelled", "y", updatedAt=at), "bookings/b3": booking("confirmed", "z", updatedAt=at),
    })  # fmt: skip
    found = reconcile(app, emulator, target_dsn, scope=scope)
    assert {name: found.counts(name) for name in CATALOG.names} == {
        "people": {"missing": 1}, "notes": {"extra": 1, "missing": 2, "stale": 1}, "note_tags": {"extra": 1, "missing": 2},
        "steps": {"extra": 1, "missing": 2}, "comments": {"missing": 1}, "bookings": {"stale": 1},
    }  # fmt: skip
    reconcile(app, emulator, target_dsn, scope=scope, repair="all")
    assert differences(app, target_dsn) == {}
    assert reconcile(app, emulator, target_dsn, scope="sweep").alerts == []


@pytest.mark.parametrize(("scope", "kept"), [("recent", True), ("sweep", True), ("sweep", False)])
def test_an_extra_row_says_whether_its_document_is_left_out(app, emulator, target_dsn, scope, kept):
    """Of each kind: by its path, an entry of a map, of an array, a natural key. And not if it is gone."""
    filled(app, emulator, target_dsn)
    at = just_now()
    if kept:
        put(app, {
            "users/u1/notes/n1": note(tags={"red": False}, steps=[{"id": "a", "gone": 1}], updatedAt=at),
            "users/u1/notes/n2": note(kind="photo", deletedAt=at, updatedAt=at), "bookings/b2": booking("cancelled", "y", updatedAt=at),
        })  # fmt: skip
    else:
        put(app, {"users/u1/notes/n1": note(updatedAt=at)})
        app.document("users/u1/notes/n2").delete()
        for name in ("b1", "b2", "b3"):  # the others are left out, and have its key
            app.document(f"bookings/{name}").delete()
        with psycopg.connect(target_dsn, autocommit=True) as connection:
            for table in ("notes", "bookings"):
                connection.execute(f"UPDATE {table} SET updated_at = %s", (at,))
    found = reconcile(app, emulator, target_dsn, scope=scope)
    names = ("notes", "note_tags", "steps", "bookings")
    assert {name: found.counts(name)["extra"] for name in names} == dict.fromkeys(names, 1)
    told = {name: found.sample(name, "extra").get("reason") for name in names}
    assert told == dict.fromkeys(names, "left_out" if kept else None)
    text = "(left_out): their documents are there and don't hold the collection's where: a repair deletes the rows"
    assert [text in alert for alert in found.alerts if "1 extra" in alert] == [kept] * 4
    reconcile(app, emulator, target_dsn, scope=scope, repair="all")
    assert differences(app, target_dsn) == {}


@pytest.mark.parametrize("scope", ["recent", "sweep"])
def test_what_is_below_a_document_that_is_left_out_goes_too(app, emulator, target_dsn, scope):
    """As below a deleted one: a person is banned, whose notes with their tags, steps and comments stay in Firestore."""
    filled(app, emulator, target_dsn)
    app.document("users/u1").set({"banned": True, "updatedAt": just_now()})
    for _ in range(2):
        reconcile(app, emulator, target_dsn, scope=scope, repair="all")
    assert differences(app, target_dsn) == {}
    assert one(target_dsn, "SELECT count(*) FROM notes") == 0
    assert reconcile(app, emulator, target_dsn, scope="sweep").alerts == []


def test_rows_below_one_that_must_go_match_until_it_is_looked_at(app, emulator, target_dsn):
    """A verification of notes alone compares notes with their own documents; it verifies the people too, and isn't green."""
    filled(app, emulator, target_dsn)
    app.document("users/u1").set({"banned": True, "updatedAt": LONG_AGO})
    with gap_run(app.project, emulator, target_dsn, scope="all", catalog=CATALOG, collections=["notes"]) as run:
        checked = verify_all(run)
    assert {name: c["verification"] for name, c in checked.items()} == {"people": "not_verified", "notes": "verified"}
    alone = reconcile(app, emulator, target_dsn, scope="sweep", collections=["notes"])
    assert alone.counts("notes") == {"orphan": 1}
    both = reconcile(app, emulator, target_dsn, scope="sweep", collections=["people", "notes"])
    assert (both.counts("people")["extra"], both.counts("notes")["extra"]) == (1, 2)


def test_what_can_not_be_judged_is_rejected_and_keeps_its_row(app, emulator, target_dsn):
    filled(app, emulator, target_dsn)
    put(app, {
        "users/u1": {"banned": "yes", "updatedAt": LONG_AGO},
        "users/u1/notes/n1": note(kind=7, tags={"red": True}, steps=[{"id": "a"}]),
        "users/u1/notes/n2": note(kind="photo", tags={"new": "yes"}),
        "bookings/b2": {**booking("confirmed", "y"), "state": True},
    })  # fmt: skip
    found = reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert {name: found.counts(name) for name in CATALOG.names} == {
        "people": {"rejected": 1}, "notes": {"rejected": 1, "orphan": 1}, "note_tags": {"rejected": 3}, "steps": {"rejected": 2},
        "comments": {"orphan": 1}, "bookings": {"rejected": 2},
    }  # fmt: skip # documents, and rows that may be theirs
    assert found.sample("people", "rejected")["reason"] == (
        "cant_be_judged: field banned is a string, and where compares it with a boolean"
    )
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0
    put(app, {"users/u1": {"updatedAt": LONG_AGO}, "users/u1/notes/n1": note(tags={"red": True}), "users/u1/notes/n2": note(),
              "bookings/b2": booking("cancelled", "y")})  # fmt: skip
    reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert differences(app, target_dsn) == {}


def test_a_field_that_may_be_a_dotted_name_can_not_be_judged(app, emulator, target_dsn):
    """Nothing at `a.b`, and a field called `a.b`: to take the condition for held would write rows of what is deleted."""
    dotted = Collection("people", "people", ("users/{user}",), CATALOG["people"].columns, where=Absent("a.b"))
    app.document("users/u1").set({"a.b": 1, "updatedAt": LONG_AGO})
    given: dict[str, Any] = {"catalog": Catalog((dotted,)), "collections": ["people"], "scope": "all"}
    found = dry_run(app.project, emulator, target_dsn, **given)
    assert nonzero(found["people"]["counts"]) == {"rejected": 1, "missing": 1}


@pytest.mark.parametrize("scope", ["recent", "sweep"])
def test_a_document_that_changes_between_looks_is_in_flight(app, emulator, target_dsn, scope):
    filled(app, emulator, target_dsn)
    app.document("users/u1/notes/n2").update({"deletedAt": LONG_AGO, "updatedAt": just_now()})

    def restore() -> None:
        app.document("users/u1/notes/n2").update({"deletedAt": None, "updatedAt": LONG_AGO})

    found = reconcile(app, emulator, target_dsn, scope=scope, between=restore, repair="all")
    assert found.counts("notes") in ({"orphan": 1}, {"orphan": 1, "in_flight": 1}, {})  # n5, of a person who is banned
    assert differences(app, target_dsn) == {}


@pytest.mark.parametrize("path", ["users/u1/notes/n2", "users/u1"])
def test_a_document_restored_during_its_delete_gets_its_row_back(app, emulator, target_dsn, monkeypatch, path):
    """Undeleted after the proof and before the delete: the look after the delete sees that it meets the condition again."""
    filled(app, emulator, target_dsn)
    kept = app.document(path).get().to_dict()
    app.document(path).update({"deletedAt": LONG_AGO, "banned": True})
    original, acted = Target.delete, []

    def delete(self, *given, **named):
        if given[0].name == ("people" if path == "users/u1" else "notes") and not acted:
            acted.append(app.document(path).set(kept))
        return original(self, *given, **named)

    monkeypatch.setattr(Target, "delete", delete)
    for _ in range(2):
        reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    monkeypatch.undo()
    reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert acted
    assert differences(app, target_dsn) == {}


def test_a_proof_needs_a_read_of_the_documents_themselves(app, emulator, target_dsn):
    """Names alone don't say whether another document of that id meets the condition."""
    filled(app, emulator, target_dsn)
    put(app, {"users/u1/notes/n2": note(deletedAt=LONG_AGO), "users/u3": {"updatedAt": LONG_AGO},
              "users/u3/notes/n2": note(kind="photo")})  # fmt: skip
    reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert one(target_dsn, "SELECT user_id FROM notes WHERE id = 'n2'") == "u3"
    app.document("users/u3/notes/n2").update({"kind": "draft"})
    reconcile(app, emulator, target_dsn, scope="sweep", repair="all")
    assert one(target_dsn, "SELECT count(*) FROM notes WHERE id = 'n2'") == 0


def test_an_old_soft_delete_that_both_sides_made_trips_no_wire(app, emulator, target_dsn):
    """One document more than rows: the counts' baseline is a difference, and the slice is examined and found right."""
    filled(app, emulator, target_dsn)
    app.document("users/u1/notes/n2").update({"deletedAt": LONG_AGO})
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM notes WHERE id = 'n2'")
    assert reconcile(app, emulator, target_dsn, scope="recent").alerts == []


def test_mirror_writes_and_deletes_by_the_condition(app, emulator, target_dsn):
    filled(app, emulator, target_dsn)
    writer = DualWriter(lambda: postgres.connect(target_dsn), catalog=CATALOG)
    path, live = "users/u1/notes/n2", note(kind="photo")
    try:
        for before, after, outcome in (
            (live, {**live, "deletedAt": LONG_AGO}, Outcome.WRITTEN),
            ({**live, "deletedAt": LONG_AGO}, {**live, "kind": "draft"}, Outcome.NOTHING),
            ({**live, "kind": "draft"}, {**live, "tags": {"x": True, "y": False}}, Outcome.WRITTEN),
            ({**live, "tags": {"x": True, "y": False}}, {**live, "tags": {"x": False, "y": True}}, Outcome.WRITTEN),
            ({**live, "tags": {"y": True}}, {**live, "kind": 7, "tags": {"y": True}}, Outcome.REFUSED),
            ({**live, "kind": 7, "tags": {"y": True}}, {**live, "tags": {"y": True}}, Outcome.PARTLY),  # its steps were unreadable
        ):  # fmt: skip
            assert writer.mirror(path, before, after, create_time=LONG_AGO) is outcome
            app.document(path).set(after)
            if outcome is not Outcome.REFUSED:
                assert differences(app, target_dsn) == {}
    finally:
        writer.close()


def test_a_condition_that_the_documents_do_not_fit_is_told(app, emulator, target_dsn, caplog):
    app.document("users/u1").set({"banned": "no", "updatedAt": LONG_AGO})
    reconcile(app, emulator, target_dsn, scope="sweep")
    assert "where= of people can't judge 1 of 2 documents that were looked at" in caplog.text
    assert "field banned is a string" in caplog.text
