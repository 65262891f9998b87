"""All open differences as a list, in pages that fit into XComs: a report shows twenty of each verdict."""

from __future__ import annotations

import json
from typing import Any

from dualwrite.model.run_report import Listed
from dualwrite.model.verdicts import printable
from dualwrite.postgres import Connection
from dualwrite.postgres.remembered import differences
from dualwrite.postgres.remembered.differences import LISTED

MOST = 10_000
"""Differences that the run of a person lists."""
MOST_UNATTENDED = 500
"""... and a scheduled one: there are 96 a day, and each leaves its list in Airflow's database."""

PAGE_BYTES = 60_000
LONGEST = 1_500


def pages(connection: Connection, *, unattended: bool) -> tuple[list[dict[str, Any]], Listed]:
    """The pages, each {"names": ..., "rows": ...}; and how many pages and rows that are, `of` how many differences."""
    rows, total = differences.listed(connection, MOST_UNATTENDED if unattended else MOST)
    found: list[list[Any]] = []
    size = PAGE_BYTES
    for row in rows:
        cells = [shown(value) for value in row]
        length = len(json.dumps(cells, ensure_ascii=False).encode()) + 2
        if size + length > PAGE_BYTES:
            found.append([])
            size = 0
        found[-1].append(cells)
        size += length
    made = [{"names": list(LISTED), "rows": page} for page in found]
    return made, {"pages": len(made), "rows": len(rows), "of": total}


def shown(value: Any) -> Any:
    """An id as people can read it: a key that is shortened or escaped can't be named, and ends in an ellipsis or has an escape."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
