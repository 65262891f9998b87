"""Before-images of rows hold personal data: they end after the days that are promised, whatever else happens."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.postgres.remembered import journal, run_log
from dualwrite.runs import reconcile_plan
from tests.conftest import ROOT

ROW = '{"id": "p1", "content": "personal"}'


@pytest.fixture
def written(target_dsn: str) -> str:
    """A journal with confirmed and unconfirmed writes, of 29 and of 31 days ago; a run of 399 days ago, one of 401."""
    with psycopg.connect(target_dsn) as connection:
        for key, action, before, days, confirmed in [
            ("young", "update", ROW, 29, True),
            ("old", "update", ROW, 31, True),
            ("young, unconfirmed", "delete", ROW, 29, False),
            ("old, unconfirmed", "delete", ROW, 31, False),
            ("old insert, unconfirmed", "insert", None, 31, False),
            # Confirmed by a later run: the image is as old as its write.
            ("old, confirmed yesterday", "update", ROW, 31, None),
        ]:
            connection.execute(
                "INSERT INTO dualwrite.repair_journal (run_id, collection, key, path, action, table_name, row_key, row_before, "
                "written_at, confirmed_at) VALUES ('r', 'posts', %(key)s, 'boards/b/posts/p', %(action)s, 'posts', '[\"p\"]', "
                "%(before)s, now() - make_interval(days => %(days)s), "
                "CASE WHEN %(confirmed)s THEN now() - make_interval(days => %(days)s) "
                "WHEN %(confirmed)s IS NULL THEN now() - interval '1 day' END)",
                {"key": key, "action": action, "before": before, "days": days, "confirmed": confirmed},
            )
        for days in (399, 401):
            connection.execute(
                "INSERT INTO dualwrite.runs (dag_id, run_id, collection, phase, scope, mode, outcome, started_at, seconds, "
                "documents_read, billed_reads, examined, counts, inserted, updated, deleted, recorded_at) VALUES ('d', %s, "
                "'posts', 'gap', 'all', 'apply', 'examined', now(), 0, 0, 0, 0, '{}', 0, 0, 0, "
                "now() - make_interval(days => %s))",
                (str(days), days),
            )
    return target_dsn


def _by_preflight(dsn: str) -> None:
    with postgres.connect(dsn) as connection:
        journal.prune(connection)
        run_log.prune(connection, reconcile_plan.RUNS_DAYS)


def _by_hand(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute((ROOT / "sql/optional/prune.sql").read_text())


@pytest.mark.parametrize("prune", [_by_preflight, _by_hand])
def test_no_before_image_outlives_its_days(written: str, prune: Callable[[str], None]):
    """An unconfirmed write keeps its key."""
    versions = "SELECT key, xmin::text FROM dualwrite.repair_journal WHERE action = 'insert'"
    with psycopg.connect(written) as connection:
        insert = connection.execute(versions).fetchall()
    prune(written)
    with psycopg.connect(written) as connection:
        left = dict(connection.execute("SELECT key, row_before IS NOT NULL FROM dualwrite.repair_journal").fetchall())
        assert left == {
            "young": True,
            "young, unconfirmed": True,
            "old, unconfirmed": False,
            "old insert, unconfirmed": False,
        }
        assert connection.execute(versions).fetchall() == insert, "an insert is recognised by its journal row's xmin"
        unfinished = journal.unconfirmed(connection, "posts")
        assert [(e.label, e.key, e.path) for e in unfinished][1:] == [
            ("old, unconfirmed", ("p",), "boards/b/posts/p"),
            ("old insert, unconfirmed", ("p",), "boards/b/posts/p"),
        ]
        assert connection.execute("SELECT run_id FROM dualwrite.runs").fetchall() == [("399",)]
