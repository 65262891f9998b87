"""The report of one run: small JSON, a summary in a sentence, and text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dualwrite import postgres, settings
from dualwrite.migrations.ledger import applied_by
from dualwrite.migrations.plan import make_plan
from dualwrite.migrations.verify import verify, web_client_state, web_client_tables
from dualwrite.model.alert import alert
from dualwrite.model.errors import DualWriteError
from dualwrite.model.migration_params import MigrationParams
from dualwrite.model.render import Block, Heading, Items, Paragraph, Table
from dualwrite.model.run_report import VERSION, Alert, MigrationsReport, MigrationsStanding, MigrationStep
from dualwrite.postgres import Connection, privileges
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.remembered import interventions

DAG_ID = settings.named("apply_migrations")

_WOULD_BE = {"pending": "would be applied", "interrupted": "would be finished"}


def standing(connection: Connection) -> MigrationsStanding:
    """The target compared with the migrations now: how many files are applied, which are pending, how many differences there are;
    or, in `unknown`, why the comparison failed."""
    result: MigrationsStanding = {"applied": 0, "pending": [], "differences": 0, "unknown": None}
    try:
        steps = make_plan(connection, MigrationParams())
        result["differences"] = len(verify(connection, steps))
    except (DualWriteError, OSError) as error:
        return {**result, "unknown": str(error)}
    except postgres.Error as error:
        return {**result, "unknown": f"Postgres answered {postgres.condition(error)}."}
    result["applied"] = sum(s.state.startswith("applied") for s in steps)
    result["pending"] = [s.label for s in steps if not s.state.startswith("applied")]
    return result


def keep_person(connection: Connection, run_id: str, person: str) -> None:
    """Records who applied migrations in this run, if it applied any and the role may write that (the ledger has the role)."""
    if privileges.missing_grants(connection, {f"{SCHEMA}.interventions": ("INSERT", "UPDATE")}):
        return
    with connection.transaction():
        if applied := applied_by(connection, run_id):
            interventions.keep(connection, DAG_ID, run_id, "migration", person, numbers={"migrations": applied})


def build_report(
    connection: Connection,
    params: MigrationParams,
    run_id: str,
    steps: Sequence[MigrationStep],
    differences: Sequence[str] | None,
    errors: Mapping[str, str] | None = None,
) -> MigrationsReport:
    """States, names and differences (None: never compared), no SQL. `errors`: by task id, the error that ended the task."""
    return {
        "version": VERSION,
        "dag_id": DAG_ID,
        "run_id": run_id,
        "mode": params.mode,
        "steps": list(steps),
        "web_client": web_client_state(connection),
        "web_client_tables": web_client_tables(),
        "differences": None if differences is None else list(differences),
        "verdict": _summary(params.mode, steps, differences),
        "alerts": _alerts(steps, differences, errors or {}),
    }


def _alerts(
    steps: Sequence[MigrationStep], differences: Sequence[str] | None, errors: Mapping[str, str]
) -> list[Alert]:
    """Why the run fails; empty if it succeeds."""
    if differences is None:
        why = "; ".join(f"{task} failed: {error}" for task, error in errors.items())
        said = "applied, but not compared with the tables" if _all_applied(steps) else "only partly applied"
        text = f"The migrations were {said}: {why or 'a task did not run; see plan, apply and verify'}"
        return [alert(text, kind="partly_applied")]
    if differences:
        text = f"The target is not as the migrations promise: {'; '.join(differences)}"
        return [alert(text, kind="tables_differ")]
    return []


def _all_applied(steps: Sequence[MigrationStep]) -> bool:
    return all(step["state"].startswith("applied") for step in steps)


def _summary(mode: str, steps: Sequence[MigrationStep], differences: Sequence[str] | None) -> str:
    """The run in one sentence."""
    states = Counter(step["state"] for step in steps)
    refused = [f"{s['version']}_{s['name']}" for s in steps if s["state"] == "refused"]
    if refused:
        return f"Refused, nothing was applied: {', '.join(refused)}."
    if mode == "dry_run" and differences is None:
        return "The dry run did not end. Nothing was changed."
    if mode == "dry_run":
        waiting = states["pending"] + states["interrupted"] + states["not_tried"]
        if not waiting:
            return "Nothing is left to apply."
        untried = f" {states['not_tried']} of them could not be tried." if states["not_tried"] else ""
        return f"{waiting} migrations would be applied.{untried} Nothing was changed."
    if differences is None:
        if _all_applied(steps):
            return "Not verified: every migration is applied, but nothing compared the tables."
        return "Not verified: the migrations were only partly applied."
    if differences:
        return "The tables differ from the migrations' promises."
    return "Verified: every migration is applied, and the tables are as they promise."


def described(report: MigrationsReport) -> list[Block]:
    """The run as a person reads it."""
    would = _WOULD_BE if report["mode"] == "dry_run" else {}
    rows = [
        [s["version"], s["name"], would.get(s["state"], s["state"].replace("_", " ")), s["reason"] or ""]
        for s in report["steps"]
    ]
    blocks: list[Block] = [
        Heading(f"Migrations, {report['mode'].replace('_', ' ')}"),
        Paragraph(report["verdict"], strong=True),
        Table(["version", "name", "state", "reason"], rows, left=4),
    ]
    if any(step["state"] == "not_tried" for step in report["steps"]):
        blocks.append(
            Paragraph("Not tried is not failed: an apply may succeed. The reason says why the dry run couldn't try it.")
        )
    tables = ", ".join(report["web_client_tables"])
    if tables:
        access = f"Web client's access to {tables}: {report['web_client']}."
        if report["web_client"] == "closed":
            access += (
                " While it is closed, the web client's own dual-writes to these tables are refused (42501). "
                "sql/optional/web_client_anon.sql explains what opening it means."
            )
        blocks.append(Paragraph(access))
    if report["mode"] == "apply" and report["differences"]:
        blocks.append(Items("Differences", report["differences"]))
    return blocks
