"""The Parity page's files beside an API that answers what a test wants: for what a real Airflow can't be made to show in
seconds (hostile ids, a hundred collections, an API that fails)."""

from __future__ import annotations

import ast
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from dev.airflow_home import ROOT
from dualwrite.model.repairs import rules
from dualwrite.model.report import SAMPLES, CollectionReport
from dualwrite.model.run_report import VERSION, ReconciledCollection, RunFacts, RunReport
from dualwrite.runs.ready import checklist
from dualwrite.runs.report import alerts, text

WEB = ROOT / "plugins" / "parity_web"
RUN = "manual__1"
NOW = datetime.now(UTC)


DAG = "reconcile_dual_writes"
DETAILS = {
    "dag_id": DAG,
    "is_paused": True,
    "params": {
        "repair": {
            "value": "off", "description": "Pressing Trigger is the approval.",
            "schema": {"enum": ["off", "missing", "all"], "title": "Repair", "values_display": {"off": "off: look", "missing": "missing: insert missing rows"}},
        },
        "collections": {
            "value": ["posts", "comments"], "description": "Which.",
            "schema": {"type": "array", "items": {"type": "string", "enum": ["posts", "comments"]}, "title": "Collections"},
        },
        "scope": {
            "value": "recent", "description": "How far.",
            "schema": {"enum": ["recent", "sweep", "none"], "title": "Scope", "values_display": {"none": "none: compare nothing"}},
        },
        "keys": {"value": [], "description": "One a line.", "schema": {"type": ["null", "array"], "title": "Only these"}},
        "undo": {"value": None, "description": "Which.", "schema": {"type": ["null", "string"], "title": "Undo a run"}},
        "unexcuse": {"value": [], "description": "One a line.", "schema": {"type": ["null", "array"], "title": "Take back"}},
        "excuse": {"value": [], "description": "One a line.", "schema": {"type": ["null", "array"], "title": "Excuse"}},
        "excuse_reason": {"value": None, "description": "Why.", "schema": {"type": ["null", "string"], "title": "Reason"}},
        "max_billed_reads": {
            "value": None, "description": "Empty: no limit.",
            "schema": {"type": ["null", "integer"], "minimum": 1, "title": "Billed reads at most"},
        },
        "grace_seconds": {
            "value": 120, "description": "How long.",
            "schema": {"type": "number", "minimum": 0, "maximum": 3600, "title": "Grace"},
        },
    },
}  # fmt: skip
"""Of the DAG: what the form is made of."""


def _headers() -> dict[str, str]:
    """The plugin's own, read without importing Airflow."""
    tree = ast.parse((ROOT / "plugins" / "dual_write_parity.py").read_text())
    [found] = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "HEADERS"]  # type: ignore[attr-defined]
    return dict(ast.literal_eval(found))


