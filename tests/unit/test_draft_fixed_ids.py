"""Which ids of a subcollection are fixed, by those of its sampled documents and by their fields."""

from __future__ import annotations

import pytest

from dev.draft_catalog import _fixed_ids, add
from dev.draft_shapes import Shape
from dualwrite.model.declaration import DocumentId, Segment
from tests.unit.test_draft_entries import collection, drafted, table

PROFILE, CARD = {"bio", "locale"}, {"number", "brand"}


@pytest.mark.parametrize(
    ("documents", "fixed"),
    [
        ([("profile", PROFILE)] * 3, {"profile"}),
        ([("profile", PROFILE), ("card", CARD)] * 2, {"profile", "card"}),
        ([("profile", PROFILE), ("card", CARD)], set()),
        ([("general", PROFILE), ("random", PROFILE)] * 3, set()),
        ([("profile", PROFILE)] * 3 + [("Xk9", CARD)], set()),
        ([("1", PROFILE)] * 3, set()),
        ([], set()),
    ],
    ids=["one", "two that differ", "seen once", "rooms that are alike", "one beside random ids", "a number", "none"],
)
def test_ids_with_own_fields_below_several_parents_are_fixed(documents, fixed):
    assert _fixed_ids(documents) == fixed


def below(path: str, *documents: tuple[tuple[str, ...], dict]) -> Shape:
    """A shape of documents, each with the ids of its path."""
    made = Shape(path)
    for ids, fields in documents:
        add(made, ids, fields, {})
    if made.fixed:
        made.fixed_ids = {made.fixed: len(documents)}
    return made


USERS, ROOMS = table("users", "id text!", "name text!"), table("rooms", "id text!", "title text!")
BY_KEY = table("room_admins", "room_id text!", "user_id text!", "since text", key=("room_id", "user_id"),
               room_id="rooms", user_id="users")  # fmt: skip
BY_NAME = table("room_admins", "room_id text!", "who text!", "since text", key=("room_id", "who"), room_id="rooms")
PEOPLE = below("users/{user}", (("alice",), {"name": "a"}), (("bob",), {"name": "b"}))
OTHERS = below("users/{user}", (("bob",), {"name": "b"}), (("eve",), {"name": "b"}))
TITLED = below("rooms/{room}", (("r1",), {"title": "a"}), (("r2",), {"title": "b"}))
ADMINS = below("rooms/{room}/admins/alice", *(((f"r{n}", "alice"), {"since": "x"}) for n in range(4)))
NOTES = below("rooms/{room}/admins/alice/notes/{note}", (("r1", "alice", "n1"), {"what": "x"}))


@pytest.mark.parametrize(("admins", "people"), [(BY_KEY, PEOPLE), (BY_KEY, OTHERS), (BY_NAME, PEOPLE)])
def test_an_id_of_another_collection_is_not_fixed(admins, people):
    """The same admin in each sampled room: another collection has that document, or the key refers to one."""
    text = drafted([USERS, ROOMS, admins], people, TITLED, ADMINS, NOTES)
    made = collection(text, "room_admins")
    assert made.paths == ("rooms/{room}/admins/{admin}",)
    assert [c.origin for c in made.key] == [Segment("room"), DocumentId()]
    assert "No table looks like rooms/{room}/admins/{admin}/notes/{note} (1 sampled)." in text
    assert "alice" not in text


def test_without_a_table_an_id_of_another_collection_is_not_told():
    assert "alice" not in drafted([USERS], PEOPLE, ADMINS)


@pytest.mark.parametrize("settings", [PEOPLE, below("configs/{config}", (("main",), {"a": 1}), (("x",), {"b": 1}))])
@pytest.mark.parametrize("theme", [{"theme": "dark"}, {"theme": "dark", "plan": "p1"}])
def test_an_id_that_no_column_holds_stays_fixed(settings, theme):
    """Its parent's id alone is the key, or a field beside it; that a document elsewhere is called so proves nothing."""
    keys = ("user_id", "plan") if "plan" in theme else ("user_id",)
    columns = [f"{name} text!" for name in (*keys, "theme")]
    made = table("user_settings", *columns, key=keys, user_id="users", **dict.fromkeys(keys[1:], "plans"))
    documents = below("users/{user}/settings/main", *(((f"u{n}", "main"), theme) for n in range(3)))
    text = drafted([USERS, made], PEOPLE, settings, documents)
    assert collection(text, "user_settings").paths == ("users/{user}/settings/main",)
    assert "GUESS the id 'main' is fixed: below 3 sampled parents" in text


PROFILES = table("profiles", "user_id text!", "kind text!", "bio text", key=("user_id", "kind"), user_id="users")


def _profiles(kinds: tuple[dict, dict]) -> list[Shape]:
    made = zip(("public", "secret"), kinds, ({"bio": "x", "photo": "x"}, {"pin": "x", "code": "x"}), strict=True)
    return [
        below(f"users/{{user}}/profiles/{id_}", *(((f"u{n}", id_), {**kind, **fields}) for n in range(2)))
        for id_, kind, fields in made
    ]


@pytest.mark.parametrize("kinds", [({}, {}), ({"kind": "public"}, {"kind": "secret"}), ({"kind": "public"}, {})])
def test_a_key_column_of_fixed_ids_tells_two_collections_apart(kinds):
    text = drafted([USERS, PROFILES], PEOPLE, *_profiles(kinds))
    remedy = "Column('kind', 'key', Constant('secret')) beside rows={'kind': 'secret'} here, and 'public' there."
    assert f"If so, key column kind tells them apart: {remedy}" in text
    if not kinds[0]:
        assert "no field looks like it; the fixed id is Constant('public')" in text


def test_a_key_column_of_other_values_tells_no_fixed_ids_apart():
    text = drafted([USERS, PROFILES], PEOPLE, *_profiles(({"kind": "a"}, {"kind": "b"})))
    assert "none is left: add one" in text
