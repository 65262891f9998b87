"""Conditions as values: what they hold of, what they can't judge, and that both ways from a document to a row agree."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.firestore.staging import Stager
from dualwrite.firestore.values import document_of
from dualwrite.model.conditions import Absent, AllOf, AnyOf, Is, Not
from dualwrite.model.conversions import boolean, lower
from dualwrite.model.declaration import (
    ArrayElements,
    Collection,
    Column,
    Computed,
    Constant,
    DocumentId,
    EntryField,
    EntryKey,
    EntryValue,
    Field,
    MapEntries,
    Segment,
)
from dualwrite.model.documents import Document
from dualwrite.model.errors import CatalogError
from dualwrite.model.mapping import Rejection, Row, map_document
from tests.arbitrary import message_of
from tests.refusals import coded

AT = datetime(2026, 2, 1, tzinfo=UTC)
ID = Column("id", "key", DocumentId())


def things(where: Any, *columns: Column, **more: Any) -> Collection:
    return Collection("things", "things", ("people/{person}/things/{thing}",), columns or (ID,), where=where, **more)


def judged(where: Any, **fields: Any) -> bool | str:
    """Whether there is a row; a text says why nobody can tell."""
    units = map_document(things(where), Document("people/p1/things/t1", fields, AT, AT))
    if units and isinstance(units[0], Rejection):
        return units[0].reason
    return bool(units)


REFUSED = "cant_be_judged"


@pytest.mark.parametrize(
    ("where", "fields", "expected"),
    [
        (Absent("a"), {}, True),
        (Absent("a"), {"a": None}, True),
        (Absent("a"), {"a": ""}, False),
        (Absent("a.b"), {"a": {"b": 1}}, False),
        (Absent("a.b"), {"a": 1}, True),
        (Absent(("a.b",)), {"a.b": 1}, False),
        (Absent("a.b"), {"a.b": 1}, "dotted_name"),
        (Is("a", "x", "y"), {"a": "y"}, True),
        (Is("a", "x"), {"a": "X"}, False),
        (Is("a", "x"), {}, False),
        (Is("a", "x"), {"a": None}, False),
        (Is("a", "x"), {"a": 1}, REFUSED),
        (Is("a", True), {"a": 1}, REFUSED),
        (Is("a", 1), {"a": True}, REFUSED),
        (Is("a", 1), {"a": 1.0}, True),
        (Is("a", 1.5, "x"), {"a": 2}, False),
        (Is("a", "x", True), {"a": True}, True),
        (Is("a", "x"), {"a": ["x"]}, REFUSED),
        (Not(Is("a", True)), {}, True),
        (Not(Is("a", True)), {"a": "true"}, REFUSED),
        (Is(Field("a") >> boolean, True), {"a": "true"}, True),
        (Is(Field("a") >> boolean, True), {"a": "perhaps"}, "not_converted"),
        (Is(Field("a") >> lower, "x"), {"a": "X"}, True),
        (Is(Computed(lambda a, b: a == b, "a", "b"), True), {"a": 1, "b": 1}, True),
        (Is(Segment("person"), "p1"), {}, True),
        (Is(DocumentId(), "t1", "t2"), {}, True),
        # What decides by itself does so, wherever it stands.
        (AllOf(Is("a", "x"), Absent("b")), {"a": 1, "b": 1}, False),
        (AllOf(Absent("b"), Is("a", "x")), {"a": 1, "b": 1}, False),
        (AllOf(Absent("b"), Is("a", "x")), {"a": 1}, REFUSED),
        (AnyOf(Is("a", "x"), Absent("b")), {"a": 1}, True),
        (AnyOf(Absent("b"), Is("a", "x")), {"a": 1}, True),
        (AnyOf(Is("a", "x"), Absent("b")), {"a": 1, "b": 1}, REFUSED),
        (AnyOf(Is("a", "x"), AllOf(Absent("b"), Not(Absent("c")))), {"a": "y", "c": 0}, True),
    ],
)
def test_a_condition_holds_fails_or_can_not_be_judged(where, fields, expected):
    found = judged(where, **fields)
    assert found == expected if isinstance(expected, bool) else str(found).startswith(expected)


@pytest.mark.parametrize(
    ("where", "words", "code"),
    [
        ("deletedAt", "str", "condition-malformed"),
        (Is("a"), "one or more", "condition-malformed"),
        (Is("a", None), "one or more", "condition-malformed"),
        (Is("a", float("nan")), "NaN", "condition-malformed"),
        (AllOf(), None, "condition-malformed"),
        (Not(AnyOf(Absent("a"), 3)), "int", "condition-malformed"),
        (Absent(""), None, "field-path-malformed"),
        (Absent("a`b"), None, "field-path-malformed"),
        (Absent(Constant(1)), None, "condition-looks-elsewhere"),
        (Absent(7), None, "condition-looks-elsewhere"),
        (Absent(EntryKey()), None, "entry-origin-without-entries"),
        (Is(Segment("nobody"), "x"), "nobody", "segment-unknown"),
    ],
)
def test_a_condition_that_says_nothing_is_refused_at_import(where, words, code):
    with pytest.raises(CatalogError, match=words, check=coded(code)):
        things(where)


def test_a_condition_on_entries_is_judged_for_each_of_them():
    tag = Column("tag", "key", EntryKey())
    tags = things(AllOf(Absent("gone"), Is(EntryValue(), True)), ID, tag, entries=MapEntries("tags"))
    fields = {"tags": {"a": True, "b": False, "c": None, "d": "yes", "e": True}}
    units = map_document(tags, Document("people/p1/things/t1", fields, AT, AT)) or []
    assert [u.entry for u in units if isinstance(u, Row)] == ["a", "e"]
    [rejection] = [u for u in units if isinstance(u, Rejection)]
    assert (rejection.entry, rejection.entire) == ("d", False)
    assert map_document(tags, Document("people/p1/things/t1", {**fields, "gone": 1}, AT, AT)) == []
    assert map_document(tags, Document("people/p1/things/t1", {"gone": 1, "tags": "wrong"}, AT, AT)) == []


def test_of_two_elements_with_one_key_the_one_that_fits_counts():
    """A line that was taken out and added again: the first of the two is no duplicate's earlier one."""
    line = Column("line", "key", EntryField("id"))
    lines = things(Absent(EntryField("gone")), ID, line, entries=ArrayElements("items"))
    fields = {"items": [{"id": "a", "gone": True}, {"id": "a"}, {"gone": True}, {"id": "b"}]}
    units = map_document(lines, Document("people/p1/things/t1", fields, AT, AT)) or []
    assert [(type(u), u.entry) for u in units] == [(Row, "a"), (Row, "b")]


