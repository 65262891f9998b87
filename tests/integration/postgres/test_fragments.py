"""Statements that are composed and written out once, for all connections of a process."""

from __future__ import annotations

import psycopg

from dualwrite.catalog import CATALOG
from dualwrite.model.declaration import Catalog
from dualwrite.postgres.connection import sql
from dualwrite.postgres.fragments import Fragments, statement
from dualwrite.postgres.lookups import Lookups
from dualwrite.postgres.statements import Statements

POSTS = CATALOG["posts"]


class Accented(Fragments):
    @statement
    def named(self) -> sql.Composed:
        """One column."""
        return sql.SQL("SELECT 1 AS {}").format(sql.Identifier("é"))


def test_each_catalog_and_kind_has_its_own_statements_made_once():
    other = Catalog(CATALOG.collections)
    assert Statements.of(CATALOG, POSTS) is Statements.of(CATALOG, POSTS)
    assert Statements.of(CATALOG, POSTS) is not Statements.of(other, POSTS)
    assert Statements.of(CATALOG, POSTS) is not Statements.of(CATALOG, CATALOG["users"])
    assert isinstance(Lookups.of(CATALOG, POSTS), Lookups)


def test_a_statement_is_written_out_once_in_each_encoding(empty_dsn):
    named = Accented.of(CATALOG, POSTS).named
    for encoding in ("utf-8", "latin1", "utf-8"):
        with psycopg.connect(empty_dsn, client_encoding=encoding) as connection:
            written = named.as_bytes(connection)
            assert written == 'SELECT 1 AS "é"'.encode(encoding)
            assert named.as_bytes(connection) is written
            assert connection.execute(named).description[0].name == "é"
