"""How much of their work the soak tests do: `make soak SOAK=0.1` does a tenth of it, at moments of its own choice."""

from __future__ import annotations

import os

SHARE = float(os.environ.get("SOAK") or 1)


def sized(number: int) -> int:
    """Of so many cases, how many are tried."""
    return max(1, round(number * SHARE))
