"""What a refusal is told by: its code, not its English."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def coded(code: str) -> Callable[[Any], bool]:
    """For `pytest.raises(CatalogError, check=coded("key-missing"))`. What a message names (a column, a line, a count) is
    looked for in its text beside that."""

    def check(error: Any) -> bool:
        assert error.code == code
        return True

    return check
