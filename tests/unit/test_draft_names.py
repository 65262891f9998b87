"""A draft of the catalog is Python that somebody runs: names in two databases are data in it, never code."""

from __future__ import annotations

import ast
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.draft_guess import LiveColumn, LiveTable, Match, Shape, match, render
from dualwrite.model.errors import CatalogError

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
    "9lives",
    "a b",
    "한글",
    "a.b",
    "`a.b`",
    "{a}",
]
names = st.one_of(
    st.sampled_from(NASTY), st.text(min_size=1, max_size=8), st.text("ab\n'\"#`.\\{}", min_size=1, max_size=8)
)
field_paths = st.one_of(names.filter(lambda n: "." not in n), st.tuples(names, names).map(".".join))


@st.composite
def worlds(draw):
    """Tables, and collections of the same names, so that each table finds one."""
    tables, shapes = [], []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        fields = draw(st.lists(names, min_size=1, max_size=3, unique=True))
        columns = [LiveColumn("id", "text", True, None)]
        for column in fields:
            kind = draw(
                st.sampled_from(["text", "jsonb", "integer", "boolean", "timestamp with time zone", draw(names)])
            )
            default = draw(
                st.sampled_from(
                    [None, "'{}'::jsonb", "'x'''::text", "0", "'0'::smallint", "true", "now()", draw(names)]
                )
            )
            columns.append(LiveColumn(column, kind, draw(st.booleans()), default))
        unique = ((columns[1].name,),) if draw(st.booleans()) else ()
        tables.append(
            LiveTable(name, tuple(columns), ("id",), unique, {columns[-1].name: name} if draw(st.booleans()) else {})
        )
        types_ = st.sampled_from([{"str"}, {"dict"}, {"int"}, {"bool"}, {"datetime"}])
        shape = Shape(f"{name.replace('/', '_')}/{{id}}", {f: draw(types_) for f in fields}, sampled=1)
        shape.unsayable = {(draw(names), draw(names))}
        if draw(st.booleans()):
            shape.open_maps[fields[0]] = "str"
        shapes.append(shape)
    return tables, shapes


def code_of(text: str) -> list[str]:
    """What the text does when it is run: kinds of statements, and everything that is called or named in them."""
    tree = ast.parse(text)
    found = []
    for statement in tree.body:
        found.append(type(statement).__name__)
        found += [ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return found


@given(worlds())
def test_names_in_a_draft_are_strings_and_never_code(world):
    """A collection or field whose name holds a line break became a line of Python."""
    tables, shapes = world
    text = render(*match(shapes, tables), "2026-01-01T00:00:00+00:00")
    allowed = {
        "Expr", "ImportFrom", "Assign", "Collection", "Column", "Catalog", "Field", "CreateTime", "DocumentId", "Segment",
        "ParentId", "MapEntries", "ArrayElements", "EntryKey", "EntryValue",
    }  # fmt: skip
    assert set(code_of(text)) <= allowed
    tree = ast.parse(text)
    assert sum(isinstance(s, ast.Expr) for s in tree.body) == 1, "the docstring"
    module = types.ModuleType("a_draft")
    try:
        exec(compile(text, "draft.py", "exec"), module.__dict__)
    except CatalogError:
        return  # a person corrects it; the message says what
    assert module.__dict__["CATALOG"] is not None


@pytest.mark.parametrize("name", ["project.name", "`x`", "a`b"])
def test_a_field_that_cant_be_declared_is_named_and_not_guessed(name):
    """Read as a nested path it became NULL, and was called verified."""
    table = LiveTable(
        "projects",
        (LiveColumn("id", "text", True, None), LiveColumn("project_name", "text", False, None)),
        ("id",),
        (),
        {},
    )
    shape = Shape("projects/{project}", {}, sampled=3, unsayable={(name,)})
    text = render([Match(table, (shape,))], [], [], "2026-01-01T00:00:00+00:00")
    assert f"# TODO field {name!r} can't be declared" in text
    assert "Field(" not in text


@pytest.mark.parametrize(
    ("kind", "default", "absent"),
    [
        ("jsonb", "'{}'::jsonb", None), ("jsonb", "'[]'::jsonb", None), ("jsonb", "'0'::jsonb", None),
        ("text", "'it''s'::text", "it's"), ("text", "''::character varying", ""), ("text", "0", None),
        ("integer", "0", 0), ("bigint", "9999999999", None), ("numeric", "'9999999999'::numeric", 9999999999),
        ("boolean", "false", False), ("boolean", "'t'::boolean", None), ("timestamp with time zone", "now()", None),
        ("integer", "nextval('s'::regclass)", None),
    ],
)  # fmt: skip
def test_a_draft_proposes_only_an_absent_that_fits_its_column(kind, default, absent):
    table = LiveTable(
        "things", (LiveColumn("id", "text", True, None), LiveColumn("a", kind, True, default)), ("id",), (), {}
    )
    fitting = {"jsonb": "dict", "text": "str", "boolean": "bool", "timestamp with time zone": "datetime"}.get(
        kind, "int"
    )
    text = render([Match(table, (Shape("things/{thing}", {"a": {fitting}}, sampled=1),))], [], [], "x")
    module = types.ModuleType("a_draft")
    exec(compile(text, "draft.py", "exec"), module.__dict__)
    column = module.__dict__["CATALOG"]["things"].column("a")
    assert (column.absent, type(column.absent)) == (absent, type(absent))
    assert ("doesn't become its default" in text) == (kind == "jsonb")
