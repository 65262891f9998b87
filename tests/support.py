"""What several tests need: a run of the backfill without Airflow, and an independent look at both databases."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from google.cloud import firestore

from dualwrite.catalog import CATALOG, EXPORT_TIME
from dualwrite.engine.compare import Examiner
from dualwrite.engine.job import Job
from dualwrite.engine.looks import Look
from dualwrite.engine.units import Policy
from dualwrite.firestore.source import Source
from dualwrite.model import gap_params
from dualwrite.model.alert import line
from dualwrite.model.declaration import Catalog
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.render import as_text
from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import CollectionResult, RunReport, Sample
from dualwrite.postgres.target import Target
from dualwrite.runs import backfill, reconcile_plan, reconciliation
from dualwrite.runs.record import Limits
from dualwrite.runs.report import text
from tests import shape
from tests.kept import KeptTarget, looking

DEFAULTS: dict[str, Any] = {
    "since": EXPORT_TIME,
    "collections": list(CATALOG.names),
    "mode": "apply",
    "grace_seconds": 0.2,
}


def params(*, catalog: Catalog = CATALOG, **changes: Any) -> gap_params.GapParams:
    return gap_params.parse({**DEFAULTS, **changes}, catalog, datetime.now(UTC))


@contextmanager
def gap_run(project: str, emulator: str, dsn: str, *, run_id: str = "run", catalog: Catalog = CATALOG, **changes: Any):
    """A Run over real parts, closed afterwards."""
    given = params(catalog=catalog, **changes)
    limits = Limits.of(given)
    with (
        Source(project, emulator_host=emulator, budget=limits.budget, pace=limits.reads) as source,
        KeptTarget(dsn, catalog, limits.rows) as target,
    ):
        yield backfill.Run(source, target, catalog, run_id, given)


@contextmanager
def examiner_of(
    client: firestore.Client, emulator: str, dsn: str, report: CollectionReport, policy: Policy, run_id: str = "r"
) -> Iterator[Examiner]:
    """What compares and writes one collection, the report's, over real parts."""
    with (
        Source(client.project, emulator_host=emulator) as source,
        KeptTarget(dsn, CATALOG) as target,
        Examiner(
            Job(source, target, CATALOG, CATALOG[report.collection], run_id, report), policy, Look(report)
        ) as examiner,
    ):
        yield examiner


def examine_all(run: backfill.Run, *, dry: bool, names: Iterable[str] | None = None) -> dict[str, CollectionResult]:
    return {name: backfill.examine(run, name, dry=dry) for name in names or run.params.names}


def verify_all(run: backfill.Run, names: Iterable[str] | None = None) -> dict[str, CollectionResult]:
    return {name: backfill.verify(run, name, counts_only=False) for name in names or run.params.names}


def apply(project: str, emulator: str, dsn: str, **changes: Any) -> dict[str, CollectionResult]:
    """One apply of the gap backfill."""
    with gap_run(project, emulator, dsn, **changes) as run:
        return examine_all(run, dry=False)


def dry_run(project: str, emulator: str, dsn: str, **changes: Any) -> dict[str, CollectionResult]:
    with gap_run(project, emulator, dsn, mode="dry_run", **changes) as run:
        return examine_all(run, dry=True)


RECONCILE_DEFAULTS: dict[str, Any] = {"collections": list(CATALOG.names), "grace_seconds": 0.2}


@dataclass
class Reconciled:
    """What a reconciliation ended with."""

    report: RunReport
    alerts: list[str]
    """Each as the log has it, without links."""
    gate: dict[str, Any]

    def counts(self, name: str) -> dict[str, int]:
        """The verdicts of one collection, without what matches."""
        [found] = [c for c in self.report["collections"] if c["collection"] == name]
        return {v: n for v, n in found["counts"].items() if n and v != "matching"}

    def text(self) -> str:
        """The report as the log shows it, its lines and columns joined by single spaces."""
        return " ".join(as_text(text.described(self.report)).split())

    def sample(self, name: str, verdict: str) -> Sample:
        [found] = [c for c in self.report["collections"] if c["collection"] == name]
        [sample] = found["samples"][verdict]
        return sample


