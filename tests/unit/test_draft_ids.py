"""What a draft makes of ids of two parts, of join tables and of ids below several parents: what the sample proves, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.draft_catalog import add
from dev.draft_shapes import ForeignKey, LiveColumn, LiveTable, Shape
from dualwrite.model.conversions import text
from dualwrite.model.declaration import DocumentId, Field, Parent, Segment
from dualwrite.model.live import LiveType
from tests.draft_worlds import UUIDS
from tests.unit.test_draft_entries import collection, drafted, table
from tests.unit.test_draft_names import imports_without_names_as_code, names

USERS = table("users", "id text!", "name text!")
PRODUCTS = table("products", "id text!", "title text!")
RATINGS = table("ratings", "user_id text!", "product_id text!", "stars integer!", key=("user_id", "product_id"),
                user_id="users", product_id="products")  # fmt: skip
LOOSE = table("ratings", "user_id text!", "product_id text!", "stars integer!", key=("user_id", "product_id"))


def shape(path: str, **documents: dict) -> Shape:
    made = Shape(path)
    for id_, fields in documents.items():
        add(made, (id_,), fields, {})
    return made


PEOPLE = (
    shape("users/{user}", u1={"name": "a"}, u2={"name": "b"}),
    shape("products/{product}", p1={"title": "a"}, p2={"title": "b"}),
)
STARS = {"u1_p1": {"stars": 1}, "u2_p2": {"stars": 2}}
TOLD = {id_: {**fields, "userId": id_[:2], "productId": id_[3:]} for id_, fields in STARS.items()}


@pytest.mark.parametrize(
    ("ratings", "others", "documents"), [(RATINGS, PEOPLE, STARS), (LOOSE, (), TOLD), (RATINGS, PEOPLE, TOLD)]
)
def test_an_id_of_two_parts_is_drafted_if_the_sample_proves_it(ratings, others, documents):
    """By the ids of the parents' documents, or by fields that hold the parts in each document."""
    text = drafted([USERS, PRODUCTS, ratings], *others, shape("ratings/{rating}", **documents))
    made = collection(text, "ratings")
    assert made.paths == ("ratings/{user}_{product}",)
    assert {c.name: c.origin for c in made.key} == {"user_id": Segment("user"), "product_id": Segment("product")}
    assert "2 sampled ids that split at '_' alone" in text
    if others:
        assert made.column("user_id").references == "users"


@pytest.mark.parametrize(
    "documents",
    [
        {"u1_p1": {"stars": 1}},  # one id
        {"u1_p1": {"stars": 1}, "u2_p_2": {"stars": 1}},  # an id that splits in two ways
        {"u1_p1": {"stars": 1}, "u2p2": {"stars": 1}},
        {"u1_p1": {"stars": 1}, "u2_zz": {"stars": 1}},  # no such product
        {"u1-a_p1": {"stars": 1}, "u2-b_p2": {"stars": 1}},  # two texts could stand between
    ],
)
def test_an_id_that_the_sample_does_not_prove_is_not_split(documents):
    text = drafted([USERS, PRODUCTS, RATINGS], *PEOPLE, shape("ratings/{rating}", **documents))
    assert "paths=('ratings/{rating}',)" in text


def test_a_join_table_is_keyed_by_parent_and_own_id():
    """Also if no foreign key says so, and if a field repeats the id."""
    for joined, fields in ((RATINGS, {"stars": 1}), (LOOSE, {"stars": 1}), (LOOSE, {"stars": 1, "productId": "p1"})):
        made = collection(
            drafted([USERS, PRODUCTS, joined], *PEOPLE, shape("users/{user}/ratings/{rating}", p1=fields)), "ratings"
        )
        assert {c.name: c.origin for c in made.key} == {"user_id": Segment("user"), "product_id": DocumentId()}


def test_a_field_that_is_not_the_id_is_the_natural_key():
    fields = {"stars": 1, "productId": "p1"}
    text = drafted([USERS, PRODUCTS, LOOSE], shape("users/{user}/ratings/{rating}", r1=fields))
    assert "Column('product_id', 'key', Field('productId')" in text


def test_ids_below_several_parents_are_told():
    settings_of = Shape("teams/{team}/settings/{setting}")
    for quota in (1, 2, 3):
        add(settings_of, (f"t{quota}", "main"), {"quota": quota}, {})
    text = drafted([table("team_settings", "id text!", "quota integer!")], settings_of)
    assert (
        "Column('id', 'key', DocumentId()),  # GUESS the document's id: no field looks like it, TODO 2 sampled documents have the key of another, and one row can't be of two documents"
        in text
    )


