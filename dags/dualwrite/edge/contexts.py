"""Reads a task's context: parameters, the person who triggered the run, the answer to an approval, the page's address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.configuration import conf

from dualwrite import settings
from dualwrite.model.run_report import Answer


def requested_params(context: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run from its form and conf, with unknown keys, which Airflow doesn't refuse but our check does."""
    conf = getattr(context["dag_run"], "conf", None) or {}
    return {**dict(context["params"]), **conf}


def triggered_by(context: Mapping[str, Any]) -> str:
    """The person who triggered the run, or the run's id if no person did."""
    return getattr(context["dag_run"], "triggering_user_name", None) or str(context["run_id"])


def answer(context: Mapping[str, Any], task_id: str) -> Answer | None:
    """A person's answer to an approval: chosen options, name, and reason; None without one."""
    response = context["ti"].xcom_pull(task_ids=task_id)
    if response is None:
        return None
    by = (response.get("responded_by_user") or {}).get("name")
    return {
        "chosen": response["chosen_options"],
        "by": by,
        "reason": (response.get("params_input") or {}).get("reason") or None,
    }


def page_link() -> str:
    """The Parity page's address, for alerts to link to; empty if Airflow doesn't know its own address."""
    base = conf.get("api", "base_url", fallback=None)
    prefix = settings.prefix().removesuffix("_")
    return f"{base.rstrip('/')}/plugin/parity{f'?prefix={prefix}' if prefix else ''}" if base else ""
