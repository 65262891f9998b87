"""Several ways of doing one thing, timed side by side.

Each round runs every side once, so a busy minute of the machine falls on all of them. The printed numbers are medians over the
rounds; a ratio is taken within a round, then its median.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Side:
    """One way: `work` returns how many documents it dealt with. `prepare` isn't timed."""

    name: str
    work: Callable[[], int]
    prepare: Callable[[], object] = lambda: None


def measure(sides: Sequence[Side], rounds: int) -> None:
    """Prints documents a second of each side and its ratio to the first one; and the CPU time a document takes in this
    process and in all (the emulator and Postgres are its children), which other programs disturb least."""
    seen: dict[str, list[tuple[float, float, float]]] = {side.name: [] for side in sides}
    for number in range(rounds + 1):
        for side in sides:
            side.prepare()
            began, cpu, cpu_of_all = time.perf_counter(), time.process_time(), _cpu_of_all()
            done = side.work()
            seconds = time.perf_counter() - began
            costs = time.process_time() - cpu, _cpu_of_all() - cpu_of_all
            if number:  # the first round warms up the emulator's JVM and Postgres's cache
                here, everywhere = (cost / done * 1e6 for cost in costs)
                seen[side.name].append((done / seconds, here, everywhere))
    print(f"\n| {'':<63} | documents/s | of the raw drain | CPU us here | in all |")
    print(f"|{'-' * 65}|{'-' * 12}:|{'-' * 17}:|{'-' * 12}:|{'-' * 7}:|")
    first = [rate for rate, _, _ in seen[sides[0].name]]
    for side in sides:
        rate, here, everywhere = (median(values) for values in zip(*seen[side.name], strict=True))
        ratio = median(r / base for (r, _, _), base in zip(seen[side.name], first, strict=True))
        print(f"| {side.name:<63} | {rate:>11,.0f} | {ratio:>16.2f} | {here:>11.0f} | {everywhere:>6.0f} |", flush=True)


def _cpu_of_all() -> float:
    """CPU seconds of this process and everything that it started (Linux), to about 0.01 s."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = entry.read_text().rpartition(")")[2].split()
            pid = int(entry.parent.name)
            children.setdefault(int(fields[1]), []).append(pid)
            # of its ended children too: a Postgres backend ends with its connection
            ticks[pid] = sum(map(int, fields[11:15]))
    todo, total = [os.getpid()], 0
    while todo:
        pid = todo.pop()
        total += ticks.get(pid, 0)
        todo += children.get(pid, [])
    return total / os.sysconf("SC_CLK_TCK")
