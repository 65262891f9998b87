"""Applies the migrations to the target, or tries them and rolls back.

Interleavings considered:

1. Two runs at once: each file's transaction takes an advisory lock and reads the ledger again under it; the slower run
   finds the file applied and goes on.
2. Killed at any line: a file and its line in the ledger are one transaction, so both are there or neither is. (Outside a
   transaction: see outside.py.)
3. The app holds a table: lock_timeout makes us give way, see locks.py.
4. The Supabase CLI applied a file: its history counts, and is never written.
5. A file changes its session despite the rules: each file has a connection of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dualwrite import settings
from dualwrite.migrations.execution import FileTransaction, OutOfTime, StatementFailed, committing
from dualwrite.migrations.files import MigrationFile, folders, list_folders, read_text, sql_folder
from dualwrite.migrations.ledger import create_ledger, finish_file, is_applied
from dualwrite.migrations.locks import Watcher, lock_out_other_runs, tried_again
from dualwrite.migrations.outside import apply_outside, require_session
from dualwrite.migrations.parser import Statement, split
from dualwrite.migrations.plan import Step, check, make_plan
from dualwrite.migrations.rules import refuse
from dualwrite.model.errors import MigrationError
from dualwrite.model.migration_params import MigrationParams
from dualwrite.postgres import Connection

log = logging.getLogger(__name__)
T = TypeVar("T")

_DRY_RUN_SECONDS = 2.0
"""How long a dry run may hold its locks: the app's own statements end after 3 s."""

_SYNTAX_ERROR = "42601"
_UNSAFE_NEW_ENUM_VALUE = "55P04"


