"""Pure but for reading the folder: files of sql/migrations become checked values, or a refusal by name and line.

Two kinds of faults. One that leaves unclear what the file says (its name, its encoding, its end) refuses the folder:
MigrationError, before anything runs. One that makes a clear file unfit to be applied here stands in its `faults`, and
refuses the file only while it is pending: what was applied elsewhere is not judged again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dualwrite.errors import MigrationError
from dualwrite.migration_sql import Statement, line_at, split

HEADER = "-- dualwrite: no-transaction"

_NAME = re.compile(r"^(\d{14})_([a-z0-9_]+)\.sql$")
_DIRECTIVE = re.compile(r"^--\s*dualwrite:\s*(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)

_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_QUALIFIED = rf"{_IDENTIFIER}(?:\s*\.\s*{_IDENTIFIER})?"
_IF_NOT_EXISTS = r"(?P<guard>if\s+not\s+exists\s+)?"
_CREATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"create\s+(?:unlogged\s+)?(?P<kind>table)\s+{_IF_NOT_EXISTS}(?P<name>{_QUALIFIED})",
        rf"create\s+(?:recursive\s+)?(?P<kind>view|materialized\s+view|sequence)\s+{_IF_NOT_EXISTS}(?P<name>{_QUALIFIED})",
        rf"create\s+(?P<kind>type|domain)\s+(?P<name>{_QUALIFIED})",
        rf"create\s+(?P<kind>schema)\s+{_IF_NOT_EXISTS}(?P<name>{_IDENTIFIER})",
        rf"create\s+(?P<kind>policy|trigger)\s+(?P<name>{_IDENTIFIER})\b.*?\son\s+(?P<table>{_QUALIFIED})",
        rf"create\s+(?:unique\s+)?(?P<kind>index)\s+(?:concurrently\s+)?{_IF_NOT_EXISTS}(?P<name>{_IDENTIFIER})\s+on\s+"
        rf"(?:only\s+)?(?P<table>{_QUALIFIED})",
    )
]
_ALTER = re.compile(rf"alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<table>{_QUALIFIED})", re.IGNORECASE)
_ADDS = re.compile(rf"\badd\s+(?P<kind>column|constraint)\s+{_IF_NOT_EXISTS}(?P<name>{_IDENTIFIER})", re.IGNORECASE)

_UNFIT = [
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), reason)
    for pattern, reason in (
        (
            r"(begin|start\s+transaction|commit|end|rollback|abort|savepoint|release|prepare\s+transaction)\b",
            "begins or ends a transaction, and the file is applied in one transaction with its line in the ledger. "
            "Remove the statement",
        ),
        (
            # Committed, it would stay in the session; behind a transaction pooler that session is the app's next.
            r"(set\s+(?!local\b|constraints\b|transaction\b)|select\s.*\bset_config\s*\([^()]*,\s*false\s*\))",
            "sets something for the whole session, which a pooler hands on to the app. Write SET LOCAL",
        ),
        (
            r"create\s+(global\s+|local\s+)?temp(orary)?\s+(?!.*\bon\s+commit\s+drop\b)",
            "makes a temporary object that stays in the session, which a pooler hands on to the app. Add ON COMMIT DROP",
        ),
        (r"copy\b.*\bfrom\s+stdin\b", "reads rows from psql's input. Write INSERT"),
    )
]
_RUNS_TWICE = re.compile(
    r"(create\s+(unique\s+)?index\s+concurrently\b|drop\s+index\s+concurrently\s+if\s+exists\b|reindex\b|vacuum\b"
    r"|analyze\b|refresh\s+materialized\s+view\b|alter\s+type\s.*\badd\s+value\s+if\s+not\s+exists\b)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Created:
    """An object that a statement creates without IF NOT EXISTS or OR REPLACE.

    `kind`: table, view, materialized view, sequence, index, type, domain, schema, policy, trigger, column or
    constraint. `schema` and `name` as the catalog of Postgres spells them; `table` for what belongs to a table.
    """

    kind: str
    schema: str
    name: str
    table: str | None
    line: int

    def __str__(self) -> str:
        return f"{self.kind} {self.table + '.' if self.table and self.kind == 'column' else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """A migration as it lies on disk."""

    version: str
    name: str
    sha256: str
    statements: tuple[Statement, ...]
    transactional: bool
    faults: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return f"{self.version}_{self.name}.sql"

    @property
    def creates(self) -> tuple[Created, ...]:
        return tuple(made for statement in self.statements for made in creates(statement))


def read_folder(folder: Path) -> list[MigrationFile]:
    """All migrations of a folder in the order of their versions. Hidden files are left out.

    Raises MigrationError that lists every file whose name, encoding or end is wrong.
    """
    if not folder.is_dir():
        raise MigrationError(f"Migrations lie in {folder}: it is no folder. Restore it from the repository.")
    files: dict[str, MigrationFile] = {}
    wrong: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            file = read_file(path)
        except MigrationError as error:
            wrong.append(str(error))
            continue
        twin = files.setdefault(file.version, file)
        if twin is not file:
            wrong.append(
                f"A version is used once: {twin.file_name} and {file.file_name} have the same. Give the newer one "
                "another version."
            )
    if wrong:
        raise MigrationError("\n".join(wrong))
    return list(files.values())


def read_file(path: Path) -> MigrationFile:
    """Reads, splits and checks one migration. Raises MigrationError with the file's name and the line."""
    matched = _NAME.match(path.name)
    if matched is None or not path.is_file():
        raise MigrationError(
            f"A migration is a file named <14 digits>_<name>.sql, with a-z, 0-9 and _ in its name: {path.name} is not. "
            "Rename it (`make migration name=...` gives a right name) or move it elsewhere."
        )
    raw = path.read_bytes()
    text = _decode(raw, path.name)
    statements = tuple(split(text, path.name))
    if not statements:
        raise MigrationError(f"A migration has at least one statement: {path.name} has none. Fill it in or remove it.")
    transactional, faults = _header(text[: statements[0].start])
    faults += [f"line {s.line} {reason}" for s in statements for unfit, reason in _UNFIT if unfit.match(s.text)]
    if not transactional:
        faults += _faults_outside(statements)
    return MigrationFile(
        matched[1], matched[2], hashlib.sha256(raw).hexdigest(), statements, transactional, tuple(faults)
    )


