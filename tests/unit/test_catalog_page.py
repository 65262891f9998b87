"""The examples of docs/catalog.md are what they look like: each column can be declared, with the words of the package."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dualwrite.model import check_fields, conditions, conversions, declaration
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Row, map_document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "catalog.md"
_AS_COLUMNS = {
    "column": "{}",
    "origin": 'Column("c", "compared", {})',
    "conversion": 'Column("c", "compared", Field("v") >> {})',
}
"""By the heading of a table: how the examples in it become columns."""
EXAMPLES = [
    _AS_COLUMNS[heading].format(example)
    for heading, rows in re.findall(r"^\| (\w+) \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    if heading in _AS_COLUMNS
    for example in re.findall(r"^\| `(.*?)` \|", rows, re.MULTILINE)
]
YOURS = {"full_name": lambda first, last: f"{first} {last}", "halved": lambda value: value / 2}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_page_can_be_declared(example):
    column = eval(example, {**vars(conversions), **vars(declaration), **YOURS})
    assert isinstance(column, declaration.Column)


def test_each_conversion_and_origin_stands_on_the_page():
    text = PAGE.read_text()
    names = [n for n, v in vars(conversions).items() if isinstance(v, conversions.Conversion)]
    assert len(EXAMPLES) > 30
    assert [n for n in [*names, "scaled", "one_of", "each", "segment", "part"] if f"{n}" not in text] == []
    origins = [kind.__name__ for kind in declaration.Origin.__args__]
    kinds = [kind.__name__ for kind in declaration.Entries.__args__]
    assert [n for n in [*origins, *kinds] if f"{n}(" not in text and n != "Converted"] == []


def test_the_check_fields_of_the_page_can_be_declared():
    [example] = re.findall(r"^check_fields = (\(.*\))$", PAGE.read_text(), re.MULTILINE)
    declared = eval(example, {**vars(conversions), "Check": check_fields.Check})
    key = declaration.Column("id", "key", declaration.DocumentId())
    found = declaration.Collection("notes", "notes", ("notes/{note}",), (key,), check_fields=declared)
    assert [str(c) for c in found.checks] == ["updated as iso_time", "created as epoch_milliseconds", "seenAt"]


CONDITIONS = re.findall(r"^\| `where=(.*?)` \|", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("example", CONDITIONS)
def test_a_condition_of_the_page_can_be_declared(example):
    where = eval(example, {**vars(conversions), **vars(declaration), **vars(conditions)})
    columns = (
        declaration.Column("id", "key", declaration.DocumentId()),
        declaration.Column("tag", "key", declaration.EntryKey()),
    )
    of_entry = declaration.Collection(
        "notes", "notes", ("notes/{note}",), columns, entries=declaration.MapEntries("tags"), where=where
    )
    assert of_entry.where is where


def test_each_condition_stands_on_the_page():
    assert {kind.__name__ for kind in conditions.Condition.__args__} == {name for e in CONDITIONS for name in re.findall(r"(\w+)\(", e)} & {
        "Absent", "Is", "Not", "AllOf", "AnyOf"
    }  # fmt: skip


def test_the_share_of_the_page_can_be_declared():
    [example] = re.findall(r"^rows = (\{.*\})$", PAGE.read_text(), re.MULTILINE)
    key = declaration.Column("id", "key", declaration.DocumentId())
    found = declaration.Collection("notes", "notes", ("notes/{note}",), (key,), rows=eval(example))
    assert [c.name for c in found.columns] == ["id", "channel", "region"]


def test_the_paths_of_the_page_can_be_declared():
    examples = re.findall(r"^\| `paths=(.*?)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(examples) == 7
    for example in examples:
        paths = eval(example)
        variables = declaration.Template(paths[0]).variables
        origins: list[declaration.Origin] = [*map(declaration.Segment, variables)] or [declaration.Constant("site")]
        columns = [declaration.Column(f"c{n}", "key", origin) for n, origin in enumerate(origins)]
        assert declaration.Collection("notes", "notes", paths, tuple(columns)).keyed_by_whole_path


def test_the_rows_by_a_function_of_the_page_are_made():
    [example] = re.findall(r"^```python\n(def opening_hours.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names = {**vars(conversions), **vars(declaration), **vars(conditions)}
    exec(example, names)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    hours = {"tue": [{"from": "09:00", "to": "never"}], "mon": [{"from": "13:00"}, {"from": 9, "to": "12:00"}]}
    rows = map_document(names["OPENING_HOURS"], Document("places/p1", {"hours": hours}, at, at)) or []
    assert [row.cells for row in rows if isinstance(row, Row)] == [
        ("p1", "mon", "13:00", None),
        ("p1", "mon", "9", "12:00"),
    ]
