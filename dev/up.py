"""`make up`: the local stack with Airflow's UI on loopback, until Ctrl-C or `make down`.

Leaves no process behind: children die with this one, however it dies. What a crash may still leave (a child's child)
carries a mark in its environment, which the next `make up` or `make down` knows from a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dev import airflow_home, processes, stack

STATE = airflow_home.ROOT / ".stack.json"
MARK = "DUALWRITE_STACK"


def _started(pid: int) -> str | None:
    """When a process was started, in ticks since boot: with the pid it names one process. None: there is no such."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return None


def _state() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(STATE.read_text()))
    return {}


def _running() -> int | None:
    """The pid of a `make up` that is still there."""
    state = _state()
    return int(state["pid"]) if state and _started(int(state["pid"])) == state["started"] else None


def connections() -> dict[str, str]:
    """The connections of a running `make up`, as variables of the environment; empty where none runs."""
    return dict(_state().get("connections", {})) if _running() is not None else {}


def _left() -> list[int]:
    """Processes of the stack in the state file, but for this one."""
    mark = f"{MARK}={_state().get('mark', 'none')}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def down() -> None:
    """Ends a running stack, and whatever a crashed one left."""
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
    if processes.port_is_taken(port):
        raise processes.Missing(f"port {port} for Airflow's UI is taken. Choose another: make up PORT={port + 1}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.environ[MARK] = secrets.token_hex(8)
    STATE.write_text(json.dumps({"pid": os.getpid(), "started": _started(os.getpid()), "mark": os.environ[MARK]}))
    password = secrets.token_urlsafe(9)
    with contextlib.ExitStack() as parts:
        parts.callback(STATE.unlink, missing_ok=True)
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="dualwrite-up-", ignore_cleanup_errors=True))
        print("up: starting emulator, Postgres and Airflow; about a minute", flush=True)
        running = parts.enter_context(stack.databases(Path(folder), port=port))
        components = parts.enter_context(stack.airflow_components(running, port, password))
        connections = {k: v for k, v in running.environment.items() if k.startswith("AIRFLOW_CONN_")}
        connections["FIRESTORE_EMULATOR_HOST"] = running.emulator
        STATE.write_text(json.dumps({**json.loads(STATE.read_text()), "connections": connections}))  # for make doctor
        print(_welcome(running, port, password), flush=True)
        while True:
            time.sleep(1)
            for name, component in components.items():
                if component.poll() is not None:
                    log = (running.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                    raise processes.Missing(f"Airflow's {name} ended:\n{log}")


def _welcome(running: stack.Stack, port: int, password: str) -> str:
    return f"""
Airflow    http://127.0.0.1:{port}   login admin, password {password}
Firestore  {running.emulator} (project {stack.PROJECT})
Postgres   {running.target}

A small world is there as it is after the export: {len(running.world.documents):,} documents, some of them not yet in
Postgres. Next, in the UI:
  1. trigger apply_migrations with mode = apply
  2. trigger backfill_gap as it is (a dry run), and read the log of its task report
  3. trigger backfill_gap with mode = apply
  4. trigger reconcile_dual_writes as it is: it says what is open, and what to press
Ctrl-C ends everything."""


def main() -> None:
    if "--down" in sys.argv:
        down()
        return
    try:
        up(int(os.environ.get("PORT") or 8080))
    except KeyboardInterrupt:
        print("\nup: ended", flush=True)


if __name__ == "__main__":
    main()
