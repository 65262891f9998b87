"""Rows out of a list that a person's function makes of a document: what it makes of one, and what becomes of one that it can't take."""

from __future__ import annotations

import itertools
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualwrite.model import entries
from dualwrite.model.cell_types import Json
from dualwrite.model.conditions import Is
from dualwrite.model.conversions import lower, plain_json, text
from dualwrite.model.declaration import (
    ArrayElements,
    Collection,
    Column,
    Computed,
    ComputedEntries,
    CreateTime,
    DocumentId,
    DocumentPath,
    EntryField,
    EntryIndex,
    EntryKey,
    EntryValue,
    Field,
    MapEntries,
    Segment,
    WholeDocument,
)
from dualwrite.model.documents import Document
from dualwrite.model.errors import CatalogError
from dualwrite.model.keys import key_of_path
from dualwrite.model.mapping import Rejection, Row, map_document
from tests.arbitrary import CREATED, ids, values

ID = Column("place_id", "key", DocumentId())
DAY = Column("day", "key", EntryField("day"))
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - what a function may return
OPENS = Column("opens", "key", EntryField("opens"))
CLOSES = Column("closes", "compared", EntryField("closes"))


def opening_hours(hours: dict[str, list[dict[str, str]]] | None) -> list[dict[str, Any]]:
    return [
        {"day": day, "opens": slot["from"], "closes": slot.get("to")}
        for day, slots in (hours or {}).items()
        for slot in slots
    ]


def places(made: Any, *columns: Column, **more: Any) -> Collection:
    return Collection("hours", "hours", ("places/{place}",), (ID, *columns), entries=made, **more)


HOURS = places(ComputedEntries(opening_hours, "hours"), DAY, OPENS, CLOSES)


