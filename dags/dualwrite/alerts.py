"""Sentry, through Airflow's own integration: without a DSN everything here is silent. The only module that imports
sentry_sdk.

What goes out is cleared of everything that may hold a document: local variables, extra data, breadcrumbs, and the words
of other libraries' errors. Airflow's option `before_send` can't do that: with its path set, every event is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sentry_sdk
from sentry_sdk.scope import add_global_event_processor

from dualwrite.model.report import Alert

_OURS = ("dualwrite.model.errors.", "airflow.")
"""Whose errors say what they say without quoting a document."""

_state = {"muted": False}


@lru_cache(maxsize=1)
def install() -> None:
    """Registers the clearing processor, once a process."""
    add_global_event_processor(_cleared)


def begin(*, dag_id: str, run_id: str) -> None:
    """Names the run in whatever this process reports from now on."""
    install()
    _state["muted"] = False
    sentry_sdk.set_tag("dag_id", dag_id)
    sentry_sdk.set_tag("run_id", run_id)


def mute() -> None:
    """From now on nothing is sent by this process: the failure is told already, or a retry may still end well."""
    _state["muted"] = True


def tell(alerts: Iterable[Alert]) -> None:
    """Sends one event for each alert, then mutes: the task's own failure says the same once more.

    The fingerprint is the collection and the verdict, so a drift that stands for a week is one issue.
    """
    for alert in alerts:
        with sentry_sdk.new_scope() as scope:
            scope.fingerprint = ["dual-write", alert.collection or "all", alert.verdict or "failed"]
            scope.set_level("error")
            tags = {
                "dual_write.entity_type": alert.collection,
                "dual_write.verdict": alert.verdict,
                "dual_write.cause": alert.cause,
            }
            for name, value in tags.items():
                if value is not None:
                    scope.set_tag(name, value)
            sentry_sdk.capture_message(alert.text, scope=scope)
    mute()


def write_failed(text: str, *, entity_type: str, operation_type: str, entity_id: str) -> None:
    """Sends what a dual-write that failed is known by; `text` names the error's kind, never its words."""
    install()
    with sentry_sdk.new_scope() as scope:
        scope.fingerprint = ["dual-write", entity_type, operation_type, text]
        scope.set_level("error")
        scope.set_tag("dual_write.entity_type", entity_type)
        scope.set_tag("dual_write.operation_type", operation_type)
        scope.set_tag("dual_write.entity_id", entity_id)
        sentry_sdk.capture_message(f"dual-write failed: {text}", scope=scope)


def _cleared(event: Any, hint: Any) -> Any:
    """The event without anything that may hold a document's content; None while muted."""
    if _state["muted"]:
        return None
    for part in ("extra", "breadcrumbs", "request", "user"):
        event.pop(part, None)
    for holder in ("exception", "threads"):
        for value in (event.get(holder) or {}).get("values", []):
            _clear_frames(value.get("stacktrace"))
            name = f"{value.get('module')}.{value.get('type')}"
            if holder == "exception" and not name.startswith(_OURS):
                value["value"] = "withheld: it may quote a document"
    return event


def _clear_frames(stacktrace: Any) -> None:
    for frame in (stacktrace or {}).get("frames", []):
        frame.pop("vars", None)
