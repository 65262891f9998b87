"""The tasks of reconcile_dual_writes: their input from Airflow, and their results. runs/reconciliation.py does the work."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from dualwrite import alerts, settings
from dualwrite.catalog import CATALOG
from dualwrite.edge import overdue
from dualwrite.edge.assets import GREEN, GREEN_IF_COMPARED, PARITY, PARITY_IF_EQUAL
from dualwrite.edge.connections import source, source_maker, target, target_connector
from dualwrite.edge.contexts import page_link, requested_params, triggered_by
from dualwrite.edge.errors import (
    errors_of_run,
    fail,
    failures,
    has_tries_left,
    nothing_examined,
    report_or_why_not,
    without_content,
    worth_a_retry,
)
from dualwrite.model import links
from dualwrite.model.alert import line
from dualwrite.model.errors import DualWriteError, ParameterError
from dualwrite.model.reconcile_params import BY_A_PERSON, SCHEDULED_MAX_BILLED_READS, ReconcileParams
from dualwrite.model.render import as_text, wrapped
from dualwrite.model.run_report import CollectionResult, FirstLook, Gate, R, RunReport, SliceResult, TaskResult
from dualwrite.postgres.target import Target
from dualwrite.runs import history, open_list, reconcile_plan, reconciliation
from dualwrite.runs import repair as repairs
from dualwrite.runs.reconcile_plan import Plan, Run
from dualwrite.runs.record import Limits
from dualwrite.runs.report import text
from dualwrite.runs.report.build import build_report
from dualwrite.runs.slices import sweep
from dualwrite.runs.slices.slice import Slice
from dualwrite.runs.slices.sweep import Sweeps

log = logging.getLogger("dualwrite")


# --- parameters ---------------------------------------------------------------------------------------------------------


def params_of(context: Mapping[str, Any]) -> ReconcileParams:
    """The parameters of a reconciliation. A scheduled run takes its defaults from the Variables reconcile_*, so an operator can
    turn repairs on without touching code; a manual run takes only its form's.

    Parameters that only a person gives are refused in Variables: an excuse there would silence all later differences. Raises
    ParameterError.
    """
    requested = requested_params(context)
    if is_scheduled(context):
        if requested.get("max_billed_reads") is None:
            requested = {**requested, "max_billed_reads": SCHEDULED_MAX_BILLED_READS}
        for name in ReconcileParams.form():
            variable = settings.named(f"reconcile_{name}")
            text = Variable.get(variable, default=None)
            if text is None:
                continue
            if name in BY_A_PERSON:
                raise ParameterError(
                    f"Only a person gives {name}, and only for differences open at that moment: Variable {variable} would apply to "
                    f"all later ones too. Delete it, and trigger a run with {name} instead.",
                    code="variable-not-for-schedules",
                )
            changed = {**requested, name: _from_variable(text)}
            if changed.get("scope") == "none":
                raise ParameterError(
                    f"A scheduled run compares: Variable {variable} = none would leave everything unseen. Delete it.",
                    code="scheduled-scope-none",
                )
            try:
                ReconcileParams.checked(changed, CATALOG)
            except DualWriteError as error:
                raise ParameterError(f"Variable {variable} can't be used. {error}", code=error.code) from None
            requested = changed
    return ReconcileParams.checked(requested, CATALOG)


def is_scheduled(context: Mapping[str, Any]) -> bool:
    """Whether a schedule began the run."""
    run_type = getattr(context["dag_run"], "run_type", "manual")
    return bool(getattr(run_type, "value", run_type) == "scheduled")  # an enum in a task: its str() is not its value


def _from_variable(text: Any) -> Any:
    """A Variable's text, parsed if it is JSON (30, true, ["users"]), else unchanged (missing)."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def dual_write_enabled() -> bool:
    """The rollback switch: Variable dual_write_enabled; true if it doesn't exist. Raises ParameterError for other values."""
    text = str(Variable.get(settings.named("dual_write_enabled"), default="true")).strip().lower()
    if text not in ("true", "false"):
        raise ParameterError(
            f"Variable {settings.named('dual_write_enabled')} must be true or false: it is {text!r}. Correct it under Admin, Variables.",
            code="dual-write-enabled-not-boolean",
        )
    return text == "true"


def link_templates() -> dict[str, str]:
    """The links of this installation, from Variables dualwrite_link_*; see model/links.py."""
    return links.templates({name: Variable.get(key, default=None) for name, key in links.VARIABLES.items()})


