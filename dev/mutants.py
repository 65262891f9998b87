"""Which lines do the unit tests not hold? Breaks the pure modules one expression at a time and runs their tests.

    make mutants                                   all modules below
    make mutants module=classify                   one of them

A mutant that no test notices survives: either a test is missing, or the change changes nothing. docs/development.md has
the figures of the last run, and why what survives may.

Each mutant runs in a fork of this process, which has imported what is slow and nothing of the bundle; the module is
replaced while it is imported, and no file is touched. What is mutated: comparisons, arithmetic, `and`/`or`, `not`,
conditions, constants, what is returned, statements left out, `min`/`max`, `any`/`all`. Not mutated: annotations,
decorators, docstrings, and the words of error messages.
"""

from __future__ import annotations

import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 120.0
"""A mutant that takes longer never ends: noticed, too."""

MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "windows": ("dualwrite.model.windows", ("test_windows.py",)),
    "verdicts": ("dualwrite.model.verdicts", ("test_verdicts.py", "test_report.py")),
    "classify": ("dualwrite.engine.classify", ("test_classify.py",)),
    "inserts": ("dualwrite.engine.inserts", ("test_inserts.py",)),
    "seen": ("dualwrite.engine.seen", ("test_seen.py",)),
    "second_look": ("dualwrite.engine.second_look", ("test_second_look.py",)),
    "report": ("dualwrite.model.report", ("test_report.py",)),
    "mapping": ("dualwrite.model.mapping", ("test_values.py", "test_mapping.py")),
}
"""The module that is mutated, and the files of tests/unit that must notice."""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One change of one module: where, what, and the tree it leaves."""

    line: int
    change: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Every change of the module, one at a time."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        node._number = number  # type: ignore[attr-defined] # found again in a copy
    for node in _mutable(tree):
        for change, replace in _changes(node):
            copied = copy.deepcopy(tree)
            twin = next(n for n in ast.walk(copied) if n._number == node._number)  # type: ignore[attr-defined]
            mutated = _Replacing(twin, replace(copy.deepcopy(node))).visit(copied)
            assert isinstance(mutated, ast.Module)
            yield Mutant(getattr(node, "lineno", 0), change, ast.fix_missing_locations(mutated))


class _Replacing(ast.NodeTransformer):
    def __init__(self, node: ast.AST, by: ast.AST) -> None:
        self._node, self._by = node, by

    def visit(self, node: ast.AST) -> ast.AST:
        return self._by if node is self._node else super().generic_visit(node)


def _mutable(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that say what the module does."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_text(child) or isinstance(child, ast.JoinedStr):
                continue
            yield child
            if not isinstance(child, ast.Raise):  # left out as a whole; its words are its own affair
                yield from _mutable(child)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


Change = tuple[str, Callable[[ast.AST], ast.AST]]


def _changes(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                other = _COMPARISONS[type(op)]
                yield (
                    f"{type(op).__name__} -> {other.__name__}",
                    _with(lambda n, i=i, o=other: n.ops.__setitem__(i, o())),
                )
        case ast.BoolOp():
            swapped = ast.Or if isinstance(node.op, ast.And) else ast.And
            yield f"-> {swapped.__name__}", _with(lambda n: setattr(n, "op", swapped()))
        case ast.UnaryOp(op=ast.Not()):
            yield "not left out", lambda n: n.operand  # type: ignore[attr-defined]
        case ast.BinOp() if type(node.op) in _OPERATORS:
            operator = _OPERATORS[type(node.op)]
            yield f"{type(node.op).__name__} -> {operator.__name__}", _with(lambda n: setattr(n, "op", operator()))
        case ast.Constant(value=bool() as value):
            yield f"-> {not value}", lambda n: ast.Constant(not value)
        case ast.Constant(value=int() as whole):
            yield f"{whole} -> {whole + 1}", lambda n: ast.Constant(whole + 1)
        case ast.Constant(value=str() as value):
            yield f"{value!r} -> another text", lambda n: ast.Constant(f"another{value}")
        case ast.If() | ast.IfExp() | ast.While():
            yield "condition turned round", _with(lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)))
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "returns None", lambda n: ast.Return(ast.Constant(None))
        case ast.Raise() | ast.AugAssign():
            yield "left out", lambda n: ast.Pass()
        case ast.Expr(value=ast.Call()):
            yield "call left out", lambda n: ast.Pass()
        case ast.Continue():
            yield "-> break", lambda n: ast.Break()
        case ast.Break():
            yield "-> continue", lambda n: ast.Continue()
        case ast.Name(id=name) if name in _NAMES:
            yield f"{name} -> {_NAMES[name]}", lambda n: ast.Name(_NAMES[name], ast.Load())


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(change: Callable[..., object]) -> Callable[[ast.AST], ast.AST]:
    def changed(node: ast.AST) -> ast.AST:
        change(node)
        return node

    return changed


# --- running them -----------------------------------------------------------------------------------------------------


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutated module to whoever imports it."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, self._path, "exec"), module.__dict__)


def _notices(name: str, path: Path, tree: ast.Module, tests: Sequence[str]) -> bool:
    """Whether a test fails, or none of them ends. In a fork, so that each starts from nothing of the bundle."""
    child = os.fork()
    if child == 0:
        _run_tests(name, path, tree, tests)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _run_tests(name: str, path: Path, tree: ast.Module, tests: Sequence[str]) -> None:
    import pytest

    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.meta_path.insert(0, _Finder(name, path, tree))
        # The tests of pure modules need no conftest.py, and no plugin but the one that pyproject.toml configures.
        options = ["-x", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
        status = int(pytest.main([*options, *(f"tests/unit/{t}" for t in tests)]))
    finally:
        os._exit(status)


def main(wanted: Sequence[str]) -> int:
    """Prints the survivors and the share that was noticed; 1 where a module is below 90 percent."""
    # Slow, and not ours: imported once, before the forks.
    import google.cloud.firestore_v1  # noqa: F401
    import hypothesis
    import psycopg  # noqa: F401
    import pytest  # noqa: F401

    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    quick = hypothesis.settings(derandomize=True, database=None, deadline=None, max_examples=20)
    hypothesis.settings.register_profile("mutants", quick)
    hypothesis.settings.load_profile("mutants")
    failed = False
    for short in wanted or MODULES:
        name, tests = MODULES[short]
        path = ROOT / "dags" / Path(*name.split(".")).with_suffix(".py")
        source = path.read_text()
        if _notices(name, path, ast.parse(source), tests):
            print(f"{short}: its tests fail without any change; fix that first")
            return 1
        lines = source.splitlines()
        all_of_them = list(mutants(source))
        began = time.monotonic()
        with ThreadPoolExecutor(2) as threads:
            noticed = list(threads.map(lambda m, n=name, p=path, t=tests: _notices(n, p, m.tree, t), all_of_them))
        for mutant, seen in zip(all_of_them, noticed, strict=True):
            if not seen:
                print(f"  {short}:{mutant.line}: {mutant.change}: {lines[mutant.line - 1].strip()[:100]}", flush=True)
        share = 100 * sum(noticed) / len(noticed)
        seconds = time.monotonic() - began
        print(f"{short}: {sum(noticed)} of {len(noticed)} noticed, {share:.1f} %, {seconds:.0f} s", flush=True)
        failed |= share < 90
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
