"""The words for a column's value: conversions, and origins that are made of others. Each with what it makes of a value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualwrite.firestore.staging import Stager
from dualwrite.firestore.values import document_of
from dualwrite.model.cell_types import Json
from dualwrite.model.conversions import (
    Conversion,
    array,
    boolean,
    count,
    each,
    epoch_milliseconds,
    epoch_seconds,
    first,
    http_date,
    integer,
    iso_text,
    iso_time,
    json_text,
    latitude,
    longitude,
    lower,
    null_if_empty,
    number,
    one_of,
    plain_json,
    point_text,
    reference_id,
    reference_path,
    scaled,
    segment,
    text,
    timestamp_map,
    trim,
    upper,
    vector_text,
)
from dualwrite.model.declaration import (
    ArrayElements,
    Collection,
    Column,
    Computed,
    Constant,
    CreateTime,
    DocumentId,
    EntryField,
    EntryIndex,
    EntryKey,
    EntryValue,
    Field,
    FirstOf,
    MapEntries,
    Segment,
    WholeDocument,
)
from dualwrite.model.documents import Document, GeoPoint, Reference, Vector
from dualwrite.model.keys import key_of_path
from dualwrite.model.mapping import Rejection, Row, is_odd, map_document, staged
from tests.arbitrary import CREATED, document_at, fields_of, five_ids, message_of, values

AT = datetime(2026, 1, 15, 12, 52, 0, 123000, tzinfo=UTC)
USER = Reference("projects/p/databases/(default)/documents/tenants/t1/users/u1")

MADE = [
    (iso_time, "2026-01-15T12:52:00.123Z", AT),
    (iso_time, "2026-01-15T21:52:00.123+09:00", AT),
    (http_date, "Thu, 15 Jan 2026 12:52:00 GMT", AT.replace(microsecond=0)),
    (epoch_milliseconds, 1_768_481_520_123, AT),
    (epoch_milliseconds, 1_768_481_520_123.0, AT),
    (epoch_seconds, 1_768_481_520, AT.replace(microsecond=0)),
    (epoch_milliseconds, -1, datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
    (timestamp_map, {"_seconds": 1_768_481_520, "_nanoseconds": 123_999_999}, AT),
    (timestamp_map, {"seconds": 1_768_481_520, "nanoseconds": 123_000_000}, AT),
    (iso_text, AT, "2026-01-15T12:52:00.123Z"),
    (iso_text, datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    (reference_id, USER, "u1"),
    (reference_path, USER, "tenants/t1/users/u1"),
    (segment(1), USER, "t1"),
    (latitude, GeoPoint(37.5, 127.0), Decimal("37.5")),
    (longitude, GeoPoint(37.5, 127.0), Decimal("127.0")),
    (point_text, GeoPoint(37.5, 127.0), "POINT(127.0 37.5)"),
    (vector_text, Vector((1.0, 0.5)), "[1.0,0.5]"),
    (integer, "7", 7),
    (integer, 7.0, 7),
    (number, " 7.10 ", Decimal("7.10")),
    (boolean, "TRUE", True),
    (boolean, 0, False),
    (text, 5.0, "5"),
    (text, True, "true"),
    (scaled(-2), 1999, Decimal("19.99")),
    (scaled(2), 19.99, Decimal(1999)),
    (trim >> lower, " A ", "a"),
    (upper, "a", "A"),
    (null_if_empty, "", None),
    (null_if_empty, "a", "a"),
    (one_of({"CANCELLED": "canceled", "canceled": "canceled"}), "CANCELLED", "canceled"),
    (one_of({"mon": 1, "tue": 2}, "integer"), "tue", 2),
    (count, [1, 2], 2),
    (count, {"a": 1}, 1),
    (first, ["a", "b"], "a"),
    (first, [], None),
    (array, ["a", None, "b"], ["a", None, "b"]),
    (array, [1, 2.0, 2.5, True], ["1", "2", "2.5", "true"]),
    (each(reference_id), [USER], ["u1"]),
    (plain_json, {"at": AT, "by": [USER], "where": GeoPoint(1.0, 2.0)},
     Json('{"at":"2026-01-15T12:52:00.123Z","by":["tenants/t1/users/u1"],"where":{"latitude":1.0,"longitude":2.0}}')),
    (json_text, '{"b": 1, "a": 2}', Json('{"a":2,"b":1}')),
]  # fmt: skip


def made(column: Column, fields: dict) -> object:
    """The column's cell, or the reason why there is none."""
    collection = Collection("things", "things", ("things/{thing}",), (Column("id", "key", DocumentId()), column))
    [unit] = map_document(collection, Document("things/a", fields, CREATED, CREATED)) or []
    assert _short(collection, Document("things/a", fields, CREATED, CREATED)) == isinstance(unit, Row)
    return unit.cells[1] if isinstance(unit, Row) else unit.reason


