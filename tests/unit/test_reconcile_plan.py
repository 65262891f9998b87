"""What the tasks of a reconciliation agree on, and what it lets each of them do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.model.reconcile_params import ReconcileParams
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Verdict
from dualwrite.model.windows import Window
from dualwrite.runs.reconcile_plan import Plan, Run

NOW = datetime(2026, 2, 1, 12, 30, 0, 123456, tzinfo=UTC)
WINDOW = Window(NOW - timedelta(hours=1), NOW)
NAMES = ("posts", "comments", "likes")


def params(**changes: Any) -> ReconcileParams:
    return ReconcileParams.model_validate({"collections": list(NAMES), **changes})


def run_of(plan: Plan) -> Run:
    return Run(None, None, CATALOG, "run", plan)


def test_a_plan_survives_the_way_to_another_task():
    plain = Plan(params(), NOW, True, {"posts": WINDOW, "comments": None})
    full = Plan(
        params(repair="all", max_repairs=7),
        NOW,
        False,
        {"posts": None},
        {"posts": WINDOW},
        True,
        9,
        "before",
        "somebody",
        ("hung",),
    )
    assert (plain.billed_reads, plain.unattended, plain.instead, plain.hung) == (0, False, {}, ())
    for plan in (plain, full):
        told = plan.as_json()
        assert Plan.from_json(told) == plan
        assert Plan.from_json({**told, "hung": ["a", "b"]}).hung == ("a", "b")
    older = {name: value for name, value in full.as_json().items() if name not in ("before", "by", "hung")}
    assert Plan.from_json(older) == replace(full, before=None, by="", hung=()), "of the version that a run began with"


@pytest.mark.parametrize(
    ("repair", "allowed"),
    [
        ("off", (False, False, False)),
        ("missing", (True, False, False)),
        ("missing_and_stale", (True, True, False)),
        ("all", (True, True, True)),
    ],
)
def test_a_repair_may_write_what_was_asked_for(repair, allowed):
    plan = Plan(params(repair=repair, max_proof_reads=5), NOW, True, {})
    policy = run_of(plan).policy
    assert (policy.insert, policy.update, policy.delete, policy.max_proof_reads) == (*allowed, 5)
    assert (plan.repairs, plan.writes) == (allowed[0], allowed[0])
    switched_off = replace(plan, dual_write_enabled=False)
    assert (switched_off.repairs, switched_off.writes) == (False, False)


def test_a_run_tells_how_much_it_looked_at():
    run = run_of(Plan(params(), NOW, True, {"posts": WINDOW, "comments": None}))
    assert [run.scope_of(name, run.plan.windows.get(name)) for name in NAMES] == ["recent", "sweep", "recent"]
    assert run.scope_of("comments", WINDOW) == "recent", "the window, where its sweep failed"


def test_a_look_at_nothing_leaves_no_line():
    run = run_of(Plan(params(), NOW, True, {}))
    found = CollectionReport("posts", "write")
    assert run.logs(found) is False
    assert run.logs(CollectionReport("posts", "compare")) is True
    assert run.logs(CollectionReport("posts", "write", not_examined="TargetError")) is True
    found.add(Finding(Verdict.MISSING, "p", "boards/b/posts/p"))
    assert run.logs(found) is True


def test_a_run_is_as_its_plan_says():
    run = run_of(Plan(params(), NOW, True, {}, unattended=True, billed_reads=4))
    assert (run.billed_before, run.unattended, run.params.collections) == (4, True, NAMES)
    assert run_of(Plan(params(max_proof_reads=11), NOW, True, {})).max_proof_reads() == 11, (
        "a person's own run has no budget for a day"
    )
