"""Where the bundle remembers: a schema of its own in the target, `dualwrite`, or one of its prefix's.

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
    """SQL, or what was taken from it, that is written for the schema `dualwrite` and its two roles. (`-- dualwrite:` is a word to
    the migrator.)"""
    return re.sub(rf"\b{settings.SCHEMA}(?=_data\b|_migrations\b|\b(?!:))", SCHEMA, text)
