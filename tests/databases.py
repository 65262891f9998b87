"""Databases for tests: copies of a template that tests have one after another, restored after each instead of dropped.

To copy and drop one costs Postgres 23 ms of CPU, and the first reconciliation on it costs 100 ms more than the next one, since
each connection learns its catalogs anew. A copy whose schema a test has changed, or that somebody is still connected to, is
dropped; and so is each after `MOST_TESTS`, since dead rows stay in its catalogs.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from tests.kept import forget, keep_open, kept, let_go, looking

_numbers = itertools.count(1)
MOST_TESTS = 16
"""How many tests have one copy."""
LEAVING_SECONDS = 0.1
"""How long a session that a test has closed may take to end."""
CHANGED_BY_EACH = ("phase1", "template1")
"""Templates whose copies each test gives another schema."""

_CATALOGS = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
AND relname !~ '^pg_(am|amop|amproc|opclass|opfamily|ts_.*|conversion|depend|statistic|init_privs|range|transform)$' ORDER BY relname
"""
"""Those that a test may change, without what follows from another's row, or from ANALYZE."""
_OURS = {
    "pg_namespace": "WHERE nspname !~ '^pg_(toast_)?temp_'",  # a session's own, which outlives its temporary tables
    "pg_description": "WHERE objoid >= 16384",  # by its index
}
_TABLES = """
SELECT c.oid::regclass::text, array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.oid >= 16384 GROUP BY c.oid
"""
_SEQUENCES = "SELECT seqrelid::regclass::text FROM pg_catalog.pg_sequence"
_OF_THE_DATABASE = """
SELECT count(*), 0 FROM pg_catalog.pg_db_role_setting
WHERE setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
UNION ALL
SELECT count(datacl), 0 FROM pg_catalog.pg_database WHERE datname = current_database()
"""
_OTHERS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> ALL(%s)
"""


@dataclass(frozen=True)
class Content:
    """A template's rows and the state of its sequences, as a new copy of it holds them."""

    rows: dict[str, tuple[list[str], bytes]]
    """By table: its columns, and its rows in COPY's binary format."""
    reset: Composed
    """Empties each table and sets each sequence."""
    schema: list[tuple[int, int]]
    """Of each catalog: its number of rows, and how many of them are younger. A change, a new row and a dropped one alter it."""
    ask_schema: str

    @classmethod
    def of(cls, connection: psycopg.Connection) -> Content:
        tables = connection.execute(_TABLES).fetchall()
        rows = {}
        for table, columns in tables:
            listed = SQL(", ").join(map(Identifier, columns))
            if connection.execute(SQL("SELECT EXISTS (SELECT FROM {})").format(SQL(table))).fetchone() == (True,):
                with connection.cursor().copy(
                    SQL("COPY {} ({}) TO STDOUT (FORMAT binary)").format(SQL(table), listed)
                ) as copy:
                    rows[table] = (columns, b"".join(bytes(block) for block in copy))
        reset = [SQL("DELETE FROM {}").format(SQL(table)) for table, _ in tables]
        for (sequence,) in connection.execute(_SEQUENCES).fetchall():
            state = connection.execute(SQL("SELECT last_value, is_called FROM {}").format(SQL(sequence))).fetchone()
            assert state is not None
            reset.append(SQL("SELECT setval({}, {}, {})").format(Literal(sequence), *map(Literal, state)))
        (now,) = connection.execute("SELECT pg_current_xact_id()::xid").fetchone() or ()
        ask = " UNION ALL ".join(
            f"SELECT count(*), count(*) FILTER (WHERE age(xmin) < age('{now}'::xid)) FROM pg_catalog.{name} {_OURS.get(name, '')}"
            for (name,) in connection.execute(_CATALOGS).fetchall()
        )
        ask_schema = f"{ask} UNION ALL {_OF_THE_DATABASE}"
        return cls(rows, SQL("; ").join(reset), connection.execute(ask_schema).fetchall(), ask_schema)

    def schema_of(self, connection: psycopg.Connection) -> list[tuple[int, int]]:
        return connection.execute(self.ask_schema).fetchall()

    def write(self, connection: psycopg.Connection) -> None:
        """Makes the rows of a copy these."""
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")  # no trigger, no foreign key
            connection.execute(self.reset)
            for table, (columns, rows) in self.rows.items():
                listed = SQL(", ").join(map(Identifier, columns))
                with connection.cursor().copy(
                    SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(SQL(table), listed)
                ) as copy:
                    copy.write(rows)


