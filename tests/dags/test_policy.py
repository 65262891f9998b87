"""What holds for every DAG of this bundle. The messages say the remedy."""

from __future__ import annotations

import ast
import json
import tomllib

import pytest

from dev import airflow_home
from dev.warm_airflow import Python, fresh
from dualwrite.catalog import CATALOG
from dualwrite.model.choices import STAGES

FILES = sorted((airflow_home.ROOT / "dags").glob("*.py"))
RECONCILE = "reconcile_dual_writes"
LONGEST = 120
"""Lines of a DAG file, its docstring (the operator's page) and blank lines left out."""

LOOK = """
import json, os, socket, sys
def refuse(*_): raise AssertionError("a DAG file talks to the network when it is parsed")
socket.socket.connect = refuse
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.serialization.serialized_objects import DagSerialization
def drawn(dag):
    # The order of grid and graph, as Airflow's API makes it from the DAG that it stored.
    def order(group):
        return [i for node in group.topological_sort() for i in
                (order(node) if hasattr(node, "topological_sort") else [node.node_id])]
    return order(DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_group)
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
heavy = json.loads(sys.argv[1])
print("RESULT " + json.dumps({"heavy": [m for m in heavy if m in sys.modules], "errors": bag.import_errors, "dags": {
    dag.dag_id: {
        "doc": dag.doc_md or "", "tags": sorted(dag.tags), "owner": dag.owner, "active": dag.max_active_runs,
        "catchup": dag.catchup, "schedule": str(dag.schedule), "failed_runs": dag.max_consecutive_failed_dag_runs,
        "about": dag.description or "", "loud": sorted(t.task_id for t in dag.tasks if getattr(t, "show_return_value_in_logs", False)),
        "timeout": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(), "told": bool(dag.on_failure_callback),
        "params": {k: {"value": p.value, **p.schema, "description": p.description} for k, p in dag.params.items()},
        "copies": sorted(t.task_id for t in dag.tasks if set(dag.params) & set(t.params)),
        "tasks": {t.task_id: {"retries": t.retries, "rule": str(t.trigger_rule.value), "up": sorted(t.upstream_task_ids),
                               "pool": t.pool, "unrolled": getattr(t, "multiple_outputs", False), "timeout": t.execution_timeout and t.execution_timeout.total_seconds(),
                               "doc": t.doc_md or (getattr(t, "python_callable", None) and t.python_callable.__doc__) or ""}
                  for t in dag.tasks},
        "drawn": drawn(dag),
    } for dag in bag.dags.values()}}))
"""

PRELOAD = """
import json, runpy, sys, threading
plugin = runpy.run_path(sys.argv[1])
class Job: pass
class TaskRunnerMarker: pass
for component in (TaskRunnerMarker(), Job()):
    before = {*sys.modules}
    for listener in plugin["DualWritePreload"].listeners:
        listener.on_starting(component)
print("RESULT " + json.dumps({"before": [*before], "after": [*sys.modules], "wanted": plugin["LIBRARIES"],
                              "threads": threading.active_count()}))
"""


