"""Partitioned tables: each of their keys holds the column by which they are partitioned, which a document's field gives beside its id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.engine import compare, preflight, rounds
from dualwrite.engine.looks import SweepLook, WindowLook
from dualwrite.model.check_fields import Check
from dualwrite.model.conditions import Absent
from dualwrite.model.conversions import iso_time, text
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field, Operations, Segment
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult
from dualwrite.postgres.target import Target
from tests import in_slices
from tests.databases import clone
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all

JAN, FEB, MAR = (datetime(2026, month, 10, 12, 30, 15, 123_456, tzinfo=UTC) for month in (1, 2, 3))
NO_PARTITION = "CheckViolation 23514 (no partition)"

EVENTS = Collection(
    name="events",
    table="events",
    paths=("rooms/{room}/events/{event}",),
    check_fields=("createdAt", "updatedAt"),
    operations=(Operations("event", ("id",)),),
    columns=(
        Column("id", "key", DocumentId()),
        Column("created_at", "key", Field("createdAt"), "timestamp"),
        Column("room_id", "compared", Segment("room")),
        Column("title", "compared", Field("title")),
    ),
)


@dataclass(frozen=True)
class Kind:
    """How a table is partitioned, the values of its column in documents and in rows, and one that no partition takes."""

    ddl: str
    values: tuple[Any, Any]
    kept: tuple[Any, Any]
    nowhere: Any
    column: Column = EVENTS.columns[1]


def _ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


MONTHS = """
CREATE TABLE events (id text NOT NULL, created_at {type} NOT NULL, room_id text NOT NULL, title text, PRIMARY KEY (id, created_at))
PARTITION BY RANGE (created_at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01Z') TO ('2026-03-01Z');
"""
BELOW = """
CREATE TABLE events (id text NOT NULL, created_at timestamptz NOT NULL, room_id text NOT NULL, title text, PRIMARY KEY (id, created_at))
PARTITION BY RANGE (created_at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z') PARTITION BY HASH (id);
CREATE TABLE events_1a PARTITION OF events_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE events_1b PARTITION OF events_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01Z') TO ('2026-03-01Z') PARTITION BY RANGE (created_at);
CREATE TABLE events_2a PARTITION OF events_2 DEFAULT;
"""
OTHER = """
CREATE TABLE events (id text NOT NULL, {column} NOT NULL, room_id text NOT NULL, title text, PRIMARY KEY (id, {name}))
PARTITION BY {by};
"""
REGION = Column("region", "key", Field("region"))
DAY = Column("day", "key", Field("createdAt"), "timestamp")
MILLIS = Column("at_ms", "key", Field("createdAt") >> text)
ISO = Column("created_at", "key", Field("createdAt") >> iso_time)


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


KINDS = {
    "by time": Kind(MONTHS.format(type="timestamptz"), (JAN, FEB), (_ms(JAN), _ms(FEB)), MAR),
    "by a time to the millisecond": Kind(MONTHS.format(type="timestamptz(3)"), (JAN, FEB), (_ms(JAN), _ms(FEB)), MAR),
    "by a time without a zone": Kind(
        MONTHS.format(type="timestamp").replace("Z'", "'"),
        (JAN, FEB),
        tuple(_ms(m).replace(tzinfo=None) for m in (JAN, FEB)),
        MAR,
    ),
    "by a time, and below by others": Kind(BELOW, (JAN, FEB), (_ms(JAN), _ms(FEB)), MAR),
    "by a time in ISO": Kind(
        MONTHS.format(type="timestamptz"),
        tuple(_ms(m).isoformat().replace("000+00:00", "Z") for m in (JAN, FEB)),
        (_ms(JAN), _ms(FEB)),
        "2026-03-10T12:30:15.123Z",
        ISO,
    ),
    "by day": Kind(
        OTHER.format(column="day date", name="day", by="RANGE (day)")
        + "CREATE TABLE e1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-03-01');",
        (JAN, FEB),
        (date(2026, 1, 10), date(2026, 2, 10)),
        MAR,
        DAY,
    ),
    "by number": Kind(
        OTHER.format(column="at_ms bigint", name="at_ms", by="RANGE (at_ms)")
        + f"CREATE TABLE e1 PARTITION OF events FOR VALUES FROM (0) TO ({_millis(MAR)});",
        (_millis(JAN), _millis(FEB)),
        (_millis(JAN), _millis(FEB)),
        _millis(MAR),
        MILLIS,
    ),
    "by list": Kind(
        OTHER.format(column="region text", name="region", by="LIST (region)")
        + "CREATE TABLE e1 PARTITION OF events FOR VALUES IN ('eu'); CREATE TABLE e2 PARTITION OF events FOR VALUES IN ('us', 'ca');",
        ("eu", "us"),
        ("eu", "us"),
        "mars",
        REGION,
    ),
    "by list, the rest elsewhere": Kind(
        OTHER.format(column="region text", name="region", by="LIST (region)")
        + "CREATE TABLE e1 PARTITION OF events FOR VALUES IN ('eu'); CREATE TABLE e2 PARTITION OF events DEFAULT;",
        ("eu", "us"),
        ("eu", "us"),
        None,
        REGION,
    ),
    "by hash": Kind(
        OTHER.format(column="region text", name="region", by="HASH (region)")
        + "".join(
            f"CREATE TABLE e{n} PARTITION OF events FOR VALUES WITH (MODULUS 3, REMAINDER {n});" for n in range(3)
        ),
        ("eu", "us"),
        ("eu", "us"),
        None,
        REGION,
    ),
}


@dataclass
class World:
    """Events in Firestore, and a partitioned table for them."""

    firestore: Any
    emulator: str
    dsn: str
    kind: Kind
    catalog: Catalog

    def sql(self, *statements: str, values: tuple[Any, ...] | None = None) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement, values)

    def rows(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            name = self.kind.column.name
            return connection.execute(f"SELECT id, {name}, title FROM events ORDER BY 1, 2").fetchall()

    @property
    def field(self) -> str:
        return "region" if self.kind.column is REGION else "createdAt"

    def fields(self, value: Any, title: str = "t") -> dict[str, Any]:
        return {self.field: value, "title": title, "updatedAt": datetime.now(UTC)}

    def put(self, **events: Any) -> None:
        """Each with a value, or a value and a title; None deletes it."""
        for name, given in events.items():
            document = self.firestore.document(f"rooms/r1/events/{name}")
            if given is None:
                document.delete()
            else:
                document.set(self.fields(*(given if isinstance(given, tuple) else (given,))))

    @property
    def given(self) -> dict[str, Any]:
        return {"catalog": self.catalog, "scope": "all", "collections": ["events"], "grace_seconds": 0}

    def dry(self) -> CollectionResult:
        return dry_run(self.firestore.project, self.emulator, self.dsn, **self.given)["events"]

    def apply(self) -> CollectionResult:
        return apply(self.firestore.project, self.emulator, self.dsn, **self.given)["events"]

    def verify(self) -> CollectionResult:
        with gap_run(self.firestore.project, self.emulator, self.dsn, **self.given) as run:
            return verify_all(run, ["events"])["events"]

    def reconciled(self, **changes: Any) -> Any:
        given = {"catalog": self.catalog, "collections": ["events"], "scope": "sweep", "write_ops_required": False}
        return reconciled(
            self.firestore.project,
            self.emulator,
            self.dsn,
            **{**given, "max_share": 100, "grace_seconds": 0, **changes},
        )


def told(found: Any) -> dict[str, int]:
    """The differences of a reconciliation."""
    return {verdict: number for verdict, number in found.counts("events").items() if verdict != "absent"}


@contextmanager
def world_of(request: Any, kind: Kind, server: str = "postgres_server", **changes: Any) -> Iterator[World]:
    columns = tuple(kind.column if c.role == "key" and c.name == "created_at" else c for c in EVENTS.columns)
    checks = (Check("createdAt", iso_time), "updatedAt") if kind.column is ISO else ("updatedAt",)
    checks = EVENTS.check_fields if kind.column.type == "timestamp" and kind.column is not ISO else checks
    collection = replace(EVENTS, columns=columns, check_fields=checks, **changes)
    with closing(clone(request.getfixturevalue(server), "migrated")) as cloned:
        dsn = next(cloned)
        made = World(
            request.getfixturevalue("firestore"), request.getfixturevalue("emulator"), dsn, kind, Catalog((collection,))
        )
        made.sql(*filter(str.strip, kind.ddl.split(";")))
        yield made


@pytest.fixture(params=["postgres_server", "postgres15_server"], ids=["18", "15"])
def by_time(request) -> Iterator[World]:
    with world_of(request, KINDS["by time"], request.param) as world:
        yield world


@pytest.mark.parametrize(
    ("name", "server"),
    [
        *((name, "postgres_server") for name in KINDS),
        *((name, "postgres15_server") for name in ("by time", "by a time, and below by others", "by list", "by hash")),
    ],
)
def test_a_row_moves_with_the_field_that_its_key_holds(request, name, server):
    """Found, written, edited, moved to another partition, deleted, created again: one row for each document, at any time."""
    kind = KINDS[name]
    (first, second), (kept, moved), nowhere = kind.values, kind.kept, kind.nowhere
    with world_of(request, kind, server) as world, postgres.connect(world.dsn) as connection:
        with postgres.transaction(connection):
            assert preflight.target_faults(connection, world.catalog, list(world.catalog), writes=True) == []
        refused = {} if nowhere is None else {"nowhere": nowhere}
        world.put(a=first, b=first, c=second, **refused)
        expected = {"missing": 3, **({"rejected": 1} if refused else {})}
        for said in (world.dry(), world.apply()):
            assert nonzero(said["counts"]) == expected
            assert {s["reason"] for s in said["samples"].get("rejected", ())} == ({NO_PARTITION} if refused else set())
        assert nonzero(world.verify()["counts"]) == {**({"rejected": 1} if refused else {}), "matching": 3}
        assert world.rows() == [("a", kept, "t"), ("b", kept, "t"), ("c", moved, "t")]
        world.put(a=second, b=(first, "edited"), c=None, nowhere=None)
        found = world.reconciled()
        assert told(found) == {"missing": 1, "extra": 2, "stale": 1}
        assert told(world.reconciled(repair="all")) == told(found)
        assert world.rows() == [("a", moved, "t"), ("b", kept, "edited")]
        world.put(a=None)
        world.put(a=first, c=first)
        assert told(world.reconciled(repair="all")) == {"missing": 2, "extra": 1}
        assert world.rows() == [("a", kept, "t"), ("b", kept, "edited"), ("c", kept, "t")]
        assert told(world.reconciled()) == {}
        assert nonzero(world.verify()["counts"]) == {"matching": 3}


def test_while_a_row_moves_its_document_is_never_without_one(by_time, monkeypatch):
    world, seen = by_time, []
    world.put(a=JAN, b=FEB)
    world.apply()
    world.put(a=(FEB, "moved"), b=None)
    original = Target.delete

    def delete(self, *given, **named):
        """Between the proof and the delete."""
        seen.append(world.rows())
        return original(self, *given, **named)

    monkeypatch.setattr(Target, "delete", delete)
    kept, moved = KINDS["by time"].kept
    found = world.reconciled(repair="missing_and_stale")
    assert (told(found), seen) == ({"missing": 1, "extra": 2}, [])
    assert world.rows() == [("a", kept, "t"), ("a", moved, "moved"), ("b", moved, "t")], "what is extra stays"
    world.sql("DELETE FROM events WHERE title = 'moved'")
    found = world.reconciled(repair="all")
    assert seen == [[("a", kept, "t"), ("a", moved, "moved"), ("b", moved, "t")]]
    assert world.rows() == [("a", moved, "moved")]
    [counted] = [c for c in found.report["collections"] if c["collection"] == "events"]
    assert (counted["inserted"], counted["updated"], counted["deleted"]) == (1, 0, 2)
    found = world.reconciled(undo=found.report["run_id"])
    assert world.rows() == [("a", kept, "t"), ("b", moved, "t")]


def test_a_row_stays_while_its_document_has_no_other(by_time):
    """No partition takes the new one: the document would be left without a row."""
    world = by_time
    world.put(a=JAN, b=JAN)
    world.apply()
    nowhere = world.kind.nowhere
    world.put(a=nowhere, b=None)
    for repair in ("off", "all", "all"):
        assert told(world.reconciled(repair=repair)).keys() <= {"rejected", "extra"}
    kept, moved = world.kind.kept
    assert world.rows() == [("a", kept, "t")]
    found = world.reconciled()
    assert found.sample("events", "extra")["reason"] == "new_row_lacking"
    assert any("(new_row_lacking)" in alert for alert in found.alerts)
    world.put(a=FEB)
    for _ in range(2):
        world.reconciled(repair="all")
    assert world.rows() == [("a", moved, "t")]


def test_rows_that_move_over_batches_are_inserted_first(by_time, monkeypatch):
    """A batch ends between the two rows of a document."""
    world = by_time
    names = [f"p{n}" for n in range(4)]
    world.put(**dict.fromkeys(["a", *names], JAN))
    world.apply()
    world.put(a=None, **dict.fromkeys(names, FEB))
    monkeypatch.setattr(rounds, "UNITS_AT_ONCE", 3)
    assert told(world.reconciled(repair="all")) == {"missing": 4, "extra": 5}
    with psycopg.connect(world.dsn) as connection:
        journal = connection.execute(
            "SELECT row_key ->> 0, array_agg(action ORDER BY id) FROM dualwrite.repair_journal GROUP BY 1 ORDER BY 1"
        ).fetchall()
    written = ["insert"]
    assert journal == [("a", [*written, "delete"]), *((name, [*written, "insert", "delete"]) for name in names)]


def test_a_time_below_a_millisecond_is_the_same_key(by_time):
    """Who exported it kept microseconds, who writes JavaScript dates doesn't: the same row, under any index and in any session."""
    world = by_time
    exact = [("a", JAN, "t"), ("b", FEB, "t")]
    for row in exact:
        world.sql("INSERT INTO events (id, created_at, title, room_id) VALUES (%s, %s, %s, 'r1')", values=row)
    world.put(a=JAN, b=(FEB, "edited"))
    assert nonzero(world.dry()["counts"]) == {"matching": 1, "stale": 1}
    assert told(world.reconciled(repair="all")) == {"stale": 1}
    exact[1] = ("b", FEB, "edited")
    assert world.rows() == exact
    assert nonzero(world.verify()["counts"]) == {"matching": 2}
    world.put(b=None)
    found = world.reconciled(repair="all")
    assert world.rows() == exact[:1]
    world.reconciled(undo=found.report["run_id"])
    assert world.rows() == exact
    assert told(world.reconciled(repair="all")) == {"extra": 1}
    assert world.rows() == exact[:1]


def test_two_rows_within_a_millisecond_are_told(by_time):
    """Two writers, of which one cuts off the microseconds: nobody says which row is right."""
    world = by_time
    world.put(a=JAN, b=FEB)
    world.apply()
    world.sql("INSERT INTO events (id, created_at, title, room_id) VALUES ('a', %s, 'other', 'r1')", values=(JAN,))
    for said in (world.dry(), world.apply(), world.verify()):
        assert nonzero(said["counts"]) == {"matching": 1, "rejected": 1}
        assert said["samples"]["rejected"][0]["reason"].startswith("several_rows: ")
    before = world.rows()
    assert told(world.reconciled(repair="all")) == {"rejected": 1}
    assert world.rows() == before
    world.sql("UPDATE events SET title = 't' WHERE id = 'a'")
    assert nonzero(world.verify()["counts"]) == {"matching": 1, "rejected": 1}, "alike ones too"
    world.put(a=None)
    assert told(world.reconciled(repair="all")) == {"extra": 1}
    assert [row[0] for row in world.rows()] == ["b"]
    world.reconciled(repair="all")
    assert one(world.dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_times_that_no_document_can_have_are_extra_rows(by_time):
    world = by_time
    world.sql("CREATE TABLE events_3 PARTITION OF events DEFAULT")
    odd = (
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00.123456 BC",
        "20260-01-01 00:00:00.000001",
        "1969-12-31 23:59:59.999999",
    )
    for n, at in enumerate(odd):
        world.sql(
            "INSERT INTO events (id, created_at, title, room_id) VALUES (%s, %s, 't', 'r1')", values=(f"o{n}", at)
        )
    world.put(a=JAN)
    world.apply()
    assert told(world.reconciled()) == {"extra": 5}
    assert told(world.reconciled(repair="all")) == {"extra": 5}
    assert [row[0] for row in world.rows()] == ["a"]


def test_a_window_finds_what_an_edit_left_behind(by_time):
    world = by_time
    world.put(a=JAN, b=JAN, c=JAN)
    world.apply()
    assert told(world.reconciled()) == {}
    world.put(a=FEB, b=(JAN, "edited"))
    assert told(world.reconciled(scope="recent", repair="all")) == {"missing": 1, "extra": 1, "stale": 1}
    kept, moved = KINDS["by time"].kept
    assert world.rows() == [("a", moved, "t"), ("b", kept, "edited"), ("c", kept, "t")]


@pytest.mark.parametrize("rows_at_once", [1, 2, 5000])
def test_a_left_row_is_told_once_whoever_shares_its_id(by_time, monkeypatch, rows_at_once):
    """Beside documents of the same id, that match, are missing or can't become a row, on one page or in parts of it."""
    monkeypatch.setattr(compare, "ROWS_AT_FIRST", rows_at_once)
    monkeypatch.setattr(compare, "MOST_ROWS", rows_at_once)
    world = by_time
    world.put(a=JAN, b=JAN, c=JAN, d=JAN)
    world.apply()
    left = _ms(JAN + timedelta(seconds=1))
    for name in "abcd":
        world.sql("INSERT INTO events (id, created_at, room_id) VALUES (%s, %s, 'r1')", values=(name, left))
    other = world.firestore.document
    other("rooms/r2/events/a").set(world.fields(FEB))  # is missing
    other("rooms/r2/events/b").set(world.fields(MAR))  # no partition takes it
    other("rooms/r2/events/c").set({"createdAt": "yesterday", "updatedAt": JAN})  # can't be mapped
    other("rooms/r2/events/d").set(world.fields(left))  # has the row
    title = "UPDATE events SET title = 't', room_id = 'r2' WHERE id = 'd' AND created_at = %s"
    world.sql(title, values=(left,))
    for scope in ("recent", "sweep"):
        assert told(world.reconciled(scope=scope)) == {"missing": 1, "rejected": 3, "extra": 2}


def test_rows_of_matching_documents_dont_come_back(by_time, monkeypatch):
    """The target finds the rows that are left; a look at a window remembers hashes of paths, a sweep none."""
    asked = []
    original = Target.dependents
    monkeypatch.setattr(Target, "dependents", lambda self, *given: asked.append(given) or original(self, *given))
    world = by_time
    world.put(a=JAN, b=JAN)
    world.apply()
    for scope in ("recent", "sweep"):
        assert told(world.reconciled(scope=scope)) == {}
    assert asked == []
    window, sweep = (kind(CollectionReport("events", "compare")) for kind in (WindowLook, SweepLook))
    for look in (window, sweep):
        look.read_entries("rooms/r1/events/a")
    assert [look.has_entries("rooms/r1/events/a") for look in (window, sweep)] == [True, False]


@pytest.mark.parametrize("by_time", ["postgres_server"], indirect=True, ids=["18"])
def test_a_left_row_is_extra_once_in_slices(by_time):
    world = by_time
    names = [f"{n:02}" for n in range(12)]
    world.put(**dict.fromkeys(names, JAN))
    world.apply()
    for name in names[::3]:
        world.sql(
            "INSERT INTO events (id, created_at, room_id) VALUES (%s, %s, 'r1')",
            values=(name, JAN + timedelta(seconds=1)),
        )
    given = {**world.given, "slice_documents": 5}
    with gap_run(world.firestore.project, world.emulator, world.dsn, **given) as run:
        checked, parts = in_slices.verification(run)
    assert len(parts) > 1
    assert nonzero(checked["events"]["counts"]) == {"matching": 12, "extra": 4}


def test_a_document_without_the_field_keeps_its_row(by_time):
    """It is rejected: what its key would be is unknown. So is one that doesn't meet the condition no more: that one's row goes."""
    world = by_time
    shown = replace(world.catalog["events"], where=Absent("deletedAt"))
    world.catalog = Catalog((shown,))
    world.put(a=JAN, b=JAN, c=JAN)
    world.apply()
    world.firestore.document("rooms/r1/events/a").set({"title": "t"})
    world.firestore.document("rooms/r1/events/b").set({"createdAt": "yesterday", "title": "t"})
    world.firestore.document("rooms/r1/events/c").update({"deletedAt": FEB})
    found = world.reconciled(repair="all")
    assert told(found) == {"rejected": 4, "extra": 1}, "two documents, and beside each the row that may be its"
    assert [row[0] for row in world.rows()] == ["a", "b"]
    [found_] = [c for c in found.report["collections"] if c["collection"] == "events"]
    assert {s["reason"] for s in found_["samples"]["rejected"]} == {
        "missing_value: created_at is NOT NULL and field createdAt is absent",
        "wrong_type: created_at (field createdAt) is a string, a timestamp is expected",
    }


def test_two_rooms_may_have_an_event_of_one_id(by_time):
    """The id alone proves nothing: the other room's event has the row."""
    world = by_time
    world.put(a=JAN)
    world.firestore.document("rooms/r2/events/a").set(world.fields(FEB, "other"))
    world.apply()
    kept, moved = KINDS["by time"].kept
    assert world.rows() == [("a", kept, "t"), ("a", moved, "other")]
    assert nonzero(world.verify()["counts"]) == {"matching": 2}
    world.put(a=None)
    assert told(world.reconciled(repair="all")) == {"extra": 1}
    assert world.rows() == [("a", moved, "other")]


@pytest.mark.parametrize("name", ["by time", "by list"])
def test_mirror_moves_a_row_in_one_transaction(request, name):
    """Inserted, updated, moved, deleted; an event of another time, or a row kept to the microsecond, changes nothing of that."""
    kind = KINDS[name]
    (first, second), (kept, moved) = kind.values, kind.kept
    path = "rooms/r1/events/a"
    with world_of(request, kind) as world:
        writer = DualWriter(lambda: postgres.connect(world.dsn), lambda: True, 5, catalog=world.catalog)
        steps = [
            (None, (first, "t"), [("a", kept, "t")]),
            ((first, "t"), (first, "edited"), [("a", kept, "edited")]),
            ((first, "edited"), (second, "moved"), [("a", moved, "moved")]),
            ((second, "moved"), None, []),
        ]
        for before, after, rows in steps:
            given = [None if of is None else {world.field: of[0], "title": of[1]} for of in (before, after)]
            assert writer.mirror(path, *given) is Outcome.WRITTEN
            assert world.rows() == rows
        if name == "by time":
            world.sql("INSERT INTO events (id, created_at, title, room_id) VALUES ('a', %s, 't', 'r1')", values=(JAN,))
            fields = {"createdAt": JAN, "title": "t"}
            assert writer.mirror(path, fields, {**fields, "title": "edited"}) is Outcome.WRITTEN
            assert world.rows() == [("a", JAN, "edited")]
            assert writer.mirror(path, fields, None) is Outcome.WRITTEN
            assert world.rows() == []
        nowhere = {world.field: kind.nowhere, "title": "t"}
        assert writer.mirror(path, None, nowhere) is Outcome.FAILED


def test_pages_of_keys_go_on_after_a_time_with_microseconds(by_time, monkeypatch):
    """The last key of a page is told to the millisecond, and the next begins after the row itself."""
    from dualwrite.postgres import rows

    monkeypatch.setattr(rows, "KEYS_AT_ONCE", 2)
    world = by_time
    for n in range(7):
        at = JAN + timedelta(microseconds=n)
        world.sql(
            "INSERT INTO events (id, created_at, title, room_id) VALUES ('a', %s, 't', 'r1')",
            values=(at + timedelta(milliseconds=n),),
        )
    world.put(b=JAN)
    world.apply()
    assert told(world.reconciled()) == {"extra": 7}
