"""A collection's share of a table that holds other rows too: `rows`. Whatever stands outside of it is neither read, counted, compared
nor written, by any statement; and two collections never share a row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    Constant,
    DocumentId,
    EntryField,
    Field,
    Operations,
    Segment,
)
from dualwrite.model.errors import CatalogError, PreflightError
from dualwrite.postgres.sample import sample_keys
from dualwrite.runs.slices import seen_keys
from tests.databases import clone
from tests.refusals import coded
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import LONG_AGO, put

AT = Column("updated_at", "compared", Field("updatedAt"), "timestamp")
ID, PLACED = Column("id", "key", DocumentId()), Column("total", "compared", Field("total"), "integer")
TIMES: dict[str, Any] = {"check_fields": ("updatedAt",), "written_columns": ("updated_at",), "selected": True}
LINES: dict[str, Any] = {"entries": ArrayElements("lines"), "check_fields": ("updatedAt",), "selected": True}


def sales(name: str, **more: Any) -> Collection:
    number = Column("number", "compared", Field("number"))
    return Collection(
        name, "all_sales", (f"{name}/{{sale}}",), (ID, number, PLACED, AT), unique=(("number",),), **TIMES, **more
    )


def lines(name: str, of: str, share: dict[str, Any]) -> Collection:
    columns = (Column("sale_id", "key", Segment("sale"), references=of), Column("sku", "key", EntryField("sku")),
               Column("amount", "compared", EntryField("amount"), "integer"))  # fmt: skip
    return Collection(name, "all_lines", (f"{of}/{{sale}}",), columns, rows=share, **LINES)


CATALOG = Catalog((
    sales("web", rows={"channel": "web", "region": 7, "test": False}, operations=(Operations("web", ("id",)),)),
    sales("pos", rows={"channel": "p%o's", "region": None}),
    lines("web_lines", "web", {"channel": "web"}), lines("pos_lines", "pos", {"channel": "p%o's"}),
    Collection("shops", "all_places", ("shops/{shop}",),
               (Column("tenant", "key", Constant("t1")), Column("id", "key", DocumentId()), Column("name", "compared", Field("name")), AT),
               rows={"tenant": "t1"}, **TIMES),
))  # fmt: skip
SCHEMA = """
CREATE TYPE channels AS ENUM ('web', 'p%o''s', 'legacy');
CREATE TABLE all_sales (id TEXT PRIMARY KEY, number TEXT UNIQUE, total INT, updated_at TIMESTAMPTZ,
  channel channels NOT NULL, region BIGINT, test BOOL, made TIMESTAMPTZ, CHECK (channel <> 'web' OR region IS NOT NULL));
CREATE TABLE all_lines (sale_id TEXT NOT NULL REFERENCES all_sales, sku TEXT NOT NULL, amount INT, channel channels NOT NULL,
  PRIMARY KEY (sale_id, sku));
CREATE TABLE all_places (tenant TEXT NOT NULL, id TEXT NOT NULL, name TEXT, updated_at TIMESTAMPTZ, PRIMARY KEY (tenant, id));
INSERT INTO all_sales VALUES ('old', 'A', 1, now(), 'legacy', NULL, NULL), ('try', 'T', 1, now(), 'web', 7, true),
  ('far', 'F', 1, now(), 'web', 8, false), ('his', 'H', 1, now(), 'p%o''s', 3, NULL);
