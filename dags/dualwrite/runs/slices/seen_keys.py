"""The keys that a sweep's slices have seen, kept in the target, so that the last step finds rows without a document although
no process saw every document, and holds only one page in memory.

Each try of a slice is an *attempt* with a number of its own (a line of table `looks`). It keeps 16 bytes of each key that it saw in a document, and of
each label that it counted without a key (a rejection). When all slices are done, `unseen` gives the rows whose key no
successful attempt saw: a slice that was killed and done again counts once, with its second attempt.

Two runs never see each other's keys: they ask for their own attempts only. Both tables are unlogged, so a crash of the server
empties them together; `unseen` raises if an attempt is gone. (Numbers are random: a counter would begin again after a crash, and
another slice's attempt would stand in for the lost one.) Keys are deleted as soon as no run needs them.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from uuid import UUID

from dualwrite.model.cell_types import Cell
from dualwrite.model.declaration import Collection
from dualwrite.model.errors import TargetError
from dualwrite.model.keys import Key
from dualwrite.postgres.conditions import Error, is_transient
from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.fragments import as_text, key_after, raw_text, table_of
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.target import Target

log = logging.getLogger(__name__)

_SQL = own_statements(__file__)
_BEGIN = _SQL["begin"]
_COPY_KEYS = _SQL["copy_keys"]
_SEEN = _SQL["seen"]
_LOOKS_THERE = _SQL["looks_there"]
_ANY_TO_FORGET = _SQL["any_to_forget"]
_LOCK_LOOKS = _SQL["lock_looks"]
_FORGET_LOOKS = _SQL["forget_looks"]
_ANY_LOOK = _SQL["any_look"]
_ANY_KEY = _SQL["any_key"]
_FORGET_ALL_KEYS = _SQL["forget_all_keys"]
_FORGET_KEYS = _SQL["forget_keys"]

KEYS_AT_ONCE = 10_000


def digest(key: Iterable[object]) -> UUID:
    """16 bytes that stand for a key: the MD5 of its parts, each after its length in bytes. `digest_of` says the same."""
    parts = [str(part).encode() for part in key]
    text = b"".join(b"%d:%s" % (len(part), part) for part in parts)
    return UUID(bytes=hashlib.md5(text, usedforsecurity=False).digest())


def label_digest(label: str) -> UUID:
    """As `digest`, for a label without a key. Its text begins with "label:", a key's with a number, so the two differ."""
    return UUID(bytes=hashlib.md5(b"label:" + label.encode(), usedforsecurity=False).digest())


def digest_of(collection: Collection) -> sql.Composed:
    """SQL for the digest of a row `t`."""
    parts = [
        sql.SQL("octet_length({column}::text) || ':' || {column}::text").format(column=as_text(c, "t"))
        for c in collection.key
    ]
    return sql.SQL("md5({})::uuid").format(sql.SQL(" || ").join(parts))


class Attempt:
    """One try of one slice. Takes keys as engine/seen.py's set does, and writes them to the target page by page."""

    def __init__(self, target: Target, collection: str, dag_id: str, run_id: str) -> None:
        self._target = target
        self._waiting: set[UUID] = set()
        self.number = secrets.randbits(62)
        with target.transaction() as connection:
            given = {"look": self.number, "dag": dag_id, "run": run_id, "collection": collection}
            connection.execute(_BEGIN, given)

    def update(self, keys: Iterable[Key]) -> None:
        """Adds keys."""
        self._add(map(digest, keys))

    def update_labels(self, labels: Iterable[str]) -> None:
        """Adds labels that were counted and are no row's key, those of rejections."""
        self._add(map(label_digest, labels))

    def _add(self, digests: Iterable[UUID]) -> None:
        self._waiting.update(digests)
        if len(self._waiting) >= KEYS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Writes the remaining keys to the target. If a commit's answer is lost, a page is written twice; that is harmless."""
        if not self._waiting:
            return
        with (
            self._target.transaction() as connection,
            connection.cursor() as cursor,
            cursor.copy(_COPY_KEYS) as copy,
        ):
            copy.set_types(["int8", "uuid"])
            for key in self._waiting:
                copy.write_row((self.number, key))
        self._waiting.clear()


