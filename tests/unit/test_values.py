"""What each value becomes in each type of column, and how a unit is called."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.firestore.staging import Stager
from dualwrite.model.cell_types import Json, exact_converter
from dualwrite.model.declaration import (
    Collection,
    Column,
    CreateTime,
    DocumentId,
    EntryKey,
    EntryValue,
    Field,
    MapEntries,
    ParentId,
    Segment,
)
from dualwrite.model.documents import Document, GeoPoint, Reference, is_valid_id, numeric_id
from dualwrite.model.errors import Refused
from dualwrite.model.keys import LABEL_BYTES, joined_label, key_of_path, label_of, label_of_key
from dualwrite.model.mapping import Rejection, Row, map_document, staged
from tests.arbitrary import document_at, message_of

T = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
POST = {"authorId": "u1", "title": "t", "content": "c", "createdAt": T, "updatedAt": T}


def mapped(name: str, path: str, fields: dict) -> list[Row | Rejection]:
    found = map_document(CATALOG[name], Document(path, fields, CREATED, CREATED + timedelta(days=1)))
    assert found is not None
    return found


def post(**changes) -> Row | Rejection:
    [unit] = mapped("posts", "boards/b1/posts/p1", {**POST, **changes})
    return unit


def cell(row: Row | Rejection, name: str, collection: str = "posts") -> object:
    assert isinstance(row, Row), row
    return row.cells[[c.name for c in CATALOG[collection].columns].index(name)]


ACCEPTED = [
    ("week_days_from_first_day", 5, 5),
    ("week_days_from_first_day", 5.0, 5),
    ("week_days_from_first_day", 2**31 - 1, 2**31 - 1),
    ("week_days_from_first_day", -(2**31), -(2**31)),
    ("engagement_score", 0.1, Decimal("0.1")),
    ("engagement_score", 2**60, Decimal(2**60)),
    ("title", "", ""),
    ("updated_at", T, T.replace(microsecond=123000)),
    ("content_json", {"b": [1, None, True, 0.5, "가"], "a": {}}, Json('{"a":{},"b":[1,null,true,0.5,"가"]}')),
    ("content_json", "text", Json('"text"')),
]
FIELD_OF = {c.name: c.origin.path for c in CATALOG["posts"].columns if isinstance(c.origin, Field)}


@pytest.mark.parametrize(("column", "value", "expected"), ACCEPTED)
def test_a_value_that_fits_becomes_a_cell(column, value, expected):
    found = cell(post(**{FIELD_OF[column]: value}), column)
    assert (type(found), found) == (type(expected), expected)


REFUSED = [
    ("title", 5, "wrong_type: title (field title) is an integer, a string is expected"),
    ("title", "a\x00", "nul_character: title (field title) holds U+0000, which Postgres text can't"),
    ("week_days_from_first_day", True, "is a boolean, an integer is expected"),
    ("week_days_from_first_day", "5", "is a string, an integer is expected"),
    ("week_days_from_first_day", 5.5, "is a number, an integer is expected"),
    ("week_days_from_first_day", float("nan"), "is a number, an integer is expected"),
    ("week_days_from_first_day", 2**31, "out_of_range: week_days_from_first_day"),
    ("week_days_from_first_day", -(2**31) - 1, "out_of_range: week_days_from_first_day"),
    ("week_days_from_first_day", float(2**31), "out_of_range: week_days_from_first_day"),
    ("updated_at", "2026-01-01", "is a string, a timestamp is expected"),
    ("content_json", {"a\x00": 1}, "nul_character: content_json (field contentJson) holds U+0000, which jsonb can't"),
    ("content_json", {"a": ["b\x00"]}, "nul_character: content_json"),
    ("content_json", {"a": [float("inf")]}, "not_finite: content_json"),
    ("content_json", {"a": b"x"}, "not_json: content_json (field contentJson) holds bytes"),
    ("content_json", [GeoPoint(1, 2)], "not_json: content_json (field contentJson) holds a geopoint"),
    ("content_json", Reference("r"), "not_json: content_json (field contentJson) holds a reference"),
    ("content_json", T, "not_json: content_json (field contentJson) holds a timestamp"),
    ("author_id", "a/b", "not_an_id: author_id (field authorId) is no id"),
    ("author_id", "", "not_an_id: author_id"),
    ("author_id", 7, "wrong_type: author_id (field authorId) is an integer, a string is expected"),
]


@pytest.mark.parametrize(("column", "value", "reason"), REFUSED)
def test_a_value_that_does_not_fit_is_refused_with_the_rule(column, value, reason):
    unit = post(**{FIELD_OF[column]: value})
    assert isinstance(unit, Rejection)
    assert reason in unit.reason
    assert (unit.label, unit.path, unit.entry, unit.entire) == ("p1", "boards/b1/posts/p1", None, False)


@pytest.mark.parametrize("value", ["many", True, float("nan"), {"n": 1}, b"x"])
def test_a_derived_columns_wrong_type_lags_and_rejects_nothing(value):
    """Counters are a Cloud Function's: a broken one must not keep the document's text from arriving."""
    assert cell(post(countOfComments=value, engagementScore=value), "count_of_comments") == 0
    assert cell(post(countOfComments=value, engagementScore=value), "engagement_score") == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "is a boolean, a number is expected"),
        ("1", "is a string, a number is expected"),
        (float("inf"), "not_finite: {}"),
        (float("nan"), "not_finite: {}"),
    ],
)
def test_what_is_no_number_is_refused(value, reason):
    with pytest.raises(Refused, match=re.escape(reason)):
        exact_converter(Column("a", "compared", Field("a"), "numeric"))(value)


@pytest.mark.parametrize("permissions", [{"b1": True}, {"b1": None}])
def test_an_entry_whose_value_does_not_fit_is_refused_by_itself(permissions):
    fields = {"boardPermissions": {**permissions, "b2": "read"}}
    refused, fits = mapped("user_board_permissions", "users/u1", fields)
    assert isinstance(refused, Rejection)
    assert (refused.label, refused.entry, refused.entire) == ("u1/b1", "b1", False)
    assert ("a boolean" in refused.reason) or refused.reason == (
        "missing_value: permission is NOT NULL and entry's value is absent"
    )
    assert isinstance(fits, Row)
    assert (fits.label, fits.key, fits.entry) == ("u1/b2", ("u1", "b2"), "b2")


def test_what_is_required_and_absent_names_the_column_and_field():
    unit = post(authorId=None)
    assert isinstance(unit, Rejection)
    assert unit.reason == "missing_value: author_id is NOT NULL and field authorId is absent"
    [reaction] = mapped("reactions", "boards/b/posts/p/comments/c/reactions/x", {"createdAt": T})
    assert isinstance(reaction, Rejection)
    assert reaction.reason.startswith("missing_value: ")


def test_a_row_knows_its_document_its_key_and_its_stand_ins():
    row = post(updatedAt=None)
    assert isinstance(row, Row)
    assert (row.label, row.key, row.path, row.entry) == ("p1", ("p1",), "boards/b1/posts/p1", None)
    assert (row.create_time, row.update_time) == (CREATED, CREATED + timedelta(days=1))
    assert cell(row, "board_id") == "b1"
    [index] = row.stand_ins
    assert CATALOG["posts"].columns[index].name == "updated_at"
    assert cell(row, "updated_at") == T.replace(microsecond=123000), "what createdAt says stands in"
    assert post().stand_ins == frozenset()
    both = post(updatedAt=None, createdAt=None)
    assert len(both.stand_ins) == 2
    assert cell(both, "updated_at") == cell(both, "created_at") == CREATED
    assert staged(3, row) == (3, 1 << index, *row.cells)


def test_a_fingerprint_tells_a_document_created_anew():
    """It doesn't tell what stood in."""

    def fingerprint(created: datetime = CREATED, **changes) -> str:
        [row] = (
            map_document(CATALOG["posts"], Document("boards/b1/posts/p1", {**POST, **changes}, created, created)) or []
        )
        assert isinstance(row, Row)
        return row.fingerprint

    assert fingerprint() == fingerprint()
    assert fingerprint(T) != fingerprint()
    assert len(fingerprint()) == 16
    assert int(fingerprint(), 16) >= 0
    # A stand-in says nothing of the document's own: created_at absent is not created_at stated as the same time.
    assert fingerprint(createdAt=None) != fingerprint(createdAt=CREATED) or "created_at" not in {
        c.name for c in CATALOG["posts"].fingerprinted
    }


