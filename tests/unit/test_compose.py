"""docker-compose.yaml, Dockerfile and .env.example, as far as they can be checked without a Docker engine: against the
compose specification's schema, against Airflow itself, and against the repository and the local stack."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import jsonschema
import pytest
import sentry_sdk.consts
import yaml

from dev import airflow_home, dotenv, licences, stack
from dualwrite import settings

ROOT = airflow_home.ROOT
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)  # merges <<
SERVICES: dict[str, Any] = COMPOSE["services"]
AIRFLOW = {name: s for name, s in SERVICES.items() if s["image"].startswith("dual-write-airflow")}
_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::?[-?][^}]*)?\}")
_ASSIGNED = re.compile(r"^(?:# )?([A-Z_]+)=(.*)$", re.MULTILINE)


def _environment(service: dict[str, Any]) -> dict[str, Any]:
    return service.get("environment") or {}


def test_every_setting_of_the_bundle_is_passed_on_from_dot_env():
    """A setting that the compose file left out was silently without effect there."""
    example = dict(_ASSIGNED.findall((ROOT / ".env.example").read_text()))
    for setting in settings.KNOWN:
        name = f"DUALWRITE_{setting.upper()}"
        assert example[name] == "''", name
        for service in AIRFLOW:
            if service != "seed":  # it fills both databases with the shipped app's world
                assert _environment(AIRFLOW[service])[name] == f"${{{name}:-}}", service


def test_it_is_valid_by_the_compose_specification():
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(vendored.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"a": {"comand": "x"}}}, json.loads(vendored.read_text()))


def test_the_components_are_those_of_the_local_stack():
    always = {name for name, service in AIRFLOW.items() if not service.get("profiles")}
    assert always == {*stack.COMPONENTS, "init"}
    for name in stack.COMPONENTS:
        assert SERVICES[name]["command"] == name, "the local stack starts it by this command"


def test_each_service_that_stays_restarts_and_tells_its_health():
    """One that ends does neither."""
    for name, service in SERVICES.items():
        if name in ("init", "seed"):
            assert service["restart"] == "no"
            assert "healthcheck" not in service
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name


def test_dependencies_exist_and_are_there_in_the_same_profile():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            profiles = SERVICES[other].get("profiles")
            same = not profiles or set(service.get("profiles", ())) & set(profiles)
            assert same or how.get("required") is False, f"{name} can't start without {other}, which is in a profile"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
        mode = service.get("network_mode")
        assert mode is None or mode.removeprefix("service:") in SERVICES


def test_what_is_mounted_exists_and_lies_where_the_variables_say():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, _, _ = volume.partition(":")
            if source.startswith("./"):
                assert any(file.startswith(source[2:] + "/") for file in tracked), f"{source} isn't in the repository"
                assert volume.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]
    for name in AIRFLOW.keys() - {"seed"}:
        places = dict(volume.split(":")[:2] for volume in AIRFLOW[name]["volumes"])
        assert places["./dags"] == AIRFLOW[name]["environment"]["AIRFLOW__CORE__DAGS_FOLDER"]
        assert places["./plugins"] == AIRFLOW[name]["environment"]["AIRFLOW__CORE__PLUGINS_FOLDER"]
        assert places["./sql"] == os.path.dirname(places["./dags"]) + "/sql", "sql/ is found beside dags/"
    keys = dict(volume.split(":")[:2] for volume in AIRFLOW["scheduler"]["volumes"])["./keys"]
    for connection in re.findall(r"/opt/airflow/keys/[\w.-]+", (ROOT / ".env.example").read_text()):
        assert os.path.dirname(connection) == keys


def test_each_service_has_only_the_secrets_that_it_needs():
    """The connections, and the keys that they name, are where tasks run; the login's password is where the login is made."""
    secret = {
        "AIRFLOW_CONN_": {"scheduler", "worker"},
        "BROKER_PASSWORD": {"scheduler", "worker", "broker"},
        "AIRFLOW_ADMIN_PASSWORD": {"init"},
        "TARGET_PASSWORD": {"target", "seed"},
        "METADATA_PASSWORD": {"metadata", "init", *stack.COMPONENTS, "worker"},
        "AIRFLOW_FERNET_KEY": {"init", *stack.COMPONENTS, "worker"},
        "AIRFLOW_JWT_SECRET": {"init", *stack.COMPONENTS, "worker"},
        "AIRFLOW_API_SECRET_KEY": {"init", *stack.COMPONENTS, "worker"},
        "./keys:": {"scheduler", "worker"},
    }
    for name, those in secret.items():
        assert {service for service, what in SERVICES.items() if name in json.dumps(what)} == those, name


