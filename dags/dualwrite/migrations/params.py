"""The parameters of one run of apply_migrations, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualwrite.model import choices, parameters
from dualwrite.model.errors import ParameterError

MODES = choices.MIGRATION_MODES
WEB_CLIENT = choices.WEB_CLIENT
PARAMETERS = ("mode", "web_client", "lock_timeout", "wait_for_lock", "statement_timeout", "target_version")


@dataclass(frozen=True, slots=True)
class MigrationParams:
    """Durations are in seconds. `statement_timeout` ends a single statement of an apply, whatever it waits for."""

    mode: str = "dry_run"
    web_client: str = "leave"
    lock_timeout: float = 1.0
    wait_for_lock: float = 60.0
    statement_timeout: float = 1800.0
    target_version: str | None = None


def parse(given: Mapping[str, Any], known: Sequence[str] = PARAMETERS) -> MigrationParams:
    """Checks the parameters of a run. Raises ParameterError with the first fault."""
    parameters.refuse_unknown(given, known)
    version = given.get("target_version") or None
    if version is not None and not re.fullmatch(r"\d{14}", str(version)):
        raise ParameterError(f"target_version must have 14 digits: it is {version!r}. Correct it.")
    return MigrationParams(
        mode=parameters.choice(given, "mode", MODES),
        web_client=parameters.choice(given, "web_client", WEB_CLIENT),
        lock_timeout=parameters.number(given, "lock_timeout", 0.05, 60),
        wait_for_lock=parameters.number(given, "wait_for_lock", 0, 3600),
        statement_timeout=parameters.number(given, "statement_timeout", 1, 24 * 3600),
        target_version=version,
    )
