"""Text that Postgres can keep: an id or a path may hold U+0000, and its text type can't."""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\(\\|u0000)")


def stored(text: str | None) -> str | None:
    """A text with U+0000 written as \\u0000. A backslash is doubled, so that `restored` is exact: with another document's path, the
    row would seem extra."""
    return None if text is None else text.replace("\\", "\\\\").replace("\x00", "\\u0000")


def restored(text: str | None) -> str | None:
    """The text that `stored` was given."""
    return None if text is None else _ESCAPED.sub(lambda match: "\\" if match[1] == "\\" else "\x00", text)
