"""The official Firestore emulator: found, never downloaded."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dev import processes
from dev.processes import Missing

_MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


def find_jar() -> Path:
    """The emulator's jar: FIRESTORE_EMULATOR_JAR, or the one in gcloud's folder or in firebase-tools' cache. Raises Missing."""
    named = os.environ.get("FIRESTORE_EMULATOR_JAR")
    if named:
        if not Path(named).is_file():
            raise Missing(f"FIRESTORE_EMULATOR_JAR names no file: {named}. Correct it or unset it.")
        return Path(named)
    below_gcloud = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
    roots = [Path("/usr/lib/google-cloud-sdk"), Path("/usr/share/google-cloud-sdk"), Path.home() / "google-cloud-sdk"]
    gcloud = shutil.which("gcloud")
    if gcloud:
        roots.insert(0, Path(gcloud).resolve().parent.parent)
    for root in roots:
        if (root / below_gcloud).is_file():
            return root / below_gcloud
    cached = sorted((Path.home() / ".cache/firebase/emulators").glob("cloud-firestore-emulator-*.jar"))
    if cached:
        return cached[-1]
    raise Missing(
        "the Firestore emulator is missing. Install it with `gcloud components install cloud-firestore-emulator`, "
        "`apt-get install google-cloud-cli-firestore-emulator`, or `npx firebase-tools setup:emulators:firestore`; "
        "or set FIRESTORE_EMULATOR_JAR to its .jar."
    )


def java() -> str:
    """The path of a Java that the emulator runs on. Raises Missing."""
    program = shutil.which("java")
    if program is None:
        raise Missing("Java is missing. Install it with `apt-get install openjdk-17-jre-headless`.")
    version = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    number = re.search(r'version "(\d+)', version)
    if number is None or int(number.group(1)) < 11:
        raise Missing(
            f"Java 11 or newer is needed; `{program} -version` says otherwise. Install openjdk-17-jre-headless."
        )
    return program


def _answers(host: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{host}/", timeout=1) as answer:
        return bool(answer.status == 200)
    return False


@contextlib.contextmanager
def emulator(folder: Path, port: int | None = None, *, heap_mib: int = 4096, optimised: bool = False) -> Iterator[str]:
    """Runs the emulator until the block ends. Yields host:port. A project id is a database of its own in it.

    `optimised` is for benchmarks: Java's second compiler costs a minute of CPU, which pays only after some minutes, and
    its usual garbage collector runs beside the program, on cores that are busy here.
    """
    program, jar = java(), find_jar()
    if port is not None and processes.port_is_taken(port):
        raise Missing(f"port {port} for the Firestore emulator is taken. Free it, or run `make down`.")
    host = f"127.0.0.1:{port or processes.free_port()}"
    log = folder / "emulator.log"
    command = [
        program,
        f"-Xmx{heap_mib}m",
        *([] if optimised else ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]),
        "-cp",
        str(jar),
        _MAIN_CLASS,
        "start",
        "--host=127.0.0.1",
        f"--port={host.split(':')[1]}",
    ]
    process = processes.start(command, log=log)
    try:
        processes.wait_until(lambda: _answers(host), process, "the Firestore emulator", log)
        yield host
    finally:
        processes.stop(process)