@dataclass
class Copy:
    """One database, for one test after another."""

    server: str
    name: str
    content: Content | None
    """None: it serves one test only."""
    tests: int = 0

    @property
    def uri(self) -> str:
        return database(self.server, self.name)

    def restored(self) -> bool:
        """Brings the template's rows back. False if it can't serve another test."""
        self.tests += 1
        if self.content is None or self.tests >= MOST_TESTS:
            return False
        try:
            with looking(self.uri) as connection:
                if self._in_use(connection) or self.content.schema_of(connection) != self.content.schema:
                    return False
                self.content.write(connection)
        except psycopg.OperationalError:  # a test's fault still holds
            return False
        return True

    def _in_use(self, connection: psycopg.Connection) -> bool:
        until = time.monotonic() + LEAVING_SECONDS
        while connection.execute(_OTHERS, [kept(self.uri)]).fetchone() != (0,):
            if time.monotonic() > until:
                return True
            time.sleep(0.005)
        return False

    def drop(self) -> None:
        let_go(self.uri)
        _administrator(self.server).execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


_administrators: dict[str, psycopg.Connection] = {}
"""A connection to each server that stays open: two for each test's database took a third of what making it takes."""
_free: dict[tuple[str, str], list[Copy]] = {}
"""By server and template: copies that no test has."""
_lent: dict[str, Copy] = {}
"""By URI: copies that a test has."""
_contents: dict[tuple[str, str], Content] = {}
"""By server and template: the rows and schema of a new copy."""


def database(server: str, name: str) -> str:
    """The URI of a database on a server."""
    return server.rsplit("/", 1)[0] + "/" + name


def _administrator(server: str) -> psycopg.Connection:
    if server not in _administrators or _administrators[server].closed:
        _administrators[server] = psycopg.connect(server, autocommit=True)
    return _administrators[server]


@contextmanager
def administrated(server: str) -> Iterator[str]:
    """Drops the copies that no test has, and closes each connection before a server ends: it would wait for it, for ten seconds."""
    try:
        yield server
    finally:
        for of in [of for of in _free if of[0] == server]:
            for copy in _free.pop(of):
                copy.drop()
        for of in [of for of in _contents if of[0] == server]:  # the next server may have its port
            del _contents[of]
        if server in _administrators:
            _administrators.pop(server).close()


def clone(server: str, template: str) -> Generator[str, None, None]:
    """Yields the URI of a copy of a template, nobody else's until the generator ends."""
    of = (server, template)
    copy = _free[of].pop() if _free.get(of) else _made(server, template)
    _lent[copy.uri] = copy
    try:
        yield copy.uri
    finally:
        del _lent[copy.uri]
        if copy.restored():
            _free.setdefault(of, []).append(copy)
        else:
            copy.drop()
        for made in _free.pop((server, copy.name), ()):  # it was a template itself
            made.drop()
        _contents.pop((server, copy.name), None)


def _made(server: str, template: str) -> Copy:
    name = f"t{next(_numbers)}_{os.getpid()}"
    connection = _administrator(server)
    origin = database(server, template)
    forget(origin)  # Postgres copies no database that anyone is connected to
    if origin in _lent:
        _lent[origin].content = None  # it is a template of its own now
    # Copying files is quicker than logging pages where nothing is synced; quicker yet where the kernel does it.
    if connection.info.server_version >= 18_00_00:
        connection.execute("SET file_copy_method = clone")
    connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    keep_open(database(server, name))
    if template in CHANGED_BY_EACH:
        return Copy(server, name, None)
    if (server, template) not in _contents:
        with looking(database(server, name)) as made:
            _contents[server, template] = Content.of(made)
    return Copy(server, name, _contents[server, template])
