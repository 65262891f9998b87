"""`make difference name=posts:AbC123`: one difference side by side, on the connections of the environment, or else on those of a
running `make up`."""

from __future__ import annotations

import os
import sys
import tempfile

from dev import up


def main() -> int:
    if not any(name.startswith("AIRFLOW_CONN_") for name in os.environ):
        found = up.connections()
        if not found:
            print(
                "difference: no connections. Set AIRFLOW_CONN_FIRESTORE_DEFAULT and AIRFLOW_CONN_SUPABASE_DEFAULT, or start "
                "`make up`. Where Airflow runs: PYTHONPATH=dags python -m dualwrite.edge.difference posts:AbC123."
            )
            return 2
        os.environ |= found
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("AIRFLOW_HOME", home)
        from dualwrite.edge import difference

        return difference.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
