"""What only the image of docker-compose.yaml has, tried with the image's own packages: CeleryExecutor, and FAB's logins and
roles. Needs uv's cache or PyPI, 200 MB of links, and under a minute.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dev import airflow_home

ROOT = airflow_home.ROOT
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
ROLES = ("Public", "Viewer", "User", "Op", "Admin")
pytestmark = pytest.mark.timeout(900)  # downloads and installs an Airflow of its own, where uv's cache has none

CELERY = """
from airflow.executors.executor_loader import ExecutorLoader
executor = ExecutorLoader.init_executors()[0]
from airflow.providers.celery.executors.celery_executor import app
app.loader.import_default_modules()
print("RESULT", type(executor).__name__, app.conf.worker_concurrency)
"""

ASK = """
import json, sys
from airflow.api_fastapi.app import create_app
from airflow.cli import cli_parser
from airflow.models import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from dualwrite.edge import roles
from fastapi.testclient import TestClient
given = json.load(sys.stdin)
app = create_app(apps="all")
with create_session() as session:
    session.add(DagBundleModel(name="second"))
    session.flush()
    session.add_all(DagModel(dag_id=dag, bundle_name="second", fileloc="f") for dag in given["readers"])
with get_application_builder() as builder:
    for role in given["roles"]:
        manager = builder.sm
        manager.add_user(role, "a", "b", f"{role}@x.y", manager.find_role(role), password="pw")
    for dag in given["readers"]:
        manager.bulk_sync_roles([{"role": dag, "perms": [("can_read", f"DAG:{dag}")]}])
        manager.add_user(dag, "a", "b", f"{dag}@x.y", manager.find_role(dag), password="pw")
def look():
    found = {"doctor": [str(line) for line in roles.lines()]}
    for role, token in tokens.items():
        headers = {"Authorization": f"Bearer {token}"}
        ask = lambda method, path, body: client.request(method, path, headers=headers, json=body)
        found[role] = {name: ask(*request).status_code for name, request in given["requests"].items()}
        may = ask("GET", "/parity/may", None)
        found[role]["may"] = may.json() if may.status_code == 200 else None
    return found
with TestClient(app, raise_server_exceptions=False) as client:
    login = lambda role: client.post("/auth/token", json={"username": role, "password": "pw"}).json()["access_token"]
    tokens = {role: login(role) for role in given["roles"]}
    before = look()
    bearers = {dag: {"Authorization": f"Bearer {login(dag)}"} for dag in given["readers"]}
    before["files"] = {dag: client.get("/parity/", headers=bearer).status_code for dag, bearer in bearers.items()}
    command = cli_parser.get_parser().parse_args(given["init"])
    command.func(command)
    print("RESULT", json.dumps([before, look()]))
"""
RUN = "/api/v2/dags/reconcile_dual_writes/dagRuns"
TASK = "/api/v2/dags/backfill_gap/dagRuns/r/taskInstances/decision/-1"
REQUESTS = {
    "see the Parity page": ("GET", "/api/v2/plugins", None),
    "read reports and logs": ("GET", f"{RUN}/r/taskInstances/report/xcomEntries/return_value", None),
    "look, repair, excuse, sweep: trigger a run": ("POST", RUN, {"logical_date": None, "conf": {}}),
    "pause and unpause": ("PATCH", "/api/v2/dags/reconcile_dual_writes", {"is_paused": False}),
    "approve or reject a review": ("PATCH", f"{TASK}/hitlDetails", {"chosen_options": ["x"], "params_input": {}}),
    "set Variables": ("PATCH", "/api/v2/variables/none", {"key": "none", "value": "v"}),
    "set connections": ("PATCH", "/api/v2/connections/none", {"connection_id": "none", "conn_type": "postgres"}),
}
"""The lines of the table in docs/ui.md. Nothing that they name exists: who has the right is told so (404), else 403."""


READERS = {"shop_reconcile_dual_writes": 200, "reconcile_dual_writes_2": 403, "shop_backfill_gap": 403}
"""Whether who may read this DAG alone gets the page's files: the first one is of a second bundle, with a prefix."""


