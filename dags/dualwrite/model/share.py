"""Pure: a collection's share of a table that has other rows too: `rows={"channel": "web"}`.

Every statement on the table has the share's equalities (postgres/fragments.py). The share declares its columns: rows are
inserted with these values, which are never changed.
"""

from __future__ import annotations

from collections.abc import Mapping

Value = str | int | bool | None

Share = Mapping[str, Value]
"""Column and value; None: null."""


def fault(share: object) -> str | None:
    """Why something is no share; None if it is one."""
    if not isinstance(share, Mapping):
        return "rows= is no dict"
    for name, value in share.items():
        if not isinstance(name, str) or not name:
            return "rows= names something that is no column"
        if not isinstance(value, str | int | bool | None) or (isinstance(value, str) and "\x00" in value):
            return f"rows= gives {name!r} something that is no text, whole number, boolean or None"
    return None


def text_of(value: Value) -> str | None:
    """A value as Postgres reads it; None: null."""
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def are_disjoint(one: Share, other: Share) -> bool:
    """Whether no row can be in both, because they give one column two values. Preflight checks that the column's type
    distinguishes these."""
    return any(text_of(value) != text_of(other[name]) for name, value in one.items() if name in other)
