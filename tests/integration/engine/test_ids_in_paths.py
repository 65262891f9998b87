"""Ids in paths: texts (`users/{user}/private/profile`), ids of parts (`ratings/{user}_{product}`), one document (`config/site`).

What can't be split in one way is rejected and keeps its rows; what has another text is another document."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.engine import sampled
from dualwrite.model.conversions import part, reference_id
from dualwrite.model.declaration import (
    Catalog,
    Collection,
    Column,
    Constant,
    DocumentId,
    EntryKey,
    EntryValue,
    Field,
    MapEntries,
    Operations,
    Parent,
    ParentId,
    Segment,
)
from dualwrite.model.errors import CatalogError
from tests.refusals import coded
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import LONG_AGO

NOW = datetime.now(UTC) - timedelta(minutes=20)
AT = Column("updated_at", "compared", Field("updatedAt"), "timestamp")
TIMES: dict[str, Any] = {"check_fields": ("updatedAt",), "written_columns": ("updated_at",), "selected": True}


def _one(name: str, path: str, *columns: Column, **more: Any) -> Collection:
    return Collection(name, name, (path,), (*columns, AT), **TIMES, **more)


USER = Column("user_id", "key", Segment("u"), references="users")
CATALOG = Catalog((
    _one("users", "users/{u}", Column("id", "key", DocumentId())),
    _one("profiles", "users/{u}/private/profile", USER, Column("email", "compared", Field("email"))),
    Collection("flags", "flags", ("users/{u}/private/settings",),
               (USER, Column("flag", "key", EntryKey()), Column("is_on", "compared", EntryValue(), "boolean")),
               entries=MapEntries("flags"), selected=True),
    Collection("site", "site", ("config/site",), (Column("name", "key", EntryKey()), Column("value", "compared", EntryValue())),
               entries=MapEntries("texts"), selected=True),
    Collection("limits", "limits", ("config/limits",), (Column("id", "key", Constant("1")), Column("most", "compared", Field("most"), "integer")),
               selected=True),
    _one("rates", "products/tax_rates/tax_rates/{rate}", Column("id", "key", DocumentId()), Column("percent", "compared", Field("percent"), "numeric")),
    _one("ratings", "ratings/{user}_{product}", Column("user_id", "key", Segment("user"), references="users"), Column("product", "key", Segment("product")),
         Column("stars", "compared", Field("stars"), "integer")),
    Collection("reasons", "reasons", ("ratings/{user}_{product}",),
               (Column("user_id", "key", Segment("user")), Column("product", "key", Segment("product")), Column("reason", "key", EntryKey())),
               entries=MapEntries("reasons"), selected=True),
    _one("likes", "ratings/{user}_{product}/likes/{like}", Column("id", "key", DocumentId()),
         Column("user_id", "compared", Segment("user"), references=Parent("ratings", holds="user_id")),
         Column("product", "compared", Segment("product"), references=Parent("ratings", holds="product"))),
    _one("orders", "orders/o-{number}", Column("number", "key", Segment("number")), Column("total", "compared", Field("total"), "integer")),
    _one("lines", "orders/o-{number}/lines/{line}", Column("order_number", "key", Segment("number"), references="orders"), Column("line", "key", Segment("line"))),
    _one("refunds", "refunds/{refund}", Column("id", "key", DocumentId()),
         Column("order_number", "compared", Field("order") >> part("o-{number}", "number"), references="orders")),
    _one("visits", "visits/{day:3}{visit}", Column("id", "key", DocumentId()), Column("day", "compared", Segment("day"))),
    _one("notes", "visits/{day:3}{visit}/notes/{note}", Column("id", "key", DocumentId()), Column("visit_id", "compared", ParentId("visits"), references="visits")),
))  # fmt: skip
SCHEMA = """
CREATE TABLE users (id text PRIMARY KEY, updated_at timestamptz);
CREATE TABLE profiles (user_id text PRIMARY KEY REFERENCES users, email text, updated_at timestamptz);
CREATE TABLE flags (user_id text REFERENCES users, flag text, is_on boolean, PRIMARY KEY (user_id, flag));
CREATE TABLE site (name text PRIMARY KEY, value text);
CREATE TABLE limits (id integer PRIMARY KEY, most integer);
CREATE TABLE rates (id text PRIMARY KEY, percent numeric(5, 2), updated_at timestamptz);
CREATE TABLE ratings (user_id text REFERENCES users, product text, stars integer, updated_at timestamptz, PRIMARY KEY (user_id, product));
CREATE TABLE reasons (user_id text, product text, reason text, PRIMARY KEY (user_id, product, reason));
CREATE TABLE likes (id text PRIMARY KEY, user_id text, product text, updated_at timestamptz, FOREIGN KEY (user_id, product) REFERENCES ratings);
CREATE TABLE orders (number bigint PRIMARY KEY, total integer, updated_at timestamptz);
CREATE TABLE lines (order_number bigint REFERENCES orders, line integer, updated_at timestamptz, PRIMARY KEY (order_number, line));
CREATE TABLE refunds (id text PRIMARY KEY, order_number bigint REFERENCES orders, updated_at timestamptz);
CREATE TABLE visits (id text PRIMARY KEY, day text, updated_at timestamptz);
CREATE TABLE notes (id text PRIMARY KEY, visit_id text REFERENCES visits, updated_at timestamptz);
"""
DOCUMENTS: dict[str, dict[str, Any]] = {
    "users/u1": {}, "users/u2": {}, "users/u1/private/profile": {"email": "1"}, "users/u2/private/profile": {"email": "2"},
    "users/u1/private/settings": {"flags": {"dark": True, "beta": False}},
    "users/u2/private/other": {"email": "another document"},
    "config/site": {"texts": {"title": "t", "foot": "f"}}, "config/limits": {"most": 3},
    "products/tax_rates/tax_rates/r1": {"percent": 20}, "products/other/tax_rates/r2": {"percent": 1},
    "ratings/u1_p1": {"stars": 5, "reasons": {"good": 1}}, "ratings/u2_p1": {"stars": 4}, "ratings/u1_p1/likes/l1": {},
    "orders/o-7": {"total": 1}, "orders/o-8": {"total": 2}, "orders/q-9": {}, "orders/o-7/lines/1": {},
    "refunds/f1": {"order": "o-8"}, "visits/mon1": {}, "visits/mon1/notes/n1": {},
}  # fmt: skip
ROWS = {
    "users": 2, "profiles": 2, "flags": 2, "site": 2, "limits": 1, "rates": 1, "ratings": 2, "reasons": 1, "likes": 1, "orders": 2,
    "lines": 1, "refunds": 1, "visits": 1, "notes": 1,
}  # fmt: skip
EVERYTHING: dict[str, Any] = {"collections": list(CATALOG.names), "scope": "all", "catalog": CATALOG}


@pytest.fixture
def app(firestore, target_dsn):
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        for table in ("users", "likes"):
            connection.execute(f"DROP TABLE IF EXISTS {table} CASCADE")
        connection.execute(SCHEMA)
    batch = firestore.batch()
    for path, fields in DOCUMENTS.items():
        batch.set(firestore.document(path), {**fields, "updatedAt": NOW})
    batch.commit()
    return firestore


def _counts(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {name: nonzero(part["counts"]) for name, part in found.items() if nonzero(part["counts"])}


def _run(client, emulator: str, dsn: str, **changes: Any):
    return reconciled(
        client.project, emulator, dsn, catalog=CATALOG, collections=list(CATALOG.names), max_share=100, **changes
    )


def _found(found) -> dict[str, dict[str, int]]:
    return {name: found.counts(name) for name in CATALOG.names if found.counts(name)}


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def test_documents_on_such_paths_are_written_and_verified(app, emulator, target_dsn):
    """A dry run, an apply and a verification agree; documents of another text are strays of their collection id."""
    missing = {name: {"missing": n} for name, n in ROWS.items()}
    found = dry_run(app.project, emulator, target_dsn, **EVERYTHING)
    assert _counts(found) == missing
    strays = {name: part["stray"] for name, part in found.items() if part["stray"]}
    assert strays == {"profiles": 2, "flags": 3, "site": 1, "limits": 1, "rates": 1, "orders": 1}
    assert _counts(apply(app.project, emulator, target_dsn, **EVERYTHING)) == missing
    assert one(target_dsn, "SELECT array_agg(number * 10 + line) FROM orders JOIN lines ON number = order_number") == [
        71
    ]
    assert one(
        target_dsn, "SELECT array_agg((user_id, product, id)::text) FROM ratings JOIN likes USING (user_id, product)"
    ) == ["(u1,p1,l1)"]
    assert (
        one(
            target_dsn,
            "SELECT string_agg(id || order_number || day || visit_id, ' ') FROM refunds, (SELECT day, visit_id FROM notes n JOIN visits v ON v.id = visit_id) x",
        )
        == "f18monmon1"
    )
    with gap_run(app.project, emulator, target_dsn, **EVERYTHING) as run:
        assert _counts(verify_all(run)) == {name: {"matching": n} for name, n in ROWS.items()}


def test_a_repair_mends_what_is_missing_stale_and_extra(app, emulator, target_dsn):
    """Each row of a gone document goes, after a read at the path that its key gives."""
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    for path in (
        "users/u2/private/profile",
        "ratings/u2_p1",
        "products/tax_rates/tax_rates/r1",
        "refunds/f1",
        "orders/o-8",
        "config/limits",
    ):
        app.document(path).delete()
    app.document("users/u1/private/settings").update({"flags": {"dark": True}, "updatedAt": NOW})
    app.document("config/site").update({"texts": {"title": "t"}, "updatedAt": NOW})
    _execute(
        target_dsn,
        "UPDATE profiles SET email = 'lost' WHERE user_id = 'u1'; UPDATE ratings SET stars = 1 WHERE user_id = 'u1'",
    )
    _execute(target_dsn, "DELETE FROM lines; DELETE FROM notes; DELETE FROM reasons")
    found = _run(app, emulator, target_dsn, scope="sweep")
    assert _found(found) == {
        "profiles": {"stale": 1, "extra": 1}, "flags": {"extra": 1}, "site": {"extra": 1}, "limits": {"extra": 1}, "rates": {"extra": 1},
        "ratings": {"stale": 1, "extra": 1}, "reasons": {"missing": 1}, "orders": {"extra": 1}, "lines": {"missing": 1},
        "refunds": {"extra": 1}, "notes": {"missing": 1},
    }  # fmt: skip
    repaired = _run(app, emulator, target_dsn, repair="all")
    assert repaired.alerts == []
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0
    left = {name: n for name in ROWS if (n := one(target_dsn, f"SELECT count(*) FROM {name}")) != ROWS[name]}
    assert left == {
        "profiles": 1,
        "flags": 1,
        "site": 1,
        "limits": 0,
        "rates": 0,
        "ratings": 1,
        "orders": 1,
        "refunds": 0,
    }
    assert one(target_dsn, "SELECT email FROM profiles") == "1"
    assert _found(_run(app, emulator, target_dsn, scope="sweep")) == {}


def test_what_splits_in_two_ways_is_rejected_and_keeps_its_rows(app, emulator, target_dsn):
    """Whichever way a client took: no row of it goes. A row that no id could give goes."""
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    batch = app.batch()
    for name in ("users/u1_p", "ratings/u1_p_2", "ratings/lonely", "visits/sun", "orders/o-"):
        batch.set(app.document(name), {"stars": 1, "reasons": {"good": 1}, "updatedAt": NOW})
    batch.commit()
    _execute(
        target_dsn,
        "INSERT INTO users VALUES ('u1_p'); INSERT INTO ratings VALUES ('u1', 'p_2', 1), ('u1_p', '2', 1), ('u2', 'gone', 1)",
    )
    _execute(
        target_dsn, "INSERT INTO reasons VALUES ('u1', 'p_2', 'good'), ('u1_p', '2', 'odd'), ('u2', 'gone', 'good')"
    )
    found = _run(app, emulator, target_dsn, scope="sweep", repair="all")
    assert {n: found.counts(n) for n in ("ratings", "reasons", "visits", "orders")} == {
        "ratings": {"rejected": 4, "extra": 1}, "reasons": {"rejected": 4, "extra": 1}, "visits": {"rejected": 1}, "orders": {"rejected": 1},
    }  # fmt: skip
    assert "id_not_split" in str(found.sample("visits", "rejected")["reason"])
    kept = "SELECT string_agg(user_id || '+' || product, ' ' ORDER BY 1) FROM {} WHERE product <> 'p1'"
    assert one(target_dsn, kept.format("ratings")) == "u1+p_2 u1_p+2" == one(target_dsn, kept.format("reasons"))


def test_a_row_joined_to_another_keys_id_is_told_and_stays(app, emulator, target_dsn):
    """'mo' and 'n1' would be joined to the id that is split as 'mon' and '1': that document is another row's."""
    catalog = Catalog((Collection("visits", "pairs", ("visits/{day:3}{visit}",), (
        Column("day", "key", Segment("day")), Column("visit", "key", Segment("visit"))), selected=True),))  # fmt: skip
    _execute(
        target_dsn,
        "CREATE TABLE pairs (day text, visit text, PRIMARY KEY (day, visit)); INSERT INTO pairs VALUES ('mon', '1'), ('mo', 'n1')",
    )
    changes = {"catalog": catalog, "collections": ["visits"], "max_share": 100, "scope": "sweep", "repair": "all"}
    found = reconciled(app.project, emulator, target_dsn, **changes)
    assert found.counts("visits") == {"extra": 1}
    assert found.sample("visits", "extra")["reason"] == "path_unknown"
    assert one(target_dsn, "SELECT array_agg(day || '+' || visit ORDER BY day) FROM pairs") == ["mo+n1", "mon+1"]


