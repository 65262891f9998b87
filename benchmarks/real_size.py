"""`make bench`: the gap of a real-size world (production on the day of the export) found, written, verified.

Prints seconds, documents a second, billed reads and peak memory of each step. Results: docs/performance.md.
"""

from __future__ import annotations

import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from google.cloud import firestore

from dev import seed
from dev.emulator import emulator
from dev.postgres_server import server
from dualwrite.catalog import CATALOG
from dualwrite.migrations.files import folders, list_folders
from dualwrite.model.run_report import CollectionResult, ReconciledCollection
from dualwrite.runs import backfill
from tests.support import examine_all, gap_run, reconciled, verify_all

ROOT = Path(__file__).resolve().parents[1]
Reports = Mapping[str, CollectionResult | ReconciledCollection]


def _measure(step: str, work: Callable[[], Reports]) -> None:
    began = time.monotonic()
    reports = work()
    seconds = time.monotonic() - began
    read = sum(r["documents_read"] for r in reports.values())
    counts: dict[str, int] = {}
    for report in reports.values():
        for verdict, number in report["counts"].items():
            if number:
                counts[verdict] = counts.get(verdict, 0) + number
    print(
        f"{step:<44} {seconds:6.2f} s {read:7,} documents {read / seconds:8,.0f}/s "
        f"{sum(r['billed_reads'] for r in reports.values()):8,} billed reads "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:5.0f} MiB  {counts}",
        flush=True,
    )


def main() -> None:
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; emulator and Postgres beside"
    )
    seven = list(CATALOG.default_selection)
    with tempfile.TemporaryDirectory() as folder, emulator(Path(folder), optimised=True) as host, server() as uri:
        os.environ["FIRESTORE_EMULATOR_HOST"] = host
        world = seed.real_size()
        world.load_source(firestore.Client(project="bench"))
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute((ROOT / "sql/local/phase1.sql").read_text())
            for file in (f.path for f in list_folders(folders())):
                connection.execute(file.read_text())
            world.load_target(connection)
        print(f"{len(world.documents):,} documents, {sum(map(len, world.rows.values())):,} rows")

        def run(work: Callable[[backfill.Run], Reports], **changes: Any) -> Callable[[], Reports]:
            def inside() -> Reports:
                with gap_run("bench", host, uri, **changes) as opened:
                    return work(opened)

            return inside

        _measure("warm-up: the gap of the seven, dry run", run(lambda r: examine_all(r, dry=True, names=seven)))
        _measure("the gap of the seven, dry run", run(lambda r: examine_all(r, dry=True, names=seven)))
        _measure("all thirteen, all documents, dry run", run(lambda r: examine_all(r, dry=True), scope="all"))
        _measure("the gap of the seven, apply", run(lambda r: examine_all(r, dry=False), collections=seven))
        _measure("the gap of the seven, second apply", run(lambda r: examine_all(r, dry=False), collections=seven))
        _measure("all thirteen, all documents, apply", run(lambda r: examine_all(r, dry=False), scope="all"))
        _measure("all thirteen, verified key by key", run(verify_all))
        _reconciliation(host, uri)
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute("TRUNCATE comments CASCADE")
        alone = run(lambda r: examine_all(r, dry=False, names=["comments"]), scope="all")
        _measure("12,824 comments into an empty table, apply", alone)


def _reconciliation(host: str, uri: str) -> None:
    """A first sweep, a run that excuses its rejections, an empty run, a sweep, and a run that finds and repairs 100 differences. The
    grace between the two looks is shortened to 0.2 s."""

    def once(**changes: Any) -> Callable[[], Reports]:
        def inside() -> Reports:
            ended = reconciled("bench", host, uri, max_share=100, **changes)
            print(
                f"    {ended.report['billed_reads']:,} billed reads with preflight and gate; alerts: {ended.alerts[:3]}"
            )
            return {c["collection"]: c for c in ended.report["collections"]}

        return inside

    _measure("reconciliation, first sweep (14,000 rejections)", once(scope="sweep"))
    everything = [f"{name}:*" for name in CATALOG.names]
    _measure("reconciliation, those excused", once(excuse=everything, excuse_reason="known since the export"))
    _measure("reconciliation, nothing new", once())
    _measure("reconciliation, full sweep", once(scope="sweep"))
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DELETE FROM reactions WHERE id IN (SELECT id FROM reactions ORDER BY id LIMIT 40)")
        connection.execute(
            "UPDATE comments SET content = 'x' WHERE id IN (SELECT id FROM comments ORDER BY id LIMIT 40)"
        )
        connection.execute(
            "INSERT INTO comments (id, post_id, user_id, content) SELECT 'extra' || i, (SELECT min(id) FROM posts), "
            "(SELECT min(id) FROM users), 'x' FROM generate_series(1, 20) i"
        )
    _measure("reconciliation, sweep that mends 100", once(scope="sweep", repair="all"))
    _measure("reconciliation, sweep after it", once(scope="sweep"))


if __name__ == "__main__":
    main()
