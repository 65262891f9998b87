"""How a column could take a field's values, judging by a sample of them and by names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from dev.draft_shapes import NUMBERS, TEXTS, LiveColumn, LiveTable, Names, Seen, Shape, likeness, time_likeness, words
from dualwrite.model.declaration import is_field_path
from dualwrite.model.live import INTEGERS, fits
from dualwrite.model.live import TEXTS as TEXT_COLUMNS

TIMES = {"timestamptz", "timestamp", "date"}
_DECIMALS = {"numeric", "float4", "float8"}
COUNTER = re.compile(r"(^|_)(counts?|counter|score|total_of|number_of)(_|$)|^(count|number)_of_")


# --- by values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How a column takes a field's values: the conversion's text, or '' for none; the resulting type."""

    conversion: str
    type: str


def reading(seen: Seen, column: LiveColumn, names: Names, *, refers: bool = False) -> Reading | None:
    """How the column could take the sampled values of a field; None if it can't. `refers`: it is a foreign key."""
    kind, kinds, live = seen.kind, seen.kinds - {"null"}, column.live
    if not kinds:
        return None
    way = _reading(kind, kinds, seen, column, names, refers)
    if way is None or not fits(way.type, live, is_id=bool(way.conversion)):  # type: ignore[arg-type]
        return None
    return way


MOMENTS = {
    "timestamp": "", "ISO time": "iso_time", "HTTP date": "http_date", "epoch milliseconds": "epoch_milliseconds",
    "epoch seconds": "epoch_seconds", "timestamp map": "timestamp_map",
}  # fmt: skip


def _reading(  # noqa: C901 - one guess after another
    kind: str | None, kinds: set[str], seen: Seen, column: LiveColumn, names: Names, refers: bool
) -> Reading | None:
    live = column.live
    if live.kind in TIMES:
        if kind == "ISO date" and live.kind == "date":
            return Reading("", "text")
        return Reading(MOMENTS[kind], "timestamp") if kind in MOMENTS else None
    if live.kind in ("json", "jsonb"):
        if kind == "JSON as text":
            return Reading("json_text", "json")
        if kinds & {"bytes"} or (not kinds & {"map", "array", "timestamp map"} and not kinds <= TEXTS):
            return None
        plain = not seen.unplain and not kinds & {"timestamp", "reference", "geopoint", "vector"}
        return Reading("" if plain else "plain_json", "json")
    if kind == "reference":
        if live.kind in INTEGERS and not refers:
            return Reading("reference_id >> integer", "integer")
        return Reading("reference_id", "text") if refers or live.kind in TEXT_COLUMNS | {"uuid"} else None
    if refers and kinds <= NUMBERS | TEXTS and live.kind in INTEGERS:
        return Reading("text", "text")
    if live.kind in INTEGERS:
        return _whole(kind, kinds, column)
    if live.kind in _DECIMALS:
        return _decimal(kind, kinds, column, names)
    if live.kind == "bool":
        if kind == "boolean":
            return Reading("", "boolean")
        return Reading("boolean", "boolean") if kinds <= {"boolean", "boolean as text"} else None
    if live.kind == "array":
        if kind != "array" or seen.elements & {"map", "array", "geopoint", "bytes", "vector", "timestamp map"}:
            return None
        references = "reference" in seen.elements
        if references and seen.elements != {"reference"}:
            return None
        return Reading("each(reference_id)" if references else "array", "array")
    if kind == "geopoint":
        return Reading("point_text", "text") if live.kind in ("geography", "geometry") else None
    if kind == "bytes":
        return Reading("hexadecimal", "text") if live.kind == "bytea" else None
    if kind == "vector":
        return Reading("vector_text", "text") if live.kind == "vector" else None
    if kinds <= TEXTS:
        return Reading("", "text")
    if live.kind in TEXT_COLUMNS - {"enum"}:
        if kind == "timestamp":
            return Reading("iso_text", "text")
        if kinds <= TEXTS | NUMBERS | {"boolean"}:
            return Reading("text", "text")
    return None


def _whole(kind: str | None, kinds: set[str], column: LiveColumn) -> Reading | None:
    if kind in NUMBERS - {"number"}:
        return Reading("", "integer")
    if kinds <= {"number as text", *NUMBERS} - {"number"}:
        return Reading("integer", "integer")
    return Reading("count", "integer") if kind in ("array", "map") and COUNTER.search(column.name) else None


def _decimal(kind: str | None, kinds: set[str], column: LiveColumn, names: Names) -> Reading | None:
    if kind == "geopoint":
        for axis, called in (
            ("latitude", {"lat", "latitude"}),
            ("longitude", {"lng", "lon", "long", "longitude"}),
        ):
            if called & set(words(column.name)):
                return Reading(axis, "numeric")
        return None
    if kinds <= NUMBERS:
        cents = "cent" in words(names[-1]) and "cent" not in words(column.name)
        return Reading("scaled(-2)" if cents else "", "numeric")
    return Reading("number", "numeric") if kinds <= NUMBERS | {"number as text"} else None


