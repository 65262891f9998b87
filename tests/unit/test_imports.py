"""The layout shows the architecture: who may import what."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"
PACKAGE = DAGS / "dualwrite"

ALONE = {
    "google": {"source.py", "airflow.py"},  # airflow.py: the provider's hook, for credentials
    "grpc": {"source.py"},
    "psycopg": {"postgres.py"},
    "sentry_sdk": {"alerts.py"},
    "airflow": {"airflow.py", "forms.py"},
}
INWARD = [
    {"errors", "documents"},
    {"declaration", "verdicts", "windows", "migration_files"},
    {"catalog", "mapping", "report", "parameters"},
    {"postgres", "statements", "source", "schema_snapshot"},
    {"target", "memory", "migrations", "alerts", "dual_write"},
    {"judge"},
    {"operations"},
    {"protocol"},
    {"examine"},
    {"preflight"},
    {"recording"},
    {"backfill", "reconcile_plan"},
    {"reconcile", "liveness"},
    {"repair", "outcome"},
    {"airflow", "forms"},
]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path.name}, line {node.lineno}: write `from dualwrite import ...`, not a relative import"
            )
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.name)
def test_each_library_is_known_to_one_module(path):
    for library, modules in ALONE.items():
        used = any(name == library or name.startswith(f"{library}.") for name in _imports(path))
        if library == "google" and path.name == "airflow.py":
            continue
        assert not used or path.name in modules, f"{path.name} imports {library}: only {', '.join(modules)} may"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.name)
def test_imports_point_inward(path):
    if path.stem == "__init__":
        return
    rank = {name: i for i, layer in enumerate(INWARD) for name in layer}
    assert path.stem in rank, f"{path.name} is in no layer: say in this test where it belongs"
    for name in _imports(path):
        if name.startswith("dualwrite."):
            other = name.split(".")[1]
            if other in rank:
                assert rank[other] <= rank[path.stem], f"{path.name} imports {other}, which lies further out"


def test_no_module_is_named_as_one_of_the_standard_library():
    assert not {p.stem for p in PACKAGE.glob("*.py")} & (sys.stdlib_module_names - {"__init__"})
