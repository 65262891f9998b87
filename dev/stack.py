"""The whole local stack: emulator, Postgres with a seeded world, and, if asked for, Airflow with its UI on loopback.

`make demo`, `make up` and the end-to-end tests start it alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dev import airflow_home, processes, seed
from dev.emulator import emulator
from dev.fill import PROJECT as PROJECT
from dev.fill import fill
from dev.postgres_server import server
from dev.processes import Missing

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


@dataclass(frozen=True)
class Stack:
    """A running stack: its addresses, and the environment that Airflow's commands need."""

    folder: Path
    emulator: str
    target: str
    environment: dict[str, str]
    world: seed.World


@contextlib.contextmanager
def databases(
    folder: Path,
    *,
    emulator_port: int | None = None,
    postgres_port: int | None = None,
    port: int | None = None,
    password: str | None = None,
) -> Iterator[Stack]:
    """Emulator and Postgres, seeded with a small world as it is after the export, and Airflow's own database made. `password`:
    of Postgres's superuser, see `postgres_server.server`."""
    home = folder / "airflow"
    home.mkdir()
    with (
        emulator(folder, emulator_port) as host,
        server(port=postgres_port, password=password) as uri,
        _emulator_host(host),
    ):
        environment = airflow_home.environment(home, emulator=host, project=PROJECT, target=uri, port=port)
        world = fill(uri)
        airflow(environment, "db", "migrate")
        yield Stack(folder, host, uri, environment, world)


@contextlib.contextmanager
def _emulator_host(host: str) -> Iterator[None]:
    """Points clients of this process at this emulator until the block ends."""
    before = os.environ.get("FIRESTORE_EMULATOR_HOST")
    os.environ["FIRESTORE_EMULATOR_HOST"] = host
    try:
        yield
    finally:
        os.environ.pop("FIRESTORE_EMULATOR_HOST")
        if before is not None:
            os.environ["FIRESTORE_EMULATOR_HOST"] = before


def airflow(environment: dict[str, str], *arguments: str) -> str:
    """Runs one of Airflow's commands; raises Missing with its last line if it fails."""
    done = subprocess.run(
        [str(airflow_home.BIN / "airflow"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it wrote nothing").splitlines()[-1]
        raise Missing(f"`airflow {' '.join(arguments)}` failed: {last} (is the disk full? df -h)")
    return done.stdout


@contextlib.contextmanager
def airflow_components(
    stack: Stack, port: int, passwords: Mapping[str, str]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Airflow's components, each a process of its own, until the block ends. Yields them by name, when all are
    healthy. `passwords` are those of airflow_home.USERS."""
    home = Path(stack.environment["AIRFLOW_HOME"])
    (home / "passwords.json").write_text(json.dumps(dict(passwords)))
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in COMPONENTS:
            started[name] = _component(stack, name)
        log = stack.folder / "api-server.log"
        processes.wait_until(lambda: _healthy(port), started["api-server"], "Airflow", log, seconds=600)
        yield started
    finally:
        processes.stop(*started.values(), seconds=15)


def _component(stack: Stack, name: str) -> subprocess.Popen[bytes]:
    command = [str(airflow_home.BIN / "airflow"), name]
    return processes.start(command, log=stack.folder / f"{name}.log", environment=stack.environment)


def restart(stack: Stack, components: dict[str, subprocess.Popen[bytes]], name: str) -> None:
    """Starts one of the yielded components anew. Doesn't wait for it."""
    processes.stop(components[name], seconds=15)
    components[name] = _component(stack, name)


def _healthy(port: int) -> bool:
    """Whether the API answers, and scheduler and dag-processor have given a sign of life."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5) as answer:
            health = json.load(answer)
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))
    return False
