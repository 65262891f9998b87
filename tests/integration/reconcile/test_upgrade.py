"""A target that remembers excuses from before they said what they are for."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from dualwrite.migrations.files import folders, list_folders
from dualwrite.model.errors import PreflightError
from dualwrite.model.verdicts import Excuse
from dualwrite.postgres import connect
from dualwrite.postgres.remembered import differences, excuses, schema
from tests.integration.reconcile.world import execute
from tests.support import reconciled

MIGRATIONS = [f.path for f in list_folders(folders())]
BEFORE = [f for f in MIGRATIONS if f.name < "20260116000000"]
UPGRADE = MIGRATIONS[len(BEFORE) :]
OPEN = (
    "INSERT INTO dualwrite.open_differences (collection, key, path, verdict, reason, first_seen, last_seen, run_id, "
    "excused_by, excuse_reason) VALUES ('posts', %s, %s, 'rejected', %s, now(), now(), 'old', %s, %s)"
)


def _open(connection, collection: str) -> set[str]:
    pages = differences.in_pages(lambda: nullcontext(connection), collection)
    return {difference.label for page in pages for difference in page}


def test_an_upgrade_keeps_excuses_for_what_was_open(phase1_dsn):
    """It forgets lines that stood for nothing."""
    for file in BEFORE:
        execute(phase1_dsn, file.read_text())
    execute(phase1_dsn, OPEN, "accepted", "boards/b/posts/accepted", "wrong_type", "somebody", "known")
    execute(phase1_dsn, OPEN, "in_advance", None, None, "somebody", "a test account")
    execute(phase1_dsn, OPEN, "taken_back", None, None, None, None)
    execute(phase1_dsn, OPEN, "open", "boards/b/posts/open", "wrong_type", None, None)
    for file in UPGRADE:
        execute(phase1_dsn, file.read_text())
    with connect(phase1_dsn) as connection:
        schema.require(connection)
        accepted = excuses.excuses_of(connection, "posts")
        assert accepted == {"accepted": Excuse("rejected", "wrong_type"), "in_advance": Excuse()}
        assert _open(connection, "posts") == {
            "accepted",
            "in_advance",
            "open",
        }
        excuses.unexcuse(connection, [("posts", "*")])
        assert _open(connection, "posts") == {"accepted", "open"}


def test_a_schema_of_before_is_refused_with_what_to_run(firestore, emulator, phase1_dsn):
    for file in BEFORE:
        execute(phase1_dsn, file.read_text())
    lacks = (
        "it lacks count_baselines.counted_seconds, gone_documents.asked_at, interventions.kind, "
        "open_differences.excused_verdict, repair_journal.undoes, runs.proof_reads, seen_keys.key. "
        "Run the DAG apply_migrations"
    )
    with connect(phase1_dsn) as connection, pytest.raises(PreflightError, match=lacks):
        schema.require(connection)
    with pytest.raises(PreflightError, match=lacks):
        reconciled(firestore.project, emulator, phase1_dsn)
