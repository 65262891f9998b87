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

from dualwrite.postgres.connection import Connection
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.session import Session

_SQL = own_statements(__file__)
_KNOWN = _SQL["known"]
_FORGET = _SQL["forget"]
_REMEMBER = _SQL["remember"]

_AT_ONCE = 10_000
_KEPT = timedelta(days=2)


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
    connection.execute(_FORGET, {"kept": _KEPT})
    for start in range(0, len(keys), _AT_ONCE):
        connection.execute(_REMEMBER, {"keys": keys[start : start + _AT_ONCE]})
