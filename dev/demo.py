"""`make demo`: from nothing to a gap found, shown, written and verified, through Airflow itself; leaves nothing running."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.cloud import firestore

from dev import stack
from dev.accept import rejected
from dev.live_app import LiveApp
from dev.run_dag import DagRun, run_dag
from dualwrite import migrations
from dualwrite.model import report
from dualwrite.model.render import Block, as_text
from dualwrite.model.verdicts import DRIFT
from dualwrite.runs import backfill, reconcile_plan
from dualwrite.runs.report import gap
from dualwrite.runs.report import text as reconciled
from dualwrite.shipped_catalog import CATALOG

ALL = list(CATALOG.names)
WIDTH = 108
ROWS = 8
"""The most collections that a step shows; DETAILS=1 shows each report whole."""
DETAILS = os.environ.get("DETAILS") == "1"
SHOWN = (*DRIFT, "inserted", "updated", "deleted")


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def line(text: str, indent: str = "  ") -> None:
    print(textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  "), flush=True)


@contextlib.contextmanager
def seconds_shown() -> Iterator[None]:
    """Counts seconds in a terminal, in one line that is erased afterwards; elsewhere prints nothing."""
    done = threading.Event()

    def count() -> None:
        began = time.monotonic()
        while not done.wait(1):
            print(f"\r  running, {time.monotonic() - began:.0f} s", end="", flush=True)
        print("\r" + " " * 30 + "\r", end="", flush=True)

    thread = threading.Thread(target=count, daemon=True) if sys.stdout.isatty() else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread:
            thread.join()


def step(running: stack.Stack, dag_id: str, conf: dict[str, Any], purpose: str, *, rows: bool = True) -> DagRun:
    """Runs a DAG and shows its report's sentence and its `changed_lines`; with DETAILS=1 its report whole."""
    chosen = "".join(f", {name} {conf[name].replace('_', ' ')}" for name in ("mode", "scope", "repair") if name in conf)
    say(f"{dag_id}{chosen}: {purpose}")
    before = time.monotonic()
    with seconds_shown():
        run = run_dag(running.environment, dag_id, conf)
    if run.report is None:
        raise SystemExit(f"demo: {dag_id} wrote no report:\n{run.log[-5000:]}")
    line(f"{run.state}, {time.monotonic() - before:.0f} s. {run.report['verdict']}")
    if DETAILS:
        described: dict[str, Callable[[Any], list[Block]]] = {
            migrations.DAG_ID: migrations.described,
            backfill.DAG_ID: gap.described,
            reconcile_plan.DAG_ID: reconciled.described,
        }
        print(as_text(described[dag_id](run.report)))
    elif rows:
        for text in changed_lines(run.report)[:ROWS]:
            line(text, "    ")
    return run


def changed_lines(run_report: Mapping[str, Any]) -> list[str]:
    """A line for each collection in which rows differ or were written."""
    counted: dict[str, Counter[str]] = {}
    for c in run_report.get("collections", ()):
        if c["phase"] == "verify":  # its differences are counted already
            continue
        numbers = {**c["counts"], **c}
        counted.setdefault(c["collection"], Counter()).update({name: numbers[name] for name in SHOWN if numbers[name]})
    lines = [
        f"{name:24} {', '.join(f'{n:,} {word}' for word, n in counts.items())}"
        for name, counts in counted.items()
        if counts
    ]
    if len(lines) > ROWS:
        return [*lines[: ROWS - 1], f"and {len(lines) - ROWS + 1} more collections (DETAILS=1 shows all)"]
    return lines


def written(run: DagRun) -> int:
    """How many rows a backfill wrote, parents included."""
    assert run.report is not None
    return sum(c["inserted"] + c["updated"] + c["parents_inserted"] for c in run.report["collections"])


def reconcile_beside_an_app(running: stack.Stack) -> None:
    """An app writes for a minute and loses some writes; a reconciliation finds those in its windows, a sweep repairs all."""
    say("An app writes with the dual-write helper for a minute; some writes are lost on purpose")
    # One write fails on purpose, and its log would look like a crash.
    logging.getLogger("dualwrite").addHandler(logging.NullHandler())
    app = LiveApp(firestore.Client(project=stack.PROJECT), running.target)
    with seconds_shown():
        app.run(60)
    app.close()
    line("written: " + ", ".join(f"{n} {outcome}" for outcome, n in app.written.items()))
    line("lost: " + "; ".join(f"{n} {loss}" for loss, n in app.losses.items()))
    quick = {"grace_seconds": 5}
    drifted = step(running, reconcile_plan.DAG_ID, quick, "what did not arrive?")
    if drifted.state != "failed":
        raise SystemExit("demo: writes were lost, so the reconciliation must fail")
    assert drifted.report is not None
    for text in as_text(report.samples(drifted.report["collections"])[:2]).splitlines()[:12]:
        print(f"    {text[:WIDTH]}")
    line("It fails, as it should: the failed run is the alert. It saw only its windows; a sweep finds the rest.")
    repair = {**quick, "scope": "sweep", "repair": "all"}
    step(running, reconcile_plan.DAG_ID, repair, "every document and every row; lost writes are repaired")
    green = step(running, reconcile_plan.DAG_ID, {**quick, "scope": "sweep"}, "the next run is green", rows=False)
    if green.state != "success":
        raise SystemExit("demo: after the repair the next run must succeed")


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dualwrite-demo-", ignore_cleanup_errors=True) as folder:
        say("Starting the Firestore emulator and Postgres, seeding a small world with awkward cases")
        with stack.databases(Path(folder)) as running:
            rows = sum(map(len, running.world.rows.values()))
            line(
                f"{len(running.world.documents):,} documents in Firestore, {rows:,} rows in Postgres, {len(ALL)} collections"
            )
            gap = {"collections": ALL, "grace_seconds": 1}
            step(running, "apply_migrations", {"mode": "apply"}, "creates drafts, reviews and the bundle's own schema")
            dry = step(running, "backfill_gap", {**gap, "mode": "dry_run"}, "what is in the gap? Nothing is written")
            first = step(running, "backfill_gap", {**gap, "mode": "apply"}, "written, then verified key by key")
            line("It fails, as it should: some documents can't become rows. A person looks at them, and excuses them.")
            assert first.report is not None
            accept = {"excuse": rejected(first.report), "excuse_reason": "looked at: broken since 2024"}
            second = step(
                running,
                "backfill_gap",
                {**gap, "mode": "apply", **accept},
                "again: writes 0 rows, verified",
                rows=False,
            )
            if written(dry) or not written(first) or written(second) or second.state != "success":
                raise SystemExit("demo: the dry run and the second apply must write nothing, and the last run succeed")
            reconcile_beside_an_app(running)
    lines = [
        f"Rows written: dry run {written(dry)}, apply {written(first)}, second apply {written(second)}",
        "Lost writes: found, repaired, and the next run was green",
        f"{time.monotonic() - began:.0f} s; nothing is left running",
        "Each report whole: make demo DETAILS=1",
        "The same with Airflow's UI and the Parity page: make up",
    ]
    width = max(map(len, lines))
    print("\n" + "\n".join(["-" * (width + 4), *(f"| {text:{width}} |" for text in lines), "-" * (width + 4)]))


if __name__ == "__main__":
    main()
