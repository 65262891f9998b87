"""Work in a process of its own, which is killed at it."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

# Each child is forked from a process that has imported the engine before, and has no thread and no connection.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support"])
SECONDS_TO_BEGIN = 60


def _begin(begun: Connection, work: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    begun.send(None)
    work(*arguments, **named)


def killed_at_work(
    work: Callable[..., Any], *arguments: Any, moments: random.Random, within: tuple[float, float], **named: Any
) -> None:
    """Begins the work four times, and each time sends SIGKILL so many seconds later. At least once it must have been at work.
    `work` is a function of a module: the child imports it."""
    killed = 0
    for _ in range(4):
        ours, theirs = PROCESSES.Pipe()
        child = PROCESSES.Process(target=_begin, args=(theirs, work, arguments, named))
        child.start()
        theirs.close()
        assert ours.poll(SECONDS_TO_BEGIN), "the child did not begin"
        ours.recv()
        time.sleep(moments.uniform(*within))
        killed += child.is_alive()
        child.kill()
        child.join()
        child.close()
        ours.close()
    assert killed, "no child was killed at work"
