"""Runs programs that use Airflow, in a process each: started afresh, or forked from one that has already imported Airflow.

Importing Airflow and building its execution API takes ten seconds. So one process does it once and forks for each program. A program
still has a process, an environment, connections and Variables of its own; it imports our modules itself. Settings that Airflow reads
only while it is imported are the warm process's, except for whether Sentry is on: the two modules that read it are executed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

from dev import processes
from dev.airflow_home import ROOT

SECONDS = 280.0
"""How long a program may run before it is killed."""

IMPORTED_FIRST = (
    "a2wsgi",
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.collection",
    "airflow.sdk.execution_time.timeout",
    "airflow.serialization.definitions.mappedoperator",
    "airflow.timetables.trigger",
    "jinja2.ext",
)
"""The modules that each run of a DAG would import besides Airflow itself and the libraries that the plugin preloads."""


class Python(Protocol):
    """Runs a program to its end: `arguments` as for the interpreter, `-m module ...` or `-c code ...`."""

    def __call__(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]: ...


def fresh(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A new interpreter."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


class WarmAirflow:
    """A Python that forks from a process with Airflow imported. It ends with the block."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is the one that Airflow is imported in: its home and its configuration."""
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            output, errors = Path(folder, "stdout"), Path(folder, "stderr")
            order = {
                "arguments": list(arguments),
                "environment": {**os.environ, **environment},
                "stdout": str(output),
                "stderr": str(errors),
            }
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], SECONDS)[0]:
                self._end()  # and the program with it
                raise subprocess.TimeoutExpired(list(arguments), SECONDS, errors.read_bytes())
            answer = process.stdout.readline()
            if not answer:
                self._end()
                raise RuntimeError("the process that keeps Airflow warm ended; its own words are on stderr above")
            return subprocess.CompletedProcess(
                list(arguments),
                int(answer),
                output.read_text(errors="replace"),
                errors.read_text(errors="replace"),
            )

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "dev.warm_airflow"],
            env={**os.environ, **self._environment, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=processes.die_with_parent,  # in a group of its own
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:  # closes the pipes and reaps
            pass


def _warm_up() -> None:
    """Imports once the libraries that every run of a DAG needs, and nothing of ours. Leaves no thread behind: threads
    don't survive a fork, and a lock that one of them holds never opens again in the child."""
    import httpx
    from airflow._shared.observability.metrics import stats
    from airflow.sdk._shared.observability.metrics import stats as sdk_stats
    from airflow.sdk.execution_time import supervisor
    from sqlalchemy.orm import configure_mappers

    preloaded = runpy.run_path(str(ROOT / "plugins/dual_write_preload.py"))["LIBRARIES"]
    for name in (*preloaded, *IMPORTED_FIRST):
        importlib.import_module(name)
    for module in (stats, sdk_stats):
        module.incr("none")  # reads the names of all metrics
    api = supervisor.in_process_api_server()

    async def ask() -> None:  # the first request makes the routes of every version, which takes seconds
        async with httpx.AsyncClient(transport=api.atransport, base_url="http://in-process.invalid") as client:
            await client.get("/nowhere")

    asyncio.run(ask())
    configure_mappers()
    gc.collect()
    gc.freeze()  # a collection in a child would copy all of this memory
    assert threading.active_count() == 1


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow's output isn't the answer
    _warm_up()
    for line in sys.stdin:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            processes.die_with_parent()
            answers.close()
            _become(**json.loads(line))
            return  # and leave as any interpreter does
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _become(arguments: list[str], environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Makes this process look as if it had been started with these arguments in this environment."""
    from airflow import settings
    from airflow.sdk.execution_time import sentry, task_runner

    for descriptor, file in ((0, os.devnull), (1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    settings.reconfigure_orm()  # a connection belongs to the process that opened it
    if "AIRFLOW__SENTRY__SENTRY_ON" in environment:  # read when they are imported
        importlib.reload(sentry)
        importlib.reload(task_runner)
    kind, program, *sys.argv[1:] = arguments
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = kind
        exec(program, {"__name__": "__main__"})


if __name__ == "__main__":
    main()
