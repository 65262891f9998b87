"""What the tests of migrations share."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dev import processes
from dualwrite import postgres
from dualwrite.migrations import MigrationParams, Migrator, Step
from dualwrite.migrations.files import folders, list_folders
from tests.kept import forget, looking

NUMBER = len(list_folders(folders()))
"""Migrations of the bundle and of the shipped app."""
NO_TRANSACTION = "-- dualwrite: no-transaction\n"


def migrator(dsn: str, folder: Path | None = None, mode: str = "apply", **changes) -> Migrator:
    options = {} if folder is None else {"among": [folder]}
    return Migrator(lambda: postgres.connect(dsn), MigrationParams(mode=mode, **changes), "run", **options)


def states(steps: list[Step]) -> list[str]:
    return [s.state for s in steps]


def write(folder: Path, *files: str) -> None:
    """Files numbered from 1: 20260101000001_t1.sql and so on."""
    for n, text in enumerate(files, 1):
        (folder / f"2026010100000{n}_t{n}.sql").write_text(text)


def execute(dsn: str, *statements: str) -> None:
    """Each statement as a superuser, committed. After a change of what only a new connection learns, each run connects anew."""
    with looking(dsn) as connection:
        for statement in statements:
            connection.execute(statement)
    if any(statement.startswith(("ALTER DATABASE", "ALTER ROLE")) for statement in statements):
        forget(dsn)


@contextmanager
def role(dsn: str, name: str, attributes: str = "", *grants: str) -> Iterator[str]:
    """The DSN under a role of the test's own, which is gone afterwards with all that it owns."""
    execute(dsn, f'DROP ROLE IF EXISTS "{name}"', f'CREATE ROLE "{name}" LOGIN {attributes}', *grants)
    try:
        yield dsn.replace("postgres@", f"{name}@")
    finally:
        execute(dsn, f'DROP OWNED BY "{name}" CASCADE', f'DROP ROLE "{name}"')


@contextmanager
def transaction_pooler(dsn: str, folder: Path, port: int = 0, **settings: str) -> Iterator[str]:
    """The same database behind a real PgBouncer in transaction mode, with fewer server connections than we open. It listens on
    `port`, or a free one. `settings` are further ones of PgBouncer's."""
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        pytest.skip("no PgBouncer on this machine: apt-get install pgbouncer")
    port = port or processes.free_port()
    server = psycopg.conninfo.conninfo_to_dict(dsn)
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{server['dbname']} = host=127.0.0.1 port={server['port']} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nauth_file = {folder}/users.txt\n"
        "pool_mode = transaction\ndefault_pool_size = 4\n"
        "ignore_startup_parameters = extra_float_digits\nunix_socket_dir =\n"
        + "".join(f"{name} = {value}\n" for name, value in settings.items())
    )
    for file in (folder, folder / "pgbouncer.ini", folder / "users.txt"):
        file.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/") and str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    command = [binary, str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:
        command[1:1] = ["-u", "nobody"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pooled = f"postgresql://postgres@127.0.0.1:{port}/{server['dbname']}"
    try:
        for _ in range(100):
            try:
                psycopg.connect(pooled).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        yield pooled
    finally:
        process.kill()  # one that is asked to stop waits for its clients
        process.wait()
