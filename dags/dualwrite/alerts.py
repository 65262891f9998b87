"""Sentry, through Airflow's own integration: without a DSN everything here is silent. The only module that imports
sentry_sdk.

An event is rebuilt from a list of parts that can't hold a document's content. Dropped are local variables, extra data,
breadcrumbs, user, request, foreign contexts, and the messages of other libraries' errors and log records. Airflow's option
`before_send` can't do that: if it is set, every event is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sentry_sdk
from sentry_sdk.scope import add_global_event_processor

from dualwrite.model.alert import line
from dualwrite.model.run_report import Alert

_WITHHELD = "withheld: it may quote a document"
_OURS = (
    "dualwrite.model.errors.",
    "airflow.sdk.exceptions.AirflowFailException",
    "airflow.sdk.exceptions.AirflowTaskTimeout",
)
"""Errors of these modules never quote a document. Not all of Airflow's: some quote a connection's URI."""

_KEPT = ("event_id", "timestamp", "start_timestamp", "type", "level", "platform", "logger", "transaction", "fingerprint",
         "tags", "release", "dist", "environment", "server_name", "modules", "sdk")  # fmt: skip
_KEPT_CONTEXTS = {
    "trace": ("trace_id", "span_id", "parent_span_id"),
    "runtime": ("name", "version"),
    "os": ("name", "version"),
}

_FINGERPRINT = "dual-write"
"""The first part of the fingerprints of what we report: messages with it are ours."""

_state = {"muted": False}


@lru_cache(maxsize=1)
def install() -> None:
    """Removes content from all that this process sends from now on: for our own processes, Airflow's tasks and parsers."""
    add_global_event_processor(_cleared_or_muted)


def begin(*, dag_id: str, run_id: str) -> None:
    """Tags all events of this process with the run, from now on."""
    install()
    _state["muted"] = False
    sentry_sdk.set_tag("dag_id", dag_id)
    sentry_sdk.set_tag("run_id", run_id)


def name_code(code: str) -> None:
    """Tags all later events of this process with the code of the error that ends its task: the rule that was broken."""
    sentry_sdk.set_tag("dual_write.code", code)


def mute() -> None:
    """Sends nothing from this process any more: the failure is reported already, or a retry may still succeed."""
    _state["muted"] = True


def tell(alerts: Iterable[Alert], page: str = "") -> None:
    """Sends one event for each alert, then mutes: the task's own failure would repeat them. `page`: the Parity page's address, for
    the link to the button.

    The fingerprint is the collection and the kind of problem, so a drift that lasts a week is one issue.
    """
    for alert in alerts:
        with sentry_sdk.new_scope() as scope:
            scope.fingerprint = [_FINGERPRINT, alert["collection"] or "all", alert["kind"]]
            scope.set_level("error")
            tags = {
                "dual_write.entity_type": alert["collection"],
                "dual_write.verdict": alert["kind"],
                "dual_write.cause": alert["cause"],
            }
            for name, value in tags.items():
                if value is not None:
                    scope.set_tag(name, value)
            sentry_sdk.capture_message(line(alert, page), scope=scope)
    mute()


def write_failed(text: str, *, entity_type: str, operation_type: str, entity_id: str, operations: int = 1) -> None:
    """Reports a failed dual-write by its ids; `text` names the error's kind, never its message. Of several
    `operations` that failed alike, one event names the first.

    The process is the app's: only this event is cleared, the app's own go out as they are.
    """
    with sentry_sdk.new_scope() as scope:
        scope.add_event_processor(_cleared)
        scope.fingerprint = [_FINGERPRINT, entity_type, operation_type, text]
        scope.set_level("error")
        scope.set_tag("dual_write.entity_type", entity_type)
        scope.set_tag("dual_write.operation_type", operation_type)
        scope.set_tag("dual_write.entity_id", entity_id)
        scope.set_tag("dual_write.operations", operations)
        sentry_sdk.capture_message(f"dual-write failed: {text}", scope=scope)


def _cleared_or_muted(event: Any, hint: Any) -> Any:
    return None if _state["muted"] else _cleared(event, hint)


def _cleared(event: Any, hint: Any) -> Any:
    """The event, rebuilt from parts that can't hold a document's content."""
    hint.pop("attachments", None)
    clean: dict[str, Any] = {name: event[name] for name in _KEPT if name in event}
    try:
        clean |= _without_foreign_text(event)
    except Exception as error:  # noqa: BLE001 - Sentry would send the event uncleared if its processor raised
        clean["message"] = f"an event could not be cleared ({type(error).__name__}), so its text is withheld"
    return clean


def _without_foreign_text(event: Any) -> dict[str, Any]:
    """The parts of an event that say what happened, without any other library's text."""
    kept: dict[str, Any] = {}
    contexts = event.get("contexts") or {}
    kept["contexts"] = {
        name: {part: contexts[name][part] for part in parts if part in contexts[name]}
        for name, parts in _KEPT_CONTEXTS.items()
        if name in contexts
    }
    if "message" in event:
        kept["message"] = event["message"] if event.get("fingerprint", [""])[0] == _FINGERPRINT else _WITHHELD
    if "logentry" in event:
        entry = event["logentry"]
        own = str(event.get("logger")).partition(".")[0] == "dualwrite"
        kept["logentry"] = {"message": (entry.get("formatted") or entry.get("message")) if own else _WITHHELD}
    if "exception" in event:
        kept["exception"] = {"values": [_exception(value) for value in event["exception"].get("values") or []]}
    if "threads" in event:
        values = event["threads"].get("values") or []
        kept["threads"] = {"values": [{"stacktrace": _stacktrace(v.get("stacktrace"))} for v in values]}
    return kept


def _exception(value: Any) -> dict[str, Any]:
    known = f"{value.get('module')}.{value.get('type')}".startswith(_OURS)
    return {
        "type": value.get("type"),
        "module": value.get("module"),
        "value": value.get("value") if known else _WITHHELD,
        "stacktrace": _stacktrace(value.get("stacktrace")),
    }


def _stacktrace(stacktrace: Any) -> dict[str, Any]:
    frames = (stacktrace or {}).get("frames") or []
    return {"frames": [{name: part for name, part in frame.items() if name != "vars"} for frame in frames]}
