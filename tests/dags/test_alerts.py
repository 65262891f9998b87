"""What reaches Sentry, taken at a local endpoint that records envelopes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest

from dev import airflow_home
from dualwrite.model import alert
from tests.support import one

SECRET = "비밀: nobody may read this sentence"


class Endpoint:
    """A Sentry that only keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.bodies.append(
                    gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                )
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.dsn = f"http://key@127.0.0.1:{self.server.server_port}/1"

    def events(self) -> list[dict]:
        found = []
        for body in self.bodies:
            for line in body.split(b"\n"):
                if line.startswith(b"{"):
                    item = json.loads(line)
                    if "event_id" in item and ("exception" in item or "message" in item or "logentry" in item):
                        found.append(item)
        return found

    def everything(self) -> str:
        return b"".join(self.bodies).decode(errors="replace")


@pytest.fixture
def sentry() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


@pytest.fixture
def drifting(firestore, target_dsn):
    """A world with one missing post, and one whose title differs."""
    now = datetime.now(UTC)
    firestore.document("boards/b1").set({"title": "b", "createdAt": now})
    firestore.document("users/u1").set({"createdAt": now, "updatedAt": now, "nickname": SECRET})
    fields = {
        "title": SECRET,
        "content": SECRET,
        "authorId": "u1",
        "authorName": "n",
        "createdAt": now,
        "updatedAt": now,
    }
    firestore.document("boards/b1/posts/lost").set(fields)
    firestore.document("boards/b1/posts/stale").set(fields)
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO users (id, nickname, created_at, updated_at) VALUES ('u1', %s, %s, %s)", (SECRET, now, now)
        )
        connection.execute("INSERT INTO boards (id, title, created_at) VALUES ('b1', 'b', %s)", (now,))
        connection.execute(
            "INSERT INTO posts (id, board_id, author_id, author_name, title, content, created_at, updated_at) "
            "VALUES ('stale', 'b1', 'u1', 'n', 'other', %s, %s, %s)",
            (SECRET, now, now),
        )
    return firestore


def test_each_collection_and_verdict_is_one_issue_with_its_tags(drifting, target_dsn, run_dag, sentry):
    """It holds nothing private."""
    on = {
        "AIRFLOW__SENTRY__SENTRY_ON": "True",
        "SENTRY_DSN": sentry.dsn,
        "AIRFLOW__SENTRY__INCLUDE_LOCAL_VARIABLES": "True",  # even where an operator forgot to turn it off
    }
    conf = {"grace_seconds": 0.5, "collections": ["posts"]}
    run = run_dag("reconcile_dual_writes", conf, project=drifting.project, dsn=target_dsn, **on)
    assert run.state == "failed"
    events = {e["tags"].get("dual_write.verdict"): e for e in sentry.events()}
    assert sorted(events) == ["missing", "stale"], "one event each, and the failed task's own is not sent besides"
    assert len(sentry.events()) == 2
    missing = events["missing"]
    assert missing["fingerprint"] == ["dual-write", "posts", "missing"]
    tags = missing["tags"]
    assert (tags["dual_write.entity_type"], tags["dual_write.cause"]) == ("posts", "never_attempted")
    assert (tags["dag_id"], tags["run_id"]) == ("reconcile_dual_writes", run.run_id)
    told = missing.get("message") or missing["logentry"]["message"]
    assert told in run.said, "the event says what the failed task's last line says"
    [kept] = [a for a in run.report["alerts"] if a["kind"] == "missing"]
    assert told == alert.line(kept), "Airflow doesn't know its own address here, so there is no link"
    assert "nobody may read" not in sentry.everything()
    assert "nobody may read" not in run.log
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 2