def test_of_two_references_of_several_columns_the_first_is_kept():
    """A column references one collection: the other foreign key is told."""
    keys = [table(n, "tenant text!", "id text!", "name text!", key=("tenant", "id")) for n in ("rooms", "desks")]
    both = [ForeignKey(("tenant", f"{n}_id"), f"{n}s", ("tenant", "id"), "cascade") for n in ("room", "desk")]
    plans = replace(table("plans", "id text!", "tenant text!", "room_id text!", "desk_id text!"), foreign=tuple(both))
    shapes = [Shape(f"tenants/{{tenant}}/{n}/{{{n[:-1]}}}") for n in ("rooms", "desks", "plans")]
    for each, fields in zip(shapes, ({"name": "x"}, {"name": "x"}, {"roomId": "a", "deskId": "a"}), strict=True):
        add(each, ("t", "a"), fields, {})
    text_ = drafted([*keys, plans], *shapes)
    made = collection(text_, "plans")
    assert [c.name for c in made.columns if c.references == Parent("rooms", "tenant")] == ["tenant"]
    assert made.column("desk_id").references is None
    assert "TODO its foreign key (tenant, desk_id) is to desks, and 'tenant' references 'rooms' already" in text_


CODES = table("codes", "code text!", "note text", key=("code",))


@pytest.mark.parametrize(
    ("fields", "origin", "told"),
    [
        ({}, DocumentId(), "no field looks like it"),
        ({"a": "a", "b": "b"}, DocumentId(), "which field 'code' is in each of 2 sampled documents"),
        ({"a": "a", "b": None}, DocumentId(), "which field 'code' is in each of 1 sampled documents"),
        ({"a": "x", "b": "y"}, Field("code"), "GUESS from its name, 2 of 2 sampled"),
        ({"a": 1, "b": 2}, Field("code") >> text, None),  # a key is no conversion: told, and not declared
        ({"a": "x", "b": "x"}, DocumentId(), "TODO field 'code' looks like it, and isn't that id in 2 of 2 sampled"),
        ({"a": "x", "b": None}, DocumentId(), "TODO field 'code' looks like it, and isn't that id in 1 of 1 sampled"),
        ({"a": "a", "b": "y"}, DocumentId(), "TODO field 'code' looks like it, and isn't that id in 1 of 2 sampled"),
    ],
)
def test_a_key_of_one_column_is_the_id_as_far_as_the_sample_says(fields, origin, told):
    """It was called certain, also where a field of its name held something else."""
    documents = {id_: {"note": "n", "code": fields.get(id_)} for id_ in ("a", "b")}
    drafted_ = drafted([CODES], shape("codes/{code}", **documents))
    if told is None:
        assert "TODO codes can't be declared: A key comes from the path or an entry, converted or not" in drafted_
    else:
        assert collection(drafted_, "codes").column("code").origin == origin
        assert told in drafted_


ROOMS = table("rooms", "id text!", "title text!")
INVITES = table("invites", "id text!", "from_user text!", "user_id text!", from_user="users", user_id="users")


@pytest.mark.parametrize(
    ("fields", "above", "told"),
    [
        ({"fromUser": "u2"}, "user_id", "GUESS the id above: no field looks like it"),
        (
            {"fromUser": "u2", "userId": "u1"},
            "user_id",
            "GUESS the id above, which field 'userId' is in each of 1 sampled",
        ),
        (
            {"fromUser": "u1", "userId": "u2"},
            "from_user",
            "GUESS the id above, which field 'fromUser' is in each of 1 sampled",
        ),
        ({"fromUser": "u3", "userId": "u2"}, None, ""),
        (
            {},
            "user_id",
            "GUESS the id above: no field looks like it; TODO it could be 'from_user', which references users too",
        ),
    ],
)
def test_the_likeliest_of_several_references_takes_the_id_above(fields, above, told):
    """The first one took it, whatever the documents said."""
    invites = Shape("users/{user}/invites/{invite}")
    add(invites, ("u1", "i1"), fields, {})
    drafted_ = drafted([USERS, INVITES], PEOPLE[0], invites)
    found = {c.name: c.origin for c in collection(drafted_, "invites").columns}
    assert [c for c, origin in found.items() if origin == Segment("user")] == ([] if above is None else [above])
    assert told in drafted_


