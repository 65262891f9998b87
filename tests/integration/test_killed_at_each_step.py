"""SIGKILL before and after each durable step of each DAG: run again, it ends as if nobody had killed it, and a run after that
writes nothing. The steps are found by a proxy, not listed: see tests/durable.py."""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
import pytest
from google.cloud import firestore as firestore_library

from tests import durable, faults
from tests.conftest import clone
from tests.durable import STEPS
from tests.faults import COLLECTIONS
from tests.migrating import NO_TRANSACTION, execute, write

dags = pytest.mark.parametrize("dag", STEPS)


@dataclass(frozen=True)
class Scene:
    """Where a DAG works: its first arguments, and a database to copy."""

    work: Callable[..., None]
    place: tuple[str, ...]
    server: str
    name: str

    def target(self):
        return contextmanager(clone)(self.server, self.name)


@pytest.fixture(scope="module")
def scenes(emulator, postgres_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("migrations")
    write(
        folder,
        "CREATE TABLE t1 (a INT);\nINSERT INTO t1 VALUES (1);\n",
        "GRANT SELECT ON t1 TO anon;\n",
        f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY t1_a ON t1 (a);\n",
    )
    with (
        closing(firestore_library.Client(project=f"t{uuid.uuid4().hex[:12]}")) as client,
        faults.broken(client, emulator, postgres_server) as broken,
    ):
        uri = f"{postgres_server.rsplit('/', 1)[0]}/{broken.name}"
        execute(  # what a run prunes
            uri,
            "INSERT INTO dualwrite.repair_journal (run_id, collection, key, action, table_name, row_key, written_at, confirmed_at) "
            "VALUES ('old', 'posts', 'old', 'insert', 'posts', '[\"old\"]', now() - interval '60 days', now())",
            "INSERT INTO dualwrite.runs (dag_id, run_id, collection, phase, scope, mode, outcome, started_at, seconds, "
            "documents_read, billed_reads, examined, counts, inserted, updated, deleted, recorded_at) VALUES "
            "('reconcile_dual_writes', 'old', 'posts', 'compare', 'recent', 'off', 'examined', now(), 0, 0, 0, 0, '{}', 0, 0, 0, "
            "now() - interval '1000 days')",
        )
        place = (client.project, emulator)
        yield {
            "backfill_gap": Scene(durable.backfill_gap, place, postgres_server, broken.name),
            "reconcile_dual_writes": Scene(durable.reconcile_dual_writes, place, postgres_server, broken.name),
            "apply_migrations": Scene(durable.apply_migrations, (str(folder),), postgres_server, "phase1"),
        }


_STATE = {
    "open": "SELECT collection, key, path, verdict, cause, reason, columns, excused_by FROM dualwrite.open_differences",
    "journal": "SELECT collection, key, action, confirmed_at IS NOT NULL FROM dualwrite.repair_journal",
    "marks": "SELECT collection, swept_at > now() - interval '1 hour' FROM dualwrite.watermarks",
    "old": "SELECT run_id FROM dualwrite.runs WHERE run_id = 'old'",
    "seen": "SELECT look::text FROM dualwrite.seen_keys UNION ALL SELECT id::text FROM dualwrite.looks",
    "counts": "SELECT collection, field, untimed, sweep_due, stray FROM dualwrite.count_baselines",
    "migrations": "SELECT version, name, sha256, applied_at IS NOT NULL FROM dualwrite.migrations",
}
_CATALOG = (
    "SELECT c.oid::regclass::text, c.relkind, i.indisvalid FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid "
    "WHERE c.relnamespace = 'public'::regnamespace"
)


def _state(dsn: str) -> dict[str, list[Any]]:
    """All that a run leaves but times and the run's id: the journal says that each row was written once."""
    with psycopg.connect(dsn) as connection:
        there = connection.execute("SELECT to_regclass('dualwrite.repair_journal')").fetchone() != (None,)
        queries = _STATE if there else {"migrations": _STATE["migrations"]}
        found = {name: connection.execute(query).fetchall() for name, query in {**queries, "catalog": _CATALOG}.items()}
    return {**{name: sorted(map(str, lines)) for name, lines in found.items()}, **(faults.rows(dsn) if there else {})}


def _versions(dsn: str) -> list[Any]:
    """The versions of all rows of the app's, and of the journal and the ledger: a write of any changes one."""
    with psycopg.connect(dsn) as connection:
        tables = [*COLLECTIONS, "dualwrite.repair_journal", "dualwrite.migrations"]
        there = [t for t in tables if connection.execute("SELECT to_regclass(%s)", (t,)).fetchone() != (None,)]
        return [connection.execute(f"SELECT ctid, xmin FROM {t} ORDER BY 1").fetchall() for t in there]


@pytest.fixture(scope="module")
def clean(scenes):
    """For a DAG, the steps of a run that nobody kills, and what it and a second one leave."""

    @cache
    def of(dag: str) -> tuple[list[str], dict[str, list[Any]]]:
        scene = scenes[dag]
        with scene.target() as dsn:
            steps = durable.names_of(scene.work, scene.place, dsn, "first")
            scene.work(*scene.place, dsn, "second")
            return steps, _state(dsn)

    return of


def _killed_and_run_again(scene: Scene, right: dict[str, list[Any]], at: int, *, before: bool, retried: bool) -> bool:
    """`retried`: the next run has the same id, as a task that Airflow starts again. False: there is no such step."""
    with scene.target() as dsn:
        there = durable.killed(scene.work, scene.place, dsn, "first", at=at, before=before)
        scene.work(*scene.place, dsn, "first" if retried else "second")
        versions = _versions(dsn)
        scene.work(*scene.place, dsn, "third")
        assert _versions(dsn) == versions, "the second run after the kill wrote something"
        assert _state(dsn) == right
        return there


@dags
def test_each_durable_step_is_known_by_what_it_writes(clean, dag):
    """A step that is new, or gone, changes what a killed run leaves: say in STEPS what the next run makes of it."""
    steps, _ = clean(dag)
    assert set(steps) == set(STEPS[dag])


@dags
def test_killed_at_a_durable_step_and_run_again_twice(scenes, clean, dag):
    steps, right = clean(dag)
    at, before, retried = random.randint(1, len(steps)), random.random() < 0.5, random.random() < 0.5
    sys.stdout.write(f"\nat {at} of {len(steps)}, {steps[at - 1]}, {before=}, {retried=}\n")
    assert _killed_and_run_again(scenes[dag], right, at, before=before, retried=retried)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@dags
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_durable_step_and_run_again_twice(scenes, clean, dag, before):
    steps, right = clean(dag)
    for at, name in enumerate(steps, 1):
        sys.stdout.write(f"step {at}, {name}\n")
        assert _killed_and_run_again(scenes[dag], right, at, before=before, retried=at % 2 == 0)