def found(collection: Collection, fields: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Of each unit its cells without the place's id, or whose it is, and why it is none."""
    return [
        unit.cells[1:] if isinstance(unit, Row) else (unit.entry, unit.label, unit.entire, unit.reason)
        for unit in map_document(collection, Document("places/p1", fields, CREATED, CREATED)) or []
    ]


def returns(value: Any) -> Any:
    def made(hours: Any) -> Any:
        return value

    return made


def of(value: Any, *columns: Column) -> list[tuple[Any, ...]]:
    return found(places(ComputedEntries(returns(value), "hours"), *(columns or (DAY, CLOSES))), {})


def test_entries_within_entries_are_rows_by_the_fields_of_a_key():
    slots = {
        "mon": [{"from": "09:00", "to": "12:00"}, {"from": "13:00"}],
        "tue": [],
        "wed": [{"from": "09:00", "to": "17:00"}],
    }
    assert HOURS.fields == ("hours",)
    assert found(HOURS, {"hours": slots}) == [
        ("mon", "09:00", "12:00"), ("mon", "13:00", None), ("wed", "09:00", "17:00"),
    ]  # fmt: skip
    assert found(HOURS, {}) == found(HOURS, {"hours": None}) == []


def test_a_row_keyed_by_several_columns_leads_back_to_its_entry():
    [row] = map_document(HOURS, Document("places/p1", {"hours": {"mon": [{"from": "09:00"}]}}, CREATED, CREATED)) or []
    assert isinstance(row, Row)
    assert (row.key, row.entry) == (("p1", "mon", "09:00"), '["mon", "09:00"]')
    assert key_of_path(HOURS, row.path, row.entry) == row.key
    assert row.label.startswith("p1/~")
    assert "mon" not in row.label, "content"


def test_an_array_or_a_map_may_have_a_key_of_several_columns():
    by_two = places(ArrayElements("items"), DAY, OPENS)
    item = {"day": "mon", "opens": "09:00"}
    assert found(by_two, {"items": [item, {**item, "opens": "13:00"}, {"day": "mon"}, item]}) == [
        ("mon", "09:00"), ("mon", "13:00"),
        (None, "p1/items[2]", False, "missing_value: opens is a key and entry's field opens is absent"),
        (None, "p1/items[3]", False, "duplicate_entry: an earlier entry of items has the same key"),
    ]  # fmt: skip
    of_map = places(MapEntries("m"), Column("name", "key", EntryKey()), OPENS)
    assert found(of_map, {"m": {"a": {"opens": "x"}, "b": {"opens": "x"}}}) == [("a", "x"), ("b", "x")]


def test_equal_entries_are_one_row_different_ones_of_a_key_none():
    """Which of the two is right nobody can say: the row of that key stays as it is, the others are written."""
    mon, tue = {"day": "mon", "closes": "17:00"}, {"day": "tue", "closes": "17:00"}
    assert of([mon, dict(mon), tue]) == [("mon", "17:00"), ("tue", "17:00")]
    differ = "duplicate_entry: made returns two different entries with one key"
    [(entry, _, entire, why), other] = of([mon, {**mon, "closes": "18:00"}, mon, tue])
    assert ((entry, entire, why), other) == (("mon", False, differ), ("tue", "17:00"))


def test_texts_may_be_entries_and_places_may_be_keys():
    assert of(["b", "a", "b"], Column("tag", "key", EntryKey())) == [("b",), ("a",)]
    assert of([{"closes": "x"}, {"closes": "x"}], Column("n", "key", EntryIndex(1)), CLOSES) == [("1", "x"), ("2", "x")]
    assert of(["a", 5], Column("tag", "key", EntryKey()))[1:] == [
        (None, "p1/made[1]", True, "wrong_type: made holds an integer, a string is expected")
    ]


def test_entries_may_be_filtered_converted_and_joined():
    """They are joined with their document."""

    def rated(scores: dict[str, int], whole: dict[str, Any], path: str) -> list[dict[str, Any]]:
        return [{"who": who, "n": n, "of": f"{path}:{len(whole)}"} for who, n in sorted(scores.items())]

    collection = places(
        ComputedEntries(rated, "scores", WholeDocument(), DocumentPath()),
        Column("who", "key", EntryField("who") >> lower), Column("n", "compared", EntryField("n"), "integer"),
        Column("label", "compared", Computed("{}/{}".format, EntryField("of"), "title")),
        where=Is(EntryField("n"), 1, 2),
    )  # fmt: skip
    assert collection.fields == ("scores", "", "title")
    fields = {"scores": {"A": 1, "B": 2, "C": 3}, "title": "t"}
    assert found(collection, fields) == [("a", 1, "places/p1:2/t"), ("b", 2, "places/p1:2/t")]


def test_a_columns_function_may_take_the_path_and_whole_document():
    named = Column("c", "compared", Computed("{}:{}:{}".format, DocumentPath(), Segment("place"), Field("a") >> lower))
    counted = Column("n", "compared", Computed(lambda whole: len(whole), WholeDocument()), "integer")
    collection = Collection("p", "p", ("places/{place}",), (ID, named, counted))
    assert (collection.fields, found(collection, {"a": "X", "b": 1})) == (("a", ""), [("places/p1:p1:x", 2)])


def test_a_function_may_take_a_part_of_an_id():
    user, product = Column("user_id", "key", Segment("user")), Column("product_id", "key", Segment("product"))
    collection = Collection(
        "r", "r", ("ratings/{user}_{product}",), (user, product, DAY),
        entries=ComputedEntries(lambda product, path: [{"day": f"{product}:{path}"}], Segment("product"), DocumentPath()),
    )  # fmt: skip
    [row] = map_document(collection, Document("ratings/u1_p1", {}, CREATED, CREATED)) or []
    assert isinstance(row, Row)
    assert row.key == ("u1", "p1", "p1:ratings/u1_p1")


def raising(hours: Any) -> Any:
    raise KeyError(hours)


counter = itertools.count()


def counting(hours: Any) -> Any:
    return [{"day": "mon", "closes": str(next(counter))}]


class Never:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("secret")

    __hash__ = object.__hash__


FAULTS = {
    "it raises": (raising, "raises KeyError"),
    "it counts": (counting, "makes two lists of one document: it must depend on nothing but its arguments"),
    "a text": (returns("secret"), "returns a string, a list is expected"),
    "a map": (returns({"secret": 1}), "returns a map, a list is expected"),
    "an iterator": (lambda hours: iter([]), "returns of an unknown type, a list is expected"),
    "too many": (lambda hours: ["a"] * (entries.MOST_COMPUTED + 1), "returns more than 50,000 entries"),
    "an unknown field": (returns([{"day": "mon", "secret": 1}]), "returns an entry with 1 field that no column takes"),
    "a key that is no text": (returns([{"day": "mon", 5: 1, "x": 2}]), "returns an entry with 2 fields that no column takes"),
    "what can't be compared": (lambda hours: [{"day": "mon", "closes": Never()}], "makes two lists of one document: it must depend "
                               "on nothing but its arguments"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_function_that_fails_costs_its_document_alone(case):
    """Nothing is known of the document's entries, so all of its rows stay; and the reason tells nothing of its content."""
    function, why = FAULTS[case]
    name = function.__name__
    assert found(places(ComputedEntries(function, "hours"), DAY, CLOSES), {"hours": {"secret": 1}}) == [
        (None, "p1", True, f"not_computed: {name} of entries (computed of hours) {why}")
    ]


ODD = {
    "no map": ("secret", "wrong_type: made[0] is a string, a map is expected"),
    "nothing": (None, "wrong_type: made[0] is null, a map is expected"),
    "no key": ({"closes": "x"}, "missing_value: day is a key and entry's field day is absent"),
    "a null key": ({"day": None}, "missing_value: day is a key and entry's field day is absent"),
    "another key": ({"day": 5}, "wrong_type: day (entry's field day) is an integer, a string is expected"),
    "half a key": (
        {"day": "\ud800"},
        "surrogate: day (entry's field day) holds half a character, which Postgres text can't",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_an_entry_without_a_key_may_be_any_row_of_its_document(case):
    """So a repair takes none of its rows for extra: the function may be wrong, not the document."""
    entry, why = ODD[case]
    assert of([entry, {"day": "mon"}]) == [(None, "p1/made[0]", True, why), ("mon", None)]


@pytest.mark.parametrize(("cell", "type", "why"), [
    ({1, 2}, "text", "wrong_type: closes (entry's field closes) is of an unknown type, a string is expected"),
    ("\ud83d", "text", "surrogate: closes (entry's field closes) holds half a character, which Postgres text can't"),
    (NAIVE, "timestamp", "wrong_type: closes (entry's field closes) is a time without an offset, a timestamp is expected"),
    (Decimal("NaN"), "numeric", "not_finite: closes (entry's field closes) is NaN or infinite"),
    ({"a": "\ud83d"}, "json", "surrogate: closes (entry's field closes) holds half a character, which jsonb can't"),
    ({5: "a"}, "json", "not_json: closes (entry's field closes) holds a map whose key is an integer, which JSON has no form for"),
    ([NAIVE], "array",
     "wrong_type: closes (entry's field closes) is a time without an offset, a timestamp is expected"),
])  # fmt: skip
def test_a_value_that_no_document_could_hold_is_rejected_alone(cell, type, why):
    [(entry, _, entire, reason), other] = of(
        [{"day": "mon", "closes": cell}, {"day": "tue"}], DAY, Column("closes", "compared", EntryField("closes"), type)
    )
    assert ((entry, entire, reason), other) == (("mon", False, why), ("tue", None))


def test_a_function_changes_only_its_own_copy_of_the_document():
    def empties(hours: list[Any], whole: dict[str, Any]) -> list[dict[str, Any]]:
        made = [{"day": hours.pop()} for _ in list(hours)]
        whole["hours"].clear()
        return made

    collection = places(
        ComputedEntries(empties, "hours", WholeDocument()), DAY,
        Column("n", "compared", Computed(lambda hours: hours.pop(), "hours")), Column("all", "compared", WholeDocument() >> plain_json),
    )  # fmt: skip
    fields = {"hours": ["a", "b"]}
    whole = Json('{"hours":["a","b"]}')
    assert found(collection, fields) == [("b", "b", whole), ("a", "b", whole)]
    assert fields == {"hours": ["a", "b"]}


def test_the_order_of_a_maps_keys_gives_no_other_rows():
    def keys(hours: dict[str, Any]) -> list[str]:
        return list(hours)

    numbered = places(ComputedEntries(lambda hours: [{"day": k} for k in keys(hours)], "hours"), Column("n", "key", EntryIndex()),
                      Column("day", "compared", EntryField("day")))  # fmt: skip
    assert (
        found(numbered, {"hours": {"b": 1, "a": 2}})
        == found(numbered, {"hours": {"a": 2, "b": 1}})
        == [("0", "a"), ("1", "b")]
    )


def test_a_dotted_name_keeps_the_rows_of_its_document():
    collection = places(ComputedEntries(opening_hours, "a.hours"), DAY, OPENS, CLOSES)
    [(_, label, entire, why)] = found(collection, {"a.hours": {}})
    assert (label, entire, why.split(":")[0]) == ("p1", True, "dotted_name")


entry = st.one_of(
    values, st.fixed_dictionaries({"day": st.one_of(ids, values)}, optional={"closes": values, "x": values})
)


@given(made=st.one_of(values, st.lists(entry, max_size=6)))
@example(made=[{"day": "\x00"}, {"day": "~"}, {"day": "a" * 2000}, {"day": "/"}, {"day": ""}])
def test_whatever_a_function_returns_each_row_has_its_own_key(made):
    collection = places(
        ComputedEntries(returns(made), "hours"), DAY, Column("closes", "compared", EntryField("closes"))
    )
    units = map_document(collection, Document("places/p1", {}, CREATED, CREATED)) or []
    rows = [unit for unit in units if isinstance(unit, Row)]
    assert len({unit.label for unit in units}) == len(units)
    assert len({row.key for row in rows}) == len(rows)
    assert [key_of_path(collection, row.path, row.entry) for row in rows] == [row.key for row in rows]
    told = {unit.entry for unit in units}
    if not any(isinstance(unit, Rejection) and unit.entire for unit in units):
        assert told == {e["day"] for e in made or ()}


@given(st.lists(st.text(max_size=4), min_size=1, max_size=3))
def test_what_tells_an_entry_comes_apart_again(parts):
    assert entries.split(entries.joined(parts), len(parts)) == parts


async def eventually(hours: Any) -> Any:
    return []


def generated(hours: Any) -> Any:
    yield {}


REFUSED = {
    "no function": (ComputedEntries("opening_hours", "hours"), "'opening_hours' is no function"),
    "too many values": (
        ComputedEntries(opening_hours, "hours", "closed"),
        "opening_hours can't be called with 2 values",
    ),
    "no value": (ComputedEntries(list), "Name fields, or WholeDocument()"),
    "a generator": (ComputedEntries(generated, "hours"), "generated yields"),
    "a coroutine": (ComputedEntries(eventually, "hours"), "eventually is async"),
    "an entry": (ComputedEntries(opening_hours, EntryField("x")), "EntryField comes from an entry"),
    "a stand-in": (ComputedEntries(opening_hours, Field("a", CreateTime())), "Use FirstOf"),
    "an unknown segment": (ComputedEntries(opening_hours, Segment("x") >> text), "names 'x'"),
    "a bad path": (ComputedEntries(opening_hours, "a..b"), "'a..b'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_function_that_cant_make_entries_is_refused(case):
    declared, message = REFUSED[case]
    with pytest.raises(CatalogError) as refused:
        places(declared, DAY)
    assert message in str(refused.value)


@pytest.mark.parametrize(("column", "message"), [
    (Column("c", "compared", EntryValue()), "Only a map's entries have EntryValue"),
    (Column("c", "key", EntryKey()), "Key it by EntryField(...) or EntryIndex()"),
    (Column("c", "compared", Computed(opening_hours)), "opening_hours can't be called with 0 values"),
    (Column("c", "compared", Computed(generated, "a")), "generated yields"),
    (Column("c", "compared", Computed(text.convert, Segment("x"))), "names 'x'"),
])  # fmt: skip
def test_a_column_that_doesnt_fit_computed_entries_is_refused(column, message):
    with pytest.raises(CatalogError) as refused:
        places(ComputedEntries(opening_hours, "hours"), DAY, column)
    assert message in str(refused.value)
