"""Runs that their own timeout ended: what is said of them, and when nothing is."""

from __future__ import annotations

from types import SimpleNamespace

from dualwrite.edge.overdue import tell_of_timeout


def test_only_a_run_that_its_timeout_ended_is_told_because_no_task_of_it_could(caplog):
    run = SimpleNamespace(dag_id="reconcile_dual_writes", run_id="scheduled__2026-11-24")
    tell_of_timeout({"dag_run": run, "reason": "task_failure"})
    assert caplog.text == ""
    tell_of_timeout({"dag_run": run, "reason": "timed_out"})
    assert "run scheduled__2026-11-24 reached its dagrun_timeout and was ended without a report" in caplog.text
