"""SIGKILL of Airflow's own task processes: at a durable step of theirs, or wherever they are."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dev.airflow_api import ENDED, Airflow
from dev.airflow_home import connections
from tests.durable import Kill, watched
from tests.wire import Message

BEFORE, AFTER, ANYWHERE = "before", "after", "anywhere"
"""When a try dies: before a step's COMMIT reaches the server; when it is done, before its answer arrives; as soon as it runs."""


@dataclass(frozen=True)
class Try:
    """One try of a task. `index` is that of a mapped task's instance, else -1."""

    task: str
    index: int
    number: int


@dataclass(frozen=True)
class Moment:
    """At a try's durable step of this number, or ANYWHERE."""

    when: str
    step: int = 0


@dataclass
class Ended:
    """What a DAG run and its tasks did."""

    run_id: str
    state: str = ""
    steps: dict[Try, list[str]] = field(default_factory=dict)
    """What each durable step of a try wrote."""
    killed: dict[Try, str] = field(default_factory=dict)
    """When, and what its last step was to write."""
    tries: dict[str, int] = field(default_factory=dict)
    """By task, the most that one of its instances took."""
    states: dict[str, set[str]] = field(default_factory=dict)


class _Tasks:
    """Knows which process is which try of one run, from Airflow's API and the kernel."""

    def __init__(self, api: Airflow, dag_id: str, run_id: str) -> None:
        self._api = api
        self._path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}"
        self._backends: dict[int, tuple[Try, int]] = {}

    def _asked(self, path: str) -> Any:
        while True:  # the test's own timeout ends it
            with contextlib.suppress(OSError):  # on a busy machine an answer may be late
                return self._api.call("GET", self._path + path)
            time.sleep(0.3)

    def instances(self, only: str = "") -> list[dict[str, Any]]:
        return list(self._asked(f"/taskInstances?limit=200{only}")["task_instances"])

    def running(self) -> dict[int, Try]:
        """By process id."""
        return {
            i["pid"]: Try(i["task_id"], i["map_index"], i["try_number"])
            for i in self.instances("&state=running")
            if i["pid"]
        }

    def state(self) -> str:
        return str(self._asked("")["state"])

    def of(self, message: Message) -> tuple[Try, int] | None:
        """Whose message it is, and its process id; None if it is no task's of this run. For one thread at a time."""
        if message.backend not in self._backends:
            running = self.running()
            pid = _owner(message.port, running)
            if pid is None:
                return None
            self._backends[message.backend] = running[pid], pid
        return self._backends[message.backend]


def _owner(port: int, pids: Mapping[int, Any]) -> int | None:
    """Which of these processes has the end of a connection that is at this port of 127.0.0.1."""
    address = f"0100007F:{port:04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    sockets = {f"socket:[{parts[9]}]" for parts in lines if parts[1] == address}
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in sockets:
                        return pid
    return None


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_with_children(pid: int) -> None:
    """A process and all below it, whatever their groups: as when a machine loses its power."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rsplit(")", 1)[1].split()[1])
    doomed = [pid]
    for one in doomed:  # grows while it is read
        doomed += [child for child, parent in parents.items() if parent == one]
    for one in doomed:
        kill(one)


@contextlib.contextmanager
def _pointed(api: Airflow, target: str, project: str) -> Iterator[None]:
    """Airflow's connections lead to this target and this project, until the block ends."""

    def point(bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            api.call("PATCH", f"/api/v2/connections/{body['connection_id']}", body)

    given = connections(target, project)
    before = [api.call("GET", f"/api/v2/connections/{body['connection_id']}") for body in given]
    point(given)
    try:
        yield
    finally:
        point(before)


def run_and_kill(
    api: Airflow,
    dag_id: str,
    conf: Mapping[str, Any],
    *,
    target: str,
    project: str,
    moment: Callable[[Try], Moment | None],
    strike: Callable[[int], object] = kill,
    each_turn: Callable[[], object] = lambda: None,
    seconds: float = 1200,
) -> Ended:
    """One run of the DAG through Airflow. A try for which `moment` has an answer dies then, by `strike`, which is given its
    process id. `each_turn` is called every moment, in the caller's thread: a process that another one starts ends with it."""
    began: list[tuple[Ended, _Tasks]] = []
    begun = threading.Event()

    def at_step(message: Message, name: str) -> Kill | None:
        begun.wait(60)
        ended, tasks = began[0]
        found = tasks.of(message)
        if found is None:
            return None
        which, pid = found
        names = ended.steps.setdefault(which, [])
        names.append(name)
        due = moment(which)
        if due is None or due.step != len(names):
            return None
        ended.killed[which] = f"{due.when} {name}"
        return Kill(lambda: strike(pid), due.when == BEFORE)

    with watched(target, at_step) as (proxied, _), _pointed(api, proxied, project):
        run_id = api.trigger(dag_id, **conf)
        ended, tasks = Ended(run_id), _Tasks(api, dag_id, run_id)
        began.append((ended, tasks))
        begun.set()
        deadline, asked, state = time.monotonic() + seconds, 0.0, ""
        while state not in ENDED:
            assert time.monotonic() < deadline, f"{dag_id} did not end: {ended}"
            for pid, which in tasks.running().items():
                due = moment(which)
                if due is not None and due.when == ANYWHERE and which not in ended.killed:
                    strike(pid)
                    ended.killed[which] = ANYWHERE
            each_turn()
            time.sleep(0.25)  # a task runs longer than that, if only because Python starts
            if time.monotonic() - asked > 2:  # an answer costs Airflow more than what it tells
                asked, state = time.monotonic(), tasks.state()
        ended.state = state
        for one in tasks.instances():
            ended.states.setdefault(one["task_id"], set()).add(one["state"])
            ended.tries[one["task_id"]] = max(one["try_number"], ended.tries.get(one["task_id"], 0))
    return ended
