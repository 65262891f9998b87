"""`make up`: the local stack with Airflow's UI on loopback, and an app that writes and loses, until Ctrl-C or `make down`.

Leaves no process behind: on Linux, children die with this one, however it dies. (macOS can't do that: run `make down` after a
crash.) Processes that a crash leaves carry a mark in their environment, which the next `make up` or `make down` reads from
a file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from google.cloud import firestore

from dev import airflow_api, airflow_home, processes, ready, stack
from dev.accept import rejected
from dev.live_app import LiveApp
from dualwrite.shipped_catalog import CATALOG

STATE = airflow_home.ROOT / ".stack.json"
MARK = "DUALWRITE_STACK"
LOSS_EVERY = 180
"""Seconds between two writes that the app loses."""


def _started(pid: int) -> float | None:
    """When a process was started, which with its pid names just one process. None: there is none with this pid."""
    with contextlib.suppress(psutil.Error):
        return float(psutil.Process(pid).create_time())
    return None


def _state() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(STATE.read_text()))
    return {}


def keep(state: dict[str, Any]) -> None:
    """Writes the state file, for other commands of the same user only: the connections hold a password."""
    STATE.touch(mode=0o600)
    STATE.chmod(0o600)
    STATE.write_text(json.dumps(state))


def _running() -> int | None:
    """The pid of a `make up` that is still running."""
    state = _state()
    return int(state["pid"]) if state and _started(int(state["pid"])) == state["started"] else None


def connections() -> dict[str, str]:
    """The connections of a running `make up`, as variables of the environment; empty if none runs."""
    return dict(_state().get("connections", {})) if _running() is not None else {}


def _left() -> list[int]:
    """The processes of the stack in the state file, without this one."""
    mark = _state().get("mark", "none")
    pids = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                pids.append(process.pid)
    return pids


def down() -> None:
    """Ends a running stack, and the processes that a crashed one left."""
    pid, left = _running(), _left()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while _running() is not None and time.monotonic() < deadline:
            time.sleep(0.1)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in _left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + 5
        while _left() and time.monotonic() < deadline:
            time.sleep(0.1)
    STATE.unlink(missing_ok=True)
    print("down: ended" if pid is not None or left else "down: nothing was running", flush=True)


def up(port: int) -> None:
    """Starts everything and waits. Ctrl-C or SIGTERM end it."""
    if _running() is not None:
        raise processes.Missing("the stack is up already. `make down` ends it.")
    if _left():
        down()
    ready.free_for_the_ui(port)
    logging.getLogger("dualwrite").addHandler(logging.NullHandler())  # the app's lost writes look like a crash
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.environ[MARK] = secrets.token_hex(8)
    keep({"pid": os.getpid(), "started": _started(os.getpid()), "mark": os.environ[MARK]})
    passwords = {user: secrets.token_urlsafe(9) for user in airflow_home.USERS}
    with contextlib.ExitStack() as parts:
        parts.callback(STATE.unlink, missing_ok=True)
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="dualwrite-up-", ignore_cleanup_errors=True))
        print("up: starting emulator, Postgres and Airflow; about a minute", flush=True)
        running = parts.enter_context(stack.databases(Path(folder), port=port, password=secrets.token_hex(16)))
        running.environment["AIRFLOW_VAR_RECONCILE_GRACE_SECONDS"] = "15"  # scheduled runs of a demo needn't wait long
        components = parts.enter_context(stack.airflow_components(running, port, passwords))
        connections = {k: v for k, v in running.environment.items() if k.startswith("AIRFLOW_CONN_")}
        connections["FIRESTORE_EMULATOR_HOST"] = running.emulator
        keep({**json.loads(STATE.read_text()), "connections": connections})  # for make doctor
        print(_welcome(running, port, passwords), flush=True)
        loses = parts.enter_context(_live_app(running))
        threading.Thread(target=_prepare, args=(port, passwords["admin"], loses), daemon=True).start()
        while True:
            time.sleep(1)
            for name, component in components.items():
                if component.poll() is not None:
                    log = (running.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                    raise processes.Missing(f"Airflow's {name} ended:\n{log}")


@contextlib.contextmanager
def _live_app(running: stack.Stack) -> Iterator[threading.Event]:
    """An app that writes in a thread until the block ends. It loses writes once the yielded event is set."""
    stop, loses = threading.Event(), threading.Event()
    app = LiveApp(firestore.Client(project=stack.PROJECT), running.target)

    def on_loss(description: str) -> None:
        print(f"app: lost a write on its way to Postgres ({description})", flush=True)

    thread = threading.Thread(target=app.live, args=(stop, loses, LOSS_EVERY, on_loss), daemon=True)
    thread.start()
    try:
        yield loses
    finally:
        stop.set()
        thread.join(timeout=10)
        app.close()


def _prepare(port: int, password: str, loses: threading.Event) -> None:
    """An operator's first steps: migrate, look at the gap, excuse documents that can't become rows, backfill. Then the app
    begins to lose writes."""
    try:
        airflow = airflow_api.login(f"http://127.0.0.1:{port}", "admin", password)
        airflow.wait_for_dags(3)
        _run(airflow, "apply_migrations", mode="apply")
        everything = {"scope": "all", "collections": list(CATALOG.names)}
        looked = _run(airflow, "backfill_gap", mode="dry_run", **everything)
        accept = {"excuse": rejected(looked), "excuse_reason": "broken since before the migration"}
        _run(airflow, "backfill_gap", mode="apply", **everything, **accept)
        _run(airflow, "reconcile_dual_writes", scope="sweep", grace_seconds=5)
        loses.set()
        print(f"up: ready. From now on the app loses a write every {LOSS_EVERY // 60} minutes", flush=True)
    except (OSError, TimeoutError) as error:
        print(f"up: the first runs did not end ({error}). Trigger them in the UI", flush=True)


def _run(airflow: airflow_api.Airflow, dag_id: str, **conf: object) -> dict[str, Any]:
    run = airflow.trigger(dag_id, **conf)
    state = airflow.wait(dag_id, run, seconds=600)
    report = airflow.report(dag_id, run)
    print(f"up: {dag_id}, {state}: {report['verdict']}", flush=True)
    return report


def _welcome(running: stack.Stack, port: int, passwords: dict[str, str]) -> str:
    return f"""
Airflow    http://127.0.0.1:{port}/plugin/parity
           login admin, password {passwords["admin"]}; or viewer, password {passwords["viewer"]}, who may only look
Firestore  {running.emulator} (project {stack.PROJECT})
Postgres   {running.target}

{len(running.world.documents):,} documents, some of them not yet in Postgres, and an app that writes on. Four first runs
begin now: apply_migrations, backfill_gap as a dry run, then for good (documents that can't become rows are excused), and a sweep of
reconcile_dual_writes. Then a write is lost every {LOSS_EVERY // 60} minutes: press "Look now" on the Parity page, then "Repair".
Ctrl-C ends everything."""


def main() -> None:
    if "--down" in sys.argv:
        down()
        return
    try:
        up(ready.port_of(os.environ.get("PORT") or "8080"))
    except KeyboardInterrupt:
        print("\nup: ended", flush=True)


if __name__ == "__main__":
    main()
