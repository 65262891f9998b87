"""Pure: the path of a parent whose ids have texts or parts, from its key and the path of the document that names it.

A literal id is known. An id with variables is known if the key gives all of them, or the whole id. Any other id is taken from
the naming document's own path, if both paths begin with the same collections.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualwrite.model.columns import Column
from dualwrite.model.origins import DocumentId, Segment
from dualwrite.model.templates import Template


def is_told(templates: Sequence[Template], key: Column, below: Sequence[Template]) -> bool:
    """Whether a document on any of the paths `below` determines the path of a parent on `templates` with this key column."""
    return all(any(_ids(template, key, "", child.segments) for template in templates) for child in below)


def told_path(templates: Sequence[Template], key: Column, value: str, segments: Sequence[str]) -> str | None:
    """The path of the parent with this key that a document at the path `segments` names; None if it is unknown."""
    for template in templates:
        ids = _ids(template, key, value, segments)
        if ids is not None:
            return "/".join(part for pair in zip(template.segments[0::2], ids, strict=True) for part in pair)
    return None


def _ids(template: Template, key: Column, value: str, segments: Sequence[str]) -> list[str] | None:
    source = key.source
    known = {source.variable: value} if isinstance(source, Segment) else {}
    ids: list[str] = []
    for number, pattern in enumerate(template.ids):
        text = template.id_at(number, known)
        if isinstance(source, DocumentId) and number == len(template.ids) - 1:
            text = value
        if text is None:
            below = 2 * number + 2
            if tuple(segments[:below:2]) != template.segments[:below:2] or len(segments) < below:
                return None
            text = segments[below - 1]
            if "{" not in text and not pattern.fits(text):
                return None
        ids.append(text)
    return ids
