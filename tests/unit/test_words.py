"""The words for a column's value: conversions, and origins that are made of others. Each with what it makes of a value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.firestore.staging import Stager
from dualwrite.firestore.values import document_of
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
    Collection,
    Column,
    Computed,
    Constant,
    CreateTime,
    DocumentId,
    Field,
    FirstOf,
    Segment,
    WholeDocument,
)
from dualwrite.model.documents import Document, GeoPoint, Reference, Vector
from dualwrite.model.mapping import Json, Rejection, Row, map_document, staged
from tests.arbitrary import CREATED, document_at, fields_of, ids, message_of

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
    (scaled(2), 19.99, Decimal("1999")),
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
        assert isinstance(unit, Rejection)
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


def test_a_function_that_raises_rejects_its_document_and_tells_no_value():
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
def test_any_document_becomes_the_same_row_or_rejection_either_way(data):
    names = data.draw(st.lists(ids, min_size=5, max_size=5))
    _short(EVERY, document_at(EVERY, names, data.draw(fields_of(EVERY))))