SCRIPT = """
import sys
from types import SimpleNamespace
import sentry_sdk
sentry_sdk.init(dsn=sys.argv[1], include_local_variables=True)
from dualwrite.edge import errors as edge
from dualwrite.model.errors import SourceError
def attempt(try_number, error):
    secret = "nobody may read this"
    context = {"dag": SimpleNamespace(dag_id="backfill_gap"), "run_id": "r1",
               "ti": SimpleNamespace(try_number=try_number, max_tries=2, xcom_push=lambda **_: None)}
    try:
        with edge.errors_of_run(context):
            raise error
    except Exception as failed:
        sentry_sdk.capture_exception(failed)
attempt(1, SourceError("first attempt"))
attempt(2, SourceError("second attempt"))
attempt(3, SourceError("last attempt"))
attempt(3, KeyError("nobody may read this"))
try:
    raise ValueError("nobody may read this")
except ValueError as outside:
    sentry_sdk.capture_exception(outside)
sentry_sdk.flush()
"""


def test_an_attempt_that_is_retried_sends_nothing(home, warm_airflow, sentry):
    """Other people's words are withheld."""
    environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    done = warm_airflow(["-c", SCRIPT, sentry.dsn], {**environment, "PYTHONPATH": str(airflow_home.ROOT / "dags")})
    assert done.returncode == 0, done.stderr[-2000:]
    values = [e["exception"]["values"][-1] for e in sentry.events()]
    assert [v["type"] for v in values] == ["SourceError", "Defect", "ValueError"]
    assert values[0]["value"] == "last attempt"
    assert [e["tags"]["dual_write.code"] for e in sentry.events()[:2]] == ["source-failed", "defect"]
    assert "KeyError at" in values[1]["value"]
    assert values[2]["value"] == "withheld: it may quote a document"
    assert "nobody may read" not in sentry.everything().replace(SCRIPT, "")
    assert '"vars"' not in sentry.everything()


STOPPED = """
import sys
from types import SimpleNamespace
from dualwrite import postgres
from dualwrite.edge import errors as edge
from dualwrite.model.errors import TargetError
def attempt(try_number, error):
    pushed = {}
    instance = SimpleNamespace(try_number=try_number, max_tries=2, xcom_push=lambda key, value: pushed.update({key: value}))
    context = {"dag": SimpleNamespace(dag_id="reconcile_dual_writes"), "run_id": "r1", "ti": instance}
    try:
        with edge.report_or_why_not(context), edge.errors_of_run(context):
            raise error
    except BaseException as failed:
        print("ENDED", type(failed).__name__, failed, pushed.get("return_value", {}).get("verdict"))
attempt(1, TargetError("no answer"))
attempt(3, TargetError("no answer"))
attempt(3, KeyError("nobody may read this"))
"""


