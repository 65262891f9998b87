"""Pure: the entries that a person's function computes from a document, or why its result can't be trusted.

The function may raise, return anything, or return something else each time. Such a fault rejects this document only, and no
message quotes the result: names of fields in it may be content too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dualwrite.model.cells import Reader, compile_function, computed_of
from dualwrite.model.declaration import Collection, ComputedEntries, EntryField, EntryKey, Template
from dualwrite.model.documents import Value, type_name
from dualwrite.model.entries import MOST_COMPUTED, name_of
from dualwrite.model.errors import Refused

List = Callable[[Sequence[str], Mapping[str, Value], Any], list[Value]]
"""From a document (the segments of its path, its fields, itself) to its entries. Raises Refused."""


def compile_list(collection: Collection, entries: ComputedEntries, template: Template, reader: Reader) -> List:
    """From a document on one of the collection's paths to its entries."""
    call = compile_function(entries.function, entries.paths, template, reader)
    known = _known_fields(collection)
    begins = f"not_computed: {name_of(entries)} of entries ({computed_of(entries.paths)})"

    def made(segments: Sequence[str], fields: Mapping[str, Value], of: Any) -> list[Value]:
        try:
            once, again = call(segments, fields, of), call(segments, fields, of)
        except Refused as refused:
            raise Refused(refused.args[0].replace("{}", f"entries ({computed_of(entries.paths)})", 1)) from None
        fault = _fault(once, known)
        if fault is None and not are_equal(once, again):
            fault = "makes two lists of one document: it must depend on nothing but its arguments"
        if fault is not None:
            raise Refused(f"{begins} {fault}")
        return list(once) if isinstance(once, list | tuple) else []

    return made


def _known_fields(collection: Collection) -> frozenset[str] | None:
    """The fields of an entry that a column or the condition looks at. None: all, because one looks at the whole entry."""
    if any(isinstance(part, EntryKey) for part in collection.parts_of_entries):
        return None
    return frozenset(part.names[0] for part in collection.parts_of_entries if isinstance(part, EntryField))


def _fault(result: object, known: frozenset[str] | None) -> str | None:
    """The fault of a function's result; None if it has none."""
    if result is None:
        return None
    if not isinstance(result, list | tuple):
        return f"returns {type_name(result)}, a list is expected"  # type: ignore[arg-type]
    if len(result) > MOST_COMPUTED:
        return f"returns more than {MOST_COMPUTED:,} entries"
    if known is not None:
        for entry in result:
            if isinstance(entry, dict) and not entry.keys() <= known:
                number = len(entry.keys() - known)
                return f"returns an entry with {number} field{'' if number == 1 else 's'} that no column takes"
    return None


def are_equal(one: object, other: object) -> bool:
    """Whether a function returned the same twice."""
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - of a class of its own
        return False
