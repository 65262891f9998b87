"""Pure: the rules that a migration's statements must follow, and the objects that they create.

A file is applied in one transaction that is not its own, over a connection that it does not own: another file, or
through a pooler another client, uses the same session next. So it may neither end the transaction nor change the
session. While a file runs, Postgres is asked whether it did (execution.py); a file refused here never begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dualwrite.migrations.parser import Name, Statement, Token, name_at, skip, tokenize
from dualwrite.model.errors import MigrationError

_TRANSACTION = (
    "abort", "begin", "commit", "end", "prepare transaction", "release", "rollback", "savepoint", "start transaction",
)  # fmt: skip
_SESSION = ("deallocate", "declare", "discard", "listen", "load", "prepare", "reset", "unlisten")
_OUTSIDE = """
CREATE [UNIQUE] INDEX CONCURRENTLY name ..., DROP INDEX CONCURRENTLY IF EXISTS, REINDEX ... CONCURRENTLY,
ALTER TYPE ... ADD VALUE IF NOT EXISTS, VACUUM (not FULL)
"""
_CREATED = {"table", "index", "view", "sequence"}


@dataclass(frozen=True, slots=True)
class Created:
    """An object that a statement creates and that must not exist before. `table`: an index's."""

    kind: str
    schema: str
    name: str
    table: Name = ()

    @property
    def relation(self) -> str:
        return f"{self.schema}.{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.schema == "public" else f"{self.kind} {self.schema}.{self.name}"


def refuse(file: str, statements: Sequence[Statement], *, transactional: bool) -> None:
    """Raises MigrationError, with file and line, for the first statement that breaks a rule."""
    if not transactional and len(statements) > 1:
        raise MigrationError(
            f"A file outside a transaction holds one statement: {file} has another on line {statements[1].line}. "
            "Move it to a file of its own.",
            code="several-statements-outside",
        )
    for statement in statements:
        fault = _fault(statement, transactional)
        if fault:
            raise MigrationError(f"{file}, line {statement.line} {fault}", code="statement-not-for-migrations")


def _fault(statement: Statement, transactional: bool) -> str | None:
    if any(statement.begins(phrase) for phrase in _TRANSACTION):
        return "begins or ends a transaction. Remove the statement: each file is applied in one transaction."
    if _changes_session(statement):
        return (
            "changes the session, which the next file and, through a pooler, other clients use too. Write SET LOCAL, "
            "set_config(..., true), or remove the statement."
        )
    if statement.begins("copy") and {"stdin", "stdout"} & set(statement.words):
        return "copies from or to a client that isn't there. Write INSERT statements instead."
    needs_outside = not runs_in_transaction(statement)
    if transactional and needs_outside:
        return (
            "can't run in a transaction. Move the statement to a file of its own, with the line "
            "`-- dualwrite: no-transaction` in its header."
        )
    if not transactional and not (needs_outside or _adds_enum_value(statement)):
        return (
            "needs no `-- dualwrite: no-transaction`: outside a transaction a killed run leaves half of it. Remove that "
            f"line. It is for {' '.join(_OUTSIDE.split())}."
        )
    return None if transactional else _not_repeatable(statement)


def _not_repeatable(statement: Statement) -> str | None:
    """Why a statement can't be executed twice, as after a run that was killed outside a transaction; None if it can."""
    if "vacuum" in statement.words[:1] and "full" in statement.words:
        return "locks the table against reads and writes for as long as VACUUM FULL takes. Remove FULL."
    build = index_build(statement)
    if build is not None and not build.name:
        return "creates an index without a name. Name it, so that a half-built one can be found."
    if statement.begins("drop") and "exists" not in statement.words:
        return "drops an index that may be gone after a killed run. Write DROP INDEX CONCURRENTLY IF EXISTS."
    if _adds_enum_value(statement) and "exists" not in statement.words:
        return "adds a value that may be there after a killed run. Write ADD VALUE IF NOT EXISTS."
    return None


def runs_in_transaction(statement: Statement) -> bool:
    """False for the statements that Postgres refuses inside a transaction and that a migration may need."""
    words = statement.words
    if statement.begins("vacuum"):
        return False
    about_indexes = words[:1] == ("reindex",) or ("index" in words[1:3] and words[0] in ("create", "drop"))
    return not (about_indexes and "concurrently" in words)


