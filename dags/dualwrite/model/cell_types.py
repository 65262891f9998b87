"""Pure: from a plain value to a cell of a column's type, or to a refusal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from dualwrite.model.declaration import Column, Type
from dualwrite.model.documents import Value, is_valid_id, type_name
from dualwrite.model.errors import Refused
from dualwrite.model.live import INTEGERS, is_key


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value as text, ready for a jsonb column."""

    text: str


Cell = None | str | int | bool | datetime | Decimal | Json | list[str | None]

Converter = Callable[[Value], Cell]


def exact_converter(column: Column) -> Converter:
    """From a plain value (any but null) to the column's cell. Raises Refused."""
    if column.type == "integer":
        return _integer_of(INTEGERS.get(column.named.kind))
    convert: Converter = _id if column.references else _CONVERTERS[column.type]
    if not stands_for_key(column):
        return convert

    def key(value: Value) -> Cell:
        cell = convert(value)
        if not is_key(column.named, str(key_part(column, cell))):
            raise Refused(f"not_a_key: {{}} is not written as Postgres writes a value of type {column.named.name}")
        return cell

    return key


def key_part(column: Column, cell: Cell) -> Cell:
    """A cell as a part of a row's key, which consists of texts everywhere but in the table: a time in UTC, to the millisecond, or
    the day if the column holds no more. (`fragments.as_text` writes the same.)"""
    if not isinstance(cell, datetime):
        return cell
    at = cell.astimezone(UTC)
    if column.named.kind == "date":
        return at.date().isoformat()
    return at.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def cell_or_none(column: Column) -> Converter:
    """As `exact_converter`, but None for a value that it refuses."""
    convert = exact_converter(column)

    def cell(value: Value) -> Cell:
        try:
            return convert(value)
        except Refused:
            return None

    return cell


def stands_for_key(column: Column) -> bool:
    """Whether its texts must be exactly as the target's type writes them, because a row's key leads back to its document."""
    return (column.role == "key" or column.references is not None) and column.named.kind not in ("text", "varchar")


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise Refused(f"wrong_type: {{}} is {type_name(value)}, a string is expected")
    if "\x00" in value:
        raise Refused("nul_character: {} holds U+0000, which Postgres text can't")
    if not is_unicode(value):
        raise Refused("surrogate: {} holds half a character, which Postgres text can't")
    return value


def is_unicode(text: str) -> bool:
    """Whether a text has a UTF-8 form: it contains no half of a surrogate pair. Firestore holds none, a function may cut one."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _id(value: Value) -> str:
    """The id of another document. It must be valid, or Firestore couldn't be asked for that document."""
    text = _text(value)
    if not is_valid_id(text):
        raise Refused("not_an_id: {} is no id that a document could have")
    return text


def _integer_of(size: int | None) -> Converter:
    """A converter to whole numbers of `size` bytes; None: of any size."""

    def integer(value: Value) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JavaScript has one kind of number, so 5 and 5.0 are the same
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused(f"wrong_type: {{}} is {type_name(value)}, an integer is expected")
        if size is not None and not -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1):
            raise Refused(f"out_of_range: {{}} is beyond a {size}-byte integer")
        return value

    return integer


def _numeric(value: Value | Decimal) -> Decimal:
    if isinstance(value, Decimal):  # a conversion's, or a function's
        if not value.is_finite():
            raise Refused("not_finite: {} is NaN or infinite")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"wrong_type: {{}} is {type_name(value)}, a number is expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused("not_finite: {} is NaN or infinite")
    return Decimal(repr(value))  # the shortest text that gives the double back, as JavaScript would send it


def _boolean(value: Value) -> bool:
    if not isinstance(value, bool):
        raise Refused(f"wrong_type: {{}} is {type_name(value)}, a boolean is expected")
    return value


def truncate_to_milliseconds(moment: datetime) -> datetime:
    """The moment as a JavaScript Date holds it: truncated to milliseconds, never rounded."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _timestamp(value: Value) -> datetime:
    if not isinstance(value, datetime):
        raise Refused(f"wrong_type: {{}} is {type_name(value)}, a timestamp is expected")
    if value.tzinfo is None:  # a function's result, whose moment is unknown
        raise Refused("wrong_type: {} is a time without an offset, a timestamp is expected")
    return truncate_to_milliseconds(value)


def _json(value: Value) -> Json:
    _check_json(value)
    # Sorted: the order of a map's keys differs from read to read, and a fingerprint must not.
    return Json(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True))


def _check_json(value: Value) -> None:
    """Raises Refused for a value that JSON or jsonb can't hold. It names the type but not the place, because keys of maps are
    private too."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_json_text(name)
            _check_json(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner)
    elif isinstance(value, str):
        _check_json_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Refused("not_finite: {} holds NaN or infinity, which JSON can't")
    elif value is not None and not isinstance(value, bool | int):
        raise Refused(f"not_json: {{}} holds {type_name(value)}, which JSON has no form for")


def _check_json_text(text: Value) -> None:
    if not isinstance(text, str):  # a map's key, of a function's
        raise Refused(f"not_json: {{}} holds a map whose key is {type_name(text)}, which JSON has no form for")
    if "\x00" in text:
        raise Refused("nul_character: {} holds U+0000, which jsonb can't")
    if not is_unicode(text):
        raise Refused("surrogate: {} holds half a character, which jsonb can't")


def _array(value: Value) -> list[str | None]:
    """An array's elements in their text form, which Postgres casts to the column's element type."""
    if not isinstance(value, list):
        raise Refused(f"wrong_type: {{}} is {type_name(value)}, an array is expected")
    return [None if part is None else _element(part) for part in value]


def _element(value: Value | Decimal) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, datetime):
        return _timestamp(value).isoformat()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, float | Decimal):
        return str(_numeric(value))
    raise Refused(f"wrong_type: {{}} holds {type_name(value)}, which an array column can't hold")


_CONVERTERS: Mapping[Type, Converter] = {
    "text": _text,
    "numeric": _numeric,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "json": _json,
    "array": _array,
}