def _decode(raw: bytes, name: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise MigrationError(f"A migration is UTF-8: {name}, line {line} is not. Save it as UTF-8.") from None
    if "\0" in text:
        line = line_at(text, text.index("\0"))
        raise MigrationError(f"A migration is text: {name}, line {line} holds U+0000. Remove the character.")
    return text


def _header(header: str) -> tuple[bool, list[str]]:
    """What the comments above the first statement say: whether it runs in a transaction, and what is wrong there."""
    said = [(m[1].lower(), line_at(header, m.start())) for m in _DIRECTIVE.finditer(header)]
    wrong = [
        f"line {line} says `dualwrite: {what}`, which means nothing. The one word known is `{HEADER}`"
        for what, line in said
        if what != "no-transaction"
    ]
    return not any(what == "no-transaction" for what, _ in said), wrong


def _faults_outside(statements: tuple[Statement, ...]) -> Iterator[str]:
    """A run may be killed between such a statement and its line in the ledger, and the next run executes it again."""
    if len(statements) > 1:
        yield (
            f"line {statements[1].line} begins a second statement, and outside a transaction a file has one. Move it to "
            "a file of its own"
        )
    for statement in statements:
        if not _RUNS_TWICE.match(statement.text):
            yield (
                f"line {statement.line} can't run outside a transaction here, because it could run twice: a killed run "
                "is finished by the next. Fit are CREATE INDEX CONCURRENTLY, DROP INDEX CONCURRENTLY IF EXISTS, REINDEX, "
                "VACUUM, ANALYZE, REFRESH MATERIALIZED VIEW and ALTER TYPE ... ADD VALUE IF NOT EXISTS"
            )


def creates(statement: Statement) -> Iterator[Created]:
    """What a statement creates, as far as its text tells. A DO block's content, for one, stays unseen."""
    for pattern in _CREATES:
        matched = pattern.match(statement.text)
        if matched is not None:
            groups = matched.groupdict()
            if groups.get("guard"):
                return
            kind = re.sub(r"\s+", " ", matched["kind"].lower())
            table_schema, table = parse_name(groups["table"]) if groups.get("table") else ("public", None)
            schema, name = (table_schema, fold(matched["name"])) if table else parse_name(matched["name"])
            yield Created(kind, schema, name, table, statement.line)
            return
    altered = _ALTER.match(statement.text)
    if altered is not None:
        schema, table = parse_name(altered["table"])
        for added in _ADDS.finditer(statement.text, altered.end()):
            if not added["guard"]:
                line = statement.line + statement.text.count("\n", 0, added.start())
                yield Created(added["kind"].lower(), schema, fold(added["name"]), table, line)


def parse_name(name: str) -> tuple[str, str]:
    """Schema and name as Postgres's catalog spells them; what names no schema is in public."""
    parts = [fold(part) for part in re.findall(_IDENTIFIER, name)]
    return (parts[0], parts[1]) if len(parts) == 2 else ("public", parts[0])


def fold(identifier: str) -> str:
    """An identifier as the catalog spells it: quoted as written, otherwise in lower case."""
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier.lower()


def index_of(statement: Statement) -> Created | None:
    """The index that a CREATE INDEX CONCURRENTLY builds, with IF NOT EXISTS or without; None for other statements."""
    text = re.sub(
        r"^(create\s+(?:unique\s+)?index\s+concurrently\s+)if\s+not\s+exists\s+", r"\1", statement.text, flags=re.I
    )
    made = next(creates(Statement(statement.line, statement.start, text)), None)
    return made if made is not None and made.kind == "index" else None
