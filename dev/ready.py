"""Checks, before an installation that takes minutes, for the programs that the local stack needs and `make` can't install.

Runs with the Python that `make` was given, before there is a virtual environment. `make up` names its port.
"""

from __future__ import annotations

import os
import sys

from dev import emulator, processes


def check(port: str | None = None) -> None:
    """Raises Missing with the first thing that is missing, and how to get it."""
    emulator.java()
    emulator.find_jar()
    if port is not None:
        free_for_the_ui(port_of(port))


def port_of(text: str) -> int:
    """The port of Airflow's UI, from the environment."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise processes.Missing(f"PORT is a number from 1 to 65535: it is {text!r}. Correct it: make up PORT=8081.")
    return int(text)


def free_for_the_ui(port: int) -> None:
    """Raises Missing if the port is taken."""
    if processes.port_is_taken(port):
        raise processes.Missing(f"port {port} for Airflow's UI is taken. Choose another: make up PORT={port + 1}.")


if __name__ == "__main__":
    check((os.environ.get("PORT") or "8080") if "up" in sys.argv else None)
