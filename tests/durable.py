"""Every durable step of our DAGs: what each COMMIT of ours writes, as the server sees it, and a kill before and after it.

Nobody lists commits by hand, or marks them in the code: a proxy sees each one, and asks the server what its transaction has
written. A step that is new is killed at like the others, and fails the test that knows their names.
"""

from __future__ import annotations

import itertools
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from google.cloud import firestore

from dualwrite import migrations, postgres
from tests import faults, in_slices
from tests.databases import clone
from tests.faults import COLLECTIONS
from tests.killing import PROCESSES
from tests.migrating import execute
from tests.support import reconciled
from tests.wire import Broken, Message, wire

SECONDS_TO_END = 120

_BOTH = {
    "looks": "a slice has begun: its look is forgotten by the next run",
    "seen_keys": "the keys of a slice: without a look they are nobody's, and go with it",
    "looks, seen_keys": "what slices saw is forgotten",
    "repair_journal, rows": "rows, each with the journal row that says what it was: the next run confirms them first",
    "interventions": "who made the run write, and at its end how much: a run that is done again replaces its line",
    "repair_journal": "writes are confirmed, or old ones forgotten",
    "runs": "a line of the run log: a task that is done again replaces it",
    "count_baselines, runs, watermarks": "all of a collection was compared: the next run begins here",
}
STEPS: dict[str, dict[str, str]] = {
    "backfill_gap": _BOTH,
    "reconcile_dual_writes": {
        **_BOTH,
        "interventions, repair_journal, runs": "what is older than it is kept is forgotten",
        "runs, watermarks": "all of a collection was compared that has no time to count by",
        "count_baselines, open_differences, runs, watermarks": "what was found is open, and the mark moves with it",
        "open_differences, runs": "what slices found, and second looks: the next run looks again at what is open",
        "open_differences, repair_journal, runs": "differences are closed, with their causes kept beside the writes",
    },
    "apply_migrations": {
        "tables": "the ledger, with the first file and its line",
        "migrations": "a file and its line, in one transaction; of one that runs outside a transaction, that it has begun",
        "CREATE INDEX CONCURRENTLY": "it has run: the next run knows the index, or builds an invalid one again",
        "INSERT INTO dualwrite.migrations": "it has ended",
    },
}
"""By DAG, what its steps write, and what that means to a run after a kill."""


# --- the DAGs, each in one process ---------------------------------------------------------------------------------------
# Collections of more than four documents go through slices, the others don't.


def backfill_gap(project: str, emulator: str, dsn: str, run_id: str) -> None:
    in_slices.gap_and_verification(
        project, emulator, dsn, run_id=run_id, collections=COLLECTIONS, scope="all", slice_documents=4, page_size=2
    )


def reconcile_dual_writes(project: str, emulator: str, dsn: str, run_id: str) -> None:
    reconciled(
        project, emulator, dsn, run_id=run_id, collections=COLLECTIONS, repair="all", liveness_minimum=10**6,
        slice_documents=4, side_by_side=1,
    )  # fmt: skip


def apply_migrations(folder: str, dsn: str, run_id: str) -> None:
    params = migrations.MigrationParams(mode="apply")
    among = [Path(folder)] if folder else None
    migrations.Migrator(lambda: postgres.connect(dsn), params, run_id, among=among).run()


# --- steps ---------------------------------------------------------------------------------------------------------------

_WRITTEN = """
SELECT DISTINCT CASE WHEN l.relation IS NULL THEN 'catalog' ELSE coalesce(n.nspname || '.' || c.relname, 'new') END
FROM pg_stat_activity a
LEFT JOIN pg_locks l ON l.pid = a.pid AND l.granted AND l.locktype = 'relation'
  AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'AccessExclusiveLock')
  AND NOT EXISTS (
    SELECT FROM pg_class c WHERE c.oid = l.relation AND (c.relkind NOT IN ('r', 'p') OR c.relnamespace = 'pg_catalog'::regnamespace)
  )
LEFT JOIN pg_class c ON c.oid = l.relation
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.pid = %s AND a.backend_xid IS NOT NULL
"""
"""The tables that a backend's transaction has written (or holds as if), if it has written anything: none of them, and it was
the catalog. A table that it has made itself has no name for others yet."""