class Migrator:
    """Applies migrations over connections that `connect` makes. `among` are the folders of migrations, `optional` that
    of the optional files (by default the installation's). `checkpoint` is called at each step, for tests that stop there."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        params: MigrationParams,
        run_id: str,
        *,
        among: Sequence[Path] | None = None,
        optional: Path | None = None,
        checkpoint: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._connect = connect
        self._params = params
        self._run_id = run_id
        self._among = among or folders()
        self._optional = optional
        self._checkpoint = checkpoint

    def run(self) -> list[Step]:
        """Dry run or apply, as the params say. Returns the steps as they are afterwards; a dry run returns pending ones as they are, and
        those that it couldn't try as not_tried.

        Raises MigrationError before anything runs if a file is refused, and at the first file that fails; files applied
        before it stay applied.
        """
        self._optional_file()  # refused before anything runs
        with self._connect() as connection:
            steps = make_plan(connection, self._params, self._among)
            check(steps)
            files = {f.version: f for f in list_folders(self._among)}
            due = [files[s.version] for s in steps if s.state in ("pending", "interrupted")]
            if not all(f.transactional for f in due):
                require_session(self._connect)
        if self._params.mode == "dry_run":
            return self._dry_run(steps, files)
        return [self._apply(step, files) for step in steps]

    # --- apply --------------------------------------------------------------------------------------------------------

    def _apply(self, step: Step, files: Mapping[str, MigrationFile]) -> Step:
        if step.state not in ("pending", "interrupted"):
            return step
        file = files[step.version]
        if file.transactional:
            self._tried_again(file.path.name, lambda watcher: self._apply_in_transaction(file, watcher))
        else:
            self._tried_again(file.path.name, lambda watcher: self._apply_outside(file, watcher))
        self._checkpoint(f"committed {file.version}")
        log.info("%s applied", file.path.name)
        return replace(step, state="applied")

    def _apply_in_transaction(self, file: MigrationFile, watcher: Watcher) -> None:
        with self._connect() as connection, committing(file.path.name), connection.transaction():
            transaction = self._begin(connection)
            lock_out_other_runs(connection)
            self._checkpoint(f"locked {file.version}")
            if is_applied(connection, file):
                return
            create_ledger(connection)
            watcher.watch(connection)
            transaction.execute_file(file.path.name, file.statements)
            self._checkpoint(f"executed {file.version}")
            finish_file(connection, file, self._run_id)
            self._checkpoint(f"recorded {file.version}")

    def _apply_outside(self, file: MigrationFile, watcher: Watcher) -> None:
        apply_outside(self._connect, file, self._params, self._run_id, watcher, self._checkpoint)

    def set_web_client(self) -> None:
        """Opens the new tables to the web client or closes them, as the params say; the optional file may run again."""
        optional = self._optional_file()
        if optional is None or self._params.mode == "dry_run":
            return
        name, statements = optional

        def work(watcher: Watcher) -> None:
            with self._connect() as connection, committing(name), connection.transaction():
                transaction = self._begin(connection)
                lock_out_other_runs(connection)
                watcher.watch(connection)
                transaction.execute_file(name, statements)

        self._tried_again(name, work)

    def _optional_file(self) -> tuple[str, Sequence[Statement]] | None:
        if self._params.web_client == "leave":
            return None
        if self._optional is None and settings.named_catalog() is not None:
            raise MigrationError(
                f"web_client opens and closes tables of the shipped catalog: {settings.CATALOG} names another. Choose web_client = "
                "leave, and put the grants of your own tables into a migration.",
                code="web-client-of-shipped-catalog",
            )
        path = (self._optional or sql_folder() / "optional") / f"web_client_{self._params.web_client}.sql"
        if not path.is_file():
            raise MigrationError(
                f"{path} is missing. Restore it from the repository, or choose web_client = leave.",
                code="web-client-file-missing",
            )
        statements = split(read_text(path), path.name)
        refuse(path.name, statements, transactional=True)
        return path.name, statements

    # --- dry run ------------------------------------------------------------------------------------------------------

    def _dry_run(self, steps: Sequence[Step], files: Mapping[str, MigrationFile]) -> list[Step]:
        """Executes all pending files in one transaction and rolls it back. It takes the locks that an apply takes, and
        gives up after two seconds rather than hold them."""
        optional = self._optional_file()
        if optional is None and not any(s.state in ("pending", "interrupted") for s in steps):
            return list(steps)

        def work(watcher: Watcher) -> list[Step]:
            with self._connect() as connection, committing("dry run"), connection.transaction(force_rollback=True):
                trial = _Trial(self._begin(connection, seconds=_DRY_RUN_SECONDS))
                create_ledger(connection)
                watcher.watch(connection)
                tried = [trial.step(step, files.get(step.version)) for step in steps]
                if optional is not None:
                    trial.execute(*optional)
                return tried

        return self._tried_again("dry run", work)

    def _begin(self, connection: Connection, seconds: float | None = None) -> FileTransaction:
        return FileTransaction(
            connection,
            lock_timeout=self._params.lock_timeout,
            statement_timeout=self._params.statement_timeout,
            seconds=seconds,
        )

    def _tried_again(self, file: str, work: Callable[[Watcher], T]) -> T:
        return tried_again(self._connect, file, self._params.wait_for_lock, work)


class _Trial:
    """A dry run's progress: which files were tried, and why the others couldn't be."""

    def __init__(self, transaction: FileTransaction) -> None:
        self._transaction = transaction
        self._outside: str | None = None
        self._stopped: str | None = None

    def step(self, step: Step, file: MigrationFile | None) -> Step:
        if file is None or step.state not in ("pending", "interrupted"):
            return step
        if not file.transactional:
            self._outside = self._outside or step.label
            if step.state == "interrupted":
                return step
            return replace(step, state="not_tried", reason="it runs outside a transaction, which can't be rolled back")
        why = self.execute(file.path.name, file.statements)
        return step if why is None else replace(step, state="not_tried", reason=why)

    def execute(self, name: str, statements: Sequence[Statement]) -> str | None:
        """Why the file couldn't be tried; None if it was executed. Raises StatementFailed if it would fail in an apply too."""
        if self._stopped is not None:
            return self._stopped
        try:
            self._transaction.execute_file(name, statements)
        except OutOfTime:
            self._stopped = (
                f"the dry run had held its locks for {_DRY_RUN_SECONDS:g} s and stopped, so that the app need not wait"
            )
        except StatementFailed as failed:
            why = self._uncertain(failed)
            if why is None:
                raise
            self._stopped = f"it comes after {name}, which couldn't be tried"
            return why
        return self._stopped

    def _uncertain(self, failed: StatementFailed) -> str | None:
        """Why an apply may succeed although the dry run failed; None if it would fail too."""
        if failed.sqlstate == _UNSAFE_NEW_ENUM_VALUE:
            return "it uses an enum value that an earlier file adds, which can be used only once that one is committed"
        if self._outside is not None and failed.sqlstate != _SYNTAX_ERROR:
            return f"{failed.fault}; it may need {self._outside}, which a dry run can't execute"
        return None
