"""Conversions from a document's value to a column's: pure functions with a name, joined to an origin by `>>`.

    Column("created_at", "compared", Field("created") >> iso_time)
    Column("amount", "compared", Field("cents") >> scaled(-2))
    Column("tags", "compared", Field("tags") >> each(trim >> lower))

A conversion gets any value but null. It returns a value of the document types (null counts as absent), or raises: then the
document is rejected with the conversion's name. Your own is `Conversion("name", function, "text")`; its result must depend on
nothing but its argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from dualwrite.model.documents import GeoPoint, Reference, Vector, path_of
from dualwrite.model.errors import Refused
from dualwrite.model.id_patterns import Unsplit, parsed
from dualwrite.model.live import DocumentType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Conversion:
    """`convert`: from a document's value to the column's. `type`: of the result. `back`: from a result to the document's value,
    for a field that queries name (None: they can't). `ordered`: Firestore orders the documents' values as the column orders
    the results."""

    name: str
    convert: Callable[[Any], Any]
    type: DocumentType
    back: Callable[[Any], Any] | None = None
    ordered: bool = False
    of_reference: bool = False
    """It takes only references, so the whole path of the named document is known."""

    def __rshift__(self, after: Conversion) -> Conversion:
        """This one, then another."""
        first, second = self, after
        back = None
        if first.back is not None and second.back is not None:
            first_back, second_back = first.back, second.back

            def back(value: Any) -> Any:
                return first_back(second_back(value))

        def convert(value: Any) -> Any:
            between = first.convert(value)
            return None if between is None else second.convert(between)

        name = f"{first.name} >> {second.name}"
        return Conversion(name, convert, second.type, back, first.ordered and second.ordered, first.of_reference)


def _is(value: Any, *types: type) -> Any:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise TypeError(type(value).__name__)
    return value


# --- times ------------------------------------------------------------------------------------------------------


def _iso_time(value: Any) -> datetime:
    moment = datetime.fromisoformat(_is(value, str))
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return moment.astimezone(UTC)


def _iso_text(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _epoch(seconds: Any) -> datetime:
    return _EPOCH + timedelta(seconds=_is(seconds, int, float))


def _http_date(value: Any) -> datetime:
    return parsedate_to_datetime(_is(value, str)).astimezone(UTC)


def _timestamp_map(value: Any) -> datetime:
    parts = {name.removeprefix("_"): part for name, part in _is(value, dict).items()}
    return _EPOCH + timedelta(seconds=_is(parts["seconds"], int), microseconds=_is(parts["nanoseconds"], int) // 1000)


iso_time = Conversion("iso_time", _iso_time, "timestamp", _iso_text, ordered=True)
"""`2026-01-15T12:52:00.000Z`, or with another offset; a time without an offset is refused. In a check field, all must be as
JavaScript's toISOString writes them."""
http_date = Conversion("http_date", _http_date, "timestamp")
"""`Thu, 15 Jan 2026 12:52:00 GMT`"""
epoch_seconds = Conversion("epoch_seconds", _epoch, "timestamp", lambda v: (v - _EPOCH).total_seconds(), ordered=True)
epoch_milliseconds = Conversion(
    "epoch_milliseconds",
    lambda value: _EPOCH + timedelta(milliseconds=_is(value, int, float)),
    "timestamp",
    lambda value: (value - _EPOCH) // timedelta(milliseconds=1),
    ordered=True,
)
timestamp_map = Conversion("timestamp_map", _timestamp_map, "timestamp")
"""`{seconds, nanoseconds}`, also with underscores: a timestamp that went through JSON."""
iso_text = Conversion("iso_text", lambda value: _iso_text(_is(value, datetime)), "text")
"""A timestamp as JavaScript's toISOString writes it."""


# --- references, places, vectors ----------------------------------------------------------------------------------


def _path(value: Any) -> str:
    return path_of(_is(value, Reference))


def segment(index: int) -> Conversion:
    """A segment of a reference's path: in `tenants/t1/users/u1`, 1 is t1 and -1 is u1."""
    return Conversion(f"segment({index})", lambda value: _path(value).split("/")[index], "text", of_reference=True)


reference_id = Conversion("reference_id", lambda value: _path(value).rsplit("/", 1)[-1], "text", of_reference=True)
reference_path = Conversion("reference_path", _path, "text", of_reference=True)
latitude = Conversion("latitude", lambda value: _is(value, GeoPoint).latitude, "numeric")
longitude = Conversion("longitude", lambda value: _is(value, GeoPoint).longitude, "numeric")
point_text = Conversion(
    "point_text",
    lambda value: f"POINT({_is(value, GeoPoint).longitude!r} {value.latitude!r})",
    "text",
)
"""A geopoint as well-known text, for PostGIS's geometry and geography."""
vector_text = Conversion(
    "vector_text", lambda value: "[" + ",".join(repr(c) for c in _is(value, Vector).components) + "]", "text"
)
"""A vector as pgvector writes it."""


# --- numbers, truths, texts -----------------------------------------------------------------------------------------

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def _number(value: Any) -> Decimal:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            raise ValueError("no number")
        return Decimal(value.strip())
    exact = Decimal(repr(_is(value, int, float)))
    if not exact.is_finite():
        raise ValueError("not finite")
    return exact


def _integer(value: Any) -> int:
    if isinstance(value, str) and not _INTEGER.fullmatch(value.strip()):
        raise ValueError("no integer")
    exact = _number(value)
    if exact != exact.to_integral_value():
        raise ValueError("not whole")
    return int(exact)


_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return _TRUTHS[str(_is(value, str, int)).strip().lower()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(_is(value, str, int, float))


integer = Conversion("integer", _integer, "integer")
"""Whole numbers, also written as text or as 5.0."""
number = Conversion("number", _number, "numeric")
"""Numbers, also written as text."""
boolean = Conversion("boolean", _boolean, "boolean")
"""true and false, also written as text or as 1 and 0."""
text = Conversion("text", _text, "text")
"""Numbers and booleans as text, as JavaScript's String() writes them."""


def scaled(power: int) -> Conversion:
    """A number times ten to this power, exactly: `scaled(-2)` turns cents into dollars."""
    return Conversion(f"scaled({power})", lambda value: _number(value).scaleb(power), "numeric")


trim = Conversion("trim", lambda value: _is(value, str).strip(), "text")
lower = Conversion("lower", lambda value: _is(value, str).lower(), "text")
upper = Conversion("upper", lambda value: _is(value, str).upper(), "text")
null_if_empty = Conversion("null_if_empty", lambda value: _is(value, str) or None, "text")
"""'' as NULL."""


hexadecimal = Conversion("hexadecimal", lambda value: "\\x" + _is(value, bytes).hex(), "text")
"""Bytes, as a bytea column takes them: `\\x00ff`."""


def part(form: str, variable: str) -> Conversion:
    """A part of an id in a field, by a pattern as in a path: `part("{user}_{product}", "product")`. An id that can't be split in
    exactly one way is refused. Raises ValueError if the pattern has no such variable."""
    pattern = parsed(form)
    if variable not in pattern.variables:
        raise ValueError(f"part({form!r}) names {variable}: choose from {', '.join(pattern.variables)}")
    index = pattern.variables.index(variable)

    def convert(value: Any) -> str:
        parts = pattern.split(value) if pattern.fits(_is(value, str)) else Unsplit.NOT_OF_FORM
        if isinstance(parts, Unsplit):
            raise ValueError(parts.value)  # noqa: TRY004 - the value is wrong, not its type
        return parts[index]

    return Conversion(f"part({form!r}, {variable!r})", convert, "text")


def one_of(values: Mapping[Any, Any], type: DocumentType = "text") -> Conversion:  # noqa: A002 - the word of a catalog
    """A result for each possible value: `one_of({"CANCELLED": "canceled", "canceled": "canceled"})`. Others are refused."""
    known = dict(values)

    def named(value: Any) -> Any:
        if value not in known:
            raise Refused("not_converted: {} is none of the values that one_of names")
        return known[value]

    return Conversion("one_of", named, type)


# --- arrays, maps, JSON -----------------------------------------------------------------------------------------------

count = Conversion("count", lambda value: len(_is(value, list, dict)), "integer")
"""The number of an array's elements or a map's entries."""
first = Conversion("first", lambda value: next(iter(_is(value, list)), None), "text")
"""The first element; null if there is none."""
array = Conversion("array", lambda value: list(_is(value, list)), "array")
"""An array of strings, numbers or booleans, for a column of an array type."""


def each(conversion: Conversion) -> Conversion:
    """An array, with each of its elements converted."""

    def convert(value: Any) -> list[Any]:
        return [None if part is None else conversion.convert(part) for part in _is(value, list)]

    return Conversion(f"each({conversion.name})", convert, "array")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return _iso_text(value)
    if isinstance(value, Reference):
        return _path(value)
    if isinstance(value, GeoPoint):
        return {"latitude": value.latitude, "longitude": value.longitude}
    if isinstance(value, Vector):
        return list(value.components)
    return value


plain_json = Conversion("plain_json", _plain, "json")
"""A map or array as JSON, in which timestamps are texts as JavaScript writes them, references are paths, geopoints are
{latitude, longitude}, and vectors are arrays."""
json_text = Conversion("json_text", lambda value: json.loads(_is(value, str)), "json")
"""A text that holds JSON."""
