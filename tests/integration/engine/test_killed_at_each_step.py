"""SIGKILL before and after each durable step of each DAG: run again, it ends as if nobody had killed it, and a run after that
writes nothing. The steps are found by a proxy, not listed: see tests/durable.py."""

from __future__ import annotations

import random
import sys
from functools import cache
from typing import Any

import pytest

from tests import durable
from tests.durable import STEPS, Scene
from tests.migrating import NO_TRANSACTION, write
from tests.soak import sized

dags = pytest.mark.parametrize("dag", STEPS)


@pytest.fixture(scope="module")
def scenes(emulator, postgres_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("migrations")
    write(
        folder,
        "CREATE TABLE t1 (a INT);\nINSERT INTO t1 VALUES (1);\n",
        "GRANT SELECT ON t1 TO anon;\n",
        f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY t1_a ON t1 (a);\n",
    )
    with durable.scenes(emulator, postgres_server, str(folder)) as made:
        yield made


@pytest.fixture(scope="module")
def clean(scenes):
    """For a DAG, the steps of a run that nobody kills, and what it and a second one leave."""

    @cache
    def of(dag: str) -> tuple[list[str], dict[str, list[Any]]]:
        scene = scenes[dag]
        with scene.target() as dsn:
            steps = durable.names_of(scene.work, scene.place, dsn, "first")
            scene.run(dsn, "second")
            return steps, durable.state(dsn)

    return of


def _killed_and_run_again(scene: Scene, right: dict[str, list[Any]], at: int, *, before: bool, retried: bool) -> bool:
    """`retried`: the next run has the same id, as a task that Airflow starts again. False: there is no such step."""
    with scene.target() as dsn:
        there = durable.killed(scene.work, scene.place, dsn, "first", at=at, before=before)
        scene.run(dsn, "first" if retried else "second")
        durable.writes_nothing(scene, dsn, "third")
        assert durable.state(dsn) == right
        return there


@dags
def test_each_durable_step_is_known_by_what_it_writes(clean, dag):
    """A step that is new, or gone, changes what a killed run leaves: say in STEPS what the next run makes of it."""
    steps, _ = clean(dag)
    assert set(steps) == set(STEPS[dag])


@dags
def test_killed_at_a_durable_step_and_run_again_twice(scenes, clean, dag):
    steps, right = clean(dag)
    at, before, retried = random.randint(1, len(steps)), random.random() < 0.5, random.random() < 0.5
    sys.stdout.write(f"\nat {at} of {len(steps)}, {steps[at - 1]}, {before=}, {retried=}\n")
    assert _killed_and_run_again(scenes[dag], right, at, before=before, retried=retried)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@dags
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_durable_step_and_run_again_twice(scenes, clean, dag, before):
    steps, right = clean(dag)
    for at, name in sorted(random.sample(list(enumerate(steps, 1)), sized(len(steps)))):
        sys.stdout.write(f"step {at}, {name}\n")
        assert _killed_and_run_again(scenes[dag], right, at, before=before, retried=at % 2 == 0)
