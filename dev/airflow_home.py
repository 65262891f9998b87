"""The environment that Airflow runs in here: a home of its own, connections from the environment, nothing outside."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
USERS = {"admin": "admin", "viewer": "viewer", "stranger": ""}
"""Users of the local stack and their roles: one may do everything, one may look, one may only log in."""


def connection(target: str) -> str:
    """A Postgres URI as the JSON of an Airflow connection."""
    parts = urlsplit(target)
    return json.dumps(
        {
            "conn_type": "postgres",
            "host": parts.hostname,
            "port": parts.port,
            "login": parts.username,
            "password": parts.password or "",
            "schema": parts.path.lstrip("/"),
            "extra": dict(parse_qsl(parts.query)),
        }
    )


def connections(target: str, project: str) -> list[dict[str, Any]]:
    """The two connections as Airflow's API takes them."""
    source = {"conn_type": "google_cloud_platform", "extra": {"project": project}}
    named = {"firestore_default": source, "supabase_default": json.loads(connection(target))}
    return [{"connection_id": name, **body, "extra": json.dumps(body["extra"])} for name, body in named.items()]


def environment(home: Path, *, emulator: str, project: str, target: str, port: int | None = None) -> dict[str, str]:
    """Variables for all of Airflow's components. Secrets are new in each result, so start all components with the same one."""
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",  # the default forks 32 workers
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        "AIRFLOW__SENTRY__AUTO_ENABLING_INTEGRATIONS": "False",  # they cost seconds a task
        "AIRFLOW__SENTRY__INCLUDE_LOCAL_VARIABLES": "False",
        "AIRFLOW_CONN_FIRESTORE_DEFAULT": json.dumps(
            {"conn_type": "google_cloud_platform", "extra": {"project": project}}
        ),
        "AIRFLOW_CONN_SUPABASE_DEFAULT": connection(target),
        "FIRESTORE_EMULATOR_HOST": emulator,
        "DUALWRITE_CATALOG": "",  # the shipped one, whatever the caller's environment names
        "DUALWRITE_MIGRATIONS": "",
        "PATH": f"{BIN}:/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONPATH": "",
        "NO_COLOR": "1",
    }
    if port is not None:
        variables |= {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        }
    return variables
