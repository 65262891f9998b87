"""The cost of the tripwire's counts of rows: the sums of each run, and the intervals that a deviation needs.

On a table of its own, in a server of its own, without and with an index on the time (the medians of five, in seconds).

    python -m benchmarks.row_counts [--rows 2000000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import UTC, datetime, timedelta

import psycopg

from dev.postgres_server import server
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.postgres.target import Target
from dualwrite.runs.tripwire import counts
from dualwrite.runs.tripwire.baseline import BUCKET, MOST_BUCKETS

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
COMMENTS = CATALOG["comments"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    buckets = min(MOST_BUCKETS, max(4, rows // BUCKET))
    edges = [BEGIN + timedelta(seconds=rows * n / buckets) for n in range(1, buckets + 1)]
    with server() as uri, psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE comments (id text PRIMARY KEY, content text, created_at timestamptz)")
        connection.execute(
            "INSERT INTO comments SELECT md5(n::text), repeat('x', 300), %s::timestamptz + n * interval '1 second' "
            "FROM generate_series(1, %s) n",
            (BEGIN, rows),
        )
        with Target(lambda: postgres.connect(uri), CATALOG) as target:
            for name, statement in (("no index", "VACUUM ANALYZE comments"), ("an index", _INDEX)):
                for part in statement.split(";"):
                    connection.execute(part)
                took = {counted: _median(target, e) for counted, e in (("sums", edges[-3:]), ("each bucket", edges))}
                print(f"{rows:,} rows, {name}: " + ", ".join(f"{c} {s:.2f} s" for c, s in took.items()), flush=True)


_INDEX = "CREATE INDEX ON comments (created_at); VACUUM ANALYZE comments"


def _median(target: Target, edges: list[datetime]) -> float:
    def once() -> float:
        began = time.perf_counter()
        counts.rows_between(target, COMMENTS, "created_at", edges)
        return time.perf_counter() - began

    return statistics.median(once() for _ in range(5))


if __name__ == "__main__":
    main()
