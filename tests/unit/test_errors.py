"""Each refusal has a code of its own, which stays when its sentence is worded better."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualwrite.model import errors

PACKAGE = Path(__file__).resolve().parents[2] / "dags" / "dualwrite"
HAS_ONE_RULE = {"SourceError", "IncompleteRead", "BudgetError", "TargetError", "IdentityError", "Defect"}
"""Their class says it all."""
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type)} - {"Refused"} | {"SettingsError"}


def _made() -> Iterator[tuple[str, str, ast.expr | None]]:
    """Each place where an error of ours is made: its file and line, its kind, and the code that it is given."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                given = next((k.value for k in node.keywords if k.arg == "code"), None)
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node.func.id, given
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "refuse" and path.parent.name == "model":
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", "CatalogError", node.args[1]


def test_each_refusal_is_given_a_code():
    """A class with several rules tells them apart by its code; an error passed on keeps the one that it had."""
    made = list(_made())
    assert len(made) > 130
    for place, kind, code in made:
        assert code is not None or kind in HAS_ONE_RULE, f"{place}: {kind} needs a code"
        if isinstance(code, ast.Constant):
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", str(code.value)), place
        else:
            assert code is None or ast.unparse(code) in ("code", "error.code"), place


def test_a_code_is_of_one_rule():
    """Only what a retry may mend, and what it can't, have one in common: a server that isn't reached, a rejected statement."""
    places: dict[str, list[str]] = {}
    for place, _, code in _made():
        if isinstance(code, ast.Constant):
            places.setdefault(str(code.value), []).append(place)
    assert {code for code, found in places.items() if len(found) > 1} <= {"target-unreachable", "statement-rejected"}


@pytest.mark.parametrize("name", sorted(KINDS - {"SettingsError"}))
def test_a_code_survives_another_process(name):
    """Airflow's supervisor, and a process that compares, get errors pickled."""
    kind = getattr(errors, name)
    for error in (kind("m"), kind("m", code="a-rule")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(again), str(again), again.code) == (kind, "m", error.code)