def _short(collection: Collection, document: Document) -> bool:
    """Whether Firestore's own message becomes a row, which must be that of the plain document."""
    message = message_of(document)
    short = Stager(collection).stage(7, message)
    [unit] = map_document(collection, document_of(message)) or []
    if short is None:
        assert isinstance(unit, Rejection) or is_odd(document.path), "or it looked like an id that can't be asked for"
        return False
    assert isinstance(unit, Row)
    assert [(type(cell), repr(cell)) for cell in short] == [(type(cell), repr(cell)) for cell in staged(7, unit)]
    return True


@pytest.mark.parametrize(
    ("conversion", "value", "cell"), MADE, ids=lambda v: v.name if isinstance(v, Conversion) else ""
)
def test_a_conversion_makes_of_a_value_what_it_says(conversion, value, cell):
    found = made(Column("c", "compared", Field("v") >> conversion), {"v": value})
    assert (type(found), found) == (type(cell), cell)


REFUSED = [
    (iso_time, "2026-01-15T12:52:00"), (iso_time, "soon"), (iso_time, 5), (iso_time, AT), (http_date, "soon"),
    (epoch_seconds, "5"), (epoch_milliseconds, True), (epoch_seconds, 1e18), (timestamp_map, {"seconds": 1}),
    (reference_id, "u1"), (segment(9), USER), (latitude, "37"), (integer, "7.5"), (integer, "0x7"), (integer, True),
    (number, "NaN"), (number, "1_000"), (number, float("inf")), (boolean, "yes"), (boolean, 2), (text, AT),
    (one_of({"a": "b"}), "SECRET"), (one_of({"a": "b"}), ["SECRET"]), (count, "abc"), (first, "abc"), (array, "abc"),
    (array, [["a"]]), (each(lower), ["a", 5]), (json_text, "{"), (plain_json, {"a": float("nan")}), (plain_json, b"x"),
]  # fmt: skip


@pytest.mark.parametrize(("conversion", "value"), REFUSED)
def test_what_a_conversion_cant_take_is_rejected_with_its_name(conversion, value):
    reason = made(Column("amount", "compared", Field("v") >> conversion), {"v": value})
    assert isinstance(reason, str)
    assert "amount (field v)" in reason
    assert conversion.name in reason or reason.startswith(("wrong_type", "not_finite", "not_json"))
    assert str(value) not in reason


@pytest.mark.parametrize("conversion", [iso_time, epoch_milliseconds, epoch_seconds])
@given(moments=st.lists(st.integers(0, 4_000_000_000_000), min_size=2, max_size=2))
def test_what_goes_back_comes_again_and_keeps_the_order(conversion, moments):
    one, other = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=m) for m in moments)
    assert conversion.convert(conversion.back(one)) == one
    assert (conversion.back(one) <= conversion.back(other)) == (one <= other)


def full_name(given_name: str | None, family_name: str | None) -> str | None:
    return " ".join(part for part in (given_name, family_name) if part) or None


ORIGINS = {
    "a constant": (Column("c", "compared", Constant("project")), {}, "project"),
    "a whole number": (Column("c", "compared", Constant(7)), {}, 7),
    "the second of two": (Column("c", "compared", FirstOf(Field("a"), Field("b"))), {"a": None, "b": "x"}, "x"),
    "one of them converted": (
        Column("c", "compared", FirstOf(Field("a"), Field("b") >> iso_time), "timestamp"), {"b": "2026-01-15T12:52:00.123Z"}, AT),
    "a name with a dot": (Column("c", "compared", Field(("project.name",))), {"project.name": "x", "project": {"name": "y"}}, "x"),
    "a dot below a map": (Column("c", "compared", Field(("m", "a.b"))), {"m": {"a.b": "x"}}, "x"),
    "a function of fields": (Column("c", "compared", Computed(full_name, "first", "n.last")), {"n": {"last": "B"}, "first": "A"}, "A B"),
    "a function of nothing": (Column("c", "compared", Computed(full_name, "first", "n.last")), {}, None),
    "the document": (Column("c", "compared", WholeDocument() >> plain_json), {"b": 1, "a": AT}, Json('{"a":"2026-01-15T12:52:00.123Z","b":1}')),
    "create_time as text": (Column("c", "compared", CreateTime() >> iso_text), {}, "2026-01-01T00:00:00.000Z"),
    "an id converted": (Column("c", "compared", DocumentId() >> upper), {}, "A"),
}  # fmt: skip


