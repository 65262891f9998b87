"""Applies migrations in a child process that kills itself (SIGKILL) at a numbered checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dualwrite import migrations, postgres
from tests.killing import PROCESSES

_TO_THE_END = 7
"""The child's exit status."""


def killed_at(dsn: str, folder: Path, at: int) -> bool:
    """Applies them in a process that kills itself at this checkpoint; whether it did. Else it got to the end."""
    child = PROCESSES.Process(target=_migrate, args=(dsn, folder, at))
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    assert code in (-signal.SIGKILL, _TO_THE_END)
    return code == -signal.SIGKILL


def _migrate(dsn: str, folder: Path, at: int) -> None:
    reached = 0

    def checkpoint(step: str) -> None:
        nonlocal reached
        reached += 1
        if reached == at:
            os.kill(os.getpid(), signal.SIGKILL)

    migrations.Migrator(
        lambda: postgres.connect(dsn),
        migrations.MigrationParams(mode="apply"),
        "child",
        among=[folder],
        checkpoint=checkpoint,
    ).run()
    sys.exit(_TO_THE_END)
