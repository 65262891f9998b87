"""What a draft makes of arrays of maps, maps of maps and maps of arrays: rows of their entries, or a remark."""

from __future__ import annotations

import pytest
from google.cloud.firestore import DocumentReference
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.draft_match import match
from dev.draft_shapes import ForeignKey, LiveColumn, LiveTable, Shape
from dev.draft_text import load, render
from dualwrite.model.conversions import reference_id
from dualwrite.model.declaration import (
    ArrayElements,
    Collection,
    DocumentId,
    EntryField,
    EntryIndex,
    EntryKey,
    EntryValue,
    MapEntries,
    Segment,
)
from tests.unit.test_draft_names import KINDS, imports_without_names_as_code, live, names, shape_of, values


def table(name: str, *columns: str, key: tuple[str, ...] = ("id",), **foreign: str) -> LiveTable:
    """A table; each column is written as `name type`, with `!` behind it if it is NOT NULL."""
    made = []
    for column in columns:
        called, type_ = column.rstrip("!").split(" ", 1)
        made.append(LiveColumn(called, live(type_), column.endswith("!") or called in key, None))
    return LiveTable(
        name, tuple(made), key, foreign=tuple(ForeignKey((c,), to, ("id",), "cascade") for c, to in foreign.items())
    )


ORDERS = table("orders", "id text!", "status text!")
LINES = table("order_lines", "order_id text!", "sku text!", "quantity integer!", "price numeric(10,2)", key=("order_id", "sku"),
              order_id="orders")  # fmt: skip


def drafted(tables: list[LiveTable], *shapes: Shape) -> str:
    return render(*match(shapes, tables), "2026-01-01T00:00:00+00:00")


def collection(text: str, name: str) -> Collection:
    return load(text)[name]


def test_an_array_of_maps_becomes_rows_keyed_by_its_unique_field():
    lines = [{"sku": "a", "quantity": 1, "priceCents": 199}, {"sku": "b", "quantity": 1, "priceCents": 5}]
    text = drafted([ORDERS, LINES], shape_of("orders/{order}", {"status": "open", "lines": lines}))
    made = collection(text, "order_lines")
    assert made.entries == ArrayElements("lines")
    assert {c.name: c.source for c in made.key} == {"order_id": Segment("order"), "sku": EntryField("sku")}
    assert "EntryField('priceCents') >> scaled(-2)" in text
    assert "2 of 2 sampled entries, text, unique within each sampled document" in text
    assert collection(text, "orders").entries is None


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([[{"sku": "a"}, {"sku": "a"}], [{"sku": "a"}]], "alone it isn't unique within each sampled document"),
        ([[{"sku": "a"}, {"quantity": 1}]], "alone it isn't unique within each sampled document"),
        ([[{"sku": "a"}], [{"sku": "a"}]], "no sampled document has two entries: is it unique?"),
        ([[{"sku": "a"}, {"sku": "b"}], [{"sku": "a"}]], ", unique within each sampled document"),
    ],
)  # fmt: skip
def test_a_key_of_entries_says_what_the_sample_proves_of_it(lines, told):
    documents = [{"status": "x", "lines": [{"quantity": 1, **line} for line in each]} for each in lines]
    assert told in drafted([ORDERS, LINES], shape_of("orders/{order}", *documents))


def test_without_such_a_field_the_place_is_the_key():
    steps = table(
        "recipe_steps",
        "recipe_id text!",
        "step_no integer!",
        "text text!",
        key=("recipe_id", "step_no"),
        recipe_id="recipes",
    )
    recipes = shape_of("recipes/{recipe}", {"title": "a", "steps": [{"text": "x"}, {"text": "y"}]})
    made = collection(drafted([table("recipes", "id text!", "title text!"), steps], recipes), "recipe_steps")
    assert {c.name: c.source for c in made.key} == {"recipe_id": Segment("recipe"), "step_no": EntryIndex()}


def test_the_only_field_that_is_unique_stands_in_for_a_name():
    steps = table(
        "recipe_steps",
        "recipe_id text!",
        "slug text!",
        "minutes integer",
        key=("recipe_id", "slug"),
        recipe_id="recipes",
    )
    held = [{"code": "x", "minutes": 1}, {"code": "y", "minutes": 1}]
    text = drafted(
        [table("recipes", "id text!", "title text!"), steps],
        shape_of("recipes/{recipe}", {"title": "a", "steps": held}),
    )
    assert "Column('slug', 'key', EntryField('code'))" in text