@pytest.mark.parametrize(
    ("ids", "unique", "key"),
    [
        (UUIDS, ("email",), "id"),  # made by default, and yet written by the app
        (["u1", "u2"], ("email",), "email"),
        (["u1", "u2"], ("legacy_id",), "legacy_id"),
        (UUIDS, ("legacy_id",), "legacy_id"),
    ],
)
def test_a_key_with_a_default_is_the_documents_id_if_that_fits(ids, unique, key):
    columns = [
        LiveColumn("id", LiveType("uuid", "uuid", "uuid"), True, "gen_random_uuid()"),
        *(LiveColumn(name, LiveType("text", "text", "text"), True, None) for name in {"email", *unique}),
    ]
    people = LiveTable("people", tuple(columns), ("id",), (("email",), unique) if unique != ("email",) else (unique,))
    text_ = drafted([people], shape("people/{person}", **{id_: {"email": f"{id_}@x"} for id_ in ids}))
    made = collection(text_, "people")
    assert [c.name for c in made.key] == [key]
    assert made.key[0].origin == (Field("email") if key == "email" else DocumentId())
    left = "# id (uuid): GUESS left to its default" if ids is UUIDS else "# id (uuid): left to its default"
    assert (left in text_) == (key != "id")


def test_a_column_called_after_firestore_holds_the_id():
    made = table("codes", "code text!", "firestore_id text!", "plan_id text", key=("code",))
    text_ = drafted([made], shape("codes/{code}", a={"code": "x"}, b={"code": "y"}))
    columns = {c.name: c.origin for c in collection(text_, "codes").columns}
    assert columns == {"code": Field("code"), "firestore_id": DocumentId()}


SIGNATURES = table("signatures", "id text!", "document_id text!", "signer text", document_id="documents")
DOCUMENTS = table("documents", "id text!", "title text!")
PAPERS = shape("documents/{document}", d1={"title": "a"}, d2={"title": "b"})


@pytest.mark.parametrize("signatures", [SIGNATURES, replace(SIGNATURES, foreign=())])
def test_a_column_of_another_documents_id_is_not_the_own_id(signatures):
    """A foreign key says whose id it is, or a collection's name. A field whose texts are such ids fills the foreign key."""
    signed = shape("signatures/{signature}", s1={"paper": "d1", "signer": "x"}, s2={"paper": "d2", "signer": "x"})
    text_ = drafted([DOCUMENTS, signatures], PAPERS, signed)
    columns = {c.name: c for c in collection(text_, "signatures").columns}
    if signatures.foreign:
        assert (columns["document_id"].origin, columns["document_id"].parent.collection) == (
            Field("paper"),
            "documents",
        )
        assert "GUESS from field 'paper': its texts are ids of sampled documents there, 2 of 2 sampled" in text_
    else:
        assert "document_id" not in columns


@pytest.mark.parametrize("papers", [("d1", "d1"), ("d1", "x"), ("d1", 7)])
def test_ids_that_prove_nothing_leave_a_foreign_key_open(papers):
    signed = {f"s{n}": {"paper": paper, "signer": "x"} for n, paper in enumerate(papers)}
    text_ = drafted([DOCUMENTS, SIGNATURES], PAPERS, shape("signatures/{signature}", **signed))
    assert "document_id" not in [c.name for c in collection(text_, "signatures").columns]
    assert "TODO it is NOT NULL and needs a value: no field looks like it; its foreign key is to documents" in text_


def test_a_column_is_not_the_id_if_the_key_is_it_already():
    made = table("reviews", "doc_id text!", "id text!", "stars integer")
    text_ = drafted([made], shape("reviews/{review}", a={"stars": 1}, b={"stars": 2}))
    assert [c.name for c in collection(text_, "reviews").columns] == ["id", "stars"]


def test_of_two_alike_fields_the_one_that_more_documents_have():
    documents = {
        "a": {"city": "x"},
        **{id_: {"address": {"city": "x"}} for id_ in ("b", "c")},
        "d": {"address": {"city": 7}},
    }
    text_ = drafted([table("shops", "id text!", "city text")], shape("shops/{shop}", **documents))
    assert "Field('address.city') >> text" in text_


@settings(max_examples=30)
@given(names, names, st.sampled_from("_-:.|"), st.lists(names, min_size=2, max_size=3, unique=True))
def test_any_draft_of_split_ids_imports_and_names_are_never_code(one, other, between, values):
    columns = [f"{n.replace(' ', '_').rstrip('!')}_id" for n in (one, other + "x")]
    if len({*columns}) < 2:
        return
    ratings = table("ratings", *(f"{c} text!" for c in columns), key=tuple(columns))
    documents = {f"{v}{between}{v}".replace("/", ""): {c: v.replace("/", "") for c in columns} for v in values}
    imports_without_names_as_code([ratings], [shape("ratings/{rating}", **documents)])
