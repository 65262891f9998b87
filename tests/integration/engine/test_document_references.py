"""References to documents in subcollections: by Firestore's references, and to keys of several columns."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from dualwrite.model.conversions import reference_id, segment
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    DocumentId,
    EntryField,
    EntryIndex,
    EntryKey,
    Field,
    Parent,
    Segment,
)
from dualwrite.model.errors import CatalogError
from dualwrite.runs import backfill
from tests.refusals import coded
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled

ORDER = {"user_id": segment(1), "id": reference_id}
"""What a reference to users/{user}/orders/{order} tells of the row's key."""


def _column(name: str, role: Any, origin: Any, part: str, **changes: Any) -> Column:
    return Column(name, role, origin >> ORDER[part], references=Parent("orders", holds=part), **changes)


ORDERS = Collection(
    name="orders", table="orders", paths=("users/{user}/orders/{order}",), selected=True,
    columns=(Column("user_id", "key", Segment("user")), Column("id", "key", DocumentId()), Column("note", "compared", Field("note"))),
)  # fmt: skip
LINES = Collection(
    name="lines", table="lines", paths=("users/{user}/orders/{order}/lines/{line}",), selected=True,
    columns=(
        Column("user_id", "key", Segment("user"), references=Parent("orders", holds="user_id")),
        Column("order_id", "key", Segment("order"), references=Parent("orders", holds="id")),
        Column("n", "key", DocumentId()),
    ),
)  # fmt: skip
RETURNS = Collection(
    name="returns", table="returns", paths=("returns/{return}",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        _column("order_user", "compared", Field("order"), "user_id"),
        _column("order_id", "compared", Field("order"), "id"),
        _column("instead_user", "compared", Field("instead"), "user_id"),
        _column("instead_id", "compared", Field("instead"), "id"),
    ),
)  # fmt: skip
SHIPPED = Collection(
    name="shipped", table="shipped", paths=("parcels/{parcel}",), entries=ArrayElements("orders"), selected=True,
    columns=(
        Column("parcel", "key", DocumentId()), Column("n", "key", EntryIndex()),
        _column("order_user", "compared", EntryField("of"), "user_id"),
        _column("order_id", "compared", EntryField("of"), "id"),
    ),
)  # fmt: skip
PICKED = Collection(
    name="picked", table="picked", paths=("lists/{list}",), entries=ArrayElements("orders"), selected=True,
    columns=(
        Column("list", "key", DocumentId()),
        _column("order_user", "key", EntryKey(), "user_id"),
        _column("order_id", "key", EntryKey(), "id"),
    ),
)  # fmt: skip
NOTES = Collection(
    name="notes", table="notes", paths=("users/{user}/notes/{note}",), selected=True,
    columns=(Column("id", "key", DocumentId()), Column("text", "compared", Field("text"))),
)  # fmt: skip
PINS = Collection(
    name="pins", table="pins", paths=("pins/{pin}",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("note_id", "compared", Field("note") >> reference_id, references="notes"),
    ),
)  # fmt: skip
CATALOG = Catalog((ORDERS, LINES, RETURNS, SHIPPED, PICKED, NOTES, PINS))
SCHEMA = """
CREATE TABLE orders (id text, user_id text, note text, PRIMARY KEY (id, user_id));
CREATE TABLE lines (user_id text, order_id text, n int, PRIMARY KEY (user_id, order_id, n),
  FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id) ON DELETE CASCADE);
CREATE TABLE returns (id text PRIMARY KEY, order_user text, order_id text, instead_user text, instead_id text,
  FOREIGN KEY (order_user, order_id) REFERENCES orders (user_id, id) ON DELETE CASCADE,
  FOREIGN KEY (instead_user, instead_id) REFERENCES orders (user_id, id) ON DELETE SET NULL);
CREATE TABLE shipped (parcel text, n int, order_user text, order_id text, PRIMARY KEY (parcel, n),
  FOREIGN KEY (order_id, order_user) REFERENCES orders);
CREATE TABLE picked (list text, order_user text, order_id text, PRIMARY KEY (list, order_id, order_user),
  FOREIGN KEY (order_id, order_user) REFERENCES orders ON DELETE CASCADE);
CREATE TABLE notes (id text PRIMARY KEY, text text);
CREATE TABLE pins (id text PRIMARY KEY, note_id text REFERENCES notes);
"""
NUMBERS = {"orders": 3, "lines": 2, "returns": 2, "shipped": 2, "picked": 2, "notes": 1, "pins": 2}
EVERYTHING: dict[str, Any] = {"collections": list(CATALOG.names), "scope": "all", "catalog": CATALOG}


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def shop(firestore, target_dsn):
    _execute(target_dsn, SCHEMA)
    to = firestore.document
    documents: dict[str, dict[str, Any]] = {
        "users/u1/orders/o1": {"note": "x"}, "users/u2/orders/o1": {"note": "y"}, "users/u2/orders/o2": {"note": "z"},
        "users/u1/orders/o1/lines/1": {}, "users/u2/orders/o1/lines/1": {},
        "returns/r1": {"order": to("users/u2/orders/o1"), "instead": to("users/u1/orders/o1")},
        "returns/r2": {"order": to("users/u2/orders/o2"), "instead": None},
        "parcels/p1": {"orders": [{"of": to("users/u1/orders/o1")}, {"of": to("users/u2/orders/o1")}]},
        "lists/l1": {"orders": [to("users/u1/orders/o1"), to("users/u2/orders/o1"), to("users/u1/orders/o1")]},
        "users/u7/notes/n1": {"text": "x"}, "pins/p1": {"note": to("users/u7/notes/n1")}, "pins/p2": {},
    }  # fmt: skip
    for path, fields in documents.items():
        to(path).set(fields)
    return firestore