@dataclass(frozen=True)
class Kill:
    """What a step is the last of: `victim` dies `before` the server has it, or when it is done, before the answer."""

    victim: Callable[[], object]
    before: bool


class Steps:
    """Sees each durable step pass, and kills where `kill` says so."""

    def __init__(self, dsn: str, kill: Callable[[Message, str], Kill | None] = lambda *_: None) -> None:
        """`kill` is asked once for each step, with what it writes."""
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._lock = threading.Lock()
        self._kill = kill
        self.names: list[str] = []
        """What each step wrote."""

    def close(self) -> None:
        self._connection.close()

    def sent(self, message: Message) -> None:
        if not (message.commits or (message.alone and _stands_alone(message.text))):
            return
        with self._lock:
            name = self._written_by(message) if message.commits else " ".join(message.text.split()[:3])
            if not name:
                return
            self.names.append(name)
            message.kept = self._kill(message, name)
        if message.kept and message.kept.before:
            self._strike(message)

    def answered(self, message: Message) -> None:
        if message.kept:
            self._strike(message)

    @staticmethod
    def _strike(message: Message) -> None:
        message.kept.victim()
        raise Broken

    def _written_by(self, message: Message) -> str:
        found = {name for (name,) in self._connection.execute(_WRITTEN, (message.backend,))}
        if message.temporary:
            found -= {"new", "catalog"}
        names = {"new": "tables", "catalog": "catalog"}
        own = {names.get(name) or name.removeprefix("dualwrite.") for name in found}
        return ", ".join(sorted({"rows" if "." in name else name for name in own}))


def _stands_alone(text: str) -> bool:
    """Whether a message outside a transaction changes something by itself."""
    return not text.lstrip().upper().startswith(("BEGIN", "SELECT", "SET", "RESET", "SHOW", "ROLLBACK", "WITH", "--"))


@contextmanager
def watched(dsn: str, *kill: Callable[[Message, str], Kill | None]) -> Iterator[tuple[str, Steps]]:
    """The DSN to work with, and the steps that are seen there."""
    with closing(Steps(dsn, *kill)) as steps, wire(dsn, steps.sent, steps.answered) as proxied:
        yield proxied, steps


def names_of(work: Callable[..., None], place: tuple[str, ...], dsn: str, run_id: str) -> list[str]:
    """What each durable step of a whole run writes, in their order."""
    with watched(dsn) as (proxied, steps):
        work(*place, proxied, run_id)
        return list(steps.names)


def killed(work: Callable[..., None], place: tuple[str, ...], dsn: str, run_id: str, *, at: int, before: bool) -> bool:
    """Runs the work in a process of its own, which is killed at its durable step `at`. False: it has fewer, and ended."""
    numbers = itertools.count(1)
    children: list[Any] = []

    def kill(message: Message, name: str) -> Kill | None:
        return Kill(children[0].kill, before) if next(numbers) == at else None

    with watched(dsn, kill) as (proxied, _):
        child = PROCESSES.Process(target=work, args=(*place, proxied, run_id))
        children.append(child)
        child.start()
        child.join(SECONDS_TO_END)
        ended = child.exitcode
        if ended is None:
            child.kill()
            child.join()
        child.close()
    assert ended in (0, -signal.SIGKILL), f"ended with {ended}"
    return ended != 0


# --- what runs leave -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """Where a DAG works: its first arguments, and a database to copy."""

    work: Callable[..., None]
    place: tuple[str, ...]
    server: str
    name: str

    @contextmanager
    def target(self) -> Iterator[str]:
        yield from clone(self.server, self.name)

    def run(self, dsn: str, run_id: str) -> None:
        """A whole run, in this process."""
        self.work(*self.place, dsn, run_id)


