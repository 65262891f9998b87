"""The commands behind `make`, and what tests and benchmarks run on."""

from __future__ import annotations

import sys
from types import TracebackType

_ABOUT_A_FILE_OF_YOURS = ("CatalogError", "SettingsError")
"""Errors that say the rule, the place and the remedy: a command that ends with one needs no traceback. By name, because the catalog
is loaded while they are imported."""


def _said(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind.__name__ in _ABOUT_A_FILE_OF_YOURS:
        sys.stderr.write(f"{error}\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # `python -m dev.something`, which is being found
    sys.excepthook = _said
