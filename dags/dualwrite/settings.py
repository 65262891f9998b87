"""The settings of an installation, apart from the bundle, so that a new version of the bundle needs no merge. Read here alone.

The settings are in a file `dualwrite.toml` beside dags/ (or in it, if a platform syncs nothing else), or else in the
environment, under DUALWRITE_ and their name in capitals; empty means unset. If the file is there, the environment isn't asked for
them: bundles of one Airflow share it.

    prefix = "shop"
    catalog = "own/catalog.py"
    migrations = "own/migrations"
"""

from __future__ import annotations

import os
import re
import tomllib
from functools import cache
from pathlib import Path

CATALOG = "DUALWRITE_CATALOG"
"""A module (my_app.catalog), or a Python file's path."""
MIGRATIONS = "DUALWRITE_MIGRATIONS"
"""A folder's path."""
PREFIX = "DUALWRITE_PREFIX"
"""The beginning of names in Airflow, before an underscore, and the end of the schema's name in the target, after one."""
SCHEMA = "dualwrite"
"""The schema in the target in which the bundle remembers, and the beginning of its roles' names."""
ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds dags/. Relative paths begin here: Airflow's components have various working directories."""
FILE = "dualwrite.toml"

KNOWN = ("catalog", "migrations", "prefix", "source_pool", "target_pool")


class SettingsError(ValueError):
    """A setting can't be used. Says the rule, the place and the remedy. `code`: as a DualWriteError's."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


def prefix() -> str:
    """The beginning of the ids of DAGs and connections and of the names of Variables and assets; mostly empty."""
    given = _given("prefix")
    if given and not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", given):
        raise SettingsError(
            f"A prefix is a lower-case letter, then lower-case letters, digits and _, at most 40: {PREFIX}, or prefix in {FILE}, is "
            f"{given!r}. Correct it.",
            code="prefix-malformed",
        )
    return f"{given}_" if given else ""


def named(name: str) -> str:
    """The name of a DAG, connection, Variable or asset of ours in this Airflow, which may have another bundle too."""
    return f"{prefix()}{name}"


def schema() -> str:
    """The schema in which this bundle remembers: with a prefix one of its own, so that bundles may share a target."""
    return f"{SCHEMA}_{prefix()}".removesuffix("_")


def said(text: str) -> str:
    """A text with the prefix before each DAG, connection and Variable of ours."""
    if not prefix():
        return text
    text = text.replace("(/plugin/parity)", f"(/plugin/parity?prefix={prefix().removesuffix('_')})")
    return re.sub(
        r"\b(?=(?:apply_migrations|backfill_gap|reconcile_[a-z<{]|firestore_default|supabase_(?:default|migrations)\b|dual_write_enabled))",
        prefix(),
        text,
    )


def named_catalog() -> str | None:
    """The module or path that the catalog is loaded from; None: the shipped catalog."""
    return _given("catalog")


def catalog_file() -> str:
    """The catalog's name in messages: the file or module that a person would correct."""
    return named_catalog() or "shipped_catalog.py"


def role_file(name: str) -> str:
    """The name in messages of a role file, data.sql or migrations.sql; `make roles` writes it."""
    if named_catalog() is not None:
        return f"roles/{name} beside {catalog_file()}"
    return f"roles/{name}" if prefix() else f"sql/roles/{name}"


def own_migrations() -> Path | None:
    """The folder of the app's own migrations, which may be missing on this machine; None: there is none."""
    named = _given("migrations")
    return (ROOT / named).resolve() if named else None


def pool(side: str) -> str:
    """The Airflow pool of the tasks on one side, source or target."""
    return _given(f"{side}_pool") or "default_pool"


def _given(name: str) -> str | None:
    found = from_file(ROOT)
    value = os.environ.get(f"DUALWRITE_{name.upper()}", "") if found is None else found.get(name, "")
    return value.strip() or None


@cache
def from_file(root: Path) -> dict[str, str] | None:
    """The settings of the file; None if there is none."""
    path = next((path for path in (root / FILE, root / "dags" / FILE) if path.is_file()), None)
    if path is None:
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise SettingsError(
            f"The settings are TOML, in UTF-8: {path} is not. Correct it, as docs/deployment.md#two-apps-in-one-airflow shows.",
            code="settings-not-toml",
        ) from None
    wrong = sorted(name for name, value in found.items() if name not in KNOWN or not isinstance(value, str))
    if wrong:
        raise SettingsError(
            f"Settings are {', '.join(KNOWN)}, each a text: {path} has {', '.join(map(repr, wrong))}. Correct the file.",
            code="setting-unknown",
        )
    return found
