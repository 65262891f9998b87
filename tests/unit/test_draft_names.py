"""A draft of the catalog is Python that somebody runs: names in two databases are data in it, never code; and it imports."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime

import pytest
from google.cloud import firestore
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.draft_catalog import _Maps, _open_map, add
from dev.draft_match import match
from dev.draft_shapes import ForeignKey, Left, LiveColumn, LiveTable, Match, Names, Seen, Shape, likeness, time_likeness
from dev.draft_text import load, render, with_faults
from dualwrite.model.conversions import text as text_
from dualwrite.model.declaration import Field, FirstOf
from dualwrite.model.live import LiveType
from tests.arbitrary import characters

NASTY = [
    "x\nimport os\nos.abort()\n#",
    "x\rboom()",
    'x"""\nboom()\n"""',
    "x')\nboom()  # (",
    "x\\",
    "x\u2028boom()",
    "x\x0cboom()",
    "x\x85boom()",
    "it's",
    "class",
    "CATALOG",
    "Field",
    "table_2",
    "9lives",
    "a b",
    "2nd-hand",
    "한글",
    "a.b",
    "`a.b`",
    "{a}",
    "createdAt",
    "user_id",
    "\ud800",
]
names = st.one_of(
    st.sampled_from(NASTY),
    st.text(characters, min_size=1, max_size=8),
    st.text("ab\n'\"#`.\\{}", min_size=1, max_size=8),
)
TABLES = st.sampled_from(["orders", "a_orders", "shop_orders", "shop_a_orders", "orders_2"])
KINDS = {
    "text": "text", "varchar(3)": "varchar", "integer": "int4", "bigint": "int8", "numeric(10,2)": "numeric",
    "double precision": "float8", "boolean": "bool", "timestamp with time zone": "timestamptz", "date": "date", "jsonb": "jsonb",
    "json": "json", "uuid": "uuid", "text[]": "array", "state": "enum", "bytea": "bytea", "citext": "citext", "point": "point",
    "geography": "geography",
}  # fmt: skip
DEFAULTS = [
    None, "'{}'::jsonb", "'[]'::jsonb", "'0'::jsonb", "'{\"a\": NaN}'::jsonb", "'{}'::text[]", "'x'''::text", "'x\n#'::text", "0",
    "'-5'::integer", "'0'::smallint", "99999999999999999999", "true", "now()", "gen_random_uuid()", "'a\\u0000'::jsonb",
]  # fmt: skip
REFERENCE = firestore.DocumentReference("users", "u1")
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(characters, max_size=4), st.binary(max_size=2),
        st.sampled_from([
            "2026-01-15T12:52:00.000Z", "Thu, 15 Jan 2026 12:52:00 GMT", "2026-01-15", "7", "true", "{}", 1_768_481_520_123,
            datetime(2026, 1, 1, tzinfo=UTC), REFERENCE, firestore.GeoPoint(1.0, 2.0), {"_seconds": 1, "_nanoseconds": 2},
        ]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def live(name: str, generated: bool = False) -> LiveType:
    kind = KINDS.get(name, name)
    return LiveType(name, name, kind, ("open", "it's\n") if kind == "enum" else (), generated)


def shape_of(path: str, *documents: dict, ids: str = "id{0}") -> Shape:
    shape, maps = Shape(path), dict[tuple[str, Names], _Maps]()
    for number, fields in enumerate(documents):
        add(shape, (ids.format(number),), fields, maps)
    for (_, found), seen in maps.items():
        _open_map(shape, found, seen, {"id0"})
    return shape


@st.composite
def worlds(draw):
    """Tables of several schemas, with any columns, keys and references, also to themselves and in circles; collections of like
    names."""
    schema = st.sampled_from(["", "", "shop.", "shop_a."])
    bare = draw(st.lists(st.tuples(schema, TABLES | names), min_size=1, max_size=3, unique=True))
    called = list(dict.fromkeys(schema + name for schema, name in bare))
    tables, shapes = [], []
    for name in called:
        own = draw(st.lists(names.filter(lambda n: n != "id"), min_size=1, max_size=4, unique=True))
        columns = [
            LiveColumn("id", live(draw(st.sampled_from(["text", "text", "uuid", "bigint", "bytea"]))), True, None)
        ]
        for column in own:
            type_ = live(draw(st.sampled_from(sorted(KINDS)) | names), draw(st.integers(0, 9)) == 0)
            columns.append(LiveColumn(column, type_, draw(st.booleans()), draw(st.sampled_from(DEFAULTS) | names)))
        foreign = [
            ForeignKey((column,), draw(st.sampled_from(called)), ("id",), "set null")
            for column in own
            if draw(st.booleans())
        ]
        if len(own) > 1 and draw(st.booleans()):
            foreign.append(ForeignKey((own[0], own[1]), draw(st.sampled_from(called)), ("id", own[0]), "cascade"))
        key = draw(st.sampled_from([("id",), ("id",), (own[0],), ("id", own[-1]), (own[0], own[-1]), ()]))
        unique = ((own[0],),) if draw(st.booleans()) else ()
        triggers = {own[-1]: draw(names)} if draw(st.booleans()) else {}
        odd = "." in name.removeprefix("shop.").removeprefix("shop_a.")
        tables.append(LiveTable(name, tuple(columns), key, unique, tuple(foreign), unique[:0], triggers, odd))
        fields = st.dictionaries(st.sampled_from(own) | names, values, max_size=4)
        head = draw(st.sampled_from(["", "", "above/{above}/", "other/{above}/"]))
        ids = draw(st.sampled_from(["id{0}", "a{0}_b", "id0_id{0}"]))
        shapes.append(shape_of(f"{head}{name.replace('/', '_')}/{{id}}", *draw(st.lists(fields, max_size=3)), ids=ids))
    return tables, shapes


def code_of(text: str) -> list[str]:
    """What the text does when it is run: kinds of statements, and everything that is called or named in them."""
    tree = ast.parse(text)
    found = []
    for statement in tree.body:
        found.append(type(statement).__name__)
        found += [ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return found


WORDS = {
    "Check", "Expr", "ImportFrom", "Assign", "Collection", "Column", "Catalog", "Field", "CreateTime", "DocumentId", "Segment", "Parent",
    "ParentId", "MapEntries", "ArrayElements", "EntryKey", "EntryValue", "EntryField", "EntryIndex", "WholeDocument", "each", "scaled",
    "FirstOf",
}  # fmt: skip


def unmarked(text: str) -> list[str]:
    """What a draft declares without a word that a person must read it. What is left: names, tables, unique keys, `selected`."""
    guessed = ("Column(", "paths=", "entries=", "check_fields=", "written_columns=", "where=")
    lines = [line.lstrip("# ") for line in text.split("EXPORT_TIME =")[1].splitlines()]
    return [line for line in lines if line.startswith(guessed) and not re.search("# .*(GUESS|TODO)", line)]


def imports_without_names_as_code(tables, shapes) -> str:
    """The draft of two databases, once it is known to import and to hold nothing but declarations."""
    text = with_faults(render(*match(shapes, tables), "2026-01-01T00:00:00+00:00"), ["a fault\nof two lines"])
    assert set(code_of(text)) <= WORDS
    assert sum(isinstance(s, ast.Expr) for s in ast.parse(text).body) == 1, "the docstring"
    catalog = load(text.encode("utf-8", "strict").decode())
    assert unmarked(text) == []
    for table in tables:  # each is told of: declared, or in a comment
        assert table.name in [c.table for c in catalog] or "TODO" in text or "No collection looks like" in text
    return text


@settings(max_examples=40)
@given(worlds())
def test_any_draft_imports_and_names_in_it_are_never_code(world):
    """A line break in a field's name became a line of Python; a reference to the own table or a key of bytes failed at import."""
    imports_without_names_as_code(*world)


