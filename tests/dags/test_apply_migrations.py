"""apply_migrations as Airflow runs it."""

from __future__ import annotations

import psycopg

from tests.support import one


def test_a_dry_run_leaves_nothing_and_an_apply_migrates(firestore, phase1_dsn, run_dag):
    """A second apply is a no-op."""

    def run(**conf):
        return run_dag("apply_migrations", conf, project=firestore.project, dsn=phase1_dsn)

    assert run().state == "success"
    assert one(phase1_dsn, "SELECT to_regclass('drafts') IS NULL AND to_regnamespace('dualwrite') IS NULL")
    applied = run(mode="apply")
    assert applied.state == "success"
    assert f"[info ] {applied.report['verdict']}" in applied.said, "again at the end, from which Airflow shows a log"
    assert "42501" in applied.log, "the report reminds that the web client's writes will be refused"
    ledger = "SELECT string_agg(version || applied_at::text, ',' ORDER BY version) FROM dualwrite.migrations"
    before = one(phase1_dsn, ledger)
    assert run(mode="apply").state == "success"
    assert one(phase1_dsn, ledger) == before


def test_a_refused_migration_fails_the_run_with_the_remedy(firestore, phase1_dsn, run_dag):
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE drafts (id int)")
    run = run_dag("apply_migrations", {"mode": "apply"}, project=firestore.project, dsn=phase1_dsn)
    assert run.state == "failed"
    assert "drafts exists and isn't recorded as applied" in run.said
    assert one(phase1_dsn, "SELECT to_regclass('reviews') IS NULL")
    assert "Refused, nothing was applied" in run.said
    assert "Verified: " not in run.log
