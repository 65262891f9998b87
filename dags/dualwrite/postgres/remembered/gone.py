"""Required documents that were gone when they were last asked for, `dualwrite.gone_documents`: a digest of each.

Documents whose required document is gone stay for ever, and a collection that is read whole in every run meets them all
each time: a waiting list with people who left asked for each of them every 15 minutes. What is kept here is asked for
again after a while, and at once if the required row is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from dualwrite.postgres.connection import Connection, sql
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.session import Session

_AT_ONCE = 10_000
_KEPT = timedelta(days=2)

_KNOWN = sql.SQL(f"""
    SELECT key FROM {SCHEMA}.gone_documents WHERE key = ANY(%(keys)s::uuid[]) AND asked_at > now() - %(within)s::interval
""")


def _digest(name: str, path: str) -> UUID:
    return UUID(bytes=hashlib.sha256(f"{name}:{path}".encode()).digest()[:16])


def known(session: Session, documents: Sequence[tuple[str, str]], within: timedelta) -> set[tuple[str, str]]:
    """Those of the documents (collection and path) that were gone when they were asked for, at most so long ago."""
    by_key = {_digest(*document): document for document in documents}
    keys = list(by_key)
    found: set[tuple[str, str]] = set()
    for start in range(0, len(keys), _AT_ONCE):
        rows = session.fetch(_KNOWN, {"keys": keys[start : start + _AT_ONCE], "within": within})
        found.update(by_key[key] for (key,) in rows)
    return found


def remember(connection: Connection, documents: Iterable[tuple[str, str]]) -> None:
    """Records documents that were just asked for, and forgets those that weren't lately."""
    keys = [_digest(*document) for document in documents]
    if not keys:
        return
    connection.execute(f"DELETE FROM {SCHEMA}.gone_documents WHERE asked_at < now() - %s", (_KEPT,))
    for start in range(0, len(keys), _AT_ONCE):
        connection.execute(
            f"INSERT INTO {SCHEMA}.gone_documents (key) SELECT unnest(%s::uuid[]) "
            "ON CONFLICT (key) DO UPDATE SET asked_at = excluded.asked_at",
            (keys[start : start + _AT_ONCE],),
        )
