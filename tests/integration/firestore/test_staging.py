"""Rows staged straight from Firestore's messages compare as the Rows of map_document do, on the real databases."""

from __future__ import annotations

import psycopg

from dev import seed
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Source
from dualwrite.firestore.staging import Stager
from dualwrite.firestore.values import document_of
from dualwrite.model.mapping import Row, map_document, staged
from dualwrite.postgres.target import Target


def test_a_page_of_messages_compares_as_its_rows_do(firestore, emulator, target_dsn):
    """Only the rows that differ are made."""
    world = seed.small()
    world.load_source(firestore)
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        world.load_target(connection)
    short, long = 0, 0
    with (
        Source(firestore.project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(target_dsn), CATALOG) as target,
    ):
        for collection in CATALOG:
            stager = Stager(collection)
            [scan] = scans(collection, None)
            for page in source.pages(scan, 5000):
                rows: list[Row] = []
                mixed = []
                for message in page.messages:
                    straight = stager.stage(len(mixed), message)
                    units = map_document(collection, document_of(message)) or []
                    for row in (unit for unit in units if isinstance(unit, Row)):
                        short, long = (short + 1, long) if straight else (short, long + 1)
                        mixed.append(straight or staged(len(mixed), row))
                        rows.append(row)
                asked = []

                def row_of(n: int, rows: list[Row] = rows, asked: list[int] = asked) -> Row:
                    asked.append(n)
                    return rows[n]

                with target.transaction() as connection:
                    by_message = target.compare_staged(connection, collection, mixed, row_of)
                with target.transaction() as connection:
                    by_row = target.compare(connection, collection, rows)
                assert by_message == by_row
                assert len(asked) == len(by_row.differences) + len(by_row.refused)
    assert short > 10 * long > 0, "entries take the long way, nearly all else the short one"
