"""Pure: the pattern of a document's id in a path template. `{user}` is any id, `profile` one id, `{user}_{product}` an id with
parts.

An id is split only if there is exactly one way to do so. `{user:28}` is a part of exactly 28 characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from itertools import pairwise

from dualwrite.model.documents import is_valid_id


class Unsplit(Enum):
    """Why an id that fits a pattern isn't split. The value is shown to people."""

    NOT_OF_FORM = "it has no part for each variable"
    AMBIGUOUS = "it can be split in more than one way"


@dataclass(frozen=True, slots=True)
class Part:
    """A variable of a pattern. `length`: its exact number of characters (code points); None: one or more."""

    name: str
    length: int | None = None


_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([1-9][0-9]{0,3}))?\}")
_TEXT = re.compile(r"[^/{}]+")
_NUMERIC = ("__id", "__")
"""The texts around the number of a numeric id. Other reserved ids aren't allowed."""


@dataclass(frozen=True)
class IdPattern:
    """The texts and parts of an id, in their order. Made by `parsed`."""

    text: str
    parts: tuple[str | Part, ...]

    @cached_property
    def variables(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts if isinstance(part, Part))

    @cached_property
    def is_whole(self) -> bool:
        """Whether it is one variable, which matches any id."""
        return len(self.parts) == 1 and isinstance(self.parts[0], Part) and self.parts[0].length is None

    @cached_property
    def is_literal(self) -> bool:
        """Whether it matches only one id."""
        return not self.variables

    @cached_property
    def begins(self) -> str:
        """The text with which each of its ids begins; may be empty."""
        return self.parts[0] if isinstance(self.parts[0], str) else ""

    @cached_property
    def ends(self) -> str:
        """The text with which each of its ids ends; may be empty."""
        return self.parts[-1] if isinstance(self.parts[-1], str) else ""

    def fits(self, text: str) -> bool:
        """Whether an id belongs to the pattern: it begins and ends with its texts."""
        return text == self.text if self.is_literal else text.startswith(self.begins) and text.endswith(self.ends)

    def split(self, text: str) -> tuple[str, ...] | Unsplit:
        """The values of the variables, in their order, or why there are none; `text` is an id that fits."""
        if self.is_whole:
            return (text,)
        first = _placed(self.parts, text)
        if first is None:
            return Unsplit.NOT_OF_FORM
        # The shortest possible parts from the left, and from the right. If both splits are the same, there is no other.
        last = _placed(self._mirrored, text[::-1])
        same = last is not None and first == tuple(value[::-1] for value in reversed(last))
        return first if same else Unsplit.AMBIGUOUS

    @cached_property
    def _mirrored(self) -> tuple[str | Part, ...]:
        return tuple(part[::-1] if isinstance(part, str) else part for part in reversed(self.parts))

    def join(self, values: Mapping[str, str]) -> str:
        """The id whose variables have these values."""
        return "".join(part if isinstance(part, str) else values[part.name] for part in self.parts)

    def could_be(self, text: str, known: Mapping[str, str]) -> bool:
        """Whether an id that fits could be split so that these variables have these values, in one way or in more."""
        parts = [p if isinstance(p, str) or p.name not in known else known[p.name] for p in self.parts]
        merged: list[str | Part] = []
        for part in parts:
            if merged and isinstance(part, str) and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        return _placed(tuple(merged), text) is not None


def _placed(parts: Sequence[str | Part], text: str) -> tuple[str, ...] | None:
    """The values of one split of a text, with parts of no fixed length as short as possible from the left; None if there is no
    split. Texts and fixed lengths between two such parts are searched for together."""
    runs: list[list[str | Part]] = [[]]
    for part in parts:
        if isinstance(part, Part) and part.length is None:
            runs.append([])
        else:
            runs[-1].append(part)
    end = len(text) - _length(runs[-1])
    start = _length(runs[0])
    if len(runs) == 1:
        return _at(runs[0], text, 0) if len(text) == start else None
    values = _at(runs[0], text, 0)
    ending = _at(runs[-1], text, end) if end > start else None
    if values is None or ending is None:
        return None
    for run in runs[1:-1]:
        for at in _places(run, text, start + 1, end):
            here = _at(run, text, at)
            if here is not None and at + _length(run) < end:
                values += (text[start:at], *here)
                start = at + _length(run)
                break
        else:
            return None
    return (*values, text[start:end], *ending)


def _places(run: Sequence[str | Part], text: str, start: int, end: int) -> Sequence[int]:
    """The places where a run may begin, in order; those of its first text, if it begins with one."""
    first = next(iter(run), "")
    if not isinstance(first, str):
        return range(start, end)
    places = []
    while (at := text.find(first, start, end)) >= 0:
        places.append(at)
        start = at + 1
    return places


def _length(run: Sequence[str | Part]) -> int:
    return sum(len(part) if isinstance(part, str) else part.length or 0 for part in run)


def _at(run: Sequence[str | Part], text: str, at: int) -> tuple[str, ...] | None:
    """The values of a run of texts and fixed lengths that begins at a place; None if it doesn't."""
    values: list[str] = []
    for part in run:
        end = at + _length([part])
        if isinstance(part, Part):
            values.append(text[at:end])
        elif text[at:end] != part:
            return None
        at = end
    return tuple(values)


@cache
def parsed(text: str) -> IdPattern:
    """The pattern in a template's id segment. Raises ValueError with the rule that it breaks."""
    parts: list[str | Part] = []
    at = 0
    while at < len(text):
        match = _VARIABLE.match(text, at) or _TEXT.match(text, at)
        if match is None:
            raise ValueError("a variable is written {name}, or {name:28} for exactly 28 characters")
        parts.append(match[0] if match.re is _TEXT else Part(match[1], int(match[2]) if match[2] else None))
        at = match.end()
    if not parts:
        raise ValueError("an id isn't empty")
    pattern = IdPattern(text, tuple(parts))
    if len(set(pattern.variables)) < len(pattern.variables):
        raise ValueError("a variable occurs once")
    free = [n for n, part in enumerate(parts) if isinstance(part, Part) and part.length is None]
    if any(not any(isinstance(p, str) for p in parts[a:b]) for a, b in pairwise(free)):
        raise ValueError(
            "two variables have a text between them, or one has a length: otherwise their border is unknown"
        )
    if not text.isprintable():
        raise ValueError("its texts have no line breaks or other invisible characters")
    if pattern.is_literal and not is_valid_id(text):
        raise ValueError("Firestore allows no document with this id")
    reserved = pattern.begins.startswith("__") and pattern.ends.endswith("__") and not pattern.is_literal
    if reserved and (len(parts), pattern.begins, pattern.ends) != (3, *_NUMERIC):
        raise ValueError("ids that begin and end with __ are reserved, except __id{number}__")
    if len("".join(p for p in parts if isinstance(p, str)).encode()) + len(pattern.variables) > 1500:
        raise ValueError("an id has at most 1,500 bytes")
    return pattern


def are_disjoint(one: IdPattern, other: IdPattern) -> bool:
    """Whether no id fits both."""
    if one.is_literal or other.is_literal:
        literal, pattern = (one, other) if one.is_literal else (other, one)
        return not pattern.fits(literal.text)
    begin, end = sorted((one.begins, other.begins), key=len), sorted((one.ends, other.ends), key=len)
    return not begin[1].startswith(begin[0]) or not end[1].endswith(end[0])
