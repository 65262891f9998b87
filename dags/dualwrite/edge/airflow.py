"""The edge to Airflow: connections, contexts, and which errors are worth a retry.

What brings Google's client or psycopg is imported by the functions that use it: the DAG files import this module each
time they are parsed, which is every few seconds.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.configuration import conf
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from dualwrite import alerts
from dualwrite.catalog import CATALOG
from dualwrite.model.errors import (
    Defect,
    DualWriteError,
    IncompleteRead,
    PreflightError,
    SourceError,
    TargetError,
)
from dualwrite.model.render import wrapped

if TYPE_CHECKING:
    from dualwrite.firestore.source import Source
    from dualwrite.model.gap_params import GapParams
    from dualwrite.model.migration_params import MigrationParams
    from dualwrite.postgres import Connection
    from dualwrite.postgres.target import Target
    from dualwrite.runs import backfill

log = logging.getLogger("dualwrite")

SOURCE_CONNECTION = "firestore_default"
TARGET_CONNECTION = "supabase_default"
MIGRATIONS_CONNECTION = "supabase_migrations"
PARITY = Asset("dual-write-parity")
"""Source and target are equal, as far as every look goes: nothing is open, excused or not, and all was compared."""

PARITY_IF_EQUAL = AssetAlias("dual-write-parity-if-equal")
"""Through which a task updates PARITY: an outlet that is an asset itself is updated whenever its task succeeds."""

GREEN = Asset("dual-write-green")
"""A reconciliation ended green: what differs, if anything, is excused, in flight or expected."""

_MIGRATION_SECONDS = 3600.0
"""After which a migration's statement counts as hung: building an index may take its time."""

alerts.install()  # at import, so that every later failure is reported without content, bad form parameters included

_WORTH_A_RETRY = (SourceError, TargetError, IncompleteRead)

_LIBPQ = {
    "application_name", "channel_binding", "connect_timeout", "gssencmode", "keepalives", "keepalives_count",
    "keepalives_idle", "keepalives_interval", "options", "sslcert", "sslcrl", "sslkey", "sslmode", "sslpassword",
    "sslrootcert", "target_session_attrs", "tcp_user_timeout",
}  # fmt: skip


# --- connections --------------------------------------------------------------------------------------------------


