"""How a task ends: which errors are worth a retry, which part of them may be shown, and where."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from dualwrite import alerts
from dualwrite.edge.connections import TARGET_CONNECTION
from dualwrite.model.alert import alert
from dualwrite.model.errors import (
    Defect,
    DualWriteError,
    IncompleteRead,
    PreflightError,
    SourceError,
    TargetError,
)
from dualwrite.model.render import wrapped
from dualwrite.model.run_report import VERSION, StoppedReport

log = logging.getLogger("dualwrite")

alerts.install()  # at import, so that every later failure is reported without content, bad form parameters included

_WITHOUT_A_WORD = (
    "its process was killed (often for lack of memory), its worker was lost, or somebody marked it as failed: see the end of the "
    "log of task {}. Its commits are kept, and the next run resumes from there"
)
"""Why a task failed that could not report it itself. Airflow logs a signal in the task's log, a lost worker in the scheduler's."""

_WORTH_A_RETRY = (SourceError, TargetError, IncompleteRead)


@contextmanager
def errors_without_content() -> Iterator[None]:
    """Raises an error of ours with its message only, and fails the task at once if a retry can't help.

    Other libraries' messages may quote a row ("Failing row contains ..."), so only the class and place of their errors reach
    the log, or Sentry.
    """

    failure: Exception | None = None
    try:
        yield
    except AirflowException:
        raise
    except Exception as error:  # noqa: BLE001
        shown = without_content(error)
        if isinstance(shown, DualWriteError):
            alerts.name_code(shown.code)
        failure = shown if worth_a_retry(shown) else AirflowFailException(str(shown))
    if failure is not None:
        raise failure from None  # the first error must not go along as this one's context


def without_content(error: Exception) -> Exception:
    """An error of ours, unchanged; for any other, one of ours with its condition or class and its place, without its message."""
    from dualwrite import postgres

    if isinstance(error, DualWriteError | AirflowException):
        return error
    if isinstance(error, postgres.ConnectError):
        message = (
            f"Can't connect to Postgres: {error}. Check connection {TARGET_CONNECTION}, and that the server is up."
        )
        return (TargetError if error.passing else PreflightError)(message, code="target-unreachable")
    if isinstance(error, postgres.AnswerTimeout):
        return TargetError(
            f"Postgres, or the pooler in front of it, gave {error}, at {_place(error)}. The connection was closed. Check "
            "whether the server is overloaded or unreachable, and run again."
        )
    if isinstance(error, postgres.Error):
        message = (
            f"Postgres rejected a statement: {postgres.condition(error)}, at {_place(error)}. "
            f"{postgres.remedy(error) or 'Look the condition up, fix the cause, and run again.'}"
        )
        transient = postgres.is_transient(error) or postgres.is_disconnect(error)
        return (TargetError if transient else PreflightError)(message, code="statement-rejected")
    return Defect(
        f"{type(error).__name__} at {_place(error)}. This is a defect of the bundle. Its message is withheld, "
        "because it may quote a document. Report it with this line."
    )


def worth_a_retry(error: Exception) -> bool:
    """Whether the same task may succeed if it is tried again a little later."""
    return isinstance(error, (*_WORTH_A_RETRY, Defect))


def has_tries_left(context: Mapping[str, Any]) -> bool:
    """Whether Airflow will try this task again if it fails now."""
    instance = context["ti"]
    return bool(instance.try_number <= (getattr(instance, "max_tries", 0) or 0))


class ReportFailed(SystemExit):
    """Ends a task as failed. A notifier shows `str()` of it: all problems in one line.

    Around every exception except SystemExit, Airflow logs a traceback of its own frames, which buries the message. It would
    retry a SystemExit, so such a task has FAILS_AT_ONCE among its arguments.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1  # shown beside "Task exited"; the text is above it already


try:
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
except ImportError:  # Airflow 3.2 has no retry policies, so the traceback stays
    FAILS_AT_ONCE: dict[str, Any] = {}
else:
    FAILS_AT_ONCE = {"retry_policy": ExceptionRetryPolicy([RetryRule(ReportFailed, RetryAction.FAIL)])}