def unseen(target: Target, collection: Collection, attempts: Sequence[int]) -> Iterator[list[Key]]:
    """The keys of rows that none of these attempts saw, in pages by key order, each in a transaction of its own.

    Raises TargetError if an attempt is gone: the server crashed meanwhile, or a later run has begun.
    """
    names = sql.SQL(", ").join(sql.Identifier("t", c.name) for c in collection.key)
    texts = sql.SQL(", ").join([as_text(c, "t") for c in collection.key] + [raw_text(c, "t") for c in collection.key])
    beyond = key_after(collection, "t", sql.SQL("(%(after)s::text[])"))
    after: list[Cell] = []
    number = len(collection.key)
    while True:
        where = target.lookups(collection).where("t", *([beyond] if after else []))
        # OFFSET 0 makes Postgres read the page by the key's index first, then probe the other index for each of its rows.
        statement = sql.SQL(
            "SELECT {texts}, NOT EXISTS (SELECT FROM {seen} s WHERE s.key = {digest} AND s.look = ANY(%(looks)s)) "
            "FROM (SELECT * FROM {table} t{where} ORDER BY {names} LIMIT %(limit)s OFFSET 0) t ORDER BY {names}"
        ).format(
            names=names,
            texts=texts,
            seen=sql.Identifier(SCHEMA, "seen_keys"),
            digest=digest_of(collection),
            table=table_of(collection),
            where=where,
        )
        with target.transaction() as connection:
            _require(connection, attempts)
            rows = connection.execute(
                statement, {"after": after, "looks": list(attempts), "limit": KEYS_AT_ONCE}
            ).fetchall()
        page = [tuple(key[:number]) for *key, is_unseen in rows if is_unseen]
        if page:
            yield page
        if len(rows) < KEYS_AT_ONCE:
            return
        after = list(rows[-1][number:-1])


def seen_labels(target: Target, labels: Sequence[str], attempts: Sequence[int]) -> set[str]:
    """The labels that one of these attempts counted. Raises TargetError as `unseen`."""
    digests = {label_digest(label): label for label in labels}
    return {digests[d] for d in _seen(target, list(digests), attempts)}


def seen_keys(target: Target, keys: Sequence[Key], attempts: Sequence[int]) -> set[Key]:
    """The keys that one of these attempts saw. Raises TargetError as `unseen`."""
    digests = {digest(key): key for key in keys}
    return {digests[d] for d in _seen(target, list(digests), attempts)}


def _seen(target: Target, digests: Sequence[UUID], attempts: Sequence[int]) -> set[UUID]:
    seen: set[UUID] = set()
    with target.transaction() as connection:
        _require(connection, attempts)
        for start in range(0, len(digests), KEYS_AT_ONCE):
            given = {"keys": digests[start : start + KEYS_AT_ONCE], "looks": list(attempts)}
            rows = connection.execute(_SEEN, given).fetchall()
            seen.update(key for (key,) in rows)
    return seen


def _require(connection: Connection, attempts: Sequence[int]) -> None:
    row = connection.execute(_LOOKS_THERE, {"looks": list(attempts)}).fetchone()
    assert row is not None
    if row[0] != len(set(attempts)):
        raise TargetError(
            "Some of the slices' seen keys are gone before their run is over, because the server crashed or a later run began. "
            "Trigger a new run."
        )


_LONGEST_RUN = timedelta(days=2)
"""No run lives longer (see the DAGs' dagrun_timeout), so an older attempt is a killed run's, of any DAG."""

DELETED_AT_ONCE = 500_000
"""Keys that one statement deletes, because a statement may take two minutes."""


def forget(target: Target, dag_id: str, *, but: str | None = None) -> None:
    """Deletes the attempts of a DAG's runs, except the run `but`, and those that a killed run of another DAG left; then their keys.

    Usually there is nothing to delete, and that check takes no lock. An attempt that begins at this moment waits for our lock or
    is seen, so its keys aren't lost. If no attempt is left, the table of keys is truncated; else only keys without an attempt are
    deleted. If the tables are busy, the next run does it.
    """
    given = {"dag": dag_id, "but": but, "longest": _LONGEST_RUN}
    try:
        if not target.fetch(_ANY_TO_FORGET, given):
            return
        with target.transaction() as connection:
            connection.execute(_LOCK_LOOKS)
            connection.execute(_FORGET_LOOKS, given)
            others = connection.execute(_ANY_LOOK).fetchone()
            if others is None and connection.execute(_ANY_KEY).fetchone():
                connection.execute(_FORGET_ALL_KEYS)
        while others is not None:
            with target.transaction() as connection:
                deleted = connection.execute(_FORGET_KEYS, {"limit": DELETED_AT_ONCE}).rowcount
            if deleted < DELETED_AT_ONCE:
                break
    except Error as error:
        if not is_transient(error):
            raise
        log.warning("Could not clear the slices' seen keys; the next run will")