@dataclass
class Stub:
    """`answers` maps a path below /api/v2/ to a status and a body. What is asked for and posted is kept."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    posted: list[tuple[str, Any]] = field(default_factory=list)
    delay: float = 0
    may: dict[str, bool] = field(default_factory=lambda: {"trigger": True, "unpause": True})


def about(dag_id: str, report: dict[str, Any] | None, runs: int = 1, **changes: Any) -> dict[str, tuple[int, Any]]:
    """A DAG with runs, the last of which has this report."""
    found = [
        {"dag_id": dag_id, "dag_run_id": f"manual__{i + 1}", "state": "failed", "duration": 40 + i % 7,
         "run_after": "2026-11-24T12:00:00Z", "triggering_user_name": "admin",
         "start_date": "2026-11-24T12:00:00Z", "end_date": "2026-11-24T12:01:00Z", "run_type": "manual"}
        for i in range(runs)
    ]  # fmt: skip
    answers: dict[str, tuple[int, Any]] = {
        f"dags/{dag_id}": (200, {"dag_id": dag_id, "is_paused": False, **changes}),
        f"dags/{dag_id}/dagRuns": (200, {"dag_runs": found if report else []}),
        f"dags/{dag_id}/dagRuns/{RUN}": (200, found[0]),
    }
    if report:
        answers[f"dags/{dag_id}/dagRuns/{RUN}/taskInstances/report/xcomEntries/return_value"] = (200, {"value": report})
    return answers


def report_of(*collections: CollectionReport, runs: int = 3, **changes: Any) -> dict[str, Any]:
    """A reconciliation's report of these collections, of the declared shape. `changes` may lack what a real report has."""
    names = [c.collection for c in collections]
    shown: list[ReconciledCollection] = [
        {**c.as_json(), "scope": "sweep", "tripwire": None, "sweep_failed": None, "not_looked_at": 0, "undecided": 0}
        for c in collections
    ]
    facts: RunFacts = {
        "version": VERSION,
        "dag_id": "reconcile_dual_writes",
        "run_id": RUN,
        "at": NOW.isoformat(),
        "repair": "off",
        "compares": True,
        "named": None,
        "undo": None,
        "undone": None,
        "undo_failed": None,
        "undo_left_out": [],
        "dual_write_enabled": True,
        "windows": dict.fromkeys(names),
        "problem": None,
        "problem_kind": None,
        "gate": "examined",
        "operations": {
            "total": 9, "by_entity": {}, "malformed": 0, "unknown_entities": 0, "in_the_future": 0, "minutes": 30,
            "per_minute": 0.3, "documents": 9, "arrived": 8, "documents_per_minute": 0.3, "problem": None,
        },
        "operations_declared": True,
        "planned": {},
        "not_repaired": {},
        "repaired_lately": [],
        "billed_reads": 172,
        "collections": shown,
        "open": [
            {"collection": c["collection"], "verdict": v, "reason": None, "cause": "never_attempted", "excused": False,
             "number": c["counts"][v], "since": (NOW - timedelta(hours=2)).isoformat(), "fails": True}
            for c in shown for v in rules()["drift"] if c["counts"][v]
        ],
        "open_columns": {},
        "ages": {
            name: {"examined_until": NOW.isoformat(), "swept_at": NOW.isoformat(), "examined_hours": 0.0, "swept_hours": 0.0}
            for name in names
        },
        "declared": names,
        "parents_not_compared": [],
        "history": [
            {"run_id": f"manual__{i + 1}", "at": (NOW - timedelta(minutes=15 * i)).isoformat(), "missing": i % 3, "billed": 172}
            for i in range(runs)
        ],
        "excuses": [],
        "interventions": [],
        "days": [],
        "price": 0.06,
        "clean_days": 3,
        "migrations": {"applied": 2, "pending": [], "differences": 0, "unknown": None},
        "coverage": {},
        "references": {},
        "links": {"templates": {}, "project": "p", "database": "(default)", "tables": {}},
    }  # fmt: skip
    facts |= changes  # type: ignore[typeddict-item]
    found = alerts.drift(facts)
    whole: RunReport = {
        **facts,
        "rules": rules(),
        "ready": checklist(facts, names, []),
        "verdict": text.summary(facts),
        "alerts": found,
        "press": alerts.together(found),
        "parity": {"equal": False, "why_not": ["a test"], "oldest_sweep": None},
        "listed": None,
        "samples_shown": SAMPLES,
    }
    return {**whole, **changes}


@contextlib.contextmanager
def serve() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def _send(self, status: int, body: bytes, **more: str) -> None:
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path.startswith("/api/v2/"):
                known = path.removeprefix("/api/v2/")
                if stub.delay:
                    threading.Event().wait(stub.delay)
                offset = "offset=" in self.path and "offset=0" not in self.path
                status, body = stub.answers.get(known, (404, {"detail": "none"}))
                if offset and isinstance(body, dict) and "dag_runs" in body:
                    body = {"dag_runs": []}
                self._send(status, json.dumps(body).encode(), Content_Type="application/json")
                return
            name = path.removeprefix("/parity/") or "index.html"
            if path == "/plugin/parity":  # Airflow's window around the page
                frame = b'<iframe title="Parity" src="/parity/" width="1100" height="800"></iframe>'
                self._send(200, frame, Content_Type="text/html")
                return
            if path == "/parity/may":
                self._send(200, json.dumps(stub.may).encode(), Content_Type="application/json")
                return
            file = WEB / name
            if path.startswith("/parity/") and file.is_file():
                kind = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}[file.suffix]
                self._send(200, file.read_bytes(), Content_Type=f"{kind}; charset=utf-8", **_headers())
            else:
                self._send(404, b"")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = unquote(urlsplit(self.path).path).removeprefix("/api/v2/")
            stub.posted.append((known, body))
            status, answer = stub.answers.get(
                f"POST {known}", (200, {"dag_id": [*known.split("/"), ""][1], "dag_run_id": "new"})
            )
            self._send(status, json.dumps(answer).encode(), Content_Type="application/json")

        do_PATCH = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stub.url = f"http://127.0.0.1:{server.server_port}/parity/"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