def fail(problems: Sequence[str]) -> NoReturn:
    """Ends the task as failed, with all problems, wrapped, at the end of the log."""
    log.error("This run fails:\n\n%s\n", "\n\n".join(wrapped(problem) for problem in problems))
    text = "; ".join(problems)
    raise ReportFailed(text) if FAILS_AT_ONCE else AirflowFailException(text)


def failures(context: Mapping[str, Any], task_ids: Iterable[str]) -> dict[str, str]:
    """Why tasks of this run failed, by task id: the task's own message, or that it ended without one."""
    states = _states(context)
    pull = context["ti"].xcom_pull
    reasons = {}
    for task_id in task_ids:
        failed = states.get(task_id) == "failed"
        if failed or not states:
            why = pull(task_ids=task_id, key="error") or (_WITHOUT_A_WORD.format(task_id) if failed else None)
            if why:
                reasons[task_id] = str(why)
    return reasons


def _states(context: Mapping[str, Any]) -> dict[str, str]:
    """The states of this run's tasks; empty if Airflow doesn't answer. Instances of a mapped task have their index in the name."""
    instance, run_id = context["ti"], str(context["run_id"])
    try:
        states = instance.get_task_states(instance.dag_id, run_ids=[run_id]).get(run_id, {})
    except Exception as error:  # noqa: BLE001 - without the states the report says less, but is still made
        log.warning("It is unknown which tasks failed: Airflow answered %s.", type(error).__name__)
        return {}
    return {name: str(getattr(state, "value", state)) for name, state in states.items()}


def nothing_examined(context: Mapping[str, Any]) -> NoReturn:
    """Ends the report task of a run whose preflight did not pass."""
    if context["ti"].xcom_pull(task_ids="preflight", key="error"):
        alerts.mute()  # preflight has reported it
    why = failures(context, ["preflight"]).get("preflight", "it did not run")
    _stop(context, f"Nothing was examined, because preflight did not pass: {why}")


@contextmanager
def report_or_why_not(context: Mapping[str, Any]) -> Iterator[None]:
    """Around code that makes a report: its error is shown as drift is, without a traceback in the log, and on the page."""
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as error:
        shown = without_content(error)
        if worth_a_retry(shown) and has_tries_left(context):
            raise
        why = f"There is no report: {shown}"
    else:
        return
    _stop(context, why)


def _stop(context: Mapping[str, Any], why: str) -> NoReturn:
    """Ends the report task with a report of one sentence, which the page shows."""
    stopped: StoppedReport = {
        "version": VERSION,
        "dag_id": str(context["dag"].dag_id),
        "run_id": str(context["run_id"]),
        "at": datetime.now(UTC).isoformat(),
        "stopped": why,
        "verdict": why,
        "alerts": [alert(why, kind="stopped")],
    }
    context["ti"].xcom_push(key="return_value", value=stopped)
    fail([why])


@contextmanager
def errors_of_run(context: Mapping[str, Any]) -> Iterator[None]:
    """Like `errors_without_content`; also tags Sentry events with the run, and mutes them while a retry may still succeed.

    The error that ends the task becomes its XCom `error`, for the report, because people look at the last task.
    """
    alerts.begin(dag_id=str(context["dag"].dag_id), run_id=str(context["run_id"]))
    instance = context["ti"]
    try:
        with errors_without_content():
            yield
    except AirflowTaskTimeout:  # no subclass of Exception, so other handlers don't catch it
        instance.xcom_push(key="error", value="it took longer than its execution_timeout, and was ended")
        raise
    except AirflowSkipException:
        raise
    except AirflowFailException as error:
        instance.xcom_push(key="error", value=str(error))
        raise
    except Exception as error:
        instance.xcom_push(key="error", value=str(error))
        if has_tries_left(context):
            alerts.mute()
        raise


def _place(error: BaseException) -> str:
    """The innermost lines of this package that an error passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "dualwrite" in f.filename]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-3:])) or "an unknown line"
