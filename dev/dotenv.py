"""`make env`: writes .env for docker-compose.yaml from .env.example, with fresh secrets. Never over an existing one."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
from pathlib import Path

from dev import fill
from dev.airflow_home import ROOT, connection

EXAMPLE = ROOT / ".env.example"
FILE = ROOT / ".env"


def _secrets() -> dict[str, str]:
    return {
        "AIRFLOW_ADMIN_PASSWORD": secrets.token_urlsafe(12),
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW_API_SECRET_KEY": secrets.token_hex(32),
        "METADATA_PASSWORD": secrets.token_hex(16),
        "BROKER_PASSWORD": secrets.token_hex(16),
    }


def _local() -> dict[str, str]:
    """The connections of the profile local: emulator and target on the scheduler's loopback."""
    password = secrets.token_hex(16)
    target = connection(f"postgresql://postgres:{password}@127.0.0.1:5432/postgres")
    return {
        "TARGET_PASSWORD": password,
        "COMPOSE_PROFILES": "local",
        "FIRESTORE_EMULATOR_HOST": "127.0.0.1:8085",
        "AIRFLOW_CONN_FIRESTORE_DEFAULT": json.dumps(
            {"conn_type": "google_cloud_platform", "extra": {"project": fill.PROJECT}}
        ),
        "AIRFLOW_CONN_SUPABASE_DEFAULT": target,
        "AIRFLOW_CONN_SUPABASE_MIGRATIONS": target,
    }


def dotenv(*, local: bool) -> str:
    """The text of a .env. `local`: for the profile local, ready to start."""
    text = EXAMPLE.read_text()
    for name, value in {**_secrets(), **(_local() if local else {})}.items():
        assert "'" not in value
        line = f"{name}='{value}'".replace("\\", r"\\")  # a backslash is the template's escape
        text, times = re.subn(rf"^(?:# )?{name}='.*'$", line, text, flags=re.MULTILINE)
        assert times == 1, f"{name} is missing in {EXAMPLE.name}"
    return text


def write(path: Path, *, local: bool) -> None:
    """Writes a .env that only its owner can read. Raises SystemExit if there is one."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SystemExit(f"env: {path.name} exists and is kept. Remove it first to get fresh secrets.") from None
    with os.fdopen(file, "w") as out:
        out.write(dotenv(local=local))


if __name__ == "__main__":
    local = bool(os.environ.get("LOCAL"))
    write(FILE, local=local)
    print(f"env: wrote {FILE.name}. " + ("Next: docker compose up -d" if local else "Next: edit its connections."))
