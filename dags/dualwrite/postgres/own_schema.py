"""The bundle's own schema in the target, in which it remembers: `dualwrite`, or `dualwrite_` with its prefix.

Collections have no prefix, so two bundles that shared a schema would each take the other's watermarks and differences for their own.
"""

from __future__ import annotations

import re
from typing import Final

from dualwrite import settings
from dualwrite.postgres import sql

SCHEMA: Final = settings.schema()
"""A plain name: it needs no quotes in SQL."""
JOURNAL: Final = sql.Identifier(SCHEMA, "repair_journal")


def in_own_schema(text: str) -> str:
    """SQL, or names from it, with this bundle's schema and roles for `dualwrite`'s. (`-- dualwrite:` stays: it is a directive to the
    migrator.)"""
    return re.sub(rf"\b{settings.SCHEMA}(?=_data\b|_migrations\b|\b(?!:))", SCHEMA, text)
