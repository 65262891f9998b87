"""The commands behind `make`, and the local servers of tests and benchmarks."""

from __future__ import annotations

import sys
from types import TracebackType

_ABOUT_A_FILE_OF_YOURS = ("CatalogError", "SettingsError")
"""Errors that say the rule, the place and the remedy: a command that ends with one needs no traceback. By name, because importing
them would load the catalog."""


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind.__name__ in _ABOUT_A_FILE_OF_YOURS:
        sys.stderr.write(f"{error}\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # `python -m dev.something`, whose module isn't imported yet
    sys.excepthook = _without_traceback
