"""What a catalog leaves out stands in the report of each kind of run, and in the doctor's."""

from __future__ import annotations

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Source
from dualwrite.model.render import as_markdown, as_text
from dualwrite.runs import backfill, doctor
from dualwrite.runs.report import gap as gap_report
from tests.support import examine_all, gap_run, reconciled
from tests.worlds import club, examined_until_now


@pytest.fixture
def moody(firestore, emulator, target_dsn):
    """A table with a column that no document fills, and one that Postgres makes."""
    club(firestore, emulator, target_dsn)
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE likes ADD mood text DEFAULT 'calm'")
        connection.execute("ALTER TABLE likes ADD search text GENERATED ALWAYS AS (upper(id)) STORED")
    return firestore


LINE = "likes: 6 of 8 columns are compared; not looked at: mood, search."


def _words(text: str) -> str:
    return " ".join(text.split())


def test_a_dry_run_names_what_inserted_rows_get_by_default(moody, emulator, target_dsn):
    with gap_run(moody.project, emulator, target_dsn, mode="dry_run", collections=["likes"]) as run:
        covered = backfill.preflight(run, by="test")["coverage"]
        found = examine_all(run, dry=True)
        counted = {n: backfill.verify(run, n, counts_only=True) for n in run.params.names}
        whole = gap_report.build_report("r", run.params, found, counted, dry=True, covered=covered)
        applied = gap_report.build_report("r", run.params, found, {}, dry=False, covered=covered)
    told = f"{LINE} Inserted rows get the table's defaults in mood."
    assert told in _words(as_text(gap_report.described(whole)))
    assert "likes: 6 of 8 columns are compared" in as_markdown(gap_report.asked(whole))
    assert "Inserted rows" not in as_text(gap_report.described({**applied, "mode": "apply"}))


def test_a_reconciliation_names_it_once_and_raises_no_alarm(moody, emulator, target_dsn):
    examined_until_now(target_dsn)
    found = reconciled(moody.project, emulator, target_dsn, collections=["likes", "blocks"])
    assert found.alerts == []
    assert found.text().count(LINE) == 1
    assert "Inserted rows" not in found.text()


def test_the_doctor_names_it_and_finds_nothing_wrong(moody, emulator, target_dsn):
    lines = {
        line.what: line
        for line in doctor.examine(
            lambda: Source(moody.project, emulator_host=emulator), lambda: postgres.connect(target_dsn), CATALOG
        )
    }
    assert f"likes: {lines['columns of likes'].note}." == LINE
    assert {lines[f"columns of {name}"].fault for name in CATALOG.names} == {None}
