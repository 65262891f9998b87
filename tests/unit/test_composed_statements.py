"""Each statement that is composed has a value for each of its placeholders."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "dags" / "dualwrite"


def test_each_placeholder_of_a_statement_has_its_value():
    """psycopg finds a placeholder without one only when the statement is composed, which may be late in a rare run."""
    looked = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"):
                continue
            made = node.func.value
            if not (isinstance(made, ast.Call) and made.args and isinstance(made.args[0], ast.Constant)):
                continue
            given = {keyword.arg for keyword in node.keywords}
            if None in given:
                continue
            looked += 1
            lacking = set(re.findall(r"(?<!\{)\{(\w+)\}", str(made.args[0].value))) - given
            assert not lacking, f"{path.name}, line {node.lineno}: nothing for {', '.join(sorted(lacking))}"
    assert looked > 60