# --- entries --------------------------------------------------------------------------------------------------------


def test_one_bad_element_is_refused_and_its_neighbours_are_rows():
    """It is refused at its place."""
    units = mapped("board_waiting_users", "boards/b1", {"waitingUsersIds": ["u1", None, "u1", "a/b", "u2"]})
    labels = [(type(u).__name__, u.label, u.entry) for u in units]
    assert labels == [
        ("Row", "b1/u1", "u1"),
        ("Rejection", "b1/waitingUsersIds[1]", None),
        ("Rejection", "b1/waitingUsersIds[3]", None),
        ("Row", "b1/u2", "u2"),
    ]
    reasons = [u.reason for u in units if isinstance(u, Rejection)]
    assert reasons == [
        "wrong_type: waitingUsersIds holds null, a string is expected",
        "not_an_id: waitingUsersIds holds what no document could have as its id",
    ]
    assert not any(u.entire for u in units if isinstance(u, Rejection))


@pytest.mark.parametrize(
    ("name", "path", "field", "wrong", "expected"),
    [
        ("board_waiting_users", "boards/b1", "waitingUsersIds", {"u1": 1}, "is a map, an array is expected"),
        ("user_board_permissions", "users/b1", "boardPermissions", ["b"], "is an array, a map is expected"),
    ],
)
def test_a_list_of_entries_that_is_none_is_refused_as_a_whole(name, path, field, wrong, expected):
    [refused] = mapped(name, path, {field: wrong})
    assert refused == Rejection("b1", path, None, f"wrong_type: {field} {expected}", entire=True)
    assert mapped(name, path, {}) == []
    assert mapped(name, path, {field: None}) == []


