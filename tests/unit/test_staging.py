"""The short way gives what `map_document` gives, for everything that it accepts, and accepts what is ordinary."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dualwrite.catalog import CATALOG
from dualwrite.firestore.staging import Stager
from dualwrite.firestore.values import document_of
from dualwrite.model.declaration import Collection, Column, DocumentId, Field, Segment
from dualwrite.model.documents import Document, Vector
from dualwrite.model.mapping import Row, map_document, staged
from tests.arbitrary import CREATED, characters, document_at, fields_of, five_ids, message_of, values

STAGERS = {collection.name: Stager(collection) for collection in CATALOG}
ORDINARY = {
    "text": st.text(characters, max_size=20),
    "integer": st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-100, 100).map(float)),
    "numeric": st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)),
    "boolean": st.booleans(),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
    "json": st.dictionaries(st.text(characters, max_size=5), values, max_size=3),
}


MOMENTS = st.datetimes(timezones=st.just(UTC))
TEMPLATES = st.integers(0, 1)
IDS = st.sampled_from(["u1", "한글", "a.b"])


@cache  # made anew for each example, strategies take longer than what they draw
def ordinary_fields(collection):
    """Fields of the right types; those that the target requires are always there."""
    required, optional = {}, {}
    nested = {}
    for column in collection.columns:
        origin = column.origin
        while isinstance(origin, Field):
            value = IDS if column.references else ORDINARY[column.type]
            needed = (column.required or column.role == "key") and column.absent is None and origin.otherwise is None
            outer, _, inner = origin.path.partition(".")
            if inner:
                names = nested.setdefault(outer, ({}, {}))
                names[not needed][inner] = value if needed else st.one_of(st.none(), value)
            else:
                (required if needed else optional)[outer] = value if needed else st.one_of(st.none(), value)
            origin = origin.otherwise
    for outer, (needed, others) in nested.items():
        (required if needed else optional)[outer] = st.fixed_dictionaries(needed, optional=others)
    return st.fixed_dictionaries(required, optional=optional)


@cache
def any_fields(collection):
    return st.one_of(ordinary_fields(collection), fields_of(collection))


def check(collection: Collection, document: Document) -> bool:
    """Compares the two ways on one document; whether the short one accepted it."""
    message = message_of(document)
    stager = Stager(collection)
    short = stager.stage(7, message)
    units = map_document(collection, document_of(message))
    if short is None:
        return False
    assert units is not None
    [row] = units
    assert isinstance(row, Row), row
    assert [(type(cell), repr(cell)) for cell in short] == [(type(cell), repr(cell)) for cell in staged(7, row)]
    assert stager.key(short) == row.key
    return True


@pytest.mark.parametrize("collection", list(CATALOG), ids=lambda c: c.name)
@given(data=st.data())
def test_an_arbitrary_document_becomes_the_same_row_either_way(collection, data):
    names = data.draw(five_ids)
    fields = data.draw(any_fields(collection))
    created = data.draw(MOMENTS)
    check(collection, document_at(collection, names, fields, created, data.draw(TEMPLATES)))


@pytest.mark.parametrize("collection", [c for c in CATALOG if c.entries is None], ids=lambda c: c.name)
@given(data=st.data())
def test_a_document_of_the_right_types_takes_the_short_way(collection, data):
    fields = data.draw(ordinary_fields(collection))
    document = document_at(collection, ["a1", "b2", "c3", "d4", "e5"], fields, template=data.draw(TEMPLATES))
    assume(isinstance(map_document(collection, document)[0], Row))
    assert check(collection, document)


COMMENT = {"userId": "u1", "userName": "n", "content": "x", "createdAt": CREATED}
POST = {"authorId": "u1", "title": "t", "createdAt": CREATED}


def comment(**changes):
    return Document("boards/b/posts/p/comments/c", {**COMMENT, **changes}, CREATED, CREATED)


def short_way(collection_name: str, document: Document) -> dict[str, object] | None:
    collection = CATALOG[collection_name]
    found = STAGERS[collection_name].stage(0, message_of(document))
    check(collection, document)
    return None if found is None else dict(zip((c.name for c in collection.columns), found[2:], strict=True))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_timestamps_are_cut_off_at_milliseconds(moment):
    found = short_way("comments", comment(createdAt=moment))
    assert found is not None
    assert found["created_at"] == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_absent_null_and_empty_stay_what_they_are():
    assert short_way("comments", comment(userProfileImage=None))["user_profile_image"] is None
    assert short_way("comments", comment(userProfileImage=""))["user_profile_image"] == ""
    assert short_way("comments", comment(content=None))["content"] == ""
    assert short_way("comments", comment(userName=""))["user_name"] == ""


@pytest.mark.parametrize("count", [5, 5.0, -0.0])
def test_one_number_has_one_form(count):
    post = Document("boards/b/posts/p", {**POST, "countOfLikes": count, "engagementScore": 2.5}, CREATED, CREATED)
    found = short_way("posts", post)
    assert found["count_of_likes"] == int(count)
    assert type(found["count_of_likes"]) is int
    assert found["engagement_score"] == Decimal("2.5")


def test_an_absent_created_at_is_a_stand_in_from_create_time():
    fields = {k: v for k, v in COMMENT.items() if k != "createdAt"}
    document = Document("boards/b/posts/p/comments/c", fields, CREATED, CREATED)
    found = STAGERS["comments"].stage(0, message_of(document))
    assert found is not None
    assert found[1] == 0b1100_0000
    assert check(CATALOG["comments"], document)


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"reactionUser": {"userId": "u"}}, True),
        ({"reactionUser": {"userId": "u", "userName": None}}, True),
        ({"reactionUser": "u"}, False),
        ({"reactionUser": {}}, False),
        ({"reactionUser.userId": "u"}, False),
        ({"reactionUser": Vector((1.0,))}, False),
        ({"reactionUser": {"userId": {"userId": "u"}}}, False),
    ],
)
def test_nested_fields_are_found_through_maps_alone(fields, taken):
    path = "boards/b/posts/p/comments/c/replies/r/reactions/x"
    found = short_way("reactions", Document(path, {"content": "👍", **fields}, CREATED, CREATED))
    assert (found is not None) == taken
    if found:
        assert (found["comment_id"], found["reply_id"], found["user_id"]) == (None, "r", "u")


@pytest.mark.parametrize(
    "document",
    [
        comment(content="nul \x00 here"),
        comment(content=5),
        comment(userId="a/b"),
        comment(userId=".."),
        comment(userId="__x__"),
        comment(userId="__id07__"),
        Document("boards/b/posts/__x__/comments/c", COMMENT, CREATED, CREATED),
        comment(userId=""),
        comment(userId="é" * 751),
        comment(userId=None),
        comment(createdAt="2026-01-01"),
        Document("archives/2025/comments/c", COMMENT, CREATED, CREATED),
        Document("boards/b/posts/p/other/o/comments/c", COMMENT, CREATED, CREATED),
    ],
    ids=lambda d: d.path if d.fields is COMMENT else repr(d.fields)[:60],
)
def test_what_is_unusual_is_left_to_map_document(document):
    assert STAGERS["comments"].stage(0, message_of(document)) is None


@pytest.mark.parametrize("user", ["u" * 1500, "é" * 750, "a.b", "_a_", "한글", "__id7__", f"__id{-(2**63)}__"])
def test_every_id_that_firestore_allows_takes_the_short_way(user):
    assert short_way("comments", comment(userId=user))["user_id"] == user


def test_a_collection_with_entries_always_goes_to_map_document():
    document = Document("users/u", {"boardPermissions": {"b": "read"}}, CREATED, CREATED)
    assert STAGERS["user_board_permissions"].stage(0, message_of(document)) is None


@given(values)
@example(float("nan"))
@example({"a": "\x00"})
def test_any_value_in_any_column_is_the_same_cell_either_way(value):
    """Types and roles that the app's own catalog doesn't combine."""
    columns = [
        Column("id", "key", DocumentId()),
        Column("parent", "compared", Segment("parent"), "integer"),
    ]
    check(
        Collection("wrong", "t", ("ps/{parent}/cs/{c}",), tuple(columns)), Document("ps/1/cs/c", {}, CREATED, CREATED)
    )
    for type_name in ORDINARY:
        columns = (Column("id", "key", DocumentId()), Column("x", "compared", Field("f.g.h"), type_name, required=True))
        collection = Collection("c", "t", ("cs/{c}",), columns)
        check(collection, Document("cs/1", {"f": {"g": {"h": value}}}, CREATED, CREATED))
        check(collection, Document("cs/1", {"f": {"g": value}}, CREATED, CREATED))


INNER = st.dictionaries(st.sampled_from(["g", "h", "g.h"]), st.sampled_from(["v", None, {"h": "v"}]), max_size=3)
DOTTED = st.dictionaries(
    st.sampled_from(["f", "f.g", "f.g.h", "f.h"]), st.one_of(st.just("v"), st.none(), INNER), max_size=4
)


@pytest.mark.parametrize("path", ["f.g", "f.g.h"])
@given(data=st.data())
def test_dotted_names_are_told_the_same_either_way(path, data):
    """The short way leaves a document that spells a path otherwise, and has nothing at the path, to the exact one."""
    columns = (Column("id", "key", DocumentId()), Column("x", "compared", Field(path)))
    fields = data.draw(DOTTED)
    document = Document("cs/1", fields, CREATED, CREATED)
    [unit] = map_document(Collection("c", "t", ("cs/{c}",), columns), document)
    check(Collection("c", "t", ("cs/{c}",), columns), document) if isinstance(unit, Row) else None
    if not isinstance(unit, Row):
        assert Stager(Collection("c", "t", ("cs/{c}",), columns)).stage(0, message_of(document)) is None
