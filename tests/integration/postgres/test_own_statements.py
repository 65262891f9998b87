"""The statements in `.sql` files: each is one that Postgres takes, is described, and belongs to one module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import psycopg
import pytest

from dualwrite import settings
from dualwrite.postgres import own_schema
from dualwrite.postgres.own_statements import own_statements

PACKAGE = Path(settings.__file__).parent
FILES = sorted(PACKAGE.rglob("*.sql"))
NAMED = [(file, name) for file in FILES for name in own_statements(str(file))]
VERB = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|TRUNCATE|LOCK|COPY|CREATE)\s")
UTILITY = re.compile(r"TRUNCATE|LOCK|COPY|CREATE")


def _numbered(statement: str) -> str:
    """With its parameters as psql, and Postgres itself, call them: $1, $2 and so on, each where its name is first used."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    text = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
    assert "%" not in text, "a parameter has no name"
    return text


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{file.stem}-{name}" for file, name in NAMED])
def test_postgres_prepares_it(connection: psycopg.Connection, file: Path, name: str):
    """Tables, columns and types are there, those of parameters too; of TRUNCATE and the like Postgres checks the form only."""
    text = _numbered(own_statements(str(file))[name].as_string(None))
    assert VERB.match(text), text
    assert ";" not in text, text
    if "supabase_migrations" in text:  # as Supabase's CLI makes it
        connection.execute(
            "CREATE SCHEMA supabase_migrations CREATE TABLE schema_migrations (version TEXT PRIMARY KEY)"
        )
    if UTILITY.match(text):
        prepared = connection.pgconn.prepare(b"", text.encode())
        assert prepared.status == psycopg.pq.ExecStatus.COMMAND_OK, prepared.error_message.decode()
    else:
        connection.execute(f"PREPARE it AS {text}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_described_and_taken_by_the_module_beside_it(file: Path):
    text = file.read_text()
    names = list(own_statements(str(file)))
    described = re.findall(r"^-- name: (\w+)\n-- [A-Z].*\n(?:-- .*\n)*(?=[A-Z])", text, re.MULTILINE)
    assert described == names == re.findall(r"^-- name: *(.*)", text, re.MULTILINE)
    assert text.count(";\n") == len(names), "each ends with a semicolon, for psql"
    module = file.with_suffix(".py").read_text()
    taken = re.findall(r'^(_\w+) = _SQL\["(\w+)"\]$', module, re.MULTILINE)
    assert [name for _, name in taken] == names, "in the order of the file, all of them"
    for constant, name in taken:
        assert constant == f"_{name.upper()}"
        assert len(re.findall(rf"\b{constant}\b", module)) > 1, f"nothing uses {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_bundle_with_a_prefix_asks_its_own_schema(monkeypatch, file: Path):
    monkeypatch.setattr(own_schema, "SCHEMA", "dualwrite_shop")
    for name, statement in own_statements(str(file)).items():
        assert not re.search(r"\bdualwrite\b", statement.as_string(None)), name


def _static(path: Path) -> list[str]:
    """Statements that a module spells out, although nothing in them but the schema's name is known only when it runs. (Only the
    latter, of a module without such a file: what it asks of Postgres's catalog stands there.)"""
    tree = ast.parse(path.read_text())
    composed = {  # what is formatted, and the parts of such
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"
        for inner in ast.walk(node.func.value)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            composed |= {id(inner) for inner in ast.walk(node) if inner is not node}
            values = {ast.unparse(v.value) for v in node.values if isinstance(v, ast.FormattedValue)}
            text = "".join(v.value if isinstance(v, ast.Constant) else "x" for v in node.values)
            is_static = values <= {"SCHEMA"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text, is_static = node.value, path.with_suffix(".sql") in FILES
        else:
            continue
        if is_static and id(node) not in composed and VERB.match(text):
            found.append(f"{path.name}, line {node.lineno}: {' '.join(text.split())[:60]}")
    return found


def test_no_module_spells_such_a_statement_out():
    assert len(FILES) >= 10
    assert [line for module in sorted(PACKAGE.rglob("*.py")) for line in _static(module)] == []


def test_a_name_that_is_absent_or_there_twice_is_an_error(tmp_path: Path):
    module = tmp_path / "some.py"
    (tmp_path / "some.sql").write_text("-- name: one\n-- It.\nSELECT 1;\n")
    assert own_statements(str(module))["one"].as_string(None) == "SELECT 1"
    with pytest.raises(KeyError, match="two"):
        own_statements(str(module))["two"]
    (tmp_path / "some.sql").write_text("-- name: one\n-- It.\nSELECT 1;\n\n-- name: one\n-- It.\nSELECT 2;\n")
    with pytest.raises(ValueError, match=r"some\.sql has two statements one"):
        own_statements(str(module))
