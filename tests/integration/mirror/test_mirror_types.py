"""`mirror` writes what the engine would, whatever the table's columns are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite import alerts, dual_write, postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.model.conversions import array, each, text
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field, Operations, Parent, Segment
from tests.integration.engine.test_held_references import HELD
from tests.integration.engine.test_held_references import SCHEMA as HELD_SCHEMA
from tests.integration.postgres.test_live_types import CASES, KEYS, SCHEMA, things
from tests.support import apply, one

T = datetime(2026, 2, 1, tzinfo=UTC)


def mirrored(catalog: Catalog) -> Catalog:
    """The catalog, with operations of an app for each collection."""
    return Catalog(
        tuple(
            replace(c, operations=(Operations(c.name, tuple(k.name for k in c.key if c.entries)),))
            for c in catalog.collections
        )
    )


@pytest.fixture
def told(monkeypatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(alerts, "write_failed", lambda text, **tags: found.append(text))
    return found


@pytest.fixture
def writer_of(target_dsn):
    writers = []

    def made(catalog: Catalog) -> DualWriter:
        writers.append(DualWriter(lambda: postgres.connect(target_dsn), catalog=mirrored(catalog)))
        return writers[-1]

    yield made
    for writer in writers:
        writer.close()


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _rows(dsn: str, table: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return [row for (row,) in connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1")]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_mirror_writes_the_rows_that_the_engine_would(firestore, emulator, target_dsn, writer_of, told, case):
    """Each kind of column: inserted, updated, and what is refused is told and leaves the row."""
    _execute(target_dsn, *SCHEMA.split(";")[1:], "CREATE DOMAIN public.citext AS text")
    ddl, catalog = things(case.ddl, case.type)
    _execute(target_dsn, ddl)
    values = {"a": case.value, "n": None, **({"b": case.another} if case.another is not None else {})}
    bad = {} if case.refused is None else {"bad": case.refused}
    for name, value in {**values, **bad}.items():
        firestore.document(f"things/{name}").set({"v": value})
    apply(firestore.project, emulator, target_dsn, collections=["things"], scope="all", catalog=catalog)
    expected = _rows(target_dsn, "things")
    _execute(target_dsn, "TRUNCATE things")
    writer = writer_of(catalog)
    for name, value in values.items():
        assert writer.mirror(f"things/{name}", None, {"v": value}, create_time=T) is Outcome.WRITTEN
    assert _rows(target_dsn, "things") == expected
    assert told == []
    for value in bad.values():
        assert writer.mirror("things/bad", None, {"v": value}) in (Outcome.FAILED, Outcome.REFUSED)
        assert len(told) == 1
    for name, value in values.items():
        assert writer.mirror(f"things/{name}", {"v": "before"}, {"v": value}, create_time=T) is Outcome.WRITTEN
    assert _rows(target_dsn, "things") == expected


@pytest.mark.parametrize(("ddl", "ids", "wrong"), KEYS.values(), ids=KEYS.keys())
def test_mirror_takes_keys_of_any_type(target_dsn, writer_of, told, ddl, ids, wrong):
    parent = Collection(
        name="things", table="things", paths=("things/{thing}",),
        columns=(Column("id", "key", DocumentId()), Column("value", "compared", Field("v"))),
    )  # fmt: skip
    child = Collection(
        name="parts", table="parts", paths=("things/{thing}/parts/{part}",),
        columns=(
            Column("thing_id", "key", Segment("thing"), references="things"), Column("n", "key", DocumentId()),
            Column("value", "compared", Field("v")),
        ),
    )  # fmt: skip
    _execute(
        target_dsn, *SCHEMA.split(";")[1:], f"CREATE TABLE things (id {ddl} PRIMARY KEY, value text)",
        f"CREATE TABLE parts (thing_id {ddl} REFERENCES things, n {ddl}, value text, PRIMARY KEY (thing_id, n))",
    )  # fmt: skip
    writer = writer_of(Catalog((parent, child)))
    for path in (f"things/{ids[0]}", f"things/{ids[0]}/parts/{ids[1]}"):
        assert writer.mirror(path, None, {"v": "x"}) is Outcome.WRITTEN
        assert writer.mirror(path, {"v": "x"}, {"v": "y"}) is Outcome.WRITTEN
    assert writer.mirror(f"things/{wrong}", None, {"v": "x"}) in (Outcome.REFUSED, Outcome.FAILED)
    assert one(target_dsn, "SELECT t.value || p.value FROM things t JOIN parts p ON p.thing_id = t.id") == "yy"
    assert writer.mirror(f"things/{ids[0]}/parts/{ids[1]}", {"v": "y"}, None) is Outcome.WRITTEN
    assert one(target_dsn, "SELECT count(*) FROM parts") == 0


@pytest.mark.parametrize(
    ("ddl", "conversion", "value", "kept"),
    [("int[]", each(text), [1, 2], "{1,2}"), ("text[]", array, ['a "b"', "c\\d", "e,f", "", "null"], None)],
)  # fmt: skip
def test_mirror_writes_arrays_of_any_element(target_dsn, writer_of, ddl, conversion, value, kept):
    thing = Collection(
        name="things", table="things", paths=("things/{thing}",),
        columns=(Column("id", "key", DocumentId()), Column("value", "compared", Field("v") >> conversion)),
    )  # fmt: skip
    _execute(target_dsn, f"CREATE TABLE things (id text PRIMARY KEY, value {ddl})")
    assert writer_of(Catalog((thing,))).mirror("things/a", None, {"v": value}) is Outcome.WRITTEN
    assert one(target_dsn, "SELECT value FROM things") == value
    assert kept is None or one(target_dsn, "SELECT value::text FROM things") == kept


@pytest.mark.parametrize(("old", "new"), [("int", "bigint"), ("timestamp", "text"), ("text", "bytea")])
def test_a_type_that_changes_is_asked_for_again(target_dsn, writer_of, monkeypatch, old, new):
    """A process lives for weeks: after a refusal it asks what the columns are now."""
    kinds = {"int": "integer", "timestamp": "timestamp", "text": "text"}
    values = {"int": 2**40, "timestamp": T, "text": "x"}
    ddl, catalog = things(old, kinds[old])
    _execute(target_dsn, ddl)
    writer = writer_of(catalog)
    assert writer.mirror("things/a", None, {"v": None}) is Outcome.WRITTEN
    _execute(target_dsn, f"ALTER TABLE things ALTER value TYPE {new} USING NULL")
    monkeypatch.setattr(dual_write, "TYPES_HOLD", 0.0)
    assert writer.mirror("things/b", None, {"v": values[old]}) is Outcome.WRITTEN
    assert one(target_dsn, "SELECT value IS NOT NULL FROM things WHERE id = 'b'")


def test_mirror_looks_up_what_a_column_holds(target_dsn, writer_of, told):
    """Generated ids in columns and in keys; without the row they come through, nothing is written, and that is told."""
    _execute(target_dsn, "DROP TABLE IF EXISTS comments, posts, replies, likes, reactions CASCADE", HELD_SCHEMA)
    writer = writer_of(HELD)
    post = {"author": "u1", "editor": "u2", "title": "x", "tags": ["t"], "members": ["u1"]}
    assert writer.mirror("posts/p1", None, {**post, "tags": [], "members": []}) is Outcome.REFUSED
    assert told.pop() == "left: a document that it references has no row, so the value that it holds isn't known"
    assert one(target_dsn, "SELECT count(*) FROM posts") == 0
    for name in ("u1", "u2"):
        assert writer.mirror(f"users/{name}", None, {"name": name}) is Outcome.WRITTEN
    assert writer.mirror("posts/p1", None, post) is Outcome.WRITTEN
    assert told == []
    names = "SELECT a.firestore_id || e.firestore_id FROM posts JOIN profiles a ON a.id = author_id JOIN profiles e ON e.id = editor_id"
    assert one(target_dsn, names) == "u1u2"
    assert writer.mirror("posts/p1", post, {**post, "editor": "u1", "members": ["u2"]}) is Outcome.WRITTEN
    assert one(target_dsn, names) == "u1u1"
    assert one(target_dsn, "SELECT firestore_id FROM members JOIN profiles p ON p.id = profile_id") == "u2"
    assert writer.mirror("posts/p1/comments/c1", None, {"text": "x"}) is Outcome.WRITTEN
    assert writer.mirror("posts/p1/comments/c1", {"text": "x"}, None) is Outcome.WRITTEN
    assert writer.mirror("posts/p1", {**post, "members": ["u2"]}, None) is Outcome.WRITTEN
    assert [one(target_dsn, f"SELECT count(*) FROM {t}") for t in ("comments", "members", "post_tags", "posts")] == [
        0
    ] * 4
    assert told == []
    assert Parent("profiles", holds="id").holds == "id"