def test_a_report_that_can_not_be_made_is_one_sentence(home, warm_airflow):
    """A plain failure to connect was a traceback that cut the sentence off, and an empty page."""
    environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    done = warm_airflow(["-c", STOPPED], {**environment, "PYTHONPATH": str(airflow_home.ROOT / "dags")})
    again, last, defect = [line for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert again == "ENDED TargetError no answer None", "a retry may still end well"
    assert last == "ENDED ReportFailed There is no report: no answer There is no report: no answer"
    assert defect.startswith("ENDED ReportFailed There is no report: KeyError at ")
    assert "nobody may read" not in done.stdout.replace(STOPPED, "") + done.stderr.replace(STOPPED, "")


def _script(script: str, sentry: Endpoint, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script, sentry.dsn],
        env={**os.environ, **(environment or {}), "PYTHONPATH": str(airflow_home.ROOT / "dags")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


OTHERS = """
import logging, sys
import sentry_sdk
sentry_sdk.init(dsn=sys.argv[1], include_local_variables=True, traces_sample_rate=1.0, auto_enabling_integrations=False)
from dualwrite import alerts
alerts.install()
secret = "nobody may read this"
sentry_sdk.set_context("row", {"title": secret})
sentry_sdk.set_context("trace", {"trace_id": "0" * 32, "span_id": "0" * 16, "data": {"query": secret}})
sentry_sdk.set_user({"username": secret})
sentry_sdk.set_extra("row", secret)
sentry_sdk.add_breadcrumb(message=secret)
sentry_sdk.get_current_scope().add_attachment(bytes=secret.encode(), filename="row.txt")
logging.getLogger("sqlalchemy").error("Failing row contains (%s)", secret)
logging.getLogger("airflow.task").error(secret)
logging.getLogger("some.library").error("it broke", extra={"row": secret}, stack_info=True)
try:
    raise ValueError(secret)
except ValueError:
    logging.getLogger("grpc").exception(secret)
sentry_sdk.capture_message(secret)
logging.getLogger("dualwrite.engine").error("users: 3 rows were not compared")
from airflow.sdk.exceptions import AirflowException, AirflowFailException
for error in (AirflowException("Invalid connection string: " + secret), AirflowFailException("posts: 1 missing")):
    sentry_sdk.capture_exception(error)
with sentry_sdk.start_transaction(name="task"), sentry_sdk.start_span(op="db", name="SELECT " + secret):
    pass
alerts._without_foreign_text = None  # a defect of ours: calling it raises
sentry_sdk.capture_message(secret)
sentry_sdk.flush()
"""


def test_no_words_of_other_libraries_are_sent(home, sentry):
    """No log record, context, span or attachment holds any."""
    environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
    _script(OTHERS, sentry, environment)
    events = sentry.events()
    assert "nobody may read" not in sentry.everything()
    withheld = "withheld: it may quote a document"
    told = [e["logentry"]["message"] if "logentry" in e else e.get("message") for e in events]
    assert told == [*[withheld] * 5, "users: 3 rows were not compared", None, None, told[-1]]
    assert [e["logger"] for e in events[:4]] == ["sqlalchemy", "airflow.task", "some.library", "grpc"]
    assert events[3]["exception"]["values"][0]["type"] == "ValueError"
    assert [e["exception"]["values"][0]["value"] for e in events[6:8]] == [withheld, "posts: 1 missing"]
    assert "could not be cleared (TypeError)" in told[-1], "an event that can't be cleared is sent without its text"
    assert set(events[0]["contexts"]) <= {"trace", "runtime", "os"}


HOST = """
import sys
import sentry_sdk
sentry_sdk.init(dsn=sys.argv[1], include_local_variables=True, auto_enabling_integrations=False)
sentry_sdk.set_user({"id": "u1"})
sentry_sdk.set_extra("order", "the app's own")
sentry_sdk.set_context("cart", {"items": "the app's own"})
sentry_sdk.add_breadcrumb(message="the app's own")
from dualwrite import alerts
alerts.write_failed("failed: UniqueViolation", entity_type="post", operation_type="create", entity_id="p1")
def fails():
    local = "in a local variable"
    raise ValueError("the app's own words")
try:
    fails()
except ValueError as error:
    sentry_sdk.capture_exception(error)
sentry_sdk.capture_message("the app's own message")
sentry_sdk.flush()
"""


def test_a_failed_dual_write_leaves_the_host_apps_events_whole(sentry):
    _script(HOST, sentry)
    failed, raised, message = sentry.events()
    assert failed["message"] == "dual-write failed: failed: UniqueViolation"
    assert failed["fingerprint"] == ["dual-write", "post", "create", "failed: UniqueViolation"]
    assert failed["tags"]["dual_write.entity_id"] == "p1"
    assert not {"user", "extra", "breadcrumbs"} & set(failed)
    assert "cart" not in failed["contexts"]
    [value] = raised["exception"]["values"]
    assert value["value"] == "the app's own words"
    assert "in a local variable" in value["stacktrace"]["frames"][-1]["vars"]["local"]
    assert message["message"] == "the app's own message"
    for event in (raised, message):
        assert event["user"]["id"] == "u1"
        assert event["extra"]["order"] == "the app's own"
        assert event["contexts"]["cart"] == {"items": "the app's own"}
        assert event["breadcrumbs"]["values"][0]["message"] == "the app's own"
        assert "fingerprint" not in event
        assert not [t for t in event.get("tags") or {} if str(t).startswith("dual_write")]
