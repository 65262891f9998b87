"""All open differences as a list, in pages that fit into XComs; a report shows only a sample of each verdict."""

from __future__ import annotations

import json
from typing import Any

from dualwrite.model.run_report import Listed
from dualwrite.model.verdicts import printable
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import differences
from dualwrite.postgres.remembered.differences import LISTED

MOST = 10_000
"""Differences that a run lists if a person triggered it."""
MOST_UNATTENDED = 500
"""Differences that a scheduled run lists: there are 96 runs a day, and each leaves its list in Airflow's database."""

PAGE_BYTES = 60_000
"""Bytes of JSON in one page."""
LONGEST = 1_500
"""Characters of one id."""


def pages(connection: Connection, *, unattended: bool) -> tuple[list[dict[str, Any]], Listed]:
    """The pages, each {"names": [...], "rows": [[...], ...]}, and how many pages and rows there are, `of` how many open
    differences."""
    rows, total = differences.listed(connection, MOST_UNATTENDED if unattended else MOST)
    parts: list[list[Any]] = []
    size = PAGE_BYTES
    for row in rows:
        cells = [shown(value) for value in row]
        length = len(json.dumps(cells, ensure_ascii=False).encode()) + 2
        if size + length > PAGE_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(cells)
        size += length
    made = [{"names": list(LISTED), "rows": page} for page in parts]
    return made, {"pages": len(made), "rows": len(rows), "of": total}


def shown(value: Any) -> Any:
    """An id as people can read it: special characters escaped, and cut to LONGEST with an ellipsis. Such a key can't be
    named in a form."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