def test_images_and_actions_are_pinned():
    """By digest where it is known, else by an exact version: a tag such as `17` is another image tomorrow."""
    for name, service in SERVICES.items():
        if name not in AIRFLOW:
            assert re.search(r":\d+\.\d+(\.\d+)?(-emulators)?(@sha256:[0-9a-f]{64})?$", service["image"]), service[
                "image"
            ]
    for workflow in (ROOT / ".github/workflows").iterdir():
        for action in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.search(r"@[0-9a-f]{40}$", action), action


def test_the_licences_of_all_that_the_image_installs_are_listed():
    listed = set(re.findall(r"[ |]([a-z0-9][\w.-]*) [\w.]+(?=[, ])", (ROOT / "docs/licences.md").read_text()))
    needed = licences.installed_in_the_image((ROOT / "constraints-image.txt").read_text())
    assert len(needed) > 150
    assert {"psycopg", "celery", "apache-airflow-providers-fab"} <= needed.keys()
    assert needed.keys() - listed == set(), "run make licences"


def test_nothing_secret_is_sent_to_the_engine_or_to_git():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    copied = re.search(r"^COPY --chown=\S+ (.*) /tmp", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1].split()
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied)
    secrets = [".env", ".env.production", "keys/firestore.json", "keys/supabase-ca.crt", "service-account.json", "tls.pem",
               "id.key", "logs/dag.log"]  # fmt: skip
    for name in secrets:
        ignored = subprocess.run(["git", "check-ignore", "-q", "--no-index", name], cwd=ROOT, check=False)
        assert ignored.returncode == 0, f"add {name} to .gitignore"
    kept = subprocess.run(["git", "check-ignore", "-q", "--no-index", ".env.example"], cwd=ROOT, check=False)
    assert kept.returncode == 1


def test_no_container_of_airflows_runs_as_root():
    for name, service in AIRFLOW.items():
        assert service["user"].partition(":")[0] not in ("0", "root"), name
    assert "USER root" not in (ROOT / "Dockerfile").read_text()


def test_only_the_api_server_is_published_and_only_on_loopback():
    """Another address has to be set."""
    published = {name: service["ports"] for name, service in SERVICES.items() if service.get("ports")}
    assert published == {"api-server": ["${AIRFLOW_BIND:-127.0.0.1}:${AIRFLOW_PORT:-8080}:8080"]}
    environment = _environment(SERVICES["api-server"])
    assert ":8080/execution/" in environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert "//api-server:" in environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert "://localhost:8080/" in SERVICES["api-server"]["healthcheck"]["test"][-1]


def test_every_secret_must_be_set_and_none_has_a_default():
    for name in (
        "AIRFLOW_ADMIN_PASSWORD",
        "AIRFLOW_FERNET_KEY",
        "AIRFLOW_JWT_SECRET",
        "AIRFLOW_API_SECRET_KEY",
        "METADATA_PASSWORD",
        "BROKER_PASSWORD",
    ):
        found = re.findall(rf"\$\{{{name}([^}}]*)\}}", TEXT)
        assert found
        assert all(rest.startswith(":?") for rest in found), f"{name} must be refused when it is empty"


def test_the_example_explains_every_variable_and_no_other():
    example = (ROOT / ".env.example").read_text()
    documented = {name for name, _ in _ASSIGNED.findall(example)}
    passed_on = {k for s in SERVICES.values() for k, v in _environment(s).items() if v is None}
    used = set(_VARIABLE.findall(TEXT)) | passed_on
    assert documented - {"COMPOSE_PROFILES"} == used
    for paragraph in example.strip().split("\n\n"):
        assert paragraph.startswith("#"), f"explain {paragraph.splitlines()[0]}"


@pytest.mark.parametrize("local", [False, True])
def test_a_dollar_surprises_nobody(local):
    """In a .env a single-quoted value is literal; in docker-compose.yaml every $ is a variable of ours or doubled."""
    written = dotenv.dotenv(local=local)
    for name, value in _ASSIGNED.findall(written):
        assert re.fullmatch(r"'[^']*'", value), f"{name} must stand in single quotes"
    assert "$" not in _VARIABLE.sub("", TEXT).replace("$$", "")
    values = {name: value[1:-1] for name, value in _ASSIGNED.findall(written)}
    for name, value in values.items():
        if name.startswith("AIRFLOW_CONN_"):
            assert json.loads(value)["conn_type"]
        if name in ("AIRFLOW_ADMIN_PASSWORD", "METADATA_PASSWORD", "AIRFLOW_FERNET_KEY", "BROKER_PASSWORD"):
            assert len(value) >= 16
    for name in ("METADATA_PASSWORD", "BROKER_PASSWORD", *(["TARGET_PASSWORD"] if local else [])):
        assert values[name].isalnum(), "it stands in a URL"
    if local:
        target = json.loads(values["AIRFLOW_CONN_SUPABASE_DEFAULT"])
        seeded = {
            k: v.replace("${TARGET_PASSWORD:-unset}", values["TARGET_PASSWORD"])
            for k, v in _environment(SERVICES["seed"]).items()
        }
        assert seeded["DUALWRITE_TARGET"] == (
            f"postgresql://{target['login']}:{target['password']}@{target['host']}:{target['port']}/{target['schema']}"
        )
        assert seeded["FIRESTORE_EMULATOR_HOST"] == values["FIRESTORE_EMULATOR_HOST"]
        assert seeded["FIRESTORE_EMULATOR_HOST"] in SERVICES["emulator"]["command"]
        assert _environment(SERVICES["target"])["POSTGRES_PASSWORD"] == "${TARGET_PASSWORD:-unset}"
        assert values["TARGET_PASSWORD"] == target["password"]


