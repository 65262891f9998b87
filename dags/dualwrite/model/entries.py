"""The entries of a document that become rows: those of a map, the elements of an array, a function's list, or the document itself.

Values only; mapping.py maps documents by them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dualwrite.model.origins import Field, FieldPath, Origin, entry_parts, fields_of, names_of, within

MOST_COMPUTED = 50_000
"""Entries that a function may return for one document: more than an array of 1 MiB can have."""


@dataclass(frozen=True, slots=True)
class MapEntries:
    """Rows come from the entries of a map field, one for each of its keys (`EntryKey()`), with the value (`EntryValue()`) or, if
    values are maps, their fields (`EntryField("role")`)."""

    field: FieldPath


@dataclass(frozen=True, slots=True)
class ArrayElements:
    """Rows come from the elements of an array field: one for each distinct element (keyed by `EntryKey()`), place
    (`EntryIndex()`), or value of a field (`EntryField("sku")`)."""

    field: FieldPath


@dataclass(frozen=True, slots=True, init=False)
class ComputedEntries:
    """Rows come from a list that a pure Python function computes from some values of the document, as if it were an array field:
    `ComputedEntries(opening_hours, "hours", DocumentPath())`. A value is named by its field's path or by an origin; an absent
    value is None.

    The function returns a list of at most 50,000 maps or texts, or None; equal ones are one row. It may depend on nothing but its
    arguments, which are copies. It is called twice for each document: if it raises, or returns two different lists, the document
    is rejected.
    """

    function: Callable[..., Any]
    paths: tuple[FieldPath | Origin, ...]

    def __init__(self, function: Callable[..., Any], *paths: FieldPath | Origin) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "paths", paths)


@dataclass(frozen=True, slots=True)
class Itself:
    """A document has one row, whose key holds fields beside the document's id, as that of a partitioned table does. So a row under
    a former value is the document's too, like that of an entry which was removed. Nobody declares it: the key says it."""


Entries = MapEntries | ArrayElements | ComputedEntries


def function_name(function: Callable[..., Any]) -> str:
    """A function's name in a message."""
    return str(getattr(function, "__name__", "a function"))


def name_of(entries: Entries) -> str:
    """The entries' name in a message, and in the label of an entry without a key."""
    if isinstance(entries, ComputedEntries):
        return function_name(entries.function)
    return ".".join(names_of(entries.field))


def read_for(entries: Entries | Itself) -> list[FieldPath]:
    """The fields of the document that entries come from."""
    if isinstance(entries, Itself):
        return []
    if not isinstance(entries, ComputedEntries):
        return [entries.field]
    return [path for named in entries.paths for path in (fields_of(named) if isinstance(named, Origin) else [named])]


# --- identifying an entry -------------------------------------------------------------------------------------------


def joined(parts: Sequence[str]) -> str:
    """The values that identify an entry among those of its document, as one text."""
    return parts[0] if len(parts) == 1 else json.dumps(list(parts), ensure_ascii=False)


def split(entry: str, number: int) -> list[str]:
    """The values that `joined` made into a text; `number`: how many they are."""
    return [entry] if number == 1 else json.loads(entry)


# --- checks ---------------------------------------------------------------------------------------------------------


def fault_of_call(function: Callable[..., Any], number: int) -> str | None:
    """Why a function can't be called with `number` values and return one; None if it can."""
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
    except ValueError:  # some functions written in C have no signature
        return None
    return None


def fault(entries: ComputedEntries) -> tuple[str, str, str] | None:
    """The fault of a function's entries as rule, place and remedy; None if there is none."""
    why = fault_of_call(entries.function, len(entries.paths))
    if why is not None:
        rule = "Entries are computed by a function that takes as many values as are named and returns a list"
        return rule, why, "Correct the function, or the values that ComputedEntries names."
    if not entries.paths:
        return "A function computes entries of something", "it gets no value", "Name fields, or WholeDocument()."
    for named in entries.paths:
        if not isinstance(named, Origin):
            continue
        if any(entry_parts(named)):
            remedy = "Name fields, or an origin of the whole document."
            return "Entries are computed from the document", f"{type(named).__name__} comes from an entry", remedy
        if any(isinstance(part, Field) and part.otherwise is not None for part in within(named)):
            rule, remedy = (
                "A stand-in is never compared, so no row comes from it",
                "Use FirstOf(Field(...), Field(...)).",
            )
            return rule, "a field has otherwise=", remedy
    return None
