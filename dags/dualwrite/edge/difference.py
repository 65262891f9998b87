"""Shows one difference, as a command: `python -m dualwrite.edge.difference posts:AbC123`, with dags/ on PYTHONPATH, where
Airflow runs. Uses Airflow's connections firestore_default and supabase_default.

It shows content, so it writes to a terminal only: no file, no pipe, no log.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from dualwrite.model.errors import DualWriteError


def main(given: Sequence[str]) -> int:
    """Returns the exit code: 0, 1 after an error, 2 for a wrong call."""
    if not sys.stdout.isatty():
        sys.stderr.write("This shows content, so it writes to a terminal only: don't redirect it.\n")
        return 2
    if len(given) != 1 or ":" not in given[0]:
        sys.stderr.write("Name one difference, as collection:key.\n")
        return 2
    # With this, Airflow also finds connections that were created in its UI, in its own database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from dualwrite.catalog import CATALOG
    from dualwrite.edge.connections import source, target
    from dualwrite.runs import side_by_side

    try:
        with source() as firestore, target() as postgres_target:
            width = shutil.get_terminal_size((110, 24)).columns
            for line in side_by_side.shown(firestore, postgres_target, CATALOG, given[0], width):
                sys.stdout.write(f"{line}\n")
    except DualWriteError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