def test_the_entries_of_a_map_come_in_the_order_of_their_keys():
    units = mapped("user_board_permissions", "users/u1", {"boardPermissions": {"z": "read", "a": "write"}})
    assert [u.entry for u in units] == ["a", "z"]


# --- labels ---------------------------------------------------------------------------------------------------------


def test_a_label_is_ids_joined_by_slashes():
    """What is no id stands there as a digest."""
    assert joined_label(["a", "b"]) == "a/b"
    assert joined_label(["a", ""]) == "a/"
    digest = joined_label(["a/b"])
    assert digest.startswith("~")
    assert len(digest) == 17
    assert joined_label(["a/c"]) != digest
    assert joined_label(["a\x00"]) == "a\\u0000"


def test_a_label_beyond_its_length_ends_in_a_digest_of_the_whole():
    fits = "가" * 133 + "a"
    assert len(fits.encode()) == LABEL_BYTES
    assert joined_label([fits]) == fits
    first, second = joined_label([fits + "b"]), joined_label([fits + "c"])
    assert first != second
    assert first.startswith("가" * 126 + "…")
    assert len(first.encode()) <= LABEL_BYTES
    assert len(first) == 126 + 1 + 16


def test_a_unit_is_called_by_its_key_if_its_path_gives_it():
    """Else it is called by all of its path."""
    assert label_of(CATALOG["posts"], {"board": "b", "id": "p"}, None) == "p"
    assert label_of(CATALOG["blocks"], dict(CATALOG["blocks"].match("users/u1/blockedUsers/u2") or {}), None) == "u1/u2"
    notifications = CATALOG["notifications"]
    assert label_of(notifications, dict(notifications.match("users/u/notifications/n") or {}), None) == "u/n"


