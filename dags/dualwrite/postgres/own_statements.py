"""Statements that are sent as they are written, each in the `.sql` file beside the module that sends it, under a name:

    -- name: unconfirmed
    -- Its result or its effect.
    SELECT id FROM dualwrite.repair_journal WHERE run_id = %(run)s;

The text before the first name is about all of them. Statements that follow from a collection's declaration are composed in Python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dualwrite.postgres.connection import sql
from dualwrite.postgres.own_schema import in_own_schema

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_DESCRIPTION = re.compile(r"\A(?:--.*\n)+")


def own_statements(module: str) -> Mapping[str, sql.SQL]:
    """The statements of a module (its `__file__`), by name, for the bundle's own schema. A module reads them once, when it is
    imported, and takes each by its name there: a name that is absent, or there twice, is an error of the import."""
    file = Path(module).with_suffix(".sql")
    statements: dict[str, sql.SQL] = {}
    _, *parts = _NAME.split(in_own_schema(file.read_text(encoding="utf-8")))
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name in statements:
            raise ValueError(f"{file.name} has two statements {name}")
        statements[name] = sql.SQL(_DESCRIPTION.sub("", text).strip().removesuffix(";"))
    return statements