@contextmanager
def reconciliation_of(
    project: str,
    emulator: str,
    dsn: str,
    *,
    run_id: str | None = None,
    enabled: bool = True,
    switch: Callable[[], bool] | None = None,
    catalog: Catalog = CATALOG,
    now: datetime | None = None,
    unattended: bool = False,
    asked_at: datetime | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    **changes: Any,
) -> Iterator[tuple[reconcile_plan.Plan, reconciliation.Opened]]:
    """A reconciliation whose preflight has passed: its plan, and what opens it over real parts."""
    given = ReconcileParams.checked({**RECONCILE_DEFAULTS, **changes}, catalog)
    run_id = run_id or f"run-{uuid.uuid4().hex[:6]}"
    with ExitStack() as stack:
        idle: list[Target] = []  # a new connection takes longer than most of these looks

        @contextmanager
        def parts() -> Iterator[tuple[Source, Target]]:
            target = idle.pop() if idle else stack.enter_context(KeptTarget(dsn, catalog))
            with Source(project, emulator_host=emulator, budget=Limits.of(given).budget) as source:
                yield source, target
            idle.append(target)

        @contextmanager
        def opened() -> Iterator[reconcile_plan.Run]:
            with parts() as (source, target):
                yield reconcile_plan.Run(source, target, catalog, run_id, plan, switch)

        with parts() as (source, target):
            plan = reconcile_plan.preflight(
                source, target, catalog, given, run_id, by="a test", dual_write_enabled=enabled, now=now,
                unattended=unattended, asked_at=asked_at, clock=clock,
            )  # fmt: skip
        yield plan, opened


@contextmanager
def reconcile_run(project: str, emulator: str, dsn: str, **changes: Any) -> Iterator[reconcile_plan.Run]:
    """One open run of a reconciliation whose preflight has passed."""
    with reconciliation_of(project, emulator, dsn, **changes) as (_, opened), opened() as run:
        yield run


def reconciled(
    project: str,
    emulator: str,
    dsn: str,
    *,
    between: Callable[[], object] = lambda: None,
    side_by_side: int = 2,
    **changes: Any,
) -> Reconciled:
    """A whole reconciliation as its DAG does it, without Airflow. `between` happens between the two looks.

    Each collection more that is compared `side_by_side` opens connections for a few rows.
    """
    with (
        mock.patch.object(reconciliation, "SIDE_BY_SIDE", side_by_side),
        reconciliation_of(project, emulator, dsn, **changes) as (plan, opened),
    ):
        ended = reconciliation.whole(plan, opened, between=between)
    assert shape.faults(ended.report, RunReport) == []
    return Reconciled(ended.report, [line(a) for a in ended.report["alerts"]], dict(ended.gate or {}))


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {verdict: n for verdict, n in counts.items() if n}


def table_bytes(dsn: str) -> dict[str, str]:
    """A digest of every row of every table of the app with its place and version: any write changes it."""
    with looking(dsn) as connection:
        return {
            table: connection.execute(
                f"SELECT md5(coalesce(string_agg(t.ctid::text || t.xmin::text || t::text, '|' ORDER BY t.ctid), '')) FROM {table} t"
            ).fetchone()[0]
            for table in sorted({c.table for c in CATALOG})
        }


def one(dsn: str, query: str, *parameters: Any) -> Any:
    with looking(dsn) as connection:
        row = connection.execute(query, parameters).fetchone()
        return row[0] if row and len(row) == 1 else row


def rows_of(dsn: str, table: str) -> dict[str, dict[str, Any]]:
    """Every row of a table, whole, by its id."""
    with looking(dsn) as connection:
        return dict(connection.execute(f"SELECT t.id, to_jsonb(t.*) FROM {table} t").fetchall())
