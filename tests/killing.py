"""A module of tests/ that works in a process of its own, and is killed at it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def killed_at_work(module: str, *arguments: object, moments: random.Random, within: tuple[float, float]) -> None:
    """Runs the module four times, and each time sends SIGKILL so many seconds after it said "begin". At least once it must
    have been at work."""
    killed = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'dags'}:{ROOT}"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"begin\n"
            time.sleep(moments.uniform(*within))
            killed += child.poll() is None
            child.kill()
    assert killed, "no child was killed at work"
