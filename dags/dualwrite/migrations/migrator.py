"""Applies sql/migrations to the target: planning apart from applying, each file and its ledger row in one transaction.

Interleavings considered:

1. Two runs at once: each file's transaction takes a transaction-level advisory lock (polled, so that it fits a
   transaction pooler) and reads the ledger again under it; the slower run finds the file applied and goes on.
2. Killed at any line: a transactional file is there with its ledger row, or neither is. A file outside a transaction
   leaves a row without applied_at before it starts; the next run finishes it (an invalid index of ours is dropped and
   built again).
3. The app holds a table: lock_timeout makes us give way instead of queueing everybody behind us; we try again with
   back-off until wait_for_lock, then fail with who held the lock.
4. The Supabase CLI applied a file: its history counts, and is never written.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dualwrite import postgres
from dualwrite.migrations import snapshot as schema_snapshot
from dualwrite.migrations.files import MigrationFile, Statement, read_folder, split
from dualwrite.model import parameters
from dualwrite.model.errors import DualWriteError, MigrationError, ParameterError
from dualwrite.model.render import Block, Heading, Items, Paragraph, Table
from dualwrite.postgres import Connection, errors

log = logging.getLogger(__name__)

SQL = Path(__file__).resolve().parents[3] / "sql"
DAG_ID = "apply_migrations"
MODES = ("dry_run", "apply")
WEB_CLIENT = ("leave", "closed", "anon")
PARAMETERS = ("mode", "web_client", "lock_timeout", "wait_for_lock", "target_version")

_LOCK_KEY = 7_305_148_912_604_431  # any constant: this bundle's migrations
_POLL_SECONDS = 0.25

_LEDGER = (
    "CREATE SCHEMA IF NOT EXISTS dualwrite",
    "CREATE TABLE IF NOT EXISTS dualwrite.migrations (version TEXT PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, "
    "applied_at TIMESTAMPTZ DEFAULT NOW(), applied_by TEXT NOT NULL DEFAULT CURRENT_USER, run_id TEXT)",
)


@dataclass(frozen=True, slots=True)
class MigrationParams:
    """The parameters of one run, checked. Durations in seconds."""

    mode: str = "dry_run"
    web_client: str = "leave"
    lock_timeout: float = 1.0
    wait_for_lock: float = 60.0
    target_version: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One file and where it stands: applied, applied_by_supabase, interrupted, pending, beyond_target, or refused."""

    version: str
    name: str
    state: str
    reason: str | None = None
    transactional: bool = True

    def as_json(self) -> dict[str, Any]:
        return {"version": self.version, "name": self.name, "state": self.state, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the target says was applied: version -> (name, sha256, finished), and the versions of Supabase's CLI."""

    ours: Mapping[str, tuple[str, str, bool]]
    supabase: frozenset[str]


def parse(given: Mapping[str, Any], known: Sequence[str] = PARAMETERS) -> MigrationParams:
    """Checks the parameters of a run. Raises ParameterError with the first fault."""
    parameters.refuse_unknown(given, known)
    mode = parameters.choice(given, "mode", MODES)
    web_client = parameters.choice(given, "web_client", WEB_CLIENT)
    lock_timeout = parameters.number(given, "lock_timeout", 0.05, 60)
    wait_for_lock = parameters.number(given, "wait_for_lock", 0, 3600)
    version = given.get("target_version") or None
    if version is not None and not re.fullmatch(r"\d{14}", str(version)):
        raise ParameterError(f"A version has 14 digits: target_version is {version!r}. Correct it.")
    return MigrationParams(mode, web_client, lock_timeout, wait_for_lock, version)


# --- planning -----------------------------------------------------------------------------------------------------


def read_ledger(connection: Connection) -> Ledger:
    ours: dict[str, tuple[str, str, bool]] = {}
    if _exists(connection, "dualwrite.migrations"):
        for version, name, sha256, finished in connection.execute(
            "SELECT version, name, sha256, applied_at IS NOT NULL FROM dualwrite.migrations"
        ):
            ours[version] = (name, sha256, finished)
    supabase: frozenset[str] = frozenset()
    if _exists(connection, "supabase_migrations.schema_migrations"):
        supabase = frozenset(
            v for (v,) in connection.execute("SELECT version FROM supabase_migrations.schema_migrations")
        )
    return Ledger(ours, supabase)


def _exists(connection: Connection, name: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return bool(row and row[0])


def plan(
    files: Sequence[MigrationFile], ledger: Ledger, exists: Callable[[str], bool], target: str | None
) -> list[Step]:
    """Where each file stands. Pure but for `exists`, which says whether the target has an object of a name."""
    if target is not None and target not in {f.version for f in files}:
        raise ParameterError(
            f"A target version is one of the files': {target} is not. Versions: {', '.join(f.version for f in files)}."
        )
    steps = []
    done = [f.version for f in files if f.version in ledger.ours or f.version in ledger.supabase]
    last = max(done, default="")
    for file in files:
        step = Step(file.version, file.name, "pending", transactional=file.transactional)
        if file.version in ledger.ours:
            _, sha256, finished = ledger.ours[file.version]
            if sha256 != file.sha256:
                reason = (
                    "the file has changed since it was applied (sha256). Restore it as it was, and put the change into "
                    "a new migration"
                )
                step = replace(step, state="refused", reason=reason)
            else:
                step = replace(step, state="applied" if finished else "interrupted")
        elif file.version in ledger.supabase:
            step = replace(step, state="applied_by_supabase")
        elif target is not None and file.version > target:
            step = replace(step, state="beyond_target")
        elif file.version < last:
            reason = f"it is older than {last}, which is applied already. Give it a newer version"
            step = replace(step, state="refused", reason=reason)
        elif found := [f"{kind} {name}" for kind, name in file.creates if exists(name)]:
            reason = (
                f"{', '.join(found)} exists and stands in no ledger. If it is what this file makes, record it with "
                f"`supabase migration repair --status applied {file.version}`; if not, rename or drop it"
            )
            step = replace(step, state="refused", reason=reason)
        steps.append(step)
    on_disk = {f.version for f in files}
    for version, (name, _, _) in sorted(ledger.ours.items()):
        if version not in on_disk:
            reason = "it was applied and its file has vanished. Restore the file from the repository's history"
            steps.append(Step(version, name, "refused", reason))
    return sorted(steps, key=lambda s: s.version)


def make_plan(connection: Connection, params: MigrationParams, folder: Path = SQL / "migrations") -> list[Step]:
    """Reads files and ledger and compares them. Writes nothing."""
    files = read_folder(folder)
    with postgres.transaction(connection, read_only=True):
        ledger = read_ledger(connection)
        return plan(files, ledger, lambda name: _exists(connection, name), params.target_version)


# --- applying -----------------------------------------------------------------------------------------------------


class Migrator:
    """Applies migrations over connections that `connect` makes. `checkpoint` is told each step, for logs and tests."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        params: MigrationParams,
        run_id: str,
        *,
        folder: Path = SQL / "migrations",
        optional: Path = SQL / "optional",
        checkpoint: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._connect = connect
        self._params = params
        self._run_id = run_id
        self._folder = folder
        self._optional = optional
        self._checkpoint = checkpoint

    def run(self) -> list[Step]:
        """Dry run or apply, as the params say. Returns the steps as they stand afterwards (in a dry run: as they would).

        Raises MigrationError before anything runs where a file is refused, and at the first file that fails; what was
        applied before it is kept, everything of it is rolled back.
        """
        files = {f.version: f for f in read_folder(self._folder)}
        with self._connect() as connection:
            steps = make_plan(connection, self._params, self._folder)
            refused = [s for s in steps if s.state == "refused"]
            if refused:
                raise MigrationError(
                    "Nothing is applied while a migration is refused:\n"
                    + "\n".join(f"- {s.version}_{s.name}: {s.reason}." for s in refused)
                )
            if self._params.mode == "dry_run":
                self._dry_run(connection, [files[s.version] for s in steps if s.state == "pending"])
                return steps
            return [self._apply(connection, step, files) for step in steps]

    def _dry_run(self, connection: Connection, pending: Sequence[MigrationFile]) -> None:
        """Executes all pending transactional files in one transaction and rolls it back. It holds their locks for that
        moment, as an apply would."""
        transactional = [f for f in pending if f.transactional]
        optional = self._optional_file()
        if not transactional and optional is None:
            return
        with self._waiting("dry run") as attempts:
            for attempt in attempts:
                with attempt, connection.transaction(force_rollback=True):
                    self._settings(connection)
                    for file in transactional:
                        self._execute_all(connection, file.path.name, file.statements)
                    if optional is not None:
                        self._execute_all(connection, optional[0], optional[1])

    def _apply(self, connection: Connection, step: Step, files: Mapping[str, MigrationFile]) -> Step:
        if step.state not in ("pending", "interrupted"):
            return step
        file = files[step.version]
        if file.transactional:
            self._apply_in_transaction(connection, file)
        else:
            self._apply_outside(connection, file)
        return replace(step, state="applied")

    def _apply_in_transaction(self, connection: Connection, file: MigrationFile) -> None:
        with self._waiting(file.path.name) as attempts:
            for attempt in attempts:
                with attempt, connection.transaction():
                    self._settings(connection)
                    self._lock_out_others(connection)
                    self._checkpoint(f"locked {file.version}")
                    if self._is_applied(connection, file):
                        return
                    for statement in _LEDGER:
                        self._execute(connection, "the ledger dualwrite.migrations", Statement(1, statement))
                    self._execute_all(connection, file.path.name, file.statements)
                    self._checkpoint(f"executed {file.version}")
                    self._record(connection, file)
                    self._checkpoint(f"recorded {file.version}")
        self._checkpoint(f"committed {file.version}")
        log.info("%s applied", file.path.name)

    def _apply_outside(self, connection: Connection, file: MigrationFile) -> None:
        """One statement that Postgres refuses inside a transaction (CREATE INDEX CONCURRENTLY).

        The advisory lock lives in a transaction of another connection meanwhile; idle, it holds no snapshot that the
        index build would wait for.
        """
        [statement] = file.statements
        with self._waiting(file.path.name) as attempts, self._connect() as guard:
            for attempt in attempts:
                with attempt, guard.transaction():
                    self._lock_out_others(guard)
                    if self._is_applied(connection, file):
                        return
                    with connection.transaction():
                        for made in _LEDGER:
                            self._execute(connection, "the ledger dualwrite.migrations", Statement(1, made))
                        connection.execute(
                            "INSERT INTO dualwrite.migrations (version, name, sha256, applied_at, run_id) "
                            "VALUES (%s, %s, %s, NULL, %s) ON CONFLICT (version) DO NOTHING",
                            (file.version, file.name, file.sha256, self._run_id),
                        )
                    self._checkpoint(f"begun {file.version}")
                    if not self._index_is_there(connection, statement):
                        self._execute(connection, file.path.name, statement)
                    self._checkpoint(f"executed {file.version}")
                    connection.execute(
                        "UPDATE dualwrite.migrations SET applied_at = now(), run_id = %s WHERE version = %s",
                        (self._run_id, file.version),
                    )
        self._checkpoint(f"committed {file.version}")
        log.info("%s applied", file.path.name)

    def _index_is_there(self, connection: Connection, statement: Statement) -> bool:
        """Whether an interrupted run of ours built the index already. A half-built one of ours is dropped."""
        matched = re.match(
            r"create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?([\w.\"]+)", statement.text, re.I
        )
        if matched is None:
            return False
        row = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (matched[1],)
        ).fetchone()
        if row is None or row[0]:
            return row is not None
        connection.execute(
            postgres.sql.SQL("DROP INDEX CONCURRENTLY {}").format(
                postgres.sql.Identifier(*matched[1].replace('"', "").split("."))
            )
        )
        return False

    def set_web_client(self) -> None:
        """Opens or closes drafts and reviews to the web client, as the params say; the file is fit to be run again."""
        optional = self._optional_file()
        if optional is None or self._params.mode == "dry_run":
            return
        name, statements = optional
        with self._connect() as connection, self._waiting(name) as attempts:
            for attempt in attempts:
                with attempt, connection.transaction():
                    self._settings(connection)
                    self._lock_out_others(connection)
                    self._execute_all(connection, name, statements)

    def _optional_file(self) -> tuple[str, Sequence[Statement]] | None:
        if self._params.web_client == "leave":
            return None
        path = self._optional / f"web_client_{self._params.web_client}.sql"
        return path.name, split(path.read_text(encoding="utf-8"), path.name)

    # --- locks ------------------------------------------------------------------------------------------------------

    def _settings(self, connection: Connection) -> None:
        connection.execute(
            "SELECT set_config('lock_timeout', %s, true)", (f"{int(self._params.lock_timeout * 1000)}ms",)
        )
        connection.execute("SELECT set_config('statement_timeout', '0', true)")

    def _lock_out_others(self, connection: Connection) -> None:
        """Raises _AnotherRun while another run of ours is at work; the caller rolls back and tries again."""
        # Without a parameter, on purpose: with one, the portal of the extended protocol would keep its snapshot, and an
        # index built concurrently would wait for this idle transaction for ever.
        row = connection.execute(f"SELECT pg_try_advisory_xact_lock({_LOCK_KEY})").fetchone()
        if row is None or not row[0]:
            raise _AnotherRun

    @contextmanager
    def _waiting(self, what: str) -> Iterator[Iterator[_Attempt]]:
        """Attempts until one succeeds, with back-off, for at most wait_for_lock seconds; each in a fresh transaction."""
        with _Watcher(self._connect) as watcher:
            yield self._attempts(what, watcher)

    def _attempts(self, what: str, watcher: _Watcher) -> Iterator[_Attempt]:
        deadline = time.monotonic() + self._params.wait_for_lock
        pause = _POLL_SECONDS
        self._watcher = watcher
        while True:
            attempt = _Attempt(what)
            yield attempt
            if attempt.succeeded:
                return
            if time.monotonic() + pause > deadline:
                holder = watcher.holder()
                raise MigrationError(
                    f"A migration gives way to whoever holds its locks: {what} got none within "
                    f"{self._params.wait_for_lock:g} s. {holder or attempt.why} End that session, or run again with a "
                    "longer wait_for_lock."
                ) from None
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 1.5, 5.0)

    # --- statements -------------------------------------------------------------------------------------------------

    def _execute_all(self, connection: Connection, name: str, statements: Sequence[Statement]) -> None:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        self._watcher.watch(row[0] if row else 0)
        for statement in statements:
            self._execute(connection, name, statement)

    def _execute(self, connection: Connection, name: str, statement: Statement) -> None:
        try:
            connection.execute(statement.text)
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            raise
        except postgres.Error as error:
            position = int(error.diag.statement_position or 1)
            line = statement.line + statement.text.count("\n", 0, position - 1)
            first = statement.text.splitlines()[0][:80]
            raise MigrationError(
                f"{name}, line {line}: {error.diag.message_primary or type(error).__name__} ({error.sqlstate}), in the "
                f"statement `{first}`. Everything of this file was rolled back; correct it and run again."
            ) from None

    def _is_applied(self, connection: Connection, file: MigrationFile) -> bool:
        """Under the lock: another run may have been faster."""
        found = read_ledger(connection).ours.get(file.version)
        return found is not None and found[2]

    def _record(self, connection: Connection, file: MigrationFile) -> None:
        connection.execute(
            "INSERT INTO dualwrite.migrations (version, name, sha256, run_id) VALUES (%s, %s, %s, %s)",
            (file.version, file.name, file.sha256, self._run_id),
        )


class _AnotherRun(Exception):
    """Another run of ours holds the advisory lock."""


class _Attempt:
    """One try. Swallows what another try may cure, and remembers why."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.succeeded = False
        self.why = ""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        self.succeeded = error is None
        if isinstance(error, _AnotherRun):
            self.why = "Another run of apply_migrations is at work."
        elif isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected):
            self.why = f"Postgres answered {postgres.condition(error)}."
        else:
            return False
        log.info("%s: %s Trying again", self._what, self.why)
        return True


class _Watcher:
    """Looks from a connection of its own at who blocks us while we wait: pid, application, since when; no query text."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._pid = 0
        self._seen: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def watch(self, pid: int) -> None:
        self._pid = pid

    def holder(self) -> str | None:
        return self._seen

    def _look(self) -> None:
        try:
            with self._connect() as connection:
                while not self._stop.wait(0.1):
                    if not self._pid:
                        continue
                    for pid, application, state, since in connection.execute(
                        "SELECT pid, application_name, state, xact_start FROM pg_stat_activity "
                        "WHERE pid = ANY(pg_blocking_pids(%s)) ORDER BY xact_start",
                        (self._pid,),
                    ):
                        self._seen = (
                            f"Held by pid {pid}, application {application or 'without a name'!s}, {state}, "
                            f"in a transaction since {since:%Y-%m-%d %H:%M:%S %Z}."
                        )
        except postgres.Error as error:
            log.info("Can't see who holds locks: %s", postgres.condition(error))


# --- verifying and reporting ----------------------------------------------------------------------------------------


def verify(connection: Connection, steps: Sequence[Step], snapshot: Path = SQL / "snapshot.json") -> list[str]:
    """Compares the live tables with what the applied files promise. Returns the differences, one a line."""
    if any(s.state in ("pending", "beyond_target", "interrupted") for s in steps):
        promised_tables = tables_of(s.version for s in steps if s.state.startswith("applied"))
    else:
        promised_tables = None
    with postgres.transaction(connection, read_only=True):
        promised = schema_snapshot.load(snapshot)[web_client_state(connection)]
        if promised_tables is not None:
            promised = {name: table for name, table in promised.items() if name in promised_tables}
        live = schema_snapshot.take(connection, promised)
        return schema_snapshot.compare(promised, live) + schema_snapshot.invalid_indexes(connection)


def standing(connection: Connection) -> dict[str, Any]:
    """How the target stands to sql/migrations now: what is applied, pending, and differs; `unknown` says why nothing
    can be told."""
    found: dict[str, Any] = {"applied": 0, "pending": [], "differences": 0, "unknown": None}
    try:
        steps = make_plan(connection, MigrationParams())
        found["differences"] = len(verify(connection, steps))
    except (DualWriteError, OSError) as error:
        return {**found, "unknown": str(error)}
    except postgres.Error as error:
        return {**found, "unknown": f"Postgres answered {postgres.condition(error)}."}
    found["applied"] = sum(s.state.startswith("applied") for s in steps)
    found["pending"] = [f"{s.version}_{s.name}" for s in steps if not s.state.startswith("applied")]
    return found


def tables_of(versions: Iterable[str]) -> set[str]:
    """The tables that these versions' files create, as schema.table."""
    wanted = set(versions)
    found = set()
    for file in read_folder(SQL / "migrations"):
        if file.version in wanted:
            for statement in file.statements:
                matched = re.match(r"create\s+table\s+(?:if\s+not\s+exists\s+)?([\w.]+)", statement.text, re.I)
                if matched:
                    name = matched[1].lower()
                    found.add(name if "." in name else f"public.{name}")
    return found


def web_client_state(connection: Connection) -> str:
    """Whether drafts and reviews are open to the anon key: "anon" or "closed"."""
    row = connection.execute(
        "SELECT coalesce(has_table_privilege(to_regrole('anon')::oid, to_regclass('public.drafts'), 'SELECT'), false)"
    ).fetchone()
    return "anon" if row and row[0] else "closed"


def build_report(
    connection: Connection,
    params: MigrationParams,
    run_id: str,
    steps: Sequence[Mapping[str, Any]],
    differences: Sequence[str] | None,
) -> dict[str, Any]:
    """The run as small JSON: states, names and differences (None: never compared), no SQL."""
    outside = {f.version for f in read_folder(SQL / "migrations") if not f.transactional}
    whole: dict[str, Any] = {
        "version": 1,
        "dag_id": DAG_ID,
        "run_id": run_id,
        "mode": params.mode,
        "steps": list(steps),
        "not_run": [
            f"{s['version']}_{s['name']}"
            for s in steps
            if params.mode == "dry_run" and s["state"] == "pending" and s["version"] in outside
        ],
        "web_client": web_client_state(connection),
        "differences": None if differences is None else list(differences),
    }
    whole["verdict"] = verdict(whole)
    return whole


def verdict(report: Mapping[str, Any]) -> str:
    """The run in one sentence."""
    states = Counter(step["state"] for step in report["steps"])
    refused = [f"{s['version']}_{s['name']}" for s in report["steps"] if s["state"] == "refused"]
    if refused:
        return f"Refused, nothing was applied: {', '.join(refused)}."
    if report["mode"] == "dry_run":
        waiting = states["pending"] + states["interrupted"]
        return (
            f"{waiting} migrations would be applied. Nothing was changed." if waiting else "Nothing is left to apply."
        )
    if report["differences"] is None:
        return "Not verified: the migrations were only partly applied."
    if report["differences"]:
        return "The tables differ from what the migrations promise."
    return "Verified: every migration is applied, and the tables are as they promise."


def described(report: Mapping[str, Any]) -> list[Block]:
    """The run as a person reads it."""
    would = {"pending": "would be applied", "interrupted": "would be finished"} if report["mode"] == "dry_run" else {}
    rows = [
        [s["version"], s["name"], would.get(s["state"], s["state"].replace("_", " ")), s["reason"] or ""]
        for s in report["steps"]
    ]
    blocks: list[Block] = [
        Heading(f"Migrations, {report['mode'].replace('_', ' ')}"),
        Paragraph(verdict(report), strong=True),
        Table(["version", "name", "state", "reason"], rows, left=4),
    ]
    if report["not_run"]:
        blocks.append(
            Paragraph(f"Listed, not run in a dry run (outside a transaction): {', '.join(report['not_run'])}.")
        )
    access = f"Web client's access to drafts and reviews: {report['web_client']}."
    if report["web_client"] == "closed":
        access += (
            " While it is closed, the web client's own dual-writes to drafts and reviews are refused (42501). "
            "sql/optional/web_client_anon.sql says what opening it would mean."
        )
    blocks.append(Paragraph(access))
    if report["mode"] == "apply" and report["differences"]:
        blocks.append(Items("Differences", report["differences"]))
    return blocks
