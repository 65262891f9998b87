"""Seconds of a reconciliation of a small world in which nothing differs, near its target and behind a slow network.

python -m benchmarks.far_target [--milliseconds 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time

import psycopg

from benchmarks.stack import PROJECT, small
from dev import processes
from dualwrite.catalog import CATALOG
from dualwrite.runs.reconciliation import SIDE_BY_SIDE
from tests.proxy import proxy
from tests.support import reconciled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--milliseconds", type=float, default=20.0, help="a round trip")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    processes.keep_temporary_files_in_memory()
    with small() as on:
        server = psycopg.conninfo.conninfo_to_dict(on.uri)
        with proxy(str(server["host"]), int(str(server["port"])), seconds_late=given.milliseconds / 2000) as away:
            far = psycopg.conninfo.make_conninfo(on.uri, port=away.port)

            def quiet(target: str) -> float:
                began = time.monotonic()
                ended = reconciled(PROJECT, on.host, target, side_by_side=SIDE_BY_SIDE)
                assert not ended.alerts, ended.alerts
                return time.monotonic() - began

            reconciled(PROJECT, on.host, on.uri, scope="sweep", repair="all", max_share=100)
            everything = [f"{name}:*" for name in CATALOG.names]
            reconciled(PROJECT, on.host, on.uri, excuse=everything, excuse_reason="of the seeded world")
            quiet(on.uri)  # so that the first of the measured ones is as warm as the others
            for distance, target in (("near", on.uri), (f"{given.milliseconds:g} ms away", far)):
                print(
                    f"{distance:<12} {statistics.median(quiet(target) for _ in range(given.rounds)):5.2f} s", flush=True
                )


if __name__ == "__main__":
    main()
