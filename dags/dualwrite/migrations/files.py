"""Pure: files in sql/migrations become numbered statements, or a refusal by file and line before anything runs."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dualwrite.model.errors import MigrationError

_NAME = re.compile(r"^(\d{14})_([a-z0-9_]+)\.sql$")
_OUTSIDE = re.compile(r"^--\s*dualwrite:\s*no-transaction\s*$", re.IGNORECASE | re.MULTILINE)
_TRANSACTION = re.compile(
    r"^(begin|start\s+transaction|commit|end|rollback|savepoint|release|prepare\s+transaction)\b", re.I
)
_CREATES = re.compile(
    r"^create\s+(?:or\s+replace\s+)?(?:unlogged\s+|unique\s+)*(?P<kind>table|index|view|sequence|materialized\s+view)\s+"
    r"(?:concurrently\s+)?(?P<guard>if\s+not\s+exists\s+)?(?P<name>[\w.\"]+)",
    re.IGNORECASE,
)
_DOLLAR = re.compile(r"\$(?:[A-Za-z_][A-Za-z_0-9]*)?\$")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: the line that it begins on, and its text without leading comments."""

    line: int
    text: str


@dataclass(frozen=True)
class MigrationFile:
    """A migration as it lies on disk."""

    path: Path
    version: str
    name: str
    text: str
    statements: tuple[Statement, ...]
    transactional: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def creates(self) -> tuple[tuple[str, str], ...]:
        """Kind and name of each table, index, view or sequence that a statement creates without IF NOT EXISTS."""
        found = (_CREATES.match(s.text) for s in self.statements)
        return tuple((re.sub(r"\s+", " ", m["kind"].lower()), m["name"]) for m in found if m and not m["guard"])


def read_folder(folder: Path) -> list[MigrationFile]:
    """All migrations of a folder in the order of their versions. Raises MigrationError for the first bad file."""
    if not folder.is_dir():
        raise MigrationError(f"Migrations lie in {folder}: it is no folder. Restore it from the repository.")
    files = [read_file(path) for path in sorted(folder.iterdir()) if path.suffix == ".sql" or path.is_file()]
    by_version: dict[str, MigrationFile] = {}
    for file in files:
        twin = by_version.setdefault(file.version, file)
        if twin is not file:
            raise MigrationError(
                f"A version is used once: {twin.path.name} and {file.path.name} have the same. Rename the newer one."
            )
    return files


def read_file(path: Path) -> MigrationFile:
    """Reads and splits one migration. Raises MigrationError with the file's name and the line."""
    matched = _NAME.match(path.name)
    if matched is None:
        raise MigrationError(
            f"A migration is named <14 digits>_<name>.sql, in lower case: {path.name} is not. "
            "Rename it (make migration name=... gives a right one)."
        )
    text = _decode(path)
    statements = tuple(split(text, path.name))
    if not statements:
        raise MigrationError(f"A migration has at least one statement: {path.name} has none. Fill it in or remove it.")
    outside = _OUTSIDE.search(text.split(";", 1)[0]) is not None
    if outside and len(statements) > 1:
        raise MigrationError(
            f"Outside a transaction there is one statement a file: {path.name} has another on line "
            f"{statements[1].line}. Move it to a file of its own."
        )
    for statement in statements:
        if _TRANSACTION.match(statement.text):
            raise MigrationError(
                f"A migration doesn't begin or end transactions: {path.name}, line {statement.line} does. "
                "Remove the statement; the file is applied in one transaction, or write `-- dualwrite: no-transaction` "
                "in its header."
            )
    return MigrationFile(path, matched[1], matched[2], text, statements, not outside)


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise MigrationError(f"A migration is UTF-8: {path.name}, line {line} is not. Save it as UTF-8.") from None


def split(text: str, name: str) -> list[Statement]:
    """Splits SQL at its semicolons, past quotes, dollar quotes and (nested) comments.

    Raises MigrationError where the text ends inside a statement, a quote or a comment.
    """
    statements: list[Statement] = []
    begin: int | None = None
    i = 0

    def line_of(position: int) -> int:
        return text.count("\n", 0, position) + 1

    def unended(what: str, position: int) -> MigrationError:
        return MigrationError(
            f"A migration ends where a statement ends: {name} ends inside {what} begun on line {line_of(position)}. "
            "End it (a semicolon, a quote, a comment's end)."
        )

    while i < len(text):
        c = text[i]
        if text.startswith("--", i):
            end = text.find("\n", i)
            i = len(text) if end < 0 else end
        elif text.startswith("/*", i):
            i = _comment_end(text, i, unended)
        elif c.isspace():
            i += 1
        elif c == ";":
            if begin is not None:
                statements.append(Statement(line_of(begin), text[begin:i].strip()))
            begin = None
            i += 1
        else:
            begin = i if begin is None else begin
            if c in "'\"":
                i = _quote_end(text, i, unended)
            elif (
                c == "$"
                and (tag := _DOLLAR.match(text, i))
                and not (i and (text[i - 1].isalnum() or text[i - 1] == "_"))
            ):
                end = text.find(tag[0], tag.end())
                if end < 0:
                    raise unended(f"a {tag[0]} quote", i)
                i = end + len(tag[0])
            else:
                i += 1
    if begin is not None:
        raise unended("a statement", begin)
    return statements


def _comment_end(text: str, start: int, unended) -> int:  # type: ignore[no-untyped-def]
    depth, i = 1, start + 2
    while depth:
        opened, closed = text.find("/*", i), text.find("*/", i)
        if closed < 0:
            raise unended("a comment", start)
        depth, i = (depth + 1, opened + 2) if 0 <= opened < closed else (depth - 1, closed + 2)
    return i


def _quote_end(text: str, start: int, unended) -> int:  # type: ignore[no-untyped-def]
    """After the closing quote. A doubled quote stays inside; in an E'' string a backslash escapes."""
    quote = text[start]
    escapes = quote == "'" and start > 0 and text[start - 1] in "eE" and not (start > 1 and text[start - 2].isalnum())
    i = start + 1
    while i < len(text):
        if (escapes and text[i] == "\\") or text.startswith(quote * 2, i):
            i += 2
        elif text[i] == quote:
            return i + 1
        else:
            i += 1
    raise unended("a quote", start)
