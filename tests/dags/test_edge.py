"""The edge to Airflow: where a run's parameters come from, and what a missing connection says."""

from __future__ import annotations

import json
import socket

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dev import airflow_home, processes
from tests.proxy import proxy

SCRIPT = """
import json, sys
from types import SimpleNamespace
from airflow.sdk.api.datamodels._generated import DagRunType
from dualwrite.edge import reconciliation as edge
from dualwrite.edge.forms import reconcile_form
defaults = {name: param.value for name, param in reconcile_form().items()}
def context(run_type, conf):
    return {"dag_run": SimpleNamespace(run_type=DagRunType(run_type), conf=conf), "params": defaults}
run_type, conf = sys.argv[1], json.loads(sys.argv[2])
try:
    params = edge.params_of(context(run_type, conf))
    print("RESULT", json.dumps({"repair": params.repair, "max_repairs": params.max_repairs, "collections": params.collections,
                                "cap": params.max_billed_reads, "enabled": edge.dual_write_enabled()}))
except Exception as error:
    print("RESULT", json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


SOURCE_SCRIPT = """
import json
from dualwrite.edge import connections as edge
from dualwrite.edge.errors import errors_without_content
try:
    with errors_without_content(), edge.source() as source:
        print("RESULT", json.dumps({"database": source.wire.database}))
