"""The differences in a backfill's report that a person would accept, in the form's notation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rejected(report: Mapping[str, Any]) -> list[str]:
    """The documents that can't become rows, as collection:key, each once."""
    keys = [
        f"{c['collection']}:{sample['key']}"
        for c in report["collections"]
        for sample in c["samples"].get("rejected", [])
    ]
    return list(dict.fromkeys(keys))
