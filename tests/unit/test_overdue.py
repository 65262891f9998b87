"""Runs that their own timeout ended: what is said of them, and when nothing is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dualwrite.edge.overdue import hung, tell_of_timeout


def test_only_a_run_that_its_timeout_ended_is_told(caplog):
    """No task of it could tell."""
    run = SimpleNamespace(dag_id="reconcile_dual_writes", run_id="scheduled__2026-11-24")
    tell_of_timeout({"dag_run": run, "reason": "task_failure"})
    assert caplog.text == ""
    tell_of_timeout({"dag_run": run, "reason": "timed_out"})
    assert "run scheduled__2026-11-24 hit its dagrun_timeout and was stopped without a report" in caplog.text


class Instance:
    """What Airflow tells a task of the runs before its own."""

    dag_id = "reconcile_dual_writes"

    def __init__(self, previous: str | None, **tasks: str) -> None:
        self.previous, self.tasks, self.asked = previous, tasks, None

    def get_previous_dagrun(self):
        return self.previous and SimpleNamespace(run_id=self.previous)

    def get_task_states(self, dag_id, *, run_ids):
        self.asked = run_ids
        return {run: dict(self.tasks) for run in run_ids}


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ({"preflight": "skipped", "report": "skipped"}, True),
        ({"preflight": "success", "compare": "skipped", "report": "skipped"}, True),
        ({"compare": "failed", "report": "skipped"}, False),
        ({"compare": "failed", "report": "failed"}, False),
        ({"repair": "skipped", "report": "success"}, False),
        ({"compare": "running", "report": "None"}, False),
    ],
)
def test_a_run_that_was_cut_off_is_known_by_its_tasks(tasks, told):
    """A timeout skips whatever hasn't ended, the report too; nothing of it has failed."""
    instance = Instance("scheduled__1", **tasks)
    found = hung({"ti": instance, "run_id": "manual__2"}, "manual__1")
    assert instance.asked == ["manual__1", "scheduled__1"]
    assert found == (("manual__1", "scheduled__1") if told else ())


def test_the_first_run_and_a_cleared_one_ask_of_nothing():
    """A run that is cleared finds its own lines in the target."""
    instance = Instance(None, report="skipped")
    assert hung({"ti": instance, "run_id": "manual__1"}, "manual__1") == ()
    assert hung({"ti": instance, "run_id": "manual__1"}, None) == ()
    assert instance.asked is None


def test_airflow_that_does_not_answer_costs_the_extra_look_alone(caplog):
    """What came before must not end a run that can examine."""
    assert hung({"ti": SimpleNamespace(dag_id="d"), "run_id": "r"}, "manual__1") == ()
    assert "It is unknown whether the run before this one hung: Airflow answered AttributeError" in caplog.text
