"""A simpler way to the gap: walk the tree and ask each parent for its children created after the export.

Seven collections, one query for every document above them: boards for posts, posts for comments and likes, comments for
replies and reactions, replies for reactions, users for blocked users. In the world of production's size those are
about 29,000 queries, one after another, so a sample of each kind is timed and the whole is that mean times
their number. The sample's parents are drawn evenly; the results of the walk aren't checked.

    python -m benchmarks.per_parent_walk [--sample 300]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable

from google.cloud import firestore

from benchmarks.stack import PROJECT, real_size
from dev.seed import EXPORT
from dualwrite.catalog import CATALOG
from tests.support import examine_all, gap_run

_WALK = (
    ("posts", "boards/*", "createdAt"),
    ("comments", "boards/*/posts/*", "createdAt"),
    ("likes", "boards/*/posts/*", "createdAt"),
    ("replies", "boards/*/posts/*/comments/*", "createdAt"),
    ("reactions", "boards/*/posts/*/comments/*", "createdAt"),
    ("reactions", "boards/*/posts/*/comments/*/replies/*", "createdAt"),
    ("blockedUsers", "users/*", "blockedAt"),
)
"""Collection, the paths of its parents, and the check field. Users are one query of their own."""


def walk(client: firestore.Client, paths: Iterable[str], sample: int) -> tuple[float, int]:
    """Seconds that the whole walk would take, and its queries."""
    known = list(paths)
    seconds, queries = 0.0, 1
    began = time.perf_counter()
    list(client.collection("users").where(filter=firestore.FieldFilter("updatedAt", ">", EXPORT)).stream())
    seconds += time.perf_counter() - began
    for collection, parent, field in _WALK:
        parents = [path for path in known if _fits(path, parent)]
        drawn = random.Random(1).sample(parents, min(sample, len(parents)))
        began = time.perf_counter()
        for path in drawn:
            query = client.document(path).collection(collection)
            list(query.where(filter=firestore.FieldFilter(field, ">", EXPORT)).stream())
        each = (time.perf_counter() - began) / len(drawn)
        seconds, queries = seconds + each * len(parents), queries + len(parents)
        print(
            f"  {collection:<13} {len(parents):>6,} queries, {1000 * each:5.1f} ms each ({len(drawn)} timed)",
            flush=True,
        )
    return seconds, queries


def _fits(path: str, pattern: str) -> bool:
    segments, wanted = path.split("/"), pattern.split("/")
    return len(segments) == len(wanted) and all(w in ("*", s) for s, w in zip(segments, wanted, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=300)
    sample = parser.parse_args().sample
    seven = list(CATALOG.default_selection)
    with real_size() as (on, paths):
        ours = []
        for _ in range(4):
            with gap_run(PROJECT, on.host, on.uri) as run:
                began, cpu = time.perf_counter(), time.process_time()
                examine_all(run, dry=True, names=seven)
                ours.append((time.perf_counter() - began, time.process_time() - cpu))
        dry_run, cpu = min(ours[1:])
        print(
            f"The gap of the seven, dry run: {dry_run:.2f} s, of which {cpu:.2f} s of our CPU (the best of three after a warm-up)"
        )
        print("The walk, one query for each parent:")
        seconds, queries = walk(firestore.Client(project=PROJECT), paths, sample)
        print(f"{queries:,} queries, {seconds / 60:.1f} minutes: {seconds / dry_run:,.0f} times as long")


if __name__ == "__main__":
    main()
