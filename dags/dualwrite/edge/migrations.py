"""The tasks of apply_migrations: their input from Airflow, and their results. migrations/ does the work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dualwrite import migrations
from dualwrite.edge.connections import migrations_connection
from dualwrite.edge.contexts import requested_params, triggered_by
from dualwrite.edge.errors import errors_of_run, errors_without_content, fail, failures, report_or_why_not
from dualwrite.migrations import MigrationParams, Migrator, Step
from dualwrite.model.alert import line
from dualwrite.model.render import as_text, wrapped
from dualwrite.model.run_report import MigrationsReport, MigrationStep
from dualwrite.postgres import Connection

log = logging.getLogger("dualwrite")


def params_of(context: Mapping[str, Any]) -> MigrationParams:
    """The parameters of a run. Raises ParameterError."""
    return MigrationParams.checked(requested_params(context))


def plan(context: Mapping[str, Any]) -> list[MigrationStep]:
    """Each file's state, also in the log."""
    with errors_of_run(context), migrations_connection() as connection:
        steps = migrations.make_plan(connection, params_of(context))
    for step in steps:
        log.info("%s: %s%s", step.label, step.state, f", {step.reason}" if step.reason else "")
    return [step.as_json() for step in steps]


def apply(context: Mapping[str, Any]) -> list[MigrationStep]:
    """Executes the pending files, and in mode apply keeps who asked for it."""
    with errors_of_run(context):
        migrator = Migrator(migrations_connection, params_of(context), context["run_id"])
        steps = migrator.run()
        migrator.set_web_client()
        if params_of(context).mode == "apply":
            with migrations_connection() as connection:
                migrations.keep_person(connection, str(context["run_id"]), triggered_by(context))
    return [step.as_json() for step in steps]


def verify(context: Mapping[str, Any], steps: list[MigrationStep]) -> list[str]:
    """The differences between the tables and the files' promises; none after a dry run."""
    with errors_of_run(context), migrations_connection() as connection:
        if params_of(context).mode == "dry_run":
            return []
        return migrations.verify(connection, [Step(**step) for step in steps])


def _as_they_are(connection: Connection, params: MigrationParams) -> list[MigrationStep]:
    """Each file's present state: if `apply` failed or was killed, the plan made before it would call applied files pending."""
    return [step.as_json() for step in migrations.make_plan(connection, params)]


def report(context: Mapping[str, Any]) -> MigrationsReport:
    """The report, in the log and as XCom. Fails if a file was refused or failed, or if the tables differ."""
    pull = context["ti"].xcom_pull
    applied, differences = pull(task_ids="apply"), pull(task_ids="verify")
    with report_or_why_not(context), errors_without_content(), migrations_connection() as connection:
        whole = migrations.build_report(
            connection,
            params_of(context),
            context["run_id"],
            applied or _as_they_are(connection, params_of(context)),
            differences,
            failures(context, ("plan", "apply", "verify")),
        )
    log.info("\n%s", as_text(migrations.described(whole)))
    context["ti"].xcom_push(key="return_value", value=whole)  # before failing: it is wanted most then
    if whole["alerts"]:
        fail([line(alert) for alert in whole["alerts"]])
    log.info("%s", wrapped(whole["verdict"]))  # again: Airflow shows a log from its end
    return whole