def _columns(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("Column(")]


def _only(table: LiveTable, *documents: dict) -> str:
    return render([Match(table, (shape_of("things/{thing}", *documents),))], Left((), ()), "x")


@pytest.mark.parametrize("name", ["project.name", "`x`", "a`b"])
def test_a_field_whose_name_holds_a_dot_stands_in_a_tuple(name):
    """Read as a nested path it became NULL, and was called verified."""
    column = "project_name" if "." in name else name.strip("`").replace("`", "_")
    table = LiveTable(
        "projects", (LiveColumn("id", live("text"), True, None), LiveColumn(column, live("text"), False, None)), ("id",)
    )
    assert f"Field(({name!r},))" in _only(table, {name: "v"})


@pytest.mark.parametrize(
    ("type_", "default", "value", "absent"),
    [
        ("jsonb", "'{}'::jsonb", {}, {}), ("jsonb", "'[]'::jsonb", {}, []), ("jsonb", "'0'::jsonb", {}, None),
        ("text", "'it''s'::text", "a", "it's"), ("text", "''::character varying", "a", ""), ("text", "0", "a", None),
        ("state", "'open'::app.state", "open", "open"), ("text[]", "'{}'::text[]", ["a"], []), ("text[]", "ARRAY[]::text[]", ["a"], []),
        ("integer", "0", 1, 0), ("integer", "9999999999", 1, None), ("bigint", "9999999999", 1, 9999999999),
        ("numeric(10,2)", "'9999999999'::numeric", 1, 9999999999), ("boolean", "false", True, False),
        ("boolean", "'t'::boolean", True, None), ("timestamp with time zone", "now()", datetime(2026, 1, 1, tzinfo=UTC), None),
        ("integer", "nextval('s'::regclass)", 1, None),
    ],
)  # fmt: skip
def test_a_draft_proposes_only_an_absent_that_fits_its_column(type_, default, value, absent):
    table = LiveTable(
        "things", (LiveColumn("id", live("text"), True, None), LiveColumn("a", live(type_), True, default)), ("id",)
    )
    text = _only(table, {"a": value})
    column = load(text)["things"].column("a")
    assert (column.absent, type(column.absent)) == (absent, type(absent))
    assert ("doesn't become the column's default" in text) == (absent is None and "now" not in default)


