"""Runs that hang, and runs that their own timeout ended: what is said of them, and when nothing is."""

from __future__ import annotations

from types import SimpleNamespace

from dualwrite.edge.overdue import tell_of_overdue_run, tell_of_timeout

RUN = {"dag_id": "reconcile_dual_writes", "dag_run_id": "scheduled__2026-11-24"}


def test_a_run_that_has_not_ended_in_time_is_told_with_its_name_and_what_to_do(caplog):
    tell_of_overdue_run(context={"dag_run": RUN})
    assert (
        "reconcile_dual_writes: run scheduled__2026-11-24 has not ended 90 minutes after it was queued" in caplog.text
    )
    assert "mark the run as failed" in caplog.text


def test_only_a_run_that_its_timeout_ended_is_told_because_no_task_of_it_could(caplog):
    run = SimpleNamespace(dag_id="reconcile_dual_writes", run_id="scheduled__2026-11-24")
    tell_of_timeout({"dag_run": run, "reason": "task_failure"})
    assert caplog.text == ""
    tell_of_timeout({"dag_run": run, "reason": "timed_out"})
    assert "run scheduled__2026-11-24 reached its dagrun_timeout" in caplog.text