def test_windows_slices_and_keys_know_such_paths(app, emulator, target_dsn):
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    _execute(
        target_dsn,
        "UPDATE ratings SET stars = 1 WHERE user_id = 'u1'; UPDATE profiles SET email = 'lost' WHERE user_id = 'u2'",
    )
    found = _run(app, emulator, target_dsn, scope="recent")
    assert _found(found) == {"ratings": {"stale": 1}, "profiles": {"stale": 1}}
    named = _run(app, emulator, target_dsn, keys=["ratings:u1/p1", "profiles:u2"], repair="missing_and_stale")
    assert named.alerts == []
    assert one(target_dsn, "SELECT stars FROM ratings WHERE user_id = 'u1'") == 5


def test_preflight_tells_of_ids_that_are_not_as_the_catalog_says(app, emulator, target_dsn):
    """A slip in a text would make each document a stray, and each row extra."""
    user, product = (Column(name, "key", Segment(name)) for name in ("user", "product"))
    slips = Catalog((
        Collection("profiles", "profiles", ("users/{user}/private/Profile",), (user,)),
        Collection("ratings", "ratings", ("ratings/u{user}_{product}_x",), (user, product)),
        Collection("likes", "likes", ("ratings/{user}_p{product}_{x}/likes/{like}",), (Column("id", "key", DocumentId()),)),
    ))  # fmt: skip
    with gap_run(app.project, emulator, target_dsn, **EVERYTHING) as run:
        assert sampled.of_other_ids(run.source, CATALOG) == []
        told = sampled.of_other_ids(run.source, slips)
    assert [fault.text[:40] for fault in told] == [
        "None of 4 documents of collection id pri",
        "None of 2 documents of collection id rat",
        "Of 1 documents of likes that were looked",
    ]