# --- shared by tasks ----------------------------------------------------------------------------------------------------


def plan_of(context: Mapping[str, Any]) -> Plan:
    """The plan of preflight; skips the task if there is none."""
    plan = context["ti"].xcom_pull(task_ids="preflight", key="plan")
    if plan is None:
        raise AirflowSkipException("Preflight did not pass, so nothing is examined. See the task preflight.")
    return Plan.from_json(plan)


@contextmanager
def run_of(context: Mapping[str, Any], plan: Plan) -> Iterator[Run]:
    """The run of a task, with both sides connected; errors in its body are handled as errors_of_run does."""
    limits = Limits.of(plan.params)
    with errors_of_run(context), source(limits) as firestore, target(limits) as postgres_target:
        yield Run(firestore, postgres_target, CATALOG, str(context["run_id"]), plan, dual_write_enabled)


def _opener(run_id: str, plan: Plan) -> reconciliation.Opened:
    """A function that opens a run in any thread; Airflow is asked here, in the task's own thread."""
    limits = Limits.of(plan.params)
    make_source, connect = source_maker(limits), target_connector()

    @contextmanager
    def opened() -> Iterator[Run]:
        with make_source() as firestore, Target(connect, CATALOG, limits.rows) as postgres_target:
            yield Run(firestore, postgres_target, CATALOG, run_id, plan)

    return opened


@contextmanager
def _finished(context: Mapping[str, Any], plan: Plan) -> Iterator[reconciliation.Finished[R]]:
    """Keeps the reports that this task finishes for its next try, in Airflow's task state store (new in Airflow 3.3; without it
    a retry begins anew): one call of Airflow's API for each report. A task that succeeds deletes them, so if a person clears it, it
    looks again."""
    store = context.get("task_state_store")
    if store is None:
        yield reconciliation.Finished()
        return
    made, kept = plan.now.isoformat(), store.get("kept") or {}
    reports: dict[str, R] = dict(kept["reports"]) if kept.get("plan") == made else {}

    def keep(name: str, report: R) -> None:
        reports[name] = report
        store.set("kept", {"plan": made, "reports": reports})

    yield reconciliation.Finished(dict(reports), keep)
    store.delete("kept")


def _result_or_retry(context: Mapping[str, Any], ended: reconciliation.TaskReports[R]) -> TaskResult[R]:
    """A task's reports as JSON. Raises if a retry may still succeed; the retry repeats only what failed."""
    errors = {name: without_content(error) for name, error in ended.errors.items()}
    text = "; ".join(f"{name}: {error}" for name, error in errors.items())
    again = next((error for error in errors.values() if worth_a_retry(error)), None)
    if again is not None and has_tries_left(context):
        raise type(again)(text, code=again.code) if isinstance(again, DualWriteError) else type(again)(text)
    if errors:
        log.error("%s", text)
    return reconciliation.task_result(ended, lambda error: str(without_content(error)))


# --- the tasks ----------------------------------------------------------------------------------------------------------


