"""Whether a value has a declared shape: a TypedDict's keys, all of them and no other, and what they hold, at any depth."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from dualwrite.model.run_report import GapReport, MigrationsReport, RunReport, StoppedReport

REPORTS = {"reconcile_dual_writes": RunReport, "backfill_gap": GapReport, "apply_migrations": MigrationsReport}


def report_faults(report: Any) -> list[str]:
    """Of what a run of a DAG left as its report."""
    return faults(report, StoppedReport if "stopped" in report else REPORTS[report["dag_id"]])


@cache  # a report has hundreds of objects of a dozen shapes
def fields(shape: Any) -> dict[str, Any]:
    """What a TypedDict's keys hold, by key."""
    hints = get_type_hints(shape, include_extras=True)
    return {name: get_args(kind)[0] if get_origin(kind) is NotRequired else kind for name, kind in hints.items()}


@cache
def _required(shape: Any) -> list[str]:
    hints = get_type_hints(shape, include_extras=True)
    return [name for name, kind in hints.items() if get_origin(kind) is not NotRequired]


def faults(value: Any, shape: Any, place: str = "report") -> list[str]:
    """Where a value isn't as its shape says; empty if it is."""
    return [f"{place}{where} {what}" for where, what in _check(shape)(value)]


Check = Callable[[Any], list[tuple[str, str]]]
"""What is wrong with a value: where in it, and what."""


@cache  # each reconciliation of the suite is checked: to take the shapes apart each time takes more than twice as long
def _check(shape: Any) -> Check:
    origin, args = get_origin(shape), get_args(shape)
    if is_typeddict(shape):
        return _object({name: _check(kind) for name, kind in fields(shape).items()}, _required(shape))
    if origin in (Union, UnionType):
        return _one_of([_check(one) for one in args])
    if origin is list:
        return _list(_check(args[0]))
    if origin is dict:
        return _mapping(_check(args[1]))
    if origin is Literal:
        return _plain(lambda value: value in args, f"is none of {args}")
    if shape in (None, NoneType):
        return _plain(lambda value: value is None, "is not null")
    if shape is float:
        return _plain(lambda value: isinstance(value, int | float) and not isinstance(value, bool), "is no number")
    if shape is int:
        return _plain(lambda value: isinstance(value, int) and not isinstance(value, bool), "is no int")
    if shape is object:
        return _plain(lambda _: True, "")
    return _plain(lambda value: isinstance(value, shape), f"is no {shape.__name__}")


def _plain(fits: Callable[[Any], bool], what: str) -> Check:
    return lambda value: [] if fits(value) else [("", what)]


def _object(known: dict[str, Check], required: list[str]) -> Check:
    def check(value: Any) -> list[tuple[str, str]]:
        if not isinstance(value, dict):
            return [("", "is no object")]
        found = [(f".{key}", "is not declared") for key in value if key not in known]
        found += [(f".{key}", "is lacking") for key in required if key not in value]
        for key, one in known.items():
            if key in value:
                found += [(f".{key}{where}", what) for where, what in one(value[key])]
        return found

    return check


def _one_of(checks: list[Check]) -> Check:
    def check(value: Any) -> list[tuple[str, str]]:
        tried = []
        for one in checks:
            if not (found := one(value)):
                return []
            tried.append(found)
        return min(tried, key=len)

    return check


def _list(of_each: Check) -> Check:
    def check(value: Any) -> list[tuple[str, str]]:
        if not isinstance(value, list):
            return [("", "is no list")]
        return [(f"[{n}]{where}", what) for n, one in enumerate(value) for where, what in of_each(one)]

    return check


def _mapping(of_each: Check) -> Check:
    def check(value: Any) -> list[tuple[str, str]]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            return [("", "is no object")]
        return [(f"[{key}]{where}", what) for key, one in value.items() for where, what in of_each(one)]

    return check


def undeclared(path: list[str], shape: Any) -> str | None:
    """The first key on a way into a value that its shape doesn't have; None if it has all."""
    for n, key in enumerate(path):
        if get_origin(shape) in (Union, UnionType):
            ways = [undeclared(path[n:], one) for one in get_args(shape) if one is not NoneType]
            return next((None for way in ways if way is None), ways[0] if ways else key)
        if is_typeddict(shape):
            if key not in fields(shape):
                return ".".join(path[: n + 1])
            shape = fields(shape)[key]
        elif get_origin(shape) in (list, dict):
            shape = get_args(shape)[-1]
        else:
            return ".".join(path[: n + 1])
    return None
