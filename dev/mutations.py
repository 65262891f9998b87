"""The changes of a module's source that `dev.mutants` tries, one at a time.

Comparisons, arithmetic, `and`/`or`, `not`, conditions, constants, returned values, statements left out, `min`/`max`,
`any`/`all`. Not changed: annotations, decorators, docstrings, the words of error messages, names and sizes at the top of a
module, and arguments that change nothing.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip
_UNSEEN = ("strict", "thread_name_prefix")
"""Arguments that change nothing: an assertion about two lists of our own, and the name of a thread for a debugger."""

_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One change of one module: its line, its description, the lines of its statement, and the changed tree."""

    line: int
    change: str
    lines: frozenset[int]
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Every change of the module, one at a time."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        node._number = number  # type: ignore[attr-defined] # found again in a copy
    named = {id(n) for statement in tree.body if _only_names(statement) for n in ast.walk(statement)}
    for node, lines in _mutable(tree, frozenset()):
        if id(node) in named:
            continue
        for change, replace in _changes(node):
            copied = copy.deepcopy(tree)
            twin = next(n for n in ast.walk(copied) if n._number == node._number)  # type: ignore[attr-defined]
            mutated = _Replacing(twin, replace(copy.deepcopy(node))).visit(copied)
            assert isinstance(mutated, ast.Module)
            yield Mutant(getattr(node, "lineno", 0), change, lines, ast.fix_missing_locations(mutated))


def _only_names(statement: ast.stmt) -> bool:
    """`__all__`, a TypeVar, or a number with a name at the top of the module: a size or a time limit, whose exact value no
    test should pin."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            if name == "__all__" or (isinstance(value, ast.Call) and ast.unparse(value.func) == "TypeVar"):
                return True
            parts = list(ast.walk(value)) if value is not None else []
            numbers = all(
                isinstance(n, ast.BinOp | ast.operator | ast.UnaryOp | ast.unaryop)
                or (isinstance(n, ast.Constant) and isinstance(n.value, int | float) and not isinstance(n.value, bool))
                for n in parts
            )
            return bool(parts) and name.isupper() and numbers
    return False


class _Replacing(ast.NodeTransformer):
    def __init__(self, node: ast.AST, by: ast.AST) -> None:
        self._node, self._by = node, by

    def visit(self, node: ast.AST) -> ast.AST:
        return self._by if node is self._node else super().generic_visit(node)


def _mutable(node: ast.AST, lines: frozenset[int]) -> Iterator[tuple[ast.AST, frozenset[int]]]:
    """The nodes below one that affect the module's behaviour, and the lines of the statement that each is part of."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_text(child) or isinstance(child, ast.JoinedStr):
                continue
            if isinstance(child, ast.keyword) and child.arg in _UNSEEN:
                continue
            around = _lines_of(child) if isinstance(child, ast.stmt) else lines
            yield child, around
            if not isinstance(child, ast.Raise):  # removed as a whole; its message isn't mutated
                yield from _mutable(child, around)


def _lines_of(statement: ast.stmt) -> frozenset[int]:
    """The lines of a statement; if it has a body, those of its head."""
    body = getattr(statement, "body", None)
    end = max(statement.lineno, body[0].lineno - 1) if isinstance(body, list) else statement.end_lineno
    return frozenset(range(statement.lineno, (end or statement.lineno) + 1))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


Change = tuple[str, Callable[[ast.AST], ast.AST]]


def _changes(node: ast.AST) -> Iterator[Change]:  # noqa: C901 - a change for each kind of node
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
