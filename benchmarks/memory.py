"""Peak memory of a verification, at two sizes: it must not grow with the collection.

Each size has databases of its own and is verified in a process of its own, whose peak is printed (resident, MiB). A million
comments take the emulator about ten minutes to load and some gigabytes of heap. The tripwire's baseline is left out: the
emulator would walk the million for each of its thousand counts.

`--large`: instead, so many missing posts of a megabyte each, found by a reconciliation and looked at twice; without and with
one emoji in each, for which Python keeps each character of the text in four bytes.

    python -m benchmarks.memory [--sizes 100000 1000000] [--large 300]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from google.cloud import firestore

from benchmarks import whole_runs
from benchmarks.stack import PROJECT, Stack, empty_stack, stack
from tests.support import apply, reconciled
from tests.worlds import board, post, put, user


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--verify", nargs=3, metavar=("HOST", "URI", "DOCUMENTS"), help=argparse.SUPPRESS)
    parser.add_argument("--large", type=int, metavar="POSTS")
    parser.add_argument("--reconcile", nargs=2, metavar=("HOST", "URI"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reconcile:
        host, uri = given.reconcile
        os.environ["FIRESTORE_EMULATOR_HOST"] = host
        began = time.perf_counter()
        found = reconciled(PROJECT, host, uri, collections=["posts"], liveness_minimum=10**6, side_by_side=1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{found.counts('posts')} in {time.perf_counter() - began:.0f} s, peak {peak:.0f} MiB", flush=True)
        return
    if given.large:
        for emoji in ("", "😀"):
            with empty_stack() as on:
                _put_large_posts(on, given.large, "x" * 1_000_000 + emoji)
                print(f"with {emoji or 'no emoji'}: ", end="", flush=True)
                subprocess.run([sys.executable, "-m", "benchmarks.memory", "--reconcile", on.host, on.uri], check=True)
        return
    if given.verify:
        host, uri, documents = given.verify
        began = time.perf_counter()
        read = whole_runs.verify_without_baseline(Stack(host, uri, int(documents)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{read:,} documents verified in {time.perf_counter() - began:.0f} s, peak {peak:.0f} MiB", flush=True)
        return
    for size in given.sizes:
        # The emulator's heap took 3 KiB a comment; 8 leave room to collect garbage in.
        with stack(size, heap_mib=max(4096, size * 8 // 1024)) as on:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.memory", "--verify", on.host, on.uri, str(size)], check=True
            )


def _put_large_posts(on: Stack, number: int, content: str) -> None:
    client = firestore.Client(project=PROJECT)
    put(client, {"boards/b1": board(), "users/u1": user("u1")})
    with ThreadPoolExecutor(4) as threads:
        paths = (f"boards/b1/posts/p{n}" for n in range(number))
        list(threads.map(lambda path: client.document(path).set(post(content=content)), paths))
    client.close()
    apply(PROJECT, on.host, on.uri, scope="all", collections=["boards", "users"])


if __name__ == "__main__":
    main()