@pytest.mark.parametrize("not_null", [False, True])
def test_a_reference_to_the_own_table_is_declared_if_nullable(not_null):
    """A tree: the row that is inserted first gets a null."""
    columns = (LiveColumn("id", live("text"), True, None), LiveColumn("parent_id", live("text"), not_null, None))
    tree = (ForeignKey(("parent_id",), "things", ("id",), "set null"),)
    text = _only(LiveTable("things", columns, ("id",), foreign=tree), {"parentId": "x"}, {"parentId": "y"})
    if not_null:
        assert (
            "# parent_id (text): TODO references='things' is refused: If rows need each other, one is inserted first"
            in text
        )
    else:
        assert "Column('parent_id', 'compared', Field('parentId'), references='things')" in text
    assert [c.name for c in load(text)["things"].columns] == ["id", "parent_id"][: 2 - not_null]


def test_a_collection_without_a_key_is_a_comment_with_its_reason():
    text = _only(LiveTable("things", (LiveColumn("id", live("uuid"), True, None),), ("id",)), {"a": 1})
    assert list(load(text)) == []
    assert "# TODO things can't be declared: its key column 'id' isn't known" in text
    assert "# THINGS = Collection(" in text


def test_names_that_are_joined_or_numbered_otherwise_are_alike():
    assert likeness("fullname", "full_name") == 1
    assert likeness("questions_rev20230926", "questions") == 1
    assert likeness("v3_users", "users") == 1
    assert likeness("orders", "customers") == 0
    assert time_likeness("_created", "created_at") == 1
    assert time_likeness("placed_at", "created_at") == 0.6


def test_one_id_below_two_parents_may_be_two_collections():
    """It is two if the fields differ."""

    def table(name: str, column: str) -> LiveTable:
        found = (LiveColumn("id", live("text"), True, None), LiveColumn(column, live("text"), False, None))
        return LiveTable(name, found, ("id",))

    shapes = [
        shape_of("teams/{t}/settings/{s}", {"region": "a"}),
        shape_of("shops/{t}/settings/{s}", {"currency": "a"}),
    ]
    found, _ = match(shapes, [table("shop_settings", "currency"), table("team_settings", "region")])
    assert {m.table.name: [s.path for s in m.shapes] for m in found} == {
        "shop_settings": ["shops/{t}/settings/{s}"],
        "team_settings": ["teams/{t}/settings/{s}"],
    }
    alike = [shape_of("teams/{t}/likes/{s}", {"emoji": "a"}), shape_of("shops/{t}/likes/{s}", {"emoji": "a"})]
    [both], _ = match(alike, [table("likes", "emoji")])
    assert len(both.shapes) == 2


def _table(name: str, *columns: str) -> LiveTable:
    found = (LiveColumn("id", live("text"), True, None), *(LiveColumn(c, live("text"), False, None) for c in columns))
    return LiveTable(name, found, ("id",))


