"""Guesses for the columns of rows that come from the entries of a map or the elements of an array. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dev.draft_reading import TIMES, Candidate, best_candidates, candidates_of, holds_id_of, reading
from dev.draft_shapes import LiveColumn, Match, Names, Seen, Within, tells_writing, words
from dualwrite.model.live import INTEGERS, can_be_key

_PLACES = {"position", "place", "index", "idx", "ordinal", "line", "sequence", "seq", "rank", "step", "slot", "row", "order", "sort",
           "number", "no", "nr"}  # fmt: skip


def from_entry(matched: Match, column: LiveColumn, is_key: bool, taken: set[object]) -> tuple[str, str, str] | None:
    """An origin that needs no field (the document's id, or the entry's key, place or value), its type, and the remark on it."""
    assert matched.entries is not None
    shape, live = matched.shapes[0], column.live
    of_document = {"DocumentId", f"Segment({shape.variables[-1]!r})"}
    if holds_id_of(column, shape) and not of_document & taken and can_be_key(live):
        taken.add("DocumentId")
        return "DocumentId()", "text", "GUESS from its name: there is no foreign key"
    kind = shape.open_maps.get(matched.entries)
    of_references = kind is None and matched.maps is None and shape.fields[matched.entries].elements == {"reference"}
    if is_key and of_references:  # one column takes the id; a person is asked about the rest of a reference's path
        if "EntryKey" in taken:
            return None
        taken.add("EntryKey")
        return "EntryKey() >> reference_id", "text", "GUESS from the elements, which are references"
    if is_key and matched.maps is None:
        return "EntryKey()", "text", "GUESS from the entries' keys or elements"
    if is_key and kind is not None and "EntryKey" not in taken:
        taken.add("EntryKey")
        return "EntryKey()", "text", "GUESS from the entries' keys"
    named = key_of_entries(matched, column) if is_key else best_candidates(matched.told, matched.table, column)
    if named:
        return None
    is_place = {*words(column.name)} - {*words(matched.table.bare)} <= _PLACES
    if (
        kind is None
        and matched.maps is not None
        and live.kind in INTEGERS
        and (is_key or is_place)
        and "place" not in taken
    ):
        taken.add("place")
        return (
            "EntryIndex()",
            "text" if is_key else "integer",
            "GUESS no field looks like it: the element's place, EntryIndex(1) if from 1",
        )
    if kind is not None and matched.maps is None and "EntryValue" not in taken:
        way = reading(Seen({kind}), column, matched.entries)
        if way is not None and way.conversion in ("", "reference_id"):
            taken.add("EntryValue")
            origin = f"EntryValue() >> {way.conversion}" if way.conversion else "EntryValue()"
            return origin, way.type, "GUESS from the entries' values"
    if live.kind in TIMES and tells_writing(column.name):
        return "CreateTime()", "timestamp", "GUESS of its document"
    return None


def key_of_entries(matched: Match, column: LiveColumn) -> list[Candidate]:
    """The fields of the entries that may tell them apart: those of the column's name, else the only one that is unique within each
    sampled document."""
    maps = matched.maps
    if maps is None:
        return []
    named = candidates_of(maps.fields, matched.table, column, as_key=True)
    if named or not maps.several or column.live.kind in INTEGERS:
        return named
    ways = [
        (0.0, names, reading(maps.fields[names], column, names, refers=True))
        for names in sorted(maps.fields)
        if maps.apart(names)
    ]
    able = [(value, names, way) for value, names, way in ways if way is not None]
    return able if len(able) == 1 else []


def names_entries(matched: Match, column: LiveColumn) -> bool:
    """Whether entries have ids of their own, which a column is called like and which no two sampled ones share."""
    maps = matched.maps
    named = [] if maps is None else candidates_of(maps.fields, matched.table, column, as_key=True)
    return maps is not None and bool(named) and maps.apart(named[0][1], across=True)


def told_of_key(maps: Within, fields: Sequence[Names], *, across: bool) -> str:
    """A remark on whether these fields tell the sampled entries apart. `across`: the key lacks their document's id."""
    among = "among all sampled entries" if across else "within each sampled document"
    if not maps.apart(*fields, across=across):
        told = "alone it isn't" if len(fields) == 1 else "together they aren't"
        return f"TODO {told} unique {among}, and entries of one key are rejected"
    if not maps.several and not across:
        return "TODO no sampled document has two entries: is it unique?"
    return f"{'' if len(fields) == 1 else 'together '}unique {among}"
