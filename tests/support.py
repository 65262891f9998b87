"""What several tests need: a run of the backfill without Airflow, and an independent look at both databases."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from dualwrite import postgres
from dualwrite.catalog import CATALOG, EXPORT_TIME
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog
from dualwrite.postgres.target import Target
from dualwrite.runs import backfill, reconcile, reconcile_plan, reconcile_report, repair

DEFAULTS: dict[str, Any] = {
    "since": EXPORT_TIME,
    "margin_hours": 24,
    "until": None,
    "collections": list(CATALOG.names),
    "scope": "window",
    "mode": "apply",
    "update_stale": True,
    "page_size": 5000,
    "explain_up_to": 250_000,
    "grace_seconds": 0.2,
    "excuse": [],
    "excuse_reason": None,
}


def params(*, catalog: Catalog = CATALOG, **changes: Any) -> backfill.GapParams:
    return backfill.parse({**DEFAULTS, **changes}, backfill.PARAMETERS, catalog, datetime.now(UTC))


@contextmanager
def gap_run(project: str, emulator: str, dsn: str, *, run_id: str = "run", catalog: Catalog = CATALOG, **changes: Any):
    """A Run over real parts, closed afterwards."""
    with (
        Source(project, emulator_host=emulator) as source,
        Target(lambda: postgres.connect(dsn), catalog) as target,
    ):
        yield backfill.Run(source, target, catalog, params(catalog=catalog, **changes), run_id)


def examine_all(run: backfill.Run, *, dry: bool, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    return {name: backfill.examine(run, name, dry=dry) for name in names or run.params.names}


def verify_all(run: backfill.Run, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    return {name: backfill.verify(run, name, counts_only=False) for name in names or run.params.names}


def apply(project: str, emulator: str, dsn: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """One apply of the gap backfill."""
    with gap_run(project, emulator, dsn, **changes) as run:
        return examine_all(run, dry=False)


def dry_run(project: str, emulator: str, dsn: str, **changes: Any) -> dict[str, dict[str, Any]]:
    with gap_run(project, emulator, dsn, mode="dry_run", **changes) as run:
        return examine_all(run, dry=True)


RECONCILE_DEFAULTS: dict[str, Any] = {
    "minutes": 30,
    "overlap_minutes": 60,
    "grace_seconds": 0.2,
    "scope": "recent",
    "sweep_every_hours": 24,
    "collections": list(CATALOG.names),
    "repair": "off",
    "max_repairs": 500,
    "max_share": 5,
    "liveness_minimum": 5,
    "excuse": [],
    "excuse_reason": None,
    "unexcuse": [],
}


@dataclass
class Reconciled:
    """What a reconciliation ended with."""

    report: dict[str, Any]
    alerts: list[str]
    gate: dict[str, Any]

    def counts(self, name: str) -> dict[str, int]:
        """The verdicts of one collection, without what matches."""
        [found] = [c for c in self.report["collections"] if c["collection"] == name]
        return {v: n for v, n in found["counts"].items() if n and v != "matching"}

    def sample(self, name: str, verdict: str) -> dict[str, Any]:
        [found] = [c for c in self.report["collections"] if c["collection"] == name]
        [sample] = found["samples"][verdict]
        return sample


def reconciled(
    project: str,
    emulator: str,
    dsn: str,
    *,
    run_id: str | None = None,
    now: datetime | None = None,
    enabled: bool = True,
    between: Callable[[], object] = lambda: None,
    catalog: Catalog = CATALOG,
    **changes: Any,
) -> Reconciled:
    """A whole reconciliation as its DAG does it, without Airflow. `between` happens between the two looks."""
    given = reconcile_plan.parse({**RECONCILE_DEFAULTS, **changes}, catalog)
    run_id = run_id or f"run-{uuid.uuid4().hex[:6]}"
    with Source(project, emulator_host=emulator) as source, Target(lambda: postgres.connect(dsn), catalog) as target:
        plan = reconcile_plan.preflight(
            source, target, catalog, given, run_id, by="a test", dual_write_enabled=enabled, now=now
        )
        run = reconcile_plan.Run(source, target, catalog, run_id, plan)
        compared = {name: reconcile.compare(run, name) for name in given.selected}
        between()
        if any(c["to_wait_for"] for c in compared.values()):
            time.sleep(given.grace_seconds)
        looked = reconcile.look_again(run)
        gate = repair.gate(run)
        repaired, again = [], None
        if gate and gate["planned"] and not gate["problem"]:
            names = [n for n in catalog.names if n in gate["planned"]]
            due = {name: repair.steps(gate["planned"][name]) for name in names}
            repaired += [repair.delete(run, name) for name in reversed(names) if "delete" in due[name]]
            repaired += [repair.write(run, name) for name in names if "write" in due[name]]
            repaired = [part for part in repaired if part]
            again = reconcile.re_examine(run, names)
        parts = reconcile_report.Parts(compared, looked, gate, repaired, again)
        with target.transaction() as connection:
            report = reconcile_report.build_report(connection, catalog, run_id, plan, parts)
        return Reconciled(report, report["alerts"], gate)


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {verdict: n for verdict, n in counts.items() if n}


def table_bytes(dsn: str) -> dict[str, str]:
    """A digest of every row of every table of the app with its place and version: any write changes it."""
    with psycopg.connect(dsn) as connection:
        return {
            table: connection.execute(
                f"SELECT md5(coalesce(string_agg(t.ctid::text || t.xmin::text || t::text, '|' ORDER BY t.ctid), '')) FROM {table} t"
            ).fetchone()[0]
            for table in sorted({c.table for c in CATALOG})
        }


def one(dsn: str, query: str, *parameters: Any) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query, parameters).fetchone()
        return row[0] if row and len(row) == 1 else row
