"""Whether a value has a declared shape: a TypedDict's keys, all of them and no other, and what they hold, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
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
    return list(_faults(value, shape, place))


def _faults(value: Any, shape: Any, place: str) -> Iterator[str]:
    origin, args = get_origin(shape), get_args(shape)
    if is_typeddict(shape):
        if not isinstance(value, dict):
            yield f"{place} is no object"
            return
        known = fields(shape)
        yield from (f"{place}.{key} is not declared" for key in value if key not in known)
        yield from (f"{place}.{key} is lacking" for key in _required(shape) if key not in value)
        for key in value.keys() & known.keys():
            yield from _faults(value[key], known[key], f"{place}.{key}")
    elif origin in (Union, UnionType):
        tried = [faults(value, one, place) for one in args]
        if all(tried):
            yield from min(tried, key=len)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for n, one in enumerate(value):
            yield from _faults(one, args[0], f"{place}[{n}]")
    elif origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            yield f"{place} is no object"
            return
        for key, one in value.items():
            yield from _faults(one, args[1], f"{place}[{key}]")
    elif origin is Literal:
        if value not in args:
            yield f"{place} is none of {args}"
    elif shape in (None, NoneType):
        if value is not None:
            yield f"{place} is not null"
    elif shape is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            yield f"{place} is no number"
    elif shape is not object and (not isinstance(value, shape) or (shape is int and isinstance(value, bool))):
        yield f"{place} is no {shape.__name__}"


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
