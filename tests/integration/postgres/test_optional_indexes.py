"""sql/optional/written_between_indexes.sql: it can be run, twice too, and is what the query of a window uses."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.postgres.lookups import Lookups
from tests.conftest import ROOT

FILE = ROOT / "sql/optional/written_between_indexes.sql"


@pytest.mark.parametrize("name", ["posts", "comments", "replies", "likes", "reactions", "notifications"])
def test_a_windows_rows_are_found_without_reading_the_table(target_dsn, name):
    collection = CATALOG[name]
    window = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2026, 1, 2, tzinfo=UTC)}
    explain = psycopg.sql.SQL("EXPLAIN ") + Lookups(CATALOG, collection).written_between

    def plan(connection: psycopg.Connection) -> str:
        return "\n".join(line for (line,) in connection.execute(explain, window))

    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")  # the table is empty: whether an index can serve is the question
        assert "Index Scan" not in plan(connection)
        for _ in range(2):
            for statement in FILE.read_text().split(";\n"):
                if statement.strip():
                    connection.execute(statement)
        assert "Seq Scan" not in plan(connection)
        for column in collection.written_columns:
            assert f"{collection.table}_{column}" in plan(connection)