def _connection(conn_id: str, kind: str) -> tuple[Any, dict[str, Any]]:
    """The connection, and its extra as a dict. Raises PreflightError, which quotes nothing of it."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        if os.environ.get(variable):  # Airflow treats an unreadable connection as a missing one
            raise PreflightError(
                f"Connection {conn_id} is unreadable: the value of {variable} is neither JSON nor a URI. Write it as "
                f'{{"conn_type": "{kind}", "host": ..., "login": ..., "password": ..., "extra": {{}}}}, or %-encode the '
                "special characters of the URI. (The value is withheld.)"
            ) from None
        raise PreflightError(
            f"Connection {conn_id} ({kind}) is missing. Add it under Admin, Connections, or set {variable}."
        ) from None
    return connection, _extra(conn_id, connection)


def _extra(conn_id: str, connection: Any) -> dict[str, Any]:
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise PreflightError(
            f"The extra of connection {conn_id} is unreadable: it is not a JSON object. Correct it under Admin, "
            "Connections. (The value is withheld.)"
        )
    return extra


def source() -> Source:
    """The Firestore database of connection firestore_default; see source_maker."""
    return source_maker()()


def source_maker() -> Callable[[], Source]:
    """Makes the Firestore database of connection firestore_default (google_cloud_platform). Airflow is asked here, once:
    what is returned may be called in any thread.

    Its extra may name `project` and `database`. With FIRESTORE_EMULATOR_HOST set no credentials are asked for, and the
    target must be on this machine too: a variable that was forgotten would make the emulator the source of production.
    """
    from dualwrite import postgres
    from dualwrite.firestore.source import Source

    _, extra = _connection(SOURCE_CONNECTION, "google_cloud_platform")
    project = extra.get("project") or extra.get("extra__google_cloud_platform__project")
    database = extra.get("database") or "(default)"
    emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
    if emulator:
        connection, _ = _connection(TARGET_CONNECTION, "postgres")
        host = connection.host
        if not postgres.is_local(host):
            if not connection.login:
                raise _torn(TARGET_CONNECTION)
            raise PreflightError(
                f"FIRESTORE_EMULATOR_HOST is set ({emulator}), and the target is not on this machine ({host}): the "
                "emulator would become the source of a real target. Unset it; or, to test, point connection "
                f"{TARGET_CONNECTION} at a Postgres on localhost."
            )
        if not project:
            raise PreflightError(
                f"No project is named in the extra of connection {SOURCE_CONNECTION}. "
                'Add {"project": "..."}; the emulator takes any name.'
            )
        return partial(Source, project, database=database, emulator_host=emulator)
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook  # seconds of imports, so only here

    try:
        credentials, default_project = GoogleBaseHook(gcp_conn_id=SOURCE_CONNECTION).get_credentials_and_project_id()
    except Exception as error:  # noqa: BLE001 - the Google library lets through whatever a key can do wrong
        raise PreflightError(
            f"The key of connection {SOURCE_CONNECTION} can't be used: reading it failed with {type(error).__name__} (the "
            "message is withheld, because it may quote the key). Set Keyfile Path to a file that the worker can read, or "
            "Keyfile JSON to the complete key of a service account, or neither to use the worker's own account (application "
            "default credentials)."
        ) from None
    project = project or default_project
    if not project:
        raise PreflightError(
            f"No project is named, neither in connection {SOURCE_CONNECTION} nor in its key. "
            "Set Project Id in the connection."
        )
    return partial(Source, str(project), database=database, credentials=credentials)


def target_connection(conn_id: str = TARGET_CONNECTION, *, answer_within: float | None = None) -> Connection:
    """A connection to the target; see target_connector. Raises PreflightError, or postgres.ConnectError where Postgres isn't
    reached. `answer_within`: see postgres.connect.
    """
    return target_connector(conn_id, answer_within=answer_within)()


def target_connector(
    conn_id: str = TARGET_CONNECTION, *, answer_within: float | None = None
) -> Callable[[], Connection]:
    """Makes connections to the target, from a connection of type postgres. The extra's keys are libpq's. Airflow is asked
    here, once: what is returned may be called in any thread."""
    from dualwrite import postgres

    connection, extra = _connection(conn_id, "postgres")
    unknown = sorted(set(extra) - _LIBPQ)
    if unknown:
        if not all(re.fullmatch("[A-Za-z_]{1,40}", name) for name in unknown):
            raise _torn(conn_id)
        raise PreflightError(
            f"The extra of connection {conn_id} takes libpq's parameters only: {', '.join(unknown)} is not supported. "
            "Remove it, or correct its name (sslmode, sslrootcert, ...)."
        )
    if not connection.host:
        raise PreflightError(
            f"Connection {conn_id} names no host. Set host, port, schema (the database), login and password."
        )
    if not connection.login or any("@" in str(part or "")[1:] for part in (connection.host, connection.schema)):
        raise _torn(conn_id)
    return partial(
        postgres.connect,
        host=connection.host,
        port=connection.port,
        user=connection.login,
        password=connection.password,
        dbname=connection.schema,
        answer_within=answer_within,
        **extra,
    )


def _torn(conn_id: str) -> PreflightError:
    """Of a URI whose password isn't encoded: a part of it has become the host, the port, the database or a parameter."""
    return PreflightError(
        f"Connection {conn_id} names no login, or its parts don't look like a host, a database and libpq's parameters, as where a "
        "URI's password isn't %-encoded (nothing of it is quoted, because it may hold a part of the password). Set host, port, "
        "schema (the database), login and password; in a URI write / as %2F, ? as %3F, # as %23 and @ as %40."
    )


def migrations_connection() -> Connection:
    """A connection for apply_migrations: supabase_migrations where there is one, so that the role that moves rows need
    not be one that makes tables; else supabase_default."""
    conn_id = MIGRATIONS_CONNECTION
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        if not os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}"):  # else it is there, and unreadable
            conn_id = TARGET_CONNECTION
    from dualwrite import postgres

    try:
        return target_connection(conn_id, answer_within=_MIGRATION_SECONDS)
    except postgres.ConnectError as error:
        if error.passing:
            raise
        raise PreflightError(
            f"Can't connect to Postgres: {error}. Check connection {conn_id}. Between rounds of migrations sql/roles/data.sql "
            "keeps dualwrite_migrations closed; sql/roles/migrations.sql opens it."
        ) from None


def target() -> Target:
    """The target of connection supabase_default; it connects when it is first used."""
    from dualwrite.postgres.target import Target

    return Target(target_connection, CATALOG)


# --- errors ---------------------------------------------------------------------------------------------------------


@contextmanager
def clearly() -> Iterator[None]:
    """Lets an error of ours through with its message alone, and fails the task at once where a retry can't help.

    What other libraries say may quote a row ("Failing row contains ..."), so of their errors only the kind and the
    place are told: nothing else of them reaches the log, or Sentry.
    """

    failure: Exception | None = None
    try:
        yield
    except AirflowException:
        raise
    except Exception as error:  # noqa: BLE001
        clear = cleared(error)
        failure = clear if worth_a_retry(clear) else AirflowFailException(str(clear))
    if failure is not None:
        raise failure from None  # the first error must not go along as this one's context


