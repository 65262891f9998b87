"""`make demo`: from nothing to a gap found, shown, written and verified, through Airflow itself; leaves nothing running."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from google.cloud import firestore

from dev import airflow_home, seed
from dev.emulator import emulator
from dev.postgres_server import server
from dev.processes import Missing

PROJECT = "demo-writing-club"
ALL = ["users", "posts", "comments", "replies", "likes", "reactions", "blocks", "boards", "user_board_permissions"]
ALL += ["board_waiting_users", "drafts", "reviews", "notifications"]


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def run_dag(dag_id: str, conf: dict[str, Any], environment: dict[str, str]) -> tuple[bool, str]:
    """`airflow dags test`; whether it succeeded, and what it wrote."""
    done = subprocess.run(
        [str(airflow_home.BIN / "airflow"), "dags", "test", dag_id, "--conf", json.dumps(conf)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    failed = re.search(r"state[ =:']+failed|DagRun Finished.*failed|Marking run .*failed", output)
    return done.returncode == 0 and failed is None, output


def report_of(output: str) -> str:
    """The last Markdown report in a log, cleared of the log's own marks."""
    lines = output.splitlines()
    starts = [i for i, line in enumerate(lines) if "## " in line and ("Found" in line or "Migrations" in line)]
    if not starts:
        return output[-3000:]
    found = [lines[starts[-1]][lines[starts[-1]].index("## ") :]]
    for line in lines[starts[-1] + 1 :]:
        if re.match(r"^(\[?\d{4}-\d\d-\d\d|Task finished|\S+ task )", line):
            break
        found.append(line)
    return "\n".join(line for line in found if not line.startswith("- `")).strip()


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dualwrite-demo-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "airflow"
        home.mkdir()
        say("Starting the Firestore emulator and Postgres")
        with emulator(Path(folder)) as host, server() as uri:
            os.environ["FIRESTORE_EMULATOR_HOST"] = host
            environment = airflow_home.environment(home, emulator=host, project=PROJECT, target=uri)
            say("Seeding a small world: 13 collections, rows up to the export, documents after it, awkward cases")
            world = seed.small()
            with psycopg.connect(uri) as connection:
                connection.execute((airflow_home.ROOT / "sql/local/phase1.sql").read_text())
                world.load_target(connection)
            world.load_source(firestore.Client(project=PROJECT))
            print(f"{len(world.documents):,} documents, {sum(map(len, world.rows.values())):,} rows")
            migrated = subprocess.run(
                [str(airflow_home.BIN / "airflow"), "db", "migrate"], env={**os.environ, **environment}, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            if migrated.returncode:
                raise Missing(f"airflow db migrate failed: {migrated.stderr.strip().splitlines()[-1]}")
            steps = [
                ("apply_migrations", {"mode": "apply"}, "drafts, reviews and the bundle's own schema"),
                ("backfill_gap", {"mode": "dry_run", "collections": ALL}, "a dry run: what is in the gap?"),
                (
                    "backfill_gap",
                    {"mode": "apply", "collections": ALL, "grace_seconds": 1},
                    "an apply, and the verification",
                ),
                (
                    "backfill_gap",
                    {"mode": "apply", "collections": ALL, "grace_seconds": 1},
                    "a second apply: writes 0 rows",
                ),
            ]
            written = []
            for dag_id, conf, what in steps:
                say(f"{dag_id} {json.dumps(conf)}: {what}")
                before = time.monotonic()
                succeeded, output = run_dag(dag_id, conf, environment)
                print(report_of(output))
                print(f"({dag_id} {'succeeded' if succeeded else 'failed, as it must while rejections are unexcused'}, "
                      f"{time.monotonic() - before:.0f} s)")  # fmt: skip
                if "Found" not in output and "Migrations" not in output:
                    raise SystemExit(output[-5000:])
                with psycopg.connect(uri) as connection:
                    if dag_id == "backfill_gap":
                        row = connection.execute(
                            "SELECT sum(inserted + updated) FROM dualwrite.runs WHERE phase = 'gap' AND run_id = "
                            "(SELECT run_id FROM dualwrite.runs ORDER BY id DESC LIMIT 1)"
                        ).fetchone()
                        written.append(int(row[0]) if row else -1)
            say(f"Rows written: dry run {written[0]}, apply {written[1]}, second apply {written[2]}")
            if written[0] or not written[1] or written[2]:
                sys.exit("demo: the dry run and the second apply must write nothing, the apply something")
    say(
        f"Done in {time.monotonic() - began:.0f} s; nothing is left running. Next: `make up` for the same with Airflow's UI."
    )


if __name__ == "__main__":
    main()
