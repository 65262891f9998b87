"""Pure: the parameters of apply_migrations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dualwrite.model.parameters import FINE_TUNING, Params


class MigrationParams(Params):
    """The parameters of one run of apply_migrations, checked. Durations are in seconds."""

    mode: Literal["dry_run", "apply"] = Field(
        "dry_run",
        title="Mode",
        description="A dry run executes every pending file and rolls all of it back. It takes the same locks as an apply, "
        "for two seconds at most, and reports the files that it couldn't try.",
        json_schema_extra={
            "words": ["dry run: execute in one transaction, roll back", "apply: one file after another"]
        },
    )
    web_client: Literal["leave", "closed", "anon"] = Field(
        "leave",
        title="Web client's access to the new tables",
        description="Access to the tables in sql/optional/web_client_anon.sql. Read that file before you choose anon: with it, the "
        "database can't distinguish between people.",
        json_schema_extra={
            "words": [
                "leave as it is (closed, if never opened)",
                "closed: the anon key has no access",
                "anon: anyone with the anon key reads and writes them",
            ]
        },
    )
    target_version: str | None = Field(
        None,
        pattern="^[0-9]{14}$",
        title="Target version",
        description="Apply files up to this version. Empty: all.",
    )
    lock_timeout: float = Field(
        1,
        ge=0.05,
        le=60,
        title="Lock timeout (seconds)",
        description="How long a statement waits for a lock before it lets the app go first.",
        json_schema_extra=FINE_TUNING,
    )
    wait_for_lock: float = Field(
        60,
        ge=0,
        le=3600,
        title="Wait for lock (seconds)",
        description="How long to keep retrying before the run fails and reports who held the lock. An index built "
        "concurrently waits this long for the app's transactions, and nothing waits behind it.",
        json_schema_extra=FINE_TUNING,
    )
    statement_timeout: float = Field(
        1800,
        ge=1,
        le=24 * 3600,
        title="Statement timeout (seconds)",
        description="How long one statement of an apply may take, for example to build an index.",
        json_schema_extra=FINE_TUNING,
    )