def test_an_existing_env_file_is_kept(tmp_path):
    dotenv.write(tmp_path / ".env", local=False)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0, "others can't read it"
    before = (tmp_path / ".env").read_text()
    with pytest.raises(SystemExit, match="exists and is kept"):
        dotenv.write(tmp_path / ".env", local=True)
    assert (tmp_path / ".env").read_text() == before


def test_settings_that_both_have_agree_with_the_local_stack(tmp_path):
    here = airflow_home.environment(tmp_path, emulator="h:1", project="p", target="postgresql://u@h:1/d", port=8080)
    there = _environment(SERVICES["scheduler"])
    own = {  # what is another thing by nature: places, secrets, Airflow's own database
        "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__PLUGINS_FOLDER", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY", "FIRESTORE_EMULATOR_HOST",
        "AIRFLOW_CONN_FIRESTORE_DEFAULT", "AIRFLOW_CONN_SUPABASE_DEFAULT", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
        "AIRFLOW__API__BASE_URL",
    }  # fmt: skip
    common = (here.keys() & there.keys()) - own
    assert common >= {
        "AIRFLOW__CORE__LOAD_EXAMPLES",
        "AIRFLOW__CORE__PARALLELISM",
        "AIRFLOW__SENTRY__INCLUDE_LOCAL_VARIABLES",
    }
    for name in common:
        assert re.sub(r"\$\{\w+:-(.*)\}", r"\1", there[name]) == here[name], name


ASK_AIRFLOW = """
import json, sys
from airflow.cli import cli_parser
from airflow.configuration import conf
given = json.load(sys.stdin)
for command in given["commands"]:
    cli_parser.get_parser().parse_args(command)
known = {(s, k) for s, d in conf.configuration_description.items() for k in d["options"]}
print("UNKNOWN " + json.dumps([[s, k] for s, k in given["options"] if (s, k) not in known]))
"""


def test_airflow_knows_every_command_and_every_setting(tmp_path):
    """Those of the providers celery and fab, which only the image has, are tried in tests/dags/test_image.py."""
    commands = [s["command"].split() for n, s in AIRFLOW.items() if n not in ("init", "worker", "seed")]
    commands += [["jobs", "check", "--job-type", job, "--hostname", "h"] for job in ("DagProcessorJob", "TriggererJob")]
    options = [
        name.removeprefix("AIRFLOW__").lower().split("__")
        for name in {k for s in AIRFLOW.values() for k in _environment(s)}
        if name.startswith("AIRFLOW__") and not name.startswith("AIRFLOW__CELERY__")
    ]
    done = subprocess.run(
        [sys.executable, "-c", ASK_AIRFLOW],
        input=json.dumps({"commands": commands, "options": options}),
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("UNKNOWN ")]
    assert lines, done.stderr[-2000:]
    unknown = json.loads(lines[0].removeprefix("UNKNOWN "))
    # What Airflow doesn't know of [sentry] it hands to the SDK.
    assert [(s, k) for s, k in unknown if s != "sentry" or k not in sentry_sdk.consts.DEFAULT_OPTIONS] == []


def test_the_image_has_the_stacks_airflow_and_locked_packages():
    """The version is the one that the local stack runs."""
    text = (ROOT / "Dockerfile").read_text()
    locked = (ROOT / "constraints-image.txt").read_text()
    assert f"slim-{version('apache-airflow')}-" in text
    assert AIRFLOW["scheduler"]["image"].endswith(f":{version('apache-airflow')}")
    assert "-c /tmp/requirements/constraints-image.txt" in text
    for name in re.search(r"^COPY (.*) /tmp", text, re.MULTILINE)[1].split()[1:]:
        assert (ROOT / name).is_file()
    for requirement in (ROOT / "requirements-image.txt").read_text().splitlines():
        name = re.match(r"[a-z][\w-]*", requirement)
        assert name is None or f"\n{name[0]}==" in locked, f"{requirement}: run make constraints"
    pins = re.findall(r"^([a-z][\w.-]*)==\S+(.*)$", locked, re.MULTILINE)
    assert len(pins) > 200
    assert all(rest.rstrip().endswith("\\") for _, rest in pins), "every pin carries hashes"
