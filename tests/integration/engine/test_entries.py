"""Rows out of an array of maps, keyed by place, by a field, or by an id of their own: found, repaired and verified, against an
oracle that reads both databases by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite.model.conversions import scaled
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    DocumentId,
    EntryField,
    EntryIndex,
    Field,
    Segment,
)
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import LONG_AGO, put

ORDERS = Collection(
    "orders", "orders", ("users/{user}/orders/{order}",),
    (Column("id", "key", DocumentId()), Column("updated_at", "compared", Field("updatedAt"), "timestamp")),
    check_fields=("updatedAt",), written_columns=("updated_at",), selected=True,
)  # fmt: skip


def of_orders(name: str, *columns: Column) -> Collection:
    return Collection(name, name, ORDERS.paths, columns, entries=ArrayElements("items"), check_fields=("updatedAt",), selected=True)  # fmt: skip


ORDER = Column("order_id", "key", Segment("order"), references="orders")
PRICE = Column("price", "compared", EntryField("cents") >> scaled(-2), required=True)
CATALOG = Catalog((
    ORDERS,
    of_orders("lines", ORDER, Column("line", "key", EntryIndex(1)), Column("sku", "compared", EntryField("sku"), required=True), PRICE),
    of_orders("skus", ORDER, Column("sku", "key", EntryField("sku")), Column("place", "compared", EntryIndex()), PRICE),
    of_orders("pieces", Column("id", "key", EntryField("id")),
              Column("order_id", "compared", Segment("order"), references="orders", required=True), PRICE),
))  # fmt: skip
SCHEMA = """
CREATE TABLE orders (id TEXT PRIMARY KEY, updated_at TIMESTAMPTZ);
CREATE TABLE lines (order_id TEXT NOT NULL REFERENCES orders, line SMALLINT NOT NULL, sku TEXT NOT NULL,
  price NUMERIC(10,2) NOT NULL, PRIMARY KEY (order_id, line));
CREATE TABLE skus (order_id TEXT NOT NULL REFERENCES orders, sku TEXT NOT NULL, place INT, price NUMERIC(10,2) NOT NULL,
  PRIMARY KEY (order_id, sku));
CREATE TABLE pieces (id TEXT PRIMARY KEY, order_id TEXT NOT NULL REFERENCES orders, price NUMERIC(10,2) NOT NULL);
"""


def item(order: str, sku: str, cents: int = 250) -> dict[str, Any]:
    return {"sku": sku, "cents": cents, "id": f"{order}-{sku}"}


def order(name: str, *skus: str, at: datetime = LONG_AGO) -> dict[str, Any]:
    return {"updatedAt": at, "items": [item(name, sku) for sku in skus]}


def differences(client: Any, dsn: str) -> dict[str, int]:
    """The oracle: how many rows of each table are in one of the databases alone."""
    wanted: dict[str, set[tuple[Any, ...]]] = {"lines": set(), "skus": set(), "pieces": set()}
    for snapshot in client.collection_group("orders").stream():
        for n, found in enumerate(snapshot.to_dict().get("items", [])):
            price = f"{found['cents'] // 100}.{found['cents'] % 100:02}"
            wanted["lines"].add((snapshot.id, str(n + 1), found["sku"], price))
            wanted["skus"].add((snapshot.id, found["sku"], str(n), price))
            wanted["pieces"].add((found["id"], snapshot.id, price))
    queries = {
        "lines": "SELECT order_id, line::text, sku, price::text FROM lines",
        "skus": "SELECT order_id, sku, place::text, price::text FROM skus",
        "pieces": "SELECT id, order_id, price::text FROM pieces",
    }
    with psycopg.connect(dsn) as connection:
        return {n: len(set(connection.execute(queries[n])) ^ wanted[n]) for n in wanted}


EQUAL = {"lines": 0, "skus": 0, "pieces": 0}
EVERYTHING: dict[str, Any] = {"catalog": CATALOG, "collections": list(CATALOG.names)}


@pytest.fixture
def shop(firestore, emulator, target_dsn):
    """Three orders, of which the export brought one; two of one user's, and one below another user."""
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute("INSERT INTO orders VALUES ('o1', %s)", (LONG_AGO.replace(microsecond=123000),))
        connection.execute("INSERT INTO lines VALUES ('o1', 1, 'a', 2.5), ('o1', 2, 'b', 2.5)")
        connection.execute("INSERT INTO skus VALUES ('o1', 'a', 0, 2.5), ('o1', 'b', 1, 2.5)")
        connection.execute("INSERT INTO pieces VALUES ('o1-a', 'o1', 2.5), ('o1-b', 'o1', 2.5)")
    put(firestore, {"users/u1/orders/o1": order("o1", "a", "b"), "users/u1/orders/o2": order("o2", "a", "b", "c"),
                    "users/u2/orders/o3": order("o3", "c"), "users/u2/orders/o4": {"updatedAt": LONG_AGO}})  # fmt: skip
    return firestore


def filled(shop, emulator, dsn) -> None:
    apply(shop.project, emulator, dsn, scope="all", **EVERYTHING)


def reconcile(shop, emulator, dsn, **changes):
    return reconciled(shop.project, emulator, dsn, grace_seconds=0, max_share=100, **{**EVERYTHING, **changes})