def _adds_enum_value(statement: Statement) -> bool:
    """ALTER TYPE ... ADD VALUE may run outside a transaction too: inside, the value can't be used until it is committed."""
    words = statement.words
    return statement.begins("alter type") and ("add", "value") in pairwise(words)


def _changes_session(statement: Statement) -> bool:
    return any(_session_changes(statement.tokens))


def _session_changes(tokens: Sequence[Token], depth: int = 0) -> Iterator[bool]:
    """True for each place that makes a setting for longer than the transaction. Looks also into the body of a DO, but not into SQL
    that it composes as text and executes."""
    begins = True
    for i, token in enumerate(tokens):
        following = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if begins and token.kind == "word":
            yield token.text in _SESSION and not depth and following != "transaction"
            yield token.text == "set" and following not in ("local", "constraints", "transaction")
            if token.text == "do" and not depth:
                for body in tokens[i + 1 :]:
                    if body.kind == "string":
                        yield from _session_changes(tuple(_lenient(body.text)), 1)
        yield token.kind == "word" and token.text == "set_config" and not _is_local(tokens[i + 1 :])
        begins = token.text == ";" or (depth > 0 and token.text in ("begin", "then", "else", "loop"))


def _lenient(body: str) -> Iterator[Token]:
    try:
        yield from tokenize(body, "a body")
    except MigrationError:
        return  # not SQL or PL/pgSQL


def _is_local(arguments: Sequence[Token]) -> bool:
    """Whether the arguments of set_config end in `true`."""
    depth = 0
    for i, token in enumerate(arguments):
        if token.kind == "symbol":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return i > 0 and arguments[i - 1].text.lower() in ("true", "t", "on", "yes", "1")
    return False


# --- created objects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """A CREATE INDEX: the index's name ("" if Postgres chooses it) and the table's."""

    name: str
    table: Name
    guarded: bool


def index_build(statement: Statement) -> IndexBuild | None:
    """The index that a CREATE INDEX builds; None for any other statement. The index lies in its table's schema."""
    i, seen = skip(statement.tokens, 0, "create", "unique", "index", "concurrently", "if not exists")
    if not {"create", "index"} <= seen:
        return None
    name: Name = ()
    if i < len(statement.tokens) and statement.tokens[i].text != "on":
        name, i = name_at(statement.tokens, i)
    i, _ = skip(statement.tokens, i, "on", "only")
    table, _ = name_at(statement.tokens, i)
    return IndexBuild(name[-1] if name else "", table, "if not exists" in seen)


def created_objects(statements: Sequence[Statement]) -> tuple[Created, ...]:
    """The tables, indexes, views and sequences that must not exist before: those created without IF NOT EXISTS or OR
    REPLACE, and not dropped before by the same file."""
    objects: list[Created] = []
    dropped: set[Name] = set()
    default = "public"
    for statement in statements:
        if statement.begins("set local search_path"):
            default = ""
        if statement.begins("drop"):
            dropped |= {name for i in range(len(statement.tokens)) if (name := name_at(statement.tokens, i)[0])}
            continue
        made = _created(statement, default)
        if made is not None and made.schema and not {(made.name,), (made.schema, made.name)} & dropped:
            objects.append(made)
    return tuple(objects)


def _created(statement: Statement, default: str) -> Created | None:
    build = index_build(statement)
    if build is not None:
        schema = build.table[0] if len(build.table) > 1 else default
        return None if build.guarded or not build.name else Created("index", schema, build.name, build.table)
    tokens = statement.tokens
    i, seen = skip(tokens, 0, "create", "unlogged", "recursive", "materialized")
    if "create" not in seen or i >= len(tokens) or tokens[i].text not in _CREATED:
        return None
    kind = tokens[i].text
    i, guard = skip(tokens, i + 1, "if not exists")
    name, _ = name_at(tokens, i)
    if guard or not name:
        return None
    return Created(kind, name[-2] if len(name) > 1 else default, name[-1])


def created_schema(statement: Statement) -> str | None:
    """The schema of a CREATE SCHEMA IF NOT EXISTS that does nothing else; None for any other statement."""
    i, seen = skip(statement.tokens, 0, "create", "schema", "if not exists")
    if len(seen) < 3:
        return None
    name, end = name_at(statement.tokens, i)
    return name[0] if len(name) == 1 and end == len(statement.tokens) else None