# --- by name ------------------------------------------------------------------------------------------------------------


def text_path(names: Names) -> str | None:
    """The field as names joined by dots; None if a name holds a dot or a backtick."""
    return ".".join(names) if all("." not in n and "`" not in n for n in names) and all(names) else None


def spelled(names: Names) -> str:
    """The field as it stands in a declaration."""
    path = text_path(names)
    return repr(names if path is None or not is_field_path(path) else path)


Candidate = tuple[float, Names, Reading]


def use(candidate: Candidate) -> object:
    """The field, or the part of it, that only one column may take."""
    _, names, way = candidate
    return (names, way.conversion if way.conversion in ("latitude", "longitude") else "")


def holds_id_of(column: LiveColumn, shape: Shape) -> bool:
    """Whether a column is called as if it held the ids of a collection's documents: order_id for orders/{order}."""
    is_id = re.search(r"(_|\b)(id|uid|ref|fk)$|[a-z](Id|Uid|Ref)$", column.name) is not None
    return is_id and words(column.name) in (words(shape.id), words(shape.variables[-1]))


@lru_cache(maxsize=100_000)
def _spoken(names: Names) -> frozenset[str]:
    """The words of a field, and these joined."""
    every, last = words("_".join(names)), words(names[-1])
    return frozenset((*every, "".join(every), "".join(last)))


def _words_of(table: LiveTable, column: LiveColumn) -> frozenset[str] | None:
    """Words of which a field must have one to be like a column; None if it needn't, because times and numbers may be called
    otherwise."""
    if column.live.kind in TIMES | _DECIMALS:
        return None
    every = words(column.name)
    bare = [word for word in every if word not in words(table.bare)]
    return frozenset((*every, "".join(every), "".join(bare)))


def likeness_of(table: LiveTable, column: LiveColumn, names: Names) -> float:
    """How alike a column's and a field's names are, from 0 to 1."""
    like = time_likeness if column.live.kind in TIMES else likeness
    value = max(like(column.name, names[-1]), like(column.name, "_".join(names)))
    bare = [word for word in words(column.name) if word not in words(table.bare)]
    if bare and len(bare) < len(words(column.name)):  # posts.post_title
        value = max(value, like("_".join(bare), names[-1]) - 0.1)
    axis = set(words(column.name)) & {"lat", "latitude", "lng", "lon", "longitude"}
    if axis and column.live.kind in _DECIMALS:
        rest = "_".join(word for word in words(column.name) if word not in axis)
        value = max(value, like(rest, names[-1]) if rest else 0.5)
    if column.live.kind in _DECIMALS and "cent" in words(names[-1]):
        value = max(value, like(column.name, "_".join(w for w in words(names[-1]) if w != "cent")) - 0.1)
    return value


def candidates_of(
    fields: Mapping[Names, Seen], table: LiveTable, column: LiveColumn, *, as_key: bool = False
) -> list[Candidate]:
    """Fields that the column can take and whose name is like its own, the likeliest first. `as_key`: as a text."""
    refers = as_key or table.refers(column.name)
    axis = column.live.kind in _DECIMALS and set(words(column.name)) & {"lat", "latitude", "lng", "lon", "longitude"}
    candidates = []
    spoken = _words_of(table, column)
    for names, seen in fields.items():
        if spoken is not None and spoken.isdisjoint(_spoken(names)):
            continue
        value = likeness_of(table, column, names)
        if value < 0.5 or (axis and value == 0.5 and seen.kind != "geopoint"):
            continue
        way = reading(seen, column, names, refers=refers)
        if way is not None:
            candidates.append((value, names, way))
    # Of two that are equally like it, first the one that more documents have.
    return sorted(candidates, key=lambda c: (-c[0], -fields[c[1]].documents, len(c[1]), c[1]))


def best_candidates(
    fields: Mapping[Names, Seen], table: LiveTable, column: LiveColumn, *, as_key: bool = False
) -> list[Candidate]:
    """As `candidates_of`, without fields that are more like another column, which can take them."""

    def is_of(other: LiveColumn, names: Names, alike: float) -> bool:
        is_other = other.name != column.name and not other.live.generated
        if not is_other or likeness_of(table, other, names) <= alike:
            return False
        return reading(fields[names], other, names, refers=table.refers(other.name)) is not None

    candidates = candidates_of(fields, table, column, as_key=as_key)
    return [(alike, n, way) for alike, n, way in candidates if not any(is_of(c, n, alike) for c in table.columns)]
