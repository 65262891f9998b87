"""What an installation names beside the bundle, so that a new version of the bundle needs no merge: its catalog and its folder
of migrations. Two environment variables, read here alone; empty means unset."""

from __future__ import annotations

import os
from pathlib import Path

CATALOG = "DUALWRITE_CATALOG"
"""A module (my_app.catalog), or a Python file's path."""
MIGRATIONS = "DUALWRITE_MIGRATIONS"
"""A folder's path."""
ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds dags/. Relative paths begin here: Airflow's components have various working directories."""


def named_catalog() -> str | None:
    """The module or path that the catalog is loaded from; None: the shipped catalog."""
    return os.environ.get(CATALOG, "").strip() or None


def catalog_file() -> str:
    """What messages call the catalog: the file or module that a person would correct."""
    return named_catalog() or "shipped_catalog.py"


def role_file(name: str) -> str:
    """What messages call a role file (`make roles` writes it): data.sql or migrations.sql."""
    return f"sql/roles/{name}" if named_catalog() is None else f"roles/{name} beside {catalog_file()}"


def own_migrations() -> Path | None:
    """The folder of the app's own migrations, which may be missing on this machine; None: there is none."""
    named = os.environ.get(MIGRATIONS, "").strip()
    return (ROOT / named).resolve() if named else None
