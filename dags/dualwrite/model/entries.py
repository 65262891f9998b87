"""Where several rows of one document come from: the entries of a map, the elements of an array, or a list that a function makes.

Values only; what they make of a document is in mapping.py.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dualwrite.model.origins import Field, FieldPath, Origin, entry_parts, fields_of, names_of, within

MOST_COMPUTED = 50_000
"""Entries that a function may make of one document: more than an array of 1 MiB could have."""


@dataclass(frozen=True, slots=True)
class MapEntries:
    """Rows come from the entries of a map field, one a key."""

    field: FieldPath


@dataclass(frozen=True, slots=True)
class ArrayElements:
    """Rows come from the elements of an array field: one a distinct element (its key is `EntryKey()`), place (`EntryIndex()`), or
    value of a field (`EntryField("sku")`)."""

    field: FieldPath


@dataclass(frozen=True, slots=True, init=False)
class ComputedEntries:
    """Rows come from a list that a pure Python function makes of some values of the document, as if that were an array field:
    `ComputedEntries(opening_hours, "hours", DocumentPath())`. A value is named by its field's path or by an origin; it is None
    where it is absent.

    The function returns a list of maps or of texts, or None. It may see nothing but its arguments, of which it gets copies of its
    own. It is called twice for each document: one of which it makes two lists, or for which it raises, is rejected.
    """

    function: Callable[..., Any]
    paths: tuple[FieldPath | Origin, ...]

    def __init__(self, function: Callable[..., Any], *paths: FieldPath | Origin) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "paths", paths)


Entries = MapEntries | ArrayElements | ComputedEntries


def function_name(function: Callable[..., Any]) -> str:
    """How a person's function is called in a message."""
    return str(getattr(function, "__name__", "a function"))


def name_of(entries: Entries) -> str:
    """What entries are called in a message and in the label of one without a key."""
    if isinstance(entries, ComputedEntries):
        return function_name(entries.function)
    return ".".join(names_of(entries.field))


def read_for(entries: Entries) -> list[FieldPath]:
    """The fields of the document that entries come from."""
    if not isinstance(entries, ComputedEntries):
        return [entries.field]
    return [path for named in entries.paths for path in (fields_of(named) if isinstance(named, Origin) else [named])]


# --- what tells an entry from the others ----------------------------------------------------------------------------


def joined(parts: Sequence[str]) -> str:
    """What tells an entry from the others of its document, as one text: of a key of several columns, each of them."""
    return parts[0] if len(parts) == 1 else json.dumps(list(parts), ensure_ascii=False)


def split(entry: str, number: int) -> list[str]:
    """The parts of what `joined` made of so many."""
    return [entry] if number == 1 else json.loads(entry)


# --- checks ---------------------------------------------------------------------------------------------------------


def fault_of_call(function: Callable[..., Any], number: int) -> str | None:
    """Why a function can't be called with so many values, for a value of its own each time."""
    if not callable(function):
        return f"{function!r} is no function"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return f"{function_name(function)} yields"
    if inspect.iscoroutinefunction(function):
        return f"{function_name(function)} is async"
    try:
        inspect.signature(function).bind(*[None] * number)
    except TypeError:
        return f"{function_name(function)} can't be called with {number} value{'' if number == 1 else 's'}"
    except ValueError:  # some functions of C don't tell
        return None
    return None


def fault(entries: ComputedEntries) -> tuple[str, str, str] | None:
    """What is wrong with a list that a function makes: the rule, the place, the remedy."""
    told = fault_of_call(entries.function, len(entries.paths))
    if told is not None:
        rule = "Entries are computed by a function that takes as many values as are named and returns a list"
        return rule, told, "Correct the function, or what ComputedEntries names."
    if not entries.paths:
        return "A function computes entries of something", "it gets no value", "Name fields, or WholeDocument()."
    for named in entries.paths:
        if not isinstance(named, Origin):
            continue
        if any(entry_parts(named)):
            remedy = "Name fields, or an origin of the whole document."
            return "Entries are computed before there is one", f"{type(named).__name__} is of an entry", remedy
        if any(isinstance(part, Field) and part.otherwise is not None for part in within(named)):
            rule, remedy = (
                "A stand-in is never compared, so no row is made of it",
                "Use FirstOf(Field(...), Field(...)).",
            )
            return rule, "a field has otherwise=", remedy
    return None