def test_what_the_condition_looks_at_is_read():
    where = AllOf(Absent("gone"), Is(Field("state") >> lower, "x"), Is(Computed(max, "n", "m"), 1))
    assert things(where).fields == ("gone", "state", "n", "m")


VALUES = st.sampled_from([None, "x", "y", "", 1, 1.0, 2.5, True, False, [], {}, {"b": 1}, {"b": "x"}])
WHAT = st.sampled_from(["a", "b", "a.b", ("a.b",), Field("a") >> lower, Field("c") >> boolean, Segment("person")])
CONDITIONS = st.recursive(
    st.builds(Absent, WHAT)
    | st.builds(
        lambda what, values: Is(what, *values), WHAT, st.lists(st.sampled_from(["x", "", 1, 2.5, True]), min_size=1)
    ),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(lambda parts: AllOf(*parts), st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda parts: AnyOf(*parts), st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=6,
)


@given(CONDITIONS, st.dictionaries(st.sampled_from(["a", "b", "c", "a.b"]), VALUES))
def test_both_ways_from_a_document_judge_alike(where, fields):
    """The short way takes just what meets the condition; and Not turns only what could be judged."""
    collection = things(where, ID, Column("b", "insert_only", Field("b") >> lower))
    message = message_of(Document("people/p1/things/t1", fields, AT, AT))
    units = map_document(collection, document_of(message))
    staged = Stager(collection).stage(0, message)
    assert (staged is not None) == bool(units and isinstance(units[0], Row))
    if staged is not None:
        assert staged[2:] == units[0].cells
    found, turned = judged(where, **fields), judged(Not(where), **fields)
    assert turned == (not found) if isinstance(found, bool) else turned == found