def test_mirror_knows_such_paths(app, emulator, target_dsn):
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    named = Catalog(tuple(replace(c, operations=(Operations(c.name),)) for c in CATALOG.collections))
    fields = {"stars": 3, "updatedAt": NOW}
    with closing(DualWriter(lambda: postgres.connect(target_dsn), catalog=named)) as writer:
        for path, before, after, outcome in (
            ("ratings/u2_p2", None, fields, Outcome.WRITTEN),
            ("ratings/u2_p2", fields, None, Outcome.WRITTEN),
            ("ratings/u2_p_2", None, fields, Outcome.REFUSED),
            (
                "users/u2/private/profile",
                {"email": "2", "updatedAt": NOW},
                {"email": "3", "updatedAt": NOW},
                Outcome.WRITTEN,
            ),
            ("users/u2/private/other", None, {"email": "x"}, Outcome.NOTHING),
            ("config/site", {"texts": {"title": "t", "foot": "f"}}, {"texts": {"title": "u"}}, Outcome.WRITTEN),
        ):
            assert writer.mirror(path, before, after, create_time=LONG_AGO) is outcome, path
    assert one(target_dsn, "SELECT count(*) FROM ratings") == 2
    assert one(target_dsn, "SELECT email FROM profiles WHERE user_id = 'u2'") == "3"
    assert one(target_dsn, "SELECT array_agg(name || value) FROM site") == ["titleu"]


