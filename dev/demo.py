"""`make demo`: from nothing to a gap found, shown, written and verified, through Airflow itself; leaves nothing running."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from google.cloud import firestore

from dev import stack
from dev.live_app import LiveApp
from dev.run_dag import DagRun, run_dag
from dualwrite import migrations
from dualwrite.catalog import CATALOG
from dualwrite.model.render import as_text
from dualwrite.runs import backfill, reconcile_plan, reconcile_report

ALL = list(CATALOG.names)


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def step(running: stack.Stack, dag_id: str, conf: dict[str, Any], what: str) -> DagRun:
    """Runs a DAG and shows its report, without the samples."""
    shown = {k: v for k, v in conf.items() if k not in ("collections", "excuse")}
    say(f"{dag_id} {json.dumps(shown)}: {what}")
    before = time.monotonic()
    run = run_dag(running.environment, dag_id, conf)
    if run.report is None:
        raise SystemExit(f"demo: {dag_id} wrote no report:\n{run.log[-5000:]}")
    described = {
        migrations.DAG_ID: migrations.described,
        backfill.DAG_ID: backfill.described,
        reconcile_plan.DAG_ID: reconcile_report.described,
    }[dag_id]
    bare = run.report
    if dag_id != migrations.DAG_ID:
        bare = {**bare, "collections": [{**c, "samples": {}} for c in bare["collections"]]}
    print(as_text(described(bare)))
    print(f"\n{dag_id}: {run.state}, {time.monotonic() - before:.0f} s")
    return run


def written(run: DagRun) -> int:
    assert run.report is not None
    return sum(c["inserted"] + c["updated"] + c["parents_inserted"] for c in run.report["collections"])


def rejected(run: DagRun) -> list[str]:
    """What a person would look at and accept, in the form's notation."""
    assert run.report is not None
    return [
        f"{c['collection']}:{sample['key']}"
        for c in run.report["collections"]
        for sample in c["samples"].get("rejected", [])
    ]


def reconcile_beside_an_app(running: stack.Stack) -> None:
    """An app writes for a minute and loses some; reconciliation finds what its windows show, a sweep repairs all of it."""
    say("An app writes with the dual-write helper for a minute; some writes are lost on purpose")
    app = LiveApp(firestore.Client(project=stack.PROJECT), running.target)
    app.run(60)
    app.close()
    print("written: " + ", ".join(f"{n} {outcome}" for outcome, n in app.written.items()))
    print("lost: " + "; ".join(f"{n} {what}" for what, n in app.losses.items()))
    quick = {"grace_seconds": 5}
    drifted = step(running, reconcile_plan.DAG_ID, quick, "what did not arrive?")
    if drifted.state != "failed":
        raise SystemExit("demo: writes were lost, so the reconciliation must fail")
    print(
        "It fails, as it should: the failed run is the alert. It saw what its windows show; a sweep finds the rest, and repairs it."
    )
    repair = {**quick, "scope": "sweep", "repair": "all"}
    step(running, reconcile_plan.DAG_ID, repair, "every document and every row; what was lost is repaired")
    green = step(running, reconcile_plan.DAG_ID, {**quick, "scope": "sweep"}, "the next run is green")
    if green.state != "success":
        raise SystemExit("demo: after the repair the next run must succeed")


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dualwrite-demo-", ignore_cleanup_errors=True) as folder:
        say("Starting the Firestore emulator and Postgres, seeding a small world with awkward cases")
        with stack.databases(Path(folder)) as running:
            rows = sum(map(len, running.world.rows.values()))
            print(f"{len(running.world.documents):,} documents in Firestore, {rows:,} rows in Postgres, 13 collections")
            gap = {"collections": ALL, "grace_seconds": 1}
            step(running, "apply_migrations", {"mode": "apply"}, "creates drafts, reviews and the bundle's own schema")
            dry = step(running, "backfill_gap", {**gap, "mode": "dry_run"}, "what is in the gap? Nothing is written")
            first = step(running, "backfill_gap", {**gap, "mode": "apply"}, "written, then verified key by key")
            print("It fails, as it should: some documents can't become rows. A person looks at them, and excuses them.")
            accept = {"excuse": rejected(first), "excuse_reason": "looked at: broken since 2024"}
            second = step(running, "backfill_gap", {**gap, "mode": "apply", **accept}, "again: writes 0 rows, verified")
            say(f"Rows written: dry run {written(dry)}, apply {written(first)}, second apply {written(second)}")
            if written(dry) or not written(first) or written(second) or second.state != "success":
                raise SystemExit("demo: the dry run and the second apply must write nothing, and the last run succeed")
            reconcile_beside_an_app(running)
    say(
        f"Done in {time.monotonic() - began:.0f} s; nothing is left running. Next: `make up`, the same with Airflow's UI."
    )


if __name__ == "__main__":
    main()
