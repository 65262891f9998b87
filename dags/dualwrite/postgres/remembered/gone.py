"""Required documents that were gone when they were last asked for, `dualwrite.gone_documents`: a digest of each.

Documents whose required document is gone stay for ever. A collection that is read whole meets all of them in every run: a waiting
list of people who left asked for each person every 15 minutes. A document kept here is asked for again after a while, and at once
if its row is there.
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
    """The documents, of these (collection and path), that were asked for at most `within` ago and were gone."""
    by_key = {_digest(*document): document for document in documents}
    keys = list(by_key)
    gone: set[tuple[str, str]] = set()
    for start in range(0, len(keys), _AT_ONCE):
        rows = session.fetch(_KNOWN, {"keys": keys[start : start + _AT_ONCE], "within": within})
        gone.update(by_key[key] for (key,) in rows)
    return gone


def remember(connection: Connection, documents: Iterable[tuple[str, str]]) -> None:
    """Records documents that were just asked for and are gone, and forgets those that weren't asked for lately."""
    keys = [_digest(*document) for document in documents]
    if not keys:
        return
    connection.execute(_FORGET, {"kept": _KEPT})
    for start in range(0, len(keys), _AT_ONCE):
        connection.execute(_REMEMBER, {"keys": keys[start : start + _AT_ONCE]})
