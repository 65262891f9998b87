"""What a task takes from its context: parameters, who asked, what a person answered, where the page is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.configuration import conf


def given(context: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run as the form and its conf gave them; unknown keys included, so that code can refuse them
    (Airflow doesn't)."""
    conf = getattr(context["dag_run"], "conf", None) or {}
    return {**dict(context["params"]), **conf}


def triggered_by(context: Mapping[str, Any]) -> str:
    """Who pressed the button, or the run where nobody did."""
    return getattr(context["dag_run"], "triggering_user_name", None) or str(context["run_id"])


def answer(context: Mapping[str, Any], task_id: str) -> dict[str, Any] | None:
    """What a person answered to an approval: chosen options, who, and the reason given; None where nobody did."""
    found = context["ti"].xcom_pull(task_ids=task_id)
    if found is None:
        return None
    by = (found.get("responded_by_user") or {}).get("name")
    return {
        "chosen": found["chosen_options"],
        "by": by,
        "reason": (found.get("params_input") or {}).get("reason") or None,
    }


def page_link() -> str:
    """The Parity page, where a person presses what an alert asks for; empty where Airflow doesn't know its own address."""
    base = conf.get("api", "base_url", fallback=None)
    return f"{base.rstrip('/')}/plugin/parity" if base else ""
