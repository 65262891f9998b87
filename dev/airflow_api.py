"""A client of a running Airflow's REST API, for the demo and the end-to-end tests."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

ENDED = ("success", "failed")


@dataclass(frozen=True)
class Airflow:
    """Address and token of one user."""

    url: str
    token: str

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer's JSON: an object, from a few routes an array."""
        return _call(method, self.url + path, body, self.token)

    def status(self, method: str, path: str, body: dict[str, Any] | None = None) -> int:
        """The answer's HTTP status, whatever it is."""
        try:
            self.call(method, path, body)
        except urllib.error.HTTPError as error:
            return error.code
        except ValueError:
            pass  # an answer that isn't JSON
        return 200

    def wait_for_dags(self, number: int, seconds: float = 300) -> None:
        """Waits until Airflow has loaded this many DAGs. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.call("GET", "/api/v2/dags")["total_entries"] < number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Airflow did not load {number} DAGs in {seconds:g} s")
            time.sleep(0.5)

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def pause(self, dag_id: str) -> None:
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": True})

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Unpauses a DAG and triggers a run. Returns the run's id."""
        self.unpause(dag_id)
        run = self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, seconds: float = 180) -> str:
        """Waits until a run has ended. Returns its state, one of ENDED. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):  # of one call, on a busy machine
                state = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
                if state in ENDED:
                    return str(state)
            time.sleep(1)
        raise TimeoutError(f"{dag_id} {run_id} did not end in {seconds:g} s: {self.states(dag_id, run_id)}")

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """The states of a run's tasks, by id; of a mapped task, one instance's."""
        listed = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")
        return {t["task_id"]: str(t["state"]) for t in listed["task_instances"]}

    def answer(self, dag_id: str, run_id: str, option: str, seconds: float = 600) -> str:
        """Answers a run's approvals until the run has ended; returns the last body that was shown."""
        path, body = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", ""
        deadline = time.monotonic() + seconds
        while self.call("GET", path)["state"] not in ENDED:
            # An answer that comes too soon causes Airflow's "state mismatch"; then the retried task asks again.
            for asked in self.call("GET", f"{path}/hitlDetails?response_received=false")["hitl_details"]:
                task = asked["task_instance"]["task_id"]
                if self.states(dag_id, run_id)[task] == "awaiting_input":
                    body = asked["body"]
                    time.sleep(8)
                    given = {"chosen_options": [option], "params_input": {}}
                    self.call("PATCH", f"{path}/taskInstances/{task}/-1/hitlDetails", given)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{dag_id} {run_id} did not end: {self.states(dag_id, run_id)}")
            time.sleep(1)
        return body

    def report(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """A run's report. Raises HTTPError if it has none."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/report/xcomEntries/return_value"
        value = self.call("GET", path)["value"]
        return dict(json.loads(value) if isinstance(value, str) else value)


def login(url: str, username: str, password: str) -> Airflow:
    """A client for a user of the SimpleAuthManager. Raises HTTPError for a wrong password."""
    answer = _call("POST", url + "/auth/token", {"username": username, "password": password}, None)
    return Airflow(url, answer["access_token"])


def _call(method: str, url: str, body: dict[str, Any] | None, token: str | None) -> Any:
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
