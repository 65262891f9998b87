"""Pure: one description of a report, in two forms: aligned text for a log, Markdown for an approval.

A description is a sequence of blocks, the verdict in one sentence first. Ids may hold anything, so they are `Code`:
shown as JSON strings, which can neither break a line nor forge markup.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 100
"""Characters of a line of prose in a log. Airflow's log view doesn't wrap. A table may be wider."""

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "|`*_<>[]"})


class Code(str):
    """An id or a path."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`left` columns stand flush left, the others, which are numbers, flush right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True, slots=True)
class Items:
    """A list under a line of its own. An item is a text, or parts of one with `Code` among them."""

    title: str
    items: Sequence[str | Sequence[str]]


Block = Heading | Paragraph | Table | Items


def as_text(blocks: Iterable[Block]) -> str:
    """For a log: columns aligned, prose wrapped, nothing that wants to be rendered."""
    return "\n\n".join(_text(block) for block in blocks)


def as_markdown(blocks: Iterable[Block]) -> str:
    """For an approval, which Airflow renders."""
    return "\n\n".join(_markdown(block) for block in blocks)


def wrapped(text: str) -> str:
    """Prose in lines of at most WIDTH characters; a link or an id is never cut."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def number(value: Any) -> str:
    """A cell: thousands separated; nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _text(block: Block) -> str:
    match block:
        case Heading(text):
            return f"{text}\n{'=' * len(text)}"
        case Paragraph(text):
            return wrapped(text)
        case Table(header, rows, left):
            widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
            ruled = [header, ["-" * w for w in widths], *rows]
            return "\n".join(
                "  ".join(
                    c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
                for row in ruled
            )
        case Items(title, items):
            lines = [" ".join(_quoted(p) if isinstance(p, Code) else p for p in _parts(item)) for item in items]
            return "\n".join([title, *(f"  - {line}" for line in lines)])


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_escaped(text)}"
        case Paragraph(text, strong):
            return f"**{_escaped(text)}**" if strong else _escaped(text)
        case Table(header, rows, left):
            rule = ["---" if i < left else "---:" for i in range(len(header))]
            table = [[_escaped(c) for c in header], rule, *([_escaped(c) for c in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in table)
        case Items(title, items):
            lines = [
                " ".join(
                    f"`{_quoted(p).replace('`', chr(39))}`" if isinstance(p, Code) else _escaped(p)
                    for p in _parts(item)
                )
                for item in items
            ]
            return "\n".join([f"**{_escaped(title)}**", "", *(f"- {line}" for line in lines)])


def _parts(item: str | Sequence[str]) -> Sequence[str]:
    return [item] if isinstance(item, str) else item


def _quoted(text: str) -> str:
    return json.dumps(str(text), ensure_ascii=False)


def _escaped(text: str) -> str:
    return text.translate(_SPECIAL)
