"""What a reconciliation is asked to do, and what its tasks agree on before the first of them looks: parameters, windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from dualwrite.engine import preflight as checks
from dualwrite.engine.units import Policy
from dualwrite.firestore.source import Source
from dualwrite.model import parameters
from dualwrite.model.choices import RECONCILE_SCOPES as SCOPES
from dualwrite.model.choices import REPAIRS
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.errors import ParameterError
from dualwrite.model.windows import Window, recent_window
from dualwrite.postgres import Connection, memory
from dualwrite.postgres.target import Target

DAG_ID = "reconcile_dual_writes"
PARAMETERS = (
    "minutes", "overlap_minutes", "grace_seconds", "scope", "sweep_every_hours", "collections", "repair", "max_repairs",
    "max_share", "liveness_minimum", "excuse", "excuse_reason", "unexcuse",
)  # fmt: skip

JOURNAL_DAYS = 30
RUNS_DAYS = 400


@dataclass(frozen=True, slots=True)
class ReconcileParams:
    """The parameters of one run, checked."""

    minutes: int
    overlap_minutes: int
    grace_seconds: float
    scope: str
    sweep_every_hours: float
    selected: tuple[str, ...]
    repair: str
    max_repairs: int
    max_share: float
    liveness_minimum: int
    excuses: tuple[tuple[str, str], ...]
    excuse_reason: str | None
    unexcuses: tuple[tuple[str, str], ...]

    @property
    def policy(self) -> Policy:
        """What a repair may write."""
        return Policy(
            insert=self.repair != "off",
            update=self.repair in ("missing_and_stale", "all"),
            delete=self.repair == "all",
        )

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        pairs = {name: tuple((c, k) for c, k in given[name]) for name in ("excuses", "unexcuses")}
        return cls(**{**given, **pairs, "selected": tuple(given["selected"])})


def parse(given: Mapping[str, Any], catalog: Catalog) -> ReconcileParams:
    """Checks the parameters of a run. Raises ParameterError with the first fault."""
    parameters.refuse_unknown(given, PARAMETERS)
    excuses = parameters.excuses(given)
    return ReconcileParams(
        minutes=int(parameters.number(given, "minutes", 1, 7 * 24 * 60)),
        overlap_minutes=int(parameters.number(given, "overlap_minutes", 0, 7 * 24 * 60)),
        grace_seconds=parameters.number(given, "grace_seconds", 0, 3600),
        scope=parameters.choice(given, "scope", SCOPES),
        sweep_every_hours=parameters.number(given, "sweep_every_hours", 0, 24 * 366),
        selected=parameters.collections(given, catalog),
        repair=parameters.choice(given, "repair", REPAIRS),
        max_repairs=int(parameters.number(given, "max_repairs", 1, 1_000_000)),
        max_share=parameters.number(given, "max_share", 0, 100),
        liveness_minimum=int(parameters.number(given, "liveness_minimum", 1, 1_000_000)),
        excuses=tuple(excuses),
        excuse_reason=parameters.reason(given, bool(excuses)),
        unexcuses=tuple(parameters.excuses(given, "unexcuse")),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What all tasks of a run agree on. `windows`: each collection's, and None where it is swept."""

    params: ReconcileParams
    now: datetime
    dual_write_enabled: bool
    windows: dict[str, Window | None]
    billed_reads: int = 0
    """What preflight itself cost."""

    @property
    def repairs(self) -> bool:
        """Whether this run may write: not while dual-write is switched off, which says that the target must wait."""
        return self.params.repair != "off" and self.dual_write_enabled

    def as_json(self) -> dict[str, Any]:
        windows = {
            n: None if w is None else {"start": w.start.isoformat(), "end": w.end.isoformat()}
            for n, w in self.windows.items()
        }
        return {
            "params": dataclasses.asdict(self.params),
            "now": self.now.isoformat(),
            "dual_write_enabled": self.dual_write_enabled,
            "windows": windows,
            "billed_reads": self.billed_reads,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        windows = {
            n: None if w is None else Window(datetime.fromisoformat(w["start"]), datetime.fromisoformat(w["end"]))
            for n, w in given["windows"].items()
        }
        return cls(
            ReconcileParams.from_json(given["params"]),
            datetime.fromisoformat(given["now"]),
            given["dual_write_enabled"],
            windows,
            given["billed_reads"],
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What the tasks of one run share."""

    source: Source
    target: Target
    catalog: Catalog
    run_id: str
    plan: Plan

    @property
    def params(self) -> ReconcileParams:
        return self.plan.params


# --- preflight ----------------------------------------------------------------------------------------------------------


def preflight(
    source: Source,
    target: Target,
    catalog: Catalog,
    params: ReconcileParams,
    run_id: str,
    *,
    by: str,
    dual_write_enabled: bool,
    now: datetime | None = None,
) -> Plan:
    """Checks both sides, keeps excuses, and fixes the windows: from each collection's watermark on. `by` is who asks."""
    now = now or datetime.now(UTC)
    with target.transaction() as connection:
        memory.require_schema(connection)
        memory.prune_journal(connection, JOURNAL_DAYS)
        memory.prune_runs(connection, RUNS_DAYS)
        _check_excuses(connection, catalog, [*params.excuses, *params.unexcuses])
        memory.excuse(connection, params.excuses, by=by, reason=str(params.excuse_reason), run_id=run_id)
        memory.unexcuse(connection, params.unexcuses)
        marks = {name: memory.watermark(connection, name) for name in params.selected}
    windows = {name: _window(params, catalog[name], mark, now) for name, mark in marks.items()}
    plan = Plan(params, now, dual_write_enabled, windows)
    # A repair also writes the parents that a missing row needs.
    examined = dict.fromkeys(catalog.with_parents(params.selected))
    checks.check(source, target, catalog, examined, writes=plan.repairs, estimate=False)
    return replace(plan, billed_reads=source.billed_reads)


def _window(
    params: ReconcileParams, collection: Collection, mark: tuple[datetime, datetime | None] | None, now: datetime
) -> Window | None:
    """From the watermark on; None where all is to be swept: because that was asked for, is due, or was never done, or
    because the collection has no check field and is read whole anyway."""
    until, swept = mark or (now, None)
    due = swept is None or now - swept >= timedelta(hours=params.sweep_every_hours)
    if due or params.scope == "sweep" or not collection.check_fields:
        return None
    return recent_window(until, params.minutes, now)


def _check_excuses(connection: Connection, catalog: Catalog, named: Iterable[tuple[str, str]]) -> None:
    """A collection that is named must be declared, or have differences open from when it was."""
    known = {*catalog.names, *(line["collection"] for line in memory.open_counts(connection))}
    for name, key in named:
        if name not in known:
            raise ParameterError(
                f"An excuse names a collection: {name!r} in {name}:{key} is none. Choose from {', '.join(sorted(known))}."
            )