def test_a_gap_of_elements_is_foretold_filled_and_verified(shop, emulator, target_dsn):
    tried = dry_run(shop.project, emulator, target_dsn, scope="all", **EVERYTHING)
    found = apply(shop.project, emulator, target_dsn, scope="all", **EVERYTHING)
    counts = {name: nonzero(found[name]["counts"]) for name in differences(shop, target_dsn)}
    assert counts == {name: nonzero(tried[name]["counts"]) for name in counts}
    assert all(found == {"matching": 2, "missing": 4} for found in counts.values())
    assert differences(shop, target_dsn) == EQUAL
    with gap_run(shop.project, emulator, target_dsn, scope="all", **EVERYTHING) as run:
        assert {c["verification"] for c in verify_all(run).values()} == {"verified"}


@pytest.mark.parametrize("scope", ["recent", "sweep"])
def test_elements_moved_and_removed_are_stale_and_extra(shop, emulator, target_dsn, scope):
    """Of (a, b, c), b is taken out and c moved to the front; a repair of all brings the rows into line."""
    filled(shop, emulator, target_dsn)
    reconcile(shop, emulator, target_dsn, scope="sweep")
    shop.document("users/u1/orders/o2").set(order("o2", "c", "a", at=datetime.now(UTC) - timedelta(seconds=1)))
    found = reconcile(shop, emulator, target_dsn, scope=scope)
    assert {n: found.counts(n) for n in CATALOG.names} == {
        "orders": {"stale": 1},
        "lines": {"stale": 2, "extra": 1},  # (c, a) stand where a and b did; nothing where c did
        "skus": {"stale": 2, "extra": 1},
        "pieces": {"extra": 1},
    }
    before = one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'")
    reconcile(shop, emulator, target_dsn, scope=scope, repair="all")
    assert differences(shop, target_dsn) == EQUAL
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == before + 3
    assert reconcile(shop, emulator, target_dsn, scope="sweep").alerts == []
    with gap_run(shop.project, emulator, target_dsn, scope="all", **EVERYTHING) as run:
        assert {c["verification"] for c in verify_all(run).values()} == {"verified"}


def test_a_row_whose_key_another_order_has_is_not_deleted(shop, emulator, target_dsn):
    """A piece that moved to another order: its row still names the first one, where it is gone."""
    filled(shop, emulator, target_dsn)
    put(shop, {"users/u1/orders/o2": order("o2", "a"), "users/u2/orders/o3": {
        "updatedAt": LONG_AGO, "items": [item("o3", "c"), item("o2", "b"), item("o2", "c")]}})  # fmt: skip
    reconcile(shop, emulator, target_dsn, scope="sweep", repair="all")
    reconcile(shop, emulator, target_dsn, scope="sweep", repair="all")
    assert differences(shop, target_dsn)["pieces"] == 0
    assert one(target_dsn, "SELECT array_agg(order_id) FROM pieces WHERE id IN ('o2-b', 'o2-c')") == ["o3", "o3"]


@pytest.mark.parametrize("wrong", [{"sku": 7, "id": 7, "cents": 1}, "b", {"id": "o1-b", "sku": "b", "cents": "dear"}])
def test_an_element_that_cant_be_read_keeps_the_row_it_may_have(shop, emulator, target_dsn, wrong):
    """Nothing is taken for gone that the document may still say in a form that isn't declared."""
    filled(shop, emulator, target_dsn)
    shop.document("users/u1/orders/o1").update({"items": [item("o1", "a"), wrong]})
    found = reconcile(shop, emulator, target_dsn, scope="sweep", repair="all")
    for name in ("lines", "skus", "pieces"):
        assert found.counts(name).keys() == {"rejected"}, name
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE action = 'delete'") == 0
    assert one(target_dsn, "SELECT count(*) FROM lines WHERE order_id = 'o1'") == 2
    assert one(target_dsn, "SELECT count(*) FROM pieces WHERE order_id = 'o1'") == 2
    shop.document("users/u1/orders/o1").update({"items": [item("o1", "a")]})
    reconcile(shop, emulator, target_dsn, scope="sweep", repair="all")
    assert differences(shop, target_dsn) == EQUAL


def test_documents_of_one_id_below_two_parents_are_told_apart(firestore, emulator, target_dsn):
    """Both lie in one page; the removed element's row is that user's alone."""
    columns = (Column("user_id", "key", Segment("user")), Column("basket", "key", DocumentId()),
               Column("line", "key", EntryIndex()), Column("sku", "compared", EntryField("sku")))  # fmt: skip
    baskets = Collection("baskets", "baskets", ("users/{user}/baskets/{basket}",), columns,
                         entries=ArrayElements("items"), check_fields=("at",), selected=True)  # fmt: skip
    everything = {"catalog": Catalog((baskets,)), "collections": ["baskets"]}
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE baskets (user_id TEXT, basket TEXT, line SMALLINT, sku TEXT, PRIMARY KEY (user_id, basket, line))"
        )
    for skus in (["a", "b"], ["a"]):
        put(firestore, {
            f"users/{user}/baskets/now": {"at": datetime.now(UTC), "items": [{"sku": sku} for sku in held]}
            for user, held in (("u1", skus), ("u2", ["c", "d"]))
        })  # fmt: skip
        if len(skus) == 2:
            apply(firestore.project, emulator, target_dsn, scope="all", **everything)
            reconcile(firestore, emulator, target_dsn, scope="sweep", **everything)
    found = reconcile(firestore, emulator, target_dsn, scope="recent", repair="all", **everything)
    assert found.counts("baskets") == {"extra": 1}
    kept = one(target_dsn, "SELECT array_agg(user_id || line || sku ORDER BY 1, user_id, line) FROM baskets")
    assert kept == ["u10a", "u20c", "u21d"]
