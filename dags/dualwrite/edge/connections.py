"""Source and target from Airflow's connections. A faulty connection is refused with rule, place and remedy.

Functions import Google's client and psycopg themselves: that takes a second, and only tasks need it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from dualwrite import settings
from dualwrite.catalog import CATALOG
from dualwrite.model.errors import PreflightError

if TYPE_CHECKING:
    from dualwrite.firestore.source import Source
    from dualwrite.postgres import Connection
    from dualwrite.postgres.target import Target
    from dualwrite.runs.record import Limits

SOURCE_CONNECTION = settings.named("firestore_default")
TARGET_CONNECTION = settings.named("supabase_default")
MIGRATIONS_CONNECTION = settings.named("supabase_migrations")

_MIGRATION_SECONDS = 3600.0
"""Seconds after which a migration's statement counts as hung; building an index may take long."""

_LIBPQ = {
    "application_name", "channel_binding", "connect_timeout", "gssencmode", "keepalives", "keepalives_count",
    "keepalives_idle", "keepalives_interval", "options", "sslcert", "sslcrl", "sslkey", "sslmode", "sslpassword",
    "sslrootcert", "target_session_attrs", "tcp_user_timeout",
}  # fmt: skip


def _connection(conn_id: str, kind: str) -> tuple[Any, dict[str, Any]]:
    """The connection, and its extra as a dict. Raises PreflightError, which doesn't quote it."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        if os.environ.get(variable):  # Airflow treats an unreadable connection as a missing one
            raise PreflightError(
                f"Connection {conn_id} is unreadable: the value of {variable} is neither JSON nor a URI. Write it as "
                f'{{"conn_type": "{kind}", "host": ..., "login": ..., "password": ..., "extra": {{}}}}, or %-encode the '
                "special characters of the URI. (The value is withheld.)",
                code="connection-unreadable",
            ) from None
        raise PreflightError(
            f"Connection {conn_id} ({kind}) is missing. Add it under Admin, Connections, or set {variable}.",
            code="connection-missing",
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
            "Connections. (The value is withheld.)",
            code="connection-extra-not-json",
        )
    return extra


def source(limits: Limits | None = None) -> Source:
    """The Firestore database of connection firestore_default; see source_maker."""
    return source_maker(limits)()


def source_maker(limits: Limits | None = None) -> Callable[[], Source]:
    """A function that opens the Firestore database of connection firestore_default (google_cloud_platform). Airflow is asked
    here, once: the result may be called in any thread. All that it opens share the `limits`.

    The connection's extra may have `project` and `database`. With FIRESTORE_EMULATOR_HOST set, no credentials are needed, and
    the target must be on this machine too: a forgotten variable would make the emulator the source of production. Raises
    PreflightError.
    """
    from dualwrite import postgres
    from dualwrite.firestore.source import Source

    limited: dict[str, Any] = {"budget": limits.budget, "pace": limits.reads} if limits else {}
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
                f"{TARGET_CONNECTION} at a Postgres on localhost.",
                code="emulator-with-real-target",
            )
        if not project:
            raise PreflightError(
                f"The extra of connection {SOURCE_CONNECTION} names no project. "
                'Add {"project": "..."}; the emulator takes any name.',
                code="emulator-project-not-named",
            )
        return partial(Source, project, database=database, emulator_host=emulator, **limited)
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook  # seconds of imports, so only here

    try:
        credentials, default_project = GoogleBaseHook(gcp_conn_id=SOURCE_CONNECTION).get_credentials_and_project_id()
    except Exception as error:  # noqa: BLE001 - for a faulty key, the Google library raises errors of any class
        raise PreflightError(
            f"The key of connection {SOURCE_CONNECTION} can't be used: reading it failed with {type(error).__name__} (the "
            "message is withheld, because it may quote the key). Set Keyfile Path to a file that the worker can read, or "
            "Keyfile JSON to the complete key of a service account, or neither to use the worker's own account (application "
            "default credentials).",
            code="credentials-unusable",
        ) from None
    project = project or default_project
    if not project:
        raise PreflightError(
            f"No project is named, neither in connection {SOURCE_CONNECTION} nor in its key. "
            "Set Project Id in the connection.",
            code="project-not-named",
        )
    return partial(Source, str(project), database=database, credentials=credentials, **limited)


def target_connection(conn_id: str = TARGET_CONNECTION, *, answer_within: float | None = None) -> Connection:
    """A connection to the target; see target_connector. Raises PreflightError, or postgres.ConnectError if Postgres can't be
    reached. `answer_within`: see postgres.connect.
    """
    return target_connector(conn_id, answer_within=answer_within)()


def target_connector(
    conn_id: str = TARGET_CONNECTION, *, answer_within: float | None = None
) -> Callable[[], Connection]:
    """A function that connects to the target, by a connection of type postgres whose extra has libpq's parameters. Airflow is
    asked here, once: the result may be called in any thread. Raises PreflightError."""
    from dualwrite import postgres

    connection, extra = _connection(conn_id, "postgres")
    unknown = sorted(set(extra) - _LIBPQ)
    if unknown:
        if not all(re.fullmatch("[A-Za-z_]{1,40}", name) for name in unknown):
            raise _torn(conn_id)
        raise PreflightError(
            f"The extra of connection {conn_id} takes libpq's parameters only: {', '.join(unknown)} is not supported. "
            "Remove it, or correct its name (sslmode, sslrootcert, ...).",
            code="connection-extra-unknown",
        )
    if not connection.host:
        raise PreflightError(
            f"Connection {conn_id} names no host. Set host, port, schema (the database), login and password.",
            code="connection-without-host",
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
    """The error for a URI whose password isn't encoded, so that a part of it became host, port, database or parameter."""
    return PreflightError(
        f"Connection {conn_id} names no login, or its parts don't look like a host, a database and libpq's parameters, as happens if a "
        "URI's password isn't %-encoded (it isn't quoted here, because it may contain a part of the password). Set host, port, "
        "schema (the database), login and password; in a URI write / as %2F, ? as %3F, # as %23 and @ as %40.",
        code="connection-torn",
    )


def migrations_connection() -> Connection:
    """A connection for apply_migrations: supabase_migrations if it exists, else supabase_default. With the first, the role that
    writes rows needn't be able to create tables."""
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
            f"Can't connect to Postgres: {error}. Check connection {conn_id}. Between rounds of migrations "
            f"{settings.role_file('data.sql')} keeps {settings.schema()}_migrations closed; {settings.role_file('migrations.sql')} opens it.",
            code="migrations-connection-refused",
        ) from None


def target(limits: Limits | None = None) -> Target:
    """The target of connection supabase_default; it connects on first use."""
    from dualwrite.postgres.target import Target

    return Target(target_connection, CATALOG, limits.rows if limits else None)
