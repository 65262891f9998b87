"""Run as a child process: applies migrations, and kills itself (SIGKILL) at a numbered checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dualwrite import migrations, postgres

if __name__ == "__main__":
    dsn, folder, at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    reached = 0

    def checkpoint(step: str) -> None:
        global reached
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
    sys.exit(7)  # it got to the end
