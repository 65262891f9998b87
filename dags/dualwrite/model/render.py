"""Pure: renders a report's description as aligned text for a log, or as Markdown for an approval.

A description is a sequence of blocks. Ids may contain anything, so they are `Code`: shown as JSON strings, which can neither
break a line nor forge markup.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

WIDTH = 100
"""Characters of a line in a log, because Airflow's log view doesn't wrap. Only a link, an id or a path may make one longer."""

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
    """A table. The first `left` columns are aligned left, the others, which are numbers, right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True, slots=True)
class Items:
    """A list with a title. An item is a text, or parts of one with `Code` among them."""

    title: str
    items: Sequence[str | Sequence[str]]


Block = Heading | Paragraph | Table | Items


def as_text(blocks: Iterable[Block]) -> str:
    """Blocks as plain text for a log: columns aligned, prose wrapped."""
    return "\n\n".join(_text(block) for block in blocks)


def as_markdown(blocks: Iterable[Block]) -> str:
    """Blocks as Markdown, which Airflow renders in an approval."""
    return "\n\n".join(_markdown(block) for block in blocks)


def wrapped(text: str, *, indent: str = "") -> str:
    """Prose in lines of at most WIDTH characters, indented after the first; a link or an id is never cut."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def moment(iso: str) -> str:
    """An ISO 8601 instant as a person reads it, in UTC and saying so."""
    return f"{datetime.fromisoformat(iso).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def number(value: Any) -> str:
    """A cell's text: thousands separated; empty for None."""
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
            return "\n\n".join(_aligned([header, *rows], columns, left) for columns in _columns([header, *rows], left))
        case Items(title, items):
            lines = [" ".join(_quoted(p) if isinstance(p, Code) else p for p in _parts(item)) for item in items]
            return "\n".join([wrapped(title), *(wrapped(f"  - {line}", indent="    ") for line in lines)])


def _columns(rows: Sequence[Sequence[str]], left: int) -> list[list[int]]:
    """The columns of a table, in groups that fit into a line; each group repeats the first `left` columns."""
    widths = _widths(rows)
    groups: list[list[int]] = [[]]
    for i in range(left, len(widths)):
        if groups[-1] and sum(widths[j] + 2 for j in (*range(left), *groups[-1], i)) - 2 > WIDTH:
            groups.append([])
        groups[-1].append(i)
    return [[*range(left), *columns] for columns in groups]


def _aligned(rows: Sequence[Sequence[str]], columns: Sequence[int], left: int) -> str:
    widths = _widths(rows)
    header, *body = rows
    return "\n".join(
        "  ".join(row[i].ljust(widths[i]) if i < left else row[i].rjust(widths[i]) for i in columns).rstrip()
        for row in (header, ["-" * w for w in widths], *body)
    )


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]


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
