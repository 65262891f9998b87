"""Through a transaction-mode pooler, under a plain role, and on Postgres 15."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dev import seed
from dualwrite.catalog import CATALOG
from tests.databases import clone
from tests.migrating import transaction_pooler
from tests.support import apply, examine_all, gap_run, nonzero, verify_all


@pytest.fixture
def world(firestore):
    small = seed.small()
    small.load_source(firestore)
    return small


def _load(world: seed.World, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        world.load_target(connection)


def _gap_is_closed(world: seed.World, project: str, emulator: str, dsn: str) -> None:
    with gap_run(project, emulator, dsn, page_size=50) as run:
        found = examine_all(run, dry=False)
        checked = verify_all(run)
    assert {n: nonzero(r["counts"]) for n, r in found.items()} == {n: dict(world.in_window[n]) for n in CATALOG.names}
    for name, check in checked.items():
        assert {v for v, n in check["counts"].items() if n} <= {"matching", "orphan", "duplicate", "rejected"}, name
    again = apply(project, emulator, dsn)
    assert sum(r["inserted"] + r["updated"] for r in again.values()) == 0


@pytest.fixture
def pooled_dsn(target_dsn: str, tmp_path: Path) -> Iterator[str]:
    """The same database behind a real PgBouncer in transaction mode, with fewer server connections than we open."""
    with transaction_pooler(target_dsn, tmp_path) as dsn:
        yield dsn


def test_through_a_transaction_mode_pooler(world, firestore, emulator, target_dsn, pooled_dsn):
    _load(world, target_dsn)
    _gap_is_closed(world, firestore.project, emulator, pooled_dsn)


def test_on_postgres_15(world, firestore, emulator, postgres15_server):
    for dsn in clone(postgres15_server, "migrated"):
        _load(world, dsn)
        _gap_is_closed(world, firestore.project, emulator, dsn)


def test_under_a_role_that_is_no_superuser(world, firestore, emulator, target_dsn):
    """Supabase's own server role: it bypasses row-level security and owns nothing."""
    _load(world, target_dsn)
    with psycopg.connect(target_dsn) as connection:
        connection.execute("DROP ROLE IF EXISTS mover")
        connection.execute("CREATE ROLE mover LOGIN BYPASSRLS")
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, dualwrite TO mover")
        connection.execute("GRANT USAGE ON SCHEMA dualwrite TO mover")
    try:
        _gap_is_closed(world, firestore.project, emulator, target_dsn.replace("postgres@", "mover@"))
    finally:
        with psycopg.connect(target_dsn) as connection:
            connection.execute("DROP OWNED BY mover")
            connection.execute("DROP ROLE mover")
