"""The Trigger forms, made from the parameters' declarations (see model/parameters.py)."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param

from dualwrite import settings
from dualwrite.catalog import CATALOG, EXPORT_TIME
from dualwrite.model.gap_params import GapParams
from dualwrite.model.migration_params import MigrationParams
from dualwrite.model.parameters import Params
from dualwrite.model.reconcile_params import ReconcileParams

DIALECT = "http://json-schema.org/draft-07/schema#"
"""Airflow checks each param's schema against its dialect, in each task and for each task that it serializes. Draft 7 takes less
than half the time of the newest draft, and suffices for a form."""


def _form(params: type[Params], **defaults: Any) -> dict[str, Param]:
    """A declaration as a form. `defaults`: those from the catalog."""
    form = {}
    for name, field in params.form().items():
        value = defaults.get(name, field.pop("default", None))
        words = field.pop("words", None)
        if "enum" in field:
            del field["type"]
            field["values_display"] = dict(zip(field["enum"], words, strict=True))
        if name == "collections":
            names = list(CATALOG.names)
            field |= {"examples": names, "items": {"type": "string", "enum": names}}
        description = field.pop("description").replace("{collection}", CATALOG.names[0])
        description = settings.said(description)
        form[name] = Param(value, description=description, **{"$schema": DIALECT}, **field)
    return form


def set_form(dag: DAG, form: dict[str, Param]) -> None:
    """Gives a DAG its Trigger form; raises ParamValidationError if the form doesn't allow a default.

    Call it after the DAG's tasks were made: Airflow copies the params that a DAG has by then into each task, where they are
    checked and serialized again.
    """
    dag.params.update(form)
    dag.params.validate()


def gap_form() -> dict[str, Param]:
    """The Trigger form of backfill_gap."""
    return _form(GapParams, collections=list(CATALOG.default_selection), since=EXPORT_TIME)


def reconcile_form() -> dict[str, Param]:
    """The Trigger form of reconcile_dual_writes."""
    return _form(ReconcileParams, collections=list(CATALOG.names))


def migration_form() -> dict[str, Param]:
    """The Trigger form of apply_migrations."""
    return _form(MigrationParams)


def approval_form() -> dict[str, Param]:
    """The reason that a person may add to an answer in backfill_gap's review."""
    return {
        "reason": Param(
            "",
            type=["null", "string"],
            title="Reason",
            description="Shown in the report beside your name. Say why, especially if you reject.",
        )
    }