def cleared(error: Exception) -> Exception:
    """An error of ours as it is; of any other the kind and the place, without its own words."""
    from dualwrite import postgres

    if isinstance(error, DualWriteError | AirflowException):
        return error
    if isinstance(error, postgres.ConnectError):
        message = (
            f"Can't connect to Postgres: {error}. Check connection {TARGET_CONNECTION}, and that the server is up."
        )
        return TargetError(message) if error.passing else PreflightError(message)
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
        return TargetError(message) if transient else PreflightError(message)
    return Defect(
        f"{type(error).__name__} at {_place(error)}. This is a defect of the bundle. Its message is withheld, "
        "because it may quote a document. Report it with this line."
    )


def worth_a_retry(error: Exception) -> bool:
    """Whether the same task may end well a little later."""
    return isinstance(error, (*_WORTH_A_RETRY, Defect))


def has_tries_left(context: Mapping[str, Any]) -> bool:
    instance = context["ti"]
    return bool(instance.try_number <= (getattr(instance, "max_tries", 0) or 0))


class ReportFailed(SystemExit):
    """Ends a task as failed. `str()` is what a notifier shows: all problems in one line.

    Airflow logs a traceback of its own frames around every exception but SystemExit, and what must be read drowns in it.
    It also retries a SystemExit where it may: a task that ends so takes FAILS_AT_ONCE among its arguments.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1  # shown beside "Task exited"; the text stands above it already


try:
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
except ImportError:  # Airflow 3.2 has no retry policies: there the traceback stays
    FAILS_AT_ONCE: dict[str, Any] = {}
else:
    FAILS_AT_ONCE = {"retry_policy": ExceptionRetryPolicy([RetryRule(ReportFailed, RetryAction.FAIL)])}


def fail(problems: Sequence[str]) -> NoReturn:
    """Ends the task as failed, with each problem whole, wrapped, and last in the log."""
    log.error("This run fails:\n\n%s\n", "\n\n".join(wrapped(problem) for problem in problems))
    text = "; ".join(problems)
    raise ReportFailed(text) if FAILS_AT_ONCE else AirflowFailException(text)


def nothing_examined(context: Mapping[str, Any]) -> NoReturn:
    """Ends a report whose run did not get past its preflight."""
    why = context["ti"].xcom_pull(task_ids="preflight", key="error")
    if why:
        alerts.mute()  # told by preflight
    why = why or "it did not run, or was killed; see its log."
    _stop(context, f"Nothing was examined, because preflight did not pass: {why}")


@contextmanager
def told_in_full(context: Mapping[str, Any]) -> Iterator[None]:
    """Around what a report needs to be made: an error that ends the task there is shown as a drift is, in the log without a
    traceback, on the page and in the run's tab."""
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as error:
        clear = cleared(error)
        if worth_a_retry(clear) and has_tries_left(context):
            raise
        why = f"There is no report: {clear}"
    else:
        return
    _stop(context, why)


def _stop(context: Mapping[str, Any], why: str) -> NoReturn:
    """Ends a report that has nothing but a sentence. It is left where reports are, for the page."""
    about = {
        "dag_id": str(context["dag"].dag_id),
        "run_id": str(context["run_id"]),
        "at": datetime.now(UTC).isoformat(),
    }
    context["ti"].xcom_push(key="return_value", value={**about, "stopped": why, "verdict": why, "alerts": [why]})
    fail([why])


@contextmanager
def clearly_run(context: Mapping[str, Any]) -> Iterator[None]:
    """Like `clearly`; also tags Sentry events with the run, and mutes them while a retry may still succeed.

    The error that ends the task becomes its XCom `error`, for the report: the last task is where people look.
    """
    alerts.begin(dag_id=str(context["dag"].dag_id), run_id=str(context["run_id"]))
    instance = context["ti"]
    try:
        with clearly():
            yield
    except AirflowTaskTimeout:  # no Exception: it passes through what handles those
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


# --- contexts ---------------------------------------------------------------------------------------------------------


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


def gap_params(context: Mapping[str, Any]) -> GapParams:
    from dualwrite.model import gap_params

    return gap_params.parse(given(context), CATALOG, datetime.now(UTC))


@contextmanager
def gap_run(context: Mapping[str, Any], params: GapParams, unlogged_reads: int = 0) -> Iterator[backfill.Run]:
    from dualwrite.runs import backfill
    from dualwrite.runs.record import paced

    with clearly_run(context), source() as firestore, target() as postgres_target:
        paced(params)(firestore, postgres_target)
        yield backfill.Run(firestore, postgres_target, CATALOG, str(context["run_id"]), params, unlogged_reads)


def page_link() -> str:
    """The Parity page, where a person presses what an alert asks for; empty where Airflow doesn't know its own address."""
    base = conf.get("api", "base_url", fallback=None)
    return f"{base.rstrip('/')}/plugin/parity" if base else ""


def migration_params(context: Mapping[str, Any]) -> MigrationParams:
    from dualwrite.model.migration_params import MigrationParams

    return MigrationParams.checked(given(context))