def banned() -> str:
    """What the lint lets no DAG file import, as JSON."""
    ruff = tomllib.loads((airflow_home.ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    namespaces = {"google": ["google.cloud.firestore", "google.cloud.firestore_v1"]}  # others may lie beside them
    names = ruff["flake8-tidy-imports"]["banned-module-level-imports"]
    return json.dumps([module for name in names for module in namespaces.get(name, [name])])


@pytest.fixture(scope="module")
def bag(home) -> dict:
    return result_of(home, LOOK, banned())


def result_of(home, program: str, *arguments: str, python: Python = fresh, **variables: str) -> dict:
    """What a program prints, in a process of its own: unless it is to fork from a warm one, nothing is imported yet."""
    environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    environment = {k: v for k, v in environment.items() if not k.startswith("AIRFLOW_CONN_")}
    done = python(["-c", program, *arguments], {**environment, **variables})
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[-1].removeprefix("RESULT "))


def test_every_file_parses_without_connections_or_network(bag):
    assert bag["errors"] == {}
    assert set(bag["dags"]) == {f.stem for f in FILES}, "name a DAG after its file"


def test_parsing_the_files_imports_nothing_that_is_banned(bag):
    """The lint sees what a file imports itself; this sees what that imports."""
    assert bag["heavy"] == [], "import it in the function that uses it, or name the module with LazyModule"


def test_every_dag_explains_itself(bag):
    for name, dag in bag["dags"].items():
        assert 500 < len(dag["doc"]) < 1700, (
            f"{name}: the file's docstring is read in a small dialog; details go to docs/"
        )
        assert "| " not in dag["doc"], f"{name}: a table is three words wide there"
        assert 40 < len(dag["about"]) < 110, f"{name}: a description, which the list and the DAG's page show"
        assert "dual-write" in dag["tags"], f"{name}: add the tag dual-write"
        assert dag["owner"] != "airflow", f"{name}: set an owner in default_args"
        assert dag["active"] == 1, f"{name}: max_active_runs=1, two runs at once would do each other's work"
        assert not dag["catchup"], f"{name}: no catchup, a window begins at the watermark"


def test_no_task_prints_what_it_returns_into_its_log(bag):
    """30,000 characters of JSON would stand around what a person looks for."""
    for name, dag in bag["dags"].items():
        assert dag["loud"] == [], f"{name}: show_return_value_in_logs=False in default_args"


def test_every_parameter_says_what_it_is_and_what_it_may_be(bag):
    for name, dag in bag["dags"].items():
        for key, param in dag["params"].items():
            assert param.get("title"), f"{name}.{key}: give the form a title"
            told = param.get("values_display") or param.get("description") or param.get("description_md")
            assert told, f"{name}.{key}: give the form a description, or values_display"
            assert param.get("type") or param.get("enum"), f"{name}.{key}: give it a type or an enum"
            for text in (param.get("values_display") or {}).values():
                assert len(text) <= 60, f"{name}.{key}: Airflow's field shows no more of {text!r}"
            assert "draft-07" in param.get("$schema", ""), (
                f"{name}.{key}: build it in forms.py, which names its dialect"
            )
            if param.get("type") in ("integer", "number"):
                assert "minimum" in param, f"{name}.{key}: give it bounds"
                assert "maximum" in param, f"{name}.{key}: give it bounds"


def test_no_task_carries_a_copy_of_the_form(bag):
    for name, dag in bag["dags"].items():
        assert dag["params"], f"{name}: it has a form"
        assert dag["copies"] == [], f"{name}: give it its form with forms.set_form, once it has its tasks"


def test_defaults_can_not_hurt(bag):
    for name, dag in bag["dags"].items():
        if "mode" in dag["params"]:
            assert dag["params"]["mode"]["value"] == "dry_run", f"{name}: the default mode writes nothing"


def test_airflow_can_draw_every_dag(bag):
    """A group that stands before and after a neighbour is a circle: grid and graph are empty, and all else works."""
    for name, dag in bag["dags"].items():
        assert sorted(dag["drawn"]) == sorted(dag["tasks"]), f"{name}: one group for tasks of one phase, or none"


def test_every_task_retries(bag):
    for name, dag in bag["dags"].items():
        for task, facts in dag["tasks"].items():
            if task == "report":
                assert facts["rule"] == "all_done", f"{name}.{task}: a report is always written"
            assert facts["retries"] >= 1, f"{name}.{task}: networks fail and workers die; give it a retry"


def test_what_a_task_returns_is_one_xcom(bag):
    """Airflow takes `-> dict` for several outputs: a report's 26 keys would be a request and a row each, besides the
    whole."""
    for name, dag in bag["dags"].items():
        for task, facts in dag["tasks"].items():
            assert not facts["unrolled"], f"{name}.{task}: add multiple_outputs=False"


def test_nothing_waits_for_ever(bag):
    """A server that keeps TCP open and answers nothing would hold a task, and with max_active_runs=1 all later runs."""
    for name, dag in bag["dags"].items():
        assert dag["timeout"], f"{name}: give it a dagrun_timeout"
        for task, facts in dag["tasks"].items():
            if task == "decision":
                continue  # a person may take a day: the run's timeout ends the wait
            assert facts["timeout"], f"{name}.{task}: give it an execution_timeout"
            assert facts["timeout"] < dag["timeout"], f"{name}.{task}: the run's timeout would end it without an alert"


def test_what_fails_by_design_is_not_paused_and_costs_no_core(bag, home, warm_airflow):
    """With a callback, a Git bundle's DAG that has failed is parsed without a pause (apache/airflow#73432). The run after one
    that hung tells of it; the callback, sooner, where the environment asks for it."""
    dag = bag["dags"][RECONCILE]
    assert dag["failed_runs"] == 0, "set max_consecutive_failed_dag_runs=0: an instance's default would pause it"
    assert dag["timeout"] <= 2 * 3600, "a run that hangs keeps the next one from beginning: end it within two hours"
    assert not [name for name, found in bag["dags"].items() if found["told"]], "a callback burns a core: keep it opt-in"
    asked = result_of(home, LOOK, banned(), python=warm_airflow, DUALWRITE_TELL_OF_TIMEOUT="1")["dags"]
    assert [name for name, found in asked.items() if found["told"]] == [RECONCILE]
    assert dag["schedule"] == "*/15 * * * *", "the list shows it: 0:15:00 says nothing"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_a_dag_file_only_wires(file):
    """No top-level work: imports (a lazy one has its types beside it), definitions, constants, and the one call that makes
    the DAG."""
    source = file.read_text()
    tree = ast.parse(source)
    lines = source.split('"""', 2)[2].splitlines()
    assert len([line for line in lines if line.strip()]) <= LONGEST, f"{file.name}: move work into dags/dualwrite"
    nodes = []
    for node in tree.body:
        lazy = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        nodes += [*node.body, *node.orelse] if lazy else [node]
    for node in nodes:
        fits = isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.Assign) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Call)
        )
        assert fits, f"{file.name}, line {node.lineno}: move this into a task"


