"""Pure: which documents, and which of their entries, have a row. Conditions are values, judged on the document alone.

    where=Absent("deletedAt")
    where=AllOf(Absent("deletedAt"), Is("status", "active", "paused"))
    where=Is(EntryValue(), True)  # of a map {tag: true}

A condition looks at a field, by its path, or at an origin. A value that it can't judge (a text where true or false is expected)
is rejected, never taken for false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isnan
from typing import Any

from dualwrite.model.documents import type_name
from dualwrite.model.errors import Refused

What = Any
"""A field's path, or an origin (see declaration.py, which imports this module)."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The field isn't there, or is null: `Absent("deletedAt")`."""

    what: What


@dataclass(frozen=True, slots=True, init=False)
class Is:
    """The value is one of these texts, numbers or booleans: `Is("status", "active", "paused")`. An absent value is none of
    them; a value of another type can't be judged."""

    what: What
    values: tuple[str | int | float | bool, ...]

    def __init__(self, what: What, *values: str | float | bool) -> None:
        object.__setattr__(self, "what", what)
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class Not:
    """The condition doesn't hold."""

    condition: Condition


@dataclass(frozen=True, slots=True, init=False)
class AllOf:
    """Each of them holds."""

    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        object.__setattr__(self, "conditions", conditions)


@dataclass(frozen=True, slots=True, init=False)
class AnyOf:
    """One of them holds, or more."""

    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        object.__setattr__(self, "conditions", conditions)


Condition = Absent | Is | Not | AllOf | AnyOf

Holds = Callable[[Sequence[str], Any, Any], bool]
"""Whether a document, or an entry, meets a condition. The arguments are those of cells.Make, without the marks. Raises Refused."""
Find = Callable[[Sequence[str], Any, Any], Any]


def looked_at(condition: Condition) -> Iterator[What]:
    """The fields and origins that a condition looks at."""
    match condition:
        case Absent(what=what) | Is(what=what):
            yield what
        case Not(condition=inner):
            yield from looked_at(inner)
        case AllOf(conditions=parts) | AnyOf(conditions=parts):
            for part in parts:
                yield from looked_at(part)


def split(
    condition: Condition | None, is_of_entry: Callable[[What], bool]
) -> tuple[Condition | None, Condition | None]:
    """The condition as two that must both hold: one on the document alone, and one on each of its entries."""
    parts = _conjuncts(condition)
    of_entry = [any(map(is_of_entry, looked_at(part))) for part in parts]
    return (
        _all([part for part, entry in zip(parts, of_entry, strict=True) if not entry]),
        _all([part for part, entry in zip(parts, of_entry, strict=True) if entry]),
    )


def _conjuncts(condition: Condition | None) -> list[Condition]:
    match condition:
        case None:
            return []
        case AllOf(conditions=parts):
            return [inner for part in parts for inner in _conjuncts(part)]
        case _:
            return [condition]


def _all(parts: list[Condition]) -> Condition | None:
    return None if not parts else parts[0] if len(parts) == 1 else AllOf(*parts)


def in_words(condition: Condition, called: Callable[[What], str]) -> str:
    """A condition in words: `field deletedAt is absent and field status is 'active' or 'paused'`. `called` gives the name of a
    field or an origin."""
    match condition:
        case Absent(what=what):
            return f"{called(what)} is absent"
        case Is(what=what, values=values):
            return f"{called(what)} is {' or '.join(map(repr, values))}"
        case Not(condition=inner):
            return f"not ({in_words(inner, called)})"
        case AllOf(conditions=parts):
            return " and ".join(_in_brackets(part, called, AnyOf) for part in parts)
        case AnyOf(conditions=parts):
            return " or ".join(_in_brackets(part, called, AllOf) for part in parts)


def _in_brackets(part: Condition, called: Callable[[What], str], inner: type) -> str:
    several = isinstance(part, Is) and len(part.values) > 1
    return f"({in_words(part, called)})" if isinstance(part, inner) or several else in_words(part, called)


def fault(condition: object) -> str | None:
    """Why something is no condition; None if it is one. The fields and origins in it are checked with the collection."""
    match condition:
        case Absent():
            return None
        case Is(values=values):
            if not values or not all(isinstance(value, str | int | float | bool) for value in values):
                return "Is names one or more texts, numbers or booleans (Absent says that there is none)"
            if any(isinstance(value, float) and isnan(value) for value in values):
                return "Is names NaN, which equals nothing"
            return None
        case Not(condition=inner):
            return fault(inner)
        case AllOf(conditions=parts) | AnyOf(conditions=parts):
            if not parts:
                return f"{type(condition).__name__} names no condition"
            return next((inner_fault for part in parts if (inner_fault := fault(part)) is not None), None)
        case _:
            return f"{type(condition).__name__} is no condition"


# --- judging ------------------------------------------------------------------------------------------------------


def compiled(condition: Condition, way: Callable[[What], tuple[str, Find]]) -> Holds:
    """A function that judges a condition. `way` gives the name of a field or an origin, and the function from a document to
    its value (None: absent)."""
    match condition:
        case Absent(what=what):
            _, find = way(what)
            return lambda segments, fields, of: find(segments, fields, of) is None
        case Is(what=what, values=values):
            return _is(*way(what), values)
        case Not(condition=inner):
            holds = compiled(inner, way)
            return lambda segments, fields, of: not holds(segments, fields, of)
        case AllOf(conditions=parts):
            return _each([compiled(part, way) for part in parts], until=False)
        case AnyOf(conditions=parts):
            return _each([compiled(part, way) for part in parts], until=True)


def _is(name: str, find: Find, values: Sequence[str | int | float | bool]) -> Holds:
    by_kind: dict[str, set[Any]] = {}
    for value in values:
        by_kind.setdefault(_kind(value), set()).add(value)
    expected = " or ".join(sorted(by_kind))

    def holds(segments: Sequence[str], fields: Any, of: Any) -> bool:
        value = find(segments, fields, of)
        if value is None:
            return False
        among = by_kind.get(_kind(value))
        if among is None:
            raise Refused(f"cant_be_judged: {name} is {type_name(value)}, and where compares it with a {expected}")
        return value in among

    return holds


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float | Decimal):
        return "number"  # JavaScript has one kind of number
    return "string" if isinstance(value, str) else type(value).__name__


def _each(parts: Sequence[Holds], *, until: bool) -> Holds:
    """Judges parts in turn until one is `until`. A part that can't be judged raises only if no other decides, so the order
    doesn't matter."""

    def holds(segments: Sequence[str], fields: Any, of: Any) -> bool:
        refused: Refused | None = None
        for part in parts:
            try:
                if part(segments, fields, of) is until:
                    return until
            except Refused as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return not until

    return holds
