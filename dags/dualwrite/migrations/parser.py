"""Pure: splits SQL text into statements, and each statement into tokens.

Splits where psql would: at a semicolon outside quotes, comments, parentheses (CREATE RULE) and BEGIN ATOMIC bodies.
Postgres accepts one command at a time (see execution.py), so a wrong split is an error, never a second command that runs
unnoticed.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dualwrite.model.errors import MigrationError

_SPACE = " \t\n\r\f\v"  # Postgres's; Python's \s also takes characters that Postgres counts among an identifier's
_HIGH = "\x80-\U0010ffff"
_TOKEN = re.compile(
    rf"""
      (?P<space>   [{_SPACE}]+ )
    | (?P<line>    --[^\n\r]* )
    | (?P<comment> /\* )
    | (?P<dollar>  \$ (?: [A-Za-z_{_HIGH}] [A-Za-z0-9_{_HIGH}]* )? \$ )
    | (?P<escaped> [eE]' )
    | (?P<quote>   ['"] )
    | (?P<word>    [A-Za-z_{_HIGH}] [A-Za-z0-9_${_HIGH}]* )
    | (?P<number>  \$?[0-9]+ )
    | (?P<symbol>  . )
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {
    "'": re.compile(r"(?:[^']|'')*'"),
    '"': re.compile(r'(?:[^"]|"")*"'),
    "E'": re.compile(r"(?:[^'\\]|''|\\.)*'", re.DOTALL),
}
_LINE_END = re.compile(r"\r\n?|\n")
_FOLDED = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_LONGEST_NAME = 63  # bytes; Postgres cuts off the rest

Kind = Literal["word", "name", "string", "number", "symbol"]
Name = tuple[str, ...]
"""An identifier as Postgres stores it, with its schema if one is written."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word (in lower case), a quoted name or a string (without its quotes), a number, or a single symbol."""

    kind: Kind
    text: str
    position: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: the line that it begins on, its text without leading comments and semicolon, and its tokens."""

    line: int
    text: str
    tokens: tuple[Token, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The unquoted words in their order, in lower case."""
        return tuple(t.text for t in self.tokens if t.kind == "word")

    def begins(self, phrase: str) -> bool:
        """Whether the statement begins with these words."""
        wanted = phrase.split()
        return [t.text for t in self.tokens[: len(wanted)] if t.kind == "word"] == wanted

    def line_at(self, position: int) -> int:
        """The file's line of a character of the text, counted from 0."""
        return self.line + len(_LINE_END.findall(self.text, 0, position))


def split(text: str, file: str) -> list[Statement]:
    """The statements of a file. Raises MigrationError if the text ends inside a statement, a quote or a comment, and at
    a command of psql's."""
    statements: list[Statement] = []
    tokens: list[Token] = []
    parentheses = bodies = 0
    for token in tokenize(text, file):
        if token.kind == "symbol" and token.text == ";" and not parentheses and not bodies:
            if tokens:
                begin = tokens[0].position
                statements.append(Statement(_line(text, begin), text[begin : token.position].strip(), tuple(tokens)))
            tokens = []
            continue
        if token.kind == "symbol":
            parentheses = max(0, parentheses + {"(": 1, ")": -1}.get(token.text, 0))
            if token.text == "\\":
                raise MigrationError(
                    f"{file}, line {_line(text, token.position)} is a command of psql's, which Postgres doesn't know. "
                    "Write SQL instead.",
                    code="psql-command",
                )
        elif token.kind == "word" and not parentheses:
            bodies = _bodies(bodies, token, tokens)
        tokens.append(token)
    if tokens:
        raise _unended(text, file, "a statement", tokens[0].position)
    return statements


def _bodies(open_bodies: int, token: Token, before: list[Token]) -> int:
    """How many BEGIN ATOMIC ... END and CASE ... END are open after this word. Outside such a body a CASE doesn't
    matter: no semicolon can stand in it."""
    if open_bodies:
        return open_bodies + {"case": 1, "end": -1}.get(token.text, 0)
    return int(token.text == "atomic" and bool(before) and before[-1].kind == "word" and before[-1].text == "begin")


def header(text: str, file: str) -> str:
    """The text before the first statement: the file's leading comments."""
    first = next(tokenize(text, file), None)
    return text if first is None else text[: first.position]


def tokenize(text: str, file: str) -> Iterator[Token]:
    """The tokens of some SQL, without space and comments. Raises MigrationError for a quote or a comment without end."""
    position = 0
    while position < len(text):
        piece = _TOKEN.match(text, position)
        assert piece is not None  # the last alternative takes anything
        start, position = position, piece.end()
        match piece.lastgroup:
            case "comment":
                position = _comment_end(text, file, start)
            case "dollar":
                end = text.find(piece[0], position)
                if end < 0:
                    raise _unended(text, file, f"a {piece[0]} quote", start)
                yield Token("string", text[position:end], start)
                position = end + len(piece[0])
            case "escaped" | "quote":
                opening = piece[0].upper()
                closed = _CLOSING[opening].match(text, position)
                if closed is None:
                    raise _unended(text, file, "a quote", start)
                inside = closed[0][:-1]
                if opening == '"':
                    yield Token("name", inside.replace('""', '"'), start)
                else:
                    yield Token("string", inside.replace("''", "'"), start)
                position = closed.end()
            case "word":
                yield Token("word", piece[0].translate(_FOLDED), start)
            case "number":
                yield Token("number", piece[0], start)
            case "symbol":
                yield Token("symbol", piece[0], start)


def name_at(tokens: tuple[Token, ...], index: int) -> tuple[Name, int]:
    """The name that begins at a token, and the index of the token after it. Empty if there is none."""
    parts: list[str] = []
    while index < len(tokens) and tokens[index].kind in ("word", "name"):
        parts.append(tokens[index].text.encode()[:_LONGEST_NAME].decode(errors="ignore"))
        index += 1
        if index == len(tokens) or tokens[index].text != "." or tokens[index].kind != "symbol":
            break
        index += 1
    return tuple(parts), index


def skip(tokens: tuple[Token, ...], index: int, *phrases: str) -> tuple[int, frozenset[str]]:
    """Skips those of these phrases that come next, in this order. Returns the index after them, and the phrases that were there."""
    seen = set()
    for phrase in phrases:
        wanted = phrase.split()
        here = tokens[index : index + len(wanted)]
        if [t.text for t in here if t.kind == "word"] == wanted:
            seen.add(phrase)
            index += len(wanted)
    return index, frozenset(seen)


def _comment_end(text: str, file: str, start: int) -> int:
    """The position after a comment, inside which others may be nested."""
    depth, i = 1, start + 2
    while depth:
        opened, closed = text.find("/*", i), text.find("*/", i)
        if closed < 0:
            raise _unended(text, file, "a comment", start)
        depth, i = (depth + 1, opened + 2) if 0 <= opened < closed else (depth - 1, closed + 2)
    return i


def _line(text: str, position: int) -> int:
    return 1 + len(_LINE_END.findall(text, 0, position))


def _unended(text: str, file: str, part: str, position: int) -> MigrationError:
    return MigrationError(
        f"{file} ends inside {part} begun on line {_line(text, position)}. End it (a semicolon, a quote, a parenthesis, "
        "a comment's end).",
        code="statement-not-ended",
    )
