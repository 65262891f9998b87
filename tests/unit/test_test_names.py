"""The names of all tests, in every folder."""

from __future__ import annotations

import ast

from dev.airflow_home import ROOT

MOST_CHARACTERS = 60


def test_no_name_of_a_test_has_more_than_60_characters():
    """A name says what is held, as a sentence; why, and under which conditions, stands in the docstring."""
    names = {
        (path.relative_to(ROOT).as_posix(), node.name)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert len(names) > 1_000, "it looks at the tests"
    long = sorted(f"{file}: {name} has {len(name)}" for file, name in names if len(name) > MOST_CHARACTERS)
    assert not long, f"at most {MOST_CHARACTERS} characters, the rest into the docstring:\n" + "\n".join(long)