def test_the_key_that_a_document_at_a_path_has():
    assert key_of_path(CATALOG["posts"], "boards/b/posts/p") == ("p",)
    assert key_of_path(CATALOG["blocks"], "users/u1/blockedUsers/u2") == ("u1", "u2")
    assert key_of_path(CATALOG["posts"], "users/u/posts/p") is None


def test_a_value_alone_is_a_cell_or_nothing():
    def cell_of(column: Column, value: object) -> object:
        try:
            return exact_converter(column)(value)
        except Refused:
            return None

    text = Column("a", "compared", Field("a"))
    assert cell_of(text, "x") == "x"
    assert cell_of(text, 5) is None
    boolean = Column("a", "compared", Field("a"), "boolean")
    assert [cell_of(boolean, value) for value in (True, False, "yes", 1, 0.0)] == [True, False, None, None, None]
    reference = next(c for c in CATALOG["posts"].columns if c.references)
    assert cell_of(reference, "u1") == "u1"
    assert cell_of(reference, "a/b") is None


def test_nested_fields_are_found():
    """A step through something that is no map finds nothing."""

    def timezone(profile: object) -> object:
        [row] = mapped("users", "users/u1", {"profile": profile})
        return cell(row, "timezone", "users")

    assert timezone({"timezone": "Asia/Seoul"}) == "Asia/Seoul"
    assert timezone({}) is None
    assert timezone("Asia/Seoul") is None


# --- where a value comes from ---------------------------------------------------------------------------------------

ORIGINS = [
    (Segment("board"), "integer", "wrong_type: x (path segment board) is a string, an integer is expected"),
    (DocumentId(), "integer", "wrong_type: x (document id) is a string, an integer is expected"),
    (ParentId("posts"), "integer", "wrong_type: x (id of the document in posts) is a string, an integer is expected"),
    (ParentId("boards"), "text", "missing_value: x is NOT NULL and id of the document in boards is absent"),
    (EntryKey(), "integer", "wrong_type: x (entry) is a string, an integer is expected"),
    (EntryValue(), "integer", "wrong_type: x (entry's value) is a string, an integer is expected"),
    (CreateTime(), "integer", "wrong_type: x (create_time) is a timestamp, an integer is expected"),
    (Field("a.b"), "integer", "wrong_type: x (field a.b) is a string, an integer is expected"),
    (Field("none"), "integer", "missing_value: x is NOT NULL and field none is absent"),
]


@pytest.mark.parametrize(("origin", "kind", "reason"), ORIGINS, ids=lambda v: type(v).__name__)
def test_a_refusal_says_where_the_value_was_looked_for(origin, kind, reason):
    things = Collection(
        name="things",
        table="things",
        paths=("boards/{board}/posts/{post}/things/{thing}", "boards/{board}/things/{thing}"),
        entries=MapEntries("entries"),
        columns=(
            Column("id", "key", EntryKey()),
            Column("thing_id", "compared", DocumentId()),
            Column("x", "compared", origin, kind, required=True),
        ),
    )
    fields = {"entries": {"e": "value"}, "a": {"b": "text"}}
    [unit] = map_document(things, Document("boards/b/posts/p/things/t", fields, CREATED, CREATED)) or []
    assert isinstance(unit, Rejection)
    assert unit.reason == reason


def test_an_absent_key_is_refused_though_no_column_requires_it():
    things = Collection(
        name="things", table="things", paths=("things/{thing}",), columns=(Column("k", "key", Field("k")),)
    )
    [unit] = map_document(things, Document("things/t", {}, CREATED, CREATED)) or []
    assert isinstance(unit, Rejection)
    assert unit.reason == "missing_value: k is NOT NULL and field k is absent"


