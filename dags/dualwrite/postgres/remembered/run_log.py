"""The run log, `dualwrite.runs`: the counts of each phase of each run in a collection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import cast

from dualwrite.model.report import CollectionReport
from dualwrite.model.run_report import Day, PastRun
from dualwrite.model.windows import Window
from dualwrite.postgres import privileges
from dualwrite.postgres.connection import Connection, Jsonb, dict_row
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.session import Session

_SQL = own_statements(__file__)
_BILLED = _SQL["billed"]
_PROOF_READS = _SQL["proof_reads"]
_WITHOUT_ROWS = _SQL["without_rows"]
_PRUNE = _SQL["prune"]
_LAST_RUN = _SQL["last_run"]
_HISTORY = _SQL["history"]
_DAYS = _SQL["days"]
_CLEAN_DAYS = _SQL["clean_days"]


def can_record(connection: Connection) -> bool:
    """Whether the role may keep a run's counts: a dry run does so if it may."""
    return not privileges.missing_grants(connection, {f"{SCHEMA}.runs": ("INSERT", "UPDATE")})


@dataclass(frozen=True, slots=True)
class Work:
    """The facts of a line beside its counts: whose work it was, on how much, and when it began."""

    dag_id: str
    run_id: str
    scope: str
    mode: str
    window: Window | None
    started_at: datetime
    unattended: bool = False
    """A schedule began the run."""
    part: int = 0
    """The number of a slice; 0: the whole collection, or the rest that its slices left."""


def record(connection: Connection, report: CollectionReport, work: Work) -> None:
    """Keeps a collection's counts. A retried task replaces its own line."""
    line = {
        "dag_id": work.dag_id,
        "run_id": work.run_id,
        "collection": report.collection,
        "phase": report.phase,
        "scope": work.scope,
        "mode": work.mode,
        "outcome": report.outcome,
        "window_from": work.window.start if work.window else None,
        "window_until": work.window.end if work.window else None,
        "started_at": work.started_at,
        "counts": Jsonb({**report.as_json()["counts"], "left_out": report.left_out, "excused": report.excused_counts}),
        "verification": report.verification,
        "unattended": work.unattended,
        "slice": work.part,
        **report.logged(),
    }
    columns = ", ".join(line)
    values = ", ".join(f"%({column})s" for column in line)
    replaced = ", ".join(f"{column} = excluded.{column}" for column in line)
    connection.execute(
        f"""
        INSERT INTO {SCHEMA}.runs ({columns}) VALUES ({values})
        ON CONFLICT (dag_id, run_id, collection, phase, slice) DO UPDATE SET {replaced}, recorded_at = now()
        """,
        line,
    )


def billed(connection: Connection, dag_id: str, run_id: str) -> int:
    """Reads that a run's tasks have recorded so far."""
    row = connection.execute(_BILLED, {"dag": dag_id, "run": run_id}).fetchone()
    assert row is not None
    return int(row[0])


def proof_reads(session: Session, dag_id: str) -> int:
    """Names that a DAG's scheduled runs have read for proofs within a day."""
    [[reads]] = session.fetch(_PROOF_READS, {"dag": dag_id})
    return int(reads)


def without_rows(session: Session, dag_id: str, run_id: str) -> dict[str, int]:
    """How many documents that this run compared can have no row, by collection: orphans (a comment below a deleted post),
    duplicates, and those that their collection's condition leaves out. A sweep's are of any age, so the check of liveness may
    overlook that dual-write is off; the next window's doesn't."""
    return dict(session.fetch(_WITHOUT_ROWS, {"dag": dag_id, "run": run_id}))


def prune(connection: Connection, days: int) -> int:
    """Deletes lines older than `days`; returns how many."""
    return connection.execute(_PRUNE, {"days": days}).rowcount


def last_run(connection: Connection, dag_id: str, *, but: str) -> str | None:
    """The run that left the last line, apart from this one; None if there is none."""
    row = connection.execute(_LAST_RUN, {"dag": dag_id, "but": but}).fetchone()
    return str(row[0]) if row else None


def history(connection: Connection, dag_id: str, limit: int = 200) -> list[PastRun]:
    """The last runs in short form, newest first: the sums over all collections."""
    lines = 80 * limit  # a run has at most five lines for each of the collections
    runs = []
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_HISTORY, {"dag": dag_id, "lines": lines, "limit": limit}):
            run_id, at = row.pop("run_id"), row.pop("at").isoformat(timespec="seconds")
            runs.append(cast("PastRun", {"run_id": run_id, "at": at, **{n: int(v) for n, v in row.items() if v}}))
    return runs


def days(connection: Connection, dag_id: str, number: int) -> list[Day]:
    """The last days (UTC), today first, each with how many runs compared, whether all of them were clean (see `clean_days`; None:
    there was no run), up to three that weren't, and the reads that the tasks of all DAGs have recorded."""
    rows = connection.execute(_DAYS, {"dag": dag_id, "number": number}).fetchall()
    return [
        {"day": day.isoformat(), "runs": runs, "clean": clean, "not_clean": not_clean, "billed": billed}
        for day, runs, clean, not_clean, billed in rows
    ]


def clean_days(connection: Connection, dag_id: str) -> list[tuple[date, bool]]:
    """The days (UTC) with runs, newest first, each with whether all of them examined everything and saw no drift.
    Rejections don't count here: they stay open until they are corrected or excused."""
    rows = connection.execute(_CLEAN_DAYS, {"dag": dag_id}).fetchall()
    return [(day, bool(clean)) for day, clean in rows]