def test_a_map_of_maps_becomes_rows_keyed_by_its_keys():
    members = table(
        "team_members", "team_id text!", "user_id text!", "role text!", key=("team_id", "user_id"), team_id="teams"
    )
    teams = shape_of(
        "teams/{team}",
        {"name": "a", "members": {"id0": {"role": "x"}}},
        {"name": "b", "members": {"id0": {"role": "y"}}},
    )
    made = collection(drafted([table("teams", "id text!", "name text!"), members], teams), "team_members")
    assert made.entries == MapEntries("members")
    assert {c.name: c.source for c in made.key} == {"team_id": Segment("team"), "user_id": EntryKey()}
    assert made.column("role").origin == EntryField("role")


def test_a_map_of_maps_with_fixed_keys_is_no_entries():
    """Billing and shipping addresses: each has columns of its own."""
    customers = table("customers", "id text!", "billing_city text", "shipping_city text")
    fields = {"billing": {"city": "a"}, "shipping": {"city": "b"}}
    text = drafted([customers], shape_of("customers/{customer}", fields, fields))
    assert "Field('billing.city')" in text
    assert "Field('shipping.city')" in text


def test_a_column_named_after_the_parent_holds_the_documents_id():
    """The name alone tells the parent: there is no foreign key."""
    lines = table("order_lines", "order_id text!", "sku text!", "quantity integer!", key=("order_id", "sku"))
    text = drafted([lines], shape_of("orders/{order}", {"lines": [{"sku": "a", "quantity": 1}]}))
    assert collection(text, "order_lines").column("order_id").origin == DocumentId()


WEEK = {"mon": [{"opens": 1, "closes": 2}], "tue": [{"opens": 1, "closes": 3}]}


@pytest.mark.parametrize("field", ["hours", "places", "place"])
@pytest.mark.parametrize("city", [{}, {"city_id": "cities"}])
def test_a_map_of_arrays_takes_no_table_of_its_collection(field, city):
    """Nor the one of its own rows: one of its arrays is not all of them."""
    places = table("places", "id text!", "name text!", *(f"{c} text" for c in city), **city)
    hours = table(
        "opening_hours",
        "place_id text!",
        "day text!",
        "opens integer!",
        "closes integer",
        key=("place_id", "day"),
        place_id="places",
    )
    text = drafted([places, hours], shape_of("places/{place}", {"name": "a", field: WEEK}, {"name": "b", field: WEEK}))
    assert collection(text, "places").entries is None
    assert "opening_hours" not in load(text).names
    assert (
        f"the maps in the arrays of map {field!r} of places/{{place}} look like its rows, by 2 of their fields" in text
    )


@pytest.mark.parametrize("ids", [["p1", "p2"], [{"id": "p1", "title": "a"}]])
def test_a_copy_of_children_takes_no_table_of_a_collection(ids):
    """The copy is in the parent."""
    posts = table("posts", "id text!", "user_id text!", "title text!", "body text!", user_id="users")
    shapes = (
        shape_of("users/{user}", {"name": "a", "posts": ids}),
        shape_of("users/{user}/posts/{post}", {"title": "a", "body": "b"}),
    )
    made = collection(drafted([table("users", "id text!", "name text!"), posts], *shapes), "posts")
    assert made.entries is None
    assert made.paths == ("users/{user}/posts/{post}",)


USERS = table("users", "id text!", "name text!")
FOLLOWERS = table("followers", "user_id text!", "follower_id text!", key=("user_id", "follower_id"), user_id="users",
                  follower_id="users")  # fmt: skip
TO = DocumentReference("users", "u1")


def test_an_array_of_references_becomes_rows_keyed_by_their_ids():
    text = drafted([USERS, FOLLOWERS], shape_of("users/{user}", {"name": "a", "followers": [TO]}, {"name": "b"}))
    made = collection(text, "followers")
    assert made.entries == ArrayElements("followers")
    assert {c.name: c.origin for c in made.key} == {
        "user_id": Segment("user"),
        "follower_id": EntryKey() >> reference_id,
    }
    assert {c.parent.collection for c in made.key} == {"users"}