def test_backfill_has_a_task_per_collection_behind_its_parents(bag):
    tasks = bag["dags"]["backfill_gap"]["tasks"]
    for collection in CATALOG:
        task = tasks[f"collections.{collection.name}"]
        parents = [f"collections.{p}" for p in collection.parents] or ["decision"]
        assert task["up"] == sorted([*parents, "choose"])
        assert task["rule"] == "all_done", "a failed or skipped parent doesn't skip what can still be examined"
    assert bag["dags"]["backfill_gap"]["schedule"] == "None"
    assert bag["dags"]["apply_migrations"]["schedule"] == "None"


def test_the_reconciliations_tasks_are_its_stages_in_their_order(bag):
    tasks = bag["dags"][RECONCILE]["tasks"]
    before: list[str] = []
    for stage in STAGES:
        also = ["sweep_slices"] if stage == "compare" else []  # large collections, swept by several workers
        assert tasks[stage]["up"] == [*before, *also]
        before = [stage]
    assert tasks["sweep_slices"]["up"] == ["preflight"]
    assert tasks["compare"]["rule"] == "all_done", "a slice that failed costs the other collections nothing"
    assert set(tasks) == {*STAGES, "sweep_slices"}


def test_what_a_backfill_does_not_select_the_task_above_skips(bag):
    """A task that only skips itself costs a process all the same."""
    tasks = bag["dags"]["backfill_gap"]["tasks"]
    assert all("choose" in tasks[f"collections.{name}"]["up"] for name in CATALOG.names)


def test_a_pool_for_each_side_is_set_without_editing_a_dag_file(bag, home, warm_airflow):
    """`report` reads Postgres alone; whatever else examines reads both."""
    assert {t["pool"] for dag in bag["dags"].values() for t in dag["tasks"].values()} == {"default_pool"}
    pools = {"DUALWRITE_SOURCE_POOL": "firestore", "DUALWRITE_TARGET_POOL": "supabase"}
    dags = result_of(home, LOOK, banned(), python=warm_airflow, **pools)["dags"]
    assert {t["pool"] for t in dags["apply_migrations"]["tasks"].values()} == {"supabase"}
    for name in ("backfill_gap", RECONCILE):
        pools = {task: facts["pool"] for task, facts in dags[name]["tasks"].items()}
        assert pools == dict.fromkeys(pools, "firestore") | {"report": "supabase"}


def test_only_libraries_that_start_nothing_are_preloaded(home):
    """Code of the bundle would be another version than the run's; a thread would be lacking after the fork."""
    found = result_of(home, PRELOAD, str(airflow_home.ROOT / "plugins/dual_write_preload.py"))
    missing = set(found["wanted"]) - set(found["after"])
    assert missing == set(), "a library of the list in plugins/dual_write_preload.py is gone, or has another name"
    assert not set(found["wanted"]) <= set(found["before"]), "a task's own process is given nothing"
    assert not [name for name in found["after"] if name.split(".")[0] == "dualwrite"]
    assert found["threads"] == 1
