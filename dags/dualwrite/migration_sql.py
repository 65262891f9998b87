"""Pure: the text of a migration becomes its statements, each with the line that it begins on.

Splits where psql splits: not inside quotes, dollar quotes, (nested) comments, parentheses or BEGIN ATOMIC bodies. What
stands between two semicolons is left as it is; only Postgres judges it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from dualwrite.errors import MigrationError

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<line_comment>--[^\n]*)
    | (?P<comment>/\*)
    | (?P<escape_string>[eE]')
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<quote>['"])
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ROUTINES = {("create", "function"), ("create", "procedure"), ("create", "or", "replace", "function")}
_ROUTINES |= {("create", "or", "replace", "procedure")}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its semicolon and without leading comments. `start` is its place in the file's text."""

    line: int
    start: int
    text: str

    @property
    def first_line(self) -> str:
        """Its first line, cut, to be shown in a message."""
        first = self.text.split("\n", 1)[0].strip()
        return first if len(first) <= 80 else first[:77] + "..."


@dataclass(slots=True)
class _Reader:
    """Where the splitter stands in the statement that it reads."""

    begin: int | None = None
    words: list[str] = field(default_factory=list)  # the first four, which tell a routine
    parentheses: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)  # BEGIN ATOMIC and CASE, which END closes

    def word(self, word: str, position: int) -> None:
        if len(self.words) < 4:
            self.words.append(word)
        if self.parentheses:
            return
        if word == "begin" and any(tuple(self.words[: len(r)]) == r for r in _ROUTINES):
            self.blocks.append(position)
        elif word == "case" and self.blocks:
            self.blocks.append(position)
        elif word == "end" and self.blocks:
            self.blocks.pop()


def split(text: str, name: str) -> list[Statement]:
    """The statements of a file, in order. `name` is for the message.

    Raises MigrationError, with the line, where the text ends inside a statement, a quote, a comment or a parenthesis.
    """
    found: list[Statement] = []
    reader = _Reader()
    i = 0

    def unended(what: str, position: int) -> MigrationError:
        return MigrationError(
            f"A migration ends where a statement ends: {name}, line {line_at(text, position)} begins {what} that "
            f"never ends. End it, or restore the rest of the file."
        )

    while i < len(text):
        token = _TOKEN.match(text, i)
        assert token is not None  # the last alternative takes any character
        kind, i = token.lastgroup, token.end()
        if kind in ("space", "line_comment"):
            continue
        if kind == "comment":
            i = _comment_end(text, token.end())
            if i < 0:
                raise unended("a comment", token.start())
            continue
        if token[0] == ";" and not reader.parentheses and not reader.blocks:
            if reader.begin is not None:
                statement = text[reader.begin : token.start()].rstrip()
                found.append(Statement(line_at(text, reader.begin), reader.begin, statement))
            reader = _Reader()
            continue
        if reader.begin is None:
            reader.begin = token.start()
        if kind in ("quote", "escape_string"):
            i = _quote_end(text, token.end(), text[token.end() - 1], escapes=kind == "escape_string")
        elif kind == "dollar":
            i = text.find(token[0], token.end())
            i = i if i < 0 else i + len(token[0])
        elif kind == "word":
            reader.word(token[0].lower(), token.start())
        elif token[0] == "(":
            reader.parentheses.append(token.start())
        elif token[0] == ")" and reader.parentheses:
            reader.parentheses.pop()
        if i < 0:
            raise unended(f"a quote ({token[0]})", token.start())
    if reader.parentheses:
        raise unended("a parenthesis", reader.parentheses[-1])
    if reader.blocks:
        raise unended("a block", reader.blocks[-1])
    if reader.begin is not None:
        raise unended("a statement", reader.begin)
    return found


def line_at(text: str, position: int) -> int:
    """The line, from 1, that a position of a text lies on."""
    return text.count("\n", 0, position) + 1


def _comment_end(text: str, i: int) -> int:
    """Past the end of a comment whose content begins at i; comments nest. -1 where it never ends."""
    depth = 1
    while depth:
        opened, closed = text.find("/*", i), text.find("*/", i)
        if closed < 0:
            return -1
        depth, i = (depth + 1, opened + 2) if 0 <= opened < closed else (depth - 1, closed + 2)
    return i


def _quote_end(text: str, i: int, quote: str, *, escapes: bool) -> int:
    """Past the closing quote of a quoted text whose content begins at i. -1 where it never ends."""
    while i < len(text):
        if (escapes and text[i] == "\\") or text.startswith(quote * 2, i):
            i += 2
        elif text[i] == quote:
            return i + 1
        else:
            i += 1
    return -1