@pytest.mark.parametrize(("column", "fields", "cell"), ORIGINS.values(), ids=ORIGINS.keys())
def test_an_origin_finds_what_it_says(column, fields, cell):
    assert made(column, fields) == cell


def test_a_function_that_raises_rejects_its_document():
    """The reason tells no value."""

    def breaks(value: str) -> str:
        raise ValueError(value)

    reason = made(Column("c", "compared", Computed(breaks, "v")), {"v": "secret"})
    assert reason == "not_computed: breaks of c (computed of v) raises ValueError"


EVERY = Collection(
    "every", "every", ("a/{a}/every/{id}",),
    (
        Column("id", "key", DocumentId()),
        Column("a", "compared", Segment("a") >> lower),
        Column("at", "compared", FirstOf(Field("at"), Field("iso") >> iso_time), "timestamp"),
        Column("user_id", "compared", Field("user") >> reference_id),
        Column("n", "derived", Field("n"), "integer", absent=0),
        Column("tags", "compared", Field("tags") >> array),
        Column("label", "compared", Field(("a.b",))),
        Column("named", "compared", Computed(lambda *found: repr(found), "user", "m.x")),
        Column("all", "insert_only", WholeDocument() >> plain_json),
    ),
)  # fmt: skip


@given(data=st.data())
def test_any_document_is_the_same_row_or_rejection_either_way(data):
    names = data.draw(five_ids)
    _short(EVERY, document_at(EVERY, names, data.draw(fields_of(EVERY))))


# --- entries with fields --------------------------------------------------------------------------------------------


def entries_of(entries: ArrayElements | MapEntries, key: Column, *columns: Column) -> Collection:
    return Collection("lines", "lines", ("orders/{order}",), (Column("order_id", "key", Segment("order")), key, *columns),
                      entries=entries)  # fmt: skip


def units(collection: Collection, fields: dict) -> list[tuple]:
    """Of each unit its cells without the order's id, or its entry, the last part of its label and its reason."""
    return [
        unit.cells[1:] if isinstance(unit, Row) else (unit.entry, unit.label.rsplit("/", 1)[-1], unit.reason)
        for unit in map_document(collection, Document("orders/o1", fields, CREATED, CREATED)) or []
    ]


BY_SKU = entries_of(
    ArrayElements("items"), Column("sku", "key", EntryField("sku")), Column("place", "compared", EntryIndex()),
    Column("n", "compared", EntryField("q.n"), "integer"),
)  # fmt: skip
BY_PLACE = entries_of(
    ArrayElements("items"), Column("line", "key", EntryIndex(1)), Column("sku", "compared", EntryField("sku"))
)


def test_elements_are_rows_by_their_place_or_by_a_field():
    items = {"items": [{"sku": "a", "q": {"n": 2}}, {"sku": "b"}]}
    assert units(BY_SKU, items) == [("a", 0, 2), ("b", 1, None)]
    assert units(BY_PLACE, items) == [("1", "a"), ("2", "b")]
    assert BY_SKU.column("place").type == "integer"
    assert BY_PLACE.column("line").type == "text"


def test_a_map_of_maps_gives_a_row_for_each_key():
    members = entries_of(
        MapEntries("members"), Column("user_id", "key", EntryKey(), references="users"),
        Column("role", "compared", FirstOf(EntryField("role"), EntryField(("old.role",)) >> lower)),
        Column("all", "compared", EntryValue() >> plain_json),
    )  # fmt: skip
    found = units(members, {"members": {"u1": {"role": "owner"}, "u2": {"old.role": "GUEST"}, "u3": "x"}})
    assert found == [
        ("u1", "owner", Json('{"role":"owner"}')),
        ("u2", "guest", Json('{"old.role":"GUEST"}')),
        ("u3", "u3", "wrong_type: members[2] is a string, a map is expected"),
    ]