def _counts(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {name: nonzero(part["counts"]) for name, part in found.items()}


def _run(client, emulator: str, dsn: str, **changes: Any):
    return reconciled(
        client.project, emulator, dsn, catalog=CATALOG, collections=list(CATALOG.names), max_share=100, **changes
    )


def test_keys_of_several_columns_come_out_of_one_reference(shop, emulator, target_dsn):
    """A dry run, an apply and the look after it agree, and no constraint is unknown."""
    missing = {name: {"missing": number} for name, number in NUMBERS.items()}
    assert _counts(dry_run(shop.project, emulator, target_dsn, **EVERYTHING)) == missing
    with gap_run(shop.project, emulator, target_dsn, **EVERYTHING) as run:
        assert backfill.preflight(run, by="a test")["preflight"]["unknown_constraints"] == {}
    assert _counts(apply(shop.project, emulator, target_dsn, **EVERYTHING)) == missing
    matching = {name: {"matching": number} for name, number in NUMBERS.items()}
    assert _counts(apply(shop.project, emulator, target_dsn, **EVERYTHING)) == matching
    assert (
        one(target_dsn, "SELECT (order_user, order_id, instead_user, instead_id)::text FROM returns WHERE id = 'r1'")
        == "(u2,o1,u1,o1)"
    )


@pytest.mark.parametrize("name", ["returns", "shipped", "picked", "lines", "pins"])
def test_a_parent_below_another_document_is_brought_by_its_path(shop, emulator, target_dsn, name):
    """An id alone says nothing of the documents above it: the reference does, or the key."""
    with gap_run(shop.project, emulator, target_dsn, **{**EVERYTHING, "collections": [name]}) as run:
        found = backfill.examine(run, name, dry=False)
    assert nonzero(found["counts"]) == {"missing": NUMBERS[name]}
    assert found["parents_inserted"] == {"returns": 3, "shipped": 2, "picked": 2, "lines": 2, "pins": 1}[name]


def test_what_refers_to_a_gone_document_goes_or_becomes_null(shop, emulator, target_dsn):
    """As a group: of ON DELETE SET NULL both columns, of CASCADE the row; the other user's order of the same id stays."""
    apply(shop.project, emulator, target_dsn, **EVERYTHING)
    shop.document("users/u1/orders/o1").delete()
    shop.document("users/u1/orders/o1/lines/1").delete()
    shop.document("parcels/p1").update({"orders": [{"of": shop.document("users/u2/orders/o1")}]})
    found = _run(shop, emulator, target_dsn, scope="sweep")
    assert {n: found.counts(n) for n in ("orders", "lines", "returns")} == {
        "orders": {"extra": 1}, "lines": {"extra": 1}, "returns": {"stale": 1},
    }  # fmt: skip
    for _ in range(2):
        found = _run(shop, emulator, target_dsn, scope="sweep", repair="all")
    assert found.alerts == []
    assert one(target_dsn, "SELECT array_agg(user_id || id ORDER BY user_id, id) FROM orders") == ["u2o1", "u2o2"]
    assert (
        one(target_dsn, "SELECT (order_user, order_id, instead_user, instead_id)::text FROM returns WHERE id = 'r1'")
        == "(u2,o1,,)"
    )


def test_an_array_of_references_fills_keys_of_several_columns(shop, emulator, target_dsn):
    """Equal elements are one row; one that moves stays it; one that is removed, no reference or of a gone document has none."""
    apply(shop.project, emulator, target_dsn, **EVERYTHING)
    to = shop.document
    orders = [
        to("users/u2/orders/o2"),
        to("users/u2/orders/o1"),
        to("users/u2/orders/o1"),
        "o1",
        to("users/u9/orders/o1"),
    ]
    to("lists/l1").set({"orders": orders})
    found = _run(shop, emulator, target_dsn, scope="sweep", repair="all")
    assert found.counts("picked") == {"missing": 1, "rejected": 2, "orphan": 1}
    assert {s["key"] for s in found.report["collections"][4]["samples"]["rejected"]} == {"l1/orders[3]", "l1/u1/o1"}
    to("lists/l1").set({"orders": [o for o in orders if o != "o1"]})
    found = _run(shop, emulator, target_dsn, scope="sweep", repair="all")
    assert found.counts("picked") == {"extra": 1, "orphan": 1, "absent": 1}  # the last is what could not be read
    assert one(target_dsn, "SELECT array_agg(order_user || order_id ORDER BY 1) FROM picked") == ["u2o1", "u2o2"]
    assert _run(shop, emulator, target_dsn, scope="sweep").counts("picked") == {"orphan": 1}


def test_a_reference_to_another_collection_is_rejected(shop, emulator, target_dsn):
    """An order's id that is taken for a note's."""
    shop.document("pins/p1").set({"note": shop.document("users/u7/drafts/n1")})
    shop.document("users/u7/drafts/n1").set({"text": "x"})
    found = apply(shop.project, emulator, target_dsn, **{**EVERYTHING, "collections": ["pins"]})["pins"]
    assert nonzero(found["counts"]) == {"missing": 1, "rejected": 1}


@pytest.mark.parametrize(
    "columns",
    [(Column("order_id", "compared", Field("order") >> reference_id, references="orders"),),
     (_column("order_id", "compared", Field("order"), "id"),),
     (_column("a", "compared", Field("order"), "id"), _column("b", "compared", Field("order"), "id"),
      _column("c", "compared", Field("order"), "user_id"))],
    ids=["none is named", "one is missing", "one twice"],
)  # fmt: skip
def test_a_key_of_several_columns_is_referenced_whole(columns):
    child = Collection(name="x", table="x", paths=("x/{x}",), columns=(Column("id", "key", DocumentId()), *columns))
    with pytest.raises(CatalogError, check=coded("reference-lacks-key-columns")):
        Catalog((ORDERS, child))
