"""The declaration is checked at import, and the engine knows no collection by name."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dev import firestore_indexes
from dualwrite import settings
from dualwrite.model.cell_types import cell_or_none
from dualwrite.model.conversions import iso_time, lower
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
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
    Parent,
    ParentId,
    Segment,
)
from dualwrite.model.errors import CatalogError
from dualwrite.shipped_catalog import CATALOG
from tests.refusals import coded

ENGINE = Path(__file__).resolve().parents[2] / "dags" / "dualwrite"
KEY = Column("id", "key", DocumentId())


def _collection(name="things", columns=(KEY,), paths=("things/{thing}",), **changes) -> Collection:
    return Collection(name=name, table=name, paths=paths, columns=columns, **changes)


BAD = {
    "unknown role": (lambda: _collection(columns=(KEY, Column("a", "copied", Field("a")))), "role-unknown", "column 'a' has 'copied'"),
    "unknown type": (lambda: _collection(columns=(KEY, Column("a", "compared", Field("a"), "uuid"))), "type-unknown", "has 'uuid'"),
    "no origin": (lambda: _collection(columns=(KEY, Column("a", "compared", None))), "origin-missing", "column 'a'"),
    "two keys": (lambda: _collection(columns=(KEY, Column("b", "key", DocumentId()))), "document-id-twice"),
    "no key": (lambda: _collection(columns=(Column("a", "compared", Field("a")),)), "key-missing"),
    "a column twice": (lambda: _collection(columns=(KEY, KEY)), "column-declared-twice", "column 'id'"),
    "a bad path": (lambda: _collection(paths=("things",)), "path-malformed"),
    "two collection ids": (lambda: _collection(paths=("things/{a}", "others/{a}")), "collection-ids-differ"),
    "an unknown segment": (lambda: _collection(columns=(KEY, Column("a", "compared", Segment("x")))), "segment-unknown", "names 'x'"),
    "an unknown parent id": (lambda: _collection(columns=(KEY, Column("a", "compared", ParentId("x")))), "parent-id-unknown", "names 'x'"),
    "an entry without entries": (lambda: _collection(columns=(KEY, Column("a", "compared", EntryValue()))), "entry-origin-without-entries"),
    "a value of an element": (
        lambda: _collection(
            columns=(KEY, Column("k", "key", EntryKey()), Column("a", "compared", EntryValue())), entries=ArrayElements("x")
        ),
        "array-element-without-value",
    ),
    "a field of an entry without entries": (
        lambda: _collection(columns=(KEY, Column("a", "compared", FirstOf(Field("b"), EntryField("a") >> lower)))), "entry-origin-without-entries"),
    "entries without a key": (
        lambda: _collection(columns=(KEY, Column("a", "compared", EntryField("a"))), entries=ArrayElements("x")),
        "entry-key-missing"),
    "entries without their document": (
        lambda: _collection(columns=(Column("a", "key", EntryField("a")),), entries=ArrayElements("x")),
        "entry-without-document-id", "Declare the column of DocumentId() or Segment('thing')"),
    "a place in a map": (
        lambda: _collection(columns=(KEY, Column("n", "key", EntryIndex())), entries=MapEntries("x")), "map-entries-without-order"),
    "an element that is both text and map": (
        lambda: _collection(
            columns=(KEY, Column("n", "key", EntryKey()), Column("a", "compared", EntryField("a"))), entries=ArrayElements("x")),
        "entry-key-of-maps"),
    "a field of an entry without a name": (
        lambda: _collection(columns=(KEY, Column("n", "key", EntryField("a."))), entries=ArrayElements("x")), "field-path-malformed", "names 'a.'"),
    "a natural key without its parent": (
        lambda: _collection(columns=(Column("email", "key", Field("email")),), paths=("teams/{team}/people/{person}",)),
        "natural-key-without-parent", "key 'email' lacks {team} of 'teams/{team}/people/{person}' of collection 'things'"),
    "a natural key in several collections": (
        lambda: _collection(columns=(Column("email", "key", Field("email")),), paths=("a/b/things/{t}", "things/{t}")),
        "natural-key-of-several-paths", "key 'email'"),
    "a key of the parent alone": (
        lambda: _collection(columns=(Column("team", "key", Segment("team")),), paths=("teams/{team}/people/{person}",)),
        "key-of-several-documents", "Segment('person')"),
    "a key of a part of an id": (
        lambda: _collection(columns=(Column("a", "key", Segment("a")),), paths=("things/{a}_{b}",)),
        "key-of-several-documents", "Segment('a') and Segment('b')"),
    "a key of a constant": (
        lambda: _collection(columns=(Column("a", "key", Constant("x")),), paths=("users/{user}/private/profile",)),
        "key-of-several-documents", "key 'a' is the same for several at 'users/{user}/private/profile'"),
    "a constant key of two documents": (
        lambda: _collection(columns=(Column("a", "key", Constant("x")),), paths=("things/one", "things/two")),
        "key-of-several-paths", "one at 'things/one' and one at 'things/two'", "Give the role key to a column of DocumentId() too"),
    "a key of the parent of two documents": (
        lambda: _collection(columns=(Column("u", "key", Segment("u")),), paths=("users/{u}/private/profile", "users/{u}/private/settings")),
        "key-of-several-paths", "one at 'users/{u}/private/profile' and one at 'users/{u}/private/settings' of", "DocumentId() too, or declare"),
    "a key of the last ids of many parents": (
        lambda: _collection(paths=("users/{u}/private/profile", "users/{u}/private/settings")),
        "key-of-several-documents", "key 'id' is the same for several at 'users/{u}/private/profile'", "of Segment('u') too."),
    "a key of a part of two forms of ids": (
        lambda: _collection(columns=(Column("n", "key", Segment("n")),), paths=("things/r-{n}", "things/q-{n}")),
        "key-of-several-paths", "one at 'things/r-{n}' and one at 'things/q-{n}'", "DocumentId() too"),
    "a key of parts in two orders": (
        lambda: _collection(
            columns=(Column("n", "key", Segment("n")), Column("m", "key", Segment("m"))), paths=("a/{a}/things/{n}_{m}", "things/{m}_{n}")),
        "key-of-several-paths", "of collection 'things' in", ". Declare each path as a collection of its own"),
    "entries of two documents below one parent": (
        lambda: _collection(
            columns=(Column("u", "key", Segment("u")), Column("k", "key", EntryKey())), entries=MapEntries("x"),
            paths=("users/{u}/private/profile", "users/{u}/private/settings")),
        "entry-without-document-id", "Declare each path as a collection of its own"),
    "a key that is no text": (lambda: _collection(columns=(Column("id", "key", DocumentId(), "integer"),)), "key-not-text"),
    "a key that is converted": (
        lambda: _collection(columns=(Column("id", "key", Field("id") >> lower),)), "key-not-traceable"),
    "a time that is a key alone": (
        lambda: _collection(columns=(Column("at", "key", Field("at"), "timestamp"),)), "key-not-text", "column 'at' is timestamp"),
    "a number beside the id": (
        lambda: _collection(columns=(KEY, Column("n", "key", Field("n"), "integer"))), "key-not-text", "Field(...) >> text"),
    "a stand-in beside the id": (
        lambda: _collection(columns=(KEY, Column("at", "key", Field("at", CreateTime()), "timestamp"))), "key-is-stand-in"),
    "a reference to a key with fields": (
        lambda: Catalog((
            _collection("a", (KEY, Column("at", "key", Field("at"), "timestamp")), ("a/{a}",)),
            _collection("b", (KEY, Column("a_id", "compared", Segment("a"), references="a")), ("a/{a}/b/{b}",)),
        )),
        "reference-to-key-with-fields", "column 'a_id' references 'a'",
    ),
    "a path of no name": (lambda: _collection(columns=(KEY, Column("a", "compared", Field(("a", ""))))), "field-path-malformed"),
    "a converted stand-in": (
        lambda: _collection(columns=(KEY, Column("a", "compared", Field("a", CreateTime()) >> iso_time))), "stand-in-inside"),
    "a first of one": (lambda: _collection(columns=(KEY, Column("a", "compared", FirstOf(Field("a"))))), "first-of-too-few"),
    "an absent constant": (
        lambda: _collection(columns=(KEY, Column("a", "compared", Constant("x"), absent="y"))), "constant-with-absent"),
    "a unique key of unknown columns": (lambda: _collection(unique=(("x",),)), "column-not-declared", "column 'x'"),
    "a cycle": (
        lambda: Catalog((
            _collection("a", (KEY, Column("b_id", "compared", Field("b"), required=True, references="b")), ("a/{a}",)),
            _collection("b", (KEY, Column("a_id", "compared", Field("a"), required=True, references="a")), ("b/{b}",)),
        )),
        "references-in-a-circle", "a, b need",
    ),
    "an unknown reference": (
        lambda: Catalog((_collection("a", (KEY, Column("x", "compared", Field("b"), references="b"))),)),
        "reference-not-declared", "references 'b'",
    ),
    "a variable twice": (lambda: _collection(paths=("things/{id}/parts/{id}",)), "path-malformed"),
    "a path with a line after it": (lambda: _collection(paths=("things/{thing}\n",)), "path-malformed"),
    "a field in backticks": (lambda: _collection(columns=(KEY, Column("a", "compared", Field("`a.b`")))), "field-path-malformed"),
    "a field without a name": (lambda: _collection(columns=(KEY, Column("a", "compared", Field("a..b")))), "field-path-malformed", "'a..b'"),
    "a stand-in in backticks": (
        lambda: _collection(columns=(KEY, Column("a", "compared", Field("a", Field("`b`"))))), "field-path-malformed", "'`b`'"
    ),
    "a check field in backticks": (lambda: _collection(check_fields=("`a.b`",)), "field-path-malformed"),
    "entries in backticks": (lambda: _collection(entries=ArrayElements("a.")), "field-path-malformed", "check_fields or entries names 'a.'"),
    "a check field that is text": (
        lambda: _collection(columns=(KEY, Column("a", "compared", Field("at"))), check_fields=("at",)),
        "check-field-without-format", "column 'a' takes 'at', a check field, as text",
    ),
    "a written column that is text": (
        lambda: _collection(columns=(KEY, Column("a", "compared", Field("at"))), written_columns=("a",)),
        "written-column-no-timestamp",
    ),
    "two collections on one table": (
        lambda: Catalog((_collection("a"), Collection("b", "public.a", ("b/{b}",), (KEY,)))),
        "table-shared", "a and b share table public.a",
    ),
    "a name twice": (lambda: Catalog((_collection(), _collection())), "collection-declared-twice", "things stands twice"),
    "a reference that is none": (
        lambda: _collection(columns=(KEY, Column("a", "compared", Field("a"), references=5))), "reference-malformed",
    ),
    "a held column without a name": (
        lambda: _collection(columns=(KEY, Column("a", "compared", Field("a"), references=Parent("others", holds="")))),
        "holds-empty",
    ),
    "a table outside the catalog": (
        lambda: Catalog((_collection(columns=(KEY, Column("a", "compared", Field("a"), references=Parent("auth.users", "id")))),)),
        "reference-not-declared",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_contradiction_is_refused_and_names_the_place(case):
    """Its code says the rule; the message names what the declaration calls it, and the file."""
    declare, code, *places = BAD[case]
    with pytest.raises(CatalogError, check=coded(code)) as refused:
        declare()
    for place in (*places, settings.catalog_file()):
        assert place in str(refused.value)


ABSENT_FITS = {
    "text": ("", "public", "{}"), "integer": (0, -(2**31), 2**31), "numeric": (0, -(2**31), 2**31, 2**70), "boolean": (True, False),
    "timestamp": (), "json": (),
}  # fmt: skip
ABSENT = ("", "public", "{}", "a\x00b", 0, -(2**31), 2**31, 2**70, True, False)


@pytest.mark.parametrize("kind", ABSENT_FITS)
@pytest.mark.parametrize("value", ABSENT, ids=repr)
def test_absent_must_be_a_value_that_the_column_could_have(kind, value):
    """'{}' of a jsonb column became the JSON string "{}", and was called verified."""
    column = Column("a", "compared", Field("a"), kind, absent=value)
    if any(value == good and type(value) is type(good) for good in ABSENT_FITS[kind]):
        _collection(columns=(KEY, column))
        assert cell_or_none(column)(value) is not None or value == 2**31, (
            "and the mapping takes it (that one in a bigint)"
        )
        return
    with pytest.raises(CatalogError, check=coded("absent-does-not-fit")):
        _collection(columns=(KEY, column))


def test_absent_of_a_reference_must_be_an_id():
    with pytest.raises(CatalogError, check=coded("absent-does-not-fit")):
        _collection(columns=(KEY, Column("a", "compared", Field("a"), absent="", references="others")))


@pytest.mark.parametrize("variable", ["user", "userId", "user2", "_x", "USER_ID_2"])
def test_a_variable_of_a_path_is_any_identifier(variable):
    made = _collection(paths=(f"things/{{{variable}}}",), columns=(Column("id", "key", Segment(variable)),))
    assert made.match("things/a") == {variable: "a"}


def test_thirteen_collections_are_declared_and_seven_selected():
    """The seven are those of the plan."""
    assert set(CATALOG.names) == {
        "users", "posts", "comments", "replies", "likes", "reactions", "blocks", "boards", "user_board_permissions",
        "board_waiting_users", "drafts", "reviews", "notifications",
    }  # fmt: skip
    assert set(CATALOG.default_selection) == {"users", "posts", "comments", "replies", "likes", "reactions", "blocks"}


def test_where_no_collection_is_selected_all_are():
    """A first catalog that says nothing of it can be run."""
    unsaid = Catalog(tuple(replace(c, selected=False) for c in CATALOG.collections))
    assert unsaid.default_selection == unsaid.names


def test_parents_come_before_children():
    order = CATALOG.names
    for collection in CATALOG:
        assert all(order.index(parent) < order.index(collection.name) for parent in collection.parents)


def _texts(path: Path) -> list[tuple[int, str]]:
    """The strings of a module that aren't documentation: a string that stands alone is a docstring."""
    tree = ast.parse(path.read_text())
    alone = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    return [
        (n.lineno, n.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in alone
    ]


def test_in_the_engine_only_the_catalog_names_a_collection():
    """Another team points this at their app by a catalog of their own. Names inside longer strings count: SQL, forms,
    messages."""
    names = {c.name for c in CATALOG} | {c.collection_id for c in CATALOG} | {c.table for c in CATALOG}
    named = re.compile(rf"\b({'|'.join(sorted(names))})\b", re.IGNORECASE)
    found = [
        (path.name, line, word)
        for path in sorted(ENGINE.rglob("*.py"))
        if path.name != "shipped_catalog.py"
        for line, text in _texts(path)
        for word in named.findall(text)
    ]
    assert found == []


def test_documented_firestore_indexes_are_those_the_queries_need():
    assert firestore_indexes.FILE.read_text() == firestore_indexes.indexes(CATALOG), "run `make indexes`"