def test_references_to_the_rows_own_documents_are_no_rows():
    """A list of a user's posts: each post is a document of its own."""
    posts = table("posts", "id text!", "user_id text!", "title text!", "body text!", user_id="users")
    listed = shape_of("users/{user}", {"name": "a", "posts": [DocumentReference("posts", "p1")]})
    text = drafted([USERS, posts], listed, shape_of("posts/{post}", {"what": "a", "author": TO}))
    made = collection(text, "posts")
    assert (made.entries, made.paths) == (None, ("posts/{post}",))


def test_a_map_of_references_becomes_rows_with_their_ids():
    seats = table("team_seats", "team_id text!", "seat text!", "user_id text", key=("team_id", "seat"), team_id="teams",
                  user_id="users")  # fmt: skip
    teams = shape_of("teams/{team}", {"name": "a", "seats": {"s1": TO}}, {"name": "b", "seats": {"s2": TO}})
    text = drafted(
        [table("teams", "id text!", "name text!"), USERS, seats], teams, shape_of("users/{user}", {"name": "a"})
    )
    assert collection(text, "team_seats").column("user_id").origin == EntryValue() >> reference_id


def test_one_key_column_takes_the_id_of_a_reference():
    picked = table("picked", "list_id text!", "order_id text!", "order_user text!", key=("list_id", "order_id", "order_user"),
                   list_id="lists")  # fmt: skip
    lists = table("lists", "id text!", "name text!")
    text = drafted([lists, picked], shape_of("lists/{list}", {"name": "a", "picked": [TO]}))
    assert "TODO picked can't be declared: its key column 'order_user' isn't known" in text


@pytest.mark.parametrize(
    ("held", "told"),
    [([TO, "u2"], "holds reference and text"), ([], "is empty in all sampled"), ([7], "holds integer")],
)
def test_an_array_called_like_a_table_is_named_in_the_remark(held, told):
    text = drafted([USERS, FOLLOWERS], shape_of("users/{user}", {"name": "a", "followers": held}))
    assert (
        f"No collection looks like table followers: array 'followers' of users/{{user}} is called like it and {told}"
        in text
    )


@pytest.mark.parametrize("odd", ["a text", None, 7, ["x"]])
def test_an_array_of_maps_and_others_is_a_remark(odd):
    text = drafted(
        [ORDERS, LINES], shape_of("orders/{order}", {"status": "x", "lines": [{"sku": "a", "quantity": 1}, odd]})
    )
    assert "order_lines" not in load(text).names
    assert "beside them lie elements that are no maps, which would be rejected" in text


@st.composite
def worlds_of_entries(draw):
    """A collection whose field holds maps, or what isn't, and a table whose columns have names and types of any kind."""
    field, own = draw(names), draw(st.lists(names, min_size=1, max_size=3, unique=True))
    types = [draw(st.sampled_from(["text", "integer", *KINDS])) for _ in own]
    columns = [f"{name.replace(' ', '_').rstrip('!')} {type_}!" for name, type_ in zip(own, types, strict=True)]
    called = [c.rstrip("!").split(" ", 1)[0] for c in columns]
    key = draw(st.sampled_from([("order_id", called[0]), (called[0],), ("order_id", *dict.fromkeys(called))]))
    lines = table(f"orders_{field}", "order_id text!", *columns, key=key, order_id="orders")
    entry = st.dictionaries(st.sampled_from(called), values | st.sampled_from(["a", "b", 1, 2]), max_size=3)
    held = (
        st.lists(entry, max_size=3) | st.dictionaries(names, entry | st.lists(entry, max_size=2), max_size=2) | values
    )
    documents = draw(st.lists(st.fixed_dictionaries({"status": st.just("x"), field: held}), min_size=1, max_size=3))
    return [ORDERS, lines], [shape_of("orders/{order}", *documents)]


@settings(max_examples=40)
@given(worlds_of_entries())
def test_any_draft_of_entries_imports_and_names_are_never_code(world):
    imports_without_names_as_code(*world)