KEY = Column("id", "key", DocumentId())
REFUSED = {
    "the id of one document": (("x/{u}/y/z",), (KEY,), "document-id-constant"),
    "a segment that isn't there": (("config/site",), (Column("id", "key", Segment("a") >> reference_id),), "segment-unknown"),
    "two paths of one document": (("x/{a}_{b}", "x/{a}-{b}"), (KEY,), "paths-overlap"),
    "two variables that touch": (("x/{a}{b}",), (KEY,), "path-malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_ids_cant_be_is_refused_at_import(name):
    paths, columns, code = REFUSED[name]
    with pytest.raises(CatalogError, check=coded(code)):
        Collection("x", "x", paths, columns)


def test_entries_of_an_id_of_parts_need_all_parts_in_the_key():
    columns = (Column("a", "key", Segment("a")), Column("tag", "key", EntryKey()))
    with pytest.raises(
        CatalogError, match=r"Segment\('a'\) and Segment\('b'\)", check=coded("entry-without-document-id")
    ):
        Collection("x", "x", ("x/{a}_{b}",), columns, entries=MapEntries("tags"))


def test_a_key_of_one_part_of_an_id_is_refused():
    """So no reference leads to a parent whose id can't be told."""
    with pytest.raises(CatalogError, check=coded("key-of-several-documents")):
        Collection("x", "x", ("x/{a}_{b}",), (Column("a", "key", Segment("a")),))
