"""Documents a second of each part and of whole runs, against Firestore's own stream. `make bench` runs it.

python -m benchmarks.throughput [--documents 100000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Callable
from functools import partial

from benchmarks import drain, short_way, usual_way, whole_runs
from benchmarks.parts import Parts
from benchmarks.stack import Stack, stack
from benchmarks.timing import Side, measure


def sides(on: Stack) -> list[Side]:
    """The raw drain, which all others are compared with, the parts of a comparison, and whole runs."""
    parts = Parts(on)

    def side(name: str, work: Callable[[Stack], int]) -> Side:
        return Side(name, partial(work, on))

    return [
        side("raw drain: gRPC bytes, dropped", drain.raw),
        side("the same in gRPC's single-threaded mode", drain.raw_single_threaded),
        side("the same as protobuf messages, in a thread", drain.parsed),
        Side("Source.pages: messages, proved by a count()", parts.pages),
        Side("Source.pages and a Document for each", parts.documents),
        Side("mapping alone: message to Row", parts.mapping, parts.prepare),
        Side("staging alone: message to tuple", parts.staging, parts.prepare),
        Side("COPY alone", parts.copying, parts.prepare),
        Side("COPY and the comparing statement", parts.comparing, parts.prepare),
        side("the short way: stream, staging, COPY, comparing", short_way.compare),
        side("dry run, everything matching", whole_runs.dry_run),
        side("verification, everything matching", whole_runs.verify),
        side("the same without the tripwire's baseline", whole_runs.verify_without_baseline),
        Side("apply into an empty table, confirmed", partial(whole_runs.apply, on), partial(whole_runs.empty, on)),
        Side(
            "the usual way: stream(), to_dict(), upserts into an empty table",
            partial(usual_way.upsert, on),
            partial(whole_runs.empty, on),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="sides whose name has this regex; the raw drain always runs")
    given = parser.parse_args()
    with stack(given.documents) as on:
        print(
            f"{given.documents:,} comments; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
            f"Python {platform.python_version()}; emulator and PostgreSQL 18 beside; {given.rounds} rounds"
        )
        every = sides(on)
        measure([every[0], *(s for s in every[1:] if re.search(given.only, s.name))], given.rounds)


if __name__ == "__main__":
    main()
