"""SIGKILL of the processes in which a real Airflow runs tasks: what it makes of that, what an operator is told, and that the next
run ends what was begun. Each step of the same work, without Airflow: tests/integration/engine/test_killed_at_each_step.py.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import psycopg
import pytest

from dev import stack
from tests import durable
from tests.durable import Scene
from tests.e2e.conftest import Operated
from tests.e2e.killing import AFTER, ANYWHERE, BEFORE, Ended, Moment, Try, kill_with_children, run_and_kill
from tests.faults import COLLECTIONS
from tests.soak import sized

SECONDS_BETWEEN_CHECKS = "20"
"""Airflow looks so often for tasks whose scheduler is gone. (By default every five minutes.)"""
_BOTH: dict[str, Any] = {"collections": COLLECTIONS, "slice_documents": 5, "grace_seconds": 0.2}
RECONCILE = "reconcile_dual_writes"
CONF: dict[str, dict[str, Any]] = {
    "backfill_gap": {**_BOTH, "mode": "apply", "scope": "all", "page_size": 2},
    "reconcile_dual_writes": {**_BOTH, "repair": "all", "liveness_minimum": 10**6},
    "apply_migrations": {"mode": "apply"},
}
TASKS: dict[str, dict[str, int]] = {
    "backfill_gap": {
        "preflight": 1, "choose": 0, "collections.comments": 4, "examine_slices": 1, "verify_counts": 2, "verify_slices": 3,
        "finish": 1, "report": 2,
    },
    "reconcile_dual_writes": {
        "preflight": 0, "sweep_slices": 2, "compare": 3, "grace": 0, "look_again": 3, "repair": 8, "report": 1,
    },
    "apply_migrations": {"plan": 0, "apply": 8, "verify": 0, "report": 0},
}  # fmt: skip
"""By DAG and task, how many durable steps it has at least. (A reconciliation's preflight writes only where something is old, and a
scheduled run may have been there before.)"""
COSTS_NOTHING = ("choose", "grace")
"""Tasks without which all is examined, and so not told: one saves processes, the other time."""
TELLS: dict[str, list[str]] = {
    "backfill_gap": [  # it deletes nothing
        "comments is not verified: 1 extra; rows of other collections that need these count as matching until they go"
    ],
    "reconcile_dual_writes": [],
    "apply_migrations": [],
}
"""What a run tells that did all that it can do here."""

pytestmark = pytest.mark.timeout(2400)
dags = pytest.mark.parametrize("dag", CONF)
State = dict[str, list[Any]]


@pytest.fixture(scope="module")
def scenes(airflow, postgres_server) -> Iterator[dict[str, Scene]]:
    with durable.scenes(airflow.stack.emulator, postgres_server) as made:
        yield made


@pytest.fixture(scope="module")
def right(scenes) -> Callable[[str], State]:
    """By DAG, what a run and a second one leave that nobody kills."""

    @cache
    def of(dag: str) -> State:
        with scenes[dag].target() as dsn:
            scenes[dag].run(dsn, "first")
            scenes[dag].run(dsn, "second")
            return durable.state(dsn)

    return of


def _run(airflow: Operated, scenes: dict[str, Scene], dag: str, dsn: str, moment: Any, **more: Any) -> Ended:
    project = scenes["backfill_gap"].place[0]
    if dag != RECONCILE:  # at a quarter past, its schedule would come to this target too
        airflow.api.pause(RECONCILE)
    ended = run_and_kill(airflow.api, dag, CONF[dag], target=dsn, project=project, moment=moment, **more)
    sys.stdout.write(f"\n{dag} {ended.run_id}: {ended.killed}\n")
    return ended


def _told(airflow: Operated, dag: str, ended: Ended) -> list[str]:
    return [alert["text"] for alert in airflow.api.report(dag, ended.run_id)["alerts"]]


def _log(airflow: Operated, dag: str, ended: Ended, which: Try) -> str:
    path = f"/api/v2/dags/{dag}/dagRuns/{ended.run_id}/taskInstances/{which.task}/logs/{which.number}"
    return json.dumps(airflow.api.call("GET", f"{path}?map_index={which.index}"))


def _some_moment(steps: int, own: random.Random | None = None) -> Moment:
    own = own or random.Random()
    return Moment(own.choice((BEFORE, AFTER)), own.randint(1, steps)) if steps else Moment(ANYWHERE)


def _nothing_is_left(scene: Scene, dsn: str, right: State) -> None:
    durable.writes_nothing(scene, dsn, "next")
    assert durable.state(dsn) == right


@dags
def test_each_writing_task_is_killed_once_and_the_run_ends(airflow, scenes, right, dag):
    """Airflow tries each again; nobody has to do anything, and the report is that of a run that nobody killed. Each dies with its
    last write done and not yet told: the next try finds everything as one that had succeeded left it."""
    chosen = {task: Moment(AFTER, steps) if steps else Moment(ANYWHERE) for task, steps in TASKS[dag].items()}

    def first_try(one: Try) -> Moment | None:
        return chosen.get(one.task) if one.number == 1 and one.index < 1 else None

    with scenes[dag].target() as dsn:
        ended = _run(airflow, scenes, dag, dsn, first_try)
        durable_ones = {task for task, steps in TASKS[dag].items() if steps}
        killed = {one.task for one in ended.killed}
        assert durable_ones <= killed <= set(chosen), ended  # of the others, one may be over before it is seen to run
        again = {task for task, tries in ended.tries.items() if tries == 2}
        assert durable_ones <= again, ("each was tried again", ended)
        assert _told(airflow, dag, ended) == TELLS[dag]
        assert ended.state == ("failed" if TELLS[dag] else "success")
        _nothing_is_left(scenes[dag], dsn, right(dag))


def test_a_task_killed_at_every_try_is_named_with_what_is_done(airflow, scenes, right):
    """The report says what is applied, and not what was planned before the kill."""
    dag = "apply_migrations"
    moments = {1: Moment(AFTER, 2), 2: _some_moment(3)}
    with scenes[dag].target() as dsn:
        ended = _run(airflow, scenes, dag, dsn, lambda one: moments[one.number] if one.task == "apply" else None)
        assert (ended.state, ended.tries["apply"], len(ended.killed)) == ("failed", 2, 2)
        assert "SIGKILL" in _log(airflow, dag, ended, Try("apply", -1, 2)), "where the report says that it is"
        [told] = _told(airflow, dag, ended)
        assert told.startswith("The migrations were only partly applied: apply failed: its process was killed")
        assert "see the end of the log of task apply" in told
        said = {s["version"] for s in airflow.api.report(dag, ended.run_id)["steps"] if s["state"] == "applied"}
        assert len(said) >= 2
        with psycopg.connect(dsn) as connection:
            applied = connection.execute("SELECT version FROM dualwrite.migrations WHERE applied_at IS NOT NULL")
            assert said == {version for (version,) in applied}
        scenes[dag].run(dsn, "next")
        _nothing_is_left(scenes[dag], dsn, right(dag))


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_200_tasks_killed_at_random_leave_nothing_behind(airflow, scenes, right):
    """Each run is killed at many tasks; one in five is killed again at its second try, and a few at every try."""
    steps = {dag: dict(TASKS[dag]) for dag in CONF}  # grows by what is seen
    killed = runs = 0
    while killed < sized(200):
        dag = list(CONF)[runs % len(CONF)]
        with scenes[dag].target() as dsn:
            ended = _run(airflow, scenes, dag, dsn, _at_random(steps[dag]))
            for one, names in ended.steps.items():
                steps[dag][one.task] = max(steps[dag].get(one.task, 0), len(names))
            _says_what_was_lost(airflow, dag, ended)
            scenes[dag].run(dsn, "next")
            _nothing_is_left(scenes[dag], dsn, right(dag))
        killed, runs = killed + len(ended.killed), runs + 1
    sys.stdout.write(f"\n{killed} tasks were killed in {runs} runs\n")


def _at_random(steps: dict[str, int]) -> Callable[[Try], Moment | None]:
    """`steps`: by task, how many it has."""
    seed = random.random()
    for_good = random.choice(list(steps)) if random.random() < 0.3 else ""

    def moment(one: Try) -> Moment | None:
        own = random.Random(f"{seed} {one}")  # whenever it is asked, its answer is the same
        due = own.random() < (0.8, 0.2, 0)[min(one.number, 3) - 1] or one.task == for_good
        return _some_moment(steps.get(one.task, 1), own) if due else None

    return moment


def _says_what_was_lost(airflow: Operated, dag: str, ended: Ended) -> None:
    """A task that was killed at every try is in the report; if that is lost itself, Airflow shows what failed."""
    failed = {task for task, states in ended.states.items() if "failed" in states}
    died = max((one.number for one in ended.killed if one.task == "report"), default=0)  # it may fail by itself, too
    if "report" in failed and ended.tries["report"] == died:
        return
    told = " ".join(_told(airflow, dag, ended))
    for task in failed - {"report", *COSTS_NOTHING}:
        of_slices = "of its" in told and "see their logs" in told
        assert f"log of task {task}" in told or of_slices, (task, told)


@pytest.mark.soak
@dags
def test_airflow_itself_is_killed_with_its_tasks_and_goes_on(airflow, scenes, right, dag):
    """As when a machine loses its power: scheduler, workers and tasks at once, then all is started again."""
    environment = airflow.stack.environment
    environment["AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL"] = SECONDS_BETWEEN_CHECKS
    stack.restart(airflow.stack, airflow.components, "scheduler")
    task = {"backfill_gap": "collections.comments", "reconcile_dual_writes": "repair", "apply_migrations": "apply"}[dag]
    moment = _some_moment(TASKS[dag][task])

    dark = threading.Event()

    def power_fails(_: int) -> None:
        kill_with_children(airflow.components["scheduler"].pid)
        dark.set()

    def power_is_back() -> None:
        if dark.is_set():
            dark.clear()
            stack.restart(airflow.stack, airflow.components, "scheduler")

    def once(one: Try) -> Moment | None:
        return moment if (one.task, one.number) == (task, 1) else None

    with scenes[dag].target() as dsn:
        ended = _run(airflow, scenes, dag, dsn, once, strike=power_fails, each_turn=power_is_back)
        assert ended.tries[task] == 2
        assert _told(airflow, dag, ended) == TELLS[dag]
        _nothing_is_left(scenes[dag], dsn, right(dag))
