"""Connections to a test's database that stay open from one run to the next, until the database is dropped.

A connection costs Postgres 5 ms, and its first look at each table and function more: a reconciliation on new ones took it 95 ms,
on these 54. Production's runs are processes with connections of their own; what a run keeps beside its connection
(a Target's caches) is each run's own here too. Only a database that `clone` made is known here: through a proxy or a pooler, as
a role, or after `forget`, each run connects anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from dualwrite import postgres
from dualwrite.model.declaration import Catalog
from dualwrite.model.pace import Pace
from dualwrite.postgres.target import Target

_idle: dict[str, list[postgres.Connection]] = {}
"""By a database's URI: the connections that no run uses."""
_looking: dict[str, dict[int, psycopg.Connection[Any]]] = {}
"""By a database's URI and a thread: the one through which tests look at it, and change it (autocommit). While a thread's statement
waits, another's goes on."""


def keep_open(uri: str) -> None:
    """From now on, connections to this database stay open until `let_go`."""
    _idle[uri] = []


def let_go(uri: str) -> None:
    """Closes the connections to a database, and keeps no other open."""
    forget(uri)
    _idle.pop(uri, None)


def forget(uri: str) -> None:
    """Closes those that no run uses: after a change of what only a new connection learns (a role's settings)."""
    while _idle.get(uri):
        _idle[uri].pop().close()
    for connection in _looking.pop(uri, {}).values():
        connection.close()


def kept(uri: str) -> list[int]:
    """Postgres's processes of the connections that the next test finds open. Closed are those of other threads, and those that a
    test led to another place than `uri` (it changed how we connect)."""
    asked = psycopg.conninfo.conninfo_to_dict(uri)
    idle, mine, me = _idle.get(uri, []), _looking.get(uri, {}), threading.get_ident()
    for connection in [c for c in idle if not _is_at(c, asked)]:
        idle.remove(connection)
        connection.close()
    for thread in [thread for thread in mine if thread != me]:
        mine.pop(thread).close()
    return [c.info.backend_pid for c in (*idle, *mine.values())]


def _is_at(connection: postgres.Connection, asked: dict[str, Any]) -> bool:
    info = connection.info
    there = (info.dbname, info.user, info.host, str(info.port))
    return not _hung_up(connection) and there == tuple(str(asked.get(k)) for k in ("dbname", "user", "host", "port"))


@contextmanager
def looking(uri: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of psycopg's own (autocommit), apart from a run's, for a look or a change that leaves nothing in its session.
    To any database; one that isn't known is connected to anew."""
    if uri not in _idle:
        with psycopg.connect(uri, autocommit=True) as connection:
            yield connection
        return
    mine, thread = _looking.setdefault(uri, {}), threading.get_ident()
    if thread in mine and _hung_up(mine[thread]):
        mine.pop(thread).close()
    if thread not in mine:
        mine[thread] = psycopg.connect(uri, autocommit=True)
    yield mine[thread]


class KeptTarget(Target):
    """A Target that begins with a connection of a run before it, if there is one, and leaves its own to the next."""

    def __init__(self, uri: str, catalog: Catalog, pace: Pace | None = None) -> None:
        super().__init__(lambda: _taken(uri), catalog, pace)
        self._uri = uri

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or connection.closed:
            return
        if self._uri in _idle and connection.info.transaction_status == TransactionStatus.IDLE:
            _idle[self._uri].append(connection)
        else:
            connection.close()


def _taken(uri: str) -> postgres.Connection:
    while _idle.get(uri):
        connection = _idle[uri].pop()
        if not _hung_up(connection):
            return connection
        connection.close()
    return postgres.connect(uri)


def _hung_up(connection: psycopg.Connection[Any]) -> bool:
    return connection.closed or postgres.was_hung_up(connection)