INSERT INTO all_lines VALUES ('old', 'a', 1, 'legacy');
INSERT INTO all_places VALUES ('t2', 's1', 'another tenant''s', now());
"""
OTHERS = "SELECT md5(string_agg(t::text, '|' ORDER BY t)) FROM ({}) t"
OUTSIDE = OTHERS.format(
    "SELECT s::text FROM all_sales s WHERE id IN ('old', 'try', 'far', 'his') UNION ALL SELECT l::text FROM all_lines l "
    "WHERE channel = 'legacy' UNION ALL SELECT p::text FROM all_places p WHERE tenant = 't2'"
)
EVERYTHING: dict[str, Any] = {"catalog": CATALOG, "collections": list(CATALOG.names)}


def sale(total: int, at: datetime = LONG_AGO, **changes: Any) -> dict[str, Any]:
    return {
        "total": total,
        "updatedAt": at,
        "lines": [{"sku": "a", "amount": total}, {"sku": "b", "amount": 1}],
        **changes,
    }


def differences(client: Any, dsn: str) -> set[tuple[Any, ...]]:
    """The oracle: what is in one of the databases alone, of the rows that are theirs."""
    wanted = set()
    for name, channel in (("web", "web"), ("pos", "p%o's")):
        for s in client.collection(name).stream():
            wanted.add((channel, s.id, s.to_dict()["total"]))
            wanted |= {(channel, s.id, line["sku"], line["amount"]) for line in s.to_dict()["lines"]}
    wanted |= {("t1", s.id, s.to_dict()["name"]) for s in client.collection("shops").stream()}
    with psycopg.connect(dsn) as connection:
        there = set(connection.execute(
            "SELECT channel::text, id, total FROM all_sales WHERE (channel = 'web' AND region = 7 AND NOT test) "
            "OR (channel = 'p%o''s' AND region IS NULL)"
        ))  # fmt: skip
        there |= set(
            connection.execute("SELECT channel::text, sale_id, sku, amount FROM all_lines WHERE channel <> 'legacy'")
        )
        there |= set(connection.execute("SELECT tenant, id, name FROM all_places WHERE tenant = 't1'"))
    return wanted ^ there


@pytest.fixture(params=["postgres_server", "postgres15_server"], ids=["18", "15"])
def dsn(request) -> Iterator[str]:
    with closing(clone(request.getfixturevalue(request.param), "migrated")) as cloned:
        found = next(cloned)
        with psycopg.connect(found, autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield found


@pytest.fixture
def shop(firestore, dsn):
    put(firestore, {"web/w1": sale(10, number="1"), "web/w2": sale(20, number="2"), "pos/p1": sale(30, number="3"),
                    "shops/s1": {"name": "one", "updatedAt": LONG_AGO}})  # fmt: skip
    return firestore


def reconcile(shop, emulator, dsn, **changes):
    given = {**EVERYTHING, "grace_seconds": 0, "max_share": 100, "write_ops_required": False, **changes}
    return reconciled(shop.project, emulator, dsn, **given)


def test_rows_of_others_are_never_seen_and_never_touched(shop, emulator, dsn):
    """Through a gap, drift in both directions, windows, a sweep, repairs of everything: what stands outside stays as it is."""
    before = one(dsn, OUTSIDE)
    tried = dry_run(shop.project, emulator, dsn, scope="all", **EVERYTHING)
    found = apply(shop.project, emulator, dsn, scope="all", **EVERYTHING)
    counts = {name: nonzero(found[name]["counts"]) for name in CATALOG.names}
    assert counts == {name: nonzero(tried[name]["counts"]) for name in CATALOG.names}
    assert counts == {
        "web": {"missing": 2}, "pos": {"missing": 1}, "web_lines": {"missing": 4}, "pos_lines": {"missing": 2}, "shops": {"missing": 1},
    }  # fmt: skip
    assert differences(shop, dsn) == set()
    with gap_run(shop.project, emulator, dsn, scope="all", **EVERYTHING) as run:
        verified = verify_all(run)
    assert {c["verification"] for c in verified.values()} == {"verified"}
    assert {name: c["target_count"] for name, c in verified.items()}["web"] == 2
    assert reconcile(shop, emulator, dsn, scope="sweep").alerts == []
    assert reconcile(shop, emulator, dsn, scope="recent").alerts == []
    at = datetime.now(UTC)
    shop.document("web/w2").delete()
    put(
        shop, {"web/w1": sale(11, at, number="1"), "pos/p2": sale(40, at), "shops/s1": {"name": "new", "updatedAt": at}}
    )
    for scope in ("recent", "sweep"):
        reconcile(shop, emulator, dsn, scope=scope, repair="all")
    reconcile(shop, emulator, dsn, scope="sweep", repair="all")
    assert differences(shop, dsn) == set()
    assert one(dsn, OUTSIDE) == before
    assert reconcile(shop, emulator, dsn, scope="sweep").alerts == []
    assert one(dsn, "SELECT array_agg(channel || coalesce(region::text, '-') ORDER BY id) FROM all_sales WHERE id IN ('w1', 'p1')") == [
        "p%o's-", "web7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "constraint"),
    [({"id": "old"}, "all_sales_pkey"), ({"id": "w9", "number": "A"}, "all_sales_number_key")],
)
def test_a_key_that_another_share_holds_refuses_the_row(shop, emulator, dsn, document, constraint):
    """Named, and foretold: the other's row is neither taken for this document's nor in the way of anything else."""
    before = one(dsn, OUTSIDE)
    apply(shop.project, emulator, dsn, scope="all", **EVERYTHING)
    put(shop, {f"web/{document['id']}": sale(1, number=document.get("number"), lines=[])})
    tried = dry_run(shop.project, emulator, dsn, scope="all", **EVERYTHING)["web"]
    found = apply(shop.project, emulator, dsn, scope="all", **EVERYTHING)["web"]
    for report in (tried, found):
        assert nonzero(report["counts"]) == {"matching": 2, "rejected": 1}
        assert report["samples"]["rejected"][0]["reason"] == f"UniqueViolation 23505 (constraint {constraint})"
    assert one(dsn, OUTSIDE) == before


def test_a_row_that_leaves_the_share_is_missing(shop, emulator, dsn):
    apply(shop.project, emulator, dsn, scope="all", **EVERYTHING)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE all_sales SET region = 9 WHERE id = 'w2'")
    found = reconcile(shop, emulator, dsn, scope="sweep", collections=["web"])
    assert found.counts("web") == {"rejected": 1}  # where it went holds its key


def test_mirror_keeps_to_the_share(shop, emulator, dsn):
    before = one(dsn, OUTSIDE)
    writer = DualWriter(lambda: postgres.connect(dsn), catalog=CATALOG)
    try:
        assert writer.mirror("web/w1", None, sale(10), create_time=LONG_AGO) is Outcome.WRITTEN
        assert writer.mirror("web/w1", sale(10), sale(12), create_time=LONG_AGO) is Outcome.WRITTEN
        assert one(dsn, "SELECT total, channel::text, region, test FROM all_sales WHERE id = 'w1'") == (
            12,
            "web",
            7,
            False,
        )
        for taken in ("old", "try", "far"):
            assert writer.mirror(f"web/{taken}", sale(1), sale(2), create_time=LONG_AGO) is Outcome.REFUSED
            writer.mirror(f"web/{taken}", sale(2), None, create_time=LONG_AGO)
        assert writer.mirror("web/w1", sale(12), None, create_time=LONG_AGO) is Outcome.WRITTEN
    finally:
        writer.close()
    assert one(dsn, "SELECT count(*) FROM all_sales") == 4
    assert one(dsn, OUTSIDE) == before


TABLE = re.compile(
    r'(?:FROM|JOIN|UPDATE|INTO|USING)\s+"public"\."(all_sales|all_lines|all_places)"(?:\s+AS)?\s+"?(\w+)?"?'
)
COLUMNS = {"all_sales": ("channel", "region"), "all_lines": ("channel",), "all_places": ("tenant",)}


def test_each_statement_over_a_table_names_the_share(shop, emulator, dsn, monkeypatch):
    """A property over every statement that is sent, whoever composed it: for each name that it gives the table, each column of the
    share is compared. (What only makes a table like it, or asks for rows of the others, says so.)"""
    sent: set[str] = set()
    for kind in (psycopg.Cursor, psycopg.ClientCursor):

        def recorded(self, query, *given, original=kind._execute_send, **named):
            sent.add(query.query.decode())
            return original(self, query, *given, **named)

        monkeypatch.setattr(kind, "_execute_send", recorded)
    test_rows_of_others_are_never_seen_and_never_touched(shop, emulator, dsn)
    with gap_run(shop.project, emulator, dsn, scope="all", **EVERYTHING) as run:
        for collection in CATALOG:
            keys = sample_keys(run.target, collection, 100, 5)
            assert {k[0] for k in keys}.isdisjoint({"old", "far", "try", "his", "t2"})
            look = seen_keys.Attempt(run.target, collection.name, "d", "r")
            assert sorted(
                k for page in seen_keys.unseen(run.target, collection, [look.number]) for k in page
            ) == sorted(keys)
    with closing(DualWriter(lambda: postgres.connect(dsn), catalog=CATALOG)) as writer:
        writer.mirror("web/w7", None, sale(10), create_time=LONG_AGO)
        writer.mirror("web/w7", sale(10), sale(12), create_time=LONG_AGO)
        writer.mirror("web/w7", sale(12), None, create_time=LONG_AGO)
    looked = 0
    for text in sent:
        for table, alias in TABLE.findall(text):
            if "WITH NO DATA" in text or "IS NOT TRUE" in text or alias == "r":  # whoever references a row holds it
                continue
            looked += 1
            if alias == "":  # an insert: the stage's rows, or a row, with the share's values
                assert all(f'"{column}"' in text for column in COLUMNS[table]), text
                continue
            for column in COLUMNS[table]:
                assert re.search(rf'"{alias}"\."{column}" (OPERATOR|IS NULL|=)', text), text
    assert looked > 60


def test_two_shares_that_could_hold_one_row_are_refused():
    for one_, other in (({}, {}), ({}, {"channel": "a"}), ({"channel": "a"}, {"channel": "a"}), ({"channel": "a"}, {"region": 1}),
                        ({"test": True}, {"test": "true"}), ({"region": 1}, {"region": "1"})):  # fmt: skip
        with pytest.raises(CatalogError, check=coded("table-shared")):
            Catalog((sales("a", rows=one_), sales("b", rows=other)))
    Catalog((sales("a", rows={"x": None}), sales("b", rows={"x": "", "y": 1}), sales("c", rows={"x": "", "y": 2})))


@pytest.mark.parametrize(
    ("rows", "words", "code"),
    [("channel", "no dict", "share-malformed"), ({"channel": 1.5}, "no text", "share-malformed"),
     ({"channel": "\x00"}, "no text", "share-malformed"), ({"": "a"}, "no column", "share-malformed"),
     ({"total": 3}, "total", "share-column-redeclared"), ({"id": "x"}, "id", "share-column-redeclared")],
)  # fmt: skip
def test_a_share_that_says_nothing_is_refused_at_import(rows, words, code):
    with pytest.raises(CatalogError, match=words, check=coded(code)):
        sales("a", rows=rows)


@pytest.mark.parametrize(
    ("rows", "words"),
    [({"channel": "WEB"}, "isn't how Postgres writes a value of this type"), ({"region": "07"}, "isn't how Postgres writes"),
     ({"test": "yes"}, "isn't how Postgres writes"), ({"nowhere": 1}, "all_sales.nowhere is missing"),
     ({"made": "2026-01-01"}, "isn't how Postgres writes")],
)  # fmt: skip
def test_preflight_refuses_a_share_that_the_column_can_not_hold(shop, emulator, dsn, rows, words):
    given = {"catalog": Catalog((sales("web", rows=rows),)), "collections": ["web"]}
    with pytest.raises(PreflightError, match=words):
        reconcile(shop, emulator, dsn, scope="sweep", **given)


def test_collections_on_a_table_and_its_partition_are_refused(shop, emulator, dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE parted (id TEXT NOT NULL, kind TEXT NOT NULL, updated_at TIMESTAMPTZ, PRIMARY KEY (kind, id)) PARTITION BY LIST (kind);"
            "CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a'); CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b')"
        )

    def of(name: str, table: str, kind: str) -> Collection:
        return Collection(
            name,
            table,
            (f"{name}/{{id}}",),
            (Column("kind", "key", Constant(kind)), ID, AT),
            rows={"kind": kind},
            **TIMES,
        )

    fine = {"catalog": Catalog((of("web", "parted", "a"), of("pos", "parted_b", "b"))), "collections": ["web", "pos"]}
    assert reconcile(shop, emulator, dsn, scope="sweep", repair="missing_and_stale", **fine).report
    wrong = {"catalog": Catalog((of("web", "parted", "b"), of("pos", "parted_b", "b"))), "collections": ["web", "pos"]}
    with pytest.raises(PreflightError, match="web and pos share table parted_b"):
        reconcile(shop, emulator, dsn, scope="sweep", **wrong)


def test_rows_of_the_share_that_lost_their_documents_go_alone(shop, emulator, dsn):
    """In windows over the rows too, whose times the other share's rows have as well."""
    apply(shop.project, emulator, dsn, scope="all", **EVERYTHING)
    reconcile(shop, emulator, dsn, scope="sweep")
    before = one(dsn, OUTSIDE)
    shop.document("pos/p1").delete()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE all_sales SET updated_at = %s WHERE id IN ('w1', 'p1')", (datetime.now(UTC) - timedelta(seconds=1),)
        )
    for _ in range(2):
        found = reconcile(shop, emulator, dsn, scope="recent", repair="all")
    assert found.counts("pos") == {}
    assert differences(shop, dsn) == set()
    assert one(dsn, OUTSIDE) == before
