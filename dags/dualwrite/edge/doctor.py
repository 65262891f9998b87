"""The doctor as a command: `python -m dualwrite.edge.doctor`, with dags/ on PYTHONPATH, where Airflow runs.

Uses Airflow's connections firestore_default and supabase_default, wherever that Airflow keeps them. Exits with 1 if there is
something to do.
"""

from __future__ import annotations

import os
import sys
from itertools import chain

from dualwrite import settings
from dualwrite.model.errors import CatalogError


def main() -> int:
    # With this, Airflow also finds connections that were created in its UI, in its own database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        from dualwrite.catalog import CATALOG
    except CatalogError as error:
        sys.stdout.write(f"TO DO  catalog: {error}\n\n1 to do\n")
        return 1
    from dualwrite.edge import roles
    from dualwrite.edge.connections import source, target_connection
    from dualwrite.runs import doctor

    todo = 0
    prefix = f", names begin with {settings.prefix()}" if settings.prefix() else ""
    catalog = doctor.Line("catalog", note=(settings.named_catalog() or "the shipped one") + prefix)
    for line in chain([catalog], doctor.examine(source, target_connection, CATALOG), roles.lines()):
        todo += line.fault is not None
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{f'{todo} to do' if todo else 'All is well'}\n")
    return 1 if todo else 0


if __name__ == "__main__":
    sys.exit(main())