def test_an_element_that_is_no_map_is_rejected_alone():
    """It keeps its place."""
    items = {"items": [{"sku": "a"}, "b", None, {"sku": "c"}]}
    assert units(BY_PLACE, items) == [
        ("1", "a"),
        ("2", "2", "wrong_type: items[1] is a string, a map is expected"),
        ("3", "3", "wrong_type: items[2] is null, a map is expected"),
        ("4", "c"),
    ]
    assert [u for u in units(BY_SKU, items) if u[0] is None] == [
        (None, "items[1]", "wrong_type: items[1] is a string, a map is expected"),
        (None, "items[2]", "wrong_type: items[2] is null, a map is expected"),
    ]


def test_an_element_with_no_key_or_anothers_is_rejected_alone():
    """Which of two rows of one key is right nobody can say: the first counts, and the second is told."""
    found = units(BY_SKU, {"items": [{"q": {"n": 1}}, {"sku": "a"}, {"sku": "a"}, {"sku": 5}, {"sku": "b"}]})
    assert found == [
        (None, "items[0]", "missing_value: sku is a key and entry's field sku is absent"),
        ("a", 1, None),
        (None, "items[2]", "duplicate_entry: an earlier entry of items has the same key"),
        (None, "items[3]", "wrong_type: sku (entry's field sku) is an integer, a string is expected"),
        ("b", 4, None),
    ]


@pytest.mark.parametrize(("items", "unknown"), [
    ([{"sku": 5}], True), (["a"], True), ([{"n": 1}], False), ([None], False), ([{"sku": "a"}, {"sku": "a"}], False),
])  # fmt: skip
def test_a_key_that_cant_be_read_may_be_any_row_of_its_document(items, unknown):
    """`{sku: 5}` may well be the row of sku 5: a row that no other element accounts for isn't extra then."""
    found = map_document(BY_SKU, Document("orders/o1", {"items": items}, CREATED, CREATED)) or []
    assert [unit.entire for unit in found if isinstance(unit, Rejection)] == [unknown]


def test_an_entrys_key_may_be_converted_as_all_entries_are_read():
    by_number = entries_of(ArrayElements("items"), Column("line", "key", EntryField("line") >> text))
    assert units(by_number, {"items": [{"line": 7.0}, {"line": 7}]}) == [
        ("7",), (None, "items[1]", "duplicate_entry: an earlier entry of items has the same key"),
    ]  # fmt: skip
    by_user = entries_of(
        ArrayElements("users"), Column("user_id", "key", EntryKey() >> reference_id, references="users")
    )
    assert units(by_user, {"users": [USER, USER, Reference("projects/p/databases/d/documents/admins/u1"), "u2"]}) == [
        ("u1",), (None, "users[2]", "duplicate_entry: an earlier entry of users has the same key"),
        (None, "users[3]", "not_converted: user_id (entry) is a string, which reference_id can't take (TypeError)"),
    ]  # fmt: skip


def test_a_function_may_take_fields_of_its_entry_and_document():
    priced = entries_of(
        ArrayElements("items"), Column("line", "key", EntryIndex()),
        Column("price", "compared", Computed(full_name, EntryField("price"), "currency")),
    )  # fmt: skip
    assert priced.fields == ("items", "currency")
    assert units(priced, {"items": [{"price": "5"}], "currency": "EUR"}) == [("0", "5 EUR")]


def test_a_label_tells_an_entrys_place_and_never_its_content():
    document = Document("orders/o1", {"items": [{"sku": "secret"}]}, CREATED, CREATED)
    [by_sku], [by_place] = map_document(BY_SKU, document) or [], map_document(BY_PLACE, document) or []
    assert by_sku.label.startswith("o1/~")
    assert "secret" not in by_sku.label
    assert by_place.label == "o1/1"


@pytest.mark.parametrize("collection", [BY_SKU, BY_PLACE], ids=["by sku", "by place"])
@given(items=st.one_of(values, st.lists(st.one_of(values, st.fixed_dictionaries({"sku": values})))))
@example([{"sku": "\x00"}, {"sku": ""}, {"sku": "a" * 2000}, {"sku": "/"}])
def test_whatever_an_array_holds_each_element_ends_once(collection, items):
    document = Document("orders/o1", {"items": items}, CREATED, CREATED)
    found = map_document(collection, document_of(message_of(document))) or []
    if isinstance(items, list):
        assert len(found) == len(items)
    assert len({unit.label for unit in found}) == len(found)
    keys = [unit.key for unit in found if isinstance(unit, Row)]
    assert len(set(keys)) == len(keys)
    assert [key_of_path(collection, unit.path, unit.entry) for unit in found if isinstance(unit, Row)] == keys