class Image:
    """A virtual environment with the image's packages, and an empty Airflow that takes FAB's logins."""

    def __init__(self, folder: Path) -> None:
        uv, self.bin = str(airflow_home.BIN / "uv"), folder / "venv/bin"
        install = [
            "pip",
            "install",
            "-q",
            "--python",
            str(self.bin / "python"),
            "-r",
            str(ROOT / "requirements-image.txt"),
        ]
        for command in (
            ["venv", "-q", "--python", sys.executable, str(folder / "venv")],
            [*install, "-c", str(ROOT / "constraints-image.txt")],
        ):
            links = {"UV_LINK_MODE": "symlink"}  # the cache may lie on another disk
            subprocess.run([uv, *command], check=True, capture_output=True, timeout=600, env={**os.environ, **links})
        here = airflow_home.environment(folder, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
        manager = COMPOSE["scheduler"]["environment"]["AIRFLOW__CORE__AUTH_MANAGER"]
        self.environment = {**here, "AIRFLOW__CORE__AUTH_MANAGER": manager, "PYTHONPATH": str(ROOT / "dags")}
        self.environment["AIRFLOW__FAB__CACHE_TTL"] = "0"  # a role's new right would count half a minute later

    def run(self, *command: str, given: object = None, **variables: str) -> str:
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            env={**os.environ, **self.environment, **variables},
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def result_of(self, program: str, given: object = None, **variables: str) -> str:
        lines = self.run("python", "-c", program, given=given, **variables).splitlines()
        [found] = [line for line in lines if line.startswith("RESULT ")]
        return found.removeprefix("RESULT ")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


def test_the_celery_executor_starts_with_the_image_s_packages(image):
    """A newer celery than the provider knows ends scheduler and workers with messages that name other causes."""
    concurrency = COMPOSE["worker"]["environment"]["AIRFLOW__CELERY__WORKER_CONCURRENCY"]
    found = image.result_of(
        CELERY,
        AIRFLOW__CORE__EXECUTOR="CeleryExecutor",
        AIRFLOW__CELERY__WORKER_CONCURRENCY=re.sub(r"\$\{\w+:-(.*)\}", r"\1", concurrency),
    )
    assert found == "CeleryExecutor 4"


def test_every_role_may_do_what_the_docs_say(image):
    """FAB shows a plugin's page to Op and Admin alone; the compose file's init lets the others see it."""
    image.run("airflow", "db", "migrate")
    init = COMPOSE["init"]["command"]
    given = {"roles": ROLES, "requests": REQUESTS, "init": init.split(), "readers": list(READERS)}
    before, found = json.loads(image.result_of(ASK, given))
    assert before["files"] == READERS
    assert [before[role]["see the Parity page"] for role in ROLES] == [403, 403, 403, 200, 200]
    assert before["doctor"] == [
        "TO DO  Parity page, roles Viewer and User: Viewer and User can't see it. Run: airflow " + init
    ]
    assert found["doctor"] == ["ok     Parity page, roles Viewer and User"]
    documented = _table()
    for what in REQUESTS:
        assert [found[role][what] != 403 for role in ROLES] == documented[what], what
    trigger, unpause = documented["look, repair, excuse, sweep: trigger a run"], documented["pause and unpause"]
    variables = documented["set Variables"]
    for role, may in zip(ROLES, zip(trigger, unpause, variables, strict=True), strict=True):
        told = found[role]["may"]
        # The name stands on the sign-off.
        said = {"name": role, "trigger": may[0], "unpause": may[1], "switch": may[2]}
        assert told == (None if role == "Public" else said), role


def _table() -> dict[str, list[bool]]:
    """The table of docs/ui.md: who may do what."""
    text = (ROOT / "docs/ui.md").read_text().partition("### Who may press what")[2].partition("\n### ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    header, _, *body = rows
    assert tuple(header[1:]) == ROLES
    return {what: [cell == "yes" for cell in cells] for line, *cells in body for what in line.split("; ")}
