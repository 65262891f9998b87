"""The layout shows the architecture: who may import what. Walks every folder of the package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"
PACKAGE = DAGS / "dualwrite"
MODULES = sorted(PACKAGE.rglob("*.py"))

ALONE = {
    # edge/connections.py: the provider's hook, for credentials
    "google": ("firestore/wire.py", "firestore/queries.py", "edge/connections.py"),
    "grpc": ("firestore/wire.py", "firestore/failures.py"),
    "psycopg": tuple(f"postgres/{name}.py" for name in ("adapters", "conditions", "connection", "transactions")),
    "sentry_sdk": ("alerts.py",),
    "airflow": ("edge/",),
}
FLOORS = [
    {"settings"},
    {"model"},
    {"shipped_catalog", "firestore", "postgres", "alerts"},
    {"catalog"},
    {"engine", "migrations", "dual_write"},
    {"runs"},
    {"edge"},
]
"""From the ground up. A part imports parts of lower floors only, and itself."""

WINGS = {
    "runs/slices/": {
        "runs/reconciliation.py": {"sweep"},
        "edge/reconciliation.py": {"slice", "sweep"},
        "edge/gap.py": {"backfill", "reports", "slice"},
    },
    "runs/tripwire/": {
        "runs/first_look.py": {"wire"},
        "runs/backfill.py": {"baselines", "wire"},
        "runs/reconcile_plan.py": {"baselines"},
        "runs/slices/backfill.py": {"baseline", "baselines", "wire"},
        "runs/slices/sweep.py": {"baseline", "baselines", "wire"},
    },
}
"""Features that live in one folder, from pure part to SQL: who calls them, and what of them. Nothing else knows that they exist,
so that a feature can be taken out by deleting its folder and these calls."""


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _part(path: Path) -> str:
    """The package, or the module at the top, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_each_library_is_known_to_its_modules_alone(path):
    for library, modules in ALONE.items():
        used = any(name == library or name.startswith(f"{library}.") for name in _imports(path))
        assert not used or _name(path).startswith(modules), (
            f"{_name(path)} imports {library}: only {', '.join(modules)} may"
        )


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_inward(path):
    if _part(path) == "__init__":
        return
    floor = {part: i for i, parts in enumerate(FLOORS) for part in parts}
    assert _part(path) in floor, f"{_name(path)} is on no floor: say in this test where it belongs"
    for name in _imports(path):
        if name.startswith("dualwrite."):
            other = name.split(".")[1]
            if other in floor and other != _part(path):
                assert floor[other] < floor[_part(path)], f"{_name(path)} imports {name}, which lies no lower"


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_is_called_from_a_few_places_alone(wing):
    package = "dualwrite." + wing.strip("/").replace("/", ".") + "."
    callers = {
        _name(path): {name.removeprefix(package).split(".")[0] for name in _imports(path) if name.startswith(package)}
        for path in MODULES
        if not _name(path).startswith(wing)
    }
    assert {name: modules for name, modules in callers.items() if modules} == WINGS[wing]


def test_no_package_imports_itself_in_a_circle():
    """Within a package the modules form no cycle either."""
    graph = {}
    for path in MODULES:
        module = "dualwrite." + _name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        graph[module] = _imports(path)
    graph = {m: {i for i in found if i in graph and i != m} for m, found in graph.items()}
    while leaves := [m for m, found in graph.items() if not found & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert graph == {}, "these import each other in a circle"


def test_no_module_is_named_as_one_of_the_standard_library():
    assert not {p.stem for p in MODULES} & (sys.stdlib_module_names - {"__init__"})