@pytest.mark.parametrize(
    ("field", "values", "condition"),
    [
        ("deletedAt", (None, datetime(2026, 1, 1, tzinfo=UTC)), "where=Absent('deletedAt')"),
        ("isDeleted", (True, False), "where=Not(Is('isDeleted', True))"),
        ("archived_on", ("2026-01-01T00:00:00Z",), "where=Absent('archived_on')"),
        ("hidden.x", ("a",), None),
        ("deletedFiles", (["a"],), None),
        ("title", ("a",), None),
    ],
)
def test_a_field_of_a_documents_end_is_a_condition_to_check(field, values, condition):
    """As a comment, with from what; where a column holds the field, it says so itself."""
    documents = [{field: value, "name": "a"} for value in values]
    text = _only(_table("things", "name"), *documents)
    lines = [line.strip() for line in text.splitlines() if "where=" in line]
    assert [condition in line for line in lines] == [True] * (condition is not None)
    assert all(line.startswith("# GUESS where=") and "no column holds it" in line for line in lines)
    assert load(text)["things"].where is None
    if condition is not None:
        uncommented = text.replace("    # GUESS " + condition, "    " + condition + ",  #")
        assert load(uncommented)["things"].where is not None
        assert "where=" not in _only(_table("things", "name", field), *documents) or field == "isDeleted"


def test_what_could_part_two_collections_of_one_table_is_told():
    fields = {"title": "a", "body": "b", "authorName": "c"}
    shapes = [shape_of("posts/{p}", fields), shape_of("archivedPosts/{p}", fields), shape_of("other/{o}", {"x": "y"})]
    text = render(*match(shapes, [_table("posts", "title", "body", "author_name", "kind", "region")]), "x")
    told = "# GUESS archivedPosts/{p} (1 sampled) looks like rows of posts too, by its name and 3 of 5 columns. "
    assert told + "If so, give each its share: rows={'kind': ...}, a column that no field fills (or region)." in text
    assert "#   archivedPosts/{p}  posts?" in text
    assert "# No table looks like other/{o} (1 sampled)." in text
    text = render(*match(shapes, [_table("posts", "title", "body", "author_name")]), "x")
    assert "add one, and give each rows=." in text


def test_a_field_of_one_kind_in_all_documents_is_of_that_kind():
    assert Seen({"ISO time", "null"}).kind == "ISO time"
    assert Seen({"ISO time", "text"}).kind == "text"
    assert Seen({"epoch seconds", "integer"}).kind == "integer"
    assert Seen({"timestamp", "ISO time"}).kind is None


def test_equal_names_in_several_schemas_are_several_collections():
    """`shop.orders` took the name of `shop_orders`, and the draft didn't import."""
    found = [
        Match(_table(name, "a"), (shape_of(f"c{n}/{{c}}", {"a": "x"}),))
        for n, name in enumerate(["orders", "shop.orders", "shop_orders", "shop.orders_2", "orders_2"])
    ]
    catalog = load(render(found, Left((), ()), "x"))
    assert {c.table: c.name for c in catalog} == {
        "orders": "orders", "shop.orders": "shop_orders_2", "shop_orders": "shop_orders", "shop.orders_2": "shop_orders_2_2",
        "orders_2": "orders_2",
    }  # fmt: skip


RENAMED = [{"phone": "1"}, {"phoneNumber": "2"}, {"phone": "3"}]


@pytest.mark.parametrize(
    ("documents", "columns", "origin"),
    [
        (RENAMED, ("phone",), FirstOf(Field("phone"), Field("phoneNumber"))),
        ([{"phone": "1", "phoneNumber": None}, *RENAMED], ("phone",), FirstOf(Field("phone"), Field("phoneNumber"))),
        ([*RENAMED, {"phone": "1", "phoneNumber": "2"}], ("phone",), Field("phone")),  # which has the row?
        ([*RENAMED, {"a": "x"}], ("phone",), Field("phone")),  # a document has neither
        ([{"phone": "1"}, {"phoneNumber": 2.5}], ("phone",), FirstOf(Field("phone"), Field("phoneNumber") >> text_)),
        ([{"phone": "1"}, {"phoneNumber": ["2"]}], ("phone",), Field("phone")),  # no text
        (RENAMED, ("phone", "phone_number"), Field("phone")),  # it has a column of its own
        ([{"phone": "1"}, {"phone": "2"}], ("phone",), Field("phone")),
    ],
)  # fmt: skip
def test_fields_are_read_together_if_each_document_has_just_one(documents, columns, origin):
    text = _only(_table("people", *columns), *documents)
    assert load(text)["people"].column("phone").origin == origin
    assert ("each of" in text) == isinstance(origin, FirstOf)