def test_a_document_at_the_root_has_no_document_above_it():
    things = Collection(
        name="things",
        table="things",
        paths=("things/{thing}", "boards/{board}/things/{thing}"),
        columns=(Column("id", "key", DocumentId()), Column("parent", "compared", ParentId("boards"))),
    )
    [unit] = map_document(things, Document("things/t", {}, CREATED, CREATED)) or []
    assert isinstance(unit, Row)
    assert unit.cells == ("t", None)


def test_two_stand_ins_are_told_to_the_target_by_their_places():
    row = post(updatedAt=None, createdAt=None)
    assert isinstance(row, Row)
    names = [c.name for c in CATALOG["posts"].columns]
    mask = 2 ** names.index("created_at") + 2 ** names.index("updated_at")
    assert staged(7, row)[:2] == (7, mask)


def test_a_stand_in_through_another_field_is_a_stand_in_too():
    row = post(updatedAt=None)
    names = [c.name for c in CATALOG["posts"].columns]
    assert isinstance(row, Row)
    assert row.stand_ins == frozenset({names.index("updated_at")})


def test_a_fingerprint_covers_compared_values_but_no_stand_in():
    things = Collection(
        name="things",
        table="things",
        paths=("things/{thing}",),
        columns=(
            Column("id", "key", DocumentId()),
            Column("a", "compared", Field("a")),
            Column("at", "compared", Field("at", CreateTime()), "timestamp"),
        ),
    )

    def fingerprint(**fields) -> str:
        [row] = map_document(things, Document("things/t", fields, CREATED, CREATED)) or []
        assert isinstance(row, Row)
        return row.fingerprint

    assert fingerprint(a="x") != fingerprint(a="y")
    assert fingerprint(a="x", at=CREATED) != fingerprint(a="x"), "stated, and standing in"
    assert fingerprint(a="x", at=CREATED) != fingerprint(a="x", at=T)


def test_an_entrys_label_is_the_paths_variables_and_the_entry():
    permissions = CATALOG["user_board_permissions"]
    assert label_of(permissions, {"user": "u"}, "b") == "u/b"
    assert label_of(permissions, {"user": "u"}, None) == "u/"
    things = Collection(
        name="things",
        table="things",
        paths=("boards/{board}/things/{thing}",),
        entries=MapEntries("entries"),
        columns=(
            Column("b", "key", Segment("board")),
            Column("k", "key", Field("k")),
            Column("e", "key", EntryKey()),
            Column("t", "compared", Segment("thing")),
        ),
    )
    assert label_of(things, {"board": "b", "thing": "t"}, "e") == "b/t/~3f79bb7b435b0532", (
        "an entry that is no id is content"
    )
    assert label_of(things, {"board": "b", "thing": "t"}, None) == "b/t"


NOT_ASKED = ("__x__", "__id07__", "__id0__", "__id-0__", f"__id{2**63}__", "__id7_", "__ID7__", "__id٧__", "__id__")


@pytest.mark.parametrize("name", NOT_ASKED)
def test_only_a_canonical_numeric_id_is_one(name):
    """[measured: the emulator refuses all others of the form __...__]"""
    assert numeric_id(name) is None
    assert is_valid_id(name) is (name == "__id7_")


@pytest.mark.parametrize("collection", list(CATALOG), ids=lambda c: c.name)
def test_a_delivered_id_that_cant_be_asked_for_is_rejected(collection):
    """What a scan delivers is there: it never ends absent, or as a row that is extra."""
    document = document_at(collection, ["__x__"] * 5, {})
    units = map_document(collection, document)
    assert [u.reason.partition(":")[0] for u in units] == ["cant_be_asked"]
    assert Stager(collection).stage(0, message_of(document)) is None
    if collection.entries is None and collection.keyed_by_path:
        assert units[0].label == label_of_key(collection, ["__x__"] * len(collection.key)), "as its row would be called"
    assert "__x__" not in units[0].label
