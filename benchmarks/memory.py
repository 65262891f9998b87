"""Peak memory of a verification, at two sizes: it must not grow with the collection.

Each size has databases of its own and is verified in a process of its own, whose peak is told (resident, MiB). A million
comments take the emulator about ten minutes to load and some gigabytes of heap. The tripwire's baseline is left out: the
emulator would walk the million for each of its thousand counts.

    python -m benchmarks.memory [--sizes 100000 1000000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

from benchmarks import whole_runs
from benchmarks.stack import Stack, stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--verify", nargs=3, metavar=("HOST", "URI", "DOCUMENTS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.verify:
        host, uri, documents = given.verify
        began = time.perf_counter()
        read = whole_runs.verify_without_baseline(Stack(host, uri, int(documents)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{read:,} documents verified in {time.perf_counter() - began:.0f} s, peak {peak:.0f} MiB", flush=True)
        return
    for size in given.sizes:
        # 3 KiB a comment is what the emulator's heap was seen to take, with room to collect garbage in.
        with stack(size, heap_mib=max(4096, size * 8 // 1024)) as on:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.memory", "--verify", on.host, on.uri, str(size)], check=True
            )


if __name__ == "__main__":
    main()
