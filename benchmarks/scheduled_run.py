"""The cost of an empty run of reconcile_dual_writes through Airflow's own scheduler, beside the same DAG with empty tasks.

    PYTHONPATH=dags:. python -m benchmarks.scheduled_run [--runs 3]

Empty: everything was examined a moment ago and nothing differs. The seconds are those of the run in Airflow's database, and
the CPU time that the scheduler with its workers took between its begin and its end; the idle scheduler's own share of that,
measured without a run, is taken off. Databases, API server and DAG processor are left out.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from dev import airflow_api, airflow_home, processes, stack
from dualwrite.catalog import CATALOG

REAL, EMPTY = "reconcile_dual_writes", "reconcile_empty"
PASSWORD = "benchmark"
CONF = {"grace_seconds": 0, "liveness_minimum": 1_000_000}


def empty_copy(source: str) -> str:
    """The DAG file with the same tasks, none of which does anything."""
    tree = ast.parse(source)
    dag = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == REAL)
    dag.name = EMPTY
    for node in dag.body:
        if isinstance(node, ast.FunctionDef):
            decorator = ast.unparse(node.decorator_list[0])
            value = "True" if "sensor" in decorator else "False" if "short_circuit" in decorator else "{}"
            node.body = ast.parse(f"return {value}").body
    call = tree.body[-1]
    assert isinstance(call, ast.Expr)
    call.value = ast.parse(f"{EMPTY}()", mode="eval").body
    return ast.unparse(tree)


def cpu_seconds(root: int) -> float:
    """CPU time of a process, of its living descendants, and of those that they have waited for."""
    children: dict[int, list[int]] = {}
    times: dict[int, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
                times[int(entry.name)] = sum(map(int, fields[11:15])) / tick
    total, todo = 0.0, [root]
    while todo:
        process = todo.pop()
        total += times.get(process, 0.0)
        todo += children.get(process, [])
    return total


def timed(api: airflow_api.Airflow, dag_id: str, conf: dict[str, Any]) -> tuple[str, float, int]:
    """One run: its state, seconds from being queued to its end, and how many task processes it took."""
    run_id = api.trigger(dag_id, **conf)
    state = api.wait(dag_id, run_id, seconds=900)
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
    run = api.call("GET", path)
    tasks = api.call("GET", path + "/taskInstances?limit=100")["task_instances"]
    begun, ended = (datetime.fromisoformat(run[name]) for name in ("queued_at", "end_date"))
    return state, (ended - begun).total_seconds(), sum(1 for t in tasks if t["hostname"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    number = parser.parse_args().runs
    port = processes.free_port()
    with tempfile.TemporaryDirectory() as folder, stack.databases(Path(folder), port=port) as running:
        dags = Path(folder) / "dags"
        shutil.copytree(airflow_home.ROOT / "dags", dags)
        shutil.copytree(airflow_home.ROOT / "sql", Path(folder) / "sql")
        scheduled = (dags / f"{REAL}.py").read_text()
        source = scheduled.replace('schedule="*/15 * * * *"', "schedule=None")
        assert source != scheduled, "a scheduled run beside the measured ones would cost CPU"
        (dags / f"{REAL}.py").write_text(source)
        (dags / f"{EMPTY}.py").write_text(empty_copy(source))
        running.environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(dags)
        passwords = dict.fromkeys(airflow_home.USERS, PASSWORD)
        with stack.airflow_components(running, port, passwords) as components:
            api = airflow_api.login(f"http://127.0.0.1:{port}", "admin", PASSWORD)
            api.wait_for_dags(4)
            print(timed(api, "apply_migrations", {"mode": "apply"})[0], flush=True)
            accepted = [f"{name}:*" for name in CATALOG.names]
            print(timed(api, REAL, {**CONF, "scope": "sweep"})[0], "after a first sweep", flush=True)
            reason = {"excuse": accepted, "excuse_reason": "a benchmark"}
            print(timed(api, REAL, {**CONF, **reason, "repair": "off"})[0], "with all differences excused", flush=True)
            scheduler = components["scheduler"].pid
            began, before = time.monotonic(), cpu_seconds(scheduler)
            time.sleep(60)
            idle = (cpu_seconds(scheduler) - before) / (time.monotonic() - began)
            print(f"idle scheduler: {idle:.2f} s of CPU a second", flush=True)
            for dag_id in (REAL, EMPTY):
                walls, cpus = [], []
                for _ in range(number):
                    before = cpu_seconds(scheduler)
                    state, wall, processes_ = timed(api, dag_id, CONF if dag_id == REAL else {})
                    cpu = cpu_seconds(scheduler) - before - idle * wall
                    walls.append(wall)
                    cpus.append(cpu)
                    print(
                        f"{dag_id}: {state}, {wall:.1f} s, {cpu:.1f} s of CPU, {processes_} task processes", flush=True
                    )
                print(
                    f"{dag_id}: median {statistics.median(walls):.1f} s, CPU {statistics.median(cpus):.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