def preflight(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Checks both sides and fixes the plan, which it leaves as XCom `plan`. Returns the slices of large sweeps, because Airflow
    can map a task only over a returned list."""
    push = context["ti"].xcom_push
    with errors_of_run(context):
        params = params_of(context)
    limits = Limits.of(params)
    with errors_of_run(context), source(limits) as firestore, target(limits) as postgres_target:
        plan = reconcile_plan.preflight(
            firestore,
            postgres_target,
            CATALOG,
            params,
            str(context["run_id"]),
            by=triggered_by(context),
            dual_write_enabled=dual_write_enabled(),
            unattended=is_scheduled(context),
            asked_at=getattr(context["dag_run"], "run_after", None),
        )
        plan = replace(
            plan,
            hung=overdue.hung(context, plan.before),
            links=link_templates(),
            project=firestore.project,
            database=firestore.wire.database_id,
        )
        sweeps = sweep.prepare(Run(firestore, postgres_target, CATALOG, str(context["run_id"]), plan))
        push(key="plan", value=replace(plan, billed_reads=firestore.billed_reads).as_json())
        push(key="baselines", value=sweeps.baselines)
    return [part.as_json() for part in sweeps.parts]


def sweep_slice(context: Mapping[str, Any], part: Mapping[str, Any]) -> SliceResult:
    """The first look at one slice of a large collection."""
    with run_of(context, plan_of(context)) as run:
        own = Slice.from_json(part)
        log.info("%s", own)  # with its bounds
        return sweep.look_at_slice(run, own)


def _sweeps(context: Mapping[str, Any]) -> Sweeps:
    """The sweeps' slices with the results of their tasks; None for those that failed or never ran."""
    pull = context["ti"].xcom_pull
    parts = [Slice.from_json(part) for part in pull(task_ids="preflight") or ()]
    made = list(pull(task_ids="sweep_slices", map_indexes=range(len(parts)))) if parts else []
    return Sweeps(parts, pull(task_ids="preflight", key="baselines") or {}, made)


def compare(context: Mapping[str, Any]) -> TaskResult[FirstLook]:
    """The first look at every collection. If one fails at the last try, it is reported as not examined."""
    plan = plan_of(context)
    finished: reconciliation.Finished[FirstLook]
    with errors_of_run(context), _finished(context, plan) as finished:
        opener = _opener(str(context["run_id"]), plan)
        return _result_or_retry(context, reconciliation.compare(plan, opener, finished, sweeps=_sweeps(context)))


def grace(context: Mapping[str, Any]) -> bool:
    """True once it is time for the second look; until then, reschedules the task to exactly that moment."""
    compared = context["ti"].xcom_pull(task_ids="compare") or {}
    moment = reconciliation.look_again_at(plan_of(context), compared.get("reports", {}))
    if moment is not None and datetime.now(UTC) < moment:
        context["ti"].xcom_push(key="until", value=moment.isoformat())  # the page shows it
        raise AirflowRescheduleException(moment)
    return True


def look_again(context: Mapping[str, Any]) -> bool:
    """The second look, and the gate. Returns whether there is something to repair or undo."""
    push = context["ti"].xcom_push
    with run_of(context, plan_of(context)) as run:
        push(key="looked", value=_result_or_retry(context, reconciliation.look_again(run)))
        gate = repairs.gate(run)
        push(key="gate", value=gate)
    return reconciliation.is_due(gate)


def repair(context: Mapping[str, Any]) -> TaskResult[CollectionResult]:
    """Makes the repair that the gate planned, or the undo, and looks at the written rows once more."""
    plan = plan_of(context)
    finished: reconciliation.Finished[CollectionResult]
    with run_of(context, plan) as run, _finished(context, plan) as finished:
        gate: Gate = context["ti"].xcom_pull(task_ids="look_again", key="gate")
        return _result_or_retry(context, reconciliation.repair_all(run, gate, finished))


def report(context: Mapping[str, Any]) -> RunReport:
    """The report of the whole run, in the log and as XCom. Fails with all its alerts, for example while any drift is open that
    isn't excused."""
    pull = context["ti"].xcom_pull
    if pull(task_ids="preflight", key="plan") is None:  # a skipped report would make the run a success
        nothing_examined(context)
    parts = reconciliation.parts_of(
        pull(task_ids="compare"),
        pull(task_ids="look_again", key="looked"),
        pull(task_ids="look_again", key="gate"),
        pull(task_ids="repair"),
        failures(context, ("compare", "grace", "look_again", "repair")),
    )
    plan = plan_of(context)
    with (
        report_or_why_not(context),
        errors_of_run(context),
        target() as postgres_target,
        postgres_target.transaction() as connection,
    ):
        whole = build_report(connection, CATALOG, str(context["run_id"]), plan, parts)
        pages, whole["listed"] = open_list.pages(connection, unattended=plan.unattended)
        histories = history.histories(connection, plan.params.named)
    for number, page in enumerate(pages):
        context["ti"].xcom_push(key=f"open_{number}", value=page)
    if histories:
        context["ti"].xcom_push(key="histories", value=histories)
    log.info("\n%s", as_text(text.described(whole)))
    context["ti"].xcom_push(key="return_value", value=whole)  # before failing: the report is wanted most then
    if whole["alerts"]:
        alerts.tell(whole["alerts"], page_link())
        fail([line(alert, page_link()) for alert in whole["alerts"]])
    log.info("%s", wrapped(whole["verdict"]))  # again: Airflow shows a log from its end
    if whole["compares"]:
        context["outlet_events"][GREEN_IF_COMPARED].add(GREEN)
    if whole["parity"]["equal"]:
        context["outlet_events"][PARITY_IF_EQUAL].add(PARITY, extra={"oldest_sweep": whole["parity"]["oldest_sweep"]})
    return whole