except Exception as error:
    print("RESULT", json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


FORM_SCRIPT = """
import json, sys
from airflow.sdk import DAG, Param
from dualwrite.edge import forms
try:
    forms.set_form(DAG("d"), {"page_size": Param(json.loads(sys.argv[1]), type="integer", minimum=1)})
    print("RESULT", json.dumps({}))
except Exception as error:
    print("RESULT", json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


@pytest.fixture
def edge(home, warm_airflow):
    """Runs a script beside the bundle in a process of its own, and gives what it printed: (its RESULT, everything)."""

    def run(script: str, *args: str, **variables: str) -> tuple[dict, str]:
        environment = airflow_home.environment(home, emulator="127.0.0.1:1", project="p", target="postgresql://u@h:1/d")
        environment |= {**variables, "PYTHONPATH": str(airflow_home.ROOT / "dags")}
        done = warm_airflow(["-c", script, *args], environment)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stderr[-2000:]
        return dict(json.loads(lines[-1].removeprefix("RESULT "))), done.stdout + done.stderr

    return run


@pytest.fixture
def params(edge):
    def found(run_type: str, conf: dict, **variables: str) -> dict:
        return edge(SCRIPT, run_type, json.dumps(conf), **variables)[0]

    return found


@pytest.fixture
def firestore_of(edge):
    """What `source()` makes of a connection with this extra, where no emulator is named (as in production)."""

    def made(extra: dict, **variables: str) -> tuple[dict, str]:
        connection = json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
        nowhere = {"FIRESTORE_EMULATOR_HOST": "", "NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": ""}
        return edge(SOURCE_SCRIPT, AIRFLOW_CONN_FIRESTORE_DEFAULT=connection, **nowhere | variables)

    return made


CONNECTING = """
import json, os, sys
from dualwrite.edge import connections as edge
from dualwrite.edge.errors import errors_without_content
def attempt(side):
    try:
        with errors_without_content(), getattr(edge, side)() as opened:
            return opened.wire.database if side == "source" else "connected"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
found = []
for side, variables in json.loads(sys.argv[1]):
    os.environ.update(variables)
    found.append(attempt(side))
print("RESULT", json.dumps({"found": found}))
"""


@pytest.fixture
def connecting(edge):
    """What opening one side says with each of these environments, one after the other in one process (Airflow takes
    seconds to import)."""

    def found(side: str, *environments: dict[str, str]) -> tuple[list[str], str]:
        result, everything = edge(CONNECTING, json.dumps([(side, e) for e in environments]))
        return result["found"], everything

    return found


@pytest.fixture(scope="module")
def service_account() -> dict:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account",
        "project_id": "prod-1",
        "private_key_id": "a",
        "private_key": pem,
        "client_email": "dualwrite@prod-1.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:1/token",
    }


def test_a_form_that_refuses_its_own_default_is_an_import_error(edge):
    assert edge(FORM_SCRIPT, "1")[0] == {}
    error = edge(FORM_SCRIPT, "0")[0]["error"]
    assert error.startswith("ParamValidationError")
    assert "page_size" in error


def test_scheduled_runs_take_variables_manual_runs_their_form(params):
    variables = {
        "AIRFLOW_VAR_RECONCILE_REPAIR": "missing",
        "AIRFLOW_VAR_RECONCILE_MAX_REPAIRS": "50",
        "AIRFLOW_VAR_RECONCILE_COLLECTIONS": '["users", "posts"]',
    }
    scheduled = params("scheduled", {}, **variables)
    assert (scheduled["repair"], scheduled["max_repairs"], scheduled["collections"]) == (
        "missing",
        50,
        ["users", "posts"],
    )
    manual = params("manual", {"max_repairs": 7}, **variables)
    assert (manual["repair"], manual["max_repairs"]) == ("off", 7)
    assert scheduled["enabled"] is True
    assert (scheduled["cap"], manual["cap"]) == (2_000_000, None), (
        "what makes a scheduled run read may be a client's doing"
    )


def test_the_cap_of_scheduled_runs_can_be_lifted(params):
    assert params("scheduled", {}, AIRFLOW_VAR_RECONCILE_MAX_BILLED_READS="null")["cap"] is None
    assert params("scheduled", {}, AIRFLOW_VAR_RECONCILE_MAX_BILLED_READS="5000000")["cap"] == 5_000_000


def test_a_variable_that_is_not_what_it_should_be_is_refused(params):
    refused = params("scheduled", {}, AIRFLOW_VAR_RECONCILE_REPAIR="everything")["error"]
    assert "Variable reconcile_repair can't be used. repair must be one of off, missing" in refused
    assert (
        "dual_write_enabled must be true or false"
        in params("manual", {}, AIRFLOW_VAR_DUAL_WRITE_ENABLED="maybe")["error"]
    )


def test_an_excuse_is_never_taken_from_a_variable(params):
    """It would silence whatever is found from now on."""
    refused = params("scheduled", {}, AIRFLOW_VAR_RECONCILE_EXCUSE='["posts:*"]')["error"]
    assert "Variable reconcile_excuse would apply to all later ones too. Delete it" in refused
    refused = params("scheduled", {}, AIRFLOW_VAR_RECONCILE_KEYS='["posts:*"]')["error"]
    assert "Only a person gives keys" in refused
    assert "error" not in params("manual", {}, AIRFLOW_VAR_RECONCILE_EXCUSE='["posts:*"]')


def test_no_variable_makes_scheduled_runs_compare_nothing(params):
    refused = params("scheduled", {}, AIRFLOW_VAR_RECONCILE_SCOPE="none")["error"]
    assert "Variable reconcile_scope = none would leave everything unseen" in refused
    assert "error" not in params("manual", {"scope": "none"})


BLIP_SCRIPT = """
import json, sys
from types import SimpleNamespace
from dualwrite import alerts
from dualwrite.edge.connections import target
from dualwrite.edge.errors import errors_of_run
told = {}
ti = SimpleNamespace(try_number=int(sys.argv[1]), max_tries=2, xcom_push=lambda key, value: told.update({key: value}))
context = {"dag": SimpleNamespace(dag_id="reconcile_dual_writes"), "run_id": "r", "ti": ti}
try:
    with errors_of_run(context), target() as opened, opened.transaction():
        pass
except Exception as error:
    print("RESULT", json.dumps({"kind": type(error).__name__, "muted": alerts._state["muted"], **told}))
"""


@pytest.mark.parametrize(("try_number", "muted"), [(1, True), (3, False)])
def test_a_report_that_cant_reach_postgres_is_tried_again(edge, try_number, muted):
    """Nobody is alerted before."""
    made, _ = edge(
        BLIP_SCRIPT,
        str(try_number),
        AIRFLOW_CONN_SUPABASE_DEFAULT="postgresql://u:secret@127.0.0.1:1/d?connect_timeout=2",
    )
    assert made["kind"] == "TargetError", "an AirflowFailException would not be tried again"
    assert made["muted"] == muted
    assert "Can't connect to Postgres" in made["error"]


def test_a_missing_connection_says_what_to_add(firestore, target_dsn, run_dag):
    run = run_dag(
        "backfill_gap", {}, project=firestore.project, dsn=target_dsn, AIRFLOW_CONN_SUPABASE_DEFAULT="postgres://"
    )
    assert run.state == "failed"
    assert "Connection supabase_default is unreadable" in run.log or "names no host" in run.log
    assert run.tasks["preflight"] == "failed"
    assert "Nothing was examined, because preflight did not pass: Connection supabase_default" in run.said


def test_a_service_accounts_key_names_the_project(firestore_of, service_account):
    """The extra names the database."""
    made, _ = firestore_of({"keyfile_dict": json.dumps(service_account), "database": "other"})
    assert made == {"database": "projects/prod-1/databases/other"}
    made, _ = firestore_of({"keyfile_dict": json.dumps(service_account), "project": "staging-2"})
    assert made == {"database": "projects/staging-2/databases/(default)"}


@pytest.mark.parametrize(
    "extra", [{}, {"key_path": "/nowhere/key.json"}, {"keyfile_dict": "half"}, {"keyfile_dict": "{"}]
)
def test_a_key_that_cant_be_used_says_so_and_is_not_quoted(firestore_of, service_account, extra):
    if extra.get("keyfile_dict") == "half":
        extra = {"keyfile_dict": json.dumps({k: v for k, v in service_account.items() if k != "client_email"})}
    made, everything = firestore_of({"project": "p", **extra})
    assert "The key of connection firestore_default can't be used" in made["error"]
    assert "Set Keyfile Path" in made["error"]
    assert made["error"].startswith("AirflowFailException")  # another try would read the same key
    assert service_account["private_key"].splitlines()[1] not in everything


def test_a_key_without_a_project_is_refused(firestore_of, service_account, tmp_path):
    key = tmp_path / "key.json"
    key.write_text(json.dumps({k: v for k, v in service_account.items() if k != "project_id"}))
    made, _ = firestore_of({"key_path": str(key)})
    assert "No project is named" in made["error"]


SECRET = "s3cret-pass"
UNREADABLE = [
    f"postgresql://u:{SECRET}[@127.0.0.1:5432/d",  # a bracket
    f"postgresql://u:{SECRET}@127.0.0.1:port/d",
    f'{{"conn_type": "postgres", "password": "{SECRET}"',
    f'{{"conn_type": "postgres", "hostname": "h", "password": "{SECRET}"}}',
    f'{{"conn_type": "postgres", "host": "h", "port": "p", "password": "{SECRET}"}}',
]


def _target(value: str) -> dict[str, str]:
    return {"AIRFLOW_CONN_SUPABASE_DEFAULT": value}


def test_a_malformed_connection_is_unreadable_and_not_missing(connecting):
    """It is not quoted."""
    extras = [f'{{"sslmode": "{SECRET}', f'["{SECRET}"]']
    with_extras = [json.dumps({"conn_type": "postgres", "host": "127.0.0.1", "extra": e}) for e in extras]
    said, everything = connecting("target_connection", *map(_target, [*UNREADABLE, *with_extras, ""]))
    *found, half, listed, empty = said
    for error in found:
        assert error.startswith("AirflowFailException: Connection supabase_default is unreadable")
        assert "AIRFLOW_CONN_SUPABASE_DEFAULT is neither JSON nor a URI" in error
    for error in (half, listed):
        assert error.startswith("AirflowFailException: The extra of connection supabase_default is unreadable")
    assert empty.startswith("AirflowFailException: Connection supabase_default (postgres) is missing")
    assert "set AIRFLOW_CONN_SUPABASE_DEFAULT" in empty
    assert SECRET not in everything


def test_a_connection_tells_no_part_of_an_unencoded_password(connecting):
    """It becomes the host, the port, the database or a parameter, which errors name."""
    uris = [f"postgres://user:4711{c}Ri8ghtHalf@127.0.0.1:1/db" for c in "/?#@:%[]& "]
    _, everything = connecting("target_connection", *map(_target, uris))
    assert "Ri8ghtHalf" not in everything
    assert "4711" not in everything


def test_a_closed_port_and_a_refused_login_say_so(connecting, target_dsn):
    closed = f"postgresql://u:{SECRET}@127.0.0.1:{processes.free_port()}/d"
    refused = target_dsn.replace("postgres@", "nobody@")
    found, everything = connecting("target_connection", _target(closed), _target(refused), _target(target_dsn))
    assert found[0].startswith("TargetError: Can't connect to Postgres: 127.0.0.1:"), "worth a retry"
    assert "database d, user u" in found[0]
    assert "Connection refused" in found[0]
    assert found[1].startswith("AirflowFailException: Can't connect to Postgres"), "a retry can't help"
    assert 'role "nobody" does not exist' in found[1]
    assert found[2] == "connected"
    assert SECRET not in everything


def test_a_forgotten_emulator_is_no_source_of_a_real_target(connecting):
    hosts = ["db.example.com", "10.0.0.5", "fd00::2", "127.0.0.1", "localhost"]
    firestore = json.dumps({"conn_type": "google_cloud_platform", "extra": {"project": "p"}})
    variables = {"FIRESTORE_EMULATOR_HOST": "127.0.0.1:8080", "AIRFLOW_CONN_FIRESTORE_DEFAULT": firestore}
    login = {"conn_type": "postgres", "login": "u", "password": "p", "schema": "d"}
    targets = [_target(json.dumps({**login, "host": host})) for host in hosts]
    found, _ = connecting("source", *[variables | target for target in targets])
    for host, error in zip(hosts[:3], found, strict=False):
        assert error.startswith("AirflowFailException: FIRESTORE_EMULATOR_HOST is set (127.0.0.1:8080)")
        assert f"not on this machine ({host})" in error
    assert found[3:] == ["projects/p/databases/(default)"] * 2


@pytest.fixture
def from_outside(target_dsn):
    """The target as another machine would see it: through this machine's own address. (dsn, host)"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only asks which address would be used
            host = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has only its loopback address")
    server = psycopg.conninfo.conninfo_to_dict(target_dsn)
    with proxy(str(server["host"]), int(server["port"]), listen_on=(host, 0)) as made:
        yield f"postgresql://postgres@{host}:{made.port}/{server['dbname']}", host


def test_a_connection_in_plain_text_beyond_this_machine_is_told(connecting, from_outside, target_dsn):
    """It is warned of, and can be refused."""
    dsn, host = from_outside
    found, everything = connecting(
        "target_connection", _target(dsn), _target(target_dsn), _target(f"{dsn}?sslmode=require")
    )
    assert found[:2] == ["connected"] * 2
    assert found[2].startswith("AirflowFailException: Can't connect to Postgres")
    assert "SSL was required" in found[2]
    assert f"The connection to Postgres at {host} is not encrypted. Set sslmode=verify-full" in everything
    assert everything.count("is not encrypted") == 1, "not of the one to loopback"
