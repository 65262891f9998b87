"""Child processes that never outlive their parent, and free ports."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 4 << 30
"""Bytes that must be free there: each of three servers takes 100 MB, and may keep 1 GB of its log."""


class Missing(SystemExit):
    """Something that the stack needs is missing. The message is one line: its name, and how to get it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"dev: {message}")


def keep_temporary_files_in_memory() -> None:
    """Temporary files of this process and its children go to memory, if there is room for them and no other place was chosen.
    Each test has a database of its own, some 400 files: copying them takes 0.02 s of CPU there, 0.3 s on ext4.

    A container's is often mounted noexec: Postgres's binaries and a test's virtual environment could not run there.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return
    if shutil.disk_usage(MEMORY).free > MEMORY_NEEDED:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # it remembers its first answer


def free_port() -> int:
    """A port of the loopback that is free now; another process may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_taken(port: int) -> bool:
    """Whether a process listens on this port, so that no other can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def die_with_parent() -> None:
    """In the child: a session of its own (so that a whole group can be ended), and SIGTERM when the parent dies,
    however it dies."""
    os.setsid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a program in a process group of its own, its output in `log`; `identity` may name user and group ids."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd="/",
            preexec_fn=die_with_parent,  # after the user is changed, which would clear the death signal
            **(identity or {}),
        )


def stop(*group: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
    """Ends processes and the groups that they lead, all at once: with SIGTERM, and after `seconds` with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        deadline = time.monotonic() + seconds
        for process in group:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(deadline - time.monotonic(), 0))
        if all(process.returncode is not None for process in group):
            break
    for process in group:  # members of a group that outlived its leader
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(
    answers: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path, seconds: float = 60.0
) -> None:
    """Waits until `answers()` is true. Raises Missing with the end of the log if the process dies or takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if answers():
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it wrote nothing"]
    raise Missing(f"{name} did not start ({tail[0]}). See {log}.")
