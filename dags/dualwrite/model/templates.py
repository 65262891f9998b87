"""Pure: path templates, such as `boards/{board}/posts/{post}`: collection ids and patterns of ids (id_patterns.py), in turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from dualwrite.model import id_patterns
from dualwrite.model.id_patterns import IdPattern, Unsplit

_COLLECTION_ID = re.compile(r"[^/{}]+")


@dataclass(frozen=True)
class Template:
    """A parsed path template."""

    text: str

    @cached_property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.text.split("/"))

    @cached_property
    def ids(self) -> tuple[IdPattern, ...]:
        return tuple(map(id_patterns.parsed, self.segments[1::2]))

    @cached_property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for pattern in self.ids for name in pattern.variables)

    @cached_property
    def last_variables(self) -> tuple[str, ...]:
        """The variables of the last id that has any; empty if none has."""
        return next((pattern.variables for pattern in reversed(self.ids) if pattern.variables), ())

    @cached_property
    def ending(self) -> tuple[str, ...]:
        """The segments from the last id with variables on (all, if none has any), without the lengths of variables: documents of
        two paths with one ending and the same `last_variables` have the same id."""
        begin = 1 + 2 * max((n for n, pattern in enumerate(self.ids) if pattern.variables), default=-1)
        named = [p.join({name: f"{{{name}}}" for name in p.variables}) for p in self.ids]
        return tuple(named[n // 2] if n % 2 else text for n, text in enumerate(self.segments))[max(begin, 0) :]

    @cached_property
    def is_plain(self) -> bool:
        """Whether each id is one variable, as in nearly every template; these have a faster way."""
        return all(pattern.is_whole for pattern in self.ids)

    @property
    def collection_id(self) -> str:
        return self.segments[-2]

    @property
    def parent_collection_id(self) -> str | None:
        return self.segments[-4] if len(self.segments) >= 4 else None

    @cached_property
    def root(self) -> str:
        """The path of the collection in or below which all its documents are: up to the first id that isn't literal."""
        fixed = next((n for n, pattern in enumerate(self.ids) if not pattern.is_literal), len(self.ids) - 1)
        return "/".join(self.segments[: 2 * fixed + 1])

    @property
    def first(self) -> str:
        """A path that sorts before all its documents, or is the first of them."""
        number = self.root.count("/") // 2
        return f"{self.root}/{self.ids[number].begins or '!'}"

    # --- from a path to variables -------------------------------------------------------------------------------------

    def fits(self, segments: Sequence[str]) -> bool:
        """Whether a document at this path belongs to the template, even if its ids can't be split."""
        if len(segments) != len(self.segments) or tuple(segments[0::2]) != self.segments[0::2]:
            return False
        return self.is_plain or all(p.fits(text) for p, text in zip(self.ids, segments[1::2], strict=True))

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """The variables of a path. None: it doesn't fit, or an id can't be split."""
        if not self.fits(segments):
            return None
        if self.is_plain:
            return dict(zip(self.variables, segments[1::2], strict=True))
        values: list[str] = []
        for pattern, text in zip(self.ids, segments[1::2], strict=True):
            parts = pattern.split(text)
            if isinstance(parts, Unsplit):
                return None
            values += parts
        return dict(zip(self.variables, values, strict=True))

    def fault(self, segments: Sequence[str]) -> str | None:
        """Why the ids of a path that fits can't be split: a text without these ids. None: they can."""
        for pattern, text in zip(self.ids, segments[1::2], strict=True):
            found = pattern.split(text)
            if isinstance(found, Unsplit):
                return f"id_not_split: an id has the form {pattern.text} in the catalog, and {found.value}"
        return None

    def could_be(self, segments: Sequence[str], known: Mapping[str, str]) -> bool:
        """Whether the ids of a path that fits could be split in some way so that these variables have these values."""
        return all(p.could_be(text, known) for p, text in zip(self.ids, segments[1::2], strict=True))

    def extended(self, segments: list[str]) -> list[str] | None:
        """The segments of a path, followed by the values of variables that are parts of an id; `place` gives their indexes.
        None: an id can't be split."""
        if self.is_plain:
            return segments
        values = self.match(segments)
        return None if values is None else [*segments, *(values[name] for name in self._of_parts)]

    @cached_property
    def _of_parts(self) -> tuple[str, ...]:
        return tuple(name for pattern in self.ids if not pattern.is_whole for name in pattern.variables)

    def place(self, variable: str) -> int:
        """The index of a variable's value in `extended`."""
        if variable in self._of_parts:
            return len(self.segments) + self._of_parts.index(variable)
        return 1 + 2 * next(n for n, pattern in enumerate(self.ids) if variable in pattern.variables)

    # --- from variables to a path -------------------------------------------------------------------------------------

    def id_at(self, number: int, variables: Mapping[str, str]) -> str | None:
        """The id at that place (0: the first), if these variables give it."""
        pattern = self.ids[number]
        return pattern.join(variables) if variables.keys() >= set(pattern.variables) else None

    def path(self, variables: Mapping[str, str], document_id: str | None = None) -> str:
        """The path with these variables' values; `document_id`: its whole last id."""
        path = self.path_if_told(variables, document_id)
        assert path is not None, "the caller has all variables"
        return path

    def path_if_told(self, variables: Mapping[str, str], document_id: str | None = None) -> str | None:
        """As `path`; None if a variable has no value."""
        if self.is_plain:  # as nearly every template; called for each of many operations
            known = variables if document_id is None else {**variables, self.variables[-1]: document_id}
            if not all(name in known for name in self.variables):
                return None
            return "/".join(known[s[1:-1]] if s.startswith("{") else s for s in self.segments)
        ids = [self.id_at(number, variables) for number in range(len(self.ids))]
        if document_id is not None:
            ids[-1] = document_id
        given = [text for text in ids if text is not None]
        if len(given) < len(ids):
            return None
        return "/".join(part for pair in zip(self.segments[0::2], given, strict=True) for part in pair)

    def above(self, variables: Mapping[str, str]) -> str:
        """The path of the document directly above; "" at the root."""
        if len(self.segments) == 2:
            return ""
        return Template("/".join(self.segments[:-2])).path(variables)


_RULE = "A path template alternates collection ids and the form of ids: {variables}, a text, or both in turn"


def fault(path: str) -> str | None:
    """Why a text is no template; None if it is one."""
    segments = path.split("/")
    if len(segments) % 2 or not all(_COLLECTION_ID.fullmatch(name) and name.isprintable() for name in segments[0::2]):
        return f"{_RULE}, each variable once"
    try:
        variables = Template(path).variables
    except ValueError as error:
        return f"{_RULE}: {error}"
    return None if len(set(variables)) == len(variables) else f"{_RULE}, each variable once"


def is_template(path: str) -> bool:
    """Whether a path can be declared."""
    return fault(path) is None


def overlapping(templates: Sequence[Template]) -> tuple[Template, Template] | None:
    """Two templates, not both plain, that one document could match; None if there are none."""
    for one, other in combinations(templates, 2):
        if one.segments[0::2] != other.segments[0::2] or (one.is_plain and other.is_plain):
            continue
        if not any(id_patterns.are_disjoint(a, b) for a, b in zip(one.ids, other.ids, strict=True)):
            return one, other
    return None