@contextmanager
def scenes(emulator: str, server: str, folder: str = "") -> Iterator[dict[str, Scene]]:
    """By DAG. `folder`: the migrations, "" for the bundle's."""
    with (
        closing(firestore.Client(project=f"t{uuid.uuid4().hex[:12]}")) as client,
        faults.broken(client, emulator, server) as broken,
    ):
        execute(  # what a run prunes
            f"{server.rsplit('/', 1)[0]}/{broken.name}",
            "INSERT INTO dualwrite.repair_journal (run_id, collection, key, action, table_name, row_key, written_at, confirmed_at) "
            "VALUES ('old', 'posts', 'old', 'insert', 'posts', '[\"old\"]', now() - interval '60 days', now())",
            "INSERT INTO dualwrite.runs (dag_id, run_id, collection, phase, scope, mode, outcome, started_at, seconds, "
            "documents_read, billed_reads, examined, counts, inserted, updated, deleted, recorded_at) VALUES "
            "('reconcile_dual_writes', 'old', 'posts', 'compare', 'recent', 'off', 'examined', now(), 0, 0, 0, 0, '{}', 0, 0, 0, "
            "now() - interval '1000 days')",
        )
        place = (client.project, emulator)
        yield {
            "backfill_gap": Scene(backfill_gap, place, server, broken.name),
            "reconcile_dual_writes": Scene(reconcile_dual_writes, place, server, broken.name),
            "apply_migrations": Scene(apply_migrations, (folder,), server, "phase1"),
        }


_OURS = f"collection = ANY ('{{{','.join(COLLECTIONS)}}}')"
"""In a running Airflow a scheduled run may look at others meanwhile."""
_STATE = {
    "open": "SELECT collection, key, path, verdict, cause, reason, columns, excused_by FROM dualwrite.open_differences",
    "journal": "SELECT collection, key, action, confirmed_at IS NOT NULL FROM dualwrite.repair_journal",
    "marks": f"SELECT collection, swept_at > now() - interval '1 hour' FROM dualwrite.watermarks WHERE {_OURS}",
    "old": "SELECT run_id FROM dualwrite.runs WHERE run_id = 'old'",
    "seen": "SELECT look::text FROM dualwrite.seen_keys UNION ALL SELECT id::text FROM dualwrite.looks",
    "counts": f"SELECT collection, field, untimed, sweep_due, stray FROM dualwrite.count_baselines WHERE {_OURS}",
    "migrations": "SELECT version, name, sha256, applied_at IS NOT NULL FROM dualwrite.migrations",
}
_CATALOG = (
    "SELECT c.oid::regclass::text, c.relkind, i.indisvalid FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid "
    "WHERE c.relnamespace = 'public'::regnamespace"
)


def state(dsn: str) -> dict[str, list[Any]]:
    """All that a run leaves but times and the run's id: the journal says that each row was written once."""
    with psycopg.connect(dsn) as connection:
        there = connection.execute("SELECT to_regclass('dualwrite.repair_journal')").fetchone() != (None,)
        queries = _STATE if there else {"migrations": _STATE["migrations"]}
        found = {name: connection.execute(query).fetchall() for name, query in {**queries, "catalog": _CATALOG}.items()}
    return {**{name: sorted(map(str, lines)) for name, lines in found.items()}, **(faults.rows(dsn) if there else {})}


def versions(dsn: str) -> list[Any]:
    """The versions of all rows of the app's, and of the journal and the ledger: a write of any changes one."""
    with psycopg.connect(dsn) as connection:
        tables = [*COLLECTIONS, "dualwrite.repair_journal", "dualwrite.migrations"]
        there = [t for t in tables if connection.execute("SELECT to_regclass(%s)", (t,)).fetchone() != (None,)]
        return [connection.execute(f"SELECT ctid, xmin FROM {t} ORDER BY 1").fetchall() for t in there]


def writes_nothing(scene: Scene, dsn: str, run_id: str) -> None:
    """Runs once more, which must find nothing to do."""
    before = versions(dsn)
    scene.run(dsn, run_id)
    assert versions(dsn) == before, "the second run after the kill wrote something"
